"""Recipes and claims of M: MEnet, and the metric loss on pretrained features."""

from reference_models.papers.schema import (
    FOUR,
    SGD,
    Bound,
    Claim,
    Constant,
    Effects,
    Paper,
    Recipe,
    Row,
    Scale,
    Table,
    at_least,
    medium,
    number,
    paper_scale,
    row,
    small,
    within,
)

DISTORTED = ("noise 0.02", "noise 0.07", "noise 0.15", "noise 0.29", "jpeg 3", "jpeg 6", "jpeg 20")
M_TABLE_4 = {
    "ce-plain": Paper("M Table 4", "CE-plain", {"ecssd": {"f": 0.794, "mae": 0.093}}),
    "ce": Paper("M Table 4", "CE-only", {"ecssd": {"f": 0.855, "mae": 0.072}}),
    "metric-hard-negatives": Paper("M Tables 3 and 4", "MEnet", {
        "ecssd": {"f": 0.880, "mae": 0.060},
        "ecssd, noise of random variance": {"f": 0.716},
        "ecssd, jpeg of random quality": {"f": 0.792},
    }),
}  # fmt: skip


# M §3.2. M prints no size of its crops.
M_TRAINING = paper_scale(
    "menet",
    size=224,
    crop=192,
    enlarge_crops=True,
    steps=110_000,
    batch=5,
    rate=0.1,
    optimizer=SGD(momentum=0.9, weight_decay=1e-8),
    schedule=Constant(),
)


def recipes() -> list[Recipe]:
    scratch = {
        "ce-plain": ("ce", False, "cross-entropy, without the features of 13 scales"),
        "ce": ("ce", True, "cross-entropy"),
        "metric": ("metric", True, "cross-entropy and the metric loss"),
        "metric-hard-negatives": (
            "metric-hard-negatives",
            True,
            "cross-entropy and the metric loss on hard negatives",
        ),
    }
    head = {
        "ce": "cross-entropy",
        "metric": "cross-entropy and the metric loss",
        "metric-pairwise": "cross-entropy and the metric loss over all pairs (M eq. 2)",
        "metric-hard-negatives": "cross-entropy and the metric loss on hard negatives",
        "metric-stop-gradient": "cross-entropy and the metric loss, its means held constant",
    }
    return [
        Recipe(
            f"menet-{name}",
            "menet",
            loss,
            f"the masks, from scratch, by {about}",
            small=Scale(
                size=96,
                steps=300,
                batch=16,
                rate=3e-3,
                train_images=1540,
                test_images=300,
                options={"width": 12},
            ),
            # Eight epochs of DUTS-TR, which take 90 minutes on two cores.
            medium=Scale(
                size=192,
                crop=160,
                steps=5230,
                batch=16,
                rate=3e-3,
                options={"width": 16, "widest": 128},
            ),
            paper_scale=None if name == "metric" else M_TRAINING,
            options={"multi_scale": multi_scale},
            corruptions=DISTORTED,
            paper=M_TABLE_4.get(name),
        )
        for name, (loss, multi_scale, about) in scratch.items()
    ] + [
        Recipe(
            f"metric-head-{loss}",
            "metric-head",
            loss,
            f"the masks, on pretrained features, by {about}",
            small=small(FOUR, rate=3e-3),
            medium=medium(FOUR),
            corruptions=DISTORTED,
        )
        for loss, about in head.items()
    ]


# Claims ------------------------------------------------------------------------------------------


def metric_loss() -> Claim:
    networks = {
        "metric-head": (
            "metric-head-ce",
            "metric-head-metric",
            "metric-head-metric-pairwise",
            "metric-head-metric-hard-negatives",
            "metric-head-metric-stop-gradient",
        ),
        "menet": (
            "menet-ce-plain",
            "menet-ce",
            "menet-metric",
            "menet-metric-hard-negatives",
        ),
    }
    tests = ("ecssd", *(f"ecssd, {distortion}" for distortion in DISTORTED))
    tables = []
    for test in tests:
        rows = [
            row(name, test, label, map=inner)
            for names in networks.values()
            for name in names
            for label, inner in ((name, None), (f"{name}, semantic distance", "semantic distance"))
            if inner is None or name not in ("menet-ce-plain", "menet-ce")  # Without features.
        ]
        tables.append(Table(distortion_title(test), tuple(rows), folded=test != "ecssd"))

    def pair(metric: str, test: str) -> tuple[Row, Row]:
        title = distortion_title(test).removeprefix("ECSSD, ")
        ce = f"{metric.partition('-metric')[0]}-ce"
        return row(metric, test, f"{metric}, {title}"), row(ce, test, f"{ce}, {title}")

    bounds: list[Bound] = [within(*pair("metric-head-metric", "ecssd"), "max_f", 0.015)]
    for variance in ("0.07", "0.15"):
        of, minus = pair("metric-head-metric", f"ecssd, noise {variance}")
        bounds.append(at_least(of, minus, "max_f", 0.02, per_seed_min=-0.02))
    bounds.append(at_least(*pair("metric-head-metric", "ecssd, jpeg 3"), "max_f", 0.0))
    compared = ("metric-head-metric", "menet-metric-hard-negatives")
    pairs = tuple(pair(metric, test) for metric in compared for test in tests)
    return Claim(
        "M: the metric loss beside cross-entropy",
        "The metric loss draws the features of a region together and those of different regions "
        "apart. Added to cross-entropy, it raises F and makes the maps robust to noise and JPEG "
        "compression (M Tables 3 and 4, Figure 7). The variance of the noise is for pixels in "
        "0..1, and no network is trained on distorted images. The bounds are for the metric loss "
        "on pretrained features (`metric-head-…`); MEnet, trained from scratch, is shown without "
        "bounds. The row below a map of the saliency head is its semantic distance (M eq. 5). The "
        "paper draws variances and qualities at random, so its figures for distorted images are "
        "not in our tables; on ECSSD they are "
        + " and ".join(
            f"F {number(values['f'])} for {test.removeprefix('ecssd, ')}"
            for test, values in M_TABLE_4["metric-hard-negatives"].figures.items()
            if test != "ecssd"
        )
        + ".",
        tuple(tables),
        Effects(pairs),
        tuple(bounds),
        why="The metric loss can widen or soften the map of the saliency head; on clean images F "
        "at 2 × the mean then falls, while max F does not. The metric loss was made for the "
        "semantic distance; the control is the semantic distance of features trained with "
        "cross-entropy alone. At small scale, hard negatives give pretrained features the best "
        "semantic distance on clean images, but take away their robustness to noise.",
    )


def distortion_title(test: str) -> str:
    words = test.removeprefix("ecssd").removeprefix(", ").split()
    if not words:
        return "ECSSD, clean"
    kind = {"noise": "noise of variance", "jpeg": "JPEG of quality"}[words[0]]
    return f"ECSSD, {kind} {words[1]}"


def claims() -> tuple[Claim, ...]:
    return (metric_loss(),)
