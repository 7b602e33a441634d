"""The small encoder–decoder, in PyTorch. `reference_models.flax.network` is the same network."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu


class SaliencyNet(nn.Module):
    """Encoder to a quarter of the side, decoder back with one skip; about 94,000 weights.

    Input: float `(N, 3, H, W)` in [0, 1], sides divisible by 4. Output: `(N, channels, H, W)`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = conv(3, 24, stride=2)
        self.skip = conv(24, 24)
        self.quarter = conv(24, 48, stride=2)
        self.near = conv(48, 48)
        self.far = conv(48, 48, dilation=2)
        self.farther = conv(48, 48, dilation=4)
        self.decoder = conv(48 + 24, 24)
        self.head = nn.Conv2d(24, channels, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        skip = relu(self.skip(relu(self.stem(4 * images - 2))))
        deep = relu(self.near(relu(self.quarter(skip))))
        deep = relu(self.farther(relu(self.far(deep))))
        joined = torch.cat([upsample(deep), skip], dim=1)
        return upsample(self.head(relu(self.decoder(joined))))


class Critic(nn.Module):
    """Scores pairs of a pixel's feature and a foreground vector; `(N, H, W)`, any real number."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(2 * channels, 32, kernel_size=1)
        self.score = nn.Conv2d(32, 1, kernel_size=1)

    def forward(self, features: Tensor, foreground: Tensor) -> Tensor:
        spread = foreground[:, :, None, None].expand_as(features)
        pairs = torch.cat([features, spread], dim=1)
        return self.score(relu(self.hidden(pairs)))[:, 0]


def conv(fan_in: int, fan_out: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution, padded to keep (or halve) the size, with He's initial weights."""
    layer = nn.Conv2d(fan_in, fan_out, 3, stride, padding=dilation, dilation=dilation)
    nn.init.kaiming_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def upsample(x: Tensor) -> Tensor:
    """Bilinear upsampling by 2."""
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
