"""Every model as a program of `torch.export`: saved, loaded, and run on other batches and lengths."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from translation_models import (
    ATTENTIONS,
    CELLS,
    POSITIONS,
    SOURCE_V,
    TARGET_V,
    make_nmt,
    make_transformer,
    random_tokens,
    wild,
)

from seqexp.models.bert import Bert
from seqexp.models.fasttext import FastText
from seqexp.models.fasttext_bag import FastTextBag
from seqexp.models.glove import GloVe
from seqexp.models.gpt import GPT
from seqexp.models.recurrent_encoder import RecurrentEncoder
from seqexp.models.rnn import GRU, LSTM, RNN, RecurrentNetwork
from seqexp.models.textcnn import TextCNN
from seqexp.models.textcnn_options import CHANNELS
from seqexp.models.word2vec import Word2Vec

pytestmark = pytest.mark.usefixtures("one_thread")

B, S, T = Dim("B", min=1, max=64), Dim("S", min=2, max=64), Dim("T", min=2, max=32)
V = 11


def exported(model: nn.Module, inputs: tuple[Any, ...], dynamic: Any) -> nn.Module:
    """The program, written and read back, as a module."""
    program = torch.export.export(model.eval(), inputs, dynamic_shapes=dynamic, strict=False)
    assert isinstance(program, ExportedProgram)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module()


def same(program: nn.Module, model: nn.Module, *inputs: Any) -> None:
    with torch.no_grad():
        torch.testing.assert_close(program(*inputs), model(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_gpt(positions: str) -> None:
    """Any batch and any length up to its window."""
    torch.manual_seed(0)
    model = wild(GPT(V, 32, 2, 2, 8, dropout=0.1, bias=True, positions=positions), torch.float32)
    program = exported(model, (random_tokens(V, 2, 8),), ({0: B, 1: T},))
    for shape in ((2, 8), (3, 32), (1, 5)):
        same(program, model, random_tokens(V, *shape))


RECURRENT_KINDS: list[tuple[type[RecurrentNetwork], dict[str, Any]]] = [
    (RNN, {"activation": "tanh"}),
    (RNN, {"activation": "sigmoid"}),
    (LSTM, {}),
    (GRU, {}),
]


@pytest.mark.parametrize(("impl", "n_embd"), [("fused", 4), ("fused", 0), ("reference", 4)])
@pytest.mark.parametrize(("kind", "options"), RECURRENT_KINDS, ids=["tanh", "sigmoid", "lstm", "gru"])
def test_a_recurrent_network(
    kind: type[RecurrentNetwork], options: dict[str, Any], impl: str, n_embd: int
) -> None:
    """Any batch of the length that was exported, since the steps are unrolled."""
    torch.manual_seed(0)
    model = kind(V, 6, n_layer=2, n_embd=n_embd, dropout=0.1, impl=impl, **options).eval()
    program = exported(model, (random_tokens(V, 2, 5),), ({0: B},))
    for rows in (2, 7, 1):
        same(program, model, random_tokens(V, rows, 5))


class Step(nn.Module):
    """One step of a recurrent network; its state goes in and comes out."""

    def __init__(self, model: RecurrentNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.model.step(tokens, state)


@pytest.mark.parametrize(("kind", "options"), RECURRENT_KINDS, ids=["tanh", "sigmoid", "lstm", "gru"])
def test_steps_of_a_recurrent_network_read_any_length(
    kind: type[RecurrentNetwork], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model = kind(V, 6, n_layer=2, n_embd=4, **options).eval()
    state = model._zero_state(random_tokens(V, 2, 1))
    program = exported(Step(model), (random_tokens(V, 2, 1), state), ({0: B}, ({1: B},) * len(state)))
    tokens, outputs = random_tokens(V, 3, 9), []
    state = model._zero_state(tokens)
    with torch.no_grad():
        for token in tokens.split(1, dim=1):
            some, state = program(token, state)
            outputs.append(some)
        torch.testing.assert_close(torch.cat(outputs, dim=1), model(tokens), rtol=1e-5, atol=1e-5)


def sentences(rows: int, S: int, T: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sources of different lengths, the first as long as all, and targets."""
    lengths = torch.tensor([S, *(1 + (7 * row) % S for row in range(1, rows))])
    return random_tokens(SOURCE_V, rows, S), lengths, random_tokens(TARGET_V, rows, T, seed=2)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_a_transformer(positions: str, norm: str) -> None:
    """Any batch and any lengths, those beyond learned positions too."""
    model = make_transformer(torch.float32, positions=positions, norm=norm, dropout=0.1)
    program = exported(model, sentences(2, 6, 5), ({0: B, 1: S}, {0: B}, {0: B, 1: T}))
    for shape in ((2, 6, 5), (3, 11, 9), (1, 3, 2)):
        same(program, model, *sentences(*shape))


