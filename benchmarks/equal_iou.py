"""Real saliency maps of equal IoU whose weighted F differs, as in Figures 1 and 6 of W.

`python -m benchmarks.equal_iou` compares the maps of every two detectors of each image of ECSSD and
writes `results/benchmarks/equal_iou.json`.
"""

import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import tyro
from tqdm import tqdm

from benchmarks.fbeta_versions import Array, maps_and_masks, mask_names
from benchmarks.options import RESULTS
from benchmarks.timing import commit, device_name, versions
from saliency_losses.torch import weighted_fbeta_score, weighted_fmeasure

DETECTORS = ("DRFI", "HS", "RC", "CHS", "IG", "SR", "MF_heuristic", "MF_supervised")
LEAST_IOU, EQUAL, CLEAREST, APART = 0.2, 0.05, 0.005, 0.2
"""Both maps reach the first IoU. Their IoU differs by less than the second (W §5.2), in the pairs
that are shown by at most the third. They are apart if the lower weighted F is at least the fourth
share below the higher one."""
Pair = dict[str, dict[str, float]]
"""IoU and weighted F of two maps of an image, by detector."""
MEASURES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "weighted_fbeta_score": weighted_fbeta_score,
    "weighted_fmeasure": weighted_fmeasure,
}


@dataclass(frozen=True)
class Options:
    """Search ECSSD for pairs of maps of equal IoU whose weighted F is 20 % apart."""

    data: Path = Path("data")
    """Folder with the archives ecssd.zip and ecssd_baselines.zip."""
    out: Path = RESULTS
    """Folder for equal_iou.json."""


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.equal_iou")
    read = zip(*(maps_and_masks(options.data, name) for name in DETECTORS), strict=True)
    with zipfile.ZipFile(options.data / "ecssd.zip") as masks:
        stems = [Path(name).stem for name in mask_names(masks)]
    images = {
        stem: pairs_of([one for one, _ in maps], maps[0][1])
        for stem, maps in zip(tqdm(stems, desc="images of ECSSD"), read, strict=True)
    }
    content = summary(images) | {
        "device": device_name("cpu"),
        "versions": versions(),
        "commit": commit(),
    }
    path = options.out / "equal_iou.json"
    partial = path.with_suffix(".partial.json")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
    print(f"Wrote {path}")


def pairs_of(maps: Sequence[Array], mask: Array) -> list[Pair]:
    """The pairs of maps of one image with nearly equal IoU, cut at 1/2."""
    cuts = [each >= 0.5 for each in maps]
    ious = [float((cut & mask).sum() / max((cut | mask).sum(), 1)) for cut in cuts]
    equal = [
        (i, j)
        for i, j in combinations(range(len(maps)), 2)
        if min(ious[i], ious[j]) >= LEAST_IOU and abs(ious[i] - ious[j]) < EQUAL
    ]
    target = torch.from_numpy(mask)[None, None]
    values = {
        i: {"iou": ious[i]}
        | {
            name: measure(torch.from_numpy(cuts[i].astype(float))[None, None], target).item()
            for name, measure in MEASURES.items()
        }
        for i in sorted({place for pair in equal for place in pair})
    }
    return [{DETECTORS[place]: values[place] for place in pair} for pair in equal]


def summary(images: Mapping[str, Sequence[Pair]]) -> dict[str, Any]:
    """Numbers of pairs, and for each measure the pair of equal IoU in which it differs most.

    images: The pairs of each image, by its name.
    """
    every = [(stem, pair) for stem, pairs in images.items() for pair in pairs]
    found: dict[str, Any] = {}
    for measure in MEASURES:
        alike = [(stem, pair) for stem, pair in every if abs(difference(pair, "iou")) <= CLEAREST]
        stem, clearest = max(alike, key=lambda each: gap(each[1], measure))
        found[measure] = {
            "apart": sum(gap(pair, measure) >= APART for _, pair in every),
            "image": stem,
            "maps": {
                detector: {name: round(value, 3) for name, value in values.items()}
                for detector, values in clearest.items()
            },
        }
    return {"images": len(images), "pairs_of_equal_iou": len(every), "found": found}


def difference(pair: Pair, measure: str) -> float:
    first, second = (values[measure] for values in pair.values())
    return first - second


def gap(pair: Pair, measure: str) -> float:
    """The share by which the lower value lies below the higher one."""
    highest = max(values[measure] for values in pair.values())
    return abs(difference(pair, measure)) / highest if highest > 0 else 0.0


if __name__ == "__main__":
    main()
