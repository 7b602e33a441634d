"""A plain training loop; the class-agnostic segmentation loss, with labels swapped at random."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from saliency_losses.torch import CASLoss, flip_labels


def scenes(images: int, side: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy images (N, 3, H, W) of one disc each, and its pixels (N, H, W)."""
    rng = torch.Generator().manual_seed(seed)
    y, x = 8 + 16 * torch.rand(2, images, 1, 1, generator=rng)
    radius = 4 + 4 * torch.rand(images, 1, 1, generator=rng)
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    labels = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    noise = torch.randn(images, 3, side, side, generator=rng)
    return 0.5 * labels[:, None] + 0.5 * noise, labels


def train(images: Tensor, labels: Tensor) -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 2, 5, padding=2),
        nn.Softmax(dim=1),
    )
    criterion = CASLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    loader = DataLoader(TensorDataset(images, labels), batch_size=8, shuffle=True)
    losses = []
    for _ in range(15):
        total = 0.0
        for some_images, some_labels in loader:
            loss = criterion(model(some_images), some_labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / len(loader))
    return model, losses


images, labels = scenes(32)
swapped = flip_labels(labels, 0.5, torch.Generator().manual_seed(0), per="image")
model, losses = train(images, swapped)
for epoch in range(0, len(losses), 5):
    print(f"epoch {epoch:2}  loss {losses[epoch]:+.4f}")
assert losses[-1] < losses[0]
assert losses == train(images, labels)[1]  # which of the two labels is 1 changes nothing

# Which channel is the object is not learnt: one image with a known label tells.
unseen, labels = scenes(8, seed=1)
regions = model(unseen).argmax(1) == 1
channel_1_is_object = (regions[0] == labels[0]).float().mean() > 0.5
share = (regions[1:] == (labels[1:] == channel_1_is_object)).float().mean().item()
print(f"pixels of unseen images that are right {share:.3f}")
assert share > 0.9
