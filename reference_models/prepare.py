"""`python -m reference_models.prepare NAME FOLDER`: a named archive, packed from a data set."""

import io
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
import tyro
from PIL import Image
from scipy.io import loadmat

from reference_models.command_line import command, parse
from reference_models.data.maps import (
    Scale,
    map_notes,
    open_map,
    scale_of,
    settle_map,
    settled_map,
)
from reference_models.data.masks import as_mask, mask_notes
from reference_models.data.named_sets import ARCHIVES, DETECTORS, DETECTORS_NAME
from reference_models.data.photographs import as_photograph
from reference_models.data.pictures import (
    Folder,
    check_size,
    has_images,
    is_image,
    open_folder,
    open_image,
    outcomes,
    read_bytes,
)
from reference_models.errors import InputError, first_few
from reference_models.files import atomic_path, make_folder
from reference_models.paths import DATA

Name = Literal["duts-tr", "duts-te", "ecssd", "pascal-s", "bsds500", "outex", "ecssd-baselines"]
Made = TypeVar("Made")

SIDE = 256
"""Images are reduced until their longer side has this many pixels; they are never enlarged."""
QUALITY = 80
"""WebP quality of stored images and maps."""
RECIPES_USE = ("DRFI", "HS", "RC", "CHS", "IG", "SR", "MF_heuristic", "MF_supervised")
"""The detectors whose maps of ECSSD the recipes start from."""
FAULTS_SHOWN = 20


class Layout(NamedTuple):
    """The files of a data set as its authors distribute it.

    counts: the number of images per split. images, truth: folders, `{}` stands for the split.
    inside: where these folders lie below FOLDER, in the order in which the places are tried.
    """

    counts: Mapping[str, int]
    images: str
    truth: str
    inside: tuple[str, ...]
    truth_suffix: str = ".png"
    keeps_grades: bool = False
    """True: the masks have several levels, which the archive keeps beside the binary ones."""


LAYOUTS: dict[str, Layout] = {
    "duts-tr": Layout({"train": 10553}, "DUTS-TR-Image", "DUTS-TR-Mask", ("", "DUTS-TR")),
    "duts-te": Layout({"test": 5019}, "DUTS-TE-Image", "DUTS-TE-Mask", ("", "DUTS-TE")),
    "ecssd": Layout({"test": 1000}, "images", "ground_truth_mask", ("", "ECSSD")),
    "pascal-s": Layout(
        {"test": 850}, "imgs/pascal", "masks/pascal", ("", "datasets"), keeps_grades=True
    ),
    "bsds500": Layout(
        {"train": 200, "val": 100, "test": 200},
        "images/{}",
        "groundTruth/{}",
        ("", "data", "BSDS500/data", "BSR/BSDS500/data"),
        truth_suffix=".mat",
    ),
}


@dataclass(frozen=True)
class Prepare:
    """Build the archive of a data set that the recipes name, from the files its authors distribute.

    docs/data.md says where each data set comes from and how its folders must be laid out.
    """

    name: Annotated[Name, tyro.conf.Positional]
    """The data set; ecssd-baselines stands for maps of ECSSD by other detectors."""
    folder: Annotated[Path, tyro.conf.Positional]
    """The unpacked data set, or a zip of it. For ecssd-baselines: one folder per detector."""
    out: Path = DATA
    """Where to write the archive. Default: data/."""


class Packed(NamedTuple):
    """One image and its truth as they lie in the archive.

    row: the image's line of MANIFEST.tsv. kind: the kind of its mask, see `Mask`.
    """

    stem: str
    files: dict[str, bytes]
    row: tuple[object, ...]
    kind: str


def prepare(name: str, folder: Path, out: Path) -> list[str]:
    """Write the archives of a data set into `out`; returns notes on what they hold.

    Raises:
        InputError: A file is missing, unreadable or of the wrong size, or the number of images is
            not that of the distributed set. All faults are listed in one error.
    """
    names = (DETECTORS,) if name == DETECTORS_NAME else ARCHIVES[name].files
    existing = [file for file in names if (out / file).exists()]
    if existing:
        raise InputError(
            f"{out / existing[0]} already exists; delete it to prepare it again, or choose another "
            "--out FOLDER"
        )
    make_folder(out, "--out")
    root = open_folder(folder)
    if name == DETECTORS_NAME:
        return prepare_maps(root, out)
    if ARCHIVES[name].lists:
        return prepare_mosaics(name, root, out)
    return prepare_set(name, root, out)


