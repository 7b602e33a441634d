"""The reference models: scenes, reading of data, measures, training, resuming, the command."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reference_models import loop
from reference_models.data import Images, centre_prior, get_data, read
from reference_models.demo import compare, demo
from reference_models.loop import draw, new_trainer, one_cycle, train
from reference_models.measures import measure
from reference_models.options import LOSSES, InputError, Options
from reference_models.runs import claim, read_arrays, write_json
from reference_models.scenes import scenes
from reference_models.train import run

TINY = Options(size=16, scenes=8, steps=3, batch=4)
BACKENDS = ("torch", "jax")


@pytest.fixture(autouse=True)
def settings_of_torch():
    """One thread, enough for networks this small. Other tests shall not notice, nor of the
    deterministic algorithms that training asks for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


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


def test_generated_sets_are_disjoint_and_the_held_out_scenes_do_not_depend_on_the_number():
    few, many = get_data(TINY), get_data(replace(TINY, scenes=12))
    names = few.train.names + few.validation.names + few.test.names
    assert len(set(names)) == len(names) == 8 + 40 + 150
    np.testing.assert_array_equal(few.test.images, many.test.images)


def test_swapped_labels_exchange_half_of_the_images_whole():
    train_set = get_data(TINY).train
    changed = (train_set.swapped(0.5, seed=0).masks != train_set.masks).mean(axis=(1, 2))
    assert sorted(changed) == [0, 0, 0, 0, 1, 1, 1, 1]


# Reading a folder or a zip -----------------------------------------------------------------------


