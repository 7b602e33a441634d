"""Plots of benchmark results, from the CSV files alone."""

import math
import os
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.tables import (
    EXACT,
    FORWARD,
    OURS,
    Rows,
    median_times,
    multiple_of_unit,
    panels_of,
    select,
    unique,
)


def plot_compare(rows: Rows, path: Path) -> None:
    """Seconds against pixels, both logarithmic, one panel per loss."""
    cases = unique(r["case"] for r in rows)
    columns = min(3, len(cases))
    lines = math.ceil(len(cases) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.6 * lines + 0.6), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
    backends = unique(r["backend"] for r in rows)
    for axis, case in zip(axes, cases, strict=False):
        for k, backend in enumerate(backends):
            for direction, style in ((FORWARD, "-"), ("forward + backward", "--")):
                times = median_times(select(rows, case=case, backend=backend, direction=direction))
                if times:
                    pixels, seconds = [s**2 for s in times], list(times.values())
                    colour = "black" if backend == EXACT else f"C{k}"
                    label = f"{backend}, {direction}"
                    axis.loglog(pixels, seconds, style, color=colour, marker=".", label=label)
        axis.set_title(case, fontsize=10)
        sizes = sorted({int(r["size"]) for r in rows})
        axis.set_xticks([s**2 for s in sizes], [f"{s}²" for s in sizes], minor=False)
        axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axis.set_xlabel("pixels")
        axis.set_ylabel("seconds" if axis.get_subplotspec().is_first_col() else "")
        axis.grid(alpha=0.3)
    for axis in axes[len(cases) :]:
        axis.set_axis_off()
    named = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4, fontsize=8)
    _save(figure, path)


def plot_peers(rows: Rows, path: Path) -> None:
    """Bars of multiples of BCE, one panel per group and unit; larger images are darker."""
    panels = [
        (group, unit, [r for r in panel if r["unit_median_s"]])
        for group, unit, panel in panels_of(rows)
    ]
    sizes = unique(r["size"] for r in rows if r["size"])
    names = [list(dict.fromkeys((r["case"], r["backend"]) for r in panel)) for *_, panel in panels]
    heights = [len(n) + 1.5 for n in names]
    figure = Figure(figsize=(9, 0.3 * sum(heights) + 0.6), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (group, unit, panel), labels in zip(axes, panels, names, strict=True):
        for row in panel:
            k, position = sizes.index(row["size"]), labels.index((row["case"], row["backend"]))
            thickness = 0.8 / len(sizes)
            colour = "C3" if row["case"].startswith(OURS) else "C0"
            axis.barh(
                position - 0.4 + (k + 0.5) * thickness,
                multiple_of_unit(row),
                thickness,
                color=colour,
                alpha=0.5 + 0.5 * (k + 1) / len(sizes),
            )
        axis.set_yticks(range(len(labels)), [f"{case}, {backend}" for case, backend in labels])
        axis.invert_yaxis()
        axis.tick_params(axis="x", labelbottom=True)
        axis.set_title(f"{group}, × {unit}", fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    least = min(multiple_of_unit(row) for *_, panel in panels for row in panel)
    axes[0].set_xscale("log")
    axes[0].set_xlim(left=10 ** math.floor(math.log10(least)))
    handles = [Patch(color="C3", label="ours"), Patch(color="C0", label="others")]
    shades = [
        Patch(color="grey", alpha=0.5 + 0.5 * (k + 1) / len(sizes), label=f"{s}²")
        for k, s in enumerate(sizes)
    ]
    figure.legend(handles=handles + shades, loc="outside lower center", ncols=4, fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=120)
    os.replace(partial, path)


PLOTS: dict[str, Callable[[Rows, Path], None]] = {"compare": plot_compare, "peers": plot_peers}
