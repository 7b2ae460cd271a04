"""A plugin outside the package adds a family of tasks; nothing inside knows its names."""

import ast
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import seqexp
from seqexp import registry

PLUGIN = Path(__file__).with_name("plugin")
PACKAGE = Path(seqexp.__file__).resolve().parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]
TRAIN = (
    "train", "data=reviews", "trainer.max_steps=40", "trainer.eval_every=10", "trainer.monitor=val/f1",
    "optimizer.lr=0.05", "scheduler=constant", "device=cpu", "device.threads=1", "trainer.keep_last=9",
)  # fmt: skip


@pytest.fixture
def run(seqexp: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    path = os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    return seqexp


def only(pattern: str) -> Path:
    (found,) = Path().glob(pattern)
    return found


def test_a_family_of_its_own(run: Run) -> None:
    """Train, eval, generate and report; the best checkpoint is the one of the highest macro-F1."""
    trained = run(*TRAIN)
    assert trained.returncode == 0, trained.stderr
    folder = only("outputs/train/bag_reviews/*")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    f1 = {row["step"]: row["val/f1"] for row in rows if "val/f1" in row}
    result = json.loads((folder / "result.json").read_text())
    assert len(set(f1.values())) > 1
    assert result["monitor"] == {
        "name": "val/f1",
        "mode": "max",
        "best": max(f1.values()),
        "step": result["step"],
    }
    assert f1[result["step"]] == max(f1.values())
    assert result["details"]["val/f1"] | {"value": 0} == {
        "value": 0, "count": 16, "interval": None, "unit": "macro average", "higher_is_better": True,
    }  # fmt: skip
    assert "generate run=latest text=" in trained.stderr

    judged = run("eval", "run=latest", "device=cpu")
    assert judged.returncode == 0, judged.stderr
    report = json.loads(judged.stdout)
    assert [row["subject"] for row in report["rows"]] == ["film", "book"]
    assert report["metrics"]["val/f1"] == report["rows"][0]["metrics"]["f1"]["value"]

    said = run("generate", "run=latest", "device=cpu", input="a moving film\na dull book\n")
    assert said.returncode == 0, said.stderr
    assert said.stdout == "good\nbad\n"
    lines = only("outputs/generate/bag_reviews/*/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["good", "bad"]

    reported = run("report", str(folder))
    assert reported.returncode == 0, reported.stderr
    assert "macro average" in next(folder.glob("**/*.html")).read_text() or list(folder.glob("**/*.html"))


@pytest.mark.slow
def test_a_search_goes_towards_the_higher(run: Run) -> None:
    words = [word for word in TRAIN if not word.startswith(("optimizer.lr", "trainer.max_steps"))]
    ran = run(
        *words, "-m", "sweep=optuna", "sweep.name=s", "sweep.n_trials=4", "trainer.max_steps=10",
        "optimizer.lr=tag(log,interval(1e-6,1e-1))", "sweep.sampler=random",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = [json.loads(file.read_text()) for file in Path("outputs/sweeps/s").glob("*/result.json")]
    values = [one["monitor"]["best"] for one in found]
    assert f"best val/f1 {max(values):.4g}" in ran.stderr
    import optuna

    study = optuna.load_study(study_name="s", storage="sqlite:///outputs/sweeps/s/study.db")
    assert study.best_value == max(values)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("exams=all",), "exams=all is for task=language_modeling, masked_language_modeling; this is"),
        (("trainer.monitor=val/entropy",), "does not declare whether higher is better"),
        (("model=gpt",), "model=gpt is of kind causal, and task=sentiment"),
        (
            ("task=language_modeling",),
            "task=language_modeling reads text, and data=reviews gives labelled text",
        ),
        (("trainer.monitor=val/accuracy",), "it must be one of val/loss, val/f1, val/entropy"),
    ],
)
def test_what_does_not_fit_is_one_line(run: Run, words: tuple[str, ...], message: str) -> None:
    ran = run(*TRAIN, *words)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


def test_generation_that_classifies_refuses_what_it_cannot_do(run: Run) -> None:
    assert run(*TRAIN, "trainer.max_steps=1").returncode == 0
    for words, message in (
        (("prompt=x",), "give its input as text="),
        (("text=x", "attention=a.png"), "explain= and attention= are not available"),
        (("text=x", "ensemble=[latest]"), "ensemble= is not available for the task of this run"),
    ):
        ran = run("generate", *words, "device=cpu")
        assert (ran.returncode, message in ran.stderr) == (2, True), ran.stderr
    scored = run("eval", "score=true", "device=cpu")
    assert (scored.returncode, "score= is not available" in scored.stderr) == (2, True)


def strings_in(file: Path) -> list[str]:
    """The string constants of a file that are not docstrings."""
    tree = ast.parse(file.read_text())
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents
    ]


NAMES: set[Any] = {name for group in ("task", "model", "data") for name in registry.ENTRIES[group]}


@pytest.mark.parametrize("package", ["commands", "training", "tracking", "reports"])
def test_no_name_of_a_task_model_or_data_set(package: str) -> None:
    """What these packages do is decided by what tasks, models and data declare."""
    # `text=` is also an input key and a kind of file; tables are also what reports are made of.
    names = NAMES - {"text", "table"}
    for file in sorted((PACKAGE / package).rglob("*.py")):
        assert not names & set(strings_in(file)), file


# The modules of tasks, models and data sets, which the registry imports when they are asked for.
MODULES = {
    entry.target.partition(":")[0]
    for group in ("task", "model", "data")
    for entry in registry.ENTRIES[group].values()
    if entry.target.startswith("seqexp.")
}


@pytest.mark.parametrize("package", ["commands", "training", "tracking", "reports"])
def test_no_task_model_or_data_set_is_told_by_its_name_or_class(package: str) -> None:
    """``task.name`` is compared with nothing, and no module of one is imported to ask for its class."""
    for file in sorted((PACKAGE / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare):
                sides = [side for one in (node.left, *node.comparators) for side in ast.walk(one)]
                names = [ast.unparse(side) for side in sides if isinstance(side, ast.Attribute)]
                told = ("task.name", "model.name", "data.name", "tokenizer.name")
                assert not [name for name in names if name.endswith(told)], (file, ast.unparse(node))
            if isinstance(node, ast.ImportFrom):
                assert node.module not in MODULES, (file, ast.unparse(node))
