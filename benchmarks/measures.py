"""Measures of saliency maps, compared with the field's evaluation program on real maps.

`python -m benchmarks.measures` measures all detectors' maps of ECSSD by `saliency_measures` and by
pysodmetrics, and writes `results/benchmarks/measures.csv`.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from py_sod_metrics import (
    MAE,
    Emeasure,
    FmeasureHandler,
    FmeasureV2,
    Smeasure,
    WeightedFmeasure,
)
from tqdm import tqdm

from benchmarks.fbeta_versions import maps_and_masks
from benchmarks.options import RESULTS
from benchmarks.timing import Recorder
from saliency_losses.torch import measures

Array = NDArray[Any]
DETECTORS = ("DRFI", "RC", "HS", "CHS", "MF_supervised", "MF_heuristic", "IG", "SR")


@dataclass(frozen=True)
class Options:
    """Compare the measures with pysodmetrics on ECSSD."""

    data: Path = Path("data")
    """Folder with the archives ecssd.zip and ecssd_baselines.zip."""
    images: int | None = None
    """Number of images of each detector. Default: all."""
    out: Path = RESULTS
    """Folder for measures.csv."""


@dataclass(frozen=True)
class Row:
    detector: str
    measure: str
    dtype: str
    ours: float
    program: float
    largest_difference: float
    images: int


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.measures")
    torch.set_num_threads(1)
    with Recorder(options.out, "measures", Row) as recorder:
        for detector in DETECTORS:
            pairs = islice(maps_and_masks(options.data, detector), options.images)
            results = [compared(*pair) for pair in tqdm(list(pairs), desc=detector)]
            for key in results[0]:
                values = np.array([result[key] for result in results])
                ours, program = map(float, values[:, :2].mean(axis=0))
                largest = float(values[:, 2].max())
                recorder.add(Row(detector, *key, ours, program, largest, len(values)))
    print(f"Wrote {recorder.path}")


def compared(values: Array, mask: Array) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Our value, the program's and the difference, by measure and dtype, for one map.

    Of a curve, the values are means and the difference is the largest.
    """
    theirs = program(values, mask)
    results = {}
    for dtype in (torch.float64, torch.float32):
        measured = ours(values, mask, dtype)
        name = str(dtype).removeprefix("torch.")
        for measure, expected in theirs.items():
            difference = float(np.abs(measured[measure] - expected).max())
            means = float(np.mean(measured[measure])), float(np.mean(expected))
            results[measure, name] = (*means, difference)
    return results


OURS = {
    "MAE": "mae",
    "F, adaptive": "f",
    "F, curve": "f_curve",
    "E, adaptive": "e",
    "E, curve": "e_curve",
    "S": "s",
    "weighted F": "weighted_f",
}


def ours(values: Array, mask: Array, dtype: torch.dtype) -> dict[str, Array]:
    maps = torch.from_numpy(values).to(dtype)[None, None], torch.from_numpy(mask)[None, None]
    found = measures.saliency_measures(*maps, names=tuple(OURS.values()))
    return {label: found[name].numpy() for label, name in OURS.items()}


def program(values: Array, mask: Array) -> dict[str, Array]:
    """The curves of pysodmetrics begin at the highest threshold."""
    f, e, weighted = FmeasureHandler(True, True, beta=0.3), Emeasure(), WeightedFmeasure(beta=1)
    FmeasureV2({"f": f}).step(values, mask, normalize=False)
    for measure in (e, weighted):
        measure.step(values, mask, normalize=False)
    return {
        "MAE": np.asarray(MAE().cal_mae(values, mask)),
        "F, adaptive": np.asarray(f.adaptive_results[0]),
        "F, curve": np.flip(f.dynamic_results[0]),
        "E, adaptive": np.asarray(e.adaptive_ems[0]),
        "E, curve": np.flip(e.changeable_ems[0]),
        "S": np.asarray(Smeasure().cal_sm(values, mask)),
        "weighted F": np.asarray(weighted.get_results()["wfm"]),
    }


if __name__ == "__main__":
    main()