# Images with their masks or segmentations --------------------------------------------------------

HEADER = ("stem", "split", "width", "height", "packed_width", "packed_height")
MASK_HEADER = (*HEADER, "foreground_fraction", "source_mode", "sha256_image", "sha256_mask")
MOSAIC_HEADER = ("stem", "width", "height", "packed_width", "packed_height", "sha256_image")
SEGMENT_HEADER = (*HEADER, "annotators", "segments_per_annotator", "sha256_image")


def prepare_set(name: str, root: Folder, out: Path) -> list[str]:
    layout, archive = LAYOUTS[name], ARCHIVES[name]
    place = find_layout(name, root)
    faults: list[str] = []
    pairs: list[tuple[str, str, Folder, Folder]] = []
    for split, count in layout.counts.items():
        folders = [place / text.format(split) for text in (layout.images, layout.truth)]
        images = files_by_stem(folders[0], ".jpg")
        truth = files_by_stem(folders[1], layout.truth_suffix)
        if len(images) != count:
            faults.append(f"{folders[0]} must hold {count} .jpg images, found {len(images)}")
        suffix = layout.truth_suffix
        faults += missing(images, truth, f"images without a {suffix} file in {folders[1]}")
        faults += missing(truth, images, f"{suffix} files without an image in {folders[0]}")
        pairs += [
            (stem, split, images[stem], truth[stem]) for stem in in_order(images) if stem in truth
        ]

    def pack(index: int) -> Packed:
        stem, split, image, truth = pairs[index]
        if layout.truth_suffix == ".mat":
            return pack_segmentations(stem, split, image, truth)
        return pack_mask(stem, split, image, truth, stem in archive.excluded, layout.keeps_grades)

    packed, unusable = attempt_all(pack, len(pairs), name)
    report([*faults, *unusable], name, root)
    header = SEGMENT_HEADER if layout.truth_suffix == ".mat" else MASK_HEADER
    parts = len(archive.files)
    for number, file in enumerate(archive.files):
        # Dealt alternately, so that each part by itself is an even sample.
        part = packed[number::parts]
        lists = {
            f"splits/{split}.txt": lines(one.stem for one in part if one.row[1] == split)
            for split in layout.counts
        }
        write_archive(out / file, part, header, lists)
    return [*(f"wrote {out / file}" for file in archive.files), *set_notes(name, packed)]


def find_layout(name: str, root: Folder) -> Folder:
    """The folder that holds the images and the truth of a data set."""
    layout = LAYOUTS[name]
    wanted = [
        text.format(split) for text in (layout.images, layout.truth) for split in layout.counts
    ]
    for inside in layout.inside:
        place = root / inside if inside else root
        if all((place / folder).is_dir() for folder in wanted):
            return place
    entries = first_few(sorted(entry.name for entry in root.iterdir())) or "nothing"
    below = " or ".join(f"{inside}/" for inside in layout.inside if inside)
    raise InputError(
        f"{root} must hold {', '.join(f'{folder}/' for folder in wanted)} (directly or below "
        f"{below}), but holds {entries}; docs/data.md shows the layout of {name}"
    )


def pack_mask(
    stem: str, split: str, image_file: Folder, mask_file: Folder, may_be_empty: bool, grades: bool
) -> Packed:
    image, mask = open_image(image_file), open_image(mask_file)
    check_size(image_file, image.size, mask_file, mask.size)
    if not grades and as_mask(mask, mask_file).void is not None:
        raise InputError(f"{mask_file} has void pixels (255 beside a class), unlike the original")
    values = settled_map(mask, mask_file, "mask").values
    binary = values >= 128
    kind = "0/255" if ((values == 0) | (values == 255)).all() else "soft"
    if not binary.any() and not may_be_empty:
        raise InputError(f"{mask_file} has no foreground: no pixel is 128 or more")
    size = packed_size(image.size)
    files = {
        f"images/{stem}.webp": packed_photograph(image, image_file, size),
        f"masks/{stem}.png": png(Image.fromarray(binary).resize(size, Image.Resampling.NEAREST)),
    }
    if grades:
        graded = Image.fromarray(values)
        files[f"masks_graded/{stem}.png"] = png(graded.resize(size, Image.Resampling.NEAREST))
    fraction = f"{binary.mean():.5f}"
    hashes = digest(image_file), digest(mask_file)
    return Packed(
        stem, files, (stem, split, *image.size, *size, fraction, image.mode, *hashes), kind
    )


