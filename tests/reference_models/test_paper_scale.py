"""The papers' own training: optimizers, schedules, stages, augmentation, and what a run will cost.

test_paper_networks.py and test_twins.py have the networks of this scale.
"""

from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from reference_models.data.images import Images
from reference_models.errors import InputError
from reference_models.networks.flax import system as flax_system
from reference_models.networks.options import BLOCKS, PAPER_NETWORKS, Backbone
from reference_models.networks.torch import system as torch_system
from reference_models.networks.torch.backbones import standardized
from reference_models.options import Options, recipes_at
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import SGD, Adam, Augmentation, OneCycle, Scale, Stages
from reference_models.training import cost, flax_trainer, loop, torch_trainer
from reference_models.training.augmentation import Draw, draw_step
from reference_models.training.frameworks import new_trainer
from reference_models.training.run import load_data
from reference_models.training.trainer import Trainer, holds_backbone, learning_rate
from tests.support.paper_networks import FEW, shrink_backbones

pytestmark = pytest.mark.usefixtures("torch_settings")

BACKENDS = ("torch", "jax")


def plan_of(recipe: str) -> Scale:
    return RECIPES[recipe].at("paper")


# As printed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "rates"),
    [
        ("menet-ce", {0: 0.1, 109_999: 0.1}),  # M §3.2
        ("anchors", {0: 1e-3, 299_999: 1e-3}),  # L §4.3
        ("relations", {0: 5e-3, 10_000: 5e-3 * 0.5**0.9, 19_999: 5e-3 / 20_000**0.9}),  # R §5.3
        ("zoomout-af", {0: 3e-4, 1999: 3e-4, 2000: 1e-4, 2999: 1e-4, 3000: 1e-5, 6499: 1e-5}),
    ],
)
def test_the_rates_are_those_that_the_papers_print(recipe: str, rates: dict[int, float]):
    plan = plan_of(recipe)
    assert plan.steps == max(rates) + 1
    assert {step: learning_rate(plan, step) for step in rates} == pytest.approx(rates)


def test_the_rest_is_what_the_papers_print():
    assert plan_of("menet-ce").optimizer == SGD(momentum=0.9, weight_decay=1e-8)
    assert (plan_of("menet-ce").batch, plan_of("anchors").batch) == (5, 1)
    relations = plan_of("relations")
    assert relations.rate * relations.backbone_rate == pytest.approx(5e-4)
    zoomout = plan_of("zoomout-af")
    assert isinstance(zoomout.schedule, Stages)
    assert [stage.epochs for stage in zoomout.schedule.stages] == [8, 4, 14]
    assert zoomout.batch * zoomout.steps == 26 * 2500
    assert [holds_backbone(zoomout, step) for step in (0, 2999, 3000, 6499)] == [1, 1, 0, 0]
    assert {plan_of(name).size for name in ("menet-ce", "zoomout-ce")} == {224}
    assert plan_of("fcn-cas-clean").backbone.standardize == "image"  # C §4.2
    assert not plan_of("fcn-cas-clean").flips
    relation_models = [name for name in recipes_at("paper") if name.startswith("relations")]
    assert "relations-per-image" in relation_models
    for name in relation_models:  # Binary cross-entropy over all pairs (R eq. 6 and §4.2).
        assert not RECIPES[name].network(plan_of(name)).options.balance


def test_a_recipe_without_this_scale_says_which_have_it():
    with pytest.raises(InputError, match=r"zoomout-dice has no paper scale; .* zoomout-ce, "):
        Options(recipe="zoomout-dice", scale="paper")
    with pytest.raises(InputError, match="relations-vgg has no medium scale; choose --scale pap"):
        Options(recipe="relations-vgg")
    assert {RECIPES[name].system for name in recipes_at("paper")} == {
        "zoomout", "fully-convolutional", "menet", "anchors", "relations",
    }  # fmt: skip


def test_weights_that_do_not_come_with_the_code_leave_the_recipe_as_it_is(tmp_path):
    file = tmp_path / "weights.safetensors"
    assert Options(recipe="zoomout-af", scale="paper", backbone_weights=file).is_unmodified
    assert not Options(recipe="relations", scale="paper", backbone_weights=file).is_unmodified


# Augmentation ------------------------------------------------------------------------------------


