"""Estimates of how long a training will take, measured on its first steps."""

import time

from reference_models.papers.schema import Scale
from reference_models.training.trainer import holds_backbone

# After so many steps there is an estimate, from all but the first so many: the first step compiles
# and warms up.
LEFT_OUT = {2: 1, 12: 2}
WORTH_SAYING = 600
"""Seconds below which nothing is said."""


class Cost:
    """Measures the steps of a training, and says what the rest of it will cost.

    Steps that keep the backbone cost less than those that tune it, so each of these two parts of a
    training is measured anew.
    """

    def __init__(self, plan: Scale, device: str) -> None:
        self.plan, self.device = plan, device
        self.holds: bool | None = None
        self.ends: list[float] = []

    def after(self, step: int) -> str | None:
        """Count a finished step; returns a line to print, or None."""
        holds = holds_backbone(self.plan, step)
        if holds != self.holds:
            self.holds, self.ends = holds, []
        if len(self.ends) == max(LEFT_OUT):
            return None
        self.ends.append(time.monotonic())
        seen = len(self.ends)
        if seen not in LEFT_OUT:
            return None
        left_out = LEFT_OUT[seen]
        per_step = (self.ends[-1] - self.ends[left_out - 1]) / (seen - left_out)
        left = steps_left(self.plan, step)
        if per_step * left < WORTH_SAYING:
            return None
        part = " that keep the backbone frozen" if holds else ""
        of = "one step" if seen == left_out + 1 else f"{seen - left_out} steps"
        return (
            f"about {duration(per_step * left)} on {self.device} for the {left:,} steps left{part} "
            f"({per_step:.2g} s per step, measured on {of})"
        )


def steps_left(plan: Scale, step: int) -> int:
    """Number of the steps after this one, up to the next that tunes or freezes the backbone."""
    kind = holds_backbone(plan, step)
    after = range(step + 1, plan.steps)
    return next((k for k in after if holds_backbone(plan, k) != kind), plan.steps) - step - 1


def duration(seconds: float) -> str:
    """The number of minutes, hours or days."""
    for unit, length in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"
