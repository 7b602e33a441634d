"""The images of a training step, mirrored and cropped at random."""

from dataclasses import dataclass

import numpy as np

from reference_models.data import seeds
from reference_models.papers.schema import Scale


@dataclass(frozen=True)
class Draw:
    """The images of one step, and how they are mirrored and cropped."""

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


def draw_step(count: int, size: int, plan: Scale, seed: int, step: int) -> Draw:
    """Draw the images of a step at random, with their mirroring and crops.

    Every epoch is a new permutation of the training set; an incomplete last batch is skipped.
    """
    batch = min(plan.batch, count)
    epoch, place = divmod(step, count // batch)
    order = np.random.default_rng((seed, seeds.IMAGE_ORDER, epoch)).permutation(count)
    rng = np.random.default_rng((seed, seeds.TRAINING_STEP, step))
    return Draw(
        step=step,
        indices=order[place * batch : (place + 1) * batch],
        mirrored=rng.random(batch) < 0.5,
        seed=int(rng.integers(2**31)),
        corners=rng.integers(0, size - (plan.crop or size) + 1, (batch, 2)),
    )
