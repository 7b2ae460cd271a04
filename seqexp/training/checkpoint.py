"""Checkpoints: one file a step, and an index that says which is last and which is best.

A file holds tensors and plain values only and is read with ``weights_only=True``: nothing in it is ever
executed. It is written beside, flushed and renamed; the index, written the same way afterwards,
carries its hash, so `last` and `best` always point at a whole file.
"""

import hashlib
import io
import logging
import math
from pathlib import Path
from typing import Any

import torch

from seqexp.config.root import SCHEMA_VERSION
from seqexp.errors import UserError
from seqexp.files import read_json, write_atomically, write_json
from seqexp.tracking.run_folder import RunFolder

log = logging.getLogger(__name__)


class Checkpoints:
    """The ``checkpoints/`` of a run: files ``step_<n>.pt`` and ``index.json``."""

    def __init__(self, run: RunFolder, keep_last: int = 1) -> None:
        self.folder, self.keep_last = run.checkpoints, keep_last
        self.index: dict[str, Any] = read_json(self.folder / "index.json")

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state as the last checkpoint and drop the oldest beyond `keep_last` (not the best)."""
        self.folder.mkdir(exist_ok=True)
        buffer = io.BytesIO()
        torch.save({"schema_version": SCHEMA_VERSION, "step": step, **state}, buffer)
        data = buffer.getvalue()
        name = f"step_{step:08d}.pt"
        write_atomically(self.folder / name, data)
        self.index["last"] = {
            "step": step,
            "file": name,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        before = [entry for entry in self.index.get("recent", []) if entry["step"] < step]
        self.index["recent"] = [*before, self.index["last"]][-self.keep_last :]
        self._write_index()

    def record_validation(
        self, step: int, value: float, better: bool, stage: dict[str, Any] | None = None
    ) -> None:
        """Remember a validation; if `better`, the last checkpoint becomes the best, of this data state."""
        self.index["validated"] = step
        if not math.isfinite(value):
            self.index["not_finite"] = step
        if better:
            self.index["best"] = {**self.index["last"], "value": value, "stage": stage}
            self.index["since_best"] = 0
        else:
            self.index["since_best"] = self.index.get("since_best", 0) + 1
        self._write_index()

    @property
    def last_good(self) -> dict[str, Any] | None:
        """The last checkpoint, or the best if the last gave a loss that is not finite."""
        last = self.index.get("last")
        bad = last is not None and last["step"] == self.index.get("not_finite")
        return self.index.get("best") if bad else last

    @property
    def best_value(self) -> float | None:
        best = self.index.get("best")
        return best["value"] if best else None

    @property
    def best_stage(self) -> dict[str, Any] | None:
        """The state of the data, such as a curriculum's length, when the best was found."""
        return (self.index.get("best") or {}).get("stage")

    def _write_index(self) -> None:
        write_json(self.folder / "index.json", self.index)
        entries = [self.index[which] for which in ("last", "best") if which in self.index]
        kept = {entry["file"] for entry in [*entries, *self.index.get("recent", [])]}
        for file in self.folder.glob("step_*.pt"):
            if file.name not in kept:
                file.unlink(missing_ok=True)

    def load(self, which: str) -> dict[str, Any]:
        """The state at ``last``, ``best`` or the number of a step, on the CPU.

        ``average`` is the last one with the mean of all weights of the checkpoints that were kept
        (`trainer.keep_last`; Vaswani et al. 2017, section 6.1).

        Raises:
            UserError: there is none, or the file is damaged, unsafe or too new.
        """
        known = {w: self.index[w] for w in ("last", "best") if isinstance(self.index.get(w), dict)}
        recent = self.index.get("recent")
        recent = [entry for entry in recent if isinstance(entry, dict)] if isinstance(recent, list) else []
        by_step = {str(entry.get("step")): entry for entry in [*known.values(), *recent]}
        if which == "average":
            return self._average([str(entry.get("step")) for entry in recent])
        entry = known.get(which) or by_step.get(which)
        if entry is None:
            there = ", ".join([*known, *by_step]) or "nothing"
            raise UserError(f"checkpoint={which} is not in {self.folder}; there is {there}.")
        # The index may come from a stranger: only a plain file name in this folder is opened.
        file = self.folder / Path(str(entry.get("file"))).name
        try:
            data = file.read_bytes()
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}.") from error
        if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
            raise UserError(f"{file} is damaged: its sha256 is not the one in index.json.")
        try:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"{file} is no checkpoint of plain data and is not read.") from error
        if not isinstance(state, dict) or "model" not in state:
            raise UserError(f"{file} is no checkpoint of seqexp.")
        version = state.get("schema_version")
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise UserError(f"{file} has schema version {version}; this seqexp reads up to {SCHEMA_VERSION}.")
        return state

    def _average(self, steps: list[str]) -> dict[str, Any]:
        if len(steps) < 2:
            raise UserError(
                f"checkpoint=average needs several checkpoints, and {len(steps)} is in {self.folder}; "
                "train with trainer.keep_last=5."
            )
        log.info("average of the checkpoints at steps %s", ", ".join(steps))
        last = self.load(steps[-1])
        # One after the other, as each holds the optimizer too. Not in place: tied weights are one tensor
        # under several names.
        for step in steps[:-1]:
            other = self.load(step)["model"]
            last["model"] = {
                name: weight + other[name] if weight.is_floating_point() else weight
                for name, weight in last["model"].items()
            }
        last["model"] = {
            name: weight / len(steps) if weight.is_floating_point() else weight
            for name, weight in last["model"].items()
        }
        return last


def random_state() -> dict[str, Any]:
    """The state of torch's generators; everything else that is random is seeded by step."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
