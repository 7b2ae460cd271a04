"""Updates of word vectors by compiled code: the same as gradient descent on one example after the other.

Needs numba (the extra ``embeddings``), which is imported here and nowhere else.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int32]

# The loss of one example in so many is measured: its logarithm costs as much as the update.
MEASURED = 8


# Sums may be reordered, which makes them fast; infinite numbers and NaN stay what they are.
FAST_MATH = {"reassoc", "contract", "nsz", "arcp", "afn"}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function; keep the machine code beside the file, or in the user's cache."""
    return numba.njit(fastmath=FAST_MATH, nogil=True, cache=True, boundscheck=False)(function)


@compiled
def update_rows(
    embedding: Floats,
    output: Floats,
    ends: Numbers,
    rows: Numbers,
    contexts: Numbers,
    outputs: Numbers,
    labels: Floats,
    rate: float,
    cbow: bool,
) -> tuple[float, int]:
    """Make a step of gradient descent on each example in order; return a summed loss, and of how many pairs.

    All arrays are as in `Word2Vec`; the step minimises the sum of the loss of an example's pairs. The vector
    of word w is the mean of ``embedding[rows[ends[w]:ends[w + 1]]]``, each of which is moved by the gradient
    of the mean; where `rows` is empty, it is ``embedding[w]``.
    """
    n, width = contexts.shape
    dim = embedding.shape[1]
    hidden = np.zeros((width, dim), np.float32)
    moves = np.zeros((width, dim), np.float32)  # of the hidden vectors
    pushes = np.zeros((outputs.shape[1], dim), np.float32)  # of the outputs
    subwords = len(rows) > 0
    step = np.float32(rate)
    one = np.float32(1)
    loss, pairs = 0.0, 0
    for r in range(n):
        # The hidden vectors
        count = 0
        hidden[0] = 0
        for c in range(width):
            word = contexts[r, c]
            if word < 0:
                continue
            h = 0 if cbow else count
            if not cbow:
                hidden[h] = 0
            if subwords:
                first, last = ends[word], ends[word + 1]
                part = one / np.float32(last - first)
                for i in range(first, last):
                    row = rows[i]
                    for d in range(dim):
                        hidden[h, d] += part * embedding[row, d]
            else:
                for d in range(dim):
                    hidden[h, d] += embedding[word, d]
            count += 1
        if count == 0:
            continue
        n_hidden = count
        if cbow:
            n_hidden = 1
            part = one / np.float32(count)
            for d in range(dim):
                hidden[0, d] *= part
        for h in range(n_hidden):
            moves[h] = 0
        # The logits, and what they change
        measured = r % MEASURED == 0
        if measured:
            pairs += n_hidden
        for o in range(outputs.shape[1]):
            target = outputs[r, o]
            if target < 0:
                continue
            label = labels[r, o]
            pushes[o] = 0
            for h in range(n_hidden):
                logit: Any = np.float32(0)
                for d in range(dim):
                    logit += hidden[h, d] * output[target, d]
                if measured:
                    right = float(logit if label > 0.5 else -logit)
                    loss += math.log1p(math.exp(-abs(right))) + max(-right, 0.0)
                change = step * (label - one / (one + np.float32(math.exp(-logit))))
                for d in range(dim):
                    moves[h, d] += change * output[target, d]
                    pushes[o, d] += change * hidden[h, d]
        for o in range(outputs.shape[1]):
            target = outputs[r, o]
            if target >= 0:
                for d in range(dim):
                    output[target, d] += pushes[o, d]
        # Back to the words
        if cbow:
            part = one / np.float32(count)
            for d in range(dim):
                moves[0, d] *= part
        h = 0
        for c in range(width):
            word = contexts[r, c]
            if word < 0:
                continue
            if subwords:
                for i in range(ends[word], ends[word + 1]):
                    row = rows[i]
                    for d in range(dim):
                        embedding[row, d] += moves[h, d]
            else:
                for d in range(dim):
                    embedding[word, d] += moves[h, d]
            if not cbow:
                h += 1
    return loss, pairs


class CompiledUpdates:
    """Update a `Word2Vec` in place, example by example.

    With several `workers`, threads work through parts of a batch at once and write without locks (Niu et al.
    2011): the result depends on their timing.
    """

    def __init__(self, model: Any, workers: int) -> None:
        self.model, self.workers = model, workers
        self.about = f"compiled by numba {numba.__version__}, {workers} thread{'s' if workers > 1 else ''}"
        self.repeats = workers == 1
        ends, rows = model.subwords() if hasattr(model, "subwords") else ([0], [])
        self._ends, self._rows = np.asarray(ends, np.int64), np.asarray(rows, np.int32)
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None

    def __call__(self, batch: Any, rate: float) -> tuple[float, int]:
        """Update by a batch of `data.contexts`; return a summed loss in nats, and of how many pairs."""
        arrays = [batch.tensors[name].numpy() for name in ("contexts", "outputs", "labels")]
        if self._pool is None:
            return self._update(arrays, rate)
        parts = [[array[i :: self.workers] for array in arrays] for i in range(self.workers)]
        found = list(self._pool.map(lambda part: self._update(part, rate), parts))
        return sum(loss for loss, _ in found), sum(pairs for _, pairs in found)

    def _update(self, arrays: list[Any], rate: float) -> tuple[float, int]:
        embedding, output = (
            layer.weight.detach().numpy() for layer in (self.model.embedding, self.model.output)
        )
        contexts, outputs, labels = (np.ascontiguousarray(array) for array in arrays)
        cbow = self.model.architecture == "cbow"
        loss, pairs = update_rows(
            embedding, output, self._ends, self._rows, contexts, outputs, labels, rate, cbow
        )
        return float(loss), int(pairs)
