"""Versions of the weighted F-beta measure, compared on real saliency maps.

`python -m benchmarks.fbeta_versions` scores detectors' maps of ECSSD with the loss, the score,
`weighted_fmeasure` and the field's evaluation program, and writes
`results/benchmarks/fbeta_versions.csv`.
"""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from PIL import Image
from py_sod_metrics import WeightedFmeasure
from scipy.ndimage import correlate1d
from tqdm import tqdm

from benchmarks.options import RESULTS
from benchmarks.timing import Recorder
from saliency_losses.torch import weighted_fbeta_score, weighted_fmeasure

Array = NDArray[Any]
DETECTORS = ("DRFI", "RC", "HS")
DIFFERENCE = "largest difference of the last two"


@dataclass(frozen=True)
class Options:
    """Compare the versions of the weighted F-beta measure on ECSSD."""

    data: Path = Path("data")
    """Folder with the archives ecssd.zip and ecssd_baselines.zip."""
    out: Path = RESULTS
    """Folder for fbeta_versions.csv."""


@dataclass(frozen=True)
class Row:
    detector: str
    quantity: str
    mean: float
    largest: float
    images: int


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.fbeta_versions")
    with Recorder(options.out, "fbeta_versions", Row) as recorder:
        for detector in DETECTORS:
            pairs = tqdm(maps_and_masks(options.data, detector), desc=detector)
            results = [quantities(prediction, mask) for prediction, mask in pairs]
            for quantity in results[0]:
                values = [result[quantity] for result in results]
                recorder.add(
                    Row(detector, quantity, float(np.mean(values)), max(values), len(values))
                )
    print(f"Wrote {recorder.path}")


def maps_and_masks(data: Path, detector: str) -> Iterator[tuple[Array, Array]]:
    """The detector's maps in [0, 1], each with its boolean mask."""
    with (
        zipfile.ZipFile(data / "ecssd.zip") as masks,
        zipfile.ZipFile(data / "ecssd_baselines.zip") as baselines,
    ):
        for name in mask_names(masks):
            mask = Image.open(io.BytesIO(masks.read(name))).convert("1")
            stored = baselines.read(f"{detector}/{Path(name).stem}.webp")
            grey = Image.open(io.BytesIO(stored)).convert("L")
            yield np.asarray(grey, np.float64) / 255, np.array(mask)


def mask_names(masks: zipfile.ZipFile) -> list[str]:
    """The names of the masks in an archive, sorted."""
    names = masks.namelist()
    return sorted(name for name in names if name.startswith("masks/") and name.endswith(".png"))


def quantities(prediction: Array, mask: Array) -> dict[str, float]:
    """All versions of F_1^w for one map, and how often the matrix A lowers the error."""
    p, y = torch.from_numpy(prediction)[None, None], torch.from_numpy(mask)[None, None]
    program = WeightedFmeasure(beta=1)
    program.step(prediction, mask, normalize=False)
    published, ours = program.get_results()["wfm"], weighted_fmeasure(p, y).item()
    error = np.where(mask, (prediction - 1) ** 2, 0)
    return {
        "1 − loss": weighted_fbeta_score(p, y, error="squared", distance="window").item(),
        "1 − loss, unit kernel": weighted_fbeta_score(
            p, y, error="squared", distance="window", normalize_kernel=True
        ).item(),
        "score": weighted_fbeta_score(p, y).item(),
        "score, unit kernel": weighted_fbeta_score(p, y, normalize_kernel=True).item(),
        "weighted_fmeasure": ours,
        "evaluation program": published,
        DIFFERENCE: abs(ours - published),
        "AE < E": lowered_share(error, mask, unit_kernel=False),
        "AE < E, unit kernel": lowered_share(error, mask, unit_kernel=True),
    }


def lowered_share(error: Array, mask: Array, *, unit_kernel: bool) -> float:
    """The share of the foreground where min(AE, E) is AE, at θ = 9."""
    sigma = 9 / 4
    taps = np.array([exp(-(k**2) / (2 * sigma**2)) for k in range(-9, 10)])
    constant = taps.sum() if unit_kernel else sqrt(sqrt(2 * pi) * sigma)
    spread = error
    for axis in (0, 1):
        spread = correlate1d(spread, taps / constant, axis, mode="constant")
    return float((spread < error)[mask].mean())


if __name__ == "__main__":
    main()
