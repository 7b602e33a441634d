"""Targets between 0 and 1 in the weighted F loss: p = y is its only minimum.

Values are compared with the references in test_values.py.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import strategies as draw
from tests.support.backends import Backend, close
from tests.support.strategies import SOFT_KINDS, TARGET_KINDS, exact

options = st.fixed_dictionaries(
    {
        "error": st.sampled_from(("absolute", "squared")),
        "distance": st.sampled_from(("window", "euclidean")),
        "normalize_kernel": st.booleans(),
        "beta": st.sampled_from((0.3, 1.0, 2.0)),
    }
)


@st.composite
def soft(draw_: Any, dtype: str = "float64") -> tuple[Any, ...]:
    """A generator, targets of which some are soft, and a mask or None."""
    rng, spatial = draw_(draw.rngs), draw_(st.sampled_from(((5, 4), (6, 1), (2, 3, 4))))
    shape = (*spatial, draw.MAPS_OF[spatial])
    y = np.stack(
        [
            draw._softened(rng, draw_(st.sampled_from(SOFT_KINDS)), own)
            for own in draw.over(draw_, draw._target, rng, TARGET_KINDS, shape)
        ]
    )
    mask = draw._mask_or_none(draw_, rng, spatial)
    return rng, y.astype(dtype), mask


def counted(y: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    return np.ones(y.shape, bool) if mask is None else np.broadcast_to(mask[..., None], y.shape)


@given(case=soft(), options=options)
def test_the_loss_is_0_at_the_target_and_above_0_elsewhere(
    backend: Backend, case: Any, options: dict[str, Any]
) -> None:
    rng, y, mask = case
    rest = options | {"mask": mask, "reduction": "none"}
    assert (backend.call("weighted_fbeta_loss", y, y, **rest) == 0).all()
    assert (backend.call("weighted_fbeta_score", y, y, **rest) == 1).all()
    blurred = (y + np.roll(y, 1, 1)) / 2
    one_pixel = rng.permuted(np.eye(1, y[0].size)[0]).reshape(y[0].shape)
    for p in (
        (y > 0.5).astype(float),
        blurred,
        y**2,
        np.sqrt(y),
        0.9 * y + 0.05,
        1 - y,
        y + 1e-3 * rng.normal(size=y.shape),
        y + one_pixel * rng.choice((-0.01, 0.01)),
        y + 0.3 * rng.normal(size=y.shape),
        rng.random(y.shape),
    ):
        p = p.clip(0, 1)
        loss = backend.call("weighted_fbeta_loss", p, y, **rest)
        apart = ((np.abs(p - y) > 1e-6) & counted(y, mask)).reshape(len(y), -1).any(1)
        assert (loss[apart] > 0).all()
        assert ((loss >= 0) & (loss <= 1 + 1e-12)).all()


@given(case=soft(), options=options)
def test_on_the_straight_way_to_the_target_the_loss_falls(
    backend: Backend, case: Any, options: dict[str, Any]
) -> None:
    """So no prediction but the target is a minimum, not even among its neighbours."""
    rng, y, mask = case
    start = rng.random(y.shape)
    losses = np.stack(
        [
            backend.call(
                "weighted_fbeta_loss",
                y + share * (start - y),
                y,
                **options,
                mask=mask,
                reduction="none",
            )
            for share in (1.0, 0.99, 0.6, 0.3, 0.01, 0.0)
        ]
    )
    some = counted(y, mask).reshape(len(y), -1).any(1)
    assert (np.diff(losses, axis=0)[:, some] < 0).all()


@given(case=soft(), options=options)
def test_the_score_is_1_less_the_loss(backend: Backend, case: Any, options: dict[str, Any]) -> None:
    rng, y, mask = case
    args, rest = (rng.random(y.shape), y), options | {"mask": mask, "reduction": "none"}
    close(
        backend.call("weighted_fbeta_score", *args, **rest),
        1 - backend.call("weighted_fbeta_loss", *args, **rest),
    )


@given(case=soft("float32"), options=options)
def test_the_gradient_at_the_target_is_finite(
    backend: Backend, case: Any, options: dict[str, Any]
) -> None:
    _, y, mask = case
    got = backend.gradient("weighted_fbeta_loss", y, y, **options, mask=mask)
    assert np.isfinite(got).all()


@given(case=soft())
def test_without_its_weights_it_is_a_dice_loss(backend: Backend, case: Any) -> None:
    rng, y, mask = case
    p = rng.random(y.shape)
    loss = backend.call(
        "weighted_fbeta_loss",
        p,
        y,
        error="absolute",
        theta=1,
        mask=mask,
        distance_weights=np.ones_like(y),
        reduction="none",
    )
    p, t = (np.where(counted(y, mask), x, 0) for x in (p, y))  # the kernel's middle is above 1

    def total(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), -1, x.shape[-1]).sum(1)

    some = (total(t) > 0).all(1)
    dice = 1 - 2 * total(np.minimum(p, t))[some] / (total(p) + total(t))[some]
    close(loss[some], dice.mean(1))


def test_a_target_of_halves_has_no_foreground(backend: Backend) -> None:
    y = np.full((2, 3, 4, 1), 0.5)
    assert (backend.call("distance_weights", y) == 2).all()
    y[0, 0, 0] = np.nextafter(0.5, 1)
    assert (backend.call("distance_weights", y)[0] < 2).any()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_soft_target_in_other_precision(backend: Backend, dtype: str) -> None:
    rng = np.random.default_rng(0)
    p, y = rng.random((2, 2, 5, 4, 1)).astype(dtype)
    close(
        backend.call("weighted_fbeta_loss", p, y, reduction="none"),
        exact("weighted_fbeta_loss", p.astype(float), y.astype(float)),
        "float32",
    )
