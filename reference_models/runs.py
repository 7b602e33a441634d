"""The runs: what results there are, and what is still to be run on a GPU, for RUNS.md."""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reference_models.markdown import short, table
from reference_models.options import InputError
from reference_models.recipes import RECIPES, Recipe
from reference_models.sweep import SEEDS, blocks

ROOT = Path(__file__).parents[1]
Result = dict[str, Any]
Results = dict[tuple[str, str], dict[int, Result]]
"""By recipe and scale, then by seed."""


def read(folder: Path, backend: str = "torch") -> Results:
    """The results of one framework's runs, by recipe, scale and seed."""
    found: Results = {}
    for file in sorted(folder.glob("*.json")):
        try:
            one = json.loads(file.read_text(encoding="utf-8"))
            key, seed, made_in = (one["recipe"], one["scale"]), one["seed"], one["backend"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file} is no results file of `python -m reference_models.train` ({error!r})"
            ) from None
        if key[0] not in RECIPES:
            raise InputError(f"{file} is of the recipe {key[0]!r}, which does not exist any more")
        if made_in == backend:
            found.setdefault(key, {})[seed] = one
    return {key: dict(sorted(seeds.items())) for key, seeds in found.items()}


# RUNS.md -----------------------------------------------------------------------------------------

# Images of 224 px a second that an H100 is expected to train on, and minutes to read and measure.
IMAGES_PER_SECOND = {
    "zoomout": 1500, "fully-convolutional": 2000, "menet": 900, "metric-head": 2000,
    "anchors": 1000, "relations": 1500,
}  # fmt: skip
BESIDES = 1.5

RUNS_HEAD = """\
# Runs on a GPU

Written by `python -m reference_models.report`, in order of importance. All that are pending, as
many as fit into nine minutes:

```bash
python -m reference_models.sweep --scale full --device cuda --minutes 9
python -m reference_models.sweep --backend jax --scale full --device cuda --minutes 9
python -m reference_models.report
```

The same command goes on where it stopped, in the middle of a run if its folder in `runs/` is
still there. `--only 'fcn-*'` chooses recipes, `--seeds 0` seeds, `--list` shows what would run. A
run that starts from the maps of another (`relations`, `anchors` on PASCAL-S) has that one trained
first. One that fails is reported, the others go on, and the exit status is 1.

On a machine that gets its files in parcels (the data sets are 190 MB) every call is the same: it
moves its parcel to a folder that stays between calls, and sweeps once all have come.

```bash
pip install --no-deps PARCEL/*.whl  # What is missing there; pysodmetrics works with newer numpy.
COMMIT=$(cat PARCEL/commit) python -m reference_models.sweep --stage PARCEL \\
  --archives /tmp/archives --out /tmp/runs --results /tmp/results --device cuda --minutes 9
tar -czf BACK/results.tgz -C /tmp results
tar -czf BACK/start.tgz -C /tmp $(cd /tmp && ls runs/fcn-ce-clean-*/weights.safetensors)
```

with BACK a folder that is brought back. What `results.tgz` holds goes into
`reference_models/results`: a run counts as done when it has results there or in `--results`.
`start.tgz` holds the networks whose maps `relations` and `anchors` start from; unpacked in `/tmp`
of a fresh machine it spares their training. `COMMIT` says what the results shall name where the
code comes without its repository.

Needed are `duts_tr.part1of2.zip`, `duts_tr.part2of2.zip`, `duts_te.zip`, `ecssd.zip`,
`ecssd_baselines.zip`, `pascal_s.zip`, `bsds500.zip` and `mobilenet_v2.fp16.safetensors`.
Minutes are an estimate for an H100, per seed, until a run has been timed.
"""


# The losses themselves on a GPU: what it tells, the command, the file that it leaves.
LOSSES = (
    ("the CPU's numbers, compiled too, and no waiting for the device",
     "python -m pytest -q tests/test_cuda.py --junitxml benchmarks/results/cuda.xml",
     "benchmarks/results/cuda.xml"),
    ("shares of the copy bandwidth",
     "python -m benchmarks bandwidth --threads 16", "benchmarks/results/bandwidth.csv"),
    ("everything, JAX on the GPU",
     "python -m pytest -q -n 4 tests --junitxml benchmarks/results/all.xml",
     "benchmarks/results/all.xml"),
)


def losses_text() -> str:
    lines = [(what, f"`{command}`", "done" if (ROOT / file).exists() else "pending")
             for what, command, file in LOSSES]
    head = ("of the losses", "command", "state")
    return f"## The losses\n\n{table(head, lines)}\n"


def expected_minutes(recipe: Recipe) -> float:
    plan = recipe.medium
    pixels = ((plan.crop or plan.size) / 224) ** 2
    return plan.steps * plan.batch * pixels / IMAGES_PER_SECOND[recipe.system] / 60 + BESIDES


# What is run in JAX as well.
IN_JAX = ("W, Tables 1 and 4", "C, Tables 1 and 2", "L, Table 3")


def runs_text(results: Results, in_jax: Results) -> str:
    parts = [RUNS_HEAD, losses_text()]
    parts += [block_text(block, names, results) for block, names in blocks().items()]
    parts += [
        block_text(f"In JAX: {block}", blocks()[block], in_jax, " --backend jax")
        for block in IN_JAX
    ]
    return "\n".join(parts)


def block_text(title: str, names: Iterable[str], results: Results, more: str = "") -> str:
    lines = []
    for name in names:
        done = results.get((name, "medium"), {})
        command = f"`python -m reference_models.sweep{more} --only {name}`"
        expected = f"{expected_minutes(RECIPES[name]):.0f}"
        if done:
            taken = [sum(result["seconds"].values()) / 60 for result in done.values()]
            expected = f"{statistics.fmean(taken):.1f} (timed)"
        seeds = dict.fromkeys(sorted({*SEEDS, *done}))
        state = "<br>".join(f"{seed}: {state_of(done.get(seed))}" for seed in seeds)
        lines.append([name, command, expected, state if done else "pending"])
    seeds_text = ", ".join(map(str, SEEDS))
    head = ("recipe", f"command (seeds {seeds_text})", "minutes per seed", "state")
    return f"## {title}\n\n{table(head, lines)}\n"


def state_of(result: Result | None) -> str:
    if result is None:
        return "pending"
    return (
        f"done, {result['date']}, {result['device']}, commit {short(str(result['commit']))}"
    )
