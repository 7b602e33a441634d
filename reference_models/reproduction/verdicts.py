"""Verdicts on claims: whether our results lie within the bounds set for them."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from reference_models.measures.intervals import Interval, interval, standard_errors
from reference_models.measures.saliency import LABELS
from reference_models.papers.recipes import claims
from reference_models.papers.schema import (
    SETS,
    Bound,
    Claim,
    EqualWeights,
    Row,
    ScaleName,
    number,
)
from reference_models.reproduction.results import (
    SCALES,
    EachImage,
    Result,
    Results,
    differences,
    printed,
    printed_differences,
    rows_of,
)

ONE_SEED = "†"
"""Marks a value of one seed."""
Verdict = Literal["holds", "refuted", "not decided"]
Intervals = dict[tuple[str, Row, Row | None], dict[str, Interval]]
"""Intervals by scale, row and subtracted row, then by measure."""
NAMES = LABELS | {
    "weighted_f_exact": "Fʷ exact",
    "weighted_f_loss": "Fʷ as in the loss",
    "weighted_f": "Fʷ published program",
    "miou": "MIoU",
    "covering": "covering",
    "rand": "Rand index",
    "variation_of_information": "variation of information",
    "regions": "regions",
    "contour_ods": "contour F, ODS",
    "contour_ois": "contour F, OIS",
    "sparse": "sparse descriptors",
    "true_foreground": "true foreground",
    "mutual_information": "mutual information",
}


def verdict(bound: Bound, by_seed: Mapping[int, float], found: Interval | None) -> Verdict:
    """Compare the interval of the mean over seeds with a bound."""
    if min(by_seed.values()) < bound.per_seed_min:
        return "refuted"
    if found is None:
        return "not decided"
    low, high = found
    if high < bound.low or low > bound.high:
        return "refuted"
    return "holds" if bound.low <= low and high <= bound.high else "not decided"


def equal_weights(results: Results, scale: str, pair: EqualWeights) -> dict[int, bool | None]:
    """`same_weights` of each seed."""
    first, second = (results.get((name, scale), {}) for name in (pair.first, pair.second))
    return {seed: same_weights(first[seed], second[seed]) for seed in first if seed in second}


def same_weights(first: Result, second: Result) -> bool | None:
    """Whether weights are bit-identical; None if they are not and need not be, as the runs used a
    GPU or different processors."""
    if first["weights_sha256"] == second["weights_sha256"]:
        return True
    return False if on_one_cpu(first, second) else None


def on_one_cpu(*runs: Result) -> bool:
    """Whether all parts of the runs, which may have been stopped and resumed, used the same CPU."""
    devices = {part["device"] for run in runs for part in (run, *run.get("earlier", ()))}
    return len(devices) == 1 and devices.pop().startswith("cpu")


def all_intervals(results: Results, rows: EachImage) -> Intervals:
    """Intervals of all differences and bounds."""
    wanted: dict[tuple[ScaleName, Row, Row | None], dict[str, None]] = {}
    for claim in claims():
        for scale in SCALES:
            for pair in claim.effects.pairs:
                wanted.setdefault((scale, *pair), {}).update(dict.fromkeys(claim.effects.measures))
            for bound in claim.bounds:
                wanted.setdefault((scale, bound.of, bound.minus), {})[bound.measure] = None
    return {
        (scale, of, minus): intervals_of(results, rows, scale, of, minus, measures)
        for (scale, of, minus), measures in wanted.items()
    }


def intervals_of(
    results: Results,
    rows: EachImage,
    scale: str,
    of: Row,
    minus: Row | None,
    measures: Iterable[str],
) -> dict[str, Interval]:
    """Intervals of a difference, by measure."""
    found = {measure: differences(results, scale, of, minus, measure) for measure in measures}
    by_measure = {measure: by_seed for measure, by_seed in found.items() if by_seed}
    over_images = errors_over_images(rows, scale, of, minus, by_measure)
    known = {
        measure: interval(list(by_seed.values()), over_images.get(measure))
        for measure, by_seed in by_measure.items()
    }
    return {measure: one for measure, one in known.items() if one is not None}


def errors_over_images(
    rows: EachImage,
    scale: str,
    of: Row,
    minus: Row | None,
    by_measure: Mapping[str, Iterable[int]],
) -> dict[str, float]:
    """Standard errors over test images, by measure, from the seeds whose runs left their rows.

    by_measure: The seeds that have a value of each measure.
    """
    recipes = {one.recipe for one in (of, minus) if one is not None}
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for measure, seeds in by_measure.items():
        left = tuple(s for s in seeds if all(s in rows.get((name, scale), {}) for name in recipes))
        by_seeds.setdefault(left, []).append(measure)
    found: dict[str, float] = {}
    for seeds, measures in by_seeds.items():
        first = rows_of(rows, scale, of, seeds)
        second = None if minus is None else rows_of(rows, scale, minus, seeds)
        if first and (minus is None or second):
            runs = [*first, *(second or ())]
            shared = [m for m in measures if all(m in run.values for run in runs)]
            found |= standard_errors(first, second, shared)
    return found


def signed(value: float) -> str:
    """Three digits with a sign: +.013."""
    return number(value) if round(value, 3) <= 0 else f"+{number(value)}"


def spread(by_seed: Mapping[int, float], found: Interval | None = None, sign: bool = False) -> str:
    """Mean ± standard deviation over seeds, and the interval; empty without a run."""
    if not by_seed:
        return ""
    show = signed if sign else number
    text = show(statistics.fmean(by_seed.values()))
    if len(by_seed) > 1:
        text += f" ± {number(statistics.stdev(by_seed.values()))}"
    return text if found is None else f"{text} {bracketed(found, sign)}"


def brief(by_seed: Mapping[int, float], found: Interval | None = None, sign: bool = False) -> str:
    """Mean over seeds and its interval, marked if there is one seed only; empty without a run."""
    if not by_seed:
        return ""
    text = (signed if sign else number)(statistics.fmean(by_seed.values()))
    if found is not None:
        text += f" {bracketed(found, sign)}"
    return text + ONE_SEED * (len(by_seed) == 1)


def bracketed(found: Interval, sign: bool) -> str:
    """An interval, on one line: [−.013, +.025]."""
    low, high = map(signed if sign else number, found)
    return f"[{low},\N{NO-BREAK SPACE}{high}]"


def bound_text(bound: Bound) -> str:
    """A bound as in the report's tables: ≥ +.020, no seed below −.020."""
    show = number if bound.minus is None else signed
    if bound.low == -bound.high:
        text = f"within ±{number(bound.high)}"
    elif math.isinf(bound.high):
        text = f"≥ {show(bound.low)}"
    else:
        text = f"≤ {show(bound.high)}"
    return (
        text
        if math.isinf(bound.per_seed_min)
        else f"{text}, no seed below {show(bound.per_seed_min)}"
    )


