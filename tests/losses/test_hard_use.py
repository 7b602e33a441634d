"""Uses at the edges: inputs that depend on each other, long images, odd kinds of options."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import Mesh, PartitionSpec
from torch.func import functional_call

import saliency_losses.jax as sj
import saliency_losses.torch as st
from saliency_losses import reference
from saliency_losses.torch import _scipy
from tests.support.backends import Backend, close


def test_anchors_of_the_features_themselves() -> None:
    """L trains so; at rank 1 nothing copies the features on their way into the loss."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 7, dtype=torch.float64, generator=rng, requires_grad=True)
    weights = torch.rand(2, 3, 7, dtype=torch.float64, generator=rng)
    labels = torch.randint(3, (2, 7), generator=rng)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return st.anchor_softmax_loss(x, st.region_anchors(x, weights), labels)

    (expected,) = torch.autograd.grad(loss(1 * x.unsqueeze(-1)[..., 0]), x, create_graph=True)
    (got,) = torch.autograd.grad(loss(x), x, create_graph=True)
    assert torch.autograd.gradcheck(loss, x)
    assert torch.autograd.gradgradcheck(loss, x)
    close(got.detach().numpy(), expected.detach().numpy())
    loss(x).backward()
    close(x.grad.numpy(), expected.detach().numpy())


def test_features_of_the_anchors_themselves() -> None:
    """Queries that also refine the map they are compared with."""
    rng = torch.Generator().manual_seed(0)
    anchors = torch.randn(1, 2, 3, dtype=torch.float64, generator=rng, requires_grad=True)
    pixels = torch.randn(1, 3, 4, 4, dtype=torch.float64, generator=rng)
    labels = torch.randint(2, (1, 4, 4), generator=rng)

    def loss(anchors: torch.Tensor) -> torch.Tensor:
        return st.anchor_softmax_loss(pixels + anchors.mean(1)[..., None, None], anchors, labels)

    assert torch.autograd.gradcheck(loss, anchors)
    loss(anchors).backward()


# Images whose squared distances exceed 32 bits ----------------------------------------------------

LONG = np.zeros((1, 1, 50_000, 1), np.float32)
LONG[0, 0, 0] = 1


@pytest.mark.parametrize(
    ("function", "inputs", "options"),
    [
        ("weighted_fbeta_loss", 2, {"distance": "euclidean"}),
        ("weighted_fbeta_score", 2, {}),
        ("distance_weights", 1, {"distance": "euclidean"}),
        ("weighted_fmeasure", 2, {}),
    ],
)
def test_exact_distances_that_exceed_32_bits_are_an_error(
    backend: Backend, function: str, inputs: int, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"target must have sides .* 2\*\*29.* cut the image"):
        backend.call(function, *[LONG] * inputs, **options)


@pytest.mark.parametrize("phi", [24, 25, 60_000])
def test_a_far_window_weighs_as_a_near_one(backend: Backend, phi: int) -> None:
    target = np.zeros((1, 3, 40, 1))
    target[0, 0, 0] = 1
    squared = np.add.outer(np.arange(3) ** 2, np.arange(40) ** 2)
    expected = 2 - np.exp(np.log(0.5) / 5 * np.where(squared <= phi**2, squared, np.inf))
    close(backend.call("distance_weights", target, phi=phi)[0, ..., 0], expected)


# Devices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "exact", ["distance_transform", "weighted_fbeta_loss", "weighted_fmeasure"]
)
def test_exact_distances_under_shard_map(exact: str) -> None:
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    y = jnp.zeros((2, 6, 5, 1)).at[:, 2, 3].set(1)
    p = jnp.full((2, 6, 5, 1), 0.3)

    def of(p: jax.Array, y: jax.Array) -> jax.Array:
        if exact == "distance_transform":
            return sj.distance_transform(y[..., 0] > 0)
        options = {"distance": "euclidean"} if exact == "weighted_fbeta_loss" else {}
        return getattr(sj, exact)(p, y, reduction="none", **options)

    one = PartitionSpec("data")
    sharded = jax.shard_map(of, mesh=mesh, in_specs=(one, one), out_specs=one)
    close(jax.jit(sharded)(p, y), of(p, y), "float32")


def test_an_error_for_a_sharded_tensor(tmp_path: Any) -> None:
    from torch import distributed
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        images = distribute_tensor(torch.rand(2, 2, 4, 4), mesh, [Shard(0)])
        labels = distribute_tensor(torch.full((2, 4, 4), 7), mesh, [Shard(0)])
        with pytest.raises(ValueError, match=r"labels must be in 0\.\.1, got 7"):
            st.cas_loss(images, labels, activation="softmax")
    finally:
        distributed.destroy_process_group()


# Gradients and dtypes -----------------------------------------------------------------------------


