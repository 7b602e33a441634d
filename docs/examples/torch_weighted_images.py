"""Images weigh as their prior maps are trusted, in the mutual information loss per image."""

import torch
from torch import Tensor, nn

from saliency_losses.torch import JSMutualInformationLoss, foreground_vector, relation_pairs


def scenes(images: int, side: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy images (N, 3, H, W) of one disc each, and a rough map of it (N, H, W)."""
    rng = torch.Generator().manual_seed(seed)
    y, x = 8 + 16 * torch.rand(2, images, 1, 1, generator=rng)
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    squares = (rows - y) ** 2 + (columns - x) ** 2
    noise = torch.randn(images, 3, side, side, generator=rng)
    return 0.5 * (squares < 36)[:, None] + 0.5 * noise, torch.exp(-squares / 100)


class Critic(nn.Module):
    """The score of each pixel beside the mean of the certain foreground, (N, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 8, 5, padding=2)
        )
        self.scores = nn.Conv2d(8, 1, 1)

    def forward(self, images: Tensor, prior: Tensor) -> Tensor:
        features = self.features(images)
        pairs = features * foreground_vector(features, prior)[:, :, None, None]
        return self.scores(pairs)[:, 0]


def loss_of(images: Tensor, prior: Tensor, weights: Tensor) -> Tensor:
    joint, mask = relation_pairs(prior)
    losses = criterion(critic(images, prior), joint, mask=mask)  # one per image, (N,)
    return (weights * losses).sum() / weights.sum()


torch.manual_seed(0)
images, prior = scenes(16)
prior[12:] = prior[12:].roll(16, dims=2)  # four of the maps show the wrong place
weights = torch.tensor([1.0] * 8 + [0.5] * 4 + [0.0] * 4)
critic, criterion = Critic(), JSMutualInformationLoss(reduction="none")
optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
losses = []
for k in range(60):
    loss = loss_of(images, prior, weights)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if k % 10 == 0:
        print(f"step {k:2}  loss {losses[-1]:.4f}")
assert losses[-1] < losses[0]
without = loss_of(images[:12], prior[:12], weights[:12])
torch.testing.assert_close(loss_of(images, prior, weights), without)
