"""A row of measures per test image and map, in a compressed file beside each run's results.

The file holds values in thousandths and, of the F curve's 256 thresholds, those that matter to its
maximum, so that the largest run takes some hundred kilobytes.
"""

import bz2
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reference_models.errors import InputError
from reference_models.files import atomic_path

ENDING = ".images.json.bz2"
UNIT = 0.001
AWAY = np.array([0, *(sign * 2**k for k in range(8) for sign in (-1, 1))])
"""The points of a curve that are kept, counted from the highest point of its mean."""
STARTED = ("mae", "f", "max_f")
"""What is kept of tests that start from priors. They have four maps for each of up to seven priors;
weighted F, S, E and AUROC, for which no claim asks there, are dropped."""


class Each(NamedTuple):
    """Every image of a test, as it was measured."""

    stems: tuple[str, ...]
    measures: tuple[str, ...]
    maps: Mapping[str, Sequence[Mapping[str, Any]]]
    """By the name of the map, a row per stem, without the measures not defined for the image."""


@dataclass(frozen=True)
class Measured:
    """One map of a run on the N images of a test, as read from the file."""

    stems: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    """By measure `(N, K)`: K = 1, but for "max_f" F at K thresholds. NaN where not defined."""

    def mean(self, measure: str, images: Sequence[int] | slice = slice(None)) -> float:
        """Over all images or the chosen ones; of a curve, the highest point of its mean."""
        return float(np.nanmean(self.values[measure][images], axis=0).max())


PerImage = dict[str, dict[str, Measured]]
"""By test set (with its corruption or prior) and map."""


def beside(results: Path) -> Path:
    """The file that belongs to a results file."""
    return results.with_name(results.stem + ENDING)


def write(path: Path, tests: Mapping[str, Each], started: bool = False) -> None:
    """Equal rows give equal bytes. started: the tests start from priors, see `STARTED`."""
    content = {
        "unit": UNIT,
        "tests": {
            test: {
                "stems": each.stems,
                "maps": {
                    name: packed(rows, STARTED if started else each.measures)
                    for name, rows in each.maps.items()
                },
            }
            for test, each in tests.items()
        },
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    with atomic_path(path) as partial:
        partial.write_bytes(bz2.compress(text.encode()))


def packed(rows: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> dict[str, Any]:
    """By measure an integer per image, null where not defined; see also `packed_curve`."""
    found: dict[str, Any] = {}
    for measure in measures:
        column = [row.get(measure) for row in rows]
        curve = np.mean([value for value in column if value is not None], axis=0)
        if measure == "max_f":
            found[measure] = packed_curve(column, int(curve.argmax()))
        else:
            # An E curve is cut down to the one threshold at which its mean is highest.
            at = curve.argmax()
            found[measure] = [
                None if value is None else thousandths(np.ravel(value)[at]) for value in column
            ]
    return found


def packed_curve(column: Sequence[Any], best: int) -> dict[str, Any]:
    """F at thresholds that lie close together around the best one and further apart away from it.

    Each image has F at the highest threshold and then the changes from one to the next.
    """
    places = np.unique(np.clip(best + AWAY, 0, 255))
    return {
        "thresholds": (255 - places).tolist(),
        "changes": [
            None if curve is None else np.diff(thousandths(curve[places]), prepend=0).tolist()
            for curve in column
        ],
    }


def thousandths(value: Any) -> Any:
    return np.rint(value / UNIT).astype(int).tolist()


def read(path: Path) -> PerImage:
    """The rows of a run, by test and map."""
    try:
        content = json.loads(bz2.decompress(path.read_bytes()))
        unit = content["unit"]
        return {
            test: {
                name: Measured(
                    tuple(each["stems"]),
                    {
                        measure: unpacked(kept, unit, len(each["stems"]))
                        for measure, kept in columns.items()
                    },
                )
                for name, columns in each["maps"].items()
            }
            for test, each in content["tests"].items()
        }
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} does not hold the rows of a run's test images ({error!r}); restore it from "
            "the repository, or delete the run's results and train it again"
        ) from None


def unpacked(kept: Any, unit: float, images: int) -> np.ndarray:
    """`(N, K)`, see `Measured`."""
    curve = isinstance(kept, dict)
    column = kept["changes"] if curve else kept
    if len(column) != images:
        raise ValueError(f"{len(column)} rows of {images} images")
    values = np.full((images, len(kept["thresholds"]) if curve else 1), np.nan)
    there = [row is not None for row in column]
    if any(there):
        changes = np.array([row for row in column if row is not None])
        values[there] = changes.reshape(sum(there), -1).cumsum(axis=1)
    return unit * values
