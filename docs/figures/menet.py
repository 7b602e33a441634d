"""Pictures of a trained MEnet on generated scenes: ``python docs/figures/menet.py [FOLDER]``.

A small MEnet learns scenes with its paper's loss, from scratch and from a fixed seed, in about a
minute on one thread. ``menet-space.png`` shows its features before and after the training, and
``menet-scales.png`` the maps of its 13 scales.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from reference_models.data.scenes import scenes
from reference_models.networks.options import MEnetOptions
from reference_models.networks.torch.menet import MEnet
from reference_models.networks.torch.system import Batch
from reference_models.training.trainer import one_cycle

SIZE, BATCH, STEPS, RATE, SEED = 64, 8, 400, 3e-3, 0
SHOWN = 3
SALIENT, BACKGROUND = "C1", "C0"
SCALES = (
    "of the\nimage",
    *(f"encoder\nstride {2**step}" for step in range(1, 6)),
    "1 x 1",
    *(f"decoder\nstride {2**step}" for step in range(5, -1, -1)),
)


def some(count: int, seed: int) -> Batch:
    images, masks, priors = scenes(count, SIZE, seed)
    return Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2) / 255,
        torch.from_numpy(masks).long(),
        torch.from_numpy(priors),
        torch.Generator(),
    )


def trained(steps: int) -> MEnet:
    """A MEnet after this many steps of Adam, each on new scenes."""
    torch.manual_seed(SEED)
    system = MEnet("metric-hard-negatives", MEnetOptions(width=8, widest=64))
    optimizer = torch.optim.Adam(system.parameters())
    for step in range(steps):
        batch = some(BATCH, seed=step + 1)
        optimizer.param_groups[0]["lr"] = one_cycle(step, steps, RATE)
        optimizer.zero_grad()
        system.loss(system([batch.images]), batch).backward()
        optimizer.step()
    # Without a step the running statistics of batch normalisation are not those of any image.
    return system.eval() if steps else system


@torch.no_grad()
def seen(system: MEnet, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The two maps of each image, its unit features, and the maps of the 13 scales."""
    joined: list[Tensor] = []
    hook = system.logits[0].register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    output = system([batch.images])
    hook.remove()
    return system.maps(output, batch), system.descriptors(output, batch), joined[0]


def picture(axes: Axes, values: np.ndarray, title: str) -> None:
    """An image, or a map from its least value in black to its greatest in white."""
    # A constant map is black, whatever its rounding errors.
    low = float(values.min())
    limits = {"vmin": low, "vmax": max(low + 1e-3, float(values.max()))}
    axes.imshow(values, cmap="gray", interpolation="nearest", **limits)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=7)


def components(axes: Axes, features: Tensor, mask: Tensor, title: str) -> None:
    """The two principal components of the features `(H, W, C)` of one image."""
    points = features.flatten(0, 1)
    points = points - points.mean(dim=0)
    axis = torch.linalg.svd(points, full_matrices=False).Vh[:2]
    shares = points.square().sum(), (points @ axis.T).square().sum()
    inside = mask.flatten() == 1
    for region, colour in ((~inside, BACKGROUND), (inside, SALIENT)):
        axes.scatter(*(points[region] @ axis.T).T[:, ::3].numpy(), s=1, color=colour, alpha=0.4)
    axes.set_aspect("equal", adjustable="datalim")
    axes.tick_params(labelsize=5)
    axes.set_title(f"{title}\n{100 * shares[1] / shares[0]:.0f} % of the variance", fontsize=7)


def panels(rows: int, columns: int, side: float) -> tuple[Figure, np.ndarray]:
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0.02)
    figure = Figure(figsize=(side * columns, 1.15 * side * rows), layout=layout, dpi=110)
    return figure, figure.subplots(rows, columns, squeeze=False)


def space(batch: Batch, new: MEnet, learnt: MEnet) -> Figure:
    figure, grid = panels(SHOWN, 5, 1.6)
    _, before, _ = seen(new, batch)
    maps, after, _ = seen(learnt, batch)
    for row, axes in enumerate(grid):
        picture(axes[0], batch.images[row].permute(1, 2, 0).numpy(), "image" * (row == 0))
        for column, (name, values) in zip((1, 2), maps.items(), strict=True):
            picture(axes[column], values[row].numpy(), name * (row == 0))
        components(axes[3], before[row], batch.labels[row], "features, untrained")
        components(axes[4], after[row], batch.labels[row], "features, trained")
    return figure


def scales(batch: Batch, learnt: MEnet) -> Figure:
    figure, grid = panels(SHOWN, len(SCALES), 0.85)
    _, _, joined = seen(learnt, batch)
    for row, axes in enumerate(grid):
        for column, name in enumerate(SCALES):
            picture(axes[column], joined[row, column].numpy(), name * (row == 0))
    return figure


def main(folder: Path, steps: int = STEPS) -> None:
    batch = some(SHOWN, seed=0)
    learnt = trained(steps)
    space(batch, trained(0), learnt).savefig(folder / "menet-space.png")
    scales(batch, learnt).savefig(folder / "menet-scales.png")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
