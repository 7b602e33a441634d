"""The weighted F-beta loss with a Flax module, its optimiser and a compiled step."""

import jax
import numpy as np
import optax
from flax import nnx

from saliency_losses.jax import weighted_fbeta_loss, weighted_fmeasure


def scenes(images: int, side: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images (N, H, W, 3) of one disc each, and its pixels (N, H, W)."""
    rng = np.random.default_rng(seed)
    y, x, radius = rng.uniform([8, 8, 4], [24, 24, 8], (images, 3)).T[..., None, None]
    rows, columns = np.mgrid[:side, :side]
    labels = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    noise = rng.normal(size=(images, side, side, 3))
    return (0.5 * labels[..., None] + 0.5 * noise).astype(np.float32), labels


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(3, 16, (5, 5), rngs=rngs)
        self.second = nnx.Conv(16, 1, (5, 5), rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Probabilities (N, H, W, 1)."""
        return jax.nn.sigmoid(self.second(jax.nn.relu(self.first(images))))


def loss(model: Network, images: jax.Array, target: jax.Array) -> jax.Array:
    return weighted_fbeta_loss(model(images), target)


@nnx.jit
def step(model: Network, optimizer: nnx.Optimizer, images: jax.Array, target: jax.Array):
    value, gradient = nnx.value_and_grad(loss)(model, images, target)
    optimizer.update(model, gradient)
    return value


model = Network(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
images, labels = scenes(16)
target = labels[..., None]  # the channel axis of the probabilities
losses = []
for k in range(60):
    losses.append(float(step(model, optimizer, images, target)))
    if k % 10 == 0:
        print(f"step {k:2}  loss {losses[-1]:.4f}")
assert losses[-1] < losses[0]

unseen, labels = scenes(16, seed=1)
measure = float(weighted_fmeasure(model(unseen), labels[..., None]))
print(f"weighted F-measure of unseen images {measure:.3f}")
