"""Masks with their maps in folders or zips, of which few are in memory at a time."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from reference_models.data.maps import (
    SaliencyMap,
    Scale,
    map_files,
    map_notes,
    open_map,
    scale_of,
    settle_map,
)
from reference_models.data.masks import Look, Mask, as_mask, has_void, mask_notes, settled_mask
from reference_models.data.pictures import (
    Folder,
    by_stem,
    has_images,
    one_folder,
    open_folder,
    open_image,
    side_by_side,
    size_of,
)
from reference_models.data.sets import check_classes
from reference_models.errors import Faults, count


@dataclass(frozen=True)
class Pairs:
    """Masks and their maps, in the order of their names."""

    stems: tuple[str, ...]
    masks: Mapping[str, Folder]
    maps: Mapping[str, Folder]
    void: bool
    """How masks are read; see `has_void`."""
    scale: Scale
    """How maps are read."""
    notes: list[str]

    def read(self, place: int) -> tuple[SaliencyMap, Mask]:
        stem = self.stems[place]
        mask, saliency = self.masks[stem], self.maps[stem]
        return (
            settle_map(open_map(saliency), self.scale),
            settled_mask(as_mask(open_image(mask), mask), self.void),
        )

    def stamp(self, place: int) -> str:
        """Text that changes when a file of the pair is written anew, or another takes its place."""
        files = [each[self.stems[place]] for each in (self.masks, self.maps)]
        return " ".join(f"{file.name}:{_stamp(file)}" for file in files)

    def digest(self) -> str:
        """A number of all names and sizes of files, equal on any machine."""
        digest = sha256()
        for stem in self.stems:
            for files in (self.masks, self.maps):
                text = f"{stem}\n{files[stem].name}\n{size_of(files[stem])}\n"
                digest.update(text.encode(errors="surrogateescape"))
        return digest.hexdigest()


def find_pairs(masks: Path, maps: Path, shared: bool = False) -> Pairs:
    """Look at all masks and maps once, since the storage of one decides how others are read.

    All faulty files are reported together. shared: Skip masks without a map.
    """
    files = mask_files(masks)
    faults = Faults()
    with faults.collect():
        stems = list(files)
        looks = side_by_side(lambda place: _look_at_mask(files[stems[place]]), len(stems), "masks")
        of_masks = dict(zip(stems, looks, strict=True))
    with faults.collect():
        chosen = map_files(maps, files, shared)
        paired = list(chosen)
        found = side_by_side(lambda place: _look_at_map(chosen[paired[place]]), len(paired), "maps")
        of_maps = dict(zip(paired, found, strict=True))
    faults.report()
    void = has_void(look.kind for look, _ in looks)
    check_classes([look.classes[void] for look, _ in looks], str(masks))
    scale = scale_of(stored for stored, _ in found)
    notes = mask_notes({stem: look.kinds[void] for stem, (look, _) in of_masks.items()})
    notes += map_notes({stem: kind for stem, ((kind, _), _) in of_maps.items()}, scale)
    if len(paired) < len(stems):
        missing = count(len(stems) - len(paired), "mask has", "masks have")
        notes.append(f"{missing} no map, not measured")
    resized = sum(of_maps[stem][1] != of_masks[stem][1] for stem in paired)
    found_classes = [of_masks[stem][0].classes[void] for stem in paired]
    notes += notes_on(
        resized, found_classes.count((False, True)), found_classes.count((False, False))
    )
    return Pairs(tuple(paired), files, chosen, void, scale, notes)


def notes_on(resized: int, empty: int, void: int = 0) -> list[str]:
    """Notes on numbers of maps that are resized, of masks without foreground, and of masks that are
    all void."""
    notes = []
    if resized:
        notes.append(
            count(
                resized,
                "map differs in size from its mask and is resized to it",
                "maps differ in size from their masks and are resized to them",
            )
        )
    if empty:
        notes.append(
            count(
                empty,
                "mask is all background: it counts in the MAE only",
                "masks are all background: they count in the MAE only",
            )
        )
    if void:
        notes.append(
            count(
                void,
                "mask is all void: it counts nowhere",
                "masks are all void: they count nowhere",
            )
        )
    return notes


def mask_files(path: Path) -> dict[str, Folder]:
    """The masks in the masks/ of a folder or zip or one level below, or in the folder itself."""
    root = open_folder(path)
    if has_images(root) and not (root / "masks").is_dir():
        return by_stem([root])
    place = one_folder(path, lambda folder: (folder / "masks").is_dir(), "masks/")
    return by_stem([place / "masks"])


Shape = tuple[int, ...]


def _look_at_mask(file: Folder) -> tuple[Look, Shape]:
    mask = as_mask(open_image(file), file)
    return Look.at(mask), mask.object.shape


def _look_at_map(file: Folder) -> tuple[tuple[str, float], Shape]:
    saliency = open_map(file)
    return saliency.stored, saliency.values.shape


def _stamp(file: Folder) -> str:
    if isinstance(file, zipfile.Path):
        return f"{file.root.getinfo(file.at).CRC:08x}"
    status = file.stat()
    return f"{status.st_size}:{status.st_mtime_ns}"
