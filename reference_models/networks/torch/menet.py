"""MEnet: cross-entropy and the metric loss on one network (Cai et al., IJCAI 2018; "M").

`MEnet` is the paper's network, trained from scratch; `MetricHead` puts its two heads on the
features of another network. Both give two logits and sixteen features, and two saliency maps.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, normalize, relu

from reference_models.errors import InputError
from reference_models.networks.options import FEATURES, MEnetLoss
from reference_models.networks.torch.system import Batch, Pixels, resize
from saliency_losses.torch import metric_loss, semantic_distance


class MEnet(nn.Module):
    """The encoder–decoder whose thirteen scales each give one map of the image's size (M §2.1).

    The scales: the image; five encoder blocks, at strides 2 to 32; their average over the image,
    which is the paper's 1 x 1 map whatever the size; six decoder blocks, at strides 32 to 1. Each
    decoder block joins what is deeper with the encoder's map of its own stride.

    Taken where the paper is silent or a simpler thing does: bilinear upsampling in place of
    deconvolution, and no batch normalisation of the 1 x 1 map, where there is a single value of
    each image.

    Args:
        loss: See `reference_models.networks.options.MEnetLoss`.
        width: The channels at stride 2, doubled with each further step; 64 is of the paper's size.
        widest: Where the doubling ends.
        blocks: Residual blocks of two convolutions at each scale; 2 in the paper.
        multi_scale: False leaves the thirteen maps out: the logits come from the decoder
            ("CE-plain" of M table 4), and there are no features.
    """

    def __init__(
        self,
        loss: MEnetLoss,
        width: int = 12,
        widest: int = 96,
        blocks: int = 1,
        multi_scale: bool = True,
    ) -> None:
        super().__init__()
        if loss != "ce" and not multi_scale:
            raise InputError(f"multi_scale=False has no features for loss={loss!r}; give 'ce'")
        self.name = loss
        self.backbone = Pixels()
        self.multi_scale = multi_scale
        encoded = [min(width * 2**step, widest) for step in range(5)]
        self.encoder = nn.ModuleList(
            residual(before, after, blocks, stride=2)
            for before, after in zip([3, *encoded], encoded, strict=False)
        )
        self.whole = nn.Conv2d(encoded[-1], encoded[-1], 1)
        decoded = [*reversed(encoded), width]
        deeper = [encoded[-1], *decoded]
        self.decoder = nn.ModuleList(
            residual(below + beside, after, blocks, stride=1)
            for below, beside, after in zip(deeper, [*reversed(encoded), 3], decoded, strict=False)
        )
        if multi_scale:
            scales = [3, *encoded, encoded[-1], *decoded]
            self.scales = nn.ModuleList(nn.Conv2d(c, 1, 3, padding=1) for c in scales)
            self.logits = nn.Sequential(*normalised(len(scales), 2))
            if loss != "ce":
                self.features = nn.Sequential(*normalised(len(scales), FEATURES))
        else:
            self.logits = nn.Sequential(*normalised(width, 2))

    def forward(self, taps: list[Tensor]) -> Tensor:
        """Two logits of every pixel, and but for loss="ce" sixteen features in [−1, 1]."""
        # On a CPU, torch 2.13 corrupts memory in the gradient of a 1 x 1 convolution of three
        # channels with stride 2 if they are stored last.
        image = 4 * taps[0].contiguous() - 2
        skips = [image]
        for block in self.encoder:
            skips.append(block(skips[-1]))
        below = relu(self.whole(skips[-1].mean(dim=(2, 3), keepdim=True)))
        scales = [*skips, below]
        for block, beside in zip(self.decoder, reversed(skips), strict=True):
            below = block(torch.cat([resize(below, beside), beside], dim=1))
            scales.append(below)
        if not self.multi_scale:
            return self.logits(below)
        singles = zip(self.scales, scales, strict=True)
        maps = torch.cat([resize(single(scale), image) for single, scale in singles], dim=1)
        if self.name == "ce":
            return self.logits(maps)
        # In half precision tanh would be flat from 3.5 on.
        return torch.cat([self.logits(maps).float(), self.features(maps).float().tanh()], dim=1)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return two_losses(self.name, output, batch)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return two_maps(output, batch)


class MetricHead(nn.Module):
    """MEnet's features and a saliency head on a light decoder of pretrained features.

    The taps are projected to equal channels and added from the deepest up, a convolution after
    each sum. The logits are read from the sixteen features; in MEnet the heads stand side by side.

    Args:
        loss: See `reference_models.networks.options.MEnetLoss`.
        backbone: Tapped at several strides, the finest of them that of the output.
        width: The channels of the decoder.
    """

    def __init__(self, loss: MEnetLoss, backbone: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.name = loss
        self.backbone = backbone
        self.projections = nn.ModuleList(nn.Conv2d(c, width, 1) for c in backbone.channels)
        self.decoder = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1) for _ in backbone.channels
        )
        self.features = nn.Conv2d(width, FEATURES, 1)
        self.logits = nn.Conv2d(FEATURES, 2, 1)

    def forward(self, taps: list[Tensor]) -> Tensor:
        """Two logits and sixteen features in [−1, 1], at the stride of the finest tap."""
        below = None
        layers = zip(taps, self.projections, self.decoder, strict=True)
        for tap, project, smooth in reversed(list(layers)):
            here = project(tap)
            below = relu(smooth(here if below is None else here + resize(below, here)))
        features = self.features(below).float().tanh()
        return torch.cat([self.logits(features).float(), features], dim=1)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return two_losses(self.name, output, batch)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return two_maps(output, batch)


def two_losses(name: MEnetLoss, output: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy at the image's size, and the metric loss at that of the output (M eq. 4)."""
    output = output.float()
    logits, features = output[:, :2], output[:, 2:]
    entropy = cross_entropy(resize(logits, batch.images), batch.labels)
    if name == "ce":
        return entropy
    size = features.shape[-2:]
    labels = interpolate(batch.labels[:, None].float(), size=size, mode="nearest-exact")[:, 0]
    return entropy + metric_loss(
        features,
        labels.long(),
        form="pairwise" if name == "metric-pairwise" else "centroid",
        normalize=True,
        stop_gradient=name == "metric-stop-gradient",
        hard_negatives=name == "metric-hard-negatives",
    )


def two_maps(output: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The probability of the saliency head, and the distance to the mean background (M eq. 5).

    The mean is over all pixels, each weighed by its probability of being background.
    """
    output = output.float()
    logits, features = output[:, :2], output[:, 2:]
    maps = {"saliency head": resize(logits, batch.images).softmax(dim=1)[:, 1]}
    if features.shape[1] > 0:
        distance = semantic_distance(normalize(features), logits.softmax(dim=1)[:, 0])
        distance = resize(distance[:, None], batch.images)[:, 0]
        greatest = distance.amax(dim=(1, 2), keepdim=True)
        maps["semantic distance"] = distance / torch.where(greatest > 0, greatest, 1)
    return maps


class Residual(nn.Module):
    """Two normalised convolutions beside a shortcut; the first of them may halve the size."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *normalised(before, after, stride), nn.ReLU(), *normalised(after, after)
        )
        self.shortcut = nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.body(x) + self.shortcut(x))


def residual(before: int, after: int, blocks: int, stride: int) -> nn.Sequential:
    """So many residual blocks, of which the first changes channels and size."""
    first = Residual(before, after, stride)
    return nn.Sequential(first, *(Residual(after, after, 1) for _ in range(blocks - 1)))


def normalised(before: int, after: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A 3 x 3 convolution and batch normalisation."""
    convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(after)
