"""Relation model, learnt from saliency maps (Chen et al., AAAI 2020; "R") in PyTorch.

Pixels similar to the certain foreground are salient. The model is trained without masks: a critic
learns to distinguish pairs of the foreground and a probably salient pixel from pairs of the
foreground and a probable background pixel, and then scores every pixel.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from reference_models.networks.options import (
    LONGEST_GRADIENT,
    RelationLoss,
    RelationOptions,
)
from reference_models.networks.torch.system import (
    Batch,
    FeatureExtractor,
    System,
    area_resize,
    resize,
)
from saliency_losses.torch import (
    foreground_vector,
    js_mutual_information_loss,
    merge_by_confidence,
    relation_pairs,
)


class RelationModel(System):
    """Features of several taps fused by parallel dilated convolutions, and a critic (R §4).

    In `PAPER_NETWORKS` the taps are fused directly at half the image's size, and the critic has
    five convolutions. R prints neither the dilations, which are DeepLab's here, nor the channels of
    the critic. The batch normalisation of MobileNetV2 keeps the statistics of the pretrained
    network, and the other layers have none; R does not mention any. The loss is cross-entropy over
    all pairs, as in R (`balance=False`). For its comparison with L, R takes VGG's features (R §5.4)
    and does not say which; "relations-vgg" has the ends of VGG-16's blocks at the strides of R's
    layers of MobileNetV2.

    R prints neither the batch size of its training (ours is 8) nor the momentum of SGD and the
    power of its polynomial schedule (.9 both); PiCANet's maps, from which it learns, cannot be had,
    and those of `fcn-ce-clean` take their place. Of the steps on one test image (R Table 3) it
    prints the number and the rate alone; ours are plain gradient descent on the layers above the
    backbone, with the norm of the gradient cut at 1.

    In the small and medium networks each tap is first projected to fewer channels, the features
    have a quarter of the image's size, the critic has three convolutions, and both kinds of pair
    have the same weight, except in the recipe `relations-pooled`.

    Args:
        loss: "js-mi".
        backbone: One or more taps; R uses the layers 0, 3, 13 and 17 of MobileNetV2.
        options: Layer sizes, and the thresholds on the prior.
    """

    def __init__(
        self,
        loss: RelationLoss,
        backbone: FeatureExtractor,
        options: RelationOptions = RelationOptions(),
    ) -> None:
        super().__init__()
        options.check_loss(loss)
        width, embedding = options.width, options.embedding
        self.backbone = backbone
        self.options = options
        self.finest_stride = backbone.strides[0]
        if width > 0:
            self.projections = nn.ModuleList(nn.Conv2d(c, width, 1) for c in backbone.channels)
        joined = width * len(backbone.channels) or sum(backbone.channels)
        self.near = nn.Conv2d(joined, embedding, 1)
        self.far = nn.ModuleList(
            nn.Conv2d(joined, embedding, 3, padding=rate, dilation=rate) for rate in options.rates
        )
        self.fusion = nn.Conv2d(embedding * (1 + len(options.rates)), embedding, 1)
        layers: list[nn.Module] = []
        channels = 2 * embedding
        for hidden in options.critic:
            layers += [nn.Conv2d(channels, hidden, 1), nn.ReLU()]
            channels = hidden
        self.critic = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    def forward(self, taps: list[Tensor]) -> Tensor:
        """A feature of every pixel, `(N, embedding, H / stride, W / stride)`."""
        height, width = (
            side * self.finest_stride // self.options.stride for side in taps[0].shape[-2:]
        )
        if self.options.width > 0:
            # Projection and resizing are linear and commute; projecting first is less work.
            taps = [project(tap) for project, tap in zip(self.projections, taps, strict=True)]
        joined = torch.cat([resize(tap, (height, width)) for tap in taps], dim=1)
        if self.options.width > 0:
            joined = relu(joined)
        branches = [relu(branch(joined)) for branch in (self.near, *self.far)]
        return self.fusion(torch.cat(branches, dim=1))

    def scores(self, features: Tensor, prior: Tensor, certain: float | None = None) -> Tensor:
        """Similarity of each pixel to the prior's certain foreground: real, `(N, h, w)`.

        certain: Threshold of the certain foreground. Default: that of the options.
        """
        threshold = self.options.certain if certain is None else certain
        foreground = foreground_vector(features, prior, threshold=threshold)
        pairs = torch.cat([foreground[:, :, None, None].expand_as(features), features], dim=1)
        return self.critic(pairs)[:, 0].float()

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        options = self.options
        features, prior = output.float(), area_resize(batch.prior, output.shape[-2:])
        joint, mask = relation_pairs(
            prior, foreground=options.foreground, background=options.background
        )
        scores = self.scores(features, prior)
        return js_mutual_information_loss(scores, joint, mask=mask, balance=options.balance)

    def maps(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        if self.options.steps_per_image:
            scores = self.scores_per_image(batch)
        else:
            scores = self.scores_at_test(output, batch)
        refined = resize(scores[:, None], batch.images.shape[-2:])[:, 0].sigmoid()
        return {"merged": merge_by_confidence(batch.prior, refined), "refined": refined}

    def scores_at_test(self, output: Tensor, batch: Batch) -> Tensor:
        prior = area_resize(batch.prior, output.shape[-2:])
        return self.scores(output.float(), prior, self.options.certain_at_test)

    def scores_per_image(self, batch: Batch) -> Tensor:
        """`scores` by copies of the network, each trained on one image and its prior (R §5.4).

        The copies share the backbone's features, which these steps do not change.
        """
        scores = []
        for i in range(len(batch.images)):
            one = batch._replace(images=batch.images[i : i + 1], prior=batch.prior[i : i + 1])
            taps = [tap.detach() for tap in self.backbone(one.images)]
            learner = deepcopy(self)
            own = [p for name, p in learner.named_parameters() if not name.startswith("backbone.")]
            optimizer = torch.optim.SGD(own, lr=self.options.rate_per_image)
            with torch.enable_grad():
                for _ in range(self.options.steps_per_image):
                    optimizer.zero_grad()
                    learner.loss(learner(taps), one).backward()
                    nn.utils.clip_grad_norm_(own, LONGEST_GRADIENT)
                    optimizer.step()
            scores.append(learner.scores_at_test(learner(taps), one).detach())
        return torch.cat(scores)
