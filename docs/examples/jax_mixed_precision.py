"""A bfloat16 network with float32 weights; the mutual information loss computes in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from saliency_losses.jax import foreground_vector, js_mutual_information_loss, relation_pairs


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def scores(weights: dict[str, jax.Array], images: jax.Array, prior: jax.Array) -> jax.Array:
    """The critic's score of each pixel beside the mean of the certain foreground, (N, H, W)."""
    features = convolve(jax.nn.relu(convolve(images, weights["first"])), weights["second"])
    foreground = foreground_vector(features, prior).astype(features.dtype)
    pairs = features * foreground[:, None, None]
    return convolve(pairs, weights["critic"])[..., 0]


def loss(weights: dict[str, jax.Array], images: jax.Array, prior: jax.Array) -> jax.Array:
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), weights)
    output = scores(half, images.astype(jnp.bfloat16), prior)
    assert output.dtype == jnp.bfloat16
    joint, mask = relation_pairs(prior)
    return js_mutual_information_loss(output, joint, mask=mask)  # float32, no cast needed


optimizer = optax.adam(1e-3)


@jax.jit
def step(weights, state, images, prior):
    value, gradient = jax.value_and_grad(loss)(weights, images, prior)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(weights, updates), state, value


rng = np.random.default_rng(0)
y, x = np.mgrid[:32, :32][:, None] - rng.uniform(10, 22, (2, 16, 1, 1))  # from the centres
prior = np.exp(-(x**2 + y**2) / 100).astype(np.float32)  # all that is known of the discs
images = 0.5 * (np.hypot(x, y) < 6)[..., None] + 0.5 * rng.normal(size=(16, 32, 32, 3))
images = images.astype(np.float32)
shapes = {"first": (5, 5, 3, 16), "second": (5, 5, 16, 8), "critic": (1, 1, 8, 1)}
keys = iter(jax.random.split(jax.random.key(0), len(shapes)))
weights = {name: 0.1 * jax.random.normal(next(keys), s) for name, s in shapes.items()}
state, losses = optimizer.init(weights), []
for k in range(60):
    weights, state, value = step(weights, state, images, prior)
    losses.append(float(value))
    if k % 10 == 0:
        print(f"step {k:2}  loss {losses[-1]:.4f}  {value.dtype}")
assert losses[-1] < losses[0]
assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((weights, value)))
