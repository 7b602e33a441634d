"""Distances between the features of the two regions of an image (MEnet, Figure 3)."""

import numpy as np
from PIL import Image

from reference_models.measures.saliency import Row

NAMES = ("within_object", "within_background", "between", "within_to_between")


def distances_each(
    features: np.ndarray, masks: np.ndarray, counted: np.ndarray | None = None
) -> list[Row]:
    """The mean squared distances of each image; empty for an image that lacks a region.

    features: `(N, h, w, C)`, of unit length. masks: `(N, H, W)`, bool, reduced to h × w. counted:
    `(N, H, W)`, bool, False on void pixels; None counts all.

    within_object, within_background: Mean over all pairs of pixels of the region, 2V, where V is
        the mean squared distance to the region's mean.
    between: Mean over all pairs of pixels of different regions, V + V' + ‖μ − μ'‖².
    within_to_between: The larger of the first two divided by the third, at most 2; 1 if all
        features are equal.
    """
    backgrounds = ~masks if counted is None else ~masks & counted
    return [distances(*each) for each in zip(features, masks, backgrounds, strict=True)]


def distances(features: np.ndarray, mask: np.ndarray, background: np.ndarray) -> Row:
    height, width, _ = features.shape
    inside, outside = (
        np.asarray(Image.fromarray(region).resize((width, height), Image.Resampling.NEAREST))
        for region in (mask, background)
    )
    if not (inside.any() and outside.any()):
        return {}
    regions = [features[region].astype(np.float64) for region in (inside, outside)]
    object_mean, background_mean = (region.mean(axis=0) for region in regions)
    object_spread, background_spread = (region.var(axis=0).sum() for region in regions)
    gap = ((object_mean - background_mean) ** 2).sum()
    between = object_spread + background_spread + gap
    larger = 2 * max(object_spread, background_spread)
    return {
        "within_object": float(2 * object_spread),
        "within_background": float(2 * background_spread),
        "between": float(between),
        "within_to_between": float(larger / between) if between > 0 else 1.0,
    }
