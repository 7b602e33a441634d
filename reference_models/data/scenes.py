"""Generated scenes: a striped or checked object among blotchy distractors, on smooth blobs.

Only texture tells the salient object apart: nothing else is striped or checked. Colours, shapes and
positions are random. A scene depends only on `(size, seed, index)`, so a longer set begins with the
same scenes.
"""

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter, shift

Scene = tuple[np.ndarray, np.ndarray, np.ndarray]


def scenes(count: int, size: int, seed: int) -> Scene:
    """Generate `count` square scenes.

    Returns:
        images: uint8 `(count, size, size, 3)`.
        masks: bool `(count, size, size)`, True on the object; never empty or full.
        priors: float32 `(count, size, size)` in [0, 1], see `prior_map`.
    """
    made = [scene(size, np.random.default_rng((seed, index))) for index in range(count)]
    images, masks, priors = zip(*made, strict=True)
    return np.stack(images), np.stack(masks), np.stack(priors)


def scene(size: int, rng: Generator) -> Scene:
    """Generate a scene: background, up to four distractors, the object, and sensor noise."""
    image = blobs(size, rng)
    clutter = np.zeros((size, size), dtype=bool)
    for _ in range(rng.integers(0, 5)):
        distractor = shape(size, rng, radius=rng.uniform(0.06, 0.16))
        image[distractor] = blobs(size, rng)[distractor]
        clutter |= distractor
    mask = shape(size, rng, radius=rng.uniform(0.18, 0.38))
    image[mask] = bands(size, rng)[mask]
    image += rng.normal(0, 0.08, image.shape)
    pixels = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
    return pixels, mask, prior_map(mask, clutter & ~mask, rng)


def shape(size: int, rng: Generator, radius: float) -> np.ndarray:
    """A lobed shape around a random centre, bool. radius: as a share of the image's side."""
    y, x = np.mgrid[:size, :size] / size
    centre_y, centre_x = rng.uniform(0.25, 0.75, size=2)
    stretch = rng.uniform(0.75, 1.33)
    dy, dx = (y - centre_y) * stretch, (x - centre_x) / stretch
    angle = np.arctan2(dy, dx)
    outline = np.ones_like(angle)
    for lobes in range(2, 6):
        outline += rng.normal(0, 0.35 / lobes) * np.cos(lobes * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(dy, dx) < radius * np.clip(outline, 0.4, 1.6)


def blobs(size: int, rng: Generator) -> np.ndarray:
    """Smooth blobs of two colours, float `(size, size, 3)` in [0, 1]."""
    waves = gaussian_filter(
        rng.normal(size=(size, size)), size * rng.uniform(0.05, 0.12), mode="wrap"
    )
    share = 1 / (1 + np.exp(-2 * waves / waves.std()))
    return blend(share, rng, contrast=0.25)


def bands(size: int, rng: Generator) -> np.ndarray:
    """Oriented stripes or checks of two colours, float `(size, size, 3)` in [0, 1]."""
    y, x = np.mgrid[:size, :size]
    angle, wavelength = rng.uniform(0, np.pi), size * rng.uniform(0.07, 0.13)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    share = np.sin(2 * np.pi * along / wavelength + rng.uniform(0, 2 * np.pi)) > 0
    if rng.random() < 0.5:
        share ^= np.sin(2 * np.pi * across / wavelength + rng.uniform(0, 2 * np.pi)) > 0
    return blend(share.astype(float), rng, contrast=0.35)


def prior_map(mask: np.ndarray, clutter: np.ndarray, rng: Generator) -> np.ndarray:
    """A poor saliency map, as a weak detector might give for a generated scene.

    It is the mask, shifted by up to an eighth of the side and blurred, plus a weak detector's false
    alarms: the distractors at a random strength, and smooth noise. It is scaled to 0..1.
    """
    size = len(mask)
    moved = shift(mask.astype(float), rng.uniform(-0.125, 0.125, size=2) * size, order=1)
    rough = gaussian_filter(moved, 0.06 * size) + gaussian_filter(
        clutter * rng.uniform(0.2, 1.0), 0.04 * size
    )
    haze = gaussian_filter(rng.normal(size=mask.shape), 0.1 * size, mode="wrap")
    rough = rough + 0.15 * haze / haze.std()
    return ((rough - rough.min()) / (rough.max() - rough.min())).astype(np.float32)


def blend(share: np.ndarray, rng: Generator, contrast: float) -> np.ndarray:
    """Mix two random colours that differ by at least `contrast` in the mean over channels."""
    first = rng.uniform(0.05, 0.95, size=3)
    second = rng.uniform(0.05, 0.95, size=3)
    while np.abs(first - second).mean() < contrast:
        second = rng.uniform(0.05, 0.95, size=3)
    return first + share[..., None] * (second - first)
