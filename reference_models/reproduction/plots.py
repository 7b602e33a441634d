"""Plots of the report: their data, from the results."""

import re
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

from reference_models.papers.anchors import source_of, written
from reference_models.papers.class_agnostic import ELSEWHERE, textures
from reference_models.papers.menet import DISTORTED
from reference_models.papers.recipes import RECIPES, claims
from reference_models.papers.relations import SELF_TAUGHT, mutual_information
from reference_models.papers.schema import (
    CONTROLS,
    PRIORS,
    SALIENCY,
    SETS,
    Claim,
    Row,
    ScaleName,
    row,
)
from reference_models.reproduction.first_steps import Steps
from reference_models.reproduction.results import (
    SCALES,
    EachImage,
    Result,
    Results,
    differences,
    heading,
    mean_curves,
    printed_differences,
    rows_of,
    values,
)
from reference_models.reproduction.verdicts import NAMES, difference
from reference_models.training import figures

PRECISION = "Precision against recall, and F against the threshold,"
EFFECTS = (
    "Differences of the measures that the paper prints too: the paper's, and each seed of ours; "
    "the axis is linear up to ±.05 and logarithmic beyond"
)
CAPTIONS = {
    **{f"results-effects-{letter}": EFFECTS for letter in "mwlr"},
    "results-effects-c": f"{EFFECTS}; * in the paper trained on other data",
    "results-textures": EFFECTS,
    "results-noise": "F against the variance of the noise, by each loss and map: means, and the "
    "range over seeds; 0 is clean",
    "results-curves-m": f"{PRECISION} of the saliency head and of S (dashed), clean and under "
    "noise",
    "results-swapped": "The measures against the share of training images whose labels are swapped",
    "results-object-size": "F against the size of the object, by cross-entropy and by CAS",
    "results-curves-w": f"{PRECISION} by each loss",
    "results-rounds": "F and MAE after each round of promoting; 0 is the detector's own map",
    "results-few": "The measures against the number of training images, with T = 5: means, and the "
    "range over seeds",
    "results-curves-l": f"{PRECISION} of promoted maps (T = 1) and of the detectors' own (dashed)",
    "results-curves-r": f"{PRECISION} of merged maps and of the detectors' own (dashed)",
    "results-information": "Estimate of the mutual information of the training pairs, at most "
    "log 2 = .693, in training",
    "menet-space": "Features of a small MEnet on generated scenes, before and after its training, "
    "on their two principal axes; orange: the object",
    "menet-scales": "Maps of the 13 scales of this MEnet; one that is constant is black",
    "gallery": "Generated scenes, their masks, rough maps, and the maps of the bundled networks",
    "textures": "Mosaics of textures, their regions, and the regions that the networks find",
    "results-losses": "Training loss of one recipe per kind of loss",
    "results-frameworks": "Training loss of the first steps in PyTorch and JAX from equal weights",
}
PLOTS_OF = {
    "M": ("results-effects-m", "results-noise", "results-curves-m"),
    "C": ("results-effects-c", "results-swapped", "results-object-size", "results-textures"),
    "W": ("results-effects-w", "results-curves-w"),
    "L": ("results-effects-l", "results-rounds", "results-few", "results-curves-l"),
    "R": ("results-effects-r", "results-curves-r", "results-information"),
}
"""The plots of each paper's section, in the order of the page."""
PICTURES_OF: dict[str, tuple[str, ...]] = {
    "M": ("menet-space", "menet-scales"),
    "C": ("textures",),
    "W": (),
    "L": (),
    "R": (),
}
"""Pictures in each paper's section that scripts in docs/figures draw; shown if they exist."""
CURVES = (
    "zoomout-ce",
    "zoomout-af",
    "zoomout-exact",
    "fcn-ce-clean",
    "fcn-ce-swapped",
    "fcn-cas-swapped",
    "fcn-cace-swapped",
    "menet-metric",
    "metric-head-metric",
    "anchors",
    "relations",
    "regions-cas-8",
)
FIRST_STEPS = (
    "zoomout-ce",
    "zoomout-af",
    "zoomout-exact",
    "fcn-ce-clean",
    "fcn-cas-clean",
    "deeplab-cace-clean",
    "menet-metric",
    "metric-head-metric",
    "anchors-no-flips",
    "anchors",
    "relations-self-drfi",
    "regions-cas-8",
)


