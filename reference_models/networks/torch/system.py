"""What every system is to the trainer: a backbone, a network over its features, a loss, maps."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from saliency_losses.torch import flip_labels


class Batch(NamedTuple):
    """What belongs to N images, all on one device."""

    images: Tensor
    """float32 `(N, 3, H, W)` in [0, 1]."""
    labels: Tensor
    """int64 `(N, H, W)`: 1 on the salient object and 0 elsewhere, or the number of the region."""
    prior: Tensor
    """float32 `(N, H, W)` in [0, 1]: a saliency map of somebody else's."""
    rng: torch.Generator
    """The randomness of this step, on the device of the images; the same in every process."""
    rank: int = 0
    processes: int = 1
    """These are the images `[rank::processes]` of the step."""


def flipped(labels: Tensor, probability: float, batch: Batch) -> Tensor:
    """`flip_labels`, drawn for the whole step: several processes flip the pixels that one does."""
    every = labels.new_zeros(len(labels) * batch.processes, *labels.shape[1:])
    flips = flip_labels(every, probability, batch.rng)
    return labels ^ flips[batch.rank :: batch.processes]


class System(Protocol):
    """The five papers' systems and the small network of the README; each is an `nn.Module`."""

    backbone: nn.Module
    """Images in [0, 1] to a list of feature maps: frozen or fine-tuned, as the recipe says."""

    def __call__(self, taps: list[Tensor]) -> Tensor:
        """The backbone's maps to `(N, C, h, w)`: all that the loss and the maps are made from."""

    def loss(self, output: Tensor, batch: Batch) -> Tensor: ...

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Saliency by name, the main one first: `(N, H, W)` in [0, 1]; labels are not looked at."""


class Pixels(nn.Module):
    """The backbone of a network that has none: the images themselves."""

    channels = (3,)
    strides = (1,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


def resize(x: Tensor, like: Tensor) -> Tensor:
    """`(N, C, h, w)` brought bilinearly to the height and width of `like`."""
    size = like.shape[-2:]
    if x.shape[-2:] == size:
        return x
    return interpolate(x, size=size, mode="bilinear", align_corners=False)


def shrink(maps: Tensor, like: Tensor) -> Tensor:
    """Float maps `(N, H, W)` averaged down to the height and width of `like`."""
    return interpolate(maps[:, None], size=like.shape[-2:], mode="area")[:, 0]
