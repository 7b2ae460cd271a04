"""Recurrent networks: against their equations, torch's own layers, a solution by hand, and themselves."""

import itertools
import math
from typing import Any

import pytest
import torch
from small_trainer import token_batch
from torch import nn

from seqexp.models.cells import Weights, gru_cell, lstm_cell, run_cell, vanilla_cell
from seqexp.models.fused import GRURecurrence, VanillaRecurrence
from seqexp.models.rnn import GRU, LSTM, RNN, RecurrentNetwork
from seqexp.tasks.recurrence import gradient_flow, hidden_states

KINDS: list[tuple[type[RecurrentNetwork], dict[str, Any]]] = [
    (RNN, {"activation": "tanh"}),
    (RNN, {"activation": "relu"}),
    (RNN, {"activation": "sigmoid"}),
    (LSTM, {}),
    (GRU, {}),
]
IDS = ["tanh", "relu", "sigmoid", "lstm", "gru"]


def make(kind: type[RecurrentNetwork], **options: Any) -> RecurrentNetwork:
    torch.manual_seed(3)
    return kind(**{"vocab_size": 5, "hidden_size": 7, "n_embd": 4, **options}).eval()


def twins(kind: type[RecurrentNetwork], **options: Any) -> tuple[RecurrentNetwork, RecurrentNetwork]:
    """The same weights in both implementations."""
    fused, reference = make(kind, impl="fused", **options), make(kind, impl="reference", **options)
    reference.load_state_dict(fused.state_dict())
    return fused, reference


