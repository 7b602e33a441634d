"""`predict_ray` in which a process with the network is killed once."""

import os
import signal
from pathlib import Path
from typing import Any

from reference_models import predict_ray

KILLED = Path(os.environ["KILLED"])
"""File that is made when the process is killed."""


class Network(predict_ray.Network):
    calls = 0

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        if self.calls == 5 and not KILLED.exists():
            KILLED.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


if __name__ == "__main__":
    predict_ray.Network = Network  # type: ignore[misc]
    predict_ray.main()
