"""The report: docs/results.md, its figures, and RUNS.md, from the results files.

`python -m reference_models.reproduction.report` writes them.

Every number in a table comes from a file in results/ or from what a paper printed; every verdict is
computed from them.
"""

import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import tyro

from reference_models import paths
from reference_models.commands import command
from reference_models.files import atomic_path
from reference_models.measures import per_image
from reference_models.measures.intervals import Interval, intervals
from reference_models.measures.per_image import Measured, PerImage
from reference_models.measures.saliency import LABELS
from reference_models.papers.menet import DISTORTED
from reference_models.papers.recipes import RECIPES, claims
from reference_models.papers.schema import (
    PRIORS,
    SEGMENTATION,
    Ask,
    Claim,
    Effects,
    Figures,
    Identity,
    Row,
    ScaleName,
    Table,
    number,
    row,
)
from reference_models.reproduction import agreement
from reference_models.reproduction.agreement import Steps, apart, apart_in_the_end
from reference_models.reproduction.markdown import anchor, folded, short, table
from reference_models.reproduction.runs import Result, Results, read, runs_text
from reference_models.training import figures

SCALES: tuple[ScaleName, ...] = ("medium", "small")
Verdict = Literal["holds", "refuted", "not decided", "does not hold"]
"""The last one is by the means of seeds, where a run has left no rows of its test images."""
EachImage = dict[tuple[str, str], dict[int, Callable[[], PerImage]]]
"""The rows of test images by recipe and scale, then by seed; read at the first call."""
Intervals = dict[tuple[str, Row, Row | None], dict[str, Interval]]
"""By scale, row and the row taken from it, then by measure."""

NAMES = LABELS | {
    "weighted_f_exact": "F^w exact",
    "weighted_f_loss": "F^w as in the loss",
    "weighted_f": "F^w published program",
    "covering": "covering",
    "rand": "Rand index",
    "variation_of_information": "variation of information",
    "regions": "regions",
}


# Values ------------------------------------------------------------------------------------------


def values(results: Results, scale: str, of: Row, measure: str) -> dict[int, float]:
    """By seed."""
    found = {}
    for seed, result in results.get((of.recipe, scale), {}).items():
        maps = result["measures"].get(of.test, {})
        main = next((name for name in maps if name not in PRIORS), None)
        name = of.map or main
        if name in maps and measure in maps[name]:
            found[seed] = maps[name][measure]
    return found


def differences(
    results: Results, scale: str, of: Row, minus: Row | None, measure: str
) -> dict[int, float]:
    """Paired by seed; without a second row the first one's values."""
    first = values(results, scale, of, measure)
    if minus is None:
        return first
    second = values(results, scale, minus, measure)
    return {seed: first[seed] - second[seed] for seed in first if seed in second}


def printed(of: Row) -> Figures:
    """The figures of the row's paper: its own, or those of its recipe for the main map."""
    paper = RECIPES[of.recipe].paper
    if of.paper is not None or paper is None or of.map is not None:
        return of.paper or {}
    return paper.figures.get(of.test, {})


def printed_differences(of: Row, minus: Row) -> Figures:
    """The paper's, by measure."""
    first, second = printed(of), printed(minus)
    return {measure: first[measure] - second[measure] for measure in first if measure in second}


def verdict(ask: Ask, found: Mapping[int, float], interval: Interval | None) -> Verdict:
    """Judged on what is printed, three digits: by the whole interval, else by the seeds' mean."""
    kept = round(min(found.values()), 3) >= ask.each
    if interval is None:
        mean = round(statistics.fmean(found.values()), 3)
        return "holds" if ask.low <= mean <= ask.high and kept else "does not hold"
    low, high = (round(end, 3) for end in interval)
    if high < ask.low or low > ask.high or not kept:
        return "refuted"
    return "holds" if ask.low <= low and high <= ask.high else "not decided"


def equal_weights(results: Results, scale: str, identity: Identity) -> dict[int, bool | None]:
    """By seed whether all weights are the same bits; None where one was trained on a GPU."""
    first, second = (results.get((r, scale), {}) for r in (identity.first, identity.second))
    return {
        seed: first[seed]["weights_sha256"] == second[seed]["weights_sha256"]
        if all(runs[seed]["device"].startswith("cpu") for runs in (first, second))
        else None
        for seed in first
        if seed in second
    }


def with_rows(folder: Path, results: Results) -> EachImage:
    """The runs that left the rows of their test images in the folder of the results."""
    found: EachImage = {}
    for key, seeds in results.items():
        for seed, result in seeds.items():
            recipe, scale = key
            file = per_image.beside(folder / f"{recipe}-{result['backend']}-{scale}-{seed}.json")
            if file.is_file():
                found.setdefault(key, {})[seed] = cache(partial(per_image.read, file))
    return found