def packed_photograph(image: Image.Image, file: Folder, size: tuple[int, int]) -> bytes:
    return webp(as_photograph(image, file).pixels.resize(size, Image.Resampling.LANCZOS))


def pack_segmentations(stem: str, split: str, image_file: Folder, truth_file: Folder) -> Packed:
    """Image and label maps, one per annotator, their labels counted from 0."""
    image = open_image(image_file)
    size = packed_size(image.size)
    maps = read_segmentations(truth_file)
    files = {f"images/{stem}.webp": packed_photograph(image, image_file, size)}
    for annotator, labels in enumerate(maps):
        height, width = labels.shape
        segmentation = f"segmentation {annotator + 1} in {truth_file}"
        check_size(image_file, image.size, segmentation, (width, height))
        lowest, highest = int(labels.min()), int(labels.max())
        if highest - lowest > 255:
            raise InputError(f"{truth_file} has labels from {lowest} to {highest}, more than 256")
        grey = Image.fromarray((labels - lowest).astype(np.uint8))
        small = grey.resize(size, Image.Resampling.NEAREST)
        files[f"segmentations/{stem}_{annotator}.png"] = png(small)
    segments = ",".join(str(len(np.unique(labels))) for labels in maps)
    row = (stem, split, *image.size, *size, len(maps), segments, digest(image_file))
    return Packed(stem, files, row, "regions")


def read_segmentations(file: Folder) -> list[np.ndarray]:
    """`groundTruth{i}.Segmentation` of a file of BSDS500, int32 `(H, W)` each."""
    try:
        people = loadmat(io.BytesIO(read_bytes(file)))["groundTruth"].ravel()
        maps = [person["Segmentation"].ravel()[0].astype(np.int32) for person in people]
        if not maps or any(labels.ndim != 2 or not labels.size for labels in maps):
            raise ValueError("a segmentation is not a matrix")
    except InputError:
        raise
    except Exception as error:  # SciPy's reader and damaged files raise many kinds.
        raise InputError(
            f"{file} must hold groundTruth{{i}}.Segmentation, but cannot be read so: {error}"
        ) from None
    return maps


def set_notes(name: str, packed: Sequence[Packed]) -> list[str]:
    """The number of images, and known defects that were found."""
    notes = [f"{len(packed)} images", *mask_notes({one.stem: one.kind for one in packed})]
    by_hash: dict[object, list[str]] = {}
    for one in packed:
        by_hash.setdefault(one.row[MASK_HEADER.index("sha256_image")], []).append(one.stem)
    if name != "bsds500":
        same = [" = ".join(stems) for stems in by_hash.values() if len(stems) > 1]
        if same:
            notes.append(f"byte-identical images under two names: {first_few(same)}")
        grey = [one.stem for one in packed if one.row[MASK_HEADER.index("source_mode")] == "L"]
        if grey:
            notes.append(f"grey photographs: {first_few(grey)}")
    unused = [stem for stem in ARCHIVES[name].excluded if stem in {one.stem for one in packed}]
    if unused:
        notes.append(f"not used by any recipe: {', '.join(unused)} ({ARCHIVES[name].reason})")
    return [f"{name}: {note}" for note in notes]


# Mosaics with one ground truth --------------------------------------------------------------------


