"""The interface of a trainer, the images of a step, and the learning-rate schedule."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from reference_models.data import streams
from reference_models.data.images import Images
from reference_models.files import Arrays
from reference_models.papers.schema import Scale


@dataclass(frozen=True)
class Draw:
    """The images of one step, and what is done to them before they are used."""

    step: int
    """Counted from 0."""
    indices: np.ndarray
    """int `(B,)`, into the training set."""
    mirrored: np.ndarray
    """bool `(B,)`."""
    corners: np.ndarray
    """int `(B, 2)`: row and column of the crop's first pixel, in the image as mirrored."""
    seed: int
    """For the step's own noise."""


class LossView(NamedTuple):
    """Arrays of the framework, in its layout."""

    loss: Callable[[Any, Any], Any]
    """Of the output and the labels."""
    output: Any
    """The network's."""
    labels: Any
    image: Any
    """In [0, 1]."""


class Trainer(Protocol):
    """A network under training. All that a framework has to supply."""

    device: str
    precision: str
    """That of the backbone in training: "float32", or "bfloat16" where it is faster."""
    parameters: int
    """How many numbers are learnt."""
    is_main_process: bool
    """True where files are written: in one process of several."""
    inference_batch: int
    """How many images `maps` is best given at once."""

    def set_training_images(self, images: Images) -> None:
        """Keep the training set where the steps can reach it."""

    def step(self, draw: Draw) -> float:
        """One update at the rate of `one_cycle`; returns the loss before it."""

    def maps(self, images: Images) -> dict[str, np.ndarray]:
        """Saliency by name, the main map first, float32 `(N, S, S)` in [0, 1]; for general
        segmentation the one entry "regions", int `(N, S, S)`. Labels are not looked at."""

    def pixel_weights(self, images: Images) -> np.ndarray:
        """|∂ loss / ∂ output| summed over the output's channels, float32 `(N, h, w)`."""

    def loss_view(self, image: Images) -> LossView:
        """What the training loss sees of one image."""

    def weights(self) -> Arrays:
        """What is learnt, by name."""

    def state(self) -> Arrays:
        """Weights and optimizer: with the step number, all that the next step depends on."""

    def restore(self, state: Arrays) -> None:
        """Take up what `state` returned."""

    def load(self, weights: Arrays) -> None:
        """Take up what `weights` returned."""

    def any_process(self, flag: bool) -> bool:
        """True in every process as soon as it is in one."""


def drawn(count: int, size: int, plan: Scale, seed: int, step: int) -> Draw:
    """The images of a step, mirrored and cropped at random.

    Every epoch is a new permutation; images that do not fill a last batch wait for the next epoch.
    """
    batch = min(plan.batch, count)
    epoch, place = divmod(step, count // batch)
    order = np.random.default_rng((seed, streams.IMAGE_ORDER, epoch)).permutation(count)
    rng = np.random.default_rng((seed, streams.TRAINING_STEP, step))
    return Draw(
        step=step,
        indices=order[place * batch : (place + 1) * batch],
        mirrored=rng.random(batch) < 0.5,
        seed=int(rng.integers(2**31)),
        corners=rng.integers(0, size - (plan.crop or size) + 1, (batch, 2)),
    )


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Learning rate: half a cosine up from peak/25 over the first 30 %, then down to peak/1e4."""
    rise = 0.3 * steps
    if step < rise:
        low, high, share = peak / 25, peak, step / rise
    else:
        low, high, share = peak, peak / 1e4, (step - rise) / (steps - rise)
    return low + (high - low) * (1 - math.cos(math.pi * share)) / 2
