"""Models that classify texts, and the task's loss, against loops and PyTorch's own layers."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from translation_models import POSITIONS, close, random_tokens, wild

from seqexp.config.classification import POOLINGS, ClassificationConfig
from seqexp.data.batch import Batch
from seqexp.models.bert import Bert
from seqexp.models.fasttext_bag import FastTextBag
from seqexp.models.gpt import GPT
from seqexp.models.recurrent_encoder import LAYERS, RecurrentEncoder
from seqexp.models.rnn import GRU, LSTM, RNN
from seqexp.models.textcnn import TextCNN
from seqexp.models.textcnn_options import CHANNELS
from seqexp.tasks.classification import Classification, pool

pytestmark = pytest.mark.usefixtures("one_thread")

V, C, D = 11, 3, 6
LENGTHS = (7, 1, 4, 2)


def task_of(**options: Any) -> Classification:
    return Classification(ClassificationConfig(**options))


def texts(*lengths: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, T) with garbage after each text, and the lengths."""
    return random_tokens(V, len(lengths), max(lengths)), torch.tensor(lengths)


def batch_of(tokens: Tensor, lengths: Tensor, labels: Tensor | None = None) -> Batch:
    labels = torch.arange(len(tokens)) % C if labels is None else labels
    counts = torch.ones(len(tokens), dtype=torch.long).numpy()
    return Batch({"tokens": tokens, "labels": labels}, counts, {"tokens": lengths})


