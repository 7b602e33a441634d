"""The report: docs/results.md, its figures, and RUNS.md, from the results files.

`python -m reference_models.reproduction.report` writes them.

Every number in a table comes from a file in results/ or from what a paper printed; every verdict is
computed from them.
"""

import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from reference_models import paths
from reference_models.commands import command, parse
from reference_models.files import atomic_path
from reference_models.papers.recipes import RECIPES, claims
from reference_models.papers.schema import (
    PRIORS,
    SEGMENTATION,
    Claim,
    Effects,
    Figures,
    Table,
    number,
    row,
)
from reference_models.reproduction import first_steps as steps_of_both
from reference_models.reproduction.first_steps import Steps, apart, apart_in_the_end
from reference_models.reproduction.markdown import anchor, folded, short, table
from reference_models.reproduction.plots import PICTURES, plots
from reference_models.reproduction.results import (
    SCALES,
    EachImage,
    Result,
    Results,
    differences,
    printed,
    printed_differences,
    read,
    values,
    with_rows,
)
from reference_models.reproduction.runs import runs_text
from reference_models.reproduction.verdicts import (
    NAMES,
    Intervals,
    Tested,
    Verdict,
    all_intervals,
    difference,
    signed,
    spread,
    tested,
)
from reference_models.training import figures

# Text --------------------------------------------------------------------------------------------


