"""Squeezed zoomout network and its losses (Kolkin et al., ICCV 2017, §4; "W") in PyTorch."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d, relu

from reference_models.networks.options import FBETA, ZoomoutLoss, ZoomoutOptions
from reference_models.networks.torch.system import Batch, FeatureExtractor, System, resize
from saliency_losses.torch import weighted_fbeta_loss


class SqueezeModule(nn.Module):
    """`(N, C, h, w)` to `(N, 2 width, h, w)`: `width` filters of each size, 1 x 1 and 3 x 3."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, width, 1)
        self.wide = nn.Conv2d(channels, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return relu(torch.cat([self.near(x), self.wide(x)], dim=1))


class Zoomout(System):
    """A squeeze module on every tap, upsampled to one resolution and classified by 1 x 1 layers.

    W squeezes every convolutional layer of VGG-16 and concatenates the upsampled maps before the
    classifier. Here the taps are the last outputs of the blocks. Bilinear upsampling and a 1 x 1
    convolution commute, so the classifier's first layer is applied to each tap at its own
    resolution; its outputs are upsampled and summed, at a fraction of the cost. Upsampling goes
    from each tap to the next finer one, which is smoother than W's single step, and ends at the
    finest tap; the logit is then upsampled to the image. The backbones have no fully connected
    layers, so none is tapped.

    Args:
        loss: The training loss, see `saliency_loss`.
        backbone: Its taps, the finest first.
        options: The layer sizes.
    """

    def __init__(
        self,
        loss: ZoomoutLoss,
        backbone: FeatureExtractor,
        options: ZoomoutOptions = ZoomoutOptions(),
    ) -> None:
        super().__init__()
        options.check_loss(loss)
        width, hidden = options.width, options.hidden
        self.name = loss
        self.backbone = backbone
        squeezed = backbone.channels if options.squeeze else ()
        self.squeeze = nn.ModuleList(SqueezeModule(c, width) for c in squeezed)
        self.mix = nn.ModuleList(
            nn.Conv2d(2 * width if options.squeeze else c, hidden, 1) for c in backbone.channels
        )
        self.classify = nn.Conv2d(hidden, 1, 1)

    def forward(self, taps: list[Tensor]) -> Tensor:
        """One logit, `(N, 1, h, w)`, at the resolution of the finest tap."""
        if self.squeeze:
            taps = [squeeze(tap) for squeeze, tap in zip(self.squeeze, taps, strict=True)]
        parts = [mix(tap) for mix, tap in zip(self.mix, taps, strict=True)]
        total = parts.pop()
        while parts:
            finer = parts.pop()
            total = finer + resize(total, finer.shape[-2:])
        return self.classify(relu(total))

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        logits = resize(output.float(), batch.images.shape[-2:])
        return saliency_loss(self.name, logits[:, 0], batch.labels)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"map": resize(output.float(), batch.images.shape[-2:])[:, 0].sigmoid()}


# The losses of W's Tables 1 and 4, and steps from them towards the measure -----------------------


def saliency_loss(kind: ZoomoutLoss, logits: Tensor, labels: Tensor) -> Tensor:
    """The training loss, the mean over the images; logits and 0/1 labels are `(N, H, W)`.

    Cross-entropies average over pixels: "2x" doubles the weight of one class, and "ce-band" omits
    the pixels of `border_band`. All others are weighted F-beta losses with the parts in `FBETA`.
    "dice", with neither A nor B, is soft Dice, but has a gradient without foreground too.
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
            # A mean for each image, so that the loss does not depend on how a batch is divided.
            return (each.sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1)).mean()
    parts = FBETA[kind]
    probs = logits.sigmoid()[:, None]
    return weighted_fbeta_loss(
        probs,
        labels[:, None],
        **parts.arguments(),
        distance_weights=torch.ones_like(probs) if parts.b == "off" else None,
    )


def border_band(labels: Tensor, width: int = 3) -> Tensor:
    """Pixels at most `width` rows and columns from a pixel of the other class; bool `(N, H, W)`.

    The edge of the image does not count as a border.
    """
    salient = torch.stack([labels == 1, labels != 1], dim=1).float()
    size = 2 * width + 1
    rows = max_pool2d(salient, (size, 1), stride=1, padding=(width, 0))
    near = max_pool2d(rows, (1, size), stride=1, padding=(0, width))
    return near.sum(dim=1) == 2
