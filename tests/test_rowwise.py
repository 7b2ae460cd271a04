"""Updates of embeddings that touch only the rows of the batch, against the usual ones and by hand."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqexp.config.optimizer import AdamConfig, MuonConfig, RMSpropConfig, SGDConfig
from seqexp.errors import UserError
from seqexp.models.fasttext_bag import FastTextBag
from seqexp.models.gpt import GPT
from seqexp.models.textcnn import TextCNN
from seqexp.training.optimizers import Optimizers
from seqexp.training.rowwise import clip, gradients, use_sparse_gradients

pytestmark = pytest.mark.usefixtures("one_thread")

NO_SCALING = torch.amp.GradScaler("cpu", enabled=False)
V, D = 7, 4
CONFIGS: dict[str, Any] = {
    "adamw": AdamConfig("adamw", lr=0.1, weight_decay=0.2),
    "adam": AdamConfig("adam", lr=0.1, weight_decay=0.2),
    "sgd": SGDConfig("sgd", lr=0.1, momentum=0.0),
    "sgd with momentum": SGDConfig("sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.2),
    "rmsprop": RMSpropConfig("rmsprop", lr=0.1, momentum=0.5),
    "muon": MuonConfig("muon", lr=0.1, adamw_lr=0.1, weight_decay=0.2),
}


class Words(nn.Module):
    """Word embeddings, a matrix, and an output layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(V, D)
        self.body = nn.Linear(D, D)
        self.head = nn.Linear(D, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.embedding(tokens)).tanh().mean(dim=1))
        return logits


def pair(name: str) -> list[tuple[Words, Optimizers]]:
    """Equal models with usual and with sparse gradients."""
    found = []
    for choice in ("false", "true"):
        model, config = Words(), copy.deepcopy(CONFIGS[name])
        config.sparse_embeddings = choice
        found.append((model, Optimizers(config, model)))
    return found


def backward(model: nn.Module, tokens: Tensor) -> list[Tensor]:
    F.cross_entropy(model(tokens), torch.arange(len(tokens)) % 2).backward()
    return gradients(model)


def step(model: nn.Module, optimizers: Optimizers, tokens: Tensor) -> None:
    backward(model, tokens)
    optimizers.step(NO_SCALING)
    optimizers.zero_grad()


@pytest.mark.parametrize("name", CONFIGS)
def test_with_all_rows_in_every_batch_nothing_changes(name: str) -> None:
    (dense, usual), (sparse, rowwise) = pair(name)
    assert usual.sparse == []
    assert rowwise.sparse == ["embedding.weight"]
    for number in range(5):
        everything = torch.stack([torch.randperm(V) for _ in range(3)]) if number else torch.arange(V)[None]
        step(dense, usual, everything)
        step(sparse, rowwise, everything)
    for one, other in zip(dense.parameters(), sparse.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_that_no_batch_reads_do_not_move(name: str) -> None:
    _, (model, optimizers) = pair(name)
    step(model, optimizers, torch.arange(V)[None])
    before = model.embedding.weight.detach().clone()
    states = [part.state.get(model.embedding.weight, {}) for part in optimizers.parts]
    kept = [
        {key: value.clone() for key, value in state.items() if value.shape == before.shape}
        for state in states
    ]
    step(model, optimizers, torch.tensor([[1, 4, 4], [4, 1, 1]]))
    moved = (model.embedding.weight != before).any(dim=1)
    assert moved.tolist() == [row in (1, 4) for row in range(V)]
    assert any(kept) == (name != "sgd")
    for state, old in zip(states, kept, strict=True):
        for key, value in old.items():
            assert (state[key] != value).any(dim=1).tolist() == moved.tolist(), key


def test_adamw_on_a_row_in_closed_form() -> None:
    """A row that is read at steps 1 and 4 of four: moments do not decay between, bias correction does."""
    table = nn.Embedding(3, 1)
    table.weight.detach().fill_(1.0)
    config = AdamConfig("adamw", lr=0.1, weight_decay=0.5, betas=[0.9, 0.99], sparse_embeddings="true")
    optimizers = Optimizers(config, table)
    for row in (0, 1, 1, 0):
        (3 * table(torch.tensor([row]))).sum().backward()
        optimizers.step(NO_SCALING)
        optimizers.zero_grad()
    w, m, v = 1.0, 0.0, 0.0
    for t in (1, 4):
        w -= 0.1 * 0.5 * w
        m, v = 0.9 * m + 0.1 * 3, 0.99 * v + 0.01 * 9
        w -= 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.99**t)) + 1e-8)
    assert table.weight[0].item() == pytest.approx(w, rel=1e-6)
    assert table.weight[2].item() == 1.0


def test_norm_and_clipping_are_those_of_the_whole_gradient() -> None:
    """Also where a row is read twice, whose gradients add up, and with micro-batches."""
    (dense, _), (sparse, _) = pair("adam")
    tokens = torch.tensor([[1, 4, 4], [4, 1, 1], [5, 5, 0]])
    both = [backward(model, tokens) for model in (dense, sparse)]
    both = [backward(model, tokens[:2]) for model in (dense, sparse)]
    assert sparse.embedding.weight.grad is not None
    assert sparse.embedding.weight.grad.is_sparse
    norms = [nn.utils.get_total_norm(some) for some in both]
    torch.testing.assert_close(norms[0], norms[1])
    for model, some, norm in zip((dense, sparse), both, norms, strict=True):
        clip(some, 0.3 * float(norm), norm)
        whole = [one.grad.to_dense() for one in model.parameters() if one.grad is not None]
        torch.testing.assert_close(nn.utils.get_total_norm(whole), 0.3 * norm)
    torch.testing.assert_close(dense.embedding.weight.grad, sparse.embedding.weight.grad.to_dense())


