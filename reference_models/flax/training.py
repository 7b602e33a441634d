"""What each loss asks of the network, in JAX: a training loss and a saliency map."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from reference_models.data import Images
from reference_models.flax.network import Critic, SaliencyNet
from reference_models.options import CHANNELS, InputError, Loss
from reference_models.runs import Arrays
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


def training_loss(
    loss: Loss, model: nnx.Dict, output: Array, labels: Array, prior: Array, noise_seed: Array
) -> Array:
    """The loss of a batch. output `(N, H, W, C)`; labels 0/1 and prior in [0, 1], `(N, H, W)`."""
    match loss:
        case "cross-entropy":
            return cross_entropy(output, labels)
        case "class-agnostic-cross-entropy":
            return class_agnostic_cross_entropy(output, labels)
        case "cas":
            return cas_loss(jax.nn.softmax(output), labels)
        case "metric":
            logits, features = output[..., :2], jnp.tanh(output[..., 2:])
            return cross_entropy(logits, labels) + metric_loss(features, labels, normalize=True)
        case "weighted-fbeta":
            return weighted_fbeta_loss(jax.nn.sigmoid(output), labels[..., None])
        case "anchor":
            flipped = flip_labels(labels, 0.2, jax.random.key(noise_seed))
            weights = jnp.stack([1 - flipped, flipped], axis=-1).astype(output.dtype)
            return anchor_softmax_loss(output, region_anchors(output, weights), labels)
        case "js-mi":
            joint, mask = relation_pairs(prior)
            scores = model["critic"](output, foreground_vector(output, prior))
            return js_mutual_information_loss(scores, joint, mask=mask)


def cross_entropy(logits: Array, labels: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def saliency_map(loss: Loss, model: nnx.Dict, output: Array, prior: Array) -> Array:
    """The network's saliency map, `(N, H, W)` in [0, 1]."""
    match loss:
        case "cross-entropy" | "class-agnostic-cross-entropy" | "cas" | "metric":
            return jax.nn.softmax(output[..., :2])[..., 1]
        case "weighted-fbeta":
            return jax.nn.sigmoid(output)[..., 0]
        case "anchor":
            for step in range(1, 6):
                anchors = region_anchors(output, jnp.stack([1 - prior, prior], axis=-1))
                prior = update_prior(prior, anchor_probabilities(output, anchors)[..., 1], step)
            return prior
        case "js-mi":
            scores = model["critic"](output, foreground_vector(output, prior))
            return merge_by_confidence(prior, jax.nn.sigmoid(scores))


class FlaxTrainer:
    """`reference_models.loop.Trainer` in JAX: one jitted step over (parameters, moments)."""

    def __init__(self, loss: Loss, seed: int, device: str) -> None:
        try:
            chosen = jax.devices(None if device == "auto" else device)[0]
        except RuntimeError as error:
            raise InputError(f"--device {device}: {error}") from None
        rngs = nnx.Rngs(seed)
        model = nnx.Dict(net=SaliencyNet(CHANNELS[loss], rngs))
        if loss == "js-mi":
            model["critic"] = Critic(CHANNELS[loss], rngs)
        graph, parameters = nnx.split(model)
        self.device = chosen.platform
        self.parameters = jax.device_put(parameters, chosen)
        self.moments = jax.device_put(optax.scale_by_adam().init(parameters), chosen)
        self._step = jax.jit(partial(train_step, loss, graph))
        self._map = jax.jit(partial(predict, loss, graph))
        self._weights = jax.jit(partial(output_gradient, loss, graph))

    def step(self, batch: Images, rate: float, noise_seed: int) -> float:
        self.parameters, self.moments, loss = self._step(
            self.parameters, self.moments, *arrays(batch), rate, noise_seed
        )
        return float(loss)

    def maps(self, images: Images) -> np.ndarray:
        pixels, _, prior = arrays(images)
        return np.clip(np.asarray(self._map(self.parameters, pixels, prior)), 0, 1)

    def pixel_weights(self, batch: Images) -> np.ndarray:
        return np.asarray(self._weights(self.parameters, *arrays(batch)))

    def weights(self) -> Arrays:
        return flatten(self.parameters)

    def state(self) -> Arrays:
        weights = {f"weights/{name}": array for name, array in self.weights().items()}
        moments = flatten(self.moments)
        return weights | {f"optimizer/{name}": array for name, array in moments.items()}

    def restore(self, state: Arrays) -> None:
        self.parameters = unflatten(self.parameters, state, "weights/")
        self.moments = unflatten(self.moments, state, "optimizer/")


def arrays(batch: Images) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and priors in [0, 1], labels 0/1, channel last."""
    images, priors = (values.astype(np.float32) / 255 for values in (batch.images, batch.priors))
    return images, batch.masks.astype(np.int32), priors


def train_step(
    loss: Loss, graph: Any, parameters: Any, moments: Any,
    images: Array, labels: Array, prior: Array, rate: Array, noise_seed: Array,
) -> tuple[Any, Any, Array]:  # fmt: skip
    """One step of Adam; returns the new parameters, its new moments, and the loss before."""

    def objective(parameters: Any) -> Array:
        model = nnx.merge(graph, parameters)
        return training_loss(loss, model, model["net"](images), labels, prior, noise_seed)

    value, gradient = jax.value_and_grad(objective)(parameters)
    updates, moments = optax.scale_by_adam().update(gradient, moments)
    return jax.tree.map(lambda p, u: p - rate * u, parameters, updates), moments, value


def predict(loss: Loss, graph: Any, parameters: Any, images: Array, prior: Array) -> Array:
    model = nnx.merge(graph, parameters)
    return saliency_map(loss, model, model["net"](images), prior)


def output_gradient(
    loss: Loss, graph: Any, parameters: Any, images: Array, labels: Array, prior: Array
) -> Array:
    """|∂ loss / ∂ output| summed over channels."""
    model = nnx.merge(graph, parameters)

    def objective(output: Array) -> Array:
        return training_loss(loss, model, output, labels, prior, jnp.uint32(0))

    return jnp.abs(jax.grad(objective)(model["net"](images))).sum(axis=-1)


def flatten(tree: Any) -> Arrays:
    """The leaves by the names on the path to them, as in `net.stem.kernel`."""
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    keys = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in named]
    return {
        key.removesuffix(".value"): np.array(leaf)
        for key, (_, leaf) in zip(keys, named, strict=True)
    }


def unflatten(tree: Any, state: Arrays, prefix: str) -> Any:
    """A tree like `tree`, on its device, its leaves taken from `state`."""
    names = [prefix + name for name in flatten(tree)]
    leaves = [
        jax.device_put(state[name], leaf.sharding)
        for name, leaf in zip(names, jax.tree.leaves(tree), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)
