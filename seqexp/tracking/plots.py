"""Pictures of a run. Each function returns a figure; `save` writes it and gives its bytes for TensorBoard."""

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqexp.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float = 7, height: float = 4.2) -> "Figure":
    """A figure without a display and without state between calls."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", target: Path) -> bytes:
    """Write the figure as a PNG and return the bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(target, buffer.getvalue())
    return buffer.getvalue()


def _curve(rows: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def loss_figure(rows: list[dict[str, Any]], title: str, unit: str) -> "Figure":
    """Loss, with the best validation marked, and below it the gradient norm on a log axis.

    A loss that falls to less than a tenth is on a log axis too; dotted lines are the curriculum's steps.
    """
    figure = new_figure(7, 6)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    train, val = _curve(rows, "train/loss"), _curve(rows, "val/loss")
    axes.plot(*train, label="training", color="tab:blue", alpha=0.7, lw=1)
    if val[0]:
        axes.plot(*val, "o-", label="validation", color="tab:orange", ms=4)
        best = min(range(len(val[1])), key=val[1].__getitem__)
        axes.annotate(
            f"best {val[1][best]:.4g} at step {val[0][best]}", (val[0][best], val[1][best]), xytext=(0, 18),
            textcoords="offset points", ha="right", arrowprops={"arrowstyle": "-", "alpha": 0.5},
        )  # fmt: skip
    values = [value for value in train[1] + val[1] if value > 0]
    if values and max(values) > 10 * min(values):
        axes.set_yscale("log")
    axes.set(title=title, ylabel=f"loss ({unit})")
    below.plot(*_curve(rows, "train/grad_norm"), color="tab:green", lw=1)
    below.set(xlabel="step", ylabel="gradient norm\n(before clipping)", yscale="log")
    steps, lengths = _curve(rows, "train/seq_len")
    changes = [i for i in range(1, len(steps)) if lengths[i] != lengths[i - 1]]
    for i in changes:
        for part in (axes, below):
            part.axvline(steps[i], color="gray", ls=":", lw=0.8)
    if changes:
        axes.plot([], [], color="gray", ls=":", label=f"curriculum: {lengths[0]:g} to {lengths[-1]:g} bits")
    for part in (axes, below):
        part.grid(alpha=0.3)
    if train[0] or val[0]:
        axes.legend()
    return figure


def gradient_flow_figure(rows: list[dict[str, Any]], title: str) -> "Figure":
    """The norm of the loss's gradient with respect to H_t against t, at some validations of a run."""
    import matplotlib

    shown = [rows[round(i * (len(rows) - 1) / 5)] for i in range(6)] if len(rows) > 6 else rows
    parts = [name for name in ("h", "c") if shown and name in shown[0]]
    figure = new_figure(7, 3.6 * max(1, len(parts)))
    colours = matplotlib.colormaps["viridis"]
    for axes, part in zip(figure.subplots(max(1, len(parts)), 1, squeeze=False)[:, 0], parts, strict=False):
        for i, row in enumerate(shown):
            norms = [norm if norm > 0 else float("nan") for norm in row[part]]
            axes.plot(
                range(1, len(norms) + 1), norms, label=f"step {row['step']}", lw=1.2,
                color=colours(i / max(1, len(shown) - 1) * 0.9),
            )  # fmt: skip
        axes.set(xlabel="time t", ylabel=rf"$\|\partial L/\partial {part}_t\|$", yscale="log", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def hidden_states_figure(
    hidden: Any, tokens: Sequence[int], truth: Sequence[int] | None, title: str
) -> "Figure":
    """The units' values (T, H) over time as colours; above them the bits and their running parity.

    Of many units the first 32 are shown, of long sequences the first 120 steps, and the title says so.
    """
    T, H = min(len(hidden), 120), min(hidden.shape[1], 32)
    cut = [f"{H} of {hidden.shape[1]} units"] if hidden.shape[1] > H else []
    cut += [f"{T} of {len(hidden)} steps"] if len(hidden) > T else []
    bits = [] if truth is None else [list(tokens)[:T], list(truth)[:T]]
    figure = new_figure(max(5.0, T / 12), 1.2 + 0.22 * H + 0.4 * len(bits))
    ratios = [max(2.0, 0.6 * H), 1.5] if bits else [1.0]
    panels = figure.subplots(len(ratios), 1, height_ratios=ratios, sharex=True, squeeze=False)[:, 0]
    image = panels[0].imshow(
        hidden[:T, :H].T, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest"
    )
    panels[0].set(title=f"{title}{' (' + ', '.join(cut) + ')' if cut else ''}", ylabel="hidden unit")
    panels[0].set_yticks(range(0, H, max(1, H // 8)))
    figure.colorbar(image, ax=panels[0], pad=0.01)
    if bits:
        panels[1].imshow(bits, aspect="auto", cmap="Greys", vmin=0, vmax=1.5, interpolation="nearest")
        panels[1].set_yticks([0, 1], ["bit", "parity"])
    panels[-1].set_xlabel("time t")
    return figure


def accuracy_by_length_figure(rows: list[dict[str, Any]], trained_length: int, title: str) -> "Figure":
    """Each accuracy of `eval` against the length of the sequences, with its 95 % interval."""
    figure = new_figure()
    axes = figure.subplots()
    lengths = [row["length"] for row in rows]
    for name in ("accuracy", "last_accuracy", "sequence_accuracy"):
        cells = [row["metrics"][name] for row in rows]
        (line,) = axes.plot(
            lengths, [cell["value"] for cell in cells], "o-", ms=4, label=name.replace("_", " ")
        )
        low, high = zip(*(cell["interval"] for cell in cells), strict=True)
        axes.fill_between(lengths, low, high, color=line.get_color(), alpha=0.2, lw=0)
    axes.axvline(trained_length, color="gray", ls=":", label=f"trained to {trained_length}")
    axes.axhline(0.5, color="gray", lw=0.8)
    axes.set(title=title, xlabel="length (bits)", ylabel="accuracy", xscale="log", ylim=(-0.03, 1.03))
    axes.set_xticks(lengths, [str(n) for n in lengths])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
