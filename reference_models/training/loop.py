"""The training loop, shared by both frameworks."""

import math
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from reference_models.data.images import Images, Streamed
from reference_models.data.label_swaps import swap_labels
from reference_models.errors import InputError, OutOfTime, first_few, lacks_memory
from reference_models.files import read_about, read_arrays, write_arrays
from reference_models.machine import keep_memory, progress
from reference_models.options import Options
from reference_models.provenance import made_with
from reference_models.training.augmentation import draw_step
from reference_models.training.cost import expected
from reference_models.training.stopping import Clock, signals_after_steps
from reference_models.training.streaming import images_of_steps
from reference_models.training.trained import Network
from reference_models.training.trainer import Trainer


class History(NamedTuple):
    """Losses and duration of a training."""

    losses: list[float]
    """The loss of each step."""
    seconds: float
    parts: list[dict[str, object]]
    """What its parts were made with, the last one after all stops; see `made_with`."""


def train(
    options: Options,
    trainer: Trainer,
    images: Images | Streamed,
    validation: Images,
    folder: Path,
    check: Clock,
) -> tuple[Network, History]:
    """Train, or resume from the folder's checkpoint.

    With a class-agnostic loss or swapped labels, training does not determine which side is the
    object. The network's map is then the map or one minus it, whichever correlates positively with
    the validation masks.
    """
    recipe, masks, counted = options.chosen_recipe, validation.masks, validation.counted
    if counted is not None:
        masks = masks[counted]
    is_ambiguous = recipe.regions == 2 and (recipe.label_free or options.swap_share > 0)
    if is_ambiguous and not (masks.any() and not masks.all()):
        raise InputError(
            f"{recipe.name} does not learn which side of its map is the object, and the masks of "
            f"the validation images ({first_few(validation.names)}) do not tell, as they lack "
            "object or background; name images with both in splits/val.txt, or pass more images"
        )
    if options.swap_share:
        images = swap_labels(images, options.swap_share, options.seed)
    history = fit(trainer, images, options, folder / "checkpoint.safetensors", check)
    network = Network(options, trainer)
    if is_ambiguous:
        maps = network.main_map(validation)
        pearson = correlation(maps if counted is None else maps[counted], masks)
        network = Network(options, trainer, inverted=pearson < 0, correlation=abs(pearson))
    return network, history


def correlation(maps: np.ndarray, masks: np.ndarray) -> float:
    """Pearson's correlation over the counted pixels of all images; 0 for constant maps.

    The masks must contain both values.
    """
    spread = maps.std(dtype=np.float64)
    if spread < 1e-6:  # The spread of a constant map is rounding.
        return 0.0
    gap = maps[masks].mean(dtype=np.float64) - maps[~masks].mean(dtype=np.float64)
    return float(gap * masks.std() / spread)


def fit(
    trainer: Trainer, images: Images | Streamed, options: Options, checkpoint: Path, check: Clock
) -> History:
    """Train to the last step. The history covers the steps before a stop as well.

    Step k depends only on the weights, the optimizer state, the seed and k. A resumed run therefore
    ends with the same bits as an uninterrupted one.
    """
    losses: list[float] = []
    parts: list[dict[str, object]] = [made_with(options.backend, trainer.device, trainer.precision)]
    plan = options.plan
    seconds_before, begun, saved = 0.0, time.monotonic(), time.monotonic()
    exists = checkpoint.exists()
    if trainer.any_process(exists) and trainer.any_process(not exists):
        raise InputError(
            f"some processes find {checkpoint} and some do not; give --out a folder that all of "
            "them share"
        )
    if exists:
        losses, seconds_before = resume(trainer, checkpoint)
        before = read_about(checkpoint, repair=START_ANEW).get("parts", [])
        parts = [*(part for part in before if part != parts[0]), *parts]
        if trainer.is_main_process:
            tqdm.write(f"resumed after step {len(losses)} of {plan.steps} from {checkpoint}")
    if len(losses) < plan.steps:
        trainer.set_training_images(images)
        keep_memory()

    def save() -> None:
        if trainer.is_main_process:
            spent = {"run/losses": np.array(losses), "run/seconds": np.array([seconds()])}
            write_arrays(checkpoint, trainer.state() | spent, {"parts": parts})

    def seconds() -> float:
        return seconds_before + time.monotonic() - begun

    with signals_after_steps() as signalled:

        def must_stop() -> bool:
            return trainer.any_process(stop_request(check, signalled) is not None)

        said = expected(trainer, images, options.seed, len(losses), must_stop)
        if said and trainer.is_main_process:
            print(said)
        bar = progress(
            range(len(losses), plan.steps),
            desc=f"{options.recipe} ({options.backend}, {trainer.device})",
            initial=len(losses),
            total=plan.steps,
            unit=" steps",
            disable=not trainer.is_main_process,
        )
        streamed: Iterator[Images | None] = repeat(None)
        if isinstance(images, Streamed):
            share = trainer.share(min(plan.batch, len(images)))
            streamed = images_of_steps(images, plan, options.seed, len(losses), share)
        for step in bar:
            stopped = stop_request(check, signalled)
            if trainer.any_process(stopped is not None):
                save()
                raise stopped or OutOfTime
            draw = draw_step(len(images), images.side, plan, options.seed, step)
            loss = trainer.step(draw, next(streamed))
            if not math.isfinite(loss):
                raise InputError(f"the loss is {loss} at step {step}; try a lower --learning-rate")
            losses.append(loss)
            bar.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}", refresh=False)
            if time.monotonic() - saved >= options.checkpoint_seconds:
                save()
                saved = time.monotonic()
        total = seconds()
        save()
    return History(losses, total, parts)


def stop_request(*checks: Clock) -> OutOfTime | None:
    """What the first of the checks raises, if any."""
    try:
        for check in checks:
            check()
    except OutOfTime as stopped:
        return stopped
    return None


def resume(trainer: Trainer, checkpoint: Path) -> tuple[list[float], float]:
    """Restore a checkpoint; returns the losses and the seconds of training up to it."""
    arrays = read_arrays(checkpoint, repair=START_ANEW)
    try:
        losses, seconds = arrays.pop("run/losses").tolist(), float(arrays.pop("run/seconds")[0])
        if losses and not any(name.startswith("optimizer/") for name in arrays):
            raise InputError("the optimizer's state is missing")
        trainer.restore(arrays)
    except (InputError, KeyError, ValueError, RuntimeError, IndexError) as error:
        if lacks_memory(error):
            raise
        raise InputError(f"{checkpoint} does not fit this run ({error}); {START_ANEW}") from None
    return losses, seconds


START_ANEW = "delete it to restart the training"
