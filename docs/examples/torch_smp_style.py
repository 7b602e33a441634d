"""A loop as with segmentation-models-pytorch: logits (N, 1, H, W), a criterion that takes them."""

import torch
from torch import Tensor, nn

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


class Unet(nn.Module):
    """In place of smp.Unet, with its arguments and the shape of its output.

    smp needs torchvision, which does not import beside the CPU build of PyTorch that the project
    is tested with: with smp itself this file has not been run.
    """

    def __init__(self, encoder_name="resnet34", encoder_weights=None, in_channels=3, classes=1):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(in_channels, 16, 5, 2, padding=2), nn.ReLU())
        self.decoder = nn.Upsample(scale_factor=2, mode="bilinear")
        self.segmentation_head = nn.Conv2d(16 + in_channels, classes, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.segmentation_head(torch.cat([self.decoder(self.encoder(x)), x], dim=1))


# Of logits, as smp.losses.DiceLoss("binary") is.
criterion = WeightedFBetaLoss(error="absolute", distance="euclidean", activation="sigmoid")
torch.manual_seed(0)
model = Unet(encoder_name="resnet34", encoder_weights=None, in_channels=3, classes=1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
images, labels = scenes(16)
for k in range(60):
    loss = criterion(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if k % 10 == 0:
        print(f"step {k:2}  loss {loss.item():.4f}")

model.eval()
unseen, labels = scenes(16, seed=1)
with torch.inference_mode():
    measure = weighted_fmeasure(model(unseen), labels, activation="sigmoid").item()
print(f"weighted F-measure of unseen images {measure:.3f}")
assert measure > 0.5
