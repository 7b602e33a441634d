"""Splits of a data set into training, validation and test images."""

from collections.abc import Iterable, Sequence
from typing import TypeVar
from unicodedata import normalize

import numpy as np

from reference_models.data.pictures import Folder, read_bytes
from reference_models.errors import Faults, InputError, count, first_few

Item = TypeVar("Item")
MOST_LIST_BYTES = 2**25
"""Of a list of names, which takes many times as much memory when it is read."""


def read_splits(root: Folder, names: Iterable[str]) -> dict[str, list[str]]:
    """The stems in `splits/train.txt`, `val.txt` and `test.txt`, for the lists that exist.

    names: The stems of all images.
    """
    stems, lists = set(names), {}
    folder, faults = root / "splits", Faults()
    listed = ("train.txt", "val.txt", "test.txt")
    entries = []
    if folder.is_dir():
        entries = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    elif "splits" in (entry.name for entry in root.iterdir()):
        raise InputError(f"{folder} must be a folder; remove it, or put lists into it")
    texts = {name for name in entries if name.lower().endswith(".txt")}
    if odd := sorted(texts - set(listed)):
        with faults.collect():
            raise InputError(
                f"{folder} may hold only {', '.join(listed)}, but holds {first_few(odd)}; rename "
                f"or remove {'it' if len(odd) == 1 else 'them'}"
            )
    for name in ("train", "val", "test"):
        if f"{name}.txt" not in entries:
            continue
        with faults.collect():
            lists[name] = read_list(folder / f"{name}.txt", stems)
    faults.report()
    return lists


def read_list(file: Folder, stems: set[str]) -> list[str]:
    """The stems that a list names, one per line."""
    if not file.is_file():
        raise InputError(f"{file} is not a file; write one image name without extension per line")
    try:
        text = read_bytes(file, MOST_LIST_BYTES).decode("utf-8-sig")
        lines = normalize("NFC", text).splitlines()
    except InputError:
        raise
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text; save it as UTF-8") from None
    except Exception as error:  # As in `open_image`: encrypted or damaged zips.
        raise InputError(f"{file} cannot be read: {error}; unpack the zip, or replace it") from None
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    unknown = [stem for stem in names if stem not in stems]
    if unknown:
        missing = count(len(unknown), "image that does", "images that do")
        raise InputError(
            f"{file} lists {missing} not exist: {first_few(unknown)}; write one image name "
            "without extension per line"
        )
    return names


def split(
    names: Sequence[str],
    lists: dict[str, list[str]],
    rng: np.random.Generator,
    most_validation: int = 40,
) -> tuple[list[str], list[str], list[str], str]:
    """Stems for training, for validation and for testing, and a note on how they were chosen.

    The lists decide if they leave images both to train and to test on. If only the training or only
    the test images are listed, the unlisted images become the other set. Otherwise a random fifth
    of all images is held out for testing. Without a list of validation images, a tenth of the
    training images is taken, at most `most_validation`.
    """
    train, validation, test = (list(lists.get(name, ())) for name in ("train", "val", "test"))
    for first, second in ((train, test), (train, validation), (validation, test)):
        shared = sorted(set(first) & set(second))
        if shared:
            raise InputError(
                f"the lists in splits/ share {count(len(shared), 'image')}: {first_few(shared)}; "
                "keep each image in one list only"
            )
    listed = {*train, *validation, *test}
    unlisted = [name for name in names if name not in listed]
    if train and not test:
        test = unlisted
    elif test and not train:
        train = unlisted
    note = "split as listed in splits/"
    if not test or len(train) < 2:
        reason = "splits/ leaves nothing to train or test on" if lists else "there is no splits/"
        note = f"{reason}: a fifth of the images is held out at random, by seed"
        shuffled = [names[i] for i in rng.permutation(len(names))]
        held_out = max(1, len(names) // 5)
        test, train, validation = shuffled[:held_out], shuffled[held_out:], []
    if not validation:
        shuffled = [train[i] for i in rng.permutation(len(train))]
        kept = max(1, min(most_validation, len(train) // 10))
        validation, train = shuffled[:kept], shuffled[kept:]
    return train, validation, test, note


def evenly(stems: Sequence[Item], most: int | None) -> list[Item]:
    """Up to `most` stems, spread evenly from the first to the last, in the same order."""
    if most is None or most >= len(stems):
        return list(stems)
    return [stems[i] for i in np.unique(np.linspace(0, len(stems) - 1, most).round().astype(int))]
