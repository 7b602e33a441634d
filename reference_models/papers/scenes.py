"""The README's small network on generated scenes."""

from typing import Any

from reference_models.papers.schema import Recipe, Scale

SCENES = Scale(size=64, steps=600, batch=16, rate=3e-3, train_images=600)


def scenes(loss: str, about: str, **more: Any) -> Recipe:
    return Recipe(
        f"scenes-{loss}", "small", loss, about, SCENES, SCENES, train="scenes", tests=("scenes",),
        **more,
    )  # fmt: skip


def recipes() -> list[Recipe]:
    return [
        scenes("cas", "the masks, but not which side of a mask is the object: that is chosen on "
               "validation images", label_free=True),
        scenes("metric", "the masks: cross-entropy on two channels plus the metric loss on sixteen "
               "features"),
        scenes("weighted-fbeta", "the masks"),
        scenes("anchor", "the masks, with a fifth of the pixels flipped for the anchors; at test "
               "from a prior map", test_priors={"scenes": ("generated",)}),
        scenes("js-mi", "the confident pixels of prior maps alone; masks serve the measures only",
               test_priors={"scenes": ("generated",)}),
        scenes("cross-entropy", "the masks"),
        scenes("class-agnostic-cross-entropy", "the masks, each image up to the exchange of its "
               "two classes; the salient channel is chosen on validation images", label_free=True),
    ]  # fmt: skip
