"""Time of the measures of saliency maps beside that of the field's evaluation program.

`python -m benchmarks.measures_speed` times `saliency_measures` in turns with pysodmetrics, on one
thread, on maps of ECSSD at 256², and writes `results/benchmarks/measures_speed.csv`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from benchmarks.options import RESULTS, limit_threads

if TYPE_CHECKING:
    from benchmarks.backends import Backend
    from benchmarks.cases import Array
    from benchmarks.timing import Row

IMAGES = 16
"""Each row has the seconds of all of them."""
BATCHES = (1, 8)
SIDE = 256


@dataclass(frozen=True)
class Options:
    """Time the measures beside pysodmetrics."""

    data: Path = Path("data")
    """Folder with the archives ecssd.zip and ecssd_baselines.zip."""
    seconds: float = 5.0
    """Time for the repeats of each."""
    out: Path = RESULTS
    """Folder for measures_speed.csv."""


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.measures_speed")
    limit_threads(1)  # before the frameworks start their threads
    import torch

    from benchmarks.timing import Recorder

    torch.set_num_threads(1)
    with Recorder(options.out, "measures_speed", threads=1) as recorder:
        for row in rows(options):
            recorder.add(row)
            print(row.backend, row.item, row.batch, row.min_s, row.unit_min_s)


def rows(options: Options) -> Iterator[Row]:
    """A row for each backend, dtype and size of batch."""
    from benchmarks.backends import OURS
    from benchmarks.measures import program
    from benchmarks.timing import Row, time_call

    pairs = images(options.data)
    unit = partial(each, program, pairs)
    for batch in BATCHES:
        for backend in OURS:
            # `evaluate` measures in float64.
            for dtype in ("float64", "float32") if backend.mode == "eager" else ("float32",):
                row = Row("the measures", backend.name, size=SIDE, batch=batch, item=dtype)
                row.unit = "pysodmetrics"
                call = partial(each, measures(backend), batches(pairs, batch, dtype, backend))
                time_call(row, call, seconds=options.seconds, repeats=31, unit=unit)
                yield row


def each(function: Callable[..., Any], inputs: Sequence[tuple[Any, Any]]) -> None:
    for args in inputs:
        function(*args)


def images(data: Path) -> list[tuple[Array, Array]]:
    """Maps in [0, 1] and boolean masks, 256 × 256."""
    import numpy as np
    from PIL import Image

    from benchmarks.fbeta_versions import maps_and_masks

    def resized(values: Array) -> Array:
        return np.asarray(Image.fromarray(np.uint8(255 * values)).resize((SIDE, SIDE)))

    pairs = islice(maps_and_masks(data, "DRFI"), IMAGES)
    return [(resized(values) / 255, resized(mask) > 127) for values, mask in pairs]


def batches(
    pairs: Sequence[tuple[Array, Array]], batch: int, dtype: str, backend: Backend
) -> list[tuple[Any, Any]]:
    """All images in batches, as the backend takes them."""
    import numpy as np

    found = []
    for start in range(0, len(pairs), batch):
        some = zip(*pairs[start : start + batch], strict=True)
        maps, masks = (np.stack(arrays)[..., None] for arrays in some)
        placed = backend.place({"probs": maps.astype(dtype), "target": masks})
        found.append((placed["probs"], placed["target"]))
    return found


def measures(backend: Backend) -> Callable[[Any, Any], Any]:
    """The measures that pysodmetrics has too; it returns only when all work is done."""
    import jax
    import torch

    import saliency_losses.jax.measures
    import saliency_losses.torch.measures
    from benchmarks.measures import OURS

    library = saliency_losses.torch if backend.framework == "torch" else saliency_losses.jax
    function = partial(
        library.measures.saliency_measures, names=tuple(OURS.values()), reduction="none"
    )
    if backend.mode == "compile":
        return torch.compile(function, fullgraph=True, dynamic=False)
    if backend.mode == "jit":
        compiled = jax.jit(function)
        return lambda *maps: jax.block_until_ready(compiled(*maps))
    return function


if __name__ == "__main__":
    main()
