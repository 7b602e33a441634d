"""Training images whose two labels are exchanged at random."""

from typing import TypeVar, cast

import numpy as np

from reference_models.data import seeds
from reference_models.data.images import Images, Streamed
from reference_models.errors import InputError

Set = TypeVar("Set", bound=Images | Streamed)


def swap_labels(images: Set, share: float, seed: int) -> Set:
    """The images with labels 0 and 1 exchanged in a random `share` of them (rounded). Void
    pixels stay void."""
    if images.highest_label > 1:
        raise InputError(
            "labels can be swapped between two regions only, got "
            f"{images.highest_label + 1} regions; train on masks, or set --swap-labels 0"
        )
    order = np.random.default_rng((seed, seeds.SWAPPED_LABELS)).permutation(len(images))
    flips = np.zeros(len(images), dtype=np.uint8)
    flips[order[: round(share * len(images))]] = 1
    return cast(Set, images.swapped(flips))
