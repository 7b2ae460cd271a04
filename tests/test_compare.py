"""`seqexp compare`: right to the digit, and readable."""

import re
import shutil
import statistics
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Ran
from run_folders import (
    PNG,
    RUN,
    SWEEP,
    agrees,
    by_hand,
    csv_rows,
    held,
    make_run,
    markdown_rows,
    no_crash,
    rows_of,
    said_shortly,
    strict_json,
    write,
)

Main = Callable[..., Ran]


def some_seeds(folder: Path, losses: dict[Any, list[float]], key: str = "optimizer__lr") -> list[Path]:
    """A run for each loss, of the settings that are the keys."""
    return [
        make_run(folder / f"{i}_{j}", losses=(loss,), seed=j, **{key: value})
        for i, (value, seeds) in enumerate(losses.items())
        for j, loss in enumerate(seeds)
    ]


def table_of(run_main: Main, *words: Any) -> list[dict[str, str]]:
    ran = run_main("compare", "--no-figures", "--format", "csv", *words)
    assert ran.code == 0, ran.err
    return csv_rows(ran.out)


# The numbers


def test_means_and_deviations_of_a_sweep(run_main: Main, sweep: Path) -> None:
    truth = by_hand(sweep)
    rows = table_of(run_main, sweep)
    assert [(row["model.name"], int(row["data.seq_len"])) for row in rows] == [
        ("rnn", 8), ("rnn", 12), ("lstm", 8), ("lstm", 12)
    ]  # fmt: skip
    metrics = ("val/loss", "val/accuracy", "val/last_accuracy", "val/sequence_accuracy")
    names = [f"{name} {part}" for name in metrics for part in ("mean", "std")]
    assert list(rows[0]) == ["model.name", "data.seq_len", "n", *names]
    for row in rows:
        group = truth[row["model.name"], int(row["data.seq_len"])]
        assert int(row["n"]) == 3
        for name in metrics:
            assert float(row[f"{name} mean"]) == pytest.approx(statistics.mean(group[name]), rel=1e-12)
            deviation = statistics.stdev(group[name])
            assert float(row[f"{name} std"]) == pytest.approx(deviation, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("form", ["table", "markdown", "latex"])
def test_the_shown_numbers_of_a_sweep(run_main: Main, sweep: Path, form: str) -> None:
    """Deviations have two digits, means as many decimals; the best mean is bold, and it alone."""
    truth = by_hand(sweep)
    ran = run_main("compare", sweep, "--no-figures", "--format", form, "--y", "val/loss", "val/accuracy")
    assert ran.code == 0, ran.err
    if form == "markdown":
        header, _, *rows = markdown_rows(ran.out)
        clean = [cell.replace("\\_", "_") for cell in header]
        strong = re.compile(r"\*\*(.+)\*\*")
    elif form == "latex":
        lines = [line for line in ran.out.splitlines() if line.endswith(r"\\")]
        header, *rows = [[cell.strip() for cell in line[:-2].split(" & ")] for line in lines]
        assert [line for line in ran.out.splitlines() if "rule" in line] == [
            r"\toprule", r"\midrule", r"\bottomrule"
        ]  # fmt: skip
        (columns,) = re.findall(r"\\begin\{tabular\}\{([lrc]+)\}", ran.out)
        assert len(columns) == len(header)
        clean = [cell.replace(r"\_", "_") for cell in header]
        strong = re.compile(r"\\textbf\{(.+)\}")
        rows = [[cell.replace(r"$\pm$", "±") for cell in row] for row in rows]
    else:
        lines = [line for line in ran.out.splitlines() if line[:1] in "┃│"]
        header, *rows = [[cell.strip() for cell in re.split("[┃│]", line)[1:-1]] for line in lines]
        clean, strong = header, re.compile("(?!)")
    assert clean == ["model.name", "data.seq_len", "n", "val/loss", "val/accuracy"]
    assert len(rows) == 4
    for name, pick in (("val/loss", min), ("val/accuracy", max)):
        means = {key: statistics.mean(group[name]) for key, group in truth.items()}
        for row in rows:
            key, cell = (row[0], int(row[1])), row[clean.index(name)]
            bold = strong.fullmatch(cell)
            agrees(bold[1] if bold else cell, means[key], statistics.stdev(truth[key][name]))
            if form != "table":
                assert bool(bold) == (means[key] == pick(means.values())), (row, means)


def test_the_best_is_bold_on_a_terminal(monkeypatch: pytest.MonkeyPatch, run_main: Main) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    some_seeds(RUN, {0.1: [1.5], 0.2: [1.25]})
    out = run_main("compare", *RUN.iterdir(), "--no-figures").out
    assert re.search(r"\x1b\[1m *1\.25", out)
    assert not re.search(r"\x1b\[1m *1\.5", out)


@pytest.mark.parametrize(
    ("losses", "shown"),
    [
        ([1.0, 2.0, 3.0], "2.0 ± 1.0"),
        ([0.5, 0.5, 0.5], "0.5 ± 0"),
        ([0.1, 0.1, 0.1], "0.1 ± 0"),
        ([0.7, 0.7, 0.7, 0.7, 0.7, 0.7], "0.7 ± 0"),
        ([1.23456], "1.235"),
        ([1.0, 1.001], "1.00050 ± 0.00071"),
        ([0.0, 14.0], "7.0 ± 9.9"),
        ([0.0, 14.1], "7 ± 10"),
        ([1000.0, 3000.0], "2,000 ± 1,414"),
        ([0.1, 0.3], "0.20 ± 0.14"),
        ([-1.0, 1.0], "0.0 ± 1.4"),
        ([0.999, 1.0011], "1.0001 ± 0.0015"),
        ([0.0, 0.0141], "0.0070 ± 0.0100"),
    ],
)
def test_two_digits_of_the_deviation(run_main: Main, losses: list[float], shown: str) -> None:
    some_seeds(RUN, {0.1: losses})
    out = run_main("compare", *RUN.iterdir(), "--no-figures", "--format", "markdown").out
    ((n, cell),) = [row[-2:] for row in markdown_rows(out)[2:]]
    assert int(n) == len(losses)
    if shown == "0.0070 ± 0.0100":  # 0.00997: either way of two digits
        assert cell in ("0.0070 ± 0.0100", "0.007 ± 0.010", "0.0071 ± 0.0100")
    else:
        assert cell == shown


def test_the_same_in_all_rows_is_not_bold(run_main: Main) -> None:
    some_seeds(RUN, {0.1: [0.5, 0.7], 0.2: [0.6, 0.6], 0.3: [0.7, 0.5]})
    out = run_main("compare", *RUN.iterdir(), "--no-figures", "--format", "markdown").out
    assert "**" not in out


def test_of_rows_that_share_the_best_all_are_bold(run_main: Main) -> None:
    """Whatever the last bit of a mean is: 0.1 + 0.2 is not quite 0.3."""
    some_seeds(RUN, {0.1: [0.1, 0.2, 0.3], 0.2: [0.3, 0.2, 0.1], 0.3: [0.2, 0.2, 0.2], 0.4: [0.9, 0.9, 0.9]})
    out = run_main("compare", *RUN.iterdir(), "--no-figures", "--format", "markdown").out
    assert [("**" in row[-1]) for row in markdown_rows(out)[2:]] == [True, True, True, False]


def test_more_is_better_where_it_is(run_main: Main) -> None:
    for name, bleu in (("a", 30.0), ("b", 20.0)):
        make_run(RUN / name, losses=(1.0,), more={"val/bleu": bleu}, optimizer__lr=bleu)
    out = run_main("compare", *RUN.iterdir(), "--no-figures", "--format", "markdown").out
    assert "**30**" in out
    assert "**20**" not in out


@pytest.mark.parametrize("details", [True, False])
def test_what_nobody_declared_has_no_best(run_main: Main, details: bool) -> None:
    """Not by its name either: an old run declared the direction of the metric that it was monitored by."""
    for name, value in (("a", 30.0), ("b", 20.0)):
        more = {"val/entropy": value, "val/accuracy_of_stars": value}
        make_run(RUN / name, losses=(value,), more=more, optimizer__lr=value, details=details)
    out = run_main("compare", *RUN.iterdir(), "--no-figures", "--format", "markdown").out
    header, _, *rows = markdown_rows(out)
    bold = {name: [("**" in row[i]) for row in rows] for i, name in enumerate(header) if "val/" in name}
    assert {name.replace("\\", ""): any(cells) for name, cells in bold.items()} == {
        "val/loss": True, "val/entropy": False, "val/accuracy_of_stars": False
    }  # fmt: skip


def test_trials_are_not_ranked_by_what_nobody_declared(run_main: Main) -> None:
    for i, value in enumerate((2.0, 3.0, 1.0)):
        make_run(SWEEP / f"{i}_aa", more={"val/entropy": value}, optimizer__lr=0.1 * (i + 1))
    write(SWEEP / "study.db", "")
    ran = run_main("compare", SWEEP, "--json", "--no-figures", "--y", "val/entropy")
    assert ran.code == 0, ran.err
    means = [row["metrics"]["val/entropy"]["mean"] for row in strict_json(ran.out)["rows"]]
    assert means == [2.0, 3.0, 1.0]


def test_seeds_alone_give_one_row(run_main: Main) -> None:
    some_seeds(RUN, {0.1: [1.0, 2.0, 4.0]})
    (row,) = table_of(run_main, *RUN.iterdir())
    assert row["n"] == "3"
    assert float(row["val/loss mean"]) == pytest.approx(7 / 3)
    assert float(row["val/loss std"]) == pytest.approx(statistics.stdev([1.0, 2.0, 4.0]))
    (row,) = table_of(run_main, *RUN.iterdir(), "--by", "model.name")
    assert (row["model.name"], row["n"]) == ("gpt", "3")


def test_a_sweep_over_seeds_alone(run_main: Main) -> None:
    for seed in (1, 2):
        make_run(SWEEP / f"{seed}_aa", seed=seed, losses=(float(seed),), words=[f"seed={seed}"])
    write(SWEEP / "sweep.json", {"calls": [{"jobs": 2, "swept": ["seed"]}]})
    (row,) = table_of(run_main, SWEEP)
    assert (row["n"], row["val/loss mean"]) == ("2", "1.5")
    assert run_main("compare", SWEEP).code == 0
    assert run_main("report", SWEEP).code == 0


def test_a_run_alone(run_main: Main) -> None:
    make_run(RUN, losses=(2.0, 1.25))
    (row,) = table_of(run_main, RUN)
    assert row == {"n": "1", "val/loss mean": "1.25", "val/loss std": ""}


def test_a_run_that_is_named_twice_counts_once(run_main: Main) -> None:
    run = make_run(RUN)
    (row,) = table_of(run_main, run, f"{run}/", run.absolute(), RUN.parent / ".." / "hand" / "one")
    assert row["n"] == "1"


def test_a_metric_that_some_runs_lack(run_main: Main) -> None:
    make_run(RUN / "a", more={"val/bleu": 3.5}, optimizer__lr=0.1)
    make_run(RUN / "b", optimizer__lr=0.2)
    with_it, without = table_of(run_main, RUN / "a", RUN / "b")
    assert with_it["val/bleu mean"] == "3.5"
    assert without["val/bleu mean"] == ""
    for form in ("table", "markdown", "latex", "json"):
        assert run_main("compare", RUN / "a", RUN / "b", "--format", form).code == 0


def test_trials_are_ranked_and_zero_is_a_loss(run_main: Main) -> None:
    for i, loss in enumerate((1.0, 0.0, 2.0)):
        make_run(SWEEP / f"{i}_aa", losses=(loss,), optimizer__lr=0.1 * (i + 1))
    write(SWEEP / "study.db", "")
    ran = run_main("compare", SWEEP, "--json", "--no-figures")
    assert ran.code == 0, ran.err
    means = [row["metrics"]["val/loss"]["mean"] for row in strict_json(ran.out)["rows"]]
    assert means == [0.0, 1.0, 2.0]


# The columns


def test_settings_of_one_model_alone_are_no_columns(run_main: Main) -> None:
    make_run(RUN / "a", model__n_head=4)
    other = make_run(RUN / "b", model__name="lstm", model__hidden_size=64, optimizer__lr=0.01)
    config = yaml.safe_load((other / "config.yaml").read_text())
    del config["model"]["n_embd"]
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    columns = list(table_of(run_main, RUN / "a", RUN / "b")[0])
    assert columns == ["model.name", "optimizer.lr", "n", "val/loss mean", "val/loss std"]


def test_names_devices_and_seeds_are_no_columns(run_main: Main) -> None:
    make_run(RUN / "a", name="x", device__threads=1, seed=1)
    make_run(RUN / "b", name="y", device__threads=2, seed=2)
    (row,) = table_of(run_main, RUN / "a", RUN / "b")
    assert list(row) == ["n", "val/loss mean", "val/loss std"]


def test_columns_of_a_sweep_are_what_was_swept(run_main: Main) -> None:
    """What follows from it, such as a size that belongs to a model, is no column; the device may be one."""
    for i, (rate, threads) in enumerate(((0.1, 1), (0.2, 2))):
        make_run(
            SWEEP / f"{i}_aa", optimizer__lr=rate, device__threads=threads, model__n_embd=64 + i,
            words=[f"optimizer.lr={rate}", f"device.threads={threads}", "data.seq_len=50"],
        )  # fmt: skip
    write(SWEEP / "sweep.json", {"calls": [{"jobs": 2}]})
    columns = list(table_of(run_main, SWEEP)[0])
    assert columns[:3] == ["optimizer.lr", "device.threads", "n"]


def test_experiments_of_a_sweep_are_a_column(run_main: Main) -> None:
    for i, name in enumerate(("small", "large")):
        make_run(SWEEP / f"{i}_aa", model__n_embd=64 + i, words=[f"experiment={name}"])
    write(SWEEP / "sweep.json", {"calls": [{"jobs": 2}]})
    assert [row["experiment"] for row in table_of(run_main, SWEEP)] == ["small", "large"]


def test_further_columns(run_main: Main) -> None:
    make_run(RUN / "a", optimizer__lr=0.1)
    make_run(RUN / "b", optimizer__lr=0.2)
    columns = list(table_of(run_main, RUN / "a", RUN / "b", "--by", "seed", "data.seq_len")[0])
    assert columns[:4] == ["seed", "data.seq_len", "optimizer.lr", "n"]


def test_numbers_that_may_be_null(run_main: Main) -> None:
    """``null`` beside numbers leaves them what they are: in the table, in JSON, on the axis."""
    for i, size in enumerate((None, 1234567, 1234568)):
        make_run(RUN / str(i), trainer__max_steps=size, losses=(float(i),))
    runs = [RUN / str(i) for i in range(3)]
    rows = table_of(run_main, *runs)
    assert {row["trainer.max_steps"] for row in rows} == {"", "1234567", "1234568"}
    out = run_main("compare", *runs, "--no-figures", "--format", "markdown").out
    assert {row[0] for row in markdown_rows(out)[2:]} == {"—", "1234567", "1234568"}
    ran = run_main("compare", *runs, "--json", "--no-figures")
    values = [row["settings"]["trainer.max_steps"] for row in strict_json(ran.out)["rows"]]
    assert sorted(values, key=str) == [1234567, 1234568, None]
    no_crash(run_main("compare", *runs, "--x", "trainer.max_steps"))


def test_numbers_and_words_in_one_column(run_main: Main) -> None:
    values = [1, "auto", 2.5, None, ["a", "b"]]
    for i, value in enumerate(values):
        make_run(RUN / str(i), generation__stop=value, losses=(float(i),))
    runs = [RUN / str(i) for i in range(len(values))]
    rows = table_of(run_main, *runs)
    assert len(rows) == len(values)
    out = run_main("compare", *runs, "--no-figures", "--format", "markdown").out
    assert {row[0] for row in markdown_rows(out)[2:]} == {"1", "auto", "2.5", "—", "a, b"}
    no_crash(run_main("compare", *runs))
    strict_json(run_main("compare", *runs, "--json").out)


def test_close_settings_are_told_apart(run_main: Main) -> None:
    make_run(RUN / "a", optimizer__lr=0.10000001)
    make_run(RUN / "b", optimizer__lr=0.1)
    out = run_main("compare", RUN / "a", RUN / "b", "--no-figures", "--format", "markdown").out
    first, second = markdown_rows(out)[2:]
    assert first[0] != second[0]


def test_odd_words_in_tables(run_main: Main) -> None:
    """Signs that mean something in CSV, Markdown or LaTeX stay signs, and every row has all columns."""
    words = [
        "a|b", "x & y", "50 %", "a_b^c~d", r"back\slash", "{brace}", "#1 $2", "line\nbreak", "cr\rhere",
        "**b**", "`code`", "<b>", 'quo"te, comma', "[l](http://x)", "— ±", r"\|", "  spaces  ", "-", "tail\\",
    ]  # fmt: skip
    for i, word in enumerate(words):
        make_run(RUN / f"{i:02}", generation__stop=word, losses=(float(i),))
    runs = sorted(RUN.iterdir())
    rows = table_of(run_main, *runs)
    assert [row["generation.stop"] for row in rows] == words
    out = run_main("compare", *runs, "--no-figures", "--format", "markdown").out
    lines = markdown_rows(out)
    assert len(lines) == 2 + len(words)
    assert len(out.splitlines()) == 2 + len(words), "each row is one line"
    assert {len(line) for line in lines} == {3}
    import markdown_it

    tokens = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").parse(out)
    (table,) = [token for token in tokens if token.type == "table_open"]
    assert table.map == [0, 2 + len(words)]
    inline = [child for token in tokens for child in token.children or ()]
    strong = [inline[i + 1].content for i, child in enumerate(inline) if child.type == "strong_open"]
    assert strong == ["0"], "only the best is bold"
    assert {child.type for child in inline} <= {"text", "text_special", "strong_open", "strong_close"}
    latex = run_main("compare", *runs, "--no-figures", "--format", "latex").out
    body = latex.split(r"\midrule")[1].split(r"\bottomrule")[0].strip()
    cells = [line for line in re.split(r"\\\\\s*\n?", body) if line.strip()]
    assert len(cells) == len(words)
    for cell in cells:
        assert len(re.findall(r"(?<!\\)&", cell)) == 2, cell
        assert not re.search(r"(?<!\\)[#%^~]|(?<!\\)_", re.sub(r"\\[~^]\{\}", "", cell)), cell


# Which runs


def test_unfinished_runs_are_skipped_and_counted(run_main: Main) -> None:
    make_run(RUN / "a")
    make_run(RUN / "b", losses=(0.5,), optimizer__lr=0.2)
    make_run(RUN / "c", status="failed", error="broken", losses=(0.001,))
    make_run(RUN / "d", status="interrupted", losses=(0.001,))
    make_run(RUN / "e", status="running", losses=(0.001,))
    make_run(RUN / "f", status="running", losses=(0.001,))
    with held(RUN / "f"):
        ran = run_main("compare", *sorted(RUN.iterdir()), "--no-figures", "--format", "json")
    assert "skipped: 1 failed, 1 interrupted, 1 killed, 1 running (of 6 runs)" in ran.err
    values = strict_json(ran.out)
    assert {row["metrics"]["val/loss"]["mean"] for row in values["rows"]} == {1.5, 0.5}
    assert {(Path(run["run"]).name, run["status"]) for run in values["skipped"]} == {
        ("c", "failed"), ("d", "interrupted"), ("e", "killed"), ("f", "running")
    }  # fmt: skip


def test_nothing_finished(run_main: Main) -> None:
    make_run(RUN, status="failed", error="broken")
    assert "failed" in said_shortly(run_main("compare", RUN))


def test_finished_without_a_result(run_main: Main) -> None:
    make_run(RUN)
    (RUN / "result.json").unlink()
    for form in ("table", "csv", "markdown", "latex", "json"):
        no_crash(run_main("compare", RUN, "--format", form))
    no_crash(run_main("report", RUN))


def test_a_sweep_in_which_all_failed(run_main: Main) -> None:
    make_run(SWEEP / "0_aa", status="failed", error="ValueError: no luck")
    write(SWEEP / "sweep.json", {"calls": [{"jobs": 1, "command_line": "seqexp train -m"}]})
    said_shortly(run_main("compare", SWEEP))
    assert run_main("report", SWEEP).code == 0
    assert "ValueError: no luck" in (SWEEP / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--x", "optimizer.l"], "Did you mean 'optimizer.lr'"),
        (["--hue", "modl.name"], "Did you mean 'model.name'"),
        (["--by", "data.seqlen"], "Did you mean 'data.seq_len'"),
        (["--y", "val/los"], "Did you mean 'val/loss'"),
        (["--format", "html"], "table, csv, markdown, latex, json"),
        (["--colour"], "--colour"),
        (["--figures"], "--figures"),
        (["nowhere"], "nowhere"),
        (["."], "not the folder of a run"),
        (["~nobody_of_this_name/x"], "~nobody_of_this_name"),
        (["--y", "val/loss", "--figures", "/dev/null/x"], "/dev/null/x"),
    ],
)
def test_mistakes_are_said_shortly(run_main: Main, words: list[str], told: str) -> None:
    run = make_run(RUN)
    assert told in said_shortly(run_main("compare", str(run), *words))


