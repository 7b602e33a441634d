"""What a loss sees: for each image what every pixel costs, and the gradient of the output.

Needs matplotlib, ``pip install "saliency-losses[plot]"``. The framework is that of the arrays; the
other one is not imported.
"""

import inspect
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from saliency_losses.core import anchor, cas, checks, fbeta, metric, mutual_information

try:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise ImportError(
        'saliency_losses.plotting needs matplotlib: pip install "saliency-losses[plot]"'
    ) from error

_Array = Any
_Numbers = npt.NDArray[np.float64]

# The arguments of a loss that have an entry per image.
_BATCHED = ("anchors", "distance_weights", "mask")


class _Loss(NamedTuple):
    """How one of the library's losses is drawn."""

    costs: Callable[..., _Array]
    """What each pixel costs, from the primitives and those arguments of the loss that it names."""
    channels: tuple[bool, bool] = (True, False)
    """Whether the output has channels, and whether the target and the costs have."""
    title: str = "cost of each pixel,\nwhose mean is the loss"


_LOSSES = {
    "metric_loss": _Loss(metric.pixel_costs),
    "cas_loss": _Loss(cas.pixel_costs),
    "class_agnostic_cross_entropy": _Loss(cas.cross_entropy_pixel_costs),
    "weighted_fbeta_loss": _Loss(fbeta.weighted_error, (True, True), "$E^w$: error after A and B"),
    "anchor_softmax_loss": _Loss(anchor.pixel_costs),
    "js_mutual_information_loss": _Loss(mutual_information.pixel_costs, (False, False)),
}


def explain(
    loss: Callable[..., Any],
    output: _Array,
    target: _Array,
    *,
    image: _Array | None = None,
    prediction: _Array | None = None,
    channel: int | None = None,
    rows: int = 4,
    title: str | None = None,
    **arguments: Any,
) -> Figure:
    """Draw what a loss sees: a row for each of the first images, a column for each view.

    The columns: the image, if given; the prediction; the target; what each pixel costs; the
    gradient of the loss with respect to the output. Each row is the image's loss alone, so neither
    the batch nor the reduction has any influence. What a pixel costs is

    * for `weighted_fbeta_loss` E^w, the error after A and B, of which the loss takes 1 − F_β; it is
      no sum over pixels;
    * for the other losses the pixel's term, so scaled that the mean over the counted pixels is the
      loss. `metric_loss`: ‖f − μ_own‖² − ‖f − μ_other‖² in the form that was chosen, 0 at pixels
      that hard_negatives leaves out. `cas_loss`: a pixel of region r has n/|r| times
      α ‖s − ŝ_r‖² − (1 − α) Σ_q ‖ŝ_r − ŝ_q‖². `class_agnostic_cross_entropy`: the cross-entropy
      with the labels that were chosen. `anchor_softmax_loss`: −log softmax. For
      `js_mutual_information_loss`: the softplus, times n over the pairs of its kind;
    * for any other function of (output, target) |∂ loss / ∂ output|, summed over channels.

    Pixels that `mask` leaves out are hatched. A volume is shown by the middle slice of its first
    axis, a signal as a strip.

    Args:
        loss: A function or Module of this library, also with options by `functools.partial`; or
            any function of an output and a target, called with one image at a time. Of an output
            with as many axes as the target, one is of channels if there are four or five.
        output: What the loss takes first, torch.Tensor or jax.Array, in the layout of that
            framework.
        target: What the loss takes last: labels, target or joint.
        image: ``(N, C, *spatial)`` or ``(N, *spatial, C)``, as the framework has it, with 1 or 3
            channels: uint8, or floating point in [0, 1].
        prediction: ``(N, *spatial)``, a map to show in place of an output that is none to look at.
        channel: The channel of the output to show, with its gradient. By default the last of one
            or two; of more the norm over channels, of which the gradient's is not signed; where
            the target has channels too, as of `weighted_fbeta_loss`, the first.
        rows: How many images at most.
        title: Above the figure.
        arguments: What else the loss takes: anchors, mask, distance_weights, options.

    Returns:
        A matplotlib Figure, which needs no display: ``figure.savefig("seen.png")``.

    Raises:
        ValueError: Shapes that do not match, or what the loss raises.
        TypeError: Arrays of no framework, or a loss that cannot be called.

    Example:
        >>> import torch
        >>> from saliency_losses.plotting import explain
        >>> from saliency_losses.torch import WeightedFBetaLoss
        >>> probs, target = torch.rand(2, 1, 32, 32), torch.zeros(2, 1, 32, 32)
        >>> target[..., 8:20, 8:20] = 1
        >>> figure = explain(WeightedFBetaLoss(normalize_kernel=True), probs, target)
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['prediction', 'target']
    """
    checks.integer("rows", rows, 1)
    framework = _framework(output)
    criterion = _criterion(loss, framework, arguments)
    channels = criterion.known.channels if criterion.known else _channels(output, target)
    if channel is None and channels[1]:
        channel = 0
    views = {"image": image, "prediction": prediction}
    _check_lengths(
        output,
        {"target": target} | views | {name: criterion.options.get(name) for name in _BATCHED},
    )

    seen = []
    for n in range(min(rows, output.shape[0])):
        given = {name: x if x is None else x[n : n + 1] for name, x in views.items()}
        seen.append(
            _views(
                criterion.of_image(n),
                framework,
                channels,
                channel,
                output[n : n + 1],
                target[n : n + 1],
                **given,
            )
        )
    figure = Figure(figsize=(2.5 * len(seen[0]), 2.2 * len(seen) + 0.7), layout="constrained")
    grid = figure.subplots(len(seen), len(seen[0]), squeeze=False)
    for place, row in enumerate(seen):
        for axes, view in zip(grid[place], row, strict=True):
            _draw(axes, view, titled=place == 0)
    if title is not None:
        figure.suptitle(title)
    return figure


