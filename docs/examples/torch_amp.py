"""Mixed precision: the metric loss beside cross-entropy under autocast, scaled for float16."""

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


def train(device: str, dtype: torch.dtype) -> list[float]:
    torch.manual_seed(0)
    images, labels = (x.to(device) for x in scenes(4))
    outputs = 2 + 8  # 2 logits, 8 features
    model = nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, outputs, 5, padding=2)
    ).to(device)
    criterion = MetricLoss(normalize=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    # Small gradients vanish in float16 unless the loss is scaled; bfloat16 has float32's range.
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    losses = []
    for _ in range(10):
        with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
            output = model(images)
            loss = F.cross_entropy(output[:, :2], labels.long())
            loss = loss + 0.1 * criterion(output[:, 2:], labels)  # float32, no cast needed
        assert (output.dtype, loss.dtype) == (dtype, torch.float32)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return losses


# bfloat16 where the device has it: CPUs, and GPUs since Ampere. float16 has three bits more of the
# fraction, and is what older GPUs have; a CPU may take a hundred times as long.
device = "cuda" if torch.cuda.is_available() else "cpu"
whole = train(device, torch.float32)
print(f"torch.float32  loss {whole[0]:+.6f} to {whole[-1]:+.6f}")
for dtype in (torch.bfloat16, torch.float16):
    half = train(device, dtype)
    print(f"{dtype}  loss {half[0]:+.6f} to {half[-1]:+.6f}")
    assert half[-1] < half[0]
    torch.testing.assert_close(half, whole, rtol=0.01, atol=0.01)
