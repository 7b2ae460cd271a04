"""Everything that a data set fits on its training split, as one object that travels with the weights."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from seqexp.errors import UserError
from seqexp.tokenizers.base import Tokenizer, tokenizer_from_plain

# Checkpoints are untrusted: read at most this many labels and values.
MOST_VALUES = 1_000_000


@dataclass(frozen=True)
class Preprocessor:
    """Tokenizers by role, the labels in the order of their numbers, and other fitted values by name.

    The roles are ``text`` (running text, and the inputs of a classifier), ``source`` and ``target``
    (translation). One tokenizer may have two roles. `n_outputs` is the number of outputs at each position
    where these are neither tokens nor labels.
    """

    tokenizers: Mapping[str, Tokenizer] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    n_outputs: int | None = None

    def __getitem__(self, role: str) -> Tokenizer:
        """The tokenizer of a role.

        Raises:
            UserError: no tokenizer has this role.
        """
        if role not in self.tokenizers:
            there = ", ".join(self.tokenizers) or "none"
            raise UserError(f"the preprocessor has no tokenizer for {role}; it has {there}.")
        return self.tokenizers[role]

    def sizes(self) -> dict[str, Any]:
        """The arguments of a model that the data decides: sizes of vocabularies, the number of outputs."""
        sizes: dict[str, Any] = {}
        if "text" in self.tokenizers:
            sizes["vocab_size"] = self["text"].vocab_size
        if "source" in self.tokenizers:
            source, target = self["source"], self["target"]
            sizes |= {"source_vocab_size": source.vocab_size, "target_vocab_size": target.vocab_size}
            sizes["joint_vocabulary"] = source is target
        if self.labels or self.n_outputs:
            sizes["n_outputs"] = self.n_outputs or len(self.labels)
        return sizes

    def to_plain(self) -> dict[str, Any]:
        """Plain data, in which a tokenizer with two roles stands once."""
        first: dict[int, str] = {}
        tokenizers: dict[str, Any] = {}
        for role, tokenizer in self.tokenizers.items():
            same = first.setdefault(id(tokenizer), role)
            tokenizers[role] = tokenizer.to_plain() if same == role else {"same_as": same}
        return {
            "tokenizers": tokenizers,
            "labels": list(self.labels),
            "values": dict(self.values),
            "n_outputs": self.n_outputs,
        }

    @classmethod
    def from_plain(cls, plain: Any) -> Self:
        """The inverse of `to_plain`; the data is untrusted.

        Raises:
            UserError: the data is not that of a preprocessor.
        """
        plain = plain if isinstance(plain, dict) else {}
        given, labels, values = (plain.get(key) for key in ("tokenizers", "labels", "values"))
        n_outputs = plain.get("n_outputs")
        well_formed = (
            isinstance(given, dict)
            and isinstance(labels, list)
            and all(isinstance(label, str) for label in labels)
            and isinstance(values, dict)
            and len(labels) + len(values) <= MOST_VALUES
            and (n_outputs is None or (type(n_outputs) is int and 0 < n_outputs < MOST_VALUES))
        )
        if not well_formed:
            raise UserError("the checkpoint holds no preprocessor.")
        assert isinstance(given, dict)
        tokenizers: dict[str, Tokenizer] = {}
        for role, one in given.items():
            same = one.get("same_as") if isinstance(one, dict) else None
            tokenizers[str(role)] = tokenizers[same] if same in tokenizers else tokenizer_from_plain(one)
        return cls(tokenizers, tuple(labels or ()), values or {}, n_outputs)

    @classmethod
    def from_schema_1(cls, plain: Any) -> Self:
        """From the tokenizer of a checkpoint of schema 1: of a text, of bits, or a pair of two languages.

        Raises:
            UserError: the data is not that of a tokenizer.
        """
        state = plain.get("state") if isinstance(plain, dict) else None
        if not isinstance(state, dict) or plain.get("name") != "pair":
            tokenizer = tokenizer_from_plain(plain)
            # The bits of schema 1 were those of the parity task, whose models have one output.
            return cls({"text": tokenizer}, n_outputs=1 if tokenizer.name == "bits" else None)
        ratio = state.get("length_ratio")
        if not isinstance(ratio, float) or not 0 < ratio < 1000:
            raise UserError("the checkpoint holds no pair of tokenizers.")
        source = tokenizer_from_plain(state.get("source"))
        target = source if state.get("target") is None else tokenizer_from_plain(state["target"])
        return cls({"source": source, "target": target}, values={"length_ratio": ratio})

    def hash(self) -> str:
        """A short hash of everything in it: two preprocessors with the same one do the same."""
        return hashlib.sha256(json.dumps(self.to_plain(), sort_keys=True).encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """For the manifest: what each role is tokenized with, and the labels."""
        roles = {
            role: {"name": tokenizer.name, "vocab_size": tokenizer.vocab_size, "hash": tokenizer.hash()}
            for role, tokenizer in self.tokenizers.items()
        }
        return {"hash": self.hash(), "tokenizers": roles, "labels": list(self.labels)}
