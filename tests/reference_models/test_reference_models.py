"""Training: scenes, batches, schedule, runs, resuming, several processes, the demo, the command."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from reference_models import paths, provenance
from reference_models.data.images import Images
from reference_models.data.label_swaps import swap_labels
from reference_models.data.scenes import scenes
from reference_models.demo import compare, demo
from reference_models.errors import InputError, OutOfTime
from reference_models.files import read_about, read_arrays, write_arrays, write_json
from reference_models.measures.saliency import measure
from reference_models.networks.options import BLOCKS, CHANNELS, Backbone, blocks_like
from reference_models.networks.torch.backbones import mobilenet_v2
from reference_models.options import Options
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import Scale
from reference_models.train import main
from reference_models.training import loop
from reference_models.training import trained as trained_module
from reference_models.training.augmentation import Draw, draw_step
from reference_models.training.frameworks import new_trainer
from reference_models.training.loop import train
from reference_models.training.photographs import Source
from reference_models.training.run import Shared, claim_run_folder, load_data, run
from reference_models.training.score import means_of, score
from reference_models.training.stopping import Clock, clock
from reference_models.training.trained import Network, load_network, restore_network
from reference_models.training.trainer import one_cycle
from tests.support.paths import ROOT
from tests.support.short_runs import RUNS, run_all, with_backbone

pytestmark = pytest.mark.usefixtures("torch_settings")

TINY = Options(size=16, train_images=8, test_images=8, steps=3, batch=4)
BACKENDS = ("torch", "jax")
LOSSES = tuple(CHANNELS)


def tiny(loss: str = "cas", **changes: object) -> Options:
    return replace(TINY, recipe=f"scenes-{loss}", **changes)


Ended = tuple[Network, loop.History]


def go(options: Options, folder: Path, check: Clock | None = None) -> Ended:
    folder.mkdir(exist_ok=True)
    data = load_data(options)
    trainer = new_trainer(options)
    return train(options, trainer, data.train, data.validation, folder, check or clock())


# Scenes ------------------------------------------------------------------------------------------


def test_scenes_are_valid_and_depend_on_seed_and_index_alone():
    images, masks, priors = scenes(6, 32, seed=3)
    assert images.shape == (6, 32, 32, 3)
    assert (images.dtype, masks.dtype, priors.dtype) == (np.uint8, bool, np.float32)
    assert masks.any(axis=(1, 2)).all()
    assert not masks.all(axis=(1, 2)).any()
    assert priors.min() == 0
    assert priors.max() == 1
    for longer, shorter in zip(scenes(8, 32, seed=3), (images, masks, priors), strict=True):
        np.testing.assert_array_equal(longer[:6], shorter)
    assert (scenes(6, 32, seed=4)[0] != images).any()


def test_only_the_object_is_striped():
    """Neighbouring pixels differ more on the object, where stripes and checks are, than off it."""
    images, masks, _ = scenes(40, 64, seed=0)
    change = np.abs(np.diff(images.astype(float), axis=1)).mean(axis=-1)
    assert change[masks[:, 1:]].mean() > 1.5 * change[~masks[:, 1:]].mean()


# Batches and schedule ----------------------------------------------------------------------------


def test_every_image_is_drawn_once_an_epoch():
    plan = Scale(size=16, steps=9, batch=3, rate=1.0)
    first, second = (draw_step(8, 16, plan, seed=0, step=step) for step in range(2))
    assert len({*first.indices, *second.indices}) == 6
    assert not first.corners.any()
    again = draw_step(8, 16, plan, seed=0, step=1)
    np.testing.assert_array_equal(again.indices, second.indices)
    np.testing.assert_array_equal(again.mirrored, second.mirrored)
    assert again.seed == second.seed != first.seed
    mirrored = np.concatenate([draw_step(8, 16, plan, 0, step).mirrored for step in range(9)])
    assert mirrored.any()
    assert not mirrored.all()
    assert len(draw_step(8, 16, replace(plan, batch=50), 0, 5).indices) == 8


def test_crops_lie_in_the_image_and_reach_its_ends():
    plan = Scale(size=16, steps=9, batch=8, rate=1.0, crop=13)
    corners = np.concatenate([draw_step(8, 16, plan, 0, step).corners for step in range(40)])
    assert corners.min() == 0
    assert corners.max() == 3


class Seen(torch.nn.Module):
    """Takes the place of the objective and keeps what it is given."""

    def forward(self, batch, taps):
        self.batch = batch
        return torch.zeros((), requires_grad=True)


def test_a_step_mirrors_and_crops_images_labels_and_priors_alike():
    ramp = np.arange(2 * 16 * 16, dtype=np.uint16).reshape(2, 16, 16) % 251
    ramp = ramp.astype(np.uint8)
    trainer = new_trainer(tiny())
    trainer.set_training_images(Images(("a", "b"), np.stack([ramp] * 3, axis=-1), ramp, ramp))
    trainer.objective, trainer.plan = Seen(), replace(trainer.plan, crop=4)
    corners = np.array([[0, 0], [3, 5]])
    trainer.step(Draw(0, np.array([1, 0]), np.array([False, True]), corners, seed=0))
    batch = trainer.objective.batch
    expected = np.stack([ramp[1, :4, :4], ramp[0, 3:7, ::-1][:, 5:9]])
    np.testing.assert_array_equal(batch.labels, expected)
    np.testing.assert_allclose(255 * batch.prior, expected, rtol=1e-6)
    for channel in range(3):
        np.testing.assert_allclose(255 * batch.images[:, channel], expected, rtol=1e-6)


def test_one_cycle_rises_to_its_peak_and_falls():
    rates = [one_cycle(step, 100, 1.0) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25)
    assert int(np.argmax(rates)) == 30
    assert max(rates) == 1
    assert rates[-1] < 0.01


# Training ----------------------------------------------------------------------------------------


# JAX compiles for seconds; for daily work one of its losses is enough.
SLOW_JAX = [pytest.param(loss, "jax", marks=pytest.mark.slow) for loss in LOSSES if loss != "cas"]


@pytest.mark.parametrize(
    ("loss", "backend"), [(loss, "torch") for loss in LOSSES] + [("cas", "jax"), *SLOW_JAX]
)
def test_a_run_leaves_all_files(loss, backend, tmp_path: Path, capsys):
    options = tiny(loss, backend=backend, out=tmp_path / "run")
    run(options, Shared(), clock())
    assert {file.name for file in options.folder.iterdir()} == {
        ".lock",
        "options.json",
        "checkpoint.safetensors",
        "weights.safetensors",
        "run.json",
        "loss.png",
        "sheet.png",
    }
    report = json.loads((options.folder / "run.json").read_text())
    assert len(report["loss_curve"]) == 3
    assert np.isfinite(report["loss_curve"]).all()
    assert report["recipe"] == f"scenes-{loss}"
    assert report["images"] == {"train": 8, "validation": 40, "scenes": 8}
    promoted = loss in ("anchor", "js-mi")
    rows = report["measures"]["scenes, generated" if promoted else "scenes"]
    assert 0 < rows["map"]["mae"] < 1
    assert ("prior" in rows) == promoted
    weights = read_arrays(options.folder / "weights.safetensors")
    assert sum(array.size for array in weights.values()) == report["parameters"]
    assert all(np.isfinite(array).all() for array in weights.values())
    with Image.open(options.folder / "sheet.png") as picture:
        assert min(picture.size) > 300
    assert RECIPES[f"scenes-{loss}"].about in capsys.readouterr().out


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_weights_file_is_the_network_that_was_measured(backend, tmp_path: Path):
    options = tiny("class-agnostic-cross-entropy", backend=backend, out=tmp_path / "run")
    run(options, Shared(), clock())
    report = json.loads((options.folder / "run.json").read_text())
    file = options.folder / "weights.safetensors"
    assert read_about(file)["inverted"] == report["inverted"]
    scored = score(
        restore_network(file, replace(options, seed=7)), load_data(options).tests, clock()
    )
    assert means_of(scored)["scenes"]["map"] == pytest.approx(
        report["measures"]["scenes"]["map"], abs=1e-6
    )


@pytest.mark.parametrize(
    ("backend", "wrong", "inverted", "correlation"),
    [
        ("torch", 0.0, False, 1.0),
        ("torch", 1.0, True, 1.0),
        ("torch", 0.1, False, 0.8),
        ("torch", 0.45, False, 0.1),
        ("torch", 0.55, True, 0.1),
        ("jax", 0.55, True, 0.1),
    ],
)
def test_maps_that_do_not_show_the_masks_get_a_note(
    backend, wrong, inverted, correlation, tmp_path: Path, monkeypatch
):
    """The masks are of equal halves, and the map has that share of the pixels of each wrong."""
    options = tiny(backend=backend, steps=1)
    trainer, data = new_trainer(options), load_data(options)
    pixels = np.arange(400).reshape(1, 20, 20)
    masks, errors = pixels % 2 == 1, pixels // 2 % 20 < 20 * wrong
    labels = masks.astype(np.uint8)
    half = Images(("a",), np.stack([labels] * 3, axis=-1), labels, labels)
    monkeypatch.setattr(trainer, "maps", lambda _: {"map": (masks ^ errors).astype(np.float32)})
    trained, _ = train(options, trainer, data.train, half, tmp_path, clock())
    assert trained.inverted == inverted
    assert trained.correlation == pytest.approx(correlation)
    notes = "\n".join(trained.notes)
    assert ("one minus the map" in notes) == inverted
    low = "its correlation with the masks of the validation images is 0.10" in notes
    assert low == (correlation < 0.5)


def test_correlation_is_pearsons_and_0_for_constant_maps():
    rng = np.random.default_rng(0)
    masks = rng.random((3, 20, 20)) < 0.2
    maps = (0.3 * masks + rng.random(masks.shape)).astype(np.float32)
    expected = np.corrcoef(maps.ravel(), masks.ravel())[0, 1]
    assert loop.correlation(maps, masks) == pytest.approx(expected)
    assert loop.correlation(1 - maps, masks) == pytest.approx(-expected)
    assert loop.correlation(np.full(masks.shape, 0.1, np.float32), masks) == 0


@pytest.mark.parametrize(("loss", "noted"), [("cas", True), ("cross-entropy", False)])
def test_the_note_is_printed_and_the_correlation_recorded(
    loss, noted, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.setattr(trained_module, "MEANINGFUL", 1.1)  # No map correlates so much.
    options = tiny(loss, out=tmp_path / "run")
    run(options, Shared(), clock())
    assert ("note: the map hardly shows the objects" in capsys.readouterr().out) == noted
    correlation = json.loads((options.folder / "run.json").read_text())["validation_correlation"]
    assert (0 <= correlation <= 1) if noted else correlation is None


@pytest.mark.parametrize(
    ("loss", "backend"),
    [
        ("anchor", "torch"),
        ("js-mi", "torch"),
        pytest.param("anchor", "jax", marks=pytest.mark.slow),
        pytest.param("js-mi", "jax", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_ends_with_the_bits_of_one_that_was_not(loss, backend, tmp_path, monkeypatch):
    options = tiny(loss, backend=backend, steps=5, checkpoint_seconds=0.0)
    straight = go(options, tmp_path / "whole")

    def stop_at_three(count, size, plan, seed, step):
        if step == 3:
            raise KeyboardInterrupt
        return draw_step(count, size, plan, seed, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "draw_step", stop_at_three)
        with pytest.raises(KeyboardInterrupt):
            go(options, tmp_path / "stopped")
    saved = read_arrays(tmp_path / "stopped/checkpoint.safetensors")
    assert len(saved["run/losses"]) == 3
    same(go(options, tmp_path / "stopped"), straight)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stopped_run_goes_on_with_a_tuned_backbone(backend, tmp_path: Path, short_backbone):
    """Two groups of parameters, at learning rates of their own."""
    short_backbone("deeplab-cas-swapped", backbone_rate=0.1)
    options = with_backbone(tmp_path, backend=backend)
    left = iter(range(2))

    def two_steps():
        if next(left, None) is None:
            raise OutOfTime

    with pytest.raises(OutOfTime):
        go(options, tmp_path / "stopped", two_steps)
    same(go(options, tmp_path / "stopped"), go(options, tmp_path / "whole"))


def same(resumed: Ended, straight: Ended) -> None:
    assert resumed[1].losses == straight[1].losses
    ours, theirs = resumed[0].trainer.state(), straight[0].trainer.state()
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_the_minutes_end_a_run_that_goes_on_later(tmp_path: Path):
    options = tiny("anchor", steps=5)
    calls = iter(range(100))

    def three_steps():
        if next(calls) == 3:
            raise OutOfTime

    with pytest.raises(OutOfTime):
        go(options, tmp_path / "stopped", three_steps)
    assert len(read_arrays(tmp_path / "stopped/checkpoint.safetensors")["run/losses"]) == 3
    same(go(options, tmp_path / "stopped"), go(options, tmp_path / "whole"))


def test_a_run_says_what_its_parts_were_made_with(tmp_path: Path, monkeypatch):
    options = tiny("anchor", steps=3, out=tmp_path / "run")
    calls = iter(range(100))

    def two_steps():
        if next(calls) == 2:
            raise OutOfTime

    monkeypatch.setattr(provenance, "hardware", lambda device: "an older machine")
    with pytest.raises(OutOfTime):
        run(options, Shared(), two_steps)
    monkeypatch.undo()
    run(options, Shared(), clock())
    report = json.loads((options.folder / "run.json").read_text())
    assert [part["device"] for part in report["earlier"]] == ["cpu: an older machine"]
    assert report["device"] != "cpu: an older machine"
    assert set(report["earlier"][0]) == {"device", "precision", "versions", "commit"}
    run(replace(options, out=tmp_path / "whole"), Shared(), clock())
    assert "earlier" not in json.loads((tmp_path / "whole/run.json").read_text())


@pytest.mark.parametrize("value", [0, 1])
def test_masks_that_do_not_tell_object_from_background_are_refused_before_training(
    value, tmp_path: Path
):
    """Without labels of both kinds, a class-agnostic map is right or inverted by chance."""
    options = tiny("cas", steps=1)
    trainer, data = new_trainer(options), load_data(options)
    labels = np.full((1, 16, 16), value, np.uint8)
    unclear = Images(("a",), np.stack([labels] * 3, axis=-1), labels, labels)
    with pytest.raises(InputError, match=r"does not learn which side .*\(a\).* splits/val.txt"):
        train(options, trainer, data.train, unclear, tmp_path, clock())
    assert not list(tmp_path.iterdir())
    other = tiny("cross-entropy", steps=1)
    train(other, new_trainer(other), data.train, unclear, tmp_path, clock())


def test_all_processes_want_one_folder(tmp_path: Path, monkeypatch):
    options = tiny()
    trainer = new_trainer(options)
    monkeypatch.setattr(trainer, "any_process", lambda flag: True)
    with pytest.raises(InputError, match=r"some processes find .*checkpoint.* give --out a folder"):
        loop.fit(trainer, load_data(options).train, options, tmp_path / "checkpoint", clock())


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_seed_decides_the_weights(backend):
    options = tiny(backend=backend)
    first, again = new_trainer(options).weights(), new_trainer(options).weights()
    other = new_trainer(replace(options, seed=1)).weights()
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_both_frameworks_train_the_same_network():
    """PyTorch's weights, moved to Flax, give the same loss, maps and first step."""
    options = tiny("js-mi")
    ours, theirs = new_trainer(options), new_trainer(replace(options, backend="jax"))
    theirs.load(ours.weights())
    assert ours.weights().keys() == theirs.weights().keys()
    images = load_data(options).train
    np.testing.assert_allclose(ours.maps(images)["map"], theirs.maps(images)["map"], atol=1e-5)
    weights = ours.pixel_weights(images)
    np.testing.assert_allclose(weights, theirs.pixel_weights(images), atol=1e-5 * weights.max())
    for trainer in (ours, theirs):
        trainer.set_training_images(images)
    for step, tolerance in enumerate((1e-5, 1e-3)):
        draw = draw_step(len(images), 16, options.plan, seed=0, step=step)
        assert ours.step(draw) == pytest.approx(theirs.step(draw), rel=tolerance)