def test_compare_where_there_is_nothing(run_main: Main) -> None:
    said_shortly(run_main("compare"))
    said_shortly(run_main("report", "latest"))


# Pictures


def texts_of(svg: Path) -> list[str]:
    """The words in a picture, which stay text."""
    root = ET.parse(svg).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not [part for part in root.iter() if part.tag.endswith("script")]
    return ["".join(part.itertext()) for part in root.iter("{http://www.w3.org/2000/svg}text")]


def test_pictures_of_a_sweep(run_main: Main, sweep: Path) -> None:
    ran = run_main("compare", sweep, "--y", "val/loss", "val/accuracy")
    assert ran.code == 0, ran.err
    folder = sweep / "compare"
    stems = {"curves", "val_loss_by_data_seq_len", "val_accuracy_by_data_seq_len"}
    for stem in stems:
        assert stem in ran.err
        assert (folder / f"{stem}.png").read_bytes()[:8] == PNG[:8]
    curves = texts_of(folder / "curves.svg")
    assert {"step", "val/loss", "rnn, seq_len=8", "lstm, seq_len=12"} <= set(curves)
    along = texts_of(folder / "val_accuracy_by_data_seq_len.svg")
    assert {"data.seq_len", "val/accuracy", "8", "12", "rnn", "lstm"} <= set(along)