def a_mask(width: int = 20, height: int = 16, low: int = 0, high: int = 255) -> np.ndarray:
    mask = np.full((height, width), low, dtype=np.uint8)
    mask[4:12, 5:15] = high
    return mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten good pairs of 20 x 16 (width x height)."""
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"set/images/{i}.png")
        save_mask(tmp_path / "set", i, a_mask())
    return tmp_path / "set"


def save_mask(folder: Path, stem: object, mask: np.ndarray) -> None:
    Image.fromarray(mask).save(folder / f"masks/{stem}.png")


def zipped(folder: Path, inside: str = "") -> Path:
    path = folder.parent / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, inside + str(file.relative_to(folder)))
    return path


def test_folder_zip_and_zip_with_a_top_folder_read_alike(folder: Path):
    plain, _, priors, _ = read(folder, 16)
    assert len(plain) == 10
    assert plain.masks.mean() == pytest.approx(8 * 10 / (16 * 20), abs=0.05)
    np.testing.assert_array_equal(plain.priors[0], centre_prior(16))
    assert "a Gaussian at the centre" in priors
    for inside in ("", "top/"):
        packed, _, _, _ = read(zipped(folder, inside), 16)
        assert packed.names == plain.names
        for one, other in zip(
            (packed.images, packed.masks), (plain.images, plain.masks), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_a_seeded_fifth_is_held_out_without_splits(folder: Path):
    options = replace(TINY, data=folder)
    data, again = get_data(options), get_data(options)
    other = get_data(replace(options, seed=1))
    assert (len(data.train), len(data.validation), len(data.test)) == (7, 1, 2)
    assert data.test.names == again.test.names
    assert set(data.train.names + data.validation.names + data.test.names) == set(
        map(str, range(10))
    )
    assert data.train.names != other.train.names
    assert any("held out at random, by seed" in note for note in data.notes)


def test_splits_are_followed(folder: Path):
    (folder / "splits").mkdir()
    (folder / "splits/test.txt").write_text("3\n7\n5\n")
    data = get_data(replace(TINY, data=folder))
    assert data.test.names == ("3", "7", "5")
    assert len(data.train) + len(data.validation) == 7
    (folder / "splits/train.txt").write_text("0\n1\n2\n")
    (folder / "splits/val.txt").write_text("4\n")
    data = get_data(replace(TINY, data=folder))
    assert (data.train.names, data.validation.names) == (("0", "1", "2"), ("4",))
    (folder / "splits/train.txt").write_text("0\n3\n")
    with pytest.raises(InputError, match="share 1 stems: 3"):
        get_data(replace(TINY, data=folder))
    (folder / "splits/train.txt").write_text("0\nnobody\n")
    with pytest.raises(InputError, match="1 unknown stems: nobody"):
        get_data(replace(TINY, data=folder))


def test_a_test_list_of_everything_falls_back_to_a_random_split(folder: Path):
    (folder / "splits").mkdir()
    (folder / "splits/test.txt").write_text("\n".join(map(str, range(10))))
    data = get_data(replace(TINY, data=folder))
    assert len(data.test) == 2
    assert any("leaves nothing to train or test on" in note for note in data.notes)


def test_masks_of_zero_one_soft_and_empty_kinds_are_treated_as_documented(folder: Path):
    save_mask(folder, 0, a_mask(high=1))
    save_mask(folder, 1, a_mask(low=100, high=150))
    save_mask(folder, 2, a_mask(high=0))
    everything, _, _, notes = read(folder, 16)
    for i in (0, 1):
        np.testing.assert_array_equal(everything.masks[i], everything.masks[3])
    assert not everything.masks[2].any()
    text = "\n".join(notes)
    assert "1 masks hold 0 and 1" in text
    assert "1 masks hold values between 0 and 255: binarised at 128" in text
    assert "1 masks are all background (2)" in text


def test_priors_are_read_and_stretched(folder: Path):
    (folder / "priors").mkdir()
    for i in range(10):
        Image.fromarray(a_mask(low=10, high=60)).save(folder / f"priors/{i}.png")
    everything, _, priors, _ = read(folder, 16)
    assert everything.priors.min() == 0
    assert everything.priors.max() == 255
    assert priors == "priors/"
    (folder / "priors/4.png").unlink()
    with pytest.raises(InputError, match="1 images have not a prior in priors/: 4"):
        read(folder, 16)


def test_bad_data_is_named(folder: Path):
    def fails(match: str, path: Path = folder) -> None:
        with pytest.raises(InputError, match=match):
            read(path, 16)

    fails("does not exist", folder / "nowhere")
    fails("neither a folder nor a readable zip", folder / "images/0.png")
    fails("must hold images/ and masks/, but holds 0.png", folder / "images")
    (folder.parent / "empty").mkdir()
    fails("but holds nothing", folder.parent / "empty")

    save_mask(folder, 5, a_mask(width=30))
    fails(r"5\.png is 20 x 16, .*masks.5\.png is 30 x 16 \(width x height\)")
    (folder / "masks/5.png").write_bytes(b"not a png")
    fails(r"masks.5\.png cannot be read as an image")
    whole = (folder / "images/6.png").read_bytes()
    (folder / "images/6.png").write_bytes(whole[: len(whole) // 2])
    save_mask(folder, 5, a_mask())
    fails(r"images.6\.png cannot be read as an image")
    (folder / "images/6.png").write_bytes(whole)
    Image.fromarray(a_mask().astype(np.uint16) * 257).save(folder / "masks/5.png")
    fails("save it with 8 bits")
    (folder / "masks/5.png").unlink()
    (folder / "masks/9.png").unlink()
    fails("2 images have not a mask in masks/: 5, 9")
    save_mask(folder, 5, a_mask())
    save_mask(folder, 9, a_mask())
    (folder / "images/9.jpg").write_bytes(whole)
    fails("two files of the same stem")
    for file in (folder / "images").iterdir():
        file.unlink()
    fails("images holds no image file")


def test_all_background_masks_cannot_be_trained_on(folder: Path):
    for i in range(10):
        save_mask(folder, i, a_mask(high=0))
    with pytest.raises(InputError, match="every training mask is all background"):
        get_data(replace(TINY, data=folder))


# Measures ----------------------------------------------------------------------------------------


def test_measures_of_hand_cases():
    mask = np.zeros((1, 4, 4), dtype=bool)
    mask[0, :2] = True
    perfect = measure(mask.astype(float), mask)
    assert perfect["mae"] == 0
    for name in ("f", "max_f", "weighted_f"):
        assert perfect[name] == pytest.approx(1)

    # Half of the object found, nothing else: P = 1, R = 1/2, F = 1.3 * .5 / (.3 + .5).
    half = mask.astype(float)
    half[0, 1] = 0
    found = measure(half, mask)
    assert found["mae"] == pytest.approx(1 / 4)
    assert found["f"] == pytest.approx(1.3 * 0.5 / 0.8)


def test_maps_are_not_stretched_and_round_to_8_bits():
    mask = np.zeros((1, 4, 4), dtype=bool)
    mask[0, :2] = True
    unsure = np.where(mask, 0.6, 0.3)
    assert measure(unsure, mask)["mae"] == pytest.approx(
        (153 / 255 - 0.6 + 0.4 + 0.3) / 2, abs=1e-3
    )
    # Twice the mean is .9, above every value: nothing is found at that threshold.
    assert measure(unsure, mask)["f"] == 0
    assert measure(unsure, mask)["max_f"] == pytest.approx(1)


def test_an_empty_mask_counts_in_the_mae_alone():
    mask = np.zeros((2, 4, 4), dtype=bool)
    mask[0, :2] = True
    maps = mask.astype(float)
    maps[1] = 1
    both = measure(maps, mask)
    assert both["mae"] == 0.5
    assert both["f"] == pytest.approx(1)


# Batches and schedule ----------------------------------------------------------------------------


def test_every_image_is_drawn_once_an_epoch_and_mirrored_whole():
    names = tuple(map(str, range(8)))
    ramp = np.tile(np.arange(16, dtype=np.uint8), (8, 16, 1))
    images = Images(names, np.stack([ramp] * 3, axis=-1), ramp > 7, ramp)
    drawn = [draw(images, 3, seed=0, step=step)[0] for step in range(2)]
    seen = [name for batch in drawn for name in batch.names]
    assert len(set(seen)) == 6
    mirrored = np.concatenate([batch.priors[:, 0, 0] for batch in drawn]) == 15
    assert mirrored.any()
    assert not mirrored.all()
    for batch in drawn:
        np.testing.assert_array_equal(batch.images[..., 0], batch.priors)
        np.testing.assert_array_equal(batch.masks, batch.priors > 7)
    np.testing.assert_array_equal(draw(images, 3, 0, 1)[0].images, drawn[1].images)
    assert len(draw(images, 50, 0, 5)[0]) == 8


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
    options = replace(TINY, loss=loss, backend=backend, out=tmp_path / "run")
    run(options)
    assert {file.name for file in options.folder.iterdir()} == {
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
    assert report["options"] == options.as_json()
    assert report["images"] == {"train": 8, "validation": 40, "test": 150}
    assert 0 < report["measures"]["network"]["mae"] < 1
    assert ("prior" in report["measures"]) == (loss in ("anchor", "js-mi"))
    weights = read_arrays(options.folder / "weights.safetensors")
    assert all(np.isfinite(array).all() for array in weights.values())
    with Image.open(options.folder / "sheet.png") as picture:
        assert min(picture.size) > 300
    assert "learns from" in capsys.readouterr().out


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
    options = replace(TINY, loss=loss, backend=backend, steps=5, checkpoint_seconds=0.0)
    data = get_data(options)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    straight = train(options, data, tmp_path / "whole")

    def stop_at_three(images, size, seed, step):
        if step == 3:
            raise KeyboardInterrupt
        return draw(images, size, seed, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "draw", stop_at_three)
        with pytest.raises(KeyboardInterrupt):
            train(options, data, tmp_path / "stopped")
    saved = read_arrays(tmp_path / "stopped/checkpoint.safetensors")
    assert len(saved["run/losses"]) == 3
    resumed = train(options, data, tmp_path / "stopped")
    assert resumed.losses == straight.losses
    ours, theirs = resumed.trainer.state(), straight.trainer.state()
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_seed_decides_the_weights(backend):
    options = replace(TINY, backend=backend)
    first, again = new_trainer(options).weights(), new_trainer(options).weights()
    other = new_trainer(replace(options, seed=1)).weights()
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_both_frameworks_build_the_same_network():
    """PyTorch's weights, moved to Flax, give the same loss, maps and first step."""
    options = replace(TINY, loss="js-mi")
    ours, theirs = new_trainer(options), new_trainer(replace(options, backend="jax"))
    state = {}
    for name, array in ours.weights().items():
        part = name.removesuffix(".weight").removesuffix(".bias")
        if name.endswith(".bias"):
            state[f"{part}.bias"] = array
        elif part in ("net.head", "critic.hidden", "critic.score"):
            state[f"{part}.kernel"] = array[:, :, 0, 0].T
        else:
            state[f"{part}.kernel"] = array.transpose(2, 3, 1, 0)
    fresh = theirs.state()
    theirs.restore(
        {
            name: state[name.removeprefix("weights/")] if name.startswith("weights/") else array
            for name, array in fresh.items()
        }
    )
    assert sum(a.size for a in ours.weights().values()) == sum(a.size for a in state.values())
    batch, _ = draw(get_data(options).train, 4, seed=0, step=0)
    np.testing.assert_allclose(ours.maps(batch), theirs.maps(batch), atol=1e-5)
    weights = ours.pixel_weights(batch)
    np.testing.assert_allclose(weights, theirs.pixel_weights(batch), atol=1e-5 * weights.max())
    assert ours.step(batch, 1e-3, 0) == pytest.approx(theirs.step(batch, 1e-3, 0), rel=1e-5)
    assert ours.step(batch, 1e-3, 0) == pytest.approx(theirs.step(batch, 1e-3, 0), rel=1e-3)


