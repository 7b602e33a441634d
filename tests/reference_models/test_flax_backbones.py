"""The Flax backbones are the PyTorch ones: names, outputs, gradients, files."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.torch import save_file

from reference_models.errors import InputError
from reference_models.networks import backbones
from reference_models.networks.flax import backbones as flax_backbones
from reference_models.networks.flax.backbones import Backbone, Stored, load_backbone
from reference_models.networks.flax.weights import from_torch, to_torch
from reference_models.networks.options import BLOCKS
from reference_models.networks.torch import backbones as torch_backbones
from tests.support.paths import DATA

pytestmark = pytest.mark.usefixtures("torch_settings")

# Network, side in pixels, options.
CASES = {
    f"{name}-{side}{''.join(f'-{option}' for option in options.values())}": (name, side, options)
    for name, side, options in (
        *(
            ("mobilenet_v2", 64, {"output_stride": stride, "padding": padding})
            for stride in (8, 16, 32)
            for padding in ("both", "end")
        ),
        *(("vgg16", 64, {"output_stride": stride}) for stride in (8, 16, 32)),
        *(("resnet101", 64, {"output_stride": stride}) for stride in (8, 16, 32)),
    )
}


def cases(*slow: str) -> list:
    """The cases as parameters; those whose names begin with one of `slow` are marked slow."""
    return [
        pytest.param(*case, id=name, marks=pytest.mark.slow if name.startswith(slow) else ())
        for name, case in CASES.items()
    ]


def pair(name: str, *taps: int, **options) -> tuple[Backbone, torch_backbones.Backbone]:
    """Both networks with the same random weights, biases and statistics."""
    taps = taps or BLOCKS[name]
    theirs = getattr(torch_backbones, name)(taps=taps, **options)
    for key, tensor in theirs.state_dict().items():
        if tensor.ndim == 1:
            tensor += 0.3 * torch.rand_like(tensor) if key.endswith("var") else 0.1
    ours = getattr(flax_backbones, name)(taps=taps, **options, rngs=nnx.Rngs(0))
    arrays = {key: tensor.numpy() for key, tensor in theirs.state_dict().items()}
    nnx.update(ours, from_torch(nnx.state(ours), arrays))
    return ours, theirs


def image(side: int, count: int = 1) -> np.ndarray:
    return np.random.default_rng(1).random((count, side, side, 3), dtype=np.float32)


def outputs(network: Backbone, images: np.ndarray) -> list[jax.Array]:
    graph, state = nnx.split(network)
    return jax.jit(lambda state, images: nnx.merge(graph, state)(images))(state, images)


def channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def off(ours: jax.Array, theirs: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    theirs = theirs.detach().permute(0, 2, 3, 1).numpy()
    assert ours.shape == theirs.shape
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize(("name", "side", "options"), cases("resnet101-64-8", "resnet101-64-32"))
def test_names_shapes_and_taps_are_pytorchs(name: str, side: int, options: dict):
    ours, theirs = pair(name, **options)
    for said in ("name", "taps", "channels", "strides", "unused"):
        assert getattr(ours, said) == getattr(theirs, said)
    shapes = {key: array.shape for key, array in to_torch(nnx.state(ours)).items()}
    assert shapes == {key: tuple(tensor.shape) for key, tensor in theirs.state_dict().items()}
    stored = to_torch(nnx.state(ours, Stored))
    assert list(stored) == [key for key in shapes if "running_" in key]
    images = image(side)
    with torch.no_grad():
        expected = theirs(channels_first(images))
    for got, tap in zip(outputs(ours, images), expected, strict=True):
        assert got.dtype == jnp.float32
        assert off(got, tap) < 1e-4


@pytest.mark.parametrize(
    ("name", "side", "options"),
    cases(
        "mobilenet_v2-64-8",
        "mobilenet_v2-64-32",
        "mobilenet_v2-64-16-both",
        "vgg16-64-16",
        "vgg16-64-32",
        "resnet101",
    ),
)
def test_gradients_are_pytorchs(name: str, side: int, options: dict, monkeypatch):
    """In float64: in float32 a few values fall on the other side of a ReLU's kink."""
    # 13 blocks of ResNet-101's 33: the third stage repeats one block 22 times.
    monkeypatch.setattr(backbones, "RESNET101", ((64, 3), (128, 4), (256, 3), (512, 3)))
    ours, theirs = pair(name, **options)
    images = image(side).astype(np.float64)
    taps = theirs.double()(channels_first(images))
    rng = np.random.default_rng(2)
    weights = [rng.normal(size=tap.shape) / tap.detach().abs().max().item() for tap in taps]
    zipped = zip(taps, weights, strict=True)
    sum((tap * torch.from_numpy(weight)).sum() for tap, weight in zipped).backward()

    graph, learnt, rest = nnx.split(ours, nnx.Param, ...)
    learnt, rest = jax.tree.map(lambda x: x.astype(jnp.float64), (learnt, rest))

    def weighted(learnt: nnx.State) -> jax.Array:
        taps = nnx.merge(graph, learnt, rest)(jnp.asarray(images))
        return sum(
            (tap * weight.transpose(0, 2, 3, 1)).sum()
            for tap, weight in zip(taps, weights, strict=True)
        )

    got = to_torch(jax.jit(jax.grad(weighted))(learnt))
    expected = {key: p.grad.numpy() for key, p in theirs.named_parameters()}
    assert got.keys() == expected.keys()
    for key, gradient in expected.items():
        assert np.abs(got[key] - gradient).max() < 1e-8 * np.abs(gradient).max(), key