def test_a_target_gets_no_gradient(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    p, y = rng.random((2, 1, 5, 4, 1))
    if backend.name == "jax":
        gradient = backend.gradient("weighted_fbeta_loss", p, y, wrt=1)
        np.testing.assert_array_equal(gradient, 0)
        return
    target = backend.array(y, True).requires_grad_()
    probs = backend.array(p, True).requires_grad_()
    st.weighted_fbeta_loss(probs, target).backward()
    assert target.grad is None
    assert probs.grad.abs().sum() > 0


@pytest.mark.parametrize("with_scipy", [True, False])
def test_spacing_in_double_precision(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, with_scipy: bool
) -> None:
    if not with_scipy:
        monkeypatch.setattr(_scipy, "distance_transform_edt", None)
    target = (np.random.default_rng(0).random((1, 12, 9, 1)) < 0.1).astype(float)
    spacing = (0.7, 0.3)
    distance = reference.distance_transform(target[0, ..., 0] == 1, spacing=spacing)
    expected = 2 - np.exp(np.log(0.5) / 5 * distance)
    got = backend.call("distance_weights", target, distance="euclidean", spacing=spacing)
    assert np.abs(got[0, ..., 0] - expected).max() < 1e-13


def test_a_prior_is_compared_in_its_own_precision(backend: Backend) -> None:
    features = np.array([[[1.0], [3.0]]])
    prior = np.array([[0.9, 1.0]], np.float32)
    for dtype in (np.float32, np.float64):
        got = backend.call("foreground_vector", features.astype(dtype), prior, threshold=0.9)
        close(got, [[(0.9 + 3) / 1.9]], "float32")


@pytest.mark.parametrize("beta", [1e-9, 1e9])
def test_the_ends_of_beta_give_numbers(backend: Backend, beta: float) -> None:
    y = np.zeros((1, 64, 64, 1), np.float32)
    y[:, 20:40, 20:40] = 1
    for p in (0 * y, 1 - y, y):
        for function in ("weighted_fbeta_loss", "weighted_fmeasure"):
            assert 0 <= backend.call(function, p, y, beta=beta) <= 1 + 1e-6
        assert np.isfinite(backend.gradient("weighted_fbeta_loss", p, y, beta=beta)).all()
    with pytest.raises(ValueError, match="beta must lie in"):
        backend.call("weighted_fbeta_loss", y, y, beta=beta**1.01)


# Options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "options"),
    [
        ("weighted_fbeta_loss", {"phi": 16, "theta": 9}),
        ("weighted_fbeta_loss", {"phi": 12, "theta": 200}),
        ("cas_loss", {"num_regions": 10}),
    ],
)
def test_narrow_integers_of_numpy_are_integers(
    backend: Backend, function: str, options: dict[str, int]
) -> None:
    rng = np.random.default_rng(0)
    if function == "cas_loss":
        inputs = rng.dirichlet([1, 1], (1, 300, 2)), rng.integers(10, size=(1, 300, 2))
    else:
        inputs = rng.random((2, 1, 30, 2, 1))
    narrow = {name: np.uint8(value) for name, value in options.items()}
    close(backend.call(function, *inputs, **narrow), backend.call(function, *inputs, **options))


@pytest.mark.parametrize("ignore_index", [256, 2**31, -256])
def test_an_ignored_number_beyond_the_dtype_ignores_nothing(ignore_index: int) -> None:
    metrics = pytest.importorskip("saliency_losses.torch.metrics")
    target = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    target[0, :, 1:3] = 1
    metric = metrics.WeightedFMeasure(ignore_index=ignore_index)
    metric.update(target.float(), target)
    assert metric.images == 2


@pytest.mark.parametrize("spacing", [iter((1.0, 2.0)), map(float, (1, 2)), (s for s in (1, 2))])
def test_an_iterator_is_no_sequence(backend: Backend, spacing: Any) -> None:
    y = np.ones((1, 4, 4, 1), np.float32)
    with pytest.raises(TypeError, match="spacing must be None or a sequence"):
        backend.call("weighted_fmeasure", y, y, spacing=spacing)
    with pytest.raises(TypeError, match="spacing must be None or a sequence"):
        backend.call("distance_transform", y[..., 0] > 0, spacing=spacing)


@pytest.mark.parametrize("weights", [np.array([0.5, -1.0]), [np.float32(0.5), np.float32(-1)]])
def test_weights_of_numpy_are_checked(backend: Backend, weights: Any) -> None:
    y = backend.array(np.ones((1, 4, 4, 1), np.float32), True)
    loss = backend.functions.weighted_fbeta_loss
    with pytest.raises(ValueError, match=r"weights\[1\] must lie in \[0, inf\], got -1"):
        backend.functions.deep_supervision(loss, [y, y], y, weights=weights)
    half = backend.functions.deep_supervision(loss, [1 - y, y], y, weights=np.array([0.5, 1.0]))
    assert half.dtype == y.dtype


