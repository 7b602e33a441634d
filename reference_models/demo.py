"""The command `python -m reference_models.demo`: training with half of the labels swapped."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from reference_models.command_line import command, parse
from reference_models.data.images import Data
from reference_models.data.label_swaps import swap_labels
from reference_models.files import Arrays, write_json
from reference_models.measures.saliency import Measures, measure, one_line
from reference_models.options import Backend, Options
from reference_models.provenance import commit, versions
from reference_models.training import figures
from reference_models.training.frameworks import new_trainer
from reference_models.training.loop import train
from reference_models.training.run import claim_run_folder, load_data
from reference_models.training.stopping import clock

RUNS: dict[str, tuple[str, float]] = {
    "cross-entropy, clean": ("scenes-cross-entropy", 0.0),
    "cross-entropy, swapped": ("scenes-cross-entropy", 0.5),
    "class-agnostic CE, swapped": ("scenes-class-agnostic-cross-entropy", 0.5),
    "CAS, swapped": ("scenes-cas", 0.5),
    "CAS, clean": ("scenes-cas", 0.0),
}


def main(
    backend: Backend = "torch",
    steps: int = 300,
    seed: int = 0,
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None,
) -> None:
    """Train one network five times from the same initial weights, with clean and swapped labels.

    Writes demo.png and demo.json.

    Args:
        backend: Framework to train in: PyTorch or JAX (Flax).
        steps: Number of training steps per network.
        seed: Seed of the generated scenes, batch order and initial weights.
        out: Folder to write to. Default: runs/demo-BACKEND-SEED.
    """
    folder = out or Path("runs") / f"demo-{backend}-{seed}"
    with command():
        demo(Options(backend=backend, steps=steps, seed=seed, out=folder))


def demo(options: Options) -> None:
    data, folder = load_data(options), options.folder
    claim_run_folder(folder, options, data)
    maps: dict[str, np.ndarray] = {}
    measures: dict[str, Measures] = {}
    weights: dict[str, Arrays] = {}
    seconds: dict[str, float] = {}
    inverted: dict[str, bool] = {}
    (test,) = data.tests
    for name, (recipe, share) in RUNS.items():
        run_folder = folder / name.replace(", ", "-").replace(" ", "-").lower()
        run_folder.mkdir(exist_ok=True)
        run = replace(options, recipe=recipe, swap_labels=share)
        network, history = train(
            run, new_trainer(run), data.train, data.validation, run_folder, clock()
        )
        maps[name] = network.main_map(test.images)
        measures[name] = measure(maps[name], test.truth)
        weights[name] = network.trainer.weights()
        seconds[name], inverted[name] = round(history.seconds, 2), network.inverted
        print(f"{name:28}{one_line(measures[name])}")

    identity = compare(weights["CAS, swapped"], weights["CAS, clean"])
    verdict = "CAS trained with swapped labels against CAS trained with clean labels: " + (
        "all {weights:,} weights are bit for bit equal"
        if identity["differing"] == 0
        else "{differing:,} of {weights:,} weights differ, by up to {largest:.3g}"
    ).format(**identity)
    print(verdict)
    write_json(
        folder / "demo.json",
        {
            "options": options.as_json(),
            "images": data.counts(),
            "data_sha256": data.sha256,
            "measures": measures,
            "inverted": inverted,
            "cas_swapped_against_clean": identity,
            "training_seconds": seconds,
            "device": network.trainer.device,
            "versions": versions(options.backend),
            "commit": commit(),
        },
    )
    picture(data, maps, measures, verdict, options.seed, folder / "demo.png")
    print(f"{sum(seconds.values()):.0f} s of training; written to {folder}/")


def compare(first: Arrays, second: Arrays) -> dict[str, float]:
    """Number of float32 weights, number of them that differ, and the largest difference."""
    bits = [(first[name].view(np.uint32), second[name].view(np.uint32)) for name in first]
    gaps = [np.abs(first[name] - second[name]).max() for name in first]
    return {
        "weights": sum(a.size for a, _ in bits),
        "differing": sum(int((a != b).sum()) for a, b in bits),
        "largest": float(max(gaps)),
    }


def picture(
    data: Data,
    maps: dict[str, np.ndarray],
    measures: dict[str, Measures],
    verdict: str,
    seed: int,
    path: Path,
) -> None:
    """Draw six held-out scenes with the maps of all networks.

    The third column shows the scenes labelled as in training, with half of the labels swapped.
    """
    images = data.tests[0].images
    shown = images.take(range(min(6, len(images))))
    columns = [
        ("image", shown.images),
        ("mask", shown.masks),
        ("as in training:\nhalf of the\nlabels swapped", swap_labels(shown, 0.5, seed).masks),
    ]
    for name in RUNS:
        if name != "CAS, clean":
            values = "MAE {mae:.3f}\nmax F {max_f:.3f}\nF {f:.3f}".format(**measures[name])
            heading = name.replace(", ", ",\n").replace("agnostic ", "agnostic\n") + " labels"
            columns.append((f"{heading}\n{values}", maps[name][: len(shown)]))
    title = f"One network, half of its training labels swapped; held-out scenes.\n{verdict}"
    figures.sheet(columns, title, path)


if __name__ == "__main__":
    parse(main, "demo")
