"""Memory for time: a network and the anchor loss under jax.checkpoint."""

import jax
import jax.ad_checkpoint
import jax.numpy as jnp
import numpy as np

from saliency_losses.jax import anchor_softmax_loss, region_anchors


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def network(kernels: list[jax.Array], images: jax.Array) -> jax.Array:
    for kernel in kernels[:-1]:
        images = jax.nn.relu(convolve(images, kernel))
    return convolve(images, kernels[-1])


def loss(features: jax.Array, prior: jax.Array, labels: jax.Array) -> jax.Array:
    """Classifies pixels by anchors, which a rough map makes of the features themselves."""
    anchors = region_anchors(features, jnp.stack([1 - prior, prior], axis=-1))
    return anchor_softmax_loss(features, anchors, labels)


def stored(kernels, images, prior, labels):
    return loss(network(kernels, images), prior, labels)


def loss_recomputed(kernels, images, prior, labels):
    return jax.checkpoint(loss)(network(kernels, images), prior, labels)


def all_recomputed(kernels, images, prior, labels):
    return jax.checkpoint(stored)(kernels, images, prior, labels)


rng = np.random.default_rng(0)
y, x = np.mgrid[:64, :64][:, None] - rng.uniform(20, 44, (2, 4, 1, 1))  # from the centres
labels = np.hypot(x, y) < 12
prior = (0.3 + 0.4 * labels).astype(np.float32)
images = (labels[..., None] + rng.normal(size=(4, 64, 64, 3))).astype(np.float32)
shapes = [(3, 3, 3, 16), (3, 3, 16, 16), (3, 3, 16, 8)]
kernels = [jax.nn.initializers.he_normal()(jax.random.key(k), s) for k, s in enumerate(shapes)]

data, kept, gradients = (images, prior, labels), [], []
for way in (stored, loss_recomputed, all_recomputed):
    # The function of the backward pass carries what was kept for it; nothing is computed here.
    backward = jax.eval_shape(lambda *xs, way=way: jax.vjp(way, *xs)[1], kernels, *data)
    kept.append(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(backward)))
    gradients.append(jax.jit(jax.grad(way))(kernels, *data))
    print(f"{way.__name__:15} keeps {kept[-1] / 2**20:.2f} MiB for the backward pass")
jax.ad_checkpoint.print_saved_residuals(all_recomputed, kernels, *data)
assert kept[0] > kept[1] > kept[2]
for other in gradients[1:]:
    for a, b in zip(gradients[0], other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