def test_a_short_run_learns(tmp_path: Path):
    options = tiny("cross-entropy", size=32, train_images=64, test_images=40, steps=60)
    (test,) = load_data(options).tests
    before = measure(new_trainer(options).maps(test.images)["map"], test.truth)
    network, history = go(options, tmp_path)
    after = measure(network.main_map(test.images), test.truth)
    # Five seeds: the loss falls to 0.30 to 0.41 of its first values, the error from 0.47 to 0.56
    # down to 0.13 to 0.21.
    assert np.mean(history.losses[-10:]) < 0.8 * np.mean(history.losses[:10])
    assert after["mae"] < before["mae"]


# A backbone: frozen or fine-tuned, and several processes -----------------------------------------


@pytest.fixture
def short_backbone(monkeypatch):
    """All recipes at small scale stop at MobileNetV2's third block."""

    def shortened(recipe: str, **changes: object) -> None:
        before = RECIPES[recipe]
        small = replace(before.small, backbone=Backbone("mobilenet_v2", (1, 3)), **changes)
        monkeypatch.setitem(RECIPES, recipe, replace(before, small=small))

    return shortened


@pytest.mark.parametrize("backend", BACKENDS)
def test_cached_features_train_as_computed_ones_do(backend, tmp_path: Path, short_backbone):
    short_backbone("deeplab-cas-swapped")
    options = with_backbone(tmp_path, backend=backend)
    frozen, history = go(options, tmp_path / "frozen")
    assert not any(name.startswith("backbone.") for name in frozen.trainer.weights())
    # Half precision of the stored features is all that differs from computing them each time.
    short_backbone("deeplab-cas-swapped", backbone_rate=1e-9)
    tuned, tuned_history = go(options, tmp_path / "tuned")
    assert history.losses == pytest.approx(tuned_history.losses, abs=2e-3)
    assert tuned.trainer.parameters > frozen.trainer.parameters


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_are_whole_where_the_backbone_is_not_everybodys(
    backend, tmp_path: Path, short_backbone
):
    short_backbone("deeplab-cas-swapped")
    shared = with_backbone(tmp_path, backend=backend)
    there = tmp_path / "mobilenet_v2.fp16.safetensors"
    own = replace(shared, archives=None, backbone_weights=there)
    assert shared.plan.backbone.padding == "end"
    assert own.plan.backbone.padding == "both"
    assert replace(own, padding="end").plan.backbone.padding == "end"
    run(replace(own, out=tmp_path / "own"), Shared(), clock(), tmp_path / "results")
    there.unlink()
    file = tmp_path / "own/weights.safetensors"
    images = load_data(own).tests[0].images
    network = load_network(str(file), "cpu")
    assert network.options.plan.backbone.padding == "both"
    assert np.ptp(network.main_map(images)) > 0


