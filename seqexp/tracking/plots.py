"""Figures of a run. Each function returns a figure; `save` writes it and returns its bytes."""

import functools
import io
import logging
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqexp.files import write_atomically
from seqexp.quoting import printable
from seqexp.scored_text import ScoredText, colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

# Formats by suffix, with the metadata that omits the date.
FORMATS: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}

# Prefixes of the names of fonts with characters that DejaVu Sans lacks.
FALLBACK_FONTS = (
    "Noto Sans", "Noto Serif CJK", "Noto Emoji", "Source Han Sans", "WenQuanYi", "Droid Sans Fallback",
    "AR PL ", "IPA", "TakaoPGothic", "VL Gothic", "NanumGothic", "UnDotum", "Baekmuk", "Lohit ", "FreeSans",
    "FreeSerif", "Arial Unicode MS", "Microsoft YaHei", "Microsoft JhengHei", "SimHei", "SimSun", "Yu Gothic",
    "MS Gothic", "Malgun Gothic", "Nirmala UI", "Leelawadee UI", "Segoe UI", "PingFang", "Heiti", "STHeiti",
    "Hiragino", "Apple SD Gothic Neo", "AppleGothic", "Symbola", "Unifont",
)  # fmt: skip


def new_figure(width: float = 7, height: float = 4.2) -> "Figure":
    """Return an empty figure of this size in inches, without pyplot's global state."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", target: Path) -> bytes:
    """Write the figure in the format of the suffix, one of `FORMATS`; return the bytes."""
    data = rendered(figure, target.suffix.lower().lstrip("."))
    write_atomically(target, data)
    return data


def rendered(figure: "Figure", kind: str = "png") -> bytes:
    """Return the figure in one of `FORMATS`; the same figure gives the same bytes.

    SVG keeps text as text. Characters that the font lacks are drawn with an installed font that has them,
    or, without such a font, reported in the log.
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
    """Return the bytes, and the characters that the figure's fonts lack."""
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
    """Add installed fonts with the `missing` characters to the figure's text; return whether there are any.

    Only fonts with known names are opened, because a system may have thousands.
    """
    from matplotlib.font_manager import fontManager, get_font
    from matplotlib.text import Text

    # Suppress a warning for every font without the requested weight.
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
    """Log, once per process and script, that its characters are drawn as boxes, and what to do."""
    import matplotlib

    log.warning(
        "NOTE: no font for pictures has the characters of %s; they are drawn as boxes. Install a font that "
        "has them, such as Noto Sans CJK, and remove matplotlib's list of fonts (fontlist-*.json in %s).",
        script, matplotlib.get_cachedir(),
    )  # fmt: skip


def _script(sign: str) -> str:
    """Return the first word of the character's Unicode name, such as CJK; ``symbols`` for symbols."""
    if unicodedata.category(sign).startswith("S"):
        return "symbols"
    return unicodedata.name(sign, "no name").partition(" ")[0]


def label(text: str) -> str:
    """Escape text for drawing: spell out unprintable characters, and escape formulas."""
    return "\n".join(printable(line) for line in text.split("\n")).replace("$", r"\$")