def test_a_short_run_learns(tmp_path: Path):
    options = replace(TINY, size=32, scenes=64, steps=60, loss="cross-entropy")
    data = get_data(options)
    trainer = new_trainer(options)
    before = measure(trainer.maps(data.test), data.test.masks)
    losses, _ = loop.fit(trainer, data.train, options, tmp_path / "saved.safetensors")
    after = measure(trainer.maps(data.test), data.test.masks)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert after["mae"] < before["mae"]


# The demonstration -------------------------------------------------------------------------------


@pytest.mark.slow
def test_demo_compares_the_weights_it_trained(tmp_path: Path, capsys):
    options = replace(TINY, demo=True, size=32, steps=20, scenes=32, out=tmp_path)
    demo(options)
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
        capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_helps_trains_and_refuses(tmp_path: Path):
    helped = command("--help")
    assert helped.returncode == 0
    for word in ("--loss", "--backend", "--data", "--demo", "weighted-fbeta", "js-mi"):
        assert word in helped.stdout

    words = ("--size", 16, "--scenes", 8, "--steps", 2, "--batch", 4, "--out", tmp_path / "run")
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
    missing = command("--data", tmp_path / "nowhere", "--out", tmp_path / "other")
    assert missing.returncode == 1
    assert "does not exist" in missing.stderr
    assert "Traceback" not in missing.stderr + refused.stderr


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_foreign_folder_is_left_alone(tmp_path: Path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="is not a run folder"):
        claim(tmp_path, TINY, get_data(TINY))


