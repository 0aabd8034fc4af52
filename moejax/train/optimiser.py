"""The optimiser as a value, so that it can be a static argument of a jitted step."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import optax


@dataclass(frozen=True)
class Optimiser:
    """AdamW with warm-up: rate, number of steps, the shape of the schedule, and what bounds an update."""

    rate: float
    """Learning rate at the top of the schedule."""
    steps: int
    """Steps of training."""
    warmup: float = 0.1
    """Share of the steps in which the rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """After the warm-up, the rate falls to 0 as a cosine or in a line, or stays."""
    decay: float = 0.0
    """Weight decay, as AdamW has it."""
    clip: float | None = 1.0
    """Global norm of a gradient, of each expert apart where experts train together; None: not bounded."""
    accumulate: int = 1
    """Parts in which a batch is taken, one after another, with one step after them: so much less memory."""


@cache
def transformation(optimiser: Optimiser) -> optax.GradientTransformation:
    """The optax transformation of an optimiser; one object for equal values."""
    rise = max(1, round(optimiser.warmup * optimiser.steps))
    if optimiser.schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(
            0.0, optimiser.rate, rise, max(optimiser.steps, rise + 1), 0.0
        )
    else:
        falls = optax.linear_schedule(optimiser.rate, 0.0, max(optimiser.steps - rise, 1))
        after = falls if optimiser.schedule == "linear" else optax.constant_schedule(optimiser.rate)
        rate = optax.join_schedules([optax.linear_schedule(0.0, optimiser.rate, rise), after], [rise])
    bound = [] if optimiser.clip is None else [optax.clip_by_global_norm(optimiser.clip)]
    return optax.chain(*bound, optax.adamw(rate, weight_decay=optimiser.decay))
