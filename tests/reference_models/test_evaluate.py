"""`reference_models.evaluate`: any detector's maps from a folder or zip, against masks."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference_models.data.maps import read_maps
from reference_models.errors import InputError
from reference_models.evaluate import Options, mask_files, notes_on, read_masks, run
from reference_models.measures.saliency import NAMES, measure
from tests.support.paths import DATA

with_archives = pytest.mark.skipif(
    not (DATA / "ecssd_baselines.zip").is_file(), reason=f"needs the archives of {DATA}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five masks and the maps of two methods; those of "blur" are of half the size."""
    rng = np.random.default_rng(0)
    for name in ("set/masks", "set/images", "all/blur", "all/noise"):
        (tmp_path / name).mkdir(parents=True)
    for i in range(5):
        mask = np.zeros((16, 20), dtype=np.uint8)
        mask[4 : 8 + i, 5:15] = 255
        noise = rng.integers(0, 256, mask.shape, dtype=np.uint8)
        Image.fromarray(mask).save(tmp_path / f"set/masks/{i}.png")
        Image.fromarray(noise).save(tmp_path / f"all/noise/{i}.png")
        Image.fromarray(mask).resize((10, 8), 2).save(tmp_path / f"all/blur/{i}.webp")
    return tmp_path


def true_masks(path: Path) -> dict[str, np.ndarray]:
    return {stem: mask.object for stem, mask in read_masks(mask_files(path))[0].items()}


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, str(file.relative_to(folder)))
    return path


def test_folders_and_zips_give_the_same_row(folder: Path, capsys):
    run(Options(folder / "all/blur", masks=folder / "set", out=folder / "new/row.json"))
    written = json.loads((folder / "new/row.json").read_text())
    assert set(written) == {"maps", "masks", "images", "notes", "measures"}
    assert set(written["measures"]) == set(NAMES)
    assert written["images"] == 5
    assert written["notes"] == ["5 maps differ in size from their masks and are resized to them"]
    printed = capsys.readouterr().out
    assert f"MAE                        {written['measures']['mae']:.4f}" in printed
    assert "note: 5 maps differ in size" in printed

    masks = true_masks(zipped(folder / "set"))
    maps, _ = read_maps(zipped(folder / "all") / "blur", masks)
    assert measure(list(maps.values()), list(masks.values())) == written["measures"]
    # A folder of masks alone, and maps that need not be resized.
    run(Options(folder / "all/noise", masks=folder / "set/masks", out=folder / "2.json"))
    assert json.loads((folder / "2.json").read_text())["notes"] == []


def test_maps_of_predict_and_maps_of_a_few(folder: Path, capsys):
    masks = true_masks(folder / "set")
    plain, _ = read_maps(folder / "all/noise", masks)
    some = folder / "some"
    some.mkdir()
    for stem in list(plain)[:2]:
        for kind in ("map", "overlay"):
            shutil.copy(folder / f"all/noise/{stem}.png", some / f"{stem}-{kind}.png")
    with pytest.raises(InputError, match=r"images have no map in .*some"):
        run(Options(some, masks=folder / "set"))
    out = folder / "few.json"
    run(Options(some, masks=folder / "set", shared=True, out=out))
    written = json.loads(out.read_text())
    assert written["images"] == 2
    assert f"{len(masks) - 2} masks have no map, not measured" in written["notes"]
    stems = list(plain)[:2]
    assert written["measures"] == measure([plain[s] for s in stems], [masks[s] for s in stems])
    for file in some.iterdir():
        file.rename(some / f"x{file.name}")
    with pytest.raises(InputError, match=r"no map in .*some has the name of a mask"):
        run(Options(some, masks=folder / "set", shared=True))
    with pytest.raises(InputError, match=r"zoomout-exacct is not .* bundled models are"):
        run(Options(Path("zoomout-exacct"), masks=folder / "set"))


def test_values_are_taken_as_they_are(folder: Path):
    masks, (_, notes) = true_masks(folder / "set"), read_masks(mask_files(folder / "set"))
    maps, _ = read_maps(folder / "all/noise", masks)
    assert notes == []
    for stem, values in maps.items():
        with Image.open(folder / f"all/noise/{stem}.png") as image:
            np.testing.assert_array_equal(values, np.asarray(image))
    row = measure(list(maps.values()), list(masks.values()), only=["mae"])
    expected = [abs(maps[stem] / 255 - mask).mean() for stem, mask in masks.items()]
    assert row == {"mae": pytest.approx(np.mean(expected))}