def _curve(rows: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def loss_figure(
    rows: list[dict[str, Any]], title: str, unit: str, validated_on: str | None = None
) -> "Figure":
    """Plot the loss with the lowest validation marked, and below it the gradient norm on a log axis.

    The loss is on a log axis if it spans more than a factor of ten. Dotted lines mark the curriculum's steps.
    """
    figure = new_figure(7, 6)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    train, val = _curve(rows, "train/loss"), _curve(rows, "val/loss")
    axes.plot(*train, label="training", color="tab:blue", alpha=0.7, lw=1)
    if val[0]:
        name = f"validation, {validated_on}" if validated_on else "validation"
        axes.plot(*val, "o-", label=name, color="tab:orange", ms=4)
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
        for panel in (axes, below):
            panel.axvline(steps[i], color="gray", ls=":", lw=0.8)
    if changes:
        legend = f"curriculum: length {lengths[0]:g} to {lengths[-1]:g}"
        axes.plot([], [], color="gray", ls=":", label=legend)
    for part in (axes, below):
        part.grid(alpha=0.3)
    if train[0] or val[0]:
        axes.legend()
    return figure


def gradient_flow_figure(rows: list[dict[str, Any]], title: str) -> "Figure":
    """Plot the norm of the loss's gradient with respect to H_t against t, at up to six validations of a run.

    If every step has a loss, a second panel shows the gradient of the last step's loss.
    """
    import matplotlib

    shown = [rows[round(i * (len(rows) - 1) / 5)] for i in range(6)] if len(rows) > 6 else rows
    names = [name for name in ("h", "h_last", "c", "c_last") if shown and name in shown[0]]
    columns = 2 if len(names) > 1 else 1
    height = max(1, -(-len(names) // 2))
    figure = new_figure(6 * columns, 3.6 * height)
    figure.suptitle(label(title))
    colours = matplotlib.colormaps["viridis"]
    panels = figure.subplots(height, columns, squeeze=False).flatten()
    for axes, name in zip(panels, names, strict=True):
        for i, row in enumerate(shown):
            norms = [norm if norm > 0 else float("nan") for norm in row[name]]
            axes.plot(
                range(1, len(norms) + 1), norms, label=f"step {row['step']}", lw=1.2,
                color=colours(i / max(1, len(shown) - 1) * 0.9),
            )  # fmt: skip
        loss = r"L_{\mathrm{last\ step}}" if name.endswith("_last") else "L"
        axes.set(xlabel="time t", ylabel=rf"$\|\partial {loss}/\partial {name[0]}_t\|$", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def hidden_states_figure(hidden: Any, rows: Mapping[str, Sequence[int]], title: str) -> "Figure":
    """Plot hidden states (T, H) over time as colours, with named `rows` of zeros and ones below.

    At most 32 units and 120 steps are shown; the title says if there are more.
    """
    T, H = min(len(hidden), 120), min(hidden.shape[1], 32)
    cut = [f"{H} of {hidden.shape[1]} units"] if hidden.shape[1] > H else []
    cut += [f"{T} of {len(hidden)} steps"] if len(hidden) > T else []
    bits = [list(row)[:T] for row in rows.values()]
    figure = new_figure(max(5.0, T / 12), 1.2 + 0.22 * H + 0.4 * len(bits))
    ratios = [max(2.0, 0.6 * H), 1.5] if bits else [1.0]
    panels = figure.subplots(len(ratios), 1, height_ratios=ratios, sharex=True, squeeze=False)[:, 0]
    largest = max(1.0, float(abs(hidden[:T, :H]).max()))  # above 1 only for relu
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
    """Plot accuracies with 95 % intervals against the sequence length; one evaluation per length."""
    figure = new_figure()
    axes = figure.subplots()
    # Markers of different sizes stay visible where curves overlap.
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


# Tokens per side of an attention plot.
MOST_TOKENS = 80


def attention_figure(weights: Any, source: Sequence[str], target: Sequence[str], title: str) -> "Figure":
    """Plot attention weights (T, S): one row per target token, one column per source token.

    At most 80 tokens per side are shown; the title says if there are more.
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


# Columns of a scored text, its lines, inches, and characters of a line above it.
COLUMNS, MOST_LINES, WIDTH, HEAD = 90, 60, 8.0, 110
# The width of a character of DejaVu Sans Mono, in units of its size.
ADVANCE = 0.602


def scored_text_figure(scored: ScoredText) -> "Figure":
    """Draw a text whose words are coloured by their scores; at most 60 lines are shown."""
    from matplotlib.patches import Rectangle

    lines = list(_lines(scored))
    cut = f" (the first {MOST_LINES} of {len(lines)} lines)" if len(lines) > MOST_LINES else ""
    heads = [*textwrap.wrap(scored.title + cut, HEAD), *textwrap.wrap(scored.strongest(), HEAD)]
    shown = lines[:MOST_LINES]
    rows = len(heads) + len(shown) + 1.5
    figure = new_figure(WIDTH, 0.24 * rows)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1, COLUMNS + 1), ylim=(rows - 0.3, -0.8))
    axes.axis("off")
    size = 72 * WIDTH / (COLUMNS + 2) / ADVANCE  # one character is one unit wide
    for row, line in enumerate(heads):
        axes.text(0, row, label(line), fontsize=9, color="#555555", va="center")
    for place, pieces in enumerate(shown):
        height, column = len(heads) + 0.5 + place, 0
        for piece, share in pieces:
            width, chosen = _columns(piece), colours(share)
            if chosen:
                box = Rectangle((column - 0.1, height - 0.45), width + 0.2, 0.9, color=chosen[0], lw=0)
                axes.add_patch(box)
            axes.text(
                column, height, label(piece), family="monospace", size=size, va="center_baseline",
                color=chosen[1] if chosen else "#000000",
            )  # fmt: skip
            column += width
    return figure


def _lines(scored: ScoredText) -> Iterator[list[tuple[str, float | None]]]:
    """Yield the pieces of a scored text in lines of at most 90 columns, broken between words."""
    line: list[tuple[str, float | None]] = []
    used = 0
    for piece, share in scored.pieces():
        for part in re.findall(r"\s+|\S+", printable(piece)):
            if used + _columns(part) > COLUMNS:
                yield line
                line, used = [], 0
            for begin in range(0, len(part), COLUMNS // 2):
                some = part[begin : begin + COLUMNS // 2]
                if used + _columns(some) > COLUMNS:
                    yield line
                    line, used = [], 0
                if used or not some.isspace():
                    line.append((some, share))
                    used += _columns(some)
    yield line


def _columns(text: str) -> int:
    """Return the width of a text in columns; Chinese characters, for instance, take two."""
    return sum(1 + (unicodedata.east_asian_width(sign) in "WF") for sign in text)


def exam_figure(report: dict[str, Any], title: str) -> "Figure":
    """Plot an exam's accuracies by group with 95 % intervals, beside the baseline's.

    The paradigms of BLiMP are too many to plot and are omitted.
    """
    groups = [{**report["overall"], "name": "all"}, *report["groups"]]
    groups = [group for group in groups if group["pairs"] and group.get("by") != "paradigm"]
    figure = new_figure(7.5, 1.2 + 0.36 * len(groups))
    axes = figure.subplots()
    for series, name, shift, colour in (
        (groups, "model", -0.12, "tab:blue"),
        ([group["baseline"] for group in groups if "baseline" in group], "5-gram", 0.12, "tab:gray"),
    ):
        for position, cell in enumerate(series):
            low, high = cell["interval"]
            axes.plot([low, high], [position + shift] * 2, color=colour, lw=1.5)
            axes.plot(
                cell["accuracy"], position + shift, "o", color=colour, ms=5,
                label=None if position else name,
            )  # fmt: skip
    axes.axvline(0.5, color="gray", ls=":", lw=0.8)
    names = [f"{group['name']} ({group['pairs']:,})" for group in groups]
    axes.set_yticks(range(len(groups)), [label(name) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="share of pairs whose good side is likelier", title=label(f"{title}: {report['name']}"))
    axes.grid(alpha=0.3, axis="x")
    if groups:
        axes.legend(fontsize=8)
    return figure


def confusion_figure(matrix: Any, names: Sequence[str], title: str) -> "Figure":
    """Plot a confusion matrix (C, C): true labels in rows, as shares of each row, with the counts.

    With more than 20 labels the counts are left out, with more than 60 the names as well.
    """
    labels = len(names)
    side = min(14.0, 2.5 + 0.45 * labels)
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if labels <= 60:
        axes.set_xticks(range(labels), [label(name) for name in names], rotation=60, ha="right")
        axes.set_yticks(range(labels), [label(name) for name in names])
    if labels <= 20:
        for row in range(labels):
            for column in range(labels):
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=color)
    axes.set_xlabel("predicted label")
    axes.set_ylabel("true label")
    axes.set_title(label(title))
    figure.colorbar(image, ax=axes, pad=0.02, label="share of the true label")
    return figure


def reliability_figure(measured: Any, title: str) -> "Figure":
    """Plot the accuracy of predictions by their confidence (Guo et al. 2017, figure 1).

    `measured` is a `Calibration` of `seqexp.metrics.classification`.
    """
    figure = new_figure(5, 4.6)
    axes = figure.subplots()
    some = measured.counts > 0
    width = measured.edges[1] - measured.edges[0]
    axes.bar(
        measured.edges[:-1][some] + width / 2, measured.accuracy[some], width, alpha=0.6, edgecolor="black"
    )
    axes.plot([0, 1], [0, 1], "--", color="grey", label="calibrated")
    axes.plot(
        measured.confidence[some], measured.accuracy[some], "o", color="tab:red", label="mean confidence"
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(label(f"{title}: expected calibration error {measured.error:.3f}"))
    axes.legend(loc="upper left")
    return figure
