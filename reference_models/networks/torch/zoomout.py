"""Squeezed zoomout network and its losses (Kolkin et al., ICCV 2017, §4; "W") in PyTorch."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d, relu

from reference_models.networks.options import FBETA, ZoomoutLoss, ZoomoutOptions
from reference_models.networks.torch.system import (
    Batch,
    FeatureExtractor,
    System,
    counted_mean,
    resize,
)
from saliency_losses.torch import weighted_fbeta_loss


class SqueezeModule(nn.Module):
    """`(N, C, h, w)` to `(N, 2 width, h, w)`: `width` filters of each size, 1 x 1 and 3 x 3.

    wide: False omits those of 3 x 3.
    """

    def __init__(self, channels: int, width: int, wide: bool = True) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, width, 1)
        self.wide = nn.Conv2d(channels, width, 3, padding=1) if wide else None

    def forward(self, x: Tensor) -> Tensor:
        near = self.near(x)
        return relu(near if self.wide is None else torch.cat([near, self.wide(x)], dim=1))


class Zoomout(System):
    """A squeeze module on every tap, upsampled to one resolution and classified by 1 x 1 layers.

    In `PAPER_NETWORKS` the taps are those of W Fig. 4: every convolutional layer of VGG-16 and fc7
    (W does not say which fully connected layer), which the caption squeezes by 1 x 1 filters alone.
    In the small and medium networks the taps are the last outputs of the backbone's blocks, and
    none is fully connected.

    W concatenates the upsampled maps before the classifier. Bilinear upsampling and a 1 x 1
    convolution commute, so the classifier's first layer is applied to each tap at its own
    resolution; its outputs are upsampled and summed, at a fraction of the cost. With
    `options.direct` this is W's function. Otherwise, in the small and medium networks, upsampling
    goes from each tap to the next finer one, which is smoother than W's single step. It ends at the
    finest tap; the logit is then upsampled to the image. W does not print its classifier; here it
    has one hidden layer.

    W's training has 2,500 images of MSRA-B, which cannot be had; at its scale ours has as many of
    DUTS-TR. W prints no batch size; 10 images give 250 steps in an epoch. It prints no ranges of
    its changes of colour, and makes them in random order; ours are FlowNet's, in one order.

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
        self.direct = options.direct
        # A map of one pixel has no neighbours for 3 x 3 filters.
        wide = [stride > 0 for stride in backbone.strides]
        squeezed = zip(backbone.channels, wide, strict=True) if options.squeeze else ()
        self.squeeze = nn.ModuleList(
            SqueezeModule(channels, width, has_wide) for channels, has_wide in squeezed
        )
        mixed = [2 * width if has_wide else width for has_wide in wide]
        self.mix = nn.ModuleList(
            nn.Conv2d(channels, hidden, 1)
            for channels in (mixed if options.squeeze else backbone.channels)
        )
        self.classify = nn.Conv2d(hidden, 1, 1)

    def forward(self, taps: list[Tensor]) -> Tensor:
        """One logit, `(N, 1, h, w)`, at the resolution of the finest tap."""
        if self.squeeze:
            taps = [squeeze(tap) for squeeze, tap in zip(self.squeeze, taps, strict=True)]
        parts = [mix(tap) for mix, tap in zip(self.mix, taps, strict=True)]
        if self.direct:
            total, *coarser = parts
            for part in coarser:
                total = total + resize(part, total.shape[-2:])
        else:
            total = parts.pop()
            while parts:
                finer = parts.pop()
                total = finer + resize(total, finer.shape[-2:])
        return self.classify(relu(total))

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        logits = resize(output.float(), batch.images.shape[-2:])
        return saliency_loss(self.name, logits[:, 0], batch.labels, batch.counted)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"map": resize(output.float(), batch.images.shape[-2:])[:, 0].sigmoid()}


# The losses of W's Tables 1 and 4, and steps from them towards the measure -----------------------


def saliency_loss(
    kind: ZoomoutLoss, logits: Tensor, labels: Tensor, counted: Tensor | None = None
) -> Tensor:
    """The training loss, the mean over the images; logits and 0/1 labels are `(N, H, W)`, and so is
    `counted`, False on void pixels.

    Cross-entropies average over pixels: "2x" doubles the weight of one class, and "ce-band" omits
    the pixels of `border_band`. All others are weighted F-beta losses with the parts in `FBETA`.
    "dice", with neither A nor B, is soft Dice, but has a gradient without foreground too.
    """
    target = labels.to(logits.dtype)
    weights = {"ce": None, "ce-2x-foreground": 1 + target, "ce-2x-background": 2 - target}
    if kind in weights and counted is None:
        return binary_cross_entropy_with_logits(logits, target, weight=weights[kind])
    if kind in weights or kind == "ce-band":
        weight = weights.get(kind)
        each = binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
        if kind == "ce-band":
            far = ~border_band(labels, counted=counted)
            counted = far if counted is None else far & counted
        assert counted is not None
        return counted_mean(each, counted)
    parts = FBETA[kind]
    probs = logits.sigmoid()[:, None]
    return weighted_fbeta_loss(
        probs,
        labels[:, None],
        **parts.arguments(),
        distance_weights=torch.ones_like(probs) if parts.b == "off" else None,
        mask=counted,
    )


def border_band(labels: Tensor, width: int = 3, counted: Tensor | None = None) -> Tensor:
    """Pixels at most `width` rows and columns from a pixel of the other class; bool `(N, H, W)`.

    The edge of the image does not count as a border, and void pixels have no class.
    """
    salient = torch.stack([labels == 1, labels != 1], dim=1).float()
    if counted is not None:
        salient = salient * counted[:, None]
    size = 2 * width + 1
    rows = max_pool2d(salient, (size, 1), stride=1, padding=(width, 0))
    near = max_pool2d(rows, (1, size), stride=1, padding=(0, width))
    return near.sum(dim=1) == 2
