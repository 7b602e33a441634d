"""The sets of images: generated, read from folders and zips, and the named archives."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference_models.data.decoding import decode, describe, largest, read_priors, settled
from reference_models.data.images import Data, Images
from reference_models.data.label_swaps import swap_labels
from reference_models.data.named_sets import (
    ARCHIVES,
    DETECTORS,
    detector_folder,
    find,
    find_archive,
)
from reference_models.data.pictures import centre_prior
from reference_models.data.sets import Sources, load
from reference_models.data.splits import evenly
from reference_models.errors import InputError
from tests.support.maps import read_maps
from tests.support.paths import DATA

SCENES = Sources("scenes", archives=DATA, train_images=8)


def a_mask(width: int = 20, height: int = 16, low: int = 0, high: int = 255) -> np.ndarray:
    mask = np.full((height, width), low, dtype=np.uint8)
    mask[4:12, 5:15] = high
    return mask


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_mask(folder: Path, stem: object, mask: np.ndarray) -> None:
    save(folder / f"masks/{stem}.png", mask)


def make_pairs(folder: Path, stems: list[str]) -> Path:
    """Good pairs of 20 x 16 (width x height)."""
    rng = np.random.default_rng(0)
    for stem in stems:
        save(folder / f"images/{stem}.png", rng.integers(0, 256, (16, 20, 3), dtype=np.uint8))
        save_mask(folder, stem, a_mask())
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_pairs(tmp_path / "set", [str(i) for i in range(10)])


def zipped(folder: Path, inside: str = "", name: str = "set.zip") -> Path:
    path = folder.parent / name
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, inside + str(file.relative_to(folder)))
    return path


def split_off(path: Path, seed: int = 0, **changes: int | None) -> Data:
    return load(replace(Sources(path, archives=path.parent), **changes), 16, seed)


def read(path: Path) -> Images:
    files = find([path])
    return settled(files, [decode(files, list(files.images), 16)])[0].images


def assert_same(ours: Images, theirs: Images) -> None:
    assert ours.names == theirs.names
    for name in ("images", "labels", "priors"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


# Images and scenes -------------------------------------------------------------------------------


def test_generated_sets_are_disjoint_and_the_held_out_scenes_do_not_depend_on_the_number():
    few, many = load(SCENES, 16, 0), load(replace(SCENES, train_images=12), 16, 0)
    assert few.counts() == {"train": 8, "validation": 40, "scenes": 150}
    names = few.train.names + few.validation.names + few.tests[0].images.names
    assert len(set(names)) == len(names) == 8 + 40 + 150
    assert_same(few.tests[0].images, many.tests[0].images)
    assert_same(few.train, many.train.take(range(8)))
    test = few.tests[0]
    np.testing.assert_array_equal(np.stack(test.truth), test.images.masks)
    np.testing.assert_array_equal(test.priors["generated"], test.images.priors)
    spread = load(replace(SCENES, test_images=3), 16, 0)
    assert spread.tests[0].images.names == ("scene0", "scene74", "scene149")
    assert_same(spread.train, few.train)


def test_swapped_labels_exchange_half_of_the_images_whole():
    train = load(SCENES, 16, 0).train
    swapped = swap_labels(train, 0.5, seed=0)
    changed = (swapped.masks != train.masks).mean(axis=(1, 2))
    assert sorted(changed) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert_same(swapped, swap_labels(train, 0.5, seed=0))
    assert (swapped.labels != swap_labels(train, 0.5, seed=1).labels).any()
    assert_same(swap_labels(train, 0.0, seed=0), train)
    with pytest.raises(InputError, match="between two regions only, got 3 regions"):
        swap_labels(replace(train, labels=train.labels * 2), 0.5, seed=0)


def test_the_fingerprint_sees_every_array():
    data = load(replace(SCENES, train_images=4, test_images=2), 16, 0)
    test = data.tests[0]
    assert data.sha256 == load(replace(SCENES, train_images=4, test_images=2), 16, 0).sha256
    changed = [
        replace(data, train=replace(data.train, priors=255 - data.train.priors)),
        replace(data, validation=swap_labels(data.validation, 0.5, seed=0)),
        replace(data, tests=(replace(test, truth=(test.truth[0], ~test.truth[1])),)),
        replace(data, tests=(replace(test, priors={"generated": 255 - test.images.priors}),)),
    ]
    assert len({one.sha256 for one in (data, *changed)}) == 5
    # Priors that a network made are known by that network.
    computed = [replace(one, computed_by="aa") for one in (data, changed[0])]
    assert computed[0].sha256 == computed[1].sha256
    assert len({data.sha256, computed[0].sha256, replace(data, computed_by="bb").sha256}) == 3


def test_even_choice_keeps_both_ends():
    assert evenly("abcdefg", 3) == ["a", "d", "g"]
    assert evenly("abcdefg", 1) == ["a"]
    for most in (7, 9, None):
        assert evenly("abcdefg", most) == list("abcdefg")
    for most in range(1, 100):
        assert len(set(evenly(range(100), most))) == most


# Reading a folder or a zip -----------------------------------------------------------------------


def test_folder_zip_and_zip_with_a_top_folder_read_alike(folder: Path):
    plain = read(folder)
    assert len(plain) == 10
    assert plain.masks.mean() == pytest.approx(8 * 10 / (16 * 20), abs=0.05)
    np.testing.assert_array_equal(plain.priors[0], centre_prior(16))
    for inside in ("", "top/"):
        assert_same(read(zipped(folder, inside)), plain)


def test_a_shared_prior_is_held_once_and_batches_can_be_written_to(folder: Path):
    images = read(folder)
    assert images.priors.strides[0] == 0
    assert images.take([2, 1]).priors.flags.writeable


def test_a_seeded_fifth_is_held_out_without_splits(folder: Path):
    data, again, other = split_off(folder), split_off(folder), split_off(folder, seed=1)
    assert data.counts() == {"train": 7, "validation": 1, "set": 2}
    assert_same(data.tests[0].images, again.tests[0].images)
    parts = (data.train, data.validation, data.tests[0].images)
    assert {name for part in parts for name in part.names} == set(map(str, range(10)))
    assert data.train.names != other.train.names
    assert any("held out at random, by seed" in note for note in data.notes)
    assert data.tests[0].priors == {}
    np.testing.assert_array_equal(data.tests[0].truth[0], a_mask() > 0)
    few = split_off(folder, train_images=3, validation_images=1, test_images=1)
    assert few.counts() == {"train": 3, "validation": 1, "set": 1}


def test_splits_are_followed(folder: Path):
    def names() -> tuple[tuple[str, ...], ...]:
        data = split_off(folder)
        return data.train.names, data.validation.names, data.tests[0].images.names

    (folder / "splits").mkdir()
    (folder / "splits/test.txt").write_text("3\n7\n5\n")
    train, validation, test = names()
    assert test == ("3", "7", "5")
    assert len(train) + len(validation) == 7
    (folder / "splits/train.txt").write_text("0\n1\n2\n")
    (folder / "splits/val.txt").write_text("4\n")
    assert names() == (("0", "1", "2"), ("4",), ("3", "7", "5"))
    (folder / "splits/train.txt").write_text("0\n3\n")
    with pytest.raises(InputError, match="share 1 image: 3; keep"):
        names()
    (folder / "splits/train.txt").write_text("0\nnobody\n")
    with pytest.raises(InputError, match="1 image that does not exist: nobody; write"):
        names()


def test_a_test_list_of_everything_falls_back_to_a_random_split(folder: Path):
    (folder / "splits").mkdir()
    (folder / "splits/test.txt").write_text("\n".join(map(str, range(10))))
    data = split_off(folder)
    assert data.counts()["set"] == 2
    assert any("leaves nothing to train or test on" in note for note in data.notes)


def test_masks_of_zero_one_soft_and_empty_kinds_are_treated_as_documented(folder: Path):
    save_mask(folder, 0, a_mask(high=1))
    save_mask(folder, 1, a_mask(low=100, high=150))
    save_mask(folder, 2, a_mask(high=0))
    save_mask(folder, "stray", a_mask())
    everything = read(folder)
    for i in (0, 1):
        np.testing.assert_array_equal(everything.labels[i], everything.labels[3])
    assert not everything.masks[2].any()
    text = "\n".join(split_off(folder).notes)
    assert "set: 1 mask has the values 0 and 1: 1 is read as the object (0)" in text
    assert "1 mask has values between 0 and 255: binarised at 128 (1)" in text
    assert "1 mask is all background (2)" in text
    assert "1 mask without an image is not used (stray)" in text


def test_priors_are_read_and_stretched(folder: Path):
    for i in range(10):
        save(folder / f"priors/{i}.png", a_mask(low=10, high=60))
    everything = read(folder)
    assert everything.priors.min() == 0
    assert everything.priors.max() == 255
    data = split_off(folder)
    np.testing.assert_array_equal(data.tests[0].priors["priors"], data.tests[0].images.priors)
    (folder / "priors/4.png").unlink()
    with pytest.raises(InputError, match="1 image has no prior in priors/: 4; add"):
        read(folder)


def test_bad_data_is_named(folder: Path):
    def fails(match: str, path: Path = folder) -> None:
        with pytest.raises(InputError, match=match):
            split_off(path)

    fails("does not exist", folder / "nowhere")
    fails("does not exist", zipped(folder) / "nowhere")
    fails("neither a folder nor a readable zip", folder / "images/0.png")
    fails("must hold images/ and masks/, or a folder that does, but holds 0.png", folder / "images")
    (folder.parent / "empty").mkdir()
    fails("but holds nothing", folder.parent / "empty")
    fails(
        "at least 4 images, found 3 in .*few; add more",
        make_pairs(folder.parent / "few", ["a", "b", "c"]),
    )

    save_mask(folder, 5, a_mask(width=30))
    fails(r"5\.png is 20 x 16, .*masks.5\.png is 30 x 16 \(width x height\)")
    (folder / "masks/5.png").write_bytes(b"not a png")
    fails(r"masks.5\.png cannot be read as an image")
    whole = (folder / "images/6.png").read_bytes()
    (folder / "images/6.png").write_bytes(whole[: len(whole) // 2])
    save_mask(folder, 5, a_mask())
    fails(r"images.6\.png cannot be read as an image")
    (folder / "images/6.png").write_bytes(whole)
    Image.new("LAB", (20, 16)).save(folder / "masks/5.tif")
    (folder / "masks/5.png").unlink()
    fails("5.tif has the colour mode LAB; save it as RGB or grey")
    (folder / "masks/5.tif").rename(folder / "masks/5.png")
    (folder / "masks/5.png").unlink()
    (folder / "masks/9.png").unlink()
    fails("2 images have no mask in masks/: 5, 9; add")
    save_mask(folder, 5, a_mask())
    save_mask(folder, 9, a_mask())
    (folder / "images/9.jpg").write_bytes(whole)
    fails("9.png have the same name without extension; rename or remove one")
    for file in (folder / "images").iterdir():
        file.unlink()
    fails("images holds no image file")


def test_lists_of_other_names_are_errors(folder: Path):
    (folder / "splits").mkdir()
    (folder / "splits/tst.txt").write_text("1")
    with pytest.raises(InputError, match=r"only train\.txt, .* but holds tst\.txt; rename"):
        split_off(folder)


def test_all_background_masks_cannot_be_trained_on(folder: Path):
    for i in range(10):
        save_mask(folder, i, a_mask(high=0))
    with pytest.raises(InputError, match="every training mask is all background"):
        split_off(folder)


def test_masks_of_odd_values_are_said(folder: Path):
    save_mask(folder, 2, a_mask(high=7))
    palette = Image.fromarray(a_mask(high=1), mode="P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.save(folder / "masks/3.png")
    files = find([folder])
    decoded = settled(files, [decode(files, list(files.images), 16)])[0]
    assert describe(files, [decoded]) == [
        "set: 1 mask has 0 and one other value, which is read as the object (2)",
        "set: 1 mask has a palette: the brighter colour is read as the object (3)",
    ]
    np.testing.assert_array_equal(decoded.images.labels[2], decoded.images.labels[4])
    np.testing.assert_array_equal(decoded.images.labels[3], decoded.images.labels[4])
    for i in range(10):
        save_mask(folder, i, a_mask(low=20, high=60))
    with pytest.raises(InputError, match=r"0\.png is a mask with no value above 60, .*as 255"):
        split_off(folder)
    for i in range(10):
        save_mask(folder, i, a_mask(low=255))
    with pytest.raises(InputError, match=r"no mask has both object and background \(2 masks are"):
        split_off(folder)


def test_priors_of_16_bits_are_read_as_those_of_8(folder: Path):
    for i in range(10):
        save(folder / f"priors/{i}.png", a_mask().astype(np.uint16) * 257)
    sixteen = read(folder).priors
    for i in range(10):
        save(folder / f"priors/{i}.png", a_mask())
    np.testing.assert_array_equal(sixteen, read(folder).priors)


def test_of_two_sets_in_a_folder_one_must_be_named(tmp_path: Path):
    for name in ("one", "two"):
        make_pairs(tmp_path / "sets" / name, list("abcd"))
    match = r"several folders in .*sets hold images/ and masks/: one, two; name one"
    with pytest.raises(InputError, match=match):
        split_off(tmp_path / "sets")
    assert split_off(tmp_path / "sets/two").tests[0].name == "two"


def test_joined_zips_read_as_one_set(folder: Path, tmp_path: Path):
    names = [str(i) for i in range(10)]
    parts = []
    for part in (0, 1):
        for name in names[part::2]:
            pair = (f"images/{name}.png", f"masks/{name}.png")
            for file in pair:
                (tmp_path / f"part{part}" / file).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / f"part{part}" / file).write_bytes((folder / file).read_bytes())
        parts.append(zipped(tmp_path / f"part{part}", name=f"part{part}.zip"))
    files = find(parts, excluded=["3"])
    assert list(files.images) == [name for name in names if name != "3"]
    joined = settled(files, [decode(files, list(files.images), 16)])[0].images
    assert_same(joined, read(folder).take([i for i in range(10) if i != 3]))
    with pytest.raises(InputError, match="have the same name without extension"):
        find([parts[0], parts[0]])


def test_maps_are_read_at_their_own_size_unstretched(folder: Path, tmp_path: Path):
    for i in range(3):
        save(tmp_path / f"maps/one/{i}.png", a_mask(width=20 + i, low=10, high=60))
    maps, _ = read_maps(tmp_path / "maps/one", ["2", "0"])
    assert list(maps) == ["2", "0"]
    np.testing.assert_array_equal(maps["2"], a_mask(width=22, low=10, high=60))
    packed = zipped(tmp_path / "maps", name="maps.zip")
    for path in (tmp_path / "maps", packed, packed / "one"):
        np.testing.assert_array_equal(read_maps(path, ["2"])[0]["2"], maps["2"])
    with pytest.raises(InputError, match=r"1 image has no map in .*one.*: 7; add"):
        read_maps(packed, ["2", "7"])
    save(tmp_path / "maps/two/0.png", a_mask())
    with pytest.raises(InputError, match=r"several folders in .* hold saliency maps: one, two"):
        read_maps(tmp_path / "maps", ["0"])
    with pytest.raises(InputError, match="does not exist"):
        read_maps(tmp_path / "nowhere", ["0"])


# Label maps --------------------------------------------------------------------------------------


def test_regions_are_numbered_by_area_and_small_ones_join_the_nearest():
    regions = np.full((8, 8), 7, np.int32)
    regions[:, 5:] = 300
    regions[0, 7] = 2  # Amid 300.
    regions[0, 0] = 1  # Amid 7.
    expected = np.zeros((8, 8), np.uint8)
    expected[:, 5:] = 1
    np.testing.assert_array_equal(largest(regions, 8, most=2), expected)
    expected[0, 0], expected[0, 7] = 2, 3
    np.testing.assert_array_equal(largest(regions, 8, most=16), expected)
    assert largest(regions, 16, most=3).shape == (16, 16)


def a_segmented_archive(tmp_path: Path) -> Path:
    """A stand-in for bsds500.zip: 2 x 4 images, three annotators who see 3, 2 and 4 regions."""
    root = tmp_path / "bsds"
    stems = [f"{kind}{i}" for kind in ("test", "train", "val") for i in range(4)]
    for stem in stems:
        save(root / f"images/{stem}.png", np.full((16, 20, 3), 9, np.uint8))
        for annotator, count in enumerate((3, 2, 4)):
            values = np.tile(np.arange(20, dtype=np.uint8) * count // 20, (16, 1))
            save(root / f"segmentations/{stem}_{annotator}.png", values)
    (root / "splits").mkdir()
    for kind in ("test", "train", "val"):
        lines = [stem for stem in stems if stem.startswith(kind)]
        (root / f"splits/{kind}.txt").write_text("\n".join(lines))
    zipped(root, name="bsds500.zip")
    return tmp_path


def test_label_maps_of_several_annotators(tmp_path: Path):
    archives = a_segmented_archive(tmp_path)
    sources = Sources(
        "bsds500", archives, ("bsds500",), validation_images=2, test_images=3, regions=16
    )
    data = load(sources, 16, seed=0)
    assert data.counts() == {"train": 4, "validation": 2, "bsds500": 3}
    assert data.validation.names == ("val0", "val3")
    assert data.train.labels.max() == 2  # The median of the annotators saw three.
    assert data.train.labels.dtype == np.uint8
    test = data.tests[0]
    assert [(truth.shape, truth.dtype) for truth in test.truth] == [((3, 16, 20), np.int32)] * 3
    assert [truth.max() for truth in test.truth[0]] == [2, 1, 3]
    assert load(replace(sources, regions=2), 16, seed=0).train.labels.max() == 1
    assert len(data.notes) == 1
    assert "bsds500: the labels are those of the annotator with the median" in data.notes[0]
    # The same folder as a set of the user's.
    path = archives / "bsds500.zip"
    own = load(Sources(path, archives, test_images=3, regions=16), 16, seed=0)
    assert own.tests[0].name == "bsds500"
    assert_same(own.tests[0].images, test.images)


# Named archives ----------------------------------------------------------------------------------


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """Stand-ins: DUTS-TR in two parts with the image that DUTS-TE has too, ECSSD, two detectors."""
    home = tmp_path / "archives"
    twin = "ILSVRC2014_train_00019441"
    for part, stems in ((1, [twin, *(f"a{i}" for i in range(11))]), (2, ["b", *"cdefghij"])):
        root = make_pairs(home / f"part{part}", stems)
        (root / "splits").mkdir()
        (root / "splits/train.txt").write_text("\n".join(stems))
        zipped(root, name=f"duts_tr.part{part}of2.zip")
    zipped(make_pairs(home / "ecssd", ["0001", "0002", "0003"]), name="ecssd.zip")
    for detector in ("DRFI", "HS"):
        for stem in ("0001", "0002", "0003"):
            save(home / f"maps/{detector}/{stem}.png", a_mask(low=10, high=60))
    zipped(home / "maps", name="ecssd_baselines.zip")
    return home


def test_named_sets_and_detectors_maps(archives: Path):
    sources = Sources("duts-tr", archives, ("ecssd",), validation_images=3, test_priors=("drfi",))
    data = load(sources, 16, seed=0)
    assert data.counts() == {"train": 17, "validation": 3, "ecssd": 3}
    assert data.validation.names == ("a0", "a9", "j")  # Even over 20 names; sorted, a10 is third.
    assert not set(data.train.names) & set(data.validation.names)
    assert data.train.priors.strides[0] == 0
    assert data.notes == (
        "duts-tr: 1 image is left out (ILSVRC2014_train_00019441): "
        "also in DUTS-TE, under another name",
    )
    test = data.tests[0]
    assert (test.priors["drfi"].min(), test.priors["drfi"].max()) == (0, 255)
    np.testing.assert_array_equal(test.truth[0], a_mask() > 0)
    few = load(replace(sources, train_images=5, test_images=2, test_priors=()), 16, seed=0)
    assert few.counts() == {"train": 5, "validation": 3, "ecssd": 2}
    assert few.tests[0].images.names == ("0001", "0003")
    assert (few.train.names[0], few.train.names[-1]) == (data.train.names[0], data.train.names[-1])


def test_what_is_trained_and_measured_on_is_said(archives: Path):
    data = load(Sources("ecssd", archives, ("ecssd",)), 16, seed=0)
    assert data.counts() == {"train": 2, "validation": 1, "ecssd": 3}
    assert data.notes == ("ecssd: 3 test images are also used for training or validation",)


def test_a_path_can_be_tested_on(archives: Path, folder: Path):
    data = load(Sources("ecssd", archives, (str(folder),)), 16, seed=0)
    assert data.counts()["set"] == 10
    # A copy of the user's is not the named set, whose priors the recipes choose.
    copy = load(Sources("ecssd", archives, (str(archives / "ecssd.zip"),)), 16, seed=0)
    named = load(Sources("ecssd", archives, ("ecssd",)), 16, seed=0)
    assert copy.tests[0].name == named.tests[0].name == "ecssd"
    assert not copy.tests[0].is_named
    assert named.tests[0].is_named
    assert named.tests[0].only([0]).is_named


def test_missing_archives_and_detectors_are_named(archives: Path):
    sources = Sources("duts-tr", archives, ("ecssd",))

    def fails(match: str, **changes: object) -> None:
        with pytest.raises(InputError, match=match):
            load(replace(sources, **changes), 16, seed=0)

    fails(
        "holds no maps of sr, only of drfi, hs; .*prepare ecssd-baselines FOLDER`$",
        test_priors=("sr",),
    )
    fails("maps of drfi belong to ECSSD, which is not among", test_priors=("drfi",), tests=())
    fails(
        "ecsd is neither a named data set .*; choose one of duts-tr, ",
        tests=("ecsd",),
    )
    (archives / "ecssd_baselines.zip").unlink()
    fails(
        r"ecssd_baselines\.zip \(data set ecssd-baselines\) is not in .*archives; .*--archives",
        test_priors=("drfi",),
    )
    (archives / "duts_tr.part2of2.zip").unlink()
    fails(
        r"duts_tr\.part2of2\.zip \(data set duts-tr\) is not in .*archives; pass .* --archives "
        r"FOLDER, .*: `python -m reference_models\.prepare duts-tr FOLDER`$"
    )
    fails(
        r"is missing: .*nowhere does not exist; .* ecssd FOLDER`\n", archives=archives / "nowhere"
    )


def archives_of(*files: str) -> None:
    """Skip the test unless these archives were prepared."""
    missing = [file for file in files if not (DATA / file).is_file()]
    if missing:
        pytest.skip(f"{', '.join(missing)} not in {DATA}")


@pytest.mark.parametrize(
    ("name", "count", "note"),
    [
        ("duts-tr", 10552, "ILSVRC2014_train_00019441"),
        ("duts-te", 5019, ""),
        ("ecssd", 1000, ""),
        ("pascal-s", 845, "5 images are left out (359, 408, 424, 460, 622): nothing"),
        ("bsds500", 500, ""),
        ("outex", 100, ""),
    ],
)
def test_real_archives_hold_what_is_known_of_them(name: str, count: int, note: str):
    archives_of(*ARCHIVES[name].files)
    files, notes = find_archive(name, DATA)
    assert len(files.images) == count
    assert len(notes) == bool(note)
    assert note in "".join(notes)
    if name == "outex":
        assert {kind: len(stems) for kind, stems in files.lists.items()} == {
            "train": 60,
            "val": 10,
            "test": 30,
        }
    if name == "bsds500":
        assert {kind: len(stems) for kind, stems in files.lists.items()} == {
            "train": 200,
            "val": 100,
            "test": 200,
        }
        assert sum(map(len, files.truth.values())) == 2696
    decoded = settled(
        files, [decode(files, evenly(list(files.images), 3), 32, regions=16, keep_truth=True)]
    )[0]
    assert decoded.images.labels.any(axis=(1, 2)).all()
    assert max(decoded.truth[0].shape) == 256


def test_real_maps_of_a_detector():
    archives_of("ecssd.zip", DETECTORS)
    folder = detector_folder(DATA, "drfi")
    priors = read_priors(folder, ["0001", "0557"], 64)
    assert priors.shape == (2, 64, 64)
    assert not priors.min(axis=(1, 2)).any()
    assert (priors.max(axis=(1, 2)) == 255).all()
    files, _ = find_archive("ecssd", DATA)
    masks = settled(files, [decode(files, ["0001", "0557"], 64)])[0].images.masks
    maps, _ = read_maps(DATA / "ecssd_baselines.zip" / "DRFI", ["0001", "0557"])
    assert maps["0001"].shape == (256, 171)
    for prior, mask in zip(priors, masks, strict=True):
        assert prior[mask].mean() > prior[~mask].mean() + 50


def test_faults_of_every_part_and_kind_are_reported_together(folder: Path):
    for i in range(10):
        (folder / f"images/{i}.png").write_bytes(b"no image")
    (folder / "masks/3.png").write_bytes(b"no image")
    with pytest.raises(InputError) as raised:
        split_off(folder)
    lines = str(raised.value).splitlines()
    assert len(lines) == 11
    assert lines[-1].strip() == "and 1 more"


def test_lists_that_cannot_be_read_are_no_missing_lists(folder: Path):
    (folder / "splits").mkdir()
    (folder / "splits/train.txt").mkdir()
    (folder / "splits/test.txt").write_bytes("é\n".encode("latin-1"))
    (folder / "splits/._train.txt").write_bytes(b"hidden")
    with pytest.raises(InputError, match=r"train\.txt is not a file(.|\n)*test\.txt is not UTF-8"):
        split_off(folder)


def test_files_of_other_image_types_are_not_passed_over(folder: Path):
    (folder / "masks/0.png").rename(folder / "masks/0.gif")
    with pytest.raises(InputError, match=r"holds 1 file of types that are not read \(0\.gif\)"):
        split_off(folder)
    (folder / "masks/0.gif").rename(folder / "masks/0.png")
    frames = [Image.fromarray(a_mask()) for _ in range(2)]
    frames[0].save(folder / "masks/0.png", format="tiff", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"0\.png has 2 frames; save one of them"):
        split_off(folder)


def test_faults_of_names_lists_and_pictures_are_one_error(folder: Path):
    """A missing mask hides neither a damaged picture nor another size; nothing is said twice."""
    names = sorted(path.stem for path in (folder / "masks").iterdir())
    (folder / f"masks/{names[0]}.png").unlink()
    (folder / f"images/{names[1]}.png").write_bytes(b"not an image")
    save(folder / f"masks/{names[2]}.png", a_mask(width=7))
    (folder / "splits").mkdir(exist_ok=True)
    (folder / "splits/train.txt").write_text("gone\n")
    (folder / "splits/other.txt").write_text("")
    with pytest.raises(InputError) as caught:
        load(Sources(folder, Path()), 16, seed=0)
    lines = str(caught.value).split("\n  ")
    for text in ("has no mask", "other.txt", "lists 1 image", "cannot be read", "is 7 x 16"):
        assert sum(text in line for line in lines) == 1, (text, lines)
    assert len(lines) == 5


def test_a_line_break_in_a_name_is_shown_and_breaks_no_line(folder: Path):
    for number in (1, 2):
        (folder / f"images/a\n{number}\x1b.png").write_bytes(b"not an image")
        save(folder / f"masks/a\n{number}\x1b.png", a_mask())
        (folder / f"images/a\n{number}\x1b.bmp").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        load(Sources(folder, Path()), 16, seed=0)
    lines = str(caught.value).split("\n")
    assert len(lines) == 2
    for number, line in enumerate(lines, 1):
        assert rf"a\n{number}\x1b.png have the same name" in line
        assert line.isprintable()
