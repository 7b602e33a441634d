"""The trainer of either framework, without importing the other framework."""

from typing import Any

from reference_models.options import Options
from reference_models.training.trainer import Trainer


def new_trainer(
    options: Options, features: dict[str, list[Any]] | None = None, imagenet: bool = True
) -> Trainer:
    """features: those of frozen backbones that other runs may have left. imagenet: give the
    backbone its ImageNet weights."""
    if options.backend == "torch":
        from reference_models.training.torch_trainer import TorchTrainer

        return TorchTrainer(options, features, imagenet)
    from reference_models.training.flax_trainer import FlaxTrainer

    return FlaxTrainer(options, features, imagenet)
