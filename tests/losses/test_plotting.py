"""`explain`: the numbers that are drawn, and what it says to arguments that do not fit."""

import subprocess
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import saliency_losses.torch
from saliency_losses import reference
from saliency_losses.plotting import explain
from tests.support.backends import LOSSES, Backend, close
from tests.support.cases import CASES, Case, softmax
from tests.support.paths import ROOT

SHOWN = [case for case in CASES if case.function in LOSSES and case.name != "weighted_f_volume"]
each_case = pytest.mark.parametrize("case", SHOWN, ids=lambda case: case.name)


def seen(backend: Backend, case: Case, **more: Any) -> Figure:
    args, options = backend.prepared(case.function, case.args, case.options)
    output, *between, target = args
    given = {"anchors": between[0]} if between else {}
    loss = partial(getattr(backend.functions, case.function), **options)
    return explain(loss, output, target, **given, **more)


def values(figure: Figure, column: int, row: int = 0) -> np.ndarray:
    """The numbers of a panel, NaN where it is blank."""
    panels = [axes for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]
    columns = len(panels) // rows_of(figure)
    return np.ma.filled(panels[row * columns + column].images[0].get_array().astype(float), np.nan)


def rows_of(figure: Figure) -> int:
    return sum(axes.get_ylabel().startswith("loss") for axes in figure.axes)


def one(case: Case, n: int) -> Case:
    """The case with its image n alone."""

    def cut(x: Any) -> Any:
        return x[n : n + 1] if isinstance(x, np.ndarray) else x

    return case._replace(
        args=tuple(map(cut, case.args)), options={name: cut(x) for name, x in case.options.items()}
    )


def flat(case: Case, x: np.ndarray) -> np.ndarray:
    """What is drawn of a map: a signal as a strip."""
    return x[None] if x.ndim == 1 else x


@each_case
def test_the_mean_cost_is_the_loss_and_the_gradient_its_own(backend: Backend, case: Case) -> None:
    channel = 0 if case.function != "js_mutual_information_loss" else None
    figure = seen(backend, case, channel=channel)
    assert rows_of(figure) == 2
    for n in range(2):
        alone = one(case, n)
        loss = float(np.sum(backend.call(case.function, *alone.args, **alone.options)))
        slope = backend.gradient(case.function, *alone.args, **alone.options)[0]
        mask = flat(case, alone.options.get("mask", np.ones((1, *slope.shape[:2]), bool))[0])
        slope = flat(case, slope if channel is None else slope[..., 0])
        if mask.shape != slope.shape:
            mask = np.ones(slope.shape, bool)
        close(values(figure, 3, n), np.where(mask, slope, np.nan))
        assert [np.isnan(values(figure, k, n)).sum() for k in range(3)] == [(~mask).sum()] * 3
        if case.function != "weighted_fbeta_loss":
            close(np.nanmean(values(figure, 2, n)), loss)
        labels = [axes.get_ylabel() for axes in figure.axes]
        assert f"loss {loss:.4g}" in labels


def direct(case: Case) -> np.ndarray:
    """What each pixel of the first image costs, from the definitions."""
    output, *between, target = (x[0] for x in case.args)
    options = case.options
    mask = options["mask"][0]
    n = mask.sum()
    if case.function == "metric_loss":
        square = [((output - output[mask & (target == r)].mean(0)) ** 2).sum(-1) for r in (0, 1)]
        return np.where(target == 1, square[1] - square[0], square[0] - square[1])
    if case.function == "cas_loss":
        costs = np.zeros(target.shape)
        means = [output[mask & (target == r)].mean(0) for r in range(3)]
        for r, mean in enumerate(means):
            apart = sum(((mean - other) ** 2).sum() for other in means)
            inside = ((output - mean) ** 2).sum(-1)
            share = n / (mask & (target == r)).sum()
            costs = np.where(target == r, share * (0.5 * inside - 0.5 * apart), costs)
        return costs
    if case.function == "anchor_softmax_loss":
        one_by_one = [
            reference.anchor_softmax_loss(f[None], between[0], np.array([y]))
            for f, y in zip(output.reshape(-1, output.shape[-1]), target.ravel(), strict=True)
        ]
        return np.array(one_by_one).reshape(target.shape)
    if case.function == "js_mutual_information_loss":
        share = n / np.where(target, (target & mask).sum(), (~target & mask).sum())
        return share * np.log1p(np.exp(np.where(target, -output, output)))
    p, y, _ = reference._counted_maps(output[..., 0], target[..., 0], mask)
    errors, shape = reference._errors(p, y, "squared"), mask.shape
    spread = reference._smoothed(errors, p < y, shape, 9, cut=True)
    b = np.where(p < y, 1, reference._weights(y > 0.5, shape, 5, "window"))
    return (np.minimum(spread, errors) * b).reshape(shape)


