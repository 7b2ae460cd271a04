"""Word embeddings: train vectors of words, and show what they know."""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F

from seqexp.config.root import ExportConfig
from seqexp.config.word_embeddings import WordEmbeddingsConfig
from seqexp.config.word_lists import WordListsConfig
from seqexp.data.base import Data
from seqexp.data.batch import Batch
from seqexp.data.contexts import ContextData
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.text import TextData
from seqexp.data.vectors import write_vectors
from seqexp.data.word_data import WordData
from seqexp.decoding.word_arithmetic import Expression, parse
from seqexp.errors import UserError
from seqexp.metrics.metric import MetricSpec
from seqexp.metrics.vector_space import Floats, VectorSpace, unit
from seqexp.tasks.base import (
    EvalOptions,
    Evaluation,
    Forward,
    LossOutput,
    Prediction,
    PredictOptions,
    Sample,
    Table,
    Task,
    Updater,
)
from seqexp.tasks.plain_vectors import PlainUpdates
from seqexp.tasks.word_maps import PICTURES, write_map, write_projector
from seqexp.tasks.word_vector_report import (
    FIRST_RANK,
    SHOWN_NEIGHBOURS,
    add_report,
    baseline_of,
    neighbours,
    report_tables,
    shown_words,
)

PERPLEXITY = MetricSpec("per pair", higher_is_better=False)


