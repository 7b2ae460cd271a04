"""Checkpoints: the weights of a step as safetensors, the rest of its state beside them, and an index.

The rest contains tensors and plain values only and is read with ``weights_only=True``, which runs no code
from the file. Files are written atomically. The index is written after them; it has their hashes and names
the last and the best step, which therefore always have complete files.
"""

import hashlib
import io
import logging
import math
import os
import tempfile
import zipfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from seqexp.config.root import SCHEMA_VERSION
from seqexp.data.preprocessor import Preprocessor
from seqexp.errors import RunFailedError, UserError
from seqexp.files import atomic_file, make_folder, number, read_bounded, read_json, write_json
from seqexp.tracking.run_folder import RunFolder

log = logging.getLogger(__name__)

# Entries of the index that a validation sets.
VALIDATED = ("best", "top", "since_best", "validated", "not_finite", "monitor")
# Exceptions when a state does not fit the model or the run.
MISFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# Limit for checkpoint files in bytes, far above the size of any memory.
LARGEST = 1 << 50


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
        snapshot = _snapshot({"schema_version": SCHEMA_VERSION, "step": step, "index": before, **state})
        self._pending = self._writer.submit(self._write, step, snapshot)

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

    def _write(self, step: int, snapshot: dict[str, Any]) -> None:
        make_folder(self.folder)
        stem = f"step_{step:08d}"
        weights, rest = _take_weights(snapshot)
        last: dict[str, Any] = {"step": step, "file": f"{stem}.pt", "weights": {}}
        try:
            for name, tensors in weights.items():
                file = f"{stem}.safetensors" if name == "model" else f"{stem}.{name}.safetensors"
                sha256 = _save_weights(tensors, self.folder / file)
                last["weights"][name] = {"file": file, "sha256": sha256}
            last["sha256"] = _save_atomically(rest, self.folder / last["file"])
            before = [entry for entry in self.index.get("recent", []) if entry["step"] < step]
            kept = {**self.index, "last": last, "recent": [*before, last][-self.keep_last :]}
            write_json(self.folder / "index.json", kept)
        except OSError:
            self._remove_others()  # its first files would take the room of the next attempt
            raise
        # Only now: what the index says is on the disk.
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
        kept = {name for entry in entries for name in _files(entry)}
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
        file, data = self._read(entry["file"], entry["sha256"])
        try:
            _refuse_to_unpack(data)
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"{file} is not a checkpoint of plain data and is not read.") from error
        version = state.get("schema_version") if isinstance(state, dict) else None
        if not isinstance(version, int):
            raise UserError(f"{file} is not a checkpoint of seqexp.")
        if version > SCHEMA_VERSION:
            raise UserError(f"{file} has schema version {version}; this seqexp reads up to {SCHEMA_VERSION}.")
        if version == 1:
            state = _from_schema_1(state)
        weights = {name: self._read_weights(one) for name, one in entry.get("weights", {}).items()}
        state = _put_weights(state, weights)
        given = state.get("model")
        if not isinstance(given, dict) or not all(map(_is_plain_tensor, given.values())):
            raise UserError(f"{file} is not a checkpoint of seqexp.")
        if type(state.get("step")) is not int or state["step"] != entry["step"]:
            raise UserError(
                f"{file} is not the checkpoint of step {entry['step']}, although index.json says so."
            )
        return state

    def _read(self, name: str, sha256: str) -> tuple[Path, bytes]:
        """Return the bytes of a file in this folder.

        Raises:
            UserError: the file cannot be read, or is damaged.
        """
        # The index is untrusted: open only files in this folder.
        file = self.folder / Path(name).name
        try:
            data = read_bounded(file, LARGEST)
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}.") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UserError(f"{file} is damaged: its sha256 is not the one in index.json.")
        return file, data

    def _read_weights(self, entry: dict[str, str]) -> dict[str, torch.Tensor]:
        file, data = self._read(entry["file"], entry["sha256"])
        try:
            return safetensors.torch.load(data)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise UserError(f"{file} is not a safetensors file ({error}).") from error

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

    def is_file(value: Any) -> bool:
        return isinstance(value, dict) and all(type(value.get(key)) is str for key in ("file", "sha256"))

    def is_entry(value: Any) -> bool:
        weights = value.get("weights", {}) if isinstance(value, dict) else None
        return (
            is_file(value)
            and type(value.get("step")) is int
            and isinstance(value.get("metrics", {}), dict)
            and isinstance(weights, dict)
            and all(map(is_file, weights.values()))
        )

    def is_judged(value: Any) -> bool:
        return is_entry(value) and number(value.get("value")) is not None and "stage" in value

    checks = {"last": is_entry, "best": is_judged}
    kept = {key: index[key] for key, check in checks.items() if check(index.get(key))}
    for key, check in (("recent", is_entry), ("top", is_judged)):
        if isinstance(index.get(key), list):
            kept[key] = [entry for entry in index[key] if check(entry)]
    there = [*kept.get("recent", []), *([kept["best"]] if "best" in kept else [])]
    if "last" not in kept and there:
        kept["last"] = max(there, key=lambda entry: int(entry["step"]))
    if isinstance(index.get("monitor"), str):
        kept["monitor"] = index["monitor"]
    counts = ("since_best", "validated", "not_finite")
    return kept | {key: index[key] for key in counts if type(index.get(key)) is int}


def _files(entry: dict[str, Any]) -> list[str]:
    """Return the names of the files of a checkpoint."""
    return [entry["file"], *(one["file"] for one in entry.get("weights", {}).values())]


