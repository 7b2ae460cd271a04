"""Pictures of a run. Each function returns a figure; `save` writes it and gives its bytes for TensorBoard."""

import functools
import io
import logging
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqexp.files import write_atomically
from seqexp.quoting import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

# The formats of pictures, by suffix, each with the metadata that leaves the date out.
FORMATS: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}

# What the names of fonts begin with that have the signs which DejaVu Sans lacks.
FALLBACK_FONTS = (
    "Noto Sans", "Noto Serif CJK", "Noto Emoji", "Source Han Sans", "WenQuanYi", "Droid Sans Fallback",
    "AR PL ", "IPA", "TakaoPGothic", "VL Gothic", "NanumGothic", "UnDotum", "Baekmuk", "Lohit ", "FreeSans",
    "FreeSerif", "Arial Unicode MS", "Microsoft YaHei", "Microsoft JhengHei", "SimHei", "SimSun", "Yu Gothic",
    "MS Gothic", "Malgun Gothic", "Nirmala UI", "Leelawadee UI", "Segoe UI", "PingFang", "Heiti", "STHeiti",
    "Hiragino", "Apple SD Gothic Neo", "AppleGothic", "Symbola", "Unifont",
)  # fmt: skip


def new_figure(width: float = 7, height: float = 4.2) -> "Figure":
    """A figure without a display and without state between calls."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", target: Path) -> bytes:
    """Write the figure in the format that the suffix names, one of `FORMATS`; return the bytes."""
    data = rendered(figure, target.suffix.lower().lstrip("."))
    write_atomically(target, data)
    return data


def rendered(figure: "Figure", kind: str = "png") -> bytes:
    """The figure in one of `FORMATS`; the same figure gives the same bytes.

    Text stays text in SVG. Signs that the font lacks are drawn with a font that has them, or else noted.
    """
    import matplotlib

    options: dict[str, Any] = {"dpi": 120} if kind == "png" else {"metadata": FORMATS[kind]}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "seqexp"}):
        data, missing = _drawn(figure, format=kind, **options)
        if missing and _use_fallback_fonts(figure, missing):
            data, missing = _drawn(figure, format=kind, **options)
    for script in sorted(set(map(_script, missing))):
        _note_missing(script)
    return data


def _drawn(figure: "Figure", **options: Any) -> tuple[bytes, set[str]]:
    """The bytes, and the signs that no font of the figure has."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(buffer, **options)
    missing = set()
    for warning in caught:
        if found := re.match(r"Glyph (\d+) .*missing from", str(warning.message)):
            missing.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return buffer.getvalue(), missing


def _use_fallback_fonts(figure: "Figure", missing: set[str]) -> bool:
    """Let the text fall back on installed fonts that have the `missing` signs; return whether there are any.

    Only fonts with known names are opened: a system may have thousands.
    """
    from matplotlib.font_manager import fontManager, get_font
    from matplotlib.text import Text

    # It would say of every font that has no variant of the weight asked for.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    installed: dict[str, str] = {}
    for entry in fontManager.ttflist:
        if entry.name.startswith(FALLBACK_FONTS):
            installed.setdefault(entry.name, entry.fname)
    left, chosen = {ord(sign) for sign in missing}, []
    for name, file in sorted(installed.items()):
        signs = left & get_font(file).get_charmap().keys()
        if signs:
            chosen.append(name)
            left -= signs
        if not left:
            break
    for text in figure.findobj(Text) if chosen else []:
        assert isinstance(text, Text)
        text.set_fontfamily([*text.get_fontfamily(), *chosen])
    return bool(chosen)


@functools.cache
def _note_missing(script: str) -> None:
    """Say, once in a process for each script, that its signs are drawn as boxes, and what helps."""
    import matplotlib

    log.warning(
        "NOTE: no font for pictures has the signs of %s; they are drawn as boxes. Install a font that has "
        "them, such as Noto Sans CJK, and remove matplotlib's list of fonts (fontlist-*.json in %s).",
        script, matplotlib.get_cachedir(),
    )  # fmt: skip


def _script(sign: str) -> str:
    """What Unicode's name of the sign begins with: CJK, HANGUL, DEVANAGARI; of symbols ``symbols``."""
    if unicodedata.category(sign).startswith("S"):
        return "symbols"
    return unicodedata.name(sign, "no name").partition(" ")[0]


def label(text: str) -> str:
    """Text as it can be drawn: unprintable signs are spelled out, and nothing is read as a formula."""
    return "\n".join(printable(line) for line in text.split("\n")).replace("$", r"\$")


