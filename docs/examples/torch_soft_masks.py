"""Masks with soft edges: which losses keep them, and which make them hard."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from saliency_losses.torch import WeightedFBetaLoss


def scenes(images: int, rng: torch.Generator, side: int = 32) -> tuple[Tensor, Tensor]:
    """Noisy images (N, 3, H, W) of a disc each, and its alpha (N, 1, H, W), soft at the edge."""
    y, x = 8 + 16 * torch.rand(2, images, 1, 1, generator=rng)
    radius = 4 + 4 * torch.rand(images, 1, 1, generator=rng)
    width = 1 + 5 * torch.rand(images, 1, 1, generator=rng)
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    distance = ((rows - y) ** 2 + (columns - x) ** 2).sqrt()
    alpha = ((radius - distance) / width + 0.5).clamp(0, 1)[:, None]
    return 0.5 * alpha + 0.2 * torch.randn(images, 3, side, side, generator=rng), alpha


def soft_dice(probs: Tensor, target: Tensor) -> Tensor:
    shared, whole = (probs * target).sum((1, 2, 3)), (probs + target).sum((1, 2, 3))
    return (1 - 2 * shared / whole).mean()


def error_at_edges(criterion: Callable[[Tensor, Tensor], Tensor]) -> float:
    """The mean error where 0 < alpha < 1, after training with `criterion`."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 1, 5, padding=2), nn.Sigmoid()
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        images, alpha = scenes(8, rng)
        loss = criterion(model(images), alpha)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, alpha = scenes(64, torch.Generator().manual_seed(1))
    error = (model(images) - alpha).abs()
    return error[(alpha > 0) & (alpha < 1)].mean().item()


weighted_f = WeightedFBetaLoss(error="absolute", distance="euclidean")
errors = {
    "L1": error_at_edges(nn.L1Loss()),
    "soft Dice": error_at_edges(soft_dice),
    "weighted F, soft targets": error_at_edges(weighted_f),
    "weighted F, targets cut at ½": error_at_edges(lambda p, y: weighted_f(p, y > 0.5)),
}
for name, error in errors.items():
    print(f"{name:29} error at soft edges {error:.3f}")
assert errors["weighted F, soft targets"] < 1.2 * errors["L1"]
assert errors["weighted F, soft targets"] < 0.6 * errors["soft Dice"]
assert errors["weighted F, soft targets"] < 0.6 * errors["weighted F, targets cut at ½"]
