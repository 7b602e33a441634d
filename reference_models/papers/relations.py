"""Recipes and claims of R: refining saliency maps without labels, by mutual information."""

from dataclasses import replace

from reference_models.networks.options import Backbone
from reference_models.papers.anchors import PROMOTED, WEAK, source_of, written
from reference_models.papers.schema import (
    PRIORS,
    SGD,
    Claim,
    Effects,
    Polynomial,
    Recipe,
    Table,
    at_least,
    at_most,
    medium,
    number,
    paper_scale,
    row,
    small,
)

SELF_TAUGHT = ("drfi", "hs", "rc")


# R §5.3. R prints neither the batch size nor the momentum of SGD, nor the power of its polynomial
# schedule; .9 is usual for both.
R_TRAINING = paper_scale(
    "relations",
    size=256,
    steps=20_000,
    batch=8,
    rate=5e-3,
    backbone_rate=0.1,
    optimizer=SGD(momentum=0.9),
    schedule=Polynomial(power=0.9),
    flips=False,
)


def recipes() -> list[Recipe]:
    taps = Backbone("mobilenet_v2", (0, 3, 13, 17))
    priors = {"ecssd": WEAK, "pascal-s": ("run:fcn-ce-clean",)}
    # Trained on DUTS-TE as in R §5.3, because a network's maps of its own training images would be
    # unrealistically good.
    return [
        Recipe(
            "relations",
            "relations",
            "js-mi",
            "another network's maps of images new to it, without masks; tested from a prior map",
            small=replace(small(taps, steps=300), test_images=200),
            medium=medium(taps, steps=980),
            paper_scale=R_TRAINING,
            train="duts-te",
            train_prior="run:fcn-ce-clean",
            tests=("ecssd", "pascal-s"),
            test_priors=priors,
        ),
        *(
            Recipe(
                f"relations-self-{detector}",
                "relations",
                "js-mi",
                f"the maps of {detector.upper()} on the test images themselves, without masks",
                small=small(taps, steps=400),
                medium=medium(taps, steps=400),
                train="ecssd",
                train_prior=detector,
                learns_on_tests=True,
                test_priors={"ecssd": (detector,)},
            )
            for detector in SELF_TAUGHT
        ),
    ]


# Claims ------------------------------------------------------------------------------------------

# Figures of the maps of wCtrO in R Table 1, before and after refining. We do not have these maps.
R_WCTRO = ({"f": 0.676, "mae": 0.171}, {"f": 0.854, "mae": 0.089})


def refining() -> Claim:
    tables, bounds, pairs = [], [], []
    for test, title in PROMOTED.items():
        source = source_of(test)
        if source in ("centre", "truth"):
            continue
        rows = [
            row("relations", test, "prior", map=PRIORS[0]),
            row("relations", test, "prior, cut at ½", map=PRIORS[1]),
            row("relations", test, "relations, refined", map="refined"),
            row("relations", test, "relations, merged", map="merged"),
        ]
        name = written(source)
        prior, cut, _, merged = (replace(r, label=f"{r.label}, {name}") for r in rows)
        if source in ("hs", "rc"):
            bounds += [at_least(merged, prior, "f", 0.06), at_most(merged, cut, "mae", -0.02)]
        elif source == "drfi":
            bounds.append(at_least(merged, prior, "f", 0.03))
        if source in SELF_TAUGHT:
            label = f"trained on {name} itself"
            recipe = f"relations-self-{source}"
            self_refined = row(recipe, test, f"{label}, refined", map="refined")
            self_merged = row(recipe, test, f"{label}, merged", map="merged")
            rows += [self_refined, self_merged]
            if source in ("hs", "rc"):
                bounds.append(at_least(self_merged, prior, "f", {"hs": 0.03, "rc": 0.01}[source]))
            pairs += [(self_merged, prior), (self_merged, cut)]
        pairs += [(merged, prior), (merged, cut)]
        tables.append(Table(title, tuple(rows), folded=name.lower() not in ("drfi", "hs", "rc")))
    before, after = R_WCTRO
    return Claim(
        "R: refining without labels",
        "A critic learns from prior maps alone, without masks, which pixels belong together; its "
        "map is merged with the prior by confidence. With wCtrO as the prior, the paper reports on "
        f"ECSSD F {number(before['f'])} → {number(after['f'])} and MAE {number(before['mae'])} → "
        f"{number(after['mae'])} (R Table 1). Here the critic learns from the maps of fcn-ce-clean "
        "on DUTS-TE, whose images are new to that network, or from the prior itself on the test "
        "images.",
        tuple(tables),
        Effects(tuple(pairs)),
        tuple(bounds),
        why="Merging makes maps nearly binary. This alone can lower the MAE, raise F at 2 × the "
        "mean and lower max F, so compare with the prior cut at ½. fcn-ce-clean was trained with "
        "masks, so the maps that it provides are not label-free; the relation model itself sees no "
        "masks.",
    )


def claims() -> tuple[Claim, ...]:
    return (refining(),)
