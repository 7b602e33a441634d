"""A Lightning module: trained by the weighted F-beta loss, validated by the published measure."""

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

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


class Detector(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 1, 5, padding=2), nn.Sigmoid()
        )
        self.criterion = WeightedFBetaLoss()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = self.criterion(self.network(images), labels[:, None])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.log("measure", weighted_fmeasure(self.network(images), labels[:, None]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


lightning.seed_everything(0, verbose=False)
training = DataLoader(TensorDataset(*scenes(32)), batch_size=8, shuffle=True)
unseen = DataLoader(TensorDataset(*scenes(16, seed=1)), batch_size=8)
detector = Detector()
trainer = lightning.Trainer(
    max_epochs=10, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
before = trainer.validate(detector, unseen, verbose=False)[0]["measure"]
trainer.fit(detector, training, unseen)
after = trainer.callback_metrics["measure"].item()
print(f"weighted F-measure of unseen images {before:.3f} before, {after:.3f} after training")
assert after > before
