"""How often CAS training gets stuck, and in what: cas_stuck.json, for docs/losses/cas.md.

Run as ``OMP_NUM_THREADS=1 python docs/figures/cas_stuck.py`` and then ``python docs/fill.py``.
Every way of training starts from the same weights, one set of them a seed; minutes on one thread.
"""

import json
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from reference_models.loop import correlation, one_cycle
from reference_models.machine import commit, hardware, versions
from reference_models.scenes import scenes
from reference_models.torch.small import SaliencyNet
from saliency_losses.torch import cas_loss

FILE = Path(__file__).with_suffix(".json")
SIDE, BATCH, BATCHES, STEPS, SEEDS, THREADS = 32, 8, 15, 120, 20, 1
Rate = Callable[[int], float]
"""The learning rate of Adam at a step, counted from 0."""

WAYS: dict[str, tuple[Rate, float]] = {
    "3e-3 throughout": (lambda step: 3e-3, np.inf),
    "3e-3, gradients clipped to length 0.1": (lambda step: 3e-3, 0.1),
    "1e-3 throughout": (lambda step: 1e-3, np.inf),
    "3e-3 after a straight warm-up of 50 steps": (
        lambda step: 3e-3 * min(1, (step + 1) / 50), np.inf
    ),
    "one cycle of cosines from 1.2e-4 to 3e-3 and down": (
        lambda step: one_cycle(step, STEPS, 3e-3), np.inf
    ),
}
"""Each with the greatest length of a gradient."""


def some(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, masks, _ = scenes(count, SIDE, seed)
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(masks)


def run(seed: int, rate: Rate, longest: float) -> dict[str, float]:
    torch.manual_seed(seed)
    net = SaliencyNet(2)
    optimizer = torch.optim.Adam(net.parameters())
    images, masks = some(BATCHES * BATCH, seed=0)
    losses = []
    for step in range(STEPS):
        if step % BATCHES == 0:
            order = torch.randperm(len(images))
        chosen = order[step % BATCHES * BATCH :][:BATCH]
        optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.zero_grad()
        loss = cas_loss(net(images[chosen]).softmax(dim=1), masks[chosen])
        loss.backward()
        clip_grad_norm_(net.parameters(), longest)
        optimizer.step()
        losses.append(loss.item())
    images, masks = some(40, seed=1)
    with torch.no_grad():
        maps = net(images).softmax(dim=1)[:, 1].numpy()
    pairs = zip(maps[:, None], masks.numpy()[:, None], strict=True)
    return {
        "loss": float(np.mean(losses[-BATCHES:])),
        "correlation": abs(correlation(maps, masks.numpy())),
        "correlation_in_an_image": float(np.mean([abs(correlation(*pair)) for pair in pairs])),
        "correlation_with_colour": by_colour(maps, images),
        "spread": float(maps.std()),
    }


def by_colour(maps: np.ndarray, images: torch.Tensor) -> float:
    """The correlation of the map with what predicts it best from red, green and blue."""
    if maps.std() < 1e-6:
        return 0.0
    colours = images.movedim(1, -1).reshape(-1, 3).numpy()
    colours = np.column_stack([colours, np.ones(len(colours))])
    fitted = colours @ np.linalg.lstsq(colours, maps.ravel(), rcond=None)[0]
    return float(np.corrcoef(fitted, maps.ravel())[0, 1])


def main() -> None:
    torch.set_num_threads(THREADS)
    runs = []
    for (way, how), seed in product(WAYS.items(), range(SEEDS)):
        runs.append({"way": way, "seed": seed} | run(seed, *how))
        print(runs[-1], file=sys.stderr)
    about = {
        "network": "reference_models.torch.small.SaliencyNet", "side": SIDE, "batch": BATCH,
        "images": BATCHES * BATCH, "steps": STEPS, "threads": THREADS,
        "device": hardware("cpu"), "versions": versions("torch"), "commit": commit(),
    }  # fmt: skip
    FILE.write_text(json.dumps({**about, "runs": rounded(runs)}, indent=1) + "\n")


def rounded(runs: list[dict]) -> list[dict]:
    return [{key: round(value, 4) if isinstance(value, float) else value
             for key, value in run.items()} for run in runs]  # fmt: skip


if __name__ == "__main__":
    main()
