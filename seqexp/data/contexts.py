"""Running text as examples for word vectors: each word, the words around it, and words that are not there."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seqexp.data.batch import Batch
from seqexp.data.huffman import huffman_paths
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.text import TextData
from seqexp.data.word_data import TABLE, Vocabulary, WordData

Tokens = npt.NDArray[np.int64]

# Seeds of the draws for held-out splits, which are the same in every run.
HELD_OUT = 0x5EED


class ContextData(WordData):
    """The examples of `text` that a model with `options` (`Word2VecConfig`) reads.

    A batch holds the words of ``data.batch_size`` passages of ``data.seq_len`` words; contexts end where a
    passage or a document ends. Its tensors are `contexts` (R, C) and `outputs` (R, O), filled up with -1, and
    `labels` (R, O): 1 for the word itself, 0 for the others. With ``model.loss=hierarchical`` outputs are the
    inner nodes above the word in a Huffman tree, and labels say which child of each it is under.
    """

    def __init__(self, text: TextData, options: Any, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(text, options, preprocessor)
        self.validated_on = f"contexts of {options.window} words"
        vocabulary = Vocabulary(self.counts)
        self._keep, self._table = vocabulary.keep(options.sample), vocabulary.table(options.exponent)
        self._paths = huffman_paths(self.counts) if options.loss == "hierarchical" else None
        near = np.arange(1, options.window + 1)
        self._offsets = np.concatenate([-near[::-1], near])

    @property
    def steps_per_epoch(self) -> float:
        return self.text.steps_per_epoch

    def train_batch(self, step: int) -> Batch:
        draw = np.random.Generator(np.random.SFC64([self.seed, step]))
        return self.batch(self.text.train_batch(step).inputs.numpy(), draw)

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """The whole split once, in order, with the same draws each time."""
        for number, windows in enumerate(self.text.eval_batches(split)):
            # Padding after the end of the split is no word.
            tokens = windows.inputs.numpy().copy()
            tokens[np.arange(tokens.shape[1]) >= windows.lengths["targets"].numpy()[:, None]] = -1
            yield self.batch(tokens, np.random.Generator(np.random.SFC64([HELD_OUT, number])))

    def batch(self, tokens: Tokens, draw: np.random.Generator) -> Batch:
        """Return the examples of passages (B, T) of tokens; negative tokens are padding."""
        words, passage = self._thinned(tokens, draw)
        n, reach = len(words), self.options.window
        near = draw.integers(1, reach + 1, n, dtype=np.int32)
        outputs, labels = self._outputs(words, draw)
        # Beyond both ends: passages that no word is in.
        padded = np.pad(words, reach, constant_values=-1)
        around = np.pad(passage, reach, constant_values=-1)
        positions = np.arange(reach, n + reach)[:, None] + self._offsets
        inside = (np.abs(self._offsets) <= near[:, None]) & (around[positions] == passage[:, None])
        contexts = np.where(inside, padded[positions], -1)
        return self._of(contexts, outputs, labels, tokens.size)

    def _outputs(self, words: npt.NDArray[np.int32], draw: np.random.Generator) -> tuple[Any, Any]:
        """Return the outputs and labels (n, O) of words (n,)."""
        if self._paths is not None:
            nodes, children = self._paths
            return nodes[words], children[words]
        others = draw.integers(0, TABLE, (len(words), self.options.negative), dtype=np.int32)
        negatives = self._table[others]
        rest = np.where(negatives == words[:, None], -1, negatives)
        outputs = np.concatenate([words[:, None], rest], axis=1)
        labels = np.zeros(outputs.shape, dtype=np.float32)
        labels[:, 0] = 1
        return outputs, labels

    def _thinned(self, tokens: Tokens, draw: np.random.Generator) -> tuple[npt.NDArray[np.int32], Any]:
        """Return the words that stay in the text, (n,), and the number of the passage of each."""
        flat = tokens.ravel()
        kept = draw.random(len(flat), dtype=np.float32) < self._keep[flat]
        kept &= flat >= 0
        # A passage ends where a document ends.
        begins = flat == self.text.tokenizer.bos_id
        begins[:: tokens.shape[1]] = True
        return flat[kept].astype(np.int32), np.cumsum(begins)[kept]

    def _of(self, contexts: Any, outputs: Any, labels: Any, read: int) -> Batch:
        size = (contexts >= 0).sum(axis=1)
        some = size > 0
        contexts, outputs, labels, size = contexts[some], outputs[some], labels[some], size[some]
        counts = size if self.options.architecture == "skipgram" else np.ones_like(size)
        tensors = {"contexts": contexts, "outputs": outputs, "labels": labels}
        return Batch(
            {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()},
            counts.astype(np.int64),
            tokens_read=read,
        )
