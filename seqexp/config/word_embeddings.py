"""Options of the task of word vectors (`tasks/word_embeddings.py`)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from seqexp.config.checks import check_rule


@dataclass
class WordEmbeddingsConfig:
    """Train vectors of words; evaluate them by `analogies` and `similarities`.

    Both are files or folders of files; null: those in the usual places, if there are any. With `baseline`,
    `eval` also evaluates vectors by PPMI and a singular value decomposition of the same text.
    """

    READS: ClassVar[tuple[str, ...]] = ("text",)
    ACCEPTS: ClassVar[tuple[str, ...]] = ("word_vectors",)
    # Other models may begin with the vectors of such a run (`model.vectors=latest`).
    VECTORS: ClassVar[bool] = True
    GENERATION: ClassVar[tuple[str, ...]] = ("neighbours", "max_words", "analogy")

    name: str = "word_embeddings"
    analogies: str | None = None
    similarities: str | None = None
    baseline: bool = True

    def check_together(self, config: Any) -> None:
        """Check the settings of the data that contexts of words leave no choice."""
        for key in ("carry_state", "boundary_share"):
            value = getattr(config.data, key, 0)
            check_rule(not value, f"data.{key}={value} is for language models; leave it out.")


@dataclass
class CooccurrencesConfig(WordEmbeddingsConfig):
    """Train vectors of words by their co-occurrences; evaluate them in the same way."""

    ACCEPTS: ClassVar[tuple[str, ...]] = ("cooccurrence_vectors",)

    name: str = "cooccurrences"
