"""The images a network is trained and measured on: generated, or read from a folder or zip."""

import hashlib
import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from reference_models.options import InputError, Options
from reference_models.scenes import scenes

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
Folder = Path | zipfile.Path


@dataclass(frozen=True)
class Images:
    """N square images with what belongs to each, channel last.

    images: uint8 `(N, S, S, 3)`. masks: bool `(N, S, S)`, True on the salient object.
    priors: uint8 `(N, S, S)`, a rough saliency map from 0 to 255.
    """

    names: tuple[str, ...]
    images: np.ndarray
    masks: np.ndarray
    priors: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Images":
        names = tuple(self.names[i] for i in indices)
        return Images(names, self.images[indices], self.masks[indices], self.priors[indices])

    def swapped(self, share: float, seed: int) -> "Images":
        """The same images, the two labels exchanged in a random `share` of them (rounded)."""
        chosen = np.random.default_rng((seed, 2)).permutation(len(self))
        flips = np.zeros(len(self), dtype=bool)
        flips[chosen[: round(share * len(self))]] = True
        return replace(self, masks=self.masks ^ flips[:, None, None])


@dataclass(frozen=True)
class Data:
    """The three sets, and sentences on how they came about that belong in every report."""

    train: Images
    validation: Images
    test: Images
    priors: str
    notes: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: len(part) for name, part in parts.items()}

    def sha256(self) -> str:
        """A fingerprint of every pixel, mask and prior."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            for array in (part.images, part.masks, part.priors):
                digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


def get_data(options: Options) -> Data:
    """What the options ask for: the archive of `--data`, else generated scenes."""
    if options.data is None:
        return generated(options)
    everything, lists, priors, notes = read(options.data, options.size)
    rng = np.random.default_rng((options.seed, 1))
    train, validation, test, how = split(everything.names, lists, rng)
    data = Data(
        train=everything.take(train),
        validation=everything.take(validation),
        test=everything.take(test),
        priors=priors,
        notes=(*notes, how),
    )
    for name, part in (("training", data.train), ("held-out", data.test)):
        if not part.masks.any():
            raise InputError(f"{options.data}: every {name} mask is all background at this size")
    return data


def generated(options: Options) -> Data:
    """Scenes by seed. Training, validation and held-out scenes are never shared."""
    count = options.scenes + 40 + 150
    images, masks, priors = scenes(count, options.size, options.seed)
    names = tuple(f"scene{i}" for i in range(count))
    everything = Images(names, images, masks, np.rint(255 * priors).astype(np.uint8))
    # Held-out scenes come first: they stay the same whatever the number of training scenes.
    return Data(
        test=everything.take(range(150)),
        validation=everything.take(range(150, 190)),
        train=everything.take(range(190, count)),
        priors="the mask blurred and shifted, with clutter: a stand-in for a detector's map",
        notes=(),
    )


# Reading a folder or a zip -----------------------------------------------------------------------


def read(path: Path, size: int) -> tuple[Images, dict[str, list[str]], str, list[str]]:
    """All pairs of `images/` and `masks/`, the split lists, what the priors are, and notes.

    Masks are 0/255, 0/1 or soft: 0/1 is recognised by its maximum, all else is binarised at 128.
    """
    root = open_root(path)
    image_files = files_by_stem(root / "images")
    mask_files = files_by_stem(root / "masks")
    if len(image_files) < 4:
        found = f"{len(image_files)} images in {root / 'images'}"
        raise InputError(f"at least 4 images are needed to train and measure, found {found}")
    require(image_files, mask_files, "a mask in masks/")
    has_priors = (root / "priors").is_dir()
    prior_files = files_by_stem(root / "priors") if has_priors else {}
    if has_priors:
        require(image_files, prior_files, "a prior in priors/")

    images, masks, priors, kinds = [], [], [], []
    for stem, image_file in tqdm(image_files.items(), desc=f"reading {path.name}", unit=" images"):
        image, mask = open_image(image_file), open_image(mask_files[stem])
        if image.size != mask.size:
            raise InputError(
                f"sizes differ: {image_file} is {image.width} x {image.height}, "
                f"{mask_files[stem]} is {mask.width} x {mask.height} (width x height)"
            )
        binary, kind = binarise(mask, mask_files[stem])
        fitted = Image.fromarray(binary).convert("L").resize((size, size), Image.Resampling.BOX)
        images.append(
            np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))
        )
        masks.append(np.asarray(fitted) >= 128)
        kinds.append(kind)
        prior = open_image(prior_files[stem]) if has_priors else None
        priors.append(centre_prior(size) if prior is None else fit_prior(prior, size))

    names = tuple(image_files)
    everything = Images(names, np.stack(images), np.stack(masks), np.stack(priors))
    empty = [name for name, mask in zip(names, everything.masks, strict=True) if not mask.any()]
    notes = []
    if kinds.count("0/1"):
        notes.append(f"{kinds.count('0/1')} masks hold 0 and 1: 1 is taken as the object")
    if kinds.count("soft"):
        notes.append(f"{kinds.count('soft')} masks hold values between 0 and 255: binarised at 128")
    if empty:
        notes.append(
            f"{len(empty)} masks are all background ({some(empty)}): "
            "they count in the MAE and are left out of the F-measures"
        )
    unused = [stem for stem in mask_files if stem not in image_files]
    if unused:
        notes.append(f"{len(unused)} masks have no image and are not used ({some(unused)})")
    centre = "there is no priors/: a Gaussian at the centre, the same for every image"
    return everything, read_splits(root, names), "priors/" if has_priors else centre, notes


def open_root(path: Path) -> Folder:
    """The folder that holds `images/` and `masks/`: the path itself, or a folder in it."""
    if not path.exists():
        raise InputError(f"--data {path} does not exist")
    root: Folder = path
    if path.is_file():
        try:
            root = zipfile.Path(zipfile.ZipFile(path))
        except zipfile.BadZipFile:
            raise InputError(f"--data {path} is neither a folder nor a readable zip") from None
    inside: list[Folder] = [entry for entry in root.iterdir() if entry.is_dir()]
    for candidate in (root, *inside):
        if (candidate / "images").is_dir() and (candidate / "masks").is_dir():
            return candidate
    found = some(sorted(entry.name for entry in root.iterdir())) or "nothing"
    raise InputError(f"--data {path} must hold images/ and masks/, but holds {found}")


def files_by_stem(folder: Folder) -> dict[str, Folder]:
    """Image files by stem, in order; other files and hidden ones are passed over."""
    files: dict[str, Folder] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in SUFFIXES:
            continue
        stem = Path(entry.name).stem
        if stem in files:
            raise InputError(f"two files of the same stem: {files[stem]} and {entry}")
        files[stem] = entry
    if not files:
        raise InputError(f"{folder} holds no image file ({', '.join(sorted(SUFFIXES))})")
    return files


def require(wanted: Iterable[str], there: dict[str, Folder], what: str) -> None:
    missing = [stem for stem in wanted if stem not in there]
    if missing:
        raise InputError(f"{len(missing)} images have not {what}: {some(missing)}")


def open_image(file: Folder) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(file.read_bytes()))
        image.load()
    except Exception as error:  # Decoders and damaged archives raise all sorts.
        raise InputError(f"{file} cannot be read as an image: {error}") from None
    return ImageOps.exif_transpose(image)


def binarise(mask: Image.Image, file: Folder) -> tuple[np.ndarray, str]:
    """The mask as bool, and what it was: "0/255", "0/1" or "soft"."""
    if mask.mode.startswith(("I", "F")):
        raise InputError(f"{file} is a mask of mode {mask.mode}; save it with 8 bits, 0 and 255")
    values = np.asarray(mask.convert("L"))
    if values.max() == 1:
        return values == 1, "0/1"
    hard = np.isin(values, (0, 255)).all()
    return values >= 128, "0/255" if hard else "soft"


def fit_prior(prior: Image.Image, size: int) -> np.ndarray:
    """Resized and stretched to 0..255, as thresholds on it expect; a constant map becomes 0."""
    values = np.asarray(prior.convert("L").resize((size, size), Image.Resampling.BILINEAR), float)
    low, high = values.min(), values.max()
    return np.rint(255 * (values - low) / max(high - low, 1.0)).astype(np.uint8)


def centre_prior(size: int) -> np.ndarray:
    """A Gaussian at the centre, its standard deviation a quarter of the side, from 0 to 255."""
    offset = (np.arange(size) - (size - 1) / 2) / (size / 4)
    bell = np.exp(-(offset[:, None] ** 2 + offset**2) / 2)
    return np.rint(255 * (bell - bell.min()) / (bell.max() - bell.min())).astype(np.uint8)


def read_splits(root: Folder, names: Sequence[str]) -> dict[str, list[str]]:
    """The stems of `splits/train.txt`, `val.txt` and `test.txt`, those that exist."""
    known, lists = set(names), {}
    for name in ("train", "val", "test"):
        file = root / "splits" / f"{name}.txt"
        if file.is_file():
            lines = file.read_text(encoding="utf-8-sig").splitlines()
            lists[name] = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
            unknown = [stem for stem in lists[name] if stem not in known]
            if unknown:
                raise InputError(f"{file} names {len(unknown)} unknown stems: {some(unknown)}")
    return lists


def split(
    names: Sequence[str], lists: dict[str, list[str]], rng: np.random.Generator
) -> tuple[list[int], list[int], list[int], str]:
    """Indices for training, validation, test, and how they were found.

    The lists decide where they leave something to train on and something to test on; what one of
    them does not name is the other. Otherwise a fifth is held out at random. Validation, if not
    listed, is a tenth of the training images, at most 40.
    """
    train, validation, test = (list(lists.get(name, ())) for name in ("train", "val", "test"))
    for one, other in ((train, test), (train, validation), (validation, test)):
        shared = sorted(set(one) & set(other))
        if shared:
            raise InputError(f"the lists in splits/ share {len(shared)} stems: {some(shared)}")
    named = {*train, *validation, *test}
    rest = [name for name in names if name not in named]
    if train and not test:
        test = rest
    elif test and not train:
        train = rest
    how = "split as listed in splits/"
    if not test or len(train) < 2:
        reason = "splits/ leaves nothing to train or test on" if lists else "there is no splits/"
        how = f"{reason}: a fifth of the images is held out at random, by seed"
        shuffled = [names[i] for i in rng.permutation(len(names))]
        held_out = max(1, len(names) // 5)
        test, train, validation = shuffled[:held_out], shuffled[held_out:], []
    if not validation:
        shuffled = [train[i] for i in rng.permutation(len(train))]
        kept = max(1, min(40, len(train) // 10))
        validation, train = shuffled[:kept], shuffled[kept:]
    place = {name: i for i, name in enumerate(names)}
    as_indices = [[place[name] for name in part] for part in (train, validation, test)]
    return as_indices[0], as_indices[1], as_indices[2], how


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
