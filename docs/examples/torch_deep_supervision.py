"""A network with outputs at three sizes, as U-Nets for saliency have, trained by their sum."""

import torch
from torch import Tensor, nn

from saliency_losses.torch import DeepSupervision, WeightedFBetaLoss, weighted_fmeasure


def scenes(images: int, side: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy images (N, 3, H, W) of one disc each, and its mask (N, 1, H, W)."""
    rng = torch.Generator().manual_seed(seed)
    y, x = 8 + 16 * torch.rand(2, images, 1, 1, 1, generator=rng)
    radius = 4 + 4 * torch.rand(images, 1, 1, 1, generator=rng)
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    mask = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    noise = torch.randn(images, 3, side, side, generator=rng)
    return 0.5 * mask + 0.5 * noise, mask


class Network(nn.Module):
    """Probabilities at full size, at a half and at a quarter of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, 16, 5, stride, padding=2), nn.ReLU())
            for channels, stride in ((3, 1), (16, 2), (16, 2))
        )
        self.heads = nn.ModuleList(nn.Conv2d(16, 1, 5, padding=2) for _ in self.stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            outputs.append(head(x).sigmoid())
        return outputs


torch.manual_seed(0)
model = Network()
# Outputs are enlarged to the mask, and its distances are computed once for all of them.
loss = WeightedFBetaLoss(error="absolute", distance="euclidean")
criterion = DeepSupervision(loss, weights=[1, 0.5, 0.25])
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
images, masks = scenes(16)
losses = []
for _ in range(40):
    total = criterion(model(images), masks)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    losses.append(total.item())
print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
assert losses[-1] < losses[0]
unseen, masks = scenes(16, seed=1)
with torch.inference_mode():
    measure = weighted_fmeasure(model(unseen)[0], masks).item()  # the output of full size
print(f"weighted F-measure of unseen images {measure:.3f}")
assert measure > 0.5
