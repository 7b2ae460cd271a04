"""Predict masked tokens: loss in nats per masked token, and how many are filled in exactly."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from seqexp.config.exams import ExamsConfig
from seqexp.config.masked import MaskedLanguageModelingConfig
from seqexp.data.base import Data
from seqexp.data.batch import Batch
from seqexp.data.masked_text import MaskedTextData
from seqexp.data.masking import Masking
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.text import TextData
from seqexp.decoding.sampling import evaluation_mode
from seqexp.errors import UserError
from seqexp.exams.pseudo import PseudoScorer
from seqexp.exams.scoring import Scorer
from seqexp.metrics.intervals import wilson
from seqexp.metrics.metric import Metric, MetricSpec
from seqexp.metrics.neighbours import OFFSETS, fill_in
from seqexp.tasks.base import (
    EvalOptions,
    Evaluation,
    Forward,
    LossOutput,
    Prediction,
    PredictOptions,
    Sample,
    Sums,
    Task,
    device_of,
)
from seqexp.tasks.cross_entropy import smoothed_cross_entropy
from seqexp.tokenizers.base import Tokenizer

# What stands for a masked token in a text, whatever the tokenizer calls it.
MASK = "[MASK]"
# Candidates for a mask, unless `generation.top_k` says how many.
CANDIDATES = 5
# Lines that are scored together.
SCORED_TOGETHER = 1000
# Training tokens that the baselines count at most.
MOST_COUNTED = 50_000_000
BASELINES = {
    "unigram_accuracy": MetricSpec("most frequent token", higher_is_better=True),
    "ngram_accuracy": MetricSpec("5-gram model that sees both sides", higher_is_better=True),
    "ngram_loss": MetricSpec("nats, 5-gram model that sees both sides", higher_is_better=False),
}
# Sentences of a sample at a validation, and characters of each.
SAMPLES, SAMPLE_CHARACTERS = 3, 100
# Words of the shortest of them, and where a sentence ends.
SHORTEST_SAMPLE = 5
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


class MaskedLanguageModeling(Task):
    """The task of models that map tokens (B, T) to logits of the tokens at given positions."""

    loss_unit = "nats per masked token"

    def __init__(self, config: MaskedLanguageModelingConfig) -> None:
        self.config = config
        self.masking = Masking(
            config.mask_share, config.mask_token_share, config.random_token_share, config.mask_unit
        )
        self.metrics = {
            "loss": MetricSpec(self.loss_unit, higher_is_better=False),
            "perplexity": MetricSpec("per masked token", higher_is_better=False),
            "accuracy": MetricSpec("share of masked tokens", higher_is_better=True),
        }

    def prepare(self, data: Data, model: Any, preprocessor: Preprocessor | None = None) -> Data:
        """Return windows with masked tokens."""
        del model, preprocessor
        assert isinstance(data, TextData)
        return MaskedTextData.of(data, self.masking, self.config.dynamic, self.config.cross_documents)

    def loss(self, model: Forward, batch: Batch, *, training: bool = False) -> LossOutput:
        """Return cross-entropy summed over masked tokens; in evaluation, how many are most likely."""
        logits = model(batch.tokens, batch.lengths.get("tokens"), batch.positions).flatten(0, 1)
        targets = batch.targets.flatten()
        if training:
            return LossOutput(*smoothed_cross_entropy(logits, targets, 0.0))
        right = (logits.argmax(dim=1) == targets).sum()
        loss, nll = smoothed_cross_entropy(logits, targets, 0.0)
        return LossOutput(loss, nll, {"accuracy": right})

    def averages(self, sums: Sums, data: Data, split: str) -> dict[str, Metric]:
        """Return loss, perplexity, and accuracy with Wilson's interval, over all masked tokens."""
        del data, split
        loss, right, n = sums.nll / sums.count, sums.metrics["accuracy"], sums.count
        return {
            "loss": self.metrics["loss"].of(loss, n),
            "perplexity": self.metrics["perplexity"].of(math.exp(loss) if loss < 700 else math.inf, n),
            "accuracy": self.metrics["accuracy"].of(right / n, n, wilson(right, n)),
        }

    def evaluate(self, model: Any, data: Data, split: str, options: EvalOptions | None = None) -> Evaluation:
        """Return loss, perplexity and accuracy; with `options.generation` also those of the baselines."""
        assert isinstance(data, MaskedTextData)
        evaluation = super().evaluate(model, data, split, options)
        if options is None or options.generation is None:
            return evaluation
        if "train" not in data.splits:
            evaluation.notes.append("no baselines: the training text is not at hand")
            return evaluation
        part = data.splits["train"]
        if part.tokens > MOST_COUNTED:
            evaluation.notes.append(f"the baselines count the first {MOST_COUNTED:,} training tokens")
        neighbours, true = data.neighbours(split, OFFSETS)
        found = fill_in(part.mapped()[:MOST_COUNTED], neighbours, true, data.tokenizer.vocab_size)
        n = len(true)
        for name, hits in (("unigram", true == found.most_frequent), ("ngram", true == found.best)):
            right = int(hits.sum())
            evaluation[f"{name}_accuracy"] = BASELINES[f"{name}_accuracy"].of(right / n, n, wilson(right, n))
        loss = -float(found.log_probabilities.mean())
        evaluation["ngram_loss"] = BASELINES["ngram_loss"].of(loss, n)
        return evaluation

    def scores(self, model: Any, data: Data, split: str) -> Iterator[dict[str, Any]]:
        """Yield the pseudo-log-likelihood of each line of a split in nats, and its pseudo-perplexity."""
        assert isinstance(data, TextData)
        scorer = PseudoScorer(model, data.tokenizer)
        lines = [line.strip() for line in "".join(data.texts(split)).split("\n")]
        for first in range(0, len(lines), SCORED_TOGETHER):
            some = lines[first : first + SCORED_TOGETHER]
            found = scorer.score(some, words=False).log_probabilities.tolist()
            for number, (line, score) in enumerate(zip(some, found, strict=True), start=first + 1):
                if not line:
                    continue
                tokens = len(data.tokenizer.encode(data.tokenizer.sentence_start + line))
                known = not math.isnan(score)
                yield {
                    "line": number, "text": line, "tokens": tokens,
                    "pseudo_log_likelihood": score if known else None,
                    "pseudo_perplexity": math.exp(-score / tokens) if known and tokens else None,
                }  # fmt: skip

    # Prediction

    def scorer(
        self,
        model: Any,
        preprocessor: Preprocessor,
        autocast: Callable[[], AbstractContextManager[Any]],
        exams: ExamsConfig,
    ) -> Scorer:
        """Return what scores texts by their pseudo-log-likelihoods."""
        return PseudoScorer(model, preprocessor["text"], autocast, exams.within_word)

    def predict(
        self, model: Any, preprocessor: Preprocessor, inputs: Sequence[str], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Return an iterator over the texts with each ``[MASK]`` filled in by its most likely token.

        The values have the most likely tokens of each mask, `generation.top_k` of them, with their
        probabilities. Masks of one text are filled in independently.

        Raises:
            UserError: a text has no mask, or is longer than the model's window.
        """
        tokenizer = preprocessor["text"]
        most = getattr(model, "max_len", None)
        encoded = []
        for number, text in enumerate(inputs, start=1):
            if text.strip() and MASK not in text:
                raise UserError(
                    f"line {number}: there is no {MASK} in the text; write it where a word is to be filled "
                    f'in, as in text="The old {MASK} sat by the fire."'
                )
            ids = encode_masked(tokenizer, text)
            if most is not None and len(ids) > most:
                raise UserError(
                    f"line {number}: the text has {len(ids)} tokens, and the model's window is {most}; "
                    "give a shorter text."
                )
            encoded.append(ids)
        return self._fill(model, tokenizer, inputs, encoded, options.generation.top_k or CANDIDATES)

    def _fill(
        self, model: Any, tokenizer: Tokenizer, inputs: Sequence[str], encoded: list[list[int]], most: int
    ) -> Iterator[Prediction]:
        for index, (text, ids) in enumerate(zip(inputs, encoded, strict=True)):
            masks = [t for t, number in enumerate(ids) if number == tokenizer.mask_id]
            if not masks:
                yield Prediction(
                    index, (text,), {"line": index + 1, "text": text, "masks": []}, note="empty text"
                )
                continue
            p = self._probabilities(model, tokenizer, ids, masks)
            filled, candidates = list(ids), []
            best = p.topk(min(most, p.shape[1]), dim=1)
            for t, numbers, values in zip(masks, best.indices.tolist(), best.values.tolist(), strict=True):
                filled[t] = numbers[0]
                candidates.append(
                    [
                        {"token": tokenizer.piece(number), "probability": value}
                        for number, value in zip(numbers, values, strict=True)
                    ]
                )
            answer = tokenizer.decode(filled).strip()
            values = {"line": index + 1, "text": text, "filled": answer, "masks": candidates}
            yield Prediction(index, (answer,), values)

    def _probabilities(self, model: Any, tokenizer: Tokenizer, ids: list[int], masks: list[int]) -> Tensor:
        """Return the probabilities of all tokens at the masks, (K, V), without special ones."""
        device = device_of(model)
        tokens, positions = torch.tensor([ids], device=device), torch.tensor([masks], device=device)
        with evaluation_mode(model), torch.inference_mode():
            logits = model(tokens, None, positions)[0].float()
            logits[:, list(tokenizer.special_tokens().values())] = -math.inf
            return logits.softmax(dim=1)

    def show(self, prediction: Prediction, options: PredictOptions) -> str:
        """The filled-in text, then a line for each mask with its candidates."""
        del options
        lines = [prediction.text]
        for number, candidates in enumerate(prediction.values.get("masks", []), start=1):
            shown = ", ".join(f"{one['token'].strip()} {one['probability']:.3f}" for one in candidates)
            lines.append(f"  {MASK} {number}: {shown}")
        return "\n".join(lines)

    def sample(self, model: Any, data: Data, options: PredictOptions) -> Sample | None:
        """Return validation sentences with a masked word, and what the model fills in."""
        assert isinstance(data, TextData)
        texts = masked_sentences(data, "val", SAMPLES)
        if not texts:
            return None
        found = self.predict(model, data.preprocessor, texts, options)
        return Sample(
            "\n\n".join(f"{text}\n{self.show(one, options)}" for text, one in zip(texts, found, strict=True))
        )

    def example_input(self, data: Data) -> str | None:
        """Return the first words of the validation text with one of them masked."""
        assert isinstance(data, TextData)
        return next(iter(masked_sentences(data, "val", 1)), None)


def encode_masked(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a text with ``[MASK]`` in it, between boundaries.

    A space before a mask belongs to the token that fills it in, where tokens begin with spaces.
    """
    ids = [tokenizer.bos_id]
    parts = (tokenizer.sentence_start + text.strip()).split(MASK)
    for number, part in enumerate(parts):
        if number:
            assert tokenizer.mask_id is not None
            ids.append(tokenizer.mask_id)
        if number < len(parts) - 1 and tokenizer.word_start:
            part = part.removesuffix(tokenizer.word_start)
        ids += tokenizer.encode(part).tolist() if part else []
    return [*ids, tokenizer.eos_id]


def masked_sentences(data: TextData, split: str, number: int) -> list[str]:
    """Return sentences of a split that fit into a window, each with its middle word masked."""
    text = next(iter(data.texts(split)), "")[: 1000 * SAMPLE_CHARACTERS]
    # The first one may begin inside a sentence.
    sentences = [one.strip() for one in SENTENCE_END.split(text)[1:]]
    fitting = []
    for sentence in sentences:
        words = sentence[:SAMPLE_CHARACTERS].split(" ")
        words = words if len(sentence) <= SAMPLE_CHARACTERS else words[:-1]
        if len(words) >= SHORTEST_SAMPLE and sentence.isprintable():
            words[len(words) // 2] = MASK
            masked = " ".join(words)
            if len(encode_masked(data.tokenizer, masked)) <= data.config.seq_len:
                fitting.append(masked)
    return fitting[:: max(1, len(fitting) // number)][:number]
