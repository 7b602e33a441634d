"""The weights of finished runs, to be committed.

`python -m reference_models.reproduction.publish_weights RUN_FOLDER…` writes them.

They go to reference_models/weights in half precision, with a README of what each is worth.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from reference_models import paths
from reference_models.commands import command, parse
from reference_models.errors import InputError
from reference_models.files import Arrays, atomic_path, read_about, read_arrays, write_arrays
from reference_models.measures.saliency import LABELS
from reference_models.measures.segmentation import NAMES as SEGMENTATION
from reference_models.networks.options import BLOCKS
from reference_models.options import find_backbone
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import SETS
from reference_models.training.trained import default_model, main_measures, results_file

LARGEST, ALL = 5_000_000, 16_000_000
SHOWN = ("mae", "max_f", "f", "weighted_f", *SEGMENTATION)

HEAD = """\
# Weights

Written by `python -m reference_models.reproduction.publish_weights RUN_FOLDER…`; half precision,
read by `python -m reference_models.predict IMAGE… --model NAME`. Default: of the models
that need no prior map, the one with the highest weighted F; one of medium scale goes before any of
small scale.

{table}

{backbones}## Terms

The licence of the code does not cover these files. They were trained on research data sets, for
research use: {sets}. Images and masks of these sets belong to their authors and carry their own
rights; see the papers of the sets for what they allow. MobileNetV2's ImageNet weights, on which
the networks build, are Apache-2.0, from google-coral/test_data on GitHub
(`mobilenet_v2_1.0_224_quant.tflite`), converted to half precision, without classifier.
"""


def main(runs: Annotated[tuple[Path, ...], tyro.conf.Positional]) -> None:
    """Convert the weights of finished runs to half precision for reference_models/weights.

    Args:
        runs: Run folders whose results are in results/runs.
    """
    with command():
        for run in runs:
            file = pack(run)
            print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
        write_readme()


def pack(run: Path) -> Path:
    """The weights of one run, a fine-tuned backbone's with them, a frozen one's beside them."""
    there, record = run / "weights.safetensors", run / "run.json"
    for file in (there, record):
        if not file.is_file():
            raise InputError(f"{run} is no finished run: there is no {file.name}")
    report = json.loads(record.read_text(encoding="utf-8"))
    recipe = report["recipe"]
    results = results_file(report)
    if not results.is_file():
        raise InputError(f"{run} has no results in {results}; only such runs are packed")
    known = json.loads(results.read_text(encoding="utf-8"))
    if known["weights_sha256"] != report["weights_sha256"]:
        raise InputError(f"{results} is of other weights than {run}: another run of the same name")
    about = read_about(there) | {"commit": report["commit"]}
    arrays = half(read_arrays(there))
    paths.WEIGHTS.mkdir(exist_ok=True)
    backbone = (about["schedule"]["backbone"] or {}).get("name")
    if backbone is not None and not any(name.startswith("backbone.") for name in arrays):
        pack_backbone(backbone)
    return write_checked(paths.WEIGHTS / f"{recipe}.safetensors", arrays, about)


def pack_backbone(name: str) -> None:
    """A copy of a frozen backbone's weights up to its last block."""
    if name not in BLOCKS:
        raise InputError(f"weights of {name} are not packed, only those of {', '.join(BLOCKS)}")
    target = paths.WEIGHTS / f"{name}.fp16.safetensors"
    if target.is_file():
        return
    arrays = read_arrays(find_backbone(name, paths.DATA))
    last = BLOCKS[name][-1]
    kept = {
        key: array
        for key, array in arrays.items()
        if key.startswith("features.") and int(key.split(".")[1]) <= last
    }
    write_checked(target, half(kept), {"backbone": name})


def half(arrays: Arrays) -> Arrays:
    """float16 where it was float32."""
    for name, array in arrays.items():
        highest = np.abs(array).max(initial=0)
        if not highest <= np.finfo(np.float16).max:
            raise InputError(f"{name} has values beyond half precision, up to {highest:g}")
    return {
        name: array.astype(np.float16) if array.dtype == np.float32 else array
        for name, array in arrays.items()
    }


def write_checked(path: Path, arrays: Arrays, about: dict[str, Any]) -> Path:
    size = sum(array.nbytes for array in arrays.values())
    others = sum(f.stat().st_size for f in paths.WEIGHTS.glob("*.safetensors") if f != path)
    if size > LARGEST:
        raise InputError(f"{path.name} would take {size / 1e6:.1f} MB, at most {LARGEST / 1e6:.0f}")
    if size + others > ALL:
        raise InputError(
            f"with {path.name} all weights would take {(size + others) / 1e6:.1f} MB, at most "
            f"{ALL / 1e6:.0f}; take another out of {paths.WEIGHTS}"
        )
    write_arrays(path, arrays, about)
    return path


def write_readme() -> None:
    """From the files themselves and the results they come from."""
    lines, sets, backbones, default = [], set(), [], default_model()
    for path in sorted(paths.WEIGHTS.glob("*.safetensors")):
        about, size = read_about(path), f"{path.stat().st_size / 1e6:.2f} MB"
        digest = sha256(path.read_bytes()).hexdigest()[:12]
        if "recipe" not in about:
            backbones.append(
                f"`{path.name}` ({size}, sha256 {digest}…) holds the frozen backbone that those "
                "without one of their own share.\n\n"
            )
            continue
        results = results_file(about)
        if not results.is_file():
            raise InputError(f"{path} has no results in {results}; pack its run again")
        known = json.loads(results.read_text(encoding="utf-8"))
        recipe = RECIPES[about["recipe"]]
        trained_on = recipe.tests[0] if recipe.learns_on_tests else recipe.train
        sets.add(SETS[trained_on])
        mark = " (default)" * (path.stem == default)
        lines.append(
            f"| `{path.stem}`{mark} | {SETS[trained_on]}, {known['images']['train']} images | "
            f"{recipe.about} | {about['scale']}, seed {about['seed']} | {measures(known)} | "
            f"{str(known['commit'])[:10]} | {size} |"
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


def measures(known: dict[str, Any]) -> str:
    """The main map's, on the first test."""
    test, row = main_measures(known)
    found = (f"{LABELS.get(m, m.replace('_', ' '))} {row[m]:.3f}" for m in SHOWN if m in row)
    return f"{test}: {', '.join(found)}"


if __name__ == "__main__":
    parse(main, "reproduction.publish_weights")
