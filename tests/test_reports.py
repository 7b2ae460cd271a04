"""`seqexp compare` and `seqexp report`: right to the digit, whole, and harmless."""

import json
import os
import re
import shutil
import statistics
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Ran
from run_folders import (
    PNG,
    agrees,
    copy_run,
    crash,
    csv_rows,
    held,
    make_run,
    markdown_rows,
    no_crash,
    read,
    rows_of,
    said_shortly,
    strict_json,
    write,
)

Main = Callable[..., Ran]

RUN = Path("outputs/train/hand/one")
SWEEP = Path("outputs/sweeps/s")


@pytest.fixture
def sweep(parity_sweep: Path) -> Path:
    """A copy of the finished sweep, here."""
    return copy_run(parity_sweep, SWEEP)


def by_hand(sweep: Path) -> dict[tuple[str, int], dict[str, list[float]]]:
    """(model, length) → metric → its values at the lowest validation loss, from what was logged."""
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for job in sweep.glob("*_*"):
        config = yaml.safe_load((job / "config.yaml").read_text())
        best = min((row for row in rows_of(job) if "val/loss" in row), key=lambda row: row["val/loss"])
        group = found.setdefault((config["model"]["name"], config["data"]["seq_len"]), {})
        for name in best.keys() - {"step"}:
            group.setdefault(name, []).append(best[name])
    return found


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


def test_unfinished_runs_are_left_out_and_counted(run_main: Main) -> None:
    make_run(RUN / "a")
    make_run(RUN / "b", losses=(0.5,), optimizer__lr=0.2)
    make_run(RUN / "c", status="failed", error="broken", losses=(0.001,))
    make_run(RUN / "d", status="interrupted", losses=(0.001,))
    make_run(RUN / "e", status="running", losses=(0.001,))
    make_run(RUN / "f", status="running", losses=(0.001,))
    with held(RUN / "f"):
        ran = run_main("compare", *sorted(RUN.iterdir()), "--no-figures", "--format", "json")
    assert "left out: 1 failed, 1 interrupted, 1 killed, 1 running (of 6 runs)" in ran.err
    values = strict_json(ran.out)
    assert {row["metrics"]["val/loss"]["mean"] for row in values["rows"]} == {1.5, 0.5}
    assert {(Path(run["run"]).name, run["status"]) for run in values["left_out"]} == {
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
        (["."], "no folder of a run"),
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


# The page


class Page(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.inside.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "td" in self.inside or "th" in self.inside:
            self.cells[-1][-1] += data

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def shape(self) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(attributes)) for tag, attributes in self.tags]

    def row(self, name: str) -> list[str]:
        (row,) = [row for row in self.cells if row[0] == name]
        return row[1:]


ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "span", "nav", "a", "div",
    "table", "thead", "tbody", "tr", "th", "td", "strong", "pre", "figure", "img", "figcaption", "details",
    "summary", "footer", "br",
}  # fmt: skip


def page_of(file: Path) -> Page:
    """The page, which is checked to be harmless and to need nothing from elsewhere."""
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    assert page.inside == [], "every tag is closed"
    assert {tag for tag, _ in page.tags} <= ALLOWED
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        if "src" in attributes:
            assert tag == "img"
            assert str(attributes["src"]).startswith("data:image/png;base64,")
        if "href" in attributes:
            assert str(attributes["href"])[:1] == "#"
            assert str(attributes["href"])[1:] in ids, "the link leads somewhere"
    policies = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    (style,) = re.findall("<style>(.*?)</style>", text, re.S)
    assert not re.search(r"url\(|@import|http", style)
    return page


def report(run_main: Main, target: Path, *words: Any) -> tuple[Page, str]:
    """The page and the Markdown about a folder."""
    ran = run_main("report", target, *words)
    assert ran.code == 0, ran.err[-800:]
    return page_of(target / "report.html"), (target / "report.md").read_text(encoding="utf-8")


def check_markdown(text: str, folder: Path) -> list[Path]:
    """The pictures of a page in Markdown; it holds no HTML, and every link names a file that is there."""
    import markdown_it

    tokens = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    assert not [token.content for token in tokens if token.type == "html_block"]
    inline = [child for token in tokens for child in token.children or ()]
    assert not [child.content for child in inline if child.type == "html_inline"]
    assert not [child.attrs for child in inline if child.type == "link_open"]
    from urllib.parse import unquote

    pictures = [folder / unquote(str(child.attrs["src"])) for child in inline if child.type == "image"]
    for picture in pictures:
        assert picture.is_file(), picture
    meant = [token for token in tokens if token.type == "inline" and token.content.startswith("![")]
    assert len(meant) == len(pictures), [token.content for token in meant]
    return pictures