Found = TypeVar("Found", bound=Sized)


def image_link(name: str) -> str:
    """A picture and its caption."""
    return f"![{CAPTIONS[name]}](figures/{name}.png)\n\n*{CAPTIONS[name]}.*\n"


def scale_of(results: Results, recipes: Iterable[str]) -> ScaleName:
    """The scale at which most of the recipes have run, the largest of several."""
    names = list(recipes)
    at_scales = {scale: [n for n in names if (n, scale) in results] for scale in SCALES}
    return fullest(at_scales)[0]


def fullest(at_scales: Mapping[ScaleName, Found]) -> tuple[ScaleName, Found]:
    """The scale at which most was found, the largest of several, and what was found there."""
    return max(at_scales.items(), key=lambda item: len(item[1]))


def plots(
    results: Results, rows: EachImage, first_steps: Sequence[Steps]
) -> dict[str, figures.Plot]:
    """The plots that have results, by file name."""
    all_plots = {
        **{name: effects_plot(results, shown) for name, shown in with_effects().items()},
        "results-noise": noise_plot(results),
        "results-curves-m": curves_plot(results, *MAPS_M),
        "results-swapped": swapped_plot(results),
        "results-object-size": object_size_plot(results, rows),
        "results-curves-w": curves_plot(results, MAPS_W),
        "results-rounds": rounds_plot(results),
        "results-few": few_plot(results),
        "results-curves-l": curves_plot(results, promoted_maps("anchors", "T = 1")),
        "results-curves-r": curves_plot(results, promoted_maps("relations", "merged")),
        "results-information": information_plot(results),
        "results-losses": losses_plot(results),
        "results-frameworks": first_steps_plot(first_steps),
    }
    return {name: plot for name, plot in all_plots.items() if plot is not None}


def drawn(lines: Mapping[str, figures.Points]) -> tuple[tuple[str, figures.Points], ...]:
    """The lines that have points."""
    return tuple((label, points) for label, points in lines.items() if points)


def points_of(values_at: Mapping[float, Mapping[int, float]]) -> figures.Points:
    """The positions that have values, with those of all seeds."""
    return tuple((x, tuple(seeds.values())) for x, seeds in sorted(values_at.items()) if seeds)


def panels_of(
    lines: Mapping[str, Mapping[float, Row]],
    results: Results,
    scale: str,
    measures: Iterable[str],
    x: str,
    log: bool = False,
) -> tuple[figures.Panel, ...]:
    """A panel per measure, with labelled lines through rows of ECSSD at positions."""
    panels = []
    for measure in measures:
        found = drawn(
            {
                label: points_of(
                    {at: values(results, scale, of, measure) for at, of in rows.items()}
                )
                for label, rows in lines.items()
            }
        )
        if found:
            panels.append(figures.Panel(f"ECSSD ({scale})", found, x, NAMES[measure], log))
    return tuple(panels)


def noise_plot(results: Results) -> figures.Plot | None:
    panels: list[figures.Panel] = []
    tests = {0.0: "ecssd"} | {
        float(d.split()[1]): f"ecssd, {d}" for d in DISTORTED if d.startswith("noise 0")
    }
    for title, network in (("pretrained features", "metric-head"), ("MEnet from scratch", "menet")):
        metric = f"{network}-metric"
        maps = {
            "cross-entropy": (f"{network}-ce", None),
            "metric loss, head": (metric, None),
            "metric loss, S": (metric, "semantic distance"),
            "hard negatives, head": (f"{metric}-hard-negatives", None),
            "hard negatives, S": (f"{metric}-hard-negatives", "semantic distance"),
        }
        scale = scale_of(results, (recipe for recipe, _ in maps.values()))
        lines = {
            label: {x: row(recipe, test, map=name) for x, test in tests.items()}
            for label, (recipe, name) in maps.items()
        }
        panels += [
            replace(panel, title=f"{title} ({scale})")
            for panel in panels_of(lines, results, scale, ("f",), "variance of the noise")
        ]
    return figures.Plot("lines", tuple(panels)) if panels else None


