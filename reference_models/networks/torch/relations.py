"""The relation model: pixels like the certain foreground are salient (Chen et al., AAAI 2020; "R").

It learns from given saliency maps alone. A critic tells pairs of the foreground and a probably
salient pixel from pairs of the foreground and a probable background pixel, and then judges all.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from reference_models.networks.torch.system import Batch, resize, shrink
from saliency_losses.torch import (
    foreground_vector,
    js_mutual_information_loss,
    merge_by_confidence,
    relation_pairs,
)


class RelationModel(nn.Module):
    """Features of several layers fused by parallel dilated convolutions, and a critic (R §4).

    R fuses the taps as they are and has a critic of five layers; here each tap is first projected
    to a few channels, and the critic has as many hidden layers as `critic` names.

    Args:
        loss: "js-mi".
        backbone: Tapped where its features are wanted; R takes layers 0, 3, 13 and 17.
        width: The channels of each tap once projected.
        embedding: The channels of a pixel's feature: 32 in the paper.
        stride: That of the common resolution: 2 in the paper.
        rates: The dilations of the parallel convolutions, in pixels of the common resolution.
        critic: The channels of the critic's hidden layers.
        certain: The prior of a pixel that counts into the foreground vector.
        foreground: The least prior of a pixel taken to be salient.
        background: The greatest prior of a pixel taken to be background.
        balance: Weigh both kinds of pair alike, however many there are.
    """

    def __init__(
        self,
        loss: Literal["js-mi"],
        backbone: nn.Module,
        width: int = 16,
        embedding: int = 32,
        stride: int = 4,
        rates: tuple[int, ...] = (1, 3, 6),
        critic: tuple[int, ...] = (64, 64),
        certain: float = 0.9,
        foreground: float = 0.8,
        background: float = 0.3,
        balance: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.stride = stride
        self.certain = certain
        self.foreground = foreground
        self.background = background
        self.balance = balance
        self.strides = tuple(backbone.strides)
        self.projections = nn.ModuleList(nn.Conv2d(c, width, 1) for c in backbone.channels)
        joined = width * len(self.projections)
        self.near = nn.Conv2d(joined, embedding, 1)
        self.far = nn.ModuleList(
            nn.Conv2d(joined, embedding, 3, padding=rate, dilation=rate) for rate in rates
        )
        self.fusion = nn.Conv2d(embedding * (1 + len(rates)), embedding, 1)
        layers: list[nn.Module] = []
        channels = 2 * embedding
        for hidden in critic:
            layers += [nn.Conv2d(channels, hidden, 1), nn.ReLU()]
            channels = hidden
        self.critic = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    def forward(self, taps: list[Tensor]) -> Tensor:
        """A feature of every pixel, `(N, embedding, H / stride, W / stride)`."""
        height, width = (side * self.strides[0] // self.stride for side in taps[0].shape[-2:])
        # Projected before they are enlarged: the same map, as both are linear, and less work.
        joined = torch.cat(
            [
                interpolate(project(tap), (height, width), mode="bilinear", align_corners=False)
                for project, tap in zip(self.projections, taps, strict=True)
            ],
            dim=1,
        )
        joined = relu(joined)
        branches = [relu(branch(joined)) for branch in (self.near, *self.far)]
        return self.fusion(torch.cat(branches, dim=1))

    def scores(self, features: Tensor, prior: Tensor) -> Tensor:
        """How much each pixel is like the certain foreground of the prior: real, `(N, h, w)`."""
        foreground = foreground_vector(features, prior, threshold=self.certain)
        pairs = torch.cat([foreground[:, :, None, None].expand_as(features), features], dim=1)
        return self.critic(pairs)[:, 0].float()

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        features, prior = output.float(), shrink(batch.prior, output)
        joint, mask = relation_pairs(prior, foreground=self.foreground, background=self.background)
        scores = self.scores(features, prior)
        return js_mutual_information_loss(scores, joint, mask=mask, balance=self.balance)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        scores = self.scores(output.float(), shrink(batch.prior, output))
        refined = resize(scores[:, None], batch.images)[:, 0].sigmoid()
        return {"merged": merge_by_confidence(batch.prior, refined), "refined": refined}
