"""What word vectors are judged by: analogies, similarities, neighbours, and the baseline by PPMI and SVD."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from seqexp.data.cooccurrences import Window, count_pairs, expected, harmonic
from seqexp.data.word_lists import read_analogies, read_similarities
from seqexp.decoding.word_arithmetic import Expression, parse
from seqexp.errors import UserError
from seqexp.metrics.ppmi import ppmi_vectors
from seqexp.metrics.vector_space import VectorSpace, spearman

WORDS = ["the", "man", "woman", "king", "queen", "apple"]
# Royal, female, fruit, and something that all share.
VECTORS = np.array(
    [[0, 0, 0, 1], [0, 0, 0, 2], [0, 1, 0, 2], [1, 0, 0, 2], [1, 1, 0, 2], [0, 0.2, 3, 0.5]], np.float32
)


def test_the_famous_analogy() -> None:
    space = VectorSpace(WORDS, VECTORS)
    answers = list(
        space.answer(
            [
                ("man", "king", "woman", "queen"),
                ("man", "king", "woman", "apple"),
                ("man", "king", "x", "the"),
            ]
        )
    )
    assert [(one.cosadd, one.cosmul) for one in answers] == [(True, True), (False, False)]


def test_answers_are_those_of_gensim(tmp_path: Path) -> None:
    """3CosAdd on random vectors with structure, with words in two cases, among the most frequent words."""
    models = pytest.importorskip("gensim.models")
    draw = np.random.default_rng(0)
    roots = [f"w{i}" for i in range(60)]
    words = [form for root in roots for form in (root, f"{root}s", f"{root}ed")]
    bases = draw.normal(size=(60, 1, 10))
    endings = draw.normal(size=(1, 3, 10))
    vectors = (bases + endings + draw.normal(size=(60, 3, 10))).reshape(-1, 10).astype(np.float32)
    order = draw.permutation(180)
    words, vectors = [words[i] for i in order], vectors[order]
    words[150:155] = [word.upper() for word in words[5:10]]  # the same words, seldom in capitals
    lines = [": endings"]
    for i, j in draw.integers(0, 60, (400, 2)):
        lines.append(f"{roots[i]} {roots[i]}s {roots[j].upper()} {roots[j]}s")
        lines.append(f"{roots[i]}s {roots[i]}ed {roots[j]}s {roots[j]}ed")
    (tmp_path / "questions.txt").write_text("\n".join(lines) + "\n")
    theirs = models.KeyedVectors(10)
    theirs.add_vectors(words, vectors)
    for most in (180, 120):
        share, sections = theirs.evaluate_word_analogies(str(tmp_path / "questions.txt"), restrict_vocab=most)
        questions = read_analogies(str(tmp_path / "questions.txt"))["endings"]
        answers = list(VectorSpace(words, vectors, most).answer(questions))
        assert len(answers) == sum(len(sections[-1][key]) for key in ("correct", "incorrect"))
        assert 0.05 < share < 0.95
        # Gensim asks about a word and itself too; so do we.
        assert np.mean([one.cosadd for one in answers]) == pytest.approx(share, abs=1e-12)


def test_cosmul_is_that_of_the_paper() -> None:
    draw = np.random.default_rng(1)
    words = [f"w{i}" for i in range(40)]
    vectors = draw.normal(size=(40, 4)).astype(np.float32)
    space = VectorSpace(words, vectors)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for _ in range(50):
        a, b, c, d = draw.choice(40, 4, replace=False)
        scores = {
            x: (1 + units[x] @ units[b])
            * (1 + units[x] @ units[c])
            / 4
            / ((1 + units[x] @ units[a]) / 2 + 1e-3)
            for x in range(40)
            if x not in (a, b, c)
        }
        best = max(scores, key=lambda x: scores[x])
        (right,) = space.answer([(words[a], words[b], words[c], words[best])])
        assert right.cosmul
        (other,) = space.answer([(words[a], words[b], words[c], words[d])])
        assert other.cosmul == (d == best)


def test_neighbours_and_most_frequent_words() -> None:
    space = VectorSpace(WORDS, VECTORS, most=5)
    assert space.number("apple") is None
    assert space.number("KING") == 3
    nearest = space.nearest(space.units @ space.units[3], 2, space.same(3))
    assert nearest[0][0] == "queen"
    assert nearest[0][1] == pytest.approx(5 / np.sqrt(5 * 6), abs=1e-6)


def test_spearman_is_scipys() -> None:
    draw = np.random.default_rng(2)
    first = draw.integers(0, 8, 50).tolist()  # with ties
    second = (np.array(first) + draw.normal(0, 3, 50)).tolist()
    value, interval = spearman(first, second)
    assert value == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert interval is not None
    assert interval[0] < value < interval[1]
    assert spearman([1, 2, 3], [3, 2, 1]) == (pytest.approx(-1), None)
    assert np.isnan(spearman([1, 1], [1, 2])[0])


def test_intervals_of_correlations_hold() -> None:
    """About 95 of 100 intervals hold the true rank correlation, (6 / π) asin(r / 2) of normal pairs."""
    draw = np.random.default_rng(3)
    true = 6 / np.pi * np.arcsin(0.6 / 2)
    held = 0
    for _ in range(400):
        first = draw.normal(size=80)
        second = 0.6 * first + 0.8 * draw.normal(size=80)
        _, interval = spearman(first.tolist(), second.tolist())
        assert interval is not None
        held += interval[0] < true < interval[1]
    assert 0.92 < held / 400 < 0.98


def test_similarities_cover_what_is_known() -> None:
    space = VectorSpace(WORDS, VECTORS)
    pairs = [("king", "queen", 9.0), ("king", "apple", 1.0), ("king", "pear", 1.0)]
    cosines, given = space.similarities(pairs)
    assert given == [9.0, 1.0]
    assert cosines[0] > cosines[1]
    assert space.similarities(pairs, {"pear": VECTORS[5]})[1] == [9.0, 1.0, 1.0]


def test_outliers_fit_their_group_least() -> None:
    draw = np.random.default_rng(6)
    words = [f"w{i}" for i in range(9)]
    space = VectorSpace(words, draw.normal(size=(9, 3)).astype(np.float32) + np.float32(1))
    group, outliers = words[:5], [*words[5:], "unknown"]
    wanted = []
    for outlier in words[5:]:
        everyone = [*group, outlier]
        fits = {
            one: np.mean(
                [space.units[words.index(one)] @ space.units[words.index(o)] for o in everyone if o != one]
            )
            for one in everyone
        }
        wanted.append(min(fits, key=lambda one: fits[one]) == outlier)
    assert True in wanted
    assert False in wanted
    assert space.outliers([*group, "absent"], outliers) == wanted
    assert space.outliers([*group[:2], "absent"], outliers) == []


# Lists


def test_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text(": one\nA b C d\n\n: two\ne f g h\n")
    assert read_analogies(str(tmp_path / "q.txt")) == {
        "one": [("A", "b", "C", "d")],
        "two": [("e", "f", "g", "h")],
    }
    (tmp_path / "s.txt").write_text("word1,word2,score\na,b,3.5\nc;d;1\n# note\ne\tf\t0.5\textra\n")
    assert read_similarities(str(tmp_path / "s.txt")) == {
        "s": [("a", "b", 3.5), ("c", "d", 1.0), ("e", "f", 0.5)]
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [(": x\na b c\n", r"line 2: expected four words .* got 3"), ("a b c d e\n", "line 1: .* got 5")],
)
def test_malformed_analogies(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "q.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_analogies(str(tmp_path / "q.txt"))


def test_malformed_similarities(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("a b 1\nc d nan\n")
    with pytest.raises(UserError, match=r"line 2: expected two words and a score, got 'c d nan'"):
        read_similarities(str(tmp_path / "s.txt"))
    with pytest.raises(UserError, match=r"lists\.similarities=absent"):
        read_similarities("absent")


# Expressions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("king - man + woman", Expression(("king", "woman"), ("man",), True)),
        ("king-man", Expression(("king-man",))),
        ("king+queen", Expression(("king", "queen"), (), True)),
        ("king − man", Expression(("king",), ("man",), True)),
        ("- man + woman", Expression(("woman",), ("man",), True)),
        ("cat, dog", Expression(("cat", "dog"))),
        ("cat", Expression(("cat",))),
    ],
)
def test_expressions(text: str, expected: Expression) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["", "  ", "+", "king -", "king + - man", "king - man woman"])
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(UserError, match="text="):
        parse(text)


# Co-occurrences


def test_pairs_are_those_of_brute_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of any size, documents, words left out, and merges in many pieces."""
    monkeypatch.setattr("seqexp.data.cooccurrences.MERGED", 7)
    draw = np.random.default_rng(4)
    tokens = draw.integers(0, 9, 400)  # 0: a boundary, 1: left out, 2-6: words, 7 and 8: in no pair
    numbers = np.array([-1, -1, 0, 1, 2, 3, 4, 5, 6])
    weights = harmonic(3)
    wanted: Counter[int] = Counter()
    document: list[int] = []
    for token in [*tokens.tolist(), 0]:
        if token == 0:
            for i, left in enumerate(document):
                for distance, right in enumerate(document[i + 1 : i + 4], start=1):
                    if left < 5 and right < 5:
                        wanted[min(left, right) * 5 + max(left, right)] += weights[distance - 1]
            document = []
        elif numbers[token] >= 0:
            document.append(int(numbers[token]))
    for size in (1, 3, 50, 1000):
        folder = tmp_path / str(size)
        folder.mkdir()
        blocks = (tokens[first : first + size] for first in range(0, len(tokens), size))
        found = count_pairs(blocks, Window(numbers, 5, weights, boundary=0), folder)
        assert found["key"].tolist() == sorted(wanted)
        np.testing.assert_allclose(found["weight"], [wanted[key] for key in sorted(wanted)], rtol=1e-5)
        assert len(list(folder.iterdir())) == 1
    assert expected(4) == [1, 0.75, 0.5, 0.25]


def test_no_pairs(tmp_path: Path) -> None:
    window = Window(np.array([-1, 0]), 1, [1.0], boundary=0)
    assert len(count_pairs([np.array([0, 1, 0, 1])], window, tmp_path)) == 0


def test_ppmi_is_that_of_the_formula() -> None:
    """All dimensions of the SVD but one give back the matrix, as far as that goes."""
    draw = np.random.default_rng(5)
    counts = np.triu(draw.poisson(2.0, (12, 12)).astype(np.float32))
    rows, columns = np.nonzero(counts)
    vectors = ppmi_vectors(rows, columns, counts[rows, columns], 12, 11)
    both = (counts + counts.T).astype(np.float64)
    contexts = both.sum(0) ** 0.75 / (both.sum(0) ** 0.75).sum()
    with np.errstate(divide="ignore"):
        matrix = np.maximum(0, np.log(both / both.sum(1, keepdims=True) / contexts))
    left, values, _ = np.linalg.svd(matrix)
    wanted = left[:, :11] * np.sqrt(values[:11])
    np.testing.assert_allclose(vectors @ vectors.T, wanted @ wanted.T, atol=1e-3)
