"""What test images suffer to see how robust a network is (MEnet, section 3.3): noise and JPEG."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import isfinite, sqrt

import numpy as np
from PIL import Image

from reference_models.errors import InputError
from reference_models.machine import cores


def corrupt(images: np.ndarray, recipe: str, seed: int) -> np.ndarray:
    """The images, uint8 `(N, H, W, 3)`, after "noise VARIANCE", "jpeg QUALITY", or "" (nothing)."""
    match recipe.split():
        case []:
            return images
        case ["noise", variance] if number(variance) >= 0:
            return add_noise(images, number(variance), seed)
        case ["jpeg", quality] if number(quality) in range(1, 101):
            return jpeg(images, int(number(quality)))
    raise InputError(
        f'a corruption is "noise VARIANCE" with a variance of at least 0 on the scale from 0 to 1, '
        f'say "noise 0.07", or "jpeg QUALITY" with a whole quality from 1 to 100, say "jpeg 3"; '
        f'got "{recipe}"'
    )


def number(word: str) -> float:
    """The number a word spells, NaN where it spells none."""
    try:
        value = float(word)
    except ValueError:
        return float("nan")
    return value if isfinite(value) else float("nan")


def add_noise(images: np.ndarray, variance: float, seed: int) -> np.ndarray:
    """Additive white Gaussian noise of this variance on the scale from 0 to 1, clipped and rounded.

    images: uint8 `(N, H, W, 3)`. The noise of an image depends on `(seed, index)` and its size
    alone; another variance scales the same noise.
    """

    def one(index: int) -> np.ndarray:
        rng = np.random.default_rng((seed, 5, index))
        noise = rng.standard_normal(images.shape[1:], dtype=np.float32)
        return np.rint(np.clip(images[index] + 255 * sqrt(variance) * noise, 0, 255))

    return in_threads(one, images)


def jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    """The images, uint8 `(N, H, W, 3)`, through JPEG of this quality, 1 to 100 (4:2:0, Pillow)."""

    def one(index: int) -> np.ndarray:
        packed = io.BytesIO()
        Image.fromarray(images[index]).save(packed, "jpeg", quality=quality, subsampling="4:2:0")
        return np.asarray(Image.open(packed))

    return in_threads(one, images)


def in_threads(work: Callable[[int], np.ndarray], like: np.ndarray) -> np.ndarray:
    """`work(0)`, …, stacked: noise and JPEG are computed without Python's lock."""
    made = np.empty_like(like)
    with ThreadPoolExecutor(cores()) as pool:
        for index, image in enumerate(pool.map(work, range(len(like)))):
            made[index] = image
    return made
