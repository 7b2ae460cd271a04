"""Cost of a checkpoint in time and memory, and of `trainer.deterministic` in time.

    python scripts/bench_reliability.py --data path/to/text    # gpt_course; default: the stand-in book
    python scripts/bench_reliability.py model=gpt              # overrides of `seqexp train` for another model

Runs of steps that begin with a checkpoint alternate with runs without one, and with runs under torch's
deterministic algorithms. The additional time of the first, with the copy before the first step, is the cost
of a checkpoint; divided by sixty seconds it is the cost of one per minute. The memory is the peak of the
process after the first checkpoint minus that before it. Run it on an idle machine.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from seqexp import registry
from seqexp.commands.build import build_model, build_task, set_up_device
from seqexp.config.paths import conf_dir, register_schemas
from seqexp.config.root import TrainConfig, to_typed
from seqexp.tracking.metrics import MetricsLog
from seqexp.tracking.progress import Progress
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.loop import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", default=["experiment=potter/course"])
    parser.add_argument("--data", help="a text, or a folder of texts")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument(
        "--steps", type=int, default=4, help="of a stretch; the writing must be done within it"
    )
    options = parser.parse_args()
    register_schemas()
    data_overrides = [f"data.path='{Path(options.data).absolute()}'"] if options.data else []
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = [*options.overrides, *data_overrides, "name=bench", "trainer.max_steps=100000"]
        config = to_typed(compose("train", overrides))
    with tempfile.TemporaryDirectory() as place:
        trainer = make_trainer(config, Path(place))
        progress = Progress(0, None, None)
        steps = trainer.steps(progress)

        def stretch(saving: bool = False, deterministic: bool = False) -> float:
            torch.use_deterministic_algorithms(deterministic)
            started = time.perf_counter()
            if saving:
                trainer.checkpoints.save(trainer.step, trainer.state())
            for _ in range(options.steps):
                next(steps)
            done = time.perf_counter() - started
            trainer.checkpoints.wait()
            waited = time.perf_counter() - started - done
            if waited > 0.05:
                print(f"writing took {waited:.1f} s longer than the stretch: raise --steps")
            return done

        stretch()
        before = trainer.device.peak_memory_mb()
        stretch(saving=True)
        added = trainer.device.peak_memory_mb() - before
        prices, plain, deterministic = [], [], []
        for _ in range(options.rounds):
            plain.append(stretch())
            prices.append(stretch(saving=True) - plain[-1])
            deterministic.append(stretch(deterministic=True))
        size = max(file.stat().st_size for file in Path(place).glob("**/*.pt")) / 1e6
        trainer.metrics.close()
    price = statistics.mean(prices)
    print(f"{config.model.name}, {trainer.device.name}, {trainer.device.precision}; a file of {size:.0f} MB")
    print(f"a step takes {statistics.median(plain) / options.steps:.3f} s")
    print(f"a checkpoint costs {price:.2f} s (each: {', '.join(f'{p:.2f}' for p in prices)})")
    print(f"one a minute slows training by {100 * price / 60:.2f} %")
    slower = statistics.median(deterministic) / statistics.median(plain)
    print(f"deterministic algorithms: a step takes {slower:.3f} times as long")
    print(f"the first checkpoint raised the peak of memory by {added:.0f} MB, from {before:.0f} MB")


def make_trainer(config: TrainConfig, place: Path) -> Trainer:
    """Build a trainer as `seqexp train` does."""
    device = set_up_device(config.device, config)
    data = registry.load("data", config.data.name).build(config.data, config.tokenizer, config.seed)
    model = build_model(config.model, data.preprocessor.sizes()).to(device.torch)
    run = RunFolder(place)
    trainer = Trainer(config, model, model, build_task(config.task), data, device, run)
    trainer.metrics = MetricsLog(run.metrics_file, place / "tensorboard")
    model.train()
    return trainer


if __name__ == "__main__":
    main()
