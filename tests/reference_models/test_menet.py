"""MEnet and its heads on other features: shapes, gradients, losses, maps, and that they learn."""

from typing import get_args

import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate, normalize

from reference_models.errors import InputError
from reference_models.networks.options import MEnetLoss, MEnetOptions, MetricHeadOptions
from reference_models.networks.torch.menet import MEnet, MetricHead, PaperMEnet
from saliency_losses.torch import metric_loss
from tests.support.systems import SmallBackbone, a_batch, output_of

pytestmark = pytest.mark.usefixtures("torch_settings")

LOSSES = get_args(MEnetLoss)


def a_system(kind: str, loss: MEnetLoss = "metric", width: int = 8) -> MEnet | MetricHead:
    if kind == "menet":
        return MEnet(loss, MEnetOptions(width=4, widest=8))
    return MetricHead(loss, SmallBackbone(), MetricHeadOptions(width))


KINDS = pytest.mark.parametrize("kind", ["menet", "head"])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 64)])
def test_two_logits_and_sixteen_bounded_features(height, width):
    images = torch.rand(2, 3, height, width)
    for kind, stride in (("menet", 1), ("head", 2)):
        system = a_system(kind)
        output = system(system.backbone(images))
        assert output.shape == (2, 18, height // stride, width // stride)
        assert output[:, 2:].abs().max() <= 1


@pytest.mark.parametrize("multi_scale", [True, False])
def test_cross_entropy_alone_wants_logits_alone(multi_scale):
    system = MEnet("ce", MEnetOptions(width=4, widest=8, multi_scale=multi_scale))
    batch = a_batch()
    output = output_of(system, batch)
    assert output.shape == (4, 2, 32, 32)
    assert list(system.maps(output, batch)) == ["saliency head"]
    with pytest.raises(InputError, match="multi_scale"):
        MEnet("metric", MEnetOptions(multi_scale=False))


def test_sizes():
    """Thirteen scales; the small network fits 5 MB in half precision; the paper's is far larger."""
    small = MEnet("metric")
    assert len(small.scales) == 13
    assert small.features[0].in_channels == small.logits[0].in_channels == 13
    count = sum(parameter.numel() for parameter in small.parameters())
    assert count == 1_021_918
    with torch.device("meta"):
        large = MEnet("metric", MEnetOptions(width=64, widest=512, blocks=2))
    assert sum(parameter.numel() for parameter in large.parameters()) > 40 * count


@KINDS
@pytest.mark.parametrize("loss", LOSSES)
def test_every_head_parameter_gets_a_gradient(kind, loss):
    system, batch = a_system(kind, loss), a_batch()
    system.loss(output_of(system, batch), batch).backward()
    idle = {
        name
        for name, parameter in system.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    assert not idle


@KINDS
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("value", [0, 1])
def test_masks_of_one_region_have_a_finite_loss_and_gradient(kind, loss, value):
    system, batch = a_system(kind, loss), a_batch()
    batch = batch._replace(labels=torch.full_like(batch.labels, value))
    output = output_of(system, batch)
    total = system.loss(output, batch)
    total.backward()
    assert total.isfinite()
    assert all(p.grad.isfinite().all() for p in system.parameters() if p.grad is not None)
    torch.testing.assert_close(total, a_system(kind, "ce").loss(output, batch))


def test_the_loss_is_cross_entropy_plus_the_metric_loss_of_unit_features():
    batch, output = a_batch(), torch.randn(4, 18, 32, 32)
    entropy = cross_entropy(output[:, :2], batch.labels)
    metric = metric_loss(normalize(output[:, 2:]), batch.labels)
    torch.testing.assert_close(a_system("menet").loss(output, batch), entropy + metric)
    torch.testing.assert_close(a_system("menet", "ce").loss(output, batch), entropy)


@KINDS
def test_beside_the_metric_loss_alone_cross_entropy_reaches_only_the_saliency_head(kind):
    system, batch = a_system(kind, "metric-alone"), a_batch()
    output = output_of(system, batch)
    logits = interpolate(output[:, :2], size=(32, 32), mode="bilinear")
    entropy = cross_entropy(logits, batch.labels)
    names, parameters = zip(*system.named_parameters(), strict=True)
    gradients = torch.autograd.grad(entropy, parameters, allow_unused=True)
    pairs = zip(names, gradients, strict=True)
    reached = {name for name, gradient in pairs if gradient is not None and gradient.any()}
    assert reached == {name for name in names if name.startswith("logits.")}


def test_the_loss_as_printed_compares_features_of_any_length():
    batch, output = a_batch(), torch.randn(4, 18, 32, 32)
    system = a_system("menet", "metric-printed")
    entropy = cross_entropy(output[:, :2], batch.labels)
    metric = metric_loss(output[:, 2:], batch.labels)
    torch.testing.assert_close(system.loss(output, batch), entropy + metric)
    # Its map too: doubling the features of one pixel moves that pixel.
    longer = output.clone()
    longer[:, 2:, :16] *= 2
    maps, others = (system.maps(one, batch)["semantic distance"] for one in (output, longer))
    assert (maps - others).abs().max() > 0.1
    unit = a_system("menet")
    torch.testing.assert_close(unit.maps(output, batch), unit.maps(longer, batch))


def test_the_last_convolution_may_be_of_one_pixel():
    output = torch.randn(1, 13, 9, 9)
    for last in (1, 3):
        system = MEnet("metric", MEnetOptions(width=4, widest=8, last=last)).eval()
        moved = output.clone()
        moved[..., 4, 4] += 1
        for head in (system.logits, system.features):
            changed = (head(moved) - head(output)).abs().sum(1) > 0
            assert changed.sum() == last**2
    with pytest.raises(InputError, match="last must be odd, got 2"):
        MEnetOptions(last=2)


@KINDS
def test_maps_are_of_image_size_in_unit_range_and_blind_to_labels(kind):
    system, batch = a_system(kind).eval(), a_batch()
    with torch.no_grad():
        output = output_of(system, batch)
        maps = system.maps(output, batch)
        other = system.maps(output, batch._replace(labels=1 - batch.labels))
    assert list(maps) == ["saliency head", "semantic distance"]
    for name, one in maps.items():
        assert one.shape == batch.labels.shape
        assert one.min() >= 0
        assert one.max() <= 1
        torch.testing.assert_close(one, other[name], rtol=0, atol=0)
    assert (maps["semantic distance"].amax(dim=(1, 2)) == 1).all()


def test_the_papers_network_measures_the_distance_to_the_background_region():
    """M eq. 5, literally: E f_j is the mean of f_j over Ω_B, the background of the head."""
    system = PaperMEnet("metric", MEnetOptions(width=2, widest=4, layout="paper"))
    batch = a_batch()
    output = torch.randn(4, 18, 32, 32)
    output[3, 0] = output[3, 1] - 1  # No pixel is background.
    s = system.maps(output, batch)["semantic distance"]
    for one, distance in zip(output, s, strict=True):
        features = normalize(one[2:], dim=0)
        region = features[:, one[0] >= one[1]]
        mean = region.mean(dim=1) if region.numel() else torch.zeros(16)
        expected = (features - mean[:, None, None]).norm(dim=0)
        torch.testing.assert_close(distance, expected / expected.max())
    smooth = a_system("menet").maps(output, batch)["semantic distance"]
    assert (s[:3] - smooth[:3]).abs().mean() > 1e-3


def test_the_semantic_distance_of_equal_features_is_zero():
    batch = a_batch()
    output = torch.zeros(4, 18, 8, 8)
    assert (a_system("head").maps(output, batch)["semantic distance"] == 0).all()


@pytest.mark.parametrize(
    ("system", "steps"),
    [
        (lambda: MEnet("metric", MEnetOptions(width=4, widest=16)), 40),
        (lambda: a_system("head", "metric", width=16), 120),
        (
            lambda: MetricHead(
                "metric-hard-negatives", SmallBackbone(), MetricHeadOptions(width=16)
            ),
            120,
        ),
    ],
    ids=["menet", "head", "head-hard-negatives"],
)
def test_it_learns_the_generated_scenes(system, steps):
    system = system()
    optimizer = torch.optim.Adam(system.parameters(), lr=3e-3)
    batches = [a_batch(8, 64, seed=seed) for seed in range(15)]
    for step in range(steps):
        batch = batches[step % len(batches)]
        optimizer.zero_grad()
        system.loss(output_of(system, batch), batch).backward()
        optimizer.step()
    system.eval()
    batch = a_batch(24, 64, seed=1000)
    with torch.no_grad():
        maps = system.maps(output_of(system, batch), batch)
    # Ten seeds: 0.55 and more in MEnet's saliency head, 0.70 in its other map, 0.85 for the heads.
    salient = batch.labels == 1
    for one in maps.values():
        assert one[salient].mean() > one[~salient].mean() + 0.3
