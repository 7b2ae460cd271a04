"""Word vectors: updates against formulas, compiled ones against PyTorch, examples against brute force."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from small_trainer import fit, make_config, weights

from seqexp import registry
from seqexp.config.data import OwnTextConfig
from seqexp.config.tokenizer import BareWordConfig
from seqexp.config.word_embeddings import WordEmbeddingsConfig
from seqexp.data.batch import Batch
from seqexp.data.contexts import ContextData
from seqexp.data.huffman import huffman_paths
from seqexp.data.text import TextData
from seqexp.data.word_data import Vocabulary
from seqexp.errors import UserError
from seqexp.models.fasttext import FastText
from seqexp.models.word2vec import Word2Vec
from seqexp.models.word2vec_options import FastTextConfig, Word2VecConfig
from seqexp.tasks.plain_vectors import PlainUpdates
from seqexp.tasks.word_embeddings import WordEmbeddings
from seqexp.tokenizers.bare_word import BareWordTokenizer, bare_words, phrase_scores
from seqexp.tokenizers.ngrams import fnv1a, ngrams

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ["<s>", "<unk>", "sun", "moon", "star", "earth", "mars"]
ARCHITECTURES = ("skipgram", "cbow")


def task() -> WordEmbeddings:
    return WordEmbeddings(WordEmbeddingsConfig())


def make_model(kind: type[Word2Vec], architecture: str, dim: int = 5) -> Word2Vec:
    torch.manual_seed(3)
    more = {"min_n": 2, "max_n": 3, "buckets": 11} if kind is FastText else {}
    model = kind(WORDS, dim, architecture, **more)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model


def examples(contexts: Any, outputs: Any, architecture: str = "skipgram") -> Batch:
    labels = np.zeros((len(outputs), len(outputs[0])), np.float32)
    labels[:, 0] = 1
    tensors = {
        "contexts": torch.tensor(contexts, dtype=torch.int32),
        "outputs": torch.tensor(outputs, dtype=torch.int32),
        "labels": torch.from_numpy(labels),
    }
    sizes = (np.array(contexts) >= 0).sum(1)
    return Batch(tensors, sizes if architecture == "skipgram" else np.ones_like(sizes))


def random_examples(seed: int, count: int, architecture: str) -> Batch:
    """Examples of every form: contexts with gaps and repetitions, negatives left out."""
    draw = np.random.default_rng(seed)
    contexts = draw.integers(2, len(WORDS), (count, 4))
    contexts[draw.random(contexts.shape) < 0.3] = -1
    contexts[:, 1] = draw.integers(2, len(WORDS), count)
    outputs = draw.integers(2, len(WORDS), (count, 3))
    outputs[:, 1:][draw.random((count, 2)) < 0.2] = -1
    return examples(contexts.tolist(), outputs.tolist(), architecture)


def step_by_formula(
    model: Word2Vec, context: list[int], outputs: list[int], rate: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """One step in fp64 by the equations of Rong (2014); returns embedding, output and loss."""
    rows = {
        word: [word, *model.rows_of(WORDS[word])] if isinstance(model, FastText) else [word]
        for word in set(context)
    }
    inputs, out = (layer.weight.detach().double().numpy().copy() for layer in (model.embedding, model.output))
    vector = {word: inputs[rows[word]].mean(0) for word in rows}
    before, loss = out.copy(), 0.0
    hidden = [vector[word] for word in context]
    if model.architecture == "cbow":
        hidden = [np.mean(hidden, axis=0)]
    errors = [np.zeros(inputs.shape[1]) for _ in hidden]
    for h, vector_h in enumerate(hidden):
        for number, word in enumerate(outputs):
            p = 1 / (1 + np.exp(-vector_h @ before[word]))
            truth = float(number == 0)
            loss -= np.log(p if truth else 1 - p)
            errors[h] += (p - truth) * before[word]
            out[word] -= rate * (p - truth) * vector_h
    for h, word in enumerate(context):
        error = errors[0] / len(context) if model.architecture == "cbow" else errors[h]
        for row in rows[word]:
            inputs[row] -= rate * error
    return inputs, out, loss


@pytest.mark.parametrize("kind", [Word2Vec, FastText])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_step_is_that_of_the_formulas(kind: type[Word2Vec], architecture: str) -> None:
    model = make_model(kind, architecture)
    inputs, out, loss = step_by_formula(model, [2, 3, 2], [4, 5, 6], rate=0.3)
    batch = examples([[2, -1, 3, 2]], [[4, 5, -1, 6]], architecture)
    found, count = PlainUpdates(model, task(), piece=1)(batch, 0.3)
    assert found == pytest.approx(loss, rel=1e-5)
    assert count == (3 if architecture == "skipgram" else 1)
    np.testing.assert_allclose(model.embedding.weight.detach(), inputs, atol=2e-6)
    np.testing.assert_allclose(model.output.weight.detach(), out, atol=2e-6)


@pytest.mark.parametrize("kind", [Word2Vec, FastText])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiled_updates_are_those_of_pytorch(kind: type[Word2Vec], architecture: str) -> None:
    """A batch of 200 examples, one after the other: within 1e-4, most of it the order of sums."""
    compiled = pytest.importorskip("seqexp.tasks.compiled_vectors")
    plain, fast = make_model(kind, architecture, 24), make_model(kind, architecture, 24)
    batch = random_examples(1, 200, architecture)
    PlainUpdates(plain, task(), piece=1)(batch, 0.1)
    before = compiled.MEASURED
    loss, count = compiled.CompiledUpdates(fast, 1)(batch, 0.1)
    for name in ("embedding", "output"):
        ours, theirs = (getattr(model, name).weight.detach() for model in (fast, plain))
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    # The loss of every eighth example, before its update.
    assert count == batch.counts[::before].sum()
    again, total = make_model(kind, architecture, 24), 0.0
    for number in range(len(batch)):
        one, _ = PlainUpdates(again, task(), piece=1)(batch.rows(number, number + 1), 0.1)
        total += one if number % before == 0 else 0.0
    assert loss == pytest.approx(total, rel=1e-4)


def test_several_threads_write_the_same_rows() -> None:
    """Without locks the result may differ; with rows that no two threads share it does not."""
    compiled = pytest.importorskip("seqexp.tasks.compiled_vectors")
    one, two = make_model(Word2Vec, "skipgram"), make_model(Word2Vec, "skipgram")
    batch = examples([[2], [3]] * 20, [[4, 5], [6, 6]] * 20)
    compiled.CompiledUpdates(one, 1)(batch, 0.1)
    updates = compiled.CompiledUpdates(two, 2)
    updates(batch, 0.1)
    assert not updates.repeats
    torch.testing.assert_close(one.embedding.weight, two.embedding.weight, rtol=0, atol=0)


def test_the_loss_leaves_out_what_is_filled_up() -> None:
    model = make_model(Word2Vec, "skipgram")
    padded = task().loss(model, examples([[2, -1], [3, 4]], [[5, 6], [6, -1]]))
    apart = [
        task().loss(model, examples([[2]], [[5, 6]])),
        task().loss(model, examples([[3, 4]], [[6]])),
    ]
    assert float(padded.nll_sum) == pytest.approx(sum(float(one.nll_sum) for one in apart), rel=1e-6)


# Subwords


def test_ngrams_and_their_hash() -> None:
    assert ngrams("ab", 1, 3) == ["<a", "<ab", "a", "ab", "ab>", "b", "b>"]
    # Published test vectors of FNV-1a, which differ from Facebook's only for bytes above 127.
    assert [fnv1a(text) for text in ("", "a", "foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


def test_hashes_are_facebooks(tmp_path: Path) -> None:
    fasttext = pytest.importorskip("fasttext")
    (tmp_path / "text").write_text("über größe naïve 東京 die der das " * 20, encoding="utf-8")
    model = fasttext.train_unsupervised(
        str(tmp_path / "text"), dim=2, minCount=1, epoch=1, bucket=997, minn=2, maxn=5, thread=1, verbose=0
    )
    size = len(model.get_words())
    for word in ("über", "東京", "unseen", "größe", "a"):
        texts, rows = model.get_subwords(word)
        hashed = [(text, int(row)) for text, row in zip(texts, rows, strict=True) if row >= size]
        assert hashed == [(one, size + fnv1a(one) % 997) for one in ngrams(word, 2, 5)]


def test_a_word_never_seen_has_the_mean_of_its_ngrams() -> None:
    model = make_model(FastText, "skipgram")
    assert isinstance(model, FastText)
    vector = model.vector_of("suns")
    assert vector is not None
    rows = [len(WORDS) + fnv1a(one) % 11 for one in ngrams("suns", 2, 3)]
    torch.testing.assert_close(vector, model.embedding.weight[rows].mean(0).detach())
    known = model.word_vectors()[2]
    own = [2, *(len(WORDS) + fnv1a(one) % 11 for one in ngrams("sun", 2, 3))]
    torch.testing.assert_close(known, model.embedding.weight[own].mean(0).detach())


# Examples


def make_data(path: Path, model: Word2VecConfig, seq_len: int = 20, **tokenizer: Any) -> ContextData:
    config = OwnTextConfig(name="text", path=str(path), seq_len=seq_len, batch_size=3)
    text = TextData.build(config, BareWordConfig(**{"min_count": 1, **tokenizer}), seed=5)  # type: ignore[arg-type]
    return ContextData(text, model)


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """Two documents of letters as words."""
    folder = tmp_path / "letters"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(" ".join(draw.choice(list("abcdefgh"), 400)))
    return folder


def test_bare_words() -> None:
    assert bare_words("“Don’t!” said O'Neill -- the 2nd_time's 'end'") == [
        "don't", "said", "o'neill", "the", "2nd", "time's", "end",
    ]  # fmt: skip
    fitted = BareWordTokenizer.fit(BareWordConfig(min_count=2), ["A b, b A c a"])
    assert fitted.words == ["a", "b"]
    assert fitted.encode("A c B").tolist() == [2, 1, 3]
    assert BareWordTokenizer.from_state(fitted.state()).encode("b").tolist() == [3]
    assert fitted.offsets("A, c") == [(0, 1), (3, 4)]


def test_phrases_are_those_of_brute_force() -> None:
    """The published score of all neighbours, counted by hand; phrases are merged from the left."""
    draw = np.random.default_rng(7)
    texts = [
        " ".join(draw.choice(list("aabbcdefgh"), 60)) + " New York, new York! in Old York" for _ in range(20)
    ]
    words, pairs = Counter[str](), Counter[tuple[str, str]]()
    for text in texts:
        words.update(bare_words(text))
        pairs.update(itertools.pairwise(bare_words(text)))
    total = sum(words.values())
    wanted = {(a, b): (n - 5) * total / (words[a] * words[b]) for (a, b), n in pairs.items() if n > 5}
    assert phrase_scores(texts, 5) == pytest.approx(wanted)
    fitted = BareWordTokenizer.fit(BareWordConfig(min_count=5, phrases=15), texts)
    # old_york has a high score too; where it stands, in_old was merged before.
    assert {word for word in fitted.words if "_" in word} == {"new_york", "in_old"}
    assert min(wanted["new", "york"], wanted["in", "old"], wanted["old", "york"]) > 15
    text = "a new York new in, Old York"
    assert fitted.pieces(text) == ["a", "new_york", "new", "in_old", "york"]
    assert [text[i:j] for i, j in fitted.offsets(text) or ()] == ["a", "new York", "new", "in, Old", "York"]
    again = BareWordTokenizer.from_state(fitted.state())
    assert again.encode(text).tolist() == fitted.encode(text).tolist()


def test_contexts_are_those_of_brute_force(letters: Path) -> None:
    """Every word with the words next to it, within its passage and document; window 1 draws nothing."""
    data = make_data(letters, Word2VecConfig(window=1, sample=0, negative=2))
    passages = np.array([[3, 4, 5, 0, 6, 7], [2, 1, 8, -1, -1, -1], [9, 0, 9, 9, -1, -1]])
    batch = data.batch(passages, np.random.default_rng(0))
    expected = []
    for passage in passages.tolist():
        # 0 ends a document; 1 (unknown) and padding are left out before words are neighbours.
        for ended, part in itertools.groupby(passage, key=lambda token: token == 0):
            words = [token for token in part if token > 1]
            for i, word in enumerate(words if not ended else []):
                before, after = words[i - 1 : i] if i else [], words[i + 1 : i + 2]
                if before or after:
                    expected.append((word, (before or [-1])[0], (after or [-1])[0]))
    outputs = batch.outputs[:, 0].tolist()
    assert [(word, *pair) for word, pair in zip(outputs, batch.contexts.tolist(), strict=True)] == expected
    assert batch.count == sum((before >= 0) + (after >= 0) for _, before, after in expected)
    assert batch.tokens_read == passages.size
    assert not (batch.outputs[:, 1:] == batch.outputs[:, :1]).any()


def test_windows_are_drawn_from_one_to_the_longest(letters: Path) -> None:
    data = make_data(letters, Word2VecConfig(window=4, sample=0), seq_len=100)
    reach = []
    for step in range(100):
        contexts = data.train_batch(step).contexts.numpy()
        inner = contexts[(contexts[:, 3] >= 0) & (contexts[:, 4] >= 0)]
        reach.append((inner[:, 4:] >= 0).sum(1))
    counts = np.bincount(np.concatenate(reach), minlength=5)[1:]
    # Words near the end of a passage see fewer; most are not.
    assert (np.abs(counts / counts.sum() - 0.25) < 0.02).all()


def test_a_batch_depends_on_seed_and_step_alone(letters: Path) -> None:
    data, again = (make_data(letters, Word2VecConfig()) for _ in range(2))
    late, first = data.train_batch(7), again.train_batch(0)
    for name in ("contexts", "outputs", "labels"):
        assert torch.equal(late.tensors[name], again.train_batch(7).tensors[name])
    assert not torch.equal(first.outputs, late.outputs)
    held_out = [torch.cat([b.outputs for b in one.eval_batches("val")]) for one in (data, again, data)]
    assert torch.equal(held_out[0], held_out[1])
    assert torch.equal(held_out[0], held_out[2])


def test_negatives_follow_the_smoothed_counts() -> None:
    """By chi-square, of the table and of draws from it."""
    counts = np.array([0, 0, 1000, 500, 100, 50, 10, 1, 1])
    vocabulary = Vocabulary(counts)
    wanted = np.where(counts > 0, np.maximum(counts, 1) ** 0.75, 0)
    wanted = wanted / wanted.sum()
    table = vocabulary.table(0.75)
    np.testing.assert_allclose(np.bincount(table, minlength=9) / len(table), wanted, atol=2e-6)
    draws = table[np.random.default_rng(1).integers(0, len(table), 100_000)]
    assert chisquare(np.bincount(draws, minlength=9)[2:], 100_000 * wanted[2:]).pvalue > 1e-3
    uniform = np.bincount(vocabulary.table(0.0), minlength=9)[2:]
    assert np.ptp(uniform) <= 1


def test_frequent_words_are_thinned_out() -> None:
    keep = Vocabulary(np.array([0, 0, 900, 99, 1])).keep(1e-2)
    share = np.array([0.9, 0.099, 0.001])
    np.testing.assert_allclose(keep[2:], np.minimum(1, np.sqrt(1e-2 / share) + 1e-2 / share), rtol=1e-6)
    assert keep[:2].tolist() == [0, 0]
    assert Vocabulary(np.array([0, 5, 5])).keep(0).tolist() == [0, 1, 1]


def test_a_vocabulary_of_one_word_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("yes " * 500)
    with pytest.raises(UserError, match="the vocabulary has 1 words, and word vectors need two"):
        make_data(tmp_path / "one.txt", Word2VecConfig())
    (tmp_path / "none.txt").write_text("a b c d e f g h " * 40)
    with pytest.raises(UserError, match=r"0 words.*lower tokenizer\.min_count="):
        make_data(tmp_path / "none.txt", Word2VecConfig(), min_count=50)


# Hierarchical softmax


def test_probabilities_of_all_words_sum_to_one(letters: Path) -> None:
    """By the loss of the task, with every word in place of the one that stood there."""
    for architecture in ARCHITECTURES:
        data = make_data(letters, Word2VecConfig(loss="hierarchical", architecture=architecture, sample=0))
        words = [n for n, count in enumerate(data.counts) if count]
        torch.manual_seed(3)
        model = Word2Vec([str(n) for n in range(len(data.counts))], 5, architecture)
        torch.nn.init.normal_(model.output.weight)
        nodes, children = data._outputs(np.array(words, np.int32), np.random.default_rng(0))
        total = 0.0
        for path, labels in zip(nodes, children, strict=True):
            tensors = {
                "contexts": torch.tensor([[2, 4, 5]]), "outputs": torch.from_numpy(path[None]),
                "labels": torch.from_numpy(labels[None]),
            }  # fmt: skip
            if architecture == "skipgram":
                tensors["contexts"] = torch.tensor([[-1, 4, -1]])
            total += float(torch.exp(-task().loss(model, Batch(tensors, np.ones(1, np.int64))).nll_sum))
        assert total == pytest.approx(1, abs=1e-5)


def test_huffman_codes_are_shortest() -> None:
    """No code begins another, and the mean length is that of a published example: 2.2 (Huffman 1952 gives
    2 to 4 digits for thirteen messages; here five messages of 2/5, 1/5, 1/5, 1/10, 1/10)."""
    nodes, children = huffman_paths(np.array([0, 0, 4, 2, 2, 1, 1]))
    codes = [
        "".join(str(int(one)) for one, node in zip(row, path, strict=True) if node >= 0)
        for row, path in zip(children[2:], nodes[2:], strict=True)
    ]
    assert not any(one != other and other.startswith(one) for one in codes for other in codes)
    assert sum(n * len(code) for n, code in zip((4, 2, 2, 1, 1), codes, strict=True)) == 22
    assert (nodes[:2] == -1).all()
    assert nodes.max() == 3
    # Words with the same beginning of their codes share the nodes there.
    assert len(set(nodes[2:, 0].tolist())) == 1


# Training


def make_topics(path: Path, sentences: int = 1500) -> None:
    """Two topics that share no words; in each, `x` and `y` stand in the same places."""
    draw = np.random.default_rng(0)
    lines = []
    for _ in range(sentences):
        topic = "ab"[draw.integers(2)]
        words = [f"{topic}{number}" for number in draw.integers(0, 12, 8)]
        words.insert(draw.integers(8), draw.choice(["x", "y"]) if topic == "a" else "z")
        lines.append(" ".join(words))
    path.write_text("\n".join(lines) + "\n")


def word_vector_config(path: Path, model: Any, **trainer: Any) -> Any:
    base = make_config(path)
    base.model, base.task = model, WordEmbeddingsConfig()
    base.tokenizer = BareWordConfig()
    base.optimizer = registry.load_schema("optimizer", "sgd")(
        name="sgd", lr=0.15 if getattr(model, "architecture", "") == "cbow" else 0.05, momentum=0.0
    )
    base.data.seq_len, base.data.batch_size = 9, 60
    for key, value in {"eval_every": 1000, "log_every": 1000, "max_steps": 120, **trainer}.items():
        setattr(base.trainer, key, value)
    return base


def build_trainer(config: Any, folder: str) -> Any:
    from seqexp.commands.build import build_model, build_task
    from seqexp.tracking.run_folder import RunFolder
    from seqexp.training.device import setup_device
    from seqexp.training.loop import Trainer

    torch.manual_seed(config.seed)
    made = build_task(config.task)
    data = made.prepare(TextData.build(config.data, config.tokenizer, config.seed), config.model)
    model = build_model(config.model, made.sizes(data.preprocessor))
    Path(folder).mkdir()
    return Trainer(config, model, model, made, data, setup_device(config.device), RunFolder(Path(folder)))


def test_topics_are_learnt_by_a_tree(tmp_path: Path) -> None:
    """The perplexity falls to that of the counts of held-out pairs, which no vectors can go far below."""
    pytest.importorskip("numba")
    make_topics(tmp_path / "topics.txt")
    model = Word2VecConfig(n_embd=16, window=4, sample=0, loss="hierarchical")
    trainer = build_trainer(word_vector_config(tmp_path / "topics.txt", model, max_steps=300), "run")
    # The same contexts, with the words themselves as outputs.
    model.loss = "negative"
    counts = np.zeros((30, 30))
    for batch in ContextData(trainer.data.text, model).eval_batches("val"):
        for word, context in zip(batch.outputs[:, 0].tolist(), batch.contexts.tolist(), strict=True):
            np.add.at(counts, ([one for one in context if one >= 0], word), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    least = np.exp(-(counts * np.log(np.where(share > 0, share, 1))).sum() / counts.sum())
    model.loss = "hierarchical"
    first = trainer.validate()
    assert first["val/perplexity"].value == pytest.approx(np.exp(first["val/loss"].value))
    assert first["val/perplexity"].value > 1.3 * least
    fit(trainer)
    assert least < trainer.validate()["val/perplexity"].value < 1.2 * least


@pytest.mark.parametrize("impl", [pytest.param("plain", marks=pytest.mark.slow), "compiled"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_topics_and_synonyms_are_learnt(tmp_path: Path, impl: str, architecture: str) -> None:
    if impl == "compiled":
        pytest.importorskip("numba")
    make_topics(tmp_path / "topics.txt")
    model = Word2VecConfig(n_embd=16, window=4, sample=0, architecture=architecture, impl=impl)
    trainer = build_trainer(word_vector_config(tmp_path / "topics.txt", model), f"{impl} {architecture}")
    first = float(trainer.validate()["val/loss"].value)
    # Untrained, every output is as likely as not: ln 2 for each of six outputs, but for negatives left out.
    assert 0.9 * 6 * np.log(2) < first <= 6 * np.log(2) + 1e-6
    if impl == "plain":
        assert trainer.updater.piece == 1  # for 25 words; more at a time are quicker, and suffice here
        trainer.updater.piece = 8
    fit(trainer)
    assert trainer.validate()["val/loss"].value < 0.85 * first
    words = trainer.data.text.tokenizer.words
    units = torch.nn.functional.normalize(trainer.model.word_vectors()[2:], dim=1)
    cosines = {
        (one, two): float(units[words.index(one)] @ units[words.index(two)])
        for one, two in itertools.permutations(words, 2)
    }
    same = [value for (one, two), value in cosines.items() if one[0] == two[0]]
    other = [value for (one, two), value in cosines.items() if {one[0], two[0]} == {"a", "b"}]
    assert np.mean(same) > np.mean(other) + 0.5
    # A word's synonym never stands beside it, and is near it all the same.
    assert cosines["x", "y"] > np.mean([cosines["x", f"b{i}"] for i in range(12)]) + 0.5


@pytest.mark.parametrize("kind", [Word2VecConfig, FastTextConfig])
def test_a_resumed_training_is_the_same(
    tmp_path: Path, kind: type[Word2VecConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit, with compiled updates in one thread, also over the end of an epoch."""
    pytest.importorskip("numba")
    make_topics(tmp_path / "topics.txt", 300)
    more = {"buckets": 50} if kind is FastTextConfig else {}
    config = word_vector_config(tmp_path / "topics.txt", kind(n_embd=8, **more), max_steps=12, eval_every=4)
    whole = build_trainer(config, "whole")
    fit(whole)
    config.trainer.max_steps = 7
    part = build_trainer(config, "part")
    # The rate falls by the planned length, so stop by hand.
    part.total = 12
    monkeypatch.setattr(part, "done", lambda: part.step >= 7)
    fit(part)
    config.trainer.max_steps = 12
    again = build_trainer(config, "again")
    again.run = part.run
    again.load_state(part.checkpoints.load_newest())
    assert again.step == 7
    again.checkpoints = part.checkpoints
    again.run = part.run
    fit(again)
    assert torch.equal(weights(whole), weights(again))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": ("momentum", 0.9)}, r"optimizer\.momentum=0\.9"),
        ({"trainer": ("max_grad_norm", 1.0)}, r"trainer\.max_grad_norm=1\.0"),
        ({"trainer": ("nonfinite", "skip")}, r"trainer\.nonfinite=skip"),
    ],
)
def test_what_updates_cannot_follow(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    make_topics(tmp_path / "topics.txt", 100)
    config = word_vector_config(tmp_path / "topics.txt", Word2VecConfig(n_embd=4))
    for group, (key, value) in change.items():
        setattr(getattr(config, group), key, value)
    trainer = build_trainer(config, "run")
    assert trainer.updater is None
    assert trainer.note is not None
    assert trainer.note.startswith(message.replace("\\", ""))
    config.model.impl = "compiled"
    with pytest.raises(UserError, match=message):
        config.model.check_together(config)


def test_without_numba_pytorch_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "seqexp.tasks.compiled_vectors", None)
    model = make_model(Word2Vec, "skipgram")
    config = word_vector_config(tmp_path / "absent", Word2VecConfig())
    updates, note = task().updater(model, config)
    assert isinstance(updates, PlainUpdates)
    assert note is not None
    assert 'numba is missing (pip install "seqexp[embeddings]"' in note
    config.model.impl = "compiled"
    with pytest.raises(UserError, match=r"model\.impl=compiled cannot be had: numba is missing"):
        task().updater(model, config)