# The loss ----------------------------------------------------------------------------------------


class _Criterion(NamedTuple):
    call: Callable[..., Any]
    names: tuple[str, str] | None
    """Those of output and target; None for a loss that is not the library's."""
    given: dict[str, Any]
    """The arguments to call it with, besides output and target."""
    options: dict[str, Any]
    """These and the others, stored in the Module or by default."""
    known: _Loss | None

    def of_image(self, n: int) -> "_Criterion":
        def cut(arguments: dict[str, Any]) -> dict[str, Any]:
            return {
                name: x[n : n + 1] if name in _BATCHED and x is not None else x
                for name, x in arguments.items()
            }

        return self._replace(given=cut(self.given), options=cut(self.options))

    def value(self, output: _Array, target: _Array) -> _Array:
        if self.names is None:
            return self.call(output, target, **self.given)
        # By name, since anchors stand between the two.
        return self.call(output, **{self.names[1]: target}, **self.given)

    def costs(self, framework: str, output: _Array, target: _Array) -> _Array:
        if self.known is None or self.names is None:
            raise TypeError("only the library's losses say what each pixel costs")
        every = self.options | dict(zip(self.names, (output, target), strict=True))
        taken = list(inspect.signature(self.known.costs).parameters)[1:]
        primitives = import_module(f"saliency_losses.{framework}._ops")
        return self.known.costs(primitives, **{name: every[name] for name in taken})


def _criterion(loss: Callable[..., Any], framework: str, arguments: dict[str, Any]) -> _Criterion:
    given, bound = arguments, loss if isinstance(loss, partial) else None
    if bound is not None:
        if bound.args:
            raise TypeError(
                "loss must be a functools.partial with arguments by name only, got "
                f"{len(bound.args)} without a name"
            )
        loss, given = bound.func, bound.keywords | arguments
    if isinstance(loss, type) or not callable(loss):
        repair = f"; make one: {loss.__name__}()" if isinstance(loss, type) else ""
        raise TypeError(f"loss must be a function or a Module, got {loss!r}{repair}")
    # A Module's class is named as its function is.
    home = str(getattr(loss, "__module__", ""))
    name = str(getattr(loss, "__name__", type(loss).__name__))
    names = {name.replace("_", ""): name for name in _LOSSES}
    function = names.get(name.replace("_", "").lower())
    if function is None or not home.startswith("saliency_losses."):
        return _Criterion(loss, None, given, given, None)
    if not home.startswith(f"saliency_losses.{framework}."):
        raise TypeError(
            f"loss is {home}.{name}, but output is of {framework}; take it from "
            f"saliency_losses.{framework}"
        )
    public = getattr(import_module(f"saliency_losses.{framework}"), function)
    parameters = inspect.signature(public).parameters
    first, *between, last = (name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY)
    for place in between:
        if given.get(place) is None:
            raise ValueError(
                f"{function} takes {place} too, which are missing; give "
                f"explain(..., {place}={place})"
            )
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    stored = {name: x for name, x in getattr(loss, "__dict__", {}).items() if name in defaults}
    return _Criterion(loss, (first, last), given, defaults | stored | given, _LOSSES[function])


