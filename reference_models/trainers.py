"""The trainer of a framework; the other framework is not imported."""

from reference_models.loop import Trainer
from reference_models.options import Options


def new_trainer(options: Options, features: dict | None = None, imagenet: bool = True) -> Trainer:
    """features: those of frozen backbones that other runs may have left. imagenet: give the
    backbone its ImageNet weights."""
    if options.backend == "torch":
        from reference_models.torch.training import TorchTrainer

        return TorchTrainer(options, features, imagenet)
    from reference_models.flax.training import FlaxTrainer

    return FlaxTrainer(options, features, imagenet)