def test_a_frozen_backbone_is_the_one_of_the_training(tmp_path: Path, short_backbone, monkeypatch):
    short_backbone("deeplab-cas-swapped")
    options = with_backbone(tmp_path, out=tmp_path / "run")
    run(options, Shared(), clock(), tmp_path / "results")
    file, images = options.folder / "weights.safetensors", load_data(options).tests[0].images
    before = load_network(str(file), "cpu", tmp_path).main_map(images)
    settings = Source(str(file), None, None, "cpu", tmp_path).settings

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    torch.manual_seed(1)
    save_file(mobilenet_v2((1, 3), 32).state_dict(), elsewhere / "mobilenet_v2.fp16.safetensors")
    with pytest.raises(InputError, match=r"trained on other ImageNet weights .*--archives FOLDER"):
        load_network(str(file), "cpu", elsewhere)
    # A bundled model finds the bundled backbone, whatever the archives hold.
    bundled = tmp_path / "weights"
    bundled.mkdir()
    shutil.copy(tmp_path / "mobilenet_v2.fp16.safetensors", bundled)
    shutil.copy(file, bundled / "deeplab-cas-swapped.safetensors")
    monkeypatch.setattr(paths, "WEIGHTS", bundled)
    network = load_network("deeplab-cas-swapped", "cpu", elsewhere)
    np.testing.assert_array_equal(network.main_map(images), before)

    arrays, about = read_arrays(file), read_about(file)
    del about["backbone_sha256"], about["sha256_of_arrays"]
    write_arrays(file, arrays, about)  # As older runs did.
    older = [
        Source(str(file), None, None, "cpu", place).settings for place in (tmp_path, elsewhere)
    ]
    assert len({settings, *older}) == 3


