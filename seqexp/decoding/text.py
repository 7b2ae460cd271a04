"""From a prompt to text, sample by sample, as it grows."""

from collections.abc import Iterator

import torch

from seqexp.config.run import GenerationConfig
from seqexp.decoding.interface import IncrementalModel
from seqexp.decoding.sampling import sample
from seqexp.errors import UserError
from seqexp.tokenizers.base import Tokenizer


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The tokens of a prompt; of an empty one, the token that begins a document.

    Raises:
        UserError: the prompt holds characters, or words, that the model never saw.
    """
    ids: list[int] = tokenizer.encode(prompt).tolist()
    if tokenizer.unknown_characters(prompt):
        parts = zip(tokenizer.pieces(prompt), ids, strict=True)
        unknown = dict.fromkeys(piece for piece, number in parts if number == tokenizer.unk_id)
        shown = ", ".join(f"{piece!r}" for piece in list(unknown)[:10])
        raise UserError(
            f"the prompt holds what this model never saw in training: {shown}. Write it without, or train "
            "with tokenizer=byte or tokenizer=sentencepiece."
        )
    # A space at the end that is no token by itself is left to the word that follows.
    if ids and ids[-1] == tokenizer.unk_id:
        ids.pop()
    return ids or [tokenizer.bos_id]


def generate_texts(
    model: IncrementalModel,
    tokenizer: Tokenizer,
    prompt: str,
    config: GenerationConfig,
    seed: int,
    device: torch.device,
) -> Iterator[list[str]]:
    """Yield the new text of every sample so far, after each token.

    A sample ends at a document boundary, or just before `config.stop`. An unfinished character (bytes)
    at the end is held back.
    """
    ids = prompt_ids(tokenizer, prompt)
    rows = torch.tensor([ids] * config.num_samples, device=device)
    written: list[list[int]] = [[] for _ in range(config.num_samples)]
    texts = [""] * config.num_samples
    # Decoded with the prompt: whether a word begins with a space may depend on what stands before it.
    begun = len(tokenizer.decode(ids))
    ended = [False] * config.num_samples
    drawn = sample(
        model,
        rows,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        suppress_tokens=tokenizer.suppress_tokens(),
        seed=seed,
    )
    for tokens in drawn:
        for row, token in enumerate(tokens.tolist()):
            if ended[row]:
                continue
            if token == tokenizer.eos_id:
                ended[row] = True
                continue
            written[row].append(token)
            text = tokenizer.decode([*ids, *written[row]])
            text = text[len(prompt) if text.startswith(prompt) else begun :]
            if config.stop and config.stop in text:
                text, ended[row] = text[: text.index(config.stop)], True
            texts[row] = text
        yield [_settled(text, config.stop) for text in texts]
        if all(ended):
            break
    yield list(texts)


def _settled(text: str, stop: str | None) -> str:
    """The part of `text` that later tokens cannot change: no half character, no beginning of `stop`."""
    text = text.rstrip("\ufffd")
    for size in range(min(len(stop or ""), len(text)), 0, -1):
        if stop and text.endswith(stop[:size]):
            return text[:-size]
    return text
