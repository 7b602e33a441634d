"""Trainers by framework; only the chosen framework is imported."""

from typing import Any

from reference_models.options import Options
from reference_models.training.trainer import Trainer


def new_trainer(
    options: Options, features: dict[str, list[Any]] | None = None, imagenet: bool = True
) -> Trainer:
    """A trainer in the framework of the options.

    features: Cache of frozen-backbone features, shared between runs. imagenet: Load the backbone's
    ImageNet weights.
    """
    if options.backend == "torch":
        from reference_models.training.torch_trainer import TorchTrainer

        return TorchTrainer(options, features, imagenet)
    from reference_models.training.flax_trainer import FlaxTrainer

    return FlaxTrainer(options, features, imagenet)
