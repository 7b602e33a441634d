"""Deep supervision: one loss over several predictions of one target."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from saliency_losses.core import checks
from saliency_losses.core.fbeta import SharedDistanceWeights
from saliency_losses.core.ops import Array, Ops


def check_options(xp: Ops, loss: object, weights: Any, resize: str | None) -> None:
    if not callable(loss):
        raise TypeError(f"loss must be a function or a criterion, got {type(loss).__name__}")
    if weights is not None:
        _weights(xp, weights)
    checks.option("resize", resize, ("bilinear", None))


def deep_supervision(
    xp: Ops,
    loss: Callable[..., Array],
    outputs: Sequence[Array],
    target: Array,
    *,
    weights: Any,
    resize: str | None,
    arguments: dict[str, Any],
    weighted: Sequence[object],
) -> Array:
    """The sum Σ_k w_k loss(output_k, target), each output resized to the target first.

    The losses and classes in `weighted` share one computation of ``distance_weights=``.
    """
    check_options(xp, loss, weights, resize)
    predictions = _outputs(xp, outputs)
    target = xp.array("target", target)
    # Check all outputs before any loss is computed, so that a bad last output fails early.
    resized = [_resized(xp, f"outputs[{k}]", x, target, resize) for k, x in enumerate(predictions)]
    if _lacks_distance_weights(loss, arguments, weighted):
        arguments = {**arguments, "distance_weights": SharedDistanceWeights()}
    losses = [loss(x, target, **arguments) for x in resized]
    if weights is not None:
        numbers = _weights(xp, weights)
        if len(numbers) != len(losses):
            raise ValueError(
                f"weights must have one number per output, {len(losses)} in all, got {len(numbers)}"
            )
        losses = [
            checks.as_scalar(xp, weight, x) * x for weight, x in zip(numbers, losses, strict=True)
        ]
    total, *others = losses
    for x in others:
        total = total + x
    return total


def _outputs(xp: Ops, outputs: Any) -> list[Array]:
    if isinstance(outputs, Mapping):
        raise TypeError(
            f"outputs must be a sequence of predictions, got {type(outputs).__name__}; "
            "pass list(outputs.values())"
        )
    if hasattr(outputs, "ndim"):
        raise TypeError(
            f"outputs must be a sequence of predictions, got {type(outputs).__name__}; "
            "for one prediction call the loss itself, or pass [outputs]"
        )
    if not isinstance(outputs, Iterable) or isinstance(outputs, str):
        raise TypeError(f"outputs must be a sequence of predictions, got {type(outputs).__name__}")
    predictions = [xp.array(f"outputs[{k}]", x) for k, x in enumerate(outputs)]
    if not predictions:
        raise ValueError("outputs must hold at least one prediction, got none")
    return predictions


def _weights(xp: Ops, weights: Any) -> list[Any]:
    # An iterator would be empty at the next check.
    if (
        isinstance(weights, str | Mapping | Iterator)
        or not isinstance(weights, Iterable)
        or getattr(weights, "ndim", 1) == 0
    ):
        raise TypeError(
            f"weights must be a sequence of numbers, one for each output, got {weights!r}"
        )
    numbers = list(weights)
    for k, weight in enumerate(numbers):
        checks.scheduled(xp, f"weights[{k}]", weight, 0, float("inf"))
    return numbers


def _resized(xp: Ops, name: str, x: Array, target: Array, resize: str | None) -> Array:
    """An output, resized to the spatial size of `target`, which may lack the channel axis."""
    if x.ndim not in (target.ndim, target.ndim + 1):
        raise ValueError(
            f"{name} must have as many axes as target, or one more, to match target "
            f"of shape {tuple(target.shape)}, got {tuple(x.shape)}"
        )
    size, wanted = xp.map_shape(x.shape)[1:], tuple(target.shape[1:])
    if x.ndim == target.ndim:
        wanted = xp.map_shape(target.shape)[1:]
    if size == wanted:
        return x
    if resize is None:
        raise ValueError(
            f"{name} must have the spatial size {wanted} of target, got {size}; "
            'pass resize="bilinear" to resize it'
        )
    return xp.resize(checks.features(xp, name, x), wanted)


def _lacks_distance_weights(
    loss: Any, arguments: dict[str, Any], weighted: Sequence[object]
) -> bool:
    weights = arguments.get("distance_weights")
    while isinstance(loss, partial):
        weights = loss.keywords.get("distance_weights") if weights is None else weights
        loss = loss.func
    return weights is None and any(loss is x or type(loss) is x for x in weighted)
