"""Figures of several runs. Each function returns a figure; `save_for_paper` writes PNG and SVG."""

import re
import sys
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqexp.errors import UserError
from seqexp.files import make_folder
from seqexp.reports.frame import Comparison, curves, is_numeric, labels, plain_number
from seqexp.tracking.plots import label, new_figure, save
from seqexp.tracking.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Draw no legend for more lines than this: their colours are too similar.
MOST_LABELS = 20
# Longer labels are placed below the plot; labels longer than MOST_CHARACTERS are shortened.
MOST_BESIDE = 28
MOST_CHARACTERS = 90
# Mean for the legend's font.
CHARACTERS_PER_INCH = 15


def comparison_figures(
    comparison: Comparison, x: str | None = None, hue: list[str] | None = None
) -> dict[str, "Figure"]:
    """Return the figures of a comparison by file name.

    `x` is the setting on the x axis (default: the first numeric one that differs), `hue` the settings that
    distinguish the lines (default: all others).
    """
    sweep, metric, search = comparison.sweep, comparison.monitor, comparison.is_search
    title = label("\n".join(textwrap.wrap(sweep.name, 70))) if sweep else ""
    settings = comparison.settings
    # Prefer a numeric x axis, along which a line can be drawn.
    numeric = [key for key in settings if is_numeric(comparison.table[key])]
    x = x or next(iter([*numeric, *settings]), None)
    others = hue if hue is not None else [key for key in settings if key != x]
    lines = hue if hue is not None else settings
    figures = {"curves": curves_figure(comparison, metric, lines, title)}
    if x:
        for name in comparison.metrics[:4]:
            stem = re.sub(r"\W", "_", f"{name}_by_{x}")
            figures[stem] = setting_figure(
                comparison, x, name, [] if search and hue is None else others, title
            )
    if sweep and search:
        try:
            figures |= search_figures(sweep)
        except UserError as error:
            print(f"NOTE: {error} Skipping the figures of the search.", file=sys.stderr)
    return figures


def curves_figure(comparison: Comparison, metric: str, hue: list[str], title: str) -> "Figure":
    """Plot a metric over steps: for each label the mean over its runs and a band from minimum to maximum."""
    figure = new_figure(8, 4.8)
    axes = figure.subplots()
    table = curves(comparison, metric)
    table["label"] = _line_labels(table, hue)
    names = list(dict.fromkeys(table["label"]))
    for name, colour in zip(names, _colours(len(names)), strict=True):
        runs = table[table["label"] == name]
        # At steps that some runs did not reach, this is the mean over the remaining runs.
        over = runs.groupby("step")["value"]
        mean, low, high = over.mean(), over.min(), over.max()
        axes.plot(mean.index, mean, color=colour, lw=1.4, label=name or None)
        if runs["run"].nunique() > 1:
            axes.fill_between(mean.index, low, high, color=colour, alpha=0.18, lw=0)
    values = table["value"]
    if "loss" in metric and len(values) and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
    axes.set(title=title, xlabel="step", ylabel=label(metric))
    axes.grid(alpha=0.3)
    _legend(axes, names)
    return figure


def setting_figure(comparison: Comparison, x: str, y: str, hue: list[str], title: str) -> "Figure":
    """Plot a metric against a setting, one line per label: mean, standard deviation and every run.

    Settings outside `x` and `hue` are averaged over; the title names them.
    """
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    table = comparison.table.copy()
    table["label"] = _line_labels(table, hue)
    names = list(dict.fromkeys(table["label"]))
    numeric = is_numeric(table[x])
    positions = {value: value if numeric else i for i, value in enumerate(dict.fromkeys(table[x]))}
    for i, (name, colour) in enumerate(zip(names, _colours(len(names)), strict=True)):
        runs = table[table["label"] == name]
        over = runs.groupby(x, sort=numeric)[y]
        mean, deviation = over.mean(), over.std(ddof=1).fillna(0.0)
        # Shift each label sideways so that points and bars do not overlap.
        shift = i - (len(names) - 1) / 2
        at = [_beside(positions[value], shift, positions, numeric) for value in mean.index]
        axes.errorbar(
            at, mean, yerr=deviation, color=colour, fmt="o-" if numeric else "o", capsize=3, lw=1.3, ms=4.5,
            label=name or None,
        )  # fmt: skip
        single = [_beside(positions[value], shift, positions, numeric) for value in runs[x]]
        axes.scatter(single, runs[y], color=colour, s=14, alpha=0.5, lw=0)
    if numeric:
        _numeric_axis(axes, sorted(positions))
    else:
        short = _shortened([plain_number(value) for value in positions], MOST_BESIDE)
        axes.set_xticks(list(positions.values()), [label(name) for name in short])
        if sum(map(len, short)) > 60:
            for tick in axes.get_xticklabels():
                tick.set(rotation=30, ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.5, len(positions) - 0.5)
    rest = [key for key in comparison.settings if key not in (x, *hue)]
    averaged = textwrap.fill(f"(mean over {', '.join([*rest, 'seed'])})", 70) if rest else ""
    axes.set(title="\n".join(filter(None, (title, label(averaged)))), xlabel=label(x), ylabel=label(y))
    axes.grid(alpha=0.3)
    _legend(axes, names)
    return figure


