"""Training in JAX: one compiled step, on one device or several, and weights for both frameworks.

What holds for both frameworks stands in test_reference_models.py.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from reference_models.data.scenes import scenes
from reference_models.errors import InputError
from reference_models.files import read_about, read_arrays
from reference_models.networks.flax.build import build
from reference_models.networks.flax.system import Batch
from reference_models.networks.options import Backbone
from reference_models.options import Options
from reference_models.papers.recipes import RECIPES
from reference_models.training.augmentation import draw_step
from reference_models.training.flax_trainer import Parts, is_learnt, merged, optimizer_of
from reference_models.training.frameworks import new_trainer
from reference_models.training.run import load_data
from reference_models.training.trainer import one_cycle
from tests.support.host_devices import host_devices
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("torch_settings")


def small(recipe: str = "menet-ce", **changes: object) -> Options:
    return Options(
        **(
            {
                "recipe": recipe,
                "backend": "jax",
                "scale": "small",
                "data": "scenes",
                "size": 32,
                "train_images": 8,
                "test_images": 4,
                "steps": 5,
                "batch": 4,
            }
            | changes
        )
    )


def draws(options: Options, count: int) -> list:
    side = options.plan.size
    return [draw_step(8, side, options.plan, options.seed, step) for step in range(count)]


def test_one_program_serves_every_epoch_and_a_step_takes_the_place_of_the_one_before():
    options = small()
    trainer, data = new_trainer(options), load_data(options)
    trainer.set_training_images(data.train)
    before = jax.tree.leaves((trainer.parts.learnt, trainer.parts.running, trainer.moments))
    for draw in draws(options, 5):  # Two steps an epoch.
        trainer.step(draw)
        assert all(leaf.is_deleted() for leaf in before)
    assert trainer._step._cache_size() == 1
    for count in (8, 5, 6):
        assert len(trainer.maps(data.train.take(range(count)))["saliency head"]) == count
    assert trainer._maps._cache_size() == 1


def test_the_rate_is_the_schedules(monkeypatch):
    """Adam's first steps of a constant gradient are as long as the rate."""
    plan = replace(RECIPES["menet-ce"].small, steps=4, rate=0.1)
    tuned = replace(plan, backbone_rate=0.5)
    learnt = nnx.State(
        {
            "head": {"w": nnx.Param(jnp.ones(3, jnp.float32))},
            "backbone": {"w": nnx.Param(jnp.ones(3, jnp.float32))},
        }
    )
    for schedule, share in ((plan, 1.0), (tuned, 0.5)):
        optimizer = optimizer_of(schedule)
        moments = optimizer.init(learnt)
        for step in range(4):
            updates, moments = optimizer.update(learnt, moments, learnt)
            rate = one_cycle(step, 4, 0.1)
            assert float(updates["head"]["w"][...][0]) == pytest.approx(-rate, rel=1e-4)
            assert float(updates["backbone"]["w"][...][0]) == pytest.approx(-share * rate, rel=1e-4)


@pytest.mark.parametrize("trained", ["torch", "jax"])
def test_weights_of_either_framework_serve_both(trained: str):
    """With running statistics, which the untrained network has at 0 and 1."""
    options = small(backend=trained)
    images = load_data(options).train
    one = new_trainer(options)
    one.set_training_images(images)
    for draw in draws(options, 3):
        one.step(draw)
    other = new_trainer(replace(options, backend="jax" if trained == "torch" else "torch", seed=1))
    other.load(one.weights())
    maps, expected = other.maps(images), one.maps(images)
    for name in expected:
        np.testing.assert_allclose(maps[name], expected[name], atol=1e-4)


def test_the_main_map_comes_first():
    """As the system names them: JAX sorts the keys of a dict."""
    options = small("anchors", archives=ROOT / "reference_models/weights")
    trainer = new_trainer(options, imagenet=False)
    assert list(trainer.maps(load_data(options).train.take(range(2)))) == ["T = 5", "T = 1"]


