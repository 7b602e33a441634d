"""Run by ``python -m benchmarks``; see ``--help``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import tyro

from benchmarks.options import Options, limit_threads


def main() -> None:
    options = tyro.cli(Options, description=Options.__doc__)
    limit_threads(options.threads)
    # the frameworks read the limits when they are imported
    from benchmarks import commands, report

    out = options.out or Path(__file__).parent / "results"
    if options.quick and not options.out:
        out = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    with tempfile.TemporaryDirectory() as cache:
        if not options.quick:  # first calls compile, whatever ran before
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        if options.command != "report":
            getattr(commands, options.command)(options, out)
    print(report.write(out))
    if options.quick:
        print("--quick: torch.compile for the first case only, the paper's job at 96², "
              "the peers' checks without compilation.")


if __name__ == "__main__":
    main()