def prepare_mosaics(name: str, root: Folder, out: Path) -> list[str]:
    """Pack mosaics, `STEM.png`, and their common label map, which ARCHIVES names."""
    archive = ARCHIVES[name]
    truth = root / archive.truth
    images = files_by_stem(root, ".png")
    images.pop(Path(archive.truth).stem, None)
    count = sum(number for _, number in archive.lists)
    faults = []
    if not truth.is_file():
        faults.append(f"{truth} is missing: the label map of all mosaics")
    if len(images) != count:
        faults.append(f"{root} must hold {count} .png mosaics, found {len(images)}")
    report(faults, name, root)
    labels = open_image(truth)
    stems = in_order(images)

    def pack(index: int) -> Packed:
        stem = stems[index]
        image = open_image(images[stem])
        check_size(images[stem], image.size, truth, labels.size)
        size = packed_size(image.size)
        files = {f"images/{stem}.webp": packed_photograph(image, images[stem], size)}
        return Packed(stem, files, (stem, *image.size, *size, digest(images[stem])), "regions")

    packed, unusable = attempt_all(pack, len(stems), name)
    report(unusable, name, root)
    small = labels.resize(packed_size(labels.size), Image.Resampling.NEAREST)
    packed.append(Packed("", {archive.truth: png(small)}, (), "regions"))
    out.mkdir(parents=True, exist_ok=True)
    (file,) = archive.files
    write_archive(out / file, packed, MOSAIC_HEADER, {})
    return [f"wrote {out / file}", f"{name}: {count} mosaics"]


# Maps of other detectors -------------------------------------------------------------------------


def prepare_maps(root: Folder, out: Path) -> list[str]:
    """Pack maps of ECSSD, `DETECTOR/STEM.png` or `DETECTOR/STEM_DETECTOR.png`."""
    sizes = sizes_of_ecssd(out)
    detectors = detectors_in(root)
    faults: list[str] = []
    work: list[tuple[str, str, Folder]] = []
    for detector, folder in detectors.items():
        maps = {Path(file.name).stem: file for file in folder.iterdir() if is_image(file)}
        found = {
            stem: maps[name]
            for stem in sizes
            for name in (f"{stem}_{detector}", stem)
            if name in maps
        }
        faults += missing(sizes, found, f"images of ECSSD without a map in {folder}")
        work += [(detector, stem, file) for stem, file in found.items()]
    scales, notes_on_maps = scales_of(work)

    def pack(index: int) -> tuple[Packed, bool]:
        detector, stem, file = work[index]
        grey = Image.fromarray(settle_map(open_map(file), scales[detector]).values)
        original, size = sizes[stem]
        stretched = grey.size != original
        if stretched:
            grey = grey.resize(original, Image.Resampling.BILINEAR)
        name = f"{detector}/{stem}.webp"
        files = {name: webp(grey.resize(size, Image.Resampling.LANCZOS))}
        row = (name, f"{detectors[detector].name}/{file.name}", digest(file))
        return Packed(stem, files, row, ""), stretched

    packed, unusable = attempt_all(pack, len(work), "maps of ECSSD")
    report([*faults, *unusable], DETECTORS_NAME, root)
    header = ["file", "source_path", "sha256_source"]
    write_archive(out / DETECTORS, [one for one, _ in packed], header, {})
    notes = [f"wrote {out / DETECTORS}", f"maps of {', '.join(detectors)}", *notes_on_maps]
    stretched = [str(one.row[1]) for one, resized in packed if resized]
    if stretched:
        notes.append(f"resized to the size of the image: {first_few(stretched)}")
    present = set(map(str.lower, detectors))
    absent = [name for name in RECIPES_USE if name.lower() not in present]
    if absent:
        notes.append(f"no maps of {', '.join(absent)}: recipes that start from them will not run")
    return notes


def scales_of(work: Sequence[tuple[str, str, Folder]]) -> tuple[dict[str, Scale], list[str]]:
    """How the maps of each detector are read, and notes on them. Faulty maps are passed over.

    work: The detector, the stem and the file of each map.
    """
    looks = outcomes(lambda index: open_map(work[index][2]).stored, len(work), "maps of ECSSD")
    stored: dict[str, dict[str, tuple[str, float]]] = {}
    for (detector, stem, _), look in zip(work, looks, strict=True):
        if not isinstance(look, InputError):
            stored.setdefault(detector, {})[stem] = look
    scales, notes = {}, []
    for detector, found in stored.items():
        scales[detector] = scale_of(found.values())
        kinds = {stem: kind for stem, (kind, _) in found.items()}
        notes += [f"{detector}: {note}" for note in map_notes(kinds, scales[detector])]
    return scales, notes


