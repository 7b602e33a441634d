"""Sparsity of softmax descriptors."""

import numpy as np

SPARSE = 0.99
"""A descriptor is sparse if one of its components exceeds this value."""


def sparse_share(descriptors: np.ndarray) -> float:
    """The share of the pixels of `(H, W, C)` whose descriptor is sparse."""
    return float((descriptors.max(axis=-1) > SPARSE).mean())


def sparse_share_of_map(saliency: np.ndarray) -> float:
    """The same for a map `(H, W)` in [0, 1], which stands for the descriptor (1 − map, map)."""
    return sparse_share(np.stack([1 - saliency, saliency], axis=-1))
