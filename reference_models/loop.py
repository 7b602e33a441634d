"""The training loop and the predictions after it, the same for both frameworks."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from reference_models.data import Data, Images
from reference_models.options import CLASS_AGNOSTIC, InputError, Options
from reference_models.runs import Arrays, read_arrays, write_arrays


class Trainer(Protocol):
    """A network under training. All that a framework has to supply."""

    device: str

    def step(self, batch: Images, rate: float, noise_seed: int) -> float:
        """One update at learning rate `rate`; returns the loss before it."""

    def maps(self, images: Images) -> np.ndarray:
        """Saliency, float32 `(N, S, S)` in [0, 1]; masks are not looked at."""

    def pixel_weights(self, batch: Images) -> np.ndarray:
        """|∂ loss / ∂ output| summed over the output's channels, float32 `(N, S, S)`."""

    def weights(self) -> Arrays:
        """The network's weights by name."""

    def state(self) -> Arrays:
        """Weights and optimizer: with the step number, all that the next step depends on."""

    def restore(self, state: Arrays) -> None:
        """Take up what `state` returned."""


@dataclass(frozen=True)
class Trained:
    trainer: Trainer
    losses: list[float]
    seconds: float
    inverted: bool
    """True where validation images chose one minus the map."""

    def maps(self, images: Images) -> np.ndarray:
        """Saliency, float32 `(N, S, S)` in [0, 1], computed some fifty images at a time."""
        parts = np.array_split(np.arange(len(images)), -(-len(images) // 50))
        maps = np.concatenate([self.trainer.maps(images.take(part)) for part in parts])
        return 1 - maps if self.inverted else maps


def train(options: Options, data: Data, folder: Path) -> Trained:
    """Train, or go on from the folder's checkpoint.

    Where the labels do not say which side is the object (a class-agnostic loss, swapped labels),
    the map or one minus it is taken, whichever correlates with the masks of the validation images.
    """
    labelled = data.train.swapped(options.swap_labels, options.seed)
    trainer = new_trainer(options)
    losses, seconds = fit(trainer, labelled, options, folder / "checkpoint.safetensors")
    trained = Trained(trainer, losses, seconds, inverted=False)
    masks = data.validation.masks
    if (options.loss in CLASS_AGNOSTIC or options.swap_labels > 0) and 0 < masks.mean() < 1:
        maps = trained.maps(data.validation)
        # The sign of this difference is that of the correlation.
        return replace(trained, inverted=bool(maps[masks].mean() < maps[~masks].mean()))
    return trained


def new_trainer(options: Options) -> Trainer:
    """Only the chosen framework is imported."""
    if options.backend == "torch":
        from reference_models.torch.training import TorchTrainer

        return TorchTrainer(options.loss, options.seed, options.device)
    from reference_models.flax.training import FlaxTrainer

    return FlaxTrainer(options.loss, options.seed, options.device)


def fit(
    trainer: Trainer, images: Images, options: Options, checkpoint: Path
) -> tuple[list[float], float]:
    """Train to the last step; returns every step's loss and the seconds, those before a stop too.

    Step k depends on the weights, the optimizer, the seed and k alone, so a run that was stopped
    and taken up again ends with the same bits as one that was not.
    """
    losses: list[float] = []
    before, begun, saved = 0.0, time.monotonic(), time.monotonic()
    if checkpoint.exists():
        arrays = read_arrays(checkpoint)
        losses, before = arrays.pop("run/losses").tolist(), float(arrays.pop("run/seconds")[0])
        trainer.restore(arrays)
        tqdm.write(f"resumed after step {len(losses)} of {options.total_steps} from {checkpoint}")

    def save() -> None:
        spent = {"run/losses": np.array(losses), "run/seconds": np.array([seconds()])}
        write_arrays(checkpoint, trainer.state() | spent, about={})

    def seconds() -> float:
        return before + time.monotonic() - begun

    bar = tqdm(
        range(len(losses), options.total_steps),
        desc=f"{options.loss} ({options.backend}, {trainer.device})",
        initial=len(losses),
        total=options.total_steps,
        unit=" steps",
    )
    for step in bar:
        batch, noise_seed = draw(images, options.batch, options.seed, step)
        rate = one_cycle(step, options.total_steps, options.learning_rate)
        loss = trainer.step(batch, rate, noise_seed)
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


def draw(images: Images, size: int, seed: int, step: int) -> tuple[Images, int]:
    """The batch of a step, mirrored at random, and a seed for the step's own noise.

    Every epoch is a new permutation; images that do not fill a last batch wait for the next epoch.
    """
    size = min(size, len(images))
    epoch, place = divmod(step, len(images) // size)
    order = np.random.default_rng((seed, 3, epoch)).permutation(len(images))
    batch = images.take(order[place * size : (place + 1) * size])
    rng = np.random.default_rng((seed, 4, step))
    mirror = rng.random(size) < 0.5
    batch = Images(
        batch.names,
        np.where(mirror[:, None, None, None], batch.images[:, :, ::-1], batch.images),
        np.where(mirror[:, None, None], batch.masks[:, :, ::-1], batch.masks),
        np.where(mirror[:, None, None], batch.priors[:, :, ::-1], batch.priors),
    )
    return batch, int(rng.integers(2**31))


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Learning rate: half a cosine up from peak/25 over the first 30 %, then down to peak/1e4."""
    rise = 0.3 * steps
    if step < rise:
        low, high, share = peak / 25, peak, step / rise
    else:
        low, high, share = peak, peak / 1e4, (step - rise) / (steps - rise)
    return low + (high - low) * (1 - math.cos(math.pi * share)) / 2
