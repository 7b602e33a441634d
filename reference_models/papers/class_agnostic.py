"""Recipes and claims of C, the class-agnostic segmentation loss."""

from reference_models.papers.schema import (
    FOUR,
    SALIENCY_TESTS,
    SEGMENTATION,
    Bound,
    Claim,
    Effects,
    EqualWeights,
    Figures,
    Paper,
    Recipe,
    Row,
    Scale,
    Table,
    at_least,
    at_most,
    medium,
    paper_scale,
    per_set,
    row,
    small,
    within,
)

Pair = tuple[float, float]


def c_figures(duts: Pair, ecssd: Pair, pascal: Pair) -> dict[str, Figures]:
    """Figures by test set, from pairs of F and MAE."""
    sets = {"duts-te": duts, "ecssd": ecssd, "pascal-s": pascal}
    return {name: {"f": f, "mae": mae} for name, (f, mae) in sets.items()}


C_TABLES = {
    ("fcn", "ce", "swapped"): Paper("C Table 1", "ResNet-CE", c_figures(
        (0.427, 0.191), (0.625, 0.178), (0.592, 0.206))),
    ("fcn", "cace", "swapped"): Paper("C Table 1", "ResNet-CACE", c_figures(
        (0.808, 0.103), (0.803, 0.114), (0.754, 0.150))),
    ("fcn", "cas", "swapped"): Paper("C Table 1", "ResNet-CAS", c_figures(
        (0.836, 0.077), (0.837, 0.085), (0.773, 0.126))),
    ("deeplab", "cas", "swapped"): Paper("C Table 1", "DeepLab-CAS", c_figures(
        (0.868, 0.064), (0.875, 0.068), (0.810, 0.110))),
    ("fcn", "ce", "clean"): Paper("C Table 2", "ResNet-CE", c_figures(
        (0.919, 0.055), (0.905, 0.068), (0.876, 0.091))),
    ("fcn", "cas", "clean"): Paper("C Table 2", "ResNet-CAS", c_figures(
        (0.871, 0.071), (0.888, 0.071), (0.840, 0.112))),
    ("deeplab", "ce", "clean"): Paper("C Table 2", "DeepLab-CE", c_figures(
        (0.847, 0.070), (0.867, 0.069), (0.805, 0.110))),
    ("deeplab", "cas", "clean"): Paper("C Table 2", "DeepLab-CAS", c_figures(
        (0.850, 0.070), (0.864, 0.072), (0.800, 0.111))),
}  # fmt: skip


def training(head: str) -> Scale:
    """C §4.2: whole images at 256 px, standardised, without augmentation.

    C prints no optimizer, rate, batch or duration. These are ours: Adam on the one-cycle schedule,
    as at medium scale, for 30 epochs of DUTS-TR. C uses no pretraining "that other methods use",
    which we take to mean pretraining for saliency; the backbone starts from ImageNet's weights.
    """
    return paper_scale(
        head, size=256, steps=30 * 1306, batch=8, rate=1e-3, backbone_rate=0.1, flips=False
    )


def fully_convolutional() -> list[Recipe]:
    losses = {
        "ce": "cross-entropy",
        "cace": "cross-entropy up to the exchange of labels per image",
        "cace-pixel": "cross-entropy up to the exchange of labels per pixel",
        "cas": "the CAS loss",
    }
    return [
        Recipe(
            f"{head}-{loss}-{labels}",
            "fully-convolutional",
            loss,
            f"the masks{', swapped in half of the images' * (labels == 'swapped')}, by {about}",
            small=small(FOUR, rate=3e-3),
            medium=medium(FOUR),
            paper_scale=None if loss == "cace-pixel" else training(head),
            options={"head": head},
            tests=SALIENCY_TESTS,
            swap_labels=0.5 * (labels == "swapped"),
            label_free=loss != "ce",
            paper=C_TABLES.get((head, loss, labels)),
        )
        for head in ("fcn", "deeplab")
        for loss, about in losses.items()
        for labels in ("clean", "swapped")
    ]


