"""The relation model in Flax. `reference_models.networks.torch.relations` is the same."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from reference_models.networks.flax.system import Batch, System, conv, resize, resize_to, shrink
from saliency_losses.jax import (
    foreground_vector,
    js_mutual_information_loss,
    merge_by_confidence,
    relation_pairs,
)


class RelationModel(System):
    """Features of several layers fused by parallel dilated convolutions, and a critic.

    Args as in `reference_models.networks.torch.relations`.
    """

    def __init__(
        self,
        loss: Literal["js-mi"],
        backbone: nnx.Module,
        width: int = 16,
        embedding: int = 32,
        stride: int = 4,
        rates: tuple[int, ...] = (1, 3, 6),
        critic: tuple[int, ...] = (64, 64),
        certain: float = 0.9,
        foreground: float = 0.8,
        background: float = 0.3,
        balance: bool = True,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.backbone = backbone
        self.stride = stride
        self.certain = certain
        self.foreground = foreground
        self.background = background
        self.balance = balance
        self.strides = tuple(backbone.strides)
        self.projections = nnx.List(conv(c, width, rngs=rngs) for c in backbone.channels)
        joined = width * len(self.projections)
        self.near = conv(joined, embedding, rngs=rngs)
        self.far = nnx.List(conv(joined, embedding, 3, dilation=rate, rngs=rngs) for rate in rates)
        self.fusion = conv(embedding * (1 + len(rates)), embedding, rngs=rngs)
        layers: list[Callable[[Array], Array]] = []
        channels = 2 * embedding
        for hidden in critic:
            layers += [conv(channels, hidden, rngs=rngs), jax.nn.relu]
            channels = hidden
        self.critic = nnx.Sequential(*layers, conv(channels, 1, rngs=rngs))

    def __call__(self, taps: list[Array]) -> Array:
        """A feature of every pixel, `(N, H / stride, W / stride, embedding)`."""
        height, width = (side * self.strides[0] // self.stride for side in taps[0].shape[1:3])
        # Projected before they are enlarged: the same map, as both are linear, and less work.
        joined = [
            resize_to(project(tap), (height, width))
            for project, tap in zip(self.projections, taps, strict=True)
        ]
        joined = jax.nn.relu(jnp.concatenate(joined, axis=-1))
        branches = [jax.nn.relu(branch(joined)) for branch in (self.near, *self.far)]
        return self.fusion(jnp.concatenate(branches, axis=-1))

    def scores(self, features: Array, prior: Array) -> Array:
        """How much each pixel is like the certain foreground of the prior: real, `(N, h, w)`."""
        foreground = foreground_vector(features, prior, threshold=self.certain)
        spread = jnp.broadcast_to(foreground[:, None, None, :], features.shape)
        pairs = jnp.concatenate([spread, features], axis=-1)
        return self.critic(pairs)[..., 0].astype(jnp.float32)

    def loss(self, output: Array, batch: Batch) -> Array:
        features, prior = output.astype(jnp.float32), shrink(batch.prior, output)
        joint, mask = relation_pairs(prior, foreground=self.foreground, background=self.background)
        scores = self.scores(features, prior)
        return js_mutual_information_loss(scores, joint, mask=mask, balance=self.balance)

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        scores = self.scores(output.astype(jnp.float32), shrink(batch.prior, output))
        refined = jax.nn.sigmoid(resize(scores[..., None], batch.images)[..., 0])
        return {"merged": merge_by_confidence(batch.prior, refined), "refined": refined}
