"""The command `python -m reference_models.predict IMAGE…`: saliency maps of photographs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from errno import ENAMETOOLONG
from pathlib import Path
from typing import Annotated
from unicodedata import normalize

import numpy as np
import tyro
from matplotlib.figure import Figure
from PIL import Image

from reference_models.command_line import command, parse
from reference_models.data.images import Images
from reference_models.data.maps import read_map
from reference_models.data.masks import Mask, fit_labels, mask_notes, read_mask
from reference_models.data.photographs import read_photograph
from reference_models.data.pictures import (
    SUFFIXES,
    by_stem,
    centre_prior,
    check_size,
    fit_prior,
    is_image,
)
from reference_models.errors import InputError, count
from reference_models.files import atomic_path, make_folder
from reference_models.machine import progress
from reference_models.measures.saliency import eight_bit
from reference_models.options import Backend, Device
from reference_models.training.figures import save
from reference_models.training.trained import Network, default_model, load_network
from saliency_losses.plotting import explain

RED = (230, 30, 60)
OUTPUTS = ("map", "cutout", "overlay", "explained")


@dataclass(frozen=True)
class Predict:
    """Find the salient object in photographs with a trained network.

    For photo.jpg, writes photo-map.png (the saliency map, grey, 0-255), photo-cutout.png (the
    photograph with the map as alpha channel) and photo-overlay.png (the map in red on the
    photograph); with --mask also photo-explained.png.
    """

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE…")]
    """Photographs, or folders of photographs."""
    model: str | None = None
    """Bundled model (a name in reference_models/weights) or run folder of `train`. Default: the
    bundled model with the highest weighted F on ECSSD among those that need no prior map."""
    prior: Path | None = None
    """Prior map, for models that start from a rough map of where the object is: a grey image, or a
    folder with one map per photograph, paired by file name. Default: the default model's map."""
    mask: Path | None = None
    """True mask of the photograph, of the same size, or a folder with one mask per photograph,
    paired by file name. photo-explained.png then shows the training loss at the network's input
    size: the map, the mask, and the gradient of the loss with respect to the network's output."""
    out: Path = Path("predictions")
    """Folder for the images written."""
    backend: Backend | None = None
    """Framework to compute in. Default: the one that the network was trained in."""
    device: Device = "auto"
    """Device to compute on; auto uses a GPU if one is available."""
    archives: Path | None = None
    """Folder of the ImageNet weights, for a model with a frozen backbone that is not in
    reference_models/weights. Default: data/."""


@dataclass(frozen=True)
class Model:
    """A trained network for photographs of any size."""

    network: Network

    @property
    def size(self) -> int:
        """Side of the square that photographs are resized to."""
        return self.network.options.plan.size

    @property
    def needs_prior(self) -> bool:
        return bool(self.network.options.chosen_recipe.test_priors)

    def map(self, photo: Image.Image, prior: np.ndarray | None = None) -> np.ndarray:
        """The saliency map at the photograph's size, uint8 `(H, W)`.

        prior: Prior map, uint8 `(S, S)`.
        """
        square = self.resized(photo, prior)
        return eight_bit(self.network.main_map(square)[0], (photo.height, photo.width))

    def explained(self, photo: Image.Image, mask: Mask, prior: np.ndarray | None = None) -> Figure:
        """Figure of the training loss on this photograph.

        mask: True mask. prior: Prior map, uint8 `(S, S)`.
        """
        square = self.resized(photo, prior, fit_labels(mask, self.size))
        view = self.network.trainer.loss_view(square)
        return explain(
            view.loss,
            view.output,
            view.labels,
            image=view.image,
            prediction=self.network.main_map(square),
            title=f"{self.network.options.recipe}: its training loss",
            **({} if view.counted is None else {"mask": view.counted}),
        )

    def resized(
        self, photo: Image.Image, prior: np.ndarray | None, labels: np.ndarray | None = None
    ) -> Images:
        pixels = photo.resize((self.size, self.size), Image.Resampling.LANCZOS)
        return Images.single(np.array(pixels), labels, prior)


