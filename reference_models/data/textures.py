"""Mosaics of textures: new ones from the textures of others, and from generated textures."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from scipy.ndimage import distance_transform_cdt, gaussian_filter

from reference_models.data.images import Images


def recombined(mosaics: Images, count: int, seed: int) -> Images:
    """`count` new mosaics of 2 to 5 random regions, with textures cut out of those of `mosaics`.

    Each takes its textures from one of `mosaics`, so that no two of its regions have the same.
    """
    patches = [
        cut_out(image, labels) for image, labels in zip(mosaics.images, mosaics.labels, strict=True)
    ]
    return make(patches, count, mosaics.images.shape[1], seed)


def make(patches: Sequence[Sequence[np.ndarray]], count: int, size: int, seed: int) -> Images:
    """Mosaics of random regions. patches: Sets of squares `(side, side, 3)` of different textures;
    each mosaic is filled from one of them."""
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.empty((count, size, size), np.uint8)
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        textures = patches[int(rng.integers(len(patches)))]
        labels[index] = layout(size, int(rng.integers(2, len(textures) + 1)), rng)
        order = rng.permutation(len(textures))
        for number in np.unique(labels[index]):
            inside = labels[index] == number
            images[index][inside] = filled(textures[order[number]], size, rng)[inside]
    names = tuple(f"mosaic{index}" for index in range(count))
    return Images(names, images, labels, np.zeros_like(labels))


def cut_out(image: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """The largest square inside each region."""
    patches = []
    for number in np.unique(labels):
        inside = np.pad(labels == number, 1)
        depth = distance_transform_cdt(inside, "chessboard")[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        reach = int(depth.max())
        patches.append(image[row - reach + 1 : row + reach, column - reach + 1 : column + reach])
    return patches


def filled(patch: np.ndarray, size: int, rng: Generator) -> np.ndarray:
    """A square of this size, tiled with the patch and its mirror images, from a random offset."""
    if rng.random() < 0.5:
        patch = patch.swapaxes(0, 1)
    side = len(patch)
    tile = np.concatenate([patch, patch[::-1]])
    tile = np.concatenate([tile, tile[:, ::-1]], axis=1)
    places = np.arange(size) % (2 * side)
    tile = np.roll(tile, rng.integers(0, 2 * side, 2), axis=(0, 1))
    return tile[np.ix_(places, places)]


def layout(size: int, regions: int, rng: Generator) -> np.ndarray:
    """Random labels, uint8 `(size, size)`: cells of random points, with wavy boundaries.

    Fewer labels may occur, if a cell is pushed out of the picture.
    """
    waves = [gaussian_filter(rng.normal(size=(size, size)), size / 20) for _ in range(2)]
    y, x = (
        axis + size / 25 * wave / wave.std()
        for axis, wave in zip(np.indices((size, size)), waves, strict=True)
    )
    points = rng.uniform(0.1 * size, 0.9 * size, (regions, 2))
    distances = [np.hypot(y - row, x - column) for row, column in points]
    return np.argmin(distances, axis=0).astype(np.uint8)