def test_changes_of_colour_follow_from_seed_and_step():
    plan = Scale(size=16, steps=9, batch=4, rate=1.0, crop=8, augmentation=Augmentation())
    first, again, next_ = (draw_step(4, 16, plan, 0, step) for step in (0, 0, 1))
    plain = draw_step(4, 16, replace(plan, augmentation=None), 0, 0)
    for name in ("indices", "mirrored", "corners"):  # Their bits are those of before.
        np.testing.assert_array_equal(getattr(first, name), getattr(plain, name))
    assert (first.seed, plain.recoloring) == (plain.seed, None)
    assert first.recoloring.noise.shape == (4, 8, 8, 3)
    for one, same, other in zip(first.recoloring, again.recoloring, next_.recoloring, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, same)
        assert (one != other).all()


def test_grey_keeps_its_contrast_and_takes_a_colour():
    """At ½ contrast has no effect, so that what remains is the factor of each channel."""
    ranges = Augmentation(contrast=(-0.8, 0.4), color=(0.5, 2.0), noise=0.0)
    plan = Scale(size=4, steps=1, batch=64, rate=1.0, augmentation=ranges)
    gain, offset, noise = draw_step(64, 4, plan, 0, 0).recoloring
    assert not noise.any()
    factors = 2 * (gain / 2 + offset)
    assert 0.5 <= factors.min() < 0.7
    assert 1.7 < factors.max() <= 2
    contrast = gain / factors
    np.testing.assert_allclose(contrast, contrast[..., :1].repeat(3, axis=-1), rtol=1e-5)
    assert 0.2 <= contrast.min() < 0.3
    assert 1.3 < contrast.max() <= 1.4 + 1e-6


def test_without_flips_no_image_is_mirrored():
    plan = Scale(size=4, steps=1, batch=64, rate=1.0, flips=False)
    assert not draw_step(64, 4, plan, 0, 0).mirrored.any()


def test_an_image_is_standardised_over_all_its_values():
    images = torch.rand(2, 3, 8, 8) * torch.tensor([1.0, 0.2]).view(2, 1, 1, 1)
    x = standardized(images)
    torch.testing.assert_close(x.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.var(dim=(1, 2, 3), correction=0), torch.ones(2))
    assert not standardized(torch.full((1, 3, 4, 4), 0.3)).any()


def test_crops_are_enlarged_alike_in_both_frameworks():
    rng = np.random.default_rng(0)
    images, labels, prior, counted = (
        rng.random((2, 12, 12, 3), np.float32),
        rng.integers(0, 2, (2, 12, 12)),
        rng.random((2, 12, 12), np.float32),
        rng.random((2, 12, 12)) < 0.8,
    )
    theirs = torch_trainer.enlarged(
        torch_system.Batch(
            torch.from_numpy(images).permute(0, 3, 1, 2),
            torch.from_numpy(labels),
            torch.from_numpy(prior),
            torch.Generator(),
            counted=torch.from_numpy(counted),
        ),
        (16, 16),
    )
    ours = flax_trainer.enlarged(
        flax_system.Batch(
            images,
            jnp.asarray(labels),
            jnp.asarray(prior),
            jax.random.key(0),
            counted=jnp.asarray(counted),
        ),
        (16, 16),
    )
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert theirs.counted.shape == (2, 16, 16)
    np.testing.assert_array_equal(ours.counted, theirs.counted)
    np.testing.assert_allclose(ours.images, theirs.images.permute(0, 2, 3, 1), atol=1e-6)
    np.testing.assert_allclose(ours.prior, theirs.prior, atol=1e-6)
    plan = Scale(size=16, crop=12, steps=1, batch=2, rate=1.0, augmentation=Augmentation())
    assert plan_of("menet-ce").enlarge_crops
    for enlarge, side in ((False, 12), (True, 16)):
        draw = draw_step(2, 16, replace(plan, enlarge_crops=enlarge), 0, 0)
        assert draw.recoloring.noise.shape == (2, side, side, 3)


# Training in both frameworks ---------------------------------------------------------------------


# A recipe for each network of `PAPER_NETWORKS`.
STEPPED = {
    "menet": "menet-metric-hard-negatives",
    "fcn": "fcn-cas-clean",
    "deeplab": "deeplab-cas-clean",
    "zoomout": "zoomout-af",
    "anchors": "anchors",
    "relations": "relations",
    "relations-vgg": "relations-vgg",
}


TWO_BLOCKS = Backbone("vgg16", BLOCKS["vgg16"][:2])


