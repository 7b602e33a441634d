"""The times of training and inference in docs/results.md."""

import statistics
from collections.abc import Sequence

from reference_models.papers.recipes import RECIPES, SPEEDS
from reference_models.reproduction.markdown_tables import folded_table
from reference_models.reproduction.results import Result


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
            f"{min(run['seconds']['training'] for run in runs):.0f}",
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
        "## Training and inference time",
        "",
        "Most runs shared their machine with other work, so training takes at most so long: the "
        "fastest seed. What a loss adds to a step is [measured alone]"
        "(benchmarks.md#a-training-step). Inference: time per image from pixels in memory to maps, "
        "for the network alone, in batches of one and of eight, the fastest of several "
        "calls. The ratio to the time of the backbone alone, measured in turns with it in the same "
        "process, is the median over the seeds; below 1 it says only that other work came "
        "between. MEnet has no backbone. The papers' times are those of their own backbones and "
        "image sizes on a GPU. W trains its network in 4 h (Table 1).",
        "",
        folded_table(
            "All recipes",
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
    """The median ratio of the time of the system to that of its backbone; empty without one."""
    ratios = [
        run["inference_seconds"][batch] / run["backbone_seconds"][batch]
        for run in runs
        if "backbone_seconds" in run
    ]
    return f"{statistics.median(ratios):.2f}" if ratios else ""