TRANSLATORS = [
    *({"attention": attention, "input_feeding": attention != "none"} for attention in ATTENTIONS),
    *({"cell": cell, "input_feeding": feeding} for cell in ("rnn", "lstm") for feeding in (True, False)),
    {"cell": "lstm", "impl": "reference", "n_layer": 2},
]


@pytest.mark.parametrize(
    "options",
    [TRANSLATORS[0], *(pytest.param(one, marks=pytest.mark.slow) for one in TRANSLATORS[1:])],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_a_recurrent_translator(options: dict[str, Any]) -> None:
    """Any batch of the lengths that were exported; sentences in it may be shorter."""
    model = make_nmt(torch.float32, **{"n_layer": 1, "dropout": 0.1, **options})
    program = exported(model, sentences(2, 4, 3), ({0: B}, {0: B}, {0: B}))
    for rows in (2, 5, 1):
        same(program, model, *sentences(rows, 4, 3))


@pytest.mark.parametrize("cell", CELLS)
def test_a_translator_that_reverses_its_source(cell: str) -> None:
    model = make_nmt(torch.float32, cell=cell, reverse_source=True, n_layer=1)
    program = exported(model, sentences(2, 4, 3), ({0: B}, {0: B}, {0: B}))
    same(program, model, *sentences(3, 4, 3))


def texts(rows: int, T: int) -> tuple[Tensor, Tensor]:
    """Texts of different lengths, the first as long as all."""
    lengths = torch.tensor([T, *(1 + (7 * row) % T for row in range(1, rows))])
    return random_tokens(V, rows, T), lengths


CLASSIFIERS: list[tuple[type[nn.Module], dict[str, Any]]] = [
    *((TextCNN, {"n_embd": 6, "n_filter": 4, "channels": channels}) for channels in CHANNELS),
    (FastTextBag, {"n_embd": 6, "n_gram": 3, "buckets": 50}),
    *(
        (
            Bert,
            {"n_layer": 2, "n_head": 2, "n_embd": 8, "max_len": 32, "positions": positions},
        )
        for positions in POSITIONS
    ),
]


@pytest.mark.parametrize(("kind", "options"), CLASSIFIERS)
def test_a_classifier(kind: type[nn.Module], options: dict[str, Any]) -> None:
    """Any batch and any length, those shorter than the filters too."""
    torch.manual_seed(0)
    model = wild(kind(V, n_outputs=3, **options), torch.float32)
    program = exported(model, texts(2, 8), ({0: B, 1: T}, {0: B}))
    for shape in ((2, 8), (5, 32), (1, 2)):
        same(program, model, *texts(*shape))


def test_a_network_that_reads_characters() -> None:
    """Any batch of the length that was exported, and words of any length."""
    torch.manual_seed(0)
    model = wild(RecurrentEncoder(V, 3, "lstm", 5, 1, 6, char_embd=4, char_filters=7), torch.float32)
    program = exported(
        model, (*texts(2, 4), words(2, 4, 6)), ({0: B}, {0: B}, {0: B, 2: Dim("W", min=2, max=64)})
    )
    for rows, width in ((2, 6), (5, 2), (1, 20)):
        same(program, model, *texts(rows, 4), words(rows, 4, width))


def words(rows: int, T: int, W: int) -> Tensor:
    """Characters of words of different lengths; the first token of a text has none."""
    lengths = torch.arange(rows * T).view(rows, T, 1) % (W + 1)
    return random_tokens(259, rows, T * W).view(rows, T, W) * (torch.arange(W) < lengths)


@pytest.mark.parametrize("cell", CELLS)
def test_a_network_that_reads_in_both_directions(cell: str) -> None:
    """Any batch of the length that was exported; texts in it may be shorter."""
    torch.manual_seed(0)
    model = wild(RecurrentEncoder(V, 3, cell, 5, 2, 6), torch.float32)
    program = exported(model, texts(2, 4), ({0: B}, {0: B}))
    for rows in (2, 5, 1):
        same(program, model, *texts(rows, 4))


@pytest.mark.parametrize("architecture", ["skipgram", "cbow"])
@pytest.mark.parametrize("kind", [Word2Vec, FastText])
def test_word_vectors(kind: type[Word2Vec], architecture: str) -> None:
    """Any number of examples; FastText's rows of n-grams are looked up before."""
    model = kind([f"word{i}" for i in range(V)], 4, architecture)
    nn.init.normal_(model.output.weight)
    contexts, outputs = random_tokens(V, 2, 4), random_tokens(V, 2, 3)
    contexts[0, 0] = outputs[1, 2] = -1
    program = exported(model, (contexts, outputs), ({0: B}, {0: B}))
    same(program, model, random_tokens(V, 5, 4), random_tokens(V, 5, 3))


def test_glove() -> None:
    model = GloVe([f"word{i}" for i in range(V)], 4)
    program = exported(model, (random_tokens(V, 2, 3)[0], random_tokens(V, 2, 3)[1]), ({0: B}, {0: B}))
    same(program, model, *random_tokens(V, 2, 7))
