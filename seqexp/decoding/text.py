"""Generate text from a prompt, and yield all samples as they grow."""

from collections.abc import Iterator

import torch

from seqexp.config.run import GenerationConfig
from seqexp.decoding.interface import IncrementalModel
from seqexp.decoding.sampling import sample
from seqexp.errors import UserError
from seqexp.tokenizers.base import Tokenizer


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Return the tokens of a prompt; for an empty one, the token that begins a document.

    Raises:
        UserError: the prompt contains characters or words outside the vocabulary.
    """
    ids: list[int] = tokenizer.encode(prompt).tolist()
    if tokenizer.unknown_characters(prompt):
        parts = zip(tokenizer.pieces(prompt), ids, strict=True)
        unknown = dict.fromkeys(piece for piece, number in parts if number == tokenizer.unk_id)
        shown = ", ".join(f"{piece!r}" for piece in list(unknown)[:10])
        raise UserError(
            f"the prompt contains text that this model never saw in training: {shown}. Remove it, or train "
            "with tokenizer=byte or tokenizer=sentencepiece."
        )
    # Drop a final space without a token of its own: it belongs to the next word.
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

    A sample ends at a document boundary, or just before `config.stop`. The bytes of an unfinished character
    at the end are held back.
    """
    ids = prompt_ids(tokenizer, prompt)
    rows = torch.tensor([ids] * config.num_samples, device=device)
    generated: list[list[int]] = [[] for _ in range(config.num_samples)]
    texts = [""] * config.num_samples
    # Decode new tokens with the prompt: a space before a word may depend on the text before it.
    prompt_length = len(tokenizer.decode(ids))
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
            if token in (tokenizer.bos_id, tokenizer.eos_id):
                ended[row] = True
                continue
            generated[row].append(token)
            text = tokenizer.decode([*ids, *generated[row]])
            text = text[len(prompt) if text.startswith(prompt) else prompt_length :]
            if config.stop and config.stop in text:
                text, ended[row] = text[: text.index(config.stop)], True
            texts[row] = text
        yield [_settled(text, config.stop) for text in texts]
        if all(ended):
            break
    yield list(texts)


def _settled(text: str, stop: str | None) -> str:
    """Return the part of `text` that later tokens cannot change, without a partial character or `stop`."""
    text = text.rstrip("\ufffd")
    for size in range(min(len(stop or ""), len(text)), 0, -1):
        if stop and text.endswith(stop[:size]):
            return text[:-size]
    return text
