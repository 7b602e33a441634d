"""Picture of the architecture: packages as boxes, imports as arrows, read from the code with `ast`.

`python docs/figures/architecture.py [PICTURE]` prints floors and arrows, fails where imports form a
circle, and draws the picture. Default: docs/figures/architecture.png. A box lies one floor above
the highest box that it imports.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "figures" / "architecture.png"
# From left to right in the picture.
COLOURS = {"benchmarks": "#f6e3c5", "saliency_losses": "#cfe3f5", "reference_models": "#d8ecd0"}
PACKAGES = tuple(COLOURS)
Graph = dict[str, set[str]]


# Imports -----------------------------------------------------------------------------------------


def modules() -> dict[str, Path]:
    """Every module by its dotted name; a package's name stands for its __init__.py."""
    found = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(file: Path, known: Mapping[str, Path]) -> set[str]:
    """The modules of the project that a file imports, also within its functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name if name in known else node.module for name in inner}
    return names & set(known)


def floors(graph: Graph) -> dict[str, int]:
    """The floor of each node: 0 imports nothing, others lie above all that they import.

    Raises:
        SystemExit: Imports form a circle.
    """
    known: dict[str, int] = {}

    def floor(node: str, above: tuple[str, ...]) -> int:
        if node in above:
            circle = " -> ".join((*above[above.index(node) :], node))
            raise SystemExit(f"error: circular imports: {circle}; move what both need into a third")
        if node not in known:
            below = [floor(other, (*above, node)) for other in sorted(graph[node])]
            known[node] = 1 + max(below, default=-1)
        return known[node]

    for node in sorted(graph):
        floor(node, ())
    return known


# Boxes -------------------------------------------------------------------------------------------


def boxes(graph: Graph) -> dict[str, str]:
    """The box of each module: its sub-package, or its module in `saliency_losses`.

    Of the modules at the top of `reference_models`, those that no other module imports share the
    box of commands, and those that import nothing above them share the box of foundations.
    """
    used = set().union(*graph.values())
    top = {name for name in graph if name.count(".") == 1 and name.startswith("reference_models.")}
    top = {name for name in top if not any(other.startswith(f"{name}.") for other in graph)}
    foundations = set(top)
    while above := {name for name in foundations if not graph[name] <= foundations}:
        foundations -= above
    result = {}
    for name in graph:
        package, _, rest = name.partition(".")
        if name in foundations:
            result[name] = "reference_models\n" + ", ".join(sorted(short(n) for n in foundations))
        elif name in top - used:
            result[name] = "reference_models\n" + ", ".join(sorted(short(n) for n in top - used))
        elif package == "benchmarks":
            result[name] = package
        elif rest:
            result[name] = f"{package}\n{rest.split('.')[0]}"
    return result


def short(name: str) -> str:
    return name.rpartition(".")[2]


def joined(graph: Graph, box: Mapping[str, str]) -> Graph:
    """The arrows between boxes. Modules without a box, which hold a version alone, are skipped."""
    result: Graph = {name: set() for name in box.values()}
    for start, ends in graph.items():
        for end in ends:
            if start in box and end in box and box[start] != box[end]:
                result[box[start]].add(box[end])
    return result


def implied(graph: Graph) -> set[tuple[str, str]]:
    """The arrows whose end can also be reached through a third box; they are drawn pale."""

    def reach(node: str) -> set[str]:
        return set().union({node}, *(reach(other) for other in graph[node]))

    return {
        (start, end)
        for start, ends in graph.items()
        for end in ends
        if any(end in reach(other) for other in ends - {end})
    }


# The picture -------------------------------------------------------------------------------------


def places(floor: Mapping[str, int]) -> dict[str, tuple[float, float]]:
    """Centres of the boxes: floors upwards, within a floor the packages from left to right."""
    rows: dict[int, list[str]] = defaultdict(list)
    for name in sorted(floor, key=lambda name: (PACKAGES.index(name.split("\n")[0]), name)):
        rows[floor[name]].append(name)
    widest = max(map(len, rows.values()))
    return {
        name: ((place + 0.5) * widest / len(row), float(height))
        for height, row in rows.items()
        for place, name in enumerate(row)
    }


def draw(graph: Graph, floor: Mapping[str, int], file: Path) -> None:
    centre, faint = places(floor), implied(graph)
    width, height = max(x for x, _ in centre.values()) + 0.6, max(floor.values()) + 0.6
    figure = Figure(figsize=(2.0 * width, 1.15 * (height + 0.6)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(-0.5, height))
    axes.axis("off")
    for start, ends in graph.items():
        for end in sorted(ends):
            pale = (start, end) in faint
            (x, y), (to_x, to_y) = centre[start], centre[end]
            axes.add_patch(
                FancyArrowPatch(
                    (x, y - 0.22),
                    (to_x, to_y + 0.24),
                    arrowstyle="-|>",
                    mutation_scale=9,
                    linewidth=0.6 if pale else 1.3,
                    color="#c4c4c4" if pale else "#444444",
                    zorder=1 if pale else 2,
                )
            )
    for name, (x, y) in centre.items():
        package, _, inside = name.partition("\n")
        axes.add_patch(
            FancyBboxPatch(
                (x - 0.42, y - 0.2),
                0.84,
                0.4,
                boxstyle="round,pad=0.02",
                facecolor=COLOURS[package],
                edgecolor="#666666",
                alpha=0.8,  # Arrows to floors further down show through.
                zorder=3,
            )
        )
        names = inside.split(", ")
        lines = [", ".join(names[i : i + 3]) for i in range(0, len(names), 3)] if inside else []
        text = "\n".join([package, *lines])
        axes.text(x, y, text, ha="center", va="center", fontsize=7.5, zorder=4)
    figure.savefig(file, dpi=130)


def main() -> None:
    known = modules()
    graph = {name: imports(file, known) for name, file in known.items()}
    floors(graph)  # No circle between modules; below, none between boxes.
    between = joined(graph, boxes(graph))
    floor = floors(between)
    for name in sorted(between, key=lambda name: (floor[name], name)):
        ends = "; ".join(sorted(end.replace("\n", ": ") for end in between[name])) or "nothing"
        print(f"floor {floor[name]}  {name.replace(chr(10), ': ')} imports {ends}")
    print(f"{len(between)} boxes, {sum(map(len, between.values()))} arrows, no circle")
    draw(between, floor, Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE)


if __name__ == "__main__":
    main()
