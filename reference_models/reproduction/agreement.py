"""The first training steps of both frameworks, from equal weights.

`python -m reference_models.reproduction.agreement` writes them.

Same recipe at small scale, same images in the same order, PyTorch's initial weights in both. What
is left is rounding, and the noise of the recipes that flip labels, which each framework draws in
its own way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from reference_models import paths
from reference_models.commands import command, parse
from reference_models.errors import InputError
from reference_models.files import write_json
from reference_models.machine import progress
from reference_models.options import Options
from reference_models.papers.recipes import RECIPES
from reference_models.provenance import commit, hardware, versions
from reference_models.reproduction.first_steps import BACKENDS, Steps, apart
from reference_models.training.frameworks import new_trainer
from reference_models.training.run import Shared, load_data
from reference_models.training.trained import Backend
from reference_models.training.trainer import draw_step


@dataclass(frozen=True)
class Agreement:
    """Train every network a few steps in PyTorch and in JAX, and keep the losses of each step.

    A recipe that has its file is passed over, so the same command goes on where it was stopped.
    """

    only: tuple[str, ...] = ()
    """Recipes by name or pattern; none given: every network with every loss."""
    steps: int = 100
    """How many steps; the schedule is that of the whole recipe."""
    archives: Path | None = None
    """The folder of the data sets and backbones; by default data/."""
    results: Path = paths.AGREEMENT
    """Where the files are written."""


def networks() -> list[str]:
    """A recipe for every network with every loss: who swaps labels or starts from other maps trains
    the same network. None that wants another one to be trained first."""
    first: dict[tuple[Any, ...], str] = {}
    for recipe in RECIPES.values():
        network = (recipe.system, recipe.loss, *recipe.options.items())
        if recipe.system != "small" and not (recipe.train_prior or "").startswith("run:"):
            first.setdefault(network, recipe.name)
    return list(first.values())


def compare(options: Options, steps: int, shared: Mapping[Backend, Shared]) -> Steps:
    """The losses of both frameworks in the first steps."""
    # First of all, so that a package that is missing is missed before anything is computed.
    made_with = versions("torch") | versions("jax")
    data = load_data(options, shared["torch"])
    images = data.train
    if options.swap_share:
        images = images.swapped(options.swap_share, options.seed)
    steps = min(steps, options.plan.steps)
    losses: dict[str, list[float]] = {}
    first = None
    for backend in BACKENDS:
        trainer = new_trainer(replace(options, backend=backend), shared[backend].features)
        if first is None:
            first = trainer.weights()
        trainer.load(first)
        trainer.set_training_images(images)
        size = images.images.shape[1]
        losses[backend] = [
            trainer.step(draw_step(len(images), size, options.plan, options.seed, step))
            for step in progress(range(steps), desc=f"{options.recipe} ({backend})")
        ]
    return {
        "recipe": options.recipe,
        "scale": options.scale,
        "seed": options.seed,
        "losses": losses,
        "data_sha256": data.sha256,
        "device": f"{trainer.device}: {hardware(trainer.device)}",
        "versions": made_with,
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    with command():
        agreement = parse(Agreement, "reproduction.agreement")
        wanted = [
            name
            for name in networks()
            if not agreement.only or any(fnmatch(name, one) for one in agreement.only)
        ]
        if not wanted:
            raise InputError(
                f"--only {' '.join(agreement.only)} fits none of {', '.join(networks())}"
            )
        agreement.results.mkdir(parents=True, exist_ok=True)
        shared = {backend: Shared() for backend in BACKENDS}
        for name in wanted:
            file = agreement.results / f"{name}.json"
            if file.is_file():
                continue
            options = Options(recipe=name, scale="small", archives=agreement.archives, device="cpu")
            one = compare(options, agreement.steps, shared)
            write_json(file, one)
            print(f"{name}: {apart(one):.1e} of the loss apart, {apart(one, 10):.1e} in ten steps")


if __name__ == "__main__":
    main()
