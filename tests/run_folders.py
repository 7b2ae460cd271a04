"""Folders of runs written by hand, which take no training, and what the tests of runs and reports share."""

import copy
import csv
import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from conftest import Ran

Main = Callable[..., Ran]

RUN = Path("outputs/train/hand/one")
SWEEP = Path("outputs/sweeps/s")

CONFIG: dict[str, Any] = {
    "schema_version": 2,
    "model": {"name": "gpt", "n_layer": 4, "n_embd": 64},
    "optimizer": {"name": "adamw", "lr": 0.001},
    "data": {"name": "text", "seq_len": 50},
    "device": {"name": "cpu", "threads": 1},
    "trainer": {"max_steps": 20, "max_grad_norm": 1.0, "monitor": "val/loss"},
    "generation": {"stop": None},
    "seed": 1,
    "name": "hand",
}
MANIFEST: dict[str, Any] = {
    "command": "train",
    "command_line": "seqexp train model=gpt data=text",
    "python": "3.11.7",
    "platform": "Linux",
    "versions": {"seqexp": "0.1.0", "torch": "2.9.0"},
    "git_commit": "0123456789",
    "seed": 1,
    "corpus": {
        "name": "text",
        "files": [{"path": "book.txt", "sha256": "ab" * 32}],
        "splits": {"train": {"characters": 9000}, "val": {"characters": 1000}},
    },
    "parameters": {"total": 12345},
}
# Whether higher is better, as tasks declare it; of other metrics nobody has.
HIGHER = {"val/loss": False, "val/accuracy": True, "val/bleu": True}
# The smallest picture: one grey dot.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)