def test_weights_of_another_network_are_refused():
    with pytest.raises(InputError, match=r"do not fit: .* missing: .*; .* another shape: "):
        new_trainer(small("menet-ce")).load(new_trainer(small("menet-ce-plain")).weights())


@pytest.mark.parametrize(
    "name",
    [
        "zoomout-ce",
        "zoomout-exact",
        "fcn-cas-swapped",
        "deeplab-ce-clean",
        "menet-metric",
        "metric-head-metric-hard-negatives",
        "anchors",
        "anchors-fc",
        "relations",
        "scenes-js-mi",
    ],
)
def test_every_system_trains_in_half_precision(name: str):
    """bfloat16 as on a GPU: all that leaves a system is float32 and finite."""
    recipe = RECIPES[name]
    backbone = recipe.small.backbone and Backbone("mobilenet_v2", (1, 3))
    plan = replace(recipe.small, backbone=backbone)
    graph, *parts = nnx.split(
        build(recipe.network(plan), nnx.Rngs(0)), partial(is_learnt, False), nnx.BatchStat, ...
    )
    images, labels, prior = scenes(2, 32, seed=0)
    batch = Batch(
        jnp.asarray(images / 255, jnp.float32),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(prior, jnp.float32),
        jax.random.key(0),
    )

    @jax.jit
    def step(learnt: nnx.State):
        def objective(learnt: nnx.State):
            system = merged(graph, jnp.bfloat16, Parts(learnt, *parts[1:]))
            system.train()
            output = system(system.backbone(batch.images))
            return system.loss(output, batch), system.maps(output, batch)

        return jax.value_and_grad(objective, has_aux=True)(learnt)

    (loss, maps), gradient = step(parts[0])
    assert (loss.dtype, bool(jnp.isfinite(loss))) == (jnp.float32, True)
    for leaf in jax.tree.leaves(gradient):
        assert leaf.dtype == jnp.float32
        assert jnp.isfinite(leaf).all()
    for name, one in maps.items():
        assert one.dtype == jnp.float32, name


# Several devices, several processes --------------------------------------------------------------


def train(recipes: Sequence[str], out: Path, devices: int, processes: int = 1) -> None:
    """Each recipe into a file of `out`, all in the same processes: starting takes seconds."""
    out.mkdir()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    children = []
    for rank in range(processes):
        environment = os.environ | host_devices(devices)
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        if processes > 1:
            environment |= {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": str(processes),
                "JAX_PROCESS_ID": str(rank),
            }
        children.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.flax_runs", out, *recipes],
                cwd=ROOT,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    for child in children:
        _, errors = child.communicate(timeout=400)
        assert child.returncode == 0, errors
        if (count := devices * processes) > 1:
            refused = f"a batch of 6 cannot be split evenly over {count} devices"
            assert errors.count(refused) == len(recipes), errors


def alike(several: dict[str, np.ndarray], one: dict[str, np.ndarray]) -> None:
    assert several.keys() == one.keys()
    np.testing.assert_allclose(several["losses"], one["losses"], rtol=1e-3)
    for name in one:
        if name.startswith("weights/"):
            apart = np.abs(several[name] - one[name])
            # Adam's first steps are as long where a gradient is but rounding.
            assert apart.max() < 1e-4 or apart.mean() < 2e-5, (name, apart.max(), apart.mean())


@pytest.mark.slow
def test_several_devices_and_processes_train_as_one_device_does(tmp_path: Path):
    """With flipped labels, batch normalisation and crops; and no image travels."""
    recipes = ("deeplab-cas-swapped", "anchors", "menet-metric")
    train(recipes, tmp_path / "one", devices=1)
    train(recipes, tmp_path / "four", devices=4)
    train(["anchors"], tmp_path / "two of two", devices=2, processes=2)
    for folder, names in (("four", recipes), ("two of two", ["anchors"])):
        for name in names:
            file = f"{name}.safetensors"
            alike(read_arrays(tmp_path / folder / file), read_arrays(tmp_path / "one" / file))
            about = read_about(tmp_path / folder / file)
            assert about["devices"] == 4
            assert folder != "four" or about["gathered"] == [], name
