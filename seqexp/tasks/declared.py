"""The metrics that a training run declares before it begins."""

from seqexp import registry
from seqexp.config.root import TrainConfig
from seqexp.exams.runner import ACCURACY
from seqexp.metrics.metric import RUN_METRICS, MetricSpec


def declared_metrics(config: TrainConfig) -> dict[str, MetricSpec]:
    """Return the metrics of validations (such as ``val/loss``), of exams, and of every run, by name."""
    task = registry.load("task", config.task.name)(config.task)
    found = {f"val/{name}": spec for name, spec in task.metrics.items()}
    if config.trainer.ema_decay is not None:
        found |= {f"val_ema/{name}": spec for name, spec in task.metrics.items()}
    found |= {f"exam/{name}": ACCURACY for name in config.exams.wanted}
    return {**found, **RUN_METRICS}
