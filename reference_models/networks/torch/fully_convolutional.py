"""FCN and DeepLab heads with the class-agnostic loss (Sharma et al., 2021; "C") in PyTorch."""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from reference_models.networks.options import FullyConvolutionalLoss, FullyConvolutionalOptions
from reference_models.networks.torch.metric_learning import (
    discriminative_loss,
    magnet_loss,
    triplet_loss,
)
from reference_models.networks.torch.system import (
    Batch,
    FeatureExtractor,
    System,
    cross_entropy,
    resize,
)
from saliency_losses.torch import cas_loss, class_agnostic_cross_entropy


class FullyConvolutional(System):
    """An FCN or a DeepLab head on pretrained features (C §4.1).

    The head's hidden layer is on the deepest tap. Finer taps, if any, are projected to the same
    number of channels and added from coarse to fine, with a convolution after each sum; the last
    layer gives the scores.

    The networks in `PAPER_NETWORKS` are torchvision's FCN-ResNet-101 and DeepLab-v3-ResNet-101: one
    tap of stride 8, and batch normalisation in the head and, by the statistics of the batch, in the
    backbone. They lack the dropout before the scores (of 0.1 and, after the pyramid, 0.5) and the
    auxiliary head of torchvision's pretrained models, which C does not mention. A training batch of
    "deeplab" needs two images, because the average over the image is normalised.

    C prints no optimizer, rate, batch or duration for them ("until convergence"). Ours are Adam on
    the one-cycle schedule, as at medium scale, a rate of 1e-3, a tenth of it for the backbone, 8
    images and 30 epochs of DUTS-TR; C also trains on MSRA-B, which cannot be had. C writes that it
    uses none of the pretraining that other methods use. We take this to mean pretraining for
    saliency, so that the backbone starts from ImageNet's weights; so does "deeplab", whose COCO
    weights in C cannot be had either.

    In the small and medium networks both heads have the same taps, so that only the pyramid
    differs, and no batch normalisation. FCN-8s adds scores instead of features.

    With two regions and two channels, "cas" takes the same steps whether or not the labels of an
    image are exchanged: on a CPU the weights are equal bit by bit. Where descriptors are constant
    its gradient is 0. It moves away from there only along directions whose Fisher ratio
    |μ_S − μ_B|² / (V_S + V_B) exceeds α / (2 (1 − α)): 0.5 at α = 0.5, 4.5 at α = 0.9.

    Args:
        loss: See `FullyConvolutionalLoss`.
        backbone: One or more taps of different strides, the finest first.
        options: Head, layer sizes and the constants of the loss.
    """

    def __init__(
        self,
        loss: FullyConvolutionalLoss,
        backbone: FeatureExtractor,
        options: FullyConvolutionalOptions = FullyConvolutionalOptions(),
    ) -> None:
        super().__init__()
        options.check_loss(loss)
        width, normalised = options.width, options.normalised
        self.name = loss
        self.backbone = backbone
        self.options = options
        *finer, deepest = backbone.channels
        self.head = (
            ASPP(deepest, width, options.rates, normalised)
            if options.head == "deeplab"
            else convolution(deepest, width, normalised=normalised)
        )
        if options.head == "deeplab" and normalised:
            smooth = convolution(width, width, normalised=True)
            self.head = nn.Sequential(self.head, nn.ReLU(), smooth)
        self.skips = nn.ModuleList(nn.Conv2d(c, width, 1) for c in finer)
        self.decoder = nn.ModuleList(convolution(width, width) for _ in finer)
        self.scores = nn.Conv2d(width, options.channels, 1)

    def forward(self, taps: list[Tensor]) -> Tensor:
        """`(N, channels, h, w)`: logits at the stride of the finest tap."""
        *finer, deepest = taps
        x = relu(self.head(deepest))
        layers = list(zip(finer, self.skips, self.decoder, strict=True))
        for tap, skip, smooth in reversed(layers):
            finer_x = skip(tap)
            x = relu(smooth(finer_x + resize(x, finer_x.shape[-2:])))
        return self.scores(x)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        logits = resize(output.float(), batch.images.shape[-2:])
        softmax = logits.softmax(dim=1)
        match self.name:
            case "ce":
                return cross_entropy(logits, batch.labels % logits.shape[1], batch.counted)
            case "cace":
                return class_agnostic_cross_entropy(logits, batch.labels, mask=batch.counted)
            case "cace-pixel":
                return class_agnostic_cross_entropy(
                    logits, batch.labels, per="pixel", mask=batch.counted
                )
            case "cas":
                return cas_loss(
                    softmax,
                    batch.labels,
                    num_regions=self.options.regions,
                    alpha=self.options.alpha,
                    average_regions=self.options.regions > 2,
                    mask=batch.counted,
                )
            case "discriminative":
                return discriminative_loss(
                    softmax, batch.labels, self.options.regions, batch.counted
                )
            case "triplet":
                return triplet_loss(softmax, batch.labels, batch.counted)
            case "magnet":
                return magnet_loss(softmax, batch.labels, self.options.regions, batch.counted)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"map": resize(output.float(), batch.images.shape[-2:]).softmax(dim=1)[:, 1]}

    def segmentation(self, output: Tensor, batch: Batch) -> Tensor:
        """The channel with the largest score at each pixel, int64 `(N, H, W)`."""
        return resize(output.float(), batch.images.shape[-2:]).argmax(dim=1)

    def descriptors(self, output: Tensor, batch: Batch) -> Tensor:
        return resize(output.float(), batch.images.shape[-2:]).softmax(dim=1).movedim(1, -1)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: convolutions of several dilations, and the image's mean."""

    def __init__(
        self, before: int, after: int, rates: tuple[int, ...], normalised: bool = False
    ) -> None:
        super().__init__()
        self.near = convolution(before, after, kernel=1, normalised=normalised)
        self.far = nn.ModuleList(
            convolution(before, after, rate, normalised=normalised) for rate in rates
        )
        self.whole = convolution(before, after, kernel=1, normalised=normalised)
        joined = after * (2 + len(rates))
        self.fusion = convolution(joined, after, kernel=1, normalised=normalised)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.whole(x.mean(dim=(2, 3), keepdim=True))
        branches = [self.near(x), *(far(x) for far in self.far), resize(whole, x.shape[-2:])]
        return self.fusion(relu(torch.cat(branches, dim=1)))


def convolution(
    before: int, after: int, dilation: int = 1, kernel: int = 3, normalised: bool = False
) -> nn.Module:
    """A convolution that keeps the size, followed by batch normalisation if `normalised`."""
    reach = dilation * (kernel // 2)
    layer = nn.Conv2d(before, after, kernel, padding=reach, dilation=dilation, bias=not normalised)
    return nn.Sequential(layer, nn.BatchNorm2d(after)) if normalised else layer