def _curve(rows: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def loss_figure(
    rows: list[dict[str, Any]], title: str, unit: str, validated_on: str | None = None
) -> "Figure":
    """Loss, with the lowest validation marked, and below it the gradient norm on a log axis.

    A loss that falls to less than a tenth is on a log axis too; dotted lines are the curriculum's steps.
    """
    figure = new_figure(7, 6)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    train, val = _curve(rows, "train/loss"), _curve(rows, "val/loss")
    axes.plot(*train, label="training", color="tab:blue", alpha=0.7, lw=1)
    if val[0]:
        told = f"validation, {validated_on}" if validated_on else "validation"
        axes.plot(*val, "o-", label=told, color="tab:orange", ms=4)
        best = min(range(len(val[1])), key=val[1].__getitem__)
        axes.annotate(
            f"lowest: {val[1][best]:.4g} at step {val[0][best]}", (val[0][best], val[1][best]),
            xytext=(0.97, 0.6), textcoords="axes fraction", ha="right",
            arrowprops={"arrowstyle": "-", "alpha": 0.5},
        )  # fmt: skip
    values = [value for value in train[1] + val[1] if value > 0]
    if values and max(values) > 10 * min(values):
        axes.set_yscale("log")
    axes.set(title=label(title), ylabel=f"loss ({unit})" if unit else "loss")
    below.plot(*_curve(rows, "train/grad_norm"), color="tab:green", lw=1)
    below.set(xlabel="step", ylabel="gradient norm\n(before clipping)", yscale="log")
    steps, lengths = _curve(rows, "train/seq_len")
    changes = [i for i in range(1, len(steps)) if lengths[i] != lengths[i - 1]]
    for i in changes:
        for part in (axes, below):
            part.axvline(steps[i], color="gray", ls=":", lw=0.8)
    if changes:
        told = f"curriculum: length {lengths[0]:g} to {lengths[-1]:g}"
        axes.plot([], [], color="gray", ls=":", label=told)
    for part in (axes, below):
        part.grid(alpha=0.3)
    if train[0] or val[0]:
        axes.legend()
    return figure


def gradient_flow_figure(rows: list[dict[str, Any]], title: str) -> "Figure":
    """The norm of the loss's gradient with respect to H_t against t, at some validations of a run.

    Where every step has a loss of its own there is a panel for the loss of the last step alone too.
    """
    import matplotlib

    shown = [rows[round(i * (len(rows) - 1) / 5)] for i in range(6)] if len(rows) > 6 else rows
    parts = [name for name in ("h", "h_last", "c", "c_last") if shown and name in shown[0]]
    columns = 2 if len(parts) > 1 else 1
    height = max(1, -(-len(parts) // 2))
    figure = new_figure(6 * columns, 3.6 * height)
    figure.suptitle(label(title))
    colours = matplotlib.colormaps["viridis"]
    panels = figure.subplots(height, columns, squeeze=False).flatten()
    for axes, part in zip(panels, parts, strict=True):
        for i, row in enumerate(shown):
            norms = [norm if norm > 0 else float("nan") for norm in row[part]]
            axes.plot(
                range(1, len(norms) + 1), norms, label=f"step {row['step']}", lw=1.2,
                color=colours(i / max(1, len(shown) - 1) * 0.9),
            )  # fmt: skip
        loss = r"L_{\mathrm{last\ step}}" if part.endswith("_last") else "L"
        axes.set(xlabel="time t", ylabel=rf"$\|\partial {loss}/\partial {part[0]}_t\|$", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def hidden_states_figure(hidden: Any, rows: Mapping[str, Sequence[int]], title: str) -> "Figure":
    """The units' values (T, H) over time as colours; below them named rows of zeros and ones.

    Of many units the first 32 are shown, of long sequences the first 120 steps, and the title says so.
    """
    T, H = min(len(hidden), 120), min(hidden.shape[1], 32)
    cut = [f"{H} of {hidden.shape[1]} units"] if hidden.shape[1] > H else []
    cut += [f"{T} of {len(hidden)} steps"] if len(hidden) > T else []
    bits = [list(row)[:T] for row in rows.values()]
    figure = new_figure(max(5.0, T / 12), 1.2 + 0.22 * H + 0.4 * len(bits))
    ratios = [max(2.0, 0.6 * H), 1.5] if bits else [1.0]
    panels = figure.subplots(len(ratios), 1, height_ratios=ratios, sharex=True, squeeze=False)[:, 0]
    largest = max(1.0, float(abs(hidden[:T, :H]).max()))  # more than 1 for relu alone
    edges = (0.5, T + 0.5)  # the first step is t = 1
    image = panels[0].imshow(
        hidden[:T, :H].T, aspect="auto", cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest",
        extent=(*edges, H - 0.5, -0.5),
    )  # fmt: skip
    panels[0].set(title=label(f"{title}{' (' + ', '.join(cut) + ')' if cut else ''}"), ylabel="hidden unit")
    panels[0].set_yticks(range(0, H, max(1, H // 8)))
    figure.colorbar(image, ax=panels[0], pad=0.01)
    if bits:
        panels[1].imshow(
            bits, aspect="auto", cmap="Greys", vmin=0, vmax=1.5, interpolation="nearest",
            extent=(*edges, len(rows) - 0.5, -0.5),
        )  # fmt: skip
        panels[1].set_yticks(range(len(rows)), list(rows))
    panels[-1].set_xlabel("time t")
    return figure


def accuracy_by_length_figure(
    lengths: Sequence[int], evaluations: Sequence[Mapping[str, Any]], trained_length: int, title: str
) -> "Figure":
    """Each accuracy against the length of the sequences, with its 95 % interval; one evaluation a length."""
    figure = new_figure()
    axes = figure.subplots()
    # Markers of different sizes, for where the curves lie on one another.
    for name, marker, size in (
        ("accuracy", "o", 9),
        ("last_accuracy", "s", 6),
        ("sequence_accuracy", "v", 4),
    ):
        metrics = [evaluation[name] for evaluation in evaluations]
        values = [metric.value for metric in metrics]
        (line,) = axes.plot(lengths, values, marker=marker, ms=size, label=name.replace("_", " "))
        low, high = zip(*(metric.interval for metric in metrics), strict=True)
        axes.fill_between(lengths, low, high, color=line.get_color(), alpha=0.2, lw=0)
    axes.axvline(trained_length, color="gray", ls=":", label=f"trained to {trained_length}")
    axes.axhline(0.5, color="gray", lw=0.8)
    axes.set(title=label(title), xlabel="length (bits)", ylabel="accuracy", xscale="log", ylim=(-0.03, 1.03))
    axes.set_xticks(lengths, [str(n) for n in lengths])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


# Tokens on a side of a picture of attention.
MOST_TOKENS = 80


def attention_figure(weights: Any, source: Sequence[str], target: Sequence[str], title: str) -> "Figure":
    """Which source tokens (columns) were looked at for each target token (rows); weights (T, S).

    Of long sentences the first 80 tokens are shown, and the title says so.
    """
    if max(weights.shape) > MOST_TOKENS:
        title += f" (the first {MOST_TOKENS} of {len(target)} and {len(source)} tokens)"
        weights, source, target = (
            weights[:MOST_TOKENS, :MOST_TOKENS],
            source[:MOST_TOKENS],
            target[:MOST_TOKENS],
        )
    figure = new_figure(max(4.0, 1.5 + 0.4 * len(source)), max(3.0, 1.2 + 0.32 * len(target)))
    axes = figure.subplots()
    image = axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(source)), [label(piece) for piece in source], rotation=60, ha="left")
    axes.set_yticks(range(len(target)), [label(piece) for piece in target])
    axes.set_xlabel(label(title))
    figure.colorbar(image, ax=axes, pad=0.02, label="weight")
    return figure


def exam_figure(report: dict[str, Any], title: str) -> "Figure":
    """Accuracies of an exam, group by group, with 95 % intervals, beside the baseline's; of BLiMP no sets."""
    groups = [{**report["overall"], "name": "all"}, *report["groups"]]
    groups = [group for group in groups if group["pairs"] and group.get("by") != "paradigm"]
    figure = new_figure(7.5, 1.2 + 0.36 * len(groups))
    axes = figure.subplots()
    for series, name, shift, colour in (
        (groups, "model", -0.12, "tab:blue"),
        ([group["baseline"] for group in groups if "baseline" in group], "5-gram", 0.12, "tab:gray"),
    ):
        for place, cell in enumerate(series):
            low, high = cell["interval"]
            axes.plot([low, high], [place + shift] * 2, color=colour, lw=1.5)
            axes.plot(
                cell["accuracy"], place + shift, "o", color=colour, ms=5, label=name if place == 0 else None
            )
    axes.axvline(0.5, color="gray", ls=":", lw=0.8)
    told = [f"{group['name']} ({group['pairs']:,})" for group in groups]
    axes.set_yticks(range(len(groups)), [label(text) for text in told])
    axes.invert_yaxis()
    axes.set(xlabel="share of pairs whose good side is likelier", title=label(f"{title}: {report['name']}"))
    axes.grid(alpha=0.3, axis="x")
    if groups:
        axes.legend(fontsize=8)
    return figure
