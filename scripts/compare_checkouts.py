"""Run the same trainings in two checkouts and compare every loss, bit by bit.

    python scripts/compare_checkouts.py OLD NEW [--steps 200] [--only gpt,lstm]

OLD and NEW are folders with a checkout of this project; both run with this Python, one thread, fp32 and seed
1. --text names a reference text (default: $SEQEXP_DATA/shakespeare/input.txt); without it the runs on text
are skipped with a note. Exit code 1 if any loss differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

COMMON = (
    "seed=1", "device=cpu", "device.precision=fp32", "device.threads=1", "trainer.log_every=1",
    "trainer.eval_every=100", "trainer.sample_tokens=0", "name=same",
)  # fmt: skip
RUNS = {
    "gpt": ("model=gpt", "data=text", "data.path={text}", "model.dropout=0.1", "data.seq_len=64"),
    "lstm": (
        "model=lstm", "data=parity", "data.seq_len=5", "data.max_seq_len=40", "data.grow_by=5",
        "data.grow_below=0.6", "data.grow_every=20", "data.eval_sequences=100",
    ),
    "nmt": ("model=nmt", "data=phrasebook", "model.dropout=0.1", "trainer.max_minutes=null"),
    "transformer": ("model=transformer", "data=phrasebook", "trainer.max_minutes=null"),
}  # fmt: skip


def losses(checkout: Path, overrides: list[str]) -> list[tuple[int, str, float]]:
    """Train in a new folder; return (step, name, value) of every logged loss."""
    with tempfile.TemporaryDirectory() as place:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "seqexp", "train", *overrides]
        subprocess.run(command, cwd=place, env=environment, check=True, stderr=subprocess.DEVNULL)
        (file,) = Path(place).glob("outputs/train/same/*/metrics.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
    names = ("train/loss", "train/grad_norm", "val/loss", "val/accuracy", "val/bleu")
    return [(row["step"], name, row[name]) for row in rows for name in names if name in row]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", default=",".join(RUNS))
    data = os.environ.get("SEQEXP_DATA")
    parser.add_argument("--text", type=Path, default=Path(data) / "shakespeare/input.txt" if data else None)
    given = parser.parse_args()
    failed = False
    for name in given.only.split(","):
        overrides = [*RUNS[name], *COMMON, f"trainer.max_steps={given.steps}"]
        if any("{text}" in one for one in overrides) and given.text is None:
            print(f"{name}: skipped, no text; give --text")
            continue
        overrides = [one.replace("{text}", str(given.text)) for one in overrides]
        old, new = (losses(checkout.resolve(), overrides) for checkout in (given.old, given.new))
        different = [(a, b) for a, b in zip(old, new, strict=False) if a != b]
        same = not different and len(old) == len(new)
        failed |= not same
        message = "equal" if same else f"DIFFERENT, first {different[:1] or (len(old), len(new))}"
        last = new[-1] if same else f"{old[-1]} and {new[-1]}"
        print(f"{name}: {len(old)} numbers over {given.steps} steps: {message}; last {last}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
