"""Report on the reproduction: docs/results.md with its figures, and RUNS.md.

`python -m reference_models.reproduction.report` writes them. All numbers come from the files in
results/ or from the papers' tables, and all verdicts are computed from these numbers.
"""

import re
import statistics
import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from reference_models import paths
from reference_models.command_line import command, parse
from reference_models.files import atomic_path
from reference_models.papers.recipes import RECIPES, SPEEDS, claims
from reference_models.papers.schema import (
    PRIORS,
    SEGMENTATION,
    Claim,
    Effects,
    Figures,
    ScaleName,
    Table,
    number,
    row,
)
from reference_models.reproduction import first_steps as steps_of_both
from reference_models.reproduction.first_steps import Steps, gap, gap_at_the_end
from reference_models.reproduction.markdown_tables import anchor, folded, folded_table, short, table
from reference_models.reproduction.plots import CAPTIONS, PICTURES_OF, PLOTS_OF, plots
from reference_models.reproduction.results import (
    SCALES,
    EachImage,
    Result,
    Results,
    add_thirds,
    differences,
    heading,
    per_image_files,
    printed,
    printed_differences,
    read,
    values,
)
from reference_models.reproduction.runs import runs_text
from reference_models.reproduction.verdicts import (
    NAMES,
    Intervals,
    Tested,
    all_intervals,
    difference,
    named,
    signed,
    spread,
    tally,
    tested,
)
from reference_models.training import figures

# Text --------------------------------------------------------------------------------------------


def comparison_table(
    title: str,
    measures: tuple[str, ...],
    labels: list[str],
    papers: list[Figures],
    ours: Callable[[int, str, str], str],
    sign: bool,
) -> str:
    """A table of the paper's figures, and ours at each scale that has a run.

    ours: Text of a cell, from the row's index, the scale and the measure.
    """
    show = signed if sign else number
    cited = [
        ", ".join(f"{NAMES[m]} {show(figures[m])}" for m in measures if m in figures)
        for figures in papers
    ]
    columns = {title: labels}
    if any(cited):
        columns["paper"] = cited
    for scale in SCALES:
        cells = {
            f"{heading(scale)}: {NAMES[m]}": [ours(index, scale, m) for index in range(len(labels))]
            for m in measures
        }
        if any(any(column) for column in cells.values()):
            columns |= cells
    return table(columns, zip(*columns.values(), strict=True))


def table_text(results: Results, of: Table) -> str:
    text = comparison_table(
        of.title,
        of.measures,
        [line.label for line in of.rows],
        [printed(line) for line in of.rows],
        lambda index, scale, measure: spread(values(results, scale, of.rows[index], measure)),
        sign=False,
    )
    return folded(of.title, text)


def effects_text(results: Results, known_intervals: Intervals, of: Effects) -> str:
    def ours(index: int, scale: str, measure: str) -> str:
        pair = of.pairs[index]
        interval = known_intervals.get((scale, *pair), {}).get(measure)
        return spread(differences(results, scale, *pair, measure), interval, sign=True)

    text = comparison_table(
        "difference",
        of.measures,
        [difference(*pair) for pair in of.pairs],
        [printed_differences(*pair) for pair in of.pairs],
        ours,
        sign=True,
    )
    return folded("Differences", text)


def bounds_text(claim: Claim, by_scale: Mapping[str, list[Tested]]) -> str:
    """The table of a claim's bounds, with our values and verdicts at each scale that has a run."""
    lines = [
        [test.label, test.bounds, *(outcome(tests[index]) for tests in by_scale.values())]
        for index, test in enumerate(tested({}, {}, claim, "small"))
    ]
    if not lines:
        return ""
    told = "; ".join(
        f"{heading(scale)}: {plain(tally(tests))}" for scale, tests in by_scale.items()
    )
    heads = ("value", "bound", *map(heading, by_scale))
    return folded(f"Bounds ({told or 'not run'})", table(heads, lines))


def plain(text: str) -> str:
    """Without bold type, which the title of a folded section does not show."""
    return text.replace("**", "")


def outcome(test: Tested) -> str:
    """Our value and its verdict, in bold unless it holds."""
    if test.verdict is None:
        return test.measured
    return f"{test.measured}: {test.verdict if test.verdict == 'holds' else f'**{test.verdict}**'}"


