"""Measures of every test image and map of a run, in a compressed file beside its results.

The file holds values in thousandths, and F only at those of the 256 thresholds that matter for the
maximum of its mean, so that the largest run takes a few hundred kilobytes.
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
OFFSETS = np.array([0, *(sign * 2**k for k in range(8) for sign in (-1, 1))])
"""The thresholds that are kept, relative to the one at which the mean curve is highest."""
SHARE_UNIT = 0.0001
MEASURES_FROM_PRIORS = ("mae", "f", "max_f")
"""The measures that are kept for tests that start from priors. These tests have many maps for each
of many priors, and no claim is about their weighted F, S, E or AUROC."""
MAX_F_FROM_PRIORS = 3
"""The number of maps of such a test whose max F is kept, which takes more room than the rest: the
prior, the prior cut at ½, and the network's main map."""


class Each(NamedTuple):
    """The measures of every image of a test."""

    stems: tuple[str, ...]
    measures: tuple[str, ...]
    maps: Mapping[str, Sequence[Mapping[str, Any]]]
    """By map, a row per stem. A measure that is not defined for an image is missing in its row."""
    object_share: tuple[float, ...] | None = None
    """Share of the counted pixels of each mask that are object; None for label maps."""


@dataclass(frozen=True)
class Measured:
    """The measures of one map of a run on the N images of a test, as read from the file."""

    stems: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    """By measure, `(N, K)`. K is 1, except for "max_f", which holds F at K thresholds. NaN marks
    values that are not defined."""
    object_share: np.ndarray | None = None
    """Share of the pixels of each mask that are object, `(N,)`; None if the file lacks it."""

    def mean(self, measure: str, images: Sequence[int] | slice | np.ndarray = slice(None)) -> float:
        """The mean over the images, or the highest point of the mean curve."""
        return float(np.nanmean(self.values[measure][images], axis=0).max())

    def take(self, images: np.ndarray) -> "Measured":
        """The measures of the images at these indices, in that order."""
        return Measured(
            tuple(self.stems[image] for image in images),
            {measure: values[images] for measure, values in self.values.items()},
            None if self.object_share is None else self.object_share[images],
        )


PerImage = dict[str, dict[str, Measured]]
"""By test set (with its corruption or prior), then by map."""


def beside(results: Path) -> Path:
    """The path of the file of measures beside a results file."""
    return results.with_name(results.stem + ENDING)


def write(path: Path, tests: Mapping[str, Each], started: bool = False) -> None:
    """Write the file of measures; equal measures give equal bytes.

    started: The tests start from priors, so only `MEASURES_FROM_PRIORS` are kept.
    """
    content = {
        "unit": UNIT,
        "tests": {
            test: {
                "stems": each.stems,
                **pack_shares(each.object_share),
                "maps": {
                    name: pack(rows, measures_from_priors(place) if started else each.measures)
                    for place, (name, rows) in enumerate(each.maps.items())
                },
            }
            for test, each in tests.items()
        },
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    with atomic_path(path) as partial:
        partial.write_bytes(bz2.compress(text.encode()))


def measures_from_priors(place: int) -> tuple[str, ...]:
    """The measures kept for one map of a test that starts from priors. place: 0 for the first."""
    keep = place < MAX_F_FROM_PRIORS
    return tuple(name for name in MEASURES_FROM_PRIORS if keep or name != "max_f")


def pack_shares(shares: Sequence[float] | None) -> dict[str, list[int]]:
    """The shares of object pixels as whole multiples of `SHARE_UNIT`, if there are any."""
    return {} if shares is None else {"object_share": [round(x / SHARE_UNIT) for x in shares]}


def pack(rows: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> dict[str, Any]:
    """By measure, an integer per image, or None if the measure is not defined; see `pack_curve`."""
    packed: dict[str, Any] = {}
    for measure in measures:
        column = [row.get(measure) for row in rows]
        curve = np.mean([value for value in column if value is not None], axis=0)
        if measure == "max_f":
            packed[measure] = pack_curve(column, int(curve.argmax()))
        else:
            # An E curve is kept only at the threshold at which its mean is highest.
            highest = curve.argmax()
            packed[measure] = [
                None if value is None else thousandths(np.ravel(value)[highest]) for value in column
            ]
    return packed


def pack_curve(column: Sequence[Any], best: int) -> dict[str, Any]:
    """F at thresholds that are dense around the best one and sparse away from it.

    For each image: F at the highest threshold, then the changes from threshold to threshold.
    """
    places = np.unique(np.clip(best + OFFSETS, 0, 255))
    return {
        "thresholds": (255 - places).tolist(),
        "changes": [
            None if curve is None else np.diff(thousandths(curve[places]), prepend=0).tolist()
            for curve in column
        ],
    }


def thousandths(value: Any) -> Any:
    """A value, or a list of values, as whole multiples of `UNIT`."""
    return np.rint(value / UNIT).astype(int).tolist()


def read(path: Path) -> PerImage:
    """The measures of every image of a run, read from its file."""
    try:
        content = json.loads(bz2.decompress(path.read_bytes()))
        unit = content["unit"]
        return {
            test: {
                name: Measured(
                    tuple(images["stems"]),
                    {
                        measure: unpack(packed, unit, len(images["stems"]))
                        for measure, packed in columns.items()
                    },
                    unpack_shares(images),
                )
                for name, columns in images["maps"].items()
            }
            for test, images in content["tests"].items()
        }
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} does not hold the measures of a run's test images ({error!r}); restore it "
            "from the repository, or delete the run's results and train it again"
        ) from None


def unpack_shares(images: Mapping[str, Any]) -> np.ndarray | None:
    """The shares `(N,)` of object pixels of a test; None in files written before they were kept."""
    if "object_share" not in images:
        return None
    if len(images["object_share"]) != len(images["stems"]):
        raise ValueError("a share of object pixels is missing")
    return SHARE_UNIT * np.array(images["object_share"])


def unpack(packed: Any, unit: float, images: int) -> np.ndarray:
    """The values `(N, K)` of a measure, as in `Measured`."""
    is_curve = isinstance(packed, dict)
    column = packed["changes"] if is_curve else packed
    if len(column) != images:
        raise ValueError(f"{len(column)} values for {images} images")
    values = np.full((images, len(packed["thresholds"]) if is_curve else 1), np.nan)
    defined = [row is not None for row in column]
    if any(defined):
        changes = np.array([row for row in column if row is not None])
        values[defined] = changes.reshape(sum(defined), -1).cumsum(axis=1)
    return unit * values
