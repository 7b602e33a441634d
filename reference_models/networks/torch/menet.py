"""MEnet and its heads (Cai et al., IJCAI 2018; "M") in PyTorch.

Their loss is cross-entropy, alone or with the metric loss. `MEnet` is the paper's network, trained
from scratch; `MetricHead` has the same two heads on pretrained features. Both output two logits and
sixteen features, and give two saliency maps.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, normalize, relu

from reference_models.networks.options import (
    DEEPEST_SIDE,
    FEATURES,
    MEnetLoss,
    MEnetOptions,
    MetricHeadOptions,
    SizeChange,
)
from reference_models.networks.torch.system import (
    Batch,
    FeatureExtractor,
    IdentityBackbone,
    System,
    cross_entropy,
    nearest_resize,
    resize,
)
from saliency_losses.torch import metric_loss, semantic_distance


class MEnet(System):
    """An encoder–decoder with one map of the image's size from each of 13 scales (M §2.1).

    The scales are the image; five encoder blocks, at strides 2 to 32; the average of the last one
    over the image, which stands for the paper's 1 x 1 map at any size; and six decoder blocks, at
    strides 32 to 1. Each decoder block joins the deeper map with the encoder's map of the same
    stride.

    This is the network of the small and medium scales; `PaperMEnet` is the paper's. It differs in
    the average in place of an n x n convolution, in bilinear upsampling before the maps are joined
    in place of deconvolution after it, in channels with an upper limit, in residual blocks that are
    normalised after their convolutions, and in one block at each scale instead of two. The 1 x 1
    map, which has a single value for each image, is not normalised. In S a pixel counts for the
    background by its probability, where M eq. 5 averages over a region.

    Args:
        loss: See `MEnetLoss`.
        options: The layer sizes, and whether the 13 maps are used.
    """

    def __init__(
        self,
        loss: MEnetLoss,
        options: MEnetOptions = MEnetOptions(),
    ) -> None:
        super().__init__()
        options.check_loss(loss)
        self.name = loss
        self.backbone = IdentityBackbone()
        self.multi_scale = options.multi_scale
        scales = self.build(options)
        if options.multi_scale:
            self.scales = nn.ModuleList(self.single(c) for c in scales)
            self.logits = nn.Sequential(*normalised(len(scales), 2, side=options.last))
            if loss != "ce":
                self.features = nn.Sequential(*normalised(len(scales), FEATURES, side=options.last))
        else:
            self.logits = nn.Sequential(*normalised(scales[-1], 2, side=options.last))

    def build(self, options: MEnetOptions) -> list[int]:
        """Make the encoder and the decoder, and return the channels of each scale."""
        width, blocks = options.width, options.blocks
        encoded = [min(width * 2**step, options.widest) for step in range(5)]
        self.encoder = nn.ModuleList(
            residual(before, after, blocks, stride=2)
            for before, after in zip([3, *encoded], encoded, strict=False)
        )
        self.whole: nn.Module = nn.Conv2d(encoded[-1], encoded[-1], 1)
        decoded = [*reversed(encoded), width]
        deeper = [encoded[-1], *decoded]
        self.decoder = nn.ModuleList(
            residual(below + beside, after, blocks, stride=1)
            for below, beside, after in zip(deeper, [*reversed(encoded), 3], decoded, strict=False)
        )
        return [3, *encoded, encoded[-1], *decoded]

    def single(self, channels: int) -> nn.Module:
        """The layer that makes one map of a scale."""
        return nn.Conv2d(channels, 1, 3, padding=1)

    def all_scales(self, image: Tensor) -> list[Tensor]:
        """The feature maps of every scale, in the order of `build`."""
        skips = [image]
        for block in self.encoder:
            skips.append(block(skips[-1]))
        below = relu(self.whole(skips[-1].mean(dim=(2, 3), keepdim=True)))
        scales = [*skips, below]
        for block, beside in zip(self.decoder, reversed(skips), strict=True):
            below = block(torch.cat([resize(below, beside.shape[-2:]), beside], dim=1))
            scales.append(below)
        return scales

    def forward(self, taps: list[Tensor]) -> Tensor:
        """Two logits of every pixel, and sixteen features in [−1, 1] unless loss="ce"."""
        # With channels last, torch 2.13 corrupts memory on a CPU in the gradient of a 1 x 1
        # convolution of three channels with stride 2.
        image = 4 * taps[0].contiguous() - 2
        scales = self.all_scales(image)
        if not self.multi_scale:
            return self.logits(scales[-1])
        size = image.shape[-2:]
        singles = zip(self.scales, scales, strict=True)
        maps = torch.cat([resize(single(scale), size) for single, scale in singles], dim=1)
        if self.name == "ce":
            return self.logits(maps)
        logits = self.logits(maps.detach() if self.name == "metric-alone" else maps)
        # In half precision tanh would be constant from 3.5.
        return torch.cat([logits.float(), self.features(maps).float().tanh()], dim=1)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return two_losses(self.name, output, batch)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return two_maps(self.name, output, batch)

    def descriptors(self, output: Tensor, batch: Batch) -> Tensor:
        return normalize(output[:, 2:].float()).movedim(1, -1)


class PaperMEnet(MEnet):
    """MEnet with its 52 convolutions and deconvolutions (M §3.2).

    The text leaves the widths and the blocks to its figures; here they are those of the authors'
    program. The scales are the image; six encoder blocks, at strides 1 to 32, with 32 to 1024
    channels; the map of 1 x 1 after its deconvolution; and five decoder blocks, at strides 16 to 1.
    A decoder block joins the deeper map with the encoder's map of the same stride, and its first
    convolution is the deconvolution. A block has four convolutions in two residual units,
    normalised before each convolution. The 1 x 1 shortcuts of the encoder's units, the 13 maps and
    the last layer are not among the 52.

    Differences from the program: the map of the image is not normalised, and images are scaled to
    [−2, 2]. The 13 maps are upsampled bilinearly; M says "up-sampling". The map at stride 32 has
    7 x 7 values at M's 224 px; at other sizes it is averaged to 7 x 7, and the deconvolved map is
    resized. A training batch needs two images, because the 1 x 1 map is normalised.

    Not in M's text, but in the program: the tanh of the features, and their unit length in the loss
    and in S. In neither: S is divided by its greatest value in the image. In S, Ω_B holds the
    pixels that are background by the saliency head, and P_B of M eq. 5, which M does not define
    further, is the same for all of them. Hard negatives act on the metric loss alone, which M
    leaves open. M prints no size of its crops; ours have 192 px and are enlarged to 224. The images
    are those of DUTS-TR, as MSRA10K and HKU-IS cannot be had.

    Args:
        loss: See `MEnetLoss`.
        options: The layer sizes, and whether the 13 maps are used.
    """

    def build(self, options: MEnetOptions) -> list[int]:
        encoded = [min(options.width * 2**step, options.widest) for step in range(6)]
        decoded = encoded[-2::-1]
        first, deepest = encoded[0], encoded[-1]
        self.stem = nn.Sequential(*normalised(3, first), nn.ReLU())
        changes: list[SizeChange] = ["same", "half", "half", "half", "half", "half"]
        self.encoder = nn.ModuleList(
            units(before, after, options.blocks, change)
            for before, after, change in zip([first, *encoded[:-1]], encoded, changes, strict=True)
        )
        shrink = nn.Conv2d(deepest, deepest, DEEPEST_SIDE, bias=False)
        spread = nn.ConvTranspose2d(deepest, deepest, DEEPEST_SIDE, bias=False)
        self.whole = nn.Sequential(*preceded(deepest, shrink), *preceded(deepest, spread))
        self.decoder = nn.ModuleList(
            units(below + beside, after, options.blocks, "double")
            for below, beside, after in zip(
                [deepest, *decoded[:-1]], encoded[:0:-1], decoded, strict=True
            )
        )
        return [3, *encoded, deepest, *decoded]

    def single(self, channels: int) -> nn.Module:
        layer = super().single(channels)
        if channels == 3:
            return layer
        return nn.Sequential(*preceded(channels, layer))

    def all_scales(self, image: Tensor) -> list[Tensor]:
        x, encoded = self.stem(image), []
        for block in self.encoder:
            x = block(x)
            encoded.append(x)
        below = self.whole(adaptive_avg_pool2d(x, DEEPEST_SIDE))
        scales = [image, *encoded, resize(below, x.shape[-2:])]
        for block, beside in zip(self.decoder, encoded[:0:-1], strict=True):
            below = torch.cat([resize(scales[-1], beside.shape[-2:]), beside], dim=1)
            scales.append(block(below))
        return scales

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return two_maps(self.name, output, batch, by_region=True)


class MetricHead(System):
    """MEnet's features and saliency head on a light decoder of pretrained features.

    The taps are projected to the same number of channels and added from coarse to fine, with a
    convolution after each sum. The logits are computed from the sixteen features; in MEnet the two
    heads are parallel.

    Args:
        loss: See `MEnetLoss`.
        backbone: One or more taps of different strides; the output has the finest one.
        options: The width of the decoder.
    """

    def __init__(
        self,
        loss: MEnetLoss,
        backbone: FeatureExtractor,
        options: MetricHeadOptions = MetricHeadOptions(),
    ) -> None:
        super().__init__()
        options.check_loss(loss)
        width = options.width
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
        layers = list(zip(taps, self.projections, self.decoder, strict=True))
        tap, project, smooth = layers.pop()
        below = relu(smooth(project(tap)))
        for tap, project, smooth in reversed(layers):
            x = project(tap)
            below = relu(smooth(x + resize(below, x.shape[-2:])))
        features = self.features(below).float().tanh()
        logits = self.logits(features.detach() if self.name == "metric-alone" else features)
        return torch.cat([logits.float(), features], dim=1)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return two_losses(self.name, output, batch)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return two_maps(self.name, output, batch)

    def descriptors(self, output: Tensor, batch: Batch) -> Tensor:
        return normalize(output[:, 2:].float()).movedim(1, -1)


def two_losses(name: MEnetLoss, output: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy at the image's size plus the metric loss at the output's (M eq. 4)."""
    output = output.float()
    logits, features = output[:, :2], output[:, 2:]
    entropy = cross_entropy(resize(logits, batch.images.shape[-2:]), batch.labels, batch.counted)
    if name == "ce":
        return entropy
    size = features.shape[-2:]
    return entropy + metric_loss(
        features,
        nearest_resize(batch.labels, size),
        form="pairwise" if name == "metric-pairwise" else "centroid",
        normalize=name != "metric-printed",
        stop_gradient=name == "metric-stop-gradient",
        hard_negatives=name == "metric-hard-negatives",
        mask=None if batch.counted is None else nearest_resize(batch.counted, size),
    )


