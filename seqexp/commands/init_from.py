"""`seqexp train init_from=…`: start a new run with the weights of another."""

import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqexp.commands.resume import group_overrides
from seqexp.config.root import TrainConfig
from seqexp.errors import UserError
from seqexp.quoting import quote, unquote

if TYPE_CHECKING:
    from torch import nn

    from seqexp.data.preprocessor import Preprocessor
    from seqexp.tracking.run_folder import RunFolder

log = logging.getLogger(__name__)

# Groups whose settings come from the other run, unless they are overridden.
INHERITED = ("model", "tokenizer")
# Limit for printed parameter names; the manifest has all of them.
MOST_SHOWN = 6


def find_source(value: str) -> "tuple[RunFolder, str]":
    """Return the run and the checkpoint that `init_from` names; for a folder the best, else the last one.

    Raises:
        UserError: there is no such run, or the file is not a checkpoint of a run.
    """
    from seqexp.tracking.run_folder import RunFolder, find_run

    file = Path(value)
    found = re.fullmatch(r"step_(\d+)(?:\.ema)?\.(?:safetensors|pt)", file.name)
    if found and file.parent.name == "checkpoints":
        return find_run(str(file.parent.parent), key="init_from"), str(int(found[1]))
    if file.is_file():
        raise UserError(
            f"init_from={value} is a file, but not a checkpoint of a run; give a run's folder, a "
            "checkpoints/step_<n>.safetensors in one, or latest."
        )
    run = find_run(value, key="init_from")
    assert isinstance(run, RunFolder)
    from seqexp.training.checkpoint import Checkpoints

    return run, "best" if "best" in Checkpoints(run).index else "last"


def insert_source_overrides(value: str) -> None:
    """Insert overrides with the other run's model and tokenizer before those in ``sys.argv``."""
    quoted = value.startswith("'") and value.endswith("'")
    run, checkpoint = find_source(unquote(value) if quoted else value)
    saved = run.read_config()
    typed = [one for one in sys.argv[1:] if not one.lstrip("+").startswith("init_from=")]
    chosen = {one.partition("=")[0].lstrip("+"): one.partition("=")[2] for one in typed if "=" in one}
    overrides: list[str] = []
    for group in INHERITED:
        settings = getattr(saved, group)
        if group in chosen and chosen[group] != settings.name:
            continue  # another model or tokenizer, with its own settings
        # Options outside a model, such as low-rank updates, were those of the other run's training.
        outside = tuple(f"{group}.{option}" for option in getattr(settings, "OUTSIDE", ()))
        inherited = [one for one in group_overrides(group, settings) if not one.startswith(outside)]
        if group == "model":
            # The model's own file, which may choose a task for it; all its settings follow.
            inherited[0] = f"model={settings.name}"
        overrides += inherited[1:] if group in chosen else inherited
    file = run.checkpoints / "index.json"
    source = str(run.path) if checkpoint in ("best", "last") else str(file.with_name(_step_file(checkpoint)))
    sys.argv = [sys.argv[0], *_flags(typed), *overrides, *_overrides(typed), f"init_from={quote(source)}"]


def _step_file(step: str) -> str:
    return f"step_{int(step):08d}.safetensors"


def _flags(arguments: list[str]) -> list[str]:
    return arguments[: _first_override(arguments)]


def _overrides(arguments: list[str]) -> list[str]:
    return arguments[_first_override(arguments) :]


def _first_override(arguments: list[str]) -> int:
    """Return the index of the first override; flags and their values come first (`cli.flags_first`)."""
    last = max((i for i, one in enumerate(arguments) if one.startswith("-")), default=-1)
    return next((i for i, one in enumerate(arguments) if i > last and "=" in one), len(arguments))


@dataclass
class Source:
    """Weights, preprocessor and configuration of another run, at a step."""

    run: str
    step: int
    weights: dict[str, Any]
    preprocessor: "Preprocessor"
    config: TrainConfig

    @classmethod
    def load(cls, value: str) -> "Source":
        """Read the checkpoint that `init_from` names.

        Raises:
            UserError: the checkpoint cannot be read.
        """
        from seqexp.data.preprocessor import Preprocessor
        from seqexp.training.checkpoint import Checkpoints
        from seqexp.training.lora import merge_lora

        run, checkpoint = find_source(value)
        state = Checkpoints(run).load(checkpoint)
        preprocessor = Preprocessor.from_plain(state.get("preprocessor"))
        config = run.read_config()
        weights = state["model"]
        if hasattr(config.model, "lora"):
            weights = merge_lora(weights, config.model.lora)
        return cls(str(run.path), int(state["step"]), weights, preprocessor, config)

    def preprocessor_for(self, config: TrainConfig) -> "Preprocessor | None":
        """Return the preprocessor to take over; None if another tokenizer was chosen."""
        return self.preprocessor if config.tokenizer == self.config.tokenizer else None

    def initialise(self, model: "nn.Module") -> dict[str, Any]:
        """Copy the weights of equal name and shape into the model; return what was taken, left and new.

        Raises:
            UserError: no weight has the name and shape of one of the model's.
        """
        from seqexp.training.lora import own_names

        names, state = own_names(model), model.state_dict()
        own = {name: state[here] for name, here in names.items()}
        fitting = {
            name for name in own if name in self.weights and own[name].shape == self.weights[name].shape
        }
        if not fitting:
            raise UserError(
                f"init_from={self.run}: none of its weights has the name and shape of one of the model's; "
                f"use model={self.config.model.name}, or leave model= out."
            )
        model.load_state_dict({**state, **{names[name]: self.weights[name] for name in fitting}})
        other_shape = {
            name: f"{tuple(self.weights[name].shape)} there, {tuple(own[name].shape)} here"
            for name in own
            if name in self.weights and name not in fitting
        }
        report: dict[str, Any] = {
            "run": self.run,
            "step": self.step,
            "taken": sorted(fitting),
            "left": sorted(set(self.weights) - set(own)),
            "new": sorted(set(own) - fitting),
            "other_shape": other_shape,
        }
        log.info("weights %s, step %d: %d taken", self.run, self.step, len(fitting))
        for key, label in (("left", "left there"), ("new", "newly made")):
            if report[key]:
                log.info("        %d %s: %s", len(report[key]), label, _shown(report[key]))
        for name, shapes in list(other_shape.items())[:MOST_SHOWN]:
            log.warning("NOTE: %s has another shape (%s) and is newly made", name, shapes)
        return report


def _shown(names: list[str]) -> str:
    return ", ".join(names[:MOST_SHOWN]) + (", …" if len(names) > MOST_SHOWN else "")