def test_curves_have_bands_over_seeds(run_main: Main, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is the mean of the three seeds at each validation, the band from the lowest to the highest."""
    from matplotlib.axes import Axes

    lines, bands = {}, []
    plot, fill = Axes.plot, Axes.fill_between

    def noted_plot(axes: Any, x: Any, y: Any, **options: Any) -> Any:
        lines[options.get("label")] = list(zip(x, y, strict=True))
        return plot(axes, x, y, **options)

    def noted_fill(axes: Any, x: Any, low: Any, high: Any, **options: Any) -> Any:
        bands.append(list(zip(x, low, high, strict=True)))
        return fill(axes, x, low, high, **options)

    monkeypatch.setattr(Axes, "plot", noted_plot)
    monkeypatch.setattr(Axes, "fill_between", noted_fill)
    assert run_main("compare", sweep, "--y", "val/loss").code == 0
    truth: dict[str, dict[int, list[float]]] = {}
    for job in sweep.glob("*_*"):
        config = yaml.safe_load((job / "config.yaml").read_text())
        label = f"{config['model']['name']}, seq_len={config['data']['seq_len']}"
        for row in rows_of(job):
            if "val/loss" in row:
                truth.setdefault(label, {}).setdefault(row["step"], []).append(row["val/loss"])
    assert set(lines) >= set(truth)
    for label, steps in truth.items():
        assert [step for step, _ in lines[label]] == [10, 20]
        for step, value in lines[label]:
            assert value == pytest.approx(statistics.mean(steps[step]), rel=1e-12)
    expected = sorted([(step, min(v), max(v)) for step, v in steps.items()] for steps in truth.values())
    assert sorted(bands) == expected


def test_axes_that_were_chosen(run_main: Main, sweep: Path) -> None:
    words = ("--x", "seed", "--hue", "model.name", "--y", "val/loss", "--figures", "mine/pictures")
    assert run_main("compare", sweep, *words).code == 0
    assert {file.name for file in Path("mine/pictures").iterdir()} == {
        "curves.png", "curves.svg", "val_loss_by_seed.png", "val_loss_by_seed.svg"
    }  # fmt: skip
    texts = texts_of(Path("mine/pictures/val_loss_by_seed.svg"))
    assert {"seed", "rnn", "lstm", "1", "2", "3"} <= set(texts)
    assert [text for text in texts if "mean over data.seq_len" in text], "what is averaged over is said"
    assert not (sweep / "compare/val_loss_by_seed.png").exists()


def test_no_pictures(run_main: Main) -> None:
    make_run(RUN)
    before = sorted(Path().rglob("*"))
    assert run_main("compare", RUN, "--no-figures").code == 0
    assert sorted(Path().rglob("*")) == before


def test_words_of_strangers_in_pictures(run_main: Main) -> None:
    """Formulas and signs that no font has are drawn as they are, and nothing is said about them."""
    for i, word in enumerate(("$\\frac$", "a$b", "_hidden", "汉字", "<b>&amp;", "$x_{$")):
        make_run(RUN / str(i), generation__stop=word, losses=(2.0, 1.0 + i))
    runs = sorted(RUN.iterdir())
    ran = run_main("compare", *runs, "--figures", "pictures")
    assert ran.code == 0, ran.err[-500:]
    told = " ".join(texts_of(Path("pictures/curves.svg")))
    for word in ("$\\frac$", "a$b", "<b>&amp;", "汉字", "_hidden"):
        assert word in told
    assert "Glyph" not in ran.err


def test_a_folder_with_a_formula_as_its_name(run_main: Main) -> None:
    run = make_run(Path("outputs/train/hand/$\\frac$"))
    shutil.rmtree(run / "plots")
    assert run_main("report", run).code == 0
