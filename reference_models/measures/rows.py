"""Files of measures to which rows are added image by image, for runs that may stop at any time."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from glob import escape
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from reference_models.errors import InputError, count, first_few
from reference_models.files import hold
from reference_models.shards import Shard

Row = Mapping[str, Any]
DECIMALS = 7
"""Of the values in a row. All reports are computed from rows, so that those of a single run and of
joined shards have equal bits."""

FILES = {"files", "notes"}
"""What the first line says of the files, which may change while other rows are kept."""


def rounded(row: Row) -> dict[str, Any]:
    """The row as a file holds it: numbers, and lists of numbers."""
    return {name: np.round(value, DECIMALS).tolist() for name, value in row.items()}


def rows_path(out: Path, shard: Shard) -> Path:
    """The file of rows beside a report."""
    part = "" if shard.count == 1 else f".{shard.index + 1}-of-{shard.count}"
    return out.with_name(f"{out.stem}{part}.rows.jsonl")


class RowFile:
    """Rows in a file of JSON lines; the first line says what they are measures of.

    Each row has the place of its image among all images, its stem, and a stamp of its files. Of
    several rows of one place the last counts. Where files have changed, a further line like the
    first one replaces it, and names the places whose rows count no more. A last line that was cut
    off is ignored. One process at a time may add rows: rows of two would be written over each
    other.
    """

    def __init__(self, path: Path, mode: str = "rb") -> None:
        self.path = path
        self.offsets: dict[int, int] = {}
        self.stamps: dict[int, str] = {}
        self.about: dict[str, Any] = {}
        self.shard = Shard(0, 1)
        self.file: IO[bytes] = path.open(mode)
        if mode != "rb" and not hold(self.file):
            self.file.close()
            raise InputError(
                f"another process is adding rows to {path}; wait for it, or pass another --out"
            )
        try:
            self.end = self._index()
            if mode == "rb" and not self.about:
                raise ValueError("it is empty")
        except (ValueError, KeyError, TypeError) as error:
            self.file.close()
            raise InputError(
                f"{path} is not a file of rows that evaluate wrote ({error}); remove it, or pass "
                "another --out"
            ) from None

    def _index(self) -> int:
        """Note what the lines say and where each row lies, and return the end of the last one."""
        end = 0
        for line in iter(self.file.readline, b""):
            if not line.endswith(b"\n"):
                if self.about:
                    break
                raise ValueError("its first line is cut off")
            row = json.loads(line)
            if "about" in row:
                self.about, self.shard = row["about"], Shard(*row["shard"])
                self._forget(row.get("without", ()))
            else:
                self.offsets[row["place"]], self.stamps[row["place"]] = end, row["stamp"]
            end += len(line)
        return end

    @classmethod
    def begin(
        cls, path: Path, about: Mapping[str, Any], shard: Shard, stamps: Mapping[int, str]
    ) -> Self:
        """The file at `path`, to which rows may be added, with the rows that it has if they are the
        same measures of files with these stamps, by place."""
        path.touch()  # Before it is locked, and it is locked before it is read.
        rows = cls(path, "r+b")
        same = all(rows.about.get(key) == about[key] for key in about.keys() - FILES)
        if not same or rows.shard != shard:
            rows._forget(list(rows.offsets))
            rows.about, rows.end = {}, 0
        rows.file.truncate(rows.end)
        changed = [place for place, stamp in rows.stamps.items() if stamps.get(place) != stamp]
        if changed or rows.about != about:
            rows._forget(changed)
            rows.about, rows.shard = dict(about), shard
            first = {"about": about, "shard": [shard.index, shard.count]}
            rows._append(first | ({"without": changed} if changed else {}))
        return rows

    def _forget(self, places: Sequence[int]) -> None:
        for place in places:
            self.offsets.pop(place, None)
            self.stamps.pop(place, None)

    def _append(self, line: Row) -> int:
        """Returns where the line begins."""
        begin = self.file.seek(0, os.SEEK_END)
        self.file.write(json.dumps(line).encode() + b"\n")
        self.file.flush()
        return begin

    def add(self, place: int, stem: str, stamp: str, row: Row) -> None:
        line = {"place": place, "stem": stem, "stamp": stamp, **row}
        self.offsets[place], self.stamps[place] = self._append(line), stamp

    def read(self, place: int) -> dict[str, Any]:
        self.file.seek(self.offsets[place])
        row: dict[str, Any] = json.loads(self.file.readline())
        return row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@contextmanager
def joined(out: Path) -> Iterator[list[RowFile]]:
    """The complete rows of all shards of a report, one file for each shard."""
    paths = shard_paths(out)
    with ExitStack() as files:
        shards = [files.enter_context(RowFile(path)) for path in paths]
        for index, rows in enumerate(shards):
            check_shard(rows, Shard(index, len(paths)), shards[0])
        yield shards


def check_shard(rows: RowFile, shard: Shard, first: RowFile) -> None:
    if rows.shard != shard:
        raise InputError(
            f"{rows.path} holds shard {rows.shard}, unlike its name; remove it, and run evaluate "
            f"--shard {shard}"
        )
    keys = {*first.about, *rows.about}
    differing = sorted(key for key in keys if rows.about.get(key) != first.about.get(key))
    if differing:
        raise InputError(
            f"{rows.path} and {first.path} are of different evaluations: they differ in "
            f"{', '.join(differing)}; remove the wrong one, and measure it again"
        )
    places = shard.of(range(int(rows.about["images"])))
    if missing := sum(place not in rows.offsets for place in places):
        raise InputError(
            f"{rows.path} lacks {count(missing, 'image')} of {len(places)}; run evaluate --shard "
            f"{shard} again, which continues"
        )


def in_order(shards: Sequence[RowFile]) -> Iterator[dict[str, Any]]:
    """The rows of all images, in the order of an evaluation without shards."""
    for place in range(int(shards[0].about["images"])):
        yield shards[place % len(shards)].read(place)


def shard_paths(out: Path) -> Sequence[Path]:
    """The files of all shards of a report, in order."""
    pattern = re.compile(re.escape(out.stem) + r"\.(\d+)-of-(\d+)\.rows\.jsonl")
    found = {
        (int(match[2]), int(match[1])): path
        for path in out.parent.glob(f"{escape(out.stem)}.*-of-*.rows.jsonl")
        if (match := pattern.fullmatch(path.name))
    }
    counts = sorted({number for number, _ in found})
    if not counts:
        raise InputError(
            f"there are no shards of {out} to join; run evaluate --shard 1/N and so on first, with "
            "the same --out"
        )
    if len(counts) > 1:
        raise InputError(
            f"beside {out} lie shards of {' and of '.join(map(str, counts))}; remove all but those "
            "of one number"
        )
    number = counts[0]
    if missing := [f"{i}/{number}" for i in range(1, number + 1) if (number, i) not in found]:
        raise InputError(
            f"{count(len(missing), 'shard')} of {out} missing: {first_few(missing)}; run evaluate "
            "--shard for each of them"
        )
    return [found[number, i] for i in range(1, number + 1)]