def test_faults_of_masks_and_maps_are_reported_together(folder: Path):
    (folder / "set/masks/0.png").write_bytes(b"not an image")
    (folder / "all/noise/1.png").write_bytes(b"not an image")
    (folder / "all/noise/1\n2.png").write_bytes(b"")
    for name in ("2", "3"):
        shutil.copy(folder / f"set/masks/{name}.png", folder / f"all/noise/{name}.bmp")
    with pytest.raises(InputError) as caught:
        run(Options(folder / "all/noise", masks=folder / "set"))
    lines = str(caught.value).split("\n  ")
    assert len(lines) == 3
    for line, text in zip(lines, ("0.png cannot be read", "2.png have", "3.png have"), strict=True):
        assert text in line
    for name in ("2", "3"):
        (folder / f"all/noise/{name}.bmp").unlink()
    (folder / "set/masks/1\n2.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        run(Options(folder / "all/noise", masks=folder / "set"))
    lines = str(caught.value).split("\n  ")
    assert [line.count("cannot be read") for line in lines] == [1] * 4
    assert sum(r"1\n2.png" in line for line in lines) == 2


def test_a_place_for_the_measures_is_checked_before_the_work(folder: Path):
    (folder / "file").touch()
    for out, match in (
        (folder, "is a folder; pass the name of a JSON file"),
        (folder / "file/row.json", r"file is a file, but a folder is needed; pass another path"),
    ):
        with pytest.raises(InputError, match=match):
            run(Options(folder / "all/gone", masks=folder / "set", out=out))


def test_masks_of_other_kinds_are_noted(folder: Path):
    for i, high in enumerate((1, 200, 0)):
        Image.fromarray(np.uint8([[0, high], [0, high]])).save(folder / f"set/masks/{i}.png")
    masks, (_, notes) = true_masks(folder / "set"), read_masks(mask_files(folder / "set"))
    assert [mask.sum() for mask in masks.values()][:3] == [2, 2, 0]
    assert notes == [
        "1 mask has the values 0 and 1: 1 is read as the object (0)",
        "1 mask has 0 and one other value, which is read as the object (1)",
    ]
    notes = notes_on([mask.astype(float) for mask in masks.values()], [*masks.values()])
    assert notes == ["1 mask is all background: it counts in the MAE only"]


def test_bad_data_is_named(folder: Path):
    def fails(match: str, maps: Path, masks: Path = folder / "set"):
        with pytest.raises(InputError, match=match):
            run(Options(maps, masks=masks))

    fails("nowhere does not exist", folder / "nowhere")
    fails("nowhere does not exist", folder / "all/blur", folder / "nowhere")
    fails("neither a folder nor a readable zip", folder / "all/noise/0.png")
    fails("several folders in .*all hold saliency maps: blur, noise; name one", folder / "all")
    fails("DRFI does not exist", folder / "all" / "DRFI")
    fails(
        "must hold masks/, or a folder that does, but holds blur, noise",
        folder / "all/blur",
        folder / "all",
    )
    (folder / "all/blur/1.webp").unlink()
    (folder / "all/blur/3.webp").unlink()
    fails("2 images have no map in .*blur: 1, 3", folder / "all/blur")
    (folder / "all/noise/2.png").write_bytes(b"not a png")
    fails(r"noise.2\.png cannot be read as an image", folder / "all/noise")
    Image.fromarray(np.full((16, 20), np.inf, np.float32)).save(folder / "all/noise/2.tif")
    (folder / "all/noise/2.png").unlink()
    fails(r"2\.tif has values from inf to inf; save it with", folder / "all/noise")


def test_the_command(folder: Path):
    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "reference_models.evaluate", *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    done = command(folder / "all/noise", "--masks", folder / "set", "--exact")
    assert done.returncode == 0, done.stderr
    assert "weighted F, exact" in done.stdout
    wrong = command(folder / "all", "--masks", folder / "set")
    assert wrong.returncode == 1
    assert "error: " in wrong.stderr
    assert "Traceback" not in wrong.stderr


# The maps of ECSSD -------------------------------------------------------------------------------


@with_archives
@pytest.mark.slow
def test_the_detectors_have_the_published_error():
    """As listed in docs/data.md, where it was measured at full size."""
    masks = true_masks(DATA / "ecssd.zip")
    listed = {
        "DRFI": 0.178,
        "RC": 0.186,
        "MF_heuristic": 0.200,
        "CHS": 0.227,
        "HS": 0.228,
        "MF_supervised": 0.251,
        "SR": 0.290,
        "IG": 0.295,
    }
    with zipfile.ZipFile(DATA / "ecssd_baselines.zip") as archive:
        prepared = {name.partition("/")[0] for name in archive.namelist()}
    for name in prepared & listed.keys():
        maps, _ = read_maps(DATA / "ecssd_baselines.zip" / name, masks)
        row = measure(list(maps.values()), list(masks.values()), only=["mae"], workers=1)
        assert row["mae"] == pytest.approx(listed[name], abs=0.002), name


@with_archives
@pytest.mark.slow
def test_the_row_of_drfi_on_a_hundred_images():
    """So that no measure changes unseen."""
    masks = true_masks(DATA / "ecssd.zip")
    stems = list(masks)[:100]
    maps, _ = read_maps(DATA / "ecssd_baselines.zip/DRFI", stems)
    assert measure(list(maps.values()), [masks[stem] for stem in stems], exact=True) == {
        "mae": pytest.approx(0.1490, abs=1e-3),
        "f": pytest.approx(0.7890, abs=1e-3),
        "max_f": pytest.approx(0.8392, abs=1e-3),
        "weighted_f": pytest.approx(0.6034, abs=1e-3),
        "s": pytest.approx(0.8086, abs=1e-3),
        "e": pytest.approx(0.8891, abs=1e-3),
        "auroc": pytest.approx(0.9708, abs=1e-3),
        "miou": pytest.approx(0.7999, abs=1e-3),
        "weighted_f_exact": pytest.approx(0.5959, abs=1e-3),
        "weighted_f_loss": pytest.approx(0.8125, abs=1e-3),
    }