def test_a_page_about_a_run(run_main: Main, tiny_run: Path, book: Path) -> None:
    run = copy_run(tiny_run, Path("outputs/train/tiny/one"))
    page, markdown = report(run_main, run)
    manifest, result = read(run / "manifest.json"), read(run / "result.json")
    sha = manifest["corpus"]["files"][0]["sha256"]
    samples = (run / "samples/step_00000010.txt").read_text(encoding="utf-8").rstrip("\n")
    for text in (page.text, markdown):
        assert manifest["command_line"] in text
        assert sha in text
        assert manifest["versions"]["torch"] in text
        assert samples in text
        assert "step 10" in text
    assert page.row("optimizer.lr") == [
        f"{yaml.safe_load((run / 'config.yaml').read_text())['optimizer']['lr']}"
    ]
    assert page.row("best val/loss")[0].startswith(f"{result['monitor']['best']:.4g} at step ")
    assert page.row("parameters") == [f"{manifest['parameters']['total']:,}"]
    assert page.row("git_commit") or manifest["git_commit"] is None
    pictures = check_markdown(markdown, run)
    assert [file.name for file in pictures] == ["loss.png"]
    images = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(images) == 1
    markdown_rows(markdown)


def test_a_page_about_a_translator(run_main: Main, nmt_run: Path) -> None:
    """Translations and pictures of attention are on it."""
    run = copy_run(nmt_run, Path("outputs/train/tiny/one"))
    page, markdown = report(run_main, run)
    last = sorted((run / "samples").glob("step_*.txt"))[-1].read_text(encoding="utf-8")
    assert last.rstrip("\n") in page.text
    assert last.rstrip("\n") in markdown
    steps = sorted({file.name.split("_")[1] for file in (run / "samples").glob("step_*.png")})
    drawn = list((run / "samples").glob(f"step_{steps[-1]}*.png"))
    assert drawn, "the run has pictures of attention"
    pictures = check_markdown(markdown, run)
    assert {file.read_bytes() for file in pictures} >= {file.read_bytes() for file in drawn}
    captions = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert len([caption for caption in captions if "attention" in str(caption)]) == len(drawn)
    assert page.row("val/bleu") == [f"{read(run / 'result.json')['metrics']['val/bleu']:.4g}"]


def test_a_page_about_a_sweep(run_main: Main, sweep: Path) -> None:
    page, markdown = report(run_main, sweep)
    truth = by_hand(sweep)
    rows = [row for row in page.cells if row[0] in ("rnn", "lstm") and len(row) == 7]
    assert len(rows) == 4
    for row in rows:
        losses = truth[row[0], int(row[1])]["val/loss"]
        agrees(row[3], statistics.mean(losses), statistics.stdev(losses))
    command = read(sweep / "sweep.json")["calls"][0]["command_line"]
    assert command in page.text
    assert command in markdown
    best = min(sweep.glob("*_*"), key=lambda job: read(job / "result.json")["monitor"]["best"])
    assert best.name in page.row("best val/loss")[0]
    for job in sweep.glob("*_*"):
        words = page.row(job.name)
        config = yaml.safe_load((job / "config.yaml").read_text())
        assert words[-1] == (
            f"model={config['model']['name']} data.seq_len={config['data']['seq_len']} seed={config['seed']}"
        )
    assert page.row("seed")[-1] == str(yaml.safe_load((best / "config.yaml").read_text())["seed"])
    assert len(check_markdown(markdown, sweep)) == len([1 for tag, _ in page.tags if tag == "img"]) == 5
    markdown_rows(markdown)


def test_failures_are_on_the_page(run_main: Main) -> None:
    make_run(SWEEP / "0_aa")
    told = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\nValueError: ```no``` <luck>\n'
    make_run(SWEEP / "1_bb", status="failed", error=told)
    make_run(SWEEP / "2_cc", status="running")
    write(SWEEP / "sweep.json", {"calls": [{"jobs": 3}]})
    page, markdown = report(run_main, SWEEP)
    assert told in page.text
    assert told in markdown
    assert {"1_bb", "2_cc"} <= {text.strip() for text in page.texts}
    assert "killed" in page.text
    make_run(RUN, status="failed", error=told)
    page, markdown = report(run_main, RUN)
    assert told in page.text
    check_markdown(markdown, RUN)