def beside(
    title: str,
    measures: tuple[str, ...],
    labels: list[str],
    papers: list[Figures],
    ours: Callable[[int, str, str], str],
    sign: bool,
) -> str:
    """The paper's figures, then ours at every scale that has a run.

    ours: a cell's text, given the place in labels, the scale and the measure.
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
            f"{scale}: {NAMES[m]}": [ours(place, scale, m) for place in range(len(labels))]
            for m in measures
        }
        if any(any(column) for column in cells.values()):
            columns |= cells
    return table(columns, zip(*columns.values(), strict=True))


def table_text(results: Results, of: Table) -> str:
    text = beside(
        of.title,
        of.measures,
        [one.label for one in of.rows],
        [printed(one) for one in of.rows],
        lambda place, scale, measure: spread(values(results, scale, of.rows[place], measure)),
        sign=False,
    )
    return folded(of.title, text) if of.folded else text


def effects_text(results: Results, known: Intervals, of: Effects) -> str:
    def ours(place: int, scale: str, measure: str) -> str:
        pair = of.pairs[place]
        interval = known.get((scale, *pair), {}).get(measure)
        return spread(differences(results, scale, *pair, measure), interval, sign=True)

    return beside(
        "difference",
        of.measures,
        [difference(*pair) for pair in of.pairs],
        [printed_differences(*pair) for pair in of.pairs],
        ours,
        sign=True,
    )


def headline(results: Results, claim: Claim) -> str:
    """The first difference that the paper has too, in its measures, and ours at the larger scale
    there is."""
    for of, minus in claim.effects.pairs:
        theirs = printed_differences(of, minus)
        for scale in SCALES:
            found = {name: differences(results, scale, of, minus, name) for name in theirs}
            if theirs and all(found.values()):
                ours = {name: statistics.fmean(seeds.values()) for name, seeds in found.items()}
                changes = (
                    f"{NAMES[name]} {signed(paper)} → {signed(ours[name])}"
                    for name, paper in theirs.items()
                )
                return f"{difference(of, minus)}: {', '.join(changes)} ({scale})"
    return ""


def asks_text(results: Results, known: Intervals, claim: Claim) -> str:
    """What was asked for, and whether it holds, at every scale that has a run."""
    by_scale = {scale: tested(results, known, claim, scale) for scale in SCALES}
    by_scale = {
        scale: every for scale, every in by_scale.items() if any(one.found for one in every)
    }
    first = next(iter(by_scale.values()), ())
    lines = [
        [one.words, one.bounds, *(told(every[place]) for every in by_scale.values())]
        for place, one in enumerate(first)
    ]
    return table(("asked for", "bounds", *by_scale), lines) if lines else ""


def told(one: Tested) -> str:
    if one.verdict is None:
        return one.found
    return f"{one.found}: {one.verdict if one.verdict == 'holds' else f'**{one.verdict}**'}"


UNSETTLED: tuple[Verdict, ...] = ("refuted", "not decided")


def summary(results: Results, known: Intervals, claim: Claim, scale: str) -> str:
    """The verdict on a claim, which is refuted with anything that it asks for; nothing while no
    run has tested it."""
    every = tested(results, known, claim, scale)
    counts = Counter(one.verdict for one in every if one.verdict is not None)
    total, held = counts.total(), counts["holds"]
    if not ran(results, claim, scale) or (every and not total):
        return ""
    if not every:
        return "as found"
    others = [name for name in UNSETTLED if counts[name]]
    text = "holds" if held == total else f"{held} of {total} hold"
    text = ", ".join([text, *(f"{counts[name]} {name}" for name in others)])
    if others:
        text = f"{others[0]}: {text}"
    return text if total == len(every) else f"{text} ({total} of {len(every)} tested)"


def ran(results: Results, claim: Claim, scale: str) -> list[Result]:
    """The results a claim draws on."""
    names = {one.recipe for part in claim.tables for one in part.rows}
    return [
        result
        for name in RECIPES
        if name in names
        for result in results.get((name, scale), {}).values()
    ]


def verdict_text(results: Results, known: Intervals, claim: Claim, scale: str) -> str:
    """The summary in a sentence, and what does not hold."""
    text = summary(results, known, claim, scale)
    if not text:
        return ""
    missed = (
        f" {one.words}: asked for {one.bounds}, found {one.found}: {one.verdict}."
        for one in tested(results, known, claim, scale)
        if one.verdict not in ("holds", None)
    )
    return f"**At {scale} scale: {text}.**{''.join(missed)}"


def provenance(runs: Sequence[Result]) -> str:
    """Devices and commits."""
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
    known = all_intervals(results, rows)
    there = [scale for scale in SCALES if of_scale(results, scale)]
    lines = [
        "# Results",
        "",
        "The systems of the five papers, trained here with the losses of this library, beside the "
        "papers' tables. Written by `python -m reference_models.reproduction.report` from "
        "`results/runs`; nothing in a table is typed by hand but what the papers "
        "print.",
        "",
        "On a CPU the same seed and number of threads give the same bits; another number of "
        "threads is as good as another seed.",
        "",
        "Backbones, training sets and image sizes differ from the papers', so what is to be "
        "compared is the difference that a loss makes, beside the difference it makes in the "
        "paper. "
        + " ".join(SCALE_TEXTS[scale] for scale in there)
        + " Values are means ± standard deviation over the seeds that were run. F is at the "
        "threshold of 2 × the map's mean and means little for a collapsed map, so MAE and max F "
        "stand beside it. Masks are measured at their own size. All but MAE and variation of "
        "information are the better the higher.",
        "",
        *([INTERVALS_TEXT, ""] if known else ()),
        "To train one row: `python -m reference_models.train zoomout-af --scale small --seed 0`; "
        "`--recipes` lists them; all runs at once: [RUNS.md](../reference_models/RUNS.md).",
        "",
        table(
            (
                "claim",
                "difference that the paper prints → ours",
                *(f"what is asked for, {scale}" for scale in there),
            ),
            (
                (
                    f"[{claim.title}](#{anchor(claim.title)})",
                    headline(results, claim),
                    *(summary(results, known, claim, scale) for scale in there),
                )
                for claim in claims()
            ),
        ),
        "",
        *environment({scale: of_scale(results, scale) for scale in there}),
        *(picture(name) for name in pictures if name != "results-frameworks"),
    ]
    for claim in claims():
        parts = [
            f"## {claim.title}",
            claim.paper,
            *(table_text(results, part) for part in claim.tables),
            effects_text(results, known, claim.effects),
            asks_text(results, known, claim),
            *(verdict_text(results, known, claim, scale) for scale in SCALES),
            claim.why,
            *(
                f"{scale.capitalize()}: {provenance(runs)}."
                for scale in SCALES
                if (runs := ran(results, claim, scale))
            ),
        ]
        lines += [line for part in parts if part for line in (part, "")]
    lines += seconds_text([*of_all(results), *of_all(in_jax)])
    lines += frameworks_text(results, in_jax, first_steps)
    return "\n".join(lines).rstrip() + "\n"


SCALE_TEXTS = {
    "medium": "*medium*: the whole of DUTS-TR, the backbone fine-tuned, and every test set whole, "
    "in up to an hour on two cores (MEnet from scratch in 90 minutes).",
    "small": "*small*: fewer images at 160 px (MEnet 96 px) under a frozen backbone, in minutes.",
}
INTERVALS_TEXT = (
    "In brackets behind a difference: its 95 % interval, by bootstrap over the test images, "
    "paired, and where there are several seeds over these too "
    "(`reference_models/measures/intervals.py`). What is asked for *holds* where the "
    "whole interval lies within the bounds, is *refuted* where "
    "all of it lies outside, and is *not decided* otherwise. Of runs without rows of their test "
    "images the mean over seeds decides."
)


def of_all(results: Results) -> list[Result]:
    return [result for seeds in results.values() for result in seeds.values()]


def of_scale(results: Results, scale: str) -> list[Result]:
    return [run for run in of_all(results) if run["scale"] == scale]


def picture(name: str) -> str:
    return f"![{PICTURES[name]}](figures/{name}.png)\n"


def count(many: int, what: str) -> str:
    return f"{many} {what}{'s' * (many != 1)}"


def environment(every: Mapping[str, list[Result]]) -> list[str]:
    lines = []
    for scale, runs in every.items():
        versions = {f"{k} {v}" for run in runs for k, v in run["versions"].items()}
        seconds = sum(sum(run["seconds"].values()) for run in runs)
        images = {f"{n} {name}" for run in runs for name, n in run["images"].items()}
        notes = [
            note if len(recipes) > 3 else f"{note} ({', '.join(recipes)})"
            for note, recipes in noted(runs).items()
        ]
        lines.append(
            f"{scale.capitalize()}: {count(len(runs), 'run')}, {seconds / 60:.0f} minutes in all; "
            f"{provenance(runs)}; {', '.join(sorted(versions))}. "
            f"Images: {', '.join(sorted(images, key=lambda i: i.split(' ', 1)[::-1]))}."
            + (f" Notes: {'; '.join(notes)}." if notes else "")
        )
    return [line for text in lines for line in (text, "")]


def noted(runs: list[Result]) -> dict[str, list[str]]:
    """The recipes whose runs made each note."""
    notes: dict[str, list[str]] = {}
    for run in runs:
        for note in run["notes"]:
            recipes = notes.setdefault(note, [])
            if run["recipe"] not in recipes:
                recipes.append(run["recipe"])
    return notes


# Seconds ---------------------------------------------------------------------------------------


def seconds_text(every: Sequence[Result]) -> list[str]:
    """How long training took, and how long a network takes for an image, by device."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in every:
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
        ]
        for (scale, recipe, backend, device), runs in groups.items()
    ]
    return [
        "## Seconds",
        "",
        "Training, the mean of the seeds; and from an image in memory to its maps, the network "
        "alone, one image at a time and eight at once, the fastest of several calls.",
        "",
        table(
            (
                "recipe",
                "scale",
                "framework",
                "device",
                "side in px",
                "trained in",
                "training, s",
                "an image, ms",
                "an image of 8, ms",
            ),
            rows,
        ),
        "",
    ]


