"""A linear map used at every step of a loop, with one product for the gradient of all steps."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# (inputs, gradients of outputs) of each use, filled in the backward pass.
Uses = list[tuple[Tensor, Tensor]]


class StepLinear:
    """Map x (R, in) to x W^T (R, out) in `dtype`. Create one for each pass through a loop."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.weight = weight.detach().to(dtype) if torch.is_grad_enabled() else weight.to(dtype)
        self._uses: Uses = []
        # A scalar for the weight in the graph: autograd computes its gradient after those of all uses.
        self._handle = _Handle.apply(weight, self._uses) if torch.is_grad_enabled() else None

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        if self._handle is None:
            return F.linear(x, self.weight)
        y: Tensor = _Use.apply(x, self._handle, self.weight, self._uses)
        return y


class _Handle(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, uses: Uses) -> Tensor:
        ctx.uses, ctx.dtype = uses, weight.dtype
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        del grad
        inputs, outputs = (torch.cat(parts) for parts in zip(*ctx.uses, strict=True))
        ctx.uses.clear()
        return (outputs.t() @ inputs).to(ctx.dtype), None


class _Use(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, handle: Tensor, weight: Tensor, uses: Uses) -> Tensor:
        ctx.save_for_backward(x, handle)
        ctx.weight, ctx.uses = weight, uses
        return x @ weight.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, handle = ctx.saved_tensors
        ctx.uses.append((x, grad))
        return grad @ ctx.weight, torch.zeros_like(handle), None, None
