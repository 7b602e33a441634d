"""Losses of metric learning that C compares CAS with (C Tables 2 and 3), in JAX.

`reference_models.networks.torch.metric_learning` has the same functions with their formulas. Here
descriptors are `(N, H, W, C)`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import relu

from reference_models.networks import metric_learning as constants


def discriminative_loss(
    descriptors: Array, labels: Array, regions: int, counted: Array | None = None
) -> Array:
    """Pull to the region's mean, push between the means, and the means' norms."""
    s, member, area, means = by_region(descriptors, labels, regions, counted)
    present, least_one = (area > 0).astype(s.dtype), jnp.maximum(area, 1)
    count = jnp.maximum(present.sum(axis=1), 1)
    pull = relu(norm(s - member @ means) - constants.PULL) ** 2
    pull = (pull[:, None] @ member)[:, 0] / least_one
    apart = norm(means[:, :, None] - means[:, None])
    pairs = present[:, :, None] * present[:, None] * (1 - np.eye(regions, dtype=s.dtype))[None]
    push = relu(constants.PUSH - apart) ** 2 * pairs
    loss = (
        pull.sum(axis=1) / count
        + push.sum(axis=(1, 2)) / jnp.maximum(pairs.sum(axis=(1, 2)), 1)
        + constants.REGULARISER * (norm(means) * present).sum(axis=1) / count
    )
    return loss.mean()


def triplet_loss(descriptors: Array, labels: Array, counted: Array | None = None) -> Array:
    """Each anchor lies nearer to pixels of its region than to others, by a margin."""
    step = constants.STRIDE
    s = descriptors[:, ::step, ::step]
    s = s.reshape(len(s), -1, s.shape[-1])
    region = labels[:, ::step, ::step].reshape(len(s), -1)
    partners = constants.partners(region.shape[1])
    distance = jnp.square(s[:, None] - s[:, partners]).sum(axis=-1)
    same = region[:, None] == region[:, partners]
    excess = relu(distance[:, :, None] - distance[:, None] + constants.TRIPLET_MARGIN)
    other = ~same
    if counted is not None:
        counts = counted[:, ::step, ::step].reshape(len(s), -1)
        pairs = counts[:, None] & counts[:, partners]
        same, other = same & pairs, other & pairs
    triplets = (same[:, :, None] & other[:, None]).astype(s.dtype)
    total = (excess * triplets).sum(axis=(1, 2, 3))
    return (total / jnp.maximum(triplets.sum(axis=(1, 2, 3)), 1)).mean()


def magnet_loss(
    descriptors: Array, labels: Array, regions: int, counted: Array | None = None
) -> Array:
    """Each descriptor lies nearer to its region's mean than to the others, in units of the
    spread."""
    s, member, area, means = by_region(descriptors, labels, regions, counted)
    pixels = area.sum(axis=1)
    # For precision; the loss does not depend on it.
    total = (jax.lax.stop_gradient(means) * area[..., None]).sum(axis=1)
    centre = (total / jnp.maximum(pixels, 1)[:, None])[:, None]
    s, means = s - centre, means - centre
    squares = jnp.square(s).sum(axis=-1)[:, :, None] + jnp.square(means).sum(axis=-1)[:, None]
    distance = relu(squares - 2 * s @ means.mT)
    own = (distance * member).sum(axis=2)
    variance = own.sum(axis=1) / jnp.maximum(pixels - 1, 1) + constants.LEAST_VARIANCE
    other = (area > 0)[:, None] & (member == 0)
    exponents = jnp.where(other, -distance / (2 * variance[:, None, None]), -1e9)
    log_sum = jax.nn.logsumexp(exponents, axis=2)
    excess = own / (2 * variance[:, None]) + constants.MAGNET_MARGIN + log_sum
    # The sum of a pixel's memberships is 0 if it does not count.
    each = (relu(excess) * member.sum(axis=2)).sum(axis=1) / jnp.maximum(pixels, 1)
    return (each * ((area > 0).sum(axis=1) > 1)).mean()


def by_region(
    descriptors: Array, labels: Array, regions: int, counted: Array | None
) -> tuple[Array, Array, Array, Array]:
    """Descriptors `(N, P, C)`, membership of pixels `(N, P, R)`, areas `(N, R)` and means
    `(N, R, C)`."""
    s = descriptors.reshape(len(descriptors), -1, descriptors.shape[-1])
    member = jax.nn.one_hot(labels.reshape(len(labels), -1), regions, dtype=s.dtype)
    if counted is not None:
        member = member * counted.reshape(len(labels), -1)[..., None]
    area = member.sum(axis=1)
    return s, member, area, member.mT @ s / jnp.maximum(area, 1)[..., None]


def norm(x: Array) -> Array:
    """The norm over the channels."""
    return jnp.sqrt(jnp.square(x).sum(axis=-1) + constants.TINY)