def test_another_backbone_gives_features_of_the_same_strides():
    relations = Options(recipe="relations", backbone="vgg16").plan.backbone
    assert relations.taps == (4, 9, 23, 30)  # Strides 2, 4, 16 and 32.
    zoomout = Options(recipe="zoomout-af", scale="paper", backbone="resnet101").plan.backbone
    assert zoomout.taps == BLOCKS["resnet101"]
    for of, layers in BLOCKS.items():
        for to, others in BLOCKS.items():
            assert blocks_like(layers, of, to) == others


def test_a_resumed_optimizer_keeps_the_layout_of_the_parameters(tmp_path: Path, short_backbone):
    short_backbone("deeplab-cas-swapped")
    trainer = new_trainer(with_backbone(tmp_path))
    trainer.system.to(memory_format=torch.channels_last)
    trainer.set_training_images(load_data(with_backbone(tmp_path)).train)
    trainer.step(Draw(0, np.arange(4), np.zeros(4, bool), np.zeros((4, 2), int), seed=0))
    before = trainer.state()
    trainer.restore(before)
    for parameter, held in trainer.optimizer.state.items():
        assert held["exp_avg"].stride() == parameter.stride()
    for name, array in trainer.state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fine_tuning_moves_the_backbone_less_than_the_head(backend, tmp_path: Path, short_backbone):
    short_backbone("deeplab-cas-swapped", backbone_rate=0.1)
    options = with_backbone(tmp_path, backend=backend)
    before = new_trainer(options).weights()
    after = go(options, tmp_path / "run")[0].trainer.weights()
    moved = {name: np.abs(after[name] - before[name]).max() for name in before}
    backbone = max(change for name, change in moved.items() if name.startswith("backbone."))
    head = max(change for name, change in moved.items() if not name.startswith("backbone."))
    assert 0 < backbone < 0.3 * head