def detectors_in(root: Folder) -> dict[str, Folder]:
    """The folders of maps by detector. If some are called `result_DETECTOR`, only these count."""
    folders = {
        entry.name: entry for entry in root.iterdir() if entry.is_dir() and has_images(entry)
    }
    if not folders:
        raise InputError(
            f"{root} must hold a folder of maps per detector, such as DRFI/0001.png, but holds none"
        )
    prefix = "result_"
    if any(name.startswith(prefix) for name in folders):
        folders = {
            name.removeprefix(prefix): folder
            for name, folder in folders.items()
            if name.startswith(prefix)
        }
    return dict(sorted(folders.items()))


def sizes_of_ecssd(out: Path) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """The original and the packed size of each image, as in the manifest of ecssd.zip."""
    file = out / ARCHIVES["ecssd"].files[0]
    if not file.is_file():
        raise InputError(
            f"the maps are packed to the sizes of the images in {file}, which does not exist; "
            f"first run `python -m reference_models.prepare ecssd FOLDER --out {out}`"
        )
    manifest = open_folder(file) / "MANIFEST.tsv"
    if not manifest.is_file():
        raise InputError(f"{manifest} is missing; delete {file} and prepare it again")
    rows = [line.split("\t") for line in read_bytes(manifest).decode().splitlines()[1:]]
    return {
        stem: ((int(width), int(height)), (int(packed_width), int(packed_height)))
        for stem, _, width, height, packed_width, packed_height, *_ in rows
    }


# Files -------------------------------------------------------------------------------------------


def files_by_stem(folder: Folder, suffix: str) -> dict[str, Folder]:
    entries: list[Folder] = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return {
        Path(entry.name).stem: entry
        for entry in entries
        if Path(entry.name).suffix.lower() == suffix and not entry.name.startswith(".")
    }


def in_order(stems: Iterable[str]) -> list[str]:
    """By number if all stems are numbers, else by letters; recipes choose images by this order."""
    names = list(stems)
    return sorted(names, key=int) if all(map(str.isdigit, names)) else sorted(names)


def packed_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def webp(image: Image.Image) -> bytes:
    return encoded(image, format="WEBP", quality=QUALITY)


def png(image: Image.Image) -> bytes:
    return encoded(image, format="PNG", optimize=True)


def encoded(image: Image.Image, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, **options)
    return content.getvalue()


def digest(file: Folder) -> str:
    return sha256(read_bytes(file)).hexdigest()


def lines(texts: Iterable[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def write_archive(
    path: Path, packed: Sequence[Packed], header: Sequence[str], lists: Mapping[str, str]
) -> None:
    """An uncompressed zip; equal content gives equal bytes."""
    rows = [header, *(one.row for one in packed if one.row)]
    manifest = lines("\t".join(map(str, row)) for row in rows)
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for one in packed:
            for name, content in one.files.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        for name, text in {"MANIFEST.tsv": manifest, **lists}.items():
            archive.writestr(zipfile.ZipInfo(name), text)


# Faults ------------------------------------------------------------------------------------------


def missing(stems: Iterable[str], partners: Iterable[str], what: str) -> list[str]:
    """A line on the stems that have no partner; none if every stem has one."""
    known = set(partners)
    alone = [stem for stem in stems if stem not in known]
    return [f"{what} ({len(alone)}): {first_few(alone)}"] if alone else []


def attempt_all(work: Callable[[int], Made], count: int, what: str) -> tuple[list[Made], list[str]]:
    """The results of `work` that succeeded, and the input errors of the others."""
    results = outcomes(work, count, what)
    done = [result for result in results if not isinstance(result, InputError)]
    return done, [str(result) for result in results if isinstance(result, InputError)]


def report(faults: Sequence[str], name: str, root: Folder) -> None:
    """Raise one error that lists all faults."""
    if not faults:
        return
    shown = [f"- {fault}" for fault in faults[:FAULTS_SHOWN]]
    if len(faults) > FAULTS_SHOWN:
        shown.append(f"- and {len(faults) - FAULTS_SHOWN} more")
    raise InputError(
        f"{root} is not {name} as its authors distribute it; nothing was written:",
        *shown,
        "unpack or download the data set again; docs/data.md says where it comes from",
    )


def main() -> None:
    with command():
        options = parse(Prepare, "prepare")
        for note in prepare(options.name, options.folder, options.out):
            print(note)


if __name__ == "__main__":
    main()