def tested_at_scales(
    results: Results, known_intervals: Intervals, claim: Claim
) -> dict[str, list[Tested]]:
    """The tested bounds of a claim, at each scale at which any was measured."""
    every = {scale: tested(results, known_intervals, claim, scale) for scale in SCALES}
    return {scale: tests for scale, tests in every.items() if any(t.measured for t in tests)}


def provenance(runs: Sequence[Result]) -> str:
    """Devices and commits of runs."""
    devices = sorted({run["device"] for run in runs})
    commits = sorted({short(str(run["commit"])) for run in runs})
    return f"device {', '.join(devices)}; commit {', '.join(commits)}"


def results_text(
    results: Results,
    in_jax: Results,
    rows: EachImage,
    first_steps: Sequence[Steps],
    pictures: Iterable[str],
) -> str:
    """The text of docs/results.md. pictures: names of the figures that exist."""
    known_intervals, shown = all_intervals(results, rows), set(pictures)
    lines = [*INTRODUCTION, *verdicts_table(results, known_intervals)]
    for letter, (title, lead) in PAPERS.items():
        lines += [f"## {title}", "", lead, ""]
        lines += [
            image_link(name) for name in (*PLOTS_OF[letter], *PICTURES_OF[letter]) if name in shown
        ]
        for claim in claims_of(letter):
            lines += claim_text(results, known_intervals, claim)
    if GALLERY in shown:
        lines += ["## On generated scenes", "", GALLERY_TEXT, "", image_link(GALLERY)]
    lines += how_it_was_made(results, shown)
    lines += seconds_text([*of_all(results), *of_all(in_jax)])
    lines += frameworks_text(results, in_jax, first_steps)
    return "\n".join(lines).rstrip() + "\n"


INTRODUCTION = [
    "# Results",
    "",
    "The systems of the five papers, trained here with the losses of this library. Each line holds "
    "a claim of a paper and one of the differences that decide it, as the paper prints it and as "
    "our runs have it, with its 95 % interval (hover over the link to see what is compared). "
    "Backbones, data and image sizes are [not the papers'](#how-the-runs-were-made), so compare "
    "differences, not values. *small*: a head on a frozen backbone, trained on 1,540 images; "
    "*medium*: a fine-tuned backbone and all of DUTS-TR.",
    "",
    "The verdict counts all [bounds](#how-the-verdicts-are-made) of the claim; the section of a "
    "claim on several networks or test sets has a verdict for each. *Refuted* means that the whole "
    "interval lies outside the bound. The maintainers set the bounds for these runs, after trials "
    "on ECSSD at small scale.",
    "",
]


def verdicts_table(results: Results, known_intervals: Intervals) -> list[str]:
    """A table of all claims with the differences that decide them, and the verdicts."""
    scales = scales_run(results)
    lines = [
        verdict_line(results, known_intervals, claim, scales)
        for letter in PAPERS
        for claim in claims_of(letter)
    ]
    heads = ("claim", "paper", *map(heading, scales), *("verdict",) * bool(scales))
    return [table(heads, lines), ""]


def verdict_line(
    results: Results, known_intervals: Intervals, claim: Claim, scales: Sequence[str]
) -> list[str]:
    """The line of a claim in the table of verdicts."""
    every = tested({}, {}, claim, "small")
    if not every:
        return without_bounds(results, known_intervals, claim, scales)
    by_scale = {scale: tested(results, known_intervals, claim, scale) for scale in scales}
    shown, cells = verdict_cells(every, by_scale, range(len(every)))
    return [link_to(claim, every[shown].label), cells[0] or claim.effect, *cells[1:]]


def parts_text(claim: Claim, by_scale: Mapping[str, list[Tested]]) -> str:
    """The verdicts on the parts of a claim, if it has several."""
    every = tested({}, {}, claim, "small")
    parts = list(dict.fromkeys(test.part for test in every))
    if len(parts) < 2:
        return ""
    lines = []
    for part in parts:
        places = [place for place, test in enumerate(every) if test.part == part]
        lines.append([part, *verdict_cells(every, by_scale, places)[1]])
    heads = ("part", "paper", *map(heading, by_scale), *("verdict",) * bool(by_scale))
    return table(heads, lines)


