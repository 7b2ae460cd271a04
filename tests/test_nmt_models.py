"""Translation models: against their papers' equations, torch's own layers, and recomputing by hand."""

import cmath
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from translation_models import (
    ATTENTIONS,
    CELLS,
    LENGTHS,
    close,
    every_nmt,
    gradients,
    make_nmt,
    make_transformer,
    sentences,
    wild,
)

from seqexp.models.attention import make_attention
from seqexp.models.cells import CELLS as CELL_EQUATIONS
from seqexp.models.cells import Weights
from seqexp.models.fused import GRURecurrence, fused_step
from seqexp.models.nmt import NMT
from seqexp.models.recurrent_layer import TORCH_LAYERS, RecurrentLayer
from seqexp.models.step_linear import StepLinear
from seqexp.models.transformer import Transformer

pytestmark = pytest.mark.usefixtures("one_thread")


# Attention


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def times(W: Tensor, x: list[float]) -> list[float]:
    return [dot(row, x) for row in W.tolist()]


def plain_attention(kind: str, module: Any, query: list[float], memory: list[list[float]]) -> list[float]:
    """The weights of one query over the real positions of one source, from the papers' formulas."""
    if kind == "dot":
        scores = [dot(query, m) for m in memory]
    elif kind in ("general", "local_p"):
        W_a = module.W.weight / math.sqrt(len(module.W.weight))
        scores = [dot(query, times(W_a, m)) for m in memory]
    else:
        W = torch.cat((module.W_query.weight, module.W_memory.weight), dim=1)
        sums = [zip(times(W, query + m), module.W_memory.bias.tolist(), strict=True) for m in memory]
        scores = [dot(module.v.weight[0].tolist(), [math.tanh(x + b) for x, b in each]) for each in sums]
    centre, window = 0.0, math.inf
    if kind == "local_p":
        heard = [math.tanh(x) for x in times(module.W_p.weight, query)]
        centre = (len(memory) - 1) / (1 + math.exp(-dot(module.v_p.weight[0].tolist(), heard)))
        window = module.window
    exps = [math.exp(s) if abs(place - centre) <= window else 0.0 for place, s in enumerate(scores)]
    gauss = [math.exp(-((place - centre) ** 2) / (2 * (window / 2) ** 2)) for place in range(len(memory))]
    return [e / sum(exps) * g for e, g in zip(exps, gauss, strict=True)]


@pytest.mark.parametrize(("kind", "window"), [(kind, 1) for kind in ATTENTIONS[:-1]] + [("local_p", 3)])
def test_attention_is_its_formula(kind: str, window: int) -> None:
    torch.manual_seed(0)
    H, M = (4, 4) if kind == "dot" else (4, 3)
    module: Any = make_attention(kind, H, M, 5, window).double()
    query, memory = torch.randn(3, 2, H, dtype=torch.float64), torch.randn(3, 6, M, dtype=torch.float64)
    lengths = torch.tensor(LENGTHS)
    mask = torch.arange(6) < lengths[:, None]
    contexts, weights = module(query, module.keys(memory), memory, mask, lengths)
    for b, length in enumerate(LENGTHS):
        real = memory[b, :length].tolist()
        for q in range(2):
            expected = plain_attention(kind, module, query[b, q].tolist(), real)
            close(weights[b, q].tolist(), expected + [0.0] * (6 - length))
            close(contexts[b, q].tolist(), [dot(expected, [m[i] for m in real]) for i in range(M)])

    def context(query: Tensor, memory: Tensor) -> Tensor:
        return module(query, module.keys(memory), memory, mask, lengths)[0]

    assert torch.autograd.gradcheck(context, (query.requires_grad_(), memory.requires_grad_()))


# One recurrent layer


