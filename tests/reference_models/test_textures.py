"""Mosaics of textures: cut out, put together anew, and read from the archive."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference_models.data.images import Images
from reference_models.data.named_sets import ARCHIVES, find_archive
from reference_models.data.sets import Sources, load
from reference_models.data.textures import cut_out, filled, layout, recombined
from reference_models.errors import InputError
from reference_models.options import Options
from reference_models.training.run import Shared, load_data

SIZE = 32


def mosaics(count: int) -> Images:
    """Four regions each; the texture of a region has a value of its own, and a bright frame."""
    rows, columns = np.indices((SIZE, SIZE)) // (SIZE // 2)
    labels = np.tile((2 * rows + columns).astype(np.uint8), (count, 1, 1))
    values = 4 * np.arange(count, dtype=np.uint8)[:, None, None] + labels
    images = np.repeat(values[..., None], 3, axis=3)
    return Images(tuple(map(str, range(count))), images, labels, np.zeros_like(labels))


def test_new_mosaics_take_each_region_from_another_texture_of_one_mosaic():
    old = mosaics(6)
    new = recombined(old, 20, seed=0)
    assert new.images.shape == (20, SIZE, SIZE, 3)
    numbers, sources = set(), set()
    for image, labels in zip(new.images, new.labels, strict=True):
        textures = [np.unique(image[labels == region]) for region in np.unique(labels)]
        assert [len(values) for values in textures] == [1] * len(textures)
        values = np.concatenate(textures)
        assert len(set(values)) == len(values)
        assert len(set(values // 4)) == 1
        numbers.add(len(values))
        sources.add(values[0] // 4)
    assert max(numbers) == 4
    assert len(numbers) > 1
    assert len(sources) > 3
    # A longer set begins with the same mosaics; another seed gives others.
    np.testing.assert_array_equal(recombined(old, 5, seed=0).images, new.images[:5])
    assert (recombined(old, 5, seed=1).labels != new.labels[:5]).any()


def test_textures_are_the_largest_squares_inside_the_regions():
    labels = np.zeros((20, 20), np.uint8)
    labels[3:10, 4:19] = 1
    image = np.repeat(np.arange(400, dtype=np.uint16).reshape(20, 20)[..., None], 3, axis=2)
    outer, inner = cut_out(image, labels)
    assert inner.shape == (7, 7, 3)
    assert outer.shape == (9, 9, 3)
    assert set(np.unique(outer)) <= set(image[labels == 0, 0])


def test_a_texture_is_continued_by_its_mirror_images():
    patch = np.arange(25, dtype=np.uint8).reshape(5, 5, 1)
    whole = filled(patch, 40, np.random.default_rng(0))[..., 0].astype(int)
    assert set(np.unique(whole)) == set(range(25))
    steps = np.abs(np.diff(whole, axis=0)), np.abs(np.diff(whole, axis=1))
    # Neighbours are neighbours in the patch, or a pixel beside its mirror image.
    assert {frozenset(np.unique(step)) for step in steps} == {frozenset({0, 5}), frozenset({0, 1})}


def test_layouts_have_as_many_regions_as_asked_or_fewer():
    drawn = [layout(SIZE, 5, np.random.default_rng(seed)) for seed in range(20)]
    assert all(labels.max() < 5 for labels in drawn)
    assert np.mean([len(np.unique(labels)) for labels in drawn]) > 4


def an_archive(folder: Path) -> Path:
    archive = folder / ARCHIVES["outex"].files[0]
    made = mosaics(2)
    with zipfile.ZipFile(archive, "w") as file:
        for index in range(100):
            with file.open(f"images/{index:03}.png", "w") as picture:
                Image.fromarray(made.images[index % 2]).save(picture, "PNG")
        with file.open("ground_truth.png", "w") as picture:
            Image.fromarray(made.labels[0]).save(picture, "PNG")
    return archive


def test_training_and_test_mosaics_come_from_different_images(tmp_path: Path):
    an_archive(tmp_path)
    files, _ = find_archive("outex", tmp_path)
    assert files.lists["train"] == [f"{index:03}" for index in range(60)]
    data = load(Sources("outex", tmp_path, ("outex",), train_images=4, regions=5), SIZE, seed=0)
    assert data.counts() == {"train": 4, "validation": 10, "outex": 30}
    assert data.validation.names[0] == "060"
    assert data.tests[0].images.names == tuple(f"{index:03}" for index in range(70, 100))
    assert data.tests[0].truth[0].shape == (1, SIZE, SIZE)
    assert any("the same textures may occur in both" in note for note in data.notes)


def test_a_network_that_is_only_tested_reads_one_training_mosaic_and_no_note_says_it_trained(
    tmp_path: Path,
):
    an_archive(tmp_path)
    shared = Shared()
    for recipe, count, notes in (("textures-fcn-cas", 1, False), ("textures-cas-8", 600, True)):
        options = Options(recipe=recipe, scale="small", size=SIZE, archives=tmp_path)
        data = load_data(options, shared)
        assert data.counts()["train"] == count
        assert any("trained on new mosaics" in note for note in data.notes) == notes


def test_an_archive_without_ground_truth_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / ARCHIVES["outex"].files[0], "w") as file:
        file.writestr("images/000.png", b"")
    with pytest.raises(InputError, match=r"images/ and ground_truth\.png"):
        find_archive("outex", tmp_path)
