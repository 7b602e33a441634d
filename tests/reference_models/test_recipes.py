"""The recipes: each builds its system, names its paper's figures, and finds the priors it names."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from reference_models import evaluate
from reference_models.data.scenes import scenes
from reference_models.errors import InputError
from reference_models.files import read_arrays
from reference_models.measures import per_image
from reference_models.measures.features import NAMES as DISTANCES
from reference_models.measures.saliency import BINARY, NAMES
from reference_models.networks.options import BLOCKS, Backbone
from reference_models.networks.torch.backbones import mobilenet_v2
from reference_models.networks.torch.build import build
from reference_models.networks.torch.system import Batch
from reference_models.options import Options
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import as_json
from reference_models.paths import RUNS
from reference_models.reproduction.sweep import needs
from reference_models.training.run import Shared, load_data, run, without_priors
from reference_models.training.score import prior_maps, priors_for
from reference_models.training.stopping import clock
from tests.reliability.stops import signalled
from tests.support.paths import ROOT
from tests.support.systems import a_batch

pytestmark = pytest.mark.usefixtures("torch_settings")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_consistent_and_builds_at_both_scales(name: str):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert recipe.scales
    for scale in (recipe.at(scale) for scale in recipe.scales if scale != "paper"):
        system = build(recipe.network(scale))
        head = [p for n, p in system.named_parameters() if not n.startswith("backbone.")]
        assert sum(p.numel() for p in head) > 300
        side = scale.crop or scale.size
        assert side % (32 if scale.backbone else 4) == 0
        assert not (scale.crop and scale.backbone and not scale.backbone_rate), "features of crops"
        if scale is recipe.small:
            assert scale.train_images is not None
    if recipe.paper:
        for figures in recipe.paper.figures.values():
            assert set(figures) <= {*NAMES, "weighted_f_exact"}
            assert all(0 < figure < 1 for figure in figures.values())
    others = [recipe.train_prior, *(p for ps in recipe.test_priors.values() for p in ps)]
    for prior in others:
        if prior and prior.startswith("run:"):
            assert prior.removeprefix("run:") in RECIPES
    assert set(recipe.test_priors) <= set(recipe.tests)


def test_the_schedule_of_every_recipe_is_stored_in_its_results():
    """So that results, weights and checkpoints stay valid: the JSON is equal byte by byte."""
    files = sorted(RUNS.glob("*.json"))
    assert len(files) > 200
    for file in files:
        row = json.loads(file.read_text("utf-8"))
        plan = RECIPES[row["recipe"]].at(row["scale"])
        assert json.dumps(as_json(plan)) == json.dumps(row["schedule"]), file.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"widht": 3}}, "recipe anchors: .* no option 'widht'; its options are width,"),
        ({"options": {"flip": 1.5}}, r"recipe anchors: flip must lie in 0\.\.1, got 1\.5"),
        ({"options": {"steps": 0}}, "recipe anchors: steps must be an integer of at least 1"),
        ({"options": {"selection": "x"}}, "recipe anchors: selection must be 'hard' or 'soft'"),
        ({"loss": "anchor"}, "recipe anchors: unknown loss 'anchor'; choose one of anchors, ce"),
        ({"system": "menet", "loss": "ce", "options": {}}, "recipe anchors: .*'embedding'"),
    ],
)
def test_a_recipe_with_bad_options_is_refused_by_name(changes: dict, message: str):
    with pytest.raises(InputError, match=message):
        replace(RECIPES["anchors"], **changes)


def test_a_recipe_needs_the_backbone_that_its_network_stands_on():
    recipe = RECIPES["zoomout-ce"]
    with pytest.raises(InputError, match="recipe zoomout-ce: ZoomoutOptions need a backbone"):
        replace(recipe, small=replace(recipe.small, backbone=None))


@pytest.mark.parametrize("name", BLOCKS)
def test_any_backbone_can_carry_a_recipe(name: str):
    options = Options(recipe="fcn-cas-clean", scale="small", backbone=name)
    backbone = build(options.chosen_recipe.network(options.plan)).backbone
    assert backbone.name == name
    assert backbone.strides[-1] == 32


@pytest.mark.parametrize("recipe", ["zoomout-af", "deeplab-cas-clean", "metric-head-metric",
                                    "anchors", "relations"])  # fmt: skip
def test_every_system_accepts_sides_that_its_strides_do_not_divide(recipe: str):
    system = build(RECIPES[recipe].network(RECIPES[recipe].small)).eval()
    images = torch.rand(2, 3, 72, 72)
    batch = Batch(
        images, torch.arange(72).expand(2, 72, 72) // 36, torch.rand(2, 72, 72), torch.Generator()
    )
    output = system(system.backbone(images))
    assert system.loss(output, batch).isfinite()
    assert all(one.shape == (2, 72, 72) for one in system.maps(output, batch).values())


def test_missing_weights_of_a_backbone_are_named(tmp_path: Path):
    options = Options(recipe="fcn-cas-clean", backbone="vgg16", archives=tmp_path)
    with pytest.raises(InputError, match=r"ImageNet weights of vgg16 .* --backbone-weights"):
        _ = options.backbone_file


def test_only_the_recipe_as_it_stands_answers_a_table():
    assert Options(recipe="menet-ce", scale="small", seed=2).is_unmodified
    for change in ({"steps": 3}, {"data": "scenes"}, {"swap_labels": 0.5}, {"train_images": 9}):
        assert not Options(recipe="menet-ce", scale="small", **change).is_unmodified


def test_recipes_of_like_names_are_offered():
    for given, offered in (("fcn", "fcn-ce-clean"), ("zoomout_af", "zoomout-af")):
        with pytest.raises(InputError, match=f"Did you mean .*{offered}"):
            Options(recipe=given)


def test_missing_priors_are_said(tmp_path: Path):
    root = tmp_path / "set"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
        for i in range(4):
            pixels = np.zeros((16, 16, 3), np.uint8)
            pixels[4:9, 4:9] = 255
            Image.fromarray(pixels).convert("RGB").save(root / kind / f"{i}.png")
    options = Options(recipe="scenes-js-mi", data=root, size=16)
    (note,) = without_priors(options, load_data(options))
    assert "has no priors/: a Gaussian at the centre is used as every prior map" in note
    assert without_priors(replace(options, recipe="scenes-cas"), load_data(options)) == []
    shutil.copytree(root / "masks", root / "priors")
    assert without_priors(options, load_data(options)) == []


def command(folder: Path, steps: int) -> list[str]:
    """`scratch(folder / "run")` as a user types it."""
    return [
        sys.executable, "-m", "reference_models.train", "menet-metric", "--scale", "small",
        "--data", "scenes", "--size", "32", "--train-images", "8", "--test-images", "4",
        "--steps", str(steps), "--batch", "4", "--out", str(folder / "run"),
    ]  # fmt: skip


def ends_like_one_without_a_stop(folder: Path, steps: int) -> None:
    run(scratch(folder / "straight", steps=steps), Shared(), clock())
    ours, theirs = (read_arrays(folder / name / "weights.safetensors")
                    for name in ("run", "straight"))  # fmt: skip
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way there")
def test_a_run_that_is_asked_to_stop_saves_its_step(tmp_path: Path):
    words = [*command(tmp_path, steps=30), "--checkpoint-seconds", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = signalled(
        words, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not (tmp_path / "run/checkpoint.safetensors").exists():
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 130, err
    assert "stopping after this step" in err
    assert "Stopped. Run the same command again to resume." in out
    done = len(read_arrays(tmp_path / "run/checkpoint.safetensors")["run/losses"])
    assert 0 < done < 30
    again = subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert f"resumed after step {done} of 30" in again.stdout.decode()
    ends_like_one_without_a_stop(tmp_path, steps=30)


def test_options_that_would_be_ignored_are_errors():
    for recipe, change, match in (
        ("menet-ce", {"backbone": "vgg16"}, "menet-ce has no backbone; omit --backbone"),
        ("regions-cas-4", {"data": "scenes"}, "scenes has masks, but regions-cas-4 learns regions"),
        ("scenes-cas", {"minutes": -1.0}, "--minutes must not be negative"),
    ):
        with pytest.raises(InputError, match=match):
            Options(recipe=recipe, **change)


@pytest.mark.parametrize("name", [
    "zoomout-ce", "zoomout-exact", "zoomout-ce-band", "fcn-cas-swapped", "deeplab-ce-clean",
    "fcn-cace-clean", "fcn-cace-pixel-clean", "menet-ce-plain", "menet-metric",
    "metric-head-metric", "metric-head-metric-pairwise", "metric-head-metric-hard-negatives",
    "metric-head-metric-printed", "menet-metric-alone",
    "anchors", "anchors-fc", "anchors-ce", "relations", "scenes-metric", "scenes-js-mi",
])  # fmt: skip
def test_every_system_trains_in_half_precision(name: str):
    """bfloat16 under autocast, as on a GPU: all that leaves a system is float32 and finite."""
    options = Options(recipe=name, scale="small")
    torch.manual_seed(0)
    system = build(options.chosen_recipe.network(options.plan))
    batch = a_batch(2, 64)
    with torch.autocast("cpu", torch.bfloat16):
        output = system(system.backbone(batch.images))
        loss = system.loss(output, batch)
    loss.backward()
    assert (loss.dtype, bool(loss.isfinite())) == (torch.float32, True)
    for parameter in system.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        output = system.eval()(system.backbone(batch.images))
    for name, maps in system.maps(output, batch).items():
        assert maps.dtype == torch.float32, name


TINY = {
    "scale": "small", "data": "scenes", "size": 32, "train_images": 8, "test_images": 4,
    "steps": 2, "batch": 4,
}  # fmt: skip


def scratch(folder: Path, **changes: object) -> Options:
    return Options(**(TINY | {"recipe": "menet-metric", "out": folder} | changes))


def test_priors_by_name(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = replace(
        RECIPES["scenes-cas"].medium, size=16, train_images=8, test_images=8, steps=2, batch=4
    )
    for name in ("scenes-cas", "scenes-anchor"):
        monkeypatch.setitem(RECIPES, name, replace(RECIPES[name], medium=short))
    options = Options(recipe="scenes-anchor")
    (test,) = load_data(options).tests
    shape = test.images.labels.shape
    centre = prior_maps("centre", test, options)
    assert (centre.shape, centre.dtype) == (shape, np.uint8)
    assert centre[0, 8, 8] > centre[0, 0, 0]
    np.testing.assert_array_equal(prior_maps("truth", test, options) == 255, test.images.masks)
    np.testing.assert_array_equal(prior_maps("generated", test, options), test.images.priors)
    with pytest.raises(InputError, match=r"does not exist; first run .*scenes-cas --backend torch"):
        prior_maps("run:scenes-cas", test, options)

    run(replace(options, recipe="scenes-cas", steps=1), Shared(), clock())
    with pytest.raises(InputError, match=r"weights\.safetensors comes from a different run of it"):
        prior_maps("run:scenes-cas", test, options)
    shutil.rmtree("runs")
    run(replace(options, recipe="scenes-cas"), Shared(), clock())
    options = replace(options, recipe="scenes-anchor")
    maps = prior_maps("run:scenes-cas", test, options)
    assert maps.shape == shape
    assert (maps.min(axis=(1, 2)) == 0).all()
    assert (maps.max(axis=(1, 2)) == 255).all()
    # The recipe's own sizes stay what they were when it was trained, whatever ours are.
    assert priors_for(options.chosen_recipe, test, "small") == ("generated",)
    without = replace(test, name="own", priors={})
    assert priors_for(options.chosen_recipe, without, "small") == ("centre",)
    assert priors_for(RECIPES["scenes-cas"], test, "small") == ()
    # A set of the user's that is called as one of ours: its own priors, no controls.
    mine = replace(test, name="ecssd", priors={"priors": test.images.priors}, is_named=False)
    for recipe in ("anchors", "relations"):
        assert priors_for(RECIPES[recipe], mine, "small") == ("priors",)
        assert priors_for(RECIPES[recipe], replace(mine, priors={}), "small") == ("centre",)
    ours = replace(mine, priors={"drfi": test.images.priors}, is_named=True)
    assert priors_for(RECIPES["anchors"], ours, "small") == ("drfi", "centre", "truth")


def test_a_paper_system_runs_from_command_to_report(tmp_path: Path):
    options = scratch(tmp_path / "run")
    run(options, Shared(), clock())
    report = json.loads((tmp_path / "run/run.json").read_text())
    rows = report["measures"]
    assert list(rows) == [
        "scenes",
        *(f"scenes, {word}" for word in options.chosen_recipe.corruptions),
        "scenes, features",
    ]
    assert set(rows["scenes"]) == {"saliency head", "semantic distance"}
    assert set(rows["scenes"]["saliency head"]) == {*NAMES, *BINARY}
    assert set(rows["scenes, features"]["features"]) == set(DISTANCES)
    assert rows["scenes"] != rows["scenes, noise 0.29"]
    assert report["schedule"]["size"] == 32
    assert set(report["inference_seconds"]) == {"1", "8"}
    assert all(0 < seconds < 60 for seconds in report["inference_seconds"].values())
    with Image.open(tmp_path / "run/sheet.png") as picture:
        assert min(picture.size) > 300


def photographs(folder: Path, count: int = 6) -> Path:
    """Generated scenes of several sizes as files, with priors."""
    images, masks, priors = scenes(count, 48, seed=5)
    for name, arrays in (("images", images), ("masks", masks), ("priors", priors)):
        (folder / name).mkdir(parents=True)
        for i, array in enumerate(arrays):
            values = array if array.dtype == np.uint8 else (255 * array).astype(np.uint8)
            Image.fromarray(values[: 40 + i]).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize("recipe", ["scenes-anchor", "menet-metric"])
def test_a_trained_network_is_evaluated_on_other_images(
    recipe: str, tmp_path: Path, capsys, monkeypatch
):
    options = scratch(tmp_path / "run", recipe=recipe)
    run(options, Shared(), clock())
    set_ = photographs(tmp_path / "set")
    wanted = evaluate.Options(tmp_path / "run", set_, out=tmp_path / "row.json", exact=True)
    evaluate.run(wanted)
    assert "6 images" in capsys.readouterr().out
    rows = json.loads((tmp_path / "row.json").read_text())["measures"]
    if recipe == "scenes-anchor":
        assert list(rows) == ["set, priors"]
        assert list(rows["set, priors"]) == ["prior", "prior, cut at 1/2", "map"]
    else:
        assert list(rows) == [
            "set",
            *(f"set, {word}" for word in options.chosen_recipe.corruptions),
            "set, features",
        ]
        assert 0 < rows["set"]["saliency head"]["weighted_f_exact"] < 1
    joined = replace(wanted, out=tmp_path / "joined.json")
    evaluate.run(replace(joined, shard="2/3"))
    evaluate.run(replace(joined, shard="3/3"))
    command = ["evaluate", joined.maps, "--masks", set_, "--out", joined.out, "--exact"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    for name in ("RANK", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    evaluate.main()
    assert not joined.out.exists()
    evaluate.run(replace(joined, join=True))
    whole, parts = (json.loads(one.out.read_text()) for one in (wanted, joined))
    measures = parts.pop("measures")
    assert parts == {name: whole[name] for name in parts}
    assert list(measures) == list(rows)
    for test, maps in rows.items():
        for name, row in maps.items():
            # A map may depend on its batch in the last bit, and then be rounded to another 8 bits.
            assert measures[test][name] == pytest.approx(row, abs=1e-4)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_recipe_starts_from_the_trained_weights_of_another(
    backend: str, tmp_path: Path, monkeypatch
):
    tiny = replace(RECIPES["scenes-cas"].small, size=32, steps=2, train_images=8, test_images=4)
    first = replace(RECIPES["scenes-cas"], small=tiny)
    still = replace(tiny, steps=1, rate=1e-9)
    second = replace(first, name="scenes-cas-again", small=still, start="scenes-cas")
    monkeypatch.setitem(RECIPES, first.name, first)
    monkeypatch.setitem(RECIPES, second.name, second)
    wanted = Options(recipe=second.name, backend=backend, scale="small")
    wanted = replace(wanted, out=tmp_path / wanted.name)
    with pytest.raises(InputError, match="scenes-cas-again starts from the trained scenes-cas"):
        run(wanted, Shared(), clock())
    before = Options(recipe=first.name, backend=backend, scale="small")
    before = replace(before, out=tmp_path / before.name)
    run(before, Shared(), clock())
    run(wanted, Shared(), clock())
    old, new = (read_arrays(one.folder / "weights.safetensors") for one in (before, wanted))
    for name, array in old.items():
        np.testing.assert_allclose(new[name], array, atol=1e-6)
    rows = [json.loads((one.folder / "run.json").read_text()) for one in (before, wanted)]
    assert rows[1]["start_sha256"] == rows[0]["weights_sha256"]
    assert needs(second.name, "small") == ["scenes-cas"]


def test_regions_run_from_command_to_report(tmp_path: Path, monkeypatch):
    """General segmentation, measured against two annotators."""
    (tmp_path / "sets/images").mkdir(parents=True)
    (tmp_path / "sets/segmentations").mkdir()
    (tmp_path / "sets/splits").mkdir()
    images, masks, _ = scenes(12, 32, seed=0)
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        Image.fromarray(image).save(tmp_path / f"sets/images/{i}.png")
        for person in range(2):
            regions = mask * 1 + 2 * person * (np.arange(32) > 16)
            file = tmp_path / f"sets/segmentations/{i}_{person}.png"
            Image.fromarray(regions.astype(np.uint8)).save(file)
    for name, stems in (("train", range(6)), ("val", range(6, 8)), ("test", range(8, 12))):
        (tmp_path / f"sets/splits/{name}.txt").write_text("\n".join(map(str, stems)))
    with zipfile.ZipFile(tmp_path / "bsds500.zip", "w") as archive:
        for file in (tmp_path / "sets").rglob("*.*"):
            archive.write(file, file.relative_to(tmp_path / "sets"))
    torch.manual_seed(0)
    save_file(mobilenet_v2((1, 3)).state_dict(), tmp_path / "mobilenet_v2.fp16.safetensors")
    recipe = RECIPES["regions-cas-4"]
    small = replace(recipe.small, size=32, steps=2, backbone=Backbone("mobilenet_v2", (1, 3)))
    changed = replace(recipe, small=small, further=("sparse", "contours"))
    monkeypatch.setitem(RECIPES, recipe.name, changed)
    options = Options(
        recipe=recipe.name, scale="small", archives=tmp_path, out=tmp_path / "run",
    )  # fmt: skip
    run(options, Shared(), clock(), results=tmp_path / "results")
    (report,) = (tmp_path / "results").glob("*.json")
    row = json.loads(report.read_text())["measures"]["bsds500"]["regions"]
    each = per_image.read(per_image.beside(report))["bsds500"]["regions"]
    assert each.stems == ("8", "9", "10", "11")
    assert {name: each.mean(name) for name in row} == pytest.approx(row, abs=0.001)
    assert 0 < row["covering"] <= 1
    assert 1 <= row["regions"] <= 4
    assert 0 <= row["sparse"] <= 1
    assert 0 <= row["contour_ods"] <= row["contour_ois"] <= 1
