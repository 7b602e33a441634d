"""The metric loss beside cross-entropy, with optax and a network that is a plain function."""

import jax
import numpy as np
import optax

from saliency_losses.jax import metric_loss


def scenes(images: int, side: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images (N, H, W, 3) of one disc each, and its pixels (N, H, W)."""
    rng = np.random.default_rng(seed)
    y, x, radius = rng.uniform([8, 8, 4], [24, 24, 8], (images, 3)).T[..., None, None]
    rows, columns = np.mgrid[:side, :side]
    labels = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    noise = rng.normal(size=(images, side, side, 3))
    return (0.5 * labels[..., None] + 0.5 * noise).astype(np.float32), labels


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def network(weights: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    return convolve(jax.nn.relu(convolve(images, weights["first"])), weights["second"])


def loss(weights: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
    output = network(weights, images)
    logits, features = output[..., :2], output[..., 2:]
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels.astype(int)).mean()
    # Of unit length, features hold the metric loss above -4.
    return entropy + 0.1 * metric_loss(features, labels, normalize=True)


optimizer = optax.adam(1e-2)


@jax.jit
def step(weights, state, images, labels):
    value, gradient = jax.value_and_grad(loss)(weights, images, labels)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(weights, updates), state, value


images, labels = scenes(16)
shapes = {"first": (5, 5, 3, 16), "second": (5, 5, 16, 2 + 8)}  # 2 logits, 8 features
keys = iter(jax.random.split(jax.random.key(0), len(shapes)))
weights = {name: 0.1 * jax.random.normal(next(keys), s) for name, s in shapes.items()}
state, losses = optimizer.init(weights), []
for k in range(60):
    weights, state, value = step(weights, state, images, labels)
    losses.append(float(value))
    if k % 10 == 0:
        print(f"step {k:2}  loss {losses[-1]:.4f}")
assert losses[-1] < losses[0]
