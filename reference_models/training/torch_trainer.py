"""Training of any system in PyTorch: on one device, or in several processes by torchrun."""

import hashlib
import os
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

from reference_models.data.images import Images
from reference_models.errors import InputError, first_few
from reference_models.files import Arrays, describe_mismatch
from reference_models.machine import progress
from reference_models.networks.torch.backbones import load_backbone
from reference_models.networks.torch.build import build
from reference_models.networks.torch.system import Batch, System
from reference_models.options import Options
from reference_models.training.trainer import Draw, LossView, one_cycle

Features = dict[str, list[Tensor]]
"""Taps of whole sets under frozen backbones, by what they depend on."""


class TorchTrainer:
    """`reference_models.training.loop.Trainer` for any system."""

    def __init__(
        self, options: Options, features: Features | None = None, imagenet: bool = True
    ) -> None:
        self.device, self.rank, self.processes = begin(options.device)
        self.is_main_process = self.rank == 0
        self.plan = plan = options.plan
        torch.manual_seed(options.seed)
        self.seed = options.seed
        self.regions = options.chosen_recipe.regions
        self.frozen = plan.backbone is not None and plan.backbone_rate == 0
        tuned = plan.backbone is not None and not self.frozen
        on_gpu = "cuda" in self.device
        # A frozen backbone is left out of the weights where everybody has it.
        self.backbone_is_shared = self.frozen and options.backbone_weights is None
        # Small batches stay in the processor's caches: 12 ms an image in place of 44 ms.
        self.inference_batch = 64 if on_gpu else 8
        self.layout = torch.channels_last if on_gpu or tuned else torch.contiguous_format
        self.half = on_gpu or (tuned and computes_in_bfloat16())
        self.precision = "bfloat16" if self.half else "float32"
        self.system = build(options.chosen_recipe.network(plan)).to(self.device)
        self.system.to(memory_format=self.layout)  # type: ignore[call-overload]
        if plan.backbone is not None:
            if imagenet:
                load_backbone(self.system.backbone, options.backbone_file)
            self.system.backbone.requires_grad_(not self.frozen)
        learnt = dict(self.system.named_parameters())
        own = [p for name, p in learnt.items() if not name.startswith("backbone.")]
        groups: list[dict[str, Any]] = [{"params": own, "share": 1.0}]
        if tuned:
            backbone = [p for name, p in learnt.items() if name.startswith("backbone.")]
            groups.append({"params": backbone, "share": plan.backbone_rate})
        self.optimizer = torch.optim.Adam(groups)
        self.parameters = sum(p.numel() for group in groups for p in group["params"])
        self.features = {} if features is None else features

    def set_training_images(self, images: Images) -> None:
        # Here and not before: one process alone may load a trained network.
        self.objective: nn.Module = Objective(self.system, self.half)
        if self.processes > 1:
            batch = min(self.plan.batch, len(images))
            if batch % self.processes:
                raise InputError(
                    f"a batch of {batch} cannot be shared evenly by {self.processes} processes"
                )
            if any(isinstance(module, nn.BatchNorm2d) for module in self.system.modules()):
                if "cuda" not in self.device:
                    raise InputError(
                        "batch normalisation is joined over several processes on GPUs only; train "
                        "this network in one process"
                    )
                self.objective = nn.SyncBatchNorm.convert_sync_batchnorm(self.objective)
            self.objective = DistributedDataParallel(self.objective)
        self.images = torch.from_numpy(images.images).to(self.device).permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(images.labels).to(self.device)
        # One prior for all images stays one in memory.
        shared = images.priors.strides[0] == 0
        priors = torch.from_numpy(np.array(images.priors[:1] if shared else images.priors))
        self.priors = priors.to(self.device).expand(len(images), -1, -1)
        if self.frozen:
            digest = hashlib.sha256(np.ascontiguousarray(images.images).data).hexdigest()
            key = f"{self.plan.backbone} {digest}"
            if key not in self.features:
                self.features.clear()  # One set at a time: they take gigabytes.
                self.features[key] = self.all_taps()
            self.taps = self.features[key]

    @torch.no_grad()
    def all_taps(self) -> list[Tensor]:
        """The backbone's maps of every image, then of every mirrored image, in half precision."""
        parts: list[list[Tensor]] = []
        with self.autocast():
            for mirrored in (False, True):
                parted = self.images.split(self.inference_batch)
                for images in progress(parted, desc="features", disable=not self.is_main_process):
                    pixels = self.pixels(images.flip(-1) if mirrored else images)
                    parts.append([tap.half() for tap in self.system.backbone(pixels)])
        return [torch.cat(taps) for taps in zip(*parts, strict=True)]

    def step(self, draw: Draw) -> float:
        share: list[int] = list(
            DistributedSampler(
                range(len(draw.indices)),  # type: ignore[arg-type]
                self.processes,
                self.rank,
                shuffle=False,
            )
        )
        indices = torch.from_numpy(draw.indices[share]).to(self.device)
        mirrored = torch.from_numpy(draw.mirrored[share]).to(self.device)
        batch = Batch(
            images=self.pixels(self.chosen(self.images, draw, share, indices, mirrored)),
            labels=self.chosen(self.labels, draw, share, indices, mirrored).long(),
            prior=self.chosen(self.priors, draw, share, indices, mirrored).float() / 255,
            rng=torch.Generator(self.device).manual_seed(draw.seed),
            rank=self.rank,
            processes=self.processes,
        )
        taps = None
        if self.frozen:
            rows = indices + len(self.images) * mirrored
            taps = [tap[rows].float() for tap in self.taps]
        rate = one_cycle(draw.step, self.plan.steps, self.plan.rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.optimizer.zero_grad()
        self.objective.train()
        with self.autocast():
            loss = self.objective(batch, taps)
        loss.backward()
        self.optimizer.step()
        return self.mean(loss.detach())

    def chosen(
        self, held: Tensor, draw: Draw, share: list[int], indices: Tensor, mirrored: Tensor
    ) -> Tensor:
        """The step's share of `held`, mirrored along the last axis, cropped."""
        x = held[indices]
        x = torch.where(mirrored.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
        if self.plan.crop is None:
            return x
        corners = draw.corners[share].tolist()
        side = self.plan.crop
        return torch.stack(
            [one[..., r : r + side, c : c + side] for one, (r, c) in zip(x, corners, strict=True)]
        )

    @torch.no_grad()
    def maps(self, images: Images) -> dict[str, np.ndarray]:
        batch = self.whole(images)
        self.system.eval()
        with self.autocast():
            output = self.system(self.system.backbone(batch.images))
        if self.regions > 2:
            return {"regions": self.system.segmentation(output, batch).cpu().numpy()}
        maps = self.system.maps(output, batch)
        return {name: values.float().clamp(0, 1).cpu().numpy() for name, values in maps.items()}

    def pixel_weights(self, images: Images) -> np.ndarray:
        loss, output, labels, _ = self.loss_view(images)
        output.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(output, labels), output)
        return gradient.abs().sum(dim=1).cpu().numpy()

    def loss_view(self, image: Images) -> LossView:
        batch = self.whole(image)
        self.system.eval()
        with torch.no_grad():
            output = self.system(self.system.backbone(batch.images))

        def loss(output: Tensor, labels: Tensor) -> Tensor:
            return self.system.loss(output, batch._replace(labels=labels))

        return LossView(loss, output, batch.labels, batch.images)

    def whole(self, images: Images) -> Batch:
        pixels = torch.from_numpy(images.images).to(self.device).permute(0, 3, 1, 2)
        return Batch(
            images=self.pixels(pixels),
            labels=torch.from_numpy(images.labels).to(self.device).long(),
            prior=torch.from_numpy(np.array(images.priors)).to(self.device).float() / 255,
            rng=torch.Generator(self.device).manual_seed(self.seed),
        )

    def pixels(self, images: Tensor) -> Tensor:
        """uint8 to [0, 1], in the layout that the device's convolutions want."""
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
                f"the weights are of another network: missing {first_few(missing)}; "
                f"unexpected {first_few(unexpected)}"
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
        if moments:  # There are none before the first step.
            learnt = [p for group in self.optimizer.param_groups for p in group["params"]]
            wanted = {
                f"optimizer/{place}/{name}": like
                for place, p in enumerate(learnt)
                for name, like in (("step", np.zeros(())), ("exp_avg", p), ("exp_avg_sq", p))
            }
            given = {name: array for name, array in state.items() if name[:10] == "optimizer/"}
            if fault := describe_mismatch(given, wanted):
                raise InputError(f"of the optimizer's arrays are {fault}")
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for parameter, held in self.optimizer.state.items():
            for name, moment in held.items():
                if moment.ndim:  # As Adam lays it out itself; any other order is slow on a GPU.
                    held[name] = torch.empty_like(parameter).copy_(moment)

    def any_process(self, flag: bool) -> bool:
        if self.processes == 1:
            return flag
        raised = torch.tensor(float(flag), device=self.device)
        distributed.all_reduce(raised, distributed.ReduceOp.MAX)
        return bool(raised)

    def mean(self, loss: Tensor) -> float:
        """Of all processes' shares, which are equally large."""
        if self.processes > 1:
            distributed.all_reduce(loss)
            loss = loss / self.processes
        return loss.item()

    def autocast(self) -> torch.autocast:
        """bfloat16 on a GPU, float32 on a CPU, which has it in `Objective` alone. The systems widen
        what they put out before a loss or a saturating function sees it."""
        return torch.autocast("cuda", torch.bfloat16, enabled="cuda" in self.device)


class Objective(nn.Module):
    """A system's training loss as one forward pass, which is what data parallelism wraps.

    half: compute the backbone in bfloat16 on a CPU too. The heads stay in float32 there: the
    gradient of a 3 x 3 convolution of many channels on a few pixels takes 20 to 70 times as long
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


def computes_in_bfloat16() -> bool:
    """Whether the processor has instructions for it; without them it is slower than float32."""
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # Not in every PyTorch.
    return bool(has and has())


def begin(device: str) -> tuple[str, int, int]:
    """The device, this process's rank and the number of processes; joins what torchrun started."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this PyTorch finds no GPU; give --device cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # The same bits from the same command on a CPU. On a GPU several gradients (bilinear
    # upsampling, scatter) have a deterministic form only at a multiple of the time.
    torch.use_deterministic_algorithms(device == "cpu")
    # Costs time, and shows nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = device != "cpu"  # The sizes stay the same from step to step.
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        return device, 0, 1
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        backend = "nccl" if "cuda" in device else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(hours=2))
    return device, distributed.get_rank(), processes
