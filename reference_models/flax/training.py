"""Training in JAX: one jitted step over (parameters, moments), which reads the held images."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from reference_models.data import Images
from reference_models.files import Arrays
from reference_models.flax.small import Small
from reference_models.loop import Draw
from reference_models.options import InputError, Options


class FlaxTrainer:
    """`reference_models.loop.Trainer` for the small network."""

    leader = True
    together = 50

    def __init__(self, options: Options) -> None:
        try:
            chosen = jax.devices(None if options.device == "auto" else options.device)[0]
        except RuntimeError as error:
            raise InputError(f"--device {options.device}: {error}") from None
        system = Small(options.chosen.loss, nnx.Rngs(options.seed))
        graph, weights = nnx.split(system)
        self.device, self.chosen = chosen.platform, chosen
        self.learnt = jax.device_put(weights, chosen)
        self.moments = jax.device_put(optax.scale_by_adam().init(weights), chosen)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(weights))
        self._step = jax.jit(partial(train_step, graph))
        self._map = jax.jit(partial(predict, graph))
        self._weights = jax.jit(partial(output_gradient, graph))

    def hold(self, images: Images) -> None:
        held = (images.images, images.labels, np.array(images.priors))
        self.held = jax.device_put(held, self.chosen)

    def step(self, draw: Draw, rate: float) -> float:
        self.learnt, self.moments, loss = self._step(
            self.learnt, self.moments, self.held, draw.indices, draw.mirrored, rate, draw.seed
        )
        return float(loss)

    def maps(self, images: Images) -> dict[str, np.ndarray]:
        pixels, _, prior = arrays(images)
        return {"map": np.clip(np.asarray(self._map(self.learnt, pixels, prior)), 0, 1)}

    def pixel_weights(self, images: Images) -> np.ndarray:
        return np.asarray(self._weights(self.learnt, *arrays(images)))

    def weights(self) -> Arrays:
        return flatten(self.learnt)

    def load(self, weights: Arrays) -> None:
        self.learnt = unflatten(self.learnt, weights, "")

    def state(self) -> Arrays:
        weights = {f"weights/{name}": array for name, array in self.weights().items()}
        moments = flatten(self.moments)
        return weights | {f"optimizer/{name}": array for name, array in moments.items()}

    def restore(self, state: Arrays) -> None:
        self.learnt = unflatten(self.learnt, state, "weights/")
        self.moments = unflatten(self.moments, state, "optimizer/")

    def agreed(self, flag: bool) -> bool:
        return flag


def arrays(images: Images) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and priors in [0, 1], labels 0/1, channel last."""
    pixels, priors = (values.astype(np.float32) / 255 for values in (images.images, images.priors))
    return pixels, images.labels.astype(np.int32), priors


def train_step(
    graph: Any, learnt: Any, moments: Any, held: tuple[Array, Array, Array],
    indices: Array, mirrored: Array, rate: Array, seed: Array,
) -> tuple[Any, Any, Array]:  # fmt: skip
    """One step of Adam; returns the new parameters, its new moments, and the loss before."""

    def chosen(x: Array) -> Array:
        x = x[indices]
        return jnp.where(mirrored.reshape(-1, *[1] * (x.ndim - 1)), jnp.flip(x, axis=2), x)

    images, labels, priors = (chosen(x) for x in held)
    pixels = images.astype(jnp.float32) / 255
    # Compiled, a division by 255 is a product, and rounds priors across the thresholds of pairs.
    prior = jnp.asarray(np.arange(256, dtype=np.float32) / 255)[priors]

    def objective(learnt: Any) -> Array:
        system = nnx.merge(graph, learnt)
        return system.loss(system(pixels), labels.astype(jnp.int32), prior, seed)

    value, gradient = jax.value_and_grad(objective)(learnt)
    updates, moments = optax.scale_by_adam().update(gradient, moments)
    return jax.tree.map(lambda p, u: p - rate * u, learnt, updates), moments, value


def predict(graph: Any, learnt: Any, images: Array, prior: Array) -> Array:
    system = nnx.merge(graph, learnt)
    return system.map(system(images), prior)


def output_gradient(graph: Any, learnt: Any, images: Array, labels: Array, prior: Array) -> Array:
    """|∂ loss / ∂ output| summed over channels."""
    system = nnx.merge(graph, learnt)

    def objective(output: Array) -> Array:
        return system.loss(output, labels, prior, jnp.uint32(0))

    return jnp.abs(jax.grad(objective)(system(images))).sum(axis=-1)


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