def test_clipping_is_pytorchs() -> None:
    for most in (0.5, 1e9):
        model = Words()
        found = backward(model, torch.arange(V)[None])
        wanted = [one.clone() for one in found]
        stand_ins = [nn.Parameter(one) for one in wanted]
        for one in stand_ins:
            one.grad = one.detach()
        norm = nn.utils.get_total_norm(found)
        clip(found, most, norm)
        nn.utils.clip_grads_with_norm_(stand_ins, most, norm)
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_state_does_not_depend_on_the_way(name: str) -> None:
    """A run goes on exactly from its state, and with the other kind of update too."""
    (_, usual), (model, optimizers) = pair(name)
    step(model, optimizers, torch.tensor([[1, 4]]))
    weights, state = copy.deepcopy((model.state_dict(), optimizers.state()))
    step(model, optimizers, torch.tensor([[4, 2]]))
    _, (again, resumed) = pair(name)
    resumed.load_state(copy.deepcopy(state))
    again.load_state_dict(weights)
    resumed.set_factor(1.0)
    step(again, resumed, torch.tensor([[4, 2]]))
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    usual.load_state(state)


def test_the_learning_rate_of_an_embedding_can_be_scaled() -> None:
    model = Words()
    before = model.embedding.weight.detach().clone()
    config = SGDConfig("sgd", lr=0.1, momentum=0.0, lr_scale={"embedding.*": 5.0}, sparse_embeddings="true")
    optimizers = Optimizers(config, model)
    backward(model, torch.tensor([[1, 4]]))
    assert model.embedding.weight.grad is not None
    gradient = model.embedding.weight.grad.to_dense()
    optimizers.step(NO_SCALING)
    torch.testing.assert_close(model.embedding.weight.detach(), before - 0.5 * gradient)


def test_a_scaled_gradient_that_overflows_is_skipped() -> None:
    _, (model, optimizers) = pair("adamw")
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = model.embedding.weight.detach().clone()
    for factor, moves in ((math.inf, False), (1.0, True)):
        scaler.scale(factor * model(torch.tensor([[1, 4]])).sum()).backward()
        for part in optimizers.parts:
            scaler.unscale_(part)
        gradients(model)
        optimizers.step(scaler)
        scaler.update()
        optimizers.zero_grad()
        assert torch.equal(model.embedding.weight, before) != moves


def test_which_models_have_sparse_gradients() -> None:
    auto = AdamConfig("adamw")
    assert Optimizers(auto, FastTextBag(V, 2)).sparse == ["embedding.weight"]
    assert Optimizers(auto, TextCNN(V, 2, channels="multichannel")).sparse == ["embeddings.trained.weight"]
    assert Optimizers(auto, TextCNN(V, 2, channels="static")).sparse == []
    assert Optimizers(auto, Words()).sparse == []
    frozen = FastTextBag(V, 2)
    frozen.embedding.weight.requires_grad_(False)
    assert Optimizers(auto, frozen).sparse == []


def test_a_tied_embedding_is_refused() -> None:
    model = GPT(V, 8, n_layer=1, n_head=1, n_embd=4, positions="rotary")
    assert Optimizers(AdamConfig("adamw"), model).sparse == []
    with pytest.raises(UserError, match=r"tied to the output layer; the model has embedding\.weight"):
        Optimizers(AdamConfig("adamw", sparse_embeddings="true"), model)


def test_an_optimizer_that_steps_on_whole_tables_gets_whole_gradients() -> None:
    model = nn.Embedding(V, D)
    part = torch.optim.Adagrad(model.parameters())
    with pytest.raises(UserError, match="sparse_embeddings"):
        use_sparse_gradients(model, "true", [part])
    assert not model.sparse


@pytest.mark.parametrize("n_gram", [1, 3])
def test_the_gradient_of_a_bag_is_pytorchs(n_gram: int) -> None:
    torch.manual_seed(0)
    model = FastTextBag(V, 2, D, n_gram, buckets=5)
    nn.init.normal_(model.head.weight)
    tokens, lengths = torch.randint(V, (5, 6)), torch.tensor([6, 1, 2, 4, 3])
    table = model.embedding.weight.detach().clone().requires_grad_()
    total = torch.zeros(5, D)
    count = torch.zeros(5, 1)
    for rows, whole in model.features(tokens, lengths):
        total = total + (F.embedding(rows, table) * whole[:, :, None]).sum(dim=1)
        count = count + whole.sum(dim=1, keepdim=True)
    logits = total / count @ model.head.weight.T
    (wanted,) = torch.autograd.grad(logits.square().sum(), table)
    for sparse in (False, True):
        model.embedding.sparse = sparse
        (found,) = torch.autograd.grad(model(tokens, lengths).square().sum(), model.embedding.weight)
        assert found.is_sparse == sparse
        torch.testing.assert_close(found.to_dense(), wanted)


@pytest.mark.parametrize("channels", ["static", "non_static", "multichannel"])
def test_textcnn_trains_on_what_it_evaluates(channels: str) -> None:
    """In training the filters read each distinct word once."""
    torch.manual_seed(0)
    model = TextCNN(V, 2, D, 3, [2, 3], dropout=0.0, channels=channels)
    tokens, lengths = torch.randint(V, (5, 6)), torch.tensor([6, 1, 2, 4, 3])
    found = [model.train(mode)(tokens, lengths) for mode in (True, False)]
    torch.testing.assert_close(*found)
