"""Void pixels, which belong to neither object nor background: they have no influence anywhere."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image

from reference_models.data.images import VOID, Images, TestSet
from reference_models.data.label_swaps import swap_labels
from reference_models.data.masks import Mask, fit_labels
from reference_models.data.pairs import find_pairs
from reference_models.data.scenes import scenes
from reference_models.data.sets import Sources, check_masks, load, read_test_folder
from reference_models.errors import InputError
from reference_models.evaluate import Options as Evaluate
from reference_models.evaluate import digest
from reference_models.evaluate import run as evaluate
from reference_models.measures.saliency import EXACT, NAMES, measure
from reference_models.options import Options
from reference_models.papers.recipes import RECIPES
from reference_models.prepare import pack_mask
from reference_models.training.augmentation import Draw
from reference_models.training.flax_trainer import DeviceDraw, select
from reference_models.training.frameworks import new_trainer
from reference_models.training.loop import train
from reference_models.training.run import grey_void, pair_rows
from reference_models.training.score import score
from reference_models.training.stopping import clock
from tests.reference_models.test_reference_models import Seen
from tests.reference_models.test_twins import (
    NETWORKS,
    SIDE,
    batches,
    in_flax,
    in_torch,
    last,
    some_taps,
)

pytestmark = pytest.mark.usefixtures("torch_settings")

WITH_MASKS = [
    name
    for name in NETWORKS.values()
    if RECIPES[name].regions == 2 and RECIPES[name].loss != "js-mi"
]
# One network for each loss function; in JAX each costs seconds.
IN_JAX = {
    (RECIPES[name].system, RECIPES[name].loss.partition("-")[0]): name for name in WITH_MASKS
}.values()


# Losses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_MASKS)
def test_no_loss_depends_on_outputs_at_void_pixels(name: str, monkeypatch):
    for place in ("torch.system", "flax.small", "flax.anchors"):
        monkeypatch.setattr(
            f"reference_models.networks.{place}.flip_labels", lambda labels, *_: labels
        )
    theirs = in_torch(RECIPES[name])
    batch, ours_batch = batches(RECIPES[name])
    counted = torch.ones(batch.labels.shape, dtype=torch.bool)
    counted[:, :, : 3 * SIDE // 4] = False
    counted[-1] = False  # An image without a pixel that counts.
    labels = batch.labels * counted
    batch = batch._replace(labels=labels, counted=counted)
    ours_batch = ours_batch._replace(
        labels=jnp.asarray(labels.numpy(), jnp.int32), counted=jnp.asarray(counted.numpy())
    )
    with torch.no_grad():
        output = theirs(some_taps(theirs, batch))
    stride = SIDE // output.shape[-1]
    # Interpolation carries an output to the pixels up to a stride away.
    free = max(1, 3 * SIDE // 4 // stride - 2)
    moved = output.clone()
    moved[..., :free] = 3 * torch.rand_like(moved[..., :free]) - 1
    results = []
    for x in (output, moved):
        x.requires_grad_()
        loss = theirs.loss(x, batch)
        (gradient,) = torch.autograd.grad(loss, x)
        assert not gradient[..., :free].any()
        assert gradient[:-1].any()
        assert not gradient[-1].any()
        results.append((loss, gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-7)
    if name not in IN_JAX:
        return
    ours = in_flax(RECIPES[name], theirs)
    value, slope = jax.value_and_grad(ours.loss)(last(moved), ours_batch)
    np.testing.assert_allclose(value, results[0][0].item(), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(
        slope, last(results[0][1]), rtol=1e-3, atol=1e-4 * results[0][1].abs().max().item()
    )
    assert not slope[:, :, :free].any()


# Training ----------------------------------------------------------------------------------------


def some_images(count: int = 8, size: int = 16) -> Images:
    images, masks, priors = scenes(count, size, seed=0)
    labels = masks.astype(np.uint8)
    labels[:, :, :5] = VOID
    names = tuple(map(str, range(count)))
    return Images(names, images, labels, np.rint(255 * priors).astype(np.uint8))


def tiny(backend: str, recipe: str = "scenes-cas") -> Options:
    return Options(recipe=recipe, backend=backend, size=16, steps=2, batch=4, data="scenes")


def test_void_is_mirrored_and_cropped_with_its_image():
    ramp = (np.arange(2 * 16 * 16) % 5).astype(np.uint8).reshape(2, 16, 16)
    labels = np.where(ramp == 0, VOID, ramp > 2).astype(np.uint8)
    pictures = Images(("a", "b"), np.stack([ramp] * 3, axis=-1), labels, ramp)
    trainer = new_trainer(tiny("torch"))
    trainer.set_training_images(pictures)
    trainer.objective, trainer.plan = Seen(), replace(trainer.plan, crop=4)
    corners = np.array([[0, 0], [3, 5]])
    draw = Draw(0, np.array([1, 0]), np.array([False, True]), corners, seed=0)
    trainer.step(draw)
    batch = trainer.objective.batch
    seen = np.rint(255 * batch.images[:, 0].numpy())
    np.testing.assert_array_equal(batch.counted, seen != 0)
    np.testing.assert_array_equal(batch.labels, seen > 2)
    on_device = DeviceDraw(jnp.asarray(draw.indices), jnp.asarray(draw.mirrored), corners, 0)
    ours = select(jnp.asarray(pictures.counted), on_device.indices, on_device, 4)
    np.testing.assert_array_equal(ours, batch.counted)


@pytest.mark.parametrize(
    ("backend", "recipe"),
    [("torch", "scenes-cas"), ("torch", "scenes-cross-entropy"), ("jax", "scenes-cross-entropy")],
)
def test_a_run_is_blind_to_void(backend: str, recipe: str, tmp_path: Path):
    images, options = some_images(), replace(tiny(backend, recipe), swap_labels=0.5)
    trainer = new_trainer(options)
    network, with_void = train(options, trainer, images, images, tmp_path, clock())
    weights = network.trainer.pixel_weights(images)
    assert not weights[:, :, :5].any()
    assert weights.any()
    if backend == "torch":  # In JAX another program would be compiled.
        plain, folder = replace(images, labels=images.labels % VOID), tmp_path / "plain"
        folder.mkdir()
        _, without = train(options, new_trainer(options), plain, plain, folder, clock())
        assert with_void.losses != without.losses


def test_swapped_labels_keep_void():
    images = some_images()
    swapped = swap_labels(images, 1.0, seed=0)
    assert set(np.unique(swapped.labels)) == {0, 1, VOID}
    np.testing.assert_array_equal(swapped.counted, images.counted)
    np.testing.assert_array_equal(swapped.masks, ~images.masks & images.counted)


def test_labels_at_the_size_of_the_network():
    salient, void = np.zeros((2, 8, 8), bool)
    salient[:, 4:], void[:4, 2:4], void[4:6, :4] = True, True, True
    salient[0, 2] = False
    labels = fit_labels(Mask(salient, void, "with void"), 2)
    # Half of the first quarter is void, and so is half of the third.
    np.testing.assert_array_equal(labels, [[VOID, 1], [VOID, 1]])
    void[3, 2], void[4, 0] = False, False
    labels = fit_labels(Mask(salient, void, "with void"), 2)
    np.testing.assert_array_equal(labels, [[0, 1], [0, 1]])


# Measures ----------------------------------------------------------------------------------------


def a_map(seed: int) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((30, 40), bool)
    mask[9:21, 12:30] = True
    noise = np.random.default_rng(seed).random(mask.shape)
    return np.rint(255 * (0.6 * mask + 0.4 * noise)).astype(np.uint8), mask


def test_measures_with_a_void_margin_are_those_without_the_margin():
    saliency, mask = a_map(0)
    margin = np.pad(np.zeros_like(mask), ((0, 7), (0, 5)), constant_values=True)
    wide = np.where(margin, 255, np.pad(saliency, ((0, 7), (0, 5)))).astype(np.uint8)
    # The weighted F smooths errors of the object, and here its edge is far from the margin.
    plain = measure([saliency], [mask], exact=True)
    void = measure([wide], [np.pad(mask, ((0, 7), (0, 5))) | margin], exact=True, voids=[margin])
    assert set(plain) == {*NAMES, *EXACT}
    assert void == pytest.approx(plain, rel=1e-6)


def test_no_measure_depends_on_the_map_at_void_pixels():
    saliency, mask = a_map(1)
    void = np.zeros_like(mask)
    void[8:13], void[:, 27:33] = True, True
    other = np.where(void, 255 - saliency, saliency).astype(np.uint8)
    first = measure([saliency], [mask], exact=True, voids=[void])
    assert measure([other], [mask ^ void], exact=True, voids=[void]) == first
    without = measure([saliency], [mask], exact=True)
    assert all(without[name] != first[name] for name in ("mae", "weighted_f", "s"))
    # Images that are entirely void count nowhere.
    pair = measure([saliency, other], [mask, mask], voids=[void, np.ones_like(mask)])
    assert pair == {name: first[name] for name in NAMES}


def test_no_share_counts_void_pixels():
    """That of sparse pixels, of object pixels, and of an image that is all void."""
    images = some_images(count=4)
    labels = images.labels.copy()
    labels[3] = VOID
    images = replace(images, labels=labels)
    voids = tuple(each == VOID for each in labels)
    test = TestSet("own", images, tuple(images.masks), voids=voids)
    maps = np.random.default_rng(0).choice(np.float32([0.2, 1]), labels.shape)
    recipe = replace(RECIPES["scenes-cas"], further=("sparse",), corruptions=())
    options = SimpleNamespace(chosen_recipe=recipe, scale="small")
    scored = []
    for moved in (maps, np.where(labels == VOID, 1, maps)):
        network = SimpleNamespace(options=options, maps=lambda _, moved=moved: {"map": moved})
        scored.append(score(network, [test], lambda: None)["own"])
    shares = scored[0].object_share
    assert shares == scored[1].object_share
    assert shares[:3] == pytest.approx(images.masks[:3, :, 5:].mean(axis=(1, 2)))
    assert shares[3] == 0
    for rows, others in zip(*(each.maps["map"] for each in scored), strict=True):
        assert rows.get("sparse") == others.get("sparse")
    assert scored[0].maps["map"][0]["sparse"] == (maps[0, :, 5:] == 1).mean()
    assert "sparse" not in scored[0].maps["map"][3]


def test_pairs_of_the_relation_model_are_judged_beside_void():
    images = some_images()
    priors = np.full_like(images.priors, 255)
    images = replace(images, priors=priors)
    options = Options(recipe="relations", scale="small")
    (rows,) = pair_rows(options, images, []).values()
    expected = pytest.approx(images.masks[:, :, 5:].mean())
    assert [row["true_foreground"] for row in rows.values()] == [expected, expected]


def test_masks_whose_counted_pixels_are_all_object_are_refused():
    mask = a_map(0)[1]
    with pytest.raises(InputError, match="1 mask is all object, 0 all background"):
        check_masks([mask], [~mask], "set")
    check_masks([mask], [None], "set")


# Commands ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images with masks of 0, 1 and void 255. The fourth has more void than object, and the
    last one holds 0 and 255 only."""
    images, masks, _ = scenes(5, 32, seed=0)
    for part in ("images", "masks", "maps"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        labels = mask.astype(np.uint8)
        labels[:3] = VOID
        if number == 3:
            labels[12:] = VOID
        if number == 4:
            labels[labels == 1] = 0
        Image.fromarray(image).save(tmp_path / f"set/images/{number}.png")
        Image.fromarray(labels).save(tmp_path / f"set/masks/{number}.png")
        perfect = np.where(labels == VOID, 128, 255 * (labels == 1)).astype(np.uint8)
        Image.fromarray(perfect).save(tmp_path / f"set/maps/{number}.png")
    return tmp_path / "set"


def test_perfect_maps_have_perfect_measures_beside_void(folder: Path, capsys):
    evaluate(Evaluate(folder / "maps", masks=folder / "masks"))
    printed = capsys.readouterr().out
    assert "255 (void), which counts neither in training nor in measures" in printed
    assert "MAE                        0.0000" in printed
    for label in ("max F", "weighted F", "S", "AUROC"):
        assert f"{label:27}1.0000" in printed


def test_masks_that_are_all_void_are_said_to_count_nowhere(folder: Path, capsys):
    for part in ("masks", "maps"):
        Image.fromarray(np.full((32, 32), VOID, np.uint8)).save(folder / f"{part}/9.png")
    evaluate(Evaluate(folder / "maps", masks=folder / "masks"))
    printed = capsys.readouterr().out
    assert "note: 1 mask is all void: it counts nowhere" in printed
    assert "note: 2 masks are all background: they count in the MAE only" in printed
    assert "MAE                        0.0000" in printed


def test_a_set_keeps_void_in_labels_and_truth(folder: Path):
    test, notes = read_test_folder(folder, 16, Sources(folder, folder))
    assert len(test.voids) == len(test.truth) == 5
    assert [int(void.sum()) for void in test.voids if void is not None] == [96] * 3 + [736, 96]
    np.testing.assert_array_equal(test.images.labels[3, 6:], VOID)
    assert not any((mask & void).any() for mask, void in zip(test.truth, test.voids, strict=True))
    assert (test.images.labels[:, 0] == VOID).all()
    assert set(np.unique(grey_void(test.images))) == {0, 0.5, 1}
    assert any("counts neither" in note for note in notes)
    assert digest({}, test) != digest({}, replace(test, voids=()))
    plain = load(Sources(folder, Path(), test_images=1), 16, seed=0)
    changed = replace(plain, tests=(replace(plain.tests[0], voids=()),))
    assert plain.sha256 != changed.sha256


@pytest.fixture
def small_objects(folder: Path) -> Path:
    """Ten images; the objects of 8 and 9, for validation and testing, are smaller than the void
    around them."""
    for part in ("images", "masks"):
        shutil.rmtree(folder / part)
        (folder / part).mkdir()
    for number in range(10):
        labels = np.zeros((32, 32), np.uint8)
        if number < 8:
            labels[6:26, 6:26], labels[7:25, 7:25] = VOID, 7
        else:
            labels[8:20, 8:20], labels[12:15, 12:15] = VOID, 7
        Image.fromarray(labels).save(folder / f"masks/{number}.png")
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"images/{number}.png")
    (folder / "splits").mkdir()
    for name, stems in (("train", "01234567"), ("val", "8"), ("test", "9")):
        (folder / f"splits/{name}.txt").write_text("\n".join(stems))
    return folder


