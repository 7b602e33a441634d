"""A wrong range of values where reading them costs time, as on CUDA: an error in the first batch,
not a run whose loss is silently absent."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import saliency_losses.torch as losses
from saliency_losses.torch import _ops

# torch 2.13's compiler still uses what it deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of the CPU as those of a device that reading makes wait."""
    monkeypatch.setattr(_ops, "_costs_nothing", lambda x: False)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """How often the host waited for a value."""
    found: list[Any] = []
    real = Tensor.__bool__

    def counting(x: Tensor) -> bool:
        found.append(x)
        return real(x)

    monkeypatch.setattr(Tensor, "__bool__", counting)
    return found


def batch(kind: str = "right") -> tuple[Tensor, Tensor]:
    """Images and their masks, as data pipelines wrongly make them too."""
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 16, 16, generator=rng)
    mask = (images.mean(1, keepdim=True) > 0.5).float()
    soft = nn.functional.interpolate(mask, scale_factor=0.5, mode="bilinear", antialias=True)
    return images, {
        "right": mask,
        "0/255": 255 * mask,
        "soft": nn.functional.interpolate(soft, scale_factor=2, mode="bilinear"),
    }[kind]


def train(criterion: nn.Module, kind: str = "right", logits: bool = False) -> list[Tensor]:
    """The losses of a few steps."""
    images, target = batch(kind)
    channels = 2 if isinstance(criterion, losses.CASLoss) else 1
    network = nn.Conv2d(3, channels, 3, padding=1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    found = []
    for _ in range(3):
        output = 9 * network(images)
        if not logits:
            output = output.softmax(1) if channels == 2 else output.sigmoid()
        loss = criterion(output, target[:, 0] if channels == 2 else target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return found


@pytest.mark.parametrize(
    ("criterion", "kind", "logits", "said"),
    [
        (losses.WeightedFBetaLoss, "0/255", False, "target must be in .*got 255; a 0/255 mask"),
        (
            losses.WeightedFBetaLoss,
            "right",
            True,
            'probs must be .*logits: pass activation="sigmoid"',
        ),
        (
            losses.CASLoss,
            "soft",
            False,
            "labels must be whole numbers .*a soft mask: pass labels > 0.5",
        ),
        (losses.CASLoss, "0/255", False, "labels must be whole numbers .*got 255"),
        (losses.CASLoss, "right", True, "probs must be .*logits: pass activation="),
    ],
)
@pytest.mark.parametrize("check", ["first", "always", "never"])
def test_a_wrong_range_is_an_error_in_the_first_batch(
    criterion: type[nn.Module], kind: str, logits: bool, said: str, check: str
) -> None:
    made = criterion(check=check)
    if check == "never":
        assert all(loss.isnan() for loss in train(made, kind, logits))
        return
    for _ in range(2):  # the second try meets the same error
        with pytest.raises(ValueError, match=said):
            train(made, kind, logits)


@pytest.mark.parametrize("check", ["first", "always", "never"])
def test_right_batches_train(check: str) -> None:
    for kind, criterion in (
        ("right", losses.CASLoss(check=check)),
        ("right", losses.WeightedFBetaLoss(check=check)),
        ("soft", losses.WeightedFBetaLoss(check=check)),
    ):
        found = train(criterion, kind)
        assert torch.stack(found).isfinite().all()


def test_functions_give_nan_there() -> None:
    probs, target = torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, 1, 4, 4)
    target[1] = 255
    loss = losses.weighted_fbeta_loss(probs, target, reduction="none")
    assert loss.isnan().tolist() == [False, True]


def test_it_waits_in_the_first_batch_alone(reads: list[Any]) -> None:
    first, always, never = (
        losses.WeightedFBetaLoss(check=check) for check in ("first", "always", "never")
    )
    for criterion, expected in ((first, [2, 0, 0]), (always, [2, 2, 2]), (never, [0, 0, 0])):
        for count in expected:  # probs and target
            reads.clear()
            criterion(torch.full((1, 1, 4, 4), 0.5), torch.ones(1, 1, 4, 4))
            assert len(reads) == count


def test_after_a_right_first_batch_a_wrong_one_is_nan() -> None:
    criterion = losses.WeightedFBetaLoss()
    probs, target = torch.full((1, 1, 4, 4), 0.5), torch.ones(1, 1, 4, 4)
    criterion(probs, target)
    assert criterion(probs, 255 * target).isnan()
    assert copy.deepcopy(criterion)(probs, 255 * target).isnan()
    with pytest.raises(ValueError, match="got 255"):
        losses.WeightedFBetaLoss()(probs, 255 * target)


def test_a_batch_without_values_is_not_the_first() -> None:
    criterion = losses.WeightedFBetaLoss()
    probs, target = torch.full((1, 1, 4, 4), 0.5), torch.ones(1, 1, 4, 4)
    criterion(probs.to("meta"), target.to("meta"))
    torch.vmap(criterion)(probs[None], target[None])
    compiled = torch.compile(criterion, backend="eager", fullgraph=True)
    assert compiled(probs, 255 * target).isnan()
    with pytest.raises(ValueError, match="got 255"):
        criterion(probs, 255 * target)


def test_on_a_cpu_every_batch_is_looked_at_but_for_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    probs, target = torch.full((1, 1, 4, 4), 0.5), torch.ones(1, 1, 4, 4)
    for check in ("first", "always"):
        criterion = losses.WeightedFBetaLoss(check=check)
        criterion(probs, target)
        with pytest.raises(ValueError, match="got 255"):
            criterion(probs, 255 * target)
    assert losses.WeightedFBetaLoss(check="never")(probs, 255 * target).isnan()
