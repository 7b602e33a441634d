"""Small encoder–decoder with each loss of the library, in Flax."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from reference_models.networks.flax.system import (
    Batch,
    Conv,
    IdentityBackbone,
    System,
    cross_entropy,
    he,
)
from reference_models.networks.flax.system import conv as convolution
from reference_models.networks.options import CHANNELS, SmallLoss, SmallOptions
from saliency_losses.jax import (
    anchor_probabilities,
    anchor_softmax_loss,
    cas_loss,
    class_agnostic_cross_entropy,
    flip_labels,
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

    def __init__(self, loss: SmallLoss, rngs: nnx.Rngs) -> None:
        SmallOptions().check_loss(loss)
        self.name = loss
        self.backbone = IdentityBackbone()
        self.net = SaliencyNet(CHANNELS[loss], rngs)
        if loss == "js-mi":
            self.critic = Critic(CHANNELS[loss], rngs)

    def __call__(self, taps: list[Array]) -> Array:
        return self.net(taps[0])

    def loss(self, output: Array, batch: Batch) -> Array:
        output, labels, counted = output.astype(jnp.float32), batch.labels, batch.counted
        match self.name:
            case "cross-entropy":
                return cross_entropy(output, labels, counted)
            case "class-agnostic-cross-entropy":
                return class_agnostic_cross_entropy(output, labels, mask=counted)
            case "cas":
                return cas_loss(jax.nn.softmax(output), labels, mask=counted)
            case "metric":
                logits, features = output[..., :2], jnp.tanh(output[..., 2:])
                return cross_entropy(logits, labels, counted) + metric_loss(
                    features, labels, normalize=True, mask=counted
                )
            case "weighted-fbeta":
                return weighted_fbeta_loss(jax.nn.sigmoid(output), labels[..., None], mask=counted)
            case "anchor":
                flipped = flip_labels(labels, 0.2, batch.key)
                weights = jnp.stack([1 - flipped, flipped], axis=-1).astype(output.dtype)
                if counted is not None:
                    weights = weights * counted[..., None]
                anchors = region_anchors(output, weights)
                return anchor_softmax_loss(output, anchors, labels, mask=counted)
            case "js-mi":
                joint, mask = relation_pairs(batch.prior)
                scores = self.critic(output, foreground_vector(output, batch.prior))
                return js_mutual_information_loss(scores, joint, mask=mask)

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        output, prior = output.astype(jnp.float32), batch.prior
        match self.name:
            case "cross-entropy" | "class-agnostic-cross-entropy" | "cas" | "metric":
                return {"map": jax.nn.softmax(output[..., :2])[..., 1]}
            case "weighted-fbeta":
                return {"map": jax.nn.sigmoid(output)[..., 0]}
            case "anchor":
                for step in range(1, 6):
                    anchors = region_anchors(output, jnp.stack([1 - prior, prior], axis=-1))
                    prior = update_prior(prior, anchor_probabilities(output, anchors)[..., 1], step)
                return {"map": prior}
            case "js-mi":
                scores = self.critic(output, foreground_vector(output, prior))
                return {"map": merge_by_confidence(prior, jax.nn.sigmoid(scores))}


class SaliencyNet(nnx.Module):
    """Encoder to a quarter of the side and decoder with one skip; about 94,000 weights.

    Input: float `(N, H, W, 3)` in [0, 1], sides divisible by 4. Output: `(N, H, W, channels)`.
    """

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.stem = conv(3, 24, rngs, stride=2)
        self.skip = conv(24, 24, rngs)
        self.quarter = conv(24, 48, rngs, stride=2)
        self.near = conv(48, 48, rngs)
        self.far = conv(48, 48, rngs, dilation=2)
        self.farther = conv(48, 48, rngs, dilation=4)
        self.decoder = conv(48 + 24, 24, rngs)
        self.head = convolution(24, channels, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        relu = jax.nn.relu
        skip = relu(self.skip(relu(self.stem(4 * images - 2))))
        deep = relu(self.near(relu(self.quarter(skip))))
        deep = relu(self.farther(relu(self.far(deep))))
        joined = jnp.concatenate([upsample(deep), skip], axis=-1)
        return upsample(self.head(relu(self.decoder(joined))))


class Critic(nnx.Module):
    """Score of each pair of a pixel's feature and the foreground vector: real, `(N, H, W)`."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.hidden = convolution(2 * channels, 32, rngs=rngs)
        self.score = convolution(32, 1, rngs=rngs)

    def __call__(self, features: Array, foreground: Array) -> Array:
        expanded = jnp.broadcast_to(foreground[:, None, None, :], features.shape)
        pairs = jnp.concatenate([features, expanded], axis=-1)
        return self.score(jax.nn.relu(self.hidden(pairs)))[..., 0].astype(jnp.float32)


def conv(fan_in: int, fan_out: int, rngs: nnx.Rngs, stride: int = 1, dilation: int = 1) -> Conv:
    """A 3 x 3 convolution that keeps (or halves) the size, with He's initial weights."""
    return convolution(
        fan_in, fan_out, 3, rngs=rngs, stride=stride, dilation=dilation, kernel_init=he
    )


def upsample(x: Array) -> Array:
    """Bilinear upsampling by 2."""
    batch, height, width, channels = x.shape
    return jax.image.resize(x, (batch, 2 * height, 2 * width, channels), "bilinear")