class WordEmbeddings(Task):
    """The task of models that score words by the words around them (`Word2Vec`)."""

    loss_unit = "nats per pair"

    def __init__(self, config: WordEmbeddingsConfig) -> None:
        self.config = config
        self.metrics = {"loss": MetricSpec(self.loss_unit, higher_is_better=False)}

    def prepare(self, data: Data, model: Any, preprocessor: Preprocessor | None = None) -> Data:
        """Return the examples that a model with these options reads."""
        assert isinstance(data, TextData)
        return ContextData(data, model, preprocessor)

    def sizes(self, preprocessor: Preprocessor) -> dict[str, Any]:
        return {"words": words_of(preprocessor)}

    def updater(self, model: Any, config: Any, optimizers: Any = None) -> tuple[Updater | None, str | None]:
        """Return updates by one example after the other, compiled if possible; None for other optimizers."""
        del optimizers

        def compiled() -> Updater:
            from seqexp.tasks.compiled_vectors import CompiledUpdates

            return CompiledUpdates(model, config.model.workers)

        return compiled_or_plain(model, config, compiled, lambda: PlainUpdates(model, self))

    def loss(self, model: Forward, batch: Batch, *, training: bool = False) -> LossOutput:
        """Return the binary cross-entropy of the word and of the words drawn beside it, summed over pairs."""
        logits = model(batch.contexts, batch.outputs).float()
        labels = batch.labels.unsqueeze(1).expand_as(logits)
        asked = (batch.outputs >= 0).unsqueeze(1)
        if logits.shape[1] == batch.contexts.shape[1]:
            asked = asked & (batch.contexts >= 0).unsqueeze(2)
        nll = (F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * asked).sum()
        return LossOutput(nll, nll.detach())

    # Evaluation

    def evaluate(self, model: Any, data: Data, split: str, options: EvalOptions | None = None) -> Evaluation:
        """Return the loss; with `options.generation` also analogies, similarities and neighbours.

        With hierarchical softmax also the perplexity of a word given a word of its context, or all of it.
        """
        options = options or EvalOptions()
        evaluation = super().evaluate(model, data, split, options)
        if getattr(data, "options", None) and getattr(data.options, "loss", None) == "hierarchical":  # type: ignore[attr-defined]
            loss = evaluation["loss"]
            evaluation["perplexity"] = PERPLEXITY.of(math.exp(min(loss.value, 700)), loss.count)
        if options.generation is not None:
            assert isinstance(data, WordData)
            words, vectors = real_words(model, data.preprocessor)
            space = VectorSpace(words, vectors, options.generation.max_words)
            add_report(
                evaluation,
                self._lists(options),
                space,
                lambda found: oov_vectors(model, found),
                lambda: baseline_of(space, data, evaluation) if self.config.baseline else None,
            )
        return evaluation

    def _lists(self, options: EvalOptions) -> WordListsConfig:
        """Return the lists of an evaluation, those of the training in place of what it leaves out."""
        given = options.lists
        return WordListsConfig(
            given.analogies or self.config.analogies,
            given.similarities or self.config.similarities,
            given.outliers,
        )

    def tables(self, details: Mapping[str, Any]) -> list[Table]:
        """Return tables of analogies, similarities and neighbours."""
        return report_tables(details)

    def sample(self, model: Any, data: Data, options: PredictOptions) -> Sample:
        """Return the neighbours of a few words."""
        space = VectorSpace(*real_words(model, data.preprocessor), options.generation.max_words)
        lines = [
            f"{word}: {', '.join(other for other, _ in neighbours(space, word, SHOWN_NEIGHBOURS))}"
            for word in shown_words(space)
        ]
        return Sample("\n".join(lines))

    def export(
        self, model: Any, preprocessor: Preprocessor, target: Path, options: ExportConfig
    ) -> list[Path]:
        """Write the vectors of all words, from the most frequent on, or a map of some words."""
        words, vectors = real_words(model, preprocessor)
        if options.format != "projector" and target.suffix not in PICTURES:
            return write_vectors(target, words, vectors, options.format)
        if options.words:
            found = self.word_vectors(model, preprocessor, options.words)
            unknown = [word for word in options.words if word not in found]
            if unknown:
                raise UserError(f"words={unknown[0]}: {unknown[0]!r} is not in the vocabulary.")
            words, vectors = list(found), np.stack([found[word] for word in found])
        words, vectors = words[: options.count], vectors[: options.count]
        if options.format == "projector":
            return write_projector(target, words, vectors)
        return write_map(target, words, vectors, options.projection, options.seed)

    # Prediction

    def word_vectors(self, model: Any, preprocessor: Preprocessor, words: Iterable[str]) -> dict[str, Any]:
        """Return the vectors of the words that the vocabulary has, and of others if the model makes them."""
        vocabulary, vectors = real_words(model, preprocessor)
        number = {word: i for i, word in enumerate(vocabulary)}
        wanted = list(dict.fromkeys(words))
        found = {word: vectors[number[word]] for word in wanted if word in number}
        return {**oov_vectors(model, [word for word in wanted if word not in found]), **found}

    def predict(
        self, model: Any, preprocessor: Preprocessor, inputs: Sequence[str], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Return an iterator over the answers to each input.

        One word: its neighbours. Words with signs (``king - man + woman``): the words nearest to the sum. Two
        words: the cosine of their vectors. More words: the one that fits the others least.

        Raises:
            UserError: an input is not of these forms, or a word has no vector.
        """
        space = VectorSpace(*real_words(model, preprocessor), options.generation.max_words)
        everything = VectorSpace(*real_words(model, preprocessor))
        expressions = [parse(text) for text in inputs]
        wanted = dict.fromkeys(word for one in expressions for word in one.words)
        vectors = {
            word: everything.units[number]
            for word in wanted
            if (number := everything.number(word)) is not None
        }
        made = oov_vectors(model, [word for word in wanted if word not in vectors])
        vectors |= {word: unit(vector) for word, vector in made.items()}
        for number, one in enumerate(expressions, start=1):
            for word in one.words:
                if word not in vectors:
                    where = f"line {number}: " if len(inputs) > 1 else ""
                    near = difflib.get_close_matches(word.lower(), everything.words, n=3)
                    hint = f"; near it are {', '.join(near)}" if near else ""
                    raise UserError(f"{where}{word!r} is not in the vocabulary{hint}.")
        return self._predictions(space, expressions, vectors, set(made), inputs, options)

    def _predictions(
        self,
        space: VectorSpace,
        expressions: Sequence[Expression],
        vectors: Mapping[str, Floats],
        made: set[str],
        inputs: Sequence[str],
        options: PredictOptions,
    ) -> Iterator[Prediction]:
        settings = options.generation
        for index, (text, one) in enumerate(zip(inputs, expressions, strict=True)):
            values: dict[str, Any] = {"line": index + 1, "text": text}
            unknown = [word for word in one.words if word in made]
            note = f"made from n-grams: {', '.join(unknown)}" if unknown else None
            if not one.signed and len(one.plus) == 2:
                cosine = float(vectors[one.plus[0]] @ vectors[one.plus[1]])
                yield Prediction(index, (f"{cosine:.4f}",), {**values, "cosine": cosine}, note=note)
                continue
            if not one.signed and len(one.plus) > 2:
                stacked = np.stack([vectors[word] for word in one.plus])
                fit = stacked @ unit(stacked.mean(0))
                outlier = one.plus[int(fit.argmin())]
                fits = {word: float(value) for word, value in zip(one.plus, fit, strict=True)}
                yield Prediction(index, (outlier,), {**values, "outlier": outlier, "fit": fits}, note=note)
                continue
            own = [same for word in one.words for same in _own(space, word)]
            found = space.nearest(_scores(space, one, vectors, settings.analogy), settings.neighbours, own)
            shown = "\n".join(f"{word}\t{score:.4f}" for word, score in found)
            answers = [{"word": word, "score": score} for word, score in found]
            yield Prediction(index, (shown,), {**values, "answers": answers}, note=note)

    def example_input(self, data: Data) -> str | None:
        """Return the famous analogy if its words are known, else a frequent word."""
        words = words_of(data.preprocessor)
        if {"king", "man", "woman"} <= set(words):
            return "king - man + woman"
        plain = [word for word in words if word.isalpha()]
        return plain[min(len(plain) - 1, FIRST_RANK)] if plain else None


def compiled_or_plain(
    model: Any, config: Any, compiled: Callable[[], Updater], plain: Callable[[], Updater]
) -> tuple[Updater | None, str | None]:
    """Return the updater that ``model.impl=`` asks for and that can be had, and a note for the user.

    Raises:
        UserError: the compiled one was asked for and cannot be had.
    """
    options, device = config.model, next(model.parameters()).device.type
    obstacle = options.obstacle(config)
    if obstacle:
        return None, f"{obstacle}: the vectors are trained by the gradient of whole batches"
    if options.impl == "plain":
        return plain(), None
    missing = None if device == "cpu" else f"the device is {device}"
    if missing is None:
        try:
            return compiled(), None
        except ImportError as error:
            missing = f'numba is missing (pip install "seqexp[embeddings]"; {error})'
    if options.impl == "compiled" or options.workers > 1:
        raise UserError(f"model.impl=compiled cannot be had: {missing}; use model.impl=plain.")
    return plain(), f"trained by PyTorch, as compiled code cannot be had: {missing}"


def _own(space: VectorSpace, word: str) -> list[int]:
    number = space.number(word)
    return [] if number is None else space.same(number)


def _scores(space: VectorSpace, one: Expression, vectors: Mapping[str, Floats], method: str) -> Floats:
    """Return the scores (V,) of all words as the answer to an expression."""
    if method == "cosmul" and one.minus:
        scores = np.ones(len(space.words), np.float32)
        for word in one.plus:
            scores *= (space.units @ vectors[word] + 1) / 2
        for word in one.minus:
            scores /= (space.units @ vectors[word] + 1) / 2 + np.float32(1e-3)
        return scores
    total = sum((vectors[word] for word in one.plus), np.zeros(space.vectors.shape[1], np.float32))
    for word in one.minus:
        total = total - vectors[word]
    found: Floats = space.units @ unit(total)
    return found


def words_of(preprocessor: Preprocessor) -> list[str]:
    """Return the words of a vocabulary, by the number of their tokens; special tokens are among them."""
    tokenizer = preprocessor["text"]
    return [tokenizer.piece(number) for number in range(tokenizer.vocab_size)]


def real_words(model: Any, preprocessor: Preprocessor) -> tuple[list[str], Floats]:
    """Return the words that are no special tokens, from the most frequent on, and their vectors (V, D)."""
    special = set(preprocessor["text"].special_tokens().values())
    words = words_of(preprocessor)
    counts = preprocessor.values.get("counts") or [0] * len(words)
    order = sorted((n for n in range(len(words)) if n not in special), key=lambda n: (-counts[n], n))
    vectors = model.word_vectors().float().cpu().numpy()
    return [words[n] for n in order], np.ascontiguousarray(vectors[order])


def oov_vectors(model: Any, words: Sequence[str]) -> dict[str, Floats]:
    """Return vectors of words that are not in the vocabulary, if the model makes them."""
    make = getattr(model, "vector_of", None)
    made = {word: make(word.lower()) for word in words} if make else {}
    return {word: vector.float().cpu().numpy() for word, vector in made.items() if vector is not None}
