"""The run folder: claimed for one set of options, every file written whole or not at all."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import numpy as np
from safetensors.numpy import load_file, save_file

from reference_models.data import Data
from reference_models.options import InputError, Options

Arrays = dict[str, np.ndarray]


def claim(folder: Path, options: Options, data: Data) -> None:
    """Make the folder, or take up one of the same options and data. No other is overwritten."""
    wanted, record = options.as_json() | {"data_sha256": data.sha256()}, folder / "options.json"
    if record.is_file():
        there = json.loads(record.read_text(encoding="utf-8"))
        differing = [key for key in wanted if wanted[key] != there.get(key)]
        if differing:
            changes = ", ".join(f"{key} {there.get(key)!r} -> {wanted[key]!r}" for key in differing)
            raise InputError(f"{folder} holds a different run ({changes}); give another --out")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not a run folder; give another --out")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(record, wanted)


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


def versions(backend: str) -> dict[str, str]:
    frameworks = {"torch": ("torch",), "jax": ("jax", "jaxlib", "flax", "optax")}[backend]
    packages = (*frameworks, "numpy", "scipy", "pillow", "pysodmetrics")
    return {"python": python_version()} | {name: version(name) for name in packages}


def commit() -> str | None:
    """The commit this file belongs to, with "-dirty" after local changes; None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
