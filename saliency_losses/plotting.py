"""Figures of a loss: the cost of every pixel and the gradient of the output, image by image.

Needs matplotlib, ``pip install matplotlib``. The framework is that of the arrays; the other
framework is not imported.
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
        "saliency_losses.plotting needs matplotlib: pip install matplotlib"
    ) from error

_Array = Any
_Numbers = npt.NDArray[np.float64]

# The arguments of a loss that have one entry per image.
_BATCHED = ("anchors", "distance_weights", "mask")


class _Loss(NamedTuple):
    """The drawing of one of the library's losses."""

    criterion: str
    """The name of its Module in PyTorch."""
    costs: Callable[..., _Array]
    """The cost of each pixel, from the primitives and those arguments of the loss that it names."""
    channels: tuple[bool, bool] = (True, False)
    """Whether the output has channels, and whether target and costs have channels."""
    title: str = "cost of each pixel,\nwhose mean is the loss"


_LOSSES = {
    "metric_loss": _Loss("MetricLoss", metric.pixel_costs),
    "cas_loss": _Loss("CASLoss", cas.pixel_costs),
    "class_agnostic_cross_entropy": _Loss(
        "ClassAgnosticCrossEntropy", cas.cross_entropy_pixel_costs
    ),
    "weighted_fbeta_loss": _Loss(
        "WeightedFBetaLoss", fbeta.weighted_error, (True, True), "$E^w$: error after A and B"
    ),
    "anchor_softmax_loss": _Loss("AnchorSoftmaxLoss", anchor.pixel_costs),
    "js_mutual_information_loss": _Loss(
        "JSMutualInformationLoss", mutual_information.pixel_costs, (False, False)
    ),
}
# The function of the loss under the name of the function and of its Module.
_FUNCTIONS = {name: name for name in _LOSSES} | {x.criterion: name for name, x in _LOSSES.items()}


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
    """Draw what a loss sees, with one row per image and one column per view.

    The columns show the image (if given), the prediction, the target, the cost of each pixel and
    the gradient of the loss with respect to the output. Each row shows only the loss of its image,
    so batch and reduction have no influence. The cost of a pixel depends on the loss:

    * `weighted_fbeta_loss`: E^w, the error after A and B. The loss is 1 − F_β of these errors, not
      a sum over pixels.
    * The library's other losses: the term of the pixel, scaled so that the mean over the counted
      pixels is the loss. `metric_loss`: ‖f − μ_own‖² − ‖f − μ_other‖² in the chosen form, 0 at
      pixels that hard_negatives drops. `cas_loss`: n/|r| times
      α ‖s − ŝ_r‖² − (1 − α) Σ_q ‖ŝ_r − ŝ_q‖² for a pixel of region r.
      `class_agnostic_cross_entropy`: the cross-entropy with the chosen labels.
      `anchor_softmax_loss`: −log softmax. `js_mutual_information_loss`: the softplus, times n over
      the number of pairs of its kind.
    * Any other function of (output, target): |∂ loss / ∂ output|, summed over channels.

    Ignored pixels are hatched. A volume is shown by the middle slice of its first axis, a signal as
    a strip.

    Args:
        loss: A function or Module of this library, or a `functools.partial` of it with options; or
            any function of an output and a target, which is called with one image at a time. If
            output and target have equal rank, rank 4 or 5 means that one axis holds the channels.
        output: The first argument of the loss, a torch.Tensor or jax.Array in the layout of its
            framework.
        target: The last argument of the loss: labels, target or joint.
        image: ``(N, C, *spatial)`` or ``(N, *spatial, C)`` in the layout of the framework, with 1
            or 3 channels, uint8 or floating point in [0, 1].
        prediction: ``(N, *spatial)``, a saliency map to show if the output itself is not an image.
        channel: The channel of output and gradient to show. Default: the first if the target has
            channels too, as for `weighted_fbeta_loss`; else the last of one or two channels, or the
            norm over more, which has no sign.
        rows: The maximum number of images.
        title: The title of the figure.
        arguments: Further arguments of the loss: anchors, mask, distance_weights, options.

    Returns:
        A matplotlib Figure, which needs no display: ``figure.savefig("loss.png")``.

    Raises:
        ValueError: Shapes that do not match, or an error of the loss.
        TypeError: Arrays of neither framework, or a loss that is not callable.

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
    if not hasattr(target, "shape"):
        raise TypeError(f"target must be an array, got {type(target).__name__}")
    target, arguments = _trainable(target), {n: _trainable(x) for n, x in arguments.items()}
    criterion = _criterion(loss, framework, arguments)
    channels = criterion.known.channels if criterion.known else _channels(output, target)
    if channel is None and channels[1]:
        channel = 0
    views = {"image": image, "prediction": prediction}
    _check_lengths(
        output,
        {"target": target} | views | {name: criterion.options.get(name) for name in _BATCHED},
    )

    rows_of_views = []
    for n in range(min(rows, output.shape[0])):
        shown = {name: x if x is None else x[n : n + 1] for name, x in views.items()}
        rows_of_views.append(
            _views(
                criterion.of_image(n),
                framework,
                channels,
                channel,
                output[n : n + 1],
                target[n : n + 1],
                **shown,
            )
        )
    figure = Figure(
        figsize=(2.5 * len(rows_of_views[0]), 2.2 * len(rows_of_views) + 0.7), layout="constrained"
    )
    grid = figure.subplots(len(rows_of_views), len(rows_of_views[0]), squeeze=False)
    for place, row in enumerate(rows_of_views):
        for axes, view in zip(grid[place], row, strict=True):
            _draw(axes, view, titled=place == 0)
    if title is not None:
        figure.suptitle(title)
    return figure


# The loss ----------------------------------------------------------------------------------------


class _Criterion(NamedTuple):
    call: Callable[..., Any]
    names: tuple[str, str] | None
    """The argument names of output and target; None for a loss from outside the library."""
    arguments: dict[str, Any]
    """The arguments of the call besides output and target."""
    options: dict[str, Any]
    """All options: arguments of the call, attributes of the Module, defaults."""
    known: _Loss | None

    def of_image(self, n: int) -> "_Criterion":
        def cut(arguments: dict[str, Any]) -> dict[str, Any]:
            return {
                name: x[n : n + 1] if name in _BATCHED and x is not None else x
                for name, x in arguments.items()
            }

        return self._replace(arguments=cut(self.arguments), options=cut(self.options))

    def value(self, output: _Array, target: _Array) -> _Array:
        if self.names is None:
            return self.call(output, target, **self.arguments)
        # By name, since anchors come between output and target.
        return self.call(output, **{self.names[1]: target}, **self.arguments)

    def costs(self, framework: str, output: _Array, target: _Array) -> _Array:
        if self.known is None or self.names is None:
            raise TypeError("loss must be one of the library's to have a cost for each pixel")
        values = self.options | dict(zip(self.names, (output, target), strict=True))
        taken = list(inspect.signature(self.known.costs).parameters)[1:]
        primitives = import_module(f"saliency_losses.{framework}._ops")
        return self.known.costs(primitives, **{name: values[name] for name in taken})


def _criterion(loss: Callable[..., Any], framework: str, arguments: dict[str, Any]) -> _Criterion:
    if isinstance(loss, partial):
        if loss.args:
            raise TypeError(
                "loss must be a functools.partial with keyword arguments only, got "
                f"{len(loss.args)} positional; pass them by name"
            )
        arguments = loss.keywords | arguments
        loss = loss.func
    if isinstance(loss, type) or not callable(loss):
        repair = f"; pass an instance: {loss.__name__}()" if isinstance(loss, type) else ""
        raise TypeError(f"loss must be a function or a Module, got {loss!r}{repair}")
    home = str(getattr(loss, "__module__", ""))
    name = str(getattr(loss, "__name__", type(loss).__name__))
    function = _FUNCTIONS.get(name)
    if function is None or not home.startswith("saliency_losses."):
        return _Criterion(loss, None, arguments, arguments, None)
    if not home.startswith(f"saliency_losses.{framework}."):
        raise TypeError(
            f"loss must be of the framework of output, {framework}, got {home}.{name}; "
            f"import it from saliency_losses.{framework}"
        )
    public = getattr(import_module(f"saliency_losses.{framework}"), function)
    parameters = inspect.signature(public).parameters
    first, *between, last = (name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY)
    for place in between:
        if arguments.get(place) is None:
            raise ValueError(
                f"{function} requires {place}, got none; pass explain(..., {place}={place})"
            )
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    # By `getattr`, since a Module keeps an option that is learnt among its parameters.
    stored = {name: getattr(loss, name) for name in defaults if hasattr(loss, name)}
    return _Criterion(
        loss, (first, last), arguments, defaults | stored | arguments, _LOSSES[function]
    )


def _value_and_gradient(
    loss: Callable[[_Array], _Array], framework: str, output: _Array
) -> tuple[float, _Array]:
    if framework == "jax":
        import jax

        # Bad values raise only outside `jax.grad`, so the value is computed there.
        return float(loss(output).sum()), jax.grad(lambda x: loss(x).sum())(output)
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        x = output.detach().clone().requires_grad_()
        value = loss(x)
        if not (isinstance(value, torch.Tensor) and value.requires_grad):
            raise TypeError(f"loss must return a tensor computed from the output, got {value!r}")
        (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.sum().item(), gradient


# Arrays ------------------------------------------------------------------------------------------


def _framework(output: _Array) -> str:
    """The name of the array's framework, found without importing one."""
    for name, kind in (("torch", "Tensor"), ("jax", "Array")):
        framework = sys.modules.get(name)
        if framework is not None and isinstance(output, getattr(framework, kind)):
            return name
    raise TypeError(
        f"output must be a torch.Tensor or a jax.Array, got {type(output).__name__}; "
        "convert a NumPy array by torch.from_numpy or jax.numpy.asarray"
    )


