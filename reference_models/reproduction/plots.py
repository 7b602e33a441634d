"""Plots of the report: their data, from the results."""

from collections.abc import Iterable, Sequence

from reference_models.papers.menet import DISTORTED
from reference_models.papers.recipes import claims
from reference_models.papers.schema import ScaleName, row
from reference_models.reproduction.first_steps import Steps
from reference_models.reproduction.results import (
    SCALES,
    Result,
    Results,
    differences,
    printed_differences,
    values,
)
from reference_models.reproduction.verdicts import NAMES, difference
from reference_models.training import figures

CAPTIONS = {
    "results-effects": "Change of the measures by each loss, here and in its paper",
    "results-noise": "F against the variance of the noise, by each loss and map",
    "results-losses": "Training loss of one recipe per kind of loss",
    "results-frameworks": "Training loss of the first steps in PyTorch and JAX from equal weights",
}
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


def scale_of(results: Results, recipes: Iterable[str]) -> ScaleName:
    """The larger scale at which all of the recipes have run."""
    return "medium" if all((name, "medium") in results for name in recipes) else "small"


def plots(results: Results, first_steps: Sequence[Steps]) -> dict[str, figures.Plot]:
    """The plots that have results, by file name."""
    all_plots = {
        "results-effects": effects_plot(results),
        "results-noise": noise_plot(results),
        "results-losses": losses_plot(results),
        "results-frameworks": first_steps_plot(first_steps),
    }
    return {name: plot for name, plot in all_plots.items() if plot is not None}


def noise_plot(results: Results) -> figures.Plot | None:
    panels = []
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
        lines = []
        for label, (recipe, name) in maps.items():
            f = {x: values(results, scale, row(recipe, t, map=name), "f") for x, t in tests.items()}
            points = tuple((x, tuple(seeds.values())) for x, seeds in f.items() if seeds)
            if points:
                lines.append((label, points))
        if lines:
            panels.append((f"{title} ({scale})", tuple(lines)))
    return figures.Plot("noise", tuple(panels)) if panels else None


def losses_plot(results: Results) -> figures.Plot | None:
    panels = []
    for name in CURVES:
        scale = scale_of(results, (name,))
        curves = tuple(
            (f"seed {seed}", tuple(curve_points(result)))
            for seed, result in results.get((name, scale), {}).items()
        )
        if curves:
            panels.append((f"{name} ({scale})", curves))
    return figures.Plot("losses", tuple(panels)) if panels else None


def curve_points(result: Result) -> Iterable[tuple[float, tuple[float, ...]]]:
    curve, steps = result["loss_curve"], result["schedule"]["steps"]
    for index, value in enumerate(curve):
        yield round((index + 0.5) * steps / len(curve), 1), (value,)


def first_steps_plot(first_steps: Sequence[Steps]) -> figures.Plot | None:
    by_recipe = {steps["recipe"]: steps for steps in first_steps}
    panels = tuple(
        (
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


def effects_plot(results: Results) -> figures.Plot | None:
    """The differences between rows that a paper prints too."""
    lines: dict[str, list[tuple[float, tuple[float, ...]]]] = {
        "paper": [],
        "medium": [],
        "small": [],
    }
    labels: list[str] = []
    for claim in claims():
        for of, minus in claim.effects.pairs:
            for measure, paper in printed_differences(of, minus).items():
                ours = {scale: differences(results, scale, of, minus, measure) for scale in SCALES}
                if not any(ours.values()):
                    continue
                position = float(len(labels))
                labels.append(f"{difference(of, minus)}: {NAMES[measure]}")
                lines["paper"].append((position, (paper,)))
                for scale, by_seed in ours.items():
                    if by_seed:
                        lines[scale].append((position, tuple(by_seed.values())))
    if not labels:
        return None
    panel = ("\n".join(labels), tuple((name, tuple(points)) for name, points in lines.items()))
    return figures.Plot("effects", (panel,))