def _beside(position: float, shift: float, positions: dict[Any, float], numeric: bool) -> float:
    """Return a position shifted slightly to the left or right on the axis."""
    if not numeric:
        return position + 0.12 * shift
    low, high = min(positions.values()), max(positions.values())
    if _is_log(low, high):
        return float(position * (high / low) ** (0.008 * shift))
    return position + 0.008 * shift * (high - low)


def _is_log(low: float, high: float) -> bool:
    """Return whether the range of values calls for a logarithmic axis."""
    return low > 0 and high > 8 * low


def _numeric_axis(axes: Any, values: list[float]) -> None:
    """Set the scale of the x axis, with ticks at the values if there are at most ten."""
    if _is_log(values[0], values[-1]):
        axes.set_xscale("log")
    if len(values) <= 10:
        axes.set_xticks(values, [plain_number(value) for value in values])
        axes.minorticks_off()


def _colours(count: int) -> list[Any]:
    """Return `count` distinct colours; more than ten are taken from one colour map."""
    import matplotlib

    if count <= 10:
        return [matplotlib.colormaps["tab10"](i) for i in range(count)]
    return [matplotlib.colormaps["turbo"]((i + 0.5) / count) for i in range(count)]


def _legend(axes: Any, names: list[str]) -> None:
    """Add a legend: inside the plot if names are few and short, else beside or below it."""
    if names in ([], [""]):
        return
    if len(names) > MOST_LABELS:
        axes.set_title(f"{axes.get_title()}\n({len(names)} lines; choose fewer with --hue)")
        return
    figure, handles = axes.figure, axes.get_legend_handles_labels()[0]
    longest = max(map(len, names))
    if longest > MOST_BESIDE:
        # Below, in as many columns as fit. Enlarge the figure to keep the size of the plot.
        width, height = figure.get_size_inches()
        columns = max(1, min(len(names), int(width * CHARACTERS_PER_INCH) // (longest + 8)))
        figure.set_size_inches(width, height + 0.2 * -(-len(names) // columns))
        figure.legend(handles, names, fontsize=8, loc="outside lower center", ncols=columns)
    elif len(names) <= 4:
        axes.legend(fontsize=8)
    else:
        figure.legend(handles, names, fontsize=8, loc="outside right center")


def _line_labels(table: Any, keys: list[str]) -> Any:
    """Return a label for each row of the table, shortened and escaped for drawing."""
    whole = labels(table, keys)
    names = list(dict.fromkeys(whole))
    return whole.map(dict(zip(names, _shortened(names, MOST_CHARACTERS), strict=True))).map(label)


def _shortened(names: list[str], most: int) -> list[str]:
    """Return the names with the middle of long ones replaced by …; number names that become equal."""
    short = [
        name if len(name) <= most else f"{name[: most // 3]}…{name[most // 3 + 1 - most :]}" for name in names
    ]
    return [
        f"{name} ({short[:i].count(name) + 1})" if name in short[:i] else name for i, name in enumerate(short)
    ]


def search_figures(sweep: SweepFolder) -> dict[str, "Figure"]:
    """Return Optuna's figures of a search: history, importances and parallel coordinates.

    A search with several objectives gives the Pareto front instead.

    Raises:
        UserError: the study is damaged.
    """
    import matplotlib
    import optuna
    from matplotlib import pyplot
    from optuna.trial import TrialState

    from seqexp.sweeps.search import explain_damage, open_study

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    study, trials = open_study(sweep)
    with explain_damage(sweep):
        names = [str(name) for name in study.user_attrs["search"]["objectives"]]
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < 2:
        return {}
    draw = optuna.visualization.matplotlib
    figures = {}
    pyplot.switch_backend("agg")

    def add(name: str, plot: Any, **options: Any) -> None:
        # Optuna changes the global style.
        with warnings.catch_warnings(), matplotlib.rc_context():
            warnings.simplefilter("ignore")
            axes = plot(study, **options)
        first = axes.flat[0] if hasattr(axes, "flat") else axes
        figures[name] = first.figure

    if len(names) > 1:
        if len(names) <= 3:
            add("pareto_front", draw.plot_pareto_front, target_names=names)
    else:
        add("history", draw.plot_optimization_history, target_name=names[0])
        add("parallel_coordinates", draw.plot_parallel_coordinate, target_name=names[0])
        if len(complete) > 3 and len(complete[0].params) > 1:
            add("importances", draw.plot_param_importances, target_name=names[0])
    return figures


def save_for_paper(figure: "Figure", stem: Path) -> None:
    """Write ``<stem>.png`` and ``<stem>.svg``; the SVG keeps text as text, so that a paper can restyle it."""
    if stem.parent.is_symlink():
        raise UserError(f"{stem.parent} is a link; name another folder with --figures.")
    make_folder(stem.parent)
    for kind in ("svg", "png"):
        save(figure, stem.with_name(f"{stem.name}.{kind}"))
