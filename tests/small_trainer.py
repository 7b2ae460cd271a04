"""A small GPT on a text, trained without the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from conftest import Ran
from torch import Tensor

from seqexp.commands.build import build_model
from seqexp.config.data import TextDataConfig
from seqexp.config.optimizer import AdamConfig, SchedulerConfig, SGDConfig
from seqexp.config.root import SweepConfig, TrainConfig
from seqexp.config.run import DeviceConfig, TrainerConfig
from seqexp.config.task import LanguageModelingConfig
from seqexp.config.tokenizer import TokenizerConfig
from seqexp.data.text import TextData
from seqexp.models.gpt_options import GPTConfig
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
    return TrainConfig(
        model=GPTConfig(**options["model"]),
        task=LanguageModelingConfig(**groups.get("task", {})),
        tokenizer=TokenizerConfig(**groups.get("tokenizer", {"name": "char"})),
        optimizer=(SGDConfig if optimizer["name"] == "sgd" else AdamConfig)(**optimizer),
        scheduler=SchedulerConfig(**groups.get("scheduler", {"name": "constant"})),
        data=TextDataConfig(**options["data"]),
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
    model = build_model(config.model, data.sizes(data.tokenizer))
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
