"""Translate sentences: encode, batch by length, search, and decode."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seqexp.config.run import GenerationConfig
from seqexp.data.lines import fold_all_spaces, fold_spaces
from seqexp.data.pair_batch import pair_batch
from seqexp.decoding.beam import BeamSearch, Hypothesis
from seqexp.decoding.sampling import evaluation_mode
from seqexp.errors import UserError
from seqexp.tokenizers.pair import PairTokenizer

# Limits of a batch: hypotheses times source tokens, and hypotheses. Enough to keep the machine busy, few
# enough for any memory.
BATCH_TOKENS = 16384
BATCH_ROWS = 512
# Tokens of a source; longer ones are cut, since models are trained on single sentences.
LONGEST_SOURCE = 512


@dataclass(frozen=True)
class Translated:
    """One translation with its summed log-probability (nats, the end counted) and its ranking score.

    `attention` is (tokens + end, source tokens + end), with a list of labels for each axis, or None.
    """

    text: str
    log_probability: float
    score: float
    tokens: list[int]
    attention: npt.NDArray[np.float32] | None = None
    source_labels: list[str] = field(default_factory=list)
    target_labels: list[str] = field(default_factory=list)


class Translator:
    """A model or an ensemble, with its tokenizers and the options of the search.

    Raises:
        UserError: a coverage penalty is set, and the model has no attention.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PairTokenizer,
        config: GenerationConfig,
        device: torch.device,
        want_attention: bool = False,
    ) -> None:
        self.model, self.tokenizer, self.config, self.device = model, tokenizer, config, device
        if config.coverage_penalty and not model.shows_attention:
            raise UserError(
                "generation.coverage_penalty needs a model with attention, and this one has none; leave it "
                "out."
            )
        # Spaces that training sources never had are ordinary spaces.
        self._fold = fold_spaces if tokenizer.typographic_spaces else fold_all_spaces
        self.want_attention = want_attention and model.shows_attention
        unknown = tokenizer.target.unk_id
        self.copies = unknown is not None and config.replace_unknown and model.shows_attention
        suppressed = [] if self.copies or unknown is None else [unknown]
        keep = self.want_attention or self.copies
        self.search = BeamSearch(model, tokenizer.target.eos_id, config, suppressed, keep)

    def translate(self, sentences: Sequence[str]) -> Iterator[tuple[int, list[Translated], str | None]]:
        """Yield (number, `n_best` translations, note or None) for each sentence, the longest first.

        A blank sentence has one empty translation; a sentence of more than 512 tokens is cut.
        """
        encoded: dict[int, npt.NDArray[np.uint32]] = {}
        notes: dict[int, str] = {}
        for number, sentence in enumerate(sentences):
            sentence = self._fold(sentence)
            if not sentence:
                yield number, [Translated("", 0.0, 0.0, [])], "blank"
                continue
            ids = self.tokenizer.encode_source(sentence)
            unknown = self._unknown(sentence, ids)
            if unknown:
                notes[number] = f"never seen in training: {unknown}"
            if len(ids) > LONGEST_SOURCE:
                cut = f"cut: {len(ids):,} tokens, and the limit is {LONGEST_SOURCE}"
                notes[number] = "; ".join(filter(None, (cut, notes.get(number))))
            encoded[number] = ids[:LONGEST_SOURCE]
        for members in self._batches(encoded):
            sources = [encoded[number] for number in members]
            for number, found in zip(members, self._search(sources), strict=True):
                sentence = self._fold(sentences[number])
                yield number, [self._finished(h, sentence) for h in found], notes.get(number)

    def _unknown(self, sentence: str, ids: npt.NDArray[np.uint32]) -> str:
        """Return the pieces of a source that are not in the vocabulary, separated by commas."""
        unknown = self.tokenizer.source.unk_id
        if unknown is None or unknown not in ids:
            return ""
        pieces = zip(self.tokenizer.source_pieces(sentence), ids.tolist(), strict=True)
        # Strip the marks for a space, or its absence, before a piece.
        found = (piece.lstrip("▁￭") or piece for piece, number in pieces if number == unknown)
        return ", ".join(dict.fromkeys(found))

    def _batches(self, encoded: dict[int, npt.NDArray[np.uint32]]) -> Iterator[list[int]]:
        """Yield batches of sentence numbers, the longest first, so that progress is not overestimated."""
        batch: list[int] = []
        for number in sorted(encoded, key=lambda number: -len(encoded[number])):
            rows = (len(batch) + 1) * self.search.size
            if batch and (rows > BATCH_ROWS or rows * (len(encoded[batch[0]]) + 1) > BATCH_TOKENS):
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    def _search(self, sources: list[npt.NDArray[np.uint32]]) -> list[list[Hypothesis]]:
        end = self.search.end
        batch = pair_batch(sources, [[] for _ in sources], end).to(self.device)
        longest = [self.tokenizer.longest_target(len(ids), self.config.max_length_ratio) for ids in sources]
        lengths = [len(ids) + 1 for ids in sources]
        with evaluation_mode(self.model):
            return self.search.search((batch.source, batch.lengths["source"]), lengths, longest)

    def _finished(self, hypothesis: Hypothesis, sentence: str) -> Translated:
        source, target = self.tokenizer.source, self.tokenizer.target
        tokens = hypothesis.tokens
        text = self.tokenizer.decode_target(tokens)
        if self.copies and target.unk_id in tokens:
            assert hypothesis.attention is not None
            text = self._copied(tokens, hypothesis.attention, sentence)
        if not self.want_attention or hypothesis.attention is None:
            return Translated(text, hypothesis.log_probability, hypothesis.score, tokens)
        return Translated(
            text, hypothesis.log_probability, hypothesis.score, tokens,
            hypothesis.attention.float().cpu().numpy(),
            [*self.tokenizer.source_pieces(sentence)[:LONGEST_SOURCE], source.piece(source.eos_id)],
            [target.piece(token) for token in [*tokens, target.eos_id]],
        )  # fmt: skip

    def _copied(self, tokens: list[int], attention: torch.Tensor, sentence: str) -> str:
        """Replace each unknown token by the source piece with the most attention (Jean et al. 2015)."""
        target = self.tokenizer.target
        source = self.tokenizer.source_pieces(sentence)[:LONGEST_SOURCE]
        pieces = [
            source[int(attention[position, : len(source)].argmax())]
            if token == target.unk_id
            else target.piece(token)
            for position, token in enumerate(tokens)
        ]
        return target.join(pieces).removeprefix(target.sentence_start)
