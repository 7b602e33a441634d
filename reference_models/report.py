"""`python -m reference_models.report`: docs/results.md, its figures, and RUNS.md from the results.

Every number in a table comes from a file in results/ or from what a paper printed; every verdict is
computed from them.
"""

import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from reference_models import agreement, figures
from reference_models.agreement import Steps, apart, apart_in_the_end
from reference_models.claims import (
    PRIORS,
    SEGMENTATION,
    Ask,
    Claim,
    Effects,
    Figures,
    Identity,
    Row,
    Table,
    claims,
    number,
    row,
)
from reference_models.files import whole
from reference_models.markdown import anchor, folded, short, table
from reference_models.measures import LABELS
from reference_models.options import InputError
from reference_models.recipes import DISTORTED, RECIPES
from reference_models.runs import ROOT, Result, Results, read, runs_text
from reference_models.sweep import SEEDS

SCALES: tuple["ScaleName", ...] = ("full", "small")
ScaleName = Literal["full", "small"]

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


def printed_differences(of: Row, minus: Row) -> Figures:
    """The paper's, by measure."""
    first, second = of.printed, minus.printed
    return {measure: first[measure] - second[measure] for measure in first if measure in second}


def holds(ask: Ask, found: Mapping[int, float]) -> bool:
    """Judged on what is printed, three digits."""
    mean = round(statistics.fmean(found.values()), 3)
    return ask.low <= mean <= ask.high and round(min(found.values()), 3) >= ask.each


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


# Text --------------------------------------------------------------------------------------------


def signed(value: float) -> str:
    return number(value) if round(value, 3) <= 0 else f"+{number(value)}"


def spread(found: Mapping[int, float], scale: str, sign: bool = False) -> str:
    """Mean ± standard deviation over seeds, and how many where fewer than planned."""
    if not found:
        return "pending"
    text = (signed if sign else number)(statistics.fmean(found.values()))
    if len(found) > 1:
        text += f" ± {number(statistics.stdev(found.values()))}"
    if scale == "full" and len(found) < len(SEEDS):
        text += f" ({len(found)} of {len(SEEDS)} seeds)"
    return text


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
    ours: Callable[[int, str, str], Mapping[int, float]],
    sign: bool,
) -> str:
    """The paper's figures, then ours at both scales; a scale without any run is one column.

    ours: the values by seed, given the place in labels, the scale and the measure.
    """
    show = signed if sign else number
    printed = [
        ", ".join(f"{NAMES[m]} {show(figures[m])}" for m in measures if m in figures)
        for figures in papers
    ]
    head, columns = [title], [labels]
    if any(printed):
        head.append("paper")
        columns.append(printed)
    for scale in SCALES:
        found = [[ours(place, scale, m) for m in measures] for place in range(len(labels))]
        if any(any(seeds) for seeds in found):
            head += [f"{scale}: {NAMES[measure]}" for measure in measures]
            cells = [[spread(one, scale, sign) for one in seeds] for seeds in found]
            # Said once in a row.
            cells = [
                texts if any(seeds) else ["pending", *[""] * (len(measures) - 1)]
                for texts, seeds in zip(cells, found, strict=True)
            ]
            columns += [list(column) for column in zip(*cells, strict=True)]
        else:
            head.append(scale)
            columns.append(["pending"] * len(labels))
    return table(head, zip(*columns, strict=True))


def table_text(results: Results, of: Table) -> str:
    text = beside(
        of.title,
        of.measures,
        [one.label for one in of.rows],
        [one.printed for one in of.rows],
        lambda place, scale, measure: values(results, scale, of.rows[place], measure),
        sign=False,
    )
    return folded(of.title, text) if of.folded else text


def effects_text(results: Results, of: Effects) -> str:
    return beside(
        "difference",
        of.measures,
        [difference(*pair) for pair in of.pairs],
        [printed_differences(*pair) for pair in of.pairs],
        lambda place, scale, measure: differences(results, scale, *of.pairs[place], measure),
        sign=True,
    )


