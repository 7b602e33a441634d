"""The relation model: shapes, gradients, maps, that no label is used, that it refines priors."""

import pytest
import torch
from torch import Tensor, nn

from reference_models.networks.options import RelationOptions
from reference_models.networks.torch.relations import RelationModel
from reference_models.networks.torch.system import Batch
from saliency_losses.torch import merge_by_confidence
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
