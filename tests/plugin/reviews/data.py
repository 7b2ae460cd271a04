"""Forty reviews: films and books, good and bad."""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch

from seqexp import registry
from seqexp.data.base import Data, View
from seqexp.data.batch import Batch
from seqexp.data.preprocessor import Preprocessor

WORDS = {"good": ("moving", "funny", "splendid", "warm"), "bad": ("dull", "clumsy", "awful", "cold")}
REVIEWS = [
    (f"a {word} {subject} , {more}", label, subject)
    for label, words in WORDS.items()
    for word in words
    for subject in ("film", "book")
    for more in ("truly", "in every way", "from start to end")
]


class Reviews(Data):
    def __init__(self, config, preprocessor: Preprocessor, seed: int, subject: str | None = None) -> None:
        self.config, self.preprocessor, self.seed, self.subject = config, preprocessor, seed, subject
        chosen = [review for review in REVIEWS if subject in (None, review[2])]
        self.splits = {"train": [r for i, r in enumerate(chosen) if i % 3], "val": chosen[::3]}

    @classmethod
    def build(cls, config, tokenizer=None, seed=1, preprocessor=None) -> "Reviews":
        if preprocessor is None:
            texts = [text for i, (text, _, _) in enumerate(REVIEWS) if i % 3]
            fitted = registry.load("tokenizer", tokenizer.name).fit(tokenizer, texts)
            preprocessor = Preprocessor({"text": fitted}, labels=tuple(sorted(WORDS)))
        return cls(config, preprocessor, seed)

    @property
    def steps_per_epoch(self) -> float:
        return len(self.splits["train"]) / self.config.batch_size

    def train_batch(self, step: int) -> Batch:
        draw = np.random.default_rng([self.seed, step])
        rows = draw.integers(0, len(self.splits["train"]), self.config.batch_size)
        return self.batch([self.splits["train"][row] for row in rows])

    def eval_batches(self, split: str) -> Iterator[Batch]:
        yield self.batch(self.splits[split])

    def batch(self, reviews) -> Batch:
        encoded = [self.preprocessor["text"].encode(text) for text, _, _ in reviews]
        lengths = torch.tensor([len(ids) for ids in encoded])
        tokens = torch.zeros(len(encoded), int(lengths.max()), dtype=torch.int64)
        for row, ids in zip(tokens, encoded, strict=True):
            row[: len(ids)] = torch.from_numpy(ids.astype(np.int64))
        labels = torch.tensor([self.preprocessor.labels.index(label) for _, label, _ in reviews])
        return Batch(
            {"tokens": tokens, "labels": labels}, np.ones(len(reviews), np.int64), {"tokens": lengths}
        )

    def views(self, max_len):
        parts = [(s, Reviews(self.config, self.preprocessor, self.seed, s)) for s in ("film", "book")]
        return [View({"subject": s}, data, main=s == "film") for s, data in parts], []

    def describe(self):
        digest = hashlib.sha256(repr(REVIEWS).encode()).hexdigest()
        splits = {name: {"reviews": len(rows)} for name, rows in self.splits.items()}
        return {"name": "reviews", "origin": "the plugin", "sha256": digest, "splits": splits}