def _trainable(x: Any) -> Any:
    """A copy of a tensor that was made in inference mode, which autograd could not store."""
    return x.clone() if hasattr(x, "is_inference") and x.is_inference() else x


def _channels(output: _Array, target: _Array) -> tuple[bool, bool]:
    """Whether output and target have channels, for a loss from outside the library."""
    if output.ndim == target.ndim + 1:
        return True, False
    if output.ndim == target.ndim:
        return (output.ndim >= 4,) * 2
    raise ValueError(
        "target must have as many axes as output, or one fewer, got target of shape "
        f"{tuple(target.shape)} and output of shape {tuple(output.shape)}"
    )


def _check_lengths(output: _Array, others: dict[str, _Array | None]) -> None:
    images = tuple(output.shape[:1])
    if images in ((), (0,)):
        raise ValueError(f"output must have at least one image, got shape {tuple(output.shape)}")
    for name, x in others.items():
        if x is not None and tuple(x.shape[:1]) != images:
            raise ValueError(
                f"{name} must have length {images[0]} on its first axis, the number of images of "
                f"output, got shape {tuple(x.shape)}"
            )


def _numbers(x: _Array) -> _Numbers:
    if hasattr(x, "detach"):
        x = x.detach().cpu().double()
    return np.asarray(x, np.float64)


