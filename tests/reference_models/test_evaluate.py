"""`reference_models.evaluate`: any detector's maps from a folder or zip, against masks."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reference_models.data.maps import SaliencyMap
from reference_models.data.masks import Mask
from reference_models.data.pairs import Pairs, find_pairs, notes_on
from reference_models.errors import InputError
from reference_models.evaluate import Options, run
from reference_models.files import make_folder
from reference_models.measures.rows import RowFile
from reference_models.measures.saliency import NAMES, measure
from reference_models.shards import Shard
from tests.support.maps import read_maps, true_masks
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
    # The rows have seven decimals.
    whole = measure(list(maps.values()), list(masks.values()))
    assert whole == pytest.approx(written["measures"], abs=1e-6)
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
    expected = measure([plain[s] for s in stems], [masks[s] for s in stems])
    assert written["measures"] == pytest.approx(expected, abs=1e-6)
    for file in some.iterdir():
        file.rename(some / f"x{file.name}")
    with pytest.raises(InputError, match=r"no map in .*some has the name of a mask"):
        run(Options(some, masks=folder / "set", shared=True))
    with pytest.raises(InputError, match=r"zoomout-exacct is not .* bundled models are"):
        run(Options(Path("zoomout-exacct"), masks=folder / "set"))


def test_a_photograph_beside_its_map_is_not_taken_for_it(folder: Path):
    maps = folder / "all/noise"
    shutil.copy(maps / "0.png", maps / "0-map.png")
    with pytest.raises(InputError, match=r"0\.png and .*0-map\.png could both be the map of 0; "):
        run(Options(maps, masks=folder / "set"))
    # Unless the other one belongs to a mask of that name.
    shutil.copy(folder / "set/masks/1.png", folder / "set/masks/0-map.png")
    run(Options(maps, masks=folder / "set"))


def test_values_are_taken_as_they_are(folder: Path):
    masks = true_masks(folder / "set")
    maps, _ = read_maps(folder / "all/noise", masks)
    assert find_pairs(folder / "set", folder / "all/noise").notes == []
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
    os.mkfifo(folder / "pipe")
    for out, match in (
        (folder / "pipe", "is not a regular file; pass the name of a JSON file"),
        (folder, "is a folder; pass the name of a JSON file"),
        (folder / "file/row.json", r"file is a file, but a folder is needed; pass another path"),
    ):
        with pytest.raises(InputError, match=match):
            run(Options(folder / "all/gone", masks=folder / "set", out=out))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder without room for files")
def test_a_place_where_no_file_can_be_is_named_before_the_work(folder: Path):
    """Not even root can write there."""
    for option in ("--out", "--results"):
        with pytest.raises(
            InputError,
            match=rf"{option} /proc: no file can be written there \(.*; pass another path",
        ):
            make_folder(Path("/proc"), option)
    with pytest.raises(InputError, match="no file can be written there"):
        run(Options(folder / "all/gone", masks=folder / "set", out=Path("/proc/row.json")))
    make_folder(folder, "--out")
    assert {path.name for path in folder.iterdir()} == {"set", "all"}


def test_names_of_bytes_that_are_no_text_are_reported(folder: Path):
    maps = folder / os.fsdecode(b"caf\xe9")
    (folder / "all/noise").rename(maps)
    run(Options(maps, masks=folder / "set", out=folder / "row.json"))
    assert json.loads((folder / "row.json").read_text())["maps"] == str(maps)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such lock")
def test_one_process_at_a_time_adds_rows(folder: Path):
    """Rows of two processes would be written over each other."""
    options = Options(folder / "all/noise", masks=folder / "set", out=folder / "row.json")
    run(options)
    path = folder / "row.rows.jsonl"
    with (
        RowFile(path, "r+b"),
        pytest.raises(InputError, match=r"another process is adding rows to .*; wait for it"),
    ):
        run(options)
    run(options)


def test_masks_of_other_kinds_are_noted(folder: Path):
    for i, high in enumerate((1, 200, 0)):
        Image.fromarray(np.uint8([[0, high], [0, high]])).save(folder / f"set/masks/{i}.png")
    masks, notes = (
        true_masks(folder / "set"),
        find_pairs(folder / "set", folder / "all/noise").notes,
    )
    assert [mask.sum() for mask in masks.values()][:3] == [2, 2, 0]
    assert notes == [
        "1 mask has the values 0 and 1: 1 is read as the object (0)",
        "1 mask has 0 and one other value, which is read as the object (1)",
        "3 maps differ in size from their masks and are resized to them",
        "1 mask is all background: it counts in the MAE only",
    ]
    assert notes_on(1, 2) == [
        "1 map differs in size from its mask and is resized to it",
        "2 masks are all background: they count in the MAE only",
    ]


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


# Rows, shards and memory --------------------------------------------------------------------------


def measured_stems(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stems of the images that are measured from now on."""
    stems: list[str] = []

    def read(pairs: Pairs, place: int) -> tuple[SaliencyMap, Mask]:
        stems.append(pairs.stems[place])
        return whole(pairs, place)

    whole = Pairs.read
    monkeypatch.setattr(Pairs, "read", read)
    return stems


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def test_a_stopped_evaluation_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch):
    options = Options(folder / "all/noise", masks=folder / "set", out=folder / "row.json")
    stems = measured_stems(monkeypatch)
    run(options)
    first, path = json.loads((folder / "row.json").read_text()), folder / "row.rows.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert [row["stem"] for row in rows_in(path)] == stems == list("01234")
    assert first["measures"]["mae"] == np.mean([row["mae"] for row in rows_in(path)])
    # Two rows, and half of the third.
    (folder / "row.json").unlink()
    path.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    stems.clear()
    run(options)
    assert stems == list("234")
    assert json.loads((folder / "row.json").read_text()) == first
    assert path.read_bytes() == b"".join(lines)
    # Nothing is left to do; then one map is written anew.
    stems.clear()
    run(options)
    assert stems == []
    shutil.copy(folder / "all/noise/0.png", folder / "all/noise/3.png")
    os.utime(folder / "all/noise/3.png", ns=(0, 0))
    run(options)
    assert stems == ["3"]
    again = Options(folder / "all/noise", masks=folder / "set", out=folder / "new.json")
    run(again)
    written = [json.loads((folder / name).read_text()) for name in ("row.json", "new.json")]
    assert written[0] == written[1] != first
    # Other measures, or other files: all images anew.
    stems.clear()
    run(replace(options, exact=True))
    assert len(stems) == 5
    path.write_text("my notes\n")
    with pytest.raises(
        InputError, match=r"row\.rows\.jsonl is not a file of rows .*; remove it, or"
    ):
        run(options)