def swapped_plot(results: Results) -> figures.Plot | None:
    losses = {
        "cross-entropy": "ce",
        "class-agnostic cross-entropy": "cace",
        "CAS": "cas",
    }
    recipes = {
        label: {
            recipe.swap_labels: recipe.name
            for recipe in RECIPES.values()
            if recipe.loss == loss and recipe.name.startswith(f"fcn-{loss}-")
        }
        for label, loss in losses.items()
    }
    scale = scale_of(results, (name for names in recipes.values() for name in names.values()))
    lines = {
        label: {share: row(name) for share, name in names.items()}
        for label, names in recipes.items()
    }
    panels = panels_of(lines, results, scale, SALIENCY, "share of the images swapped")
    return figures.Plot("lines", panels) if panels else None


SIZES = (0, 0.03, 0.06, 0.12, 0.24, 1)
"""Bounds of the groups of images, by the share of their pixels that is object."""
FEWEST = 10  # Smaller groups of images say nothing.


def object_size_plot(results: Results, rows: EachImage) -> figures.Plot | None:
    """F of groups of images, at the mean share of their object; from the rows of test images."""
    recipes = {"cross-entropy": "fcn-ce-clean", "CAS": "fcn-cas-clean"}
    panels = []
    for test in ("ecssd", "duts-te"):
        at_scales = {
            scale: drawn(
                {
                    label: f_by_size(results, rows, scale, row(recipe, test))
                    for label, recipe in recipes.items()
                }
            )
            for scale in SCALES
        }
        scale, lines = fullest(at_scales)
        if lines:
            title = f"{SETS[test]} ({scale})"
            panels.append(figures.Panel(title, lines, "share of object pixels", "F", True))
    return figures.Plot("lines", tuple(panels)) if panels else None


def f_by_size(results: Results, rows: EachImage, scale: str, of: Row) -> figures.Points:
    """F of groups of images, at the mean share of their object."""
    groups: dict[float, dict[int, float]] = {}
    for seed in results.get((of.recipe, scale), {}):
        for one in rows_of(rows, scale, of, (seed,)):
            if one.object_share is None:
                continue
            for low, high in pairwise(SIZES):
                inside = (low < one.object_share) & (one.object_share <= high)
                if inside.sum() >= FEWEST:
                    position = round(float(one.object_share[inside].mean()), 3)
                    f = one.mean("f", np.flatnonzero(inside))
                    groups.setdefault(position, {})[seed] = round(f, 4)
    return points_of(groups)


def rounds_plot(results: Results) -> figures.Plot | None:
    """Of the recipe whose maps were measured after the most rounds."""
    names = [name for name, recipe in RECIPES.items() if recipe.system == "anchors"]
    found: dict[str, dict[str, dict[float, Row]]] = {}
    for name in names:
        for result in results.get((name, scale_of(results, (name,))), {}).values():
            for test, maps in result["measures"].items():
                rounds = {float(m[4:]): row(name, test, map=m) for m in maps if m[:4] == "T = "}
                if len(rounds) > 2 and test.startswith("ecssd, "):
                    label = f"from {written(source_of(test))}"
                    found.setdefault(name, {})[label] = rounds | {
                        0.0: row(name, test, map=PRIORS[0])
                    }
    if not found:
        return None
    name, lines = max(found.items(), key=lambda item: len(next(iter(item[1].values()))))
    panels = panels_of(lines, results, scale_of(results, (name,)), ("f", "mae"), "rounds T")
    return figures.Plot("lines", panels)


