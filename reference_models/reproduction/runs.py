"""The text of RUNS.md: finished runs, and those still to run."""

from collections.abc import Iterable

from reference_models.options import bundled_backbone, recipes_at
from reference_models.papers.recipes import RECIPES
from reference_models.paths import ROOT
from reference_models.reproduction.markdown_tables import short, table
from reference_models.reproduction.priorities import blocks
from reference_models.reproduction.results import Result, Results

RUNS_HEAD = """\
# Runs

All runs of the recipes on real data, the most important first. This page is written by
`python -m reference_models.reproduction.report`. The following command runs what has no results
yet, in this order (seeds 0, 1 and 2; seed 0 of all recipes first), and stops after 165 minutes:

```bash
OMP_NUM_THREADS=1 python -m reference_models.reproduction.sweep --scale medium --minutes 165
```

The sweep runs at the lowest priority, so other work on the machine goes first. Rerun the command to
resume, within a run if its folder in `runs/` still exists; a resumed run ends with the same bits as
an uninterrupted one. A second sweep started beside the first takes other runs. On two cores, two
sweeps with one thread each get more done than one with two threads, above all beside other work,
because two threads wait for each other at every operation.

`--only 'fcn-*'` selects recipes, `--seeds 0` selects seeds, and `--list` prints what would run. If
a run starts from the maps of another (`relations`, `anchors` on PASCAL-S), the other is trained
first. A failed run is reported and does not stop the others; the exit status is then 1. Results go
to `results/runs`; `python -m reference_models.reproduction.report` then updates the report.

The sweep reads `duts_tr.part1of2.zip`, `duts_tr.part2of2.zip`, `duts_te.zip`, `ecssd.zip`,
`ecssd_baselines.zip`, `pascal_s.zip`, `bsds500.zip`, `outex_us_00000.zip` and
`mobilenet_v2.fp16.safetensors` from `data/` or `--archives FOLDER`.

## On a GPU

Use the same command with `--device cuda`; no run on a GPU has been timed yet. On a machine without
the data sets (190 MB), which arrive in several folders, `--stage FOLDER...` first copies the
archives from these folders to `--archives`, and the sweep starts once all archives are there:

```bash
python -m reference_models.reproduction.sweep --stage FOLDER --archives /tmp/archives \\
  --out /tmp/runs --results /tmp/results --device cuda --minutes 60
tar -czf results.tgz -C /tmp results
tar -czf start.tgz -C /tmp $(cd /tmp && ls runs/fcn-ce-clean-*/weights.safetensors)
```

Bring back `results.tgz` and unpack its files into `results/runs`; a run counts as done if it has
results there or in `--results`. `start.tgz` holds the networks whose maps `relations` and `anchors`
start from. Unpack it in `/tmp` of another machine to skip their training. If the code has no git
repository there, set the environment variable `COMMIT` to the commit that the results must name.
"""


# Checks of the losses on a GPU: their subject, the command, the file that it writes.
LOSSES = (
    (
        "values equal to those on the CPU, also compiled, without synchronising the device",
        "python -m pytest -q tests/losses/test_cuda.py --junitxml results/benchmarks/cuda.xml",
        "results/benchmarks/cuda.xml",
    ),
    (
        "memory bandwidth, as a share of the copy bandwidth",
        "python -m benchmarks bandwidth --threads 16",
        "results/benchmarks/bandwidth.csv",
    ),
    (
        "all tests, with JAX on the GPU",
        "python -m pytest -q -n 4 tests --junitxml results/benchmarks/all.xml",
        "results/benchmarks/all.xml",
    ),
)


PAPER_HEAD = """\
## At the papers' own scale: `--scale paper`

The papers' networks, trained as the papers print it. These runs need a GPU, and the ImageNet
weights of their backbones as torchvision has them:

```python
import torchvision.models as models
from safetensors.torch import save_file

for name in ("vgg16", "resnet101"):
    weights = getattr(models, name)(weights="IMAGENET1K_V1").state_dict()
    halves = {key: value.half() for key, value in weights.items()}
    save_file(halves, f"data/{name}.fp16.safetensors")
```

A file elsewhere is named by `--backbone-weights FILE`. `relations` reads the MobileNetV2 that comes
with the code. Start with one recipe, for example

```bash
python -m reference_models.train zoomout-af --scale paper --checkpoint-seconds 600
```

and before its first step a line says how many hours or days the training will take on the device
found, all stages together, from two steps of each kind. Measuring the test images comes on top. The
class of each network names what still departs from the paper; the training images are always those
of DUTS-TR (`relations`: DUTS-TE).
"""


def losses_text() -> str:
    lines = [
        (subject, f"`{command}`", "done" if (ROOT / file).exists() else "")
        for subject, command, file in LOSSES
    ]
    return table(("checks of the losses on a GPU", "command", "state"), lines) + "\n"


# Recipes that also run in JAX at medium scale.
IN_JAX = ("zoomout-ce", "fcn-cas-swapped")


def runs_text(results: Results, in_jax: Results) -> str:
    """The text of RUNS.md: all runs at medium scale by block, with those that are finished."""
    parts = [RUNS_HEAD, losses_text()]
    parts += [block_text(block, names, results) for block, names in blocks().items()]
    parts += [PAPER_HEAD, paper_text(results)]
    parts.append(block_text("In JAX: `--backend jax`, seed 0", IN_JAX, in_jax))
    return "\n".join(parts)


def block_text(title: str, names: Iterable[str], results: Results) -> str:
    lines = []
    for name in names:
        if "medium" not in RECIPES[name].scales:
            continue
        plan, done = RECIPES[name].at("medium"), results.get((name, "medium"), {})
        lines.append([name, f"{plan.steps} × {plan.batch}", "<br>".join(map(state, done.values()))])
    head = ("recipe", "steps × images", "seed: minutes of training + measuring")
    return f"## {title}\n\n{table(head, lines)}\n"


def paper_text(results: Results) -> str:
    lines = []
    for name in recipes_at("paper"):
        plan, done = RECIPES[name].at("paper"), results.get((name, "paper"), {})
        weights = bundled_backbone(plan.backbone.name).name if plan.backbone else "none"
        side = plan.size if plan.enlarge_crops else plan.crop or plan.size
        duration = f"{plan.steps:,} × {plan.batch} at {side} px"
        lines.append([name, duration, weights, "<br>".join(map(state, done.values()))])
    head = ("recipe", "steps × images", "backbone weights", "seed: minutes of training + measuring")
    return f"{table(head, lines)}\n"


def state(result: Result) -> str:
    training, measuring = (result["seconds"][part] / 60 for part in ("training", "evaluation"))
    return (
        f"{result['seed']}: {training:.0f} + {measuring:.0f}, {result['date']}, "
        f"{result['device']}, commit {short(str(result['commit']))}"
    )
