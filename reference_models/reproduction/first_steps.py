"""The first training steps in both frameworks, and how far apart their losses are."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reference_models import paths
from reference_models.papers.recipes import RECIPES

BACKENDS: tuple[Literal["torch", "jax"], ...] = ("torch", "jax")
Steps = dict[str, Any]
"""What one recipe's file holds."""


def read(folder: Path = paths.AGREEMENT) -> list[Steps]:
    """Every recipe's file, in the order of the recipes."""
    found = {file.stem: json.loads(file.read_text("utf-8")) for file in folder.glob("*.json")}
    return [found[name] for name in RECIPES if name in found]


def apart(one: Steps, steps: int | None = None) -> float:
    """The largest difference of the two losses, as a share of their mean size."""
    torch, jax = (np.array(one["losses"][backend][:steps]) for backend in BACKENDS)
    return float(np.abs(torch - jax).max() / np.abs(torch).mean())


def apart_in_the_end(one: Steps, steps: int = 20) -> float:
    """The difference of the mean losses of the last steps, as a share of the losses' mean size."""
    torch, jax = (np.array(one["losses"][backend]) for backend in BACKENDS)
    return float(abs(torch[-steps:].mean() - jax[-steps:].mean()) / np.abs(torch).mean())
