"""Small encoder–decoder with each loss of the library, in PyTorch."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from reference_models.networks.options import CHANNELS, SmallLoss, SmallOptions
from reference_models.networks.torch.system import (
    Batch,
    IdentityBackbone,
    System,
    cross_entropy,
    flip_for_step,
)
from saliency_losses.torch import (
    anchor_probabilities,
    anchor_softmax_loss,
    cas_loss,
    class_agnostic_cross_entropy,
    foreground_vector,
    js_mutual_information_loss,
    merge_by_confidence,
    metric_loss,
    region_anchors,
    relation_pairs,
    update_prior,
    weighted_fbeta_loss,
)


class Small(System):
    """A small network whose output, training loss and saliency map depend on `loss` alone."""

    def __init__(self, loss: SmallLoss) -> None:
        super().__init__()
        SmallOptions().check_loss(loss)
        self.name = loss
        self.backbone = IdentityBackbone()
        self.net = SaliencyNet(CHANNELS[loss])
        if loss == "js-mi":
            self.critic = Critic(CHANNELS[loss])

    def forward(self, taps: list[Tensor]) -> Tensor:
        return self.net(taps[0])

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        output, labels, counted = output.float(), batch.labels, batch.counted
        match self.name:
            case "cross-entropy":
                return cross_entropy(output, labels, counted)
            case "class-agnostic-cross-entropy":
                return class_agnostic_cross_entropy(output, labels, mask=counted)
            case "cas":
                return cas_loss(output.softmax(dim=1), labels, mask=counted)
            case "metric":
                logits, features = output[:, :2], output[:, 2:].tanh()
                return cross_entropy(logits, labels, counted) + metric_loss(
                    features, labels, normalize=True, mask=counted
                )
            case "weighted-fbeta":
                return weighted_fbeta_loss(output.sigmoid(), labels[:, None], mask=counted)
            case "anchor":
                salient = flip_for_step(labels, 0.2, batch).float()
                weights = torch.stack([1 - salient, salient], dim=1)
                if counted is not None:
                    weights = weights * counted[:, None]
                anchors = region_anchors(output, weights)
                return anchor_softmax_loss(output, anchors, labels, mask=counted)
            case "js-mi":
                joint, mask = relation_pairs(batch.prior)
                scores = self.critic(output, foreground_vector(output, batch.prior))
                return js_mutual_information_loss(scores, joint, mask=mask)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        output, prior = output.float(), batch.prior
        match self.name:
            case "cross-entropy" | "class-agnostic-cross-entropy" | "cas" | "metric":
                return {"map": output[:, :2].softmax(dim=1)[:, 1]}
            case "weighted-fbeta":
                return {"map": output.sigmoid()[:, 0]}
            case "anchor":
                for step in range(1, 6):
                    anchors = region_anchors(output, torch.stack([1 - prior, prior], dim=1))
                    prior = update_prior(prior, anchor_probabilities(output, anchors)[:, 1], step)
                return {"map": prior}
            case "js-mi":
                scores = self.critic(output, foreground_vector(output, prior))
                return {"map": merge_by_confidence(prior, scores.sigmoid())}


class SaliencyNet(nn.Module):
    """Encoder to a quarter of the side and decoder with one skip; about 94,000 weights.

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
    """Score of each pair of a pixel's feature and the foreground vector: real, `(N, H, W)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(2 * channels, 32, kernel_size=1)
        self.score = nn.Conv2d(32, 1, kernel_size=1)

    def forward(self, features: Tensor, foreground: Tensor) -> Tensor:
        expanded = foreground[:, :, None, None].expand_as(features)
        pairs = torch.cat([features, expanded], dim=1)
        return self.score(relu(self.hidden(pairs)))[:, 0].float()


def conv(fan_in: int, fan_out: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps (or halves) the size, with He's initial weights."""
    layer = nn.Conv2d(fan_in, fan_out, 3, stride, padding=dilation, dilation=dilation)
    nn.init.kaiming_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def upsample(x: Tensor) -> Tensor:
    """Bilinear upsampling by 2."""
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
