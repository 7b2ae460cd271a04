"""The checkpoints of a run: which steps are kept, which is the last, and which the best.

The files of a state are written first (`state_files.py`), then the index that has their hashes. So the last
and the best step always have complete files.
"""

import logging
import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from seqexp.errors import RunFailedError, UserError
from seqexp.files import number, read_json, write_json
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.misfit import refuse_misfit
from seqexp.training.state_files import file_names, is_entry, read_state, snapshot, write_state

log = logging.getLogger(__name__)

# Entries of the index that a validation sets.
VALIDATED = ("best", "top", "since_best", "validated", "not_finite", "monitor")


class CheckpointError(RunFailedError):
    """A checkpoint could not be written."""


class Checkpoints:
    """The ``checkpoints/`` of a run: ``step_<n>.safetensors``, ``step_<n>.pt`` and ``index.json``.

    The best checkpoint is that by `monitor`, a metric whose `mode` is ``min`` or ``max``. `save` copies the
    state and returns; a thread writes the copy while training continues. All other methods wait for the
    thread first.
    """

    def __init__(
        self, run: RunFolder, keep_last: int = 2, keep_best: int = 1, monitor: str = "", mode: str = "min"
    ) -> None:
        self.folder, self.keep_last = run.checkpoints, keep_last
        self.keep_best, self.monitor, self.mode = keep_best, monitor, mode
        self.index = _well_formed(read_json(self.folder / "index.json"))
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Save the state as the last checkpoint; it is on disk when the next method returns.

        Older files beyond `keep_last` and `keep_best` are removed.

        Raises:
            CheckpointError: the previous checkpoint could not be written.
        """
        self.wait()
        # Include the current `best`, to resume from this file when a later one is damaged.
        before = {key: self.index[key] for key in VALIDATED if key in self.index}
        self._pending = self._writer.submit(self._write, step, snapshot({"index": before, **state}))

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            CheckpointError: the disk is full or read-only.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except OSError as error:
            last = self.last_good
            good = f"{self.folder / last['file']} (step {last['step']})" if last else "none yet"
            raise CheckpointError(
                f"a checkpoint cannot be written in {self.folder} ({error.strerror or error}); the last good "
                f"one is {good}. Free disk space, and continue with resume={self.folder.parent}."
            ) from error

    def _write(self, step: int, state: dict[str, Any]) -> None:
        try:
            last = write_state(self.folder, step, state)
            before = [entry for entry in self.index.get("recent", []) if entry["step"] < step]
            kept = {**self.index, "last": last, "recent": [*before, last][-self.keep_last :]}
            write_json(self.folder / "index.json", kept)
        except OSError:
            self._remove_others()  # the files already written would leave less space for the next attempt
            raise
        # Only now, so that the index in memory never names a file that is not on disk.
        self.index = kept
        self._remove_others()

    def record_validation(
        self,
        step: int,
        value: float,
        better: bool,
        stage: dict[str, Any] | None = None,
        metrics: dict[str, Any] | None = None,
    ) -> None:
        """Record a validation of the last checkpoint; if `better`, make it the best checkpoint.

        `value` is the monitored metric, `stage` the state of the data, and `metrics` all results by name, as
        from `Metric.to_plain`.
        """
        self.wait()
        self.index["validated"], self.index["monitor"] = step, self.monitor
        entry = {**self.index["last"], "value": value, "stage": stage, "metrics": metrics or {}}
        recent = self.index.get("recent", [])
        self.index["recent"] = [entry if other["step"] == step else other for other in recent]
        if not math.isfinite(value):
            self.index["not_finite"] = step
        elif self.keep_best > 1:
            # Exclude earlier stages of the data, such as a curriculum with shorter sequences.
            top = [other for other in self.index.get("top", []) if other["stage"] == stage]
            self.index["top"] = self._ranked([*top, entry])[: self.keep_best]
        if better:
            self.index["best"] = entry
            self.index["since_best"] = 0
        else:
            self.index["since_best"] = self.index.get("since_best", 0) + 1
        self._write_index()

    def _ranked(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the entries sorted from best to worst."""
        return sorted(entries, key=lambda one: float(one["value"]), reverse=self.mode == "max")

    @property
    def monitored(self) -> str | None:
        """The metric by which `best` was chosen; None if the index does not name it."""
        monitor = self.index.get("monitor")
        return monitor if isinstance(monitor, str) else None

    def rank_again(self, values: Mapping[int, float]) -> dict[str, Any] | None:
        """Choose the best of the kept checkpoints by new `values` (by step); return its entry, or None.

        Used when a run is resumed with another `monitor`.
        """
        self.wait()
        measured: dict[int, dict[str, Any]] = {}
        named = self._named()
        for entry in [*named.values(), *self.index.get("recent", []), *self.index.get("top", [])]:
            step = entry["step"]
            if step in values:
                # The same checkpoint may stand in several places, and only some tell how it was validated.
                measured[step] = {"stage": None, **measured.get(step, {}), **entry, "value": values[step]}
        newest = measured[max(measured)]["stage"] if measured else None
        ranked = self._ranked([entry for entry in measured.values() if entry["stage"] == newest])
        for key in ("best", "top"):
            self.index.pop(key, None)
        if ranked:
            self.index["best"] = ranked[0]
            if self.keep_best > 1:
                self.index["top"] = ranked[: self.keep_best]
        since = [step for step in values if not ranked or step > ranked[0]["step"]]
        self.index["since_best"] = len(since) if ranked else 0
        self.index["monitor"] = self.monitor
        self._write_index()
        return ranked[0] if ranked else None

    @property
    def last_good(self) -> dict[str, Any] | None:
        """The last checkpoint; the best one if the last has a loss that is not finite."""
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
        try:
            write_json(self.folder / "index.json", self.index)
        except OSError as error:
            raise CheckpointError(
                f"{self.folder / 'index.json'} cannot be written ({error.strerror or error}). Free disk "
                f"space, and continue with resume={self.folder.parent}."
            ) from error
        self._remove_others()

    def _remove_others(self) -> None:
        entries = [self.index[which] for which in ("last", "best") if which in self.index]
        entries += [*self.index.get("recent", []), *self.index.get("top", [])]
        kept = {name for entry in entries for name in file_names(entry)}
        for file in [*self.folder.glob("step_*"), *self.folder.glob(".step_*")]:
            if file.name not in kept:
                file.unlink(missing_ok=True)

    def load_newest(self) -> dict[str, Any]:
        """Load the newest intact state to resume from, and restore the index of that step.

        Raises:
            UserError: all checkpoints are damaged.
        """
        entries = [*self.index.get("recent", []), *self._named().values()]
        steps = sorted({entry["step"] for entry in entries}, reverse=True)
        for step in steps:
            try:
                state = self.load(str(step))
            except UserError as error:
                log.warning("%s  Trying an earlier one.", error)
                continue
            if step < steps[0]:
                self._go_back_to(step, state)
            return state
        raise UserError(f"none of the checkpoints in {self.folder} can be read; start the run anew.")

    def _go_back_to(self, step: int, state: dict[str, Any]) -> None:
        """Make the checkpoint at `step` the last one, and discard later validations."""
        log.warning("going on from step %d instead of %d", step, self.index["last"]["step"])
        entries = [*self.index.get("recent", []), *self._named().values()]
        last = next(entry for entry in entries if entry["step"] == step)
        kept = {key: value for key, value in self.index.items() if key not in VALIDATED}
        recent = [entry for entry in self.index.get("recent", []) if entry["step"] <= step]
        self.index = {**kept, **_well_formed(state.get("index")), "last": last, "recent": recent}
        self._write_index()

    def load(self, which: str) -> dict[str, Any]:
        """Load the state at ``last``, ``best`` or the number of a step, onto the CPU.

        ``average`` is the last state with the mean weights of the kept checkpoints (`trainer.keep_last`;
        Vaswani et al. 2017, section 6.1), ``ema`` the best one with the averaged weights of
        `trainer.ema_decay`.

        Raises:
            UserError: there is no such checkpoint, or the file is damaged, unsafe or too new.
        """
        self.wait()
        known, recent = self._named(), self.index.get("recent", [])
        by_step = {
            str(entry["step"]): entry for entry in [*self.index.get("top", []), *known.values(), *recent]
        }
        if which == "average":
            return self._average([str(entry["step"]) for entry in recent])
        if which == "ema":
            return self._averaged_weights()
        entry = known.get(which) or by_step.get(which)
        if entry is None:
            there = ", ".join([*known, *by_step]) or "nothing"
            raise UserError(f"checkpoint={which} is not in {self.folder}; there is {there}.")
        return read_state(self.folder, entry)

    def _averaged_weights(self) -> dict[str, Any]:
        state = self.load("best" if "best" in self.index else "last")
        weights = state["hooks"].get("ema", {}).get("weights")
        if weights is None:
            raise UserError(
                f"checkpoint=ema: the run in {self.folder.parent} kept no averaged weights; train with "
                "trainer.ema_decay=0.999."
            )
        return {**state, "model": weights}

    def _named(self) -> dict[str, dict[str, Any]]:
        return {which: self.index[which] for which in ("last", "best") if which in self.index}

    def _average(self, steps: list[str]) -> dict[str, Any]:
        if len(steps) < 2:
            raise UserError(
                f"checkpoint=average needs several checkpoints, and {len(steps)} is in {self.folder}; "
                "train with trainer.keep_last=5."
            )
        log.info("average of the checkpoints at steps %s", ", ".join(steps))
        last = self.load(steps[-1])
        # Load one at a time, because each also has the optimizer's state. Do not add in place, because tied
        # weights are one tensor under several names.
        for step in steps[:-1]:
            other = self.load(step)["model"]
            try:
                refuse_misfit("model", last["model"], other)
            except TypeError as error:
                raise UserError(
                    f"the checkpoints in {self.folder} are not of one model ({error})."
                ) from error
            last["model"] = {
                name: weight + other[name] if weight.is_floating_point() else weight
                for name, weight in last["model"].items()
            }
        last["model"] = {
            name: weight / len(steps) if weight.is_floating_point() else weight
            for name, weight in last["model"].items()
        }
        return last


def _well_formed(index: Any) -> dict[str, Any]:
    """Return the index without malformed entries; the file is untrusted."""
    index = index if isinstance(index, dict) else {}

    def is_whole(value: Any) -> bool:
        return is_entry(value) and isinstance(value.get("metrics", {}), dict)

    def is_judged(value: Any) -> bool:
        return is_whole(value) and number(value.get("value")) is not None and "stage" in value

    checks = {"last": is_whole, "best": is_judged}
    kept = {key: index[key] for key, check in checks.items() if check(index.get(key))}
    for key, check in (("recent", is_whole), ("top", is_judged)):
        if isinstance(index.get(key), list):
            kept[key] = [entry for entry in index[key] if check(entry)]
    there = [*kept.get("recent", []), *([kept["best"]] if "best" in kept else [])]
    if "last" not in kept and there:
        kept["last"] = max(there, key=lambda entry: int(entry["step"]))
    if isinstance(index.get("monitor"), str):
        kept["monitor"] = index["monitor"]
    counts = ("since_best", "validated", "not_finite")
    return kept | {key: index[key] for key in counts if type(index.get(key)) is int}
