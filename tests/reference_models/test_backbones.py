"""The pretrained networks: names as torchvision has them, files, taps, dilation."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reference_models.errors import InputError
from reference_models.networks.options import BLOCKS
from reference_models.networks.torch import backbones
from reference_models.networks.torch.backbones import Backbone, load_backbone, mobilenet_v2
from tests.support.paths import DATA, SUPPORT

pytestmark = pytest.mark.usefixtures("torch_settings")

# Names and shapes of every tensor: mobilenet_v2 from a weight file, vgg16 and resnet101 from the
# papers' tables, with torchvision's totals.
PUBLISHED = json.loads((SUPPORT / "backbone_parameters.json").read_text("utf-8"))
NAMES = list(BLOCKS)
LAST = {"mobilenet_v2": 18, "vgg16": 30, "resnet101": 7}
# For float64, in which equal functions agree closely.
TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}


def build(name: str, *taps: int, **options) -> Backbone:
    torch.manual_seed(0)
    return getattr(backbones, name)(taps=taps or BLOCKS[name], **options)


def image(side: int = 64, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mobilenet_v2", 2_223_872),
        ("vgg16", 14_714_688),
        ("resnet101", 42_500_160),
    ],
)
def test_names_shapes_and_counts_are_torchvisions(name: str, parameters: int):
    network = build(name, LAST[name])
    features = {
        key: shape
        for key, shape in PUBLISHED[name].items()
        if not key.startswith(("classifier.", "fc."))
    }
    assert {key: list(t.shape) for key, t in network.state_dict().items()} == features
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_taps_have_the_channels_strides_and_sizes_they_state(name: str, output_stride: int):
    network = build(name, output_stride=output_stride)
    assert network.strides == tuple(min(s, output_stride) for s in (2, 4, 8, 16, 32))
    sizes = tuple(96 // s for s in network.strides)
    maps = network(image(96))
    assert tuple(m.shape[1] for m in maps) == network.channels
    assert [tuple(m.shape[2:]) for m in maps] == [(size, size) for size in sizes]


# VGG-16 omits its poolings (test_paper_networks.py).
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet101"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_outputs_are_the_strided_networks_at_its_own_positions(
    name: str, output_stride: int
):
    for options in ({}, {"padding": "end"}) if name == "mobilenet_v2" else ({},):
        strided = build(name, **options).double()
        dilated = build(name, output_stride=output_stride, **options).double()
        dilated.load_state_dict(strided.state_dict())
        x = image(64).double()
        every = [a // b for a, b in zip(strided.strides, dilated.strides, strict=True)]
        assert max(every) == 32 // output_stride
        for coarse, fine, step in zip(strided(x), dilated(x), every, strict=True):
            difference = (fine[..., ::step, ::step] - coarse).abs().max()
            assert difference < 1e-9 * coarse.abs().max()


def test_padding_at_the_end_is_a_shift_by_one_pixel_away_from_the_border():
    x = image(32).double()
    end = build("mobilenet_v2", 0, padding="end").double()(x)[0]
    both = build("mobilenet_v2", 0).double()(x.roll((-1, -1), dims=(2, 3)))[0]
    assert end.shape == both.shape
    torch.testing.assert_close(end[..., 1:-1, 1:-1], both[..., 1:-1, 1:-1], **TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str):
    network = build(name)
    sum(m.square().mean() for m in network(image(64, 2))).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet101"])
def test_training_mode_changes_neither_outputs_nor_statistics(name: str):
    network = build(name)
    before = {key: t.clone() for key, t in network.state_dict().items()}
    still = network.eval()(image(64, 2))
    moved = network.train()(image(64, 2))
    for one, other in zip(still, moved, strict=True):
        assert torch.equal(one, other)
    assert all(torch.equal(before[key], t) for key, t in network.state_dict().items())


def test_images_are_normalised_inside():
    """A constant image of ImageNet's mean is zero to the network."""
    network = build("vgg16", 0)
    mean = torch.tensor(backbones.MEAN).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert network(mean)[0].abs().max() == 0
    brighter = network(mean + torch.tensor(backbones.STD).view(3, 1, 1))[0]
    expected = network.features["0"].weight.sum(dim=(1, 2, 3))
    torch.testing.assert_close(brighter[0, :, 4, 4], expected)


@pytest.mark.parametrize("taps", [(), (3, 1), (1, 1), (-1,), (19,)])
def test_impossible_taps_are_refused(taps: tuple[int, ...]):
    with pytest.raises(InputError, match=r"from 0 to 18 in rising order.*\(1, 3, 6, 13, 17\)"):
        mobilenet_v2(taps=taps)


def test_impossible_output_strides_are_refused():
    with pytest.raises(InputError, match="must be 8, 16 or 32, got 4"):
        mobilenet_v2(output_stride=4)


# Files -------------------------------------------------------------------------------------------


def a_file(network: Backbone, folder: Path, **changes: torch.Tensor | None) -> Path:
    tensors = {key: t.half() for key, t in network.state_dict().items()} | changes
    save_file({key: t for key, t in tensors.items() if t is not None}, folder / "weights")
    return folder / "weights"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_in_half_precision_is_loaded_as_single(name: str, tmp_path: Path):
    network = build(name, LAST[name])
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    extra = {
        "classifier.1.weight": torch.zeros(2),
        "fc.bias": torch.zeros(2),
        "bn1.num_batches_tracked": torch.tensor(3),
    }
    path = a_file(network, tmp_path, **extra)
    # A network with fewer taps loads only the layers that it has.
    for other in (build(name, LAST[name]), build(name, BLOCKS[name][1])):
        load_backbone(other, path)
        for key, tensor in other.state_dict().items():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, network.state_dict()[key].half().float())


def test_a_file_that_does_not_fit_is_refused_name_by_name(tmp_path: Path):
    network = build("mobilenet_v2")
    before = {key: t.clone() for key, t in network.state_dict().items()}
    changes = {
        "features.0.0.weight": torch.zeros(32, 1, 3, 3),
        "features.3.conv.2.weight": None,
        "features.3.conv.2.wait": torch.zeros(1),
    }
    with pytest.raises(InputError) as caught:
        load_backbone(network, a_file(network, tmp_path, **changes))
    for said in (
        "torchvision's mobilenet_v2",
        "1 missing: features.3.conv.2.weight",
        "1 unexpected: features.3.conv.2.wait",
        "1 of another shape: features.0.0.weight (32, 1, 3, 3) instead of (32, 3, 3, 3)",
    ):
        assert said in str(caught.value)
    assert all(torch.equal(before[key], t) for key, t in network.state_dict().items())


def test_another_networks_file_is_named_in_short(tmp_path: Path):
    with pytest.raises(InputError, match=r"missing: features.*, …; 26 unexpected"):
        load_backbone(build("mobilenet_v2"), a_file(build("vgg16"), tmp_path))


@pytest.mark.parametrize("content", [None, b"not a safetensors file"])
def test_a_file_that_cannot_be_read_is_refused(content: bytes | None, tmp_path: Path):
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights.pth cannot be read.*save_file"):
        load_backbone(build("mobilenet_v2"), path)


def test_published_weights_load_and_tell_images_apart():
    path = DATA / "mobilenet_v2.fp16.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    network = build("mobilenet_v2", LAST["mobilenet_v2"])
    load_backbone(network, path)
    with torch.no_grad():
        deepest = network(torch.stack([image(64)[0], torch.full((3, 64, 64), 0.5)]))[-1]
    assert deepest.isfinite().all()
    means = deepest.mean(dim=(2, 3))
    assert (means[0] - means[1]).abs().max() > 0.5