@pytest.mark.parametrize("backend", BACKENDS)
def test_cas_learns_the_same_bits_from_swapped_labels(backend, tmp_path: Path, short_backbone):
    short_backbone("deeplab-cas-swapped")
    options = with_backbone(tmp_path, backend=backend)
    swapped = go(options, tmp_path / "swapped")
    clean = go(replace(options, swap_labels=0.0), tmp_path / "clean")
    same(swapped, clean)


def test_batch_normalisation_is_not_split_on_cpus(monkeypatch):
    options = Options(recipe="menet-ce", scale="small", data="scenes", size=32, batch=4)
    trainer = new_trainer(options)
    trainer.processes = 2
    images = load_data(replace(options, train_images=8)).train
    with pytest.raises(InputError, match="on GPUs only; train this network in one process"):
        trainer.set_training_images(images)
    trainer.plan = replace(trainer.plan, batch=3)
    with pytest.raises(InputError, match="a batch of 3 cannot be split evenly over 2 processes"):
        trainer.set_training_images(images)


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path):
    """torchrun with gloo: the same losses and weights. One process writes, and can load by itself.

    All runs in the same processes, as starting takes longer than they do.
    """
    with_backbone(tmp_path)  # Writes the backbone's weights.
    run_all(tmp_path, "one")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "-m", "tests.support.short_runs", tmp_path, "two"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("images: 8 train") == len(RUNS)
    for title in RUNS:
        folders = [tmp_path / name / title for name in ("one", "two")]
        one, two = (json.loads((folder / "run.json").read_text()) for folder in folders)
        assert one["loss_curve"] == pytest.approx(two["loss_curve"], abs=1e-5), title
        ours, theirs = (read_arrays(folder / "weights.safetensors") for folder in folders)
        for name in ours:
            # Not the largest: Adam's first steps are as long where a gradient is but rounding.
            assert np.abs(ours[name] - theirs[name]).mean() < 2e-5, (title, name)


