"""Volumes (N, 1, D, H, W): the weighted F-beta loss with exact distances in three dimensions."""

import torch
from torch import Tensor, nn

from saliency_losses.torch import WeightedFBetaLoss, weighted_fbeta_score


def scenes(volumes: int, side: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy volumes (N, 1, D, H, W) of one ball each, and its voxels in the same shape."""
    rng = torch.Generator().manual_seed(seed)
    centres = 6 + 8 * torch.rand(volumes, 3, 1, 1, 1, generator=rng)
    voxels = torch.stack(torch.meshgrid(*3 * [torch.arange(side)], indexing="ij"))
    target = (voxels - centres).square().sum(1, keepdim=True) < 25
    return target + torch.randn(target.shape, generator=rng), target


torch.manual_seed(0)
volumes, target = scenes(4)
model = nn.Sequential(
    nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 1, 3, padding=1), nn.Sigmoid()
)
criterion = WeightedFBetaLoss(distance="euclidean", theta=4)  # a window 9 voxels wide
optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
losses = []
for k in range(40):
    loss = criterion(model(volumes), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if k % 10 == 0:
        print(f"step {k:2}  loss {losses[-1]:.4f}")
assert losses[-1] < losses[0]

unseen, target = scenes(4, seed=1)
with torch.inference_mode():
    score = weighted_fbeta_score(model(unseen), target).item()
print(f"weighted F-beta of unseen volumes {score:.3f}")
