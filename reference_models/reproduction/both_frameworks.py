"""PyTorch against JAX in docs/results.md: the measures, and the losses of the first steps."""

import statistics
from collections.abc import Sequence

from reference_models.errors import count
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import PRIORS, SEGMENTATION, number, row
from reference_models.reproduction.first_steps import Steps, gap, gap_at_the_end
from reference_models.reproduction.markdown_tables import folded, table
from reference_models.reproduction.plots import image_link
from reference_models.reproduction.results import (
    SCALES,
    Results,
    of_scale,
    provenance,
    values,
)
from reference_models.reproduction.verdicts import NAMES, signed, spread


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
        "Each network was also trained with most of its losses for the first hundred steps in both "
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