def _from_schema_1(state: dict[str, Any]) -> dict[str, Any]:
    """Convert a state of schema 1, which had a tokenizer and no hooks, to the current layout."""
    preprocessor = Preprocessor.from_schema_1(state.get("tokenizer"))
    window = state.get("window") or {"nll": torch.zeros(()), "count": 0}  # early versions had none
    hooks = {
        "curriculum": state.get("review") or {"nll": torch.zeros(()), "count": 0},
        "nonfinite": {"skipped": state.get("left_out", [])},
        "carried": {"state": state.get("carried")},
    }
    kept = {
        key: value
        for key, value in state.items()
        if key not in ("tokenizer", "review", "left_out", "carried")
    }
    return {
        "data": {}, **kept, "window": window, "hooks": hooks, "preprocessor": preprocessor.to_plain(),
    }  # fmt: skip


def _take_weights(state: dict[str, Any]) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """Split a state into weights and the rest; ``tied`` maps further names of a tensor to its first one."""
    hooks = dict(state.get("hooks", {}))
    found = {"model": state["model"]}
    if "ema" in hooks:
        found["ema"] = hooks["ema"]["weights"]
        hooks["ema"] = {key: value for key, value in hooks["ema"].items() if key != "weights"}
    weights: dict[str, dict[str, torch.Tensor]] = {}
    tied: dict[str, str] = {}
    for kind, tensors in found.items():
        first: dict[int, str] = {}
        weights[kind] = {}
        for name, tensor in tensors.items():
            # Tensors that share memory are one object in a snapshot.
            same = first.setdefault(id(tensor), name)
            if same == name:
                weights[kind][name] = tensor.contiguous()
            else:
                tied[name] = same
    rest = {key: value for key, value in state.items() if key != "model"}
    return weights, {**rest, "hooks": hooks, "tied": tied}


def _put_weights(state: dict[str, Any], weights: dict[str, dict[str, torch.Tensor]]) -> dict[str, Any]:
    """Invert `_take_weights`; a state of schema 1 already contains its weights."""
    tied = state.get("tied", {})
    if not isinstance(tied, dict):
        tied = {}
    for tensors in weights.values():
        tensors |= {
            name: tensors[same] for name, same in tied.items() if isinstance(same, str) and same in tensors
        }
    if "model" in weights:
        state = {**state, "model": weights["model"]}
    hooks = state.get("hooks")
    if not isinstance(hooks, dict) or not all(isinstance(hook, dict) for hook in hooks.values()):
        return {**state, "hooks": {}}
    if "ema" in weights:
        hooks = {**hooks, "ema": {**hooks.get("ema", {}), "weights": weights["ema"]}}
    return {**state, "hooks": hooks}


def refuse_misfit(name: str, own: Any, given: Any) -> None:
    """Check that `given` has the same keys, types of numbers and shapes of tensors as `own`.

    Raises:
        TypeError: naming the entry, what was expected and what was given.
    """
    if isinstance(own, dict) and isinstance(given, dict) and own.keys() == given.keys():
        for key in own:
            refuse_misfit(f"{name}.{key}", own[key], given[key])
        return
    if isinstance(own, torch.Tensor) and isinstance(given, torch.Tensor):
        fits = (own.shape, own.dtype, own.layout) == (given.shape, given.dtype, given.layout)
    else:
        fits = type(own) is type(given) and number(given) is not None and given >= 0
    if not fits:
        raise TypeError(f"{name}: expected {_kind(own)}, got {_kind(given)}")


def _kind(value: Any) -> str:
    """Describe a value for a message."""
    if isinstance(value, torch.Tensor):
        return f"shape {tuple(value.shape)} and {value.dtype}"
    return f"keys {sorted(map(str, value))[:5]}" if isinstance(value, dict) else type(value).__name__


def _is_plain_tensor(value: Any) -> bool:
    """Return whether it is a dense tensor whose storage contains all of its elements.

    Other tensors would allocate their declared size when used.
    """
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type != "meta"
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _refuse_to_unpack(data: bytes) -> None:
    """Raise ValueError for a compressed zip, which could unpack to any size; torch does not compress."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > len(data):
            raise ValueError("it would unpack to more than it is")


def _snapshot(value: Any, copies: dict[Any, torch.Tensor] | None = None) -> Any:
    """Copy a state to the CPU; tensors that share memory share it in the copy."""
    copies = {} if copies is None else copies
    if isinstance(value, torch.Tensor):
        tensor = value.detach()
        key = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() == 0 or key not in copies:
            copies[key] = tensor.to("cpu", copy=True)
        return copies[key]
    if isinstance(value, dict):
        return {key: _snapshot(item, copies) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_snapshot(item, copies) for item in value)
    return value


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: Any) -> None:
        self._file, self.sha256 = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        try:
            return int(self._file.write(data))
        except OSError as error:
            self.error = error  # torch raises another error, without the reason
            raise

    def flush(self) -> None:
        self._file.flush()


def _save_weights(tensors: dict[str, torch.Tensor], target: Path) -> str:
    """Write a safetensors file atomically; return its sha256."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        try:
            safetensors.torch.save_file(tensors, name, {"format": "pt"})
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error
        with open(name, "rb+") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return sha256


def _save_atomically(state: dict[str, Any], target: Path) -> str:
    """Write a state atomically with `torch.save`; return its sha256."""
    with atomic_file(target) as file:
        hashed: Any = _Hashed(file)
        try:
            torch.save(state, hashed)
        except RuntimeError:
            raise hashed.error or OSError("torch.save failed") from None
    return str(hashed.sha256.hexdigest())


def random_state() -> dict[str, Any]:
    """Return the state of torch's generators; all other random choices are seeded by step."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
