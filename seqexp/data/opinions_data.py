"""The opinions as a data set: labelled texts from a grammar, with no file and no network."""

from seqexp.config.labelled import LabelledConfig
from seqexp.data.labelled import LabelledCorpus, with_all_splits
from seqexp.data.labelled_data import LabelledData
from seqexp.data.opinions import VERSION, opinions


class OpinionsData(LabelledData):
    """Short reviews that a small grammar generates; the same for every run."""

    @classmethod
    def find_corpus(cls, config: LabelledConfig) -> LabelledCorpus:
        """All opinions, a tenth of them for validation and a tenth for the test."""
        del config
        origin = f"generated from a small grammar written for this project (version {VERSION})"
        return LabelledCorpus(with_all_splits({"train": opinions()}), origin, generated=True)
