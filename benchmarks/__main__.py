"""Run by ``python -m benchmarks``; see ``--help``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import tyro

from benchmarks.options import RESULTS, Options, limit_threads

# glibc maps buffers from 32 MiB on anew at every call, so that time would jump at that size.
KEEP_PAGES = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=1099511627776"


def main() -> None:
    options = tyro.cli(Options, description=Options.__doc__)
    if options.command == "growth" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = KEEP_PAGES
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]])
    limit_threads(options.threads)
    # the frameworks read the limits when they are imported
    from benchmarks import commands, tables

    out = options.out or RESULTS
    if options.quick and not options.out:
        out = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    with tempfile.TemporaryDirectory() as cache:
        if not options.quick:  # first calls compile, whatever ran before
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        if options.command != "report":
            getattr(commands, options.command)(options, out)
    print(tables.write(out))
    if options.quick:
        print(
            "--quick: torch.compile for the first case only, the paper's job at 96², "
            "the peers' checks without compilation."
        )


if __name__ == "__main__":
    main()
