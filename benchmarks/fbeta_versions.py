"""How the weighted F-beta loss, its measure and the field's program differ on real maps.

``python -m benchmarks.fbeta_versions --data ../shared/data`` scores detectors' maps on ECSSD
(ecssd.zip, ecssd_baselines.zip) and writes results/benchmarks/fbeta_versions.csv.
"""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, pi, sqrt
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from py_sod_metrics import WeightedFmeasure
from scipy.ndimage import correlate1d
from tqdm import tqdm

from benchmarks.options import RESULTS
from benchmarks.timing import commit, device_name, versions
from saliency_losses.torch import weighted_fbeta_score, weighted_fmeasure

DETECTORS = ("DRFI", "RC", "HS")
DIFFERENCE = "the last two apart, at most"


@dataclass(frozen=True)
class Options:
    """Compare the versions of the weighted F-beta measure on ECSSD."""

    data: Path
    """The folder with ecssd.zip and ecssd_baselines.zip."""
    out: Path = RESULTS
    """Where fbeta_versions.csv goes."""
    images: int = 1000
    """How many images, the first by name."""


def main() -> None:
    options = tyro.cli(Options, description=Options.__doc__)
    path = options.out / "fbeta_versions.csv"
    partial = path.with_suffix(".partial.csv")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["detector", "quantity", "mean", "largest", "images", "device", "versions", "commit"]
        )
        for detector in DETECTORS:
            found = [
                quantities(prediction, mask)
                for prediction, mask in tqdm(
                    maps(options, detector), desc=detector, total=options.images
                )
            ]
            for name in found[0]:
                values = [one[name] for one in found]
                writer.writerow(
                    [
                        detector,
                        name,
                        f"{np.mean(values):.6f}",
                        f"{max(values):.6f}",
                        len(found),
                        device_name("cpu"),
                        versions(),
                        commit(),
                    ]
                )
    os.replace(partial, path)
    print(f"Written to {path}")


def maps(options: Options, detector: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A detector's maps in [0, 1] and the boolean masks."""
    with (
        zipfile.ZipFile(options.data / "ecssd.zip") as masks,
        zipfile.ZipFile(options.data / "ecssd_baselines.zip") as baselines,
    ):
        names = sorted(
            name for name in masks.namelist() if name.startswith("masks/") and name.endswith(".png")
        )
        for name in names[: options.images]:
            mask = Image.open(io.BytesIO(masks.read(name))).convert("1")
            stored = baselines.read(f"{detector}/{Path(name).stem}.webp")
            grey = Image.open(io.BytesIO(stored)).convert("L")
            yield np.asarray(grey, np.float64) / 255, np.array(mask)


def quantities(prediction: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The versions of F_1^w, and where the matrix A acts."""
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
        "AE < E": lowered(error, mask, unit=False),
        "AE < E, unit kernel": lowered(error, mask, unit=True),
    }


def lowered(error: np.ndarray, mask: np.ndarray, *, unit: bool) -> float:
    """The share of the foreground at which min(AE, E) is AE, at θ = 9."""
    sigma = 9 / 4
    taps = np.array([exp(-(k**2) / (2 * sigma**2)) for k in range(-9, 10)])
    constant = taps.sum() if unit else sqrt(sqrt(2 * pi) * sigma)
    spread = error
    for axis in (0, 1):
        spread = correlate1d(spread, taps / constant, axis, mode="constant")
    return float((spread < error)[mask].mean())


if __name__ == "__main__":
    main()