def gradients(loss: Tensor, model: nn.Module) -> tuple[Tensor, ...]:
    """Of all that is trained; zeros where the loss does not depend on it."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)


# Padding and the order of texts

ENCODERS = list(itertools.product(POSITIONS, ("pre", "post")))
Kind = tuple[type[nn.Module], dict[str, Any]]
MODELS: dict[str, Kind] = {
    **{f"textcnn {kind}": (TextCNN, {"n_embd": D, "n_filter": 4, "channels": kind}) for kind in CHANNELS},
    "fasttext_bag": (FastTextBag, {"n_embd": D, "n_gram": 3, "buckets": 50}),
    **{
        f"bert {positions} {norm}": (
            Bert,
            {"n_layer": 2, "n_head": 2, "n_embd": 8, "positions": positions, "norm": norm, "max_len": 20},
        )
        for positions, norm in ENCODERS
    },
    **{
        f"birnn {cell}": (RecurrentEncoder, {"cell": cell, "hidden_size": 5, "n_layer": 2, "n_embd": D})
        for cell in LAYERS
    },
    "gpt": (GPT, {"max_len": 20, "n_layer": 2, "n_head": 2, "n_embd": 8}),
    **{
        kind.__name__.lower(): (kind, {"hidden_size": 5, "n_layer": 2, "n_embd": D})
        for kind in (RNN, LSTM, GRU)
    },
}
# What makes outputs at every token, and so goes with every pooling.
POOLED = [name for name in MODELS if not name.startswith(("textcnn", "fasttext"))]
CASES = [(name, "mean") for name in MODELS] + [
    (name, pooling) for name in POOLED for pooling in POOLINGS if pooling != "mean"
]


def make(name: str, pooling: str = "mean") -> Any:
    torch.manual_seed(0)
    kind, options = MODELS[name]
    return wild(kind(vocab_size=V, n_outputs=C + (pooling == "attention"), **options))


@pytest.mark.parametrize(("name", "pooling"), CASES, ids=map("-".join, CASES))
def test_padding_and_the_order_of_texts_change_nothing(name: str, pooling: str) -> None:
    """In logits and gradients: texts in one batch, with other padding, in another order, and each alone."""
    task, model = task_of(pooling=pooling), make(name, pooling)
    tokens, lengths = texts(*LENGTHS)
    labels = torch.tensor([2, 0, 1, 1])

    def run(rows: list[int], garbage: int, more: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        some = F.pad(tokens[rows], (0, more), value=1)
        real = torch.arange(some.shape[1]) < lengths[rows, None]
        some = torch.where(real, some, (some + garbage) % V)[:, : max(lengths[rows]) + more]
        batch = batch_of(some, lengths[rows], labels[rows])
        return task._logits(model, batch), gradients(task.loss(model, batch).loss_sum, model)

    logits, grads = run([0, 1, 2, 3], 0, 0)
    assert logits.shape == (4, C)
    assert logits.std(dim=0).min() > 1e-4
    for garbage, more in ((3, 0), (5, 4)):
        other, other_grads = run([0, 1, 2, 3], garbage, more)
        close(other, logits, 1e-6)
        close(other_grads, grads, 1e-6)
    order = [2, 3, 0, 1]
    other, other_grads = run(order, 2, 1)
    close(other, logits[order], 1e-6)
    close(other_grads, grads, 1e-6)
    alone = [run([row], 4, row) for row in range(4)]
    close(torch.cat([logits for logits, _ in alone]), logits, 1e-6)
    close(tuple(sum(parts) for parts in zip(*(g for _, g in alone), strict=True)), grads, 1e-6)


# Pooling


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_its_loop(pooling: str) -> None:
    torch.manual_seed(0)
    outputs, lengths = torch.randn(4, 7, C + 1, dtype=torch.float64), torch.tensor(LENGTHS)
    given = outputs if pooling == "attention" else outputs[:, :, :C]
    found, weights = pool(given, lengths, pooling)
    for row, length in enumerate(LENGTHS):
        real = [outputs[row, t, :C] for t in range(length)]
        exps = [math.exp(outputs[row, t, C]) for t in range(length)]
        expected = {
            "mean": sum(real) / length,
            "max": torch.stack([max(column) for column in torch.stack(real, dim=1)]),
            "first": real[0],
            "last": real[-1],
            "attention": sum(e * one for e, one in zip(exps, real, strict=True)) / sum(exps),
        }[pooling]
        close(found[row], expected)
        if weights is not None:
            close(weights[row, :length], torch.tensor(exps, dtype=torch.float64) / sum(exps))
            assert not weights[row, length:].any()
    assert (weights is not None) == (pooling == "attention")
    if weights is not None:
        close(weights.sum(dim=1), torch.ones(4, dtype=torch.float64))


def test_no_pooling_is_the_mean() -> None:
    assert task_of().pooling == task_of(pooling="mean").pooling == "mean"


def test_attention_adds_an_output() -> None:
    from seqexp.data.preprocessor import Preprocessor

    fitted = Preprocessor(labels=("a", "b", "c"))
    assert task_of().sizes(fitted)["n_outputs"] == 3
    assert task_of(pooling="attention").sizes(fitted)["n_outputs"] == 4


# TextCNN


def convolved(model: Any, tokens: list[int]) -> Tensor:
    """The logits of one text: every window that touches it, one by one; zeros beyond its ends."""
    vectors = [sum(e.weight[token] for e in model.embeddings.values()) for token in tokens]
    features = []
    for width, filters in zip(model.widths, model.filters, strict=True):
        found = []
        for first in range(1 - width, len(tokens)):
            response = filters.bias.clone()
            for offset in range(width):
                if 0 <= first + offset < len(tokens):
                    response += filters.weight[:, :, offset] @ vectors[first + offset]
            found.append(response.clamp(min=0))
        features.append(torch.stack(found).max(dim=0).values)
    return model.head.weight @ torch.cat(features) + model.head.bias


@pytest.mark.parametrize("widths", [[3, 4, 5], [1], [2, 7]])
@pytest.mark.parametrize("channels", CHANNELS)
def test_textcnn_is_a_loop_over_windows(channels: str, widths: list[int]) -> None:
    """Also for texts that are shorter than every filter."""
    torch.manual_seed(0)
    model = wild(TextCNN(V, C, D, 4, widths, channels=channels))
    tokens, lengths = texts(9, 1, 2, 5)
    logits = model(tokens, lengths)
    for row, length in enumerate(lengths.tolist()):
        close(logits[row], convolved(model, tokens[row, :length].tolist()))


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_static_embedding_does_not_move(channels: str) -> None:
    """Not by a bit; the trained one does, and both begin as the same."""
    torch.manual_seed(0)
    model: Any = TextCNN(V, C, D, 4, channels=channels)
    before = {name: e.weight.detach().clone() for name, e in model.embeddings.items()}
    assert len(before) == (2 if channels == "multichannel" else 1)
    assert ("static" in before) == (channels != "non_static")
    first, *others = before.values()
    assert all(torch.equal(first, other) for other in others)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        task_of().loss(model, batch_of(*texts(*LENGTHS)), training=True).loss_sum.backward()
        optimizer.step()
    for name, weight in before.items():
        now = model.embeddings[name].weight
        assert torch.equal(now, weight) == (name == "static")
        assert now.requires_grad == (name == "trained")


def test_textcnn_drops_features_in_training_alone() -> None:
    torch.manual_seed(0)
    model = TextCNN(V, C, D, 50, dropout=0.5)
    tokens, lengths = texts(*LENGTHS)
    model.train()
    assert not torch.equal(model(tokens, lengths), model(tokens, lengths))
    model.eval()
    assert torch.equal(model(tokens, lengths), model(tokens, lengths))


# Bag of n-grams


@pytest.mark.parametrize("n_gram", [1, 2, 3, 5])
def test_fasttext_bag_is_a_loop_over_ngrams(n_gram: int) -> None:
    """With the hash in Python's integers, which do not overflow."""
    torch.manual_seed(0)
    vocab_size, buckets = 50_000, 97
    model = wild(FastTextBag(vocab_size, C, D, n_gram, buckets))
    lengths = torch.tensor([8, 1, 2, 4])
    tokens = vocab_size - 1 - random_tokens(1000, 4, 8)
    logits = model(tokens, lengths)
    for row, length in enumerate(lengths.tolist()):
        words, found = tokens[row, :length].tolist(), []
        for n, first in itertools.product(range(1, n_gram + 1), range(length)):
            some = words[first : first + n]
            if len(some) == n:
                hashed = some[0]
                for word in some[1:]:
                    hashed = (hashed * 116_049_371 + word) % 2**31
                found.append(hashed if n == 1 else vocab_size + hashed % buckets)
        mean = torch.stack([model.embedding.weight[number] for number in found]).mean(dim=0)
        close(logits[row], model.head.weight @ mean)


