"""Learning rates over a run, as factors of the optimizer's `lr`: pure functions of how far it is.

Each takes `step` (0, 1, …), `progress` (0 at the end of the warm-up, 1 at the end of the run), the
configuration, and `floor` (`min_lr` over `lr`), and gives a factor from `floor` to 1.
"""

import math
from collections.abc import Callable

from seqexp.config.optimizer import SchedulerConfig

Schedule = Callable[[int, float, SchedulerConfig, float], float]


def constant(step: int, progress: float, config: SchedulerConfig, floor: float) -> float:
    """Always 1."""
    return 1.0


def linear(step: int, progress: float, config: SchedulerConfig, floor: float) -> float:
    """A straight line from 1 to the floor."""
    return floor + (1 - floor) * (1 - progress)


def cosine(step: int, progress: float, config: SchedulerConfig, floor: float) -> float:
    """Half a cosine from 1 to the floor (Loshchilov & Hutter 2017, eq. 5)."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def inverse_sqrt(step: int, progress: float, config: SchedulerConfig, floor: float) -> float:
    """sqrt(warmup_steps / step) (Vaswani et al. 2017, eq. 3)."""
    return max(floor, math.sqrt(max(1, config.warmup_steps) / max(1, step + 1)))


def wsd(step: int, progress: float, config: SchedulerConfig, floor: float) -> float:
    """1, then a straight line to the floor over the last `decay_fraction` (Hu et al. 2024)."""
    if not config.decay_fraction or progress < 1 - config.decay_fraction:
        return 1.0
    return floor + (1 - floor) * (1 - progress) / config.decay_fraction


def lr_factor(schedule: Schedule, config: SchedulerConfig, lr: float, step: int, progress: float) -> float:
    """The factor at `step`: a straight line up during the warm-up, then the schedule."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    return schedule(step, min(1.0, max(0.0, progress)), config, config.min_lr / lr)
