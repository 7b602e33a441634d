"""The relation model: shapes, gradients, maps, that no label is used, that it refines priors."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reference_models.data.images import Images
from reference_models.errors import InputError
from reference_models.networks.options import RelationOptions
from reference_models.networks.torch.relations import RelationModel
from reference_models.networks.torch.system import Batch, area_resize
from reference_models.options import Options
from reference_models.papers.recipes import RECIPES
from reference_models.papers.relations import PAIRS
from reference_models.training import score
from reference_models.training.dense_crf import dense_crf
from reference_models.training.run import Shared, pair_rows, run
from reference_models.training.stopping import clock
from saliency_losses.torch import js_mutual_information, merge_by_confidence, relation_pairs
from tests.support.systems import a_batch, output_of

pytestmark = pytest.mark.usefixtures("torch_settings")


class SmallBackbone(nn.Module):
    """Two taps, at strides 2 and 8: finer and coarser than the common stride."""

    channels = (12, 24)
    strides = (2, 8)

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 12, 6, stride=2, padding=2)
        self.coarse = nn.Conv2d(12, 24, 4, stride=4)
        for layer in (self.fine, self.coarse):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(4 * images - 2).relu()
        return [fine, self.coarse(fine).relu()]


def network(**options: object) -> RelationModel:
    return RelationModel("js-mi", SmallBackbone(), RelationOptions(**options))


@pytest.mark.parametrize(("stride", "side"), [(1, 32), (2, 16), (4, 8)])
def test_the_output_is_a_feature_of_every_pixel(stride, side):
    system = network(embedding=20, stride=stride)
    batch = a_batch()
    output = output_of(system, batch)
    assert output.shape == (4, 20, side, side)
    assert system.scores(output, torch.rand(4, side, side)).shape == (4, side, side)


def test_parameter_counts():
    system = network(width=16, embedding=32, rates=(1, 3), critic=(64, 8))
    parts = {
        "backbone": (3 * 36 * 12 + 12) + (12 * 16 * 24 + 24),
        "projections": (12 + 1) * 16 + (24 + 1) * 16,
        "near": 32 * 32 + 32,
        "far": 2 * (9 * 32 * 32 + 32),
        "fusion": 3 * 32 * 32 + 32,
        "critic": (64 + 1) * 64 + (64 + 1) * 8 + (8 + 1),
    }
    for name, count in parts.items():
        assert sum(p.numel() for p in getattr(system, name).parameters()) == count, name
    assert sum(p.numel() for p in system.parameters()) == sum(parts.values())


def test_projecting_before_enlarging_is_the_same_as_after():
    system = network(stride=2)
    coarse = system.backbone(a_batch().images)[1]
    size = (16, 16)
    enlarge = nn.Upsample(size, mode="bilinear", align_corners=False)
    project = system.projections[1]
    torch.testing.assert_close(enlarge(project(coarse)), project(enlarge(coarse)))


@pytest.mark.parametrize("balance", [True, False])
def test_every_parameter_gets_a_finite_gradient(balance):
    system = network(balance=balance)
    batch = a_batch()
    value = system.loss(output_of(system, batch), batch)
    value.backward()
    assert value > 0
    for name, parameter in system.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_neither_loss_nor_maps_look_at_labels_or_chance():
    system = network()
    batch = a_batch()
    output = output_of(system, batch)
    blind = batch._replace(labels=None, rng=None)
    assert system.loss(output, batch) == system.loss(output, blind)
    maps = system.maps(output, batch)
    for name, one in system.maps(output, blind).items():
        torch.testing.assert_close(one, maps[name], rtol=0, atol=0)


def test_maps_of_an_image_do_not_depend_on_the_others():
    system = network()
    batch = a_batch()
    output = output_of(system, batch)
    maps = system.maps(output, batch)
    last = Batch(batch.images[3:], batch.labels[3:], batch.prior[3:], batch.rng)
    for name, one in system.maps(output[3:], last).items():
        torch.testing.assert_close(one, maps[name][3:])


@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 0.85, 1.0])
def test_constant_priors_give_finite_losses_gradients_and_maps(value):
    """Among them priors without a certain pixel, without one kind of pair, and without any pair."""
    system = network()
    batch = a_batch()
    batch = batch._replace(prior=torch.full_like(batch.prior, value))
    output = output_of(system, batch)
    loss = system.loss(output, batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in system.parameters())
    for one in system.maps(output, batch).values():
        assert ((one >= 0) & (one <= 1)).all()


def test_the_merged_map_takes_the_surer_of_prior_and_refined():
    system = network()
    batch = a_batch()
    maps = system.maps(output_of(system, batch), batch)
    assert list(maps) == ["merged", "refined"]
    merged = merge_by_confidence(batch.prior, maps["refined"])
    torch.testing.assert_close(maps["merged"], merged)
    assert maps["merged"].shape == batch.prior.shape
    assert ((maps["merged"] == batch.prior) | (maps["merged"] == maps["refined"])).all()


def test_the_threshold_at_test_changes_the_maps_alone():
    system, batch = network(certain=0.9), a_batch()
    output = output_of(system, batch)
    loss, maps = system.loss(output, batch), system.maps(output, batch)
    other = network(certain=0.9, certain_at_test=0.1)
    other.load_state_dict(system.state_dict())
    assert other.loss(output, batch) == loss
    assert not torch.equal(other.maps(output, batch)["refined"], maps["refined"])
    same = network(certain=0.1)
    same.load_state_dict(system.state_dict())
    expected = same.maps(output, batch)["refined"]
    torch.testing.assert_close(other.maps(output, batch)["refined"], expected, rtol=0, atol=0)


def test_each_image_has_a_model_of_its_own():
    system, batch = network(steps_per_image=2, rate_per_image=0.1, balance=False), a_batch(2)
    before = {name: value.clone() for name, value in system.state_dict().items()}
    output = output_of(system, batch)
    with torch.no_grad():
        maps = system.maps(output, batch)
    for name, value in system.state_dict().items():
        assert torch.equal(value, before[name]), name

    for i in range(2):
        one = batch._replace(images=batch.images[i : i + 1], prior=batch.prior[i : i + 1])
        learner = network(balance=False)
        learner.load_state_dict(before)
        own = [p for name, p in learner.named_parameters() if not name.startswith("backbone.")]
        for _ in range(2):
            loss = learner.loss(output_of(learner, one), one)
            gradients = torch.autograd.grad(loss, own)
            norm = sum((g**2).sum() for g in gradients) ** 0.5
            with torch.no_grad():
                for parameter, gradient in zip(own, gradients, strict=True):
                    parameter -= 0.1 * gradient / max(norm, 1)
        expected = learner.maps(output_of(learner, one), one)["merged"][0]
        torch.testing.assert_close(maps["merged"][i], expected.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [
    {"certain_at_test": 1.5}, {"steps_per_image": -1}, {"rate_per_image": 0.0},
])  # fmt: skip
def test_bad_options_are_refused_by_name(options: dict):
    (name,) = options
    with pytest.raises(InputError, match=f"{name} must"):
        RelationOptions(**options)


def test_the_loss_curve_of_balanced_pairs_is_one_of_the_mutual_information():
    system, batch = network(), a_batch()
    output = output_of(system, batch)
    prior = area_resize(batch.prior, output.shape[-2:])
    joint, mask = relation_pairs(prior, foreground=0.8, background=0.3)
    estimate = js_mutual_information(system.scores(output, prior), joint, mask=mask)
    options = Options(recipe="relations", scale="small")
    one = Images(("",), *(np.zeros((1, 2, 2, *c), np.uint8) for c in ((3,), (), ())))
    one.priors[0] = [[255, 230], [229, 0]]  # 230/255 is above 0.9, 229/255 below.
    one.labels[0, 0, 0] = 1
    rows = pair_rows(options, one, [system.loss(output, batch).item()] * 20 + [0.0])[PAIRS]
    assert rows["first tenth"]["mutual_information"] == pytest.approx(estimate.item(), abs=1e-6)
    assert rows["last tenth"]["mutual_information"] > estimate.item()
    assert rows["certain foreground"] == {"true_foreground": 0.5}
    assert rows["approximate foreground"] == {"true_foreground": pytest.approx(1 / 3)}
    pooled = pair_rows(Options(recipe="relations-pooled", scale="small"), one, [1.0])[PAIRS]
    assert "first tenth" not in pooled
    assert pair_rows(Options(recipe="anchors", scale="small"), one, [1.0]) == {}


def test_a_network_without_training_is_measured(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(score, "dense_crf", lambda images, maps: maps >= 0.25)
    short = replace(RECIPES["relations-per-image"], options={"steps_per_image": 1})
    monkeypatch.setitem(RECIPES, "relations-per-image", short)
    options = Options(
        recipe="relations-per-image",
        scale="small",
        data="scenes",
        size=32,
        train_images=8,
        test_images=2,
        out=tmp_path / "run",
    )
    run(options, Shared(), clock())
    report = json.loads((tmp_path / "run/run.json").read_text())
    (test, maps), (pairs, shares) = report["measures"].items()
    assert test == "scenes, generated"
    assert list(maps) == ["prior", "prior, cut at 1/2", "merged", "refined", "dense CRF"]
    assert maps["dense CRF"]["mae"] not in (maps["prior"]["mae"], maps["merged"]["mae"])
    assert (pairs, report["loss_curve"]) == (PAIRS, [])
    assert set(shares) == {"certain foreground", "approximate foreground"}
    assert not (tmp_path / "run/loss.png").exists()
    assert 0 < report["backbone_seconds"]["8"] < report["inference_seconds"]["8"]


def test_the_dense_crf_follows_edges_and_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    images = np.zeros((1, 16, 16, 3), np.uint8)
    with pytest.raises(InputError, match="pip install pydensecrf2"):
        dense_crf(images, np.zeros((1, 16, 16)))
    monkeypatch.undo()
    pytest.importorskip("pydensecrf.densecrf")
    images[:, :, 8:] = 255
    prior = np.full((1, 16, 16), 0.2)
    prior[:, :, 6:] = 0.6  # Reaches two columns into the dark half.
    refined = dense_crf(images, prior)
    assert (refined.shape, refined.dtype) == ((1, 16, 16), np.float32)
    np.testing.assert_array_equal(refined[0] > 0.5, images[0, ..., 0] > 0)


def test_half_precision_outputs_are_computed_in_float32():
    system = network()
    batch = a_batch()
    output = output_of(system, batch).bfloat16()
    assert system.loss(output, batch).dtype == torch.float32
    assert system.maps(output, batch)["merged"].dtype == torch.float32


def test_training_on_priors_alone_refines_those_of_scenes_not_seen():
    # Few scenes or many steps, and the critic learns the priors themselves by heart.
    train, test = a_batch(200, 48), a_batch(40, 48, seed=1)
    system = network()
    optimizer = torch.optim.Adam(system.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(80):
        chosen = torch.randperm(200, generator=rng)[:16]
        batch = Batch(train.images[chosen], None, train.prior[chosen], rng)
        optimizer.zero_grad()
        system.loss(output_of(system, batch), batch).backward()
        optimizer.step()
    with torch.no_grad():
        maps = system.maps(output_of(system, test), test)

    def error(saliency: Tensor) -> float:
        return float((saliency - test.labels).abs().mean())

    # Ten seeds: 0.72 to 0.88 of the cut prior's error, which is 0.48 of the prior's.
    cut = (test.prior >= 0.5).float()
    assert error(maps["merged"]) < error(cut) < error(test.prior)
