"""Bundled weights: those of finished runs in half precision, for reference_models/weights.

`python -m reference_models.reproduction.publish_weights RUN_FOLDER…` writes them, and a README with
the training data and measures of each model.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from reference_models import paths
from reference_models.command_line import command, parse
from reference_models.errors import InputError
from reference_models.files import (
    Arrays,
    atomic_path,
    read_about,
    read_arrays,
    sha256_of,
    write_arrays,
)
from reference_models.measures.saliency import LABELS
from reference_models.measures.segmentation import NAMES as SEGMENTATION
from reference_models.networks.options import BLOCKS
from reference_models.options import find_backbone
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import SETS
from reference_models.training.trained import default_model, main_measures, results_file

MAX_FILE_BYTES, MAX_TOTAL_BYTES = 5_000_000, 16_000_000
SHOWN = ("mae", "max_f", "f", "weighted_f", *SEGMENTATION)

HEAD = """\
# Weights

Weights in half precision, written by `python -m reference_models.reproduction.publish_weights
RUN_FOLDER…` and used by `python -m reference_models.predict IMAGE… --model NAME`. Default: the
model with the highest weighted F among those that need no prior map; models of medium scale are
preferred to those of small scale.

{table}

{backbones}## Terms

The licence of the code does not cover these files. They were trained on data sets for research
use: {sets}. The images and masks of these sets belong to their authors; see the papers of the sets
for the terms of use. The networks build on MobileNetV2's ImageNet weights, which are under
Apache-2.0, from google-coral/test_data on GitHub (`mobilenet_v2_1.0_224_quant.tflite`), converted
to half precision, without the classifier.
"""


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER…")],
) -> None:
    """Convert the weights of finished runs to half precision for reference_models/weights.

    Args:
        runs: Run folders with results in results/runs.
    """
    with command():
        for run in runs:
            file = pack(run)
            print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
        write_readme()


def pack(run: Path) -> Path:
    """Write the weights of one run; those of a frozen backbone go to a file of their own."""
    weights, record = run / "weights.safetensors", run / "run.json"
    for file in (weights, record):
        if not file.is_file():
            raise InputError(
                f"{run} is not a finished run: {file.name} is missing; pass the folder of a "
                "finished run"
            )
    report = json.loads(record.read_text(encoding="utf-8"))
    recipe = report["recipe"]
    results = results_file(report)
    if not results.is_file():
        raise InputError(
            f"{run} has no results in {results}; only such runs can be published, so run the "
            "unmodified recipe"
        )
    published = json.loads(results.read_text(encoding="utf-8"))
    if published["weights_sha256"] != report["weights_sha256"]:
        raise InputError(
            f"{results} does not belong to {run}: their weights differ; pass the folder of the run "
            "that wrote these results"
        )
    about = read_about(weights) | {"commit": report["commit"]}
    arrays = half(read_arrays(weights))
    paths.WEIGHTS.mkdir(exist_ok=True)
    backbone = (about["schedule"]["backbone"] or {}).get("name")
    if backbone is not None and not any(name.startswith("backbone.") for name in arrays):
        about |= {"backbone_sha256": sha256_of(pack_backbone(backbone))}
    return write_checked(paths.WEIGHTS / f"{recipe}.safetensors", arrays, about)


def pack_backbone(name: str) -> Path:
    """Write the weights of a frozen backbone, up to the last block that networks use."""
    if name not in BLOCKS:
        raise InputError(f"backbone {name} is unknown; must be one of {', '.join(BLOCKS)}")
    target = paths.WEIGHTS / f"{name}.fp16.safetensors"
    if target.is_file():
        return target
    arrays = read_arrays(find_backbone(name, paths.DATA))
    last = BLOCKS[name][-1]
    up_to_last = {
        key: array
        for key, array in arrays.items()
        if key.startswith("features.") and int(key.split(".")[1]) <= last
    }
    return write_checked(target, half(up_to_last), {"backbone": name})


def half(arrays: Arrays) -> Arrays:
    """Convert float32 arrays to float16."""
    for name, array in arrays.items():
        highest = np.abs(array).max(initial=0)
        if not highest <= np.finfo(np.float16).max:
            raise InputError(
                f"{name} has values up to {highest:g}, beyond half precision; publish another run"
            )
    return {
        name: array.astype(np.float16) if array.dtype == np.float32 else array
        for name, array in arrays.items()
    }


def write_checked(path: Path, arrays: Arrays, about: dict[str, Any]) -> Path:
    """Write a weights file if it and the folder stay within their size limits."""
    size = sum(array.nbytes for array in arrays.values())
    others = sum(f.stat().st_size for f in paths.WEIGHTS.glob("*.safetensors") if f != path)
    if size > MAX_FILE_BYTES:
        raise InputError(
            f"{path.name} would take {size / 1e6:.1f} MB, at most {MAX_FILE_BYTES / 1e6:.0f} are "
            "allowed; choose a smaller network"
        )
    if size + others > MAX_TOTAL_BYTES:
        raise InputError(
            f"with {path.name} all weights would take {(size + others) / 1e6:.1f} MB, at most "
            f"{MAX_TOTAL_BYTES / 1e6:.0f} are allowed; first delete another file in "
            f"{paths.WEIGHTS}"
        )
    write_arrays(path, arrays, about)
    return path


def write_readme() -> None:
    """Write the README from the weights files and their results."""
    lines, sets, backbones, default = [], set(), [], default_model()
    for path in sorted(paths.WEIGHTS.glob("*.safetensors")):
        about, size = read_about(path), f"{path.stat().st_size / 1e6:.2f} MB"
        digest = sha256_of(path)[:12]
        if "recipe" not in about:
            backbones.append(
                f"`{path.name}` ({size}, sha256 {digest}…) holds the frozen backbone that the "
                "models without a fine-tuned one share.\n\n"
            )
            continue
        results = results_file(about)
        if not results.is_file():
            raise InputError(f"{path} has no results in {results}; publish its run again")
        published = json.loads(results.read_text(encoding="utf-8"))
        recipe = RECIPES[about["recipe"]]
        trained_on = recipe.tests[0] if recipe.learns_on_tests else recipe.train
        sets.add(SETS[trained_on])
        mark = " (default)" * (path.stem == default)
        lines.append(
            f"| `{path.stem}`{mark} | {SETS[trained_on]}, {published['images']['train']} images | "
            f"{recipe.about} | {about['scale']}, seed {about['seed']} | "
            f"{measures_text(published)} | {str(published['commit'])[:10]} | {size} |"
        )
    table = "\n".join(
        (
            "| model | trained on | learnt from | scale | measures of this run | commit | size |",
            "|---|---|---|---|---|---|---|",
            *lines,
        )
    )
    text = HEAD.format(table=table, backbones="".join(backbones), sets=", ".join(sorted(sets)))
    with atomic_path(paths.WEIGHTS / "README.md") as partial:
        partial.write_text(text, encoding="utf-8")


def measures_text(results: dict[str, Any]) -> str:
    """The measures of the main map on the first test set."""
    test, row = main_measures(results)
    values = (f"{LABELS.get(m, m.replace('_', ' '))} {row[m]:.3f}" for m in SHOWN if m in row)
    return f"{test}: {', '.join(values)}"


if __name__ == "__main__":
    parse(main, "reproduction.publish_weights")
