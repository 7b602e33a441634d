"""The batch of a training step split over all devices: the losses are those of one device."""

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from saliency_losses.jax import distance_weights, weighted_fbeta_loss

# Makes four devices of a CPU; where there are GPUs or TPUs, those are the devices.
jax.config.update("jax_num_cpu_devices", 4)


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def loss(kernels: list[jax.Array], images: jax.Array, target: jax.Array, weights: jax.Array):
    probs = jax.nn.sigmoid(convolve(jax.nn.relu(convolve(images, kernels[0])), kernels[1]))
    return weighted_fbeta_loss(probs, target, error="absolute", distance_weights=weights)


optimizer = optax.adam(1e-2)


@jax.jit
def step(kernels, state, *batch):
    value, gradient = jax.value_and_grad(loss)(kernels, *batch)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(kernels, updates), state, value


def train(kernels: list[jax.Array], batch: list[jax.Array]) -> list[float]:
    state, losses = optimizer.init(kernels), []
    for _ in range(40):
        kernels, state, value = step(kernels, state, *batch)
        losses.append(float(value))
    return losses


rng = np.random.default_rng(0)
y, x = np.mgrid[:32, :32][:, None] - rng.uniform(10, 22, (2, 16, 1, 1))  # from the centres
target = (np.hypot(x, y) < 6)[..., None]
images = (0.5 * target + 0.5 * rng.normal(size=(16, 32, 32, 3))).astype(np.float32)
# They depend on the target alone, so a data pipeline can make them.
batch = [images, target, distance_weights(target, distance="euclidean")]
keys = iter(jax.random.split(jax.random.key(0)))
kernels = [0.1 * jax.random.normal(next(keys), (5, 5, *c)) for c in ((3, 16), (16, 1))]

mesh = Mesh(np.array(jax.devices()), ("images",))
by_image, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("images",), ()))
split = train(jax.device_put(kernels, everywhere), jax.device_put(batch, by_image))
whole = train(kernels, batch)
print(f"{len(images)} images on {mesh.size} devices")
for k in range(0, len(split), 10):
    print(f"step {k:2}  loss {split[k]:.6f}  on one device {whole[k]:.6f}")
np.testing.assert_allclose(split, whole, rtol=1e-3)
assert split[-1] < split[0]
