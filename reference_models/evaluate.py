"""`python -m reference_models.evaluate MAPS --masks DATA`: measure saliency maps, or a network."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from reference_models.data import (
    Data,
    Folder,
    Sources,
    binarise,
    by_stem,
    is_image,
    open_folder,
    open_image,
    read_maps,
    read_test,
    side_by_side,
    some,
)
from reference_models.files import write_json
from reference_models.loop import clock
from reference_models.measures import LABELS, Measures, measure, one_line
from reference_models.options import InputError
from reference_models.predict import load, there
from reference_models.scoring import described, score


@dataclass(frozen=True)
class Options:
    """Measure saliency maps, of any method, or a trained network against masks.

    Maps and masks belong together by their stems, so a map may be a PNG and its mask a WebP. Maps
    are read as grey, from 0 to 255, and are not stretched. A map of another size than its mask is
    resized to it.
    """

    maps: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MAPS")]
    """A folder or zip of saliency maps; or a network: a run folder of `train`, or a name in
    reference_models/weights."""
    masks: Path
    """A folder or zip with masks/, such as ecssd.zip, or of masks alone. A network needs images/
    beside them, and takes priors/ where it starts from a prior map."""
    folder: str | None = None
    """The folder inside MAPS, where it holds those of several detectors; or give MAPS/FOLDER."""
    out: Path | None = None
    """Write the measures to this JSON file too."""
    exact: bool = False
    """Also the weighted F of the paper's equations, and the loss's own; slower."""


def main() -> None:
    try:
        options = tyro.cli(Options, prog="python -m reference_models.evaluate", config=(
            tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff,
        ))  # fmt: skip
        run(options)
    except InputError as error:
        sys.exit(f"error: {error}")


def run(options: Options) -> None:
    if str(options.maps) in there() or (options.maps / "weights.safetensors").is_file():
        run_network(options)
    else:
        run_maps(options)


def run_maps(options: Options) -> None:
    masks, notes = read_masks(options.masks)
    path = options.maps / options.folder if options.folder else options.maps
    maps = read_maps(path, masks)
    row, more = evaluate_maps(list(maps.values()), list(masks.values()), exact=options.exact)
    show(row, notes + more, len(maps), maps=path, masks=options.masks, out=options.out)


def run_network(options: Options) -> None:
    """Every map of the network on every prior, as after training."""
    model = load(str(options.maps), "auto")
    sources = Sources(train="", archives=Path(), regions=model.recipe.regions)
    test, notes = read_test(str(options.masks), sources, model.size)
    data = Data(test.images, test.images, (test,), tuple(notes), priors="")
    rows = score(model.trained, data, model.options, clock(), options.exact)
    for note in notes:
        print(f"note: {note}")
    print(f"{len(test.truth)} images of {options.masks}, maps of {options.maps}")
    for name, row in described(rows):
        print(f"{name}\n  {one_line(row)}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, {
            "network": str(options.maps),
            "masks": str(options.masks),
            "images": len(test.truth),
            "notes": notes,
            "measures": rows,
        })  # fmt: skip
        print(f"written to {options.out}")


def evaluate_maps(
    maps: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    *,
    exact: bool = False,
    only: Sequence[str] | None = None,
) -> tuple[Measures, list[str]]:
    """The measures (see `measures.measure`) and what belongs in a note beside them."""
    notes = []
    resized = sum(one.shape != mask.shape for one, mask in zip(maps, masks, strict=True))
    if resized:
        notes.append(f"{resized} maps have another size than their mask and are resized to it")
    empty = sum(not mask.any() for mask in masks)
    if empty:
        notes.append(f"{empty} masks are all background: they count in the MAE alone")
    return measure(maps, masks, exact=exact, only=only), notes


def show(
    row: Measures, notes: list[str], images: int, *, maps: Path, masks: Path, out: Path | None
) -> None:
    """Print the row; write it with what it was measured on, where a file is named."""
    for note in notes:
        print(f"note: {note}")
    print(f"{images} images of {masks}, maps of {maps}")
    for name, value in row.items():
        print(f"{LABELS[name]:27}{value:.4f}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, {
            "maps": str(maps),
            "masks": str(masks),
            "images": images,
            "notes": notes,
            "measures": row,
        })  # fmt: skip
        print(f"written to {out}")


# Reading -----------------------------------------------------------------------------------------


def read_masks(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Every mask by stem, bool `(H, W)`, and notes; of masks/ where there is one."""
    files = by_stem([mask_folder(path)])
    stems = list(files)

    def one(place: int) -> tuple[np.ndarray, str]:
        file = files[stems[place]]
        return binarise(open_image(file), file)

    masks, kinds = zip(*side_by_side(one, len(stems), f"masks of {path.name}"), strict=True)
    notes = []
    if kinds.count("0/1"):
        notes.append(f"{kinds.count('0/1')} masks hold 0 and 1: 1 is taken as the object")
    if kinds.count("soft"):
        notes.append(f"{kinds.count('soft')} masks hold values between 0 and 255: binarised at 128")
    return dict(zip(stems, masks, strict=True)), notes


def mask_folder(path: Path) -> Folder:
    """The masks/ of a folder or zip, at its top or one below; else the folder of images itself."""
    root = open_folder(path, "--masks")
    entries = sorted(root.iterdir(), key=lambda entry: entry.name)
    folders = [entry for entry in entries if entry.is_dir()]
    for candidate in (root, *folders):
        if (candidate / "masks").is_dir():
            return candidate / "masks"
    if any(map(is_image, entries)):
        return root
    found = some([folder.name for folder in folders]) or "no folder"
    raise InputError(f"--masks {path} must hold masks/ or be a folder of masks, but holds {found}")


if __name__ == "__main__":
    main()
