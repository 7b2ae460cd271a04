"""A small GPT on a text, trained without the command line."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

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
from seqexp.config.tokenizer import TokenizerConfig
from seqexp.data.base import Data
from seqexp.data.text import TextData
from seqexp.metrics.metric import Metric
from seqexp.models.gpt_options import GPTConfig
from seqexp.tasks.base import EvalOptions, Task
from seqexp.tasks.language_modeling import LanguageModeling
from seqexp.tracking.metrics import MetricsLog
from seqexp.tracking.run_folder import RunFolder, read_metrics
from seqexp.training.device import setup_device
from seqexp.training.loop import Trainer

Main = Callable[..., Ran]
CPU = torch.device("cpu")


def make_config(path: Path, **groups: dict[str, Any]) -> TrainConfig:
    """A tiny training of the text in `path`; each keyword changes settings of a group."""
    with_defaults: dict[str, Any] = {
        "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "max_len": 16},
        "data": {"name": "text", "path": str(path), "seq_len": 16, "batch_size": 4},
        "trainer": {"max_steps": 4, "eval_every": 2, "log_every": 1, "sample_tokens": 0, "max_grad_norm": 0},
    }
    options = {name: {**with_defaults.get(name, {}), **groups.get(name, {})} for name in with_defaults}
    optimizer = groups.get("optimizer", {"name": "adamw", "lr": 1e-2})
    options_of = groups.get("scheduler", {"name": "constant"})
    scheduler = registry.load_schema("scheduler", options_of["name"])(**options_of)
    return TrainConfig(
        model=GPTConfig(**options["model"]),
        task=LanguageModelingConfig(**groups.get("task", {})),
        tokenizer=TokenizerConfig(**groups.get("tokenizer", {"name": "char"})),
        optimizer=(SGDConfig if optimizer["name"] == "sgd" else AdamConfig)(**optimizer),
        scheduler=scheduler,
        data=OwnTextConfig(**options["data"]),
        device=DeviceConfig(name="cpu", precision="fp32", compile="false", threads=1),
        trainer=TrainerConfig(**options["trainer"]),
        sweep=SweepConfig("none"),
        name="test",
    )


def make_trainer(config: TrainConfig, folder: str = "run") -> Trainer:
    """As `seqexp train` builds it; the same configuration always begins with the same weights."""
    device = setup_device(config.device)
    torch.manual_seed(config.seed)
    data = TextData.build(config.data, config.tokenizer, config.seed)
    model = build_model(config.model, data.preprocessor.sizes())
    Path(folder).mkdir()
    task = LanguageModeling(config.task)
    return Trainer(config, model, model, task, data, device, RunFolder(Path(folder)))


def fit(trainer: Trainer) -> str:
    metrics = MetricsLog(trainer.run.metrics_file, trainer.run.path / "tensorboard")
    try:
        return trainer.fit(metrics)
    finally:
        metrics.close()


def logged(trainer: Trainer, name: str) -> dict[int, float]:
    return {row["step"]: row[name] for row in read_metrics(trainer.run.metrics_file) if name in row}


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def evaluate_split(
    task: Task, model: Any, data: Data, split: str, device: object = CPU, autocast: Any = nullcontext
) -> dict[str, Metric]:
    """The metrics of a split by name, such as ``val/loss``."""
    del device
    found = task.evaluate(model, data, split, EvalOptions(autocast))
    return {f"{split}/{name}": metric for name, metric in found.items()}
