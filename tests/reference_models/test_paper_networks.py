"""The papers' own networks: their sizes, layers and weight files."""

import importlib
import math
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import conv2d, max_pool2d, relu

from reference_models.errors import InputError
from reference_models.networks import backbones as every_backbone
from reference_models.networks.flax import backbones as flax_backbones
from reference_models.networks.flax import system as flax_system
from reference_models.networks.flax.build import build as build_flax
from reference_models.networks.flax.weights import to_torch
from reference_models.networks.options import PAPER_NETWORKS
from reference_models.networks.torch import backbones
from reference_models.networks.torch.build import build
from tests.support.paper_networks import paper_recipe, shrink_backbones

pytestmark = pytest.mark.usefixtures("torch_settings")


def conv(before: int, after: int, kernel: int = 3, bias: bool = True) -> int:
    """Parameters of a convolution; without bias, those of its batch normalisation instead."""
    return before * after * kernel**2 + (after if bias else 2 * after)


def menet() -> int:
    def unit(before: int, after: int, kernel: int, shortcut: int) -> int:
        second = after * after * 9 + 2 * after
        skip = before * after * shortcut**2 + 2 * before if shortcut else 0
        return 2 * before + before * after * kernel**2 + second + skip

    encoded = [32, 64, 128, 256, 512, 1024]
    body = conv(3, 32, bias=False) + 2 * unit(32, 32, 3, 0)
    for before, after in pairwise(encoded):
        body += unit(before, after, 3, 1) + unit(after, after, 3, 0)
    body += 2 * (1024**2 * 49 + 2 * 1024)
    decoded = [512, 256, 128, 64, 32]
    for before, after in zip([2048, 1024, 512, 256, 128], decoded, strict=True):
        body += unit(before, after, 4, 2) + unit(after, after, 3, 0)
    maps = conv(3, 1) + sum(2 * c + conv(c, 1) for c in [*encoded, 1024, *decoded])
    return body + maps + conv(13, 2, bias=False) + conv(13, 16, bias=False)


def relations(joined: int) -> int:
    fused = conv(joined, 32, 1) + 3 * conv(joined, 32) + conv(4 * 32, 32, 1)
    return fused + 4 * conv(64, 64, 1) + conv(64, 1, 1)


