"""The networks in Flax against those in PyTorch, on the same weights and features.

test_flax_backbones.py compares the backbones; here their features are random, except in `WHOLE`.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import Tensor

from reference_models.data.scenes import scenes
from reference_models.errors import InputError
from reference_models.files import Arrays
from reference_models.networks.flax.build import build as build_flax
from reference_models.networks.flax.system import Batch, System, area_resize, resize
from reference_models.networks.flax.weights import from_torch, to_torch
from reference_models.networks.torch import system as torch_system
from reference_models.networks.torch.build import build as build_torch
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import Recipe
from tests.support.paper_networks import SYSTEMS, paper_recipe, shrink_backbones

pytestmark = pytest.mark.usefixtures("torch_settings")

# Recipes that differ only in swapped labels or prior maps have the same network. One value of each
# threshold is enough.
THRESHOLDS = ("certain_at_test", "foreground", "background")
NETWORKS = {
    (
        r.system,
        r.loss,
        *sorted((key, key in THRESHOLDS or value) for key, value in r.options.items()),
        *sorted(r.small.options.items()),
    ): name
    for name, r in RECIPES.items()
    if r.small
}
# The papers' own networks, with few channels.
PAPER = {
    "paper-anchors-fc": paper_recipe("anchors", few=True, region_embedding="fc"),
    **{f"paper-{name}": paper_recipe(name, few=True) for name in SYSTEMS},
}
# Those that are compared from the image, with their backbones.
WHOLE = ("paper-zoomout", "paper-anchors", "paper-fcn")
DOUBLE = (*WHOLE, "paper-deeplab")
SIDE = 64


def in_torch(recipe: Recipe) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_torch(recipe.network(recipe.small))
    return network.double() if is_double(recipe) else network


def in_flax(recipe: Recipe, theirs: torch.nn.Module) -> System:
    """The same network with the same weights."""
    ours = build_flax(recipe.network(recipe.small), nnx.Rngs(0))
    if is_double(recipe):
        nnx.update(ours, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(ours)))
    nnx.update(ours, from_torch(nnx.state(ours), arrays(theirs.state_dict())))
    return ours


def is_double(recipe: Recipe) -> bool:
    """Batch normalisation of few values, and many layers, magnify rounding errors beyond the
    tolerance."""
    return recipe.system == "menet" or recipe.name in DOUBLE


def arrays(tensors: dict[str, Tensor]) -> Arrays:
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def batches(recipe: Recipe) -> tuple[torch_system.Batch, Batch]:
    images, labels, prior = scenes(4, SIDE, seed=0)
    if recipe.regions > 2:
        rows, columns = np.indices((SIDE, SIDE)) // 20
        labels = np.stack([rows + 4 * columns, columns, rows, 0 * rows]) % recipe.regions
    pixels = (images / 255).astype(np.float32)
    theirs = torch_system.Batch(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        torch.from_numpy(labels).long(),
        torch.from_numpy(prior).float(),
        torch.Generator(),
    )
    ours = Batch(
        jnp.asarray(pixels),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(prior, jnp.float32),
        jax.random.key(0),
    )
    return theirs, ours


def some_taps(system: torch.nn.Module, batch: torch_system.Batch) -> list[Tensor]:
    dtype = next(system.parameters()).dtype
    if isinstance(system.backbone, torch_system.IdentityBackbone):
        return [batch.images.to(dtype)]
    rng = torch.Generator().manual_seed(1)
    sizes = [SIDE // stride if stride else 1 for stride in system.backbone.strides]
    taps = zip(system.backbone.channels, sizes, strict=True)
    return [
        torch.rand(len(batch.images), c, side, side, generator=rng).to(dtype) for c, side in taps
    ]


def last(x: Tensor) -> jax.Array:
    return jnp.asarray(x.detach().permute(0, 2, 3, 1).numpy())


def close(ours: jax.Array, theirs: Tensor, share: float, least: float = 1e-6) -> None:
    """Assert differences of at most a share of the largest value, or of `least` if larger."""
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=share * max(np.abs(theirs).max(), least))


@pytest.mark.parametrize("name", [*NETWORKS.values(), *PAPER])
def test_the_same_outputs_losses_gradients_and_maps(name: str, monkeypatch):
    # The frameworks draw different noise.
    for place in ("torch.system", "flax.small", "flax.anchors"):
        monkeypatch.setattr(
            f"reference_models.networks.{place}.flip_labels", lambda labels, *_: labels
        )
    if name in PAPER:
        shrink_backbones(monkeypatch)
    recipe = (RECIPES | PAPER)[name]
    if recipe.options.get("steps_per_image"):  # Of 10, each of which is the same program.
        recipe = replace(recipe, options=recipe.options | {"steps_per_image": 3})
    theirs = in_torch(recipe)
    ours = in_flax(recipe, theirs)
    batch, ours_batch = batches(recipe)
    whole = name in WHOLE
    taps = [batch.images.double()] if whole else some_taps(theirs, batch)

    def output_of(system, taps: list):
        return system(system.backbone(taps[0]) if whole else taps)

    theirs.train()
    output = output_of(theirs, taps)
    loss = theirs.loss(output, batch)
    loss.backward()

    graph, learnt, rest = nnx.split(ours, nnx.Param, ...)

    @jax.jit
    def step(learnt: nnx.State, taps: list[jax.Array]):
        def objective(learnt: nnx.State):
            system = nnx.merge(graph, learnt, rest, copy=True)
            system.train()
            output = output_of(system, taps)
            return system.loss(output, ours_batch), (output, nnx.state(system))

        return jax.value_and_grad(objective, has_aux=True)(learnt)

    (our_loss, (our_output, after)), gradient = step(learnt, [last(tap) for tap in taps])
    close(our_output, output.permute(0, 2, 3, 1), 1e-4)
    assert our_output.dtype == jnp.float32 or name in ("menet-ce", "menet-ce-plain", *DOUBLE)
    assert float(our_loss) == pytest.approx(loss.item(), rel=1e-4)
    gradients = to_torch(gradient)
    # The magnet loss divides by the spread of descriptors, which are nearly equal at first.
    least = 1e-2 if recipe.loss == "magnet" else 1e-3
    greatest = max(np.abs(one).max() for one in gradients.values())
    compared = 0
    for key, parameter in theirs.named_parameters():
        if parameter.grad is None:
            assert not gradients[key].any(), key
        else:
            close(gradients[key], parameter.grad, 1e-3, least=least * float(greatest))
            compared += bool(parameter.grad.any())
    assert compared >= 4

    left = to_torch(nnx.state(nnx.merge(graph, after), nnx.BatchStat))
    assert len(left) == 2 * sum(isinstance(m, torch.nn.BatchNorm2d) for m in theirs.modules())
    for key, buffer in theirs.named_buffers():
        if key in left and key.endswith("running_mean"):
            close(left[key], buffer, 1e-4)
        if key in left and key.endswith("running_var"):
            # Flax keeps the biased variance: of 16 values of a channel at the coarsest, here.
            tolerance = 1e-3 if name in PAPER else 1 / 16
            np.testing.assert_allclose(left[key], buffer.numpy(), rtol=tolerance)

    # In testing, with the statistics that training left behind.
    nnx.update(ours, from_torch(nnx.state(ours), arrays(theirs.state_dict())))
    theirs.eval()
    ours.eval()
    with torch.no_grad():
        output = output_of(theirs, taps)
        expected = (
            {"regions": theirs.segmentation(output, batch)}
            if recipe.regions > 2
            else theirs.maps(output, batch)
        )
    graph, state = nnx.split(ours)
    kinds: list[str] = []  # JAX would sort them.

    def tested(state: nnx.State, taps: list[jax.Array]) -> list[jax.Array]:
        system = nnx.merge(graph, state)
        output = output_of(system, taps)
        if recipe.regions > 2:
            return [system.segmentation(output, ours_batch), system.descriptors(output, ours_batch)]
        maps = system.maps(output, ours_batch)
        kinds.extend(maps)
        return list(maps.values())

    # Cheaper in one program where there are many operations of many shapes.
    if recipe.system == "menet" or name in DOUBLE or recipe.options.get("steps_per_image"):
        tested = jax.jit(tested)
    results = tested(state, [last(tap) for tap in taps])
    if recipe.regions > 2:
        regions, our_descriptors = map(np.asarray, results)
        assert (regions == expected["regions"].numpy()).mean() > 0.999
        descriptors = theirs.descriptors(output, batch)
        np.testing.assert_allclose(our_descriptors, descriptors, atol=1e-3)
        np.testing.assert_allclose(descriptors.sum(dim=-1), 1, atol=1e-5)
    else:
        assert kinds == list(expected)
        share = 1e-3
        for kind, one in zip(kinds, results, strict=True):
            decided = torch.ones_like(expected[kind], dtype=torch.bool)
            if kind == "merged":  # Where both maps are equally certain, rounding chooses.
                certainty = [(m - 0.5).abs() for m in (batch.prior, expected["refined"])]
                decided = (certainty[0] - certainty[1]).abs() > share
            assert decided.float().mean() > 0.9
            close(np.asarray(one)[decided.numpy()], expected[kind][decided], share)


@pytest.mark.parametrize(
    ("before", "after"), [((32, 32), (8, 8)), ((19, 15), (7, 4)), ((9, 8), (9, 8))]
)
def test_maps_are_averaged_down_as_in_torch(before, after):
    maps = torch.rand(2, *before)
    expected = torch_system.area_resize(maps, after)
    ours = area_resize(jnp.asarray(maps.numpy()), after)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("before", "after"),
    [((4, 5), (8, 10)), ((9, 9), (19, 19)), ((1, 1), (4, 7)), ((6, 6), (6, 6)), ((12, 9), (5, 4))],
)
def test_features_are_resized_as_in_torch(before, after):
    x = torch.randn(2, 3, *before)
    expected = torch_system.resize(x, after)
    ours = resize(last(x), after)
    np.testing.assert_allclose(ours, last(expected), atol=1e-5)


def test_weights_of_another_network_are_refused():
    recipe = RECIPES["zoomout-ce"]
    ours = in_flax(recipe, in_torch(recipe))
    state = nnx.state(ours)
    good = to_torch(state)
    name, *_ = good
    for change, fault in (
        ({}, "missing"),
        ({name: good[name], "extra.weight": np.zeros(3)}, "unexpected: extra.weight"),
        ({name: np.zeros(5)}, "of another shape"),
    ):
        bad = {n: a for n, a in good.items() if n != name} | change
        with pytest.raises(InputError, match=fault):
            from_torch(state, bad)
