"""The pictures of a run: its loss curve, its contact sheet, and the demonstration."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from reference_models.runs import whole

Column = tuple[str, np.ndarray]
"""A title and `(rows, H, W)` maps in [0, 1] or `(rows, H, W, 3)` images."""


def loss_curve(losses: Sequence[float], title: str, path: Path) -> None:
    """Every step's loss, and its mean over the last twentieth of the run."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(losses, color="0.8", linewidth=0.8, label="each step")
    window = max(1, len(losses) // 20)
    mean = np.convolve(losses, np.ones(window) / window, mode="valid")
    axes.plot(np.arange(len(mean)) + window - 1, mean, color="C0", label=f"mean of {window} steps")
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.legend(frameon=False)
    save(figure, path)


def sheet(columns: Sequence[Column], title: str, path: Path) -> None:
    """A row per scene, a column per view of it."""
    rows = len(columns[0][1])
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0)
    figure = Figure(figsize=(1.5 * len(columns), 1.4 * rows + 0.9), layout=layout, dpi=110)
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for column, (heading, views) in enumerate(columns):
        for row in range(rows):
            axes = grid[row, column]
            axes.imshow(views[row], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        grid[0, column].set_title(heading, fontsize=8)
    figure.suptitle(title, fontsize=9)
    save(figure, path)


def per_image(maps: np.ndarray) -> np.ndarray:
    """Each map divided by its maximum; a map of zeros stays."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(highest > 0, highest, 1)


def save(figure: Figure, path: Path) -> None:
    with whole(path) as partial:
        figure.savefig(partial, format="png")
