"""Losses and gradients per image, of the class-agnostic segmentation loss."""

import jax
import jax.numpy as jnp
import numpy as np

from saliency_losses.jax import cas_loss


def scenes(images: int, side: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images (N, H, W, 3) of one disc each, and its pixels (N, H, W)."""
    rng = np.random.default_rng(seed)
    y, x, radius = rng.uniform([8, 8, 4], [24, 24, 8], (images, 3)).T[..., None, None]
    rows, columns = np.mgrid[:side, :side]
    labels = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    noise = rng.normal(size=(images, side, side, 3))
    return (0.5 * labels[..., None] + 0.5 * noise).astype(np.float32), labels


def losses(weights: jax.Array, images: jax.Array, labels: jax.Array) -> jax.Array:
    """One loss per image, (N,)."""
    layout = ("NHWC", "HWIO", "NHWC")
    logits = jax.lax.conv_general_dilated(images, weights, (1, 1), "SAME", dimension_numbers=layout)
    return cas_loss(jax.nn.softmax(logits), labels, reduction="none")


def loss_of_one(weights: jax.Array, image: jax.Array, labels: jax.Array) -> jax.Array:
    return losses(weights, image[None], labels[None])[0]


images, labels = map(jnp.asarray, scenes(6))
images = images.at[5].set(images[0])  # the last image is the first,
labels = labels.at[5].set(~labels[0])  # its labels swapped
weights = 0.5 * jax.random.normal(jax.random.key(0), (5, 5, 3, 2))

# The losses of all images come from one call; their gradients in the weights need vmap.
values = jax.jit(losses)(weights, images, labels)
gradient_of_each = jax.jit(jax.vmap(jax.grad(loss_of_one), in_axes=(None, 0, 0)))
gradients = gradient_of_each(weights, images, labels)
norms = jnp.sqrt(jnp.sum(gradients**2, axis=(1, 2, 3, 4)))
for k, (value, norm) in enumerate(zip(values, norms, strict=True)):
    print(f"image {k}  loss {value:+.4f}  gradient norm {norm:.4f}")

# A gradient of no image above 0.05, as for private or robust training.
clipped = gradients * jnp.minimum(1, 0.05 / norms)[:, None, None, None, None]
print(f"norm of the mean of clipped gradients {jnp.linalg.norm(clipped.mean(0).ravel()):.4f}")

of_mean = jax.jit(jax.grad(lambda weights: losses(weights, images, labels).mean()))(weights)
np.testing.assert_allclose(gradients.mean(0), of_mean, rtol=1e-4, atol=1e-5)
np.testing.assert_allclose(values[5], values[0], rtol=1e-5)
np.testing.assert_allclose(gradients[5], gradients[0], rtol=1e-4, atol=1e-5)
