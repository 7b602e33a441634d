"""The squeezed zoomout network and its losses."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from reference_models.data.scenes import scenes
from reference_models.networks.options import ZoomoutLoss, ZoomoutOptions
from reference_models.networks.torch.backbones import mobilenet_v2
from reference_models.networks.torch.system import Batch, IdentityBackbone
from reference_models.networks.torch.zoomout import Zoomout, border_band, saliency_loss

pytestmark = pytest.mark.usefixtures("torch_settings")

LOSSES: tuple[ZoomoutLoss, ...] = get_args(ZoomoutLoss)


class FiveTaps(torch.nn.Module):
    """The attributes of a backbone; the tests generate its features."""

    channels = (3, 4, 5, 6, 7)
    strides = (2, 4, 8, 16, 32)


def some_taps(count: int = 2, side: int = 64) -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    sizes = zip(FiveTaps.channels, FiveTaps.strides, strict=True)
    return [torch.randn(count, c, side // s, side // s, generator=rng) for c, s in sizes]


def some_batch(count: int = 2, side: int = 64) -> Batch:
    images, masks, priors = scenes(count, side, seed=0)
    return Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2) / 255,
        torch.from_numpy(masks).long(),
        torch.from_numpy(priors),
        torch.Generator().manual_seed(0),
    )


def network(loss: ZoomoutLoss = "ce", width: int = 4, hidden: int = 8) -> Zoomout:
    torch.manual_seed(0)
    return Zoomout(loss, FiveTaps(), ZoomoutOptions(width, hidden))


# The network -------------------------------------------------------------------------------------


def test_direct_upsampling_is_the_papers_concatenation():
    """The classifier on the concatenated, upsampled maps; a tap of one pixel has 1 x 1 filters."""
    taps = [*some_taps(), torch.randn(2, 8, 1, 1)]
    backbone = FiveTaps()
    backbone.channels, backbone.strides = (3, 4, 5, 6, 7, 8), (2, 4, 8, 16, 32, 0)
    torch.manual_seed(0)
    system = Zoomout("ce", backbone, ZoomoutOptions(width=4, hidden=8, direct=True))
    squeezed = [module(tap) for module, tap in zip(system.squeeze, taps, strict=True)]
    assert [one.shape[1] for one in squeezed] == [8, 8, 8, 8, 8, 4]
    joined = torch.cat(
        [interpolate(one, size=(32, 32), mode="bilinear", align_corners=False) for one in squeezed],
        dim=1,
    )
    weight = torch.cat([mix.weight for mix in system.mix], dim=1)
    hidden = conv2d(joined, weight, sum(mix.bias for mix in system.mix)).relu()
    torch.testing.assert_close(system(taps), system.classify(hidden), rtol=1e-4, atol=1e-5)


def test_one_logit_at_the_finest_tap_and_one_map_at_the_image():
    system, batch = network(), some_batch()
    output = system(some_taps())
    assert output.shape == (2, 1, 32, 32)
    maps = system.maps(output, batch._replace(labels=None))
    assert list(maps) == ["map"]
    assert maps["map"].shape == (2, 64, 64)
    assert ((maps["map"] >= 0) & (maps["map"] <= 1)).all()


def test_it_is_the_classifier_on_the_concatenated_upsampled_features():
    """W §4: what is summed at the end is what one 1 x 1 convolution of all channels gives."""
    system, taps = network().double(), [tap.double() for tap in some_taps()]
    squeezed = [squeeze(tap) for squeeze, tap in zip(system.squeeze, taps, strict=True)]
    features = squeezed[-1]
    for finer in squeezed[-2::-1]:
        features = interpolate(features, finer.shape[-2:], mode="bilinear")
        features = torch.cat([finer, features], dim=1)
    assert features.shape == (2, 5 * 2 * 4, 32, 32)
    weight = torch.cat([mix.weight for mix in system.mix], dim=1)
    hidden = conv2d(features, weight, sum(mix.bias for mix in system.mix)).relu()
    torch.testing.assert_close(system(taps), system.classify(hidden), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("width", "hidden"), [(4, 8), (16, 32)])
def test_parameters(width: int, hidden: int):
    system = network(width=width, hidden=hidden)
    squeeze = sum(10 * c * width + 2 * width for c in FiveTaps.channels)
    classifier = 5 * (2 * width * hidden + hidden) + hidden + 1
    assert sum(p.numel() for p in system.parameters()) == squeeze + classifier


def test_without_squeeze_modules_the_classifier_reads_all_channels():
    taps = some_taps()
    system = Zoomout("af", FiveTaps(), ZoomoutOptions(hidden=8, squeeze=False))
    shapes = {name: tuple(p.shape) for name, p in system.named_parameters() if "weight" in name}
    assert shapes == {"classify.weight": (1, 8, 1, 1)} | {
        f"mix.{i}.weight": (8, c, 1, 1) for i, c in enumerate(FiveTaps.channels)
    }
    features = taps[-1]
    for finer in taps[-2::-1]:
        features = interpolate(features, finer.shape[-2:], mode="bilinear")
        features = torch.cat([finer, features], dim=1)
    weight = torch.cat([mix.weight for mix in system.mix], dim=1)
    hidden = conv2d(features, weight, sum(mix.bias for mix in system.mix)).relu()
    torch.testing.assert_close(system(taps), system.classify(hidden), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_finite_and_moves_every_parameter(loss: ZoomoutLoss):
    system = network(loss)
    value = system.loss(system(some_taps()), some_batch())
    assert value.shape == ()
    assert value > 0
    value.backward()
    for name, parameter in system.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("label", [0, 1])
def test_every_loss_is_finite_and_teaches_where_there_is_one_class(loss: ZoomoutLoss, label: int):
    logits = torch.zeros(1, 8, 8, requires_grad=True)
    value = saliency_loss(loss, logits, torch.full((1, 8, 8), label))
    value.backward()
    assert value > 0
    assert (logits.grad * (1 - 2 * label) > 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_the_mean_over_images(loss: ZoomoutLoss):
    """So that processes which share a batch train as one does."""
    logits = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(2))
    labels = torch.from_numpy(scenes(3, 16, seed=5)[1]).long()
    parts = [saliency_loss(loss, logits[i : i + 1], labels[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(saliency_loss(loss, logits, labels), torch.stack(parts).mean())


# The losses, by hand -----------------------------------------------------------------------------


def by_hand(
    logits: np.ndarray, y: np.ndarray, squared: bool, kernel: float | None, distance: str | None
) -> float:
    """W eq. 1-6 of one image, pixel by pixel. kernel: the constant of eq. 3, None without A."""
    p = 1 / (1 + np.exp(-logits))
    error = (p - y) ** 2 if squared else np.abs(p - y)
    rows, columns = np.indices(y.shape)
    salient = list(zip(*np.nonzero(y), strict=True))
    weighted = error.copy()
    for (i, j), label in np.ndenumerate(y):
        d2 = (rows - i) ** 2 + (columns - j) ** 2
        if label == 1 and kernel is not None:
            near = (np.abs(rows - i) <= 9) & (np.abs(columns - j) <= 9) & (y == 1)
            around = kernel * (np.exp(-d2 / (2 * 2.25**2)) * error)[near].sum()
            weighted[i, j] = min(around, error[i, j])
        if label == 0 and distance is not None:
            nearest = min(d2[place] for place in salient)
            if distance == "window":
                reach = nearest if nearest <= 25 else np.inf
            else:
                reach = np.sqrt(nearest)
            weighted[i, j] *= 2 - np.exp(np.log(0.5) / 5 * reach)
    true_positive = (1 - weighted)[y == 1].sum()
    false_negative, false_positive = weighted[y == 1].sum(), weighted[y == 0].sum()
    return 1 - 2 * true_positive / (2 * true_positive + false_negative + false_positive)


def a_case() -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels, some pixels of the object far off, so that A has something to forgive."""
    y = np.zeros((18, 20), dtype=int)
    y[4:11, 3:12] = 1
    y[14, 17] = 1
    logits = np.where(y == 1, 3.0, -1.0) + np.random.default_rng(0).normal(size=y.shape)
    logits[6, 5] = logits[14, 17] = -4
    return logits, y


