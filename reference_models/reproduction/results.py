"""Results files, and the values and differences that the report takes from them."""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from reference_models.errors import InputError
from reference_models.measures import per_image
from reference_models.measures.per_image import Measured, PerImage
from reference_models.papers.recipes import RECIPES, claims
from reference_models.papers.schema import PRIORS, THIRDS, Figures, Row, ScaleName
from reference_models.reproduction.markdown_tables import short

SCALES: tuple[ScaleName, ...] = ("paper", "medium", "small")
EachImage = dict[tuple[str, str], dict[int, Callable[[], PerImage]]]
"""Measures per test image, by recipe and scale, then by seed; read when first called."""
Result = dict[str, Any]
Results = dict[tuple[str, str], dict[int, Result]]
"""Results files by recipe and scale, then by seed."""


def heading(scale: str) -> str:
    """The name of a scale in a table that has a column of the papers' own figures, "paper"."""
    return "paper scale" if scale == "paper" else scale


def read(folder: Path, backend: str = "torch") -> Results:
    """Read the results of one framework's runs."""
    results: Results = {}
    for file in sorted(folder.glob("*.json")):
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
            key, seed = (result["recipe"], result["scale"]), result["seed"]
            framework = result["backend"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file} is not a results file of `python -m reference_models.train` ({error!r}); "
                "move it elsewhere"
            ) from None
        if key[0] not in RECIPES:
            raise InputError(
                f"{file}: the recipe {key[0]!r} no longer exists; move the file elsewhere"
            )
        if framework == backend:
            results.setdefault(key, {})[seed] = result
    return {key: dict(sorted(seeds.items())) for key, seeds in results.items()}


def scales_run(results: Results) -> list[ScaleName]:
    return [scale for scale in SCALES if of_scale(results, scale)]


def of_all(results: Results) -> list[Result]:
    return [result for seeds in results.values() for result in seeds.values()]


def of_scale(results: Results, scale: str) -> list[Result]:
    return [run for run in of_all(results) if run["scale"] == scale]


def provenance(runs: Sequence[Result]) -> str:
    """Devices and commits of runs."""
    parts = [part for run in runs for part in (run, *run.get("earlier", ()))]
    devices = sorted({part["device"] for part in parts})
    commits = sorted({short(str(part["commit"])) for part in parts})
    return f"device {', '.join(devices)}; commit {', '.join(commits)}"


def values(results: Results, scale: str, of: Row, measure: str) -> dict[int, float]:
    """A row's value of a measure, by seed."""
    by_seed = {}
    for seed, result in results.get((of.recipe, scale), {}).items():
        maps = result["measures"].get(of.test, {})
        main = next((name for name in maps if name not in PRIORS), None)
        name = of.map or main
        if name in maps and measure in maps[name]:
            by_seed[seed] = maps[name][measure]
    return by_seed


def differences(
    results: Results, scale: str, of: Row, minus: Row | None, measure: str
) -> dict[int, float]:
    """Differences of two rows, paired by seed; without a second row, the values of the first.

    Seeds whose two runs were measured on unequal numbers of images are left out.
    """
    first = values(results, scale, of, measure)
    if minus is None:
        return first
    second = values(results, scale, minus, measure)
    runs = [results.get((one.recipe, scale), {}) for one in (of, minus)]
    name = of.test.partition(", ")[0]
    counts = {
        seed: [run[seed]["images"].get(name) for run in runs] for seed in first if seed in second
    }
    return {seed: first[seed] - second[seed] for seed, (a, b) in counts.items() if a == b}


def mean_curves(results: Results, scale: str, of: Row) -> tuple[np.ndarray, np.ndarray] | None:
    """A row's precision and recall at the stored thresholds, means over seeds; None if unknown."""
    found = []
    for result in results.get((of.recipe, scale), {}).values():
        maps = result.get("curves", {}).get(of.test, {})
        name = of.map or next((name for name in maps if name not in PRIORS), None)
        if name in maps:
            found.append((maps[name]["precision"], maps[name]["recall"]))
    if not found:
        return None
    precision, recall = np.mean(found, axis=0)
    return precision, recall


def printed(of: Row) -> Figures:
    """The figures that the paper prints for a row: the row's own, or those of its recipe."""
    paper = RECIPES[of.recipe].paper
    if of.paper is not None or paper is None or of.map is not None:
        return of.paper or {}
    return paper.figures.get(of.test, {})


def printed_differences(of: Row, minus: Row) -> Figures:
    """Differences of the figures that the paper prints for two rows, by measure."""
    first, second = printed(of), printed(minus)
    return {measure: first[measure] - second[measure] for measure in first if measure in second}


def per_image_files(folder: Path, results: Results) -> EachImage:
    """The measures per test image that runs wrote beside their results files."""
    readers: EachImage = {}
    for key, seeds in results.items():
        for seed, result in seeds.items():
            recipe, scale = key
            file = per_image.beside(folder / f"{recipe}-{result['backend']}-{scale}-{seed}.json")
            if file.is_file():
                readers.setdefault(key, {})[seed] = cache(partial(read_rows, file))
    return readers


def read_rows(file: Path) -> PerImage:
    """The measures per test image of a run, also by thirds of the images."""
    measured = per_image.read(file)
    for test, maps in list(measured.items()):
        for name, one in maps.items():
            if one.object_share is None:
                continue
            order = np.argsort(one.object_share, kind="stable")
            for third, images in zip(THIRDS, np.array_split(order, 3), strict=True):
                measured.setdefault(f"{test}, {third}", {})[name] = one.take(np.sort(images))
    return measured


def add_thirds(results: Results, rows: EachImage) -> None:
    """Add the means over thirds of the images to the results of recipes whose claims show them."""
    wanted = {
        (line.recipe, line.test)
        for claim in claims()
        for part in claim.tables
        for line in part.rows
        if line.test.endswith(THIRDS)
    }
    for recipe, test in sorted(wanted):
        for scale in SCALES:
            for seed, reader in rows.get((recipe, scale), {}).items():
                measures = results[recipe, scale][seed]["measures"]
                measures[test] = {
                    name: {measure: one.mean(measure) for measure in one.values}
                    for name, one in reader().get(test, {}).items()
                }


def rows_of(rows: EachImage, scale: str, of: Row, seeds: Iterable[int]) -> list[Measured]:
    """Measures per test image of a row, one item per seed; empty if any run lacks them."""
    measured = []
    for seed in seeds:
        read = rows.get((of.recipe, scale), {}).get(seed)
        maps = read().get(of.test, {}) if read else {}
        name = of.map or next((name for name in maps if name not in PRIORS), "")
        if name not in maps:
            return []
        measured.append(maps[name])
    return measured
