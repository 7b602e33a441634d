"""Splits of a data set into training, validation and test images."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from reference_models.data.pictures import Folder
from reference_models.errors import InputError, first_few

Made = TypeVar("Made")


def read_splits(root: Folder, names: Iterable[str]) -> dict[str, list[str]]:
    """The stems of `splits/train.txt`, `val.txt` and `test.txt`, those that exist."""
    known, lists = set(names), {}
    if (root / "splits").is_dir():
        texts = {entry.name for entry in (root / "splits").iterdir() if entry.name[-4:] == ".txt"}
        if odd := sorted(texts - {"train.txt", "val.txt", "test.txt"}):
            raise InputError(
                f"{root / 'splits'} may hold train.txt, val.txt and test.txt, but holds "
                f"{first_few(odd)}"
            )
    for name in ("train", "val", "test"):
        file = root / "splits" / f"{name}.txt"
        if file.is_file():
            lines = file.read_text(encoding="utf-8-sig").splitlines()
            lists[name] = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
            unknown = [stem for stem in lists[name] if stem not in known]
            if unknown:
                raise InputError(f"{file} names {len(unknown)} unknown stems: {first_few(unknown)}")
    return lists


def split(
    names: Sequence[str],
    lists: dict[str, list[str]],
    rng: np.random.Generator,
    most_validation: int = 40,
) -> tuple[list[str], list[str], list[str], str]:
    """Stems for training, validation, test, and how they were found.

    The lists decide where they leave something to train on and something to test on; what one of
    them does not name is the other. Otherwise a fifth is held out at random. Validation, if not
    listed, is a tenth of the training images, at most `most_validation`.
    """
    train, validation, test = (list(lists.get(name, ())) for name in ("train", "val", "test"))
    for one, other in ((train, test), (train, validation), (validation, test)):
        shared = sorted(set(one) & set(other))
        if shared:
            raise InputError(f"the lists in splits/ share {len(shared)} stems: {first_few(shared)}")
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
        kept = max(1, min(most_validation, len(train) // 10))
        validation, train = shuffled[:kept], shuffled[kept:]
    return train, validation, test, how


def evenly(stems: Sequence[Made], most: int | None) -> list[Made]:
    """At most `most` of them, spread evenly from the first to the last, in their order."""
    if most is None or most >= len(stems):
        return list(stems)
    return [stems[i] for i in np.unique(np.linspace(0, len(stems) - 1, most).round().astype(int))]
