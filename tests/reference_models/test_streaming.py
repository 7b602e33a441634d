"""Training images that are decoded as the steps need them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference_models.data.decoding import Decoded, decode, describe, settled, stream
from reference_models.data.images import Data, Images, Streamed
from reference_models.data.label_swaps import swap_labels
from reference_models.data.named_sets import find
from reference_models.data.sets import Sources, load, read_test_folder
from reference_models.errors import InputError, OutOfTime
from reference_models.files import Arrays, read_arrays
from reference_models.options import Backend, Options
from reference_models.papers.recipes import RECIPES
from reference_models.training import cost
from reference_models.training.augmentation import draw_step
from reference_models.training.frameworks import new_trainer
from reference_models.training.loop import train
from reference_models.training.run import load_data
from reference_models.training.score import score
from reference_models.training.stopping import Clock
from reference_models.training.streaming import images_of_steps
from reference_models.training.trained import Network
from tests.reference_models.test_data import a_mask, assert_same, make_pairs, save, save_mask

pytestmark = pytest.mark.usefixtures("torch_settings")


def everything(images: Images | Streamed) -> Images:
    return images.take(range(len(images)))


def both(folder: Path, regions: int = 2) -> tuple[Decoded[Images], Decoded[Streamed]]:
    truth = "masks" if regions == 2 else "segmentations"
    files = find([folder], truth=truth)
    stems = list(files.images)
    kept, streamed = (
        settled(files, [read(files, stems, 32, regions, keep_truth=True)])[0]
        for read in (decode, stream)
    )
    assert_same(kept.images, everything(streamed.images))
    assert kept.kinds == streamed.kinds
    assert kept.empty == streamed.empty
    assert describe(files, [kept]) == describe(files, [streamed])
    for ours, theirs in ((kept.truth, streamed.truth), (kept.voids, streamed.voids)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    for part in (kept.images, streamed.images):
        assert part.side == 32
        assert part.has_object == kept.images.masks.any()
        assert part.has_void == (kept.images.counted is not None)
        assert part.highest_label == kept.images.labels[kept.images.labels < 255].max()
    flips = np.array([1, 0] * len(stems), np.uint8)[: len(stems)]
    assert_same(kept.images.swapped(flips), everything(streamed.images.swapped(flips)))
    priors = np.random.default_rng(0).integers(0, 256, (len(stems), 32, 32), dtype=np.uint8)
    assert_same(kept.images.with_priors(priors), everything(streamed.images.with_priors(priors)))
    ours, theirs = (
        Data(part, kept.images, (), ()).sha256 for part in (kept.images, streamed.images)
    )
    assert ours == theirs
    return kept, streamed


# Decoding ----------------------------------------------------------------------------------------


def test_plain_masks_and_the_prior_at_the_centre(tmp_path: Path):
    make_pairs(tmp_path, [str(i) for i in range(70)])  # More than one part.
    _, streamed = both(tmp_path)
    assert [len(part) for part in streamed.images.parts()] == [64, 6]


def test_priors_of_dark_floats_are_scaled_together(tmp_path: Path):
    make_pairs(tmp_path, ["a", "b", "c"])
    for stem, white in zip("abc", (0.2, 1, 200), strict=True):
        values = np.linspace(0, white, 320, dtype=np.float32).reshape(16, 20)
        save(tmp_path / f"priors/{stem}.tiff", values)
    both(tmp_path)


def test_void_is_decided_for_the_folder(tmp_path: Path):
    make_pairs(tmp_path, ["plain", "more", "void", "none"])
    values = np.zeros((16, 20), np.uint8)
    values[4:12, 5:15] = 7
    values[4:6] = 255
    save_mask(tmp_path, "void", values)
    values = values.copy()
    values[2:14] = 255
    values[8, 5:15] = 7  # Less frequent than 255, so the folder decides.
    save_mask(tmp_path, "more", values)
    save_mask(tmp_path, "none", np.zeros((16, 20), np.uint8))
    kept, streamed = both(tmp_path)
    assert streamed.images.has_void
    assert set(kept.empty) == {"plain", "none"}
    # Without a mask that shows what 255 means, it is the object.
    save_mask(tmp_path, "void", a_mask())
    _, streamed = both(tmp_path)
    assert not streamed.images.has_void


def test_label_maps_of_several_annotators(tmp_path: Path):
    make_pairs(tmp_path, ["a", "b"])
    rng = np.random.default_rng(0)
    for name, regions in (("a_1", 3), ("a_2", 5), ("a_3", 2), ("b_1", 9)):
        labels = rng.integers(0, regions, (16, 20)).astype(np.uint8)
        save(tmp_path / f"segmentations/{name}.png", labels)
    _, streamed = both(tmp_path, regions=4)
    with pytest.raises(InputError, match="between two regions only, got 4 regions"):
        swap_labels(streamed.images, 0.5, 0)


def test_all_faults_are_reported_before_the_training(tmp_path: Path):
    make_pairs(tmp_path, [str(i) for i in range(8)])
    (tmp_path / "images/1.png").write_bytes(b"no picture")
    save_mask(tmp_path, "2", a_mask(width=21))
    (tmp_path / "images/3.png").write_bytes((tmp_path / "images/3.png").read_bytes()[:60])
    (tmp_path / "masks/7.png").unlink()

    def fault(memory_gb: float) -> str:
        with pytest.raises(InputError) as caught:
            load(Sources(tmp_path, tmp_path, memory_gb=memory_gb), 32, 0)
        return str(caught.value)

    assert fault(0) == fault(8)
    assert len(fault(0).splitlines()) == 4


def test_the_set_decides_by_its_size_whether_it_is_kept(tmp_path: Path):
    make_pairs(tmp_path, [str(i) for i in range(10)])
    sources = Sources(tmp_path, tmp_path, validation_images=2, test_images=2)
    taken = load(sources, 32, 0).train
    size = len(taken) * 32 * 32 * 4 / 1e9
    kept = load(replace(sources, memory_gb=1.01 * size), 32, 0)
    streamed = load(replace(sources, memory_gb=0.99 * size), 32, 0)
    assert isinstance(kept.train, Images)
    assert isinstance(streamed.train, Streamed)
    assert kept.sha256 == streamed.sha256
    assert kept.counts() == streamed.counts()
    some = streamed.train.only([3, 1])
    assert some.names == kept.train.only([3, 1]).names
    for each, same in zip(some.rows(True), kept.train.only([3, 1]).rows(True), strict=True):
        np.testing.assert_array_equal(each, same)


# Training ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(14):
        save(folder / f"images/{i}.png", rng.integers(0, 256, (16, 20, 3), dtype=np.uint8))
        mask = np.roll(a_mask(high=7), i, axis=1)
        mask[0, : 2 * i] = 255  # Void, but not in every image.
        save_mask(folder, i, mask)
    return folder


def trained(
    folder: Path,
    out: Path,
    memory_gb: float,
    backend: Backend = "torch",
    check: Clock = lambda: None,
) -> tuple[Arrays, list[float]]:
    """Weights and losses of a training with void and swapped labels."""
    options = Options(
        recipe="scenes-cas", backend=backend, data=folder, memory_gb=memory_gb, out=out,
        size=32, steps=5, batch=4, swap_labels=0.5,
    )  # fmt: skip
    data = load_data(options)
    assert isinstance(data.train, Images if memory_gb else Streamed)
    assert data.train.has_void
    out.mkdir(exist_ok=True)
    network, history = train(options, new_trainer(options), data.train, data.validation, out, check)
    return network.trainer.weights(), history.losses


def stop_at(step: int) -> Clock:
    calls = iter(range(step))

    def check() -> None:
        if next(calls, None) is None:
            raise OutOfTime

    return check


def assert_equal(ours: Arrays, theirs: Arrays) -> None:
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], name)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_streamed_training_has_the_bits_of_training_from_memory(
    pictures: Path, tmp_path: Path, backend: Backend
):
    weights, losses = trained(pictures, tmp_path / "kept", 8, backend)
    streamed, same = trained(pictures, tmp_path / "streamed", 0, backend)
    assert losses == same
    assert_equal(weights, streamed)


@pytest.mark.parametrize("memory_gb", [0, 8])
def test_a_stopped_training_resumes_in_the_other_way(
    pictures: Path, tmp_path: Path, memory_gb: float, monkeypatch
):
    weights, losses = trained(pictures, tmp_path / "whole", 8)
    with pytest.raises(OutOfTime):
        trained(pictures, tmp_path / "stopped", memory_gb, check=stop_at(2))
    monkeypatch.setattr(cost, "LONG", 1)  # With steps that only measure, in either way.
    resumed, same = trained(pictures, tmp_path / "stopped", 8 - memory_gb)
    assert losses == same
    assert_equal(weights, resumed)


@pytest.mark.parametrize("recipe", ["menet-ce", "relations", "regions-cas-4"])
def test_streamed_test_images_have_the_same_measures(recipe: str, tmp_path: Path, monkeypatch):
    """Corrupted images, images with priors, and label maps of regions."""
    monkeypatch.setattr("reference_models.data.images.PART", 4)
    rng = np.random.default_rng(0)
    for i in range(10):
        save(tmp_path / f"images/{i}.png", rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        save(tmp_path / f"priors/{i}.png", rng.integers(0, 256, (32, 32), dtype=np.uint8))
        labels = np.kron(rng.integers(0, 3, (4, 4)), np.ones((8, 8))).astype(np.uint8)
        save(tmp_path / f"segmentations/{i}_1.png", labels)
        save_mask(tmp_path, i, 255 * (labels > 0).astype(np.uint8))
    options = Options(recipe=recipe, scale="small", size=32, data=tmp_path)
    network = Network(options, new_trainer(options))
    sources = Sources(tmp_path, tmp_path, regions=options.chosen_recipe.regions)
    scored = []
    for memory_gb in (8, 0):
        test, _ = read_test_folder(tmp_path, 32, replace(sources, memory_gb=memory_gb))
        assert isinstance(test.images, Images if memory_gb else Streamed)
        scored.append(score(network, [test], lambda: None))
    kept, streamed = scored
    assert list(kept) == list(streamed)
    for name, each in kept.items():
        other = streamed[name]
        assert each[:2] == other[:2]
        assert each.object_share == other.object_share
        for rows, others in zip(each.maps.values(), other.maps.values(), strict=True):
            for row, same in zip(rows, others, strict=True):
                for measure, value in row.items():
                    np.testing.assert_allclose(value, same[measure], rtol=1e-5, atol=1e-6)


def test_a_frozen_backbone_computes_its_features_in_each_step(
    pictures: Path, tmp_path: Path, monkeypatch
):
    recipe = RECIPES["anchors"]
    options = Options(
        recipe=recipe.name, data=pictures, memory_gb=0, out=tmp_path, size=32, batch=4, steps=2,
        scale="small",
    )  # fmt: skip
    data = load_data(options)
    kept = load_data(replace(options, memory_gb=8))
    losses = []
    for images in (data.train, kept.train):
        trainer = new_trainer(options)
        trainer.set_training_images(images)
        draw = draw_step(len(images), 32, options.plan, 0, 0)
        taken = images.take(draw.indices) if isinstance(images, Streamed) else None
        losses.append(trainer.step(draw, taken))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_process_reads_its_share_only(pictures: Path):
    files = find([pictures])
    images = settled(files, [stream(files, list(files.images), 32)])[0].images
    read: list[int] = []

    def image(index: int) -> np.ndarray:
        read.append(index)
        return images.image(index)

    plan = replace(RECIPES["scenes-cas"].at("small"), size=32, steps=3, batch=4)
    watched = replace(images, image=image)
    taken = list(images_of_steps(watched, plan, 0, first=1, share=[1, 3]))
    indices = [draw_step(len(images), 32, plan, 0, step).indices[[1, 3]] for step in (1, 2)]
    assert sorted(read) == sorted(np.concatenate(indices))
    for part, wanted in zip(taken, indices, strict=True):
        assert_same(part, images.take(wanted))


def test_a_photograph_that_vanishes_ends_the_training_with_its_name(pictures: Path, tmp_path: Path):
    folder = make_pairs(tmp_path / "set", [str(i) for i in range(10)])
    files = find([folder])
    images = settled(files, [stream(files, list(files.images), 32)])[0].images
    (folder / "images/4.png").unlink()
    plan = replace(RECIPES["scenes-cas"].at("small"), size=32, steps=10, batch=4)
    with pytest.raises(InputError, match=r"images/4\.png"):
        list(images_of_steps(images, plan, 0, 0, range(4)))


def test_without_grain_the_error_says_what_to_install(pictures: Path, monkeypatch):
    files = find([pictures])
    images = settled(files, [stream(files, list(files.images), 32)])[0].images
    monkeypatch.setitem(sys.modules, "grain", None)
    plan = RECIPES["scenes-cas"].at("small")
    with pytest.raises(InputError, match=r"--memory-gb.*pip install grain"):
        next(images_of_steps(images, plan, 0, 0, range(4)))


def test_the_command_trains_measures_and_stops(pictures: Path, tmp_path: Path):
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "reference_models.train", "scenes-cas"),
                *("--data", str(pictures), "--size", "32", "--steps", "4", "--batch", "4"),
                *("--memory-gb", "0", "--out", str(tmp_path / "run"), *more),
            ],
            capture_output=True, text=True, timeout=300, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    stopped = run("--minutes", "0")
    assert stopped.returncode == 75, stopped.stderr
    done = run()
    assert done.returncode == 0, done.stderr
    assert "decoded again in every step" in done.stdout
    assert read_arrays(tmp_path / "run/weights.safetensors")
    with Image.open(tmp_path / "run/sheet.png") as sheet:
        sheet.load()