@pytest.mark.parametrize("name", ["metric", "cas", "anchor", "js", "weighted_f"])
def test_costs_are_those_of_the_definitions(backend: Backend, name: str) -> None:
    (case,) = (case for case in CASES if case.name == name)
    costs = direct(case)
    mask = flat(case, case.options["mask"][0])
    close(values(seen(backend, case), 2), np.where(mask, flat(case, costs), np.nan))


def test_hard_negatives_and_exchanged_labels(backend: Backend) -> None:
    """Pixels that are left out cost nothing; exchanged labels cost what they cost unexchanged."""
    by_name = {case.name: case for case in CASES}
    costs = values(seen(backend, by_name["metric_hard"]), 2)
    labels, mask = by_name["metric_hard"].args[1][0], by_name["metric_hard"].options["mask"][0]
    smaller = min((labels[mask] == 1).sum(), (labels[mask] == 0).sum())
    assert (costs[mask] != 0).sum() == 2 * smaller
    case = by_name["cace"]
    logits, labels = case.args
    for given in (labels, 1 - labels):
        exchanged = case._replace(args=(logits, given))
        close(values(seen(backend, exchanged), 2), values(seen(backend, case), 2))


def arrays(backend: Backend) -> tuple[Any, ...]:
    """probs and target with a channel, and an image with three, of eight images of 6 x 5."""
    rng = np.random.default_rng(0)
    probs, image = rng.random((8, 6, 5, 1)), rng.integers(0, 256, (8, 6, 5, 3), dtype=np.uint8)
    target = (rng.random((8, 6, 5, 1)) > 0.5).astype(np.float64)
    return tuple(backend.array(x, True) for x in (probs, target, image))


def test_rows_and_columns(backend: Backend) -> None:
    probs, target, image = arrays(backend)
    loss = backend.functions.weighted_fbeta_loss
    figure = explain(loss, probs, target, image=image, title="seen")
    assert rows_of(figure) == 4
    assert rows_of(explain(loss, probs, target, rows=2)) == 2
    assert figure.get_suptitle() == "seen"
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert titles == [
        "image",
        "prediction",
        "target",
        "$E^w$: error after A and B",
        "∂ loss / ∂ output",
    ]
    close(values(figure, 0, 1), backend.numpy(image, True)[1] / 255)
    close(values(figure, 1, 3), backend.numpy(probs, True)[3, ..., 0])
    close(values(figure, 2, 3), backend.numpy(target, True)[3, ..., 0])
    gradient = figure.axes[4].images[0]
    assert gradient.norm.vmin == -gradient.norm.vmax < 0
    assert figure.axes[3].images[0].norm.vmin == 0
    other = explain(
        loss,
        probs,
        target,
        prediction=1 - probs[:, 0] if backend.name == "torch" else 1 - probs[..., 0],
    )
    close(values(other, 0), 1 - backend.numpy(probs, True)[0, ..., 0])
    close(values(other, 3), values(figure, 4))


def test_a_mask_blanks_all_but_the_image(backend: Backend) -> None:
    probs, target, image = arrays(backend)
    mask = np.random.default_rng(1).random((8, 6, 5)) > 0.3
    given = {"image": image, "mask": backend.array(mask, False)}
    figure = explain(backend.functions.weighted_fbeta_loss, probs, target, **given)
    for column in range(1, 5):
        np.testing.assert_array_equal(np.isnan(values(figure, column, 2)), ~mask[2])
    assert not np.isnan(values(figure, 0, 2)).any()