# The two implementations, and torch


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=IDS)
@pytest.mark.parametrize(("n_layer", "n_embd", "T"), [(1, 4, 1), (1, 0, 13), (3, 4, 13)])
def test_both_implementations_agree(
    kind: type[RecurrentNetwork], options: dict[str, Any], n_layer: int, n_embd: int, T: int
) -> None:
    """Outputs, last states and all gradients, from a state that is not zero."""
    fused, reference = twins(kind, n_layer=n_layer, n_embd=n_embd, **options)
    tokens = torch.randint(0, 5, (6, T))
    _, state = fused.continue_from(torch.randint(0, 5, (6, 2)), None)
    weight = torch.randn(6, T, 5)
    results = []
    for model in (fused, reference):
        start = tuple(part.detach().clone().requires_grad_() for part in state)
        outputs, last = model.continue_from(tokens, start)
        ((outputs * weight).sum() + sum((part**2).sum() for part in last)).backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        results.append([outputs, *last, *gradients, *(part.grad for part in start)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


TORCH: dict[str, Any] = {
    "tanh": lambda D, H: nn.RNN(D, H, batch_first=True),
    "relu": lambda D, H: nn.RNN(D, H, nonlinearity="relu", batch_first=True),
    "lstm": lambda D, H: nn.LSTM(D, H, batch_first=True),
    "gru": lambda D, H: nn.GRU(D, H, batch_first=True),
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_torchs_own_layer_gives_the_same(name: str, impl: str) -> None:
    """From weights that torch drew; its two biases are added where the equations have one."""
    kind, options = KINDS[IDS.index(name)]
    model = make(kind, vocab_size=6, n_embd=0, impl=impl, **options)
    layer = TORCH[name](6, 7)
    weights = {f"layers.{key}": value.clone() for key, value in layer.state_dict().items()}
    model.load_state_dict(weights, strict=False)
    tokens = torch.randint(0, 6, (4, 11))
    hidden, _ = layer(nn.functional.one_hot(tokens, 6).float())
    torch.testing.assert_close(model(tokens), model.head(hidden), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_the_vanilla_backward_pass_by_finite_differences(activation: str) -> None:
    torch.manual_seed(0)
    shapes = [(2, 5, 3), (2, 4), (4, 3), (4, 4), (4,)]
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(lambda *a: VanillaRecurrence.apply(*a, activation), inputs)


def test_the_gru_backward_pass_by_finite_differences() -> None:
    torch.manual_seed(0)
    shapes = [(2, 5, 3), (2, 4), (12, 3), (12, 4), (12,), (12,)]
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(GRURecurrence.apply, inputs)


def test_the_equations_with_numbers() -> None:
    """One unit, one step, computed with a calculator's functions."""
    x, h, c = 0.5, -0.3, 0.8
    sigmoid = lambda a: 1 / (1 + math.exp(-a))  # noqa: E731
    X, H, C = (torch.tensor([[value]], dtype=torch.float64) for value in (x, h, c))

    def weights(gates: int) -> Weights:
        row = torch.arange(1, gates + 1, dtype=torch.float64)
        return Weights(0.1 * row[None], -0.2 * row[None], 0.3 * row, 0.3 * row)

    (new,) = vanilla_cell("tanh")(X, (H,), weights(1))
    assert float(new) == pytest.approx(math.tanh(0.1 * x - 0.2 * h + 0.3))
    i, f, g, o = (k * (0.1 * x - 0.2 * h + 0.3) for k in (1, 2, 3, 4))
    expected_c = sigmoid(f) * c + sigmoid(i) * math.tanh(g)
    new, new_c = lstm_cell(X, (H, C), weights(4))
    assert float(new_c) == pytest.approx(expected_c)
    assert float(new) == pytest.approx(sigmoid(o) * math.tanh(expected_c))
    of_x, of_h = 0.1 * x + 0.3, -0.2 * h + 0.3
    r, z = sigmoid(of_x + of_h), sigmoid(2 * (of_x + of_h))
    n = math.tanh(3 * of_x + r * 3 * of_h)
    (new,) = gru_cell(X, (H,), weights(3))
    assert float(new) == pytest.approx((1 - z) * n + z * h)


def test_the_solution_made_by_hand_is_exact() -> None:
    """Two saturated units, OR and AND of the bit and the parity before; the parity is their difference.

    With p = (OR - AND) / 2 in {0, 1}: OR = tanh(K (x + p - 1/2)), AND = tanh(K (x + p - 3/2)).
    """
    K = 50.0
    model = RNN(vocab_size=2, hidden_size=2, n_outputs=1)
    with torch.no_grad():
        model.layers.weight_ih_l0[:] = K
        model.layers.weight_hh_l0[:] = torch.tensor([[K / 2, -K / 2], [K / 2, -K / 2]])
        model.layers.bias_ih_l0[:] = torch.tensor([-K / 2, -1.5 * K])
        model.head.weight[:] = torch.tensor([[1.0, -1.0]])
        model.head.bias[:] = -1.0
    bits = torch.randint(0, 2, (1000, 1000), generator=torch.Generator().manual_seed(1))
    truth = bits.cumsum(1) % 2
    for impl in ("fused", "reference"):
        model.impl = impl
        with torch.inference_mode():
            assert bool(((model(bits)[..., 0] > 0) == truth.bool()).all())


# Construction


@pytest.mark.parametrize(("kind", "gates"), [(RNN, 1), (LSTM, 4), (GRU, 3)])
def test_the_number_of_parameters(kind: type[RecurrentNetwork], gates: int) -> None:
    """gates (D H + H H + H) for each layer, the GRU with a second bias; V H + V of the head."""
    D, H, V = 4, 7, 5
    model = make(kind, n_layer=2)
    bias = H if kind.one_bias else 2 * H
    expected = gates * (D * H + H * H + bias) + gates * (H * H + H * H + bias)
    assert model.parameter_counts() == {"embedding": V * D, "recurrent": expected, "head": V * H + V}
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(model.parameter_counts().values()) == trainable


def test_bits_enter_as_numbers() -> None:
    """The course's network: 3 units have 3 + 9 + 3 weights and biases, and 4 of the output."""
    model = RNN(vocab_size=2, hidden_size=3, n_outputs=1)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 19
    assert model(torch.tensor([[0, 1, 1]])).shape == (1, 3, 1)


@pytest.mark.parametrize(("kind", "gates"), [(RNN, 1), (LSTM, 4), (GRU, 3)])
def test_initialisation(kind: type[RecurrentNetwork], gates: int) -> None:
    H = 16
    uniform = make(kind, hidden_size=H, init="uniform")
    for name, parameter in uniform.layers.named_parameters():
        if parameter.requires_grad:
            assert parameter.abs().max() <= 1 / math.sqrt(H), name
            assert float(parameter.detach().std()) == pytest.approx(1 / math.sqrt(3 * H), rel=0.4), name
    for init in ("orthogonal", "identity"):
        model = make(kind, hidden_size=H, init=init)
        for gate in model.layers.weight_hh_l0.detach().chunk(gates):
            torch.testing.assert_close(gate @ gate.t(), torch.eye(H), rtol=0, atol=1e-5)
            assert torch.equal(gate, torch.eye(H)) == (init == "identity")
        assert not model.layers.bias_ih_l0.any()


def test_the_forget_gate_starts_open() -> None:
    biases = LSTM(5, 4, forget_bias=1.5, init="orthogonal").layers.bias_ih_l0.tolist()
    assert biases == [0] * 4 + [1.5] * 4 + [0] * 8


def test_the_second_bias_stays_zero() -> None:
    model = make(LSTM).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randint(0, 5, (2, 3))).sum().backward()
    optimizer.step()
    assert not model.layers.bias_hh_l0.any()
    assert model.layers.bias_ih_l0.any()


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=IDS)
def test_dropout_is_between_layers_and_in_training_alone(
    kind: type[RecurrentNetwork], options: dict[str, Any]
) -> None:
    tokens = torch.randint(0, 5, (2, 6))
    for impl in ("fused", "reference"):
        model = make(kind, n_layer=2, dropout=0.5, impl=impl, **options)
        assert torch.equal(model(tokens), model(tokens))
        model.train()
        assert not torch.equal(model(tokens), model(tokens))
        one_layer = make(kind, impl=impl, **options).train()
        assert torch.equal(one_layer(tokens), one_layer(tokens))


# Decoding


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=IDS)
def test_step_by_step_is_all_at_once(kind: type[RecurrentNetwork], options: dict[str, Any]) -> None:
    model = make(kind, n_layer=2, **options)
    tokens = torch.randint(0, 5, (3, 9))
    whole = model(tokens)
    state, pieces = model.start(), []
    for first, last in itertools.pairwise((0, 4, 5, 9)):
        outputs, state = model.step(tokens[:, first:last], state)
        pieces.append(outputs)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=IDS)
