"""`python -m reference_models.train`: train one network with one loss, measure it, show it."""

import sys
from pathlib import Path

import numpy as np
import tyro

from reference_models import figures
from reference_models.data import Data, get_data
from reference_models.demo import demo
from reference_models.loop import Trained, train
from reference_models.measures import measure, one_line
from reference_models.options import LEARNS_FROM, USES_PRIOR, InputError, Options
from reference_models.runs import claim, commit, versions, write_arrays, write_json


def main() -> None:
    try:
        options = tyro.cli(Options, prog="python -m reference_models.train", config=(
            tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff,
        ))  # fmt: skip
        (demo if options.demo else run)(options)
    except InputError as error:
        sys.exit(f"error: {error}")


def run(options: Options) -> None:
    """Train with the options; leave weights, figures and run.json in the run folder."""
    data, folder = get_data(options), options.folder
    claim(folder, options, data)
    print(f"{options.loss} learns from {LEARNS_FROM[options.loss]}")
    if options.loss in USES_PRIOR:
        print(f"priors: {data.priors}")
    for note in data.notes:
        print(f"note: {note}")
    print("images: " + ", ".join(f"{count} {name}" for name, count in data.counts().items()))

    trained = train(options, data, folder)
    measures = {"network": measure(trained.maps(data.test), data.test.masks)}
    if options.loss in USES_PRIOR:
        prior = data.test.priors / 255
        measures["prior"] = measure(prior, data.test.masks)
        measures["prior, cut at 1/2"] = measure(prior >= 0.5, data.test.masks)
    for name, values in measures.items():
        print(f"{name:18}{one_line(values)}")

    about = {"loss": options.loss, "backend": options.backend, "inverted": trained.inverted}
    write_arrays(folder / "weights.safetensors", trained.trainer.weights(), about)
    write_json(folder / "run.json", {
        "options": options.as_json(),
        "learns_from": LEARNS_FROM[options.loss],
        "priors": data.priors,
        "notes": list(data.notes),
        "images": data.counts(),
        "data_sha256": data.sha256(),
        "empty_test_masks": int((~data.test.masks.any(axis=(1, 2))).sum()),
        "inverted": trained.inverted,
        "measures": measures,
        "training_seconds": round(trained.seconds, 2),
        "device": trained.trainer.device,
        "versions": versions(options.backend),
        "commit": commit(),
        "loss_curve": trained.losses,
    })  # fmt: skip
    figures.loss_curve(trained.losses, f"{options.loss} ({options.backend})", folder / "loss.png")
    contact_sheet(options, data, trained, folder / "sheet.png")
    if trained.inverted:
        print("note: validation chose one minus the map (recorded as inverted)")
    print(f"{trained.seconds:.0f} s of training on {trained.trainer.device}; written to {folder}/")


def contact_sheet(options: Options, data: Data, trained: Trained, path: Path) -> None:
    """The first eight held-out scenes: image, mask, prior where used, map, weight in the loss."""
    shown = data.test.take(range(min(8, len(data.test))))
    weights = figures.per_image(trained.trainer.pixel_weights(shown))
    columns = [("image", shown.images), ("mask", shown.masks)]
    if options.loss in USES_PRIOR:
        columns.append(("prior", shown.priors / 255))
    columns += [("prediction", trained.maps(shown)), ("weight in the loss", weights)]
    title = (
        f"{options.loss} ({options.backend}), held-out images. Weight of a pixel:\n"
        "|∂ loss / ∂ network output| summed over channels, maximum 1 per image"
    )
    figures.sheet([(name, np.asarray(view)) for name, view in columns], title, path)


if __name__ == "__main__":
    main()
