"""Two processes train as one by DistributedDataParallel, with the weighted F-beta loss."""

import tempfile

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from saliency_losses.torch import weighted_fbeta_loss


def scenes(images: int, side: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy images (N, 3, H, W) of one disc each, and its pixels (N, H, W)."""
    rng = torch.Generator().manual_seed(seed)
    y, x = 8 + 16 * torch.rand(2, images, 1, 1, generator=rng)
    radius = 4 + 4 * torch.rand(images, 1, 1, generator=rng)
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    labels = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    noise = torch.randn(images, 3, side, side, generator=rng)
    return 0.5 * labels[:, None] + 0.5 * noise, labels


def train(rank: int, processes: int) -> list[float]:
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 1, 5, padding=2), nn.Sigmoid()
    )
    if processes > 1:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    # Equal shares: the loss is a mean over images, so the mean over processes is that of all.
    images, labels = (x[rank::processes] for x in scenes(16))
    losses = []
    for _ in range(20):
        loss = weighted_fbeta_loss(model(images), labels[:, None])
        optimizer.zero_grad()
        loss.backward()  # DistributedDataParallel takes the mean of the gradients here
        optimizer.step()
        losses.append(loss.item())
    return losses


def work(rank: int, processes: int, folder: str) -> None:
    # Under torchrun the backend is enough: "nccl" on GPUs.
    dist.init_process_group("gloo", f"file://{folder}/join", rank=rank, world_size=processes)
    together = torch.tensor(train(rank, processes)) / processes
    dist.all_reduce(together)
    dist.destroy_process_group()
    if rank == 0:
        alone = torch.tensor(train(0, 1))
        for k in range(0, len(alone), 5):
            print(f"step {k:2}  loss {together[k]:.6f}  in one process {alone[k]:.6f}")
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, (2, folder), nprocs=2)
