"""Fit tokenizers, or take those that were fitted before on the same text with the same options."""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqexp import registry
from seqexp.data.cache import cache_dir
from seqexp.data.vectors import read_words
from seqexp.errors import UserError
from seqexp.files import user_path, write_atomically
from seqexp.tokenizers.base import Tokenizer, tokenizer_from_plain

log = logging.getLogger(__name__)

# In the key of fitted tokenizers: raise it when the text that tokenizers are fitted on changes.
FIT_VERSION = 2


def cached(kind: str, key: list[Any], suffix: str = "") -> Path:
    """The path in a cache of something that depends on `key` alone."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return cache_dir(kind) / f"{digest}{suffix}"


def fit_tokenizer(config: Any, texts: Iterable[str], key: list[Any]) -> Tokenizer:
    """The tokenizer of `config`, fitted on `texts`, which `key` identifies.

    Raises:
        UserError: the texts do not suffice.
    """
    kind: type[Tokenizer] = registry.load("tokenizer", config.name)
    options = asdict(config)
    file = cached("tokenizers", [FIT_VERSION, kind.version, key, options, _hashes_of_files(options)], ".json")
    try:
        tokenizer = tokenizer_from_plain(json.loads(file.read_text()))
    except (OSError, ValueError, UserError):
        tokenizer = kind.fit(config, texts, **_further_words(options))
        write_atomically(file, json.dumps(tokenizer.to_plain()).encode())
    most = options.get("vocab_size")
    if most and tokenizer.vocab_size < most:
        log.info(
            "the text yields %s of at most %s tokens (tokenizer.vocab_size)", f"{tokenizer.vocab_size:,}",
            f"{most:,}",
        )  # fmt: skip
    return tokenizer


def _further_words(options: dict[str, Any]) -> dict[str, list[str]]:
    """Read the words that a tokenizer keeps besides those of training; tokenizers read no files."""
    path = options.get("words_path")
    if not path:
        return {}
    lines = read_words(path, "tokenizer.words_path")
    return {"more": [line.split(maxsplit=1)[0] for line in lines if line.strip()]}


def encoding_key(tokenizer: Tokenizer) -> list[Any]:
    """What the token numbers of a text depend on besides the text."""
    return [tokenizer.version, tokenizer.hash()]


def _hashes_of_files(options: dict[str, Any]) -> dict[str, str]:
    """The hashes of files that options name: another vocabulary under the same name is another tokenizer."""
    hashes = {}
    for option, value in options.items():
        if not isinstance(value, str) or not value:
            continue
        path = user_path(value)
        try:
            files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
            for file in files:
                if file.is_file():
                    with open(file, "rb") as opened:
                        hashes[f"{option}/{file.name}"] = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"tokenizer.{option}={value} cannot be read ({error.strerror}).") from error
    return hashes
