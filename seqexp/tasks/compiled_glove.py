"""Updates of GloVe by compiled code: AdaGrad on one pair after the other.

Needs numba (the extra ``embeddings``).
"""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np

from seqexp.tasks.compiled_vectors import Floats, Numbers, compiled


@compiled
def update_pairs(
    embedding: Floats,
    context: Floats,
    bias: Floats,
    context_bias: Floats,
    squares: tuple[Floats, Floats, Floats, Floats],
    words: Numbers,
    contexts: Numbers,
    logs: Floats,
    weights: Floats,
    rate: float,
) -> float:
    """Make a step of AdaGrad on each pair in order; return the summed loss, each before its step.

    Arrays are as in `GloVe`; `squares` are the sums of squared gradients of each. The loss is that of
    `CooccurrenceEmbeddings`.
    """
    embedding_squares, context_squares, bias_squares, context_bias_squares = squares
    dim = embedding.shape[1]
    step = np.float32(rate)
    loss = 0.0
    for r in range(len(words)):
        i, j = words[r], contexts[r]
        error: Any = bias[i, 0] + context_bias[j, 0] - logs[r]
        for d in range(dim):
            error += embedding[i, d] * context[j, d]
        slope = weights[r] * error
        loss += 0.5 * float(slope * error)
        for d in range(dim):
            to_word, to_context = slope * context[j, d], slope * embedding[i, d]
            embedding_squares[i, d] += to_word * to_word
            context_squares[j, d] += to_context * to_context
            embedding[i, d] -= step * to_word / math.sqrt(embedding_squares[i, d])
            context[j, d] -= step * to_context / math.sqrt(context_squares[j, d])
        bias_squares[i, 0] += slope * slope
        context_bias_squares[j, 0] += slope * slope
        bias[i, 0] -= step * slope / math.sqrt(bias_squares[i, 0])
        context_bias[j, 0] -= step * slope / math.sqrt(context_bias_squares[j, 0])
    return loss


class CompiledAdaGrad:
    """Update a `GloVe` and the state of its optimizer in place, pair by pair.

    With several `workers`, threads work through parts of a batch at once and write without locks.
    """

    def __init__(self, model: Any, optimizers: Any, workers: int) -> None:
        self.model, self.optimizers, self.workers = model, optimizers, workers
        self.about = f"compiled by numba {numba.__version__}, {workers} thread{'s' if workers > 1 else ''}"
        self.repeats = workers == 1
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None

    def __call__(self, batch: Any, rate: float) -> tuple[float, int]:
        """Update by a batch of `data.cooccurrence_data`; return a summed loss, and of how many pairs."""
        model = self.model
        tables = [layer.weight for layer in (model.embedding, model.context, model.bias, model.context_bias)]
        (optimizer,) = self.optimizers.parts
        squares = tuple(optimizer.state[table]["sum"].numpy() for table in tables)
        weights = [table.detach().numpy() for table in tables]
        pairs = [batch.tensors[name].numpy() for name in ("words", "contexts", "logs", "weights")]

        def update(part: slice) -> float:
            return float(update_pairs(*weights, squares, *(array[part] for array in pairs), rate))

        if self._pool is None:
            return update(slice(None, None, 1)), len(batch)
        ends = np.linspace(0, len(batch), self.workers + 1).astype(int)
        parts = [slice(first, last) for first, last in itertools.pairwise(ends)]
        return sum(self._pool.map(update, parts)), len(batch)
