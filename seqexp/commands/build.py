"""Build models, tasks and trained runs from a configuration or a run's folder."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from seqexp import registry
from seqexp.config.root import TrainConfig
from seqexp.config.run import DeviceConfig
from seqexp.data.preprocessor import Preprocessor
from seqexp.errors import UserError
from seqexp.tasks.base import Task
from seqexp.tracking.run_folder import RunFolder, find_run
from seqexp.training.checkpoint import Checkpoints
from seqexp.training.device import Device, setup_device
from seqexp.training.lora import add_lora
from seqexp.training.misfit import MISFIT


def build_model(config: Any, sizes: dict[str, Any]) -> nn.Module:
    """Build the model that `config.name` names; `sizes` are the sizes that the data decides."""
    outside = ("name", *getattr(config, "OUTSIDE", ()))
    options = {key: value for key, value in asdict(config).items() if key not in outside}
    model: nn.Module = registry.load("model", config.name)(**sizes, **options)
    if hasattr(config, "lora"):
        add_lora(model, config.lora)
    return model


def build_model_for(task: Task, config: Any, preprocessor: Preprocessor) -> nn.Module:
    """Build a model with the outputs and the further parameters that a task needs."""
    model = build_model(config, task.sizes(preprocessor))
    task.extend(model, preprocessor)
    return model


def check_carried_state(config: TrainConfig, model: nn.Module) -> None:
    """Raise UserError if a state is to be carried over and the model has none."""
    if getattr(config.data, "carry_state", False) and not hasattr(model, "continue_from"):
        raise UserError(
            "data.carry_state=true needs a model that carries a state from step to step, and "
            f"model={config.model.name} has none; leave it out, or use a recurrent model."
        )


def build_task(config: Any) -> Task:
    task: Task = registry.load("task", config.name)(config)
    return task


@dataclass
class TrainedRun:
    """A run with its model and preprocessor, loaded for eval and generate."""

    folder: RunFolder
    config: TrainConfig
    model: nn.Module
    preprocessor: Preprocessor
    step: int
    device: Device


def set_up_device(device: DeviceConfig, config: TrainConfig) -> Device:
    """Set up the device of a run; ``precision=auto`` is the `auto_precision` of its model or task, if any."""
    kinds = (registry.load("model", config.model.name), registry.load("task", config.task.name))
    preferred = next((kind.auto_precision for kind in kinds if getattr(kind, "auto_precision", None)), None)
    if device.precision == "auto" and preferred:
        device = replace(device, precision=preferred)
    return setup_device(device)


def load_trained_run(folder: RunFolder, checkpoint: str, device: DeviceConfig) -> TrainedRun:
    """Load the model of a run at a checkpoint, in evaluation mode on its device.

    Raises:
        UserError: the checkpoint is missing, or does not fit the run's configuration.
    """
    config = folder.read_config()
    where = set_up_device(device, config)
    state = Checkpoints(folder).load(checkpoint)
    preprocessor = Preprocessor.from_plain(state.get("preprocessor"))
    task = build_task(config.task)
    try:
        with torch.device("meta"):  # allocates no memory: the sizes in the configuration are untrusted
            build_model_for(task, config.model, preprocessor).load_state_dict(state["model"], assign=True)
        model = build_model_for(task, config.model, preprocessor)
        model.load_state_dict(state["model"])
    except MISFIT as error:
        raise UserError(
            f"the checkpoint {checkpoint} of {folder.path} does not fit its config.yaml "
            f"({str(error).splitlines()[0]})."
        ) from error
    check_carried_state(config, model)
    model.to(where.torch).eval()
    return TrainedRun(folder, config, model, preprocessor, int(state["step"]), where)


def with_ensemble(
    task: Task, trained: TrainedRun, others: list[str], checkpoint: str, device: DeviceConfig
) -> tuple[Any, list[str]]:
    """Return the model of a run, combined with those of `others`, and the folders of the others.

    Raises:
        UserError: another run has different tokenizers, or the task cannot combine models.
    """
    if not others:
        return trained.model, []
    models, folders = [trained.model], []
    for other in others:
        run = load_trained_run(find_run(other, key="ensemble"), checkpoint, device)
        if _tokenizer_hashes(run.preprocessor) != _tokenizer_hashes(trained.preprocessor):
            raise UserError(
                f"ensemble: {other} has other tokenizers than {trained.folder.path}; the models of an "
                "ensemble must share them: train with the same data, tokenizer and split, and another seed."
            )
        models.append(run.model)
        folders.append(str(run.folder.path))
    return task.combine(models), folders


def _tokenizer_hashes(preprocessor: Preprocessor) -> dict[str, str]:
    return {role: tokenizer.hash() for role, tokenizer in preprocessor.tokenizers.items()}


def parameter_report(model: nn.Module) -> dict[str, int]:
    """Return the number of trainable parameters in total, and by part if the model has `parameter_counts`."""
    total = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    parts: dict[str, int] = {}
    count: Callable[[], dict[str, int]] | None = getattr(model, "parameter_counts", None)
    if count:
        parts = {part: n for part, n in count().items() if n}
    return {"total": total, **parts}