def test_select_takes_rows_of_the_state(kind: type[RecurrentNetwork], options: dict[str, Any]) -> None:
    model = make(kind, n_layer=2, **options)
    tokens, rows = torch.randint(0, 5, (3, 4)), torch.tensor([2, 0, 2])
    assert model.select(model.start(), rows) is None
    _, state = model.step(tokens, model.start())
    after, _ = model.step(tokens[rows, :1], model.select(state, rows))
    _, state = model.step(tokens[rows], model.start())
    expected, _ = model.step(tokens[rows, :1], state)
    torch.testing.assert_close(after, expected)


# Inside


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=IDS)
def test_gradients_through_time_are_those_of_a_nudge(
    kind: type[RecurrentNetwork], options: dict[str, Any]
) -> None:
    """The norm of dL/dh_t by finite differences: a nudge of h_t, and what comes after it."""

    from seqexp.config.task import ParityConfig
    from seqexp.tasks.parity import Parity

    model = make(kind, vocab_size=2, n_outputs=1, n_embd=0, hidden_size=3, **options).double()
    bits = torch.randint(0, 2, (2, 6))
    batch = token_batch(bits, bits.cumsum(1) % 2)
    task = Parity(ParityConfig(full_supervision=True))
    norms = gradient_flow(task, model, batch)["h"]
    cell, weights = model._cell(), model.weights(0)
    X = model._inputs(bits)
    states, _ = run_cell(cell, X, tuple(part[0] for part in model._zero_state(bits)), weights)

    def loss_from(t: int, h: torch.Tensor) -> float:
        """The mean loss of steps t, t+1, … when h_t is `h`; earlier steps do not depend on it."""
        after, _ = run_cell(cell, X[:, t + 1 :], (h, *states[t][1:]), weights) if t < 5 else ([], None)
        hidden = torch.stack([h, *(state[0] for state in after)], dim=1)
        logits = model.head(hidden)[..., 0]
        return float(
            nn.functional.binary_cross_entropy_with_logits(
                logits, batch.targets[:, t:].double(), reduction="sum"
            )
            / batch.count
        )

    with torch.no_grad():
        for t in range(6):
            total = 0.0
            for place in itertools.product(range(2), range(3)):
                nudge = torch.zeros(2, 3, dtype=torch.float64)
                nudge[place] = 1e-5
                h = states[t][0]
                total += ((loss_from(t, h + nudge) - loss_from(t, h - nudge)) / 2e-5) ** 2
            # The task computes its loss in fp32.
            assert norms[t] == pytest.approx(math.sqrt(total), rel=1e-4)


def test_hidden_states_are_those_of_the_forward_pass() -> None:
    for kind, options in KINDS:
        model = make(kind, n_layer=2, **options)
        tokens = torch.randint(0, 5, (8,))
        hidden = torch.from_numpy(hidden_states(model, tokens))
        assert hidden.shape == (8, 7)
        torch.testing.assert_close(model.head(hidden), model(tokens[None])[0], rtol=1e-5, atol=1e-6)


def test_autocast_leaves_the_state_in_full_precision() -> None:
    """A bf16 state would round a counter away; the recurrences compute in fp32 inside autocast."""
    for kind in (RNN, GRU):
        model = make(kind, vocab_size=2, n_embd=0)
        tokens = torch.randint(0, 2, (2, 50))
        with torch.autocast("cpu", torch.bfloat16):
            hidden, _ = model._run(tokens, model._zero_state(tokens))
        assert hidden.dtype == torch.float32
        torch.testing.assert_close(hidden, model._run(tokens, model._zero_state(tokens))[0])