@pytest.fixture
def tiny(monkeypatch):
    """The paper's training of its network, with few channels, on eight scenes of 32 px."""
    monkeypatch.setattr(torch_trainer, "computes_in_bfloat16", lambda: False)
    shrink_backbones(monkeypatch)

    def shrunk(network: str, backend: str, **changes: object) -> Options:
        recipe = RECIPES[STEPPED[network]]
        plan = recipe.at("paper")
        options = {**plan.options, **FEW[network]}
        if network == "anchors":
            options["flip"] = 0.0  # The frameworks draw different noise.
        backbone = plan.backbone
        if network == "relations":  # MobileNetV2 has no smaller form.
            backbone = replace(backbone, taps=(0, 3))
        plan = replace(
            plan,
            size=32, crop=plan.crop and 24, steps=4, batch=min(plan.batch, 4), train_images=8,
            test_images=2, backbone=backbone, options=options,
        )  # fmt: skip
        plan = replace(plan, **changes)
        monkeypatch.setitem(RECIPES, recipe.name, replace(recipe, paper_scale=plan))
        return Options(
            recipe=recipe.name, backend=backend, scale="paper", data="scenes", device="cpu"
        )

    return shrunk


def ready(options: Options) -> Trainer:
    trainer = new_trainer(options, imagenet=False)
    trainer.set_training_images(load_data(options).train)
    return trainer


def draws(options: Options) -> list[Draw]:
    return [draw_step(8, 32, options.plan, 0, step) for step in range(options.plan.steps)]


@pytest.mark.parametrize("network", PAPER_NETWORKS)
def test_both_frameworks_take_the_papers_steps(network: str, tiny):
    """With the optimizer, rates, schedule, crops and augmentation of the paper."""
    assert plan_of(STEPPED[network]).backbone == PAPER_NETWORKS[network].backbone
    ours, theirs = (ready(tiny(network, backend)) for backend in BACKENDS)
    plan, begun = ours.plan, ours.weights()
    theirs.load(begun)
    for draw in draws(tiny(network, "torch")):
        losses = []
        for trainer in (ours, theirs):
            before = backbone(trainer)
            losses.append(trainer.step(draw))
            held = np.array_equal(backbone(trainer), before)
            assert held == (plan.backbone is None or holds_backbone(plan, draw.step))
        assert losses[0] == pytest.approx(losses[1], rel=1e-4, abs=1e-6)
    weights, learnt = ours.weights(), []
    for name, array in theirs.weights().items():
        moved = np.abs(weights[name] - begun[name]).mean()
        # Adam's first steps are as long where a gradient is but rounding.
        assert np.abs(weights[name] - array).mean() <= 0.02 * moved + 1e-8, name
        if ".running_" not in name:
            learnt.append(moved > 0)
    assert np.mean(learnt) > 0.9  # Few ReLUs are dead.


def backbone(trainer: Trainer) -> np.ndarray:
    """All weights of the backbone, one after the other."""
    weights = trainer.weights().items()
    own = [array.ravel() for name, array in weights if name[:9] == "backbone."]
    return np.concatenate(own) if own else np.zeros(0)