def main() -> None:
    with command():
        failed = predict(parse(Predict, "predict"))
    sys.exit(1 if failed else 0)


def predict(options: Predict) -> list[str]:
    """Write the images for every photograph; returns an error message for each that failed."""
    files = expand_folders(options.images)
    name_of_model = options.model or default_model()
    if name_of_model is None:
        raise InputError(
            "reference_models/weights holds no model that works without a prior map; "
            "pass --model RUN_FOLDER, the folder of a run of `python -m reference_models.train`"
        )
    model = Model(load_network(name_of_model, options.device, options.archives, options.backend))
    if model.network.options.chosen_recipe.regions > 2:
        raise InputError(
            f"{name_of_model} divides images into regions and makes no saliency maps; choose "
            "another --model"
        )
    priors = Priors(model, options) if model.needs_prior else None
    if priors is None and options.prior is not None:
        raise InputError(f"{name_of_model} does not use a prior map; omit --prior")
    if options.mask is not None:
        check_mask(options, model, len(files))
    masks = None if options.mask is None else Companions(options.mask, "--mask")
    named = output_names(files)
    check_outputs(named, options.out)
    kinds: dict[str, str] = {}
    make_folder(options.out, "--out")
    messages = []
    for file, name in progress(named, desc=Path(name_of_model).name, unit=" images"):
        try:
            photo, alpha = read_photograph(file)
            prior = None if priors is None else priors.of(file, photo)
            saliency = model.map(photo, prior)
            if masks is not None:
                mask = read_fitting_mask(masks.of(file), photo, file)
                kinds[name] = mask.kind
                save(model.explained(photo, mask, prior), options.out / f"{name}-explained.png")
            write_images(photo, alpha, saliency, options.out / name)
        except InputError as error:
            messages.append(str(error))
        except OSError as error:
            if error.errno != ENAMETOOLONG:  # Others, such as a full disk, concern all files.
                raise
            messages.append(f"{file}: {error.strerror}; rename the photograph")
    for note in mask_notes(kinds):
        print(f"note: {note}")
    for message in messages:
        print(f"error: {message}", file=sys.stderr)
    done = len(files) - len(messages)
    print(f"images for {count(done, 'photograph')} written to {options.out}/")
    return messages


# Priors ------------------------------------------------------------------------------------------


class Priors:
    """The prior maps that a model starts from: the user's, or else those of the default model."""

    def __init__(self, model: Model, options: Predict) -> None:
        self.size, path = model.size, options.prior
        self.default: Model | None = None
        if path is not None and not path.exists():
            raise InputError(f"--prior {path} does not exist; check the path")
        self.companions = None if path is None else Companions(path, "--prior")
        if path is not None:
            return
        if name := default_model():
            network = load_network(name, options.device, options.archives, options.backend)
            self.default = Model(network)
            print(f"note: starts from the maps of {name}; to use your own, pass --prior MAP")
        else:
            print(
                "note: starts from a Gaussian at the centre; to use your own map, pass --prior MAP"
            )

    def of(self, file: Path, photo: Image.Image) -> np.ndarray:
        """The prior map of a photograph, uint8 `(S, S)` in 0..255."""
        if self.companions is None:
            if self.default is None:
                return centre_prior(self.size)
            return fit_prior(Image.fromarray(self.default.map(photo)), self.size)
        prior = read_map(self.companions.of(file))
        return fit_prior(Image.fromarray(prior.values), self.size)


