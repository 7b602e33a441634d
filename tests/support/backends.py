"""One face for both backends: tests speak NumPy, channels last, as the references do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import saliency_losses.jax

# JAX's half of the tests runs without PyTorch too, see docs/releasing.md.
try:
    import torch
except ModuleNotFoundError:
    torch = None
else:
    import saliency_losses.torch

# Relative to max(1, |reference|).
TOLERANCE = {"float64": 1e-10, "float32": 1e-5, "float16": 2e-2, "bfloat16": 2e-2}

# Which positional arguments of a function carry channels, and whether its result does.
CHANNELS = {
    "metric_loss": ((True, False), False),
    "semantic_distance": ((True, False), False),
    "cas_loss": ((True, False), False),
    "class_agnostic_cross_entropy": ((True, False), False),
    "weighted_fbeta_loss": ((True, True), False),
    "weighted_fbeta_score": ((True, True), False),
    "weighted_fmeasure": ((True, True), False),
    "distance_weights": ((True,), True),
    "distance_transform": ((False,), (False, True)),  # the indices
    "anchor_softmax_loss": ((True, False, False), False),  # the anchors are (N, R, C) in both
    "anchor_probabilities": ((True, False), True),
    "region_anchors": ((True, True), False),
    "update_prior": ((False, False), False),
    "js_mutual_information": ((False, False), False),
    "js_mutual_information_loss": ((False, False), False),
    "foreground_vector": ((True, False), False),
    "relation_pairs": ((False,), False),
    "merge_by_confidence": ((False, False), False),
}
LOSSES = (
    "metric_loss",
    "cas_loss",
    "class_agnostic_cross_entropy",
    "weighted_fbeta_loss",
    "anchor_softmax_loss",
    "js_mutual_information_loss",
)


class Backend:
    """Calls functions of one backend on NumPy arrays and gives NumPy arrays back."""

    name: str
    functions: Any

    def array(self, x: Any, channels: bool) -> Any:
        raise NotImplementedError

    def numpy(self, x: Any, channels: bool) -> Any:
        raise NotImplementedError

    def prepared(
        self, function: str, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Positional arguments and options with every NumPy array in the backend's own form."""
        with_channels = CHANNELS[function][0]
        prepared = [
            self.array(x, c) if isinstance(x, np.ndarray) else x
            for x, c in zip(args, with_channels + (False,) * len(args), strict=False)
        ]
        return prepared, {
            name: self.array(x, name == "distance_weights") if isinstance(x, np.ndarray) else x
            for name, x in options.items()
        }

    def call(self, function: str, *args: Any, **options: Any) -> Any:
        """The function's result on NumPy input, channels last."""
        prepared, rest = self.prepared(function, args, options)
        result = getattr(self.functions, function)(*prepared, **rest)
        channels = CHANNELS[function][1]
        if isinstance(result, tuple):
            each = channels if isinstance(channels, tuple) else (channels,) * len(result)
            return tuple(self.numpy(x, c) for x, c in zip(result, each, strict=True))
        return self.numpy(result, channels[0] if isinstance(channels, tuple) else channels)

    def gradient(self, function: str, *args: Any, wrt: int = 0, **options: Any) -> np.ndarray:
        """The gradient of the sum of the result in the positional argument `wrt`."""
        raise NotImplementedError


class TorchBackend(Backend):
    name = "torch"
    functions = torch and saliency_losses.torch

    def array(self, x: Any, channels: bool) -> "torch.Tensor":
        tensor = torch.from_numpy(np.ascontiguousarray(x))
        return tensor.movedim(-1, 1).contiguous() if channels else tensor

    def numpy(self, x: "torch.Tensor", channels: bool) -> np.ndarray:
        return (x.movedim(1, -1) if channels else x).detach().numpy()

    def gradient(self, function: str, *args: Any, wrt: int = 0, **options: Any) -> np.ndarray:
        prepared, rest = self.prepared(function, args, options)
        prepared[wrt].requires_grad_()
        result = getattr(self.functions, function)(*prepared, **rest)
        (grad,) = torch.autograd.grad(result.sum(), prepared[wrt])
        return self.numpy(grad, CHANNELS[function][0][wrt])


class JaxBackend(Backend):
    name = "jax"
    functions = saliency_losses.jax

    def array(self, x: Any, channels: bool) -> jax.Array:
        return jnp.asarray(x)

    def numpy(self, x: jax.Array, channels: bool) -> np.ndarray:
        return np.asarray(x)

    def gradient(self, function: str, *args: Any, wrt: int = 0, **options: Any) -> np.ndarray:
        prepared, rest = self.prepared(function, args, options)

        def of_one(x: jax.Array) -> jax.Array:
            inputs = (*prepared[:wrt], x, *prepared[wrt + 1 :])
            return getattr(self.functions, function)(*inputs, **rest).sum()

        return self.numpy(jax.grad(of_one)(prepared[wrt]), CHANNELS[function][0][wrt])


BACKENDS: dict[str, Backend] = ({"torch": TorchBackend()} if torch else {}) | {"jax": JaxBackend()}


def close(got: Any, expected: Any, dtype: str = "float64") -> None:
    """Equal up to the one table of tolerances; NaN only where NaN is expected."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape, (got.shape, expected.shape)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    worst = np.nanmax(np.abs(got - expected) / np.maximum(1, np.abs(expected)), initial=0)
    assert worst <= TOLERANCE[dtype], f"off by {worst}: got {got}, expected {expected}"
