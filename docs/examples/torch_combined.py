"""Weighted F-beta beside cross-entropy: a weighted sum, and a warm-up from one to the other."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_losses.torch import WeightedFBetaLoss, weighted_fmeasure


def scenes(images: int, side: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy images (N, 3, H, W) of one disc each, and its pixels (N, H, W)."""
    rng = torch.Generator().manual_seed(seed)
    y, x = 8 + 16 * torch.rand(2, images, 1, 1, generator=rng)
    radius = 4 + 4 * torch.rand(images, 1, 1, generator=rng)
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    labels = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    noise = torch.randn(images, 3, side, side, generator=rng)
    return 0.5 * labels[:, None] + 0.5 * noise, labels


def train(share_of_fbeta: Callable[[int], float]) -> float:
    """The measure on unseen images."""
    torch.manual_seed(0)
    images, labels = scenes(16)
    target = labels[:, None].float()
    model = nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 1, 5, padding=2))
    criterion = WeightedFBetaLoss(error="absolute", distance="euclidean")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    for k in range(80):
        logits, share = model(images), share_of_fbeta(k)
        # Cross-entropy takes the logits, the weighted F-beta loss probabilities.
        entropy = F.binary_cross_entropy_with_logits(logits, target)
        fbeta = criterion(logits.sigmoid(), target)
        loss = (1 - share) * entropy + share * fbeta
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if k % 20 == 0:
            print(f"step {k:2}  cross-entropy {entropy:.4f}  F-beta {fbeta:.4f}  share {share:.2f}")
    unseen, labels = scenes(16, seed=1)
    with torch.inference_mode():
        return weighted_fmeasure(model(unseen).sigmoid(), labels[:, None]).item()


def warm_up(step: int) -> float:
    """Cross-entropy alone for 20 steps, then in 20 more over to nine parts in ten of F-beta."""
    return 0.9 * min(max((step - 20) / 20, 0.0), 1.0)


alone, half, warmed = train(lambda step: 0.0), train(lambda step: 0.5), train(warm_up)
# On scenes as easy as these the warm-up only costs time.
print(f"weighted F-measure: cross-entropy {alone:.3f}, half {half:.3f}, after warm-up {warmed:.3f}")
assert alone < warmed
assert alone < half
