"""A small GPT on a text, trained without the command line."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ran
from torch import Tensor

from seqexp import registry
from seqexp.commands.build import build_model
from seqexp.config.data import OwnTextConfig
from seqexp.config.optimizer import AdamConfig, SGDConfig
from seqexp.config.root import SweepConfig, TrainConfig
from seqexp.config.run import DeviceConfig, TrainerConfig
from seqexp.config.task import LanguageModelingConfig
from seqexp.data.base import Data
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.text import TextData
from seqexp.metrics.metric import Metric, MetricSpec
from seqexp.models.gpt_options import GPTConfig
from seqexp.tasks.base import Task
from seqexp.tasks.language_modeling import LanguageModeling
from seqexp.tracking.metrics import MetricsLog
from seqexp.tracking.run_folder import RunFolder, read_metrics
from seqexp.training.checkpoint import Checkpoints
from seqexp.training.device import setup_device
from seqexp.training.hooks.ema import EMA
from seqexp.training.loop import Trainer

Main = Callable[..., Ran]


def make_config(path: Path, **groups: dict[str, Any]) -> TrainConfig:
    """A tiny training of the text in `path`; each keyword changes settings of a group."""
    with_defaults: dict[str, Any] = {
        "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "max_len": 16},
        "data": {"name": "text", "path": str(path), "seq_len": 16, "batch_size": 4},
        "trainer": {"max_steps": 4, "eval_every": 2, "log_every": 1, "sample_tokens": 0, "max_grad_norm": 0},
    }
    options = {name: {**with_defaults.get(name, {}), **groups.get(name, {})} for name in with_defaults}
    optimizer = groups.get("optimizer", {"name": "adamw", "lr": 1e-2})

    def of(group: str, default: str) -> Any:
        settings = groups.get(group, {"name": default})
        return registry.load_schema(group, settings["name"])(**settings)

    return TrainConfig(
        model=GPTConfig(**options["model"]),
        task=LanguageModelingConfig(**groups.get("task", {})),
        tokenizer=of("tokenizer", "char"),
        optimizer=(SGDConfig if optimizer["name"] == "sgd" else AdamConfig)(**optimizer),
        scheduler=of("scheduler", "constant"),
        data=OwnTextConfig(**options["data"]),
        device=DeviceConfig(name="cpu", precision="fp32", compile="false", threads=1),
        trainer=TrainerConfig(**options["trainer"]),
        sweep=SweepConfig("none"),
        name="test",
    )


def make_trainer(config: TrainConfig, folder: str = "run") -> Trainer:
    """As `seqexp train` builds it; the same configuration always begins with the same weights.

    A training with `trainer.ema_decay` has the hook of that.
    """
    device = setup_device(config.device)
    torch.manual_seed(config.seed)
    data = TextData.build(config.data, config.tokenizer, config.seed)
    model = build_model(config.model, data.preprocessor.sizes())
    Path(folder).mkdir()
    task = LanguageModeling(config.task)
    decay = config.trainer.ema_decay
    hooks = [] if decay is None else [EMA(model, task, decay)]
    return Trainer(config, model, model, task, data, device, RunFolder(Path(folder)), hooks)


def go_on(trainer: Trainer, config: TrainConfig) -> Trainer:
    """A trainer in the same run folder, from its newest checkpoint."""
    name = trainer.run.path.name
    again = make_trainer(config, f"{name} again {len(list(Path().glob(f'{name}*')))}")
    again.run = trainer.run
    again.checkpoints = again.nonfinite.checkpoints = Checkpoints(
        trainer.run, config.trainer.keep_last, config.trainer.keep_best, config.trainer.monitor, again.mode
    )
    again.load_state(again.checkpoints.load_newest())
    return again


def fit(trainer: Trainer) -> str:
    metrics = MetricsLog(trainer.run.metrics_file, trainer.run.path / "tensorboard")
    try:
        return trainer.fit(metrics)
    finally:
        metrics.close()


def logged(trainer: Trainer, name: str) -> dict[int, float]:
    """The values of a metric by step; a step that was logged twice fails the test."""
    rows = [row for row in read_metrics(trainer.run.metrics_file) if name in row]
    found = {row["step"]: row[name] for row in rows}
    assert len(found) == len(rows), f"{name} was logged twice: {[row['step'] for row in rows]}"
    return found


def logged_steps(trainer: Trainer, name: str) -> list[int]:
    """The steps at which a metric was logged, in the order of the file."""
    return [row["step"] for row in read_metrics(trainer.run.metrics_file) if name in row]


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def evaluate_split(task: Task, model: Any, data: Data, split: str) -> dict[str, Metric]:
    """The metrics of a split by name, such as ``val/loss``."""
    return {f"{split}/{name}": metric for name, metric in task.evaluate(model, data, split).items()}


def validated(trainer: Trainer) -> dict[str, float]:
    """The values of a validation by name."""
    return {name: metric.value for name, metric in trainer.validate().items()}


def answer(
    monkeypatch: pytest.MonkeyPatch, values: Iterable[float], monitor: str = "val/loss"
) -> Iterator[float]:
    """Let validations of any trainer give these values, one after the other; the values that are left."""
    left = iter(values)
    spec = MetricSpec(higher_is_better=monitor != "val/loss")
    monkeypatch.setattr(Trainer, "validate", lambda self: {monitor: spec.of(next(left), 1)})
    return left


def token_batch(inputs: Tensor, targets: Tensor) -> Batch:
    """A batch of these inputs and targets (B, T); targets of -100 do not count."""
    return Batch({"inputs": inputs, "targets": targets}, (targets != IGNORE).sum(1).numpy())