# The demonstration -------------------------------------------------------------------------------


@pytest.mark.slow
def test_demo_compares_the_weights_it_trained(tmp_path: Path, capsys):
    demo(tiny(size=32, steps=20, train_images=32, out=tmp_path))
    report = json.loads((tmp_path / "demo.json").read_text())
    assert report["cas_swapped_against_clean"]["differing"] == 0
    assert report["cas_swapped_against_clean"]["largest"] == 0
    assert "bit for bit equal" in capsys.readouterr().out
    assert len(report["measures"]) == 5
    with Image.open(tmp_path / "demo.png") as picture:
        assert min(picture.size) > 300
    saved = {
        name: read_arrays(tmp_path / name / "checkpoint.safetensors")
        for name in ("cas-swapped", "cas-clean", "cross-entropy-swapped", "cross-entropy-clean")
    }
    for name in saved["cas-clean"]:
        if name.startswith("weights/"):
            np.testing.assert_array_equal(saved["cas-swapped"][name], saved["cas-clean"][name])
            # The swap did reach the training: cross-entropy notices it.
            one, other = (saved[f"cross-entropy-{kind}"][name] for kind in ("swapped", "clean"))
            assert (one != other).any()


def test_compare_sees_a_single_bit():
    first = {"a": np.array([1.0, 2.0], np.float32), "b": np.zeros(3, np.float32)}
    assert compare(first, first) == {"weights": 5, "differing": 0, "largest": 0.0}
    nudged = first | {"a": np.nextafter(first["a"], np.array([1, 9], np.float32))}
    assert compare(first, nudged)["differing"] == 1
    assert compare(first, first | {"b": -first["b"]})["differing"] == 3


