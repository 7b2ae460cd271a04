"""Make the runs ``schema_<n>_*`` of today's schema anew: ``python tests/runs/make.py``.

Nothing in them says where they were made. Remove those of a schema only together with the code that reads it.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from seqexp.config.root import SCHEMA_VERSION

HERE = Path(__file__).resolve().parent
COMMON = (
    "debug=fast", "device=cpu", "device.threads=1", "device.precision=fp32", "trainer.keep_last=1",
    "trainer.sample_tokens=0",
)  # fmt: skip
RUNS = {
    "gpt": (
        "data=text", "data.path=book.txt", "model.n_layer=1", "model.n_head=2", "model.n_embd=16",
        "data.seq_len=16", "trainer.ema_decay=0.5",
    ),
    "nmt": ("data=phrasebook", "tokenizer=word", "model=nmt", "model.n_embd=8", "model.hidden_size=8"),
    "parity": ("data=parity", "model=lstm", "data.seq_len=4", "data.max_seq_len=8", "data.eval_sequences=20"),
}  # fmt: skip


def forget_place(run: Path) -> None:
    """Name another folder in the configurations that checkpoints hold."""
    index = (run / "checkpoints/index.json").read_text(encoding="utf-8")
    for file in (run / "checkpoints").glob("*.pt"):
        before = hashlib.sha256(file.read_bytes()).hexdigest()
        state = torch.load(file, weights_only=True)
        if state["config"]["data"].get("path"):
            state["config"]["data"]["path"] = "/home/student/book.txt"
        torch.save(state, file)
        index = index.replace(before, hashlib.sha256(file.read_bytes()).hexdigest())
    (run / "checkpoints/index.json").write_text(index, encoding="utf-8")


def main() -> None:
    for name, words in RUNS.items():
        with tempfile.TemporaryDirectory() as place:
            shutil.copy(HERE / "book.txt", place)
            command = [sys.executable, "-m", "seqexp", "train", *words, *COMMON, f"name={name}"]
            environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
            subprocess.run(command, cwd=place, check=True, env=environment)
            (made,) = Path(place).glob("outputs/train/*/*")
            run = HERE / f"schema_{SCHEMA_VERSION}_{name}"
            shutil.rmtree(run, ignore_errors=True)
            ignored = ("tensorboard", "*.log", ".lock", "plots", "samples")
            shutil.copytree(made, run, ignore=shutil.ignore_patterns(*ignored))
            for file in (*run.glob("*.json"), *run.glob("*.yaml")):
                text = file.read_text(encoding="utf-8").replace(os.path.realpath(place), "/home/student")
                file.write_text(re.sub(r'("host": )"[^"]*"', r'\1"laptop"', text), encoding="utf-8")
            forget_place(run)
            manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
            manifest |= {"git_commit": None, "platform": "Linux"}
            (run / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
