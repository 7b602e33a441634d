"""The squeezed zoomout network of Kolkin, Shechtman and Shakhnarovich, ICCV 2017 ("W"), §4."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d, relu

from reference_models.networks.options import FBETA, ZoomoutLoss
from reference_models.networks.torch.system import Batch, resize
from saliency_losses.torch import weighted_fbeta_loss


class SqueezeModule(nn.Module):
    """`(N, C, h, w)` to `(N, 2 width, h, w)`: filters of 1 x 1 and as many of 3 x 3, and a ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, width, 1)
        self.wide = nn.Conv2d(channels, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return relu(torch.cat([self.near(x), self.wide(x)], dim=1))


class Zoomout(nn.Module):
    """A squeeze module on every tap, all brought to one resolution, and 1 x 1 layers that classify.

    W squeezes every convolutional layer of VGG-16 and concatenates the upsampled maps before the
    classifier. Here each block's last output is tapped. Bilinear upsampling and a 1 x 1
    convolution commute, so the classifier's first layer is applied to each tap at its own
    resolution, and what comes of it is upsampled and summed, at a fraction of the cost. Upsampling
    goes from tap to finer tap, which is smoother than W's in one go, and ends at the finest; from
    there the one logit is upsampled to the image. No fully connected layer is tapped: the
    backbones have none.

    Args:
        loss: What to train with, see `saliency_loss`.
        backbone: Has `channels`, those of each tap, the finest tap first.
        width: Filters of each size in a squeeze module; the paper's n, 64 there.
        hidden: Channels between the two layers of the classifier.
    """

    def __init__(
        self, loss: ZoomoutLoss, backbone: nn.Module, width: int = 16, hidden: int = 32
    ) -> None:
        super().__init__()
        self.kind: ZoomoutLoss = loss
        self.backbone = backbone
        self.squeeze = nn.ModuleList(SqueezeModule(c, width) for c in backbone.channels)
        self.mix = nn.ModuleList(nn.Conv2d(2 * width, hidden, 1) for _ in backbone.channels)
        self.classify = nn.Conv2d(hidden, 1, 1)

    def forward(self, taps: list[Tensor]) -> Tensor:
        """One logit, `(N, 1, h, w)`, at the resolution of the finest tap."""
        parts = [
            mix(squeeze(tap))
            for tap, squeeze, mix in zip(taps, self.squeeze, self.mix, strict=True)
        ]
        total = parts.pop()
        while parts:
            finer = parts.pop()
            total = finer + resize(total, finer)
        return self.classify(relu(total))

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        logits = resize(output.float(), batch.images)
        return saliency_loss(self.kind, logits[:, 0], batch.labels)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"map": resize(output.float(), batch.images)[:, 0].sigmoid()}


# The losses of W's tables 1 and 4, and what lies between them and the measure ---------------------


def saliency_loss(kind: ZoomoutLoss, logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over the images. logits float and labels 0/1, both `(N, H, W)`.

    Cross-entropies average over pixels; "2x" doubles those of one class, and "ce-band" leaves out
    the pixels of `border_band`. All others are weighted F-beta losses with the parts of `FBETA`.
    "dice", with neither A nor B, is soft Dice, but it has a gradient where there is no foreground.
    """
    target = labels.to(logits.dtype)
    match kind:
        case "ce":
            return binary_cross_entropy_with_logits(logits, target)
        case "ce-2x-foreground":
            return binary_cross_entropy_with_logits(logits, target, weight=1 + target)
        case "ce-2x-background":
            return binary_cross_entropy_with_logits(logits, target, weight=2 - target)
        case "ce-band":
            counted = ~border_band(labels)
            each = binary_cross_entropy_with_logits(logits, target, reduction="none") * counted
            # Image by image, so that the loss does not depend on how a batch is divided.
            return (each.sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1)).mean()
    parts = FBETA[kind]
    probs = logits.sigmoid()[:, None]
    return weighted_fbeta_loss(
        probs,
        labels[:, None],
        # The printed kernel with θ = 1 has 1.6 at its centre: AE > E everywhere, and A is off.
        theta=1 if parts.a == "off" else 9,
        normalize_kernel=parts.a == "unit",
        error=parts.error,
        distance="euclidean" if parts.b == "euclidean" else "window",
        distance_weights=torch.ones_like(probs) if parts.b == "off" else None,
    )


def border_band(labels: Tensor, width: int = 3) -> Tensor:
    """Pixels with one of the other class at most `width` rows and columns away; bool `(N, H, W)`.

    The image's own border is none.
    """
    salient = torch.stack([labels == 1, labels != 1], dim=1).float()
    size = 2 * width + 1
    rows = max_pool2d(salient, (size, 1), stride=1, padding=(width, 0))
    near = max_pool2d(rows, (1, size), stride=1, padding=(0, width))
    return near.sum(dim=1) == 2