def all_intervals(results: Results, rows: EachImage) -> Intervals:
    """Of every difference and every ask for which all seeds' rows are there."""
    wanted: dict[tuple[str, Row, Row | None], dict[str, None]] = {}
    for claim in claims():
        for scale in SCALES:
            for pair in claim.effects.pairs:
                wanted.setdefault((scale, *pair), {}).update(dict.fromkeys(claim.effects.measures))
            for ask in claim.asks:
                wanted.setdefault((scale, ask.of, ask.minus), {})[ask.measure] = None
    found: Intervals = {}
    for (scale, of, minus), measures in wanted.items():
        paired = {m: differences(results, scale, of, minus, m) for m in measures}
        seeds = list(next(iter(paired.values())))
        first = rows_of(rows, scale, of, seeds)
        second = None if minus is None else rows_of(rows, scale, minus, seeds)
        runs = [*first, *(second or ())]
        if runs and None not in runs:
            there = [m for m in measures if all(m in run.values for run in runs)]
            found[scale, of, minus] = intervals(first, second, there)
    return found


def rows_of(rows: EachImage, scale: str, of: Row, seeds: Iterable[int]) -> list[Measured | None]:
    """The map that `values` takes, by seed; None where a run has left no rows."""
    found = []
    for seed in seeds:
        read = rows.get((of.recipe, scale), {}).get(seed)
        maps = read()[of.test] if read else {}
        main = next((name for name in maps if name not in PRIORS), None)
        found.append(maps.get(of.map or main))
    return found


# Text --------------------------------------------------------------------------------------------


def signed(value: float) -> str:
    return number(value) if round(value, 3) <= 0 else f"+{number(value)}"


def spread(found: Mapping[int, float], interval: Interval | None = None, sign: bool = False) -> str:
    """Mean ± standard deviation over seeds, and the interval; nothing without a run."""
    if not found:
        return ""
    show = signed if sign else number
    text = show(statistics.fmean(found.values()))
    if len(found) > 1:
        text += f" ± {number(statistics.stdev(found.values()))}"
    return text if interval is None else f"{text} [{show(interval[0])}, {show(interval[1])}]"


def bounds(ask: Ask) -> str:
    show = number if ask.minus is None else signed
    if ask.low == -ask.high:
        text = f"within ±{number(ask.high)}"
    elif math.isinf(ask.high):
        text = f"≥ {show(ask.low)}"
    else:
        text = f"≤ {show(ask.high)}"
    return text if math.isinf(ask.each) else f"{text}, no seed below {show(ask.each)}"


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


def difference(of: Row, minus: Row | None) -> str:
    """In words. What both labels end in, as a prior or a distortion, is said once."""
    if minus is None:
        return of.label
    first, last = of.label.rpartition(", "), minus.label.rpartition(", ")
    same = first[2] == last[2] and first[0] and last[0]
    return f"{first[0] if same else of.label} − {minus.label}"


class Tested(NamedTuple):
    """Something that was asked for, and what came out at one scale."""

    words: str
    bounds: str
    found: str
    verdict: Verdict | None
    """None without a run, or where the processor decides."""


def tested(results: Results, known: Intervals, claim: Claim, scale: str) -> list[Tested]:
    every = []
    for ask in claim.asks:
        found = differences(results, scale, ask.of, ask.minus, ask.measure)
        interval = known.get((scale, ask.of, ask.minus), {}).get(ask.measure)
        every.append(
            Tested(
                f"{difference(ask.of, ask.minus)}: {NAMES[ask.measure]}",
                bounds(ask),
                spread(found, interval, sign=ask.minus is not None),
                verdict(ask, found, interval) if found else None,
            )
        )
    for identity in claim.identities:
        equal = equal_weights(results, scale, identity)
        asked = [same for same in equal.values() if same is not None]
        same, held = ("equal", "holds") if all(asked) else ("not equal", "refuted")
        every.append(
            Tested(
                f"weights of {identity.first} and {identity.second}",
                "equal bit for bit on a CPU",
                same if asked else "not asked for on a GPU" * bool(equal),
                held if asked else None,
            )
        )
    return every


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
    others = [name for name in ("refuted", "not decided") if counts[name]]
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


# Figures -----------------------------------------------------------------------------------------

