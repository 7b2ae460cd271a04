"""Options of masked language modelling (`tasks/masked_language_modeling.py`) and replaced tokens."""

from dataclasses import dataclass
from typing import Any, ClassVar

from seqexp import registry
from seqexp.config.checks import check_choice, check_range, check_rule

UNITS = ("token", "word", "span")


@dataclass
class MaskedLanguageModelingConfig:
    """Predict masked tokens from all others.

    In training, a share `mask_share` of the tokens of each window is chosen, in units of a ``token``, a
    ``word`` or a ``span`` of words. A chosen token is shown as the mask with probability `mask_token_share`,
    as a random token with `random_token_share`, and else as it is. Masks are drawn anew at each step, or
    once for each window if not `dynamic`. Windows hold text of one document, unless `cross_documents`.
    Evaluations always mask 15 % of the tokens.
    """

    READS: ClassVar[tuple[str, ...]] = ("text",)
    ACCEPTS: ClassVar[tuple[str, ...]] = ("masked",)
    GENERATION: ClassVar[tuple[str, ...]] = ("top_k",)
    EXAMS: ClassVar = True
    MASKS: ClassVar = True

    name: str = "masked_language_modeling"
    mask_share: float = 0.15
    mask_token_share: float = 0.8
    random_token_share: float = 0.1
    mask_unit: str = "token"
    dynamic: bool = True
    cross_documents: bool = False

    def __post_init__(self) -> None:
        check_range("task.mask_share", self.mask_share, above=0, high=0.9)
        check_range("task.mask_token_share", self.mask_token_share, 0, 1)
        check_range("task.random_token_share", self.random_token_share, 0, 1)
        check_rule(
            self.mask_token_share + self.random_token_share <= 1 + 1e-9,
            f"task.mask_token_share={self.mask_token_share} and "
            f"task.random_token_share={self.random_token_share} are shares of the chosen tokens; lower one "
            "of them, so that their sum is at most 1.",
        )
        check_choice("task.mask_unit", self.mask_unit, UNITS)

    def check_together(self, config: Any) -> None:
        """Check the settings against those of the tokenizer and the data."""
        check_masks(self.name, config)


@dataclass
class ReplacedTokensConfig:
    """Tell the tokens that a generator fills in from original ones.

    Masks are as in masked language modelling, and always shown as masks. The loss is the generator's, plus
    `weight` times the discriminator's.
    """

    READS: ClassVar[tuple[str, ...]] = ("text",)
    ACCEPTS: ClassVar[tuple[str, ...]] = ("replaced",)
    GENERATION: ClassVar[tuple[str, ...]] = ("top_k",)
    MASKS: ClassVar = True

    name: str = "replaced_tokens"
    mask_share: float = 0.15
    mask_unit: str = "token"
    dynamic: bool = True
    cross_documents: bool = False
    weight: float = 50.0

    def __post_init__(self) -> None:
        check_range("task.mask_share", self.mask_share, above=0, high=0.9)
        check_choice("task.mask_unit", self.mask_unit, UNITS)
        check_range("task.weight", self.weight, above=0, high=10_000)

    def check_together(self, config: Any) -> None:
        """Check the settings against those of the tokenizer and the data."""
        check_masks(self.name, config)


def check_masks(task: str, config: Any) -> None:
    """Check that tokenizer and data go with masked windows of text.

    Raises:
        UserError: the tokenizer has no mask token, or a setting of the data is for other windows.
    """
    fitting = [
        name
        for name in registry.ENTRIES["tokenizer"]
        if hasattr(registry.load_schema("tokenizer", name), "masks")
    ]
    check_rule(
        getattr(config.tokenizer, "masks", False),
        f"task={task} needs a tokenizer with a mask token; use tokenizer={', '.join(fitting)}.",
    )
    for key in ("carry_state", "boundary_share"):
        check_rule(
            not getattr(config.data, key, False),
            f"data.{key}={getattr(config.data, key, None)} is for language models that read from left to "
            f"right, and this is task={task}: leave it out.",
        )
    seq_len = getattr(config.data, "seq_len", 8)
    check_rule(
        seq_len >= 8, f"data.seq_len={seq_len} is too short for task={task}; a window needs 8 tokens or more."
    )
