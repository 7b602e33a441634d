"""Pixels labelled 255 count neither in cross-entropy nor in the metric loss."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_losses.torch import MetricLoss


def scenes(images: int, side: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy images (N, 3, H, W) of one disc each, and its pixels (N, H, W)."""
    rng = torch.Generator().manual_seed(seed)
    y, x = 8 + 16 * torch.rand(2, images, 1, 1, generator=rng)
    radius = 4 + 4 * torch.rand(images, 1, 1, generator=rng)
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    labels = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    noise = torch.randn(images, 3, side, side, generator=rng)
    return 0.5 * labels[:, None] + 0.5 * noise, labels


def loss_of(output: Tensor, labels: Tensor) -> Tensor:
    """Labels 0, 1 and, where nobody knows, 255; of the outputs two are logits, eight features."""
    entropy = F.cross_entropy(output[:, :2], labels, ignore_index=255)
    return entropy + 0.1 * criterion(output[:, 2:], labels)


torch.manual_seed(0)
images, inside = scenes(16)
grown = F.max_pool2d(inside[:, None].float(), 3, stride=1, padding=1)[:, 0] == 1
labels = inside.long().masked_fill(grown & ~inside, 255)  # a rim of one pixel is not known
model = nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 10, 5, padding=2))
criterion = MetricLoss(normalize=True, ignore_index=255)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
losses = []
for k in range(60):
    loss = loss_of(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if k % 10 == 0:
        print(f"step {k:2}  loss {losses[-1]:+.4f}")
assert losses[-1] < losses[0]

ignored = labels == 255
output = model(images).detach().requires_grad_()
loss = loss_of(output, labels)
(gradient,) = torch.autograd.grad(loss, output)
largest = gradient.abs().amax(1)
print(f"largest gradient {largest.max():.1e}, where ignored {largest[ignored].max():.1e}")
assert largest[ignored].max() == 0 < largest[~ignored].min()
elsewhere = torch.where(ignored[:, None], torch.randn_like(output), output)
torch.testing.assert_close(loss_of(elsewhere, labels), loss)
