"""Optimizers against their papers' formulas written out by hand; schedules against points on paper."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from seqexp import registry
from seqexp.config.optimizer import (
    AdaGradConfig,
    AdamConfig,
    MuonConfig,
    RMSpropConfig,
    SchedulerConfig,
    SGDConfig,
)
from seqexp.errors import UserError
from seqexp.models.gpt import GPT
from seqexp.training.optimizers import Optimizers, freeze, trainable_parameters
from seqexp.training.schedules import lr_factor

NO_SCALING = torch.amp.GradScaler("cpu", enabled=False)


def tiny_gpt(**options: Any) -> GPT:
    torch.manual_seed(0)
    return GPT(**{"vocab_size": 11, "max_len": 8, "n_layer": 2, "n_head": 2, "n_embd": 8, **options})


def parameter_roles(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The trainable parameters by role."""
    roles: dict[str, list[nn.Parameter]] = {role: [] for role in ("embedding", "head", "matrix", "vector")}
    for one in trainable_parameters(model):
        roles[one.role].append(one.value)
    return roles


# Roles


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tie", [True, False])
def test_roles_cover_every_parameter_once(tie: bool, bias: bool, positions: str) -> None:
    model = tiny_gpt(tie_embeddings=tie, bias=bias, positions=positions)
    roles = parameter_roles(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {role: {names[id(p)] for p in group} for role, group in roles.items()}
    tables = {"embedding.weight"} | ({"position_embedding.weight"} if positions == "learned" else set())
    assert found["embedding"] == tables
    assert found["head"] == (set() if tie else {"head.weight"})
    parts = ("attention.qkv", "attention.proj", "mlp.fc", "mlp.proj")
    assert found["matrix"] == {f"blocks.{i}.{part}.weight" for i in range(2) for part in parts}
    vectors = {"norm.weight"} | {f"blocks.{i}.norm{j}.weight" for i in range(2) for j in (1, 2)}
    if bias:
        vectors |= {name.replace("weight", "bias") for name in vectors | found["matrix"]}
    assert found["vector"] == vectors
    assert sum(map(len, roles.values())) == len(names)


def test_frozen_parameters_have_no_role() -> None:
    model = tiny_gpt()
    model.embedding.weight.requires_grad_(False)
    roles = parameter_roles(model)
    assert all(p.requires_grad for group in roles.values() for p in group)
    assert len([p for group in roles.values() for p in group]) == len(list(model.parameters())) - 1


def test_freezing_by_patterns() -> None:
    model = tiny_gpt(tie_embeddings=True, bias=True)
    before = {name for name, _ in model.named_parameters()}
    frozen = freeze(model, ["blocks.0.*", "*.norm?.bias", "embedding.weight"])
    wanted = {
        name for name in before
        if name.startswith(("blocks.0.", "embedding.")) or (".norm" in name and name.endswith("bias"))
    }  # fmt: skip
    assert set(frozen) == wanted
    assert len(frozen) == len(wanted), "named once, though two patterns match"
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == wanted
    held = {id(one.value) for one in trainable_parameters(model)}
    assert held == {id(p) for name, p in model.named_parameters() if name not in wanted}


def test_patterns_that_match_nothing_or_everything() -> None:
    with pytest.raises(UserError, match=r"trainer\.freeze: 'block\.\*' matches no parameter; there are"):
        freeze(tiny_gpt(), ["block.*"])
    with pytest.raises(UserError, match=r"leaves no parameter to train"):
        freeze(tiny_gpt(), ["*"])
    with pytest.raises(UserError, match=r"optimizer\.lr_scale: 'heads' matches no parameter"):
        trainable_parameters(tiny_gpt(), {"heads": 2.0})


CONFIGS = {
    "adamw": AdamConfig(name="adamw", lr=0.01, weight_decay=0.1, betas=[0.8, 0.9]),
    "adam": AdamConfig(name="adam", lr=0.01, weight_decay=0.1, betas=[0.8, 0.9]),
    "sgd": SGDConfig(name="sgd", lr=0.01, weight_decay=0.1, momentum=0.9),
    "rmsprop": RMSpropConfig(name="rmsprop", lr=0.01, weight_decay=0.1, decay=0.8),
    "adagrad": AdaGradConfig(name="adagrad", lr=0.01, weight_decay=0.1, initial=0.5),
    "muon": MuonConfig(name="muon", lr=0.01, weight_decay=0.1, adamw_lr=0.005),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_is_moved_by_one_optimizer(name: str) -> None:
    model = tiny_gpt(bias=True, tie_embeddings=False)
    optimizers = Optimizers(CONFIGS[name], model)
    held = [id(p) for part in optimizers.parts for group in part.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_decay_is_for_all_but_vectors(name: str) -> None:
    """Without gradients decay is all that moves a parameter, and it moves it towards zero."""
    model = tiny_gpt(bias=True, tie_embeddings=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    vectors = {id(p) for p in parameter_roles(model)["vector"]}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    Optimizers(CONFIGS[name], model).step(NO_SCALING)
    for key, parameter in model.named_parameters():
        if id(parameter) in vectors:
            assert torch.equal(parameter, before[key]), key
        else:
            assert float(parameter.norm().detach()) < float(before[key].norm()), key


# Steps


def adamw_by_hand(w: Tensor, gradients: list[Tensor], decay: float, rates: list[float]) -> Tensor:
    """Loshchilov & Hutter 2019, algorithm 2, with betas of 0.8 and 0.9."""
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        w = w - lr * (m / (1 - 0.8**t) / ((v / (1 - 0.9**t)).sqrt() + 1e-8) + decay * w)
    return w


def adam_by_hand(w: Tensor, gradients: list[Tensor], decay: float, rates: list[float]) -> Tensor:
    """Kingma & Ba 2015, algorithm 1, with L2 regularisation in the gradient."""
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        g = g + decay * w
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        w = w - lr * (m / (1 - 0.8**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-8)
    return w


def sgd_by_hand(w: Tensor, gradients: list[Tensor], decay: float, rates: list[float]) -> Tensor:
    velocity = torch.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        velocity = 0.9 * velocity + g + decay * w
        w = w - lr * velocity
    return w


def rmsprop_by_hand(w: Tensor, gradients: list[Tensor], decay: float, rates: list[float]) -> Tensor:
    """Tieleman & Hinton 2012: divide by a running root mean square."""
    v = torch.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        g = g + decay * w
        v = 0.8 * v + 0.2 * g**2
        w = w - lr * g / (v.sqrt() + 1e-5)
    return w


def adagrad_by_hand(w: Tensor, gradients: list[Tensor], decay: float, rates: list[float]) -> Tensor:
    """Duchi, Hazan & Singer 2011: divide by the root of the sum of squares."""
    total = torch.full_like(w, 0.5)
    for g, lr in zip(gradients, rates, strict=True):
        g = g + decay * w
        total = total + g**2
        w = w - lr * g / total.sqrt()
    return w


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("adamw", adamw_by_hand),
        ("adam", adam_by_hand),
        ("sgd", sgd_by_hand),
        ("rmsprop", rmsprop_by_hand),
        ("adagrad", adagrad_by_hand),
    ],
)
def test_steps_are_the_papers(name: str, by_hand: Callable[..., Tensor]) -> None:
    """Four steps with given gradients and a falling rate; matrices decay, vectors do not."""
    model = tiny_gpt(bias=True, tie_embeddings=False).double()
    roles = parameter_roles(model)
    vectors = {id(p) for p in roles["vector"]}
    factors = [1.0, 0.7, 0.4, 0.1]
    draw = torch.Generator().manual_seed(1)
    gradients = {
        key: [torch.randn(p.shape, generator=draw, dtype=torch.float64) for _ in factors]
        for key, p in model.named_parameters()
    }
    expected = {
        key: by_hand(
            p.detach().clone(), gradients[key], 0.0 if id(p) in vectors else 0.1, [0.01 * f for f in factors]
        )
        for key, p in model.named_parameters()
    }
    optimizers = Optimizers(CONFIGS[name], model)
    for t, factor in enumerate(factors):
        optimizers.set_factor(factor)
        for key, p in model.named_parameters():
            p.grad = gradients[key][t]
        optimizers.step(NO_SCALING)
        optimizers.zero_grad()
        assert all(p.grad is None for p in model.parameters())
    for key, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), expected[key], rtol=1e-7, atol=1e-9)


def test_nesterov() -> None:
    model = tiny_gpt().double()
    matrix = model.blocks[0].mlp.fc.weight
    before = matrix.detach().clone()
    config = SGDConfig(name="sgd", lr=0.1, momentum=0.9, nesterov=True)
    optimizers = Optimizers(config, model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizers.step(NO_SCALING)
    # The first step looks ahead by the momentum: g + 0.9 g.
    torch.testing.assert_close(matrix.detach(), before - 0.1 * 1.9)


def test_muon_gets_the_matrices_of_the_body_alone() -> None:
    model = tiny_gpt(bias=True, tie_embeddings=False)
    muon, adamw = Optimizers(CONFIGS["muon"], model).parts
    assert type(muon) is torch.optim.Muon
    assert isinstance(adamw, torch.optim.AdamW)
    held = {id(p) for group in muon.param_groups for p in group["params"]}
    wanted = {
        id(layer.weight)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name != "head"
    }
    assert held == wanted
    assert [group["lr"] for group in muon.param_groups] == [0.01]
    assert {group["lr"] for group in adamw.param_groups} == {0.005}


def test_muon_takes_steps_that_are_nearly_orthogonal() -> None:
    """Whatever the gradient's singular values are, the step's are near 1, in the gradient's directions."""
    torch.manual_seed(0)
    model = tiny_gpt(n_embd=32, n_head=2)
    config = MuonConfig(name="muon", lr=0.01, weight_decay=0.0)
    matrices = parameter_roles(model)["matrix"]
    before = [p.detach().clone() for p in matrices]
    polar = []
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for p in matrices:
        rows, columns = p.shape
        left = torch.linalg.qr(torch.randn(rows, min(rows, columns))).Q
        right = torch.linalg.qr(torch.randn(columns, min(rows, columns))).Q
        polar.append(left @ right.T)
        p.grad = left @ torch.logspace(0, -1.5, min(rows, columns)).diag() @ right.T
    Optimizers(config, model).step(NO_SCALING)
    for p, old, orthogonal in zip(matrices, before, polar, strict=True):
        step = (old - p.detach()) / 0.01
        rows, columns = p.shape
        step = step / max(1, rows / columns) ** 0.5  # Muon's own scale for tall matrices
        values = torch.linalg.svdvals(step)
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.4
        alignment = float((step * orthogonal).sum() / step.norm() / orthogonal.norm())
        assert alignment > 0.95


def test_muon_needs_matrices() -> None:
    with pytest.raises(UserError, match="optimizer=muon needs a model with matrices"):
        Optimizers(CONFIGS["muon"], nn.Sequential(nn.Embedding(3, 2), nn.LayerNorm(2)))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_loaded_state_goes_on_alike(name: str) -> None:
    """Two steps, save, load into fresh optimizers, one step: bitwise the third step of the first."""

    def step(model: GPT, optimizers: Optimizers, t: int) -> None:
        draw = torch.Generator().manual_seed(t)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=draw)
        optimizers.set_factor(1 / (t + 1))
        optimizers.step(NO_SCALING)

    one, other = tiny_gpt(), tiny_gpt()
    optimizers = Optimizers(CONFIGS[name], one)
    for t in range(2):
        step(one, optimizers, t)
    other.load_state_dict(one.state_dict())
    later = Optimizers(CONFIGS[name], other)
    later.load_state(deepcopy(optimizers.state()))  # as from a file: sharing no tensors
    step(one, optimizers, 2)
    step(other, later, 2)
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


@pytest.mark.parametrize("name", CONFIGS)
def test_first_steps_scale_with_the_factor_of_a_pattern(name: str) -> None:
    """The last pattern that matches decides; what no pattern matches moves as without."""
    scales = {"blocks.*": 0.5, "blocks.1.*": 0.1, "embedding.weight": 0.0}

    def steps(lr_scale: dict[str, float]) -> dict[str, Tensor]:
        model = tiny_gpt(bias=True, tie_embeddings=False).double()
        before = {key: p.detach().clone() for key, p in model.named_parameters()}
        optimizers = Optimizers(replace(CONFIGS[name], lr_scale=lr_scale), model)
        held = [id(p) for part in optimizers.parts for group in part.param_groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in model.parameters())
        draw = torch.Generator().manual_seed(1)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=draw, dtype=torch.float64)
        optimizers.set_factor(0.7)
        optimizers.step(NO_SCALING)
        return {key: p.detach() - before[key] for key, p in model.named_parameters()}

    plain, scaled = steps({}), steps(scales)
    for key, step in plain.items():
        factor = next((f for pattern, f in reversed(scales.items()) if fnmatch(key, pattern)), 1.0)
        torch.testing.assert_close(scaled[key], factor * step, rtol=1e-6, atol=1e-12)
        assert float(step.abs().max()) > 0


