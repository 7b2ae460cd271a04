"""Options of the tasks: the loss, the data that a task reads, and the models that it accepts.

A task's dataclass declares, as class variables, `READS` (the kinds of examples: ``text``, ``pairs``,
``bits``, …), `ACCEPTS` (the kinds of models: ``causal``, ``encoder_decoder``, …), `GENERATION` (the settings
of generation that have an effect), `EXAMS` (whether its models can take exams), `MASKS` (whether it needs a
mask token), and `MONITOR` (the default of
`trainer.monitor`, if it is not ``val/loss``). A plugin may use kinds of its own.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from seqexp.config.checks import check_choice, check_range, check_rule

# Tokenizers of sacreBLEU; auto goes by the script of the references.
BLEU_TOKENIZERS = (
    "auto", "13a", "zh", "ja-mecab", "ko-mecab", "char", "intl", "flores101", "flores200", "spBLEU-1K",
    "none",
)  # fmt: skip


@dataclass
class LanguageModelingConfig:
    """Predict the next token; `label_smoothing` affects only the training loss."""

    READS: ClassVar[tuple[str, ...]] = ("text",)
    ACCEPTS: ClassVar[tuple[str, ...]] = ("causal",)
    GENERATION: ClassVar[tuple[str, ...]] = (
        "max_new_tokens",
        "temperature",
        "top_k",
        "top_p",
        "num_samples",
        "stop",
    )
    EXAMS: ClassVar = True

    name: str = "language_modeling"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_range("task.label_smoothing", self.label_smoothing, 0, below=1)

    def check_together(self, config: Any) -> None:
        """Check that the tokens of the text are all of it."""
        check_rule(
            not getattr(config.tokenizer, "LOSSY", False),
            f"tokenizer={config.tokenizer.name} leaves out parts of the text, and a language model needs all "
            "of it; use tokenizer=word.",
        )


@dataclass
class TranslationConfig:
    """Generate the target sentence of a source; `label_smoothing` affects only the training loss.

    At validations the validation split is translated greedily for its BLEU, unless `bleu` is false.
    `bleu_tokenize` is sacreBLEU's tokenizer for it; ``auto`` takes one by the script of the references.
    """

    READS: ClassVar[tuple[str, ...]] = ("pairs",)
    ACCEPTS: ClassVar[tuple[str, ...]] = ("encoder_decoder",)
    GENERATION: ClassVar[tuple[str, ...]] = (
        "beam_size", "n_best", "length_penalty", "length_alpha", "coverage_penalty", "min_length",
        "max_length_ratio", "no_repeat_ngram", "replace_unknown",
    )  # fmt: skip
    ADDED: ClassVar[dict[str, Any]] = {"bleu_tokenize": "auto"}

    name: str = "translation"
    label_smoothing: float = 0.0
    bleu: bool = True
    bleu_tokenize: str = "auto"

    def __post_init__(self) -> None:
        check_range("task.label_smoothing", self.label_smoothing, 0, below=1)
        check_choice("task.bleu_tokenize", self.bleu_tokenize, BLEU_TOKENIZERS)


@dataclass
class ParityConfig:
    """Predict at each step whether the number of ones so far is odd.

    The loss is computed at every step with `full_supervision`, else only at the last one: `bce` is the binary
    cross-entropy in nats, `mse` the squared error of the probability.
    """

    READS: ClassVar[tuple[str, ...]] = ("bits",)
    ACCEPTS: ClassVar[tuple[str, ...]] = ("causal",)
    GENERATION: ClassVar[tuple[str, ...]] = ("num_samples",)

    name: str = "parity"
    full_supervision: bool = True
    loss: str = "bce"

    def __post_init__(self) -> None:
        check_choice("task.loss", self.loss, ("bce", "mse"))
