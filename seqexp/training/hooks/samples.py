"""A sample of what the model makes, at every validation."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from seqexp.metrics.metric import Metric
from seqexp.tasks.base import PredictOptions
from seqexp.tracking.plots import save
from seqexp.training.hooks.base import Hook

if TYPE_CHECKING:
    from seqexp.training.loop import Trainer


class Samples(Hook):
    """Write the sample of the task, and its pictures, to ``samples/`` and TensorBoard."""

    def at_validation(self, trainer: "Trainer", results: dict[str, Metric]) -> None:
        if not math.isfinite(results["val/loss"].value):
            return
        tokens = trainer.settings.sample_tokens
        generation = replace(trainer.config.generation, max_new_tokens=tokens, num_samples=1)
        options = PredictOptions(generation, trainer.config.seed)
        trainer.model.eval()
        sample = trainer.task.sample(trainer.model, trainer.data, options)
        trainer.model.train()
        if sample is None:
            return
        folder, step = trainer.run.subfolder("samples"), trainer.step
        (folder / f"step_{step:08d}.txt").write_text(sample.text + "\n", encoding="utf-8")
        trainer.metrics.text("sample", sample.text, step)
        for name, figure in sample.figures.items():
            picture = save(figure, folder / f"step_{step:08d}_{name}.png")
            trainer.metrics.image(f"sample/{name}", picture, step)