def test_rows_are_kept_only_where_files_are_still_read_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """One map of floats above 1, or one mask beside which 255 is void, changes all others."""
    maps = folder / "floats"
    maps.mkdir()
    ramp = np.linspace(0, 1, 16 * 20, dtype=np.float32).reshape(16, 20)
    for number in range(5):
        Image.fromarray(ramp).save(maps / f"{number}.tif")
    options = Options(maps, masks=folder / "set", out=folder / "row.json")
    run(options)
    stems = measured_stems(monkeypatch)
    Image.fromarray(255 * ramp).save(maps / "3.tif")
    run(options)
    assert stems == list("01234")
    stems.clear()
    labels = np.zeros((16, 20), np.uint8)
    labels[:2], labels[2:9] = 255, 1
    for number in range(4):
        Image.fromarray(labels).save(folder / f"set/masks/{number}.png")
    run(options)
    assert stems == list("01234")
    run(replace(options, out=folder / "new.json"))
    assert (folder / "row.json").read_bytes() == (folder / "new.json").read_bytes()


def test_only_changed_files_are_measured_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    options = Options(folder / "all/noise", masks=folder / "set", out=folder / "row.json")
    run(options)
    kept = rows_in(folder / "row.rows.jsonl")
    stems = measured_stems(monkeypatch)
    # Of another size, and with a note of its own.
    Image.new("L", (7, 9), 40).save(folder / "all/noise/2.png")
    run(options)
    assert stems == ["2"]
    written = json.loads((folder / "row.json").read_text())
    assert written["notes"] == ["1 map differs in size from its mask and is resized to it"]
    run(replace(options, out=folder / "new.json"))
    assert (folder / "row.json").read_bytes() == (folder / "new.json").read_bytes()
    # The rows of files that exchange their names, with equal sizes and times, are not taken.
    for name in ("0.png", "1.png"):
        os.utime(folder / "all/noise" / name, ns=(0, 0))
    run(options)
    (folder / "all/noise/1.png").rename(folder / "all/noise/11.png")
    (folder / "set/masks/1.png").rename(folder / "set/masks/11.png")
    stems.clear()
    run(options)
    assert stems == ["11"]
    assert kept[0]["mae"] == rows_in(folder / "row.rows.jsonl")[0]["mae"]


