"""Results files, and the values and differences that the report draws from them."""

import json
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

from reference_models.errors import InputError
from reference_models.measures import per_image
from reference_models.measures.per_image import Measured, PerImage
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import PRIORS, Figures, Row, ScaleName

SCALES: tuple[ScaleName, ...] = ("medium", "small")
EachImage = dict[tuple[str, str], dict[int, Callable[[], PerImage]]]
"""The rows of test images by recipe and scale, then by seed; read at the first call."""
Result = dict[str, Any]
Results = dict[tuple[str, str], dict[int, Result]]
"""By recipe and scale, then by seed."""


def read(folder: Path, backend: str = "torch") -> Results:
    """The results of one framework's runs, by recipe, scale and seed."""
    found: Results = {}
    for file in sorted(folder.glob("*.json")):
        try:
            one = json.loads(file.read_text(encoding="utf-8"))
            key, seed, made_in = (one["recipe"], one["scale"]), one["seed"], one["backend"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file} is no results file of `python -m reference_models.train` ({error!r})"
            ) from None
        if key[0] not in RECIPES:
            raise InputError(f"{file} is of the recipe {key[0]!r}, which does not exist any more")
        if made_in == backend:
            found.setdefault(key, {})[seed] = one
    return {key: dict(sorted(seeds.items())) for key, seeds in found.items()}


def values(results: Results, scale: str, of: Row, measure: str) -> dict[int, float]:
    """By seed."""
    found = {}
    for seed, result in results.get((of.recipe, scale), {}).items():
        maps = result["measures"].get(of.test, {})
        main = next((name for name in maps if name not in PRIORS), None)
        name = of.map or main
        if name in maps and measure in maps[name]:
            found[seed] = maps[name][measure]
    return found


def differences(
    results: Results, scale: str, of: Row, minus: Row | None, measure: str
) -> dict[int, float]:
    """Paired by seed; without a second row the first one's values."""
    first = values(results, scale, of, measure)
    if minus is None:
        return first
    second = values(results, scale, minus, measure)
    return {seed: first[seed] - second[seed] for seed in first if seed in second}


def printed(of: Row) -> Figures:
    """The figures of the row's paper: its own, or those of its recipe for the main map."""
    paper = RECIPES[of.recipe].paper
    if of.paper is not None or paper is None or of.map is not None:
        return of.paper or {}
    return paper.figures.get(of.test, {})


def printed_differences(of: Row, minus: Row) -> Figures:
    """The paper's, by measure."""
    first, second = printed(of), printed(minus)
    return {measure: first[measure] - second[measure] for measure in first if measure in second}


def with_rows(folder: Path, results: Results) -> EachImage:
    """The runs that left the rows of their test images in the folder of the results."""
    found: EachImage = {}
    for key, seeds in results.items():
        for seed, result in seeds.items():
            recipe, scale = key
            file = per_image.beside(folder / f"{recipe}-{result['backend']}-{scale}-{seed}.json")
            if file.is_file():
                found.setdefault(key, {})[seed] = cache(partial(per_image.read, file))
    return found


def rows_of(rows: EachImage, scale: str, of: Row, seeds: Iterable[int]) -> list[Measured]:
    """The map that `values` takes, by seed; empty if any run has left no rows of it."""
    found = []
    for seed in seeds:
        read = rows.get((of.recipe, scale), {}).get(seed)
        maps = read()[of.test] if read else {}
        name = of.map or next((name for name in maps if name not in PRIORS), "")
        if name not in maps:
            return []
        found.append(maps[name])
    return found
