"""What each loss asks of the network, in PyTorch: a training loss and a saliency map."""

import os

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from reference_models.data import Images
from reference_models.options import CHANNELS, InputError, Loss
from reference_models.runs import Arrays
from reference_models.torch.network import Critic, SaliencyNet
from saliency_losses.torch import (
    anchor_probabilities,
    anchor_softmax_loss,
    cas_loss,
    class_agnostic_cross_entropy,
    flip_labels,
    foreground_vector,
    js_mutual_information_loss,
    merge_by_confidence,
    metric_loss,
    region_anchors,
    relation_pairs,
    update_prior,
    weighted_fbeta_loss,
)


def training_loss(
    loss: Loss, model: nn.ModuleDict, output: Tensor, labels: Tensor, prior: Tensor, noise_seed: int
) -> Tensor:
    """The loss of a batch. output `(N, C, H, W)`; labels 0/1 and prior in [0, 1], `(N, H, W)`."""
    match loss:
        case "cross-entropy":
            return cross_entropy(output, labels)
        case "class-agnostic-cross-entropy":
            return class_agnostic_cross_entropy(output, labels)
        case "cas":
            return cas_loss(output.softmax(dim=1), labels)
        case "metric":
            logits, features = output[:, :2], output[:, 2:].tanh()
            return cross_entropy(logits, labels) + metric_loss(features, labels, normalize=True)
        case "weighted-fbeta":
            return weighted_fbeta_loss(output.sigmoid(), labels[:, None])
        case "anchor":
            rng = torch.Generator(labels.device).manual_seed(noise_seed)
            flipped = flip_labels(labels, 0.2, rng)
            anchors = region_anchors(output, torch.stack([1 - flipped, flipped], dim=1).float())
            return anchor_softmax_loss(output, anchors, labels)
        case "js-mi":
            joint, mask = relation_pairs(prior)
            scores = model["critic"](output, foreground_vector(output, prior))
            return js_mutual_information_loss(scores, joint, mask=mask)


def saliency_map(loss: Loss, model: nn.ModuleDict, output: Tensor, prior: Tensor) -> Tensor:
    """The network's saliency map, `(N, H, W)` in [0, 1]."""
    match loss:
        case "cross-entropy" | "class-agnostic-cross-entropy" | "cas" | "metric":
            return output[:, :2].softmax(dim=1)[:, 1]
        case "weighted-fbeta":
            return output.sigmoid()[:, 0]
        case "anchor":
            for step in range(1, 6):
                anchors = region_anchors(output, torch.stack([1 - prior, prior], dim=1))
                prior = update_prior(prior, anchor_probabilities(output, anchors)[:, 1], step)
            return prior
        case "js-mi":
            scores = model["critic"](output, foreground_vector(output, prior))
            return merge_by_confidence(prior, scores.sigmoid())


class TorchTrainer:
    """`reference_models.loop.Trainer` in PyTorch."""

    def __init__(self, loss: Loss, seed: int, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: this PyTorch finds no GPU; give --device cpu or auto")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        # The same bits from the same command; on a GPU this needs cuBLAS's fixed workspace.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(seed)
        self.loss, self.device = loss, device
        self.model = nn.ModuleDict({"net": SaliencyNet(CHANNELS[loss])})
        if loss == "js-mi":
            self.model["critic"] = Critic(CHANNELS[loss])
        self.model.to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters())

    def step(self, batch: Images, rate: float, noise_seed: int) -> float:
        images, labels, prior = self.tensors(batch)
        output = self.model["net"](images)
        loss = training_loss(self.loss, self.model, output, labels, prior, noise_seed)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def maps(self, images: Images) -> np.ndarray:
        pixels, _, prior = self.tensors(images)
        output = self.model["net"](pixels)
        return saliency_map(self.loss, self.model, output, prior).clamp(0, 1).cpu().numpy()

    def pixel_weights(self, batch: Images) -> np.ndarray:
        images, labels, prior = self.tensors(batch)
        output = self.model["net"](images).detach().requires_grad_()
        loss = training_loss(self.loss, self.model, output, labels, prior, noise_seed=0)
        (gradient,) = torch.autograd.grad(loss, output)
        return gradient.abs().sum(dim=1).cpu().numpy()

    def weights(self) -> Arrays:
        return {name: t.cpu().numpy().copy() for name, t in self.model.state_dict().items()}

    def state(self) -> Arrays:
        weights = {f"weights/{name}": array for name, array in self.weights().items()}
        moments = {
            f"optimizer/{index}/{name}": tensor.cpu().numpy().copy()
            for index, tensors in self.optimizer.state_dict()["state"].items()
            for name, tensor in tensors.items()
        }
        return weights | moments

    def restore(self, state: Arrays) -> None:
        weights: dict[str, Tensor] = {}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, array in state.items():
            kind, _, rest = name.partition("/")
            if kind == "weights":
                weights[rest] = torch.from_numpy(array)
            else:
                index, _, moment = rest.partition("/")
                moments.setdefault(int(index), {})[moment] = torch.from_numpy(array)
        self.model.load_state_dict(weights)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})

    def tensors(self, batch: Images) -> tuple[Tensor, Tensor, Tensor]:
        """Images `(N, 3, H, W)` in [0, 1], labels `(N, H, W)` 0/1, priors `(N, H, W)` in [0, 1]."""
        images = torch.from_numpy(batch.images).to(self.device).permute(0, 3, 1, 2) / 255
        labels = torch.from_numpy(batch.masks).to(self.device).long()
        return images.contiguous(), labels, torch.from_numpy(batch.priors).to(self.device) / 255
