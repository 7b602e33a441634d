"""Training images whose two labels are exchanged at random."""

from dataclasses import replace

import numpy as np

from reference_models.data import seeds
from reference_models.data.images import Images
from reference_models.errors import InputError


def swap_labels(images: Images, share: float, seed: int) -> Images:
    """The images with labels 0 and 1 exchanged in a random `share` of them (rounded)."""
    if images.labels.max(initial=0) > 1:
        raise InputError(
            "labels can be swapped between two regions only, got "
            f"{images.labels.max() + 1} regions; train on masks, or set --swap-labels 0"
        )
    order = np.random.default_rng((seed, seeds.SWAPPED_LABELS)).permutation(len(images))
    flips = np.zeros(len(images), dtype=np.uint8)
    flips[order[: round(share * len(images))]] = 1
    return replace(images, labels=images.labels ^ flips[:, None, None])