PRINTED = (2 * np.pi * 2.25**2) ** -0.5
UNIT = 1 / np.exp(-(np.arange(-9, 10)[:, None] ** 2 + np.arange(-9, 10) ** 2) / 10.125).sum()


@pytest.mark.parametrize(
    ("loss", "squared", "kernel", "distance"),
    [
        ("dice", False, None, None),
        ("af", True, PRINTED, "window"),
        ("af-no-a", True, None, "window"),
        ("af-no-b", True, PRINTED, None),
        ("af-unit-kernel", True, UNIT, "window"),
        ("af-absolute", False, PRINTED, "window"),
        ("af-euclidean", True, PRINTED, "euclidean"),
        ("exact", False, PRINTED, "euclidean"),
        ("exact-unit-kernel", False, UNIT, "euclidean"),
    ],
)
def test_weighted_f_beta_losses(
    loss: ZoomoutLoss, squared: bool, kernel: float | None, distance: str | None
):
    logits, y = a_case()
    value = saliency_loss(loss, torch.from_numpy(logits)[None], torch.from_numpy(y)[None])
    assert value.item() == pytest.approx(by_hand(logits, y, squared, kernel, distance), abs=1e-10)


def test_the_parts_of_the_loss_matter_in_that_case():
    """Else the hand-written values could not tell them apart."""
    logits, y = a_case()
    kinds = [loss for loss in LOSSES if not loss.startswith("ce")]
    values = [
        saliency_loss(loss, torch.from_numpy(logits)[None], torch.from_numpy(y)[None]).item()
        for loss in kinds
    ]
    assert min(abs(a - b) for i, a in enumerate(values) for b in values[:i]) > 1e-4


