"""Noise and JPEG compression of test images, to measure robustness (MEnet, section 3.3)."""

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import isfinite, sqrt

import numpy as np
from PIL import Image

from reference_models.data import seeds
from reference_models.errors import InputError
from reference_models.machine import cores

VARIANCES, QUALITIES = (0.07, 0.29), (3, 4, 5, 6)
"""Ends of the random variance of the noise, and the random qualities of JPEG."""


def corrupt(images: np.ndarray, recipe: str, seed: int, places: Sequence[int] = ()) -> np.ndarray:
    """Distort images, uint8 `(N, H, W, 3)`. places: The index of each. Default: from 0 on.

    recipe: "noise VARIANCE", "jpeg QUALITY", "noise of random variance", "jpeg of random quality",
    or "" for none. A random strength is drawn for each image, as for Table 3 of the paper; it
    depends only on the seed and the image's index.
    """
    places = places or range(len(images))
    match recipe.split():
        case []:
            return images
        case ["noise", variance] if number(variance) >= 0:
            return add_noise(images, number(variance), seed, places)
        case ["jpeg", quality] if number(quality) in range(1, 101):
            return jpeg(images, int(number(quality)))
        case ["noise", "of", "random", "variance"]:
            streams = strengths(places, seed)
            variances = [stream.uniform(*VARIANCES) for stream in streams]
            return add_noise(images, variances, seed, places)
        case ["jpeg", "of", "random", "quality"]:
            streams = strengths(places, seed)
            qualities = [stream.choice(QUALITIES) for stream in streams]
            return jpeg(images, qualities)
    raise InputError(
        f'a corruption must be "noise VARIANCE" or "jpeg QUALITY", got "{recipe}"; give a variance '
        f'of at least 0 (pixels lie in 0..1), for example "noise 0.07", or a whole quality from 1 '
        f'to 100, for example "jpeg 3", or write "noise of random variance" or "jpeg of random '
        f'quality"'
    )


def strengths(places: Sequence[int], seed: int) -> Iterator[np.random.Generator]:
    """A generator for the random strength of each image."""
    for index in places:
        yield np.random.default_rng((seed, seeds.STRENGTH, index))


def number(word: str) -> float:
    """The finite number that a word spells, or NaN."""
    try:
        value = float(word)
    except ValueError:
        return float("nan")
    return value if isfinite(value) else float("nan")


def add_noise(
    images: np.ndarray, variance: float | Sequence[float], seed: int, places: Sequence[int] = ()
) -> np.ndarray:
    """Add white Gaussian noise, then clip and round.

    images: uint8 `(N, H, W, 3)`. variance: for pixels scaled to 0..1, of all images or of each. The
    noise of an image depends only on the seed, its index (in `places`) and its size; another
    variance scales the same noise.
    """
    places = places or range(len(images))
    variances = np.broadcast_to(variance, len(images))

    def noisy(index: int) -> np.ndarray:
        rng = np.random.default_rng((seed, seeds.NOISE, places[index]))
        noise = rng.standard_normal(images.shape[1:], dtype=np.float32)
        return np.rint(np.clip(images[index] + 255 * sqrt(variances[index]) * noise, 0, 255))

    return in_threads(noisy, images)


def jpeg(images: np.ndarray, quality: int | Sequence[int]) -> np.ndarray:
    """Compress and decompress images, uint8 `(N, H, W, 3)`, with Pillow's JPEG (4:2:0).

    quality: 1 to 100, of all images or of each.
    """
    qualities = np.broadcast_to(quality, len(images))

    def compressed(index: int) -> np.ndarray:
        content = io.BytesIO()
        settings = {"quality": int(qualities[index]), "subsampling": "4:2:0"}
        Image.fromarray(images[index]).save(content, "jpeg", **settings)
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