def test_evaluations_are_on_the_page(run_main: Main, tiny_run: Path) -> None:
    run = shutil.copytree(tiny_run, Path("outputs/train/tiny/one"))
    assert run_main("eval", f"run={run}", "device=cpu", "device.threads=1").code == 0
    (file,) = Path("outputs/eval").glob("*/*/result.json")
    page, markdown = report(run_main, run)
    (title,) = {text for text in page.texts if file.parent.name in text}
    assert title.startswith("val, checkpoint best")
    shown = {row[0]: row[1] for row in page.cells if len(row) == 2}
    for name, value in read(file)["metrics"].items():
        assert float(shown[name].replace(",", "")) == pytest.approx(value, rel=1e-3)
    assert file.parent.name in markdown.replace("\\_", "_")
    # By another way to the same folder.
    ran = run_main("report", "--json", Path("outputs") / ".." / run)
    assert strict_json(ran.out)["evaluations"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "x", None, [], True])
def test_evaluations_that_went_wrong(run_main: Main, value: Any) -> None:
    make_run(RUN)
    write(
        Path("outputs/eval/hand/two/result.json"),
        {"run": str(RUN.absolute()), "split": "test", "metrics": {"test/loss": value}},
    )
    no_crash(run_main("report", RUN))


def test_json_of_a_page(run_main: Main, sweep: Path) -> None:
    make_run(RUN)
    for target in (RUN, sweep, sweep / next(sweep.glob("0_*")).name):
        values = strict_json(run_main("report", "--json", target).out)
        assert values["status"] == "finished"
        assert values["commands"]


def test_json_writes_nothing(run_main: Main, sweep: Path) -> None:
    """As --help says."""
    before = sorted(Path().rglob("*"))
    for target in (sweep, next(sweep.glob("0_*"))):
        assert run_main("report", "--json", target).code == 0
    assert sorted(Path().rglob("*")) == before


def test_where_the_page_goes(run_main: Main) -> None:
    make_run(RUN)
    assert run_main("report", RUN, "--output", "pages/hand in.html").code == 0
    page_of(Path("pages/hand in.html"))
    assert run_main("report", RUN, "--output", "pages/hand in.md").code == 0
    assert check_markdown(Path("pages/hand in.md").read_text(), Path("pages"))
    assert not (RUN / "report.html").exists()


def test_links_from_markdown_survive_odd_folders(run_main: Main) -> None:
    run = make_run(Path("outputs/train/my run (2) #1 %41/one"))
    assert run_main("report", run, "--output", "page.md").code == 0
    assert len(check_markdown(Path("page.md").read_text(), Path())) == 1


@pytest.mark.parametrize(
    "target", ["page.pdf", "page", "folder.html", "/dev/null/page.html", "/proc/page.html", ".md"]
)
def test_places_where_no_page_can_go(run_main: Main, target: str) -> None:
    make_run(RUN)
    Path("folder.html").mkdir()
    said_shortly(run_main("report", RUN, "--output", target))


@pytest.mark.parametrize(
    ("words", "told"),
    [([], "RUN|SWEEP"), (["nowhere"], "nowhere"), (["."], "no folder"), (["latest", "--pdf"], "--pdf")],
)
def test_mistakes_of_report(run_main: Main, words: list[str], told: str) -> None:
    assert told in said_shortly(run_main("report", *words))


def test_an_evaluation_is_no_run(run_main: Main) -> None:
    run = make_run(Path("outputs/eval/hand/two"), command="eval")
    said_shortly(run_main("report", run))
    said_shortly(run_main("compare", run))


