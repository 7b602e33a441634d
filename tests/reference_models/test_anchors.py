"""The anchor network: shapes, gradients, region selection, maps, and that it promotes priors."""

from dataclasses import dataclass
from itertools import islice
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from reference_models.errors import InputError
from reference_models.networks.options import AnchorLoss, AnchorOptions
from reference_models.networks.torch.anchors import AnchorNetwork
from reference_models.networks.torch.system import Batch
from tests.support.systems import a_batch, output_of

pytestmark = pytest.mark.usefixtures("torch_settings")

REGIONS = ("conv", "fc")


class SmallBackbone(nn.Module):
    """Three taps, at strides 1, 4 and 8: finer than the common stride, at it and coarser."""

    channels = (8, 16, 24)
    strides = (1, 4, 8)

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 8, 5, padding=2)
        self.middle = nn.Conv2d(8, 16, 4, stride=4)
        self.coarse = nn.Conv2d(16, 24, 2, stride=2)
        for layer in (self.fine, self.middle, self.coarse):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(4 * images - 2).relu()
        middle = self.middle(fine).relu()
        return [fine, middle, self.coarse(middle).relu()]


@dataclass
class Taps:
    """The attributes of a backbone from which a network is built."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]


def network(loss: AnchorLoss = "anchors", **options: object) -> AnchorNetwork:
    return AnchorNetwork(loss, SmallBackbone(), AnchorOptions(**options))


@pytest.mark.parametrize(("regions", "channels"), [("conv", 12 + 12), ("fc", 12 + 3 * 6)])
def test_the_output_holds_the_pixel_embedding_and_what_is_averaged_over_regions(regions, channels):
    batch = a_batch()
    for stride, side in ((1, 32), (2, 16), (4, 8)):
        system = network(width=6, embedding=12, stride=stride, region_embedding=regions)
        output = output_of(system, batch)
        assert output.shape == (4, channels, side, side)
        assert system.anchors(output, torch.ones(4, side, side)).shape == (4, 2, 12)


def test_parameter_counts_of_the_papers_embedding():
    """L §3.3: five blocks of VGG16, C = 64 and D = 512, subpixel convolution to the input size."""
    blocks = Taps(channels=(64, 128, 256, 512, 512), strides=(1, 2, 4, 8, 8))
    with torch.device("meta"):
        system = AnchorNetwork("anchors", blocks, AnchorOptions(64, 512, stride=1))
    upsampling = sum(
        9 * channels * 64 * stride**2 + 64 * stride**2
        for channels, stride in zip(blocks.channels, blocks.strides, strict=True)
    )
    embedding = (9 * 5 * 64 * 512 + 512) + (512 * 512 + 512)
    total = sum(p.numel() for p in system.parameters())
    assert total == upsampling + 2 * embedding


@pytest.mark.parametrize("regions", REGIONS)
@pytest.mark.parametrize("loss", ["anchors", "ce"])
def test_every_parameter_gets_a_finite_gradient(loss, regions):
    system = network(loss, region_embedding=regions)
    batch = a_batch()
    value = system.loss(output_of(system, batch), batch)
    value.backward()
    assert value > 0
    for name, parameter in system.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("regions", REGIONS)
@pytest.mark.parametrize("label", [0, 1])
def test_images_of_one_region_give_finite_gradients(regions, label):
    batch = a_batch()
    batch = batch._replace(labels=torch.full_like(batch.labels, label))
    system = network(region_embedding=regions, flip=0.0)
    system.loss(output_of(system, batch), batch).backward()
    assert all(p.grad.isfinite().all() for p in system.parameters())


def test_flips_disturb_the_anchors_but_not_the_target():
    batch = a_batch()
    flipped, clean = (network(flip=flip) for flip in (1.0, 0.0))
    flipped.load_state_dict(clean.state_dict())
    output = output_of(clean, batch)
    pixels, regions = output[:, :32], output[:, 32:]
    labels = torch.nn.functional.avg_pool2d(batch.labels.float()[:, None], 4)[:, 0] >= 0.5
    means = torch.stack(
        [
            torch.stack([region[:, ~inside].mean(dim=1), region[:, inside].mean(dim=1)])
            for region, inside in zip(regions, labels, strict=True)
        ]
    )
    distances = (pixels[:, None] - means[..., None, None]).norm(dim=2)
    for system, logits in ((clean, -distances), (flipped, -distances.flip(1))):
        expected = torch.nn.functional.cross_entropy(logits, labels.long())
        torch.testing.assert_close(system.loss(output, batch), expected)


def test_hard_selection_takes_twice_the_mean_and_is_never_empty():
    system = network()
    prior = torch.tensor([[[0.0, 0.1], [0.2, 0.5]], [[0.6, 0.7], [0.8, 0.9]]])
    expected = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]]])
    torch.testing.assert_close(system.select(prior), expected)
    assert system.select(torch.zeros(1, 2, 2)).all()
    assert network(selection="soft").select(prior) is prior


@pytest.mark.parametrize("selection", ["hard", "soft"])
@pytest.mark.parametrize("regions", REGIONS)
def test_maps_lie_in_0_1_for_any_prior(regions, selection):
    system = network(region_embedding=regions, selection=selection)
    batch = a_batch()
    output = output_of(system, batch)
    empty, full = torch.zeros_like(batch.prior), torch.ones_like(batch.prior)
    for prior in (batch.prior, empty, full, 0.3 * full, batch.labels.float()):
        maps = system.maps(output, batch._replace(prior=prior))
        assert list(maps) == ["T = 5", "T = 1"]
        for one in maps.values():
            assert one.shape == batch.labels.shape
            assert ((one >= 0) & (one <= 1)).all()


@pytest.mark.parametrize("loss", ["anchors", "ce"])
def test_maps_do_not_depend_on_labels_other_images_or_chance(loss):
    system = network(loss)
    batch = a_batch()
    output = output_of(system, batch)
    maps = system.maps(output, batch)
    blind = batch._replace(labels=None, rng=None)
    for name, one in system.maps(output, blind).items():
        torch.testing.assert_close(one, maps[name], rtol=0, atol=0)
    last = Batch(batch.images[3:], batch.labels[3:], batch.prior[3:], batch.rng)
    for name, one in system.maps(output[3:], last).items():
        torch.testing.assert_close(one, maps[name][3:])


def test_later_maps_are_means_of_the_results():
    """L eq. 5 unrolled for T = 2, soft selection: half the first result, half the second."""
    system = network(steps=2, selection="soft", stride=1)
    batch = a_batch()
    output = output_of(system, batch)
    two = system.maps(output, batch)
    again = system.maps(output, batch._replace(prior=two["T = 1"]))
    torch.testing.assert_close(two["T = 2"], (two["T = 1"] + again["T = 1"]) / 2)


def test_all_rounds_are_those_of_shorter_promotions():
    batch = a_batch()
    system = network(steps=3, all_rounds=True)
    output = output_of(system, batch)
    maps = system.maps(output, batch)
    assert list(maps) == ["T = 3", "T = 1", "T = 2"]
    for steps in (1, 2, 3):
        shorter = network(steps=steps)
        shorter.load_state_dict(system.state_dict())
        last = f"T = {steps}"
        torch.testing.assert_close(shorter.maps(output, batch)[last], maps[last], rtol=0, atol=0)


def test_half_precision_outputs_are_computed_in_float32():
    system = network(region_embedding="fc")
    batch = a_batch()
    output = output_of(system, batch).bfloat16()
    assert system.loss(output, batch).dtype == torch.float32
    assert system.maps(output, batch)["T = 5"].dtype == torch.float32


def test_bad_options_are_named():
    with pytest.raises(InputError, match="stride=3 does not fit a tap of stride 4"):
        AnchorNetwork("anchors", Taps((8,), (4,)), AnchorOptions(stride=3))
    with pytest.raises(InputError, match="steps must be an integer of at least 1"):
        network(steps=0)


def promoted(regions: Literal["conv", "fc"], seed: int) -> bool:
    """Whether training for seconds makes maps better than their priors on scenes not seen."""
    torch.manual_seed(seed)
    train, test = a_batch(96, 32), a_batch(40, 32, seed=1)
    system = network(width=8, embedding=16, region_embedding=regions)
    optimizer = torch.optim.Adam(system.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(120):
        chosen = torch.randperm(96, generator=rng)[:16]
        batch = Batch(train.images[chosen], train.labels[chosen], train.prior[chosen], rng)
        optimizer.zero_grad()
        system.loss(output_of(system, batch), batch).backward()
        optimizer.step()
    with torch.no_grad():
        maps = system.maps(output_of(system, test), test)

    def error(saliency: Tensor) -> float:
        return float((saliency - test.labels).abs().mean())

    cut = (test.prior >= 0.5).float()
    assert error(cut) < error(test.prior)
    return error(maps["T = 5"]) < error(cut)


@pytest.mark.parametrize("regions", REGIONS)
def test_training_promotes_priors_of_scenes_not_seen(regions):
    """Two starts of five: of ten, the convolution's all end at 0.75 to 0.90 of the cut prior's
    error; the fully connected one's at 0.74 to 0.80, but once at 1.03."""
    ends = (promoted(regions, seed) for seed in range(5))
    assert list(islice(filter(None, ends), 2)) == [True, True]
