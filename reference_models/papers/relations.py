"""R: refining saliency maps without labels, by an estimate of mutual information."""

from dataclasses import replace

from reference_models.papers.anchors import PROMOTED, WEAK, source_of, written
from reference_models.papers.schema import (
    PRIORS,
    Backbone,
    Claim,
    Effects,
    Recipe,
    Table,
    at_least,
    at_most,
    medium,
    number,
    row,
    small,
)

SELF_TAUGHT = ("drfi", "hs", "rc")


def recipes() -> list[Recipe]:
    taps = Backbone("mobilenet_v2", (0, 3, 13, 17))
    priors = {"ecssd": WEAK, "pascal-s": ("run:fcn-ce-clean",)}
    # As in R §5.3 on DUTS-TE: that network's maps of its own training images would be too good.
    return [
        Recipe(
            "relations", "relations", "js-mi",
            "another network's maps of images new to it, no mask; at test from a prior map",
            replace(small(taps, steps=300), test_images=200), medium(taps, steps=980),
            train="duts-te", train_prior="run:fcn-ce-clean",
            tests=("ecssd", "pascal-s"), test_priors=priors,
        ),
        *(
            Recipe(
                f"relations-self-{detector}", "relations", "js-mi",
                f"the maps of {detector.upper()} on the test images themselves, no mask",
                small(taps, steps=400), medium(taps, steps=400), train_prior=detector,
                train="ecssd", learns_on_tests=True, test_priors={"ecssd": (detector,)},
            )
            for detector in SELF_TAUGHT
        ),
    ]  # fmt: skip


# Claims ------------------------------------------------------------------------------------------

# The maps of wCtrO, as R Table 1 measured them; they are not in the archive.
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
            mine = [
                row(f"relations-self-{source}", test, f"trained on {name} itself, {inner}",
                    map=inner)
                for inner in ("refined", "merged")
            ]  # fmt: skip
            rows += mine
            if source in ("hs", "rc"):
                bounds.append(at_least(mine[1], prior, "f", {"hs": 0.03, "rc": 0.01}[source]))
            pairs += [(mine[1], prior), (mine[1], cut)]
        pairs += [(merged, prior), (merged, cut)]
        tables.append(Table(title, tuple(rows), folded=name.lower() not in ("drfi", "hs", "rc")))
    before, after = R_WCTRO
    return Claim(
        "R: refining without labels",
        "A critic learns from prior maps alone, without masks, which pixels belong together; its "
        "map is merged with the prior by confidence. With wCtrO as the prior the paper has on "
        f"ECSSD F {number(before['f'])} → {number(after['f'])} and MAE {number(before['mae'])} → "
        f"{number(after['mae'])} (R Table 1). Here it learns from the maps of fcn-ce-clean on "
        "DUTS-TE, which that network has not seen, or from the prior itself on the test images.",
        tuple(tables),
        Effects(tuple(pairs)),
        tuple(bounds),
        why="Merging makes maps nearly binary, which alone can lower the MAE, raise F at 2 × the "
        "mean, and lower max F: compare with the prior cut at ½. fcn-ce-clean was trained "
        "with masks, so the maps it gives are not free of labels; the relation model sees none.",
    )


def claims() -> tuple[Claim, ...]:
    return (refining(),)
