"""The command `python -m reference_models.train RECIPE`: training and testing a network."""

import time

from reference_models.command_line import command, parse
from reference_models.errors import OutOfTime
from reference_models.options import Options, recipe_list
from reference_models.training.run import Shared, run
from reference_models.training.stopping import clock


def main() -> None:
    begun = time.monotonic()
    with command():
        options = parse(Options, "train")
        if options.recipes:
            print(recipe_list())
            return
        check = clock(options.minutes, begun)
        try:
            run(options, Shared(), check)
        except OutOfTime:
            print("Stopped. Run the same command again to resume.")
            raise


if __name__ == "__main__":
    main()