def two_maps(
    name: MEnetLoss, output: Tensor, batch: Batch, by_region: bool = False
) -> dict[str, Tensor]:
    """The saliency head's probability, and the distance to the mean background feature (M eq. 5).

    The mean is over all pixels, weighted by their probability of being background, or `by_region`,
    over the pixels where this probability is at least ½; if there are none, it is the zero vector.
    The features have unit length if the loss compared unit features. The distances are divided by
    the greatest one of their image.
    """
    output = output.float()
    logits, features = output[:, :2], output[:, 2:]
    maps = {"saliency head": resize(logits, batch.images.shape[-2:]).softmax(dim=1)[:, 1]}
    if features.shape[1] > 0:
        if name != "metric-printed":
            features = normalize(features)
        background = logits.softmax(dim=1)[:, 0]
        if by_region:
            background = (logits[:, 0] >= logits[:, 1]).float()
        distance = semantic_distance(features, background)
        distance = resize(distance[:, None], batch.images.shape[-2:])[:, 0]
        greatest = distance.amax(dim=(1, 2), keepdim=True)
        maps["semantic distance"] = distance / torch.where(greatest > 0, greatest, 1)
    return maps


class Residual(nn.Module):
    """Two normalised convolutions and a shortcut; the first convolution may halve the size."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *normalised(before, after, stride), nn.ReLU(), *normalised(after, after)
        )
        self.shortcut = nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.body(x) + self.shortcut(x))


def residual(before: int, after: int, blocks: int, stride: int) -> nn.Sequential:
    """`blocks` residual blocks; the first changes channels and size."""
    first = Residual(before, after, stride)
    return nn.Sequential(first, *(Residual(after, after, 1) for _ in range(blocks - 1)))


def normalised(
    before: int, after: int, stride: int = 1, side: int = 3
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A square convolution and batch normalisation."""
    convolution = nn.Conv2d(before, after, side, stride, padding=side // 2, bias=False)
    return convolution, nn.BatchNorm2d(after)


class Unit(nn.Module):
    """A residual unit of two convolutions, each normalised before it.

    change: What the first convolution does to the size. "double" is a deconvolution.
    """

    def __init__(self, before: int, after: int, change: SizeChange) -> None:
        super().__init__()
        first: nn.Module
        shortcut: nn.Module | None = None
        match change:
            case "same":
                first = nn.Conv2d(before, after, 3, padding=1, bias=False)
            case "half":
                first = nn.Conv2d(before, after, 3, 2, padding=1, bias=False)
                shortcut = nn.Conv2d(before, after, 1, 2, bias=False)
            case "double":
                first = nn.ConvTranspose2d(before, after, 4, 2, padding=1, bias=False)
                shortcut = nn.ConvTranspose2d(before, after, 2, 2, bias=False)
        second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.body = nn.Sequential(*preceded(before, first), *preceded(after, second))
        self.shortcut = None if shortcut is None else nn.Sequential(*preceded(before, shortcut))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))


def units(before: int, after: int, blocks: int, change: SizeChange) -> nn.Sequential:
    """`blocks` residual units; the first changes channels and size."""
    first = Unit(before, after, change)
    return nn.Sequential(first, *(Unit(after, after, "same") for _ in range(blocks - 1)))


def preceded(channels: int, layer: nn.Module) -> tuple[nn.Module, ...]:
    """A layer after batch normalisation and a ReLU."""
    return nn.BatchNorm2d(channels), nn.ReLU(), layer
