"""Folders of the YAML files, and registration of the schemas that they extend."""

import os
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from seqexp import registry
from seqexp.config.exams import ExamsConfig
from seqexp.config.root import EvalConfig, ExportConfig, GenerateConfig, TrainConfig
from seqexp.config.run import DeviceConfig, GenerationConfig, TrainerConfig
from seqexp.config.sweep import SweepConfig
from seqexp.errors import UserError
from seqexp.files import user_path


def conf_dir() -> Path:
    """Return the project's ``conf/``: inside the package when installed, beside it in a clone."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no conf/ with train.yaml in or beside {package}")


def user_conf_dir() -> Path | None:
    """Return the folder `$SEQEXP_CONF`, whose options come before the project's own, or None.

    Raises:
        UserError: the variable is set, but is not a folder.
    """
    value = os.environ.get("SEQEXP_CONF")
    if not value:
        return None
    folder = user_path(value).resolve()
    if not folder.is_dir():
        raise UserError(f"SEQEXP_CONF={value} is not a folder; correct it or unset it.")
    return folder


# Window of a model, in tokens, if the data does not declare the length of its examples.
DEFAULT_WINDOW = 512


def window(*, _root_: Any) -> int:
    """Resolve ``${window:}`` to the length of the data's examples."""
    data = _root_.get("data") or {}
    return data.get("seq_len") or data.get("max_seq_len") or DEFAULT_WINDOW


def window_at_most(most: int, *, _root_: Any) -> int:
    """Resolve ``${window_at_most:256}`` to the typed window of the model (as by `init_from`), at most 256."""
    model = _root_.get("model")
    given = OmegaConf.to_container(model, resolve=False) if OmegaConf.is_dict(model) else {}
    typed = given.get("max_len") if isinstance(given, dict) else None
    return min(most, typed) if isinstance(typed, int) else most


# Width of a recurrent model's embedding where tokens are words or subwords.
DEFAULT_EMBEDDING = 128


def embedding(*, _root_: Any) -> int:
    """Resolve ``${embedding:}`` to a width for the words of sentences, and to 0 (none) for other tokens."""
    name = (_root_.get("data") or {}).get("name")
    sentences = name and getattr(registry.load_schema("data", name), "TOKENIZES", "") == "sentences"
    return DEFAULT_EMBEDDING if sentences else 0


def monitor(*, _root_: Any) -> str:
    """Resolve ``${monitor:}`` to the metric by which the task chooses the best checkpoint."""
    name = (_root_.get("task") or {}).get("name")
    declared: str = getattr(registry.load_schema("task", name), "MONITOR", "val/loss") if name else "val/loss"
    return declared


# Words in a passage of text for word vectors, and passages in a batch.
PASSAGE_LENGTH, PASSAGES = 1000, 10
# The kinds of models that are word vectors.
WORD_VECTORS = ("word_vectors", "cooccurrence_vectors")


def _of_word_vectors(root: Any) -> bool:
    name = str((root.get("model") or {}).get("name"))
    known = name in registry.ENTRIES["model"]
    return known and getattr(registry.load_schema("model", name), "KIND", None) in WORD_VECTORS


def passage_length(usual: int, *, _root_: Any) -> int:
    """Resolve ``${passage_length:128}`` to 1000 for word vectors (contexts end with a passage), else 128."""
    return PASSAGE_LENGTH if _of_word_vectors(_root_) else usual


def passages(usual: int, *, _root_: Any) -> int:
    """Resolve ``${passages:16}`` to 10 for word vectors, else 16."""
    return PASSAGES if _of_word_vectors(_root_) else usual


def vector_rate(*, _root_: Any) -> float:
    """Resolve ``${vector_rate:}`` to the learning rate of word vectors; in ``cbow`` words share it."""
    return 0.15 if (_root_.get("model") or {}).get("architecture") == "cbow" else 0.025


def masks(*, _root_: Any) -> bool:
    """Resolve ``${masks:}`` to whether the task masks tokens."""
    name = (_root_.get("task") or {}).get("name")
    return bool(getattr(registry.load_schema("task", name), "MASKS", False)) if name else False


def register_schemas() -> None:
    """Store every dataclass so that YAML files can extend it with ``defaults: [base_<name>]``."""
    OmegaConf.register_new_resolver("window", window, replace=True)
    OmegaConf.register_new_resolver("window_at_most", window_at_most, replace=True)
    OmegaConf.register_new_resolver("embedding", embedding, replace=True)
    OmegaConf.register_new_resolver("monitor", monitor, replace=True)
    OmegaConf.register_new_resolver("passage_length", passage_length, replace=True)
    OmegaConf.register_new_resolver("passages", passages, replace=True)
    OmegaConf.register_new_resolver("vector_rate", vector_rate, replace=True)
    OmegaConf.register_new_resolver("masks", masks, replace=True)
    store = ConfigStore.instance()
    store.store(name="base_train", node=TrainConfig)
    store.store(name="base_eval", node=EvalConfig)
    store.store(name="base_generate", node=GenerateConfig)
    store.store(name="base_export", node=ExportConfig)
    store.store(group="device", name="base_device", node=DeviceConfig)
    store.store(group="trainer", name="base_trainer", node=TrainerConfig)
    store.store(group="generation", name="base_generation", node=GenerationConfig)
    store.store(group="exams", name="base_exams", node=ExamsConfig)
    store.store(group="sweep", name="base_sweep", node=SweepConfig)
    registry.load_plugins()
    for group, entries in registry.ENTRIES.items():
        for name in entries:
            node = OmegaConf.structured(registry.load_schema(group, name))
            node.name = name
            store.store(group=group, name=f"base_{name}", node=node)