# The command -------------------------------------------------------------------------------------


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reference_models.train", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_the_command_trains_and_resumes(tmp_path: Path):
    words = (*SHORT, "--out", tmp_path / "run")
    trained = command(*words)
    assert trained.returncode == 0, trained.stderr
    assert "max F" in trained.stdout
    weights = (tmp_path / "run/weights.safetensors").read_bytes()
    again = command(*words)
    assert again.returncode == 0, again.stderr
    assert "resumed after step 2 of 2" in again.stdout
    assert (tmp_path / "run/weights.safetensors").read_bytes() == weights
    refused = command(*words, "--seed", 1)
    assert refused.returncode == 1
    assert "holds a different run (seed 0 -> 1, data_sha256" in refused.stderr
    assert "Traceback" not in refused.stderr


SHORT = ("--size", 16, "--train-images", 8, "--test-images", 8, "--steps", 2, "--batch", 4)


@pytest.mark.filterwarnings("default")  # As the command sets them.
def test_the_command_helps_lists_and_refuses(tmp_path: Path, monkeypatch, capsys):
    def called(*words: object) -> str | int | None:
        """What `sys.exit` gets: a text is printed with the status 1."""
        monkeypatch.setattr(sys, "argv", ["train", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            return end.code
        return 0

    assert called("--help") == 0
    helped = capsys.readouterr().out
    for word in ("RECIPE", "--backend", "--data", "--scale", "--minutes"):
        assert word in helped
    assert called("--recipes") == 0
    assert capsys.readouterr().out.count("\n") == len(RECIPES)
    missing = called("--data", tmp_path / "nowhere", "--out", tmp_path / "other")
    assert "does not exist" in str(missing)
    unknown = str(called("scenes-ca"))
    assert "\n" not in unknown
    assert "Did you mean scenes-cas" in unknown


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_foreign_folder_is_left_alone(tmp_path: Path):
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / ".options.json.partial").write_text("{")
    claim_run_folder(killed, TINY, load_data(TINY))
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="is not a run folder"):
        claim_run_folder(tmp_path, TINY, load_data(TINY))


def test_a_run_folder_is_taken_up_for_the_same_options_and_data_alone(tmp_path: Path):
    data = load_data(TINY)
    claim_run_folder(tmp_path / "run", TINY, data)
    claim_run_folder(tmp_path / "run", replace(TINY, checkpoint_seconds=1.0), data)
    with pytest.raises(InputError, match=r"run \(recipe 'scenes-cas' -> 'scenes-metric'\)"):
        claim_run_folder(tmp_path / "run", tiny("metric"), data)
    with pytest.raises(InputError, match=r"holds a different run \(steps 3 -> 4\); pass"):
        claim_run_folder(tmp_path / "run", replace(TINY, steps=4), data)
    with pytest.raises(InputError, match=r"different run \(data_sha256 "):
        claim_run_folder(
            tmp_path / "run", TINY, replace(data, train=swap_labels(data.train, 0.5, seed=0))
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gpu_that_is_not_there_is_named(backend):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="--device cuda"):
        new_trainer(tiny(backend=backend, device="cuda"))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"size": 30}, "--size must be a multiple of 4"),
        ({"batch": 0}, "--batch must be at least 1"),
        ({"steps": 0}, "--steps must be at least 1"),
        ({"swap_labels": 1.5}, "--swap-labels must lie in 0..1"),
        ({"learning_rate": float("nan")}, "--learning-rate must be positive"),
        ({"seed": -1}, "--seed must not be negative"),
        ({"recipe": "fcn-cas-clean", "size": 80}, "--size must be a multiple of 32"),
        ({"recipe": "nothing"}, "unknown recipe 'nothing'"),
        (
            {"recipe": "menet-ce", "scale": "paper", "size": 64, "batch": 1},
            "--batch and --train-images must be at least 2 for menet-ce at paper scale",
        ),
    ],
)
def test_bad_options_are_named(changes, match):
    with pytest.raises(InputError, match=match):
        replace(TINY, **changes)
