"""Time of the measures of saliency maps beside that of the field's evaluation program.

`python -m benchmarks.measures_speed` times `saliency_measures` and pysodmetrics in turns, on one
thread, on maps of ECSSD at 256², and writes `results/benchmarks/measures_speed.csv`.
"""

import csv
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import tyro

from benchmarks.options import RESULTS, limit_threads

COLUMNS = (
    *("mode", "dtype", "batch", "milliseconds", "program_milliseconds", "images"),
    *("device", "versions", "commit"),
)
SIDE = 256
BATCHES = (1, 8)


@dataclass(frozen=True)
class Options:
    """Time the measures beside pysodmetrics."""

    data: Path = Path("data")
    """Folder with the archives ecssd.zip and ecssd_baselines.zip."""
    images: int = 16
    """Number of images, a multiple of 8."""
    rounds: int = 15
    """Each is timed once in a round; the fastest counts."""
    out: Path = RESULTS
    """Folder for measures_speed.csv."""


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.measures_speed")
    limit_threads(1)  # before the frameworks start their threads
    import torch

    torch.set_num_threads(1)
    path = options.out / "measures_speed.csv"
    partial_path = path.with_suffix(".partial.csv")
    with partial_path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows(options))
    os.replace(partial_path, path)
    print(f"Wrote {path}")


def rows(options: Options) -> Iterator[tuple[Any, ...]]:
    """The milliseconds of an image by each mode, and by the program in the same rounds."""
    from benchmarks.timing import commit, device_name, versions

    calls = {("program", "float64", 1): program_call(options)}
    for batch in BATCHES:
        calls |= torch_calls(options, batch) | jax_calls(options, batch)
    fastest = dict.fromkeys(calls, float("inf"))
    for _ in range(1 + options.rounds):  # The first one compiles; it is never the fastest.
        for key, call in calls.items():
            begun = time.perf_counter()
            call()
            fastest[key] = min(fastest[key], time.perf_counter() - begun)
    program, *_ = (1000 * seconds / options.images for seconds in fastest.values())
    for key, seconds in list(fastest.items())[1:]:
        ours = 1000 * seconds / options.images
        times = f"{ours:.4f}", f"{program:.4f}"
        yield (*key, *times, options.images, device_name("cpu"), versions(), commit())


def images(options: Options) -> list[tuple[Any, Any]]:
    """Maps in [0, 1] and boolean masks, 256 × 256."""
    import numpy as np
    from PIL import Image

    from benchmarks.fbeta_versions import maps_and_masks

    def resized(values: Any) -> Any:
        return np.asarray(Image.fromarray(np.uint8(255 * values)).resize((SIDE, SIDE)))

    pairs = islice(maps_and_masks(options.data, "DRFI"), options.images)
    return [(resized(values) / 255, resized(mask) > 127) for values, mask in pairs]


def each(function: Callable[..., Any], inputs: list[Any]) -> None:
    for args in inputs:
        function(*args)


def program_call(options: Options) -> Callable[[], None]:
    from benchmarks.measures import program

    return partial(each, program, images(options))


def stacked(options: Options, batch: int, dtype: str) -> Iterator[tuple[Any, Any]]:
    """Batches of maps and masks, ``(batch, 256, 256)``."""
    import numpy as np

    found = images(options)
    for start in range(0, len(found), batch):
        maps, masks = zip(*found[start : start + batch], strict=True)
        yield np.stack(maps).astype(dtype), np.stack(masks)


def torch_calls(options: Options, batch: int) -> dict[tuple[str, str, int], Callable[[], None]]:
    import torch

    from benchmarks.measures import OURS
    from saliency_losses.torch import measures

    eager = partial(measures.saliency_measures, names=tuple(OURS.values()), reduction="none")
    modes: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch eager", "float64"): eager,
        ("torch eager", "float32"): eager,
        ("torch.compile", "float32"): torch.compile(eager, dynamic=False, fullgraph=True),
    }
    return {
        (mode, dtype, batch): partial(
            each,
            function,
            [
                tuple(torch.from_numpy(x)[:, None] for x in pair)
                for pair in stacked(options, batch, dtype)
            ],
        )
        for (mode, dtype), function in modes.items()
    }


def jax_calls(options: Options, batch: int) -> dict[tuple[str, str, int], Callable[[], None]]:
    import jax
    import jax.numpy as jnp

    from benchmarks.measures import OURS
    from saliency_losses.jax import measures

    compiled = jax.jit(
        partial(measures.saliency_measures, names=tuple(OURS.values()), reduction="none")
    )

    def call(maps: jax.Array, masks: jax.Array) -> None:
        jax.block_until_ready(compiled(maps, masks))

    inputs = [
        tuple(jnp.asarray(x)[..., None] for x in pair)
        for pair in stacked(options, batch, "float32")
    ]
    return {("jax.jit", "float32", batch): partial(each, call, inputs)}


if __name__ == "__main__":
    main()
