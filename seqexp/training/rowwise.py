"""Updates of embeddings that touch only the rows of the batch.

A batch reads a few hundred of the tens of thousands of rows of an embedding. Its gradient is zero elsewhere,
but computing it in full, its norm, and the step of an optimizer over all rows take most of a step of a small
model. With sparse gradients (rows, and the gradients of these rows) each of these costs what the batch costs.

The difference is in the rows that the batch does not read: they stay as they are, with their momentum and
second moment, and weight decay does not shrink them, whereas the usual step decays these and moves the rows
along their momentum. Adam's bias correction counts the steps of the run for all rows. (TensorFlow calls this
LazyAdam; `torch.optim.SparseAdam` does the same without weight decay.)
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqexp.errors import UserError


class RowWise(torch.optim.Optimizer):
    """Makes an optimizer whose step is elementwise step on the rows of sparse gradients alone.

    In the step a small table, which has only these rows of weights and state, takes the place of the table.
    The state is that of the whole table, so checkpoints do not depend on `optimizer.sparse_embeddings`.
    """

    def step(self, closure: Any = None) -> Any:
        replaced = []
        for group in self.param_groups:
            for place, table in enumerate(group["params"]):
                if table.grad is not None and table.grad.is_sparse:
                    gradient = table.grad.coalesce()
                    small = self._rows_of(table, gradient.indices()[0])
                    small.grad = gradient.values()
                    group["params"][place] = small
                    replaced.append((group["params"], place, table, small, gradient.indices()[0]))
        result = super().step(closure)
        for parameters, place, table, small, rows in replaced:
            self._put_back(table, small, rows)
            parameters[place] = table
        return result

    def _rows_of(self, table: Tensor, rows: Tensor) -> Tensor:
        """Return a parameter with these rows of a table, and with their state."""
        small = nn.Parameter(table.detach().index_select(0, rows))
        state = self.state.get(table, {})
        self.state[small] = {
            key: value.index_select(0, rows) if _same_shape(value, table) else value
            for key, value in state.items()
        }
        return small

    def _put_back(self, table: Tensor, small: Tensor, rows: Tensor) -> None:
        """Write the rows of a table and their state; state that is new is zero elsewhere."""
        table.detach().index_copy_(0, rows, small.detach())
        state = self.state[table]
        for key, value in self.state.pop(small).items():
            if _same_shape(value, small):
                if state.get(key) is None:
                    state[key] = torch.zeros_like(table)
                state[key].index_copy_(0, rows, value)
            else:
                state[key] = value


def _same_shape(value: Any, table: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == table.shape


class AdamW(RowWise, torch.optim.AdamW):
    """torch's AdamW."""


class Adam(RowWise, torch.optim.Adam):
    """torch's Adam."""


class SGD(RowWise, torch.optim.SGD):
    """torch's SGD, which steps on sparse gradients itself if it has neither momentum nor weight decay."""

    def step(self, closure: Any = None) -> Any:
        plain = not any(group["momentum"] or group["weight_decay"] for group in self.param_groups)
        return torch.optim.SGD.step(self, closure) if plain else super().step(closure)


class AdaGrad(RowWise, torch.optim.Adagrad):
    """torch's AdaGrad."""


class RMSprop(RowWise, torch.optim.RMSprop):
    """torch's RMSprop."""


def use_sparse_gradients(model: nn.Module, choice: str, parts: Sequence[torch.optim.Optimizer]) -> list[str]:
    """Let embeddings have sparse gradients; return the names of their weights.

    Args:
        choice: ``true``, ``false``, or ``auto``, which is the model's attribute `sparse_embeddings`.
        parts: the optimizers of the model.

    Embeddings that another module shares, such as a tied output layer, or that an optimizer without `RowWise`
    updates, keep their usual gradients.

    Raises:
        UserError: `choice` is ``true``, and no embedding can have sparse gradients.
    """
    row_wise = {
        id(parameter)
        for part in parts
        if isinstance(part, RowWise)
        for group in part.param_groups
        for parameter in group["params"]
    }
    uses = Counter(id(one) for module in model.modules() for one in module.parameters(recurse=False))
    tables = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
    }
    wanted = choice == "true" or (choice == "auto" and getattr(model, "sparse_embeddings", False))
    for table in tables.values():
        table.sparse = wanted and id(table.weight) in row_wise and uses[id(table.weight)] == 1
    found = [name for name, table in tables.items() if table.sparse]
    if choice == "true" and not found:
        raise UserError(
            "optimizer.sparse_embeddings=true needs an embedding that is trained and not tied to the output "
            f"layer; the model has {', '.join(tables) or 'no embedding'}. Leave it at auto."
        )
    return found


def clip(found: list[Tensor], most: float, norm: Tensor) -> None:
    """Scale gradients in place so that their `norm` is at most `most`, as `clip_grads_with_norm_` does."""
    scale = (most / (norm + 1e-6)).clamp(max=1.0)
    if norm.is_cpu and scale == 1:  # elsewhere the question would wait for the device
        return
    torch._foreach_mul_(found, scale)


def gradients(model: nn.Module) -> list[Tensor]:
    """Return the gradients of a model; of sparse ones, the gradients of the rows, each row once.

    Their norm is the norm of the gradients in full.
    """
    found = []
    for parameter in model.parameters():
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = _coalesced(parameter.grad)
            found.append(parameter.grad.values())
        else:
            found.append(parameter.grad)
    return found


def _coalesced(gradient: Tensor) -> Tensor:
    """Add up rows that repeat; autograd does not pass on that a gradient has none."""
    if gradient.is_coalesced():
        return gradient
    rows = gradient._indices()[0]
    if gradient.is_cpu and bool((rows[1:] > rows[:-1]).all()):
        return torch.sparse_coo_tensor(
            gradient._indices(), gradient._values(), gradient.shape, is_coalesced=True, check_invariants=False
        )
    return gradient.coalesce()
