"""Maps of the bundled networks on generated scenes: ``python docs/figures/gallery.py [FILE]``."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from reference_models.data.images import Images
from reference_models.data.scenes import scenes
from reference_models.training.figures import sheet
from reference_models.training.trained import load_network

SCENES, SIZE, SEED = 4, 224, 1
COLUMNS = (
    # The heading, the bundled model, and the name of its map.
    ("W: zoomout-exact", "zoomout-exact", "map"),
    ("C: fcn-cas-swapped", "fcn-cas-swapped", "map"),
    ("M: metric-head-metric,\nsaliency head", "metric-head-metric", "saliency head"),
    ("M: metric-head-metric,\nS", "metric-head-metric", "semantic distance"),
    ("L: anchors, T = 5\nfrom the prior", "anchors", "T = 5"),
    ("R: relations, merged\nfrom the prior", "relations", "merged"),
)


def resized(pictures: np.ndarray, size: int) -> np.ndarray:
    """uint8 pictures, resized to squares of this side."""
    shape, filter_ = (size, size), Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(one).resize(shape, filter_)) for one in pictures])


def main(path: Path) -> None:
    """Draw the scenes with the maps of all networks."""
    images, masks, priors = scenes(SCENES, SIZE, SEED)
    priors = np.rint(255 * priors).astype(np.uint8)
    columns = [("image", images), ("mask", masks), ("prior", priors / 255)]
    for heading, model, name in COLUMNS:
        network = load_network(model)
        size = network.options.plan.size
        views = (images, masks.astype(np.uint8), priors)
        shown, labels, starts = (resized(view, size) for view in views)
        names = tuple(map(str, range(SCENES)))
        columns.append((heading, network.maps(Images(names, shown, labels, starts))[name]))
    sheet(columns, "Generated scenes: the object is striped or checked", path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("gallery.png"))