def verdict_cells(
    every: Sequence[Tested], by_scale: Mapping[str, list[Tested]], places: Sequence[int]
) -> tuple[int, list[str]]:
    """The place of the test that decides most of those at `places`; its value in the paper and at
    each scale, and the verdicts on all of them."""

    def rank(place: int) -> tuple[bool, bool]:
        is_measured = any(tests[place].brief for tests in by_scale.values())
        return not is_measured, not every[place].paper

    shown = min(places, key=rank)
    tallies = {scale: tally(tests[place] for place in places) for scale, tests in by_scale.items()}
    told = {scale: text for scale, text in tallies.items() if text}
    return shown, [
        with_reservation(every[shown].paper, every[shown].label),
        *(tests[shown].brief for tests in by_scale.values()),
        *(verdict_of(told) or "not run",) * bool(by_scale),
    ]


def link_to(claim: Claim, shown: str) -> str:
    """A link to a claim's section. shown: the difference in the line, for readers who hover."""
    return f'[{claim.title}](#{anchor(claim.title)} "{shown}")'


def with_reservation(paper: str, label: str) -> str:
    """The paper's value with the reservation that a row's label makes in parentheses, if any."""
    reservations = dict.fromkeys(re.findall(r"\(.*?\)", label))
    return paper and " ".join([paper, *reservations])


def without_bounds(
    results: Results, known_intervals: Intervals, claim: Claim, scales: Sequence[str]
) -> list[str]:
    """The line of a claim that has no bounds: its first difference."""
    pair = of, minus = claim.effects.pairs[0]
    theirs = printed_differences(of, minus)
    measure = next((name for name in claim.effects.measures if name in theirs), None)
    measure = measure or claim.effects.measures[0]
    ours = [
        spread(
            differences(results, scale, of, minus, measure),
            known_intervals.get((scale, *pair), {}).get(measure),
            sign=True,
            brief=True,
        )
        for scale in scales
    ]
    label = f"{difference(of, minus)}: {NAMES[measure]}"
    paper = named(measure, signed(theirs[measure]) if measure in theirs else "")
    return [
        link_to(claim, label),
        with_reservation(paper, label) or claim.effect,
        *(named(measure, value) for value in ours),
        *("no bound set",) * bool(scales),
    ]


def verdict_of(told: Mapping[str, str]) -> str:
    """The tallies of all scales, once if they are equal."""
    if len(set(told.values())) < 2:
        return "".join(dict.fromkeys(told.values()))
    return "<br>".join(f"{heading(scale)}: {text}" for scale, text in told.items())


def claims_of(letter: str) -> list[Claim]:
    return [claim for claim in claims() if claim.title.startswith(f"{letter}:")]


def claim_text(results: Results, known_intervals: Intervals, claim: Claim) -> list[str]:
    """The section on one claim."""
    by_scale = tested_at_scales(results, known_intervals, claim)
    parts = [
        f"### {claim.title}",
        claim.paper,
        claim.why,
        parts_text(claim, by_scale),
        bounds_text(claim, by_scale),
        effects_text(results, known_intervals, claim.effects),
        *(table_text(results, part) for part in claim.tables),
    ]
    return [line for part in parts if part for line in (part, "")]


