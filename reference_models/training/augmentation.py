"""The images of a training step: which they are, and how they are changed at random."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from reference_models.data import seeds
from reference_models.papers.schema import Augmentation, Scale


class Recoloring(NamedTuple):
    """Changes of colour: each pixel x in [0, 1] becomes `gain · x + offset + noise`, clipped."""

    gain: np.ndarray
    """float32 `(B, 1, 1, 3)`."""
    offset: np.ndarray
    """float32 `(B, 1, 1, 3)`."""
    noise: np.ndarray
    """float32 `(B, S, S, 3)`, of the side that the network sees."""


@dataclass(frozen=True)
class Draw:
    """The images of one step, and how they are changed."""

    step: int
    """Number of the step, from 0."""
    indices: np.ndarray
    """int `(B,)`: positions of the images in the training set."""
    mirrored: np.ndarray
    """bool `(B,)`: True for images that are flipped left to right."""
    corners: np.ndarray
    """int `(B, 2)`: row and column of the crop's top left pixel, after mirroring."""
    seed: int
    """Seed of the step's random noise, such as flipped labels."""
    recoloring: Recoloring | None = None
    """Changes of colour, after cropping and enlarging."""


def draw_step(count: int, size: int, plan: Scale, seed: int, step: int) -> Draw:
    """Draw the images of a step at random, with their mirroring, crops and changes of colour.

    Every epoch is a new permutation of the training set; an incomplete last batch is skipped.
    """
    batch = min(plan.batch, count)
    epoch, place = divmod(step, count // batch)
    order = np.random.default_rng((seed, seeds.IMAGE_ORDER, epoch)).permutation(count)
    rng = np.random.default_rng((seed, seeds.TRAINING_STEP, step))
    side = plan.crop or size
    return Draw(
        step=step,
        indices=order[place * batch : (place + 1) * batch],
        mirrored=(rng.random(batch) < 0.5) & plan.flips,
        seed=int(rng.integers(2**31)),
        corners=rng.integers(0, size - side + 1, (batch, 2)),
        recoloring=recolor(
            plan.augmentation, batch, size if plan.enlarge_crops else side, seed, step
        ),
    )


def recolor(
    ranges: Augmentation | None, batch: int, side: int, seed: int, step: int
) -> Recoloring | None:
    """Draw the changes of colour of a step; None without ranges."""
    if ranges is None:
        return None
    rng = np.random.default_rng((seed, seeds.AUGMENTATION, step))
    contrast = 1 + rng.uniform(*ranges.contrast, (batch, 1, 1, 1))
    color = rng.uniform(*ranges.color, (batch, 1, 1, 3))
    deviation = rng.uniform(0, ranges.noise, (batch, 1, 1, 1)).astype(np.float32)
    noise = rng.standard_normal((batch, side, side, 3), np.float32)
    return Recoloring(
        gain=(contrast * color).astype(np.float32),
        offset=((1 - contrast) / 2 * color).astype(np.float32),
        noise=deviation * noise,
    )
