"""Regions that trained networks find in generated mosaics of textures.

``python docs/figures/textures.py RUN... [FILE.png]``, with the run folders of textures-cas-8 and
textures-ce-8. Their networks learnt from textures of Outex, whose pictures are not part of the
project; the textures here are generated, so they are new to the networks.

The committed picture shows the networks of the committed results of both recipes at small scale,
seed 0. Their weights are not kept; ``python -m reference_models.train textures-cas-8 --scale
small``, and the same for textures-ce-8, train them again (minutes each).
"""

import sys
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from reference_models.data.textures import make
from reference_models.training.figures import per_image, sheet
from reference_models.training.trained import load_network

SIZE, MOSAICS, SEED = 256, 4, 3


def textures(rng: Generator) -> list[np.ndarray]:
    """Stripes, checks, fine noise, coarse noise and noise drawn out in one direction, grey uint8
    `(SIZE, SIZE, 3)`, with the brightness of those of Outex."""
    y, x = np.indices((SIZE, SIZE))
    angle, wide, narrow = rng.uniform(0, np.pi), rng.uniform(10, 16), rng.uniform(5, 8)
    along = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle))
    across = 2 * np.pi * (y * np.cos(angle) - x * np.sin(angle))
    fine, coarse, drawn_out = (
        gaussian_filter(rng.normal(size=(SIZE, SIZE)), grain, mode="wrap")
        for grain in (0.7, 3, (1, 6))
    )
    patterns = (
        np.sin(along / narrow),
        np.sin(across / wide) * np.sin(along / wide),
        fine,
        coarse,
        drawn_out,
    )
    grey = [
        128 + 16 * (pattern / pattern.std() + 0.3 * rng.normal(size=pattern.shape))
        for pattern in patterns
    ]
    return [np.repeat(one.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2) for one in grey]


def main(runs: list[str], path: Path) -> None:
    """Draw the mosaics, their regions, and those of each network."""
    rng = np.random.default_rng(SEED)
    mosaics = make([textures(rng) for _ in range(MOSAICS)], MOSAICS, SIZE, SEED)
    columns = [
        ("mosaic", mosaics.images),
        ("regions", per_image(mosaics.labels.astype(float))),
    ]
    for run in runs:
        network = load_network(run)
        regions = network.maps(mosaics)["regions"].astype(float)
        columns.append((network.options.recipe, regions / 7))
    sheet(columns, "Generated textures; a grey level for each channel", path)


if __name__ == "__main__":
    *folders, last = sys.argv[1:]
    if last.endswith(".png"):
        main(folders, Path(last))
    else:
        main([*folders, last], Path(__file__).with_name("textures.png"))
