"""Entry point of `python -m benchmarks`; see `--help`."""

import os
import tempfile
from pathlib import Path

import tyro

from benchmarks.options import RESULTS, Options, keep_pages, limit_threads


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks")
    if options.command == "growth":
        keep_pages("benchmarks")
    limit_threads(options.threads)
    # The frameworks read the limits when they are imported.
    from benchmarks import commands

    out = options.out or RESULTS
    if options.quick and not options.out:
        out = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    with tempfile.TemporaryDirectory() as cache:
        if not options.quick:  # An empty cache, so that first calls compile after any earlier run.
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        getattr(commands, options.command)(options, out)
    if options.command != "report":
        commands.report(options, out)
    if options.quick:
        print(
            "--quick: torch.compile for the first case only, the paper's benchmark at 96², "
            "other libraries without the compilation check."
        )


if __name__ == "__main__":
    main()
