"""Peak memory of reading a corpus: encode it, draw training batches, read validation batches.

    python scripts/bench_memory.py                 # 5 MB and 1000 MB

Each size is a process of its own with a cache of its own, run twice: first start and second start.
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
    arguments = parser.parse_args()
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