def test_dice_is_soft_dice():
    logits = torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(3)).double()
    labels = torch.from_numpy(scenes(2, 9, seed=1)[1]).long()
    p, y = logits.sigmoid(), labels.double()
    dice = 2 * (p * y).sum(dim=(1, 2)) / (p + y).sum(dim=(1, 2))
    torch.testing.assert_close(saliency_loss("dice", logits, labels), (1 - dice).mean())


def test_cross_entropies():
    logits = torch.randn(2, 12, 12, generator=torch.Generator().manual_seed(4)).double()
    labels = torch.from_numpy(scenes(2, 12, seed=2)[1]).long()
    p, y = logits.sigmoid(), labels.double()
    miss, alarm = -y * p.log(), -(1 - y) * (1 - p).log()
    expected = {
        "ce": (miss + alarm).mean(),
        "ce-2x-foreground": (2 * miss + alarm).mean(),
        "ce-2x-background": (miss + 2 * alarm).mean(),
    }
    away = ~border_band(labels)
    assert away.any(dim=2).any(dim=1).all()
    expected["ce-band"] = sum((miss + alarm)[i][away[i]].mean() for i in range(2)) / 2
    for loss, value in expected.items():
        torch.testing.assert_close(saliency_loss(loss, logits, labels), value)


@pytest.mark.parametrize("width", [1, 3])
def test_the_band_is_what_is_near_a_pixel_of_the_other_class(width: int):
    labels = torch.from_numpy(scenes(3, 24, seed=6)[1]).long()
    labels[0] = 0
    labels[0, 0, 5] = 1
    band = border_band(labels, width)
    for y, near in zip(labels.numpy(), band.numpy(), strict=True):
        for (i, j), label in np.ndenumerate(y):
            around = y[max(i - width, 0) : i + width + 1, max(j - width, 0) : j + width + 1]
            assert near[i, j] == (around != label).any()


def test_an_image_of_one_class_has_no_band():
    assert not border_band(torch.zeros(1, 9, 9, dtype=torch.long)).any()
    assert not border_band(torch.ones(1, 9, 9, dtype=torch.long)).any()


# Learning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["ce", "af", "exact"])
def test_it_learns_scenes_from_features_of_random_weights(loss: ZoomoutLoss):
    torch.manual_seed(0)
    backbone = mobilenet_v2(taps=(1, 3, 6))
    system, batch = Zoomout(loss, backbone, ZoomoutOptions(8, 16)), some_batch(24)
    with torch.no_grad():
        taps = backbone(batch.images)
    heads = [p for name, p in system.named_parameters() if not name.startswith("backbone.")]
    optimizer = torch.optim.Adam(heads, lr=1e-2)
    rng = torch.Generator().manual_seed(0)
    for _ in range(60):
        chosen = torch.randperm(16, generator=rng)[:8]
        part = Batch(batch.images[chosen], batch.labels[chosen], batch.prior[chosen], rng)
        optimizer.zero_grad()
        system.loss(system([tap[chosen] for tap in taps]), part).backward()
        optimizer.step()
    with torch.no_grad():
        saliency = system.maps(system(taps), batch)["map"][16:]
    labels = batch.labels[16:] == 1
    error = (saliency - labels.float()).abs().mean()
    # The best that one value everywhere can do. Ten seeds of each loss: 0.37 to 0.74 of it.
    assert error < labels.float().mean()


def test_it_trains_with_its_backbone_and_on_pixels():
    batch = some_batch(2, 32)
    for backbone in (mobilenet_v2(taps=(1, 3)), IdentityBackbone()):
        system = Zoomout("af", backbone, ZoomoutOptions(4, 8))
        system.loss(system(backbone(batch.images)), batch).backward()
        assert all(p.grad is not None for p in system.parameters())