@pytest.mark.parametrize("name", list(BLOCKS))
def test_weights_in_bfloat16_give_taps_in_bfloat16(name: str):
    network, _ = pair(name, *BLOCKS[name][:2])
    images = image(32)
    exact = outputs(network, images)
    learnt = nnx.state(network, nnx.Param)
    nnx.update(network, jax.tree.map(lambda x: x.astype(jnp.bfloat16), learnt))
    for rough, tap in zip(outputs(network, images), exact, strict=True):
        assert rough.dtype == jnp.bfloat16
        assert jnp.abs(rough.astype(jnp.float32) - tap).max() < 0.05 * jnp.abs(tap).max()


# Files -------------------------------------------------------------------------------------------


def a_file(network: torch_backbones.Backbone, folder: Path, **changes: torch.Tensor | None) -> Path:
    tensors = {key: t.half() for key, t in network.state_dict().items()} | changes
    save_file({key: t for key, t in tensors.items() if t is not None}, folder / "weights")
    return folder / "weights"


@pytest.mark.parametrize("name", list(BLOCKS))
def test_a_file_in_half_precision_is_loaded_as_single(name: str, tmp_path: Path):
    network = getattr(flax_backbones, name)(taps=BLOCKS[name][:2], rngs=nnx.Rngs(0))
    _, theirs = pair(name, *BLOCKS[name][:3])
    extra = {"fc.bias": torch.zeros(2), "bn1.num_batches_tracked": torch.tensor(3)}
    load_backbone(network, a_file(theirs, tmp_path, **extra))
    for key, array in to_torch(nnx.state(network)).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, theirs.state_dict()[key].half().float().numpy())


def test_published_weights_load_and_give_pytorchs_taps():
    path = DATA / "mobilenet_v2.fp16.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    ours, theirs = pair("mobilenet_v2")
    load_backbone(ours, path)
    torch_backbones.load_backbone(theirs, path)
    with torch.no_grad():
        expected = theirs(channels_first(image(64)))
    for got, tap in zip(outputs(ours, image(64)), expected, strict=True):
        assert off(got, tap) < 1e-4


WRONG = {
    "features.0.0.weight": torch.zeros(32, 1, 3, 3),
    "features.1.conv.1.weight": None,
    "features.1.conv.1.wait": torch.zeros(1),
}


@pytest.mark.parametrize("content", ["of other names and shapes", b"not safetensors", None])
def test_a_file_that_does_not_fit_is_refused_as_in_pytorch(
    content: str | bytes | None, tmp_path: Path
):
    ours, theirs = pair("mobilenet_v2", 1)
    before = to_torch(nnx.state(ours))
    path = tmp_path / "weights"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        a_file(theirs, tmp_path, **WRONG)
    with pytest.raises(InputError) as expected:
        torch_backbones.load_backbone(theirs, path)
    with pytest.raises(InputError) as caught:
        load_backbone(ours, path)
    assert str(caught.value) == str(expected.value)
    after = to_torch(nnx.state(ours))
    assert all(np.array_equal(array, after[key]) for key, array in before.items())
