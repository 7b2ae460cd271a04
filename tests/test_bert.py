"""BERT against PyTorch's encoder and Hugging Face's models, from the same weights."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from translation_models import POSITIONS, close, random_tokens, wild

from seqexp.models.bert import Bert
from seqexp.models.bert_options import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("one_thread")

V, D, LENGTHS = 23, 8, (7, 1, 4, 2)
NAMES = {"norm1": "norm1", "norm2": "norm2", "mlp.fc": "linear1", "mlp.proj": "linear2",
         "attention.proj": "self_attn.out_proj"}  # fmt: skip


def make(**options: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": V, "max_len": 12, "n_layer": 2, "n_head": 2, "n_embd": D, "ffn_size": 12}
    return wild(Bert(**{**sizes, **options}))


def texts() -> tuple[Tensor, Tensor]:
    return random_tokens(V, len(LENGTHS), max(LENGTHS)), torch.tensor(LENGTHS)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_encoder_is_pytorchs(norm: str, activation: str) -> None:
    """With the same weights, for texts of different lengths; ours has a final norm with pre-norm alone."""
    model = make(norm=norm, activation=activation)
    layer = nn.TransformerEncoderLayer(
        D, 2, 12, 0.0, activation, batch_first=True, norm_first=norm == "pre", dtype=torch.float64
    )
    final = model.norm if norm == "pre" else None
    theirs = nn.TransformerEncoder(layer, 2, final, enable_nested_tensor=False).eval()
    for block, other in zip(model.encoder, theirs.layers, strict=True):
        for ours, name in NAMES.items():
            other.get_submodule(name).load_state_dict(block.get_submodule(ours).state_dict())
        other.self_attn.in_proj_weight.detach().copy_(block.attention.qkv.weight)
        other.self_attn.in_proj_bias.detach().copy_(block.attention.qkv.bias)
    tokens, lengths = texts()
    x = F.embedding(tokens, model.embedding.weight) + model.position_embedding.weight[:7]
    x = F.layer_norm(x, (D,), model.embedding_norm.weight, model.embedding_norm.bias)
    padding = torch.arange(7) >= lengths[:, None]
    expected = theirs(x, src_key_padding_mask=padding)
    close(model.encode(tokens, lengths)[~padding], expected[~padding], 1e-6)


CASES = list(itertools.product(POSITIONS, ("pre", "post"), ACTIVATIONS))


@pytest.mark.parametrize(("positions", "norm", "activation"), CASES)
def test_outputs_at_positions_are_those_of_all(positions: str, norm: str, activation: str) -> None:
    """In logits and in gradients; the last block is computed there alone."""
    bias = activation != "geglu"
    model = make(positions=positions, norm=norm, activation=activation, bias=bias)
    tokens, lengths = texts()
    where = torch.tensor([[0, 3, 6], [0, 0, 0], [3, 1, 1], [1, 0, 0]])
    rows = torch.arange(4)[:, None]
    every, some = model(tokens, lengths)[rows, where], model(tokens, lengths, where)
    assert every.std() > 0.1
    close(some, every, 1e-6)
    weights = torch.randn(every.shape, dtype=torch.float64)
    parameters = list(model.parameters())
    close(
        torch.autograd.grad((some * weights).sum(), parameters),
        torch.autograd.grad((every * weights).sum(), parameters),
        1e-6,
    )


@pytest.mark.parametrize("positions", POSITIONS)
def test_full_rows_need_no_lengths(positions: str) -> None:
    model = make(positions=positions)
    tokens, _ = texts()
    close(model(tokens), model(tokens, torch.full((4,), 7)), 1e-6)


def test_segments_are_added() -> None:
    """Without them every token is of the first text."""
    model = make(n_segment=2)
    tokens, lengths = texts()
    first = torch.zeros_like(tokens)
    close(model(tokens, lengths), model(tokens, lengths, segments=first), 1e-6)
    assert not torch.allclose(model(tokens, lengths), model(tokens, lengths, segments=1 - first), atol=1e-3)


def test_options_that_add_parameters() -> None:
    names = set(make().state_dict())
    assert {name for name in names if name.startswith("head.")} == {
        "head.dense.weight", "head.dense.bias", "head.norm.weight", "head.norm.bias", "head.decoder.weight",
        "head.decoder.bias",
    }  # fmt: skip
    assert make().head.decoder.weight is make().embedding.weight or torch.equal(
        make().head.decoder.weight, make().embedding.weight
    )
    plain = set(make(head_transform=False, embedding_norm=False, positions="rotary").state_dict())
    assert names - plain == {
        "head.dense.weight", "head.dense.bias", "head.norm.weight", "head.norm.bias",
        "embedding_norm.weight", "embedding_norm.bias", "position_embedding.weight",
    }  # fmt: skip
    assert set(make(n_outputs=3, pooler=True).state_dict()) - names == {
        "head.weight", "head.bias", "pooler.weight", "pooler.bias",
    }  # fmt: skip
    assert not [name for name in make(bias=False, norm="pre").state_dict() if name.endswith("qkv.bias")]


def test_the_parameters_of_a_course_are_counted_by_hand() -> None:
    """BERT-base has 110 million: 23.8 of words and positions, 12 layers of 7.09, and the head."""
    with torch.device("meta"):
        model = Bert(30_522, 512, 12, 12, 768, n_segment=2)
    D = 768
    layer = 4 * D * D + 4 * D + 8 * D * D + 5 * D + 4 * D
    counts = model.parameter_counts()
    assert counts["encoder"] == 12 * layer == 85_054_464
    assert counts["embedding"] == 30_522 * D
    assert counts["positions"] + counts["segments"] == 514 * D
    assert counts["head"] == D * D + D + 2 * D + 30_522
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters()) == 109_514_298


def their_weights(theirs: Any, prefix: str, offset: int) -> dict[str, Tensor]:
    """The weights of Hugging Face's BERT or RoBERTa by our names; `offset` is the first position."""
    given = {name.removeprefix(f"{prefix}."): weight for name, weight in theirs.state_dict().items()}
    embeddings = {
        "embedding.weight": given["embeddings.word_embeddings.weight"],
        "position_embedding.weight": given["embeddings.position_embeddings.weight"][offset:],
        "segment_embedding.weight": given["embeddings.token_type_embeddings.weight"],
        "embedding_norm.weight": given["embeddings.LayerNorm.weight"],
        "embedding_norm.bias": given["embeddings.LayerNorm.bias"],
    }
    layers: dict[str, Tensor] = {}
    names = {
        "attention.proj": "attention.output.dense", "norm1": "attention.output.LayerNorm",
        "mlp.fc": "intermediate.dense", "mlp.proj": "output.dense", "norm2": "output.LayerNorm",
    }  # fmt: skip
    for i, kind in itertools.product(range(2), ("weight", "bias")):
        source, target = f"encoder.layer.{i}", f"encoder.{i}"
        parts = [given[f"{source}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
        layers[f"{target}.attention.qkv.{kind}"] = torch.cat(parts)
        for ours, name in names.items():
            layers[f"{target}.{ours}.{kind}"] = given[f"{source}.{name}.{kind}"]
    return embeddings | layers


def head_weights(dense: Any, norm: Any, decoder: Any) -> dict[str, Tensor]:
    parts = {"dense": dense, "norm": norm, "decoder": decoder}
    return {f"head.{ours}.{name}": weight for ours, part in parts.items() for name, weight in
            part.state_dict().items()}  # fmt: skip


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_logits_and_loss_are_those_of_hugging_face(kind: str) -> None:
    """BertForMaskedLM and RobertaForMaskedLM with random weights; labels at some tokens."""
    transformers = pytest.importorskip("transformers", reason="needs the extra: pip install -e .[bench]")
    torch.manual_seed(0)
    shape = {
        "vocab_size": V, "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 12, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 1,
    }  # fmt: skip
    if kind == "bert":
        config = transformers.BertConfig(**shape, max_position_embeddings=12)
        theirs = wild(transformers.BertForMaskedLM(config))
        transform = theirs.cls.predictions.transform
        head = head_weights(transform.dense, transform.LayerNorm, theirs.cls.predictions.decoder)
    else:
        # RoBERTa's positions begin after that of padding.
        config = transformers.RobertaConfig(
            **shape, max_position_embeddings=14, type_vocab_size=1, layer_norm_eps=1e-5
        )
        theirs = wild(transformers.RobertaForMaskedLM(config))
        head = head_weights(theirs.lm_head.dense, theirs.lm_head.layer_norm, theirs.lm_head.decoder)
    segments = 2 if kind == "bert" else 1
    ours = make(n_segment=segments, norm_eps=1e-12 if kind == "bert" else 1e-5)
    ours.load_state_dict(their_weights(theirs, kind, 0 if kind == "bert" else 2) | head)

    tokens, lengths = texts()
    tokens = tokens % (V - 5) + 5
    real = torch.arange(7) < lengths[:, None]
    which = {"token_type_ids": torch.arange(7).expand(4, 7) % 2} if kind == "bert" else {}
    positions = torch.tensor([[1, 4], [0, 0], [2, 3], [0, 1]])
    labels = torch.full_like(tokens, -100)
    labels.scatter_(1, positions, tokens.gather(1, positions))
    with torch.no_grad():
        given = torch.where(real, tokens, 1)
        found = theirs(input_ids=given, attention_mask=real.long(), labels=labels, **which)
        logits = ours(tokens, lengths, segments=which.get("token_type_ids"))
        masked = ours(tokens, lengths, positions, which.get("token_type_ids"))
    assert found.logits.std() > 0.3
    close(logits[real], found.logits[real], 1e-4)
    keep = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    loss = F.cross_entropy(masked[keep], tokens.gather(1, positions)[keep])
    close(loss, found.loss, 1e-4)
