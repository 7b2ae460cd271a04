"""Options of ELECTRA (`electra.py`)."""

from dataclasses import dataclass
from typing import ClassVar

from seqexp.config.checks import check_range
from seqexp.models.bert_options import BertConfig


@dataclass
class ElectraConfig(BertConfig):
    """A BERT as discriminator, and a generator of `generator_layers` blocks for its pretraining."""

    KIND: ClassVar[str] = "replaced"

    name: str = "electra"
    generator_layers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("model.generator_layers", self.generator_layers, 1, self.n_layer)