def test_the_order_of_words_matters_to_pairs_alone() -> None:
    torch.manual_seed(0)
    tokens, lengths = torch.tensor([[3, 4, 5, 6], [5, 4, 6, 3]]), torch.tensor([4, 4])
    for n_gram, same in ((1, True), (2, False)):
        first, second = wild(FastTextBag(V, C, D, n_gram, 10_000))(tokens, lengths)
        assert torch.allclose(first, second) == same


def test_a_bag_of_words_has_no_buckets() -> None:
    assert FastTextBag(V, C, D, 1).embedding.num_embeddings == V
    assert FastTextBag(V, C, D, 2, 100).embedding.num_embeddings == V + 100


# Encoders


@pytest.mark.parametrize("positions", POSITIONS)
def test_every_token_reads_all_others(positions: str) -> None:
    """And its place matters."""
    model = make(f"bert {positions} pre")
    tokens, lengths = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([5])
    outputs = model(tokens, lengths)[0]
    changed = tokens.clone()
    for t in (0, 4):
        changed = tokens.clone()
        changed[0, t] = 9
        assert ((model(changed, lengths)[0] - outputs).abs().amax(dim=1) > 1e-4).all()
    swapped = model(tokens[:, [1, 0, 2, 3, 4]], lengths)[0]
    assert not torch.allclose(swapped[[1, 0, 2, 3, 4]], outputs, atol=1e-4)