PAPERS = {
    "M": (
        "M: MEnet and the metric loss",
        "MEnet (Cai et al., 2018) is trained by cross-entropy and a metric loss, which draws the "
        "features of each region together and those of different regions apart. Its map is S, the "
        "semantic distance of the features. We train a smaller MEnet from scratch (`menet-…`), and "
        "a head on pretrained features by the same losses (`metric-head-…`).",
    ),
    "C": (
        "C: the class-agnostic segmentation loss",
        "CAS (Sharma et al., 2021) compares the descriptors of an image's regions with each other, "
        "not with classes, so labels may be exchanged from image to image. We train a fully "
        "convolutional network by it and by other losses (`fcn-…`), the same with DeepLab's head "
        "(`deeplab-…`), and networks with more channels for any number of regions in photographs "
        "(`regions-…`) and in mosaics of textures (`textures-…`).",
    ),
    "W": (
        "W: the weighted F-beta loss",
        "The weighted F-measure weighs errors by where they lie. Kolkin et al. (2017) train a "
        "squeezed zoomout network (`zoomout-…`) by a tractable form of it (`af`). We train it by "
        "that form, by the exact measure and by cross-entropy.",
    ),
    "L": (
        "L: promoting detectors by anchors",
        "The map of any detector divides an image into two regions, whose embeddings are anchors; "
        "each pixel goes to the nearer one, which gives a better map (Zeng et al., 2018). One "
        "network (`anchors`) serves all detectors; T is the number of rounds.",
    ),
    "R": (
        "R: refining by mutual information",
        "A critic learns from a detector's maps, without masks, which pixels belong together; its "
        "map is merged with the detector's by confidence (Chen et al., 2020).",
    ),
}
"""Heading and lead of each paper's section, in the order of the page."""
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
    "up to an hour on two cores (MEnet from scratch in 90 minutes).",
    "small": "*small*: fewer images at 160 px (MEnet 96 px) with a frozen backbone, in minutes.",
}
BOUNDS_TEXT = (
    "The bounds in the tables are set by the maintainers for the runs of this repository, after "
    "trials on ECSSD at small scale; they are not the papers'. Where bounds were set after the "
    "runs that they judge, the claim says so."
)
INTERVALS_TEXT = (
    "The brackets after a difference hold its 95 % interval, by a paired bootstrap over the test "
    "images, and over the seeds if there are several (`reference_models/measures/intervals.py`). A "
    "bound *holds* if it contains the whole interval, is *refuted* if the interval lies outside, "
    "and is *not decided* otherwise. Runs without measures per test image have no interval: the "
    "mean over seeds decides whether the bound *holds* or *does not hold*."
)


def scales_run(results: Results) -> list[ScaleName]:
    return [scale for scale in SCALES if of_scale(results, scale)]


def of_all(results: Results) -> list[Result]:
    return [result for seeds in results.values() for result in seeds.values()]


def of_scale(results: Results, scale: str) -> list[Result]:
    return [run for run in of_all(results) if run["scale"] == scale]


def image_link(name: str) -> str:
    return f"![{CAPTIONS[name]}](figures/{name}.png)\n"


def count(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}{'s' * (number_of != 1)}"


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


# Seconds ---------------------------------------------------------------------------------------


