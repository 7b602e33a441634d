"""The claims in docs/results.md: the table of all of them, and a section on each."""

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import compress

from reference_models.papers.recipes import claims
from reference_models.papers.schema import Claim, Effects, Figures, Row, Table, number
from reference_models.reproduction.markdown_tables import anchor, folded, table
from reference_models.reproduction.plots import PICTURES_OF, PLOTS_OF, image_link
from reference_models.reproduction.results import (
    SCALES,
    Results,
    differences,
    heading,
    printed,
    printed_differences,
    scales_run,
    values,
)
from reference_models.reproduction.verdicts import (
    NAMES,
    Intervals,
    Tested,
    brief,
    difference,
    emphasised,
    kept,
    named,
    signed,
    spread,
    tally,
    tested,
)

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
        "that form, by the exact measure and by cross-entropy. Its claim that the loss does not "
        "noticeably increase the time of training has a [table](benchmarks.md#a-training-step) of "
        "its own.",
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


def claims_of(letter: str) -> list[Claim]:
    return [claim for claim in claims() if claim.title.startswith(f"{letter}:")]


# The table of claims ------------------------------------------------------------------------------


def verdicts_table(results: Results, known_intervals: Intervals) -> list[str]:
    """A table of all claims with the differences that decide them, and the verdicts."""
    scales = scales_run(results)
    lines = [
        verdict_line(results, known_intervals, claim, scales)
        for letter in PAPERS
        for claim in claims_of(letter)
    ]
    heads = ("claim", "paper", *map(heading, scales), *("verdict", "bounds kept") * bool(scales))
    return [table(heads, lines), ""]


def verdict_line(
    results: Results, known_intervals: Intervals, claim: Claim, scales: Sequence[str]
) -> list[str]:
    """The line of a claim in the table of verdicts."""
    every = tested({}, {}, claim, "small")
    if not every:
        return without_bounds(results, known_intervals, claim, scales)
    by_scale = {scale: tested(results, known_intervals, claim, scale) for scale in scales}
    shown, cells = measured_cells(every, by_scale, range(len(every)))
    judged = (tests for tests in by_scale.values() if tests[shown].verdict is not None)
    at_largest = next(judged, None)
    if at_largest is None:
        outcome = ["not run", ""] * bool(scales)
    else:
        verdict = emphasised(unbroken(str(at_largest[shown].verdict)))
        outcome = [f"{verdict} ({unbroken(every[shown].bounds)})", kept(at_largest)]
    return [link_to(claim, every[shown].label), cells[0] or claim.effect, *cells[1:], *outcome]


def unbroken(text: str) -> str:
    """Text whose lines break after commas only."""
    return text.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")


def measured_cells(
    every: Sequence[Tested], by_scale: Mapping[str, list[Tested]], places: Iterable[int]
) -> tuple[int, list[str]]:
    """The place of the test that decides most of those at `places`, with its value in the paper and
    at each scale."""

    def rank(place: int) -> tuple[bool, bool]:
        is_measured = any(tests[place].measured for tests in by_scale.values())
        return not is_measured, not every[place].paper

    shown = min(places, key=rank)
    return shown, [
        with_reservation(every[shown].paper, every[shown].label),
        *(tests[shown].brief for tests in by_scale.values()),
    ]


def tallies(by_scale: Mapping[str, list[Tested]], places: Sequence[int]) -> str:
    """The tallies at all scales of the tests at `places`, once if they are equal."""
    every = {scale: tally(tests[place] for place in places) for scale, tests in by_scale.items()}
    told = {scale: text for scale, text in every.items() if text}
    if len(set(told.values())) < 2:
        return next(iter(told.values()), "not run")
    return "<br>".join(f"{heading(scale)}: {text}" for scale, text in told.items())


def without_bounds(
    results: Results, known_intervals: Intervals, claim: Claim, scales: Sequence[str]
) -> list[str]:
    """The line of a claim that has no bounds: its first difference."""
    of, minus, measure = first_difference(claim)
    theirs = printed_differences(of, minus)
    ours = [
        brief(
            differences(results, scale, of, minus, measure),
            known_intervals.get((scale, of, minus), {}).get(measure),
            sign=True,
        )
        for scale in scales
    ]
    label = f"{difference(of, minus)}: {NAMES[measure]}"
    paper = named(measure, signed(theirs[measure]) if measure in theirs else "")
    return [
        link_to(claim, label),
        with_reservation(paper, label) or claim.effect,
        *(named(measure, value) for value in ours),
        *("no bound", "") * bool(scales),
    ]


