"""Options of the exams of language models: spelling and grammar."""

from dataclasses import dataclass
from typing import ClassVar

from seqexp.config.checks import check_choice, check_range, check_rule

EXAMS = ("spelling", "grammar")


@dataclass
class ExamsConfig:
    """The exams to run: ``none``, ``all``, ``spelling`` or ``grammar``.

    Pairs are read from `path`, or made from the run's corpus with up to `nonwords` for each word. An exam has
    at most `pairs` pairs (null: all, or 500 at the validations of a training run). For masked language models
    `within_word` masks the later tokens of a word with each of its tokens.
    """

    ADDED: ClassVar = {"within_word": False}

    name: str = "none"
    path: str | None = None
    pairs: int | None = None
    nonwords: int = 4
    within_word: bool = False

    def __post_init__(self) -> None:
        check_choice("exams.name", self.name, ("none", "all", *EXAMS))
        check_rule(
            self.path is None or self.name != "none",
            f"exams.path={self.path} needs exams=all, exams=spelling or exams=grammar.",
        )
        check_range("exams.pairs", self.pairs, 1)
        check_range("exams.nonwords", self.nonwords, 1, 20)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the exams to run."""
        return {"none": (), "all": EXAMS}.get(self.name, (self.name,))