def _image(name: str, x: _Array, framework: str, channels: bool) -> _Numbers:
    """The only image of `x`, as ``(H, W, C)``."""
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
            f"image must have 1 or 3 channels, got {pixels.shape[-1]} in shape "
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
    """One channel ``(H, W)`` or the norm over channels of ``(H, W, C)``, and its label."""
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
    """Whether to draw it in colours with a colour bar."""
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
    """The views of one image."""

    def picture(name: str, x: _Array, channels: bool) -> _Numbers:
        return _image(name, x, framework, channels)

    value, slope = _value_and_gradient(lambda x: criterion.value(x, target), framework, output)
    raw = picture("output", output, channels[0])
    gradient = picture("gradient", slope, channels[0])
    shown, which = _chosen(raw, channel)
    if prediction is not None:
        shown, which = picture("prediction", prediction, False)[..., 0], ""
    # The target of an output with channels may be a single map or class numbers.
    has_channels = channels[1] and target.ndim == output.ndim
    truth = _chosen(picture("target", target, has_channels), channel if has_channels else None)[0]
    if criterion.known is None:
        costs, title = np.abs(gradient).sum(-1), "|gradient|"
        title += ",\nsummed over channels" if gradient.shape[-1] > 1 else ""
    else:
        flat = criterion.costs(framework, output, target)
        spatial = flat if channels[1] else flat.reshape(target.shape)
        costs, title = picture("costs", spatial, channels[1]), criterion.known.title
        costs = _chosen(costs, channel if channels[1] else None)[0]
    slopes, label = _chosen(gradient, channel)
    views = [
        _View("prediction" + which, shown),
        _View("target", truth),
        _View(title, costs, measured=True, signed=bool((costs < 0).any())),
        _View(
            "∂ loss / ∂ output" + label,
            slopes,
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
        # The argument `prediction` may have another size than the output.
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
    # A constant image still needs a non-empty colour range.
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
    # Ignored pixels are transparent.
    axes.patch.set(facecolor="white", edgecolor="0.7", hatch="////", linewidth=0)
    axes.set(xticks=[], yticks=[])
    axes.set_ylabel(view.label, fontsize=9)
    if titled:
        axes.set_title(view.title, fontsize=9)
