"""Picture files with random damage: each is read, or refused by one line that names it."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from reference_models.data.maps import read_map
from reference_models.data.masks import read_mask
from reference_models.data.photographs import read_photograph
from reference_models.errors import InputError

READERS = (read_photograph, read_map, read_mask)


def intact(rng: np.random.Generator) -> dict[str, bytes]:
    """A small picture in eight formats, by file name."""
    height, width = rng.integers(1, 24, 2)
    colours = rng.integers(0, 256, (height, width, 3), np.uint8)
    grey = Image.fromarray(colours[..., 0])
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(1, 9))
    exif[0x010F] = "maker"
    pictures = {
        "rgb.png": (Image.fromarray(colours), {}),
        "palette.png": (Image.fromarray(colours).quantize(5), {"transparency": 0}),
        "16-bit.png": (Image.fromarray(colours[..., 0].astype(np.uint16) * 257), {}),
        "photo.jpg": (Image.fromarray(colours), {"exif": exif}),
        "alpha.webp": (Image.fromarray(np.dstack([colours, colours[..., :1]])), {"exif": exif}),
        "grey.bmp": (grey, {}),
        "float.tif": (Image.fromarray(colours[..., 0] / np.float32(255)), {}),
        "packed.tiff": (grey, {"compression": "tiff_lzw"}),
    }
    files = {}
    for name, (image, how) in pictures.items():
        buffer = io.BytesIO()
        formats = {"jpg": "jpeg", "tif": "tiff"}
        suffix = name.rpartition(".")[2]
        image.save(buffer, formats.get(suffix, suffix), **how)
        files[name] = buffer.getvalue()
    return files


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with bytes changed, removed, repeated or cut off."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(0, max(1, len(data))))
        # Headers decide how the rest is read, so most damage is done there.
        if rng.random() < 0.5:
            place = min(place, int(rng.integers(0, 64)))
        length = int(rng.integers(1, 9))
        kind = rng.integers(0, 5)
        if kind == 0:
            data[place : place + length] = rng.integers(0, 256, length, np.uint8).tobytes()
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = data[place : place + length]
        elif kind == 3:
            data[place : place + length] = bytes(length)
        elif len(data) > 8:
            del data[int(rng.integers(8, len(data))) :]
    return bytes(data)


def fuzz(folder: Path, seed: int, count: int) -> dict[str, int]:
    """Read `count` damaged files with every reader; returns the number of files by outcome."""
    rng = np.random.default_rng(seed)
    outcomes = {"read": 0, "refused": 0}
    while sum(outcomes.values()) < count:
        for name, content in intact(rng).items():
            file = folder / name
            file.write_bytes(damaged(content, rng))
            refused = [error for error in (fault(reader, file) for reader in READERS) if error]
            outcomes["refused" if len(refused) == len(READERS) else "read"] += 1
            for message in refused:
                assert str(file) in message, message
                assert "\n" not in message, message
            file.unlink()
    return outcomes


def fault(reader, file: Path) -> str | None:
    try:
        reader(file)
    except InputError as error:
        return str(error)
    return None
