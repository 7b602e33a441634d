"""Report on the reproduction: docs/results.md with its figures, and RUNS.md.

`python -m reference_models.reproduction.report` writes them. All numbers come from the files in
results/ or from the papers' tables, and all verdicts are computed from these numbers.
"""

import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from reference_models import paths
from reference_models.command_line import command, parse
from reference_models.errors import count
from reference_models.files import atomic_path
from reference_models.reproduction import claims, first_steps
from reference_models.reproduction.both_frameworks import frameworks_text
from reference_models.reproduction.first_steps import Steps
from reference_models.reproduction.plots import image_link, plots
from reference_models.reproduction.results import (
    EachImage,
    Result,
    Results,
    add_thirds,
    of_all,
    of_scale,
    per_image_files,
    provenance,
    read,
    scales_run,
)
from reference_models.reproduction.runs import runs_text
from reference_models.reproduction.seconds import seconds_text
from reference_models.reproduction.verdicts import ONE_SEED, all_intervals
from reference_models.training import figures

# Text --------------------------------------------------------------------------------------------


def results_text(
    results: Results,
    in_jax: Results,
    rows: EachImage,
    losses: Sequence[Steps],
    pictures: Iterable[str],
) -> str:
    """The text of docs/results.md. pictures: names of the figures that exist."""
    known_intervals, shown = all_intervals(results, rows), set(pictures)
    lines = [*INTRODUCTION, *claims.verdicts_table(results, known_intervals)]
    lines += claims.sections(results, known_intervals, shown)
    if GALLERY in shown:
        lines += ["## On generated scenes", "", GALLERY_TEXT, "", image_link(GALLERY)]
    lines += how_it_was_made(results, shown)
    lines += seconds_text([*of_all(results), *of_all(in_jax)])
    lines += frameworks_text(results, in_jax, losses)
    return "\n".join(lines).rstrip() + "\n"


INTRODUCTION = [
    "# Results",
    "",
    "The systems of the five papers, trained here with the losses of this library. Each line is "
    "one claim, with one of the differences that decide it: *paper* is the printed one, *medium* "
    "and *small* are ours, as the mean over seeds with its 95 % interval. Fʷ is the weighted "
    f"F-measure. {ONE_SEED} marks one seed, whose interval knows only the test images. Backbones, "
    "data and image sizes are [not the papers'](#how-the-runs-were-made), so compare differences, "
    "not values. *small*: a head on a frozen backbone, trained on 1,540 images; *medium*: a "
    "fine-tuned backbone and all of DUTS-TR.",
    "",
    "The [verdict](#how-the-verdicts-are-made) is on this difference, at the largest scale at "
    "which it was measured: the bound in parentheses, which the maintainers have set, *holds* if "
    "the whole interval lies within it, and is *refuted* if the whole interval lies outside. "
    "*Bounds kept* counts all bounds of the claim that hold at this scale; its section names the "
    "difference and shows every bound.",
    "",
]


GALLERY = "gallery"


GALLERY_TEXT = (
    "The [networks that come with the code](../reference_models/weights/README.md), on scenes that "
    "`reference_models/data/scenes.py` generates. All have learnt from photographs only, so such "
    "scenes are new to them. `python docs/figures/gallery.py` draws the picture."
)


def how_it_was_made(results: Results, shown: Container[str]) -> list[str]:
    """The conditions of all runs: scales, measures, bounds, machines, versions, notes."""
    scales = scales_run(results)
    losses = "results-losses"
    return [
        "## How the runs were made",
        "",
        "This page is written by `python -m reference_models.reproduction.report` from "
        "`results/runs`; only the papers' figures are typed by hand. "
        + " ".join(SCALE_TEXTS[scale] for scale in scales),
        "",
        "Values are means ± standard deviation over seeds. F is computed at a threshold of 2 × "
        "the map's mean and means little for a collapsed map, so MAE and max F are shown with it. "
        "Precision–recall curves are means over the images with an object. Measures are computed "
        "at the masks' own size. Lower is better for MAE and variation of information, higher for "
        "all other measures unless a claim says otherwise.",
        "",
        "On a CPU the same seed and number of threads give the same bits; another number of "
        "threads changes results as much as another seed. To train one row, run `python -m "
        "reference_models.train zoomout-af --scale small --seed 0`; `--recipes` lists all recipes. "
        "[RUNS.md](../reference_models/RUNS.md) shows how to run all of them.",
        "",
        "### How the verdicts are made",
        "",
        BOUNDS_TEXT,
        "",
        INTERVALS_TEXT,
        "",
        *(["### Machines, versions, data", ""] if scales else []),
        *environment({scale: of_scale(results, scale) for scale in scales}),
        *(["### Training losses", "", image_link(losses)] if losses in shown else []),
    ]