def general_segmentation() -> list[Recipe]:
    return [
        Recipe(
            f"regions-{loss}-{channels}",
            "fully-convolutional",
            loss,
            f"one annotator's regions, at most 16 per image, by {about}, with {channels} channels",
            small=small(FOUR, steps=300, rate=3e-3),
            medium=medium(FOUR, steps=1200),
            options={"head": "fcn", "channels": channels, "regions": 16},
            train="bsds500",
            tests=("bsds500",),
            regions=16,
        )
        for loss, about in (("cas", "the CAS loss"), ("ce", "cross-entropy on region numbers"))
        for channels in (4, 8)
    ]


def recipes() -> list[Recipe]:
    return [*fully_convolutional(), *general_segmentation()]


# Claims ------------------------------------------------------------------------------------------


def swapped_labels() -> Claim:
    bounds: list[Bound] = []
    pairs: list[tuple[Row, Row]] = []
    recipes: list[str] = []
    for head in ("fcn", "deeplab"):
        recipes += [
            f"{head}-{loss}-{labels}"
            for loss in ("ce", "cace", "cace-pixel", "cas")
            for labels in ("clean", "swapped")
        ]
        cas, cas_clean = row(f"{head}-cas-swapped"), row(f"{head}-cas-clean")
        ce, ce_clean = row(f"{head}-ce-swapped"), row(f"{head}-ce-clean")
        bounds += [
            within(cas, cas_clean, "f", 0.01),
            within(cas, cas_clean, "mae", 0.01),
            at_most(cas, ce_clean, "mae", 0.01),
            at_least(cas, ce_clean, "max_f", -0.015),
            at_least(ce, None, "mae", 0.40),
            at_most(ce, None, "max_f", 0.45),
        ]
        pairs += [
            (cas, cas_clean),
            (cas, ce),
            (cas, ce_clean),
            (ce, ce_clean),
            (row(f"{head}-cace-swapped"), cas),
            (row(f"{head}-cace-pixel-swapped"), cas),
        ]
    return Claim(
        "C: labels of whole images swapped",
        "The class-agnostic segmentation (CAS) loss learns regions, but not which of them is the "
        "object. If the two labels are exchanged in half of the training images, cross-entropy "
        "fails, whereas CAS must lose nothing (C Tables 1 and 2).",
        per_set(recipes),
        Effects(tuple(pairs)),
        tuple(bounds),
        tuple(
            EqualWeights(f"{head}-cas-clean", f"{head}-cas-swapped") for head in ("fcn", "deeplab")
        ),
        "With two regions, the CAS loss and its gradient do not change when the labels of an image "
        "are exchanged, so the same seed must give the same weights. (Not on a GPU, where the "
        "order of summation changes from run to run.) F at 2 × the mean says little about a "
        "collapsed map: if all its values are alike, chance decides whether they reach the "
        "threshold. Cross-entropy up to the exchange of labels per image is not affected by the "
        "swap either; its rows show how well it trains.",
    )


def segmentation() -> Claim:
    pairs = tuple(
        (row(f"regions-cas-{channels}", "bsds500"), row(f"regions-ce-{channels}", "bsds500"))
        for channels in (4, 8)
    )
    return Claim(
        "C: general segmentation",
        "With more channels and any number of regions per image, CAS learns to segment. "
        "Cross-entropy on region numbers cannot, because a number means nothing across images. The "
        "paper reports an average precision of .71 against .61 on PASCAL VOC (C Table 3); this "
        "measure does not apply to the label maps of BSDS500, so our tables have no printed "
        "figures. Maps are measured against every annotator: better maps have a higher covering "
        "and Rand index, and a lower variation of information.",
        (Table("BSDS500", tuple(row for pair in pairs for row in pair), SEGMENTATION),),
        Effects(pairs, SEGMENTATION),
    )
