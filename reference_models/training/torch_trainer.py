"""PyTorch trainer: on one device, or in several processes started by torchrun."""

import hashlib
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

from reference_models.data.images import VOID, Images, Streamed
from reference_models.errors import InputError, count, first_few
from reference_models.files import Arrays, describe_mismatch
from reference_models.machine import progress
from reference_models.networks.torch.backbones import Backbone, load_backbone
from reference_models.networks.torch.build import build
from reference_models.networks.torch.system import Batch, System, nearest_resize, resize
from reference_models.options import Options
from reference_models.papers.schema import SGD, Scale
from reference_models.training.augmentation import Draw, Recoloring
from reference_models.training.processes import JOIN_MINUTES, Watch, waiting, with_others
from reference_models.training.trainer import LossView, holds_backbone, learning_rate

Features = dict[str, list[Tensor]]
"""Frozen-backbone features of whole training sets, by backbone and digest of the images."""


class TorchTrainer:
    """`reference_models.training.trainer.Trainer` in PyTorch, for every network."""

    def __init__(
        self, options: Options, features: Features | None = None, imagenet: bool = True
    ) -> None:
        self.device, self.rank, self.processes = begin(options.device, options.answer_seconds)
        self.is_main_process = self.rank == 0
        self.plan = plan = options.plan
        torch.manual_seed(options.seed)
        self.seed = options.seed
        self.regions = options.chosen_recipe.regions
        self.frozen = plan.is_frozen
        self.caches_features = self.frozen and plan.augmentation is None
        fine_tuned = plan.backbone is not None and not self.frozen
        self.holds_backbone = False
        on_gpu = "cuda" in self.device
        # A frozen bundled backbone is not stored with the weights.
        self.backbone_is_shared = self.frozen and options.backbone_weights is None
        # Small batches fit in the CPU caches: 12 ms per image instead of 44 ms.
        self.inference_batch = 64 if on_gpu else 8
        self.layout = torch.channels_last if on_gpu or fine_tuned else torch.contiguous_format
        self.half = on_gpu or (fine_tuned and computes_in_bfloat16())
        self.precision = "bfloat16" if self.half else "float32"
        self.system = build(options.chosen_recipe.network(plan)).to(self.device)
        self.system.to(memory_format=self.layout)  # type: ignore[call-overload]
        if plan.backbone is not None:
            if imagenet:
                assert isinstance(self.system.backbone, Backbone)
                load_backbone(self.system.backbone, options.backbone_file)
            self.system.backbone.requires_grad_(not self.frozen)
        parameters = dict(self.system.named_parameters())
        head = [p for name, p in parameters.items() if not name.startswith("backbone.")]
        groups: list[dict[str, Any]] = [{"params": head, "share": 1.0}]
        if fine_tuned:
            backbone = [p for name, p in parameters.items() if name.startswith("backbone.")]
            groups.append({"params": backbone, "share": plan.backbone_rate})
        self.optimizer = optimizer_of(plan, groups)
        self.parameters = sum(p.numel() for group in groups for p in group["params"])
        self.features = {} if features is None else features

    def set_training_images(self, images: Images | Streamed) -> None:
        # Not in the constructor, as a single process may load a trained network.
        self.objective: nn.Module = Objective(self.system, self.half)
        if self.processes > 1:
            batch = min(self.plan.batch, len(images))
            if batch % self.processes:
                raise InputError(
                    f"a batch of {batch} cannot be split evenly over {self.processes} processes; "
                    "pass --batch with a multiple of them"
                )
            if any(isinstance(module, nn.BatchNorm2d) for module in self.system.modules()):
                if "cuda" not in self.device:
                    raise InputError(
                        "PyTorch synchronises batch normalisation across processes on GPUs only; "
                        "train this network in one process"
                    )
                self.objective = nn.SyncBatchNorm.convert_sync_batchnorm(self.objective)
            self.objective = DistributedDataParallel(self.objective)
        self.has_void = images.has_void
        if isinstance(images, Streamed):
            self.caches_features = False
            return
        self.store(images)
        if self.caches_features:
            digest = hashlib.sha256(np.ascontiguousarray(images.images).data).hexdigest()
            key = f"{self.plan.backbone} {digest}"
            if key not in self.features:
                self.features.clear()  # One training set at a time: features take gigabytes.
                self.features[key] = self.all_taps()
            self.taps = self.features[key]

    def store(self, images: Images) -> None:
        """Load the training set, or the images of a step, onto the device."""
        self.images = torch.from_numpy(images.images).to(self.device).permute(0, 3, 1, 2)
        self.labels, self.counted = self.truth(images, self.has_void)
        # A prior map shared by all images is stored once.
        is_shared = images.priors.strides[0] == 0
        priors = torch.from_numpy(np.array(images.priors[:1] if is_shared else images.priors))
        self.priors = priors.to(self.device).expand(len(images), -1, -1)

    @torch.no_grad()
    def all_taps(self) -> list[Tensor]:
        """Backbone features of all images, then of all mirrored images, in half precision."""
        parts: list[list[Tensor]] = []
        with self.autocast():
            for mirrored in (False, True):
                batches = self.images.split(self.inference_batch)
                for images in progress(batches, desc="features", disable=not self.is_main_process):
                    pixels = self.pixels(images.flip(-1) if mirrored else images)
                    parts.append([tap.half() for tap in self.system.backbone(pixels)])
        return [torch.cat(taps) for taps in zip(*parts, strict=True)]

    @torch.no_grad()
    def taps_of(self, pixels: Tensor) -> list[Tensor]:
        """Features of a frozen backbone, for images that differ in every step."""
        with self.autocast():
            parts = [self.system.backbone(part) for part in pixels.split(self.inference_batch)]
        return [torch.cat(taps).float() for taps in zip(*parts, strict=True)]

    def share(self, count: int) -> list[int]:
        everything: Any = range(count)
        return list(DistributedSampler(everything, self.processes, self.rank, shuffle=False))

    def step(self, draw: Draw, images: Images | None = None) -> float:
        share = self.share(len(draw.indices))
        places = draw.indices[share]
        if images is not None:
            self.store(images)
            places = np.arange(len(images))
        indices = torch.from_numpy(places).to(self.device)
        mirrored = torch.from_numpy(draw.mirrored[share]).to(self.device)
        batch = Batch(
            images=self.pixels(self.select(self.images, draw, share, indices, mirrored)),
            labels=self.select(self.labels, draw, share, indices, mirrored).long(),
            counted=None
            if self.counted is None
            else self.select(self.counted, draw, share, indices, mirrored),
            prior=self.select(self.priors, draw, share, indices, mirrored).float() / 255,
            rng=torch.Generator(self.device).manual_seed(draw.seed),
            rank=self.rank,
            processes=self.processes,
        )
        if self.plan.enlarge_crops:
            batch = enlarged(batch, self.images.shape[-2:])
        if draw.recoloring is not None:
            recolored = self.recolored(batch.images, draw.recoloring, share)
            batch = batch._replace(images=recolored)
        taps = None
        if self.caches_features:
            rows = indices + len(self.images) * mirrored
            taps = [tap[rows].float() for tap in self.taps]
        elif self.frozen:
            taps = self.taps_of(batch.images)
        self.hold_backbone(holds_backbone(self.plan, draw.step))
        rate = learning_rate(self.plan, draw.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.optimizer.zero_grad()
        self.objective.train()
        with self.autocast():
            loss = self.objective(batch, taps)
        with with_others(self.processes):
            loss.backward()
        self.optimizer.step()
        return self.mean(loss.detach())

    def hold_backbone(self, hold: bool) -> None:
        """Stop or resume the training of the backbone; its optimizer state stays as it is."""
        if hold == self.holds_backbone:
            return
        self.holds_backbone = hold
        self.system.backbone.requires_grad_(not hold)
        if isinstance(self.objective, DistributedDataParallel):
            # It exchanges the gradients of the parameters that it finds when it is made.
            self.objective = DistributedDataParallel(self.objective.module)

    def recolored(self, pixels: Tensor, changes: Recoloring, share: list[int]) -> Tensor:
        """This process's share of a step's images, with their changes of colour."""
        gain, offset, noise = (
            torch.from_numpy(part[share]).to(self.device).permute(0, 3, 1, 2) for part in changes
        )
        changed = (pixels * gain + offset + noise).clamp(0, 1)
        return changed.contiguous(memory_format=self.layout)

    def select(
        self, stored: Tensor, draw: Draw, share: list[int], indices: Tensor, mirrored: Tensor
    ) -> Tensor:
        """This process's share of a step's images from `stored`, mirrored and cropped."""
        x = stored[indices]
        x = torch.where(mirrored.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
        if self.plan.crop is None:
            return x
        corners = draw.corners[share].tolist()
        side = self.plan.crop
        return torch.stack(
            [
                image[..., row : row + side, column : column + side]
                for image, (row, column) in zip(x, corners, strict=True)
            ]
        )

    @torch.no_grad()
    def output_of(self, batch: Batch) -> Tensor:
        self.system.eval()
        with self.autocast():
            return self.system(self.system.backbone(batch.images))

    @torch.no_grad()
    def maps(self, images: Images) -> dict[str, np.ndarray]:
        batch = self.as_batch(images)
        output = self.output_of(batch)
        if self.regions > 2:
            return {"regions": self.system.segmentation(output, batch).cpu().numpy()}
        maps = self.system.maps(output, batch)
        return {name: values.float().clamp(0, 1).cpu().numpy() for name, values in maps.items()}

    @torch.no_grad()
    def descriptors(self, images: Images) -> np.ndarray:
        batch = self.as_batch(images)
        return self.system.descriptors(self.output_of(batch), batch).cpu().numpy()

    @torch.no_grad()
    def backbone_features(self, images: Images) -> object:
        self.system.eval()
        with self.autocast():
            taps = self.system.backbone(self.as_batch(images).images)
        if "cuda" in self.device:
            torch.cuda.synchronize()
        return taps

    def pixel_weights(self, images: Images) -> np.ndarray:
        loss, output, labels, *_ = self.loss_view(images)
        output.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(output, labels), output)
        return gradient.abs().sum(dim=1).cpu().numpy()

    def loss_view(self, image: Images) -> LossView:
        batch = self.as_batch(image)
        self.system.eval()
        with torch.no_grad():
            output = self.system(self.system.backbone(batch.images))

        def loss(output: Tensor, labels: Tensor, mask: Tensor | None = batch.counted) -> Tensor:
            return self.system.loss(output, batch._replace(labels=labels, counted=mask))

        return LossView(loss, output, batch.labels, batch.images, batch.counted)

    def truth(self, images: Images, has_void: bool) -> tuple[Tensor, Tensor | None]:
        """The labels, 0 on void pixels, and the pixels that count; None if all do."""
        labels = torch.from_numpy(images.labels).to(self.device)
        if not has_void:
            return labels, None
        counted = labels != VOID
        return labels * counted, counted

    def as_batch(self, images: Images) -> Batch:
        labels, counted = self.truth(images, images.has_void)
        pixels = torch.from_numpy(images.images).to(self.device).permute(0, 3, 1, 2)
        return Batch(
            images=self.pixels(pixels),
            labels=labels.long(),
            counted=counted,
            prior=torch.from_numpy(np.array(images.priors)).to(self.device).float() / 255,
            rng=torch.Generator(self.device).manual_seed(self.seed),
        )

    def pixels(self, images: Tensor) -> Tensor:
        """Pixels from uint8 to [0, 1], in the memory layout that is fastest on the device."""
        return (images.float() / 255).contiguous(memory_format=self.layout)

    def weights(self) -> Arrays:
        return {
            name: tensor.cpu().numpy().copy()
            for name, tensor in self.system.state_dict().items()
            if not (self.backbone_is_shared and name.startswith("backbone."))
        }

    def load(self, weights: Arrays) -> None:
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
        missing, unexpected = self.system.load_state_dict(tensors, strict=False)
        missing = [
            m for m in missing if not (self.backbone_is_shared and m.startswith("backbone."))
        ]
        if missing or unexpected:
            raise InputError(
                f"the weights belong to another network: missing {first_few(missing) or 'none'}; "
                f"unexpected {first_few(unexpected) or 'none'}"
            )

    def state(self) -> Arrays:
        weights = {f"weights/{name}": array for name, array in self.weights().items()}
        moments = {
            f"optimizer/{index}/{name}": tensor.cpu().numpy().copy()
            for index, tensors in self.optimizer.state_dict()["state"].items()
            for name, tensor in tensors.items()
        }
        return weights | moments

    def restore(self, state: Arrays) -> None:
        weights: Arrays = {}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, array in state.items():
            kind, _, rest = name.partition("/")
            if kind == "weights":
                weights[rest] = array
            else:
                index, _, moment = rest.partition("/")
                moments.setdefault(int(index), {})[moment] = torch.from_numpy(array)
        self.load(weights)
        groups = self.optimizer.state_dict()["param_groups"]
        if moments:  # The optimizer has no state before the first step.
            head, *backbone = (group["params"] for group in self.optimizer.param_groups)
            parameters = [*head, *(p for group in backbone for p in group)]
            if holds_backbone(self.plan, 0) and not any(index >= len(head) for index in moments):
                parameters = head  # A backbone has no state before the stage that tunes it.
            wanted = {
                f"optimizer/{index}/{name}": np.zeros(()) if name == "step" else p
                for index, p in enumerate(parameters)
                for name in MOMENTS[self.plan.optimizer.name]
            }
            stored = {name: array for name, array in state.items() if name[:10] == "optimizer/"}
            if fault := describe_mismatch(stored, wanted):
                raise InputError(f"arrays of the optimizer: {fault}")
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for parameter, moments_of in self.optimizer.state.items():
            for name, moment in moments_of.items():
                if moment.ndim:  # The parameter's memory layout; any other is slow on a GPU.
                    moments_of[name] = torch.empty_like(parameter).copy_(moment)

    def any_process(self, flag: bool) -> bool:
        if self.processes == 1:
            return flag
        highest = torch.tensor(float(flag), device=self.device)
        with with_others(self.processes):
            distributed.all_reduce(highest, distributed.ReduceOp.MAX)
        return bool(highest)

    def mean(self, loss: Tensor) -> float:
        """Mean of the loss over all processes; their shares of the batch are equally large."""
        if self.processes > 1:
            with with_others(self.processes):
                distributed.all_reduce(loss)
            loss = loss / self.processes
        return loss.item()

    def autocast(self) -> torch.autocast:
        """bfloat16 on a GPU and float32 on a CPU, where `Objective` alone uses bfloat16.

        Networks convert their output to float32 before any loss or saturating function.
        """
        return torch.autocast("cuda", torch.bfloat16, enabled="cuda" in self.device)


def enlarged(batch: Batch, size: Sequence[int]) -> Batch:
    """The batch with images, labels and priors of a greater size."""
    return batch._replace(
        images=resize(batch.images, size),
        labels=nearest_resize(batch.labels, size),
        counted=None if batch.counted is None else nearest_resize(batch.counted, size),
        prior=resize(batch.prior[:, None], size)[:, 0],
    )


class Objective(nn.Module):
    """Training loss of a network as one forward pass, which DistributedDataParallel can wrap.

    half: Compute the backbone in bfloat16 on a CPU too. The heads stay in float32 there, as the
    gradient of a 3 x 3 convolution with many channels on few pixels takes 20 to 70 times as long
    in bfloat16 (PyTorch 2.13, AMD EPYC).
    """

    def __init__(self, system: System, half: bool) -> None:
        super().__init__()
        self.system = system
        self.in_bfloat16 = half

    def forward(self, batch: Batch, taps: list[Tensor] | None) -> Tensor:
        if taps is None and batch.images.is_cuda:
            taps = self.system.backbone(batch.images)
        elif taps is None:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.in_bfloat16):
                taps = [tap.float() for tap in self.system.backbone(batch.images)]
        return self.system.loss(self.system(taps), batch)