@pytest.mark.parametrize("cell", CELLS)
def test_a_recurrent_layer_is_torchs(cell: str) -> None:
    """All at once and step by step: outputs, last state and all gradients, from a state that is not zero."""
    torch.manual_seed(0)
    layer = wild(RecurrentLayer(cell, 3, 5), torch.float32)
    x = torch.randn(4, 6, 3, requires_grad=True)
    state = tuple(torch.randn(4, 5, requires_grad=True) for _ in layer.zero_state(4))
    weight = torch.randn(4, 6, 5)

    def judged(hidden: Tensor, last: tuple[Tensor, ...]) -> list[Tensor]:
        loss = (hidden * weight).sum() + sum((part**2).sum() for part in last)
        return [hidden, *last, *torch.autograd.grad(loss, [x, *state, *layer.parameters()])]

    stacked = tuple(part[None] for part in state)
    hidden, last = layer.layer(x, stacked if cell == "lstm" else stacked[0])
    expected = judged(hidden, tuple(part[0] for part in (last if cell == "lstm" else (last,))))
    close(judged(*layer(x, state)), expected, 1e-5)
    product, after, steps = StepLinear(layer.weights[1], torch.float32), state, []
    for gates in layer.gates(x).unbind(dim=1):
        after = layer.step(gates, after, product)
        steps.append(after[0])
    close(judged(torch.stack(steps, dim=1), after), expected, 1e-5)


def test_gru_products_in_bf16() -> None:
    """Against the equations step by step, where only the operands of products are rounded."""
    torch.manual_seed(0)
    leaves = [torch.randn(*shape) for shape in ((3, 6, 4), (3, 5), (15, 4), (15, 5), (15,), (15,))]
    leaves = [leaf.mul_(0.5).requires_grad_() for leaf in leaves]
    x, h, W_ih, W_hh, b_ih, b_hh = leaves
    rounded = GRURecurrence.apply(*leaves, torch.bfloat16)
    assert rounded.dtype == torch.float32
    steps = []
    for t in range(6):
        of_x = (x[:, t].bfloat16() @ W_ih.bfloat16().t()) + b_ih
        of_h = (h.bfloat16() @ W_hh.bfloat16().t()) + b_hh
        (x_r, x_z, x_n), (h_r, h_z, h_n) = of_x.chunk(3, dim=1), of_h.chunk(3, dim=1)
        z, n = (x_z + h_z).sigmoid(), (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
        h = (1 - z) * n + z * h
        steps.append(h)
    expected = torch.stack(steps, dim=1)
    close(rounded, expected, 1e-4)
    assert not torch.allclose(rounded, GRURecurrence.apply(*leaves), rtol=0, atol=1e-4)
    ours, theirs = (torch.autograd.grad((hidden**2).sum(), leaves) for hidden in (rounded, expected))
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).norm() < 0.01 * other.norm()


# The whole recurrent model, of torch's layers and cells


def torch_encoder(model: NMT, source: Tensor, lengths: Tensor) -> tuple[Tensor, Any]:
    """Memory (B, S, M), and the last states of each layer, both directions side by side."""
    H, directions = model.decoder[0].hidden_size, len(model.encoder[0])
    net = TORCH_LAYERS[model.decoder[0].cell](
        source.shape[1], H, len(model.encoder), batch_first=True, bidirectional=directions == 2
    )
    for number, layer in enumerate(model.encoder):
        for direction, suffix in zip(layer, ("", "_reverse"), strict=False):
            for name, parameter in direction.layer.named_parameters():
                setattr(net, name.replace("_l0", f"_l{number}{suffix}"), parameter)  # the same, not a copy
    x = model.source_embedding(source)
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    states, last = net(packed)
    memory, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
    parts = [part.unflatten(0, (-1, directions)) for part in (last if isinstance(last, tuple) else (last,))]
    return memory, [[torch.cat(list(part[n]), dim=1) for part in parts] for n in range(len(model.encoder))]


def reversed_by_hand(source: Tensor) -> Tensor:
    rows = [row[:n][::-1] + row[n:] for row, n in zip(source.tolist(), LENGTHS, strict=True)]
    return torch.tensor(rows)


