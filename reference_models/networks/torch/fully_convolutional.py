"""Standard segmentation networks with the class-agnostic loss (Sharma et al., 2021; "C")."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from reference_models.errors import InputError
from reference_models.networks.torch.system import Batch, resize
from saliency_losses.torch import cas_loss, class_agnostic_cross_entropy


class FullyConvolutional(nn.Module):
    """An FCN or a DeepLab head on the features of another network (C §4.1).

    The deepest tap gets the head's hidden layer. Finer taps, if any, are projected to as many
    channels and added on the way up, a convolution after each sum; then follow the scores. FCN-8s
    adds scores instead: on MobileNetV2 that was .02 worse in max F. DeepLab-v3 has one tap of
    stride 8 or 16 and nothing finer: a single tap gives that, but the recipes give both heads the
    same taps, so that they differ by the pyramid alone.

    With two regions and two channels, `cas` takes the same steps whether or not the labels of an
    image are exchanged: on a CPU the weights come out equal bit by bit. It leaves constant
    descriptors, where its gradient is 0, only along directions whose Fisher ratio
    |μ_S − μ_B|² / (V_S + V_B) exceeds α / (2 (1 − α)): 0.5 at α = 0.5, 4.5 at α = 0.9, where
    training collapsed; 0.2 to 0.8 work.

    Args:
        loss: "ce"; "cace", cross-entropy with the labels or their exchange, whichever is smaller
            for the image, or for each pixel with "cace-pixel"; "cas", the class-agnostic loss. For
            general segmentation "ce" takes the region's number, modulo the channels, for its
            class: there is no other, which is the point of the comparison.
        backbone: Tapped at one or more strides.
        head: "fcn", a convolution and a score; "deeplab", parallel dilated convolutions and the
            average over the image (DeepLab-v3).
        channels: Of the output: the classes, or the components of the descriptor.
        regions: The number of region labels, 2 for salient objects. Above 2, "cas" averages over
            the regions and their pairs, so that images of many regions do not outweigh the rest.
        width: The hidden channels.
        rates: The dilations of "deeplab", in pixels of the deepest tap.
        alpha: The weight of the uniformer.
    """

    def __init__(
        self,
        loss: Literal["ce", "cace", "cace-pixel", "cas"],
        backbone: nn.Module,
        head: Literal["fcn", "deeplab"] = "fcn",
        channels: int = 2,
        regions: int = 2,
        width: int = 32,
        rates: tuple[int, ...] = (1, 2, 3),
        alpha: float = 0.5,
    ) -> None:
        super().__init__()
        if loss in ("cace", "cace-pixel") and (channels, regions) != (2, 2):
            raise InputError(
                f"loss={loss!r} compares two classes, so channels and regions must be 2, "
                f"got {channels} and {regions}; for more give 'cas'"
            )
        self.name = loss
        self.backbone = backbone
        self.num_regions = regions
        self.alpha = alpha
        *finer, deepest = backbone.channels
        self.head = (
            ASPP(deepest, width, rates) if head == "deeplab" else convolution(deepest, width)
        )
        self.skips = nn.ModuleList(nn.Conv2d(c, width, 1) for c in finer)
        self.decoder = nn.ModuleList(convolution(width, width) for _ in finer)
        self.scores = nn.Conv2d(width, channels, 1)

    def forward(self, taps: list[Tensor]) -> Tensor:
        """`(N, channels, h, w)`: logits at the stride of the finest tap."""
        *finer, deepest = taps
        x = relu(self.head(deepest))
        layers = list(zip(finer, self.skips, self.decoder, strict=True))
        for tap, skip, smooth in reversed(layers):
            here = skip(tap)
            x = relu(smooth(here + resize(x, here)))
        return self.scores(x)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        logits = resize(output.float(), batch.images)
        match self.name:
            case "ce":
                return cross_entropy(logits, batch.labels % logits.shape[1])
            case "cace":
                return class_agnostic_cross_entropy(logits, batch.labels)
            case "cace-pixel":
                return class_agnostic_cross_entropy(logits, batch.labels, per="pixel")
            case "cas":
                return cas_loss(
                    logits.softmax(dim=1),
                    batch.labels,
                    num_regions=self.num_regions,
                    alpha=self.alpha,
                    average_regions=self.num_regions > 2,
                )

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"map": resize(output.float(), batch.images).softmax(dim=1)[:, 1]}

    def regions(self, output: Tensor, batch: Batch) -> Tensor:
        """The segmentation, int64 `(N, H, W)`: the channel that is greatest at each pixel."""
        return resize(output.float(), batch.images).argmax(dim=1)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: convolutions of several dilations and the image's mean."""

    def __init__(self, before: int, after: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.near = nn.Conv2d(before, after, 1)
        self.far = nn.ModuleList(convolution(before, after, rate) for rate in rates)
        self.whole = nn.Conv2d(before, after, 1)
        self.fusion = nn.Conv2d(after * (2 + len(rates)), after, 1)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.whole(x.mean(dim=(2, 3), keepdim=True))
        branches = [self.near(x), *(far(x) for far in self.far), resize(whole, x)]
        return self.fusion(relu(torch.cat(branches, dim=1)))


def convolution(before: int, after: int, dilation: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation)
