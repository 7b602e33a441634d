"""The measures of a data set in one of two JAX processes, printed as JSON.

`python -m tests.support.measured_together RANK PORT`: `test_metrics` starts both. The first process
has four images, the second one; it fills up its batches with an image that does not count.
"""

import json
import sys

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from saliency_losses.jax.metrics import SaliencyMeasures

BATCHES = 2


def data(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks ``(N, 12, 9, 1)``; the second mask is empty."""
    rng = np.random.default_rng(7)
    probs = rng.integers(0, 256, (images, 12, 9, 1)).astype(np.float32) / 255
    target = np.zeros(probs.shape, bool)
    target[:, 3:8, 2:6] = True
    target[1] = False
    return probs, target


def own_batch(rank: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two images and whether they count."""
    probs, target = data(5)
    chosen = np.array([[0, 1], [2, 3]])[step] if rank == 0 else np.array([4, 4])
    counted = np.array([True, True]) if rank == 0 else np.array([step == 0, False])
    return probs[chosen], target[chosen], counted


def main(rank: int, port: int) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)
    by_image = NamedSharding(jax.make_mesh((2,), ("images",)), PartitionSpec("images"))
    metric = SaliencyMeasures()

    @nnx.jit
    def update(
        metric: SaliencyMeasures, probs: jax.Array, target: jax.Array, mask: jax.Array
    ) -> None:
        metric.update(preds=probs, target=target, mask=mask)

    replicated = NamedSharding(by_image.mesh, PartitionSpec())
    states = nnx.state(metric)
    nnx.update(metric, jax.tree.map(lambda x: jax.device_put(np.asarray(x), replicated), states))
    for step in range(BATCHES):
        parts = own_batch(rank, step)
        update(metric, *(jax.make_array_from_process_local_data(by_image, x) for x in parts))
    print(json.dumps({name: float(value) for name, value in metric.compute().items()}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
