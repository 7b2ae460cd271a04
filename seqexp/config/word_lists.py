"""Lists of words that `eval` judges word vectors by."""

from dataclasses import dataclass


@dataclass
class WordListsConfig:
    """Files, or folders of files, in place of those that the run names or that are in the usual places."""

    analogies: str | None = None
    similarities: str | None = None
    outliers: str | None = None
