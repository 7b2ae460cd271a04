"""Speed of training and decoding, compared with JoeyNMT at equal sizes, batches and beam.

    python scripts/bench_nmt.py --joeynmt /path/to/an/environment/with/joeynmt/bin/python
    python scripts/bench_nmt.py --models gru --precision fp32 bf16    # only seqexp

The data are the pairs of data=tatoeba with more than eight English words, about 24,000, in a joint BPE of
4,000 subwords, in batches of 64 sentences, with two threads. gru: embeddings and states of 256, a
bidirectional encoder, Bahdanau attention, input feeding. transformer: 3 + 3 layers, width 256, feed-forward
1,024. Both tools train --train-steps steps, so that sentences end, and translate the same --sentences test
sentences with a beam of 5; the figure for training is the median of the last --steps steps. JoeyNMT runs
afterwards in its own process and environment (docs/speed.md has the commands). Absolute figures depend on
the machine: quote ratios of one run.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from seqexp.config.data import ParallelDataConfig
from seqexp.config.run import GenerationConfig
from seqexp.config.task import TranslationConfig
from seqexp.config.tokenizer import SentencePieceConfig
from seqexp.data.pairs import find_pairs
from seqexp.data.parallel import ParallelData
from seqexp.decoding.translation import Translator
from seqexp.models.nmt import NMT
from seqexp.models.transformer import Transformer
from seqexp.tasks.translation import Translation

FOLDER = Path("outputs/bench_nmt")
WORDS = 8


def prepare() -> ParallelData:
    """Write the longer pairs as a data set, and as files for JoeyNMT."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    pairs = find_pairs(ParallelDataConfig(name="tatoeba")).pairs
    longer = [f"{source}\t{target}\n" for source, target in pairs if len(source.split()) > WORDS]
    (FOLDER / "pairs.tsv").write_text("".join(longer), encoding="utf-8")
    config = ParallelDataConfig(name="parallel", path=str(FOLDER / "pairs.tsv"), batch_size=64)
    data = ParallelData.build(
        config, SentencePieceConfig(model_type="bpe", vocab_size=4000, joint=True), seed=1
    )
    pieces = data.tokenizer.source_pieces
    for split, name in (("train", "train"), ("test", "test")):
        for side, suffix in ((0, "src"), (1, "trg")):
            lines = (" ".join(pieces(pair[side])) for pair in data.splits[split].pairs)
            (FOLDER / f"{name}.{suffix}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    vocabulary = (
        data.tokenizer.source.piece(number) for number in range(2, data.tokenizer.source.vocab_size)
    )
    (FOLDER / "vocab.txt").write_text(
        "".join(f"{piece}\n" for piece in vocabulary if piece.strip()), encoding="utf-8"
    )
    return data


def build(kind: str, data: ParallelData) -> Any:
    sizes = data.preprocessor.sizes()
    torch.manual_seed(1)
    if kind == "gru":
        # JoeyNMT's Bahdanau attention scores the new state, as `concat` does here.
        return NMT(**sizes, attention="concat", hidden_size=256, n_embd=256)
    return Transformer(**sizes, n_layer=3, n_embd=256, ffn_size=1024, dropout=0.0, tie_embeddings=False)


def train(model: Any, data: ParallelData, precision: str, steps: int, timed: int) -> list[tuple[int, float]]:
    """(target tokens, seconds) of the last `timed` steps, the whole step with making its batch."""
    task = Translation(TranslationConfig())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    figures = []
    for step in range(steps):
        started = time.perf_counter()
        batch = data.train_batch(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = task.loss(model, batch).loss_sum / batch.count
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        figures.append((batch.count, time.perf_counter() - started))
    return figures[-timed:]


def ours(kind: str, precision: str, data: ParallelData, options: argparse.Namespace) -> dict[str, Any]:
    model = build(kind, data)
    figures = train(model, data, precision, options.train_steps, options.steps)
    model.eval()
    sources = [source for source, _ in data.splits["test"].pairs][: options.sentences]
    translator = Translator(model, data.tokenizer, GenerationConfig(beam_size=5), torch.device("cpu"))
    seconds, tokens = [], 0
    for _ in range(options.rounds):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found = [some[0] for _, some, _ in translator.translate(sources)]
        seconds.append(time.perf_counter() - started)
        tokens = sum(len(one.tokens) + 1 for one in found)
    return {
        "tool": "seqexp",
        "model": kind,
        "precision": precision,
        "train_target_tokens_per_s": statistics.median(count / spent for count, spent in figures),
        "step_ms": statistics.median(spent for _, spent in figures) * 1e3,
        "target_tokens_per_step": statistics.median(count for count, _ in figures),
        "parameters": sum(p.numel() for p in model.parameters()),
        "decode_sentences_per_s": len(sources) / statistics.median(seconds),
        "decode_tokens_per_sentence": tokens / len(sources),
        "torch": torch.__version__,
    }


def theirs(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run scripts/bench_joeynmt.py on the same number of test sentences; return the line that it prints."""
    folder = FOLDER / "joeynmt"
    folder.mkdir(exist_ok=True)
    for name in ("train.src", "train.trg", "vocab.txt"):
        (folder / name.replace(".trg", ".tgt")).write_text((FOLDER / name).read_text())
    for name in ("test.src", "test.trg"):
        lines = (FOLDER / name).read_text().splitlines()[: options.sentences]
        (folder / name.replace(".trg", ".tgt")).write_text("".join(f"{line}\n" for line in lines))
    script = Path(__file__).with_name("bench_joeynmt.py")
    arguments = [
        options.joeynmt,
        str(script),
        str(folder),
        "--model",
        kind,
        "--threads",
        str(options.threads),
    ]
    arguments += ["--steps", str(options.steps), "--checkpoint-steps", str(options.train_steps)]
    arguments += ["--rounds", str(options.rounds), "--batches", options.batches]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "precision": "fp32"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["gru", "transformer"], choices=["gru", "transformer"])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--train-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=30, help="of these, at the end, are timed")
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3, help="of decoding")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--joeynmt", help="the Python of an environment with JoeyNMT")
    parser.add_argument("--batches", default="random", choices=["random", "similar"], help="JoeyNMT's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = prepare()
    print(f"{len(data.corpus.pairs):,} pairs, {data.tokenizer.source.vocab_size:,} pieces")
    rows = []
    for kind in options.models:
        for precision in options.precision:
            rows.append(ours(kind, precision, data, options))
            print(json.dumps(rows[-1]), flush=True)
        if options.joeynmt:
            rows.append(theirs(kind, options))
            print(json.dumps(rows[-1]), flush=True)
    (FOLDER / "rows.json").write_text(json.dumps(rows, indent=1))
    for kind in options.models:
        other = next((row for row in rows if row["model"] == kind and row["tool"] != "seqexp"), None)
        for row in rows:
            if row["model"] == kind and other and row is not other:
                training = row["train_target_tokens_per_s"] / other["train_target_tokens_per_s"]
                decoding = row["decode_sentences_per_s"] / other["decode_sentences_per_s"]
                print(f"{kind} {row['precision']}: training {training:.2f}, decoding {decoding:.2f} times")


if __name__ == "__main__":
    main()
