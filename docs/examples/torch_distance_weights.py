"""The distances of the weighted F-beta loss, computed once in the data set, flipped with it."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from saliency_losses.torch import WeightedFBetaLoss, distance_weights


def scenes(images: int, side: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy images (N, 3, H, W) of one disc each, and its pixels (N, H, W)."""
    rng = torch.Generator().manual_seed(seed)
    y, x = 8 + 16 * torch.rand(2, images, 1, 1, generator=rng)
    radius = 4 + 4 * torch.rand(images, 1, 1, generator=rng)
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    labels = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    noise = torch.randn(images, 3, side, side, generator=rng)
    return 0.5 * labels[:, None] + 0.5 * noise, labels


class Discs(Dataset[list[Tensor]]):
    """Images (3, H, W), targets (1, H, W) and their distance weights, flipped at random.

    A flip, like a turn by 90 degrees, carries each distance along with its pixel. Resizing changes
    distances, and a crop may cut off the nearest object: after those, compute them anew.
    """

    def __init__(self, images: Tensor, target: Tensor) -> None:
        self.sets = [images, target, distance_weights(target, distance="euclidean")]

    def __len__(self) -> int:
        return len(self.sets[0])

    def __getitem__(self, k: int) -> list[Tensor]:
        axes = [axis for axis in (-1, -2) if torch.rand(()) < 0.5]
        return [x[k].flip(axes) for x in self.sets]


torch.manual_seed(0)
images, labels = scenes(16)
loader = DataLoader(Discs(images, labels[:, None].float()), batch_size=8, shuffle=True)
model = nn.Sequential(
    nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 1, 5, padding=2), nn.Sigmoid()
)
criterion = WeightedFBetaLoss(error="absolute", distance="euclidean")
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
losses = []
for epoch in range(20):
    for some_images, target, weights in loader:
        probs = model(some_images)
        loss = criterion(probs, target, distance_weights=weights)
        torch.testing.assert_close(loss, criterion(probs, target))  # as if computed each time
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    losses.append(loss.item())
    if epoch % 5 == 0:
        print(f"epoch {epoch:2}  loss {losses[-1]:.4f}")
assert losses[-1] < losses[0]
