"""Noise and JPEG compression of test images, to measure robustness (MEnet, section 3.3)."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import isfinite, sqrt

import numpy as np
from PIL import Image

from reference_models.data import seeds
from reference_models.errors import InputError
from reference_models.machine import cores


def corrupt(images: np.ndarray, recipe: str, seed: int) -> np.ndarray:
    """Distort images, uint8 `(N, H, W, 3)`.

    recipe: "noise VARIANCE", "jpeg QUALITY", or "" for none.
    """
    match recipe.split():
        case []:
            return images
        case ["noise", variance] if number(variance) >= 0:
            return add_noise(images, number(variance), seed)
        case ["jpeg", quality] if number(quality) in range(1, 101):
            return jpeg(images, int(number(quality)))
    raise InputError(
        f'a corruption must be "noise VARIANCE" or "jpeg QUALITY", got "{recipe}"; give a variance '
        f'of at least 0 (pixels lie in 0..1), for example "noise 0.07", or a whole quality from 1 '
        f'to 100, for example "jpeg 3"'
    )


def number(word: str) -> float:
    """The finite number that a word spells, or NaN."""
    try:
        value = float(word)
    except ValueError:
        return float("nan")
    return value if isfinite(value) else float("nan")


def add_noise(images: np.ndarray, variance: float, seed: int) -> np.ndarray:
    """Add white Gaussian noise, then clip and round. variance: for pixels scaled to 0..1.

    images: uint8 `(N, H, W, 3)`. The noise of an image depends only on the seed, its index and its
    size; another variance scales the same noise.
    """

    def noisy(index: int) -> np.ndarray:
        rng = np.random.default_rng((seed, seeds.NOISE, index))
        noise = rng.standard_normal(images.shape[1:], dtype=np.float32)
        return np.rint(np.clip(images[index] + 255 * sqrt(variance) * noise, 0, 255))

    return in_threads(noisy, images)


def jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    """Compress and decompress images, uint8 `(N, H, W, 3)`, with Pillow's JPEG (4:2:0).

    quality: 1 to 100.
    """

    def compressed(index: int) -> np.ndarray:
        content = io.BytesIO()
        Image.fromarray(images[index]).save(content, "jpeg", quality=quality, subsampling="4:2:0")
        return np.asarray(Image.open(content))

    return in_threads(compressed, images)


def in_threads(work: Callable[[int], np.ndarray], like: np.ndarray) -> np.ndarray:
    """`work` of every index, stacked to the shape and type of `like`.

    Threads suffice, because NumPy and Pillow release Python's global lock.
    """
    results = np.empty_like(like)
    with ThreadPoolExecutor(cores()) as pool:
        for index, image in enumerate(pool.map(work, range(len(like)))):
            results[index] = image
    return results
