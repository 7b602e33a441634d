"""Three classes: one-vs-rest by the weighted F-beta loss, or regions without names by CAS."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_losses.torch import cas_loss, weighted_fbeta_loss


def scenes(images: int, side: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy images (N, 3, H, W) of a disc of class 1 and one of class 2, and labels (N, H, W)."""
    rng = torch.Generator().manual_seed(seed)
    y, x = 6 + 20 * torch.rand(2, 2, images, 1, 1, generator=rng)
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    first, second = (rows - y) ** 2 + (columns - x) ** 2 < 36
    labels = torch.where(second, 2, first.long())
    noise = torch.randn(images, 3, side, side, generator=rng)
    return F.one_hot(labels, 3).movedim(-1, 1) + 0.5 * noise, labels


def fbeta(probs: Tensor, labels: Tensor) -> Tensor:
    return weighted_fbeta_loss(probs, labels)


def cas(probs: Tensor, labels: Tensor) -> Tensor:
    return cas_loss(probs, labels, num_regions=3)


def train(criterion, images: Tensor, labels: Tensor) -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 3, 5, padding=2), nn.Softmax(dim=1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


images, labels = scenes(16)
names = torch.rand(16, 3).argsort(1)  # in each image the regions are numbered anew
renamed = names.gather(1, labels.flatten(1)).view_as(labels)
for criterion, given in ((fbeta, labels), (cas, renamed)):
    model, losses = train(criterion, images, given)
    print(f"{criterion.__name__}: loss {losses[0]:+.4f} to {losses[-1]:+.4f}")
    assert losses[-1] < losses[0]
    torch.testing.assert_close(criterion(model(images), given), criterion(model(images), labels))
