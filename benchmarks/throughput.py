"""Photographs per second of `predict`, and the time and size of what it writes.

`python -m benchmarks.throughput` makes photographs, measures each part, and writes
`results/benchmarks/throughput.csv`. It takes less than 6 minutes on two idle cores, and needs the
extras `torch`, `models` and `ray`.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

from benchmarks.options import RESULTS
from benchmarks.timing import Recorder, versions
from reference_models.data.photographs import Photograph, read_photograph
from reference_models.data.png import save_png
from reference_models.measures.saliency import eight_bit
from reference_models.prediction.outputs import IMAGES, KINDS, save
from reference_models.training.photographs import Model, choose_source

LARGE_COPIES = 8
LARGE, SMALL = (4000, 3000), (400, 300)
"""Width and height."""
BOUND = "predict, two runs"


@dataclass(frozen=True)
class Options:
    """Measure the throughput of predict."""

    photographs: int = 1000
    """Number of small photographs."""
    out: Path = RESULTS
    """Folder for throughput.csv."""


@dataclass(frozen=True)
class Row:
    part: str
    """large: a photograph of 12 megapixels, and the steps it takes. small: many photographs on one
    core, on two, on two through Ray, and in two runs on a core each. files: encoders."""
    what: str
    photographs: int
    megapixels: float
    cores: int
    seconds: float
    megabytes: float | None = None


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.throughput")
    torch.set_num_threads(1)
    made_with = versions("pillow", "isal")
    with (
        Recorder(options.out, "throughput", Row, versions=made_with) as recorder,
        tempfile.TemporaryDirectory() as folder,
    ):
        for rows in (large, small, files):
            for row in rows(Path(folder), options):
                print(row, flush=True)
                recorder.add(row)


def photograph(size: tuple[int, int], seed: int) -> Image.Image:
    """Smooth colours, edges, and noise as of a camera."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 12, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.float32)
    x, y = (np.linspace(-1, 1, side, dtype=np.float32) for side in size)
    inside = (x + 0.2) ** 2 + (1.3 * y[:, None]) ** 2 < 0.3
    object_ = np.where((np.sin(40 * x) > 0)[None, :, None], 220, 60)
    pixels = np.where(inside[..., None], object_, smooth)
    pixels = pixels + 4 * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def least(call: Callable[[], Any], times: int = 3) -> float:
    """The least time of a call, in seconds."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def on_cores(number: int) -> None:
    """Use this many cores, in threads that are started from now on too."""
    os.sched_setaffinity(0, CORES[:number])


CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


# A photograph of 12 megapixels -------------------------------------------------------------------


def large(folder: Path, options: Options) -> list[Row]:
    """The steps of one photograph on one core, and `predict` on two, one photograph at a time."""
    for i in range(LARGE_COPIES):
        (folder / "in").mkdir(exist_ok=True)
        photograph(LARGE, 0).save(folder / "in" / f"{i}.jpg", quality=92)
    on_cores(1)
    steps = timed_steps(choose_source(None, False).load(), folder / "in/0.jpg", folder)
    rows = [Row("large", what, 1, 12, 1, seconds) for what, seconds in steps.items()]
    on_cores(2)
    for write, format in (
        *(("map", format) for format in ("png", "webp", "jpg")),
        *(("map,cutout,overlay", format) for format in ("png", "webp")),
    ):
        how = ["--write", write, "--format", format, "--workers", "1"]
        seconds = 1 / rate(folder / "in", folder / f"{write}-{format}", *how)
        rows.append(Row("large", f"predict, {write}, {format}", 1, 12, 2, seconds))
    return rows


def rate(photographs: Path, out: Path, *options: str, command: str = "predict") -> float:
    """Photographs per second that the command prints. Loading the network does not count, but the
    start of Ray's processes does."""
    line = [sys.executable, "-m", f"reference_models.{command}", str(photographs)]
    line += ["--out", str(out), *options]
    run = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True)
    return float(re.findall(r"([\d.]+) photographs/s", run.stdout)[-1])


def timed_steps(model: Model, file: Path, folder: Path) -> dict[str, float]:
    photo = read_photograph(file)
    inputs = model.sizes.inputs(photo.pixels)
    map_ = Image.fromarray(eight_bit(model.maps([inputs])[0], inputs.shape))
    steps = {
        "decoding": least(lambda: read_photograph(file)),
        "to the network's size": least(lambda: model.sizes.inputs(photo.pixels)),
        "network": least(lambda: model.maps([inputs])),
        "map to the photograph's size": least(
            lambda: eight_bit(model.maps([inputs])[0], inputs.shape)
        ),
        "encoding the map as PNG": least(lambda: save_png(map_, folder / "map.png")),
    }
    steps["map to the photograph's size"] -= steps["network"]
    return steps


# Many small photographs --------------------------------------------------------------------------


def small(folder: Path, options: Options) -> list[Row]:
    """All photographs on one core, on two, and on two through Ray."""
    (folder / "small").mkdir()
    for i in range(20):
        photograph(SMALL, i).save(folder / "small" / f"{i}.jpg", quality=92)
    for i in range(20, options.photographs):
        copy = folder / "small" / f"{i}.jpg"
        copy.write_bytes((folder / "small" / f"{i % 20}.jpg").read_bytes())
    number, rows = options.photographs, []
    for command, cores in (("predict", 1), ("predict", 2), ("predict_ray", 2)):
        on_cores(cores)
        out = folder / f"{command}-{cores}"
        seconds = number / rate(folder / "small", out, command=command)
        rows.append(Row("small", command, number, 0.12, cores, seconds))
    return [*rows, Row("small", BOUND, number, 0.12, 2, number / bound(folder))]


def bound(folder: Path) -> float:
    """Photographs per second of two runs at once, each with half of them and a core of its own,
    which share nothing but the machine."""

    def half(place: int) -> float:
        os.sched_setaffinity(0, CORES[place : place + 1])  # of this thread, and of what it starts
        return rate(folder / "small", folder / "halves", "--shard", f"{place + 1}/2")

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(half, range(2)))


# Files -------------------------------------------------------------------------------------------


def files(folder: Path, options: Options) -> list[Row]:
    """Time and size of what is written for a photograph of 12 megapixels, by encoder."""
    on_cores(1)
    pixels = photograph(LARGE, 0)
    x = np.linspace(-1, 1, 56)
    coarse = np.exp(-4 * ((x + 0.2) ** 2 + (1.3 * x[:, None]) ** 2)).astype(np.float32)
    saliency = eight_bit(coarse, LARGE[::-1])
    rows = []
    for kind in KINDS:
        image = IMAGES[kind](Photograph(pixels, None), saliency)
        for what, write in encoders(image, folder / "file").items():
            times = 1 if "Pillow" in what else 3
            seconds = least(write, times)
            megabytes = (folder / "file").stat().st_size / 1e6
            rows.append(Row("files", f"{kind}, {what}", 1, 12, 1, seconds, megabytes))
    return rows


def encoders(image: Image.Image, path: Path) -> dict[str, Callable[[], None]]:
    def pillow(level: int) -> Callable[[], None]:
        return lambda: image.save(path, "png", compress_level=level)

    calls: dict[str, Callable[[], None]] = {
        f"PNG by Pillow, level {level}": pillow(level) for level in (6, 1)
    }
    for format in ("png", "webp", *(["jpg"] if image.mode != "RGBA" else [])):
        calls[f"--format {format}"] = lambda format=format: save(image, path, format, b"")  # type: ignore[misc]
    return calls


if __name__ == "__main__":
    main()