def test_a_run_folder_is_taken_up_for_the_same_options_and_data_alone(tmp_path: Path):
    data = get_data(TINY)
    claim(tmp_path / "run", TINY, data)
    claim(tmp_path / "run", replace(TINY, checkpoint_seconds=1.0), data)
    with pytest.raises(InputError, match=r"different run \(loss 'cas' -> 'metric'\)"):
        claim(tmp_path / "run", replace(TINY, loss="metric"), data)
    with pytest.raises(InputError, match=r"different run \(data_sha256 "):
        claim(tmp_path / "run", TINY, replace(data, train=data.train.swapped(0.5, seed=0)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gpu_that_is_not_there_is_named(backend):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="--device cuda"):
        new_trainer(replace(TINY, backend=backend, device="cuda"))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"size": 30}, "--size must be a multiple of 4"),
        ({"batch": 0}, "--batch must be at least 1"),
        ({"steps": 0}, "--steps must be at least 1"),
        ({"swap_labels": 1.5}, "--swap-labels must lie in 0..1"),
        ({"learning_rate": float("nan")}, "--learning-rate must be positive"),
        ({"seed": -1}, "--seed must not be negative"),
    ],
)
def test_bad_options_are_named(changes, match):
    with pytest.raises(InputError, match=match):
        replace(TINY, **changes)
