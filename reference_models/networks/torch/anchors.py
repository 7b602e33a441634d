"""Anchor network, which promotes a saliency map (Zeng et al., CVPR 2018; "L") in PyTorch.

Pixels and regions are mapped into one space. A region's position there is its anchor, and a pixel
belongs to the nearer of the two anchors of its image.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from reference_models.errors import InputError
from reference_models.networks.options import AnchorLoss, AnchorOptions
from reference_models.networks.torch.system import (
    Batch,
    FeatureExtractor,
    System,
    area_resize,
    cross_entropy,
    flip_for_step,
    reduced,
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

    In `PAPER_NETWORKS` the taps are the ends of the five blocks of VGG-16, and batch normalisation
    and a ReLU follow every layer of the embeddings, as in L §3.2. The last two poolings are
    omitted, which leaves stride 8; the authors' program omits the third and the fourth, which
    leaves stride 4. VGG-16 itself is not batch-normalised, and neither are fully connected layers,
    which would see two values of each channel in L's batches of one image. L prints no kernel
    sizes; here they are 3 x 3, and 1 x 1 in the last layer of an embedding. L does not say which
    pixels of a map its salient region has at test; here they are those of at least twice the mean.

    L's training prints no size of its crops; ours have 224 of 256 px and keep their size, as the
    network takes any. It ends when the loss converges, after about 300,000 steps; ours after as
    many.

    In the small and medium networks no layer is batch-normalised, and no ReLU follows the
    embeddings, so that they can have either sign.

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
        width, embedding, normalised = options.width, options.embedding, options.normalised
        self.name = loss
        self.backbone = backbone
        self.options = options
        self.blocks = nn.ModuleList(
            rescaling(channels, width, tapped, options.stride, normalised)
            for channels, tapped in zip(backbone.channels, backbone.strides, strict=True)
        )
        joined = width * len(self.blocks)
        self.pixels = two_convolutions(joined, embedding, normalised)
        if loss == "ce":
            self.classifier = nn.Conv2d(embedding, 2, 1)
        elif options.region_embedding == "conv":
            self.regions = two_convolutions(joined, embedding, normalised)
        else:
            self.regions = nn.Sequential(
                nn.Linear(joined, embedding), nn.ReLU(), nn.Linear(embedding, embedding)
            )
            if normalised:
                self.regions.append(nn.ReLU())

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

    def anchors(self, output: Tensor, salient: Tensor, counted: Tensor | None = None) -> Tensor:
        """`(N, 2, D)`, background first. salient: `(N, h, w)` in [0, 1]. counted: bool `(N, h, w)`,
        the pixels that belong to either region. Default: all."""
        regions = torch.stack([1 - salient, salient], dim=1)
        if counted is not None:
            regions = regions * counted[:, None]
        anchors = region_anchors(output[:, self.options.embedding :], regions)
        return self.regions(anchors).float() if self.options.region_embedding == "fc" else anchors

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        output = output.float()
        labels, counted = reduced(batch.labels, batch.counted, output.shape[-2:])
        if self.name == "ce":
            return cross_entropy(output, labels, counted)
        salient = flip_for_step(labels, self.options.flip, batch).float()
        anchors = self.anchors(output, salient, counted)
        pixels = output[:, : self.options.embedding]
        return anchor_softmax_loss(pixels, anchors, labels, mask=counted)

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


def two_convolutions(before: int, after: int, normalised: bool) -> nn.Sequential:
    """3 x 3, ReLU, 1 x 1; or both with batch normalisation and a ReLU."""
    first = convolution(before, after, 3, 1, normalised)
    second = convolution(after, after, 1, 1, normalised)
    return nn.Sequential(*first, nn.ReLU(), *second, *((nn.ReLU(),) if normalised else ()))


def rescaling(channels: int, width: int, tapped: int, stride: int, normalised: bool) -> nn.Module:
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
        layers = convolution(channels, width, 3, stride // tapped, normalised)
        return nn.Sequential(*layers) if normalised else layers[0]
    times = tapped // stride
    layers = convolution(channels, width * times**2, 3, 1, normalised)
    return nn.Sequential(*layers, nn.PixelShuffle(times))


def convolution(
    before: int, after: int, kernel: int, stride: int, normalised: bool
) -> list[nn.Module]:
    """A convolution, followed by batch normalisation if `normalised`."""
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=not normalised)
    return [layer, nn.BatchNorm2d(after)] if normalised else [layer]