# torchvision's totals without the layers that a network lacks.
RESNET101 = 44_549_160 - 1000 * (2048 + 1)
VGG16 = 138_357_544
VGG16_CONVOLUTIONS = 14_714_688
VGG16_FC8 = 1000 * (4096 + 1)
MOBILENET_V2 = 3_504_872 - 1000 * (1280 + 1) - conv(320, 1280, 1, bias=False)
# torchvision's segmentation networks, without the auxiliary head and with 2 of the 21 classes.
AUXILIARY = conv(1024, 256, bias=False) + conv(256, 21, 1)
ANCHOR_BLOCKS = ((64, 2), (128, 4), (256, 8), (512, 8), (512, 8))
PARAMETERS = {
    "menet": menet(),
    "fcn": 54_314_346 - AUXILIARY - 19 * (512 + 1),
    "deeplab": 60_996_202 - AUXILIARY - 19 * (256 + 1),
    "zoomout": VGG16
    - VGG16_FC8
    + sum(
        repeats * (conv(c, 64, 1) + conv(c, 64) + conv(128, 64, 1))
        for c, repeats in ((64, 2), (128, 2), (256, 3), (512, 6))
    )
    + 2 * conv(4096, 64, 1) - conv(4096, 64, 1) + conv(64, 64, 1) + conv(64, 1, 1),
    "anchors": VGG16_CONVOLUTIONS
    + sum(conv(c, 64 * n**2, bias=False) for c, n in ANCHOR_BLOCKS)
    + 2 * (conv(5 * 64, 512, bias=False) + conv(512, 512, 1, bias=False)),
    "relations": MOBILENET_V2 + relations(32 + 24 + 96 + 320),
    "relations-vgg": VGG16_CONVOLUTIONS + relations(64 + 128 + 512 + 512),
}  # fmt: skip
# Channels and stride of the output at the papers' sizes.
OUTPUTS = {
    "menet": (18, 1),
    "fcn": (2, 8),
    "deeplab": (2, 8),
    "zoomout": (1, 1),
    "anchors": (2 * 512, 1),
    "relations": (32, 2),
    "relations-vgg": (32, 2),
}


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_parameters_and_outputs_are_the_papers(name: str, monkeypatch):
    recipe = paper_recipe(name)
    with torch.device("meta"):
        system = build(recipe.network(recipe.small))
        output = system(system.backbone(torch.rand(2, 3, 224, 224)))
    assert sum(p.numel() for p in system.parameters()) == PARAMETERS[name]
    channels, stride = OUTPUTS[name]
    assert output.shape == (2, channels, 224 // stride, 224 // stride)

    count = PARAMETERS[name]
    if name == "deeplab":  # The backbone is that of "fcn": here with one block in each stage.
        few = [(channels, 1) for channels, _ in every_backbone.RESNET101]
        monkeypatch.setattr(every_backbone, "RESNET101", few)
        count -= RESNET101

    class Zeros:
        def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> jax.Array:
            return jnp.zeros(shape)

        normal = uniform

    # NumPy cannot draw weights of which there are shapes alone.
    monkeypatch.setattr(flax_system, "in_numpy", lambda key: Zeros())
    states = {}

    def ours(images: jax.Array) -> jax.Array:
        system = build_flax(recipe.network(recipe.small), nnx.Rngs(0))
        states.update(nnx.to_flat_state(nnx.state(system, nnx.Param)))
        return system(system.backbone(images))

    shape = jax.eval_shape(ours, jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)).shape
    assert shape == (2, 224 // stride, 224 // stride, channels)
    counted = (p for path, p in states.items() if name != "deeplab" or path[0] != "backbone")
    assert sum(math.prod(p.shape) for p in counted) == count


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_each_class_in_flax_names_the_one_that_says_what_departs_from_the_paper(name: str):
    recipe = paper_recipe(name)
    with torch.device("meta"):
        theirs = type(build(recipe.network(recipe.small)))
    module = importlib.import_module(theirs.__module__.replace(".torch.", ".flax."))
    ours = getattr(module, theirs.__name__).__doc__
    assert theirs.__module__.removeprefix("reference_models.") in ours
    assert theirs.__name__ in ours or "of the same name" in ours
    assert "prints no" in theirs.__doc__ or "prints neither" in theirs.__doc__


def test_menet_has_52_convolutions_and_13_scales():
    recipe = paper_recipe("menet")
    with torch.device("meta"):
        system = build(recipe.network(recipe.small))
        scales = system.all_scales(torch.rand(2, 3, 224, 224))
    layers = [
        module
        for part in (system.stem, system.encoder, system.whole, system.decoder)
        for module in part.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.kernel_size != (1, 1)
    ]
    assert len(layers) == 52
    assert [(s.shape[1], s.shape[2]) for s in scales] == [
        (3, 224), (32, 224), (64, 112), (128, 56), (256, 28), (512, 14), (1024, 7),
        (1024, 7), (512, 14), (256, 28), (128, 56), (64, 112), (32, 224),
    ]  # fmt: skip
    assert system.whole[:3](scales[6]).shape == (2, 1024, 1, 1)


def test_menet_takes_images_of_any_size():
    system = build(paper_recipe("menet", few=True).network(paper_recipe("menet", few=True).small))
    for height, width in ((64, 96), (50, 70)):
        images = torch.rand(2, 3, height, width)
        assert system(system.backbone(images)).shape == (2, 18, height, width)


# VGG-16 ------------------------------------------------------------------------------------------


def test_connected_layers_are_convolutions_of_torchvisions_weights(monkeypatch):
    shrink_backbones(monkeypatch)
    network = backbones.vgg16(taps=(30, 31, 32))
    assert network.strides == (32, 0, 0)
    deepest, first, second = network(torch.rand(2, 3, 224, 224))
    fc6, fc7 = network.classifier.values()
    kernel = fc6.weight.view(8, 8, 7, 7)
    expected = relu(conv2d(deepest, kernel, fc6.bias))
    assert expected.shape == (2, 8, 1, 1)
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(second, relu(conv2d(first, fc7.weight[:, :, None, None], fc7.bias)))
    # At another size, the averages of the deepest map are connected.
    deepest, first, _ = network(torch.rand(2, 3, 448, 448))
    averages = deepest.unflatten(3, (7, 2)).unflatten(2, (7, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(first, relu(conv2d(averages, kernel, fc6.bias)))


def test_poolings_beyond_the_output_stride_are_omitted(monkeypatch):
    shrink_backbones(monkeypatch)
    network = backbones.vgg16(output_stride=8)
    images = torch.rand(1, 3, 64, 64)
    *_, third, fourth, fifth = network(images)
    x = third
    for place in (17, 19, 21):
        layer = network.features[str(place)]
        x = relu(conv2d(x, layer.weight, layer.bias, padding=1))
    torch.testing.assert_close(fourth, x)
    for place in (24, 26, 28):
        layer = network.features[str(place)]
        x = relu(conv2d(x, layer.weight, layer.bias, padding=2, dilation=2))
    torch.testing.assert_close(fifth, x)
    torch.testing.assert_close(third, max_pool2d(backbones_tap(network, images, 15), 2))


def backbones_tap(network: backbones.Backbone, images: torch.Tensor, tap: int) -> torch.Tensor:
    network.taps = (tap,)
    return network(images)[0]


# Weight files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_the_zoomout_network_needs_the_connected_layers(framework, tmp_path: Path, monkeypatch):
    shrink_backbones(monkeypatch)
    taps = PAPER_NETWORKS["zoomout"].backbone.taps
    if framework == "torch":
        network, load = backbones.vgg16(taps), backbones.load_backbone
    else:
        network = flax_backbones.vgg16(taps, rngs=nnx.Rngs(0))
        load = flax_backbones.load_backbone
    tensors = backbones.vgg16(taps).state_dict()
    tensors |= {"classifier.6.weight": torch.zeros(1000, 8), "classifier.6.bias": torch.zeros(1000)}
    save_file(tensors, tmp_path / "whole")
    load(network, tmp_path / "whole")
    state = network.state_dict() if framework == "torch" else to_torch(nnx.state(network))
    for name in ("features.28.weight", "classifier.0.weight", "classifier.3.bias"):
        assert torch.equal(torch.as_tensor(state[name]), tensors[name])
    features = {name: t for name, t in tensors.items() if name.startswith("features.")}
    save_file(features, tmp_path / "features")
    with pytest.raises(InputError, match=r"missing: classifier.*choose a file with the fully con"):
        load(network, tmp_path / "features")


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_weights_load_into_batch_normalisation(framework, tmp_path: Path, monkeypatch):
    shrink_backbones(monkeypatch)
    stored = backbones.resnet101()
    for tensor in stored.state_dict().values():
        nn.init.uniform_(tensor, 0.5, 1)
    counts = {"bn1.num_batches_tracked": torch.tensor(3), "fc.bias": torch.zeros(2)}
    save_file(stored.state_dict() | counts, tmp_path / "weights")
    if framework == "torch":
        network = backbones.resnet101(normalise_batch=True)
        backbones.load_backbone(network, tmp_path / "weights")
        state = network.state_dict()
    else:
        network = flax_backbones.resnet101(normalise_batch=True, rngs=nnx.Rngs(0))
        flax_backbones.load_backbone(network, tmp_path / "weights")
        state = to_torch(nnx.state(network))
    for name, tensor in stored.state_dict().items():
        assert torch.equal(torch.as_tensor(state[name]), tensor), name
