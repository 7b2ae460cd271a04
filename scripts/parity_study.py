"""The runs of docs/parity.md: about an hour on two cores; finished runs are skipped.

    python scripts/parity_study.py             # missing runs, two at a time; then tables and plots
    python scripts/parity_study.py --report    # tables and plots of the finished runs

Every run is a command line of seqexp; its result is saved with the command line in
outputs/parity_study/<study>/<label>.json. Tables go to outputs/parity_study/tables.md, plots to docs/images/.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

OUT = Path("outputs/parity_study")
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MODELS = ("rnn", "lstm", "gru")
BEYOND = (100, 200, 500, 1000, 2000, 5000)
COMMON = (
    "data=parity",
    "device=cpu",
    "device.threads=1",
    "trainer.sample_tokens=0",
    "trainer.eval_every=100",
)


@dataclass(frozen=True)
class Job:
    """One run: its study and label, the overrides of `train`, and those of `eval` (one call per tuple)."""

    study: str
    label: dict[str, Any]
    overrides: tuple[str, ...]
    evals: tuple[tuple[str, ...], ...] = ()

    @property
    def command(self) -> str:
        evals = [" ".join(("; seqexp eval run=latest split=test", *overrides)) for overrides in self.evals]
        return " ".join(("seqexp train", *COMMON, *self.overrides)) + "".join(evals)

    @property
    def file(self) -> Path:
        name = "_".join(f"{key}={value}" for key, value in self.label.items())
        return OUT / self.study / f"{name}.json"


def curriculum_jobs() -> Iterable[Job]:
    """Return runs with full supervision and a curriculum to 100 bits: ten seeds per model."""
    lengths = f"data.lengths=[{','.join(map(str, BEYOND[1:]))}]"
    evals = (("data.lengths=[100]", "data.sequences=10000"), (lengths, "data.sequences=1000"))
    base = ("experiment=parity/full_supervision",)
    kinds = {
        "rnn, 16 units": ("model=rnn",),
        "lstm, 3 units": ("model=lstm",),
        "gru, 3 units": ("model=gru",),
        "gru, 8 units": ("model=gru", "model.hidden_size=8"),
        "rnn, 3 units": ("model=rnn", "model.hidden_size=3", "trainer.max_steps=8000"),
        "rnn, 3 units, orthogonal": (
            "model=rnn", "model.hidden_size=3", "model.init=orthogonal", "trainer.max_steps=8000",
        ),
    }  # fmt: skip
    for (kind, overrides), seed in product(kinds.items(), range(1, 11)):
        yield Job("curriculum", {"model": kind, "seed": seed}, (*base, *overrides, f"seed={seed}"), evals)
    for seed in range(1, 6):
        overrides = ("model=gpt", "trainer.max_steps=3000", "trainer.eval_every=500", f"seed={seed}")
        yield Job(
            "curriculum",
            {"model": "gpt, 2 layers of 64", "seed": seed},
            (*base, *overrides),
            (evals[0], ("data.lengths=[200,500]", "data.sequences=1000")),
        )


def supervision_jobs() -> Iterable[Job]:
    """Return runs of three cells of one size at a fixed length, with a loss at every step or the last one."""
    base = ("model.hidden_size=16", "data.seq_len=20", "trainer.max_steps=3000")
    for model, full, seed in product(MODELS, (True, False), range(1, 6)):
        label = {"model": model, "full_supervision": full, "seed": seed}
        overrides = (f"model={model}", f"task.full_supervision={str(full).lower()}", f"seed={seed}", *base)
        yield Job("supervision", label, overrides)


def clip_jobs() -> Iterable[Job]:
    base = ("data.seq_len=100", "trainer.max_steps=3000")
    for model, clip, seed in product(MODELS, (0, 0.1, 0.5, 1, 10), range(1, 6)):
        label = {"model": model, "max_grad_norm": clip, "seed": seed}
        yield Job("clip", label, (f"model={model}", f"trainer.max_grad_norm={clip}", f"seed={seed}", *base))


def length_jobs() -> Iterable[Job]:
    """Return runs at fixed lengths with full supervision, and at short ones with only the last step."""
    for model, length, seed in product(MODELS, (20, 50, 100, 200, 500), range(1, 6)):
        label = {"model": model, "seq_len": length, "seed": seed}
        overrides = (f"model={model}", f"data.seq_len={length}", f"seed={seed}", "trainer.max_steps=3000")
        yield Job("length", label, overrides)
    large = ("experiment=parity/last_step", "data.min_seq_len=null", "data.max_seq_len=null")
    for model, length, seed in product(MODELS, (2, 3, 4, 6, 10, 20), range(1, 6)):
        label = {"model": model, "seq_len": length, "seed": seed}
        more = (*large, f"model={model}", f"data.seq_len={length}", f"seed={seed}", "trainer.max_steps=3000")
        yield Job("length_last_step", label, more)


HELP = {
    "all of it": (),
    "lengths do not vary": ("data.min_seq_len=null",),
    "fixed lengths from 2 by 2": ("data.min_seq_len=null", "data.seq_len=2", "data.grow_by=2"),
    "no curriculum": ("data.seq_len=100", "data.max_seq_len=null"),
    "batches of 10": ("data.batch_size=10",),
    "three units": ("model.hidden_size=3",),
    "no clipping": ("trainer.max_grad_norm=0",),
    "orthogonal": ("model.init=orthogonal",),
    "identity": ("model.init=identity",),
}


def help_jobs() -> Iterable[Job]:
    """Return ablations of experiment=parity/last_step, with only the last step, to 100 bits."""
    base = ("experiment=parity/last_step", "trainer.max_steps=3000")
    for (name, overrides), model, seed in product(HELP.items(), MODELS, range(1, 6)):
        label = {"change": name, "model": model, "seed": seed}
        yield Job("help", label, (*base, f"model={model}", *overrides, f"seed={seed}"))


STUDIES: dict[str, Callable[[], Iterable[Job]]] = {
    "curriculum": curriculum_jobs,
    "supervision": supervision_jobs,
    "clip": clip_jobs,
    "length": length_jobs,
    "help": help_jobs,
}


def run_job(job: Job) -> float:
    """Train, evaluate and save the result; return the seconds."""
    from seqexp.cli import main

    started = time.perf_counter()
    name = f"parity_study_{os.getpid()}_{time.time_ns()}"
    arguments = ["train", "-m", *COMMON, *job.overrides, f"sweep.name={name}"]
    with contextlib.redirect_stderr(io.StringIO()) as messages:
        code = main(arguments)
    if code:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{messages.getvalue()[-2000:]}")
    (folder,) = [path for path in Path("outputs/sweeps", name).iterdir() if path.is_dir()]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    judged = []
    for words_of_eval in job.evals:
        arguments = ["eval", f"run={folder}", "split=test", "device=cpu", "device.threads=1", *words_of_eval]
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
            if main(arguments):
                raise RuntimeError(f"{' '.join(arguments)} failed")
        judged += json.loads(out.getvalue())["rows"]
    curves = (
        "train/loss", "train/grad_norm", "train/seq_len",
        "val/loss", "val/accuracy", "val/last_accuracy", "val/sequence_accuracy",
    )  # fmt: skip
    result = {
        "label": job.label,
        "command": job.command,
        "git_commit": json.loads((folder / "manifest.json").read_text())["git_commit"],
        "curves": {key: [[r["step"], r[key]] for r in rows if r.get(key) is not None] for key in curves},
        "gradient_flow": [json.loads(line) for line in _lines(folder / "gradient_flow.jsonl")[::10]],
        "eval": judged,
        "seconds": time.perf_counter() - started,
    }
    job.file.parent.mkdir(parents=True, exist_ok=True)
    job.file.with_suffix(".part").write_text(json.dumps(result))
    job.file.with_suffix(".part").replace(job.file)
    return float(result["seconds"])


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []


def is_done(job: Job) -> bool:
    """Return whether the result of this command is saved."""
    return job.file.is_file() and json.loads(job.file.read_text())["command"] == job.command


def run_missing(studies: list[str], workers: int) -> None:
    jobs = [job for study in studies for job in STUDIES[study]()]
    missing = [job for job in jobs if not is_done(job)]
    print(f"{len(jobs) - len(missing)} of {len(jobs)} runs are there", flush=True)
    started = time.perf_counter()
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {pool.submit(run_job, job): job for job in missing}
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                seconds, job = future.result(), futures[future]
                minutes = (time.perf_counter() - started) / 60
                print(
                    f"{number}/{len(missing)}  {minutes:.1f} min  {job.study} {job.label}  {seconds:.0f} s",
                    flush=True,
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


# Tables and plots


def load(study: str) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((OUT / study).glob("*.json"))]


def learnt_at(result: dict[str, Any], metric: str, share: float) -> int | None:
    """Return the first step at which this share of the held-out sequences was right, or None."""
    return next((step for step, value in result["curves"][metric] if value >= share), None)


def table(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def grid(study: str, rows_by: str, columns_by: str, metric: str) -> str:
    """Return per pair of settings how many seeds had 99 % of the sequences right, and the median step."""
    results = load(study)
    names = {key: list(dict.fromkeys(job.label[key] for make in STUDIES.values() for job in make()
                                     if job.study == study)) for key in (rows_by, columns_by)}  # fmt: skip
    rows = []
    for row in names[rows_by]:
        cells = []
        for column in names[columns_by]:
            some = [r for r in results if (r["label"][rows_by], r["label"][columns_by]) == (row, column)]
            steps = [step for r in some if (step := learnt_at(r, metric, 0.99)) is not None]
            median = f" ({statistics.median(steps):,.0f})" if steps else ""
            cells.append(f"{len(steps)} of {len(some)}{median}" if some else "")
        rows.append([row, *cells])
    return table([f"{rows_by} \\ {columns_by}", *map(str, names[columns_by])], rows)


def curriculum_table() -> tuple[str, str]:
    """Return the results of all seeds at 100 bits and beyond."""
    results = load("curriculum")
    kinds = list(dict.fromkeys(job.label["model"] for job in curriculum_jobs()))
    rows, per_seed = [], []
    for kind in kinds:
        some = sorted((r for r in results if r["label"]["model"] == kind), key=lambda r: r["label"]["seed"])
        if not some:
            continue
        exact = [r for r in some if _share(r, 100) == 1.0]
        steps = [step for r in some if (step := learnt_at(r, "val/sequence_accuracy", 1.0)) is not None]
        reach = []
        for length in BEYOND[1:]:
            shares = [share for r in some if (share := _share(r, length)) is not None]
            right = sum(share >= 0.99 for share in shares)
            reach.append(f"{right} of {len(shares)}" if shares else "–")
        median = f"{statistics.median(steps):,.0f}" if steps else "–"
        rows.append([kind, f"{len(exact)} of {len(some)}", median, *reach])
        shown = [f"{_share(r, 100):.4f}" for r in some]
        per_seed.append([kind, *shown, *[""] * (10 - len(shown))])
    header = ["model", "exact on 10,000 of 100 bits", "median step", *(f"{n:,} bits" for n in BEYOND[1:])]
    seeds = ["model", *(f"seed {seed}" for seed in range(1, 11))]
    return table(header, rows), table(seeds, per_seed)


def _share(result: dict[str, Any], length: int) -> float | None:
    for row in result["eval"]:
        if row["length"] == length:
            return float(row["metrics"]["sequence_accuracy"]["value"])
    return None


def report() -> None:
    headline, seeds = curriculum_table()
    parts = {
        "Curriculum to 100 bits; beyond: seeds with 99 % of 1,000 sequences wholly right": headline,
        "Share of 10,000 sequences of 100 bits wholly right, seed by seed": seeds,
        "Supervision, 20 bits, 16 units: seeds that learn it (median step)": grid(
            "supervision", "model", "full_supervision", "val/last_accuracy"
        ),
        "Clipping, 100 bits": grid("clip", "model", "max_grad_norm", "val/sequence_accuracy"),
        "Fixed length, full supervision": grid("length", "model", "seq_len", "val/sequence_accuracy"),
        "Fixed length, last step alone": grid("length_last_step", "model", "seq_len", "val/last_accuracy"),
        "Last step alone, to 100 bits": grid("help", "change", "model", "val/last_accuracy"),
    }
    text = "\n\n".join(f"### {title}\n\n{body}" for title, body in parts.items())
    studies = ("curriculum", "supervision", "clip", "length", "length_last_step", "help")
    total = sum(result["seconds"] for study in studies for result in load(study))
    text += f"\n\nSeconds of all runs together, one thread each: {total:,.0f}\n"
    (OUT / "tables.md").write_text(text)
    print(text)
    draw()


def draw() -> None:
    from seqexp.tracking.plots import new_figure, save

    figure = new_figure(9, 3.8)
    axes = figure.subplots(1, 3, sharey=True)
    for panel, kind in zip(axes, ("rnn, 16 units", "lstm, 3 units", "gru, 8 units"), strict=True):
        for result in (r for r in load("curriculum") if r["label"]["model"] == kind):
            panel.plot(*zip(*result["curves"]["val/loss"], strict=True), lw=1)
        panel.set(title=kind, xlabel="step", yscale="log")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("validation loss at 100 bits (nats)")
    save(figure, IMAGES / "parity_curriculum.png")

    figure = new_figure()
    panel = figure.subplots()
    for kind in dict.fromkeys(job.label["model"] for job in curriculum_jobs()):
        shares: dict[int, list[float]] = {}
        for result in (r for r in load("curriculum") if r["label"]["model"] == kind):
            for row in result["eval"]:
                shares.setdefault(row["length"], []).append(row["metrics"]["accuracy"]["value"])
        means = [(length, statistics.mean(values)) for length, values in sorted(shares.items())]
        if means:
            panel.plot(*zip(*means, strict=True), "o-", ms=4, label=kind)
    panel.axvline(100, color="gray", ls=":")
    panel.set(xlabel="length (bits); trained to 100", ylabel="right steps, mean of seeds", xscale="log")
    panel.set_xticks(BEYOND, [f"{length:,}" for length in BEYOND])
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    save(figure, IMAGES / "parity_lengths.png")

    figure = new_figure(9, 3.8)
    axes = figure.subplots(1, 3, sharey=True)
    for panel, model in zip(axes, MODELS, strict=True):
        for result in load("clip"):
            label = result["label"]
            if label["model"] == model and label["seed"] == 1 and label["max_grad_norm"] in (0, 0.1, 1):
                curve = result["curves"]["train/grad_norm"]
                clip = label["max_grad_norm"]
                panel.plot(
                    *zip(*curve, strict=True), lw=0.7, label=f"clip at {clip}" if clip else "no clipping"
                )
        panel.set(title=f"{model}, 100 bits, seed 1", xlabel="step", yscale="log")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    axes[0].set_ylabel("gradient norm before clipping")
    save(figure, IMAGES / "parity_clip.png")

    figure = new_figure(9, 3.8)
    axes = figure.subplots(1, 3, sharey=True)
    for panel, model in zip(axes, MODELS, strict=True):
        wanted = {"change": "no curriculum", "model": model, "seed": 1}
        for result in (r for r in load("help") if r["label"] == wanted):
            for row in (result["gradient_flow"][0], result["gradient_flow"][-1]):
                norms = [norm or float("nan") for norm in row["h"]]
                panel.plot(range(1, len(norms) + 1), norms, label=f"step {row['step']}")
        panel.set(title=f"{model}, last step of 100", xlabel="time t", yscale="log")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    axes[0].set_ylabel(r"$\|\partial L/\partial h_t\|$")
    save(figure, IMAGES / "parity_gradient_flow.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="only tables and plots")
    parser.add_argument("--study", choices=STUDIES, nargs="*", default=list(STUDIES), help="only these")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()
    if not arguments.report:
        run_missing(arguments.study, arguments.workers)
    if not any(OUT.glob("*/*.json")):
        parser.error(f"there are no results in {OUT} yet")
    if arguments.report or list(arguments.study) == list(STUDIES):
        report()


if __name__ == "__main__":
    main()
