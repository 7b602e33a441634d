"""Photographs, maps and masks: one meaning for each way in which files store them."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference_models.data import pictures, splits
from reference_models.data.maps import read_map
from reference_models.data.masks import as_mask, has_void, mask_notes, read_mask, settled_mask
from reference_models.data.photographs import read_photograph, square_of
from reference_models.data.pictures import by_stem, open_image, side_by_side
from reference_models.data.splits import read_list
from reference_models.errors import InputError
from reference_models.prepare import digest, read_segmentations
from tests.support.maps import read_maps

SIDE = np.mgrid[:40, :48]
OBJECT = np.hypot(SIDE[0] - 18, SIDE[1] - 20) < 9
SOFT = np.clip(255 - 18 * np.hypot(SIDE[0] - 18, SIDE[1] - 20), 0, 255).astype(np.uint8)
VOC = [[0, 0, 0], [128, 0, 0], *[[0, 0, 0]] * 253, [224, 224, 192]]
EDGE = OBJECT ^ (OBJECT & np.roll(OBJECT, 1, 0))

RED = np.dstack([255 * OBJECT, 0 * OBJECT, 0 * OBJECT]).astype(np.uint8)
COLOUR_MAP = np.where(OBJECT[..., None], [253, 231, 36], [68, 1, 84]).astype(np.uint8)


def with_alpha(grey: np.ndarray) -> Image.Image:
    """Grey that is visible on the object alone."""
    return Image.fromarray(np.dstack([grey, 255 * OBJECT.astype(np.uint8)]), "LA")


def palette(indices: np.ndarray, colours: list[list[int]]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette(np.uint8(colours).ravel().tolist())
    return image


def layers(colour: np.ndarray | int, alpha: np.ndarray) -> Image.Image:
    colour = np.broadcast_to(np.uint8(colour), (*alpha.shape, 3))
    return Image.fromarray(np.dstack([colour, alpha.astype(np.uint8)]))


def two_colours(black_first: bool) -> Image.Image:
    colours = [[0, 0, 0], [255, 255, 255]]
    return palette(black_first == OBJECT, colours if black_first else colours[::-1])


def void(mask: np.ndarray) -> np.ndarray:
    return np.where(EDGE, 255, mask)


MASKS = {
    "0/255": (Image.fromarray(255 * OBJECT.astype(np.uint8)), "0/255"),
    "one bit": (Image.fromarray(OBJECT), "0/255"),
    "0/1": (Image.fromarray(OBJECT.astype(np.uint8)), "0/1"),
    "a class number": (Image.fromarray(15 * OBJECT.astype(np.uint8)), "two values"),
    "faint": (Image.fromarray(100 * OBJECT.astype(np.uint8)), "two values"),
    "two colours": (two_colours(True), "palette"),
    "two colours, white first": (two_colours(False), "palette"),
    "VOC's palette": (palette(OBJECT, VOC), "palette"),
    "a grey palette": (palette(SOFT, [[i] * 3 for i in range(256)]), "palette"),
    "red on black": (Image.fromarray(RED), "one hue"),
    "grey in RGB": (Image.fromarray(np.dstack([255 * OBJECT] * 3).astype(np.uint8)), "0/255"),
    "opaque RGBA": (layers(255 * OBJECT[..., None], np.full(OBJECT.shape, 255)), "0/255"),
    "the alpha channel": (layers(255, 255 * OBJECT), "transparency"),
    "grey and alpha": (with_alpha(np.zeros_like(SOFT)), "transparency"),
    "16 bits": (Image.fromarray(OBJECT.astype(np.uint16) * 65535), "16 bits"),
    "soft": (Image.fromarray(SOFT), "soft"),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_however_they_are_stored(name: str, tmp_path: Path):
    image, kind = MASKS[name]
    image.save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    expected = SOFT >= 128 if name in ("soft", "a grey palette") else OBJECT
    np.testing.assert_array_equal(mask.object, expected)
    assert (mask.kind, mask.void) == (kind, None)
    notes = mask_notes({"mask": mask.kind})
    assert (notes == []) == (kind == "0/255")


@pytest.mark.parametrize("stored", ["grey", "palette"])
def test_void_pixels_are_neither_object_nor_a_reason_to_refuse(stored: str, tmp_path: Path):
    values = void(OBJECT.astype(np.uint8)).astype(np.uint8)
    image = Image.fromarray(values) if stored == "grey" else palette(values, VOC)
    image.save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    np.testing.assert_array_equal(mask.object, OBJECT & ~EDGE)
    np.testing.assert_array_equal(mask.void, EDGE)
    assert "255 (void), which counts neither" in mask_notes({"mask": mask.kind})[0]


def test_a_lossy_mask_of_three_values_has_no_void(tmp_path: Path):
    values = 255 * OBJECT.astype(np.uint8)
    values[0, :3] = 1
    Image.fromarray(values).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    np.testing.assert_array_equal(mask.object, OBJECT)
    assert (mask.void, mask.kind) == (None, "soft")


def test_other_classes_with_void_and_void_alone(tmp_path: Path):
    for number, image in (
        (15, Image.fromarray(void(15 * OBJECT.astype(np.uint8)).astype(np.uint8))),
        (7, palette(void(7 * OBJECT), [*VOC[:7], [128, 128, 128], *VOC[8:]])),
        (1, Image.fromarray((OBJECT + 254 * (EDGE & OBJECT)).astype(np.int32))),
    ):
        image.save(tmp_path / "mask.tif")
        np.testing.assert_array_equal(
            read_mask(tmp_path / "mask.tif").object, OBJECT & ~EDGE, str(number)
        )
    assert has_void(["with void", "0/255", "0/1", "three values"])
    assert not has_void(["with void", "0/255", "soft"])
    assert not has_void(["0/255", "0/1", "three values"])
    several = palette(void(7 * OBJECT + (SIDE[0] > 35)), VOC)
    several.save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"is a mask of 2 classes \(1, 7\); save the object alone"):
        read_mask(tmp_path / "mask.png")


def test_void_around_a_small_object_is_known_by_other_masks(tmp_path: Path):
    values = np.zeros((20, 20), np.uint8)
    values[4:12, 4:12], values[6:10, 6:10] = 255, 3
    image = Image.fromarray(values)
    image.save(tmp_path / "mask.png")
    alone = read_mask(tmp_path / "mask.png")
    np.testing.assert_array_equal(alone.object, values == 255)
    assert (alone.kind, alone.void) == ("soft", None)
    beside = settled_mask(as_mask(image, tmp_path / "mask.png"), void=True)
    np.testing.assert_array_equal(beside.object, values == 3)
    np.testing.assert_array_equal(beside.void, values == 255)


def test_small_values_in_large_types_are_values_of_eight_bits(tmp_path: Path):
    for high in (1, 2, 255):
        for kind in (np.uint16, np.int32):
            Image.fromarray((high * OBJECT).astype(kind)).save(tmp_path / "mask.tif")
            np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif").object, OBJECT)
    Image.fromarray(SOFT.astype(np.uint16)).save(tmp_path / "map.png")
    np.testing.assert_array_equal(read_map(tmp_path / "map.png").values, SOFT)
    rgb = np.zeros((*OBJECT.shape, 3), np.uint8)
    rgb[..., 2] = OBJECT
    Image.fromarray(rgb).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png").object, OBJECT)


def test_dark_maps_stay_dark(tmp_path: Path):
    """One hue, greys of a palette, and floats beside those of other maps of the folder."""
    hue = np.dstack([SOFT // 5, 0 * SOFT, 0 * SOFT])
    Image.fromarray(hue).save(tmp_path / "1.png")
    palette(np.where(OBJECT, 1, 0), [[0] * 3, [3] * 3]).save(tmp_path / "2.png")
    maps, _ = read_maps(tmp_path, ["1", "2"])
    np.testing.assert_allclose(maps["1"].astype(int), SOFT // 5, atol=1)
    assert maps["2"].max() == 3
    (tmp_path / "floats").mkdir()
    Image.fromarray(np.full((4, 4), 255.001, np.float32)).save(tmp_path / "floats/1.tif")
    Image.fromarray(np.full((4, 4), 0.9, np.float32)).save(tmp_path / "floats/2.tif")
    maps, _ = read_maps(tmp_path / "floats", ["1", "2"])
    assert (maps["1"].max(), maps["2"].max()) == (255, 1)


def test_a_single_colour_of_two_is_told_by_the_other(tmp_path: Path):
    purple_and_yellow = [68, 1, 84, 253, 231, 36]
    for index in (0, 1):
        image = Image.fromarray(np.full((5, 5), index, np.uint8), "P")
        image.putpalette(purple_and_yellow)
        image.save(tmp_path / "mask.png", bits=1)
        assert read_mask(tmp_path / "mask.png").object.all() == bool(index)


def test_masks_without_a_plain_meaning_are_refused(tmp_path: Path):
    for image, match in (
        (Image.fromarray(SOFT // 4), "no value above 63, so it would be all background"),
        (Image.fromarray(np.dstack([SOFT, 255 - SOFT, SOFT])), "in several colours; save it in"),
        (layers(SOFT[..., None], 255 * OBJECT), "both colour and transparency vary"),
        (Image.fromarray(np.full((4, 4), 7e4, np.float32)), "values from 70000 to 70000"),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), "values from nan"),
        (Image.new("LAB", (4, 4)), "colour mode LAB; save it as RGB or grey"),
    ):
        image.save(tmp_path / "mask.tif")
        with pytest.raises(InputError, match=match) as raised:
            read_mask(tmp_path / "mask.tif")
        assert "mask.tif" in str(raised.value)


PHOTO = np.dstack([SOFT, SOFT // 2, 255 - SOFT])
GREY = np.dstack([SOFT] * 3)
SIXTEEN_BIG = Image.fromarray((SOFT.astype(np.uint16) * 257).astype(">u2"))
VISIBLE = OBJECT[..., None]
PHOTOGRAPHS = {
    "RGB": (Image.fromarray(PHOTO), "png", PHOTO),
    "grey": (Image.fromarray(SOFT), "png", GREY),
    "one bit": (Image.fromarray(OBJECT), "png", np.dstack([255 * OBJECT] * 3)),
    "16 bits": (Image.fromarray(SOFT.astype(np.uint16) * 257), "png", GREY),
    "16 bits, most significant byte first": (SIXTEEN_BIG, "tif", GREY),
    "32 bits": (Image.fromarray(SOFT.astype(np.int32) * 257), "tif", GREY),
    "floats to 1": (Image.fromarray(SOFT / np.float32(255)), "tif", GREY),
    "floats to 255": (Image.fromarray(SOFT.astype(np.float32)), "tif", GREY),
    "CMYK": (Image.fromarray(PHOTO).convert("CMYK"), "tif", PHOTO),
    "hidden colours": (layers(PHOTO, 255 * OBJECT), "png", np.where(VISIBLE, PHOTO, 255)),
    "grey and alpha": (with_alpha(SOFT), "png", np.where(VISIBLE, GREY, 255)),
}


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_however_they_are_stored(name: str, tmp_path: Path):
    image, suffix, expected = PHOTOGRAPHS[name]
    image.save(tmp_path / f"photo.{suffix}")
    photo = read_photograph(tmp_path / f"photo.{suffix}")
    np.testing.assert_allclose(np.asarray(photo.pixels).astype(int), expected, atol=1)
    assert (photo.alpha is not None) == (name in ("hidden colours", "grey and alpha"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(GREY)
    stored.save(tmp_path / "photo.png", exif=exif)
    turned = np.asarray(read_photograph(tmp_path / "photo.png").pixels)
    rows_first = {
        1: GREY, 2: GREY[:, ::-1], 3: GREY[::-1, ::-1], 4: GREY[::-1],
        5: GREY.swapaxes(0, 1), 6: np.rot90(GREY, -1), 7: np.rot90(GREY, 2).swapaxes(0, 1),
        8: np.rot90(GREY),
    }  # fmt: skip
    np.testing.assert_array_equal(turned, rows_first[orientation])


def test_an_odd_exif_entry_costs_no_more_than_the_orientation(tmp_path: Path):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0"
    Image.fromarray(PHOTO).save(tmp_path / "photo.jpg", exif=exif)
    assert read_photograph(tmp_path / "photo.jpg").pixels.size in ((48, 40), (40, 48))


MAPS = {
    "0/1": (Image.fromarray(OBJECT.astype(np.uint8)), "the values 0 and 1: 1 is read as white"),
    "palette": (two_colours(False), "a palette, read by its colours"),
    "transparency": (layers(255, 255 * OBJECT), "transparency, which is read as the map"),
    "16 bits": (Image.fromarray(OBJECT.astype(np.uint16) * 65535), "16 bits"),
    "floats": (Image.fromarray(OBJECT.astype(np.float32)), "floats, read as 8 bits"),
    "grey": (Image.fromarray(255 * OBJECT.astype(np.uint8)), None),
}


@pytest.mark.parametrize(("side", "mean", "most"), [(300, 0, 0), (570, 0, 0), (2000, 0.5, 4)])
def test_large_photographs_are_reduced_in_two_steps(side: int, mean: float, most: int) -> None:
    rng = np.random.default_rng(side)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((side, side - 40))
    noisy = np.asarray(smooth) + 8 * rng.standard_normal((side - 40, side, 3))
    photo = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    once = np.asarray(photo.resize((96, 96), Image.Resampling.LANCZOS)).astype(int)
    difference = np.abs(square_of(photo, 96) - once)
    assert difference.mean() <= mean
    assert difference.max() <= most
    assert (side < 6 * 96) == (difference.max() == 0)


@pytest.mark.parametrize("name", MAPS)
def test_perfect_maps_are_perfect_however_they_are_stored(name: str, tmp_path: Path):
    image, note = MAPS[name]
    image.save(tmp_path / f"1.{'tif' if name == 'floats' else 'png'}")
    maps, notes = read_maps(tmp_path, ["1"])
    np.testing.assert_array_equal(maps["1"], 255 * OBJECT)
    assert [note in one for one in notes] == ([True] if note else [])


def test_nearly_black_maps_beside_bright_ones_stay_so(tmp_path: Path):
    Image.fromarray(OBJECT.astype(np.uint8)).save(tmp_path / "1.png")
    Image.fromarray(SOFT).save(tmp_path / "2.png")
    maps, notes = read_maps(tmp_path, ["1", "2"])
    assert maps["1"].max() == 1
    assert notes == [
        "1 map has the values 0 and 1: nearly black, as other maps are brighter or finer (1)"
    ]
    Image.fromarray(COLOUR_MAP).save(tmp_path / "3.png")
    with pytest.raises(InputError, match="in several colours; save it in grey"):
        read_map(tmp_path / "3.png")


@pytest.mark.parametrize(("values", "most"), [(0.005, 1), (380, 1)])
def test_dark_maps_of_fine_levels_stay_dark(values: float, most: int, tmp_path: Path):
    """Floats and 16 bits say what white is, so that no value above 1 means a dark map."""
    kind = np.uint16 if values > 1 else np.float32
    dark = np.linspace(0, values, 100).reshape(10, 10).astype(kind)
    Image.fromarray(dark).save(tmp_path / "1.tif")
    assert read_map(tmp_path / "1.tif").values.max() == most
    Image.fromarray(OBJECT.astype(np.uint8)).save(tmp_path / "2.png")
    maps, notes = read_maps(tmp_path, ["1", "2"])
    assert (maps["1"].max(), maps["2"].max()) == (most, 1)
    assert any("nearly black" in note for note in notes)


def test_black_floats_say_nothing_of_other_maps(tmp_path: Path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "1.tif")
    Image.fromarray(OBJECT.astype(np.uint8)).save(tmp_path / "2.png")
    maps, _ = read_maps(tmp_path, ["1", "2"])
    assert (maps["1"].max(), maps["2"].max()) == (0, 255)


# Files -------------------------------------------------------------------------------------------


def test_all_faults_of_a_folder_are_reported_at_once(tmp_path: Path):
    for number in range(12):
        (tmp_path / f"{number:02}.png").write_bytes(b"no image")
    files = list(by_stem([tmp_path]).values())
    with pytest.raises(InputError) as raised:
        side_by_side(lambda index: open_image(files[index]), len(files), "images")
    lines = str(raised.value).splitlines()
    assert len(lines) == 11
    assert lines[-1].strip() == "and 2 more"
    assert all(f"{number:02}.png" in lines[number] for number in range(10))


def test_what_unfolds_beyond_a_size_is_refused_unread(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.png", bytes(2**24))
    with pytest.raises(InputError, match=r"x\.png is larger than 1 MB; save it smaller"):
        open_image(zipfile.Path(tmp_path / "bomb.zip") / "x.png")
    header = io.BytesIO()
    Image.new("1", (8, 8)).save(header, "png")
    content = bytearray(header.getvalue())
    content[16:24] = (10**5).to_bytes(4, "big") * 2  # The size that the header states.
    (tmp_path / "wide.png").write_bytes(content)
    with pytest.raises(InputError, match=r"wide\.png"):
        open_image(tmp_path / "wide.png")


def test_text_and_other_files_of_zips_are_refused_before_they_are_unpacked(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(pictures, "MOST_BYTES", 2**20)
    monkeypatch.setattr(splits, "MOST_LIST_BYTES", 2**20)
    monkeypatch.setattr(zipfile.ZipExtFile, "read", None)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("splits/train.txt", "x.mat", "x.png"):
            archive.writestr(name, bytes(2**24))
    root = zipfile.Path(tmp_path / "bomb.zip")
    for read, file in (
        (lambda file: read_list(file, {"x"}), root / "splits" / "train.txt"),
        (read_segmentations, root / "x.mat"),
        (digest, root / "x.mat"),
        (open_image, root / "x.png"),
    ):
        with pytest.raises(InputError, match=r"bomb\.zip/.* is larger than 1 MB; save it smaller"):
            read(file)
    (tmp_path / "train.txt").write_bytes(bytes(2**20 + 1))
    with pytest.raises(InputError, match=r"train\.txt is larger than 1 MB"):
        read_list(tmp_path / "train.txt", {"x"})


def test_a_file_that_states_a_smaller_size_is_refused(tmp_path: Path, monkeypatch):
    """Such as a device, or a file that grows."""
    monkeypatch.setattr(pictures, "MOST_BYTES", 2**10)
    (tmp_path / "x.png").write_bytes(bytes(2**11))
    monkeypatch.setattr(pictures, "size_of", lambda file: 0)
    with pytest.raises(InputError, match=r"x\.png is larger than"):
        open_image(tmp_path / "x.png")


def test_several_frames_are_refused_whatever_the_name(tmp_path: Path):
    file = tmp_path / "x.png"
    Image.new("L", (8, 8)).save(
        file, "gif", save_all=True, append_images=[Image.new("L", (8, 8), 9)]
    )
    with pytest.raises(InputError, match=r"x\.png has 2 frames; save one of them"):
        open_image(file)


def test_folders_with_the_name_of_an_image_are_named(tmp_path: Path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(InputError, match=r"x\.png is not a file; remove it"):
        open_image(tmp_path / "x.png")


def test_names_agree_in_either_unicode_form(tmp_path: Path):
    Image.fromarray(SOFT).save(tmp_path / "cafe\u0301.png")
    assert list(by_stem([tmp_path])) == ["caf\u00e9"]
