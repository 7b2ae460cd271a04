"""N-gram embeddings: the hash by Python's own integers, the sums by hand, and a GPT that reads them."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from seqexp.config.model import GPTConfig
from seqexp.errors import UserError
from seqexp.models.gpt import GPT
from seqexp.models.ngrams import NGramEmbedding, ngram_slots
from seqexp.training.optimizers import parameter_roles

V = 11


def random_tokens(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def slot_by_hand(ngram: list[int], slots: int) -> int:
    """The last token first; -1 stands for nothing."""
    key = 0
    for token in reversed(ngram):
        key = (key * 1_000_003 + token + 1) % (2**31 - 1)
    return (key ^ (key >> 15)) % slots


@pytest.mark.parametrize("sizes", [(2,), (3, 4, 5), (5, 2)])
@pytest.mark.parametrize("length", [1, 3, 9])
def test_slots_by_hand(sizes: tuple[int, ...], length: int) -> None:
    tokens = random_tokens(3, length)
    found = ngram_slots(tokens, sizes, 1000)
    assert found.shape == (3, length, len(sizes))
    for row, t, (place, n) in itertools.product(range(3), range(length), enumerate(sizes)):
        before = [-1] * n + tokens[row].tolist()
        assert int(found[row, t, place]) == slot_by_hand(before[t + 1 : t + 1 + n], 1000)


def test_large_token_numbers_do_not_overflow() -> None:
    tokens = torch.tensor([[2**31 - 2, 2**40, 250_000, 3]])
    assert ngram_slots(tokens, (4,), 2**20)[0, -1].tolist() == [slot_by_hand(tokens[0].tolist(), 2**20)]


def test_few_ngrams_share_a_slot() -> None:
    """All 13,310 trigrams that end with one of ten tokens: as many slots as by chance, and not a pattern."""
    trigrams = torch.tensor(list(itertools.product(range(V), range(V), range(V), range(10))))
    slots = 2**16
    used = len(ngram_slots(trigrams, (4,), slots)[:, -1, 0].unique())
    expected = slots * (1 - (1 - 1 / slots) ** len(trigrams))
    assert used == pytest.approx(expected, rel=0.02)


def test_nothing_before_the_beginning_is_no_token() -> None:
    alone, after = (
        ngram_slots(torch.tensor([[4]]), (2,), 10**6),
        ngram_slots(torch.tensor([[0, 4]]), (2,), 10**6),
    )
    assert alone[0, 0] != after[0, 1]


def test_embedding_is_the_projection_of_its_rows() -> None:
    torch.manual_seed(0)
    layer = NGramEmbedding((2, 4), slots=50, width=3, n_embd=7)
    tokens = random_tokens(2, 6)
    found = layer(tokens)
    assert found.shape == (2, 6, 7)
    places = ngram_slots(tokens, (2, 4), 50)
    weights = layer.mix.weight.T
    for row, t in itertools.product(range(2), range(6)):
        rows = [table.weight[places[row, t, i]] for i, table in enumerate(layer.tables)]
        by_hand = rows[0] @ weights[:3] + rows[1] @ weights[3:]
        torch.testing.assert_close(found[row, t], by_hand)


def gpt(**options: Any) -> GPT:
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 8, "ngrams": [2, 4], "ngram_slots": 40, "ngram_width": 3}
    model = GPT(V, 8, **{**sizes, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)
    return model.eval()


def test_a_gpt_adds_them_to_its_tokens() -> None:
    """The model is the one without n-grams, were its token embeddings those sums."""
    model, plain = gpt(), gpt(ngrams=[])
    own = model.state_dict()
    plain.load_state_dict({name: value for name, value in own.items() if not name.startswith("ngrams")})
    tokens = random_tokens(2, 8)
    assert model.ngrams is not None
    sums = model.embedding(tokens) + model.ngrams(tokens)
    plain.embedding.register_forward_hook(lambda *_: sums)
    torch.testing.assert_close(model(tokens), plain(tokens))


def test_a_later_token_never_changes_earlier_logits() -> None:
    model, tokens = gpt(), random_tokens(1, 8)
    before = model(tokens)
    for place in range(8):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % V
        difference = (model(changed) - before).abs().amax(dim=-1)[0].detach()
        assert float(difference[:place].max() if place else 0.0) < 1e-6
        assert float(difference[place:].min()) > 1e-4


def test_sizes_and_roles() -> None:
    model = gpt()
    counts = model.parameter_counts()
    assert counts["ngrams"] == 2 * 40 * 3 + 2 * 3 * 8
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    roles = parameter_roles(model)
    assert model.ngrams is not None
    tables = {id(table.weight) for table in model.ngrams.tables}
    assert tables <= {id(parameter) for parameter in roles["embedding"]}
    assert any(parameter is model.ngrams.mix.weight for parameter in roles["matrix"])


def test_only_what_was_read_learns() -> None:
    model, tokens = gpt(), random_tokens(2, 8)
    model(tokens).square().mean().backward()
    assert model.ngrams is not None
    places = ngram_slots(tokens, (2, 4), 40)
    for i, table in enumerate(model.ngrams.tables):
        assert isinstance(table, torch.nn.Embedding)
        assert table.weight.grad is not None
        moved = set(table.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist())
        assert moved == set(places[..., i].flatten().tolist())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"ngrams": [1]}, "model.ngrams=[1]"),
        ({"ngrams": [3, 3]}, "model.ngrams=[3, 3]"),
        ({"ngrams": [17]}, "from 2 to 16"),
        ({"ngram_slots": 0}, "model.ngram_slots"),
        ({"ngram_width": 0}, "model.ngram_width"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named.replace("[", r"\[").replace("]", r"\]")):
        GPTConfig(max_len=8, **options)
