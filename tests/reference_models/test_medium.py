"""A fine-tuned backbone on a processor: crops, bfloat16, the same bits after a stop and a swap."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reference_models.errors import OutOfTime
from reference_models.files import read_arrays
from reference_models.networks.torch.backbones import Float32OnCPU, load_backbone, mobilenet_v2
from reference_models.networks.torch.build import build
from reference_models.options import Options
from reference_models.papers.recipes import RECIPES
from reference_models.training import score as scoring
from reference_models.training import torch_trainer as training
from reference_models.training.run import Shared, load_data, run
from reference_models.training.score import means_of, score
from reference_models.training.stopping import Clock, clock
from reference_models.training.torch_trainer import Objective
from reference_models.training.trained import restore_network
from tests.support.systems import a_batch

pytestmark = pytest.mark.usefixtures("torch_settings")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch):
    """The recipes' medium plans, of four steps on eight generated scenes."""
    for name in ("fcn-cas-clean", "fcn-cas-swapped"):
        plan = replace(
            RECIPES[name].medium, size=64, crop=32, steps=4, batch=4, train_images=8, test_images=4
        )
        monkeypatch.setitem(RECIPES, name, replace(RECIPES[name], medium=plan))


def trained(folder: Path, recipe: str, check: Clock) -> dict[str, np.ndarray]:
    options = Options(recipe=recipe, data="scenes", out=folder, checkpoint_seconds=0)
    run(options, Shared(), check)
    return read_arrays(folder / "weights.safetensors")


def stops_after(steps: int) -> Clock:
    calls = iter(range(steps))

    def check() -> None:
        if next(calls, None) is None:
            raise OutOfTime

    return check


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_stops_and_swapped_labels_leave_no_trace(
    short: None, half: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "computes_in_bfloat16", lambda: half)
    straight = trained(tmp_path / "clean", "fcn-cas-clean", clock())
    with pytest.raises(OutOfTime):
        trained(tmp_path / "stopped", "fcn-cas-clean", stops_after(2))
    stopped = trained(tmp_path / "stopped", "fcn-cas-clean", clock())
    swapped = trained(tmp_path / "swapped", "fcn-cas-swapped", clock())
    fresh = mobilenet_v2()
    options = Options(recipe="fcn-cas-clean")
    load_backbone(fresh, options.backbone_file)
    first = "features.0.0.weight"
    assert not np.array_equal(straight[f"backbone.{first}"], fresh.state_dict()[first].numpy())
    for other in (stopped, swapped):
        assert list(other) == list(straight)
        for name in straight:
            np.testing.assert_array_equal(other[name], straight[name], err_msg=name)
    report = json.loads((tmp_path / "clean/run.json").read_text())
    assert report["precision"] == ("bfloat16" if half else "float32")


@pytest.mark.parametrize(
    "name", ["zoomout-exact", "fcn-cas-clean", "metric-head-metric", "anchors", "relations"]
)
def test_the_backbones_gradient_in_bfloat16_points_where_that_in_float32_does(name: str):
    torch.manual_seed(0)
    system = build(RECIPES[name].network(RECIPES[name].medium))
    load_backbone(system.backbone, Options(recipe=name).backbone_file)
    batch = a_batch(4, 96)
    gradients = []
    for half in (False, True):
        system.zero_grad()
        loss = Objective(system, half)(batch._replace(rng=torch.Generator().manual_seed(1)), None)
        assert loss.dtype == torch.float32
        loss.backward()
        gradients.append(
            torch.cat(
                [
                    parameter.grad.flatten()
                    for parameter in system.backbone.parameters()
                    if parameter.grad is not None
                ]
            )
        )
    assert all(gradient.isfinite().all() for gradient in gradients)
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert 0.9 < cosine < 1, "in bfloat16 it is another, and not by much"


def test_what_strides_or_dilates_is_computed_in_float32_on_a_cpu():
    network = mobilenet_v2(taps=(17,), output_stride=16)
    kept = [m for m in network.modules() if isinstance(m, Float32OnCPU)]
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            plain = module.stride == module.dilation == (1, 1)
            assert plain != (module in kept)
    assert len(kept) > 4
    x = torch.rand(1, 3, 32, 32)
    exact = torch.nn.Conv2d.forward(kept[0], x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(kept[0](x), exact)
        assert kept[0](x.bfloat16()).dtype == torch.float32


def test_measuring_stops_within_a_set_and_its_parts_make_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = Options(
        recipe="scenes-cas", out=tmp_path, steps=2, batch=4, train_images=8, test_images=5, size=16
    )
    run(options, Shared(), clock())
    network, tests = (
        restore_network(tmp_path / "weights.safetensors", options),
        load_data(options).tests,
    )
    whole = score(network, tests, clock())
    monkeypatch.setattr(scoring, "CHUNK", 2)
    parts = score(network, tests, clock())
    assert means_of(parts) == means_of(whole)
    with pytest.raises(OutOfTime):
        score(network, tests, stops_after(3))
    score(network, tests, stops_after(4))