def difference(of: Row, minus: Row | None) -> str:
    """Label of a difference; an ending of both labels, such as a distortion, is printed once."""
    if minus is None:
        return of.label
    first, last = of.label.rpartition(", "), minus.label.rpartition(", ")
    same_ending = first[2] == last[2] and first[0] and last[0]
    return f"{first[0] if same_ending else of.label} − {minus.label}"


class Tested(NamedTuple):
    """A bound, and the value and verdict at one scale."""

    label: str
    bounds: str
    measured: str
    verdict: Verdict | None
    """The verdict; None without a run, or for equal weights on a GPU."""
    brief: str = ""
    """The measure and its value."""
    paper: str = ""
    """What the paper prints for the measure; empty if it prints nothing."""
    part: str = ""
    """The part of the claim that the bound belongs to, if the claim is split."""


def tested(results: Results, known_intervals: Intervals, claim: Claim, scale: str) -> list[Tested]:
    """Test all bounds of a claim at one scale."""
    tests = []
    for bound in claim.bounds:
        of, minus, measure = bound.of, bound.minus, bound.measure
        by_seed = differences(results, scale, of, minus, measure)
        found = known_intervals.get((scale, of, minus), {}).get(measure)
        value = spread(by_seed, found, sign=minus is not None)
        theirs = printed(of) if minus is None else printed_differences(of, minus)
        show = number if minus is None else signed
        tests.append(
            Tested(
                f"{difference(of, minus)}: {NAMES[measure]}",
                bound_text(bound),
                value,
                verdict(bound, by_seed, found) if by_seed else None,
                named(measure, brief(by_seed, found, sign=minus is not None)),
                named(measure, show(theirs[measure]) if measure in theirs else ""),
                part_of(claim, of),
            )
        )
    for pair in claim.equal_weights:
        equal = equal_weights(results, scale, pair)
        known = [is_equal for is_equal in equal.values() if is_equal is not None]
        same = "equal" if all(known) else "not equal"
        judged: Verdict = "holds" if all(known) else "refuted"
        measured = same if known else "not required on a GPU or on two CPUs" * bool(equal)
        tests.append(
            Tested(
                f"weights of {pair.first} and {pair.second}",
                "equal bit for bit on the same CPU",
                measured,
                judged if known else None,
                measured and f"weights {measured}",
                part="equal weights" if claim.split else "",
            )
        )
    return tests


def named(measure: str, value: str) -> str:
    """A value with the name of its measure; empty without a value."""
    return value and f"{NAMES[measure]} {value}"


def part_of(claim: Claim, of: Row) -> str:
    """The part of a split claim that a row belongs to."""
    if claim.split == "test":
        name, comma, ending = of.test.partition(", ")
        return f"{SETS.get(name, name)}{comma}{ending}"
    if claim.split == "network":
        return of.recipe if of.map is None else f"{of.recipe}, {of.map}"
    return ""


def tally(tests: Iterable[Tested]) -> str:
    """The verdicts in a few words; empty without a run."""
    judged = list(tests)
    counts = Counter(test.verdict for test in judged if test.verdict is not None)
    total, holding = counts.total(), counts["holds"]
    if not total:
        return ""
    if total == 1:
        parts = [*map(emphasised, counts)]
    elif holding == total:
        parts = ["both hold" if total == 2 else f"all {total} hold"]
    else:
        parts = [f"{holding} of {total} hold"]
        parts += [emphasised(f"{counts[name]} {name}") for name in UNSETTLED if counts[name]]
    missing = sum(not test.measured for test in judged)
    return ", ".join([*parts, *[f"{missing} not measured"] * (missing > 0)])


def kept(tests: Iterable[Tested]) -> str:
    """How many of the bounds that were tested hold."""
    judged = [test.verdict for test in tests if test.verdict is not None]
    return f"{judged.count('holds')} of {len(judged)}"


UNSETTLED: tuple[Verdict, ...] = ("refuted", "not decided")


def emphasised(text: str) -> str:
    """In bold if it says that a bound is refuted."""
    return f"**{text}**" if text.endswith("refuted") else text
