"""Figures of runs and of the report: loss curves, contact sheets and plots of results."""

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from PIL import Image

from reference_models.files import atomic_path

Column = tuple[str, np.ndarray]
"""A title, and `(rows, H, W)` maps in [0, 1] or `(rows, H, W, 3)` images."""


def loss_curve(losses: Sequence[float], title: str, path: Path) -> None:
    """Plot the loss of each step, and its moving average over a twentieth of the run."""
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
    """Write a contact sheet: one row per image, one column per view of it."""
    rows = len(columns[0][1])
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0)
    figure = Figure(figsize=(1.35 * len(columns), 1.3 * rows + 1), layout=layout, dpi=120)
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for column, (heading, views) in enumerate(columns):
        for row in range(rows):
            axes = grid[row, column]
            axes.imshow(views[row], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        grid[0, column].set_title(heading, fontsize=9)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def per_image(maps: np.ndarray) -> np.ndarray:
    """Divide each map by its maximum; maps of zeros stay zero."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(highest > 0, highest, 1)


def save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png")


# The report's plots ------------------------------------------------------------------------------

Points = tuple[tuple[float, tuple[float, ...]], ...]
"""Positions on one axis, each with the values of all seeds."""


@dataclass(frozen=True)
class Panel:
    """Labelled lines over one pair of axes. x, y: the axes' labels."""

    title: str
    lines: tuple[tuple[str, Points], ...]
    x: str = ""
    y: str = ""
    log: bool = False
    """A logarithmic x axis."""


@dataclass(frozen=True)
class Plot:
    """The data of one plot of the report."""

    kind: Literal["lines", "losses", "frameworks", "effects"]
    panels: tuple[Panel, ...]
    labels: tuple[str, ...] = ()
    """Names of the positions of "effects", which its panels share."""

    def digest(self) -> str:
        data: list[Any] = [self.kind, [astuple(panel) for panel in self.panels]]
        if self.labels:
            data.append(self.labels)
        return sha256(json.dumps(data).encode()).hexdigest()


def draw(plot: Plot, path: Path) -> None:
    """Draw the plot and store the digest of its data in the file."""
    kinds = {"lines": lines, "losses": losses, "frameworks": losses, "effects": effects}
    figure = kinds[plot.kind](plot)
    with atomic_path(path) as partial:
        figure.savefig(
            partial, format="png", metadata={"Software": None, "Description": plot.digest()}
        )


def stored_digest(path: Path) -> str | None:
    """The digest that `draw` stored in a file; None if there is no file."""
    if not path.is_file():
        return None
    with Image.open(path) as image:
        return image.info.get("Description")


DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
MOST_MARKERS = 12  # Lines through more points than these are curves.


def lines(plot: Plot) -> Figure:
    """Plot means over seeds as lines, with the range over seeds shaded, up to three panels a row.

    Labels that begin with the same words up to a comma share a colour, and differ in their dashes.
    """
    columns = 2 if len(plot.panels) == 4 else min(3, len(plot.panels))
    rows = -(-len(plot.panels) // columns)
    size = (max(6, 3.7 * columns + 0.4), 3.3 * rows)
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    families: dict[str, list[str]] = {}
    for label in dict.fromkeys(label for panel in plot.panels for label, _ in panel.lines):
        families.setdefault(label.partition(", ")[0], []).append(label)
    styles = {
        label: {"color": f"C{number % 10}", "linestyle": DASHES[place % len(DASHES)]}
        for number, family in enumerate(families.values())
        for place, label in enumerate(family)
    }
    for panel, axes in zip(plot.panels, grid, strict=False):
        for label, points in panel.lines:
            x, means = [position for position, _ in points], [np.mean(y) for _, y in points]
            marker = "o" if len(points) <= MOST_MARKERS else ""
            axes.plot(x, means, marker=marker, markersize=4, label=label, **styles[label])
            low, high = ([limit(seeds) for _, seeds in points] for limit in (min, max))
            axes.fill_between(x, low, high, color=styles[label]["color"], alpha=0.2, linewidth=0)
        axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        if panel.log:
            ticks = sorted({position for _, points in panel.lines for position, _ in points})
            axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        axes.grid(color="0.9")
    for axes in grid:
        axes.set_axis_off()
    shown: dict[str, Any] = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        shown |= dict(zip(names, handles, strict=True))
    shared, *others = {
        tuple(label.partition(", ")[2] for label in family) for family in families.values()
    }
    # One entry per colour and one per dash are then fewer than one per line.
    if len(shared) > 1 and not others and len(families) > 4:
        dashes = {
            ending: Line2D([], [], color="k", linestyle=DASHES[place % len(DASHES)])
            for place, ending in enumerate(shared)
        }
        shown = {name: shown[family[0]] for name, family in families.items()} | dashes
    fitting = int(size[0] / (0.5 + 0.09 * max(map(len, shown))))  # Inches.
    ncols = max(1, min(4, fitting))
    figure.legend(
        shown.values(), shown.keys(), loc="outside lower center", ncols=ncols, frameon=False
    )
    return figure


def losses(plot: Plot) -> Figure:
    """Plot one panel per recipe, with one line per seed or framework."""
    styles: dict[str, dict[str, Any]] = {
        "torch": {"linewidth": 3.5, "color": "0.75"},
        "jax": {"color": "C0"},
    }
    columns = min(4, len(plot.panels))
    rows = -(-len(plot.panels) // columns)
    figure = Figure(figsize=(2.7 * columns, 2 * rows), layout="constrained", dpi=110)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for panel, axes in zip(plot.panels, grid, strict=False):
        for label, points in panel.lines:
            x, y = [position for position, _ in points], [seeds[0] for _, seeds in points]
            axes.plot(x, y, label=label, **{"linewidth": 1, **styles.get(label, {})})
        axes.set_title(panel.title, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(color="0.92")
    for axes in grid:
        axes.set_axis_off()
    if plot.kind == "frameworks":
        figure.axes[0].legend(frameon=False, fontsize=7)
    figure.supxlabel("step", fontsize=8)
    figure.supylabel("training loss", fontsize=8)
    return figure


def effects(plot: Plot) -> Figure:
    """Plot one row per difference: the paper's value, and a dot for each seed of ours."""
    size = (3.2 + max(4.2, 2.1 * len(plot.panels)), 0.2 * len(plot.labels) + 1.1)
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    styles = {
        "paper": ("D", "none", "k"),
        "paper scale": ("s", "C2", "C2"),
        "medium": ("o", "C0", "C0"),
        "small": ("o", "none", "C1"),
    }
    shown: dict[str, Any] = {}
    grid = figure.subplots(1, len(plot.panels), sharey=True, squeeze=False).flat
    for panel, axes in zip(plot.panels, grid, strict=True):
        for name, points in panel.lines:
            marker, face, edge = styles[name]
            x = [value for _, seeds in points for value in seeds]
            y = [position for position, seeds in points for _ in seeds]
            shown[name] = axes.scatter(x, y, s=26, marker=marker, facecolors=face, edgecolors=edge)
        axes.axvline(0, color="0.6", linewidth=0.8)
        axes.set_yticks(range(len(plot.labels)), plot.labels, fontsize=7)
        axes.set(ylim=(len(plot.labels) - 0.5, -0.5))
        axes.set_xlabel(f"difference in {panel.title}", fontsize=8)
        # Most differences are hundredths; those of a collapsed network are tenths.
        axes.set_xscale("symlog", linthresh=0.05, linscale=2)
        ticks = [-0.5, -0.05, 0, 0.05, 0.5]
        axes.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks], fontsize=7)
        axes.set_xlim(-1, 1)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
    names = [name for name in styles if name in shown]
    handles = [shown[name] for name in names]
    figure.legend(handles, names, loc="outside upper right", ncols=4, frameon=False, fontsize=8)
    return figure
