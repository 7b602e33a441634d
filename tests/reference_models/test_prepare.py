"""Archives packed from data sets in the layouts in which their authors distribute them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from reference_models import prepare as command
from reference_models.data.named_sets import ARCHIVES, DETECTORS, DETECTORS_NAME
from reference_models.data.sets import Sources, load, read_test
from reference_models.errors import InputError
from reference_models.prepare import LAYOUTS, packed_size, prepare
from tests.support.maps import read_maps
from tests.support.paths import DATA, ROOT


def photograph(height: int = 300, width: int = 400, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height))


def a_mask(height: int = 300, width: int = 400, low: int = 0, high: int = 255) -> Image.Image:
    mask = np.full((height, width), low, np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = high
    return Image.fromarray(mask)


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def save_pair(images: Path, masks: Path, stem: str, seed: int = 0) -> None:
    save(photograph(seed=seed), images / f"{stem}.jpg")
    save(a_mask(), masks / f"{stem}.png")


@pytest.fixture(autouse=True)
def small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six images per split, or four of DUTS-TE, in place of hundreds or thousands."""
    for name, layout in LAYOUTS.items():
        few = dict.fromkeys(layout.counts, 4 if name == "duts-te" else 6)
        monkeypatch.setitem(command.LAYOUTS, name, layout._replace(counts=few))


STEMS = {
    "duts-tr": ["ILSVRC2012_test_4", "ILSVRC2014_train_00019441", "sun_a", "sun_b", "sun_c", "x"],
    "duts-te": ["ILSVRC2013_test_00005864", "sun_d", "sun_e", "sun_f"],
    "ecssd": [f"{number:04}" for number in range(1, 7)],
    "pascal-s": ["1", "2", "3", "10", "359", "408"],
}


def distributed(name: str, home: Path) -> Path:
    """A small data set in its authors' layout, below the folder that is returned."""
    for seed, stem in enumerate(STEMS[name]):
        layout = LAYOUTS[name]
        place = home / layout.inside[-1]
        save_pair(place / layout.images, place / layout.truth, stem, seed)
    (home / "readme.txt").write_text("not an image")
    return home