def test_a_folder_that_cannot_be_written(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of someone else's folder the page can still be written elsewhere."""
    run = make_run(SWEEP / "0_aa")
    write(SWEEP / "sweep.json", {"calls": [{"jobs": 1}]})
    shutil.rmtree(run / "plots")
    theirs = SWEEP.absolute()
    mkdir, mkstemp = os.mkdir, __import__("tempfile").mkstemp

    def refuse(path: Any, *more: Any, **options: Any) -> Any:
        if Path(path).absolute().is_relative_to(theirs):
            raise PermissionError(13, "Permission denied", str(path))
        return mkdir(path, *more, **options)

    def refuse_file(*more: Any, **options: Any) -> Any:
        if Path(options["dir"]).absolute().is_relative_to(theirs):
            raise PermissionError(13, "Permission denied", str(options["dir"]))
        return mkstemp(*more, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr("tempfile.mkstemp", refuse_file)
    said_shortly(run_main("report", run))
    for target in (run, SWEEP):
        ran = run_main("report", target, "--output", "page.html")
        assert ran.code == 0, crash(ran) or ran.err
        page_of(Path("page.html"))
    no_crash(run_main("compare", SWEEP))


# Strangers


EVIL = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'><svg onload=alert(1)>",
    "</pre></td></table>", "{{ 7 * 7 }}{% raw %}", "${oc.env:HOME}", "<!--", "]]>", "&lt;b&gt;",
    "</title></style><script>",
    "![x](http://evil/x.png)", "[x](javascript:alert(1))", "[x](http://evil)", "a\r# heading\r\r<b>",
    "x\n\n<iframe src=//evil>\n\n",
    "|---|", "```\n<b>\n```", "<http://evil>",
]  # fmt: skip


def strange_sweep(word: str) -> None:
    """A sweep with `word` wherever a stranger can leave one."""
    safe = re.sub(r"[/\x00]", "_", word).encode()[:100].decode(errors="ignore")
    for job, status in (("0_aa", "finished"), ("1_bb", "finished"), ("2_cc", "failed")):
        run = make_run(
            SWEEP / job, status=status, error=word, name=word, model__name=word, data__name=word,
            generation__stop=f"{word}{job}", words=[f"generation.stop={word}{job}"],
        )  # fmt: skip
        manifest = {
            "command_line": word, "git_commit": word, "python": word, "device": word,
            "versions": {word: word},
            "corpus": {"name": word, word: word, "stand_in": word, "parts": {word: {word: word}}},
            "sweep": {"words": [f"generation.stop={word}{job}"]}, "resumed": [{"command_line": word}],
        }  # fmt: skip
        write(run / "manifest.json", manifest)
        write(run / "samples/step_00000010.txt", word)
        for place in (run / "samples/step_00000010", run / "plots/"):
            (place.parent / f"{place.name}{safe}.png").parent.mkdir(exist_ok=True)
            file = Path(f"{place}_{safe}.png") if place.name.startswith("step") else place / f"{safe}.png"
            file.write_bytes(PNG)
        result = Path(f"outputs/eval/{job}/one/result.json")
        write(
            result,
            {
                "run": str(run.absolute()),
                "split": word,
                "checkpoint": word,
                "metrics": {word: word, "a": {word: 1}},
            },
        )
    call = {"command_line": word, "method": word, "launcher": word, "jobs": 3, "swept": ["generation.stop"]}
    write(SWEEP / "sweep.json", {"calls": [call]})
    lines = [
        {"job": i, "words": [f"generation.stop={word}"], "run": f"{i}_{c}{c}"} for i, c in enumerate("abc")
    ]
    write(SWEEP / "jobs.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def plain_shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Filled by the first test that asks: the tags of pages about harmless words."""
    return {}


@pytest.mark.parametrize("word", EVIL)
def test_words_of_strangers_stay_words(run_main: Main, plain_shapes: dict[str, Any], word: str) -> None:
    """A page has the same tags whatever the words in the files are, and shows the words."""
    job = SWEEP / "0_aa"
    if not plain_shapes:
        strange_sweep("harmless")
        plain_shapes["job"] = report(run_main, job)[0].shape
        shutil.rmtree("outputs")
    strange_sweep(word)
    page, _ = report(run_main, job)
    assert page.shape == plain_shapes["job"]
    assert word.replace("\r", "\n").strip() in page.text.replace("\r", "\n")


@pytest.mark.parametrize("word", EVIL)
def test_words_of_strangers_stay_words_in_markdown(run_main: Main, word: str) -> None:
    """No HTML comes of them, no link, no picture from elsewhere, and the tables stay whole."""
    strange_sweep(word)
    job = SWEEP / "0_aa"
    _, markdown = report(run_main, job)
    assert len(check_markdown(markdown, job)) == 3
    markdown_rows(re.sub(r"^(`{3,})$.*?^\1$", "", markdown, flags=re.M | re.S))


@pytest.mark.parametrize("word", [EVIL[0], EVIL[1], "![x](http://evil/x.png)", "a\r# heading\r\r<b>"])
def test_words_of_strangers_on_the_page_of_a_sweep(run_main: Main, word: str) -> None:
    strange_sweep(word)
    page, markdown = report(run_main, SWEEP)
    assert word.replace("\r", "\n").strip() in page.text.replace("\r", "\n")
    check_markdown(markdown, SWEEP)


def test_only_pictures_are_embedded(run_main: Main) -> None:
    make_run(RUN)
    write(RUN / "plots/script.png", "<svg onload=alert(1)>")
    write(RUN / "plots/picture.svg", "<svg/>")
    (RUN / "plots/large.png").write_bytes(PNG + bytes(6_000_000))
    (RUN / "plots/empty.png").touch()
    (RUN / "plots/folder.png").mkdir()
    write(RUN / "samples/step_1_fake.png", "GIF89a")
    page, markdown = report(run_main, RUN)
    assert [a["alt"] for tag, a in page.tags if tag == "img"] == ["loss"]
    assert [file.name for file in check_markdown(markdown, RUN)] == ["loss.png"]


SECRET = "the secret of another folder"


@pytest.mark.parametrize(
    "name",
    ["samples/step_00000001.txt", "samples", "plots", "plots/secret.png", "config.yaml", "status.json",
     "manifest.json", "metrics.jsonl", "result.json"],
)  # fmt: skip
def test_nothing_is_read_through_a_link(run_main: Main, name: str) -> None:
    """A stranger's folder may hold links to what is yours."""
    outside = make_run(
        Path("private/one"), name=SECRET, status="failed", error=SECRET, data__name=SECRET, model__name=SECRET
    )
    write(outside / "samples/step_00000001.txt", SECRET)
    write(outside / "manifest.json", {"command_line": SECRET, "versions": {"torch": SECRET}})
    write(outside / "metrics.jsonl", '{"step": 77777777, "val/loss": 1.0}\n')
    write(outside / "result.json", {"metrics": {"val/secret": 77777777}})
    secret = outside / "plots/secret.png"
    secret.write_bytes(PNG)
    make_run(RUN)
    shutil.rmtree(RUN / name) if (RUN / name).is_dir() else (RUN / name).unlink(missing_ok=True)
    (RUN / name).parent.mkdir(exist_ok=True)
    (RUN / name).symlink_to((outside / name).absolute())
    before = sorted(file.name for file in outside.rglob("*"))
    for words in (("report", RUN), ("report", "--json", RUN), ("runs",), ("runs", "show", RUN)):
        ran = run_main(*words)
        no_crash(ran)
        assert SECRET not in ran.out
        assert "77777777" not in ran.out
        assert "77,777,777" not in ran.out
    for file in (RUN / "report.html", RUN / "report.md"):
        if file.exists():
            text = file.read_text()
            assert SECRET not in text
            assert "secret" not in text.replace(str(Path.cwd()), "")
            assert "77,777,777" not in text
    assert sorted(file.name for file in outside.rglob("*")) == before, "and nothing is written there"


def test_a_page_is_not_written_through_a_link(run_main: Main) -> None:
    make_run(RUN)
    write(Path("precious.html"), "mine")
    (RUN / "report.html").symlink_to(Path("precious.html").absolute())
    assert run_main("report", RUN).code == 0
    assert Path("precious.html").read_text() == "mine"


def test_pictures_are_not_written_through_a_link(run_main: Main) -> None:
    Path("outside").mkdir()
    make_run(SWEEP / "0_aa")
    write(SWEEP / "sweep.json", {"calls": [{"jobs": 1}]})
    (SWEEP / "compare").symlink_to(Path("outside").absolute())
    no_crash(run_main("compare", SWEEP))
    no_crash(run_main("report", SWEEP))
    assert not list(Path("outside").iterdir())


@pytest.mark.parametrize("what", ["sample", "error", "setting", "settings", "pictures", "command", "metrics"])
def test_a_page_stays_a_page(run_main: Main, what: str) -> None:
    """However much a folder holds, the page is a few dozen megabytes at most."""
    make_run(RUN, status="failed", error="x" * 30_000_000 if what == "error" else "broken")
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    if what == "sample":
        write(RUN / "samples/step_1.txt", "x" * 30_000_000)
    elif what == "setting":
        write(RUN / "config.yaml", json.dumps({**config, "long": "x" * 5_000_000}))
    elif what == "settings":
        write(RUN / "config.yaml", json.dumps({**config, "many": {f"k{i}": i for i in range(20_000)}}))
    elif what == "pictures":
        for i in range(30):
            (RUN / f"plots/{i}.png").write_bytes(PNG + bytes(3_000_000))
    elif what == "command":
        write(RUN / "manifest.json", {"command_line": "x" * 5_000_000, "versions": {"a": "x" * 5_000_000}})
    elif what == "metrics":
        row = json.dumps({"step": 1, **{f"val/{i}": 1.0 for i in range(20_000)}})
        write(RUN / "metrics.jsonl", row + "\n")
        write(RUN / "result.json", {"metrics": {f"val/{i}": 1.0 for i in range(20_000)}})
    assert run_main("report", RUN).code == 0
    limit = 50_000_000 if what == "pictures" else 3_000_000
    assert (RUN / "report.html").stat().st_size < limit
