"""Base classes of networks and backbones in PyTorch, the batch, and resizing."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import interpolate

from saliency_losses.torch import flip_labels


class Batch(NamedTuple):
    """The data of N images, all on one device."""

    images: Tensor
    """float32 `(N, 3, H, W)` in [0, 1]."""
    labels: Tensor
    """int64 `(N, H, W)`: 1 on the salient object and 0 elsewhere, or the number of the region."""
    prior: Tensor
    """float32 `(N, H, W)` in [0, 1]: a saliency map of another method."""
    rng: torch.Generator
    """Random numbers of this step, on the device of the images; the same in every process."""
    rank: int = 0
    processes: int = 1
    """The batch holds the images `[rank::processes]` of the step."""
    counted: Tensor | None = None
    """bool `(N, H, W)`, False on void pixels, whose labels are 0; None if there are none."""


def flip_for_step(labels: Tensor, probability: float, batch: Batch) -> Tensor:
    """`flip_labels` drawn for the whole step: several processes flip the same pixels as one."""
    every = labels.new_zeros(len(labels) * batch.processes, *labels.shape[1:])
    flips = flip_labels(every, probability, batch.rng)
    return labels ^ flips[batch.rank :: batch.processes]


class FeatureExtractor(nn.Module):
    """Images `(N, 3, H, W)` in [0, 1] to a list of feature maps, from fine to coarse."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    """Strides of the maps; 0 for a map of one pixel, whatever the image's size."""


class IdentityBackbone(FeatureExtractor):
    """The backbone of a network that has none: it returns the images."""

    channels = (3,)
    strides = (1,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


class System(nn.Module):
    """A network, its training loss and its saliency maps: the interface to the trainer."""

    backbone: FeatureExtractor
    """Frozen or fine-tuned, as the recipe says."""

    def forward(self, taps: list[Tensor]) -> Tensor:
        """The backbone's feature maps to `(N, C, h, w)`, from which loss and maps are computed."""
        raise NotImplementedError

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        raise NotImplementedError

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Saliency maps by name, the main one first: `(N, H, W)` in [0, 1]. Labels are not used."""
        raise NotImplementedError

    def segmentation(self, output: Tensor, batch: Batch) -> Tensor:
        """Region numbers, int64 `(N, H, W)`, of a network for general segmentation."""
        raise NotImplementedError

    def descriptors(self, output: Tensor, batch: Batch) -> Tensor:
        """What the loss compares, channels last: features of unit length at the output's size, or
        softmax outputs at the image's, of a network for general segmentation."""
        raise NotImplementedError


def cross_entropy(logits: Tensor, labels: Tensor, counted: Tensor | None) -> Tensor:
    """Cross-entropy, the mean over all pixels, or if some do not count, over the counted pixels of
    each image and then over images; logits `(N, C, H, W)`, labels and counted `(N, H, W)`."""
    if counted is None:
        return functional.cross_entropy(logits, labels)
    return counted_mean(functional.cross_entropy(logits, labels, reduction="none"), counted)


def counted_mean(values: Tensor, counted: Tensor) -> Tensor:
    """The mean over the counted pixels of each image, then over images, so that it does not depend
    on how a batch is divided; both `(N, H, W)`."""
    pixels = counted.sum(dim=(1, 2)).clamp(min=1)
    return (torch.where(counted, values, 0).sum(dim=(1, 2)) / pixels).mean()


def reduced(
    labels: Tensor, counted: Tensor | None, size: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """Labels 0/1 and counted pixels at a smaller size. A pixel is salient if at least half of its
    counted part is, and counts if more than half of it does."""
    shares = area_resize(labels.float(), size)
    if counted is None:
        return (shares >= 0.5).long(), None
    parts = area_resize(counted.float(), size)
    return (shares >= parts / 2).long(), parts > 0.5


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize `(N, C, h, w)` bilinearly to a height and width."""
    if x.shape[-2:] == tuple(size):
        return x
    return interpolate(x, size=list(size), mode="bilinear", align_corners=False)


def nearest_resize(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Labels `(N, H, W)` at the centre of each output pixel."""
    resized = interpolate(labels[:, None].float(), size=list(size), mode="nearest-exact")
    return resized[:, 0].to(labels.dtype)


def area_resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize float maps `(N, H, W)` to a smaller height and width by averaging."""
    return interpolate(maps[:, None], size=list(size), mode="area")[:, 0]
