"""Maps and masks of small folders, all in memory."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from reference_models.data.maps import as_map, map_files, map_notes, scale_of, settle_map
from reference_models.data.masks import as_mask, has_void, settled_mask
from reference_models.data.pairs import mask_files
from reference_models.data.pictures import open_image


def read_maps(path: Path, stems: Iterable[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The maps of these stems, as `evaluate` reads them, and notes."""
    files = map_files(path, stems)
    maps = {stem: as_map(open_image(file), file, "saliency map") for stem, file in files.items()}
    scale = scale_of((each.kind, float(each.values.max())) for each in maps.values())
    values = {stem: settle_map(each, scale).values for stem, each in maps.items()}
    return values, map_notes({stem: each.kind for stem, each in maps.items()}, scale)


def true_masks(path: Path) -> dict[str, np.ndarray]:
    """The objects of all masks, as `evaluate` reads them."""
    masks = {stem: as_mask(open_image(file), file) for stem, file in mask_files(path).items()}
    void = has_void(mask.kind for mask in masks.values())
    return {stem: settled_mask(mask, void).object for stem, mask in masks.items()}