@pytest.mark.parametrize("kind", ["iterator", "scalar array"])
def test_weights_that_are_no_sequence(backend: Backend, kind: str) -> None:
    y = backend.array(np.ones((1, 4, 4, 1), np.float32), True)
    weights = iter((0.5, 1.0)) if kind == "iterator" else backend.array(np.ones(1), False)[0]
    with pytest.raises(TypeError, match="weights must be a sequence of numbers"):
        backend.functions.deep_supervision(
            backend.functions.weighted_fbeta_loss, [y, y], y, weights=weights
        )


def test_outputs_of_different_channels(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    target = backend.array(rng.integers(2, size=(1, 4, 4)).astype(np.int32), False)
    outputs = [backend.array(rng.random((1, 4, 4, c)), True) for c in (2, 1)]
    loss = backend.functions.weighted_fbeta_loss
    total = backend.functions.deep_supervision(loss, outputs, target)
    close(total, sum(loss(x, target) for x in outputs))


# Values that cannot be read -----------------------------------------------------------------------


def test_flipping_hides_no_wrong_label(backend: Backend) -> None:
    """Where values cannot be read, the loss after it must see them."""
    labels = np.array([[0.0, 1.0], [0.6, 1.0], [3.0, 0.0]], np.float32)
    for dtype in (np.float32, np.int32):
        x = backend.array(labels.astype(dtype), False)
        if backend.name == "jax":
            flip = jax.jit(partial(sj.flip_labels, probability=1.0))
            flipped = np.asarray(flip(x, rng=jax.random.key(0)))
        else:
            flipped = torch.vmap(
                lambda x: st.flip_labels(x[None], 1.0, rng=torch.Generator())[0],
                randomness="different",
            )(x).numpy()
        np.testing.assert_array_equal(flipped[0], [1, 0])
        if dtype is np.int32:
            np.testing.assert_array_equal(flipped[2], [3, 1])
        else:
            assert np.isnan(flipped[1:]).all()


def test_a_batch_without_images_is_no_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_losses.torch._ops._costs_nothing", lambda x: False)
    criterion = st.WeightedFBetaLoss(beta=torch.tensor(1.0))
    criterion(torch.rand(0, 1, 4, 4), torch.rand(0, 1, 4, 4))
    with pytest.raises(ValueError, match="target must be in"):
        criterion(torch.rand(1, 1, 4, 4), torch.full((1, 1, 4, 4), 255.0))


# Shapes -------------------------------------------------------------------------------------------


def test_scalars_are_refused_by_name(backend: Backend) -> None:
    x = backend.array(np.ones(1), False)[0]
    with pytest.raises(ValueError, match=r"prior must have shape \(N, \.\.\.\), got a scalar"):
        backend.functions.merge_by_confidence(x, x)
    with pytest.raises(ValueError, match="must have shape"):
        backend.functions.update_prior(x, x, 1)


def test_images_without_pixels(backend: Backend) -> None:
    features, labels = np.zeros((2, 0, 3)), np.zeros((2, 0), int)
    assert backend.call("metric_loss", features, labels, hard_negatives=True) == 0
    with pytest.raises(ValueError, match="features must have at least one pixel"):
        backend.call("foreground_vector", features, np.zeros((2, 0)))
    empty = np.zeros((2, 0, 4, 1), np.float32)
    assert np.isnan(backend.call("weighted_fmeasure", empty, empty))


def test_repairs_name_what_the_function_has(backend: Backend) -> None:
    features, labels = np.zeros((1, 4, 2)), np.array([[0, 1, 2, 3]])
    with pytest.raises(ValueError, match="got 3; pass more anchors") as raised:
        backend.call("anchor_softmax_loss", features, np.ones((1, 3, 2)), labels)
    assert "num_regions" not in str(raised.value)
    rng = jax.random.key(0) if backend.name == "jax" else torch.Generator()
    with pytest.raises(ValueError, match="labels must be in") as raised:
        backend.functions.flip_labels(backend.array(255 * labels, False), 0.5, rng=rng)
    assert "mask=" not in str(raised.value)


def test_explain_sees_an_option_that_is_learnt_and_takes_inference_tensors() -> None:
    plotting = pytest.importorskip("saliency_losses.plotting")
    criterion = st.CASLoss(alpha=torch.nn.Parameter(torch.tensor(0.9)))
    with torch.inference_mode():
        probs = torch.rand(1, 2, 6, 6).softmax(1)
        labels = torch.randint(2, (1, 6, 6))
    known = plotting._criterion(criterion, "torch", {})
    assert known.options["alpha"] == 0.9
    plotting.explain(criterion, probs, labels)
    with pytest.raises(TypeError, match="target must be an array, got list"):
        plotting.explain(criterion, probs, labels.tolist())
    assert functional_call(criterion, dict(criterion.named_parameters()), (probs, labels)) < 1
