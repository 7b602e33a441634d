"""Recipes and claims of all papers."""

from reference_models.papers import anchors, class_agnostic, menet, relations, scenes, zoomout
from reference_models.papers.schema import Claim, Recipe

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for paper in (scenes, zoomout, class_agnostic, menet, anchors, relations)
    for recipe in paper.recipes()
}


def claims() -> tuple[Claim, ...]:
    """The claims of all papers, in the order of the report."""
    return (
        *class_agnostic.claims(),
        *zoomout.claims(),
        *menet.claims(),
        *anchors.claims(),
        *relations.claims(),
    )
