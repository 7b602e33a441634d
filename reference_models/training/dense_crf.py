"""Saliency maps refined by a fully connected CRF (Krähenbühl and Koltun, NIPS 2011)."""

import numpy as np

from reference_models.errors import InputError

ITERATIONS = 5
SMOOTHNESS = {"sxy": 3, "compat": 3}
APPEARANCE = {"sxy": 60, "srgb": 5, "compat": 5}
"""Widths of the two kernels in pixels and in 8-bit colour values, and their weights; values that
are common for saliency maps."""
LEAST = 0.01
"""Probabilities are kept within [LEAST, 1 − LEAST], so that colours can overrule a sure map."""


def dense_crf(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The probability of foreground after inference, float32 `(N, S, S)`.

    images: uint8 `(N, S, S, 3)`. maps: `(N, S, S)` in [0, 1], the unary probabilities.
    """
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError:
        raise InputError(
            "the dense CRF needs pydensecrf2, which pip compiles; pip install pydensecrf2"
        ) from None
    _, height, width = maps.shape
    refined = []
    for image, probability in zip(images, maps, strict=True):
        foreground = np.clip(probability, LEAST, 1 - LEAST).astype(np.float32)
        field = DenseCRF2D(width, height, 2)
        field.setUnaryEnergy(-np.log(np.stack([1 - foreground, foreground])).reshape(2, -1))
        field.addPairwiseGaussian(**SMOOTHNESS)
        field.addPairwiseBilateral(rgbim=np.ascontiguousarray(image), **APPEARANCE)
        refined.append(np.array(field.inference(ITERATIONS))[1].reshape(height, width))
    return np.stack(refined).astype(np.float32)
