"""Options of word vectors that predict each other in a text (`word2vec.py`, `fasttext.py`)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from seqexp.config.checks import check_choice, check_range, check_rule

ARCHITECTURES = ("skipgram", "cbow")
LOSSES = ("negative", "hierarchical")
IMPLEMENTATIONS = ("auto", "plain", "compiled")
# The settings with which the vectors are updated by one example after the other.
PLAIN_SGD: dict[str, Any] = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "lr_scale": {}}
PLAIN_TRAINER: dict[str, Any] = {"max_grad_norm": 0, "accumulate": 1, "freeze": [], "nonfinite": "stop"}


@dataclass
class Word2VecConfig:
    """Word vectors that predict each other in a window (Mikolov et al. 2013a, b).

    The context of a word are the words on either side, as many as are drawn from 1 to `window` at each word.
    The vector of each word of the context (``skipgram``) or their mean (``cbow``) tells the word from
    `negative` others, drawn from the vocabulary with probability count^`exponent`, which all the context
    shares. With `loss` ``hierarchical`` they tell the word by its path in a Huffman tree instead, whose
    probabilities sum to one. A word of frequency f is left out of the text with probability
    1 - sqrt(`sample` / f) - `sample` / f (0: none is).

    Gradient descent without momentum (``optimizer=word2vec``) takes one example after the other: ``compiled``
    by code that numba makes for the CPU, in `workers` threads (several write without locks, so that no run
    repeats), or ``plain`` by PyTorch in pieces of a few hundred examples. ``auto`` is compiled where that can
    be had. Other optimizers see the gradient of the whole batch, as in every other task.
    """

    KIND: ClassVar[str] = "word_vectors"
    # What the data reads (`data/contexts.py`), and what decides who updates the vectors.
    OUTSIDE: ClassVar[tuple[str, ...]] = (
        "window",
        "loss",
        "negative",
        "exponent",
        "sample",
        "impl",
        "workers",
    )

    name: str = "word2vec"
    n_embd: int = 100
    architecture: str = "skipgram"
    window: int = 5
    loss: str = "negative"
    negative: int = 5
    exponent: float = 0.75
    sample: float = 1e-3
    impl: str = "auto"
    workers: int = 1

    def __post_init__(self) -> None:
        check_range("model.n_embd", self.n_embd, 1, 100_000)
        check_choice("model.architecture", self.architecture, ARCHITECTURES)
        check_range("model.window", self.window, 1, 1000)
        check_choice("model.loss", self.loss, LOSSES)
        check_range("model.negative", self.negative, 1, 1000)
        check_range("model.exponent", self.exponent, -10, 10)
        check_range("model.sample", self.sample, 0, 1)
        check_choice("model.impl", self.impl, IMPLEMENTATIONS)
        check_range("model.workers", self.workers, 1, 1024)
        check_rule(
            self.impl != "plain" or self.workers == 1,
            f"model.workers={self.workers} is for model.impl=compiled; PyTorch's are device.threads=.",
        )

    def without_effect(self) -> list[str]:
        """Return notes on settings that hierarchical softmax does not read."""
        defaults = {"negative": Word2VecConfig.negative, "exponent": Word2VecConfig.exponent}
        return [
            f"model.{key}={getattr(self, key)} has no effect with model.loss=hierarchical"
            for key, default in defaults.items()
            if self.loss == "hierarchical" and getattr(self, key) != default
        ]

    def check_together(self, config: Any) -> None:
        """Check that the compiled form, if it is asked for, can do what the other settings ask for."""
        obstacle = self.obstacle(config)
        check_rule(
            (self.impl != "compiled" and self.workers == 1) or obstacle is None,
            f"model.impl=compiled is for gradient descent on one example after the other, and {obstacle} "
            "was given; leave that out, or use model.impl=plain.",
        )

    def obstacle(self, config: Any) -> str | None:
        """Return the setting that updates of one example after the other cannot follow, or None."""
        return first_other(config, {"optimizer": PLAIN_SGD, "trainer": PLAIN_TRAINER})


def first_other(config: Any, settings: dict[str, dict[str, Any]]) -> str | None:
    """Return the first setting of a configuration that differs from `settings`, by group and key, or None."""
    for group, allowed in settings.items():
        for key, value in allowed.items():
            given = getattr(getattr(config, group), key, value)
            if given != value:
                return f"optimizer={given}" if key == "name" else f"{group}.{key}={given}"
    return None


@dataclass
class FastTextConfig(Word2VecConfig):
    """Vectors that are means of those of the word and its character n-grams (Bojanowski et al. 2017).

    N-grams have `min_n` to `max_n` characters, of the word between ``<`` and ``>``; they share `buckets` rows
    by a hash.
    """

    name: str = "fasttext"
    min_n: int = 3
    max_n: int = 6
    buckets: int = 200_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("model.min_n", self.min_n, 1, 100)
        check_range("model.max_n", self.max_n, self.min_n, 100)
        check_range("model.buckets", self.buckets, 1, 100_000_000)
