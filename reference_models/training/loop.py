"""The training loop and the predictions after it, the same for both frameworks."""

import math
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from reference_models.data.sets import Images
from reference_models.errors import InputError
from reference_models.files import Arrays, read_arrays, write_arrays
from reference_models.machine import keep_memory, progress
from reference_models.options import Options
from reference_models.papers.recipes import Scale


@dataclass(frozen=True)
class Draw:
    """The images of one step, and what is done to them before they are used."""

    step: int
    """Counted from 0."""
    indices: np.ndarray
    """int `(B,)`, into the training set."""
    mirrored: np.ndarray
    """bool `(B,)`."""
    corners: np.ndarray
    """int `(B, 2)`: row and column of the crop's first pixel, in the image as mirrored."""
    seed: int
    """For the step's own noise."""


class LossView(NamedTuple):
    """Arrays of the framework, in its layout."""

    loss: Callable[[Any, Any], Any]
    """Of the output and the labels."""
    output: Any
    """The network's."""
    labels: Any
    image: Any
    """In [0, 1]."""


class Trainer(Protocol):
    """A network under training. All that a framework has to supply."""

    device: str
    precision: str
    """That of the backbone in training: "float32", or "bfloat16" where it is faster."""
    parameters: int
    """How many numbers are learnt."""
    is_main_process: bool
    """True where files are written: in one process of several."""
    inference_batch: int
    """How many images `maps` is best given at once."""

    def set_training_images(self, images: Images) -> None:
        """Keep the training set where the steps can reach it."""

    def step(self, draw: Draw) -> float:
        """One update at the rate of `one_cycle`; returns the loss before it."""

    def maps(self, images: Images) -> dict[str, np.ndarray]:
        """Saliency by name, the main map first, float32 `(N, S, S)` in [0, 1]; for general
        segmentation the one entry "regions", int `(N, S, S)`. Labels are not looked at."""

    def pixel_weights(self, images: Images) -> np.ndarray:
        """|∂ loss / ∂ output| summed over the output's channels, float32 `(N, h, w)`."""

    def loss_view(self, image: Images) -> LossView:
        """What the training loss sees of one image."""

    def weights(self) -> Arrays:
        """What is learnt, by name."""

    def state(self) -> Arrays:
        """Weights and optimizer: with the step number, all that the next step depends on."""

    def restore(self, state: Arrays) -> None:
        """Take up what `state` returned."""

    def load(self, weights: Arrays) -> None:
        """Take up what `weights` returned."""

    def any_process(self, flag: bool) -> bool:
        """True in every process as soon as it is in one."""


MINUTES_OVER = 75
"""The exit status of a command whose --minutes are over before its work is done: EX_TEMPFAIL."""


class OutOfTime(Exception):
    """The minutes given are over, or someone asked to stop; everything is saved."""

    def __init__(self, status: int = MINUTES_OVER) -> None:
        self.status = status
        """What the command is to exit with."""


MEANINGFUL = 0.63
"""The correlation of map and masks that runs which find the objects exceed and stuck ones do not
reach: of the 200 runs of docs/losses/cas.md those end above 0.65, these below 0.60."""

Clock = Callable[[], None]
"""Called between pieces of work; raises `OutOfTime` when there shall be no other."""


def clock(
    minutes: float | None = None, begun: float = 0.0, stop: Callable[[], int | None] = lambda: None
) -> Clock:
    """`begun` is the `time.monotonic()` from which the minutes count; None of them: for ever, or
    until `stop()` gives the number of a signal."""

    def check() -> None:
        if number := stop():
            raise OutOfTime(128 + number)
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            raise OutOfTime

    return check


