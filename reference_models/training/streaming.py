"""The images of a training set that does not fit in memory, read ahead of the steps."""

from collections.abc import Iterator, Sequence

from reference_models.data.images import Images, Streamed
from reference_models.errors import InputError
from reference_models.papers.schema import Scale
from reference_models.training.augmentation import draw_step

AHEAD = 2
"""Number of steps whose images are decoded in advance; each decodes in threads of its own."""


def images_of_steps(
    images: Streamed, plan: Scale, seed: int, first: int, share: Sequence[int]
) -> Iterator[Images]:
    """The images of each step from `first` to the last, decoded in advance by grain.

    share: The positions in a step's batch that this process needs.
    """
    try:
        import grain  # Here, as it takes a second and most trainings do not need it.
    except ImportError:
        raise InputError(
            f"the {len(images)} training images do not fit in memory (--memory-gb), and reading "
            "them while training needs grain, which is not installed; run `pip install grain`"
        ) from None

    def of_step(step: int) -> Images:
        return images.take(draw_step(len(images), images.side, plan, seed, step).indices[share])

    steps = grain.MapDataset.range(first, plan.steps).map(of_step)
    yield from steps.to_iter_dataset(
        grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
    )
