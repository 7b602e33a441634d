"""What a run can be told, and what each loss means for the network."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

Loss = Literal[
    "metric",
    "cas",
    "weighted-fbeta",
    "anchor",
    "js-mi",
    "cross-entropy",
    "class-agnostic-cross-entropy",
]
LOSSES: tuple[Loss, ...] = get_args(Loss)

# Channels of the network's output: two logits, one logit, an embedding, or two logits and features.
CHANNELS: dict[Loss, int] = {
    "metric": 2 + 16,
    "cas": 2,
    "weighted-fbeta": 1,
    "anchor": 16,
    "js-mi": 16,
    "cross-entropy": 2,
    "class-agnostic-cross-entropy": 2,
}

LEARNS_FROM: dict[Loss, str] = {
    "metric": "the masks: cross-entropy on two channels plus the metric loss on sixteen features",
    "cas": "the masks, but not which side of a mask is the object: "
    "that is chosen on validation images",
    "weighted-fbeta": "the masks",
    "anchor": "the masks, with a fifth of the pixels flipped for the anchors; "
    "at test from a prior map",
    "js-mi": "the confident pixels of prior maps alone; masks serve the measures only",
    "cross-entropy": "the masks",
    "class-agnostic-cross-entropy": "the masks, each image up to the exchange of its two classes; "
    "the salient channel is chosen on validation images",
}

USES_PRIOR: tuple[Loss, ...] = ("anchor", "js-mi")

# The map of these may come out inverted, so its sense is chosen on validation images.
CLASS_AGNOSTIC: tuple[Loss, ...] = ("cas", "class-agnostic-cross-entropy")


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what and how to repair it."""


@dataclass(frozen=True)
class Options:
    """Train a small encoder–decoder for salient objects with one of the losses.

    Without --data it trains on generated scenes: a striped or checked object on smooth blobs.
    The run folder receives weights.safetensors, run.json, loss.png and sheet.png. A command that
    was stopped goes on from its last checkpoint when it is given again.
    """

    loss: Loss = "cas"
    """The loss to train with."""
    backend: Literal["torch", "jax"] = "torch"
    """The framework to train in."""
    demo: bool = False
    """Draw the README's first picture instead: half of the labels swapped, three losses."""
    data: Path | None = None
    """A folder or zip with images/ and masks/ of equal stems; optional priors/ and splits/."""
    out: Path | None = None
    """The run folder; by default runs/LOSS-BACKEND-SEED, or runs/demo-BACKEND-SEED."""
    size: int = 64
    """Side in pixels to which everything is made square; a multiple of 4."""
    scenes: int = 600
    """How many scenes to generate for training; 40 for validation and 150 held out come on top."""
    steps: int | None = None
    """Training steps; by default 600, and 300 per network with --demo."""
    batch: int = 16
    """Images per step."""
    learning_rate: float = 3e-3
    """The peak of the one-cycle schedule."""
    swap_labels: float = 0.0
    """Share of the training images, from 0 to 1, whose two labels are exchanged."""
    seed: int = 0
    """Decides scenes, splits, order of batches and initial weights."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints."""

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 4:
            raise InputError(f"--size must be a multiple of 4, at least 16, got {self.size}")
        for name in ("scenes", "total_steps", "batch"):
            if getattr(self, name) < 1:
                flag = "steps" if name == "total_steps" else name
                raise InputError(f"--{flag} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.swap_labels <= 1:
            raise InputError(f"--swap-labels must lie in 0..1, got {self.swap_labels}")
        if not self.learning_rate > 0:
            raise InputError(f"--learning-rate must be positive, got {self.learning_rate}")
        if self.seed < 0:
            raise InputError(f"--seed must not be negative, got {self.seed}")

    @property
    def total_steps(self) -> int:
        return self.steps if self.steps is not None else (300 if self.demo else 600)

    @property
    def folder(self) -> Path:
        name = "demo" if self.demo else self.loss
        return self.out or Path("runs") / f"{name}-{self.backend}-{self.seed}"

    def as_json(self) -> dict[str, object]:
        """The options that decide the result, and none other, so that two runs can be compared."""
        kept = asdict(self) | {"steps": self.total_steps}
        kept["data"] = str(self.data.resolve()) if self.data else None
        return {key: kept[key] for key in kept if key not in ("out", "checkpoint_seconds")}
