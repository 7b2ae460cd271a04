"""Fast forms of the equations in `cells.py`; tests check that both agree.

On a CPU torch's own RNN and GRU spend their time on the overhead of many tiny operations. Here the products
with the inputs are one matrix product for all steps, a step has as few operations as possible, and the loop
of the backward pass contains only terms that depend on the next step (docs/speed.md has the measurements).

Axes: B batch, T time, D inputs, H hidden, G = gates * H. Weights are torch's: W_ih (G, D), W_hh (G, H).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from seqexp.models.cells import State


def use_fused(impl: str) -> bool:
    """Whether to run the fused form: with impl=fused, except in an export.

    `torch.export` cannot trace custom backward passes or packed sentences. It traces the equations of
    `cells.py` instead, step by step.
    """
    return impl == "fused" and not torch.compiler.is_exporting()


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of matrix products: autocast's if it is on, else the dtype of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def in_full(x: Tensor) -> Tensor:
    """Return x in fp32 or higher precision, in which states are kept."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def fused_step(cell: str, x_gates: Tensor, h_gates: Tensor, state: State) -> State:
    """Return the state after one step of `rnn`, `gru` or `lstm`, given its products with biases.

    x_gates is X_t W_ih^T + b_ih and h_gates is H_{t-1} W_hh^T + b_hh, (B, G) each.
    """
    if cell == "gru":
        H = state[0].shape[1]
        (x_rz, x_n), (h_rz, h_n) = x_gates.split((2 * H, H), dim=1), h_gates.split((2 * H, H), dim=1)
        r, z = (x_rz + h_rz).sigmoid().chunk(2, dim=1)
        return (torch.lerp(torch.addcmul(x_n, r, h_n).tanh(), state[0], z),)
    gates = x_gates + h_gates
    if cell == "rnn":
        return (gates.tanh(),)
    i, f, g, o = gates.chunk(4, dim=1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _time_first(x: Tensor) -> Tensor:
    """(B, T, D) to (T * B, D)."""
    return x.transpose(0, 1).reshape(-1, x.shape[2])


def _product(b: Tensor, x: Tensor, W: Tensor, dtype: torch.dtype) -> Tensor:
    """b + x W: the product in `dtype`, the result in the dtype of x."""
    if dtype == x.dtype:
        return torch.addmm(b, x, W)
    return b + x.to(dtype) @ W.to(dtype)


def _batch_first(x: Tensor, T: int) -> Tensor:
    """(T * B, D) to (B, T, D)."""
    return x.view(T, -1, x.shape[1]).transpose(0, 1)


class VanillaRecurrence(Function):
    """x (B, T, D) and h0 (B, H) to all H_t (B, T, H)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h0: Tensor, W_ih: Tensor, W_hh: Tensor, b: Tensor, activation: str
    ) -> Tensor:
        B, T, _ = x.shape
        apply = {"tanh": torch.tanh_, "relu": torch.relu_, "sigmoid": torch.sigmoid_}[activation]
        inputs = torch.addmm(b, _time_first(x), W_ih.t()).view(T, B, -1).unbind()
        hidden = x.new_empty(T + 1, B, W_hh.shape[1])
        hidden[0] = h0
        steps, W = hidden.unbind(), W_hh.t()
        for t in range(T):
            apply(torch.addmm(inputs[t], steps[t], W, out=steps[t + 1]))
        ctx.save_for_backward(x, hidden, W_ih, W_hh)
        ctx.activation = activation
        return hidden[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, hidden, W_ih, W_hh = ctx.saved_tensors
        T, B, H = len(hidden) - 1, hidden.shape[1], hidden.shape[2]
        h = hidden[1:]
        slope = {"tanh": 1 - h * h, "relu": (h > 0).to(h.dtype), "sigmoid": h * (1 - h)}[ctx.activation]
        slopes, grads = slope.unbind(), grad.transpose(0, 1).unbind()
        dz = torch.empty_like(slope)  # with respect to what the activation was applied to
        dzs = dz.unbind()
        dh = grads[-1]
        for t in range(T - 1, 0, -1):
            torch.mul(dh, slopes[t], out=dzs[t])
            dh = torch.addmm(grads[t - 1], dzs[t], W_hh)
        torch.mul(dh, slopes[0], out=dzs[0])
        flat = dz.view(T * B, H)
        return (
            _batch_first(flat @ W_ih, T) if ctx.needs_input_grad[0] else None,
            dzs[0] @ W_hh if ctx.needs_input_grad[1] else None,
            flat.t() @ _time_first(x),
            flat.t() @ hidden[:-1].view(T * B, H),
            flat.sum(0),
            None,
        )


class GRURecurrence(Function):
    """x (B, T, D) and h0 (B, H) to all H_t (B, T, H); names as in `cells.gru_cell`.

    Matrix products are computed in `dtype`; states, gates and sums stay in the precision of x.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h0: Tensor, W_ih: Tensor, W_hh: Tensor, b_ih: Tensor, b_hh: Tensor,
        dtype: torch.dtype | None = None,
    ) -> Tensor:  # fmt: skip
        B, T, _ = x.shape
        H = W_hh.shape[1]
        dtype = dtype or x.dtype
        mixed = dtype != x.dtype
        inputs = _product(b_ih, _time_first(x), W_ih.t(), dtype).view(T, B, 3 * H)
        hidden, candidate = x.new_empty(T + 1, B, H), x.new_empty(T, B, H)
        gates, products = x.new_empty(T, B, 2 * H), x.new_empty(T, B, 3 * H)
        hidden[0] = h0
        x_rz, x_n = inputs[..., : 2 * H].unbind(), inputs[..., 2 * H :].unbind()
        h_rz, h_n = products[..., : 2 * H].unbind(), products[..., 2 * H :].unbind()
        r, z = gates[..., :H].unbind(), gates[..., H:].unbind()
        steps, outs, rz, n = hidden.unbind(), products.unbind(), gates.unbind(), candidate.unbind()
        W = W_hh.t().to(dtype)
        for t in range(T):
            if mixed:
                torch.add(b_hh, steps[t].to(dtype) @ W, out=outs[t])
            else:
                torch.addmm(b_hh, steps[t], W, out=outs[t])
            torch.add(x_rz[t], h_rz[t], out=rz[t]).sigmoid_()
            torch.addcmul(x_n[t], r[t], h_n[t], out=n[t]).tanh_()
            torch.lerp(n[t], steps[t], z[t], out=steps[t + 1])
        ctx.save_for_backward(x, hidden, candidate, gates, products, W_ih, W_hh)
        ctx.dtype = dtype
        return hidden[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, hidden, n, gates, products, W_ih, W_hh = ctx.saved_tensors
        T, B, H = n.shape
        r, z = gates[..., :H], gates[..., H:]
        # Times dh, these factors are the gradients of the products H W_hh + b_h, for all steps.
        factors = x.new_empty(T, B, 3, H)
        to_n = (1 - z) * (1 - n * n)
        factors[:, :, 0] = to_n * products[..., 2 * H :] * r * (1 - r)
        factors[:, :, 1] = (hidden[:-1] - n) * z * (1 - z)
        factors[:, :, 2] = to_n * r
        dp, dh_all = torch.empty_like(factors), torch.empty_like(n)
        per_step, outs, dhs = factors.unbind(), dp.unbind(), dh_all.unbind()
        flat_outs = dp.view(T, B, 3 * H).unbind()
        keep, grads = z.unbind(), grad.transpose(0, 1).unbind()
        W, dtype = W_hh.to(ctx.dtype), ctx.dtype
        mixed = dtype != x.dtype
        dhs[-1].copy_(grads[-1])
        for t in range(T - 1, 0, -1):
            torch.mul(dhs[t].unsqueeze(1), per_step[t], out=outs[t])
            if mixed:
                torch.add(grads[t - 1], flat_outs[t].to(dtype) @ W, out=dhs[t - 1])
            else:
                torch.addmm(grads[t - 1], flat_outs[t], W, out=dhs[t - 1])
            dhs[t - 1].addcmul_(dhs[t], keep[t])
        torch.mul(dhs[0].unsqueeze(1), per_step[0], out=outs[0])
        dh0 = (flat_outs[0] @ W_hh).addcmul_(dhs[0], keep[0])
        flat = dp.view(T * B, 3 * H)
        dx = flat.clone().view(T, B, 3, H)  # the inputs' products differ only in the candidate
        torch.mul(dh_all, to_n, out=dx[:, :, 2])
        flat_x = dx.view(T * B, 3 * H)
        db_ih, db_hh = flat_x.sum(0), flat.sum(0)
        flat, flat_x = flat.to(dtype), flat_x.to(dtype)
        return (
            _batch_first(flat_x @ W_ih.to(dtype), T).to(x.dtype) if ctx.needs_input_grad[0] else None,
            dh0,
            (flat_x.t() @ _time_first(x).to(dtype)).to(W_ih.dtype),
            (flat.t() @ hidden[:-1].reshape(T * B, H).to(dtype)).to(W_hh.dtype),
            db_ih,
            db_hh,
            None,
        )
