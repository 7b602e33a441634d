"""L: Zeng et al., CVPR 2018, anchors that promote the maps of other detectors."""

from dataclasses import replace

from reference_models.papers.schema import (
    BLOCKS,
    CONTROLS,
    PRIORS,
    Backbone,
    Claim,
    Effects,
    Paper,
    Recipe,
    Table,
    at_least,
    at_most,
    medium,
    row,
    small,
)

WEAK = ("drfi", "hs", "rc", "chs")
L_TABLE_3 = Paper("L Table 3", "DRFI promoted", {"ecssd, drfi": {"f": 0.814, "mae": 0.087}})


def recipes() -> list[Recipe]:
    variants = {
        "anchors": (0.05, "conv", "hard", "5 % of the pixels flipped for the anchors"),
        "anchors-no-flips": (0.0, "conv", "hard", "no pixel flipped for the anchors"),
        "anchors-flips-20": (0.2, "conv", "hard", "20 % of the pixels flipped for the anchors"),
        "anchors-flips-20-soft": (0.2, "conv", "soft", "20 % flips, tested with soft regions"),
        "anchors-fc": (0.05, "fc", "hard", "5 % flips, fully connected region embedding"),
    }
    priors = {"ecssd": (*WEAK, *CONTROLS), "pascal-s": ("run:fcn-ce-clean",)}
    dilated = Backbone("mobilenet_v2", BLOCKS["mobilenet_v2"], output_stride=8)
    # Seven priors of each test image are promoted, so there are fewer images.
    few = replace(small(dilated, steps=400, width=16, embedding=32), test_images=200)
    # Stride 8, as in L, costs 2.5 times as much when the backbone is trained as well.
    whole = medium(replace(dilated, output_stride=16), width=16, embedding=32)
    return [
        Recipe(
            name, "anchors", "anchors", f"the masks, {about}; at test from a prior map",
            few, whole,
            options={"flip": flip, "region_embedding": embedding, "selection": selection},
            tests=("ecssd", "pascal-s"), test_priors=priors,
            paper=L_TABLE_3 if name == "anchors" else None,
        )
        for name, (flip, embedding, selection, about) in variants.items()
    ] + [
        Recipe(
            "anchors-ce", "anchors", "ce", "the masks, by cross-entropy on the anchors' network",
            few, whole, tests=("ecssd", "pascal-s"),
        )
    ]  # fmt: skip


# Claims ------------------------------------------------------------------------------------------

# DRFI's own maps, as L Table 3 measured them.
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
    """Whose maps are promoted: a detector, a control, or a recipe."""
    return test.partition(", ")[2].removeprefix("run:")


def written(source: str) -> str:
    """Detectors are abbreviations."""
    return source.upper() if len(source) < 5 else source


def promoting() -> Claim:
    tables, bounds, pairs = [], [], []
    for test, title in PROMOTED.items():
        drfi = test == "ecssd, drfi"
        rows = [
            row("anchors", test, "prior", map=PRIORS[0], paper=L_DRFI if drfi else None),
            row("anchors", test, "prior, cut at ½", map=PRIORS[1]),
            # The paper's figures are of one round.
            row("anchors", test, "anchors, T = 1", map="T = 1",
                paper=L_TABLE_3.figures.get(test)),
            row("anchors", test, "anchors, T = 5", map="T = 5"),
            *(row(f"anchors-{variant}", test, f"anchors-{variant}, T = {rounds}",
                  map=f"T = {rounds}")
              for variant in ("no-flips", "flips-20", "flips-20-soft", "fc") for rounds in (1, 5)),
            row("anchors-ce", test.partition(",")[0], "anchors-ce, without a prior"),
        ]  # fmt: skip
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
        "Any detector's map names the regions whose embeddings are the anchors; every pixel then "
        "goes to the nearer anchor, and the map so found is the next prior, T times (L Table 3, "
        "Figure 5; one network serves all detectors). Controls: the prior cut at ½, a prior that "
        "knows nothing, one that knows all, and cross-entropy on the same network.",
        tuple(tables),
        Effects(tuple(pairs)),
        tuple(bounds),
        why="A map that is only sharper already has a lower MAE, hence the comparison with the "
        "prior cut at ½. What the embedding knows it has learnt from masks: from a prior that "
        "knows nothing it comes as far as the rows of the centre prior say, and from perfect "
        "anchors as far as those of the mask itself, which is what bounds max F at small scale.",
    )


def claims() -> tuple[Claim, ...]:
    return (promoting(),)
