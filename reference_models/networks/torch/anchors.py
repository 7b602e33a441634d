"""The anchor network: a given saliency map promoted by an embedding (Zeng et al., CVPR 2018; "L").

Pixels and regions are mapped into one space. A region's place there is its anchor, and a pixel
belongs to the nearer of the two anchors of its own image.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from reference_models.errors import InputError
from reference_models.networks.torch.system import Batch, flipped, resize, shrink
from saliency_losses.torch import (
    anchor_probabilities,
    anchor_softmax_loss,
    region_anchors,
    update_prior,
)


class AnchorNetwork(nn.Module):
    """Every block's features brought to one resolution, a pixel and a region embedding (L §3.3–4).

    Unlike L, no layer is batch-normalised, and no ReLU follows the embeddings, which L §3.2 has
    after every layer: so they can lie on either side of 0.

    Args:
        loss: "anchors", or "ce": cross-entropy of two channels made from the pixel embedding.
        backbone: Tapped after each of its blocks; best dilated to stride 8, as in L §3.3.
        width: C, the channels of each block once upsampled.
        embedding: D, the channels of the pixel embedding and of the anchors.
        stride: That of the common resolution: 1 in the paper.
        region_embedding: "conv" averages convolved features over the region, "fc" has fully
            connected layers follow the average (both L fig. 4).
        flip: The probability that a pixel's label is exchanged before the anchors are made.
        steps: T, how often testing makes anchors from a map and a map from anchors.
        selection: "hard" takes as salient what reaches twice the map's mean, "soft" weights every
            pixel by the map and its complement.
    """

    def __init__(
        self,
        loss: Literal["anchors", "ce"],
        backbone: nn.Module,
        width: int = 16,
        embedding: int = 32,
        stride: int = 4,
        region_embedding: Literal["conv", "fc"] = "conv",
        flip: float = 0.05,
        steps: int = 5,
        selection: Literal["hard", "soft"] = "hard",
    ) -> None:
        super().__init__()
        if steps < 1:
            raise InputError(f"steps must be at least 1, the first promotion, got {steps}")
        self.name = loss
        self.backbone = backbone
        self.embedding = embedding
        self.region_embedding = region_embedding
        self.flip = flip
        self.steps = steps
        self.selection = selection
        self.blocks = nn.ModuleList(
            rescaling(channels, width, tapped, stride)
            for channels, tapped in zip(backbone.channels, backbone.strides, strict=True)
        )
        joined = width * len(self.blocks)
        self.pixels = nn.Sequential(
            nn.Conv2d(joined, embedding, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(embedding, embedding, 1),
        )
        if loss == "ce":
            self.classifier = nn.Conv2d(embedding, 2, 1)
        elif region_embedding == "conv":
            self.regions = nn.Sequential(
                nn.Conv2d(joined, embedding, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(embedding, embedding, 1),
            )
        else:
            self.regions = nn.Sequential(
                nn.Linear(joined, embedding), nn.ReLU(), nn.Linear(embedding, embedding)
            )

    def forward(self, taps: list[Tensor]) -> Tensor:
        """The pixel embedding, and behind it what is averaged over regions.

        D channels, then D ("conv") or 5 C ("fc"); for "ce" two logits.
        """
        blocks = zip(self.blocks, taps, strict=True)
        brought = [relu(block(tap)) for block, tap in blocks]
        # Equal already, unless the backbone rounds its sides, as SqueezeNet does.
        joined = torch.cat([resize(one, brought[0]) for one in brought], dim=1)
        pixels = self.pixels(joined)
        if self.name == "ce":
            return self.classifier(pixels)
        averaged = self.regions(joined) if self.region_embedding == "conv" else joined
        return torch.cat([pixels, averaged], dim=1)

    def anchors(self, output: Tensor, salient: Tensor) -> Tensor:
        """`(N, 2, D)`, background first. salient `(N, h, w)`: the share of each pixel, 0 to 1."""
        regions = torch.stack([1 - salient, salient], dim=1)
        anchors = region_anchors(output[:, self.embedding :], regions)
        return self.regions(anchors).float() if self.region_embedding == "fc" else anchors

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        output = output.float()
        labels = (shrink(batch.labels.float(), output) >= 0.5).long()
        if self.name == "ce":
            return cross_entropy(output, labels)
        anchors = self.anchors(output, flipped(labels, self.flip, batch).float())
        return anchor_softmax_loss(output[:, : self.embedding], anchors, labels)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        output = output.float()
        if self.name == "ce":
            return {"map": resize(output, batch.images).softmax(dim=1)[:, 1]}
        prior = shrink(batch.prior, output)
        promoted = {}
        for step in range(1, self.steps + 1):
            anchors = self.anchors(output, self.select(prior))
            probabilities = anchor_probabilities(output[:, : self.embedding], anchors)
            prior = update_prior(prior, probabilities[:, 1], step)
            promoted[f"T = {step}"] = prior
        last = f"T = {self.steps}"
        kept = {last: promoted[last], "T = 1": promoted["T = 1"]}
        return {name: resize(one[:, None], batch.images)[:, 0] for name, one in kept.items()}

    def select(self, prior: Tensor) -> Tensor:
        """Each pixel's share in the salient region, in [0, 1]. A hard region is never empty."""
        if self.selection == "soft":
            return prior
        threshold = torch.minimum(2 * prior.mean(dim=(1, 2)), prior.amax(dim=(1, 2)))
        return (prior >= threshold[:, None, None]).float()


def rescaling(channels: int, width: int, tapped: int, stride: int) -> nn.Module:
    """Features of stride `tapped` to `width` channels at `stride`, by subpixel convolution."""
    if stride < 1 or (tapped % stride and stride % tapped):
        raise InputError(
            f"stride={stride} does not fit a tap of stride {tapped}: one must divide the other; "
            "give a power of 2"
        )
    if tapped < stride:
        # Finer than wanted: the opposite, a strided convolution.
        return nn.Conv2d(channels, width, 3, stride // tapped, padding=1)
    times = tapped // stride
    convolution = nn.Conv2d(channels, width * times**2, 3, padding=1)
    return nn.Sequential(convolution, nn.PixelShuffle(times))