@pytest.mark.parametrize("cell", LAYERS)
def test_birnn_reads_in_both_directions(cell: str) -> None:
    """Text by text without padding; and by the equations, as it is exported."""
    model: Any = make(f"birnn {cell}")
    tokens, lengths = texts(*LENGTHS)
    outputs = model(tokens, lengths)
    for row, length in enumerate(LENGTHS):
        alone, _ = model.layers(model.embedding(tokens[row, None, :length]))
        close(outputs[row, :length], model.head(alone)[0])
    x = model.embedding(tokens)
    close(model._run_cells(x, lengths), model._run_torch(x, lengths))


# The loss


def test_label_smoothing_is_for_training_alone() -> None:
    model = make("gpt").double()
    batch = batch_of(*texts(*LENGTHS))
    plain, smooth = task_of(), task_of(label_smoothing=0.3)
    logits = smooth._logits(model, batch)
    assert logits.dtype == torch.float32
    log_p = logits.double().log_softmax(dim=1)
    nll = -log_p[torch.arange(4), batch.labels]
    smoothed = 0.7 * nll - 0.3 * log_p.mean(dim=1)
    for task, training, expected in (
        (plain, True, nll), (plain, False, nll), (smooth, True, smoothed), (smooth, False, nll),
    ):  # fmt: skip
        found = task.loss(model, batch, training=training)
        close(found.loss_sum.double(), expected.sum(), 1e-6)
        close(found.nll_sum.double(), nll.sum(), 1e-6)
        assert found.loss_sum.requires_grad
        assert not found.nll_sum.requires_grad


def test_several_labels_are_binary_cross_entropies() -> None:
    """Summed over labels and texts; a text may have none."""
    model = make("fasttext_bag")
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    batch = batch_of(*texts(*LENGTHS), labels)
    p = task_of()._logits(model, batch).detach().double().sigmoid()
    expected = sum(
        -math.log(p[row, label] if labels[row, label] else 1 - p[row, label])
        for row, label in itertools.product(range(4), range(3))
    )
    for training in (True, False):
        found = task_of().loss(model, batch, training=training)
        assert found.loss_sum.item() == pytest.approx(expected, rel=1e-5)
        assert found.nll_sum.item() == pytest.approx(expected, rel=1e-5)
    assert task_of().count(batch) == 4


def test_weights_of_texts_are_for_training_alone() -> None:
    model = make("fasttext_bag")
    tokens, lengths = texts(*LENGTHS)
    plain = batch_of(tokens, lengths)
    weighted = Batch(
        {**plain.tensors, "weights": torch.tensor([2.0, 0, 1, 0.5])}, plain.counts, plain.lengths
    )
    each = [task_of().loss(model, plain.rows(row, row + 1)).nll_sum.item() for row in range(4)]
    found = task_of().loss(model, weighted, training=True)
    assert found.loss_sum.item() == pytest.approx(2 * each[0] + each[2] + 0.5 * each[3])
    assert found.nll_sum.item() == pytest.approx(sum(each))
    assert task_of().loss(model, weighted).loss_sum.item() == pytest.approx(sum(each))


def test_a_class_without_examples_gets_less_likely() -> None:
    """Its gradient is finite, and lowers it for every text."""
    torch.manual_seed(0)
    model = TextCNN(V, C, D, 4)
    batch = batch_of(*texts(*LENGTHS), torch.tensor([0, 1, 1, 0]))
    before = model.eval()(batch.tokens, batch.lengths["tokens"]).softmax(dim=1)[:, 2]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(10):
        optimizer.zero_grad()
        task_of().loss(model, batch, training=True).loss_sum.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
    assert (model(batch.tokens, batch.lengths["tokens"]).softmax(dim=1)[:, 2] < before).all()


@pytest.mark.parametrize("name", MODELS)
def test_micro_batches_have_the_same_gradient(name: str) -> None:
    model, task = make(name), task_of()
    batch = batch_of(*texts(*LENGTHS))
    whole = gradients(task.loss(model, batch, training=True).loss_sum, model)
    pieces = [gradients(task.loss(model, some, training=True).loss_sum, model) for some in batch.split(3)]
    close(tuple(sum(parts) for parts in zip(*pieces, strict=True)), whole, 1e-6)
