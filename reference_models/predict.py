"""`python -m reference_models.predict IMAGE…`: the salient object of any photograph."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from matplotlib.figure import Figure
from PIL import Image

from reference_models import paths
from reference_models.commands import command, parse
from reference_models.data.images import Images
from reference_models.data.pictures import (
    SUFFIXES,
    by_stem,
    centre_prior,
    fit_mask,
    fit_prior,
    is_image,
)
from reference_models.data.readers import mask_notes, read_map, read_mask, read_photograph
from reference_models.errors import InputError
from reference_models.files import atomic_path
from reference_models.machine import progress
from reference_models.measures.saliency import eight_bit
from reference_models.papers.schema import Recipe
from reference_models.training.figures import save
from reference_models.training.trained import RUN_WEIGHTS as RUN_WEIGHTS
from reference_models.training.trained import Network, default_model, load_network
from saliency_losses.plotting import explain

RED = (230, 30, 60)


@dataclass(frozen=True)
class Predict:
    """Find the salient object of photographs with a trained network.

    For photo.jpg there come photo-map.png, grey from 0 to 255; photo-cutout.png, the photograph
    with the map as its alpha; and photo-overlay.png, the map in red on the photograph. With
    --mask also photo-explained.png.
    """

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Photographs, or folders of them."""
    model: str | None = None
    """A name in reference_models/weights, or a run folder of your own. Default: of the models there
    that need no prior map, the one with the highest weighted F on ECSSD."""
    prior: Path | None = None
    """For models that start from a rough map of where the object is: that map, a grey image, or a
    folder of one per photograph with equal stems. Default: the default model's map."""
    mask: Path | None = None
    """The photograph's true mask, of the same size, or a folder of one per photograph with equal
    stems. photo-explained.png then shows what the network's training loss sees, at the size that
    the network works at: the map, the mask, and the loss's gradient in the network's output."""
    out: Path = Path("predictions")
    """Where the pictures are written."""
    backend: Literal["torch", "jax"] | None = None
    """The framework to compute in; by default the one the network was trained in."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    archives: Path | None = None
    """The folder of the ImageNet weights of a frozen backbone that is not in
    reference_models/weights; by default data/."""


@dataclass(frozen=True)
class Model:
    """A trained network applied to photographs of any size."""

    network: Network

    @property
    def recipe(self) -> Recipe:
        return self.network.options.chosen_recipe

    @property
    def size(self) -> int:
        """Side of the square that photographs are resized to."""
        return self.network.options.plan.size

    @property
    def needs_prior(self) -> bool:
        return bool(self.recipe.test_priors)

    def map(self, photo: Image.Image, prior: np.ndarray | None = None) -> np.ndarray:
        """The saliency map at the photograph's size, uint8 `(H, W)`. prior: uint8 `(S, S)`."""
        square = self.resized(photo, prior)
        return eight_bit(self.network.main_map(square)[0], (photo.height, photo.width))

    def explained(
        self, photo: Image.Image, mask: np.ndarray, prior: np.ndarray | None = None
    ) -> Figure:
        """Figure of the training loss on this photograph, with the bool mask `(H, W)`."""
        square = self.resized(photo, prior, fit_mask(mask, self.size))
        view = self.network.trainer.loss_view(square)
        return explain(
            view.loss,
            view.output,
            view.labels,
            image=view.image,
            prediction=self.network.main_map(square),
            title=f"{self.recipe.name}: its training loss",
        )

    def resized(
        self, photo: Image.Image, prior: np.ndarray | None, mask: np.ndarray | None = None
    ) -> Images:
        pixels = photo.resize((self.size, self.size), Image.Resampling.LANCZOS)
        return Images.single(np.array(pixels), mask, prior)


def main() -> None:
    with command():
        failed = predict(parse(Predict, "predict"))
    sys.exit(1 if failed else 0)


def predict(options: Predict) -> list[str]:
    """Write the pictures of every photograph; returns what was wrong with those that have none."""
    files = expand_folders(options.images)
    chosen = options.model or default_model()
    if chosen is None:
        raise InputError(
            f"{paths.WEIGHTS} holds no model that works without a prior map; "
            "pass --model RUN_FOLDER, the folder of a run of `python -m reference_models.train`"
        )
    model = Model(load_network(chosen, options.device, options.archives, options.backend))
    if model.recipe.regions > 2:
        raise InputError(f"{chosen} divides images into regions; it makes no saliency maps")
    priors = Priors(model, options) if model.needs_prior else None
    if priors is None and options.prior is not None:
        raise InputError(f"{chosen} starts from no prior map; leave --prior out")
    if options.mask is not None:
        check_mask(options, model, len(files))
    kinds: dict[str, str] = {}
    options.out.mkdir(parents=True, exist_ok=True)
    faults = []
    for file, name in progress(output_names(files), desc=Path(chosen).name, unit=" images"):
        try:
            photo, opaque = read_photograph(file)
            prior = None if priors is None else priors.of(file, photo)
            saliency = model.map(photo, prior)
            if options.mask is not None:
                mask, kinds[name] = read_fitting_mask(
                    matching_file(options.mask, file, "--mask"), photo, file
                )
                save(model.explained(photo, mask, prior), options.out / f"{name}-explained.png")
        except InputError as error:
            faults.append(str(error))
            continue
        write_pictures(photo, opaque, saliency, options.out / name)
    for note in mask_notes(kinds):
        print(f"note: {note}")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    done = len(files) - len(faults)
    print(f"the pictures of {done} photograph{'' if done == 1 else 's'} written to {options.out}/")
    return faults