def few_plot(results: Results) -> figures.Plot | None:
    """The recipe NETWORK and those named NETWORK-COUNT, which have fewer training images."""
    maps = {
        "anchors from DRFI": ("anchors", "ecssd, drfi", "T = 5"),
        "anchors from the centre": ("anchors", "ecssd, centre", "T = 5"),
        "cross-entropy": ("anchors-ce", "ecssd", None),
    }
    counted = {
        network: [network, *filter(re.compile(rf"{network}-\d+").fullmatch, RECIPES)]
        for network in ("anchors", "anchors-ce")
    }
    scale = scale_of(results, (name for names in counted.values() for name in names))
    lines = {
        label: {
            float(result["images"]["train"]): row(recipe, test, map=name)
            for recipe in counted[network]
            for result in results.get((recipe, scale), {}).values()
        }
        for label, (network, test, name) in maps.items()
    }
    if max(map(len, lines.values())) < 2:
        return None
    panels = panels_of(lines, results, scale, SALIENCY, "training images", log=True)
    return figures.Plot("lines", panels)


MAPS_M = tuple(
    {
        f"{recipe}{ending}": row(recipe, test, map=name)
        for recipe in ("menet-ce", "menet-metric", "menet-metric-hard-negatives")
        for ending, name in (("", None), (", S", "semantic distance"))
        if recipe != "menet-ce" or not ending
    }
    for test in (
        "ecssd",
        *(f"ecssd, {how}" for how in DISTORTED if how.endswith("random variance")),
    )
)
MAPS_W = {name: row(name) for name in ("zoomout-ce", "zoomout-af", "zoomout-exact", "zoomout-dice")}


def promoted_maps(recipe: str, name: str) -> dict[str, Row]:
    """The maps of detectors on ECSSD, and what a recipe makes of them."""
    return {
        label: row(recipe, f"ecssd, {detector}", map=map_)
        for detector in RECIPES[recipe].test_priors["ecssd"]
        if detector not in CONTROLS and not detector.startswith("run:")
        for label, map_ in (
            (f"{written(detector)}, {name}", name),
            (f"{written(detector)}, prior", PRIORS[0]),
        )
    }


