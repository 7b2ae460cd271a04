"""Pairs and tokens per second of the spelling exam, compared with a bare forward pass and a simple loop.

    python scripts/bench_exams.py                          # the course's model, fp32 and bf16, all cores
    python scripts/bench_exams.py --data path/to/novels    # default: the stand-in book

The weights are random, which does not change the speed. `forward` reads the same rows in the same batches
without scoring them; `loop` reads one text after the other, two per pair, without padding. The three
alternate on slices of the same pairs; the ratios are of the sums. Run it on an idle machine.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from seqexp.config.data import TextDataConfig
from seqexp.config.run import DeviceConfig
from seqexp.config.tokenizer import TokenizerConfig
from seqexp.data.encoded import split_pieces
from seqexp.data.text import TextData
from seqexp.exams.lexicon import make_lexicon
from seqexp.exams.questions import MinimalPair
from seqexp.exams.scoring import BATCH_TOKENS, Scorer, batches_of
from seqexp.exams.spelling import make_spelling_exam
from seqexp.models.gpt import GPT
from seqexp.training.device import setup_device


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="a folder of novels")
    parser.add_argument("--pairs", type=int, default=40_000)
    parser.add_argument("--loop-pairs", type=int, default=1000, help="pairs of these that the loop scores")
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    name = "text" if options.data else "potter"
    config = TextDataConfig(name=name, path=options.data, stand_in=True, seq_len=256)
    data = TextData.build(config, TokenizerConfig(name="char"), seed=1)
    parts: dict[str, list[str]] = {"train": [], "val": []}
    for part, _, _, text in split_pieces(data.corpus, config.split):
        parts[part].append(text)
    lexicon = make_lexicon(parts["train"], parts["val"])
    made = make_spelling_exam(lexicon, nonwords=12, seed=1).pairs
    pairs = [made[i] for i in np.random.default_rng(1).permutation(len(made))[: options.pairs]]
    model = GPT(data.tokenizer.vocab_size, max_len=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2)
    model.eval()
    print(f"{len(pairs):,} pairs, {sum(p.numel() for p in model.parameters()):,} parameters")
    for precision in ("fp32", "bf16"):
        device = setup_device(DeviceConfig(precision=precision, threads=options.threads))
        model.to(device.torch)
        measure(Scorer(model, data.tokenizer, device.autocast), pairs, options, device.name)


def measure(scorer: Scorer, pairs: list[MinimalPair], options: argparse.Namespace, name: str) -> None:
    times = dict.fromkeys(("exam", "forward", "loop"), 0.0)
    tokens = 0
    scorer.score([pairs[0].good], words=True)
    with torch.inference_mode():
        for part in range(options.slices):
            some = pairs[part :: options.slices]
            few = some[: options.loop_pairs // options.slices]
            texts = [side for pair in some for side in (pair.good, pair.bad)]
            lengths = [len(text) + 2 for text in dict.fromkeys(texts)]
            tokens += sum(lengths)
            times["exam"] += seconds(partial(scorer.score, texts, words=True))
            times["forward"] += seconds(partial(forward, scorer, lengths))
            times["loop"] += seconds(partial(loop, scorer, few))
    looped = options.loop_pairs // options.slices * options.slices
    rates = {"exam": len(pairs) / times["exam"], "loop": looped / times["loop"]}
    precision = "bf16" if "bf16" in str(scorer.autocast) else ""
    print(f"{name} {precision} {torch.get_num_threads()} threads")
    print(f"  exam     {rates['exam']:8,.0f} pairs/s  {tokens / times['exam']:9,.0f} tokens/s")
    print(f"  forward  {'':8}          {tokens / times['forward']:9,.0f} tokens/s")
    print(f"  loop     {rates['loop']:8,.0f} pairs/s")
    ahead = rates["exam"] / rates["loop"]
    print(f"  exam / forward {times['forward'] / times['exam']:.2f}   exam / loop {ahead:.1f}")


def forward(scorer: Scorer, lengths: list[int]) -> None:
    """Run the bare forward pass over the same number of rows and tokens."""
    for batch in batches_of(lengths, BATCH_TOKENS):
        with scorer.autocast():
            scorer.model(torch.ones(len(batch), lengths[batch[-1]], dtype=torch.int64, device=scorer.device))
    if scorer.device.type == "cuda":
        torch.cuda.synchronize()


def loop(scorer: Scorer, pairs: list[MinimalPair]) -> None:
    """Score one text after the other, like a notebook."""
    for pair in pairs:
        for side in (pair.good, pair.bad):
            ids = [scorer.tokenizer.bos_id, *scorer.tokenizer.encode(f" {side} ").tolist()]
            tokens = torch.tensor([ids], device=scorer.device)
            with scorer.autocast():
                logits = scorer.model(tokens[:, :-1])
            float(F.cross_entropy(logits[0].float(), tokens[0, 1:], reduction="sum"))


if __name__ == "__main__":
    main()
