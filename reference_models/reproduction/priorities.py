"""Order of the recipes on real data, by priority, for RUNS.md and sweeps."""

from reference_models.papers.recipes import RECIPES

# The most important block comes first.
FIRST: dict[str, tuple[str, ...]] = {
    "W: cross-entropy, the exact measure, Dice, the paper's loss": (
        "zoomout-ce",
        "zoomout-exact",
        "zoomout-dice",
        "zoomout-af",
    ),
    "C: labels of whole images swapped": (
        "fcn-ce-clean",
        "fcn-cas-swapped",
        "fcn-ce-swapped",
        "fcn-cace-swapped",
        "fcn-cas-clean",
    ),
    "M: the metric loss on pretrained features": (
        "metric-head-ce",
        "metric-head-metric",
        "metric-head-metric-hard-negatives",
    ),
    "L: promoting the maps of weak detectors": ("anchors", "anchors-ce"),
    "R: refining without labels": ("relations",),
    "C: general segmentation": ("regions-cas-8", "regions-ce-8"),
    "C: textures": ("textures-cas-8", "textures-ce-8"),
    "M: MEnet from scratch": ("menet-ce", "menet-metric", "menet-metric-hard-negatives"),
}


def blocks() -> dict[str, tuple[str, ...]]:
    """All recipes on real data by block, the most important block first."""
    placed = {name for names in FIRST.values() for name in names}
    rest = tuple(name for name in RECIPES if name not in placed and name[:7] != "scenes-")
    return FIRST | {"W Table 4, DeepLab and variants": rest}
