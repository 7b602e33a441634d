"""FCN and DeepLab with the class-agnostic loss: shapes, maps, and what exchanged labels do."""

import pytest
import torch
from torch import nn

from reference_models.errors import InputError
from reference_models.networks.options import FullyConvolutionalOptions
from reference_models.networks.torch.fully_convolutional import FullyConvolutional
from tests.support.systems import SmallBackbone, a_batch, output_of

pytestmark = pytest.mark.usefixtures("torch_settings")

LOSSES = ("ce", "cace", "cace-pixel", "cas", "discriminative", "triplet", "magnet")
HEADS = ("fcn", "deeplab")


def trained(system: nn.Module, steps: int, exchanged: bool = False) -> float:
    """Train on scenes; with `exchanged`, the labels of every other image are exchanged. Returns
    the mean loss of the last 15 steps, which see every image once."""
    optimizer = torch.optim.Adam(system.parameters(), lr=3e-3)
    batches = [a_batch(8, seed=seed) for seed in range(min(steps, 15))]
    losses = []
    for step in range(steps):
        batch = batches[step % len(batches)]
        if exchanged:
            labels = batch.labels.clone()
            labels[::2] = 1 - labels[::2]
            batch = batch._replace(labels=labels)
        optimizer.zero_grad()
        loss = system.loss(output_of(system, batch), batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-15:]) / len(losses[-15:])


def a_system(loss: str, seed: int = 0, **options: object) -> FullyConvolutional:
    torch.manual_seed(seed)
    return FullyConvolutional(loss, SmallBackbone(), FullyConvolutionalOptions(width=16, **options))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96)])
def test_scores_at_the_stride_of_the_finest_tap(head, height, width):
    system = a_system("cas", head=head, channels=5)
    output = system(system.backbone(torch.rand(2, 3, height, width)))
    assert output.shape == (2, 5, height // 2, width // 2)


def test_sizes():
    def count(head: str) -> int:
        system = FullyConvolutional("ce", SmallBackbone(), FullyConvolutionalOptions(head))
        return sum(p.numel() for n, p in system.named_parameters() if "backbone" not in n)

    skip = 16 * 32 + 32 + 32 * 9 * 32 + 32
    scores = 32 * 2 + 2
    assert count("fcn") == 24 * 9 * 32 + 32 + skip + scores
    near, far, fusion = 24 * 32 + 32, 24 * 9 * 32 + 32, 5 * 32 * 32 + 32
    assert count("deeplab") == 2 * near + 3 * far + fusion + skip + scores


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_parameter_gets_a_gradient(head, loss):
    system, batch = a_system(loss, head=head), a_batch()
    system.loss(output_of(system, batch), batch).backward()
    for name, parameter in system.named_parameters():
        assert parameter.grad.any(), name


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("value", [0, 1])
def test_masks_of_one_region_have_a_finite_loss_and_gradient(head, loss, value):
    system, batch = a_system(loss, head=head), a_batch()
    batch = batch._replace(labels=torch.full_like(batch.labels, value))
    total = system.loss(output_of(system, batch), batch)
    total.backward()
    assert total.isfinite()
    assert all(p.grad.isfinite().all() for p in system.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_maps_are_of_image_size_in_unit_range_and_blind_to_labels(head):
    system, batch = a_system("cas", head=head), a_batch()
    with torch.no_grad():
        output = output_of(system, batch)
        (one,) = system.maps(output, batch).values()
        (other,) = system.maps(output, batch._replace(labels=1 - batch.labels)).values()
    assert one.shape == batch.labels.shape
    assert one.min() >= 0
    assert one.max() <= 1
    torch.testing.assert_close(one, other, rtol=0, atol=0)


# Exchanged labels --------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_exchanged_labels_leave_every_bit_of_the_cas_weights(head):
    clean, swapped, other = (a_system("cas", head=head) for _ in range(3))
    trained(clean, 30)
    trained(swapped, 30, exchanged=True)
    trained(other, 29)
    states = clean.state_dict(), swapped.state_dict(), other.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not any(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_exchanged_labels_change_the_weights_of_cross_entropy():
    clean, swapped = (a_system("ce") for _ in range(2))
    trained(clean, 3)
    trained(swapped, 3, exchanged=True)
    assert not torch.equal(clean.scores.weight, swapped.scores.weight)


def test_cas_learns_the_generated_scenes_from_exchanged_labels():
    """Either channel may come to stand for the object, so the difference has either sign.

    Some starts get stuck (docs/losses/cas.md), and the loss tells: of 20 seeds here 8 ended between
    -0.57 and -0.76, with differences up to 0.37, the others below -1.4. Another start is the way
    out, and ten of them are all stuck once in ten thousand times.
    """
    for seed in range(10):
        system = a_system("cas", seed=seed)
        if trained(system, 120, exchanged=True) < -1.1:
            break
    batch = a_batch(24, seed=1000)
    with torch.no_grad():
        saliency = system.maps(output_of(system, batch), batch)["map"]
    salient = batch.labels == 1
    assert (saliency[salient].mean() - saliency[~salient].mean()).abs() > 0.6


def test_zero_scores_are_a_saddle_that_cas_never_leaves():
    system = a_system("cas")
    nn.init.zeros_(system.scores.weight)
    nn.init.zeros_(system.scores.bias)
    trained(system, 5)
    assert not system.scores.weight.any()
    assert not system.scores.bias.any()


# General segmentation ----------------------------------------------------------------------------


def test_regions_are_the_greatest_channels():
    system, batch = a_system("cas", channels=3, regions=4), a_batch()
    output = torch.zeros(4, 3, 16, 16)
    output[:, 2, :8] = 1
    output[:, 1, 8:] = 1
    labels = system.segmentation(output, batch)
    assert labels.dtype == torch.int64
    assert labels.shape == (4, 32, 32)
    assert (labels[:, :15] == 2).all()
    assert (labels[:, 17:] == 1).all()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", ["ce", "cas"])
def test_more_regions_than_channels(head, loss):
    system, batch = a_system(loss, head=head, channels=4, regions=16), a_batch()
    batch = batch._replace(labels=torch.randint(0, 16, batch.labels.shape))
    output = output_of(system, batch)
    total = system.loss(output, batch)
    total.backward()
    assert total.isfinite()
    assert all(p.grad.any() for p in system.parameters())
    if loss == "ce":
        modulo = system.loss(output, batch._replace(labels=batch.labels % 4))
        torch.testing.assert_close(total, modulo)


@pytest.mark.parametrize("loss", ["cace", "cace-pixel"])
def test_two_classes_are_all_that_cace_can_compare(loss):
    with pytest.raises(InputError, match="must be 2, got 4 and 2"):
        a_system(loss, channels=4)
