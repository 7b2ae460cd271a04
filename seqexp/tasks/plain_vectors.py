"""Updates of word vectors by PyTorch, on any device: what `compiled_vectors` does faster."""

from typing import Any

import torch

from seqexp.data.batch import Batch
from seqexp.tasks.base import Task, device_of

# Examples of a step: at most so many, and a fraction of the words of the vocabulary. A word that many of them
# move by word2vec's rate would leap.
PIECE, PIECE_FRACTION = 256, 20


class PlainUpdates:
    """Gradient descent by PyTorch, a piece of examples at a time, whose gradients are summed, not averaged.

    The learning rate is that of one example. With one example a piece this is the definition of what
    `CompiledUpdates` does; larger pieces are faster, and examples of a piece do not see each other's updates.
    """

    repeats = True

    def __init__(self, model: Any, task: Task, piece: int | None = None) -> None:
        self.model, self.task = model, task
        self.piece = piece or max(1, min(PIECE, len(model.words) // PIECE_FRACTION))
        self.about = f"PyTorch, {self.piece} examples at a time"
        for layer in (model.embedding, model.output):
            layer.sparse = True  # the gradient of the rows that are read, and no others

    def __call__(self, batch: Batch, rate: float) -> tuple[float, int]:
        device = device_of(self.model)
        total = torch.zeros((), dtype=torch.float64, device=device)
        for first in range(0, len(batch), self.piece):
            rows = batch.rows(first, first + self.piece).to(device)
            output = self.task.loss(self.model, rows, training=True)
            output.loss_sum.backward()
            total += output.nll_sum
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.add_(parameter.grad, alpha=-rate)
                    parameter.grad = None
        return float(total), batch.count


class PlainAdaGrad:
    """AdaGrad by PyTorch on a piece of pairs at a time, whose gradients are summed; as `PlainUpdates` else.

    The optimizer of the training makes the steps, so that its state is that of the run.
    """

    repeats = True

    def __init__(self, model: Any, task: Task, optimizers: Any, piece: int | None = None) -> None:
        self.model, self.task, self.optimizers = model, task, optimizers
        self.piece = piece or max(1, min(PIECE, len(model.words) // PIECE_FRACTION))
        self.about = f"PyTorch, {self.piece} pairs at a time"
        for layer in (model.embedding, model.context, model.bias, model.context_bias):
            layer.sparse = True

    def __call__(self, batch: Batch, rate: float) -> tuple[float, int]:
        del rate  # the optimizer has it
        device = device_of(self.model)
        total = torch.zeros((), dtype=torch.float64, device=device)
        (optimizer,) = self.optimizers.parts
        for first in range(0, len(batch), self.piece):
            rows = batch.rows(first, first + self.piece).to(device)
            output = self.task.loss(self.model, rows, training=True)
            output.loss_sum.backward()
            total += output.nll_sum
            optimizer.step()
            optimizer.zero_grad()
        return float(total), batch.count
