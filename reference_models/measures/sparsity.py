"""Sparsity of softmax descriptors."""

import numpy as np

SPARSE = 0.99
"""A descriptor is sparse if one of its components exceeds this value."""


def sparse_share(descriptors: np.ndarray) -> float:
    """The share of the pixels of `(H, W, C)` whose descriptor is sparse."""
    return float((descriptors.max(axis=-1) > SPARSE).mean())


def sparse_share_of_map(saliency: np.ndarray, counted: np.ndarray | None = None) -> float:
    """The same for a map `(H, W)` in [0, 1], which stands for the descriptor (1 − map, map).

    counted: bool `(H, W)`, the pixels whose share it is, at least one. Default: all.
    """
    values = saliency if counted is None else saliency[counted]
    return sparse_share(np.stack([1 - values, values], axis=-1))
