"""Relation model (Chen et al., AAAI 2020; "R") in Flax.

`reference_models.networks.torch.relations` has the same network, and describes its differences from
the paper's.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from reference_models.networks.flax.system import (
    Batch,
    FeatureExtractor,
    System,
    area_resize,
    conv,
    resize,
)
from reference_models.networks.options import (
    LONGEST_GRADIENT,
    RelationLoss,
    RelationOptions,
)
from saliency_losses.jax import (
    foreground_vector,
    js_mutual_information_loss,
    merge_by_confidence,
    relation_pairs,
)

State = nnx.State[Any, Any]


class RelationModel(System):
    """Features of several taps fused by parallel dilated convolutions, and a critic (R §4).

    `networks.torch.relations.RelationModel` says what departs from the paper, in training too.
    """

    def __init__(
        self,
        loss: RelationLoss,
        backbone: FeatureExtractor,
        options: RelationOptions = RelationOptions(),
        *,
        rngs: nnx.Rngs,
    ) -> None:
        options.check_loss(loss)
        width, embedding = options.width, options.embedding
        self.backbone = backbone
        self.options = options
        self.finest_stride = backbone.strides[0]
        if width > 0:
            self.projections = nnx.List(conv(c, width, rngs=rngs) for c in backbone.channels)
        joined = width * len(backbone.channels) or sum(backbone.channels)
        self.near = conv(joined, embedding, rngs=rngs)
        self.far = nnx.List(
            conv(joined, embedding, 3, dilation=rate, rngs=rngs) for rate in options.rates
        )
        self.fusion = conv(embedding * (1 + len(options.rates)), embedding, rngs=rngs)
        layers: list[Callable[[Array], Array]] = []
        channels = 2 * embedding
        for hidden in options.critic:
            layers += [conv(channels, hidden, rngs=rngs), jax.nn.relu]
            channels = hidden
        self.critic = nnx.Sequential(*layers, conv(channels, 1, rngs=rngs))

    def __call__(self, taps: list[Array]) -> Array:
        """A feature of every pixel, `(N, H / stride, W / stride, embedding)`."""
        height, width = (
            side * self.finest_stride // self.options.stride for side in taps[0].shape[1:3]
        )
        if self.options.width > 0:
            # Projection and resizing are linear and commute; projecting first is less work.
            taps = [project(tap) for project, tap in zip(self.projections, taps, strict=True)]
        joined = jnp.concatenate([resize(tap, (height, width)) for tap in taps], axis=-1)
        if self.options.width > 0:
            joined = jax.nn.relu(joined)
        branches = [jax.nn.relu(branch(joined)) for branch in (self.near, *self.far)]
        return self.fusion(jnp.concatenate(branches, axis=-1))

    def scores(self, features: Array, prior: Array, certain: float | None = None) -> Array:
        """Similarity of each pixel to the prior's certain foreground: real, `(N, h, w)`.

        certain: Threshold of the certain foreground. Default: that of the options.
        """
        threshold = self.options.certain if certain is None else certain
        foreground = foreground_vector(features, prior, threshold=threshold)
        spread = jnp.broadcast_to(foreground[:, None, None, :], features.shape)
        pairs = jnp.concatenate([spread, features], axis=-1)
        return self.critic(pairs)[..., 0].astype(jnp.float32)

    def loss(self, output: Array, batch: Batch) -> Array:
        options = self.options
        features, prior = output.astype(jnp.float32), area_resize(batch.prior, output.shape[1:3])
        joint, mask = relation_pairs(
            prior, foreground=options.foreground, background=options.background
        )
        scores = self.scores(features, prior)
        return js_mutual_information_loss(scores, joint, mask=mask, balance=options.balance)

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        if self.options.steps_per_image:
            scores = self.scores_per_image(batch)
        else:
            scores = self.scores_at_test(output, batch)
        refined = jax.nn.sigmoid(resize(scores[..., None], batch.images.shape[1:3])[..., 0])
        return {"merged": merge_by_confidence(batch.prior, refined), "refined": refined}

    def scores_at_test(self, output: Array, batch: Batch) -> Array:
        prior = area_resize(batch.prior, output.shape[1:3])
        return self.scores(output.astype(jnp.float32), prior, self.options.certain_at_test)

    def scores_per_image(self, batch: Batch) -> Array:
        """`scores` by copies of the network, each trained on one image and its prior (R §5.4).

        The copies share the backbone's features, which these steps do not change.
        """
        graph, *parts = nnx.split(
            self, lambda path, x: isinstance(x, nnx.Param) and path[0] != "backbone", ...
        )
        own, rest = parts
        # With small steps in bfloat16 the weights would not change.
        own = jax.tree.map(lambda x: x.astype(jnp.float32), own)

        def learner(own: State) -> "RelationModel":
            return nnx.merge(graph, own, rest, copy=True)

        def scores_of_one(inputs: tuple[list[Array], Array]) -> Array:
            taps, one = [tap[None] for tap in inputs[0]], batch._replace(prior=inputs[1][None])

            def objective(own: State) -> Array:
                system = learner(own)
                return system.loss(system(taps), one)

            def step(own: State, _: None) -> tuple[State, None]:
                gradient = jax.grad(objective)(own)
                norm = jnp.sqrt(sum((slope**2).sum() for slope in jax.tree.leaves(gradient)))
                cut = LONGEST_GRADIENT / (norm + 1e-6)  # As PyTorch has it.
                rate = self.options.rate_per_image * jnp.minimum(cut, 1)
                return jax.tree.map(lambda x, slope: x - rate * slope, own, gradient), None

            last, _ = jax.lax.scan(step, own, length=self.options.steps_per_image)
            system = learner(last)
            return system.scores_at_test(system(taps), one)[0]

        return jax.lax.map(scores_of_one, (self.backbone(batch.images), batch.prior))
