"""Counts of CAS runs that get stuck, by kind: cas_stuck.json, for docs/losses/cas.md.

Run as ``python docs/figures/cas_stuck.py`` and then ``python docs/fill.py``. A network starts from
the same weights whatever the learning rate, one set of them a seed. Minutes on one thread.
"""

import json
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from reference_models.data.scenes import scenes
from reference_models.networks.torch.fully_convolutional import FullyConvolutional
from reference_models.networks.torch.small import SaliencyNet, conv
from reference_models.networks.torch.system import resize
from reference_models.provenance import commit, hardware, versions
from reference_models.training.loop import correlation
from reference_models.training.trainer import one_cycle
from saliency_losses.torch import cas_loss

FILE = Path(__file__).with_suffix(".json")
SIDE, BATCH, BATCHES, STEPS, SEEDS = 32, 8, 15, 120, 20

WAYS: dict[str, tuple[int, Callable[[int], float]]] = {
    "3e-3": (STEPS, lambda step: 3e-3),
    "3e-3, three times as long": (3 * STEPS, lambda step: 3e-3),
    "1e-3": (STEPS, lambda step: 1e-3),
    "3e-3 after a straight warm-up of 50 steps": (
        STEPS,
        lambda step: 3e-3 * min(1, (step + 1) / 50),
    ),
    "one cycle of cosines, 1.2e-4 to 3e-3 and down": (
        STEPS,
        lambda step: one_cycle(step, STEPS, 3e-3),
    ),
}
"""Steps, and the learning rate of Adam at a step counted from 0."""


class Layers(nn.Module):
    """A backbone of two taps, to be trained with what stands on it."""

    channels = (16, 24)

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = conv(3, 16, stride=2), conv(16, 24, stride=2)
        self.wide = conv(24, 24, dilation=2)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = relu(self.fine(4 * images - 2))
        return [fine, relu(self.wide(relu(self.coarse(fine))))]


class FCN(FullyConvolutional):
    def __init__(self) -> None:
        super().__init__("cas", Layers(), width=16)

    def forward(self, images: Tensor) -> Tensor:
        return resize(super().forward(self.backbone(images)), images)


NETWORKS: dict[str, Callable[[], nn.Module]] = {"SaliencyNet": lambda: SaliencyNet(2), "FCN": FCN}


def some(count: int, seed: int) -> tuple[Tensor, Tensor]:
    images, masks, _ = scenes(count, SIDE, seed)
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(masks)


def run(network: str, way: str, seed: int) -> dict[str, float]:
    steps, rate = WAYS[way]
    torch.manual_seed(seed)
    net = NETWORKS[network]()
    optimizer = torch.optim.Adam(net.parameters())
    images, masks = some(BATCHES * BATCH, seed=0)
    losses = []
    for step in range(steps):
        if step % BATCHES == 0:
            order = torch.randperm(len(images))
        chosen = order[step % BATCHES * BATCH :][:BATCH]
        optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.zero_grad()
        loss = cas_loss(net(images[chosen]).softmax(dim=1), masks[chosen])
        loss.backward()
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


def by_colour(maps: np.ndarray, images: Tensor) -> float:
    """The correlation of the map with what predicts it best from red, green and blue."""
    if maps.std() < 1e-6:
        return 0.0
    colours = images.movedim(1, -1).reshape(-1, 3).numpy()
    colours = np.column_stack([colours, np.ones(len(colours))])
    fitted = colours @ np.linalg.lstsq(colours, maps.ravel(), rcond=None)[0]
    return float(np.corrcoef(fitted, maps.ravel())[0, 1])


def main() -> None:
    torch.set_num_threads(1)
    about = json.dumps(
        {
            "side": SIDE,
            "images": BATCHES * BATCH,
            "batch": BATCH,
            "steps": STEPS,
            "device": f"1 thread of {hardware('cpu')}",
            "versions": versions("torch"),
            "commit": commit(),
        },
        indent=1,
    )
    runs = []
    for network, way, seed in product(NETWORKS, WAYS, range(SEEDS)):
        ends = {name: round(value, 4) for name, value in run(network, way, seed).items()}
        runs.append(json.dumps({"network": network, "way": way, "seed": seed} | ends))
        print(runs[-1], file=sys.stderr)
    lines = ",\n  ".join(runs)
    FILE.write_text(f'{about[:-2]},\n "runs": [\n  {lines}\n ]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
