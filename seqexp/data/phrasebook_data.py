"""The phrase book as a data set: pairs from a grammar, with no file and no network."""

from dataclasses import replace

from seqexp.config.data import ParallelDataConfig
from seqexp.data.pairs import PairCorpus, make_corpus
from seqexp.data.parallel import ParallelData
from seqexp.data.phrasebook import VERSION, phrasebook


class PhrasebookData(ParallelData):
    """Pairs of sentences that a small grammar generates; the same for every run."""

    @classmethod
    def find_corpus(cls, config: ParallelDataConfig) -> PairCorpus:
        """All pairs of the grammar."""
        origin = f"generated from a small grammar written for this project (version {VERSION})"
        corpus = make_corpus(iter(phrasebook()), origin, [], config.swap)
        return replace(corpus, generated=True)
