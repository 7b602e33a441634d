"""A small backbone and batches of generated scenes for the tests of the networks."""

import torch
from torch import Tensor, nn

from reference_models.data.scenes import scenes
from reference_models.networks.torch.system import Batch


class SmallBackbone(nn.Module):
    """Two taps, at strides 2 and 4, trained from scratch."""

    channels = (16, 24)
    strides = (2, 4)

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(16, 24, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=2, dilation=2),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(4 * images - 2).relu()
        return [fine, self.coarse(fine).relu()]


def a_batch(count: int = 4, size: int = 32, seed: int = 0) -> Batch:
    images, masks, priors = scenes(count, size, seed)
    return Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2) / 255,
        torch.from_numpy(masks).long(),
        torch.from_numpy(priors),
        torch.Generator().manual_seed(seed),
    )


def output_of(system: nn.Module, batch: Batch) -> Tensor:
    return system(system.backbone(batch.images))
