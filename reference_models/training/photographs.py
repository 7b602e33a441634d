"""A trained network for photographs of any size, and the prior map that it may start from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from reference_models.data.images import Images
from reference_models.data.maps import read_map
from reference_models.data.masks import Mask, fit_labels
from reference_models.data.photographs import square_of
from reference_models.data.pictures import centre_prior, fit_prior
from reference_models.errors import InputError
from reference_models.files import read_about, sha256_of
from reference_models.measures.saliency import eight_bit
from reference_models.options import Backend, Device, Options
from reference_models.training.trained import (
    Network,
    default_model,
    load_network,
    options_of,
    refuse_two_meanings,
    shared_backbone,
    weights_file,
)
from saliency_losses import __version__

if TYPE_CHECKING:  # Matplotlib takes half a second, and only explanations need it.
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Inputs:
    """What the networks read of a photograph."""

    square: np.ndarray
    """uint8 `(S, S, 3)`."""
    prior: np.ndarray | None
    """uint8 `(S, S)`; None if the network needs none, or if the default model computes it."""
    start: np.ndarray | None
    """The photograph at the size of the default model, if that computes the prior."""
    shape: tuple[int, int]
    """Height and width of the photograph."""


@dataclass(frozen=True)
class Sizes:
    """How a photograph becomes the input of the networks; known without loading them."""

    size: int
    """Side of the square that photographs are resized to."""
    needs_prior: bool
    start: int | None = None
    """The same of the default model, if that computes the prior."""

    def inputs(self, photo: Image.Image, prior: Path | None = None) -> Inputs:
        """The networks' inputs. prior: File of the prior map. Default: the default model's map,
        or without one a Gaussian at the centre."""
        values = None
        if prior is not None:
            values = fit_prior(Image.fromarray(read_map(prior).values), self.size)
        elif self.needs_prior and self.start is None:
            values = centre_prior(self.size)
        start = None if self.start is None or prior is not None else square_of(photo, self.start)
        return Inputs(square_of(photo, self.size), values, start, (photo.height, photo.width))


@dataclass(frozen=True)
class Model:
    """A trained network, and if it needs prior maps the one that computes them."""

    network: Network
    default: Network | None = None

    @property
    def sizes(self) -> Sizes:
        start = None if self.default is None else self.default.options.plan.size
        recipe = self.network.options.chosen_recipe
        return Sizes(self.network.options.plan.size, bool(recipe.test_priors), start)

    @property
    def usual_batch(self) -> int:
        """Number of photographs to compute at once: one on a CPU, where more are no faster."""
        return 1 if self.network.trainer.device == "cpu" else 16

    def limit_threads(self, callers: int) -> None:
        """Divide PyTorch's threads on a CPU among threads that call `maps` at the same time."""
        if self.network.options.backend == "torch":
            import torch

            torch.set_num_threads(max(1, torch.get_num_threads() // max(1, callers)))

    def maps(self, inputs: Sequence[Inputs]) -> np.ndarray:
        """The saliency maps at the network's size, float32 `(N, S, S)` in [0, 1]."""
        priors = self.priors(inputs)
        return self.network.main_map(images_of([each.square for each in inputs], priors))

    def priors(self, inputs: Sequence[Inputs]) -> list[np.ndarray | None]:
        """The prior maps, uint8 `(S, S)`."""
        if self.default is None or inputs[0].start is None:
            return [each.prior for each in inputs]
        starts = [each.start for each in inputs if each.start is not None]
        maps = self.default.main_map(images_of(starts, [None] * len(starts)))
        full = (eight_bit(m, each.shape) for m, each in zip(maps, inputs, strict=True))
        return [fit_prior(Image.fromarray(m), self.sizes.size) for m in full]

    def explained(self, inputs: Inputs, mask: Mask) -> "Figure":
        """Figure of the training loss on a photograph. mask: True mask."""
        from saliency_losses.plotting import explain

        labels = fit_labels(mask, self.sizes.size)
        image = Images.single(inputs.square, labels, self.priors([inputs])[0])
        view = self.network.trainer.loss_view(image)
        return explain(
            view.loss,
            view.output,
            view.labels,
            image=view.image,
            prediction=self.network.main_map(image),
            title=f"{self.network.options.recipe}: its training loss",
            **({} if view.counted is None else {"mask": view.counted}),
        )


def images_of(squares: Sequence[np.ndarray], priors: Sequence[np.ndarray | None]) -> Images:
    """Images without labels."""
    nothing = np.zeros(squares[0].shape[:2], np.uint8)
    known = [nothing if prior is None else prior for prior in priors]
    labels = np.zeros((len(squares), *nothing.shape), np.uint8)
    return Images(("",) * len(squares), np.stack(squares), labels, np.stack(known))


# Loading -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Which networks to load, and how."""

    model: str
    default: str | None
    """Name of the model that computes prior maps."""
    backend: Backend | None
    device: Device
    archives: Path | None

    def load(self) -> Model:
        def network(name: str) -> Network:
            return load_network(name, self.device, self.archives, self.backend)

        return Model(network(self.model), None if self.default is None else network(self.default))

    @property
    def sizes(self) -> Sizes:
        options = self.options(self.model)
        start = None if self.default is None else self.options(self.default).plan.size
        return Sizes(options.plan.size, bool(options.chosen_recipe.test_priors), start)

    @property
    def settings(self) -> str:
        """A text that differs if any map would: the version, the weights and the framework."""
        names = [name for name in (self.model, self.default) if name is not None]
        about = [read_about(weights_file(name)) for name in names]
        shared = [shared_backbone(weights_file(name), self.options(name)) for name in names]
        backbones = [None if file is None else sha256_of(file) for file in shared]
        return json.dumps([__version__, self.backend, about, backbones], sort_keys=True)

    def options(self, name: str) -> Options:
        return options_of(weights_file(name), self.device, self.archives)


def choose_source(
    model: str | None,
    has_prior: bool,
    backend: Backend | None = None,
    device: Device = "auto",
    archives: Path | None = None,
) -> Source:
    """The networks that the command line asks for; prints where prior maps come from.

    has_prior: The user passes prior maps.
    """
    if model is not None:
        refuse_two_meanings(model)
    model = model or default_model()
    if model is None:
        raise InputError(
            "reference_models/weights holds no model that works without a prior map; pass --model "
            "RUN_FOLDER, the folder of a run of `python -m reference_models.train`"
        )
    source = Source(model, None, backend, device, archives)
    recipe = source.options(model).chosen_recipe
    if recipe.regions > 2:
        raise InputError(
            f"{model} divides images into regions and makes no saliency maps; choose another "
            "--model"
        )
    if not recipe.test_priors and has_prior:
        raise InputError(f"{model} does not use a prior map; omit --prior")
    if not recipe.test_priors or has_prior:
        return source
    default = default_model()
    start = "a Gaussian at the centre" if default is None else f"the maps of {default}"
    print(f"note: starts from {start}; to use maps of your own, pass --prior MAP")
    return replace(source, default=default)
