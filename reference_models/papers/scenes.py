"""Recipes of the README's small network on generated scenes."""

from typing import Any

from reference_models.papers.schema import Recipe, Scale

SCENES = Scale(size=64, steps=600, batch=16, rate=3e-3, train_images=600)


def scenes(loss: str, about: str, **more: Any) -> Recipe:
    """A recipe on generated scenes; both of its scales are the same."""
    return Recipe(
        f"scenes-{loss}",
        "small",
        loss,
        about,
        small=SCENES,
        medium=SCENES,
        train="scenes",
        tests=("scenes",),
        **more,
    )


def recipes() -> list[Recipe]:
    return [
        scenes(
            "cas",
            "the masks, without knowing which side of a mask is the object; that is chosen on "
            "validation images",
            label_free=True,
        ),
        scenes(
            "metric",
            "the masks: cross-entropy on two channels plus the metric loss on sixteen features",
        ),
        scenes("weighted-fbeta", "the masks"),
        scenes(
            "anchor",
            "the masks, with a fifth of the pixels flipped for the anchors; tested from a prior "
            "map",
            test_priors={"scenes": ("generated",)},
        ),
        scenes(
            "js-mi",
            "the confident pixels of prior maps alone; masks are used only for measures",
            test_priors={"scenes": ("generated",)},
        ),
        scenes("cross-entropy", "the masks"),
        scenes(
            "class-agnostic-cross-entropy",
            "the masks, up to the exchange of the two classes of each image; the salient channel "
            "is chosen on validation images",
            label_free=True,
        ),
    ]