def save_segmentations(path: Path, maps: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    people = np.empty((1, len(maps)), object)
    for number, labels in enumerate(maps):
        people[0, number] = {"Segmentation": labels.astype(np.uint16), "Boundaries": labels > 1}
    savemat(path, {"groundTruth": people})


def bsds(home: Path) -> Path:
    place = home / "BSR/BSDS500/data"
    for start, split in ((100, "train"), (20, "val"), (3000, "test")):
        for number in range(start, start + 6):
            save(photograph(321, 481, number), place / f"images/{split}/{number}.jpg")
            halves = np.ones((321, 481), int)
            halves[:, 240:] = 2
            thirds = halves + (np.arange(321) > 160)[:, None]
            save_segmentations(place / f"groundTruth/{split}/{number}.mat", [halves, thirds])
        (place / f"images/{split}/Thumbs.db").write_bytes(b"of Windows")
    return home


def members(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        return archive.namelist()


def manifest(path: Path) -> list[dict[str, str]]:
    with zipfile.ZipFile(path) as archive:
        header, *rows = archive.read("MANIFEST.tsv").decode().splitlines()
    return [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]


def opened(path: Path, name: str) -> Image.Image:
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        image = Image.open(file)
        image.load()
    return image


# Every data set ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["duts-te", "ecssd", "pascal-s"])
def test_a_test_set_is_packed_and_can_be_measured_on(name: str, tmp_path: Path):
    notes = prepare(name, distributed(name, tmp_path / "set"), tmp_path / "data")
    (file,) = ARCHIVES[name].files
    path = tmp_path / "data" / file
    assert notes[0] == f"wrote {path}"
    assert notes[1] == f"{name}: {len(STEMS[name])} images"
    stem = STEMS[name][0]
    image, mask = opened(path, f"images/{stem}.webp"), opened(path, f"masks/{stem}.png")
    assert (image.format, image.mode, image.size) == ("WEBP", "RGB", (256, 192))
    assert (mask.format, mask.mode, mask.size) == ("PNG", "1", (256, 192))
    row = manifest(path)[0]
    assert row["stem"] == stem
    assert [row[f"packed_{side}"] for side in ("width", "height")] == ["256", "192"]
    assert row["foreground_fraction"] == "0.06250"
    assert len(row["sha256_image"]) == len(row["sha256_mask"]) == 64
    test, _ = read_test(name, Sources(name, tmp_path / "data"), 32)
    unused = set(ARCHIVES[name].excluded)
    assert test.images.names == tuple(stem for stem in STEMS[name] if stem not in unused)
    assert test.images.labels.any(axis=(1, 2)).all()
    assert test.truth[0].shape == (192, 256)


def test_duts_tr_is_dealt_into_two_parts_and_can_be_trained_on(tmp_path: Path):
    out = tmp_path / "data"
    notes = prepare("duts-tr", distributed("duts-tr", tmp_path / "set"), out)
    for part, file in enumerate(ARCHIVES["duts-tr"].files):
        with zipfile.ZipFile(out / file) as archive:
            stems = archive.read("splits/train.txt").decode().split()
        assert stems == STEMS["duts-tr"][part::2]
        assert [row["stem"] for row in manifest(out / file)] == stems
    assert notes[-1] == (
        "duts-tr: not used by any recipe: ILSVRC2014_train_00019441 (also in DUTS-TE, under "
        "another name)"
    )
    prepare("ecssd", distributed("ecssd", tmp_path / "other"), out)
    data = load(Sources("duts-tr", out, ("ecssd",), validation_images=1), 32, seed=0)
    assert data.counts() == {"train": 4, "validation": 1, "ecssd": 6}


def test_the_graded_masks_of_pascal_s_are_kept(tmp_path: Path):
    home = distributed("pascal-s", tmp_path / "set")
    save(a_mask(high=106), home / "datasets/masks/pascal/359.png")
    save(a_mask(low=30, high=200), home / "datasets/masks/pascal/2.png")
    notes = prepare("pascal-s", home, tmp_path / "data")
    path = tmp_path / "data/pascal_s.zip"
    assert np.asarray(opened(path, "masks_graded/359.png")).max() == 106
    assert not np.asarray(opened(path, "masks/359.png")).any()
    assert np.asarray(opened(path, "masks/2.png")).mean() == pytest.approx(1 / 16, abs=0.002)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("splits/test.txt").decode().split() == STEMS["pascal-s"]
    text = "\n".join(notes)
    assert "between 0 and 255: binarised at 128 (2, 359)" in text
    assert "not used by any recipe: 359, 408 (nothing is salient in their masks)" in text


def test_bsds500_keeps_the_segmentation_of_every_annotator(tmp_path: Path):
    prepare("bsds500", bsds(tmp_path / "set"), tmp_path / "data")
    path = tmp_path / "data/bsds500.zip"
    labels = np.asarray(opened(path, "segmentations/100_1.png"))
    assert labels.shape == (171, 256)
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert manifest(path)[0]["segments_per_annotator"] == "2,3"
    data = load(Sources("bsds500", tmp_path / "data", ("bsds500",), regions=4), 32, seed=0)
    assert data.counts() == {"train": 6, "validation": 6, "bsds500": 6}
    assert data.train.names == tuple(str(number) for number in range(100, 106))
    assert data.tests[0].truth[0].shape == (2, 171, 256)


def test_mosaics_share_one_label_map(tmp_path: Path):
    home = tmp_path / "set"
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 3
    save(Image.fromarray(labels), home / "ground_truth.png")
    for number in range(99):
        save(photograph(40, 40, number), home / f"{number:03}.png")
    with pytest.raises(InputError, match=r"must hold 100 \.png mosaics, found 99"):
        prepare("outex", home, tmp_path / "data")
    save(photograph(40, 30, 99), home / "099.png")
    with pytest.raises(InputError, match=r"099\.png .* 30 x 40"):
        prepare("outex", home, tmp_path / "data")
    save(photograph(40, 40, 99), home / "099.png")
    assert prepare("outex", home, tmp_path / "data")[1] == "outex: 100 mosaics"
    path = tmp_path / "data/outex_us_00000.zip"
    assert opened(path, "images/007.webp").size == (40, 40)
    assert np.unique(np.asarray(opened(path, "ground_truth.png"))).tolist() == [0, 3]
    assert len(manifest(path)) == 100
    test, _ = read_test("outex", Sources("outex", tmp_path / "data", regions=5), 32)
    assert len(test.images) == 30
    assert test.truth[0].shape == (1, 40, 40)


def test_maps_of_detectors_become_as_large_as_the_images(tmp_path: Path):
    out, home = tmp_path / "data", tmp_path / "maps"
    prepare("ecssd", distributed("ecssd", tmp_path / "set"), out)
    for stem in STEMS["ecssd"]:
        save(a_mask(low=10, high=200), home / f"DRFI/{stem}.png")
        save(a_mask(150, 200), home / f"HS/{stem}_HS.jpg")
    (home / "empty").mkdir()
    notes = prepare(DETECTORS_NAME, home, out)
    assert notes[:2] == [f"wrote {out / DETECTORS}", "maps of DRFI, HS"]
    assert "resized to the size of the image: HS/0001_HS.jpg" in notes[2]
    assert notes[3].startswith("no maps of RC, CHS, IG, SR, MF_heuristic, MF_supervised: recipes")
    assert manifest(out / DETECTORS)[6]["source_path"] == "HS/0001_HS.jpg"
    maps, _ = read_maps(out / DETECTORS / "DRFI", STEMS["ecssd"])
    assert maps["0001"].shape == (192, 256)
    assert maps["0001"][60:80, 80:110].mean() == pytest.approx(200, abs=4)
    sources = Sources("ecssd", out, ("ecssd",), test_priors=("hs",))
    assert load(sources, 32, seed=0).tests[0].priors["hs"].max() == 255


def test_a_nearly_black_map_beside_bright_ones_of_its_detector_stays_so(tmp_path: Path):
    out, home = tmp_path / "data", tmp_path / "maps"
    prepare("ecssd", distributed("ecssd", tmp_path / "set"), out)
    first = STEMS["ecssd"][0]
    for stem in STEMS["ecssd"]:
        save(a_mask(high=1) if stem == first else a_mask(high=200), home / f"DRFI/{stem}.png")
        save(a_mask(high=1), home / f"HS/{stem}.png")
    notes = prepare(DETECTORS_NAME, home, out)
    levels = {
        name: opened(out / DETECTORS, f"{name}/{first}.webp").convert("L").getextrema()[1]
        for name in ("DRFI", "HS")
    }
    assert levels["DRFI"] <= 2
    assert levels["HS"] >= 250
    assert any("DRFI: 1 map has the values 0 and 1: nearly black" in note for note in notes)
    assert any("HS: 6 maps have the values 0 and 1: 1 is read as white" in note for note in notes)


def test_folders_of_results_are_told_from_images_beside_them(tmp_path: Path):
    out, home = tmp_path / "data", tmp_path / "program"
    prepare("ecssd", distributed("ecssd", tmp_path / "set"), out)
    for stem in STEMS["ecssd"]:
        save(a_mask(), home / f"result_HS/{stem}_HS.png")
        save(photograph(), home / f"images/{stem}.jpg")
    notes = prepare(DETECTORS_NAME, home, out)
    assert notes[1] == "maps of HS"
    row = manifest(out / DETECTORS)[0]
    assert (row["file"], row["source_path"]) == ("HS/0001.webp", "result_HS/0001_HS.png")


@pytest.mark.parametrize(("name", "inside"), [(n, i) for n in STEMS for i in LAYOUTS[n].inside])
def test_the_folder_may_be_named_at_each_level_and_zipped(name: str, inside: str, tmp_path: Path):
    home = distributed(name, tmp_path / "set")
    start = home if inside else home / LAYOUTS[name].inside[-1]
    packed = tmp_path / "set.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(start.rglob("*.*")):
            archive.write(file, str(file.relative_to(start)))
    prepare(name, start, tmp_path / "one")
    prepare(name, packed, tmp_path / "two")
    for file in ARCHIVES[name].files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_duplicates_and_grey_photographs_are_said(tmp_path: Path):
    home = distributed("ecssd", tmp_path / "set")
    images = home / "ECSSD/images"
    (images / "0002.jpg").write_bytes((images / "0001.jpg").read_bytes())
    save(photograph().convert("L"), images / "0005.jpg")
    notes = prepare("ecssd", home, tmp_path / "data")
    assert "ecssd: byte-identical images under two names: 0001 = 0002" in notes
    assert "ecssd: grey photographs: 0005" in notes
    assert opened(tmp_path / "data/ecssd.zip", "images/0005.webp").mode == "RGB"


def test_small_images_are_not_enlarged():
    assert packed_size((100, 60)) == (100, 60)
    assert packed_size((400, 302)) == (256, 193)
    assert packed_size((2, 2000)) == (1, 256)


# Faults ------------------------------------------------------------------------------------------


def fails(match: str, name: str, folder: Path) -> str:
    out = folder.parent / "data"
    with pytest.raises(InputError, match=match) as caught:
        prepare(name, folder, out)
    assert not out.exists() or not list(out.iterdir())
    return str(caught.value)


def test_all_faults_are_listed_in_one_error(tmp_path: Path):
    home = distributed("ecssd", tmp_path / "set")
    images, masks = home / "ECSSD/images", home / "ECSSD/ground_truth_mask"
    (masks / "0001.png").unlink()
    (images / "0002.jpg").unlink()
    save(a_mask(20, 30), masks / "0003.png")
    save(a_mask(high=0), masks / "0004.png")
    (images / "0005.jpg").write_bytes(b"not an image")
    Image.new("LAB", (400, 300)).save(masks / "0006.png", format="tiff")
    text = fails("is not ecssd as its authors distribute it; nothing was written", "ecssd", home)
    for fault in (
        f"- {images} must hold 6 .jpg images, found 5",
        f"- images without a .png file in {masks} (1): 0001",
        f"- .png files without an image in {images} (1): 0002",
        f"is 400 x 300, but {masks / '0003.png'} is 30 x 20 (width x height)",
        f"- {masks / '0004.png'} has no foreground: no pixel is 128 or more",
        f"- {images / '0005.jpg'} cannot be read as an image",
        f"- {masks / '0006.png'} has the colour mode LAB; save it as RGB or grey",
    ):
        assert fault in text
    assert text.endswith("docs/data.md says where it comes from")


def test_many_faults_are_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = distributed("ecssd", tmp_path / "set")
    for file in (home / "ECSSD/images").iterdir():
        file.write_bytes(b"not an image")
    monkeypatch.setattr(command, "FAULTS_SHOWN", 4)
    assert "\n  - and 2 more\n" in fails("cannot be read", "ecssd", home)


def test_another_layout_is_an_error(tmp_path: Path):
    (tmp_path / "set/img").mkdir(parents=True)
    text = fails(r"must hold images/, ground_truth_mask/ \(.*ECSSD/\)", "ecssd", tmp_path / "set")
    assert text.endswith("but holds img; docs/data.md shows the layout of ecssd")
    fails("images/train/, images/val/, .* BSR/BSDS500/data/", "bsds500", tmp_path / "set")
    fails("does not exist", "ecssd", tmp_path / "nowhere")


def test_faults_of_segmentations(tmp_path: Path):
    home = bsds(tmp_path / "set")
    truth = home / "BSR/BSDS500/data/groundTruth/train"
    save_segmentations(truth / "100.mat", [np.ones((30, 40))])
    (truth / "101.mat").write_bytes(b"damaged")
    savemat(truth / "102.mat", {"other": np.ones(3)})
    save_segmentations(truth / "103.mat", [np.arange(321 * 481).reshape(321, 481) % 300])
    text = fails("is not bsds500", "bsds500", home)
    assert f"segmentation 1 in {truth / '100.mat'} is 40 x 30 (width x height)" in text
    for stem in ("101", "102"):
        assert f"{truth / stem}.mat must hold groundTruth{{i}}.Segmentation" in text
    assert f"{truth / '103.mat'} has labels from 0 to 299, more than 256" in text


def test_faults_of_detectors_maps(tmp_path: Path):
    home, out = tmp_path / "maps", tmp_path / "data"
    (home / "DRFI").mkdir(parents=True)
    fails(r"does not exist; first run `.*prepare ecssd FOLDER --out .*data`", DETECTORS_NAME, home)
    prepare("ecssd", distributed("ecssd", tmp_path / "set"), out)
    with pytest.raises(InputError, match=r"a folder of maps per detector, .* but holds none"):
        prepare(DETECTORS_NAME, home, out)
    save(a_mask(), home / "DRFI/0001.png")
    (home / "DRFI/0002.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"without a map in .*DRFI \(4\): 0003") as caught:
        prepare(DETECTORS_NAME, home, out)
    assert "0002.png cannot be read as an image" in str(caught.value)
    assert not (out / DETECTORS).exists()


def test_an_archive_is_not_overwritten(tmp_path: Path):
    home = distributed("ecssd", tmp_path / "set")
    prepare("ecssd", home, tmp_path / "data")
    with pytest.raises(InputError, match=r"ecssd\.zip already exists; delete it .* --out FOLDER"):
        prepare("ecssd", home, tmp_path / "data")


@pytest.mark.slow
def test_the_command(tmp_path: Path):
    run = [sys.executable, "-m", "reference_models.prepare", "ecssd", str(tmp_path / "set")]
    (tmp_path / "set/images").mkdir(parents=True)
    failed = subprocess.run(run, cwd=ROOT, text=True, capture_output=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["duts-te", "ecssd", "pascal-s"])
def test_a_prepared_archive_has_the_layout_of_the_real_one(name: str, tmp_path: Path):
    (file,) = ARCHIVES[name].files
    if not (DATA / file).is_file():
        pytest.skip(f"{file} not in {DATA}")
    prepare(name, distributed(name, tmp_path / "set"), tmp_path / "data")
    assert {Path(member).parent for member in members(tmp_path / "data" / file)} == {
        Path(member).parent for member in members(DATA / file)
    }
    assert list(manifest(tmp_path / "data" / file)[0]) == list(manifest(DATA / file)[0])
    rows = manifest(DATA / file)
    with zipfile.ZipFile(DATA / file) as archive:
        assert archive.read("splits/test.txt").decode().split() == [row["stem"] for row in rows]
    assert command.in_order(row["stem"] for row in reversed(rows)) == [row["stem"] for row in rows]
    for row in rows:
        size = packed_size((int(row["width"]), int(row["height"])))
        assert size == (int(row["packed_width"]), int(row["packed_height"]))


def test_masks_of_floats_are_scaled_as_everywhere(tmp_path: Path):
    home = distributed("pascal-s", tmp_path / "set")
    floats = Image.fromarray(np.asarray(a_mask(high=200), np.float32) / 255)
    floats.save(home / "datasets/masks/pascal/2.png", format="tiff")
    prepare("pascal-s", home, tmp_path / "data")
    path = tmp_path / "data/pascal_s.zip"
    assert np.asarray(opened(path, "masks_graded/2.png")).max() == 200
    assert np.asarray(opened(path, "masks/2.png")).any()