class Companions:
    """The files that go with photographs: one file, or those of a folder with equal names.

    option: The option that named the path, for the error message.
    """

    def __init__(self, path: Path, option: str) -> None:
        self.path, self.option = path, option
        self.files = by_stem([path]) if path.is_dir() else None

    def of(self, photo: Path) -> Path:
        if self.files is None:
            return self.path
        stem = normalize("NFC", photo.stem)
        if stem not in self.files:
            raise InputError(
                f"{self.option} {self.path} has no image for {photo}; add one named {stem}, such "
                f"as {stem}.png"
            )
        return Path(str(self.files[stem]))


# Masks -------------------------------------------------------------------------------------------


def check_mask(options: Predict, model: Model, photographs: int) -> None:
    assert options.mask is not None
    if not options.mask.exists():
        raise InputError(f"--mask {options.mask} does not exist")
    if model.network.options.chosen_recipe.loss == "js-mi":
        raise InputError(
            f"{options.model} learns from prior maps alone and its loss uses no mask; omit --mask"
        )
    if options.mask.is_file() and photographs > 1:
        raise InputError(
            f"--mask {options.mask} is one mask for {photographs} photographs; pass a folder with "
            "one mask per photograph, paired by file name"
        )


def read_fitting_mask(file: Path, photo: Image.Image, photo_file: Path) -> Mask:
    """The mask of a photograph, see `read_mask`."""
    mask = read_mask(file)
    height, width = mask.object.shape
    check_size(photo_file, photo.size, file, (width, height))
    return mask


# Images ------------------------------------------------------------------------------------------


def expand_folders(images: Sequence[Path]) -> list[Path]:
    """The files of the list, with each folder replaced by the images in it."""
    files: list[Path] = []
    for path in images:
        if path.is_dir():
            inside = without_outputs(list(filter(is_image, sorted(path.iterdir()))))
            if not inside:
                raise InputError(
                    f"{path} holds no image file; pass a folder with files of these types: "
                    f"{', '.join(sorted(SUFFIXES))}"
                )
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"{path} does not exist; pass image files or folders of images")
    if not files:
        raise InputError("no photograph to predict; pass image files or folders of images")
    return files


def without_outputs(files: Sequence[Path]) -> list[Path]:
    """The files that `predict` has not written itself for another of them."""
    outputs = {f"{file.stem}-{kind}.png" for file in files for kind in OUTPUTS}
    return [file for file in files if file.name not in outputs]


def check_outputs(named: Sequence[tuple[Path, str]], out: Path) -> None:
    """Raise an error if an output would overwrite one of the photographs."""
    photographs = {file.resolve() for file, _ in named}
    for _, name in named:
        for kind in OUTPUTS:
            if (out / f"{name}-{kind}.png").resolve() in photographs:
                raise InputError(
                    f"{out / f'{name}-{kind}.png'} is one of the photographs and would be "
                    "overwritten; choose another --out"
                )


def output_names(files: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each file with the stem of its output files, numbered if several files share a stem."""
    taken: set[str] = set()
    names = []
    for file in files:
        name, number = file.stem, 2
        while name in taken:
            name, number = f"{file.stem}-{number}", number + 1
        taken.add(name)
        names.append((file, name))
    return names


def write_images(
    photo: Image.Image, alpha: Image.Image | None, saliency: np.ndarray, path: Path
) -> None:
    """Write PATH-map.png, PATH-cutout.png and PATH-overlay.png."""
    mask = Image.fromarray(saliency)
    cutout = photo.copy()
    if alpha is None:
        cutout.putalpha(mask)
    else:
        product = saliency.astype(np.uint16) * np.asarray(alpha) // 255
        cutout.putalpha(Image.fromarray(product.astype(np.uint8)))
    shade = mask.point([round(0.6 * value) for value in range(256)])
    overlay = Image.composite(Image.new("RGB", photo.size, RED), photo, shade)
    for name, image in (("map", mask), ("cutout", cutout), ("overlay", overlay)):
        with atomic_path(path.with_name(f"{path.name}-{name}.png")) as partial:
            image.save(partial, format="png")


if __name__ == "__main__":
    main()
