"""The measure over a data set: equal to one call, whatever the batches and the processes."""

import json
import os
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import py_sod_metrics
import pytest
import torch
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor
from torchmetrics import MetricCollection

from saliency_losses import reference
from saliency_losses.jax.metrics import SaliencyMeasures as SeveralInFlax
from saliency_losses.jax.metrics import WeightedFMeasure as InFlax
from saliency_losses.torch import weighted_fmeasure
from saliency_losses.torch.metrics import SaliencyMeasures, WeightedFMeasure
from tests.support import measured_together
from tests.support.backends import Backend, close
from tests.support.paths import ROOT

# The states are float32.
SINGLE = {"rtol": 1e-5, "atol": 1e-6}


def data(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks ``(N, 7, 9, 1)``; the second mask is empty, the third map constant."""
    rng = np.random.default_rng(seed)
    target = ndimage.gaussian_filter(rng.normal(size=(images, 7, 9, 1)), (0, 1.5, 1.5, 0)) > 0
    probs = 0.2 + 0.5 * rng.random(target.shape)
    target[1:2] = False
    probs[2:3] = 0.25
    return probs, target


def in_torch(xs: tuple[np.ndarray, ...]) -> list[Tensor]:
    return [torch.from_numpy(x).movedim(-1, 1) for x in xs]


def batches(x: Any, cuts: list[int]) -> list[Any]:
    edges = [0, *sorted(cuts), len(x)]
    return [x[a:b] for a, b in pairwise(edges) if a < b]


# normalize=


def test_stretched_maps_are_measured_as_the_program_does(backend: Backend) -> None:
    """Of 8 bits, as it reads them; equal all over the foreground, so that ties do not matter."""
    values = np.arange(40, 40 + 63).reshape(1, 7, 9, 1).astype(np.uint8)
    mask = np.zeros((1, 7, 9, 1), bool)
    mask[:, 2:5, 3:8] = True
    values[mask] = 140
    program = py_sod_metrics.WeightedFmeasure(beta=0.3)
    program.step(values[0, ..., 0], 255 * mask[0, ..., 0].astype(np.uint8), normalize=True)
    got = backend.call("weighted_fmeasure", values / 255, mask, beta=0.3**0.5, normalize=True)
    assert got == pytest.approx(program.get_results()["wfm"], abs=1e-9)
    assert abs(got - backend.call("weighted_fmeasure", values / 255, mask, beta=0.3**0.5)) > 0.01


@given(seed=st.integers(0, 2**32 - 1), beta=st.sampled_from([0.5, 1.0]))
def test_stretched_maps_against_the_reference(backend: Backend, seed: int, beta: float) -> None:
    probs, target = data(3, seed)
    got = backend.call(
        "weighted_fmeasure", probs, target, beta=beta, normalize=True, reduction="none"
    )
    close(
        got,
        np.array(
            [
                reference.weighted_fmeasure(p[..., 0], y[..., 0], beta=beta, normalize=True)
                for p, y in zip(probs, target, strict=True)
            ]
        ),
    )


def test_values_out_of_range_are_not_stretched_into_it(backend: Backend) -> None:
    probs, target = data(2)
    with pytest.raises(ValueError, match=r"probs must be in \[0, 1\].*sigmoid"):
        backend.call("weighted_fmeasure", 9 * probs - 4, target, normalize=True)
    with pytest.raises(TypeError, match="normalize must be True or False, got 1"):
        backend.call("weighted_fmeasure", probs, target, normalize=1)


# In torchmetrics


@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(1, 7), max_size=4),
    normalize=st.booleans(),
    beta=st.sampled_from([0.3**0.5, 1.0]),
)
def test_batches_change_nothing(seed: int, cuts: list[int], normalize: bool, beta: float) -> None:
    probs, target = in_torch(data(8, seed))
    options = {"beta": beta, "normalize": normalize}
    expected = weighted_fmeasure(probs, target, **options, reduction="none")
    metrics = {how: WeightedFMeasure(**options, reduction=how) for how in ("mean", "sum", "none")}
    for some, masks in zip(batches(probs, cuts), batches(target, cuts), strict=True):
        for metric in metrics.values():
            # Each batch's own value, too; torchmetrics makes a scalar of a single one.
            got = metric(some, masks)
            expected_of_batch = weighted_fmeasure(
                some, masks, **options, reduction=metric.reduction
            ).squeeze()
            torch.testing.assert_close(got, expected_of_batch, check_dtype=False, **SINGLE)
    for how, value in (("mean", expected.mean()), ("sum", expected.sum()), ("none", expected)):
        torch.testing.assert_close(metrics[how].compute(), value, check_dtype=False, **SINGLE)
    assert metrics["none"].compute().dtype == torch.float64
    metrics["mean"].reset()
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert metrics["mean"].compute().isnan()


def test_the_rule_for_empty_masks_and_the_states() -> None:
    probs, target = in_torch(data(2))
    metric = WeightedFMeasure()
    metric.update(probs.requires_grad_(), target)
    assert set(metric.metric_state) == {"total", "images", "options"}
    assert metric.images == 2  # the second, whose mask is empty, counts as 0
    torch.testing.assert_close(
        metric.compute().double(), weighted_fmeasure(probs[:1], target[:1]).detach() / 2, **SINGLE
    )
    assert not metric.total.requires_grad
    assert set(WeightedFMeasure(reduction="none").metric_state) == {"measures", "options"}
    exact = WeightedFMeasure().set_dtype(torch.float64)
    exact.update(probs, target)
    assert exact.compute() == weighted_fmeasure(probs, target)


@pytest.mark.parametrize("metric", [WeightedFMeasure, InFlax])
@pytest.mark.parametrize(
    ("options", "kind"),
    [({"beta": 0}, ValueError), ({"beta": "1"}, TypeError), ({"normalize": None}, TypeError)],
)
def test_wrong_options(metric: Any, options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind, match=next(iter(options))):
        metric(**options)


def test_wrong_reduction() -> None:
    with pytest.raises(ValueError, match="reduction"):
        WeightedFMeasure(reduction="median")  # type: ignore[arg-type]


def test_a_collection_keeps_metrics_of_other_options_apart() -> None:
    """Of metrics with equal states after the first batch torchmetrics updates only one."""
    several = MetricCollection(
        {
            "plain": SaliencyMeasures(names=("mae",)),
            "stretched": SaliencyMeasures(names=("mae",), normalize=True),
            "again": SaliencyMeasures(names=("mae",)),
            "weighted": WeightedFMeasure(),
            "recall": WeightedFMeasure(beta=2.0),
        }
    )
    maps, masks = torch.rand(2, 2, 1, 8, 8)
    maps.flatten(1)[:, 0], maps.flatten(1)[:, 1] = 0, 1
    several.update(maps, torch.zeros_like(masks))  # the states are equal
    several.update(0.5 * maps, masks.round())
    groups = {frozenset(group) for group in several.compute_groups.values()}
    assert groups == {
        frozenset(x.split()) for x in ("plain again", "stretched", "weighted", "recall")
    }


@pytest.mark.parametrize("kind", [SaliencyMeasures, WeightedFMeasure])
def test_a_metric_may_leave_inference_mode(kind: Any) -> None:
    probs, target = in_torch(data(3))
    metric = kind()
    with torch.inference_mode():
        metric.update(probs, target)
        metric.reset()
    metric.update(probs, target)
    assert metric.images == 3


def test_sums_do_not_drift() -> None:
    """Plain sums of float32 are off by 1e-5 after these images."""
    probs, target = torch.full((1, 1, 2, 2), 0.1), torch.zeros(1, 1, 2, 2)
    metric, other = (SaliencyMeasures(names=("mae", "f")) for _ in range(2))
    for _ in range(100):
        metric.update(probs, target)
        other(probs, target)  # which torchmetrics adds to the others
    metric.merge_state(other)
    flax = SeveralInFlax(names=("mae",))
    last = probs.movedim(1, -1).numpy(), target.movedim(1, -1).numpy()
    step = nnx.jit(lambda metric: metric.update(preds=last[0], target=last[1]))
    for _ in range(200):
        step(flax)
    for state in (metric.sum_mae, flax.sum_mae[...]):
        total = np.asarray(state, np.float64).sum(0)
        assert total == pytest.approx(200 * float(np.float32(0.1)), abs=1e-9)


def test_images_that_are_ignored_do_not_count() -> None:
    probs, target = data(3)
    target = np.where(np.arange(3)[:, None, None, None] == 2, 9, target)
    kept = in_torch((probs[:2], target[:2]))
    for kind, flax in ((SaliencyMeasures, SeveralInFlax), (WeightedFMeasure, InFlax)):
        few, all_images, in_flax = kind(), kind(ignore_index=9), flax(ignore_index=9)
        few.update(*kept)
        all_images.update(*in_torch((probs, target)))
        torch.testing.assert_close(all_images.compute(), few.compute())
        in_flax.update(preds=probs, target=target)
        expected = jax.tree.map(float, few.compute())
        assert jax.tree.map(float, in_flax.compute()) == pytest.approx(expected, abs=1e-5)


def in_a_process(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/join", rank=rank, world_size=2)
    probs, target = in_torch(data(5))
    shares = (slice(0, 4), slice(4, 5))  # unequal: a mean of means would be another number
    for how in ("mean", "sum", "none"):
        metric = WeightedFMeasure(normalize=True, reduction=how)
        for p, y in zip(probs[shares[rank]], target[shares[rank]], strict=True):
            metric.update(p[None], y[None])
        expected = weighted_fmeasure(probs, target, normalize=True, reduction=how)
        torch.testing.assert_close(metric.compute(), expected, check_dtype=False, **SINGLE)
    several, whole = SaliencyMeasures(), SaliencyMeasures(sync_on_compute=False)
    whole.update(probs, target)
    for p, y in zip(probs[shares[rank]], target[shares[rank]], strict=True):
        several.update(p[None], y[None])
    torch.testing.assert_close(several.compute(), whole.compute(), **SINGLE)
    lonely = SaliencyMeasures()  # Only the first process has images, and they are float64.
    if rank == 0:
        lonely.update(probs, target)
    torch.testing.assert_close(lonely.compute(), whole.compute(), **SINGLE)
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_processes_have_the_measure_of_all_images(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(in_a_process, (str(tmp_path),), nprocs=2)


# In Flax


def update(metric: InFlax, probs: jax.Array, target: jax.Array) -> None:
    metric.update(preds=probs, target=target)


@pytest.mark.parametrize(
    ("cuts", "update", "normalize"),
    [([], update, False), ([2, 4], update, True), ([2, 4], nnx.jit(update), False)],
)
def test_in_flax_batches_change_nothing(cuts: list[int], update: Any, normalize: bool) -> None:
    probs, target = data(6)
    metric = InFlax(normalize=normalize)
    assert jnp.isnan(metric.compute())
    for p, y in zip(batches(probs, cuts), batches(target, cuts), strict=True):
        update(metric, jnp.asarray(p), jnp.asarray(y))
    np.testing.assert_allclose(
        metric.compute(),
        weighted_fmeasure(*in_torch((probs, target)), normalize=normalize),
        **SINGLE,
    )
    metric.reset()
    assert jnp.isnan(metric.compute())
    assert metric.images[...] == 0


def test_in_flax_images_that_fill_up_a_batch_do_not_count() -> None:
    probs, target = data(6)
    filled = probs.copy()
    filled[4:] = np.nan
    mask = jnp.arange(6) < 4
    metric = nnx.MultiMetric(measure=InFlax(), loss=nnx.metrics.Average())
    metric.update(
        preds=jnp.asarray(filled),
        target=jnp.asarray(target),
        mask=mask,
        values=jnp.ones(6, jnp.float32),
    )
    found = metric.compute()
    np.testing.assert_allclose(
        found["measure"], weighted_fmeasure(*in_torch((probs[:4], target[:4]))), **SINGLE
    )
    assert found["loss"] == 1
    with pytest.raises(ValueError, match=r"mask must have shape \(6,\), one value per image, got"):
        InFlax().update(
            preds=jnp.asarray(probs), target=jnp.asarray(target), mask=jnp.ones((6, 7, 9), bool)
        )


@pytest.mark.parametrize("metric", [InFlax, SeveralInFlax])
def test_in_flax_wrong_arguments_are_named(metric: Any) -> None:
    probs, target = data(2)
    for arguments, message in (
        ({"preds": [probs]}, "probs must be one array, got list"),
        ({"preds": None}, "probs must be a JAX array, got NoneType"),
        ({"mask": [True, False]}, "mask must be one array, got list"),
        ({"mask": jnp.ones(2)}, "mask must be bool, got float"),
    ):
        with pytest.raises(TypeError, match=message):
            metric().update(**{"preds": probs, "target": target, **arguments})


def test_in_flax_spacing_may_be_an_array() -> None:
    probs, target = data(2)
    found = []
    for spacing in ((1.0, 2.0), [1, 2], np.array([1.0, 2.0])):
        metric = InFlax(spacing=spacing)  # type: ignore[arg-type]
        nnx.jit(update)(metric, jnp.asarray(probs), jnp.asarray(target))
        found.append(float(metric.compute()))
    assert len(set(found)) == 1


def test_the_flax_metric_is_a_pytree_of_its_states() -> None:
    _, state = nnx.split(InFlax(beta=0.5))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(state)} == {"float32", "int32"}


def test_in_flax_two_processes_have_the_measures_of_all_images() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = os.environ | {"JAX_PLATFORMS": "cpu"}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.measured_together", str(rank), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=settings,
        )
        for rank in (0, 1)
    ]
    probs, target = measured_together.data(5)
    whole = SeveralInFlax()
    whole.update(preds=jnp.asarray(probs), target=jnp.asarray(target))
    expected = {name: float(value) for name, value in whole.compute().items()}
    for child in children:
        out, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors[-4000:]
        assert json.loads(out.splitlines()[-1]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


# Without the packages


@pytest.mark.parametrize(
    ("module", "package", "install"),
    [
        ("saliency_losses.torch.metrics", "torchmetrics", "pip install torchmetrics"),
        ("saliency_losses.jax.metrics", "flax", "pip install flax"),
    ],
)
def test_without_its_package_an_import_says_what_to_install(
    module: str, package: str, install: str
) -> None:
    program = f"import sys; sys.modules['{package}'] = None; import {module}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        text=True,
        capture_output=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith(f"ImportError: {module} needs ")
    assert done.stderr.strip().endswith(install)