SCALE_TEXTS = {
    "paper": "*paper scale*: the paper's own network and training, on a GPU.",
    "medium": "*medium*: the whole of DUTS-TR with a fine-tuned backbone and whole test sets, in "
    "one to two hours on two cores (MEnet from scratch longer, as any run beside other work).",
    "small": "*small*: fewer images at 160 px (MEnet 96 px) with a frozen backbone, in minutes.",
}


BOUNDS_TEXT = (
    "The bounds in the tables are set by the maintainers for the runs of this repository, after "
    "trials on ECSSD at small scale; they are not the papers'. Where bounds were set after the "
    "runs that they judge, the claim says so."
)


INTERVALS_TEXT = (
    "The brackets hold a 95 % interval. Over the seeds it is that of Student's t; over the test "
    "images, which all seeds share, it comes from a paired bootstrap; the squares of the two "
    "half-widths are added (`reference_models/measures/intervals.py`). With one seed "
    "only the second is left; another seed may lie outside, so the verdict is on that run. A bound "
    "*holds* if it contains the whole interval, is *refuted* if the interval lies outside or a "
    "seed lies below the least that each must reach, and is *not decided* otherwise, as where one "
    "seed left no measure per image and there is no interval. Of several seeds that left none "
    "the interval knows only the seeds, and where some left them, they stand for all images. "
    "With so many bounds some verdicts "
    "are wrong by chance, and those on several measures or test sets of the same runs are wrong "
    "together. A difference is that of the seeds which both recipes have, so it may differ from "
    "that of the means in the tables."
)


def environment(by_scale: Mapping[str, list[Result]]) -> list[str]:
    """Machines, versions, data and notes of all runs, a paragraph per scale."""
    lines = []
    for scale, runs in by_scale.items():
        versions = {f"{k} {v}" for run in runs for k, v in run["versions"].items()}
        seconds = sum(sum(run["seconds"].values()) for run in runs)
        images = {f"{n} {name}" for run in runs for name, n in run["images"].items()}
        notes = [
            note if len(recipes) > 3 else f"{note} ({', '.join(recipes)})"
            for note, recipes in recipes_by_note(runs).items()
        ]
        lines.append(
            f"{scale.capitalize()}: {count(len(runs), 'run')}, {seconds / 60:.0f} minutes in all; "
            f"{provenance(runs)}; {', '.join(sorted(versions))}. "
            f"Images: {', '.join(sorted(images, key=lambda i: i.split(' ', 1)[::-1]))}."
            + (f" Notes: {'; '.join(notes)}." if notes else "")
        )
    return [line for text in lines for line in (text, "")]


def recipes_by_note(runs: list[Result]) -> dict[str, list[str]]:
    """The recipes whose runs recorded each note."""
    notes: dict[str, list[str]] = {}
    for run in runs:
        for note in run["notes"]:
            recipes = notes.setdefault(note, [])
            if run["recipe"] not in recipes:
                recipes.append(run["recipe"])
    return notes


# Command -----------------------------------------------------------------------------------------


def main(
    results: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = paths.RUNS,
    check: bool = False,
    root: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = paths.ROOT,
) -> None:
    """Write docs/results.md with its figures, and reference_models/RUNS.md.

    Args:
        results: Folder of the results files.
        check: Write nothing; fail if a file is not up to date.
        root: Folder that holds docs/ and reference_models/.
    """
    with command():
        stale = report(results, root, check)
    if check and stale:
        sys.exit(
            f"not up to date: {', '.join(stale)}; "
            "run python -m reference_models.reproduction.report"
        )


def report(folder: Path, root: Path = paths.ROOT, check: bool = False) -> list[str]:
    """Write the files that are not up to date, unless `check`, and return their paths."""
    results, in_jax = read(folder, "torch"), read(folder, "jax")
    losses = first_steps.read(folder.parent / paths.AGREEMENT.name)
    rows = per_image_files(folder, results)
    add_thirds(results, rows)
    current = plots(results, rows, losses)
    pictures = root / "docs" / "figures"
    drawn = [path.stem for path in sorted(pictures.glob("*.png"))]
    texts = {
        root / "docs" / "results.md": results_text(
            results, in_jax, rows, losses, [*current, *drawn]
        ),
        root / "reference_models" / "RUNS.md": runs_text(results, in_jax),
    }
    stale = [
        path
        for path, text in texts.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    # The bytes of a figure depend on the version of Matplotlib, so the data that it shows are
    # compared.
    stale += [
        pictures / f"{name}.png"
        for name, plot in current.items()
        if figures.stored_digest(pictures / f"{name}.png") != plot.digest()
    ]
    outdated = [path for path in sorted(pictures.glob("results-*.png")) if path.stem not in current]
    if not check:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as partial:
                partial.write_text(text, encoding="utf-8")
        for name, plot in current.items():
            pictures.mkdir(parents=True, exist_ok=True)
            figures.draw(plot, pictures / f"{name}.png")
        for path in outdated:
            path.unlink()
    return [str(path.relative_to(root)) for path in (*stale, *outdated)]


if __name__ == "__main__":
    parse(main, "reproduction.report")
