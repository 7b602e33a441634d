"""Files of a run: its folder is claimed for one set of options, every file written whole."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from reference_models.data import Data
from reference_models.options import InputError, Options, some

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

Arrays = dict[str, np.ndarray]
LOCK = ".lock"


def claim(folder: Path, options: Options, data: Data) -> None:
    """Make the folder, or take up one of the same options and data. No other is overwritten."""
    as_json = json.loads(json.dumps(options.as_json()))
    wanted = as_json | {"data_sha256": data.sha256, "backbone_sha256": options.backbone_sha256}
    record = folder / "options.json"
    if record.is_file():
        there = json.loads(record.read_text(encoding="utf-8"))
        old, new = there | there.get("schedule", {}), wanted | wanted["schedule"]
        differing = [key for key in new if key != "schedule" and new[key] != old.get(key)]
        if differing:
            changes = ", ".join(f"{key} {old.get(key)!r} -> {new[key]!r}" for key in differing)
            raise InputError(f"{folder} holds a different run ({changes}); give another --out")
    elif folder.exists() and not (folder.is_dir() and all(map(left_over, folder.iterdir()))):
        raise InputError(f"{folder} exists and is not a run folder; give another --out")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(record, wanted)


def left_over(path: Path) -> bool:
    """What a run leaves that was killed before it had written a file, see `whole` and `alone`."""
    return path.name == LOCK or (path.name.startswith(".") and path.suffix == ".partial")


class Busy(InputError):
    """Another process is at work in the same run folder."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes out of it; the lock ends with this process however
    that dies. Windows has no such lock: there nothing is kept out."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, and a run needs a folder; give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(
                    f"another process is training in {folder}; wait for it, or give another --out"
                ) from None
        yield


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, object]) -> None:
    with whole(path) as partial:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


def write_arrays(path: Path, arrays: Arrays, about: dict[str, object]) -> None:
    with whole(path) as partial:
        contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        # One entry: the order of several is random, and the same run shall give the same bytes.
        save_file(contiguous, partial, metadata={"about": json.dumps(about)})


def read_arrays(path: Path) -> Arrays:
    return load_file(path)


def read_about(path: Path) -> dict[str, object]:
    """What `write_arrays` was told about the arrays."""
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["about"])


def misfits(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """How two sets of arrays differ in names and shapes, in words; empty if they do not."""
    faults = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in wanted
            if name in given and given[name].shape != wanted[name].shape
        ],
    }
    return "; ".join(
        f"{len(names)} {fault}: {some(names)}" for fault, names in faults.items() if names
    )