def headline(results: Results, claim: Claim) -> str:
    """The first difference that the paper has too, in its measures, and ours at the larger scale
    there is."""
    for of, minus in claim.effects.pairs:
        printed = printed_differences(of, minus)
        for scale in SCALES:
            found = {name: differences(results, scale, of, minus, name) for name in printed}
            if printed and all(found.values()):
                ours = {name: statistics.fmean(seeds.values()) for name, seeds in found.items()}
                changes = (
                    f"{NAMES[name]} {signed(paper)} → {signed(ours[name])}"
                    for name, paper in printed.items()
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


def asks_text(results: Results, claim: Claim) -> str:
    """What was asked for, and whether it holds."""
    lines = []
    for ask in claim.asks:
        found = {scale: found_for(results, scale, ask) for scale in SCALES}
        told = [
            spread(seeds, scale, sign=ask.minus is not None)
            + (f": {HELD[holds(ask, seeds)]}" if seeds else "")
            for scale, seeds in found.items()
        ]
        words = f"{difference(ask.of, ask.minus)}: {NAMES[ask.measure]}"
        lines.append([words, bounds(ask), *told])
    for identity in claim.identities:
        equal = [identity_text(equal_weights(results, scale, identity)) for scale in SCALES]
        words = f"weights of {identity.first} and {identity.second}"
        lines.append([words, "equal bit for bit on a CPU", *equal])
    return table(("asked for", "bounds", *SCALES), lines)


HELD = {True: "holds", False: "**does not hold**"}


def found_for(results: Results, scale: str, ask: Ask) -> dict[int, float]:
    return differences(results, scale, ask.of, ask.minus, ask.measure)


def identity_text(equal: Mapping[int, bool | None]) -> str:
    if not equal:
        return "pending"
    asked = [same for same in equal.values() if same is not None]
    if not asked:
        return "not asked for on a GPU"
    return f"{'equal' if all(asked) else 'not equal'}: {HELD[all(asked)]}"


def verdicts(results: Results, claim: Claim, scale: str) -> list[tuple[str, bool | None]]:
    """Every thing asked for, in words, and whether it holds; None while pending."""
    told: list[tuple[str, bool | None]] = []
    for ask in claim.asks:
        found = found_for(results, scale, ask)
        words = f"{NAMES[ask.measure]} of {difference(ask.of, ask.minus)}: asked for {bounds(ask)}"
        if found:
            words += f", found {spread(found, scale, sign=ask.minus is not None)}"
        told.append((words, holds(ask, found) if found else None))
    for identity in claim.identities:
        equal = equal_weights(results, scale, identity)
        if equal and all(same is None for same in equal.values()):
            continue
        known = [same for same in equal.values() if same is not None]
        words = f"weights of {identity.first} and {identity.second}: asked for equal bits"
        told.append((words, all(known) if known else None))
    return told


def summary(told: list[tuple[str, bool | None]], any_run: bool) -> str:
    held, pending = [h for _, h in told].count(True), [h for _, h in told].count(None)
    if not any_run or (told and pending == len(told)):
        return "pending"
    if not told:
        return "as found"
    text = "holds" if held == len(told) else f"{held} of {len(told)} hold"
    return f"{text}, {pending} pending" if pending else text


def ran(results: Results, claim: Claim, scale: str) -> list[Result]:
    """The results a claim draws on."""
    names = {one.recipe for part in claim.tables for one in part.rows}
    return [
        result
        for name in RECIPES
        if name in names
        for result in results.get((name, scale), {}).values()
    ]


def verdict_text(results: Results, claim: Claim, scale: str) -> str:
    runs = ran(results, claim, scale)
    told = verdicts(results, claim, scale)
    text = f"**At {scale} scale: {summary(told, bool(runs))}.**"
    for words, held in told:
        if held is False:
            text += f" {words}: does not hold."
    return text


def provenance(runs: Sequence[Result]) -> str:
    """Devices and commits."""
    devices = sorted({run["device"] for run in runs})
    commits = sorted({short(str(run["commit"])) for run in runs})
    return f"device {', '.join(devices)}; commit {', '.join(commits)}"


def results_text(
    results: Results, in_jax: Results, first_steps: Sequence[Steps], pictures: Iterable[str]
) -> str:
    told = claims()
    every = {scale: of_scale(results, scale) for scale in SCALES}
    lines = [
        "# Results",
        "",
        "The systems of the five papers, trained here with the losses of this library, beside the "
        "papers' tables. Written by `python -m reference_models.report` from "
        "`reference_models/results`; nothing in a table is typed by hand but what the papers "
        "print.",
        "",
        "On a CPU the same seed and number of threads give the same bits; another number of "
        "threads is as good as another seed.",
        "",
        "Backbones, training sets and image sizes differ from the papers', so what is to be "
        "compared is the difference that a loss makes, beside the difference it makes in the "
        "paper. *full*: whole sets at 256 px, the backbone fine-tuned, mean ± standard deviation "
        "over seeds "
        + ", ".join(map(str, SEEDS))
        + ". *small*: fewer images at 160 px (MEnet 96 px) under a frozen backbone, "
        "minutes on two cores, over the seeds that were run. F is at the threshold of 2 × the "
        "map's mean and means little for a collapsed map, so MAE and max F stand beside it. Masks "
        "are measured at their own size. All but MAE and variation of information are the better "
        "the higher.",
        "",
        "To train one row: `python -m reference_models.train zoomout-af --scale small --seed 0`; "
        "`--recipes` lists them; all runs at once: [RUNS.md](../reference_models/RUNS.md).",
        "",
        table(
            (
                "claim",
                "difference that the paper prints → ours",
                *(f"what is asked for, {scale}" for scale in SCALES),
            ),
            (
                (
                    f"[{claim.title}](#{anchor(claim.title)})",
                    headline(results, claim),
                    *(
                        summary(verdicts(results, claim, scale), bool(ran(results, claim, scale)))
                        for scale in SCALES
                    ),
                )
                for claim in told
            ),
        ),
        "",
        *environment(every),
        *(picture(name) for name in pictures if name != "results-frameworks"),
    ]
    for claim in told:
        lines += [f"## {claim.title}", "", claim.paper, ""]
        for part in claim.tables:
            lines += [table_text(results, part), ""]
        lines += [effects_text(results, claim.effects), ""]
        if claim.asks:
            lines += [asks_text(results, claim), ""]
        lines += [verdict_text(results, claim, "full"), ""]
        lines += [verdict_text(results, claim, "small"), ""]
        if claim.why:
            lines += [claim.why, ""]
        for scale in SCALES:
            if runs := ran(results, claim, scale):
                lines += [f"{scale.capitalize()}: {provenance(runs)}.", ""]
    lines += frameworks_text(results, in_jax, first_steps)
    return "\n".join(lines).rstrip() + "\n"


def of_scale(results: Results, scale: str) -> list[Result]:
    return [run for (_, s), seeds in results.items() if s == scale for run in seeds.values()]


def picture(name: str) -> str:
    return f"![{PICTURES[name]}](figures/{name}.png)\n"


def count(many: int, what: str) -> str:
    return f"{many} {what}{'s' * (many != 1)}"


def environment(every: Mapping[str, list[Result]]) -> list[str]:
    lines = []
    for scale, runs in every.items():
        if not runs:
            lines.append(f"No run at {scale} scale has ended yet.")
            continue
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


# Both frameworks ---------------------------------------------------------------------------------


def frameworks_text(
    results: Results, in_jax: Results, first_steps: Sequence[Steps]
) -> list[str]:
    """PyTorch's measures beside JAX's, and how far apart their first steps are."""
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
                rows.append([
                    name, test, NAMES[measure], spread(torch, scale), spread(jax, scale),
                    signed(gap),
                ])  # fmt: skip
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
    if not in_jax:
        lines += ["No run in JAX has ended yet.", ""]
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
        "frameworks from the same weights (`python -m reference_models.agreement`). What is left "
        "between them is rounding, which training enlarges, and in the recipes that flip labels "
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
    "zoomout-ce", "zoomout-af", "zoomout-exact", "fcn-ce-clean", "fcn-ce-swapped",
    "fcn-cas-swapped", "fcn-cace-swapped", "menet-metric", "metric-head-metric", "anchors",
    "relations", "regions-cas-8",
)  # fmt: skip
FIRST_STEPS = (
    "zoomout-ce", "zoomout-af", "zoomout-exact", "fcn-ce-clean", "fcn-cas-clean",
    "deeplab-cace-clean", "menet-metric", "metric-head-metric", "anchors-no-flips", "anchors",
    "relations-self-drfi", "regions-cas-8",
)  # fmt: skip


