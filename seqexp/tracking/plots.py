"""Pictures of a run, drawn from its ``metrics.jsonl``."""

import logging
from pathlib import Path
from typing import Any


def plot_loss(rows: list[dict[str, Any]], title: str, target: Path) -> None:
    """Training and validation loss over steps, with the best validation marked."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    # The object interface: no display, no state between calls.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    train = [(row["step"], row["train/loss"]) for row in rows if row.get("train/loss") is not None]
    val = [(row["step"], row["val/loss"]) for row in rows if row.get("val/loss") is not None]
    if train:
        axes.plot(*zip(*train, strict=True), label="training", color="tab:blue", alpha=0.7, lw=1)
    if val:
        axes.plot(*zip(*val, strict=True), "o-", label="validation", color="tab:orange", ms=4)
        step, best = min(val, key=lambda point: point[1])
        axes.annotate(
            f"best {best:.4f} at step {step}", (step, best), xytext=(0, 18),
            textcoords="offset points", ha="right", arrowprops={"arrowstyle": "-", "alpha": 0.5},
        )  # fmt: skip
    axes.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    if train or val:
        axes.legend()
    figure.savefig(target, dpi=120)
