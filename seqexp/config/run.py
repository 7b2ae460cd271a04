"""Options of the device, the training loop and generation."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from seqexp.config.checks import LARGEST, SWITCH, check_choice, check_range, check_rule

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# Length of a training without any limit, in steps.
DEFAULT_STEPS = 2000


@dataclass
class DeviceConfig:
    """Device, precision, compilation and threads. `threads` null means one per available core."""

    name: str = "auto"
    precision: str = "auto"
    compile: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        self.compile = self.compile.lower()  # compile=true on the command line arrives as "True"
        check_choice("device.name", self.name, DEVICES)
        check_choice("device.precision", self.precision, PRECISIONS)
        check_choice("device.compile", self.compile, SWITCH)
        check_range("device.threads", self.threads, 1, 1024)


@dataclass
class TrainerConfig:
    """Length of training, clipping, validation, checkpoints, and hooks.

    Training ends at the first of `max_steps`, `max_epochs` and `max_minutes` that is reached, or after
    `DEFAULT_STEPS` steps without these. A checkpoint is written every `checkpoint_every` steps (null: at
    every validation) and every `checkpoint_minutes`; the newest `keep_last` and the best `keep_best` are
    kept. `max_grad_norm=0` disables clipping. `nonfinite` is the action when a loss or gradient is infinite
    or NaN: ``stop``, ``skip`` the batch, or ``rollback`` to the last checkpoint and skip the batch.
    `accumulate` splits each batch into that many micro-batches, with the same gradient. Parameters whose
    names match a pattern in `freeze` are not trained; with `unfreeze_every` the output layer trains first,
    and one layer more after each of so many epochs. With `ema_decay` a moving average of the weights is
    evaluated and saved beside them.
    """

    ADDED: ClassVar[dict[str, Any]] = {"freeze": [], "unfreeze_every": None, "ema_decay": None}

    max_steps: int | None = None
    max_epochs: float | None = None
    max_minutes: float | None = None
    max_grad_norm: float = 1.0
    accumulate: int = 1
    eval_every: int = 250
    log_every: int = 10
    checkpoint_every: int | None = None
    checkpoint_minutes: float | None = 10.0
    keep_last: int = 2
    keep_best: int = 1
    nonfinite: str = "stop"
    patience: int | None = None
    monitor: str = "val/loss"
    deterministic: bool = False
    sample_tokens: int = 200
    freeze: list[str] = field(default_factory=list)
    unfreeze_every: float | None = None
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        check_range("trainer.max_steps", self.max_steps, 0)
        check_range("trainer.max_epochs", self.max_epochs, above=0, high=LARGEST)
        check_range("trainer.max_minutes", self.max_minutes, above=0, high=LARGEST)
        check_range("trainer.max_grad_norm", self.max_grad_norm, 0)
        check_range("trainer.accumulate", self.accumulate, 1)
        check_range("trainer.eval_every", self.eval_every, 1)
        check_range("trainer.log_every", self.log_every, 1)
        check_range("trainer.checkpoint_every", self.checkpoint_every, 1)
        check_range("trainer.checkpoint_minutes", self.checkpoint_minutes, above=0)
        check_range("trainer.keep_last", self.keep_last, 1, 100)
        check_range("trainer.keep_best", self.keep_best, 1, 100)
        check_choice("trainer.nonfinite", self.nonfinite, ("stop", "skip", "rollback"))
        check_range("trainer.patience", self.patience, 1)
        check_range("trainer.sample_tokens", self.sample_tokens, 0)
        check_range("trainer.unfreeze_every", self.unfreeze_every, above=0, high=LARGEST)
        check_range("trainer.ema_decay", self.ema_decay, 0, below=1)
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None:
            self.max_steps = DEFAULT_STEPS


@dataclass
class GenerationConfig:
    """Options of generation.

    Language models sample tokens: `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 keep every token.
    Translation uses beam search: the log-probability is divided by a length penalty (``wu``, ``average`` or
    ``none``, to the power `length_alpha`). A translation has at least `min_length` tokens, and at most
    `max_length_ratio` times the source's tokens plus five (null: a ratio fitted on the training data).
    Word vectors find the `neighbours` nearest of the `max_words` most frequent words (null: all), and solve
    analogies by ``cosadd`` or ``cosmul``.
    """

    max_new_tokens: int = 500
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    num_samples: int = 1
    stop: str | None = None
    beam_size: int = 5
    n_best: int = 1
    length_penalty: str = "wu"
    length_alpha: float = 1.0
    coverage_penalty: float = 0.0
    min_length: int = 1
    max_length_ratio: float | None = None
    no_repeat_ngram: int = 0
    replace_unknown: bool = True
    neighbours: int = 10
    max_words: int | None = 30_000
    analogy: str = "cosadd"

    def __post_init__(self) -> None:
        check_range("generation.neighbours", self.neighbours, 1, 100_000)
        check_range("generation.max_words", self.max_words, 2)
        check_choice("generation.analogy", self.analogy, ("cosadd", "cosmul"))
        check_range("generation.beam_size", self.beam_size, 1, 1000)
        check_range("generation.n_best", self.n_best, 1)
        check_rule(
            self.n_best <= self.beam_size,
            f"generation.n_best={self.n_best} is more than generation.beam_size={self.beam_size}; raise "
            "generation.beam_size.",
        )
        check_choice("generation.length_penalty", self.length_penalty, ("wu", "average", "none"))
        check_range("generation.length_alpha", self.length_alpha, 0, 10)
        check_range("generation.coverage_penalty", self.coverage_penalty, 0, 1000)
        check_range("generation.min_length", self.min_length, 0)
        check_range("generation.max_length_ratio", self.max_length_ratio, above=0, high=1000)
        check_range("generation.no_repeat_ngram", self.no_repeat_ngram, 0)
        check_range("generation.max_new_tokens", self.max_new_tokens, 0)
        check_range("generation.temperature", self.temperature, 0)
        check_rule(
            self.temperature == 0 or self.temperature >= 1e-6,
            f"generation.temperature={self.temperature} is too small to divide by; write 0 for the most "
            "likely token, or at least 1e-6.",
        )
        check_range("generation.top_k", self.top_k, 0)
        check_range("generation.top_p", self.top_p, above=0, high=1)
        check_range("generation.num_samples", self.num_samples, 1)
        check_rule(self.stop != "", "generation.stop is empty; leave it out to never stop early.")