PICTURES = {
    "results-effects": "What each loss changes, here and in its paper",
    "results-noise": "Max F against the variance of the noise, with and without the metric loss",
    "results-losses": "The training loss of one recipe per kind of loss",
    "results-frameworks": "The first steps in PyTorch and in JAX from the same weights",
}
CURVES = (
    "zoomout-ce",
    "zoomout-af",
    "zoomout-exact",
    "fcn-ce-clean",
    "fcn-ce-swapped",
    "fcn-cas-swapped",
    "fcn-cace-swapped",
    "menet-metric",
    "metric-head-metric",
    "anchors",
    "relations",
    "regions-cas-8",
)
FIRST_STEPS = (
    "zoomout-ce",
    "zoomout-af",
    "zoomout-exact",
    "fcn-ce-clean",
    "fcn-cas-clean",
    "deeplab-cace-clean",
    "menet-metric",
    "metric-head-metric",
    "anchors-no-flips",
    "anchors",
    "relations-self-drfi",
    "regions-cas-8",
)


def scale_of(results: Results, recipes: Iterable[str]) -> ScaleName:
    """The larger scale at which every one of the recipes has run."""
    return "medium" if all((name, "medium") in results for name in recipes) else "small"


def plots(results: Results, first_steps: Sequence[Steps]) -> dict[str, figures.Plot]:
    """The pictures there are results for, by name."""
    drawn = {
        "results-effects": effects_plot(results),
        "results-noise": noise_plot(results),
        "results-losses": losses_plot(results),
        "results-frameworks": first_steps_plot(first_steps),
    }
    return {name: plot for name, plot in drawn.items() if plot is not None}


def noise_plot(results: Results) -> figures.Plot | None:
    panels = []
    tests = {0.0: "ecssd"} | {
        float(d.split()[1]): f"ecssd, {d}" for d in DISTORTED if d.startswith("noise")
    }
    for title, network in (("pretrained features", "metric-head"), ("MEnet from scratch", "menet")):
        losses = {
            "cross-entropy": f"{network}-ce",
            "with the metric loss": f"{network}-metric",
            "on hard negatives": f"{network}-metric-hard-negatives",
        }
        scale = scale_of(results, losses.values())
        lines = []
        for label, recipe in losses.items():
            found = {x: values(results, scale, row(recipe, t), "max_f") for x, t in tests.items()}
            points = tuple((x, tuple(seeds.values())) for x, seeds in found.items() if seeds)
            if points:
                lines.append((label, points))
        if lines:
            panels.append((f"{title} ({scale})", tuple(lines)))
    return figures.Plot("noise", tuple(panels)) if panels else None


def losses_plot(results: Results) -> figures.Plot | None:
    panels = []
    for name in CURVES:
        scale = scale_of(results, (name,))
        curves = tuple(
            (f"seed {seed}", tuple(enumerate_steps(result)))
            for seed, result in results.get((name, scale), {}).items()
        )
        if curves:
            panels.append((f"{name} ({scale})", curves))
    return figures.Plot("losses", tuple(panels)) if panels else None


def enumerate_steps(result: Result) -> Iterable[tuple[float, tuple[float, ...]]]:
    curve, steps = result["loss_curve"], result["schedule"]["steps"]
    for place, value in enumerate(curve):
        yield round((place + 0.5) * steps / len(curve), 1), (value,)


def first_steps_plot(first_steps: Sequence[Steps]) -> figures.Plot | None:
    by_recipe = {one["recipe"]: one for one in first_steps}
    panels = tuple(
        (
            name,
            tuple(
                (backend, tuple((float(step), (loss,)) for step, loss in enumerate(losses)))
                for backend, losses in by_recipe[name]["losses"].items()
            ),
        )
        for name in FIRST_STEPS
        if name in by_recipe
    )
    return figures.Plot("frameworks", panels) if panels else None


def effects_plot(results: Results) -> figures.Plot | None:
    """The differences that a paper has too."""
    lines: dict[str, list[tuple[float, tuple[float, ...]]]] = {
        "paper": [],
        "medium": [],
        "small": [],
    }
    labels: list[str] = []
    for claim in claims():
        for of, minus in claim.effects.pairs:
            for measure, paper in printed_differences(of, minus).items():
                ours = {scale: differences(results, scale, of, minus, measure) for scale in SCALES}
                if not any(ours.values()):
                    continue
                place = float(len(labels))
                labels.append(f"{difference(of, minus)}: {NAMES[measure]}")
                lines["paper"].append((place, (paper,)))
                for scale, found in ours.items():
                    if found:
                        lines[scale].append((place, tuple(found.values())))
    if not labels:
        return None
    panel = ("\n".join(labels), tuple((name, tuple(points)) for name, points in lines.items()))
    return figures.Plot("effects", (panel,))


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
    first_steps = agreement.read(folder.parent / paths.AGREEMENT.name)
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
        if figures.drawn_from(pictures / f"{name}.png") != plot.digest()
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
    tyro.cli(
        main,
        prog="python -m reference_models.reproduction.report",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