def test_ignored_labels_are_blank_and_a_target_needs_no_channel_axis(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    logits, classes = rng.normal(size=(2, 6, 5, 3)), rng.integers(0, 3, (2, 6, 5))
    classes[:, 0] = 255
    for shown, target in ((logits, classes), (logits[..., :1], classes % 2 + 254 * (classes > 9))):
        figure = explain(
            backend.functions.weighted_fbeta_loss,
            backend.array(shown, True),
            backend.array(target, False),
            activation="sigmoid",
            ignore_index=255,
        )
        for axes in figure.axes[:4]:
            values = axes.images[0].get_array()
            assert np.ma.getmaskarray(np.ma.masked_invalid(values))[0].all()
            assert np.isfinite(values[1:]).all()


def test_more_channels_are_a_norm_or_one_of_them(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((1, 6, 5, 4)), rng.integers(0, 2, (1, 6, 5))
    given = backend.array(features, True), backend.array(labels, False)
    figure = explain(backend.functions.metric_loss, *given)
    slope = backend.gradient("metric_loss", features, labels)[0]
    close(values(figure, 0), np.linalg.norm(features[0], axis=-1))
    close(values(figure, 3), np.linalg.norm(slope, axis=-1))
    assert "norm of 4 channels" in figure.axes[3].get_title()
    figure = explain(backend.functions.metric_loss, *given, channel=2)
    close(values(figure, 0), features[0, ..., 2])
    close(values(figure, 3), slope[..., 2])
    two = backend.array(softmax(features[..., :2]), True)
    close(
        values(explain(backend.functions.cas_loss, two, given[1]), 0),
        backend.numpy(two, True)[0, ..., 1],
    )


def test_volumes_and_signals(backend: Backend) -> None:
    (case,) = (case for case in CASES if case.name == "weighted_f_volume")
    figure = seen(backend, case)
    probs = case.args[0]
    close(values(figure, 0), probs[0, 1, ..., 0])
    slope = backend.gradient(case.function, *one(case, 0).args, **case.options)
    close(values(figure, 3), slope[0, 1, ..., 0])
    line = backend.array(np.random.default_rng(0).random((1, 9, 2)), True)
    labels = backend.array(np.arange(9)[None] % 2, False)
    assert values(explain(backend.functions.metric_loss, line, labels), 2).shape == (1, 9)


@pytest.mark.parametrize(
    "name",
    [
        "MetricLoss",
        "CASLoss",
        "ClassAgnosticCrossEntropy",
        "WeightedFBetaLoss",
        "AnchorSoftmaxLoss",
        "JSMutualInformationLoss",
    ],
)
def test_modules_are_their_functions(name: str) -> None:
    function = {f.replace("_", ""): f for f in LOSSES}[name.lower()]
    options = {
        "metric_loss": {"form": "pairwise"},
        "cas_loss": {"alpha": 0.2},
        "class_agnostic_cross_entropy": {"per": "pixel"},
        "weighted_fbeta_loss": {"normalize_kernel": True, "theta": 3},
        "js_mutual_information_loss": {"balance": False},
    }.get(function, {})
    rng = torch.Generator().manual_seed(0)
    output = torch.rand(2, 2, 6, 5, generator=rng)
    target: Any = torch.rand(2, 6, 5, generator=rng) > 0.5
    more = {}
    if function == "js_mutual_information_loss":
        output = output[:, 0]
    elif function == "weighted_fbeta_loss":
        target = torch.stack([target, ~target], 1)
    elif function == "anchor_softmax_loss":
        more = {"anchors": torch.rand(2, 2, 2, generator=rng)}
    module = getattr(saliency_losses.torch, name)(**options, reduction="sum")
    call = partial(getattr(saliency_losses.torch, function), **options)
    with torch.inference_mode():
        figures = [explain(loss, output.clone(), target, **more) for loss in (module, call)]
    for row in range(2):
        for column in range(4):
            np.testing.assert_array_equal(*(values(f, column, row) for f in figures))


def test_any_other_function_is_seen_by_its_gradient(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((2, 6, 5, 3)), rng.integers(0, 3, (2, 6, 5))
    given = backend.array(logits, True), backend.array(labels, False)
    if backend.name == "torch":
        figure = explain(torch.nn.CrossEntropyLoss(), *given)
    else:

        def entropy(x: jax.Array, labels: jax.Array) -> jax.Array:
            return -(jax.nn.log_softmax(x) * jax.nn.one_hot(labels, 3)).sum(-1).mean()

        figure = explain(jax.jit(entropy), *given)
    slope = (softmax(logits[1]) - np.eye(3)[labels[1]]) / 30
    close(values(figure, 2, 1), np.abs(slope).sum(-1))
    close(values(figure, 3, 1), np.linalg.norm(slope, axis=-1))
    assert figure.axes[2].get_title() == "|gradient|,\nsummed over channels"


def test_half_precision_and_an_even_picture(backend: Backend) -> None:
    zeros = np.zeros((1, 6, 5, 1))
    narrow = (
        torch.zeros(1, 1, 6, 5, dtype=torch.bfloat16)
        if backend.name == "torch"
        else jnp.zeros((1, 6, 5, 1), jnp.bfloat16)
    )
    figure = explain(backend.functions.weighted_fbeta_loss, narrow, backend.array(zeros, True))
    figure.savefig("/dev/null", format="png")
    assert (values(figure, 2) == 0).all()


# Errors


@pytest.mark.parametrize(
    ("more", "error", "text"),
    [
        (
            {"image": np.zeros((7, 6, 5, 3))},
            ValueError,
            "image must have length 8",
        ),
        ({"image": np.zeros((8, 6, 5, 2))}, ValueError, "image must have 1 or 3 channels, got 2"),
        ({"image": np.full((8, 6, 5, 3), 4.0)}, ValueError, "undo its normalisation"),
        (
            {"mask": np.ones((2, 6, 5), bool)},
            ValueError,
            "mask must have length 8",
        ),
        ({"channel": 1}, ValueError, r"channel must be in 0\.\.0, got 1"),
        ({"rows": 0}, ValueError, "rows must be at least 1"),
        ({"rows": 1.5}, TypeError, "rows must be an integer"),
        ({"gamma": 1}, TypeError, "gamma"),
    ],
)
def test_arguments_that_do_not_fit(
    backend: Backend, more: dict[str, Any], error: type[Exception], text: str
) -> None:
    probs, target, _ = arrays(backend)
    more = {
        name: backend.array(x, name == "image") if isinstance(x, np.ndarray) else x
        for name, x in more.items()
    }
    with pytest.raises(error, match=text):
        explain(backend.functions.weighted_fbeta_loss, probs, target, **more)


def test_losses_and_outputs_that_do_not_fit(backend: Backend) -> None:
    probs, target, _ = arrays(backend)
    loss = backend.functions.weighted_fbeta_loss
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor or a jax\.Array, got ndarray"):
        explain(loss, np.zeros((1, 1, 2, 2)), target)
    with pytest.raises(TypeError, match="got 'dice'"):
        explain("dice", probs, target)
    with pytest.raises(TypeError, match=r"pass an instance: WeightedFBetaLoss\(\)"):
        explain(saliency_losses.torch.WeightedFBetaLoss, probs, target)
    with pytest.raises(TypeError, match="keyword arguments only, got 1 positional"):
        explain(partial(loss, probs), probs, target)
    other = saliency_losses.torch if backend.name == "jax" else saliency_losses.jax
    with pytest.raises(TypeError, match=f"import it from saliency_losses.{backend.name}"):
        explain(other.weighted_fbeta_loss, probs, target)
    with pytest.raises(ValueError, match="requires anchors, got none"):
        explain(backend.functions.anchor_softmax_loss, probs, target)
    with pytest.raises(ValueError, match="output must have at least one image"):
        explain(loss, probs[:0], target[:0])
    with pytest.raises(ValueError, match="divide by 255"):
        explain(loss, 255 * probs, target)
    with pytest.raises(ValueError, match="target must have as many axes as output"):
        explain(lambda x, y: x.sum(), probs, target[:, 0, 0])
    with pytest.raises(ValueError, match="with 1 to 3 spatial axes"):
        explain(
            backend.functions.js_mutual_information_loss, probs[:, 0, 0, 0], probs[:, 0, 0, 0] > 0.5
        )
    if backend.name == "torch":
        with pytest.raises(TypeError, match="must return a tensor computed from the output"):
            explain(lambda x, y: 1.0, probs, target)


# Imports


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        text=True,
        capture_output=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.parametrize(
    ("mine", "other", "program"),
    [
        ("torch", "jax", "import torch; p = torch.rand(1, 1, 6, 5); y = (p > 0.5).float(); "),
        ("jax", "torch", "import jax.numpy as np; p = np.ones((1, 6, 5, 1)) / 2; y = 0 * p; "),
    ],
)
def test_neither_pyplot_nor_the_other_framework(mine: str, other: str, program: str) -> None:
    done = run(
        f"import sys; from saliency_losses.plotting import explain; "
        f"assert not {{'torch', 'jax'}} & set(sys.modules); {program}"
        f"from saliency_losses.{mine} import weighted_fbeta_loss as loss; "
        "explain(loss, p, y).savefig('/dev/null', format='png'); "
        f"assert not {{'matplotlib.pyplot', '{other}'}} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr


def test_without_matplotlib() -> None:
    done = run(
        "import sys, saliency_losses, saliency_losses.reference; "
        "assert 'matplotlib' not in sys.modules; sys.modules['matplotlib'] = None; "
        "import saliency_losses.plotting"
    )
    assert "ImportError: saliency_losses.plotting needs matplotlib: pip install" in done.stderr
    assert "pip install matplotlib" in done.stderr


def test_the_example_runs() -> None:
    done = run(
        "import doctest, sys; from saliency_losses import plotting; "
        "sys.exit(doctest.testmod(plotting).failed)"
    )
    assert done.returncode == 0, done.stdout + done.stderr
