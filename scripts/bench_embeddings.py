"""Words per CPU-second and quality of word vectors, beside gensim's on the same words.

    python scripts/bench_embeddings.py --data novels/                 # speed of every kind, one thread
    python scripts/bench_embeddings.py --data novels/ --threads 2
    python scripts/bench_embeddings.py --data novels/ --quality --epochs 3 --seeds 1 2 3 --kinds skipgram

Needs the extras `bench` and `embeddings`. Both train on the training split, in passages of a thousand words,
with 100 dimensions, window 5, 5 negatives, sample 1e-3 and min_count 5. Ours is the whole training loop with
its batches, logging and checkpoints. CPU-seconds are those of all threads of the process; with --quality
analogies among the 30,000 most frequent words and two lists of similarities are evaluated ($SEQEXP_DATA).
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from seqexp.commands.build import build_model, build_task
from seqexp.config.data import OwnTextConfig
from seqexp.config.optimizer import SchedulerConfig, SGDConfig
from seqexp.config.root import TrainConfig
from seqexp.config.run import DeviceConfig, TrainerConfig
from seqexp.config.sweep import SweepConfig
from seqexp.config.tokenizer import BareWordConfig
from seqexp.config.word_embeddings import WordEmbeddingsConfig
from seqexp.data.text import TextData
from seqexp.data.word_lists import read_analogies, read_similarities
from seqexp.metrics.vector_space import VectorSpace, spearman
from seqexp.models.word2vec_options import FastTextConfig, Word2VecConfig
from seqexp.tasks.word_embeddings import real_words
from seqexp.tracking.metrics import MetricsLog
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.device import setup_device
from seqexp.training.loop import Trainer

KINDS = ("skipgram", "cbow", "fasttext")
PASSAGE = 1000


def settings(options: argparse.Namespace, kind: str, seed: int) -> TrainConfig:
    """Return the configuration of a training of ours."""
    cbow = kind == "cbow"
    config = FastTextConfig if kind == "fasttext" else Word2VecConfig
    steps = options.steps
    return TrainConfig(
        model=config(architecture="cbow" if cbow else "skipgram", workers=options.threads, impl="compiled"),
        task=WordEmbeddingsConfig(),
        tokenizer=BareWordConfig(),
        optimizer=SGDConfig(name="sgd", lr=0.15 if cbow else 0.025, momentum=0.0),
        scheduler=SchedulerConfig(name="linear"),
        data=OwnTextConfig(name="text", path=options.data, seq_len=PASSAGE, batch_size=10),
        device=DeviceConfig(name="cpu", precision="fp32", threads=1),
        trainer=TrainerConfig(
            max_epochs=options.epochs, max_steps=steps, max_grad_norm=0, eval_every=10**6, sample_tokens=0
        ),
        sweep=SweepConfig("none"),
        seed=seed,
        name="bench",
    )


def passages(data: TextData) -> list[list[str]]:
    """Return the training split as passages of words, without those that are too rare."""
    pieces = data.tokenizer.words  # type: ignore[attr-defined]
    tokens = np.concatenate(list(data.splits["train"].blocks(1 << 22)))
    words = [pieces[token - 2] for token in tokens if token > 1]
    return [words[first : first + PASSAGE] for first in range(0, len(words), PASSAGE)]


def clock() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def ours(config: TrainConfig) -> tuple[float, float, int, VectorSpace]:
    """Train; return CPU-seconds, seconds, words read, and the vectors."""
    torch.manual_seed(config.seed)
    task = build_task(config.task)
    data = task.prepare(TextData.build(config.data, config.tokenizer, config.seed), config.model)
    model = build_model(config.model, task.sizes(data.preprocessor))
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        trainer = Trainer(config, model, model, task, data, setup_device(config.device), run)
        assert trainer.updater is not None
        trainer.updater(data.train_batch(0).rows(0, 0), 0.0)  # compiles
        trainer.validate = dict  # type: ignore[method-assign]
        trainer._validate = lambda: None  # type: ignore[method-assign]
        metrics = MetricsLog(run.metrics_file, Path(folder) / "tensorboard")
        cpu, wall = clock()
        trainer.fit(metrics)
        cpu, wall = (now - before for now, before in zip(clock(), (cpu, wall), strict=True))
        metrics.close()
        read = trainer.step * config.data.seq_len * config.data.batch_size
    return cpu, wall, read, VectorSpace(*real_words(model, data.preprocessor), 30_000)


def gensims(
    texts: list[list[str]], kind: str, options: argparse.Namespace, seed: int
) -> tuple[float, float, int, VectorSpace]:
    """Train gensim's model; return the same."""
    from gensim.models import FastText, Word2Vec

    common = {
        "vector_size": 100, "window": 5, "negative": 5, "sample": 1e-3, "min_count": 1,
        "workers": options.threads, "seed": seed,
    }  # fmt: skip
    if kind == "fasttext":
        model = FastText(sg=1, bucket=FastTextConfig().buckets, **common)
    else:
        model = Word2Vec(sg=int(kind == "skipgram"), **common)
    part = texts if options.steps is None else texts[: options.steps * 10]
    model.build_vocab(texts)
    whole = int(options.epochs)
    cpu, wall = clock()
    model.train(part, total_examples=len(part), epochs=whole)
    cpu, wall = (now - before for now, before in zip(clock(), (cpu, wall), strict=True))
    read = whole * sum(map(len, part))
    return cpu, wall, read, VectorSpace(model.wv.index_to_key, model.wv.vectors, 30_000)


def quality(space: VectorSpace) -> Iterator[str]:
    """Yield the scores of vectors."""
    answers = [one for some in read_analogies(None).values() for one in space.answer(some)]
    yield f"analogies {100 * float(np.mean([one.cosadd for one in answers])):.1f} % of {len(answers):,}"
    for name, pairs in read_similarities(None).items():
        if name in ("EN-WS-353-ALL", "EN-SIMLEX-999"):
            yield f"{name} {spearman(*space.similarities(pairs))[0]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a file or folder of text")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--steps", type=int, help="of ten thousand words, in place of whole epochs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--quality", action="store_true")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    logging.basicConfig(level=logging.WARNING)
    texts: list[list[str]] = []
    for kind in options.kinds:
        for seed in options.seeds:
            config = settings(options, kind, seed)
            texts = texts or passages(TextData.build(config.data, config.tokenizer, 1))
            found = {"ours": ours(config), "gensim": gensims(texts, kind, options, seed)}
            for name, (cpu, wall, words, space) in found.items():
                speed = f"{words / cpu:10,.0f} words/CPU-s  {words / wall:10,.0f} words/s"
                scores = "  ".join(quality(space)) if options.quality else ""
                print(f"{kind:9} seed {seed}  {name:6}  {speed}  {scores}", flush=True)
            rates = {name: words / cpu for name, (cpu, _, words, _) in found.items()}
            print(f"{kind:9} seed {seed}  ours / gensim per CPU-second {rates['ours'] / rates['gensim']:.2f}")


if __name__ == "__main__":
    main()
