"""Constants of the losses of metric learning that C compares CAS with (C Tables 2 and 3).

Their papers let descriptors lie anywhere, or on the unit sphere. Here they are softmax outputs as
for CAS, at most √2 apart, so the margins are scaled to that distance.
"""

import numpy as np

PUSH = 2**0.5
"""Discriminative loss: two means are pushed apart up to this distance, which the corners of the
simplex have. Its paper's 2 δ_d is 3."""
PULL = PUSH / 6
"""Discriminative loss: descriptors within this distance of their mean are not pulled. The ratio to
`PUSH` is that of its paper, δ_v / 2 δ_d = 0.5 / 3."""
REGULARISER = 0.001
"""Discriminative loss: weight γ of the means' norms."""
TRIPLET_MARGIN = 0.1
"""Triplet loss: 0.2 in its paper, whose squared distances reach 4 instead of 2."""
MAGNET_MARGIN = 1.0
"""Magnet loss: α."""
STRIDE = 4
"""Triplet loss: the anchors are every fourth pixel of every fourth row."""
PARTNERS = 8
"""Triplet loss: the number of partners of an anchor."""
TINY = 1e-12
"""Added to squared norms, whose root has no gradient at 0."""
LEAST_VARIANCE = 1e-6
"""Magnet loss: added to the variance."""


def partners(pixels: int) -> np.ndarray:
    """The partners of each of the pixels, as indices `(PARTNERS, pixels)`: fixed permutations, so
    that both frameworks form the same triplets."""
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(pixels) for _ in range(PARTNERS)])