def write(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def make_run(
    path: Path,
    *,
    status: str = "finished",
    started: str = "2026-01-31T12:00:00+00:00",
    error: str | None = None,
    losses: tuple[float, ...] = (2.0, 1.5),
    more: dict[str, float] | None = None,
    words: list[str] | None = None,
    command: str = "train",
    details: bool = True,
    **settings: Any,
) -> Path:
    """A run as training leaves it, without checkpoints; ``model__n_layer=2`` is the setting model.n_layer.

    Without `details` the result is one of schema 1.
    """
    config = copy.deepcopy(CONFIG)
    for key, value in settings.items():
        *groups, last = key.split("__")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(
        yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    write(path / "manifest.json", {**MANIFEST, **({"sweep": {"words": words}} if words else {})})
    write(
        path / "status.json",
        {"status": status, "started": started, **({"error": error} if error is not None else {})},
    )
    rows = [{"step": 10 * (i + 1), "val/loss": loss, **(more or {})} for i, loss in enumerate(losses)]
    write(path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    if status == "finished":
        best = min(rows, key=lambda row: row["val/loss"])
        metrics = {key: value for key, value in best.items() if key != "step"}
        carried = {
            name: {
                "value": value, "count": 100, "interval": None, "unit": f"unit of {name}",
                "higher_is_better": HIGHER.get(name),
            }
            for name, value in metrics.items()
        }  # fmt: skip
        write(
            path / "result.json",
            {
                "command": command,
                **({"details": carried} if details else {}),
                "run": str(path.absolute()),
                "checkpoint": "best",
                "step": best["step"],
                "split": "val",
                "metrics": metrics,
                "monitor": {"name": "val/loss", "mode": "min", "best": best["val/loss"]},
                "ending": "finished",
                "minutes": 0.1,
            },
        )
    (path / "plots").mkdir()
    (path / "plots" / "loss.png").write_bytes(PNG)
    return path


def copy_run(run: Path, to: Path) -> Path:
    """A copy without the heavy parts, which a test may change."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    return to


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Another process has the lock of this run, as one that trains has."""
    program = (
        "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run / ".lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.stdin.close()


def said_shortly(ran: Ran) -> str:
    """The one short message of a mistake with exit code 2."""
    assert ran.code == 2, (ran.code, ran.err)
    assert "Traceback" not in ran.err
    assert ran.err.count("\n") == 1, ran.err
    assert len(ran.err) < 1000
    return ran.err


def crash(ran: Ran) -> str:
    """Where and how a command crashed, in a line; empty if it worked, or said shortly why not."""
    if ran.code in (0, 2) and "Traceback" not in ran.err:
        return ""
    places = re.findall(r"seqexp/(\w+/\w+\.py)\", line (\d+)", ran.err)
    place = ":".join(places[-1]) if places else "?"
    return f"exit code {ran.code}, {place}, {ran.err.strip().splitlines()[-1:]}"


def no_crash(ran: Ran) -> None:
    told = crash(ran)
    assert not told, told


def strict_json(text: str) -> Any:
    """JSON as the standard has it, which knows no NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def markdown_rows(text: str) -> list[list[str]]:
    """The cells of the Markdown tables in a text; every row of a table has as many as its header."""
    tables: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            inside = line.strip().removeprefix("|")
            assert re.search(r"(?<!\\)\|$", inside), line
            tables[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", inside)[:-1]])
        elif tables[-1]:
            tables.append([])
    for table in tables:
        assert len({len(row) for row in table}) <= 1, table
        if table:
            assert all(set(cell) <= set("-: ") for cell in table[1]), table[1]
    return [row for table in tables for row in table]


def agrees(shown: str, mean: float, deviation: float) -> None:
    """`shown` is ``mean ± deviation``, the deviation with two significant digits, both rounded rightly."""
    if common := re.fullmatch(r"\((.*)\)e(-\d\d)", shown):
        shown, scale = common[1], 10.0 ** int(common[2])
        mean, deviation = mean / scale, deviation / scale
    left, right = shown.split(" ± ")
    decimals = len(right.partition(".")[2])
    assert len(left.partition(".")[2]) == decimals, shown
    digits = right.replace(".", "").replace(",", "").lstrip("0")
    assert len(digits) == 2, shown
    half = 0.5 * 10.0**-decimals * (1 + 1e-6)
    assert math.isclose(float(left.replace(",", "")), mean, abs_tol=half, rel_tol=0), (shown, mean)
    assert math.isclose(float(right.replace(",", "")), deviation, abs_tol=half, rel_tol=0), (shown, deviation)


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


def listed(run_main: Main, *words: str) -> list[dict[str, Any]]:
    ran = run_main("runs", "--json", *words)
    assert ran.code == 0, ran.err
    return list(strict_json(ran.out))


def names(run_main: Main, *words: str) -> list[str]:
    """The last parts of the folders that are listed."""
    return [Path(row["path"]).name for row in listed(run_main, *words)]


def status_of(run_main: Main, run: Path = RUN) -> str:
    (row,) = [row for row in listed(run_main, "--all") if row["path"] == str(run.absolute())]
    return str(row["status"])


def small_sweep() -> Path:
    sweep = Path("outputs/sweeps/s")
    for job in ("0_aa", "1_bb"):
        number = int(job[0])
        make_run(
            sweep / job, seed=number + 1, optimizer__lr=10.0 ** -(3 + number), losses=(2.0, 1.5 - number),
            words=[f"optimizer.lr={10.0 ** -(3 + number)}", f"seed={number + 1}"],
        )  # fmt: skip
    call = {
        "command_line": "seqexp train -m …", "method": "grid", "launcher": "basic", "jobs": 2,
        "swept": ["optimizer.lr", "seed"], "before": 0, "started": 1.0, "ledger_lines": 0,
    }  # fmt: skip
    write(sweep / "sweep.json", {"calls": [call]})
    lines = [
        {"job": i, "words": [f"seed={i}"], "run": job, "status": "finished"}
        for i, job in enumerate(("0_aa", "1_bb"))
    ]
    write(sweep / "jobs.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return sweep
