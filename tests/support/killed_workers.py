"""`predict_ray` in which a process with the network is killed once, and one that writes; and one
whenever it writes the images of a certain photograph."""

import os
import signal
from pathlib import Path
from typing import Any

from reference_models import predict_ray
from reference_models.prediction import outputs

FOLDER = Path(os.environ["KILLED"])
"""Folder for a mark of each process that was killed."""
DEADLY = "21.png"


def die_once(mark: str) -> None:
    if not (FOLDER / mark).exists():
        (FOLDER / mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)


class Network(predict_ray.Network):
    calls = 0

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        if self.calls == 5:
            die_once("network")
        return super().__call__(batch)


class Write(predict_ray.Write):
    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        if row["state"].job.file.name == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        if row["state"].job.file.name == "17.png":
            save = outputs.save

            def half(image: Any, path: Path, *rest: Any) -> None:
                save(image, path, *rest)
                content = path.read_bytes()
                path.write_bytes(content[: len(content) // 2])
                die_once("write")
                path.write_bytes(content)

            outputs.save = half
        return super().__call__(row)


if __name__ == "__main__":
    predict_ray.Network, predict_ray.Write = Network, Write  # type: ignore[misc]
    predict_ray.RETRIES = 1  # Each takes seconds.
    predict_ray.main()
