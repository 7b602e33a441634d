"""What the compiler makes of a JAX loss whose batch lies on several devices, printed as JSON.

`python -m tests.support.sharded`, in a process that has several devices: `test_sharding` starts it.
"""

import json
import re
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import saliency_losses.jax as J
from saliency_losses.jax._distance import dense_minimum, scan_to_nearest

IMAGES, SIDE = 8, 32
AXES = PartitionSpec("images")
MAPS = (IMAGES, SIDE, SIDE)
COLLECTIVE = re.compile(
    r"= (\S+|\(.*?\)) (all-gather|all-reduce|all-to-all|collective-\w+|ragged-all-to-all"
    r"|reduce-scatter)(?:-start)?\("
)

# A function of arrays, the names of those arrays, and how many of them have a gradient.
Case = tuple[Callable[..., Any], tuple[str, ...], int]

rng = np.random.default_rng(0)
descriptor = rng.uniform(0.1, 1, (*MAPS, 12))
probs = rng.uniform(0.05, 0.95, (*MAPS, 2))
classes = rng.random((*MAPS, 2)) > 0.8
ARRAYS = {
    "features": rng.standard_normal((*MAPS, 16)),
    "descriptor": descriptor / descriptor.sum(-1, keepdims=True),
    "logits": rng.standard_normal((*MAPS, 2)),
    "scores": 2 * rng.standard_normal(MAPS),
    "labels": rng.random(MAPS) > 0.7,
    "regions": rng.integers(0, 12, MAPS),
    "anchors": rng.standard_normal((IMAGES, 2, 16)),
    "many": rng.standard_normal((IMAGES, 12, 16)),
    "probs": probs[..., :1],
    "several": probs,
    "target": classes[..., :1],
    "classes": classes,
    "given": rng.uniform(1, 2, (*MAPS, 1)),
    "mask": rng.random(MAPS) > 0.1,
}


def given_weights(probs: jax.Array, target: jax.Array, weights: jax.Array) -> jax.Array:
    return J.weighted_fbeta_loss(probs, target, distance_weights=weights)


def masked(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    return function(*arrays[:-1], mask=arrays[-1])


def other_axis(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    value, source = dense_minimum(jnp.moveaxis(labels.astype(jnp.int32), 1, 0), 1)
    return jnp.moveaxis(value, 0, 1), jnp.moveaxis(source, 0, 1)


def cases() -> dict[str, Case]:
    fbeta = J.weighted_fbeta_loss
    losses: dict[str, Case] = {
        **{
            f"metric {options}": (partial(J.metric_loss, **options), ("features", "labels"), 1)
            for options in (
                {},
                {"normalize": True},
                {"form": "pairwise"},
                {"form": "pairwise", "normalize": True},
                {"hard_negatives": True},
                {"stop_gradient": True},
            )
        },
        "cas": (J.cas_loss, ("descriptor", "labels"), 1),
        # Many regions are summed by a scatter, and many anchors go through a loop.
        "cas, 12 regions": (partial(J.cas_loss, num_regions=12), ("descriptor", "regions"), 1),
        "cross-entropy": (J.class_agnostic_cross_entropy, ("logits", "labels"), 1),
        "cross-entropy, pixel": (
            partial(J.class_agnostic_cross_entropy, per="pixel"),
            ("logits", "labels"),
            1,
        ),
        "fbeta, window": (fbeta, ("probs", "target"), 1),
        "fbeta, two maps": (fbeta, ("several", "classes"), 1),
        "fbeta, euclidean": (
            partial(fbeta, distance="euclidean", error="absolute"),
            ("probs", "target"),
            1,
        ),
        "anchor": (J.anchor_softmax_loss, ("features", "anchors", "labels"), 2),
        "anchor, 12 anchors": (J.anchor_softmax_loss, ("features", "many", "regions"), 2),
        "js-mi": (J.js_mutual_information_loss, ("scores", "labels"), 1),
        "js-mi, pooled": (
            partial(J.js_mutual_information_loss, balance=False),
            ("scores", "labels"),
            1,
        ),
        "score": (J.weighted_fbeta_score, ("probs", "target"), 1),
    }
    for name in ("metric {'hard_negatives': True}", "cas", "fbeta, window", "anchor", "js-mi"):
        function, names, wrt = losses[name]
        losses[f"{name}, masked"] = (partial(masked, function), (*names, "mask"), wrt)
    return losses | {
        "fbeta, weights given": (given_weights, ("probs", "target", "given"), 1),
        "measure": (J.weighted_fmeasure, ("probs", "target"), 1),
        "measure, two maps": (J.weighted_fmeasure, ("several", "classes"), 1),
        "weights": (J.distance_weights, ("target",), 0),
        "transform": (partial(J.distance_transform, return_indices=True), ("labels",), 0),
        # The steps of the transform that are others on a GPU.
        "scan": (partial(scan_to_nearest, far=2 * SIDE), ("labels",), 0),
        "dense": (other_axis, ("labels",), 0),
        # Images that see each other, which has to be noticed.
        "control": (lambda x: (x * x[::-1]).sum(), ("scores",), 1),
    }


def off(got: jax.Array, expected: jax.Array) -> float:
    """The largest difference, relative to the largest entry."""
    a, b = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), np.finfo(np.float64).tiny))


def sent(program: str) -> list[tuple[str, int]]:
    """The kinds of exchange between devices, each with the numbers in its largest array."""
    largest: dict[str, int] = {}
    for shapes, kind in COLLECTIVE.findall(program):
        for sides in re.findall(r"\[([\d,]*)\]", shapes):
            size = prod(map(int, filter(None, sides.split(","))))
            largest[kind] = max(size, largest.get(kind, 0))
    return sorted(largest.items())


def split(results: Any, by_image: NamedSharding) -> bool:
    """Whether all results but scalars are split as the images are."""
    return all(
        x.sharding is not None and x.sharding.is_equivalent_to(by_image, x.ndim)
        for x in jax.tree.leaves(results)
        if x.ndim
    )


def report(case: Case) -> dict[str, Any]:
    function, names, wrt = case
    float_dtype = jnp.result_type(float)
    arrays = [
        jnp.asarray(x, float_dtype if x.dtype == np.float64 else None)
        for x in (ARRAYS[name] for name in names)
    ]
    if wrt:
        function = jax.value_and_grad(function, tuple(range(wrt)))
    by_image, explicit = (
        NamedSharding(jax.make_mesh((jax.device_count(),), ("images",), (kind,)), AXES)
        for kind in (AxisType.Auto, AxisType.Explicit)
    )
    compiled = jax.jit(function, in_shardings=by_image).lower(*arrays).compile()
    got = compiled(*jax.device_put(arrays, by_image))
    # Where sharding is part of an array's type, nothing is compiled to know it.
    types = jax.eval_shape(jax.jit(function), *jax.device_put(arrays, explicit))
    leaves, expected = jax.tree.leaves(got), jax.tree.leaves(jax.jit(function)(*arrays))
    return {
        "off": max(off(*pair) for pair in zip(leaves, expected, strict=True)),
        "by image": split(got, by_image)
        and split(types, NamedSharding(explicit.mesh.abstract_mesh, AXES)),
        "sent": sent(compiled.as_text()),
    }


if __name__ == "__main__":
    found = {
        "devices": jax.device_count(),
        "dtype": str(jnp.result_type(float)),
        "cases": {name: report(case) for name, case in cases().items()},
    }
    print(json.dumps(found))
