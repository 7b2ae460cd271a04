"""Memory of reading a corpus (its peak) and of training on batches of many shapes (its curve).

    python scripts/bench_memory.py                 # corpora of 5 MB and 1000 MB
    python scripts/bench_memory.py --train data=tatoeba model=transformer data.batch_size=64 \\
        trainer.max_steps=2000 trainer.eval_every=100000

Each size of a corpus is a process of its own with a cache of its own, run twice: first and second start.
`--train` takes the words of `seqexp train` and prints a line of JSON every 100 steps.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN_BATCHES, EVAL_BATCHES = 200, 500


def measure(path: str) -> None:
    """Read the corpus in a child process; print seconds and megabytes."""
    from seqexp.config.data import TextDataConfig
    from seqexp.config.tokenizer import TokenizerConfig
    from seqexp.data.text import TextData
    from seqexp.training.device import keep_freed_memory

    keep_freed_memory()  # as training does
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    config = TextDataConfig("text", path=path, seq_len=256, batch_size=32)
    data = TextData.build(config, TokenizerConfig("char"), seed=1)
    ready = time.perf_counter() - started
    for step in range(TRAIN_BATCHES):
        data.train_batch(step)
    for _, _ in zip(range(EVAL_BATCHES), data.eval_batches("val"), strict=False):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ready_s": ready, "imports_mb": imported, "peak_mb": peak}))


def train(words: list[str]) -> None:
    """Run `seqexp train` with these words; print memory in MB, seconds of CPU, and the loss."""
    from seqexp import cli
    from seqexp.tracking.metrics import MetricsLog

    write = MetricsLog.write

    def write_and_print(log: MetricsLog, step: int, metrics: dict[str, float]) -> None:
        if step % 100 == 0 and "train/loss" in metrics:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            row = {
                "step": step,
                "resident_mb": round(pages * resource.getpagesize() / 2**20),
                "peak_mb": round(metrics["memory/peak_mb"]),
                "cpu_s": round(time.process_time(), 1),
                "tokens_per_s": round(metrics["speed/tokens_per_s"]),
                "loss": metrics["train/loss"],
            }
            print(json.dumps(row), flush=True)
        write(log, step, metrics)

    MetricsLog.write = write_and_print  # type: ignore[method-assign, assignment]
    sys.exit(cli.main(["train", *words]))


def write_text(path: Path, megabytes: int) -> None:
    """Write lines of random words up to the given size."""
    numbers = random.Random(0)
    words = ["".join(numbers.choices("etaoinshrdlu", k=numbers.randint(2, 9))) for _ in range(2000)]
    block = "".join(" ".join(numbers.choices(words, k=12)) + ".\n" for _ in range(16_000)).encode()
    with open(path, "wb") as file:
        for _ in range(max(1, megabytes * 10**6 // len(block))):
            file.write(block)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[5, 1000])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--train", nargs="+", metavar="WORD", help="words of `seqexp train`")
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train)
    if arguments.child:
        measure(arguments.child)
        return
    for size in arguments.megabytes:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "text.txt"
            write_text(path, size)
            environment = {**os.environ, "SEQEXP_CACHE": f"{scratch}/cache"}
            for start in ("first", "second"):
                out = subprocess.run(
                    [sys.executable, __file__, "--child", str(path)],
                    env=environment, stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                found = json.loads(out.stdout)
                print(
                    f"{path.stat().st_size / 1e6:7.0f} MB, {start} start: ready in {found['ready_s']:.1f} s, "
                    f"peak {found['peak_mb']:.0f} MB (after imports {found['imports_mb']:.0f} MB)"
                )


if __name__ == "__main__":
    main()
