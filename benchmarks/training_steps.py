"""Seconds of a training step of the zoomout network with each loss, in turns with cross-entropy.

`python -m benchmarks.training_steps` writes `results/benchmarks/training_steps.csv`. W §3 says that
its loss "does not increase training wall clock time noticeably". Here the time is that of the
processor, which on one thread is the wall clock's where nothing else runs.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import get_args

import tyro

from benchmarks.options import RESULTS, limit_threads
from reference_models.options import Backend
from reference_models.options import Options as RunOptions
from reference_models.papers.schema import ScaleName

LOSSES = ("zoomout-af", "zoomout-exact")
CROSS_ENTROPY = "zoomout-ce"
NOTICED = 1.05
"""A step of more than this multiple is called noticeably longer, set before any measurement."""
BACKBONES: dict[ScaleName, str] = {"small": "frozen", "medium": "fine-tuned"}
"""The backbone by scale: frozen, its features computed once, or trained too."""


@dataclass(frozen=True)
class Options:
    """Time training steps, on generated images, since their content does not matter."""

    batch: int = 8
    """Images of a step."""
    repeats: int = 15
    """Steps that are timed with each loss."""
    size: int | None = None
    """Side of the images in pixels. Default: the recipes'."""
    threads: int = 1
    """Number of CPU cores to which the process is pinned."""
    out: Path = RESULTS
    """Folder for training_steps.csv."""


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.training_steps")
    limit_threads(options.threads)
    # The frameworks read the limits when they are imported.
    from benchmarks.timing import Recorder, Row

    with Recorder(options.out, "training_steps", threads=options.threads, seed=0) as recorder:
        for backend in get_args(Backend):
            for scale, backbone in BACKBONES.items():
                names = (CROSS_ENTROPY, *LOSSES)
                steps = {name: stepper(name, scale, backend, options) for name in names}
                times = in_turns({name: step for name, (step, _) in steps.items()}, options.repeats)
                low, middle, high = (
                    {name: statistic(values) for name, values in times.items()}
                    for statistic in (min, median, max)
                )
                for name in LOSSES:
                    row = Row(
                        name, backend, "training step", steps[name][1], options.batch,
                        item=backbone, median_s=middle[name], min_s=low[name], max_s=high[name],
                        repeats=options.repeats, unit=CROSS_ENTROPY,
                        unit_median_s=middle[CROSS_ENTROPY], unit_min_s=low[CROSS_ENTROPY],
                        unit_max_s=high[CROSS_ENTROPY],
                    )  # fmt: skip
                    recorder.add(row)
                    print(f"{name}, {backend}, backbone {backbone}: {low[name]:.3f} s", end="; ")
                    print(f"{CROSS_ENTROPY}: {low[CROSS_ENTROPY]:.3f} s")


def in_turns(steps: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of processor time of each step, after two that are not timed, which may compile."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(2 + repeats):
        for name, step in steps.items():
            begun = time.process_time()
            step()
            if turn >= 2:
                times[name].append(time.process_time() - begun)
    return times


def stepper(
    recipe: str, scale: ScaleName, backend: Backend, options: Options
) -> tuple[Callable[[], float], int]:
    """A function that trains for one more step, and the side of its images."""
    from reference_models.training.augmentation import draw_step
    from reference_models.training.frameworks import new_trainer
    from reference_models.training.run import load_data

    chosen = RunOptions(
        recipe=recipe, scale=scale, backend=backend, data="scenes", size=options.size,
        batch=options.batch, train_images=2 * options.batch, test_images=1, device="cpu",
    )  # fmt: skip
    images = load_data(chosen).train
    trainer = new_trainer(chosen)
    trainer.set_training_images(images)
    size = chosen.plan.size
    numbers = count()

    def step() -> float:
        draw = draw_step(len(images), size, chosen.plan, seed=0, step=next(numbers))
        return trainer.step(draw)

    return step, chosen.plan.crop or size


if __name__ == "__main__":
    main()