@pytest.mark.parametrize(
    ("backend", "optimizer"),
    [("torch", Adam()), ("torch", SGD(momentum=0.9, weight_decay=1e-4)), ("jax", Adam())],
)
def test_a_run_goes_on_bit_for_bit_from_any_stage(backend: str, optimizer, tiny, monkeypatch):
    options = tiny("zoomout", backend, backbone=TWO_BLOCKS, optimizer=optimizer)
    assert [holds_backbone(options.plan, step) for step in range(4)] == [True, True, False, False]
    straight, images = ready(options), load_data(options).train
    # In JAX the state is all that a step sees, and a second trainer would compile it again.
    resumed = straight if backend == "jax" else ready(options)
    states = [straight.state()]
    for draw in draws(options):
        straight.step(draw)
        states.append(straight.state())
    monkeypatch.setattr(cost, "LONG", 1)
    # Before the first step, after one of a frozen stage, and after one of the last stage.
    for stopped in (0, 1, 3):
        resumed.restore(states[stopped])
        cost.expected(resumed, images, 0, stopped, lambda: False)
        for draw in draws(options)[stopped:]:
            resumed.step(draw)
        for name, array in resumed.state().items():
            np.testing.assert_array_equal(array, states[-1][name], err_msg=name)
    damaged = dict(states[-1])
    del damaged[max(name for name in damaged if name.startswith("optimizer/"))]
    with pytest.raises(InputError, match=r"arrays of the optimizer: .* missing"):
        resumed.restore(damaged)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frozen_backbone_sees_the_changed_images(backend: str, tiny):
    """Without changes, its features are those that are stored otherwise."""
    plain = tiny(
        "zoomout", backend, backbone=TWO_BLOCKS, backbone_rate=0.0, schedule=OneCycle(), rate=0.01
    )
    still = Augmentation(contrast=(0, 0), color=(1, 1), noise=0.0)
    changes = (None, still) if backend == "jax" else (None, still, Augmentation())
    losses = []
    for augmentation in changes:
        changed = replace(plain.plan, augmentation=augmentation)
        options = tiny("zoomout", backend, **vars(changed))
        losses.append(ready(options).step(draws(options)[0]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)  # Stored in half precision.
    assert all(other != pytest.approx(losses[0], rel=1e-3) for other in losses[2:])


# Costs -------------------------------------------------------------------------------------------


class Watched:
    """A trainer whose steps only take time: their first of each kind longer than the others."""

    def __init__(self, plan: Scale, clock: list[float]) -> None:
        self.plan, self.device, self.clock = plan, "cpu", clock
        self.kinds: list[bool] = []

    def step(self, draw: Draw, images: None) -> None:
        kind = holds_backbone(self.plan, draw.step)
        self.clock[0] += (2.0 if kind else 9.0) * (1 if kind in self.kinds else 30)
        self.kinds.append(kind)

    def share(self, count: int) -> range:
        return range(count)

    def state(self) -> dict[str, list[bool]]:
        return {"kinds": [*self.kinds]}

    def restore(self, state: dict[str, list[bool]]) -> None:
        self.kinds = state["kinds"]


@pytest.fixture
def watched(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(cost.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(cost, "hardware", lambda device: "a GPU")
    return lambda plan: Watched(plan, clock)


def test_the_cost_of_all_parts_is_said_before_the_first_step(watched):
    trainer = watched(plan_of("zoomout-af"))
    blank = np.zeros((10, 8, 8), np.uint8)
    images = Images(tuple("abcdefghij"), np.stack([blank] * 3, axis=-1), blank, blank)

    def said(first: int) -> str | None:
        return cost.expected(trainer, images, 0, first, lambda: False)

    assert said(0) == (
        "the training will take about 10 hours on a GPU: 3,000 steps that keep the backbone frozen "
        "of 2 s and 3,500 steps that tune it of 9 s; measuring the test images comes on top"
    )
    assert said(4500).partition(";")[0] == (  # Of a run that is resumed.
        "the training will take about 5 hours on a GPU: 2,000 steps of 9 s"
    )
    assert not trainer.kinds
    assert trainer.clock == [31 * 2.0 + 31 * 9.0 + 31 * 9.0]
    asked = iter([False, False, False, True])
    assert cost.expected(trainer, images, 0, 0, lambda: next(asked)) is None
    assert not trainer.kinds


def test_short_trainings_say_nothing(watched):
    trainer = watched(RECIPES["zoomout-af"].small)
    assert cost.expected(trainer, None, 0, 0, lambda: False) is None
    assert trainer.clock == [0.0]  # They are not even tried.
    assert cost.line(Counter({False: 290}), {False: 2.0}, "a GPU") is None
    assert [cost.duration(seconds) for seconds in (600, 7200, 3 * 86400)] == [
        "10 minutes", "2 hours", "3 days",
    ]  # fmt: skip


def test_the_cost_is_printed_before_the_training(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cost, "LONG", 1)
    monkeypatch.setattr(cost, "WORTH_SAYING", 0)
    options, events = tiny("relations", "torch"), []
    trainer = ready(options)
    restore = trainer.restore
    monkeypatch.setattr(trainer, "restore", lambda state: restore(state) or events.append("said"))
    step = trainer.step
    monkeypatch.setattr(trainer, "step", lambda draw, read: events.append(draw.step) or step(draw))
    loop.fit(trainer, load_data(options).train, options, tmp_path / "checkpoint", lambda: None)
    assert events == [0, 0, "said", 0, 1, 2, 3]
    assert capsys.readouterr().out.startswith("the training will take about 0 minutes on ")
