"""Recipes and claims of all papers."""

from reference_models.networks.options import SystemName
from reference_models.papers import anchors, class_agnostic, menet, relations, scenes, zoomout
from reference_models.papers.schema import Claim, Recipe, ScaleName

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for paper in (scenes, zoomout, class_agnostic, menet, anchors, relations)
    for recipe in paper.recipes()
}


def has_prior(prior: str, scale: ScaleName) -> bool:
    """False for the maps of a recipe that does not have the scale."""
    other = prior.partition("run:")[2]
    return not other or scale in RECIPES[other].scales


def claims() -> tuple[Claim, ...]:
    """The claims of all papers, in the order of the report."""
    return (
        *class_agnostic.claims(),
        *zoomout.claims(),
        *menet.claims(),
        *anchors.claims(),
        *relations.claims(),
    )


SPEEDS: dict[SystemName, str] = {
    "menet": "86 (M Table 2: TITAN X Pascal)",
    "zoomout": "94, portraits 36 (W Tables 1 and 3: Titan X)",
    "anchors": "67 (L §4.3: 15 fps, 256 px, GTX 1080; by R §5.4 11 fps, 91 ms)",
    "relations": "11, with TensorRT 7 (R §5.4: 90 and 140 fps, 256 px, GTX 1080)",
}
"""The printed inference times of the papers' systems; C prints none."""
