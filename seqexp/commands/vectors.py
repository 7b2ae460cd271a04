"""Initialise the word embeddings of a model with vectors from a file or another run (`model.vectors=`)."""

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from seqexp.errors import UserError
from seqexp.files import user_path

if TYPE_CHECKING:
    from torch import nn

    from seqexp.data.preprocessor import Preprocessor

log = logging.getLogger(__name__)


def take_vectors(
    model: "nn.Module", config: Any, preprocessor: "Preprocessor", seed: int
) -> dict[str, Any] | None:
    """Copy the vectors of known words into `model.word_embeddings()`; return what was covered, or None.

    A word without a vector gets that of its lower-case form, else numbers drawn from `seed` with the variance
    of the vectors (Kim 2014). `config` is that of the model.

    Raises:
        UserError: the vectors have another width than the embedding, or no word has a vector.
    """
    import numpy as np
    import torch

    path = getattr(config, "vectors", None)
    if path is None:
        return None
    tokenizer = preprocessor["text"]
    words = [tokenizer.piece(number) for number in range(tokenizer.vocab_size)]
    wanted = {form for word in words for form in (word, word.lower())}
    found, source = _vectors(path, wanted, config.vector_words)
    rows = {n: found.get(word, found.get(word.lower())) for n, word in enumerate(words)}
    known = {number: vector for number, vector in rows.items() if vector is not None}
    if not known:
        raise UserError(f"model.vectors={path} has none of the {len(words):,} words of the vocabulary.")
    columns = len(next(iter(known.values())))
    if columns != config.n_embd:
        raise UserError(f"model.vectors={path} has vectors of {columns} numbers; use model.n_embd={columns}.")
    bound = float(np.sqrt(3 * np.mean([vector.var() for vector in known.values()])))
    draw = np.random.default_rng(seed)
    matrix = draw.uniform(-bound, bound, (len(words), columns)).astype(np.float32)
    for number, vector in known.items():
        matrix[number] = vector
    for embedding in model.word_embeddings():  # type: ignore[operator]
        embedding.weight.detach()[: len(words)] = torch.from_numpy(matrix)
    log.info("vectors %s: %s of %s words", path, f"{len(known):,}", f"{len(words):,}")
    return {
        **source,
        "words": len(words),
        "covered": len(known),
        "not_covered": [word for number, word in enumerate(words) if number not in known][:50],
    }


def _vectors(path: str, wanted: set[str], words_path: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the vectors of the wanted words, from a file or a run, and what the manifest says of them."""
    from seqexp.data.vectors import read_vectors

    if path != "latest" and not user_path(path).is_dir():
        found = read_vectors(path, wanted, words_path)
        with user_path(path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return found, {"path": path, "sha256": sha256}
    if words_path is not None:
        raise UserError(f"model.vector_words= goes with a .npy file, and model.vectors={path} is a run.")
    import torch

    from seqexp.commands.build import build_task, load_trained_run
    from seqexp.config.run import DeviceConfig
    from seqexp.tracking.run_folder import RunFolder, find_run

    def has_vectors(run: RunFolder) -> bool:
        try:
            return bool(getattr(run.read_config().task, "VECTORS", False))
        except UserError:
            return False

    run = find_run(path, "model.vectors", has_vectors, "run of word vectors")
    trained = load_trained_run(run, "best", DeviceConfig(name="cpu", threads=torch.get_num_threads()))
    task = build_task(trained.config.task)
    try:
        found = task.word_vectors(trained.model, trained.preprocessor, wanted)
    except UserError as error:
        raise UserError(f"model.vectors={path}, which is {run.path}: {error}") from error
    return found, {"run": str(run.path), "step": trained.step, "preprocessor": trained.preprocessor.hash()}
