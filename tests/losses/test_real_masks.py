"""The losses on real masks and real saliency maps; skipped where the data are not."""

import io
import zipfile
from functools import cache

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.losses.test_identities import smoothed
from tests.support import strategies as draw
from tests.support.backends import TOLERANCE, Backend, close
from tests.support.paths import DATA
from tests.support.strategies import exact

needs = {
    name: pytest.mark.skipif(not (DATA / f"{name}.zip").exists(), reason=f"no {name}.zip")
    for name in ("ecssd", "ecssd_baselines", "pascal_s", "bsds500")
}
STEMS = ("0001", "0123", "0456", "0789", "1000")


def image(archive: str, name: str) -> Image.Image:
    with zipfile.ZipFile(DATA / f"{archive}.zip") as file:
        return Image.open(io.BytesIO(file.read(name)))


@cache
def mask_and_map(stem: str, side: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A mask of ECSSD and DRFI's saliency map, `(1, H, W, 1)`, resized to `side` if given."""
    mask, saliency = (
        image("ecssd", f"masks/{stem}.png"),
        image("ecssd_baselines", f"DRFI/{stem}.webp").convert("L"),
    )
    size = mask.size if side is None else (side, side)
    y = np.asarray(mask.convert("L").resize(size, Image.Resampling.NEAREST)) > 127
    p = np.asarray(saliency.resize(size, Image.Resampling.BILINEAR)) / 255
    assert 0 < y.mean() < 1
    return y[None, ..., None], p[None, ..., None]


@needs["ecssd"]
@needs["ecssd_baselines"]
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize_kernel": True},
        {"error": "absolute", "distance": "euclidean"},
        {"normalize_kernel": True, "distance": "euclidean", "theta": 5, "beta": 0.5},
    ],
)
def test_weighted_fbeta_of_real_maps_is_the_reference(
    backend: Backend, options: dict[str, object]
) -> None:
    pairs = [mask_and_map(stem, 48) for stem in STEMS]
    y, p = (np.concatenate(own) for own in zip(*pairs, strict=True))
    for dtype in draw.DTYPES:
        args = p.astype(dtype), y
        for function in ("weighted_fbeta_loss", "weighted_fbeta_score"):
            close(
                backend.call(function, *args, **options, reduction="none"),
                exact(function, *args, **options),
                dtype,
            )


@needs["ecssd"]
@needs["ecssd_baselines"]
def test_the_score_is_the_papers_measure_up_to_the_tail_of_the_gaussian(backend: Backend) -> None:
    y, p = mask_and_map(STEMS[1], 48)
    whole = draw.reference.exact_weighted_fbeta_score(p[0, ..., 0], y[0, ..., 0])
    assert backend.call("weighted_fbeta_score", p, y) == pytest.approx(whole, abs=1e-4)


@needs["ecssd"]
@pytest.mark.parametrize("stem", STEMS[:3])
def test_euclidean_weights_at_full_size_are_scipys_distance(backend: Backend, stem: str) -> None:
    y = np.asarray(image("ecssd", f"masks/{stem}.png"))
    expected = 2 - np.exp(np.log(0.5) / 5 * ndimage.distance_transform_edt(~y))
    for dtype in draw.DTYPES:
        got = backend.call(
            "distance_weights", y[None, ..., None].astype(dtype), distance="euclidean"
        )[0, ..., 0]
        close(got, expected, dtype)
    window = backend.call("distance_weights", y[None, ..., None].astype(float))[0, ..., 0]
    squared = ndimage.distance_transform_edt(~y) ** 2
    close(
        window,
        np.where(y, 1, np.where(squared.round() <= 25, 2 - np.exp(np.log(0.5) / 5 * squared), 2)),
    )


@needs["ecssd"]
@needs["ecssd_baselines"]
def test_the_printed_kernel_acts_on_few_real_pixels_and_the_unit_kernel_on_many() -> None:
    shares = []
    for stem in STEMS:
        y, p = (x[0, ..., 0] for x in mask_and_map(stem))
        e = (p - y) ** 2
        shares.append([(smoothed(e, y, normalize) < e)[y].mean() for normalize in (False, True)])
    printed, unit = np.mean(shares, axis=0)
    assert printed < 0.01
    assert 0.3 < unit < 0.7


@needs["pascal_s"]
def test_empty_real_masks_give_finite_losses(backend: Backend) -> None:
    # No pixel of these reaches 128, see docs/data.md.
    y = np.stack(
        [
            np.asarray(
                image("pascal_s", f"masks/{stem}.png")
                .convert("L")
                .resize((64, 48), Image.Resampling.NEAREST)
            )
            > 127
            for stem in (359, 408, 424, 460, 622)
        ]
    )
    assert not y.any()
    rng = np.random.default_rng(0)
    p = rng.random((*y.shape, 1))
    loss = backend.call("weighted_fbeta_loss", p, y[..., None], reduction="none")
    # Without foreground B = 2 everywhere: the mean squared error.
    close(loss, (p**2).mean((1, 2, 3)))
    got = backend.gradient("weighted_fbeta_loss", p, y[..., None], reduction="sum")
    close(got, 2 * p / (48 * 64))
    features = rng.normal(size=(*y.shape, 3))
    assert (backend.call("metric_loss", features, y, reduction="none") == 0).all()
    assert (backend.gradient("metric_loss", features, y) == 0).all()
    probs = draw.softmax(features)
    close(backend.call("cas_loss", probs, y, reduction="none"), 0.5 * probs.var((1, 2)).sum(-1))
    for function, args in (
        ("class_agnostic_cross_entropy", (features[..., :2], y)),
        ("anchor_softmax_loss", (features, rng.normal(size=(5, 2, 3)), y)),
        ("js_mutual_information_loss", (features[..., 0], y)),
    ):
        assert np.isfinite(backend.call(function, *args)), function
        assert np.isfinite(backend.gradient(function, *args)).all(), function


@needs["bsds500"]
@pytest.mark.parametrize("averaged", [False, True])
def test_cas_loss_of_many_human_regions_is_the_reference(backend: Backend, averaged: bool) -> None:
    labels = np.stack(
        [np.asarray(image("bsds500", f"segmentations/2092_{i}.png")) for i in range(2)]
    )[:, :, :160]
    regions = [len(np.unique(own)) for own in labels]
    assert max(regions) > 8
    rng = np.random.default_rng(0)
    own = rng.random((256, 4))[labels] + 0.5 * rng.random((*labels.shape, 4))  # told by region
    for dtype in draw.DTYPES:
        probs = draw.softmax(own).astype(dtype)
        # Most of the 256 names are not taken.
        options = {"num_regions": 256, "average_regions": averaged}
        expected = exact("cas_loss", probs, labels, **options)
        got = backend.call("cas_loss", probs, labels, **options, reduction="none")
        np.testing.assert_allclose(got, expected, rtol=10 * TOLERANCE[dtype])
        close(got, expected, dtype)
        named = 7 + 2 * labels.astype(np.int64)  # other names, the same loss
        close(backend.call("cas_loss", probs, named, **options, reduction="none"), expected, dtype)
