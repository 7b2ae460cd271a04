"""The layers that models share: attention on all its paths, and positions."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seqexp.models.layers import attention, rotary_angles, sinusoidal_positions


def formula(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Row by row: the softmax over the keys that a query may attend to."""
    y, weights = torch.zeros_like(q), torch.zeros(*q.shape[:3], k.shape[2], dtype=q.dtype)
    for b, h, t in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        keys = allowed.expand(len(q), 1, q.shape[2], -1)[b, 0, t].nonzero().flatten()
        exps = (k[b, h, keys] @ q[b, h, t] / math.sqrt(q.shape[3])).exp()
        weights[b, h, t, keys] = exps / exps.sum()
        y[b, h, t] = weights[b, h, t] @ v[b, h]
    return y, weights


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("want_weights", [False, True])
@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 5), (4, 4), (3, 5)])
@pytest.mark.parametrize("kind", ["causal", "causal mask", "masked", "free"])
def test_attention_is_its_formula(kind: str, T: int, S: int, want_weights: bool, training: bool) -> None:
    """Causal queries are the last T of S tokens; a mask differs from sentence to sentence.

    fp64 pads the lengths as bf16 does.
    """
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, length, 4, dtype=torch.float64) for length in (T, S, S))
    allowed = torch.ones(1, 1, T, S, dtype=torch.bool)
    if kind.startswith("causal"):
        allowed = torch.tensor([[[[s <= S - T + t for s in range(S)] for t in range(T)]]])
    elif kind == "masked":
        allowed = (torch.arange(S) < torch.tensor([S, 1])[:, None])[:, None, None]
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, -math.inf) if "mask" in kind else None
    y, weights = attention(
        q, k, v, mask, causal=kind == "causal", training=training, want_weights=want_weights
    )  # fmt: skip
    expected, expected_weights = formula(q, k, v, allowed)
    torch.testing.assert_close(y, expected)
    assert (weights is not None) == want_weights
    if weights is not None:
        torch.testing.assert_close(weights, expected_weights)


def test_few_shapes_of_products_in_bf16() -> None:
    """oneDNN keeps a primitive a shape, so lengths are rounded up; fp32 has no need of that."""
    from torch.utils._python_dispatch import TorchDispatchMode

    shapes: dict[torch.dtype, set[tuple[int, ...]]] = {torch.bfloat16: set(), torch.float32: set()}

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten.bmm.default:
                shapes[args[0].dtype].add((*args[0].shape, *args[1].shape))
            return function(*args, **(kwargs or {}))

    for dtype in shapes:
        for T, S in itertools.product(range(2, 9), range(9, 17)):
            q, k = (torch.randn(1, 2, n, 4, dtype=dtype, requires_grad=True) for n in (T, S))
            with Products():
                y, _ = attention(q, k, k, training=True)
                y.sum().backward()
            assert y.shape == (1, 2, T, 4)
    assert len(shapes[torch.bfloat16]) <= 6 < len(shapes[torch.float32])


def test_positions_from_a_start_are_rows_of_the_table() -> None:
    """Bit by bit, so that decoding step by step reads what training read."""
    for make in (rotary_angles, sinusoidal_positions):
        table = make(300, 6)
        for start, length in ((0, 1), (1, 7), (17, 240), (299, 1)):
            assert torch.equal(make(length, 6, start), table[start : start + length])