# What an optimizer keeps of a parameter, by the optimizer's name.
MOMENTS = {"Adam": ("step", "exp_avg", "exp_avg_sq"), "SGD": ("momentum_buffer",)}


def optimizer_of(plan: Scale, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer of a plan. `step` sets the learning rates."""
    if isinstance(plan.optimizer, SGD):
        momentum, decay = plan.optimizer.momentum, plan.optimizer.weight_decay
        return torch.optim.SGD(groups, plan.rate, momentum, weight_decay=decay)
    return torch.optim.Adam(groups)


def computes_in_bfloat16() -> bool:
    """True if the CPU has bfloat16 instructions; without them bfloat16 is slower than float32."""
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # Some versions of PyTorch lack it.
    return bool(has and has())


def begin(device: str, patience: float) -> tuple[str, int, int]:
    """Choose the device and join the processes that torchrun started.

    patience: See `Watch.begin`. Returns the device, the rank of this process and the number of
    processes.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no GPU; pass --device cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # On a CPU the same command gives the same bits. On a GPU the deterministic forms of several
    # gradients (bilinear upsampling, scatter) take a multiple of the time.
    torch.use_deterministic_algorithms(device == "cpu")
    # Filling takes time and reveals no error here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = device != "cpu"  # Sizes stay the same in all steps.
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        return device, 0, 1
    check_group(processes, device)
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        backend = "nccl" if "cuda" in device else "gloo"
        address = ":".join(os.environ.get(f"MASTER_{part}", "") for part in ("ADDR", "PORT"))
        with waiting(processes, address), with_others(processes):
            distributed.init_process_group(backend, timeout=timedelta(minutes=JOIN_MINUTES))

        def share(numbers: list[int]) -> list[int]:
            sent = torch.tensor(numbers, device=device)
            distributed.broadcast(sent, 0)
            return sent.tolist()

        host = os.environ.get("MASTER_ADDR", "")
        Watch.begin(distributed.get_rank(), processes, host, share, patience)
    return device, distributed.get_rank(), processes


def check_group(processes: int, device: str) -> None:
    """Raise an error unless this process knows its place among the others, and has its own GPU."""
    names = ("RANK", "MASTER_ADDR", "MASTER_PORT") + ("LOCAL_RANK",) * (device == "cuda")
    if missing := [name for name in names if name not in os.environ]:
        raise InputError(
            f"WORLD_SIZE is {processes}, but {' and '.join(missing)} must be set too; start the "
            "processes with torchrun, or omit WORLD_SIZE"
        )
    gpus = torch.cuda.device_count()
    if device == "cuda" and int(os.environ["LOCAL_RANK"]) >= gpus:
        raise InputError(
            f"LOCAL_RANK is {os.environ['LOCAL_RANK']}, but PyTorch finds {count(gpus, 'GPU')} "
            "here, and each process needs its own; start fewer processes, or pass --device cpu"
        )
