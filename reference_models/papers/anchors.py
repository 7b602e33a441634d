"""Recipes and claims of L: anchors that promote the maps of weak detectors.

Zeng et al., CVPR 2018.
"""

from dataclasses import replace

from reference_models.networks.options import BLOCKS, Backbone
from reference_models.papers.schema import (
    CONTROLS,
    PRIORS,
    Claim,
    Constant,
    Effects,
    Paper,
    Recipe,
    Table,
    at_least,
    at_most,
    medium,
    paper_scale,
    row,
    small,
)

WEAK = ("drfi", "hs", "rc", "chs")
L_TABLE_3 = Paper("L Table 3", "DRFI promoted", {"ecssd, drfi": {"f": 0.814, "mae": 0.087}})


# L §4.3, tested at 256 px as in L. L prints no size of its crops.
L_TRAINING = paper_scale(
    "anchors",
    size=256,
    crop=224,
    steps=300_000,
    batch=1,
    rate=1e-3,
    backbone_rate=1.0,
    schedule=Constant(),
)


def recipes() -> list[Recipe]:
    variants = {
        "anchors": (0.05, "conv", "hard", "with 5 % of the pixels flipped for the anchors"),
        "anchors-no-flips": (0.0, "conv", "hard", "with no pixels flipped for the anchors"),
        "anchors-flips-20": (
            0.2,
            "conv",
            "hard",
            "with 20 % of the pixels flipped for the anchors",
        ),
        "anchors-flips-20-soft": (
            0.2,
            "conv",
            "soft",
            "with 20 % of the pixels flipped, tested with soft regions",
        ),
        "anchors-fc": (
            0.05,
            "fc",
            "hard",
            "with 5 % of the pixels flipped, by a fully connected region embedding",
        ),
    }
    priors = {"ecssd": (*WEAK, *CONTROLS), "pascal-s": ("run:fcn-ce-clean",)}
    dilated = Backbone("mobilenet_v2", BLOCKS["mobilenet_v2"], output_stride=8)
    # Fewer test images, because each is promoted from up to seven priors.
    few = replace(small(dilated, steps=400, width=16, embedding=32), test_images=200)
    # With a fine-tuned backbone, the stride 8 of L would take 2.5 times as long.
    whole = medium(replace(dilated, output_stride=16), width=16, embedding=32)
    return [
        Recipe(
            name,
            "anchors",
            "anchors",
            f"the masks, {about}; tested from a prior map",
            small=few,
            medium=whole,
            paper_scale=L_TRAINING if name in ("anchors", "anchors-fc") else None,
            options={"flip": flip, "region_embedding": embedding, "selection": selection},
            tests=("ecssd", "pascal-s"),
            test_priors=priors,
            paper=L_TABLE_3 if name == "anchors" else None,
        )
        for name, (flip, embedding, selection, about) in variants.items()
    ] + [
        Recipe(
            "anchors-ce",
            "anchors",
            "ce",
            "the masks, by cross-entropy on the anchors' network",
            small=few,
            medium=whole,
            tests=("ecssd", "pascal-s"),
        )
    ]


# Claims ------------------------------------------------------------------------------------------

# Figures of DRFI's own maps in L Table 3.
L_DRFI = {"f": 0.733, "mae": 0.164}
PROMOTED = {
    "ecssd, drfi": "ECSSD, from DRFI",
    "ecssd, hs": "ECSSD, from HS",
    "ecssd, rc": "ECSSD, from RC",
    "ecssd, chs": "ECSSD, from CHS",
    "ecssd, centre": "ECSSD, from a Gaussian at the centre (control)",
    "ecssd, truth": "ECSSD, from the mask itself (control)",
    "pascal-s, run:fcn-ce-clean": "PASCAL-S, from the maps of fcn-ce-clean",
}


def source_of(test: str) -> str:
    """The source of the promoted maps: a detector, a control, or a recipe."""
    return test.partition(", ")[2].removeprefix("run:")


def written(source: str) -> str:
    """The name of a source in tables: a detector's in capitals, because it is an abbreviation."""
    return source.upper() if len(source) < 5 else source


def promoting() -> Claim:
    tables, bounds, pairs = [], [], []
    for test, title in PROMOTED.items():
        drfi = test == "ecssd, drfi"
        rows = [
            row("anchors", test, "prior", map=PRIORS[0], paper=L_DRFI if drfi else None),
            row("anchors", test, "prior, cut at ½", map=PRIORS[1]),
            # The paper's figures are for one round.
            row(
                "anchors",
                test,
                "anchors, T = 1",
                map="T = 1",
                paper=L_TABLE_3.figures.get(test),
            ),
            row("anchors", test, "anchors, T = 5", map="T = 5"),
            *(
                row(f"anchors-{name}", test, f"anchors-{name}, T = {rounds}", map=f"T = {rounds}")
                for name in ("no-flips", "flips-20", "flips-20-soft", "fc")
                for rounds in (1, 5)
            ),
            row("anchors-ce", test.partition(",")[0], "anchors-ce, without a prior"),
        ]
        first = test in ("ecssd, drfi", "ecssd, hs", "ecssd, rc")
        tables.append(Table(title, tuple(rows), folded=not first))
        source = source_of(test)
        name = written(source)
        prior, cut, once, last = (replace(r, label=f"{r.label}, {name}") for r in rows[:4])
        if first:
            f, mae = (0.06, 0.05) if drfi else (0.10, 0.06)
            bounds += [
                at_least(last, prior, "f", f),
                at_most(last, prior, "mae", -mae),
                at_least(last, prior, "max_f", 0.05),
                at_most(last, cut, "mae", 0.0),
            ]
        pairs += [(once, prior), (last, prior), (last, cut)]
    return Claim(
        "L: promoting the maps of weak detectors",
        "The map of any detector defines two regions, whose embeddings are the anchors. Every "
        "pixel is then assigned to the nearer anchor, which gives the next prior; this is "
        "repeated T times (L Table 3, Figure 5; one network serves all detectors). Controls: the "
        "prior cut at ½, a prior without information about the image, the mask itself as the "
        "prior, and cross-entropy on the same network.",
        tuple(tables),
        Effects(tuple(pairs)),
        tuple(bounds),
        why="A map that is merely sharper already has a lower MAE, hence the comparison with the "
        "prior cut at ½. The embedding has learnt from masks: the rows of the centre prior show "
        "what it achieves without information from the prior, and those of the mask itself what "
        "it achieves with perfect anchors, which limits max F at small scale.",
    )


def claims() -> tuple[Claim, ...]:
    return (promoting(),)
