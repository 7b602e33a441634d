"""The command `python -m reference_models.evaluate MAPS --masks DATA`: measures of maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from reference_models.command_line import command, parse
from reference_models.data.maps import read_maps
from reference_models.data.masks import Mask, as_mask, has_void, mask_notes, settled_mask
from reference_models.data.pictures import (
    Folder,
    by_stem,
    has_images,
    one_folder,
    open_folder,
    open_image,
    side_by_side,
)
from reference_models.data.sets import check_masks, read_test_folder
from reference_models.errors import Faults, InputError, count
from reference_models.files import make_folder, read_about, write_json
from reference_models.measures.saliency import LABELS, measure, one_line
from reference_models.options import Backend
from reference_models.training.score import flatten_rows, means_of, score
from reference_models.training.stopping import clock
from reference_models.training.trained import (
    RUN_WEIGHTS,
    bundled_models,
    load_network,
    weights_file,
)


@dataclass(frozen=True)
class Options:
    """Measure saliency maps of any method, or a trained network, against true masks.

    Maps and masks are paired by file name without extension, so a map may be a PNG and its mask a
    WebP. Maps are read as grey values from 0 to 255 and are not normalised. A map is resized to the
    size of its mask if they differ.
    """

    maps: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MAPS")]
    """Saliency maps: a folder or zip, or a folder inside a zip (maps.zip/drfi). Or a network: a run
    folder of `train`, or a name in reference_models/weights."""
    masks: Path
    """True masks: a folder or zip of masks, or one with masks/, such as ecssd.zip. To evaluate a
    network it must also hold images/, and may hold priors/ for a network that starts from prior
    maps; a network that divides images into regions needs segmentations/ instead of masks/."""
    shared: bool = False
    """Ignore masks without a map; otherwise they are an error."""
    out: Path | None = None
    """JSON file to write the measures to, besides printing them."""
    exact: bool = False
    """Also compute the weighted F exactly as the paper defines it, and as the loss approximates it;
    slower."""
    backend: Backend | None = None
    """For a network: framework to compute in. Default: the one it was trained in."""
    archives: Path | None = None
    """For a network with a frozen backbone that is not in reference_models/weights: folder of the
    ImageNet weights. Default: data/."""


def main() -> None:
    with command():
        options = parse(Options, "evaluate")
        run(options)


def run(options: Options) -> None:
    if options.out is not None:
        make_folder(options.out.parent, "--out")
        if options.out.is_dir():
            raise InputError(f"--out {options.out} is a folder; pass the name of a JSON file")
    if str(options.maps) in bundled_models() or (options.maps / RUN_WEIGHTS).is_file():
        run_network(options)
    else:
        run_maps(options)


def run_maps(options: Options) -> None:
    if options.backend is not None:
        raise InputError(
            f"--backend applies to networks only, and {options.maps} is a folder or zip of maps; "
            "omit it"
        )
    path = options.maps
    if len(path.parts) == 1 and not path.exists():
        raise InputError(
            f"{path} is not a folder or zip of maps, a run folder or a bundled model; the bundled "
            f"models are: {', '.join(bundled_models())}"
        )
    files = mask_files(options.masks)
    faults = Faults()
    with faults.collect():
        masks, notes = read_masks(files)
    with faults.collect():
        maps, map_notes = read_maps(path, files, options.shared)
    faults.report()
    check_masks(
        [mask.object for mask in masks.values()],
        [mask.void for mask in masks.values()],
        str(options.masks),
    )
    notes += map_notes
    if len(maps) < len(masks):
        missing = count(len(masks) - len(maps), "mask has", "masks have")
        notes.append(f"{missing} no map, not measured")
        masks = {stem: masks[stem] for stem in maps}
    objects = [mask.object for mask in masks.values()]
    notes += notes_on(list(maps.values()), objects)
    voids = [mask.void for mask in masks.values()]
    row = measure(list(maps.values()), objects, exact=options.exact, voids=voids)
    for note in notes:
        print(f"note: {note}")
    print(f"{count(len(maps), 'image')} of {options.masks}, maps of {path}")
    for name, value in row.items():
        print(f"{LABELS[name]:27}{value:.4f}")
    write(
        options.out,
        maps=str(path),
        masks=str(options.masks),
        images=len(maps),
        notes=notes,
        measures=row,
    )


def run_network(options: Options) -> None:
    """Measure all maps of a network from all priors, as after training."""
    if options.shared:
        raise InputError(f"--shared applies to maps only, and {options.maps} is a network; omit it")
    network = load_network(str(options.maps), archives=options.archives, backend=options.backend)
    trained = network.options
    test, notes = read_test_folder(options.masks, trained.plan.size, trained.chosen_recipe.regions)
    if read_about(weights_file(str(options.maps))).get("data") == str(options.masks.resolve()):
        notes.append(
            "the network was trained on this data set; run.json has its measures on the images "
            "that were held out of training"
        )
    if trained.chosen_recipe.regions == 2:
        check_masks(test.truth, test.voids, str(options.masks))
    rows = means_of(score(network, [test], clock(), options.exact))
    for note in notes:
        print(f"note: {note}")
    print(f"{count(len(test.truth), 'image')} of {options.masks}, maps of {options.maps}")
    for name, row in flatten_rows(rows):
        print(f"{name}\n  {one_line(row)}")
    write(
        options.out,
        network=str(options.maps),
        masks=str(options.masks),
        images=len(test.truth),
        notes=notes,
        measures=rows,
    )


def write(out: Path | None, **content: object) -> None:
    if out is not None:
        write_json(out, content)
        print(f"written to {out}")


def notes_on(maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[str]:
    """Notes on maps that are resized, and on masks without foreground."""
    notes = []
    resized = sum(values.shape != mask.shape for values, mask in zip(maps, masks, strict=True))
    if resized:
        notes.append(
            count(
                resized,
                "map differs in size from its mask and is resized to it",
                "maps differ in size from their masks and are resized to them",
            )
        )
    empty = sum(not mask.any() for mask in masks)
    if empty:
        notes.append(
            count(
                empty,
                "mask is all background: it counts in the MAE only",
                "masks are all background: they count in the MAE only",
            )
        )
    return notes


# Masks -------------------------------------------------------------------------------------------


def read_masks(files: Mapping[str, Folder]) -> tuple[dict[str, Mask], list[str]]:
    """The masks by stem, and notes on how they are read."""
    stems = list(files)

    def read_one(index: int) -> Mask:
        file = files[stems[index]]
        return as_mask(open_image(file), file)

    masks = side_by_side(read_one, len(stems), "masks")
    void = has_void(mask.kind for mask in masks)
    read = {stem: settled_mask(mask, void) for stem, mask in zip(stems, masks, strict=True)}
    return read, mask_notes({stem: mask.kind for stem, mask in read.items()})


def mask_files(path: Path) -> dict[str, Folder]:
    """The masks in the masks/ of a folder or zip or one level below, or in the folder itself."""
    root = open_folder(path)
    if has_images(root) and not (root / "masks").is_dir():
        return by_stem([root])
    place = one_folder(path, lambda folder: (folder / "masks").is_dir(), "masks/")
    return by_stem([place / "masks"])


if __name__ == "__main__":
    main()
