"""From a configuration, or from the folder of a run, to the objects that the commands work with."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from seqexp import registry
from seqexp.config.root import TrainConfig
from seqexp.config.run import DeviceConfig
from seqexp.decoding.ensemble import Ensemble
from seqexp.errors import UserError
from seqexp.tasks.base import Task
from seqexp.tracking.run_folder import RunFolder, find_run
from seqexp.training.checkpoint import MISFIT, Checkpoints
from seqexp.training.device import Device, setup_device


def build_model(config: Any, sizes: dict[str, int]) -> nn.Module:
    """The model that `config.name` names; `sizes` are what the data decides."""
    options = {key: value for key, value in asdict(config).items() if key != "name"}
    model: nn.Module = registry.load("model", config.name)(**sizes, **options)
    return model


def check_carried_state(config: TrainConfig, model: nn.Module) -> None:
    """Raises UserError if a state is to be carried over, and the model has none."""
    if getattr(config.data, "carry_state", False) and not hasattr(model, "continue_from"):
        raise UserError(
            "data.carry_state=true needs a recurrent model (model=rnn, lstm or gru), and "
            f"model={config.model.name} was given."
        )


def build_task(config: Any) -> Task:
    task: Task = registry.load("task", config.name)(config)
    return task


@dataclass
class TrainedRun:
    """A run as eval and generate need it."""

    folder: RunFolder
    config: TrainConfig
    model: nn.Module
    tokenizer: Any  # a Tokenizer, or for translation a PairTokenizer
    step: int
    device: Device


def set_up_device(device: DeviceConfig, config: TrainConfig) -> Device:
    """The device for a run; precision=auto is fp32 where its model or its task is made for that."""
    kinds = (registry.load("model", config.model.name), registry.load("task", config.task.name))
    fp32 = any(getattr(kind, "auto_precision", None) == "fp32" for kind in kinds)
    if device.precision == "auto" and fp32:
        device = replace(device, precision="fp32")
    return setup_device(device)


def load_trained_run(folder: RunFolder, checkpoint: str, device: DeviceConfig) -> TrainedRun:
    """The model of a run at a checkpoint, in evaluation mode on its device.

    Raises:
        UserError: the checkpoint is not there, or does not fit the run's configuration.
    """
    config = folder.read_config()
    where = set_up_device(device, config)
    state = Checkpoints(folder).load(checkpoint)
    data = registry.load("data", config.data.name)
    tokenizer = data.read_tokenizer(state.get("tokenizer"))
    sizes = data.sizes(tokenizer)
    try:
        with torch.device("meta"):  # takes no memory, whatever sizes a stranger's configuration asks for
            build_model(config.model, sizes).load_state_dict(state["model"], assign=True)
        model = build_model(config.model, sizes)
        model.load_state_dict(state["model"])
    except MISFIT as error:
        raise UserError(
            f"the checkpoint {checkpoint} of {folder.path} does not fit its config.yaml "
            f"({str(error).splitlines()[0]})."
        ) from error
    check_carried_state(config, model)
    model.to(where.torch).eval()
    return TrainedRun(folder, config, model, tokenizer, int(state["step"]), where)


def with_ensemble(
    trained: TrainedRun, others: list[str], checkpoint: str, device: DeviceConfig
) -> tuple[Any, list[str]]:
    """The model of a translation run, or an ensemble of it and other runs; and the folders of these.

    Raises:
        UserError: another run has other tokenizers, or is no translation run.
    """
    if not others:
        return trained.model, []
    models, folders = [trained.model], []
    for other in others:
        run = load_trained_run(find_run(other, key="ensemble"), checkpoint, device)
        same = getattr(run.tokenizer, "sides", None) and [side.hash() for side in run.tokenizer.sides] == [
            side.hash() for side in trained.tokenizer.sides
        ]
        if not same:
            raise UserError(
                f"ensemble: {other} has other tokenizers than {trained.folder.path}; models that decide "
                "together must share them: train with the same data, tokenizer and split, and another seed."
            )
        models.append(run.model)
        folders.append(str(run.folder.path))
    return Ensemble(models), folders


def parameter_report(model: nn.Module) -> dict[str, int]:
    """The number of trainable parameters in all, and by part where the model tells."""
    total = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    parts: dict[str, int] = {}
    count: Callable[[], dict[str, int]] | None = getattr(model, "parameter_counts", None)
    if count:
        parts = {part: n for part, n in count().items() if n}
    return {"total": total, **parts}
