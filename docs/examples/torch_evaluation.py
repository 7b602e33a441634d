"""An evaluation loop: the published measure of a data set by torchmetrics, batch by batch."""

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from saliency_losses.torch import weighted_fmeasure
from saliency_losses.torch.metrics import WeightedFMeasure


def scenes(images: int, side: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy images (N, 3, H, W) of one disc each, and its mask (N, 1, H, W)."""
    rng = torch.Generator().manual_seed(seed)
    y, x = 8 + 16 * torch.rand(2, images, 1, 1, 1, generator=rng)
    radius = 4 + 4 * torch.rand(images, 1, 1, 1, generator=rng)
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    mask = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    noise = torch.randn(images, 3, side, side, generator=rng)
    return 0.5 * mask + 0.5 * noise, mask


def model(images: Tensor) -> Tensor:
    """In place of a trained network: logits (N, 1, H, W)."""
    return 20 * torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 5, 1, 2) - 5


images, masks = scenes(22)
loader = DataLoader(TensorDataset(images, masks), batch_size=4)  # the last batch has 2 images

metrics = {
    "F_1, maps as they are": WeightedFMeasure(),
    "F_1, maps stretched, as pysodmetrics does": WeightedFMeasure(normalize=True),
    "the same with beta² = 0.3": WeightedFMeasure(beta=0.3**0.5, normalize=True),
    "of each image": WeightedFMeasure(reduction="none"),
}
with torch.inference_mode():
    for some_images, some_masks in loader:
        probs = model(some_images).sigmoid()
        for metric in metrics.values():
            metric.update(probs, some_masks)
found = {name: metric.compute() for name, metric in metrics.items()}
each = found.pop("of each image")
for name, value in found.items():
    print(f"{name:42} {value:.4f}")
print(f"worst image: number {each.argmin().item()}, {each.min():.4f}")

# Whatever the batches: the measure of all images at once.
at_once = weighted_fmeasure(model(images).sigmoid(), masks)
torch.testing.assert_close(found["F_1, maps as they are"], at_once)
torch.testing.assert_close(each.mean(), at_once)