def scale_of(results: Results, recipes: Iterable[str]) -> ScaleName:
    """Full where every one of the recipes has run at full scale."""
    return "full" if all((name, "full") in results for name in recipes) else "small"


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
        "paper": [], "full": [], "small": [],
    }  # fmt: skip
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
    results: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = ROOT / "reference_models/results",
    check: bool = False,
    root: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = ROOT,
) -> None:
    """Write docs/results.md with its figures, and reference_models/RUNS.md.

    Args:
        results: The folder of results files.
        check: Write nothing; fail where a file is not what would be written.
        root: The folder that holds docs/ and reference_models/.
    """
    try:
        stale = report(results, root, check)
    except InputError as error:
        sys.exit(f"error: {error}")
    if check and stale:
        sys.exit(f"not up to date: {', '.join(stale)}; run python -m reference_models.report")


def report(folder: Path, root: Path = ROOT, check: bool = False) -> list[str]:
    """Write what has changed, or with `check` nothing; returns what was not up to date."""
    results, in_jax = read(folder, "torch"), read(folder, "jax")
    first_steps = agreement.read(folder / agreement.FOLDER.name)
    wanted = plots(results, first_steps)
    pictures = root / "docs" / "figures"
    texts = {
        root / "docs" / "results.md": results_text(results, in_jax, first_steps, wanted),
        root / "reference_models" / "RUNS.md": runs_text(results, in_jax),
    }
    stale = [
        path for path, text in texts.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]  # fmt: skip
    # Pictures differ in bits from one version of the plotting library to the next, so what is
    # compared is what they were drawn from.
    stale += [
        pictures / f"{name}.png" for name, plot in wanted.items()
        if figures.drawn_from(pictures / f"{name}.png") != plot.digest()
    ]  # fmt: skip
    unwanted = [path for path in sorted(pictures.glob("results-*.png")) if path.stem not in wanted]
    if not check:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path) as partial:
                partial.write_text(text, encoding="utf-8")
        for name, plot in wanted.items():
            pictures.mkdir(parents=True, exist_ok=True)
            figures.draw(plot, pictures / f"{name}.png")
        for path in unwanted:
            path.unlink()
    return [str(path.relative_to(root)) for path in (*stale, *unwanted)]


if __name__ == "__main__":
    tyro.cli(main, prog="python -m reference_models.report", config=(
        tyro.conf.FlagCreatePairsOff,
    ))  # fmt: skip