# Priors ------------------------------------------------------------------------------------------


class Priors:
    """The map that a promoting model starts from: the user's, else the default model's."""

    def __init__(self, model: Model, options: Predict) -> None:
        self.size, self.given = model.size, options.prior
        self.first: Model | None = None
        if self.given is not None and not self.given.exists():
            raise InputError(f"--prior {self.given} does not exist")
        if self.given is not None:
            return
        if default := default_model():
            network = load_network(default, options.device, options.archives, options.backend)
            self.first = Model(network)
            print(f"note: starts from the maps of {default}; --prior MAP gives your own")
        else:
            print("note: starts from a Gaussian at the centre; --prior MAP gives your own")

    def of(self, file: Path, photo: Image.Image) -> np.ndarray:
        """uint8 `(S, S)`, from 0 to 255."""
        if self.given is None:
            if self.first is None:
                return centre_prior(self.size)
            return fit_prior(Image.fromarray(self.first.map(photo)), self.size)
        prior = read_map(matching_file(self.given, file, "--prior"))
        return fit_prior(Image.fromarray(prior.values), self.size)


def matching_file(given: Path, photo: Path, option: str) -> Path:
    """The file itself, or the folder's map for the photograph."""
    if not given.is_dir():
        return given
    maps = by_stem([given])
    if photo.stem not in maps:
        raise InputError(f"{option} {given} has no map for {photo}, of the stem {photo.stem}")
    return Path(str(maps[photo.stem]))


# Masks -------------------------------------------------------------------------------------------


def check_mask(options: Predict, model: Model, photographs: int) -> None:
    assert options.mask is not None
    if not options.mask.exists():
        raise InputError(f"--mask {options.mask} does not exist")
    if model.recipe.loss == "js-mi":
        raise InputError(
            f"{options.model} learns from prior maps alone, its loss sees no mask; leave --mask out"
        )
    if options.mask.is_file() and photographs > 1:
        raise InputError(
            f"--mask {options.mask} is one mask for {photographs} photographs; give a folder of "
            "one per photograph, with equal stems"
        )


def read_fitting_mask(file: Path, photo: Image.Image, photo_file: Path) -> tuple[np.ndarray, str]:
    """The bool mask of a photograph and its kind, see `read_mask`."""
    mask = read_mask(file)
    height, width = mask.object.shape
    if (width, height) != photo.size:
        raise InputError(
            f"{photo_file} is {photo.width} x {photo.height}, but {file} is {width} x {height} "
            "(width x height); save the mask at the size of its photograph"
        )
    return mask.object, mask.kind


# Images ------------------------------------------------------------------------------------------


def expand_folders(images: Sequence[Path]) -> list[Path]:
    """The files themselves, and all images in folders."""
    files: list[Path] = []
    for path in images:
        if path.is_dir():
            inside = list(filter(is_image, sorted(path.iterdir())))
            if not inside:
                raise InputError(f"{path} holds no image file ({', '.join(sorted(SUFFIXES))})")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"{path} does not exist")
    if not files:
        raise InputError("no photograph was named; give image files or folders of them")
    return files


def output_names(files: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each file with the name of its pictures: the stem, numbered where several share it."""
    taken: set[str] = set()
    names = []
    for file in files:
        name, number = file.stem, 2
        while name in taken:
            name, number = f"{file.stem}-{number}", number + 1
        taken.add(name)
        names.append((file, name))
    return names


def write_pictures(
    photo: Image.Image, opaque: Image.Image | None, saliency: np.ndarray, path: Path
) -> None:
    """The map, the cutout and the overlay, beginning with `path`."""
    mask = Image.fromarray(saliency)
    cutout = photo.copy()
    if opaque is None:
        cutout.putalpha(mask)
    else:
        alpha = saliency.astype(np.uint16) * np.asarray(opaque) // 255
        cutout.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    shade = mask.point([round(0.6 * value) for value in range(256)])
    overlay = Image.composite(Image.new("RGB", photo.size, RED), photo, shade)
    for name, picture in (("map", mask), ("cutout", cutout), ("overlay", overlay)):
        with atomic_path(path.with_name(f"{path.name}-{name}.png")) as partial:
            picture.save(partial, format="png")


if __name__ == "__main__":
    main()