def torch_nmt(model: NMT, source: Tensor, lengths: Tensor, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and attention weights of each step: the equations of Luong et al. and Bahdanau et al."""
    memory, last = torch_encoder(model, reversed_by_hand(source) if model.reverse_source else source, lengths)
    if model.reverse_source:
        memory = torch.stack(
            [torch.cat((m[:n].flip(0), m[n:])) for m, n in zip(memory, LENGTHS, strict=True)]
        )
    states = []
    for bridge, parts in zip(model.bridge, last, strict=True):
        projected = [project(part) for project, part in zip(bridge, parts, strict=True)]
        states.append([projected[0].tanh(), *projected[1:]])
    cells = []
    for layer in model.decoder:
        cells.append(getattr(nn, f"{layer.cell.upper()}Cell")(*layer.layer.weight_ih_l0.shape[::-1]))
        for name, parameter in layer.layer.named_parameters():
            setattr(cells[-1], name.removesuffix("_l0"), parameter)
    attention: Any = model.attention
    mask = torch.arange(source.shape[1]) < lengths[:, None]

    def look(query: Tensor) -> Tensor:
        context, weights = attention(query[:, None], attention.keys(memory), memory, mask, lengths)
        seen.append(weights[:, 0])
        return context[:, 0]

    fed, logits, seen = torch.zeros_like(states[0][0]), [], []
    bahdanau = attention is not None and attention.from_previous
    for token in inputs.t():
        x = torch.cat((model.target_embedding(token), *([fed] if model.input_feeding else [])), dim=1)
        if bahdanau:
            context = look(states[-1][0])
            x = torch.cat((x, context), dim=1)
        for number, cell in enumerate(cells):
            after = cell(x, tuple(states[number]) if len(states[number]) > 1 else states[number][0])
            states[number] = list(after) if isinstance(after, tuple) else [after]
            x = states[number][0]
        if attention is not None:
            context = context if bahdanau else look(x)
            x = model.combine(torch.cat((context, x), dim=1)).tanh()
        fed = x
        logits.append(model.head(x))
    return torch.stack(logits, dim=1), seen


@pytest.mark.parametrize("reverse_source", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_encoder_is_torchs_on_packed_sentences(
    cell: str, bidirectional: bool, reverse_source: bool
) -> None:
    """With `reverse_source`, torch is given each sentence reversed, and its states are turned round."""
    model = make_nmt(cell=cell, bidirectional=bidirectional, reverse_source=reverse_source)
    source, lengths, _ = sentences()
    state = model.encode(source, lengths)
    memory, last = torch_encoder(model, reversed_by_hand(source) if reverse_source else source, lengths)
    for b, n in enumerate(LENGTHS):
        expected = memory[b, :n].flip(0) if reverse_source else memory[b, :n]
        close(state.memory.states[b, :n], expected)
    for ours, bridge, parts in zip(state.layers, model.bridge, last, strict=True):
        projected = [project(part) for project, part in zip(bridge, parts, strict=True)]
        close(list(ours), [projected[0].tanh(), *projected[1:]])


@every_nmt
def test_a_recurrent_model_is_its_equations(options: dict[str, Any]) -> None:
    """Logits, attention and the gradients of all parameters."""
    source, lengths, inputs = sentences()
    for reverse_source in (False, True):
        model = make_nmt(**options, reverse_source=reverse_source)
        logits, (expected, seen) = model(source, lengths, inputs), torch_nmt(model, source, lengths, inputs)
        close(logits, expected)
        close(gradients((logits**2).sum(), model), gradients((expected**2).sum(), model))
        _, state = model.step(inputs, model.start((source, lengths)))
        assert model.shows_attention == (state.attention is not None) == bool(seen)
        if seen:
            close(state.attention, torch.stack(seen, dim=1))


@pytest.mark.parametrize("impl", ["fused", "reference"])
@every_nmt
def test_bf16_products_keep_full_states(options: dict[str, Any], impl: str) -> None:
    model = make_nmt(torch.float32, **options, impl=impl)
    source, lengths, inputs = sentences()
    exact = model(source, lengths, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(source, lengths, inputs)
        state = model.step(inputs, model.start((source, lengths)))[1]
    assert {part.dtype for layer in state.layers for part in layer} == {torch.float32}
    # A position may fall just inside the window of local_p or just outside.
    assert (rough - exact).abs().max() < (0.5 if options["attention"] == "local_p" else 0.15)
    assert (rough - exact).abs().mean() < 0.03
    ours, theirs = (
        torch.cat([g.flatten() for g in gradients(out.float().square().sum(), model)])
        for out in (rough, exact)
    )
    assert F.cosine_similarity(ours, theirs, dim=0) > 0.995


@every_nmt
def test_both_implementations_agree(options: dict[str, Any]) -> None:
    """Logits, attention, states and the gradients of all parameters."""
    source, lengths, inputs = sentences()
    directions = (False,) if options["attention"] == "dot" else (False, True)
    for bidirectional, reverse_source in itertools.product(directions, (False, True)):
        sizes = {**options, "bidirectional": bidirectional, "reverse_source": reverse_source}
        results = []
        for impl in ("fused", "reference"):
            model = make_nmt(**sizes, impl=impl)
            logits = model(source, lengths, inputs)
            _, state = model.step(inputs, model.start((source, lengths)))
            results.append([logits, *gradients((logits**2).sum(), model), state.layers])
            results[-1] += [state.fed] if model.input_feeding else []
            results[-1] += [] if state.attention is None else [state.attention]
        close(results[1], results[0])


def test_the_reference_computes_with_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tuned form runs: without them it still gives its logits."""
    source, lengths, inputs = sentences()
    for cell in CELLS:
        model = make_nmt(cell=cell, impl="reference")
        expected = model(source, lengths, inputs)
        with monkeypatch.context() as patch:
            for name in ("forward", "read", "gates", "step"):
                patch.delattr(RecurrentLayer, name)
            assert torch.equal(model(source, lengths, inputs), expected)


def test_dropout_reaches_both_implementations() -> None:
    """Between layers, and of embeddings and outputs: the mean over many masks is the same."""
    source, lengths, inputs = sentences()
    means = []
    for impl in ("fused", "reference"):
        model = make_nmt(impl=impl, dropout=0.3, n_layer=2).train()
        torch.manual_seed(0)
        with torch.no_grad():
            draws = torch.stack([model(source, lengths, inputs) for _ in range(400)])
        means.append((draws.mean(dim=0), draws.std(dim=0)))
    (fused, spread), (reference, other) = means
    assert ((fused - reference).abs() < 6 * spread * math.sqrt(2 / 400)).all()
    close(other.mean(), spread.mean(), 0.05)


@pytest.mark.parametrize("cell", CELLS)
def test_the_fused_step_is_the_cells_equation(cell: str) -> None:
    torch.manual_seed(0)
    layer = wild(RecurrentLayer(cell, 3, 5))
    W_ih, W_hh, b_ih, b_hh = layer.weights
    x = torch.randn(4, 3, dtype=torch.float64)
    state = tuple(torch.randn(4, 5, dtype=torch.float64) for _ in layer.zero_state(4))
    fused = fused_step(cell, x @ W_ih.t() + b_ih, state[0] @ W_hh.t() + b_hh, state)
    two_biases = cell == "gru"
    weights = Weights(W_ih.t(), W_hh.t(), b_ih, b_hh) if two_biases else None
    close(fused, CELL_EQUATIONS[cell](x, state, weights or Weights(W_ih.t(), W_hh.t(), b_ih, b_ih + b_hh)))
    close(fused, layer.cell_step(x, state))


# The Transformer, of torch's layers


def torch_layers(model: Transformer) -> tuple[list[Any], list[Any]]:
    """torch's layers with the model's own parameters in them."""
    made: tuple[list[Any], list[Any]] = [], []
    kinds = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    for layers, kind, blocks in zip(made, kinds, (model.encoder, model.decoder), strict=True):
        for block in blocks:
            layer = kind(8, 2, 12, dropout=0.0, batch_first=True, norm_first=block.pre_norm).double()
            pairs = [(layer.self_attn, block.attention)]
            pairs += [(layer.multihead_attn, block.cross)] if hasattr(block, "cross") else []
            for theirs, ours in pairs:
                theirs.in_proj_weight, theirs.in_proj_bias = ours.qkv.weight, ours.qkv.bias
                theirs.out_proj.weight, theirs.out_proj.bias = ours.proj.weight, ours.proj.bias
            layer.linear1, layer.linear2 = block.mlp.fc, block.mlp.proj
            for name in ("norm1", "norm2", "norm3"):
                if hasattr(block, name):
                    setattr(layer, name, getattr(block, name))
            layers.append(layer)
    return made


def embedded(model: Transformer, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
    """Scaled embeddings plus sinusoids or learned positions, of which the last serves all that follow."""
    x, D = embedding(tokens) * math.sqrt(8), 8
    if model.positions == "learned":
        return x + model.position_embedding.weight[[min(t, model.max_len - 1) for t in range(x.shape[1])]]
    waves = [
        [(math.cos if i % 2 else math.sin)(t / 10000 ** ((i - i % 2) / D)) for i in range(D)]
        for t in range(x.shape[1])
    ]
    return x + torch.tensor(waves, dtype=x.dtype)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_transformer_is_made_of_torchs_layers(norm: str, positions: str, training: bool) -> None:
    """Logits, gradients, and the last layer's attention; sentences longer than learned positions too."""
    model = make_transformer(norm=norm, positions=positions).train(training)
    source, lengths, inputs = sentences()
    encoder, decoder = torch_layers(model)
    padding = torch.arange(6) >= lengths[:, None]
    seen: list[Tensor] = []
    cross = decoder[-1].multihead_attn
    cross.register_forward_pre_hook(
        lambda module, args: seen.append(module.forward(*args, key_padding_mask=padding)[1])
    )
    memory = embedded(model, model.source_embedding, source)
    for layer in encoder:
        memory = layer(memory, src_key_padding_mask=padding)
    memory, x = model.encoder_norm(memory), embedded(model, model.target_embedding, inputs)
    future = torch.ones(7, 7, dtype=torch.bool).triu(1)
    for layer in decoder:
        x = layer(x, memory, tgt_mask=future, memory_key_padding_mask=padding)
    expected, logits = model.head(model.decoder_norm(x)), model(source, lengths, inputs)
    # The sinusoids are in fp32.
    close(logits, expected, 1e-5)
    close(gradients((logits**2).sum(), model), gradients((expected**2).sum(), model), 1e-4)
    _, state = model.step(inputs, model.start((source, lengths)))
    close(state.attention, seen[0], 1e-5)


def test_rotary_scores_are_turned_by_the_distance() -> None:
    """With pairs as complex numbers: Re(q conj(k) exp(i (t - s) 10000^(-2j/d))), summed over pairs j."""
    model = make_transformer(positions="rotary")
    source, lengths, inputs = sentences()
    attention = model.encoder[0].attention
    x, rotary = model._embed(model.source_embedding, source, 0)
    plain_q, plain_k, _ = (part[0, 1].tolist() for part in attention.queries_keys_values(x, None))
    q, k, _ = (part[0, 1] for part in attention.queries_keys_values(x, rotary))
    for t in range(6):
        for s in range(6):
            each = [
                complex(plain_q[t][j], plain_q[t][j + 2])
                * complex(plain_k[s][j], -plain_k[s][j + 2])
                * cmath.exp(1j * (t - s) * 10000 ** (-2 * j / 4))
                for j in range(2)
            ]
            assert (q[t] @ k[s]).item() == pytest.approx(sum(each).real, abs=1e-5)
    swapped = source[:, [1, 0, 2, 3, 4, 5]]  # of positions nothing else tells
    assert not torch.allclose(model(source, lengths, inputs)[0], model(swapped, lengths, inputs)[0])
