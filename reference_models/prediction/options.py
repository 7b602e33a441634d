"""Options that `predict` and `predict_ray` share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from reference_models.errors import InputError
from reference_models.options import Backend, Device
from reference_models.prediction.outputs import KINDS, Format


@dataclass(frozen=True)
class Common:
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE…")]
    """Photographs, or folders of photographs, searched with their sub-folders."""
    model: str | None = None
    """Bundled model (a name in reference_models/weights) or run folder of `train`. Default: the
    bundled model with the highest weighted F on ECSSD among those that need no prior map."""
    prior: Path | None = None
    """Prior map, for models that start from a rough map of where the object is: a grey image, or a
    folder with one map per photograph, paired by file name. Default: the default model's map."""
    out: Path = Path("predictions")
    """Folder for the images written; sub-folders are those of the photographs."""
    write: str = ",".join(KINDS)
    """What to write for each photograph: map, cutout, overlay, or several, separated by commas."""
    format: Format = "png"
    """File type of what is written. webp keeps maps and transparency exactly, and colours at
    quality 90; jpg has no transparency, so no cutout."""
    backend: Backend | None = None
    """Framework to compute in. Default: the one that the network was trained in."""
    device: Device = "auto"
    """Device to compute on; auto uses a GPU if one is available."""
    batch: int | None = None
    """Photographs that the network takes at once. Default: 1 on a CPU, 16 on a GPU."""
    archives: Path | None = None
    """Folder of the ImageNet weights, for a model with a frozen backbone that is not in
    reference_models/weights. Default: data/."""

    def check_numbers(self, *names: str) -> None:
        """Raise an error unless each of these options is at least 1, or absent."""
        for name in names:
            number = getattr(self, name)
            if number is not None and number < 1:
                raise InputError(f"--{name} must be at least 1, got {number}; omit it")

    @property
    def kinds(self) -> tuple[str, ...]:
        """What to write, checked."""
        kinds = tuple(dict.fromkeys(kind.strip() for kind in self.write.split(",")))
        if not set(kinds) <= set(KINDS):
            raise InputError(
                f"--write must list some of {', '.join(KINDS)}, separated by commas, got "
                f"{self.write!r}; as in --write map,cutout"
            )
        if self.format == "jpg" and "cutout" in kinds:
            raise InputError(
                "--format jpg has no transparency, which a cutout needs; pass --write map,overlay, "
                "or --format png or webp"
            )
        return kinds
