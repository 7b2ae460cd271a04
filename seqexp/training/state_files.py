"""One saved state as files: its weights as safetensors, and the rest beside them.

The rest contains tensors and plain values only and is read with ``weights_only=True``, which runs no code
from the file. Files are written atomically. An *entry* is what the index says of a state: its step, and the
name and sha256 of each file.
"""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from seqexp.config.root import SCHEMA_VERSION
from seqexp.data.preprocessor import Preprocessor
from seqexp.errors import UserError
from seqexp.files import atomic_file, atomic_path, make_folder, read_bounded

# Limit for a file in bytes, far above the size of any memory.
LARGEST = 1 << 50

Entry = dict[str, Any]
Weights = dict[str, torch.Tensor]


def write_state(folder: Path, step: int, state: dict[str, Any]) -> Entry:
    """Write a state, a copy made by `snapshot`, to ``step_<n>.safetensors`` and ``step_<n>.pt``.

    Returns its entry. Raises OSError if the disk is full or read-only.
    """
    make_folder(folder)
    stem = f"step_{step:08d}"
    weights, rest = _take_weights({"schema_version": SCHEMA_VERSION, "step": step, **state})
    entry: Entry = {"step": step, "file": f"{stem}.pt", "weights": {}}
    for name, tensors in weights.items():
        file = f"{stem}.safetensors" if name == "model" else f"{stem}.{name}.safetensors"
        entry["weights"][name] = {"file": file, "sha256": _write_weights(tensors, folder / file)}
    entry["sha256"] = _write_rest(rest, folder / entry["file"])
    return entry


def read_state(folder: Path, entry: Entry) -> dict[str, Any]:
    """Read the state of an entry onto the CPU; a state of schema 1 is converted to the current layout.

    Raises:
        UserError: a file is missing, damaged, unsafe or too new.
    """
    file, data = _read(folder, entry)
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
    weights = {name: _read_weights(folder, one) for name, one in entry.get("weights", {}).items()}
    state = _put_weights(state, weights)
    given = state.get("model")
    if not isinstance(given, dict) or not all(map(_is_plain_tensor, given.values())):
        raise UserError(f"{file} is not a checkpoint of seqexp.")
    if type(state.get("step")) is not int or state["step"] != entry["step"]:
        raise UserError(f"{file} is not the checkpoint of step {entry['step']}, although index.json says so.")
    return state


def file_names(entry: Entry) -> list[str]:
    """Return the names of the files of a state."""
    return [entry["file"], *(one["file"] for one in entry.get("weights", {}).values())]


def is_entry(value: Any) -> bool:
    """Return whether an untrusted value has the form of an entry."""
    weights = value.get("weights", {}) if isinstance(value, dict) else None
    return (
        _is_file(value)
        and type(value.get("step")) is int
        and isinstance(weights, dict)
        and all(map(_is_file, weights.values()))
    )


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and all(type(value.get(key)) is str for key in ("file", "sha256"))


def snapshot(value: Any, copies: dict[Any, torch.Tensor] | None = None) -> Any:
    """Copy a state to the CPU; tensors that share memory share it in the copy."""
    copies = {} if copies is None else copies
    if isinstance(value, torch.Tensor):
        tensor = value.detach()
        key = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() == 0 or key not in copies:
            copies[key] = tensor.to("cpu", copy=True)
        return copies[key]
    if isinstance(value, dict):
        return {key: snapshot(item, copies) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(item, copies) for item in value)
    return value


def _read(folder: Path, entry: Entry) -> tuple[Path, bytes]:
    """Return the bytes of a file in this folder, after comparing their hash."""
    # The index is untrusted: open only files in this folder.
    file = folder / Path(entry["file"]).name
    try:
        data = read_bounded(file, LARGEST)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise UserError(f"{file} is damaged: its sha256 is not the one in index.json.")
    return file, data


def _read_weights(folder: Path, entry: Entry) -> Weights:
    file, data = _read(folder, entry)
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{file} is not a safetensors file ({error}).") from error


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


def _write_weights(tensors: Weights, target: Path) -> str:
    """Write a safetensors file atomically; return its sha256."""
    with atomic_path(target) as path:
        try:
            safetensors.torch.save_file(tensors, path, {"format": "pt"})
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _write_rest(state: dict[str, Any], target: Path) -> str:
    """Write a state atomically with `torch.save`; return its sha256."""
    with atomic_file(target) as file:
        hashed: Any = _Hashed(file)
        try:
            torch.save(state, hashed)
        except RuntimeError:
            raise hashed.error or OSError("torch.save failed") from None
    return str(hashed.sha256.hexdigest())
