"""Losses of the first training steps in both frameworks, and the gap between them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from reference_models import paths
from reference_models.options import Backend
from reference_models.papers.recipes import RECIPES

BACKENDS: tuple[Backend, ...] = ("torch", "jax")
Steps = dict[str, Any]
"""Content of one recipe's file in results/agreement."""


def read(folder: Path = paths.AGREEMENT) -> list[Steps]:
    """Read the files of all recipes, in the order of the recipes."""
    by_recipe = {file.stem: json.loads(file.read_text("utf-8")) for file in folder.glob("*.json")}
    return [by_recipe[name] for name in RECIPES if name in by_recipe]


def gap(first_steps: Steps, steps: int | None = None) -> float:
    """The largest difference of the two losses, relative to their mean absolute value."""
    torch, jax = (np.array(first_steps["losses"][backend][:steps]) for backend in BACKENDS)
    return float(np.abs(torch - jax).max() / np.abs(torch).mean())


def gap_at_the_end(first_steps: Steps, steps: int = 20) -> float:
    """The difference of the mean losses of the last steps, relative to the mean absolute loss."""
    torch, jax = (np.array(first_steps["losses"][backend]) for backend in BACKENDS)
    return float(abs(torch[-steps:].mean() - jax[-steps:].mean()) / np.abs(torch).mean())
