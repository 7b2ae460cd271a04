"""Word embeddings from co-occurrences: the task of GloVe."""

from typing import Any

from seqexp.data.base import Data
from seqexp.data.batch import Batch
from seqexp.data.cooccurrence_data import CooccurrenceData
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.text import TextData
from seqexp.tasks.base import Forward, LossOutput
from seqexp.tasks.plain_vectors import PlainAdaGrad
from seqexp.tasks.word_embeddings import WordEmbeddings, compiled_or_plain


class CooccurrenceEmbeddings(WordEmbeddings):
    """The task of models that estimate logarithms of co-occurrences (`GloVe`)."""

    loss_unit = "weighted squared error per pair"

    def prepare(self, data: Data, model: Any, preprocessor: Preprocessor | None = None) -> Data:
        assert isinstance(data, TextData)
        return CooccurrenceData(data, model, preprocessor)

    def updater(self, model: Any, config: Any, optimizers: Any = None) -> Any:
        """Return updates by one pair after the other, compiled if possible; None for other optimizers."""

        def compiled() -> Any:
            from seqexp.tasks.compiled_glove import CompiledAdaGrad

            return CompiledAdaGrad(model, optimizers, config.model.workers)

        return compiled_or_plain(model, config, compiled, lambda: PlainAdaGrad(model, self, optimizers))

    def loss(self, model: Forward, batch: Batch, *, training: bool = False) -> LossOutput:
        """Return f(X) (w · c + b + d - log X)² / 2, summed over pairs (eq. 8; the half is the authors')."""
        errors = model(batch.words, batch.contexts).float() - batch.logs
        loss = (batch.weights * errors.square()).sum() / 2
        return LossOutput(loss, loss.detach())
