"""What a training will cost, measured before its first step."""

import time
from collections import Counter
from collections.abc import Callable

from reference_models.data.images import Images, Streamed
from reference_models.provenance import hardware
from reference_models.training.augmentation import draw_step
from reference_models.training.trainer import Trainer, holds_backbone

LONG = 900
"""The least number of steps of a training that is measured: all but those of small scale."""
WORTH_SAYING = 600
"""Seconds below which nothing is said."""


def expected(
    trainer: Trainer,
    images: Images | Streamed,
    seed: int,
    first: int,
    must_stop: Callable[[], bool],
) -> str | None:
    """A line that says what the steps from `first` on will cost, or None for a short training.

    Steps that keep the backbone cost less than those that tune it, so both kinds are measured, each
    by a second step: the first one compiles and warms up. The trainer is then put back into the
    state that it had, bit for bit.

    must_stop: Asked before each of these steps; True ends the measuring without a line.
    """
    steps = range(first, trainer.plan.steps)
    if len(steps) < LONG:
        return None
    kinds = [holds_backbone(trainer.plan, step) for step in steps]
    before, seconds = trainer.state(), dict.fromkeys(kinds, 0.0)
    for kind in [kind for kind in seconds for _ in range(2)]:
        if must_stop():
            seconds.clear()
            break
        begun = time.monotonic()
        take_step(trainer, images, seed, steps[kinds.index(kind)])
        seconds[kind] = time.monotonic() - begun
    trainer.restore(before)
    return line(Counter(kinds), seconds, hardware(trainer.device)) if seconds else None


def take_step(trainer: Trainer, images: Images | Streamed, seed: int, step: int) -> None:
    """A step as the training will take it, but for images that are decoded in advance there."""
    plan = trainer.plan
    draw = draw_step(len(images), images.side, plan, seed, step)
    share = trainer.share(len(draw.indices))
    trainer.step(draw, images.take(draw.indices[share]) if isinstance(images, Streamed) else None)


def line(counts: Counter[bool], seconds: dict[bool, float], device: str) -> str | None:
    """What the steps cost altogether; both arguments by whether the steps keep the backbone."""
    total = sum(counts[kind] * seconds[kind] for kind in counts)
    if total < WORTH_SAYING:
        return None
    words = {True: " that keep the backbone frozen", False: " that tune it"}
    parts = [
        f"{count:,} steps{words[kind] if len(counts) > 1 else ''} of {seconds[kind]:.2g} s"
        for kind, count in counts.items()
    ]
    return (
        f"the training will take about {duration(total)} on {device}: {' and '.join(parts)}; "
        "measuring the test images comes on top"
    )


def duration(seconds: float) -> str:
    """The number of minutes, hours or days."""
    for unit, length in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"
