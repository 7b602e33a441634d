"""Steps of several recipes in JAX, on the devices of one process or of several.

`python -m tests.support.flax_runs FOLDER RECIPE…`: test_flax_training starts it.
"""

import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from reference_models.errors import InputError, OutOfTime
from reference_models.files import write_arrays
from reference_models.networks.options import Backbone
from reference_models.options import Options
from reference_models.papers.recipes import RECIPES
from reference_models.training.augmentation import draw_step
from reference_models.training.flax_trainer import DeviceDraw
from reference_models.training.frameworks import new_trainer
from reference_models.training.run import load_data
from reference_models.training.stopping import signals_after_steps


def settings(recipe: str) -> Options:
    """Whole batches of 8 in crops, a short backbone fine-tuned."""
    before = RECIPES[recipe]
    backbone = before.small.backbone and Backbone("mobilenet_v2", (1, 3))
    plan = replace(
        before.small,
        size=64,
        crop=32,
        backbone=backbone,
        backbone_rate=0.1 if backbone else 0.0,
        steps=3,
        batch=8,
        train_images=16,
        test_images=4,
        rate=1e-3,
    )
    RECIPES[recipe] = replace(before, small=plan)
    return Options(recipe=recipe, backend="jax", scale="small", data="scenes")


def gathered(trainer) -> list[str]:
    """What the compiled step brings together that has as many numbers as one image."""
    shapes = (trainer.parts.learnt, trainer.parts.running, trainer.moments, trainer.parts.fixed)
    zeros = np.zeros(8, np.int32)
    batch = trainer.put((zeros, zeros > 0, np.zeros((8, 2), np.int32)), trainer.shared)
    seed = trainer.put(np.uint32(0), trainer.everywhere)
    text = (
        trainer._step.lower(*shapes, trainer.stored, DeviceDraw(*batch, seed)).compile().as_text()
    )
    found = []
    for line in text.splitlines():
        if re.search(r"= .*(all-gather|all-to-all|collective-permute)", line):
            sizes = re.findall(r"\w\[([\d,]+)\]", line)
            if any(np.prod([int(n) for n in size.split(",")]) >= 32 * 32 for size in sizes):
                found.append(line.strip())
    return found


def stops_after_steps() -> None:
    """Whatever JAX makes of such signals in several processes."""
    stopped = 0
    try:
        with signals_after_steps():
            signal.raise_signal(signal.SIGTERM)
    except OutOfTime as error:
        stopped = error.status
    assert stopped == 143


def train(recipe: str, file: Path) -> None:
    options = settings(recipe)
    trainer, images = new_trainer(options, imagenet=False), load_data(options).train
    try:
        trainer.set_training_images(images.take(range(6)))
    except InputError as error:
        print(error, file=sys.stderr)
    trainer.set_training_images(images)
    stops_after_steps()
    losses = []
    for step in range(options.plan.steps):
        last = jax.process_index() == jax.process_count() - 1
        assert trainer.any_process(last and step == 2) == (step == 2)
        draw = draw_step(len(images), options.plan.size, options.plan, 0, step)
        losses.append(trainer.step(draw))
    state = trainer.state()
    if trainer.is_main_process:
        about: dict[str, object] = {"devices": jax.device_count()}
        if jax.process_count() == 1 < jax.device_count():
            about["gathered"] = gathered(trainer)
        write_arrays(file, state | {"losses": np.array(losses)}, about)


if __name__ == "__main__":
    for name in sys.argv[2:]:
        train(name, Path(sys.argv[1]) / f"{name}.safetensors")
