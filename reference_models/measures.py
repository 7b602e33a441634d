"""The field's measures of a set of saliency maps, computed by pysodmetrics."""

from typing import TypedDict

import numpy as np
from py_sod_metrics import MAE, FmeasureHandler, FmeasureV2, WeightedFmeasure


class Measures(TypedDict):
    """Means over images, all in [0, 1]; the lower the MAE and the higher the others, the better."""

    mae: float
    f: float
    """F with β² = 0.3 at the threshold min(2 × the map's mean, 1)."""
    max_f: float
    """The highest point of the mean F curve over 256 thresholds, β² = 0.3."""
    weighted_f: float
    """Margolin's weighted F with β² = 1, as pysodmetrics computes it."""


def measure(maps: np.ndarray, masks: np.ndarray) -> Measures:
    """Compare float maps in [0, 1] with bool masks, both `(N, H, W)`.

    Maps are rounded to 8 bits, as if saved. They are not stretched to 0..1 per image, which is
    what pysodmetrics does by default: a map that is unsure would be scored as if it were sure.
    An image whose mask is all background counts in the MAE alone; F is 0/0 there.
    """
    mae = MAE()
    fmeasure = FmeasureV2({"f": FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=0.3)})
    weighted = WeightedFmeasure(beta=1)
    for values, mask in zip(np.rint(maps.astype(np.float64) * 255) / 255, masks, strict=True):
        mae.step(values, mask, normalize=False)
        if mask.any():
            fmeasure.step(values, mask, normalize=False)
            weighted.step(values, mask, normalize=False)
    f = fmeasure.get_results()["f"]
    return {
        "mae": float(mae.get_results()["mae"]),
        "f": float(f["adaptive"]),
        "max_f": float(f["dynamic"].max()),
        "weighted_f": float(weighted.get_results()["wfm"]),
    }


def one_line(measures: Measures) -> str:
    return "MAE {mae:.3f}   F {f:.3f}   max F {max_f:.3f}   weighted F {weighted_f:.3f}".format(
        **measures
    )