def asked_to_stop() -> Callable[[], int | None]:
    """From now on the first Ctrl-C, SIGTERM or SIGHUP only makes its number the result: work ends
    at a step, where it can be saved. The second one ends it at once."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(number, usual[number])
        print("\nstopping after this step; once more stops at once", file=sys.stderr)

    numbers = [
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
    ]
    usual = {number: signal.signal(number, ask) for number in numbers}
    return lambda: asked[0] if asked else None


@dataclass(frozen=True)
class Trained:
    trainer: Trainer
    losses: list[float]
    seconds: float
    inverted: bool
    """True where validation images chose one minus the map."""
    correlation: float | None = None
    """Of the map as chosen with the masks of the validation images, where these chose it."""

    @property
    def notes(self) -> list[str]:
        """What the user must know before using the maps."""
        notes = []
        if self.inverted:
            notes.append("validation chose one minus the map (recorded as inverted)")
        if self.correlation is not None and self.correlation < MEANINGFUL:
            notes.append(
                "the map hardly shows the objects: its correlation with the masks of the "
                f"validation images is {self.correlation:.2f}, below {MEANINGFUL}; train with "
                "another --seed, which helps if the run got stuck (docs/losses/cas.md)"
            )
        return notes

    def maps(self, images: Images) -> dict[str, np.ndarray]:
        """As the trainer's, computed some images at a time."""
        parts = np.array_split(
            np.arange(len(images)), -(-len(images) // self.trainer.inference_batch)
        )
        every = [self.trainer.maps(images.take(part)) for part in parts]
        joined = {name: np.concatenate([maps[name] for maps in every]) for name in every[0]}
        return {name: 1 - maps for name, maps in joined.items()} if self.inverted else joined

    def main_map(self, images: Images) -> np.ndarray:
        return next(iter(self.maps(images).values()))


def train(
    options: Options,
    trainer: Trainer,
    images: Images,
    validation: Images,
    folder: Path,
    check: Clock,
) -> Trained:
    """Train, or go on from the folder's checkpoint.

    Where the labels do not say which side is the object (a class-agnostic loss, swapped labels),
    the map or one minus it is taken, whichever correlates with the masks of the validation images.
    """
    labelled = images.swapped(options.swap_share, options.seed) if options.swap_share else images
    losses, seconds = fit(trainer, labelled, options, folder / "checkpoint.safetensors", check)
    trained = Trained(trainer, losses, seconds, inverted=False)
    recipe, masks = options.chosen_recipe, validation.masks
    unknown = recipe.label_free or options.swap_share > 0
    if unknown and recipe.regions == 2 and 0 < masks.mean() < 1:
        found = correlation(trained.main_map(validation), masks)
        return replace(trained, inverted=found < 0, correlation=abs(found))
    return trained


def correlation(maps: np.ndarray, masks: np.ndarray) -> float:
    """Pearson's, over the pixels of all images; 0 for constant maps. Masks are of both values."""
    spread = maps.std(dtype=np.float64)
    if spread < 1e-6:  # What is left of a constant is rounding.
        return 0.0
    gap = maps[masks].mean(dtype=np.float64) - maps[~masks].mean(dtype=np.float64)
    return float(gap * masks.std() / spread)


def fit(
    trainer: Trainer, images: Images, options: Options, checkpoint: Path, check: Clock
) -> tuple[list[float], float]:
    """Train to the last step; returns every step's loss and the seconds, those before a stop too.

    Step k depends on the weights, the optimizer, the seed and k alone, so a run that was stopped
    and taken up again ends with the same bits as one that was not.
    """
    losses: list[float] = []
    plan = options.plan
    before, begun, saved = 0.0, time.monotonic(), time.monotonic()
    there = checkpoint.exists()
    if trainer.any_process(there) and trainer.any_process(not there):
        raise InputError(f"some processes find {checkpoint} and some do not; all need one folder")
    if there:
        losses, before = resume(trainer, checkpoint)
        if trainer.is_main_process:
            tqdm.write(f"resumed after step {len(losses)} of {plan.steps} from {checkpoint}")
    elif options.resume:
        raise InputError(f"--resume: there is no {checkpoint} to go on from; leave --resume out")
    if len(losses) < plan.steps:
        trainer.set_training_images(images)
        keep_memory()

    def save() -> None:
        if trainer.is_main_process:
            spent = {"run/losses": np.array(losses), "run/seconds": np.array([seconds()])}
            write_arrays(checkpoint, trainer.state() | spent, about={})

    def seconds() -> float:
        return before + time.monotonic() - begun

    def over() -> OutOfTime | None:
        try:
            check()
        except OutOfTime as stopped:
            return stopped
        return None

    bar = progress(
        range(len(losses), plan.steps),
        desc=f"{options.recipe} ({options.backend}, {trainer.device})",
        initial=len(losses),
        total=plan.steps,
        unit=" steps",
        disable=not trainer.is_main_process,
    )
    for step in bar:
        stopped = over()
        if trainer.any_process(stopped is not None):
            save()
            raise stopped or OutOfTime
        draw = drawn(len(images), images.images.shape[1], plan, options.seed, step)
        loss = trainer.step(draw)
        if not math.isfinite(loss):
            raise InputError(f"the loss is {loss} at step {step}: try a lower --learning-rate")
        losses.append(loss)
        bar.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}", refresh=False)
        if time.monotonic() - saved >= options.checkpoint_seconds:
            save()
            saved = time.monotonic()
    total = seconds()
    save()
    return losses, total


def resume(trainer: Trainer, checkpoint: Path) -> tuple[list[float], float]:
    """Take up a checkpoint; returns the losses and the seconds until it was written."""
    arrays = read_arrays(checkpoint, repair=START_ANEW)
    try:
        losses, before = arrays.pop("run/losses").tolist(), float(arrays.pop("run/seconds")[0])
        if losses and not any(name.startswith("optimizer/") for name in arrays):
            raise InputError("the optimizer's state is missing")
        trainer.restore(arrays)
    except (InputError, KeyError, ValueError, RuntimeError, IndexError) as error:
        raise InputError(f"{checkpoint} does not fit this run ({error}); {START_ANEW}") from None
    return losses, before


START_ANEW = "delete it to start anew"


def drawn(count: int, size: int, plan: Scale, seed: int, step: int) -> Draw:
    """The images of a step, mirrored and cropped at random.

    Every epoch is a new permutation; images that do not fill a last batch wait for the next epoch.
    """
    batch = min(plan.batch, count)
    epoch, place = divmod(step, count // batch)
    order = np.random.default_rng((seed, 3, epoch)).permutation(count)
    rng = np.random.default_rng((seed, 4, step))
    return Draw(
        step=step,
        indices=order[place * batch : (place + 1) * batch],
        mirrored=rng.random(batch) < 0.5,
        seed=int(rng.integers(2**31)),
        corners=rng.integers(0, size - (plan.crop or size) + 1, (batch, 2)),
    )


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Learning rate: half a cosine up from peak/25 over the first 30 %, then down to peak/1e4."""
    rise = 0.3 * steps
    if step < rise:
        low, high, share = peak / 25, peak, step / rise
    else:
        low, high, share = peak, peak / 1e4, (step - rise) / (steps - rise)
    return low + (high - low) * (1 - math.cos(math.pi * share)) / 2
