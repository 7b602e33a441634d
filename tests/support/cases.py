"""Every differentiable public function with every group of options, on small seeded inputs.

Arrays are NumPy, float64 and channels last. All values keep clear of kinks and of the thresholds
of options, so that finite differences hold.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.support.backends import BACKENDS, Backend


class Case(NamedTuple):
    name: str
    function: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    # The positional arguments that have a gradient.
    wrt: tuple[int, ...]

    def astype(self, dtype: Any) -> "Case":
        """The case with every floating-point array in `dtype`."""

        def convert(x: Any) -> Any:
            return x.astype(dtype) if getattr(x, "dtype", None) == np.float64 else x

        return self._replace(
            args=tuple(map(convert, self.args)),
            options={k: convert(x) for k, x in self.options.items()},
        )

    def per_image(self) -> "Case":
        """The case with one result per image."""
        if not reduces(self.function):
            return self
        return self._replace(options=self.options | {"reduction": "none"})

    def holding(self, place: int, value: float, image: int = 0) -> "Case":
        """The case with `value` at a counted place of one image of the argument at `place`."""
        changed = np.array(self.args[place])
        if changed.dtype == bool:
            changed = changed.astype(np.int64)
        changed[image].flat[0] = value
        options = dict(self.options)
        if "mask" in options:
            options["mask"] = np.array(options["mask"])
            options["mask"][image].flat[0] = True
        return self._replace(
            args=(*self.args[:place], changed, *self.args[place + 1 :]), options=options
        )


def parameters(function: str) -> list[str]:
    functions = next(iter(BACKENDS.values())).functions
    return list(inspect.signature(getattr(functions, function)).parameters)


def reduces(function: str) -> bool:
    return "reduction" in parameters(function)


def bind(backend: Backend, case: Case) -> tuple[Callable[..., Any], list[Any]]:
    """The case as a function of its differentiable arguments alone, and those arguments."""
    prepared, options = backend.prepared(case.function, case.args, case.options)
    public = getattr(backend.functions, case.function)

    def of(*inputs: Any) -> Any:
        args = list(prepared)
        for place, x in zip(case.wrt, inputs, strict=True):
            args[place] = x
        return public(*args, **options)

    return of, [prepared[place] for place in case.wrt]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x)
    return e / e.sum(-1, keepdims=True)


def make(images: int = 2) -> list[Case]:
    rng = np.random.default_rng(20240607)
    n, side, plane = images, (3, 4), (6, 5)
    features = rng.standard_normal((n, *side, 3))
    labels = (rng.random((n, *side)) > 0.6).astype(np.int64)
    mask = rng.random((n, *side)) > 0.2
    regions = rng.integers(0, 3, (n, *side))
    # Each image has each of its regions among the counted pixels.
    labels[:, 0, :2], regions[:, 0, :3], mask[:, 0] = (0, 1), (0, 1, 2), True
    descriptor = softmax(rng.standard_normal((n, *side, 4)))
    logits = 1 + rng.standard_normal((n, *side, 2))
    soft = rng.uniform(0.1, 0.9, (n, *side))
    prior = np.where(soft > 0.5, soft + 0.05, soft - 0.05)
    # merge_by_confidence changes its choice where the two are equally sure: 0.02 apart at least.
    refined = rng.uniform(0.1, 0.9, (n, *side))
    near = np.abs(np.abs(refined - 0.5) - np.abs(prior - 0.5)) < 0.02
    refined = np.where(near | (np.abs(refined - 0.5) < 0.02), 0.97, refined)
    weights = rng.uniform(0.1, 1, (n, *side, 2))
    anchors = rng.standard_normal((n, 3, 3))
    scores = 2 * rng.standard_normal((n, 7))
    joint = rng.random((n, 7)) > 0.5
    joint[:, :2] = (True, False)
    pairs = rng.random((n, 7)) > 0.3
    pairs[:, :2] = True
    probs = rng.uniform(0.1, 0.9, (n, *plane, 1))
    target = (rng.random((n, *plane, 1)) > 0.6).astype(np.float64)
    target[:, 2:4, 2:4] = 1
    target[:, 0] = 0
    counted = rng.random((n, *plane)) > 0.2
    # Misses and false alarms on both sides of ½, none smaller than 0.05.
    soft_target = probs + np.where(np.indices(probs.shape).sum(0) % 3 > 0, 0.05, -0.05)
    several = rng.uniform(0.1, 0.9, (n, *plane, 2))
    classes = np.concatenate([target > 0, rng.random((n, *plane, 1)) > 0.5], -1)
    given = rng.uniform(1, 2, (n, *plane, 1))
    volume = rng.uniform(0.1, 0.9, (n, 3, 4, 3, 1))
    solid = (rng.random((n, 3, 4, 3, 1)) > 0.6).astype(np.int64)

    euclidean = {"distance": "euclidean", "error": "absolute", "normalize_kernel": True}
    return [
        Case("metric", "metric_loss", (features, labels), {"mask": mask}, (0,)),
        Case("metric_unmasked", "metric_loss", (features, labels == 1), {}, (0,)),
        Case(
            "metric_pairwise",
            "metric_loss",
            (features, labels),
            {"form": "pairwise", "mask": mask, "reduction": "sum"},
            (0,),
        ),
        Case(
            "metric_pairwise_normalize",
            "metric_loss",
            (features, labels),
            {"form": "pairwise", "normalize": True, "mask": mask},
            (0,),
        ),
        Case(
            "metric_normalize",
            "metric_loss",
            (features, labels),
            {"normalize": True, "mask": mask},
            (0,),
        ),
        Case(
            "metric_hard",
            "metric_loss",
            (features, labels),
            {"hard_negatives": True, "mask": mask},
            (0,),
        ),
        Case(
            "metric_stop_gradient",
            "metric_loss",
            (features, labels),
            {"stop_gradient": True, "mask": mask},
            (0,),
        ),
        Case(
            "metric_stop_gradient_all",
            "metric_loss",
            (features, labels),
            {"stop_gradient": True, "hard_negatives": True, "normalize": True, "mask": mask},
            (0,),
        ),
        Case("semantic_distance", "semantic_distance", (features, soft), {}, (0, 1)),
        Case("cas", "cas_loss", (descriptor, regions), {"num_regions": 3, "mask": mask}, (0,)),
        Case(
            "cas_average",
            "cas_loss",
            (descriptor, labels),
            {"average_regions": True, "alpha": 0.3},
            (0,),
        ),
        Case("cace", "class_agnostic_cross_entropy", (logits, labels), {"mask": mask}, (0,)),
        Case(
            "cace_pixel",
            "class_agnostic_cross_entropy",
            (logits, labels),
            {"per": "pixel", "mask": mask},
            (0,),
        ),
        Case("weighted_f", "weighted_fbeta_loss", (probs, target), {"mask": counted}, (0,)),
        Case(
            "weighted_f_euclidean",
            "weighted_fbeta_loss",
            (probs, target),
            euclidean | {"beta": 0.6, "theta": 3, "mask": counted},
            (0,),
        ),
        Case(
            "weighted_f_given",
            "weighted_fbeta_loss",
            (probs, target),
            {"distance_weights": given, "normalize_kernel": True},
            (0,),
        ),
        Case(
            "weighted_f_soft",
            "weighted_fbeta_loss",
            (probs, soft_target),
            euclidean | {"theta": 2, "mask": counted},
            (0,),
        ),
        Case(
            "weighted_f_several",
            "weighted_fbeta_loss",
            (several, classes),
            {"phi": 2, "mask": counted, "reduction": "none"},
            (0,),
        ),
        Case("weighted_f_volume", "weighted_fbeta_loss", (volume, solid), {"theta": 2}, (0,)),
        Case("weighted_f_score", "weighted_fbeta_score", (probs, target), {"mask": counted}, (0,)),
        Case("weighted_f_measure", "weighted_fmeasure", (probs, target), {"beta": 0.6}, (0,)),
        Case(
            "weighted_f_measure_volume",
            "weighted_fmeasure",
            (volume, solid),
            {"reduction": "none"},
            (0,),
        ),
        Case("anchor", "anchor_softmax_loss", (features, anchors, regions), {"mask": mask}, (0, 1)),
        Case("anchor_probabilities", "anchor_probabilities", (features, anchors), {}, (0, 1)),
        Case("region_anchors", "region_anchors", (features, weights), {}, (0, 1)),
        Case("update_prior", "update_prior", (prior, refined, 3), {}, (0, 1)),
        Case("js", "js_mutual_information_loss", (scores, joint), {"mask": pairs}, (0,)),
        Case(
            "js_pooled",
            "js_mutual_information_loss",
            (scores, joint),
            {"balance": False, "mask": pairs},
            (0,),
        ),
        Case("js_estimate", "js_mutual_information", (scores, joint), {}, (0,)),
        Case(
            "foreground_vector", "foreground_vector", (features, prior), {"threshold": 0.5}, (0, 1)
        ),
        Case("merge_by_confidence", "merge_by_confidence", (prior, refined), {}, (0, 1)),
    ]


CASES = make()
BY_NAME = {case.name: case for case in CASES}
BY_NAME["distance_weights"] = Case(
    "distance_weights",
    "distance_weights",
    BY_NAME["weighted_f"].args[1:],
    {"mask": BY_NAME["weighted_f"].options["mask"]},
    (),
)

# A case, the place of an argument, and a value that it must not hold.
BAD_VALUES = [
    *(
        (name, 1, value)
        for name in (
            "metric",
            "metric_pairwise",
            "metric_normalize",
            "metric_hard",
            "metric_stop_gradient",
            "cas_average",
            "cace",
            "cace_pixel",
        )
        for value in (2, -1, 255)
    ),
    ("semantic_distance", 1, -0.5),
    ("cas", 0, 1.5),
    ("cas", 0, -0.5),
    ("cas", 1, 3),
    ("cas", 1, -1),
    ("cas", 1, 255),
    ("weighted_f", 0, 1.5),
    ("weighted_f", 0, -0.5),
    ("weighted_f", 1, 1.5),
    ("weighted_f", 1, 255),
    ("weighted_f_euclidean", 1, -0.25),
    ("weighted_f_given", 1, 2),
    ("weighted_f_soft", 1, 1.25),
    ("weighted_f_several", 0, 7),
    ("weighted_f_several", 1, 255),
    ("weighted_f_volume", 1, -1),
    ("weighted_f_score", 0, 1.5),
    ("weighted_f_score", 1, 1.5),
    ("weighted_f_measure", 0, 1.5),
    ("weighted_f_measure", 1, 255),
    ("weighted_f_measure", 1, 0.5),
    ("distance_weights", 0, 255),
    ("distance_weights", 0, -0.5),
    ("anchor", 2, 3),
    ("anchor", 2, -1),
    ("anchor", 2, 255),
    ("region_anchors", 1, -0.5),
    ("update_prior", 0, 1.5),
    ("update_prior", 1, -0.5),
    ("foreground_vector", 1, 1.5),
    ("foreground_vector", 1, -0.5),
    ("merge_by_confidence", 0, 255),
    ("merge_by_confidence", 1, -0.5),
]