def test_frozen_parameters_are_moved_by_no_optimizer() -> None:
    for name, config in CONFIGS.items():
        model = tiny_gpt(bias=True, tie_embeddings=False)
        freeze(model, ["blocks.*"] if name != "muon" else ["blocks.0.*", "embedding*", "*head*"])
        optimizers = Optimizers(config, model)
        held = {id(p) for part in optimizers.parts for group in part.param_groups for p in group["params"]}
        assert held == {id(p) for p in model.parameters() if p.requires_grad}


# Schedules


def factor(name: str, step: int, total: int, lr: float = 1.0, **options: Any) -> float:
    """The factor at `step` of `total`, with progress counted as its definition says."""
    config = SchedulerConfig(name=name, **options)
    progress = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    return lr_factor(registry.load("scheduler", name), config, lr, step, progress)


SCHEDULES = ("constant", "linear", "cosine", "inverse_sqrt", "wsd")


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_is_a_straight_line(name: str) -> None:
    factors = [factor(name, step, 100, warmup_steps=4, min_lr=0.1) for step in range(4)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factor(name, 4, 100, warmup_steps=4) == pytest.approx(1, abs=0.12)  # and no jump after it


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("constant", {10: 1, 60: 1, 110: 1}),
        ("linear", {10: 1, 35: 0.8, 60: 0.6, 85: 0.4, 110: 0.2}),
        (
            "cosine",
            {10: 1, 35: 0.6 + 0.4 * math.sqrt(0.5), 60: 0.6, 85: 0.6 - 0.4 * math.sqrt(0.5), 110: 0.2},
        ),
        ("inverse_sqrt", {39: 0.5, 89: 1 / 3, 159: 0.25, 10_000: 0.2}),
        ("wsd", {10: 1, 60: 1, 84: 1, 85: 1, 90: 0.84, 100: 0.52, 110: 0.2}),
    ],
)
def test_points_on_paper(name: str, points: dict[int, float]) -> None:
    """Ten steps of warm-up, a hundred after it, from 5e-4 to 1e-4: a floor of 0.2."""
    for step, expected in points.items():
        got = factor(name, step, 110, lr=5e-4, warmup_steps=10, min_lr=1e-4, decay_fraction=0.25)
        assert got == pytest.approx(expected, abs=1e-9), step