@pytest.mark.parametrize("memory_gb", [8, 0])
def test_void_is_that_of_the_folder_in_every_part(small_objects: Path, memory_gb: float):
    sources = Sources(small_objects, small_objects, memory_gb=memory_gb)
    data = load(sources, 32, seed=0)
    for images in (data.validation, data.tests[0].images.take([0])):
        assert images.masks.sum() == 9
        assert (images.labels == VOID).sum() == 135
    # Also where masks are in no part.
    few, _ = read_test_folder(small_objects, 32, sources)
    assert few.truth[0].sum() == data.tests[0].truth[0].sum() == 9
    assert find_pairs(small_objects, small_objects / "masks").read(9)[1].object.sum() == 9


def test_one_soft_mask_of_a_folder_speaks_for_every_part(small_objects: Path):
    soft = np.uint8(np.linspace(0, 255, 32 * 32).reshape(32, 32))
    Image.fromarray(soft).save(small_objects / "masks/0.png")
    (small_objects / "splits/train.txt").write_text("\n".join("0123456"))
    (small_objects / "splits/test.txt").write_text("7\n9")
    data = load(Sources(small_objects, small_objects), 32, seed=0)
    assert data.validation.masks.sum() == 135
    assert [truth.sum() for truth in data.tests[0].truth] == [18 * 18, 135]


@pytest.mark.parametrize("memory_gb", [8, 0])
def test_priors_are_on_the_scale_of_the_folder_in_every_part(small_objects: Path, memory_gb: float):
    """Floats up to 1 in the one list, up to 255 in the other."""
    (small_objects / "priors").mkdir()
    ramp = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    for number in range(10):
        values = 255 * ramp if number < 8 else ramp
        Image.fromarray(values).save(small_objects / f"priors/{number}.tif")
    sources = Sources(small_objects, small_objects, memory_gb=memory_gb)
    data = load(sources, 32, seed=0)
    few, _ = read_test_folder(small_objects, 32, sources)
    for images in (data.validation, data.tests[0].images, few.images):
        assert len(np.unique(images.all_priors())) == 2


def test_prepare_refuses_void(tmp_path: Path):
    photo, mask = tmp_path / "a.jpg", tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(photo)
    labels = np.zeros((8, 8), np.uint8)
    labels[:4], labels[4:6] = 1, VOID
    Image.fromarray(labels).save(mask)
    with pytest.raises(InputError, match=r"a\.png has void pixels .*unlike the original"):
        pack_mask("a", "test", photo, mask, False, False)
