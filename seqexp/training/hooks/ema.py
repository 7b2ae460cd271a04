"""An exponential moving average of the weights, evaluated and saved beside them."""

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from seqexp.metrics.metric import Metric, MetricSpec
from seqexp.tasks.base import EvalOptions, Task
from seqexp.training.hooks.base import Hook, Update
from seqexp.training.misfit import refuse_misfit

if TYPE_CHECKING:
    from seqexp.training.loop import Trainer


class EMA(Hook):
    """avg ← decay · avg + (1 - decay) · weights after every step (Polyak & Juditsky 1992).

    Adds ``val_ema/<metric>`` to the results of a validation. The average begins as the first step's weights.
    """

    name = "ema"

    def __init__(self, model: nn.Module, task: Task, decay: float) -> None:
        self.task = task
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def declared(self) -> dict[str, MetricSpec]:
        return {f"val_ema/{name}": spec for name, spec in self.task.metrics.items()}

    def after_step(self, trainer: "Trainer", update: Update) -> None:
        if not update.skipped:
            self.average.update_parameters(trainer.model)

    def at_validation(self, trainer: "Trainer", results: dict[str, Metric]) -> None:
        options = EvalOptions(trainer.device.autocast, seed=trainer.config.seed)
        found = self.task.evaluate(self.average.module, trainer.data, "val", options)
        results |= {f"val_ema/{name}": metric for name, metric in found.items()}

    def state(self) -> dict[str, Any]:
        return {"weights": self.average.module.state_dict(), "averaged": int(self.average.n_averaged)}

    def load_state(self, state: dict[str, Any], trainer: "Trainer") -> None:
        """A run that had no average begins one with the weights of the checkpoint."""
        weights = state["weights"] if state else trainer.model.state_dict()
        refuse_misfit("ema", self.average.module.state_dict(), weights)
        self.average.module.load_state_dict(weights)
        self.average.n_averaged.fill_(state.get("averaged", 1))
