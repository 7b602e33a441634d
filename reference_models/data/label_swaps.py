"""Training images whose two labels are exchanged at random."""

from dataclasses import replace

import numpy as np

from reference_models.data import seeds
from reference_models.data.images import VOID, Images
from reference_models.errors import InputError


def swap_labels(images: Images, share: float, seed: int) -> Images:
    """The images with labels 0 and 1 exchanged in a random `share` of them (rounded). Void
    pixels stay void."""
    is_void = images.labels == VOID
    highest = images.labels.max(initial=0, where=~is_void)
    if highest > 1:
        raise InputError(
            "labels can be swapped between two regions only, got "
            f"{highest + 1} regions; train on masks, or set --swap-labels 0"
        )
    order = np.random.default_rng((seed, seeds.SWAPPED_LABELS)).permutation(len(images))
    flips = np.zeros(len(images), dtype=np.uint8)
    flips[order[: round(share * len(images))]] = 1
    swapped = images.labels ^ flips[:, None, None]
    return replace(images, labels=np.where(is_void, images.labels, swapped))
