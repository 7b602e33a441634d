"""Regions that trained networks find in generated mosaics of textures.

``python docs/figures/textures.py RUN... [FILE.png]``, with the run folders of textures-cas-8 and
textures-ce-8. Their networks learnt from textures of Outex, whose pictures are not part of the
project; the textures here are generated, so they are new to the networks.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from reference_models.data.textures import make
from reference_models.training.figures import per_image, sheet
from reference_models.training.trained import load_network

SIZE, MOSAICS, SEED = 256, 5, 3


def waves(rng: Generator) -> np.ndarray:
    """Stripes, or checks with a second wave across."""
    y, x = np.indices((SIZE, SIZE))
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 14)
    along = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    across = np.sin(2 * np.pi * (y * np.cos(angle) - x * np.sin(angle)) / period)
    return along * across if rng.random() < 0.5 else along


def noise(rng: Generator) -> np.ndarray:
    """Noise of one grain, or drawn out in one direction."""
    grain = rng.uniform(0.7, 3)
    stretch = grain * rng.choice([1, 4])
    return gaussian_filter(rng.normal(size=(SIZE, SIZE)), (grain, stretch), mode="wrap")


def texture(kind: int, rng: Generator) -> np.ndarray:
    """A grey texture, uint8 `(SIZE, SIZE, 3)`, with the brightness of those of Outex."""
    pattern = (waves, noise)[kind % 2](rng)
    pattern = (pattern - pattern.mean()) / pattern.std() + 0.3 * rng.normal(size=pattern.shape)
    return np.repeat(np.clip(128 + 16 * pattern, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def main(runs: list[str], path: Path) -> None:
    """Draw the mosaics, their regions, and those of each network."""
    rng = np.random.default_rng(SEED)
    sets = [[texture(kind, rng) for kind in range(5)] for _ in range(MOSAICS)]
    mosaics = make(sets, MOSAICS, SIZE, SEED)
    columns = [
        ("mosaic", mosaics.images),
        ("regions", per_image(mosaics.labels.astype(float))),
    ]
    for run in runs:
        network = load_network(run)
        regions = network.maps(mosaics)["regions"].astype(float)
        columns.append((network.options.recipe, regions / 7))
    sheet(columns, "Generated textures, new to the networks; a grey level for each channel", path)


if __name__ == "__main__":
    *folders, last = sys.argv[1:]
    if last.endswith(".png"):
        main(folders, Path(last))
    else:
        main([*folders, last], Path(__file__).with_name("textures.png"))
