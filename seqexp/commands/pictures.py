"""The figures of a finished run."""

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
    """Draw the figures; log failures and interruptions, because the run itself is finished."""
    try:
        draw_run(run, config, trainer, metrics)
    except KeyboardInterrupt:
        log.warning("interrupted while drawing: pictures are missing in %s", run.path / "plots")
    except Exception:
        log.warning("pictures are missing in %s:\n%s", run.path / "plots", traceback.format_exc())


def draw_run(run: "RunFolder", config: TrainConfig, trainer: "Trainer", metrics: "MetricsLog") -> None:
    """Draw the figures of a finished run at its best checkpoint, into ``plots/`` and TensorBoard."""
    from seqexp.tasks.base import EvalOptions
    from seqexp.tasks.views import evaluate_views
    from seqexp.tracking import plots
    from seqexp.tracking.run_folder import read_metrics

    title, model, data, task = config.name, trainer.model, trainer.data, trainer.task
    model.load_state_dict(trainer.checkpoints.load("best")["model"])
    rows = read_metrics(run.metrics_file)
    figures = {"loss": plots.loss_figure(rows, title, task.loss_unit, data.validated_on)}
    flow = read_metrics(run.gradient_flow_file)
    if flow:
        figures["gradient_flow"] = plots.gradient_flow_figure(flow, title)
    views, _ = data.views(getattr(model, "max_len", None))
    judged = []
    if len(views) > 1:
        shown = "; ".join(", ".join(f"{k} {v}" for k, v in view.label.items()) for view in views)
        log.info("judging the best checkpoint on: %s", shown)
        judged = evaluate_views(task, model, views, "val", EvalOptions(trainer.device.autocast))
    figures |= task.figures(model, data, judged)
    folder = run.subfolder("plots")
    for name, figure in figures.items():
        metrics.image(name, plots.save(figure, folder / f"{name}.png"), trainer.step)