def seconds_text(results: Sequence[Result]) -> list[str]:
    """The table of training and inference times, by device."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        if "inference_seconds" in result:
            key = (result["scale"], result["recipe"], result["backend"], result["device"])
            groups.setdefault(key, []).append(result)
    if not groups:
        return []
    rows = [
        [
            recipe,
            scale,
            backend,
            device,
            str(runs[0]["schedule"]["size"]),
            runs[0].get("precision", "float32"),
            f"{statistics.fmean(run['seconds']['training'] for run in runs):.0f}",
            *(
                f"{1000 * min(run['inference_seconds'][batch] for run in runs):.1f}"
                for batch in ("1", "8")
            ),
            *(ratio(runs, batch) for batch in ("1", "8")),
            SPEEDS.get(RECIPES[recipe].system, ""),
        ]
        for (scale, recipe, backend, device), runs in groups.items()
    ]
    return [
        "## Seconds",
        "",
        "Training: mean over the seeds. Inference: time per image from pixels in memory to maps, "
        "for the network alone, in batches of one and of eight, the fastest of several calls. "
        "The ratio to the time of the backbone alone, measured in turns with it in the same "
        "process, can be compared across machines; MEnet has no backbone. The papers' times are "
        "those of their own backbones and image sizes on a GPU.",
        "",
        folded_table(
            "Seconds of all recipes",
            (
                "recipe",
                "scale",
                "framework",
                "device",
                "side in px",
                "precision",
                "training, s",
                "batch of 1, ms per image",
                "batch of 8, ms per image",
                "times the backbone, batch of 1",
                "batch of 8",
                "paper, ms per image",
            ),
            rows,
        ),
        "",
    ]


def ratio(runs: Sequence[Result], batch: str) -> str:
    """The lowest ratio of the time of the system to that of its backbone; empty without one."""
    ratios = [
        run["inference_seconds"][batch] / run["backbone_seconds"][batch]
        for run in runs
        if "backbone_seconds" in run
    ]
    return f"{min(ratios):.2f}" if ratios else ""


# Both frameworks ---------------------------------------------------------------------------------


def frameworks_text(results: Results, in_jax: Results, first_steps: Sequence[Steps]) -> list[str]:
    """The measures of both frameworks, and the gap between the losses of their first steps."""
    if not in_jax and not first_steps:
        return []
    lines = [
        "## Both frameworks",
        "",
        "Each recipe also runs in JAX (Flax), with the same network, data, image order, schedule "
        "and evaluation. Each framework draws initial weights and label flips itself, so a run in "
        "JAX differs from one in PyTorch as another seed does. The tables compare the main map on "
        "the first test set.",
        "",
    ]
    for scale in SCALES:
        rows, gaps = [], []
        for name in RECIPES:
            torch_runs, jax_runs = (runs.get((name, scale), {}) for runs in (results, in_jax))
            if not torch_runs or not jax_runs:
                continue
            test, maps = next(iter(next(iter(torch_runs.values()))["measures"].items()))
            main = row(name, test, map=next(m for m in maps if m not in PRIORS))
            measures = SEGMENTATION[:1] if RECIPES[name].regions > 2 else ("mae", "max_f")
            for measure in measures:
                torch, jax = (values(runs, scale, main, measure) for runs in (results, in_jax))
                change = statistics.fmean(jax.values()) - statistics.fmean(torch.values())
                gaps.append((abs(change), f"{NAMES[measure]} of {name}"))
                rows.append(
                    [
                        name,
                        test,
                        NAMES[measure],
                        spread(torch),
                        spread(jax),
                        signed(change),
                    ]
                )
        if rows:
            head = ("recipe", "test", "measure", "PyTorch", "JAX", "difference")
            largest, where = max(gaps)
            runs = of_scale(in_jax, scale)
            lines += [
                f"At {scale} scale the frameworks differ by "
                f"{number(statistics.fmean(size for size, _ in gaps))} on average, at most "
                f"{number(largest)} ({where}).",
                "",
                folded(f"All recipes, {scale}", table(head, rows)),
                "",
                f"JAX, {scale}: {count(len(runs), 'run')}, {provenance(runs)}.",
                "",
            ]
    if first_steps:
        lines += first_steps_text(first_steps)
    return lines


def first_steps_text(first_steps: Sequence[Steps]) -> list[str]:
    rows = [
        [
            losses["recipe"],
            *(f"{gap(losses, steps):.0e}" for steps in (1, 10, 100)),
            f"{gap_at_the_end(losses):.0e}",
        ]
        for losses in first_steps
    ]
    head = ("recipe", "first step", "ten steps", "hundred steps", "mean of the last twenty steps")
    made_with = provenance(first_steps)
    no_flips = [
        losses for losses in first_steps if not RECIPES[losses["recipe"]].options.get("flip")
    ]
    return [
        "Each network was also trained with each of its losses for the first hundred steps in both "
        "frameworks from equal weights (`python -m reference_models.reproduction.agreement`). The "
        "losses differ by rounding, which training amplifies, and in recipes that flip labels by "
        "the flips. Without flips, the losses of the first ten steps differ by at most "
        f"{max((gap(losses, 10) for losses in no_flips), default=0):.0e} of their mean absolute "
        "value, and the means of the last twenty steps by at most "
        f"{max(map(gap_at_the_end, no_flips), default=0):.0e}.",
        "",
        image_link("results-frameworks"),
        folded(
            "The largest difference of the two losses, relative to their mean absolute value",
            table(head, rows),
        ),
        "",
        f"{made_with[0].upper()}{made_with[1:]}.",
        "",
    ]


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
    first_steps = steps_of_both.read(folder.parent / paths.AGREEMENT.name)
    rows = per_image_files(folder, results)
    add_thirds(results, rows)
    current = plots(results, rows, first_steps)
    pictures = root / "docs" / "figures"
    drawn = [path.stem for path in sorted(pictures.glob("*.png"))]
    texts = {
        root / "docs" / "results.md": results_text(
            results, in_jax, rows, first_steps, [*current, *drawn]
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