def first_difference(claim: Claim) -> tuple[Row, Row, str]:
    """The first difference of a claim, in the first measure that the paper prints too, if any."""
    of, minus = claim.effects.pairs[0]
    theirs = printed_differences(of, minus)
    measures = claim.effects.measures
    return of, minus, next((measure for measure in measures if measure in theirs), measures[0])


def link_to(claim: Claim, shown: str) -> str:
    """A link to a claim's section. shown: the difference in the line, for readers who hover."""
    return f'[{claim.title}](#{anchor(claim.title)} "{shown}")'


def with_reservation(paper: str, label: str) -> str:
    """The paper's value with the reservation that a row's label makes in parentheses, if any."""
    found = re.findall(r"\(.*?\)", label)
    reservations = dict.fromkeys(one.replace("in the paper ", "") for one in found)
    return paper and " ".join([paper, *reservations])


# Sections ---------------------------------------------------------------------------------------


def sections(results: Results, known_intervals: Intervals, shown: Container[str]) -> list[str]:
    """A section per paper, with one per claim. shown: names of the figures that exist."""
    lines = []
    for letter, (title, lead) in PAPERS.items():
        lines += [f"## {title}", "", lead, ""]
        lines += [
            image_link(name) for name in (*PLOTS_OF[letter], *PICTURES_OF[letter]) if name in shown
        ]
        for claim in claims_of(letter):
            lines += claim_text(results, known_intervals, claim)
    return lines


def claim_text(results: Results, known_intervals: Intervals, claim: Claim) -> list[str]:
    """The section on one claim."""
    by_scale = tested_at_scales(results, known_intervals, claim)
    parts = [
        f"### {claim.title}",
        f"*In the table above: {decisive(claim, by_scale)}.*",
        claim.paper,
        claim.why,
        parts_text(claim, by_scale),
        bounds_text(claim, by_scale),
        effects_text(results, known_intervals, claim.effects),
        *(table_text(results, part) for part in claim.tables),
    ]
    return [line for part in parts if part for line in (part, "")]


def decisive(claim: Claim, by_scale: Mapping[str, list[Tested]]) -> str:
    """The difference in the line of the claim, and its bound."""
    every = tested({}, {}, claim, "small")
    if not every:
        of, minus, measure = first_difference(claim)
        return f"{difference(of, minus)}: {NAMES[measure]}"
    one = every[measured_cells(every, by_scale, range(len(every)))[0]]
    return f"{one.label} {one.bounds}"


def tested_at_scales(
    results: Results, known_intervals: Intervals, claim: Claim
) -> dict[str, list[Tested]]:
    """The tested bounds of a claim, at each scale at which any was measured."""
    every = {scale: tested(results, known_intervals, claim, scale) for scale in SCALES}
    return {scale: tests for scale, tests in every.items() if any(t.measured for t in tests)}


def parts_text(claim: Claim, by_scale: Mapping[str, list[Tested]]) -> str:
    """The verdicts on the parts of a claim, if it has several."""
    every = tested({}, {}, claim, "small")
    parts = list(dict.fromkeys(test.part for test in every))
    if len(parts) < 2:
        return ""
    lines = []
    for part in parts:
        places = [place for place, test in enumerate(every) if test.part == part]
        verdicts = [tallies(by_scale, places)] * bool(by_scale)
        lines.append([part, *measured_cells(every, by_scale, places)[1], *verdicts])
    heads = ("part", "paper", *map(heading, by_scale), *("verdict",) * bool(by_scale))
    kind = "test set" if claim.split == "test" else "network"
    return folded(f"Verdicts by {kind}", table(heads, lines))


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
    """Our value and its verdict."""
    if test.verdict is None:
        return test.measured
    return f"{test.measured}: {emphasised(test.verdict)}"


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
    measured: dict[str, list[str]] = {}
    for scale in SCALES:
        cells = {
            f"{heading(scale)}: {NAMES[m]}": [ours(index, scale, m) for index in range(len(labels))]
            for m in measures
        }
        if any(any(column) for column in cells.values()):
            measured |= cells
    columns = {title: labels} | ({"paper": cited} if any(cited) else {}) | measured
    lines = list(zip(*columns.values(), strict=True))
    if not measured:
        return table(columns, lines)
    has_figures = [any(line[1:]) for line in lines]
    text = table(columns, compress(lines, has_figures))
    missing = [label for label, has in zip(labels, has_figures, strict=True) if not has]
    return f"{text}\n\nNot run: {'; '.join(missing)}." if missing else text
