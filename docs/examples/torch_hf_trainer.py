"""Hugging Face's Trainer with a loss of its own: anchor softmax, which takes a prior map too."""

import tempfile

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from saliency_losses.torch import AnchorSoftmaxLoss, anchor_probabilities, region_anchors


def scenes(images: int, side: int = 32, seed: int = 0) -> list[dict[str, Tensor]]:
    """Noisy images (3, H, W) of one disc each, its pixels (H, W), and a rough map of it."""
    rng = torch.Generator().manual_seed(seed)
    y, x = 8 + 16 * torch.rand(2, images, 1, 1, generator=rng)
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    squares = (rows - y) ** 2 + (columns - x) ** 2
    labels, prior = (squares < 36).long(), torch.exp(-squares / 100)
    pixels = 0.5 * labels[:, None] + 0.5 * torch.randn(images, 3, side, side, generator=rng)
    sets = zip(pixels, labels, prior, strict=True)
    return [dict(zip(("pixel_values", "labels", "prior"), one, strict=True)) for one in sets]


class AnchorTrainer(Trainer):
    criterion = AnchorSoftmaxLoss()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        features, prior = model(inputs["pixel_values"]), inputs["prior"]
        anchors = region_anchors(features, torch.stack([1 - prior, prior], dim=1))
        loss = self.criterion(features, anchors, inputs["labels"])
        outputs = {"loss": loss, "probs": anchor_probabilities(features, anchors)}
        return (loss, outputs) if return_outputs else loss


torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 8, 5, padding=2))
with tempfile.TemporaryDirectory() as folder:
    settings = TrainingArguments(
        folder,
        num_train_epochs=10,
        learning_rate=1e-2,
        per_device_train_batch_size=8,
        remove_unused_columns=False,  # else it drops what forward() does not name: the prior
        label_names=["labels"],  # else evaluate() knows of no loss
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = AnchorTrainer(
        model, settings, train_dataset=scenes(32), eval_dataset=scenes(8, seed=1)
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
print(f"loss on unseen images {before:.4f} before, {after:.4f} after training")
assert after < before
