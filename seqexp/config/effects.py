"""Notes on settings without effect, which are logged and recorded."""

from dataclasses import fields, is_dataclass
from typing import Any

from seqexp.config.root import TrainConfig
from seqexp.config.run import GenerationConfig


def without_effect(config: TrainConfig, steps: int | None) -> list[str]:
    """Return notes on settings of a training run that have no effect, or not the expected one.

    `steps` is the planned number of steps, or None if only minutes are given. A group's dataclass
    may have a method `without_effect` that returns notes on its own settings, and so may a dataclass in it.
    """
    notes: list[str] = []
    for spec in fields(config):
        settings = getattr(config, spec.name)
        inner = [getattr(settings, one.name) for one in fields(settings)] if is_dataclass(settings) else []
        for part in (settings, *inner):
            own = getattr(part, "without_effect", None)
            notes += own() if own else []
    notes += unused_generation(config.generation, config.task)
    warmup = config.scheduler.warmup_steps
    if steps and warmup >= steps:
        notes.append(
            f"scheduler.warmup_steps={warmup} is not shorter than the run ({steps:,} steps): the rate "
            f"does not reach optimizer.lr={config.optimizer.lr:g}"
        )
    return notes


def unused_generation(generation: GenerationConfig, task: Any) -> list[str]:
    """Return notes on changed settings of generation that a task does not read.

    `task` is the configuration of the task.
    """
    used, default = getattr(task, "GENERATION", None), GenerationConfig()
    if used is None:
        return []
    changed = [
        spec.name
        for spec in fields(generation)
        if getattr(generation, spec.name) != getattr(default, spec.name)
    ]
    read = ", ".join(f"generation.{key}" for key in used) or "no settings of generation"
    return [
        f"generation.{name}={getattr(generation, name)} has no effect on task={task.name}, which reads {read}"
        for name in changed
        if name not in used
    ]
