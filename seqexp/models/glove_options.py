"""Options of GloVe (`glove.py`)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from seqexp.config.checks import check_choice, check_range, check_rule
from seqexp.models.word2vec_options import IMPLEMENTATIONS, PLAIN_TRAINER, first_other

# The settings with which the vectors are updated by one pair after the other.
ADAGRAD: dict[str, Any] = {"name": "adagrad", "weight_decay": 0.0, "lr_scale": {}}


@dataclass
class GloVeConfig:
    """Word vectors whose products are logarithms of co-occurrences (Pennington, Socher & Manning 2014).

    Two words at distance d up to `window` in a document add 1 / d to their co-occurrence X. The squared error
    of log X weighs (X / `x_max`)^`alpha`, at most 1.

    AdaGrad (``optimizer=glove``) takes one pair after the other: ``compiled`` by code that numba makes for
    the CPU, in `workers` threads (several write without locks, so that no run repeats), or ``plain`` by
    PyTorch in pieces of a few hundred pairs. ``auto`` is compiled where that can be had. Other optimizers see
    the gradient of the whole batch, as in every other task.
    """

    KIND: ClassVar[str] = "cooccurrence_vectors"
    # What the data reads (`data/cooccurrence_data.py`), and what decides who updates the vectors.
    OUTSIDE: ClassVar[tuple[str, ...]] = ("window", "x_max", "alpha", "impl", "workers")

    name: str = "glove"
    n_embd: int = 100
    window: int = 10
    x_max: float = 10.0
    alpha: float = 0.75
    impl: str = "auto"
    workers: int = 1

    def __post_init__(self) -> None:
        check_range("model.n_embd", self.n_embd, 1, 100_000)
        check_range("model.window", self.window, 1, 1000)
        check_range("model.x_max", self.x_max, above=0, high=1e12)
        check_range("model.alpha", self.alpha, 0, 10)
        check_choice("model.impl", self.impl, IMPLEMENTATIONS)
        check_range("model.workers", self.workers, 1, 1024)
        check_rule(
            self.impl != "plain" or self.workers == 1,
            f"model.workers={self.workers} is for model.impl=compiled; PyTorch's are device.threads=.",
        )

    def check_together(self, config: Any) -> None:
        """Check that the compiled form, if it is asked for, can do what the other settings ask for."""
        obstacle = self.obstacle(config)
        check_rule(
            (self.impl != "compiled" and self.workers == 1) or obstacle is None,
            f"model.impl=compiled is for AdaGrad on one pair after the other, and {obstacle} was given; "
            "leave that out, or use model.impl=plain.",
        )

    def obstacle(self, config: Any) -> str | None:
        """Return the setting that updates of one pair after the other cannot follow, or None."""
        return first_other(config, {"optimizer": ADAGRAD, "trainer": PLAIN_TRAINER})
