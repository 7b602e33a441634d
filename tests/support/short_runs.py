"""Short runs on the first blocks of a MobileNetV2, several of them in one process.

`torchrun … -m tests.support.short_runs FOLDER NAME`: test_reference_models starts it.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from reference_models.networks.options import Backbone
from reference_models.networks.torch.backbones import mobilenet_v2
from reference_models.options import Options
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import Augmentation, Stage, Stages
from reference_models.training.run import Shared, run
from reference_models.training.stopping import clock
from reference_models.training.trained import restore_network

STAGES = {
    "augmentation": Augmentation(),
    "schedule": Stages((Stage(1, 1, frozen=True), Stage(1, 0.5))),
}
# Recipe, and what differs from its small scale.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "frozen": ("deeplab-cas-swapped", {"backbone_rate": 0.0}),
    "tuned": ("deeplab-cas-swapped", {"backbone_rate": 0.1}),
    "stages": ("deeplab-cas-swapped", {"backbone_rate": 0.1, **STAGES}),
    "anchors": ("anchors", {"backbone_rate": 0.0}),
}


def with_backbone(folder: Path, **changes: object) -> Options:
    """A DeepLab on the first blocks of a MobileNetV2 with random weights, on generated scenes."""
    file = folder / "mobilenet_v2.fp16.safetensors"
    if not file.exists():
        torch.manual_seed(0)
        backbone = mobilenet_v2((1, 3), 32)
        save_file(backbone.state_dict(), file)
    chosen = {"recipe": "deeplab-cas-swapped"} | changes
    return Options(
        scale="small",
        data="scenes",
        size=32,
        steps=4,
        batch=4,
        train_images=8,
        test_images=8,
        learning_rate=1e-3,
        archives=folder,
        **chosen,
    )


def run_all(folder: Path, name: str) -> None:
    """Each of `RUNS` into folder/name; the main process also restores the network."""
    for title, (recipe, changes) in RUNS.items():
        before = RECIPES[recipe]
        small = replace(before.small, backbone=Backbone("mobilenet_v2", (1, 3)), **changes)
        with patch.dict(RECIPES, {recipe: replace(before, small=small)}):
            options = with_backbone(folder, recipe=recipe, out=folder / name / title)
            run(options, Shared(), clock())
            if os.environ.get("RANK", "0") == "0":
                restore_network(options.folder / "weights.safetensors", options)


if __name__ == "__main__":
    run_all(Path(sys.argv[1]), sys.argv[2])
