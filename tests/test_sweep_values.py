"""Sweeps over files, runs and text with any sign in them, and what the progress line says of the jobs."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import TINY, Ran
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from seqexp.commands.hydra_app import _for_each_job
from seqexp.quoting import as_typed, param_overrides, quote_free_text, split_values
from seqexp.sweeps.progress import best_jobs, job_label
from seqexp.tracking.sweep_folder import SweepFolder

Main = Callable[..., Ran]

pytestmark = pytest.mark.usefixtures("one_thread")

UNTRAINED = (*TINY, "data=text", "trainer.max_steps=0", "trainer.sample_tokens=0", "sweep.name=s")
# What Hydra's grammar cannot read, or reads as something else, unless it is quoted.
ODD = (
    "ü.txt",
    "it's.txt",
    'say "x"',
    "~x",
    "!",
    "日本",
    "a\nb",
    "[1",
    "null",
    "1e3",
    " x ",
    "a\\",
    "\\'",
    "${a}",
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def jobs_words(*typed: str) -> list[list[str]]:
    """The overrides of each job, as a sweep makes them of what is typed."""
    # Looking for plugins, Hydra executes the module of its own sweeper once more: import ours after that.
    Plugins.instance()
    from seqexp.sweeps.grid_sweeper import GridSweeper

    words = _for_each_job([quote_free_text(word, sweep=True) for word in typed])
    overrides = OverridesParser.create().parse_overrides(words)
    (jobs,) = GridSweeper.split_arguments(overrides, None)
    return [list(job) for job in jobs]


def value_of(word: str) -> object:
    return OverridesParser.create().parse_override(word).value()


# Keys under a group are made a choice of one value, for which Hydra drops quotes; others are not.
@pytest.mark.parametrize("key", ["prompt", "generation.stop"])
@given(text=TEXT)
@example(text='Don\'t, (x): Où? ~ "q" ,')
def test_text_stays_what_was_typed(key: str, text: str) -> None:
    for value in (text, *ODD):
        jobs = jobs_words(f"{key}={value}", "seed=1,2")
        assert len(jobs) == 2
        for words in jobs:
            config = OmegaConf.create({"value": value_of(words[0])})
            assert config.value == value


@pytest.mark.parametrize("key", ["data.path", "data.val_source_path", "run", "init_from", "exams.path"])
def test_paths_are_swept_over(key: str) -> None:
    jobs = jobs_words(f"{key}=ü.txt,it's.txt,~x!.txt")
    assert [value_of(words[0]) for words in jobs] == ["ü.txt", "it's.txt", "~x!.txt"]
    assert [as_typed(words[0]) for words in jobs] == [f"{key}=ü.txt", f"{key}=it's.txt", f"{key}=~x!.txt"]


def test_a_choice_of_texts_is_a_sweep() -> None:
    jobs = jobs_words("prompt=choice('Don\\'t, ü','b')")
    assert [as_typed(words[0]) for words in jobs] == ["prompt=Don't, ü", "prompt=b"]
    assert len(jobs_words("prompt=a,b")) == 1


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("a.txt", ["a.txt"]),
        ("a.txt,b.txt", ["a.txt", "b.txt"]),
        (r"a\,b.txt", ["a,b.txt"]),
        (r"a\,b.txt,c\d.txt", ["a,b.txt", r"c\d.txt"]),
        ("'a,b.txt',c", ["a,b.txt", "c"]),
        ('c,"a,b.txt"', ["c", "a,b.txt"]),
        ("it's,don't", ["it's", "don't"]),
        ("'a,b", ["'a", "b"]),
        ("", [""]),
    ],
)
def test_a_comma_that_is_meant(typed: str, values: list[str]) -> None:
    assert split_values(typed) == values


@given(
    values=st.lists(st.text(st.sampled_from("a',\\ü\"b")).filter(lambda v: v[:1] not in "'\""), min_size=2)
)
def test_the_line_that_is_kept_can_be_typed_again(values: list[str]) -> None:
    """Where no value ends in a backslash, which before a comma would be another thing."""
    typed = ",".join(value.rstrip("\\").replace("\\,", ",").replace(",", "\\,") for value in values)
    word = quote_free_text(f"data.path={typed}", sweep=True)
    assert split_values(as_typed(word).partition("=")[2]) == split_values(typed)


def test_null_stays_nothing_in_a_sweep_over_paths() -> None:
    assert [value_of(words[0]) for words in jobs_words("data.path=null,null")] == [None, None]


def test_experiments_sweep_over_paths_too() -> None:
    assert param_overrides({"data.path": "ü.txt,b.txt", "seed": "1,2"}) == [
        "data.path=choice('ü.txt','b.txt')",
        "seed=1,2",
    ]


def test_a_sweep_over_files(run_main: Main, book: Path) -> None:
    names = ("ü.txt", "it's.txt", "a,b.txt")
    for i, name in enumerate(names):
        Path(name).write_text(f"{i} {book.read_text(encoding='utf-8')}", encoding="utf-8")
    ran = run_main("train", "-m", *UNTRAINED, "data.path=ü.txt,it's.txt,a\\,b.txt")
    assert ran.code == 0, ran.err
    found = re.findall(r"best val/loss \S+ \(data\.path=(.*?)\)", ran.err)
    assert len(found) == 3
    assert set(found) <= set(names)
    jobs = sorted(path for path in Path("outputs/sweeps/s").glob("*_*") if path.is_dir())
    paths = [
        yaml.safe_load((job / "config.yaml").read_text(encoding="utf-8"))["data"]["path"] for job in jobs
    ]
    assert [Path(path).name for path in paths] == list(names)
    assert len({job.name.partition("_")[2] for job in jobs}) == 3
    told_again = run_main("train", "-m", *UNTRAINED, "data.path=ü.txt,it's.txt,a\\,b.txt")
    assert told_again.err.count("already finished") == 3


def test_generate_and_eval_sweep_over_runs(run_main: Main, tiny_run: Path) -> None:
    other = shutil.copytree(tiny_run, Path("it's ü"))
    words = (
        "generation.max_new_tokens=2",
        "device.threads=1",
        "generation.stop='!'",
        "prompt=Don't go, (he said): A",
    )
    ran = run_main("generate", "-m", f"run={tiny_run},{other}", *words)
    assert ran.code == 0, ran.err
    assert "1 of 2 jobs done" in ran.err
    assert "2 of 2 jobs done" in ran.err
    assert ran.out.count("Don't go, (he said): A") == 2
    runs = {
        json.loads(file.read_text())["run"] for file in Path("outputs/generate").glob("*/*/manifest.json")
    }
    assert {Path(run).name for run in runs} == {tiny_run.name, "it's ü"}
    ran = run_main("eval", "-m", f"run={tiny_run},{other}", "checkpoint=best,last", "device.threads=1")
    assert ran.code == 0, ran.err
    assert "4 of 4 jobs done" in ran.err


# The progress line


def entry(
    run: str, value: float, words: list[str], metric: str = "val/loss", **more: object
) -> dict[str, object]:
    return {
        "job": 0,
        "run": run,
        "status": "finished",
        "metric": metric,
        "value": value,
        "words": words,
        **more,
    }


def test_jobs_of_different_metrics_are_not_compared() -> None:
    entries = [
        entry("a", 2.0, []), entry("b", 1.5, []),
        entry("c", 0.1, [], "val/f1", mode="max"), entry("d", 0.9, [], "val/f1", mode="max"),
    ]  # fmt: skip
    assert {metric: best["run"] for metric, best in best_jobs(entries).items()} == {
        "val/loss": "b",
        "val/f1": "d",
    }


def test_a_job_is_named_by_what_earlier_lines_had_too() -> None:
    """Neither line swept over the model, and yet the jobs differ in it."""
    sweep = SweepFolder(Path("outputs/sweeps/s"))
    for model in ("rnn", "lstm"):
        sweep.begin_call("", "grid", "basic", 2, ["seed"])
        for seed in (1, 2):
            words = [f"model={model}", f"seed={seed}", "data=parity"]
            sweep.record(entry(f"{model}{seed}", 1.0, words))
    assert job_label(sweep, 0, ["model=rnn", "seed=2", "data=parity"]) == "model=rnn seed=2"


def test_the_ledger_keeps_the_direction_of_the_monitor(run_main: Main) -> None:
    words = ("data=parity", "model=rnn", "data.seq_len=8", "trainer.max_steps=2", "trainer.eval_every=1")
    ran = run_main("train", "-m", *words, "trainer.sample_tokens=0", "data.eval_sequences=20",
                   "device.threads=1", "sweep.name=s", "trainer.monitor=val/loss,val/accuracy")  # fmt: skip
    assert ran.code == 0, ran.err
    ledger = SweepFolder(Path("outputs/sweeps/s")).ledger()
    assert [(one["metric"], one["mode"]) for one in ledger] == [("val/loss", "min"), ("val/accuracy", "max")]
    last = [line for line in ran.err.splitlines() if "2 of 2 jobs done" in line][-1]
    assert "best val/loss" in last
    assert "best val/accuracy" in last
    assert "(trainer.monitor=val/accuracy)" in last