def curves_plot(results: Results, *groups: Mapping[str, Row]) -> figures.Plot | None:
    """Precision against recall, and F against the threshold, means over the seeds.

    groups: The rows of two panels, by label; all rows of a group are of one test set, clean,
    distorted alike, or with different priors.
    """
    panels: list[figures.Panel] = []
    for maps in groups:
        at_scales: dict[ScaleName, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
        for scale in SCALES:
            curves = {label: mean_curves(results, scale, of) for label, of in maps.items()}
            at_scales[scale] = {label: pair for label, pair in curves.items() if pair is not None}
        scale, known = fullest(at_scales)
        if known:
            precise = drawn({label: precision_curve(*pair) for label, pair in known.items()})
            f_measure = drawn({label: f_curve(*pair) for label, pair in known.items()})
            tests = {of.test for of in maps.values()}
            name, _, distortion = next(iter(tests)).partition(", ")
            shared = distortion if len(tests) == 1 else ""
            title = f"{', '.join(filter(None, (SETS[name], shared)))} ({scale})"
            panels += [
                figures.Panel(title, precise, "recall", "precision"),
                figures.Panel(title, f_measure, "threshold", "F"),
            ]
    return figures.Plot("lines", tuple(panels)) if panels else None


def precision_curve(precision: np.ndarray, recall: np.ndarray) -> figures.Points:
    # Above a map's highest value there is no pixel, hence no precision.
    reached = recall > 0.01
    return curve(recall[reached], precision[reached])


def f_curve(precision: np.ndarray, recall: np.ndarray) -> figures.Points:
    weighed = 0.3 * precision + recall
    f = 1.3 * precision * recall / np.where(weighed > 0, weighed, 1)
    return curve(np.linspace(0, 1, len(f)), f[::-1])


def curve(x: np.ndarray, y: np.ndarray) -> figures.Points:
    return tuple((round(float(a), 4), (round(float(b), 4),)) for a, b in zip(x, y, strict=True))


def information_plot(results: Results) -> figures.Plot | None:
    """The estimate in training, which follows from the loss of these recipes."""
    recipes = ("relations", *(f"relations-self-{detector}" for detector in SELF_TAUGHT))
    scale = scale_of(results, recipes)
    lines: dict[str, figures.Points] = {}
    for recipe in recipes:
        estimates: dict[float, dict[int, float]] = {}
        for seed, run in results.get((recipe, scale), {}).items():
            for step, (loss,) in curve_points(run):
                estimates.setdefault(step, {})[seed] = round(mutual_information(loss), 4)
        lines[recipe] = points_of(estimates)
    if not drawn(lines):
        return None
    title = f"training pairs ({scale})"
    panel = figures.Panel(title, drawn(lines), "step", "mutual information in nats")
    return figures.Plot("lines", (panel,))


def with_effects() -> dict[str, list[Claim]]:
    """The claims in each plot of effects, by its file name: those of a paper, but textures apart,
    whose measures no other claim has."""
    found: dict[str, list[Claim]] = {}
    apart = textures()
    for claim in claims():
        name = f"results-effects-{claim.title[0].lower()}"
        found.setdefault("results-textures" if claim == apart else name, []).append(claim)
    return found


def losses_plot(results: Results) -> figures.Plot | None:
    panels = []
    for name in CURVES:
        scale = scale_of(results, (name,))
        curves = tuple(
            (f"seed {seed}", tuple(curve_points(result)))
            for seed, result in results.get((name, scale), {}).items()
        )
        if curves:
            panels.append(figures.Panel(f"{name} ({scale})", curves))
    return figures.Plot("losses", tuple(panels)) if panels else None


def curve_points(result: Result) -> Iterable[tuple[float, tuple[float, ...]]]:
    curve, steps = result["loss_curve"], result["schedule"]["steps"]
    for index, value in enumerate(curve):
        yield round((index + 0.5) * steps / len(curve), 1), (value,)


def first_steps_plot(first_steps: Sequence[Steps]) -> figures.Plot | None:
    by_recipe = {steps["recipe"]: steps for steps in first_steps}
    panels = tuple(
        figures.Panel(
            name,
            tuple(
                (backend, tuple((float(step), (loss,)) for step, loss in enumerate(losses)))
                for backend, losses in by_recipe[name]["losses"].items()
            ),
        )
        for name in FIRST_STEPS
        if name in by_recipe
    )
    return figures.Plot("frameworks", panels) if panels else None


def effects_plot(results: Results, shown: Iterable[Claim]) -> figures.Plot | None:
    """The differences in claims that their paper prints too, a panel per measure.

    Measures that are printed for one or two differences share a panel, with rows of their own.
    """
    # By measure, difference and line.
    found: dict[str, dict[tuple[Row, ...], dict[str, tuple[float, ...]]]] = {}
    labels: dict[tuple[Row, ...], str] = {}
    for claim in shown:
        for of, minus in claim.effects.pairs:
            pair = tuple(replace(one, label="", paper=None) for one in (of, minus))
            # Two claims may show the same difference; the longer label says more.
            label = difference(of, minus).replace(ELSEWHERE, "*")
            labels[pair] = max(labels.get(pair, ""), label, key=len)
            for measure, paper in printed_differences(of, minus).items():
                ours = {scale: differences(results, scale, of, minus, measure) for scale in SCALES}
                if any(ours.values()):
                    found.setdefault(measure, {})[pair] = {"paper": (paper,)} | {
                        heading(scale): tuple(seeds.values()) for scale, seeds in ours.items()
                    }
    places: dict[str, int] = {}
    panels: dict[str, dict[str, list[tuple[float, tuple[float, ...]]]]] = {}
    for measure, rows in found.items():
        few = len(rows) < 3
        lines = panels.setdefault("the measure named" if few else NAMES[measure], {})
        for pair, by_line in rows.items():
            label = f"{labels[pair]}: {NAMES[measure]}" if few else labels[pair]
            place = places.setdefault(label, len(places))
            for name, seeds in by_line.items():
                if seeds:
                    lines.setdefault(name, []).append((place, seeds))
    drawn = tuple(
        figures.Panel(title, tuple((name, tuple(points)) for name, points in lines.items()))
        for title, lines in panels.items()
    )
    return figures.Plot("effects", drawn, tuple(places)) if drawn else None
