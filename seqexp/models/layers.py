"""Layers that several models share: attention, dropout, positions, and the rule of a sliding window.

CPU optimisations are in this file, so that the models read as their equations. `docs/speed.md` has the
measurements.

Axes: B batch, H heads, T queries, S keys, d width of a head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    dropout_p: float = 0.0,
    training: bool = False,
    want_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """softmax(Q K^T / sqrt(d) + mask) V (Vaswani et al. 2017, eq. 1), with dropout of the weights.

    Args:
        q, k, v: queries (B, H, T, d), keys and values (B, H, S, d).
        mask: added to the scores; its shape broadcasts to (B, H, T, S).
        causal: the queries are the last T of S tokens, and each attends to itself and the tokens before it.
            `mask` must then be None.
        want_weights: also return the weights before dropout, (B, H, T, S).

    Returns:
        The averages (B, H, T, d), and the weights or None.
    """
    T, S = q.shape[2], k.shape[2]
    dropout_p = dropout_p if training else 0.0
    if not want_weights and not _kernel_is_slow(q, causal, dropout_p, training):
        if causal and T == 1:  # a single query attends to every key
            causal = False
        elif causal and S > T:  # the kernel's own causal mask begins at the first key
            mask, causal = causal_mask(T, S, q.device), False
        elif mask is not None:
            mask = mask.to(q.dtype)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout_p)
        return y, None
    if q.device.type == "cpu" and q.dtype != torch.float32 and not causal and T > 1:
        q, k, v, mask = _round_lengths(q, k, v, mask)
    scale = 1 / math.sqrt(q.shape[3])
    if causal:
        future = q.new_zeros(T, S).masked_fill(~causal_mask(T, S, q.device), -math.inf)
        # mask + Q K^T / sqrt(d) in one pass
        scores = torch.baddbmm(future, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=scale)
        scores = scores.view(*q.shape[:2], T, S)
    else:
        scores = (q * scale) @ k.transpose(2, 3)
        scores = scores if mask is None else scores + mask
    weights = scores.softmax(dim=-1)
    y = dropout(weights, dropout_p, training).to(v.dtype) @ v
    return y[:, :, :T], weights[:, :, :T, :S] if want_weights else None


def _kernel_is_slow(q: Tensor, causal: bool, dropout_p: float, training: bool) -> bool:
    """Whether plain matrix products are faster than PyTorch's attention kernel.

    On a CPU the kernel falls back to slow code for dropout, and its backward pass is slow in bf16: plain
    products train 2 to 5 times as fast there. With a given mask both train at about the same speed in fp32,
    and plain products stay, so that runs repeat bit by bit. The compiler prefers the causal kernel.
    """
    if q.device.type != "cpu":
        return False
    if causal:
        return training and (dropout_p > 0 or q.dtype != torch.float32) and not torch.compiler.is_compiling()
    return training or q.dtype != torch.float32


def _round_lengths(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Pad T and S to multiples of 8; nothing attends to the added keys.

    oneDNN compiles and keeps a primitive for every shape of a product in bf16. Lengths that vary from batch
    to batch would give a hundred times as many pairs (T, S).
    """
    T, S = q.shape[2], k.shape[2]
    more_queries, more_keys = -T % 8, -S % 8
    if more_keys:
        mask = q.new_zeros(1, 1, 1, S) if mask is None else mask
        k, v = (F.pad(x, (0, 0, 0, more_keys)) for x in (k, v))
        mask = F.pad(mask.expand(*mask.shape[:-1], S), (0, more_keys), value=-math.inf)
    if more_queries:
        q = F.pad(q, (0, 0, 0, more_queries))
        if mask is not None and mask.shape[-2] == T:
            mask = F.pad(mask, (0, 0, 0, more_queries))
    return q, k, v, mask


def causal_mask(T: int, S: int, device: torch.device) -> Tensor:
    """Return a mask (T, S): true where query t, of the last T of S tokens, may attend: keys 0 … S - T + t."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(diagonal=S - T)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero each element with probability p and scale the rest (Srivastava et al. 2014).

    On a CPU the mask comes from one random byte per element, which is five times as fast as `F.dropout`
    there; p is rounded to a multiple of 1/256, and the scale follows the rounded p.
    """
    threshold = min(255, round(256 * p))
    if not training or threshold == 0 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p, training)
    bits = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    kept = bits.view(torch.uint8)[: x.numel()].view(x.shape) >= threshold
    return x * kept * (256 / (256 - threshold))


# Positions


def rotary_angles(length: int, width: int, start: int = 0, device: torch.device | None = None) -> Tensor:
    """Return t / 10000^(2i / width), (length, width / 2), for positions t from `start` on and pairs i."""
    # In fp64: fp32 loses the fraction of a turn in large angles. Apple's GPUs have no fp64.
    dtype = torch.float32 if device is not None and device.type == "mps" else torch.float64
    rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=dtype, device=device) / width)
    positions = torch.arange(start, start + length, dtype=dtype, device=device)
    return (positions[:, None] * rates).float()


def sinusoidal_positions(
    length: int, width: int, start: int = 0, device: torch.device | None = None
) -> Tensor:
    """PE(t, 2i) = sin(t / 10000^(2i / D)), PE(t, 2i+1) = cos(same) (Vaswani et al. 2017, 3.5).

    Returns (length, D) for positions t = start … start + length - 1, where D = width.
    """
    angles = rotary_angles(length, width, start, device)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (x_i, x_{i + d/2}) of the last axis by its angle (Su et al. 2021, eq. 34).

    x is (B, H, T, d); cos and sin are (T, d / 2).
    """
    first, second = x.chunk(2, dim=-1)
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return rotated.to(x.dtype)


def window_start(n: int, max_len: int) -> int:
    """Return the first position of the window that predicts token n from tokens 0 … n-1.

    A full window keeps its last half, so that the start advances by the other half.
    """
    shift = max_len - max_len // 2
    return 0 if n <= max_len else -(-(n - max_len) // shift) * shift
