"""Translation models as their users need them: caches, batches, padding, ties, and the loss."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from translation_models import (
    LENGTHS,
    POSITIONS,
    SOURCE_V,
    TARGET_LENGTHS,
    TARGET_V,
    close,
    every_model,
    gradients,
    make,
    make_nmt,
    make_transformer,
    random_tokens,
    sentences,
)

from seqexp.data.batch import Batch
from seqexp.data.pair_batch import pair_batch
from seqexp.models.step_linear import StepLinear
from seqexp.tasks.cross_entropy import smoothed_cross_entropy
from seqexp.tasks.translation import real_positions

pytestmark = pytest.mark.usefixtures("one_thread")


# The cache


def stepped(model: Any, tokens: Tensor, state: Any, sizes: list[int]) -> tuple[Tensor, Tensor | None]:
    """Logits and attention after each token, from `step` in chunks of these sizes."""
    logits, maps = [], []
    with torch.no_grad():
        for chunk in tokens.split(sizes, dim=1):
            some, state = model.step(chunk, state)
            logits.append(some)
            maps.append(state.attention)
    return torch.cat(logits, dim=1), torch.cat(maps, dim=1) if model.shows_attention else None


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@every_model
def test_steps_of_any_size_are_all_at_once(
    options: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    model = make(options, dtype)
    source, lengths, inputs = sentences()
    expected = model(source, lengths, inputs)
    assert expected.dtype == dtype
    maps = []
    for sizes in ([1] * 7, [3, 1, 3], [7]):
        logits, attention = stepped(model, inputs, model.start((source, lengths)), sizes)
        close(logits, expected.detach(), tolerance)
        maps.append(attention)
    if model.shows_attention:
        close(maps[0], maps[2], tolerance)
        close(maps[1], maps[2], tolerance)
        for weights, n in zip(maps[0], LENGTHS, strict=True):
            assert not weights[:, n:].any()
            if options.get("attention") != "local_p":
                close(weights.sum(dim=1), torch.ones(7, dtype=dtype), 1e-5)


@every_model
def test_select_follows_the_hypotheses(options: dict[str, Any]) -> None:
    """Rows repeat, sentences have several hypotheses and leave; each row is recomputed from its tokens."""
    model = make(options)
    source, lengths, _ = sentences()
    draw = torch.Generator().manual_seed(3)
    state = model.start((source, lengths))
    rows: list[tuple[int, list[int]]] = [(b, []) for b in range(3)]  # which source, and what was read

    def read_on(T: int) -> None:
        nonlocal state
        tokens = torch.randint(TARGET_V, (len(rows), T), generator=draw)
        with torch.no_grad():
            logits, state = model.step(tokens, state)
            for (_, read), more in zip(rows, tokens.tolist(), strict=True):
                read.extend(more)
            numbers = [number for number, _ in rows]
            expected = model(source[numbers], lengths[numbers], torch.tensor([read for _, read in rows]))
        close(logits, expected[:, -T:], 1e-6)
        assert state.attention is None or len(state.attention) == len(rows)

    def choose(chosen: list[int], sources: list[int] | None = None) -> None:
        nonlocal state
        before = state.attention
        state = model.select(state, torch.tensor(chosen), sources)
        rows[:] = [(rows[row][0], rows[row][1].copy()) for row in chosen]
        if before is not None:
            assert torch.equal(state.attention, before[chosen])

    choose([0, 1, 2], [0, 1, 2])
    read_on(1)
    choose([0, 0, 1, 1, 2, 2], [0, 1, 2])  # each sentence gets two hypotheses
    read_on(1)
    choose([1, 1, 2, 3, 5, 4], [0, 1, 2])
    read_on(2)
    choose([1, 0, 4, 4], [0, 2])  # the second sentence leaves
    read_on(1)
    choose([3, 3, 2], [1])  # and the first, while the last gets a third hypothesis
    read_on(1)
    state, rows = model.start((source, lengths)), [(b, []) for b in range(3)]
    choose([2, 0, 2, 1])  # rows of any source
    read_on(3)
    choose([3, 1, 0, 0, 2])
    read_on(1)
    choose([0, 0, 1, 1, 2, 2, 4, 4], [0, 1, 2, 4])
    read_on(1)
    choose([7, 0, 3, 1])  # and of any of their hypotheses
    read_on(1)


# Batches


@every_model
def test_a_sentence_alone_or_in_a_batch(options: dict[str, Any]) -> None:
    model = make(options)
    source, lengths, inputs = sentences()
    together = model(source, lengths, inputs)
    for b, (S, T) in enumerate(zip(LENGTHS, TARGET_LENGTHS, strict=True)):
        alone = model(source[b : b + 1, :S], lengths[b : b + 1], inputs[b : b + 1, :T])
        close(alone[0], together[b, :T], 1e-6)


def widened(batch: Batch, more: int, seed: int) -> Batch:
    """The same sentences with garbage for padding, and more of it."""
    (B, S), T = batch.source.shape, batch.inputs.shape[1]
    source, inputs, targets = (
        random_tokens(size, B, width + more, seed=seed + i)
        for i, (size, width) in enumerate(((SOURCE_V, S), (TARGET_V, T), (TARGET_V, T)))
    )
    for b in range(B):
        n, t = int(batch.lengths["source"][b]), int(batch.lengths["targets"][b])
        source[b, :n] = batch.source[b, :n]
        inputs[b, :t], targets[b, :t] = batch.inputs[b, :t], batch.targets[b, :t]
    return replace(batch, tensors={"source": source, "inputs": inputs, "targets": targets})


@every_model
def test_padding_never_counts(options: dict[str, Any]) -> None:
    """Whatever it is and however much: not in the loss, and not in any gradient."""
    model = make(options).train()
    sources = [random_tokens(SOURCE_V, n).tolist() for n in (5, 0, 3)]
    targets = [random_tokens(TARGET_V, n, seed=4).tolist() for n in (2, 6, 0)]
    batch = pair_batch(sources, targets, end=1)
    real = batch.targets.flatten()[real_positions(batch)]
    assert real.tolist() == [token for target in targets for token in [*target, 1]]
    results = []
    for some in (batch, widened(batch, 0, seed=7), widened(batch, 3, seed=8)):
        positions = real_positions(some)
        logits = model(some.source, some.lengths["source"], some.inputs, positions)
        loss = F.cross_entropy(logits, some.targets.flatten()[positions], reduction="sum")
        results.append([loss, *gradients(loss, model)])
    alone = 0.0
    for source, target in zip(sources, targets, strict=True):
        S, inputs = torch.tensor([[*source, 1]]), torch.tensor([[1, *target]])
        logits = model(S, torch.tensor([S.shape[1]]), inputs)[0]
        alone += F.cross_entropy(logits, torch.tensor([*target, 1]), reduction="sum")
    close(results[1], results[0], 1e-6)
    close(results[2], results[0], 1e-6)
    close([alone, *gradients(alone, model)], results[0], 1e-6)


@every_model
def test_later_tokens_never_enter_earlier_logits(options: dict[str, Any]) -> None:
    model = make(options)
    source, lengths, inputs = sentences()
    expected = model(source, lengths, inputs)
    for t in (0, 1, 4, 6):
        changed = inputs.clone()
        changed[:, t:] = (inputs[:, t:] + 1 + t) % TARGET_V
        logits = model(source, lengths, changed)
        close(logits[:, :t], expected[:, :t])
        assert ((logits - expected)[:, t].abs().amax(dim=1) > 1e-4).all()


@every_model
def test_the_source_is_read_to_its_end(options: dict[str, Any]) -> None:
    model = make(options)
    source, lengths, inputs = sentences()
    expected = model(source, lengths, inputs)
    for b, n in enumerate(LENGTHS):
        changed = source.clone()
        changed[b, n - 1] = (changed[b, n - 1] + 1) % SOURCE_V
        differs = (model(changed, lengths, inputs) - expected).abs().amax(dim=(1, 2))
        assert (differs > 1e-5).tolist() == [other == b for other in range(3)]


# Parameters


@every_model
def test_all_parameters_are_counted(options: dict[str, Any]) -> None:
    for tie in (False, True):
        model = make({**options, "tie_embeddings": tie, "joint_vocabulary": False})
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        counts = model.parameter_counts()
        assert sum(counts.values()) == trainable
        width = model.target_embedding.embedding_dim
        assert counts["embedding"] == (SOURCE_V + TARGET_V) * width
        bias = 0 if tie or "norm" in options else TARGET_V
        assert counts["head"] == (0 if tie else TARGET_V * width + bias)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("kind", ["nmt", "transformer"])
def test_tied_embeddings_are_one_matrix(kind: str, joint: bool) -> None:
    """One gradient step on the loss moves all of them, by the sum of what each would get."""
    options: dict[str, Any] = {"cell": "gru"} if kind == "nmt" else {"norm": "pre"}
    builder: Any = make_nmt if kind == "nmt" else make_transformer
    if joint:  # both vocabularies are as large as the larger one
        options |= {"source_vocab_size": SOURCE_V, "target_vocab_size": SOURCE_V}
    tied = builder(**options, tie_embeddings=True, joint_vocabulary=joint)
    free = builder(**options, tie_embeddings=False, joint_vocabulary=joint)
    assert tied.head.bias is None
    assert tied.head.weight is tied.target_embedding.weight
    assert (tied.source_embedding.weight is tied.target_embedding.weight) == joint
    assert free.head.weight is not free.target_embedding.weight
    assert free.source_embedding.weight is not free.target_embedding.weight
    free.load_state_dict(tied.state_dict(), strict=False)
    if kind == "nmt":
        torch.nn.init.zeros_(free.head.bias)
    source, lengths, inputs = sentences()
    close(tied(source, lengths, inputs), free(source, lengths, inputs))
    for model in (tied, free):
        (model(source, lengths, inputs) ** 2).sum().backward()
    parts = [free.head.weight.grad, free.target_embedding.weight.grad]
    parts += [free.source_embedding.weight.grad] if joint else []
    close(tied.head.weight.grad, sum(parts))


def test_tokens_beyond_learned_positions_share_the_last() -> None:
    """Also when they come one by one; swapping two of them in the source changes nothing."""
    model = make_transformer(positions="learned", max_len=3)
    source, lengths, inputs = sentences()
    expected = model(source, lengths, inputs)
    logits, _ = stepped(model, inputs, model.start((source, lengths)), [1] * 7)
    close(logits, expected.detach(), 1e-6)
    close(model(source[:, [0, 1, 5, 4, 3, 2]], lengths, inputs)[0], expected[0])
    assert not torch.allclose(model(source[:, [1, 0, 2, 3, 4, 5]], lengths, inputs)[0], expected[0])


@pytest.mark.parametrize("positions", POSITIONS)
def test_dropout_is_in_training_alone(positions: str) -> None:
    source, lengths, inputs = sentences()
    for model in (make_transformer(positions=positions, dropout=0.5), make_nmt(dropout=0.5)):
        assert torch.equal(model(source, lengths, inputs), model(source, lengths, inputs))
        model.train()
        assert not torch.equal(model(source, lengths, inputs), model(source, lengths, inputs))


# A matrix in a loop


def test_step_linear_has_the_gradients_of_linear() -> None:
    """In a recurrent loop over a part of a matrix, where the last use does not enter the loss."""
    torch.manual_seed(0)
    W = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    x = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    h = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)

    def run(product: Any) -> Tensor:
        state, total = h, torch.zeros((), dtype=torch.float64)
        for t in range(6):
            state = (x[t] * state + product(state)).tanh()
            total = total + (state**3).sum() if t < 5 else total
        return total

    expected = run(lambda some: F.linear(some, W[:, -5:]))
    wanted = torch.autograd.grad(expected, [W, x, h])
    product = StepLinear(W[:, -5:], torch.float64)
    ours = run(product)
    close(ours, expected)
    for _ in range(2):
        close(torch.autograd.grad(ours, [W, x, h], retain_graph=True), wanted)
    with torch.no_grad():
        quick = StepLinear(W[:, -5:], torch.float64)
        assert not quick(x[0]).requires_grad
        close(run(quick), expected.detach())
    rough = run(StepLinear(W[:, -5:].float(), torch.bfloat16))
    for mine, other in zip(torch.autograd.grad(rough, [W, x, h]), wanted, strict=True):
        assert mine.dtype == torch.float64
        assert (mine - other).norm() < 0.05 * other.norm()


# The loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_the_smoothed_loss_is_torchs(smoothing: float) -> None:
    """More rows than are worked on at once, and not a multiple; rows without a target have no loss."""
    draw = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(150, 13, generator=draw) * 3, random_tokens(13, 150)
    theirs = scores.clone().requires_grad_()
    expected = F.cross_entropy(theirs, targets, label_smoothing=smoothing, reduction="sum")
    (expected * 0.7).backward()
    plain = F.cross_entropy(scores, targets, reduction="sum")
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        leaf = scores.clone().to(dtype).requires_grad_()
        loss, nll = smoothed_cross_entropy(leaf * 1, targets, smoothing)
        assert loss.dtype == nll.dtype == torch.float32
        assert not nll.requires_grad
        close([loss, nll], [expected, plain], tolerance)
        (loss * 0.7).backward()
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype
        close(leaf.grad.float(), theirs.grad, tolerance)
    more = torch.cat([scores, torch.ones(7, 13)]).requires_grad_()
    loss, nll = smoothed_cross_entropy(more * 1, targets, smoothing)
    close([loss, nll], [expected, plain], 1e-5)
    (loss * 0.7).backward()
    assert more.grad is not None
    close(more.grad[:150], theirs.grad, 1e-5)
    assert not more.grad[150:].any()
    kept = scores.clone()
    close(list(smoothed_cross_entropy(kept, targets, smoothing)), [expected, plain], 1e-5)
    with torch.no_grad():
        close(list(smoothed_cross_entropy(kept, targets, smoothing)), [expected, plain], 1e-5)
        _, nll = smoothed_cross_entropy(kept.clone().requires_grad_(), targets, smoothing)
        close(nll, plain, 1e-5)
    assert torch.equal(kept, scores)
