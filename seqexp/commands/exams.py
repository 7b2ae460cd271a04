"""`seqexp eval exams=…`: run the exams of a trained model; write tables, figures and answers."""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqexp.commands.build import TrainedRun
    from seqexp.config.root import EvalConfig
    from seqexp.exams.runner import ExamRunner
    from seqexp.metrics.metric import Metric
    from seqexp.tasks.base import Task
    from seqexp.tracking.run_folder import RunFolder

log = logging.getLogger(__name__)


def run_exams(
    config: "EvalConfig", runner: "ExamRunner", task: "Task", trained: "TrainedRun", folder: "RunFolder"
) -> "tuple[list[dict[str, Any]], dict[str, Metric]]":
    """Run the exams; return the report of each, and the accuracies.

    Writes answers, figures and TensorBoard events to the folder of the evaluation.
    """
    from seqexp.exams.runner import exam_metrics
    from seqexp.tracking.metrics import MetricsLog
    from seqexp.tracking.plots import exam_figure, save

    scorer = task.scorer(trained.model, trained.preprocessor, trained.device.autocast, config.exams)
    reports = runner.run(scorer, folder.path)
    metrics = MetricsLog(folder.metrics_file, folder.path / "tensorboard")
    try:
        found = exam_metrics(reports)
        metrics.write(trained.step, {name: metric.value for name, metric in found.items()})
        for report in reports:
            if report["skipped"]:
                log.warning("NOTE: %s: %s", report["name"], report["notes"][-1])
            figure = exam_figure(report, config.name)
            picture = save(figure, folder.subfolder("plots") / f"exam_{report['name']}.png")
            metrics.image(f"exam/{report['name']}", picture, trained.step)
    finally:
        metrics.close()
    return reports, found


def show_exams(reports: list[dict[str, Any]], console: Any) -> None:
    """Print tables of the reports."""
    from rich.table import Table
    from rich.text import Text

    from seqexp.reports.exams import exam_table

    for report in reports:
        header, rows = exam_table(report, by=("training", "frequency", "non-word", "field", "phenomenon"))
        table = Table(title=Text(f"{report['name']}: {report['origin']}"), caption=Text(report["baseline"]))
        for number, name in enumerate(header):
            table.add_column(name, justify="right" if number else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        if report["mistakes"]:
            table = Table("good", "bad", title="most confident mistakes")
            table.add_column("nats", justify="right")
            for found in report["mistakes"]:
                margin = found["log_probability_good"] - found["log_probability_bad"]
                table.add_row(*map(Text, (found["good"], found["bad"], f"{margin:.2f}")))
            console.print(table)
        for note in report["notes"]:
            console.print(note, style="dim", highlight=False, markup=False)
