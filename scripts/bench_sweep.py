"""Overhead of a sweep beyond its training, and gain of two parallel jobs, on two idle cores.

python scripts/bench_sweep.py            # both
python scripts/bench_sweep.py cost       # 50 parity jobs of 100 steps, in one process
python scripts/bench_sweep.py beside     # 12 parity jobs, one after another, then two at once
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COST = (
    "model=rnn", "data=parity", "data.seq_len=10,20,30,40,50", "seed=1,2,3,4,5,6,7,8,9,10",
    "trainer.max_steps=100",
)  # fmt: skip
BESIDE = (
    "model=lstm", "data=parity", "data.seq_len=50,60", "seed=1,2,3,4,5,6", "trainer.max_steps=19000",
    "trainer.eval_every=4750", "trainer.sample_tokens=0",
)  # fmt: skip


def sweep(name: str, overrides: tuple[str, ...]) -> tuple[float, list[dict]]:
    """Return the seconds of the whole command, and the lines of its ledger."""
    started = time.perf_counter()
    line = [sys.executable, "-m", "seqexp", "train", "-m", *overrides, f"sweep.name={name}"]
    subprocess.run(line, check=True, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    ledger = Path("outputs/sweeps", name, "jobs.jsonl").read_text().splitlines()
    return seconds, [json.loads(line) for line in ledger]


def fitting(name: str) -> float:
    """Return the seconds inside the training loop over all jobs, from each run's last checkpoint."""
    import torch

    total = 0.0
    for index in Path("outputs/sweeps", name).glob("*/checkpoints/index.json"):
        last = json.loads(index.read_text())["last"]["file"]
        total += torch.load(index.parent / last, weights_only=True)["elapsed"]
    return total


def cost() -> None:
    """Print the overhead per job, with and without the start of Python and torch."""
    empty = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, hydra, pandas, matplotlib"], check=True)
    start = time.perf_counter() - empty
    seconds, jobs = sweep("cost", (*COST, "device.threads=1"))
    inside, loop, count = sum(job["seconds"] for job in jobs), fitting("cost"), len(jobs)
    print(f"{count} jobs in {seconds:.1f} s, of which {start:.1f} s to import torch and the rest, once")
    print(f"  training loop {loop:.1f} s; training with building, manifest, checkpoints {inside:.1f} s")
    print(f"  a job beyond its training loop: {(seconds - start - loop) / count:.3f} s")
    print(f"  a job beyond its training with all that: {(seconds - start - inside) / count:.3f} s")


def beside() -> None:
    """Compare two parallel jobs with one thread each to the same jobs in sequence."""
    together, _ = sweep("two_at_once", (*BESIDE, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"))
    print(f"two at once:       {together:.1f} s", flush=True)
    alone, jobs = sweep("one_after_another", BESIDE)
    per_job = [job["seconds"] for job in jobs]
    print(f"one after another: {alone:.1f} s, jobs of {min(per_job):.1f} to {max(per_job):.1f} s")
    print(f"two at once take {together / alone:.2f} of the time")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("cost", "beside"))
    what = parser.parse_args().what
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        if what != "beside":
            cost()
        if what != "cost":
            beside()


if __name__ == "__main__":
    main()