# Both frameworks ---------------------------------------------------------------------------------


def frameworks_text(results: Results, in_jax: Results, first_steps: Sequence[Steps]) -> list[str]:
    """PyTorch's measures beside JAX's, and how far apart their first steps are."""
    if not in_jax and not first_steps:
        return []
    lines = [
        "## Both frameworks",
        "",
        "Every recipe again in Flax: the same network, data, order of the images, schedule and "
        "evaluation. Initial weights and the noise of flipped labels are drawn by each framework "
        "itself, so a run in JAX is as good as another seed. The main map on the first test set:",
        "",
    ]
    for scale in SCALES:
        rows, gaps = [], []
        for name in RECIPES:
            theirs, ours = (every.get((name, scale), {}) for every in (results, in_jax))
            if not theirs or not ours:
                continue
            test, maps = next(iter(next(iter(theirs.values()))["measures"].items()))
            of = row(name, test, map=next(one for one in maps if one not in PRIORS))
            pair = SEGMENTATION[:1] if RECIPES[name].regions > 2 else ("mae", "max_f")
            for measure in pair:
                torch, jax = (values(every, scale, of, measure) for every in (results, in_jax))
                gap = statistics.fmean(jax.values()) - statistics.fmean(torch.values())
                gaps.append((abs(gap), f"{NAMES[measure]} of {name}"))
                rows.append(
                    [
                        name,
                        test,
                        NAMES[measure],
                        spread(torch),
                        spread(jax),
                        signed(gap),
                    ]
                )
        if rows:
            head = ("recipe", "test", "measure", "PyTorch", "JAX", "difference")
            largest, where = max(gaps)
            runs = of_scale(in_jax, scale)
            lines += [
                f"At {scale} scale the two are {number(statistics.fmean(g for g, _ in gaps))} "
                f"apart on average, at most {number(largest)} ({where}).",
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
            one["recipe"],
            *(f"{apart(one, steps):.0e}" for steps in (1, 10, 100)),
            f"{apart_in_the_end(one):.0e}",
        ]
        for one in first_steps
    ]
    made_with = provenance(first_steps)
    quiet = [one for one in first_steps if not RECIPES[one["recipe"]].options.get("flip")]
    return [
        "Every network with every loss was also trained for its first hundred steps in both "
        "frameworks from the same weights (`python -m reference_models.reproduction.agreement`). "
        "What is left between them is rounding, which training enlarges, "
        "and in the recipes that flip labels "
        "other flips. Without flips the losses differ in the first ten steps by at most "
        f"{max((apart(one, 10) for one in quiet), default=0):.0e} of their mean size; the means of "
        "the last twenty steps by at most "
        f"{max(map(apart_in_the_end, quiet), default=0):.0e}.",
        "",
        picture("results-frameworks"),
        folded(
            "The largest difference of the two losses, as a share of their mean size",
            table(("recipe", "first step", "ten steps", "hundred steps", "mean of the last"), rows),
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
        results: The folder of results files.
        check: Write nothing; fail where a file is not what would be written.
        root: The folder that holds docs/ and reference_models/.
    """
    with command():
        stale = report(results, root, check)
    if check and stale:
        sys.exit(
            f"not up to date: {', '.join(stale)}; "
            "run python -m reference_models.reproduction.report"
        )


def report(folder: Path, root: Path = paths.ROOT, check: bool = False) -> list[str]:
    """Write what has changed, or with `check` nothing; returns what was not up to date."""
    results, in_jax = read(folder, "torch"), read(folder, "jax")
    first_steps = steps_of_both.read(folder.parent / paths.AGREEMENT.name)
    wanted = plots(results, first_steps)
    pictures = root / "docs" / "figures"
    texts = {
        root / "docs" / "results.md": results_text(
            results, in_jax, with_rows(folder, results), first_steps, wanted
        ),
        root / "reference_models" / "RUNS.md": runs_text(results, in_jax),
    }
    stale = [
        path
        for path, text in texts.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    # Pictures differ in bits from one version of the plotting library to the next, so what is
    # compared is what they were drawn from.
    stale += [
        pictures / f"{name}.png"
        for name, plot in wanted.items()
        if figures.stored_digest(pictures / f"{name}.png") != plot.digest()
    ]
    unwanted = [path for path in sorted(pictures.glob("results-*.png")) if path.stem not in wanted]
    if not check:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as partial:
                partial.write_text(text, encoding="utf-8")
        for name, plot in wanted.items():
            pictures.mkdir(parents=True, exist_ok=True)
            figures.draw(plot, pictures / f"{name}.png")
        for path in unwanted:
            path.unlink()
    return [str(path.relative_to(root)) for path in (*stale, *unwanted)]


if __name__ == "__main__":
    parse(main, "reproduction.report")