def test_beyond_the_end_the_floor_stays() -> None:
    for name in ("linear", "cosine", "wsd"):
        assert factor(name, 500, 100, min_lr=0.3) == pytest.approx(0.3)


def test_wsd_without_a_decay_is_constant() -> None:
    assert [factor("wsd", step, 10, decay_fraction=0.0) for step in (0, 5, 9, 10)] == [1, 1, 1, 1]
    assert factor("wsd", 5, 10, decay_fraction=1.0) == pytest.approx(factor("linear", 5, 10))


@given(
    name=st.sampled_from(SCHEDULES),
    total=st.integers(1, 5000),
    fraction=st.floats(0, 1.1),
    warmup=st.integers(0, 6000),
    floor=st.floats(0, 1),
    lr=st.floats(1e-6, 10),
    decay_fraction=st.floats(0, 1),
)
def test_factors_stay_between_the_floor_and_one(
    name: str, total: int, fraction: float, warmup: int, floor: float, lr: float, decay_fraction: float
) -> None:
    options = {"warmup_steps": warmup, "min_lr": floor * lr, "decay_fraction": decay_fraction}
    step = int(fraction * total)
    now, later = (factor(name, t, total, lr, **options) for t in (step, step + 1))
    assert now <= 1 + 1e-9
    if step < warmup:
        assert 0 < now <= 1
    else:
        assert now >= floor - 1e-9
        assert later <= now + 1e-9  # after the warm-up no schedule rises


def test_each_group_keeps_its_own_rate_under_a_schedule() -> None:
    optimizers = Optimizers(CONFIGS["muon"], tiny_gpt(bias=True))
    for value in (0.5, 0.1):  # not multiplied up over the steps
        optimizers.set_factor(value)
        rates = [group["lr"] for part in optimizers.parts for group in part.param_groups]
        assert rates == pytest.approx([0.01 * value, 0.005 * value, 0.005 * value])
