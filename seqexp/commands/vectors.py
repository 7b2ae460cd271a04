"""Initialise the word embeddings of a model with pretrained vectors (`model.vectors=`)."""

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

    from seqexp.data.vectors import read_vectors

    path = getattr(config, "vectors", None)
    if path is None:
        return None
    tokenizer = preprocessor["text"]
    words = [tokenizer.piece(number) for number in range(tokenizer.vocab_size)]
    found = read_vectors(path, {form for word in words for form in (word, word.lower())}, config.vector_words)
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
    with user_path(path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    log.info("vectors %s: %s of %s words", path, f"{len(known):,}", f"{len(words):,}")
    return {
        "path": path,
        "sha256": sha256,
        "words": len(words),
        "covered": len(known),
        "not_covered": [word for number, word in enumerate(words) if number not in known][:50],
    }
