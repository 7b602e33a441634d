"""The interface of a trainer, and the learning-rate schedules."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np

from reference_models.data.images import Images, Streamed
from reference_models.files import Arrays
from reference_models.papers.schema import Constant, OneCycle, Polynomial, Scale, Stage, Stages
from reference_models.training.augmentation import Draw


class LossView(NamedTuple):
    """The training loss and its inputs, as arrays of the framework in its own layout."""

    loss: Callable[[Any, Any], Any]
    """The loss as a function of output and labels; `mask=` replaces `counted`."""
    output: Any
    """The network's output."""
    labels: Any
    image: Any
    """Pixels in [0, 1]."""
    counted: Any = None
    """False on void pixels; None if there are none."""


class Trainer(Protocol):
    """A network in training: the methods that each framework implements."""

    plan: Scale
    device: str
    precision: str
    """Precision of the backbone in training: "float32", or "bfloat16" where that is faster."""
    parameters: int
    """Number of trainable parameters."""
    is_main_process: bool
    """True in the one process that writes files."""
    inference_batch: int
    """Batch size for `maps`."""

    def set_training_images(self, images: Images | Streamed) -> None:
        """Load the training set onto the device, unless it is streamed."""

    def share(self, count: int) -> Sequence[int]:
        """The positions in a batch of `count` images that this process needs."""

    def step(self, draw: Draw, images: Images | None = None) -> float:
        """Update the weights at the rate of `learning_rate`; returns the loss before the update.

        images: This process's share of the step's images, if the training set is streamed.
        """

    def maps(self, images: Images) -> dict[str, np.ndarray]:
        """Saliency maps by name, the main map first, float32 `(N, S, S)` in [0, 1]. A network for
        general segmentation has a single entry "regions", int `(N, S, S)`. Ignores the labels."""

    def descriptors(self, images: Images) -> np.ndarray:
        """What the loss compares, float32 `(N, h, w, C)`: features of unit length, or softmax
        outputs of a network for general segmentation. Ignores the labels."""

    def backbone_features(self, images: Images) -> object:
        """The backbone's features on the device, computed when this returns; for timing."""

    def pixel_weights(self, images: Images) -> np.ndarray:
        """|∂ loss / ∂ output| summed over the output's channels, float32 `(N, h, w)`."""

    def loss_view(self, image: Images) -> LossView:
        """The training loss and its inputs for one image."""

    def weights(self) -> Arrays:
        """The learnt weights by name, in the naming of PyTorch's state_dict."""

    def state(self) -> Arrays:
        """Weights and optimizer state: with the step number, all that the next step depends on."""

    def restore(self, state: Arrays) -> None:
        """Restore what `state` returned."""

    def load(self, weights: Arrays) -> None:
        """Load what `weights` returned."""

    def any_process(self, flag: bool) -> bool:
        """True in every process if the flag is true in any of them."""


def learning_rate(plan: Scale, step: int) -> float:
    """Learning rate of the head in a step, by the schedule of the plan."""
    match plan.schedule:
        case OneCycle():
            return one_cycle(step, plan.steps, plan.rate)
        case Constant():
            return plan.rate
        case Polynomial(power):
            return plan.rate * (1 - step / plan.steps) ** power
        case Stages(stages):
            return plan.rate * stage_of(stages, step, plan.steps).share


def holds_backbone(plan: Scale, step: int) -> bool:
    """True if the step belongs to a stage that keeps the backbone's weights as they are."""
    return isinstance(plan.schedule, Stages) and (
        stage_of(plan.schedule.stages, step, plan.steps).frozen
    )


def stage_of(stages: tuple[Stage, ...], step: int, steps: int) -> Stage:
    """The stage of a step, if all steps are divided in the proportion of the stages' epochs."""
    epoch = step / steps * sum(stage.epochs for stage in stages)
    for stage, end in zip(stages, accumulate(stage.epochs for stage in stages), strict=True):
        if epoch < end:
            return stage
    raise ValueError(f"step {step} lies beyond the {steps} steps of the schedule")


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Learning rate: a half cosine up from peak/25 over the first 30 % of the steps, then one down
    to peak/1e4."""
    rise = 0.3 * steps
    if step < rise:
        low, high, share = peak / 25, peak, step / rise
    else:
        low, high, share = peak, peak / 1e4, (step - rise) / (steps - rise)
    return low + (high - low) * (1 - math.cos(math.pi * share)) / 2
