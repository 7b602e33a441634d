"""The runs: what results there are, and what is still to be run, for RUNS.md."""

from collections.abc import Iterable

from reference_models.papers.recipes import RECIPES
from reference_models.paths import ROOT
from reference_models.reproduction.markdown import short, table
from reference_models.reproduction.priorities import blocks
from reference_models.reproduction.results import Result, Results

# RUNS.md -----------------------------------------------------------------------------------------

RUNS_HEAD = """\
# Runs

Written by `python -m reference_models.reproduction.report`, the most important run first. This
command takes the next one that has no results yet (seeds 0, 1 and 2, seed 0 of all recipes
first), and stops when the minutes are over:

```bash
OMP_NUM_THREADS=1 python -m reference_models.reproduction.sweep --scale medium --minutes 165
```

It runs at the lowest priority, so other work on the machine goes first. The same command goes on
where it stopped, in the middle of a run if its folder in `runs/` still exists, and ends with the
bits of a run that was never stopped. A second sweep beside it takes other runs. On two cores two
sweeps of one thread each get more done than one of two threads, above all beside other work: two
threads wait for each other at every operation. `--only 'fcn-*'` chooses recipes, `--seeds 0`
seeds, `--list` shows what would run. A run that starts from the maps of another (`relations`,
`anchors` on PASCAL-S) has that one trained first. One that fails is reported, the others go on,
and the exit status is 1. Results go to `results/runs`; `python -m
reference_models.reproduction.report` then writes the pages anew.

Needed are `duts_tr.part1of2.zip`, `duts_tr.part2of2.zip`, `duts_te.zip`, `ecssd.zip`,
`ecssd_baselines.zip`, `pascal_s.zip`, `bsds500.zip` and `mobilenet_v2.fp16.safetensors`.

## On a GPU

The same command with `--device cuda`; a run takes minutes there. On a machine that gets its files
in parcels (the data sets are 190 MB) every call is the same: it moves its parcel to a folder that
stays between calls, and sweeps once all have come.

```bash
pip install --no-deps PARCEL/*.whl  # What that machine lacks; pysodmetrics works with newer numpy.
COMMIT=$(cat PARCEL/commit) python -m reference_models.reproduction.sweep --stage PARCEL \\
  --archives /tmp/archives --out /tmp/runs --results /tmp/results --device cuda --minutes 9
tar -czf BACK/results.tgz -C /tmp results
tar -czf BACK/start.tgz -C /tmp $(cd /tmp && ls runs/fcn-ce-clean-*/weights.safetensors)
```

BACK is a folder that is brought back. What `results.tgz` holds goes into
`results/runs`: a run counts as done when it has results there or in `--results`.
`start.tgz` holds the networks whose maps `relations` and `anchors` start from; unpacked in `/tmp`
of a fresh machine it spares their training. `COMMIT` says which commit the results name where the
code comes without its repository.
"""


# The losses themselves on a GPU: what it tells, the command, the file that it leaves.
LOSSES = (
    (
        "the CPU's numbers, compiled too, and no waiting for the device",
        "python -m pytest -q tests/losses/test_cuda.py --junitxml results/benchmarks/cuda.xml",
        "results/benchmarks/cuda.xml",
    ),
    (
        "shares of the copy bandwidth",
        "python -m benchmarks bandwidth --threads 16",
        "results/benchmarks/bandwidth.csv",
    ),
    (
        "everything, JAX on the GPU",
        "python -m pytest -q -n 4 tests --junitxml results/benchmarks/all.xml",
        "results/benchmarks/all.xml",
    ),
)


def losses_text() -> str:
    lines = [
        (what, f"`{command}`", "done" if (ROOT / file).exists() else "")
        for what, command, file in LOSSES
    ]
    return table(("of the losses, on a GPU", "command", "state"), lines) + "\n"


# What is run in JAX as well, to show that it can.
IN_JAX = ("zoomout-ce", "fcn-cas-swapped")


def runs_text(results: Results, in_jax: Results) -> str:
    """All runs at medium scale, by block, and those that have ended."""
    parts = [RUNS_HEAD, losses_text()]
    parts += [block_text(block, names, results) for block, names in blocks().items()]
    parts.append(block_text("In JAX: `--backend jax`, seed 0", IN_JAX, in_jax))
    return "\n".join(parts)


def block_text(title: str, names: Iterable[str], results: Results) -> str:
    lines = []
    for name in names:
        plan, done = RECIPES[name].medium, results.get((name, "medium"), {})
        lines.append([name, f"{plan.steps} × {plan.batch}", "<br>".join(map(state, done.values()))])
    head = ("recipe", "steps × images", "seed: minutes of training + measuring")
    return f"## {title}\n\n{table(head, lines)}\n"


def state(result: Result) -> str:
    training, measuring = (result["seconds"][part] / 60 for part in ("training", "evaluation"))
    return (
        f"{result['seed']}: {training:.0f} + {measuring:.0f}, {result['date']}, "
        f"{result['device']}, commit {short(str(result['commit']))}"
    )
