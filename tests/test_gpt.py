"""The GPT against independent truth: finite differences, torch's own layers, formulas, brute force."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqexp.models.gpt import GPT, CausalSelfAttention
from seqexp.models.layers import dropout, rotary_angles, rotate, sinusoidal_positions

POSITIONS = ("learned", "sinusoidal", "rotary")


def tiny_gpt(seed: int = 0, spread: float = 0.3, **options: Any) -> GPT:
    """A GPT whose weights are far from their small beginnings, so that every part matters."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"vocab_size": 11, "max_len": 8, "n_layer": 2, "n_head": 2, "n_embd": 8}
    model = GPT(**{**sizes, **options})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.normal_(around, spread)
    return model


def random_tokens(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(11, (rows, length), generator=torch.Generator().manual_seed(seed))


# Gradients


@pytest.mark.parametrize("training", [True, False], ids=["plain", "kernel"])
@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_gradients_against_finite_differences(positions: str, tie: bool, training: bool) -> None:
    """In float64 training takes the plain attention and evaluation the kernel: both are checked.

    Each parameter is moved along two random directions, in which each of its elements takes part.
    """
    model = tiny_gpt(positions=positions, tie_embeddings=tie, bias=True).double().train(training)
    tokens, targets = random_tokens(2, 8), random_tokens(2, 8, seed=2).flatten()

    def loss() -> Tensor:
        return F.cross_entropy(model(tokens).flatten(0, 1), targets)

    loss().backward()
    checked = 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        for _ in range(2):
            direction = torch.randn_like(parameter)
            direction /= direction.norm()
            step = 1e-5
            with torch.no_grad():
                parameter += step * direction
                above = loss()
                parameter -= 2 * step * direction
                below = loss()
                parameter += step * direction
            slope = float((above - below) / (2 * step))
            assert slope == pytest.approx(float((parameter.grad * direction).sum()), rel=1e-6, abs=1e-9), name
        checked += 1
    assert checked == len(list(model.parameters()))


def test_learned_positions_and_unread_tokens_have_the_gradients_they_should() -> None:
    model = tiny_gpt(tie_embeddings=False)
    model(torch.tensor([[3, 5, 3]])).sum().backward()
    for table, used in ((model.embedding, [3, 5]), (model.position_embedding, [0, 1, 2])):
        assert table.weight.grad is not None
        assert table.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist() == used


# Attention


@pytest.mark.parametrize("positions", POSITIONS)
def test_kernels_and_plain_attention_agree(positions: str) -> None:
    model = tiny_gpt(positions=positions)
    tokens = random_tokens(3, 8)
    results = []
    for maps in (None, []):
        model.zero_grad()
        logits = model(tokens, maps)
        logits.square().mean().backward()
        results.append((logits, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (kernel, kernel_gradients), (plain, plain_gradients) = results
    torch.testing.assert_close(kernel, plain, rtol=1e-5, atol=1e-5)
    assert len(kernel_gradients) == len(list(model.parameters()))
    for one, other in zip(kernel_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("positions", POSITIONS)
def test_maps_are_causal_and_sum_to_one(positions: str) -> None:
    model = tiny_gpt(positions=positions, n_layer=3)
    maps: list[Tensor] = []
    model(random_tokens(4, 7), maps)
    assert [weights.shape for weights in maps] == [(4, 2, 7, 7)] * 3
    for weights in maps:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(4, 2, 7))
        assert not weights.triu(diagonal=1).any()
        assert (weights.tril() > 0).sum() == 4 * 2 * 7 * 8 / 2  # and the past is seen, all of it


@pytest.mark.parametrize("bias", [True, False])
def test_attention_against_torchs_layer(bias: bool) -> None:
    torch.manual_seed(0)
    ours = CausalSelfAttention(n_embd=12, n_head=3, dropout=0.0, bias=bias)
    theirs = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True)
    state = {"in_proj_weight": ours.qkv.weight, "out_proj.weight": ours.proj.weight}
    if bias:
        state |= {"in_proj_bias": ours.qkv.bias, "out_proj.bias": ours.proj.bias}
    theirs.load_state_dict(state)
    x = torch.randn(2, 5, 12)
    future = torch.ones(5, 5, dtype=torch.bool).triu(diagonal=1)
    expected, expected_maps = theirs(x, x, x, attn_mask=future, average_attn_weights=False)
    maps: list[Tensor] = []
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(ours(x, maps=maps), expected)
    torch.testing.assert_close(maps[0], expected_maps)


@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
def test_whole_model_against_torchs_transformer(tie: bool) -> None:
    """Embedding, pre-norm blocks, last norm and head, built from `nn.TransformerEncoderLayer`."""
    model = tiny_gpt(bias=True, n_layer=3, tie_embeddings=tie).eval()
    tokens = random_tokens(2, 8)
    x = F.embedding(tokens, model.embedding.weight) + model.position_embedding.weight[None]
    mask = nn.Transformer.generate_square_subsequent_mask(8)
    for block in model.blocks:
        layer = nn.TransformerEncoderLayer(
            8, 2, dim_feedforward=32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        names = {
            "norm1": "norm1", "norm2": "norm2", "linear1": "mlp.fc", "linear2": "mlp.proj",
            "self_attn.in_proj_": "attention.qkv", "self_attn.out_proj": "attention.proj",
        }  # fmt: skip
        own = block.state_dict()
        state = {}
        for theirs, ours in names.items():
            for kind in ("weight", "bias"):
                separator = "" if theirs.endswith("_") else "."
                state[f"{theirs}{separator}{kind}"] = own[f"{ours}.{kind}"]
        layer.load_state_dict(state)
        x = layer(x, src_mask=mask, is_causal=True)
    x = F.layer_norm(x, (8,), model.norm.weight, model.norm.bias)
    head = model.embedding.weight if tie else model.head.weight
    torch.testing.assert_close(model(tokens), x @ head.T, rtol=1e-4, atol=1e-5)


def test_training_in_bf16_stays_near_fp32() -> None:
    """On a CPU bf16 training takes the plain attention: the same function, up to bf16's rounding."""
    model = tiny_gpt(spread=0.1, n_embd=32).train()
    tokens = random_tokens(2, 8)
    exact = model(tokens).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(tokens).detach()
    assert rounded.dtype == torch.bfloat16
    assert float((rounded - exact).abs().max()) < 0.03 * float(exact.abs().max())


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_later_token_never_changes_earlier_logits(positions: str) -> None:
    model = tiny_gpt(positions=positions).eval()
    tokens = random_tokens(1, 8)
    before = model(tokens)
    for place in range(8):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % 11
        difference = (model(changed) - before).abs().amax(dim=-1)[0].detach()
        assert float(difference[:place].max() if place else 0.0) < 1e-6
        assert float(difference[place:].min()) > 1e-4  # from there on everything may change, and does


@pytest.mark.parametrize("positions", POSITIONS)
def test_order_matters(positions: str) -> None:
    """Without positions the last logits would be those of any order of the tokens before."""
    model = tiny_gpt(positions=positions).eval()
    one, other = model(torch.tensor([[1, 2, 3, 4]])), model(torch.tensor([[2, 1, 3, 4]]))
    assert float((one[0, -1] - other[0, -1]).detach().abs().max()) > 1e-4


# Positions


@pytest.mark.parametrize(("length", "width"), [(1, 2), (9, 8), (300, 6)])
def test_sinusoidal_table(length: int, width: int) -> None:
    table = sinusoidal_positions(length, width)
    assert table.shape == (length, width)
    for t in range(length):
        for i in range(width // 2):
            angle = t / 10000 ** (2 * i / width)
            assert float(table[t, 2 * i]) == pytest.approx(math.sin(angle), abs=1e-4)
            assert float(table[t, 2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-4)


def test_rotation_is_multiplication_of_complex_numbers() -> None:
    """Pair i of a vector at position t is turned by t / 10000^(2i/d)."""
    torch.manual_seed(0)
    d, length = 6, 20
    x = torch.randn(2, 3, length, d, dtype=torch.float64)
    angles = rotary_angles(length, d).double()
    turned = rotate(x, angles.cos(), angles.sin())
    for t in range(length):
        for i in range(d // 2):
            number = torch.complex(x[:, :, t, i], x[:, :, t, i + d // 2])
            angle = t / 10000 ** (2 * i / d)
            expected = number * complex(math.cos(angle), math.sin(angle))
            torch.testing.assert_close(turned[:, :, t, i], expected.real, rtol=0, atol=1e-6)
            torch.testing.assert_close(turned[:, :, t, i + d // 2], expected.imag, rtol=0, atol=1e-6)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    d, length = 8, 64
    q, k = torch.randn(2, 1, 1, 1, d, dtype=torch.float64).expand(2, 1, 1, length, d)
    angles = rotary_angles(length, d).double()
    scores = (rotate(q, angles.cos(), angles.sin()) @ rotate(k, angles.cos(), angles.sin()).mT)[0, 0]
    for distance in range(-length + 1, length):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-4)
    assert float(scores[:, 0].std()) > 0.1  # and on the distance they do depend


def test_rotary_attention_by_complex_numbers() -> None:
    """The layer's maps, from q and k as complex vectors: a score is the real part of q times conj(k)."""
    torch.manual_seed(0)
    n_head, d, length = 2, 6, 9
    layer = CausalSelfAttention(n_embd=n_head * d, n_head=n_head, dropout=0.0, bias=True).double()
    x = torch.randn(2, length, n_head * d, dtype=torch.float64)
    angles = rotary_angles(length, d).double()
    maps: list[Tensor] = []
    layer(x, (angles.cos(), angles.sin()), maps=maps)
    q, k, _ = layer.qkv(x).detach().view(2, length, 3, n_head, 2, d // 2).unbind(dim=2)
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]
    q, k = (torch.complex(t[..., 0, :], t[..., 1, :]) * turns for t in (q, k))
    scores = torch.einsum("bthi,bshi->bhts", q, k.conj()).real / math.sqrt(d)
    scores = scores.masked_fill(torch.ones(length, length).triu(diagonal=1).bool(), -math.inf)
    torch.testing.assert_close(maps[0].detach(), scores.softmax(dim=-1), rtol=1e-6, atol=1e-8)


def test_rotary_model_sees_distances_only() -> None:
    """One token all along: the ratio of two weights in a row is that of their distances, in every row."""
    model = tiny_gpt(positions="rotary", n_layer=1)
    maps: list[Tensor] = []
    model(torch.full((1, 8), 3), maps)
    logs = maps[0][0].double().log().detach()
    for distance in range(1, 5):
        ratios = torch.stack([logs[:, t, t] - logs[:, t, t - distance] for t in range(distance, 8)])
        torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios), rtol=0, atol=1e-4)
        assert float(ratios.abs().max()) > 1e-2


# Sizes, initialisation, limits


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("positions", POSITIONS)
def test_parameter_count(positions: str, bias: bool, tie: bool) -> None:
    V, T, L, D = 13, 10, 3, 16
    model = GPT(V, T, L, 4, D, bias=bias, positions=positions, tie_embeddings=tie)
    norms = (2 * L + 1) * D * (2 if bias else 1)
    expected = {
        "embedding": V * D,
        "positions": T * D if positions == "learned" else 0,
        "attention": L * (4 * D * D + (4 * D if bias else 0)),
        "mlp": L * (8 * D * D + (5 * D if bias else 0)),
        "norms": norms,
        "head": 0 if tie else V * D,
    }
    assert model.parameter_counts() == expected
    assert sum(expected.values()) == sum(p.numel() for p in model.parameters())


def test_gpt2_small_has_its_published_size() -> None:
    with torch.device("meta"):
        model = GPT(50257, 1024, n_layer=12, n_head=12, n_embd=768, bias=True)
    assert sum(model.parameter_counts().values()) == 124_439_808


@pytest.mark.parametrize("n_layer", [2, 8])
def test_initialisation(n_layer: int) -> None:
    torch.manual_seed(0)
    model = GPT(200, 100, n_layer, 4, 64, bias=True, tie_embeddings=False)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            std = 0.02 / math.sqrt(2 * n_layer) if ".proj." in name else 0.02
            assert float(parameter.detach().std()) == pytest.approx(std, rel=0.06), name
            assert abs(float(parameter.detach().mean())) < 0.05 * std, name
        else:
            expected = float("norm" in name and name.endswith("weight"))
            assert bool((parameter == expected).all()), name


def test_an_untrained_model_guesses_evenly() -> None:
    """The loss before training is near log(V): the initialisation favours nothing."""
    torch.manual_seed(0)
    model = GPT(65, 32, 4, 4, 64)
    tokens = torch.randint(65, (8, 33))
    loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert float(loss.detach()) == pytest.approx(math.log(65), abs=0.15)


def test_tied_and_untied_heads() -> None:
    tied, untied = tiny_gpt(tie_embeddings=True), tiny_gpt(tie_embeddings=False)
    assert tied.head.weight is tied.embedding.weight
    assert untied.head.weight is not untied.embedding.weight
    assert "head.weight" not in dict(tied.named_parameters())
    # A tied head survives being saved and loaded.
    other = tiny_gpt(seed=5, tie_embeddings=True)
    other.load_state_dict(tied.state_dict())
    assert other.head.weight is other.embedding.weight
    tokens = random_tokens(1, 4)
    assert torch.equal(other(tokens), tied(tokens))


def test_too_long_input() -> None:
    model = tiny_gpt()
    assert model(random_tokens(1, 8)).shape == (1, 8, 11)
    with pytest.raises(ValueError, match=r"9 tokens .* window of 8"):
        model(random_tokens(1, 9))


def test_unknown_positions() -> None:
    with pytest.raises(ValueError, match="learned, sinusoidal or rotary"):
        tiny_gpt(positions="alibi")


# Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_zeroes_at_its_rate_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1003, 97, requires_grad=True)
    y = dropout(x, p, training=True)
    kept = y != 0
    deviation = math.sqrt(p * (1 - p) / x.numel())
    assert abs(1 - float(kept.float().mean()) - p) < 1 / 512 + 5 * deviation  # p is rounded to 1/256
    (scale,) = y.detach()[kept].unique().tolist()
    assert 256 / scale == pytest.approx(round(256 * (1 - p)), abs=1e-3)  # that of the rounded p
    assert float(y.mean().detach()) == pytest.approx(1, abs=5 * deviation / (1 - p))
    y.sum().backward()
    assert torch.equal(x.grad, y)  # the gradient takes the same mask and scale
    assert not torch.equal(dropout(x, p, training=True), y)
    torch.manual_seed(0)
    assert torch.equal(dropout(x, p, training=True), y)


def test_no_dropout_where_none_is_due() -> None:
    x = torch.randn(10, 10)
    assert torch.equal(dropout(x, 0.5, training=False), x)
    assert torch.equal(dropout(x, 0.0, training=True), x)
    model = tiny_gpt(dropout=0.5)
    tokens = random_tokens(2, 8)
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))
    same = tiny_gpt(dropout=0.0).eval()
    assert torch.equal(model(tokens), same(tokens))


def test_dropout_reaches_embedding_attention_and_both_additions() -> None:
    """With the other places switched off, each one alone makes training random."""
    tokens = random_tokens(2, 8)
    places = [
        ("embedding", lambda m: setattr(m, "dropout", 0.5)),
        ("attention", lambda m: setattr(m.blocks[0].attention, "dropout", 0.5)),
        ("mlp", lambda m: setattr(m.blocks[0].mlp, "dropout", 0.5)),
    ]
    for name, switch_on in places:
        model = tiny_gpt(dropout=0.0).train()
        assert torch.equal(model(tokens), model(tokens))
        switch_on(model)
        assert not torch.equal(model(tokens), model(tokens)), name