def _value_and_gradient(
    loss: Callable[[_Array], _Array], framework: str, output: _Array
) -> tuple[float, _Array]:
    if framework == "jax":
        import jax

        # Bad values raise outside of `jax.grad` only.
        return float(loss(output).sum()), jax.grad(lambda x: loss(x).sum())(output)
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        x = output.detach().clone().requires_grad_()
        value = loss(x)
        if not (isinstance(value, torch.Tensor) and value.requires_grad):
            raise TypeError(
                f"loss must give a tensor that is computed from the output, got {value!r}"
            )
        (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.sum().item(), gradient


# Arrays ------------------------------------------------------------------------------------------


def _framework(output: _Array) -> str:
    """Without importing any: whoever has an array has imported its framework."""
    for name, kind in (("torch", "Tensor"), ("jax", "Array")):
        framework = sys.modules.get(name)
        if framework is not None and isinstance(output, getattr(framework, kind)):
            return name
    raise TypeError(
        f"output must be a torch.Tensor or a jax.Array, got {type(output).__name__}; "
        "an array of NumPy: torch.from_numpy or jax.numpy.asarray"
    )


def _channels(output: _Array, target: _Array) -> tuple[bool, bool]:
    """Whether output and target of a loss that is not the library's have channels."""
    if output.ndim == target.ndim + 1:
        return True, False
    if output.ndim == target.ndim:
        return (output.ndim >= 4,) * 2
    raise ValueError(
        "target must have as many axes as output, or one less, got target of shape "
        f"{tuple(target.shape)} and output of shape {tuple(output.shape)}"
    )


def _check_lengths(output: _Array, others: dict[str, _Array | None]) -> None:
    images = tuple(output.shape[:1])
    if images in ((), (0,)):
        raise ValueError(f"output must have at least one image, got shape {tuple(output.shape)}")
    for name, x in others.items():
        if x is not None and tuple(x.shape[:1]) != images:
            raise ValueError(
                f"{name} must have one entry for each of the {images[0]} images of "
                f"output, got shape {tuple(x.shape)}"
            )


def _numbers(x: _Array) -> _Numbers:
    if hasattr(x, "detach"):
        x = x.detach().cpu().double()
    return np.asarray(x, np.float64)


def _image(name: str, x: _Array, framework: str, channels: bool) -> _Numbers:
    """The one image of `x`, ``(H, W, C)``."""
    pixels = _numbers(x)[0]
    pixels = np.moveaxis(pixels, 0, -1) if channels and framework == "torch" else pixels
    pixels = pixels if channels else pixels[..., None]
    if not 2 <= pixels.ndim <= 4:
        layout = "(N, *spatial)"
        if channels:
            layout = "(N, C, *spatial)" if framework == "torch" else "(N, *spatial, C)"
        raise ValueError(
            f"{name} must have shape {layout} with 1 to 3 spatial axes, got {tuple(x.shape)}"
        )
    if pixels.ndim == 2:
        return pixels[None]
    return pixels[len(pixels) // 2] if pixels.ndim == 4 else pixels


def _photograph(x: _Array, framework: str) -> _Numbers:
    """``(H, W)`` or ``(H, W, 3)`` in [0, 1]."""
    pixels = _image("image", x, framework, channels=True)
    if pixels.shape[-1] not in (1, 3):
        raise ValueError(
            f"image must have 1 or 3 channels, got {pixels.shape[-1]}: shape "
            f"{tuple(x.shape)} in the layout of {framework}"
        )
    if str(x.dtype).endswith("uint8"):
        pixels = pixels / 255
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(
            "image must be uint8 or lie in [0, 1], got values in "
            f"{pixels.min():.6g}..{pixels.max():.6g}; undo its normalisation, or "
            "divide a 0/255 image by 255"
        )
    return pixels if pixels.shape[-1] == 3 else pixels[..., 0]


def _chosen(x: _Numbers, channel: int | None) -> tuple[_Numbers, str]:
    """``(H, W)`` of ``(H, W, C)``, and words for which of the channels it is."""
    count = x.shape[-1]
    if channel is None and count > 2:
        return np.linalg.norm(x, axis=-1), f",\nnorm of {count} channels"
    place = count - 1 if channel is None else channel
    if not 0 <= place < count:
        raise ValueError(f"channel must be in 0..{count - 1}, got {channel}")
    return x[..., place], f",\nchannel {place}" if count > 1 else ""


# Views -------------------------------------------------------------------------------------------


class _View(NamedTuple):
    title: str
    values: _Numbers
    """``(H, W)``, NaN where a pixel does not count, or ``(H, W, 3)``."""
    measured: bool = False
    """Drawn in colours, with a bar that tells the numbers."""
    signed: bool = False
    label: str = ""


def _views(
    criterion: _Criterion,
    framework: str,
    channels: tuple[bool, bool],
    channel: int | None,
    output: _Array,
    target: _Array,
    image: _Array | None,
    prediction: _Array | None,
) -> list[_View]:
    """What is drawn of one image."""

    def picture(name: str, x: _Array, has_channels: bool) -> _Numbers:
        return _image(name, x, framework, has_channels)

    value, slope = _value_and_gradient(lambda x: criterion.value(x, target), framework, output)
    raw = picture("output", output, channels[0])
    gradient = picture("gradient", slope, channels[0])
    shown, which = _chosen(raw, channel)
    if prediction is not None:
        shown, which = picture("prediction", prediction, False)[..., 0], ""
    # A target for channels may be one map, or class numbers.
    apart = channels[1] and target.ndim == output.ndim
    truth = _chosen(picture("target", target, apart), channel if apart else None)[0]
    if criterion.known is None:
        costs, title = np.abs(gradient).sum(-1), "|gradient|"
        title += ",\nsummed over channels" if gradient.shape[-1] > 1 else ""
    else:
        given = criterion.costs(framework, output, target)
        spatial = given if channels[1] else given.reshape(target.shape)
        costs, title = picture("costs", spatial, channels[1]), criterion.known.title
        costs = _chosen(costs, channel if channels[1] else None)[0]
    steep, of = _chosen(gradient, channel)
    views = [
        _View("prediction" + which, shown),
        _View("target", truth),
        _View(title, costs, measured=True, signed=bool((costs < 0).any())),
        _View(
            "∂ loss / ∂ output" + of,
            steep,
            measured=True,
            signed=channel is not None or gradient.shape[-1] <= 2,
        ),
    ]
    mask, ignored = (criterion.options.get(name) for name in ("mask", "ignore_index"))
    if mask is not None or ignored is not None:
        counted = np.ones(truth.shape, bool)
        if mask is not None:
            counted = picture("mask", mask, False)[..., 0] == 1
        if ignored is not None:
            counted &= truth != ignored
        # A prediction given beside the output may be of another size.
        views = [
            view._replace(values=np.where(counted, view.values, np.nan))
            if view.values.shape == counted.shape
            else view
            for view in views
        ]
    if image is not None:
        views.insert(0, _View("image", _photograph(image, framework)))
    return [views[0]._replace(label=f"loss {value:.4g}"), *views[1:]]


def _draw(axes: Axes, view: _View, titled: bool) -> None:
    known = view.values[np.isfinite(view.values)]
    low, high = known.min(initial=0), known.max(initial=0)
    if view.signed:
        high = max(-low, high)
        low = -high
    # An even picture of nothing still has a scale.
    limits = Normalize(low, high if high > low else low + 1)
    colours = "RdBu_r" if view.signed else "viridis" if view.measured else "gray"
    if not view.measured and low >= 0 and high <= 1:
        limits = Normalize(0, 1)
    drawn = axes.imshow(
        view.values,
        cmap=colours,
        norm=limits,
        interpolation="nearest",
        aspect="auto" if len(view.values) == 1 else "equal",
    )
    if view.measured:
        ticks = [limits.vmin, 0, limits.vmax] if view.signed else [limits.vmin, limits.vmax]
        bar = axes.figure.colorbar(drawn, ax=axes, ticks=ticks, format="%.2g", shrink=0.9)
        bar.ax.tick_params(labelsize=7)
    # What does not count is transparent.
    axes.patch.set(facecolor="white", edgecolor="0.7", hatch="////", linewidth=0)
    axes.set(xticks=[], yticks=[])
    axes.set_ylabel(view.label, fontsize=9)
    if titled:
        axes.set_title(view.title, fontsize=9)
