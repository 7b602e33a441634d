"""Seconds of a training step of the zoomout network with each loss, in turns with cross-entropy.

`python -m benchmarks.training_steps` writes `results/benchmarks/training_steps.csv`. W §3 says that
its loss "does not increase training wall clock time noticeably".
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
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
    """Steps that are timed with each loss, at least 3 within --seconds."""
    seconds: float = 60.0
    """Time for each loss, framework and scale."""
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
    from benchmarks.timing import Recorder, Row, time_call

    with Recorder(options.out, "training_steps", threads=options.threads, seed=0) as recorder:
        for backend in get_args(Backend):
            for scale, backbone in BACKBONES.items():
                steps = {
                    name: stepper(name, scale, backend, options)
                    for name in (CROSS_ENTROPY, *LOSSES)
                }
                for name in LOSSES:
                    step, side = steps[name]
                    row = Row(
                        name, backend, "training step", side, options.batch, item=backbone,
                        unit=CROSS_ENTROPY,
                    )  # fmt: skip
                    unit, _ = steps[CROSS_ENTROPY]
                    time_call(
                        row, step, unit=unit, seconds=options.seconds, repeats=options.repeats
                    )
                    recorder.add(row)
                    times = f"{row.min_s:.3f} s, {CROSS_ENTROPY} {row.unit_min_s:.3f} s"
                    print(f"{name}, {backend}, backbone {backbone}: {times}")


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
