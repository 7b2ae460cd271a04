"""Learning-rate schedules as pure functions that return a factor of the optimizer's `lr`.

Each takes `step` (0, 1, …), `progress` (0 at the end of the warm-up, 1 at the end of the run), the
configuration, and `floor` (`min_lr` / `lr`), and returns a factor from `floor` to 1.
"""

import math
from collections.abc import Callable

from seqexp.config.optimizer import SchedulerConfig

Schedule = Callable[[int, float, SchedulerConfig, float], float]


def constant(step: int, progress: float, config: SchedulerConfig, floor: float) -> float:
    """Always 1."""
    return 1.0


def linear(step: int, progress: float, config: SchedulerConfig, floor: float) -> float:
    """Linear decay from 1 to the floor."""
    return floor + (1 - floor) * (1 - progress)


def cosine(step: int, progress: float, config: SchedulerConfig, floor: float) -> float:
    """Half a period of a cosine from 1 to the floor (Loshchilov & Hutter 2017, eq. 5)."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def inverse_sqrt(step: int, progress: float, config: SchedulerConfig, floor: float) -> float:
    """sqrt(warmup_steps / step) (Vaswani et al. 2017, eq. 3)."""
    return max(floor, math.sqrt(max(1, config.warmup_steps) / max(1, step + 1)))


def wsd(step: int, progress: float, config: SchedulerConfig, floor: float) -> float:
    """1, then linear decay to the floor over the last `decay_fraction` (Hu et al. 2024)."""
    if not config.decay_fraction or progress < 1 - config.decay_fraction:
        return 1.0
    return floor + (1 - floor) * (1 - progress) / config.decay_fraction


def lr_factor(schedule: Schedule, config: SchedulerConfig, lr: float, step: int, progress: float) -> float:
    """Return the factor at `step`: linear warm-up, then the schedule."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    return schedule(step, min(1.0, max(0.0, progress)), config, config.min_lr / lr)