def test_a_file_of_rows_is_locked_before_it_is_changed(folder: Path, monkeypatch):
    """Another process may have begun the same file since it was looked for."""
    options = Options(folder / "all/noise", masks=folder / "set", out=folder / "row.json")
    path = folder / "row.rows.jsonl"
    header = {"maps": "a"}
    with RowFile.begin(path, header, Shard(), {0: ""}) as first:
        first.add(0, "0", "", {})
        monkeypatch.setattr(Path, "exists", lambda self: False)
        with pytest.raises(InputError, match="another process is adding rows to"):
            RowFile.begin(path, header, Shard(), {0: ""})
        monkeypatch.undo()
        first.add(1, "1", "", {})
    with RowFile.begin(path, header, Shard(), {0: "", 1: ""}) as again:
        assert list(again.offsets) == [0, 1]
    path.write_bytes(b"")  # A power cut between the file's name and its first line.
    run(options)


def test_shards_join_to_the_same_report(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    options = Options(folder / "all/noise", masks=folder / "set", out=folder / "whole.json")
    run(options)
    joined = replace(options, out=folder / "joined.json")
    for shard in ("2/3", "1/3"):
        run(replace(joined, shard=shard))
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    run(joined)
    assert not (folder / "joined.json").exists()
    assert [row["stem"] for row in rows_in(folder / "joined.1-of-3.rows.jsonl")] == ["0", "3"]
    capsys.readouterr()
    run(replace(joined, join=True))
    printed = capsys.readouterr().out
    assert (folder / "joined.json").read_bytes() == (folder / "whole.json").read_bytes()
    monkeypatch.delenv("RANK")
    run(options)
    assert capsys.readouterr().out.splitlines()[:-1] == printed.splitlines()[:-1]


def test_shards_that_do_not_belong_together_are_named(folder: Path):
    options = Options(folder / "all/noise", masks=folder / "set", out=folder / "row.json")
    join = replace(options, join=True)

    def fails(match: str, changed: Options = join) -> None:
        with pytest.raises(InputError, match=match):
            run(changed)

    fails("--join needs the --out of the shards", replace(join, out=None))
    fails("shard 1/2 needs a file for its rows", replace(options, out=None, shard="1/2"))
    fails("--shard must be I/N with I from 1 to N, got 3/2", replace(options, shard="3/2"))
    fails(r"there are no shards of .*row\.json to join; run evaluate --shard 1/N")
    run(replace(options, shard="1/2"))
    fails(r"1 shard of .*row\.json missing: 2/2; run evaluate --shard")
    first, second = (folder / f"row.{i}-of-2.rows.jsonl" for i in (1, 2))
    shutil.copy(first, second)
    fails(r"row\.2-of-2\.rows\.jsonl holds shard 1/2, unlike its name")
    second.unlink()
    run(replace(options, shard="2/2"))
    fails(
        "the shards of .* are of maps .*noise, not .*blur", replace(join, maps=folder / "all/blur")
    )
    lines = second.read_bytes().splitlines(keepends=True)
    second.write_bytes(b"".join(lines[:-1]))
    fails(r"2-of-2\.rows\.jsonl lacks 1 image of 2; run evaluate --shard 2/2 again")
    run(replace(options, shard="2/2"))
    run(join)
    Image.new("L", (21, 16)).save(folder / "all/noise/1.png")
    run(replace(options, shard="2/2"))
    fails("are of different evaluations: they differ in files, notes; remove the wrong one")
    run(replace(options, shard="1/3"))
    fails("lie shards of 2 and of 3; remove all but those of one number")


PEAK = """
import resource, sys
from pathlib import Path
from reference_models.data.pairs import find_pairs
from reference_models.evaluate import add_rows, rows_path
from reference_models.measures.rows import RowFile
from reference_models.shards import Shard
folder = Path(sys.argv[1])
pairs = find_pairs(folder / "masks", folder / "maps")
path = rows_path(folder / f"{len(pairs.stems)}.json", Shard())
stamps = {place: pairs.stamp(place) for place in range(len(pairs.stems))}
with RowFile.begin(path, {"images": len(pairs.stems)}, Shard(), stamps) as file:
    add_rows(file, pairs, stamps, ("mae",))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss differs by system")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path):
    """In memory, 32 more images with their masks would take 64 MB."""
    values = np.zeros((1000, 1000), np.uint8)
    values[300:600, 200:700] = 255
    for name in ("masks", "maps"):
        (tmp_path / name).mkdir()
    peaks = []
    for number in (8, 40):
        for i in range(number):
            for name in ("masks", "maps"):
                Image.fromarray(values).save(tmp_path / f"{name}/{i}.png")
        command = [sys.executable, "-c", PEAK, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (tmp_path / f"{number}.rows.jsonl").read_text().count("\n") == number + 1
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 20


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
