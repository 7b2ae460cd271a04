"""Options of labelled texts (`data/labelled.py`)."""

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import II

from seqexp.config.checks import check_range, check_rule
from seqexp.config.example_files import ExampleFilesConfig


@dataclass
class LabelledConfig(ExampleFilesConfig):
    """Texts with labels, for classification.

    `path` is a file or folder; a missing split is a tenth of the training examples, stratified by label. With
    `label_path` (`val_label_path`, …) line n of one file is the label of line n of the other.

    `format` ``auto`` goes by the name of the file. `text`, `text_pair` and `label` are columns of a table.
    With `multilabel` a text has any number of labels, separated by `label_separator`. `label_until` cuts
    labels before a character (``NUM:date`` is NUM). `pieces` joins SentencePiece pieces to text.

    With `train_examples` the training split is a sample of so many examples, stratified by label and drawn
    from `sample_seed` (by default the run's seed), for learning curves.

    With `class_weights` the training loss of a text is multiplied by N / (C n), where n of the N training
    texts have its label, one of C. Texts are cut after `max_seq_len` tokens. A training batch has texts of
    similar length, which saves padding, or with `similar_lengths` false of any length.
    """

    ADDED: ClassVar = {"similar_lengths": True}
    EXAMPLES: ClassVar = "labelled text"
    FORMATS: ClassVar[tuple[str, ...]] = (
        "auto", "csv", "tsv", "jsonl", "parquet", "folders", "fasttext", "label_first",
    )  # fmt: skip

    label_path: str | None = None
    val_label_path: str | None = None
    test_label_path: str | None = None
    train_label_file: str | None = None
    val_label_file: str | None = None
    test_label_file: str | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    label_names: list[str] = field(default_factory=list)
    multilabel: bool = False
    label_separator: str = ","
    label_until: str | None = None
    pieces: bool = False
    train_examples: int | None = None
    sample_seed: int = II("seed")
    class_weights: bool = False
    similar_lengths: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("data.train_examples", self.train_examples, 2)
        check_rule(
            not (self.class_weights and self.multilabel),
            "data.class_weights is for one label a text, and data.multilabel=true: leave one of them out.",
        )
        check_rule(
            self.similar_lengths or self.batch_tokens is None,
            "data.similar_lengths=false takes a number of texts, data.batch_size, and not data.batch_tokens.",
        )
        for split in ("", "val_", "test_"):
            path, labels = getattr(self, f"{split}path"), getattr(self, f"{split}label_path")
            check_rule(
                labels is None or path is not None,
                f"data.{split}label_path has the labels of the lines of data.{split}path; give both.",
            )


@dataclass
class OwnLabelledConfig(LabelledConfig):
    """The user's own labelled texts; `path` is required."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(
            self.path is not None,
            "no texts were given; write data.path=<a .csv, .tsv, .jsonl or .parquet file, a folder with a "
            "folder of texts for each label, or a file of __label__ lines>.",
        )


@dataclass
class OpinionsConfig(LabelledConfig):
    """Generated opinions, without files."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.path is None, f"data={self.name} needs no file; for your own texts use data=table.")
