"""Anchor network, which promotes a saliency map (Zeng et al., CVPR 2018; "L") in PyTorch.

Pixels and regions are mapped into one space. A region's position there is its anchor, and a pixel
belongs to the nearer of the two anchors of its image.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from reference_models.errors import InputError
from reference_models.networks.options import AnchorLoss, AnchorOptions
from reference_models.networks.torch.system import (
    Batch,
    FeatureExtractor,
    System,
    area_resize,
    flip_for_step,
    resize,
)
from saliency_losses.torch import (
    anchor_probabilities,
    anchor_softmax_loss,
    region_anchors,
    update_prior,
)


class AnchorNetwork(System):
    """Features of all taps at one resolution, a pixel and a region embedding (L §3.3–4).

    Unlike in L, no layer is batch-normalised, and no ReLU follows the embeddings, so that they can
    have either sign; L §3.2 has both after every layer.

    Args:
        loss: See `AnchorLoss`.
        backbone: A tap after each of its blocks, best with output stride 8 as in L §3.3.
        options: Layer sizes, stride, region embedding, and the promotion at test.
    """

    def __init__(
        self,
        loss: AnchorLoss,
        backbone: FeatureExtractor,
        options: AnchorOptions = AnchorOptions(),
    ) -> None:
        super().__init__()
        options.check_loss(loss)
        width, embedding = options.width, options.embedding
        self.name = loss
        self.backbone = backbone
        self.options = options
        self.blocks = nn.ModuleList(
            rescaling(channels, width, tapped, options.stride)
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
        elif options.region_embedding == "conv":
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
        """The pixel embedding, followed by the features that are averaged over regions.

        The channels are D, then D ("conv") or C for each tap ("fc"); for "ce" two logits.
        """
        blocks = zip(self.blocks, taps, strict=True)
        resized = [relu(block(tap)) for block, tap in blocks]
        # Of equal size already, unless a side of the image is not a multiple of the strides.
        joined = torch.cat([resize(tap, resized[0].shape[-2:]) for tap in resized], dim=1)
        pixels = self.pixels(joined)
        if self.name == "ce":
            return self.classifier(pixels)
        averaged = self.regions(joined) if self.options.region_embedding == "conv" else joined
        return torch.cat([pixels, averaged], dim=1)

    def anchors(self, output: Tensor, salient: Tensor) -> Tensor:
        """`(N, 2, D)`, background first. salient: `(N, h, w)` in [0, 1]."""
        regions = torch.stack([1 - salient, salient], dim=1)
        anchors = region_anchors(output[:, self.options.embedding :], regions)
        return self.regions(anchors).float() if self.options.region_embedding == "fc" else anchors

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        output = output.float()
        labels = (area_resize(batch.labels.float(), output.shape[-2:]) >= 0.5).long()
        if self.name == "ce":
            return cross_entropy(output, labels)
        anchors = self.anchors(output, flip_for_step(labels, self.options.flip, batch).float())
        return anchor_softmax_loss(output[:, : self.options.embedding], anchors, labels)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        output = output.float()
        if self.name == "ce":
            return {"map": resize(output, batch.images.shape[-2:]).softmax(dim=1)[:, 1]}
        prior = area_resize(batch.prior, output.shape[-2:])
        promoted = {}
        for step in range(1, self.options.steps + 1):
            anchors = self.anchors(output, self.select(prior))
            probabilities = anchor_probabilities(output[:, : self.options.embedding], anchors)
            prior = update_prior(prior, probabilities[:, 1], step)
            promoted[f"T = {step}"] = prior
        size = batch.images.shape[-2:]
        last = f"T = {self.options.steps}"
        others = promoted if self.options.all_rounds else ("T = 1",)
        kept = {name: promoted[name] for name in (last, *others)}
        return {name: resize(one[:, None], size)[:, 0] for name, one in kept.items()}

    def select(self, prior: Tensor) -> Tensor:
        """Weights in [0, 1] of the pixels in the salient region, which is never empty if hard."""
        if self.options.selection == "soft":
            return prior
        threshold = torch.minimum(2 * prior.mean(dim=(1, 2)), prior.amax(dim=(1, 2)))
        return (prior >= threshold[:, None, None]).float()


def rescaling(channels: int, width: int, tapped: int, stride: int) -> nn.Module:
    """A layer from a tap of stride `tapped` to `width` channels at `stride`.

    Subpixel convolution enlarges coarser taps (L §3.3).
    """
    if tapped % stride and stride % tapped:
        raise InputError(
            f"stride={stride} does not fit a tap of stride {tapped}: one must divide the other; "
            "use a power of 2"
        )
    if tapped < stride:
        # The tap is finer than the common resolution, so a strided convolution reduces it.
        return nn.Conv2d(channels, width, 3, stride // tapped, padding=1)
    times = tapped // stride
    convolution = nn.Conv2d(channels, width * times**2, 3, padding=1)
    return nn.Sequential(convolution, nn.PixelShuffle(times))
