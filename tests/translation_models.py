"""Small translation models with random weights, and what their tests share."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqexp.models.nmt import NMT
from seqexp.models.transformer import Transformer

CELLS = ("rnn", "gru", "lstm")
ATTENTIONS = ("dot", "general", "concat", "bahdanau", "local_p", "none")
POSITIONS = ("learned", "sinusoidal", "rotary")
SOURCE_V, TARGET_V = 11, 9
SIZES: dict[str, Any] = {"source_vocab_size": SOURCE_V, "target_vocab_size": TARGET_V}
LENGTHS, TARGET_LENGTHS = (6, 1, 4), (5, 7, 2)


def wild(model: nn.Module, dtype: torch.dtype = torch.float64) -> Any:
    """Random weights, biases too, large enough that nothing is lost in zeros; dropout is off."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            std = 0.35 if parameter.ndim == 2 else 0.2
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=std)
    return model.to(dtype).eval()


def make_nmt(dtype: torch.dtype = torch.float64, seed: int = 2, **options: Any) -> NMT:
    torch.manual_seed(seed)
    options = {
        "n_embd": 6, "hidden_size": 6, "n_layer": 2, "attention_size": 5, "window": 2,
        "bidirectional": options.get("attention") != "dot", **options,
    }  # fmt: skip
    return wild(NMT(**SIZES | options), dtype)


def make_transformer(dtype: torch.dtype = torch.float64, **options: Any) -> Transformer:
    torch.manual_seed(2)
    options = {"n_layer": 2, "n_head": 2, "n_embd": 8, "ffn_size": 12, "dropout": 0.0, **options}
    options = {"tie_embeddings": False, "max_len": 4, **options}
    return wild(Transformer(**SIZES | options), dtype)


RECURRENT = [
    {"attention": attention, "input_feeding": feeding, "cell": cell}
    for attention in ATTENTIONS
    for feeding in (True, False)
    for cell in CELLS
    if not (attention == "none" and feeding)
]
ATTENTIVE = [{"norm": norm, "positions": positions} for norm in ("pre", "post") for positions in POSITIONS]
every_nmt = pytest.mark.parametrize("options", RECURRENT, ids=lambda o: "-".join(map(str, o.values())))
every_model = pytest.mark.parametrize(
    "options", RECURRENT + ATTENTIVE, ids=lambda o: "-".join(map(str, o.values()))
)


def make(options: dict[str, Any], dtype: torch.dtype = torch.float64) -> Any:
    return (make_nmt if "cell" in options else make_transformer)(dtype, **options)


def random_tokens(vocab_size: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def sentences() -> tuple[Tensor, Tensor, Tensor]:
    """Sources (3, 6) of different lengths with garbage after them, and seven target tokens for each."""
    return random_tokens(SOURCE_V, 3, 6), torch.tensor(LENGTHS), random_tokens(TARGET_V, 3, 7, seed=2)


def close(ours: Any, theirs: Any, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def gradients(loss: Tensor, model: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
