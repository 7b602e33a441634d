"""Losses of the first training steps in both frameworks, from equal initial weights.

`python -m reference_models.reproduction.agreement` writes them to results/agreement.

Both frameworks train the same recipe at small scale on the same images in the same order, from
PyTorch's initial weights. Their losses differ by rounding, and in recipes that flip labels by the
random flips, which each framework draws with its own generator.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from reference_models import paths
from reference_models.command_line import command, parse
from reference_models.data.label_swaps import swap_labels
from reference_models.errors import InputError
from reference_models.files import write_json
from reference_models.machine import progress
from reference_models.options import Backend, Options
from reference_models.papers.recipes import RECIPES
from reference_models.provenance import commit, hardware, versions
from reference_models.reproduction.first_steps import BACKENDS, Steps, gap
from reference_models.training.augmentation import draw_step
from reference_models.training.frameworks import new_trainer
from reference_models.training.run import Shared, load_data


@dataclass(frozen=True)
class Agreement:
    """Train each network for a few steps in PyTorch and in JAX, and store the loss of each step.

    Recipes whose file exists are skipped, so rerunning a stopped command resumes it.
    """

    only: tuple[str, ...] = ()
    """Recipes by name or pattern. Default: one recipe for each network and loss."""
    steps: int = 100
    """Number of steps to train. The learning-rate schedule is that of the whole recipe."""
    archives: Path | None = None
    """Folder of the data set archives and ImageNet weights. Default: data/."""
    results: Path = paths.AGREEMENT
    """Folder for the files written."""


def networks() -> list[str]:
    """One recipe for each network and loss.

    Recipes that differ only in swapped labels or priors train the same network and are skipped, as
    are recipes that need another run first or have no steps.
    """
    first: dict[tuple[Any, ...], str] = {}
    for recipe in RECIPES.values():
        network = (recipe.system, recipe.loss, *recipe.options.items())
        needs_a_run = (recipe.train_prior or "").startswith("run:")
        if recipe.system != "small" and not needs_a_run and recipe.at("small").steps:
            first.setdefault(network, recipe.name)
    return list(first.values())


def compare(options: Options, steps: int, shared: Mapping[Backend, Shared]) -> Steps:
    """Train the first steps in both frameworks; returns the content of the recipe's file."""
    # First, so that a missing package is reported before anything is computed.
    made_with = versions("torch") | versions("jax")
    data = load_data(options, shared["torch"])
    images = data.train
    if options.swap_share:
        images = swap_labels(images, options.swap_share, options.seed)
    steps = min(steps, options.plan.steps)
    losses: dict[str, list[float]] = {}
    initial = None
    for backend in BACKENDS:
        trainer = new_trainer(replace(options, backend=backend), shared[backend].features)
        if initial is None:
            initial = trainer.weights()
        trainer.load(initial)
        trainer.set_training_images(images)
        losses[backend] = [
            trainer.step(draw_step(len(images), images.side, options.plan, options.seed, step))
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
        names = [
            name
            for name in networks()
            if not agreement.only or any(fnmatch(name, pattern) for pattern in agreement.only)
        ]
        if not names:
            raise InputError(
                f"--only {' '.join(agreement.only)} matches no recipe; choose from "
                f"{', '.join(networks())}"
            )
        agreement.results.mkdir(parents=True, exist_ok=True)
        shared = {backend: Shared() for backend in BACKENDS}
        for name in names:
            file = agreement.results / f"{name}.json"
            if file.is_file():
                continue
            options = Options(recipe=name, scale="small", archives=agreement.archives, device="cpu")
            steps = compare(options, agreement.steps, shared)
            write_json(file, steps)
            print(
                f"{name}: losses differ by up to {gap(steps):.1e} of their mean, "
                f"{gap(steps, 10):.1e} in the first ten steps"
            )


if __name__ == "__main__":
    main()
