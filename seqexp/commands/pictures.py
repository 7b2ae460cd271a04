"""The pictures of a finished run."""

import logging
import traceback
from typing import TYPE_CHECKING

from seqexp.config.root import TrainConfig

if TYPE_CHECKING:
    from seqexp.tracking.metrics import MetricsLog
    from seqexp.tracking.run_folder import RunFolder
    from seqexp.training.loop import Trainer

log = logging.getLogger(__name__)


def try_to_draw(run: "RunFolder", config: TrainConfig, trainer: "Trainer", metrics: "MetricsLog") -> None:
    """The pictures; the run is finished, and stays so whatever happens here."""
    try:
        draw_run(run, config, trainer, metrics)
    except KeyboardInterrupt:
        log.warning("interrupted while drawing: pictures are missing in %s", run.path / "plots")
    except Exception:
        log.warning("pictures are missing in %s:\n%s", run.path / "plots", traceback.format_exc())


def draw_run(run: "RunFolder", config: TrainConfig, trainer: "Trainer", metrics: "MetricsLog") -> None:
    """The pictures of a finished run, in its ``plots/`` and in TensorBoard; of its best checkpoint."""
    from seqexp.commands.eval import judge_views, trained_length
    from seqexp.evaluation.recurrence import hidden_states, is_recurrent
    from seqexp.tracking import plots
    from seqexp.tracking.run_folder import read_metrics

    title, model, data = config.name, trainer.model, trainer.data
    model.load_state_dict(trainer.checkpoints.load("best")["model"])
    validated_on = f"{trained_length(config)} bits" if config.task.name == "parity" else None
    rows = read_metrics(run.metrics_file)
    figures = {"loss": plots.loss_figure(rows, title, trainer.task.loss_unit, validated_on)}
    if is_recurrent(model):
        figures["gradient_flow"] = plots.gradient_flow_figure(read_metrics(run.gradient_flow_file), title)
        batch = next(data.eval_batches("val"))
        tokens, targets = batch.inputs[0], batch.targets[0].tolist()
        hidden = hidden_states(model, tokens.to(trainer.device.torch))
        truth = targets if config.task.name == "parity" else None
        figures["hidden_states"] = plots.hidden_states_figure(hidden, tokens.tolist(), truth, title)
    views, _ = data.views(getattr(model, "max_len", None))
    if len(views) > 1:
        lengths = ", ".join(str(view.label["length"]) for view in views)
        log.info("judging the best checkpoint on lengths %s", lengths)
        rows = judge_views(trainer.task, model, trainer.device, views, "val")
        figures["accuracy_by_length"] = plots.accuracy_by_length_figure(rows, trained_length(config), title)
    folder = run.subfolder("plots")
    for name, figure in figures.items():
        metrics.image(name, plots.save(figure, folder / f"{name}.png"), trainer.step)
