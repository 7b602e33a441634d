"""Verdicts: do the bounds of a claim hold in our results?"""

import math
import statistics
from collections.abc import Mapping
from typing import Literal, NamedTuple

from reference_models.measures.intervals import Interval, intervals
from reference_models.measures.saliency import LABELS
from reference_models.papers.recipes import claims
from reference_models.papers.schema import Bound, Claim, EqualWeights, Row, ScaleName, number
from reference_models.reproduction.results import SCALES, EachImage, Results, differences, rows_of

Verdict = Literal["holds", "refuted", "not decided", "does not hold"]
"""The last one is by the means of seeds, where a run has left no rows of its test images."""
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


def verdict(bound: Bound, found: Mapping[int, float], interval: Interval | None) -> Verdict:
    """Judged on what is printed, three digits: by the whole interval, else by the seeds' mean."""
    kept = round(min(found.values()), 3) >= bound.per_seed_min
    if interval is None:
        mean = round(statistics.fmean(found.values()), 3)
        return "holds" if bound.low <= mean <= bound.high and kept else "does not hold"
    low, high = (round(end, 3) for end in interval)
    if high < bound.low or low > bound.high or not kept:
        return "refuted"
    return "holds" if bound.low <= low and high <= bound.high else "not decided"


def equal_weights(results: Results, scale: str, pair: EqualWeights) -> dict[int, bool | None]:
    """By seed whether all weights are the same bits; None where one was trained on a GPU."""
    first, second = (results.get((r, scale), {}) for r in (pair.first, pair.second))
    return {
        seed: first[seed]["weights_sha256"] == second[seed]["weights_sha256"]
        if all(runs[seed]["device"].startswith("cpu") for runs in (first, second))
        else None
        for seed in first
        if seed in second
    }


def all_intervals(results: Results, rows: EachImage) -> Intervals:
    """Of every difference and every ask for which all seeds' rows are there."""
    wanted: dict[tuple[ScaleName, Row, Row | None], dict[str, None]] = {}
    for claim in claims():
        for scale in SCALES:
            for pair in claim.effects.pairs:
                wanted.setdefault((scale, *pair), {}).update(dict.fromkeys(claim.effects.measures))
            for bound in claim.bounds:
                wanted.setdefault((scale, bound.of, bound.minus), {})[bound.measure] = None
    found: Intervals = {}
    for (scale, of, minus), measures in wanted.items():
        paired = {m: differences(results, scale, of, minus, m) for m in measures}
        seeds = list(next(iter(paired.values())))
        first = rows_of(rows, scale, of, seeds)
        second = None if minus is None else rows_of(rows, scale, minus, seeds)
        if not first or (minus is not None and not second):
            continue
        runs = [*first, *(second or ())]
        shared = [m for m in measures if all(m in run.values for run in runs)]
        found[scale, of, minus] = intervals(first, second, shared)
    return found


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


def bound_text(bound: Bound) -> str:
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
    for bound in claim.bounds:
        found = differences(results, scale, bound.of, bound.minus, bound.measure)
        interval = known.get((scale, bound.of, bound.minus), {}).get(bound.measure)
        every.append(
            Tested(
                f"{difference(bound.of, bound.minus)}: {NAMES[bound.measure]}",
                bound_text(bound),
                spread(found, interval, sign=bound.minus is not None),
                verdict(bound, found, interval) if found else None,
            )
        )
    for pair in claim.equal_weights:
        equal = equal_weights(results, scale, pair)
        asked = [one for one in equal.values() if one is not None]
        same = "equal" if all(asked) else "not equal"
        held: Verdict = "holds" if all(asked) else "refuted"
        every.append(
            Tested(
                f"weights of {pair.first} and {pair.second}",
                "equal bit for bit on a CPU",
                same if asked else "not asked for on a GPU" * bool(equal),
                held if asked else None,
            )
        )
    return every
