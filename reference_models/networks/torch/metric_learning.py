"""Losses of metric learning that C compares CAS with (C Tables 2 and 3), in PyTorch.

Each takes descriptors `(N, C, H, W)`, softmax outputs, and region numbers `(N, H, W)` below
`regions`, and returns the mean over images. None of them depends on which number a region has.
`counted` is bool `(N, H, W)`, False on void pixels; None counts all.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot, relu

from reference_models.networks import metric_learning as constants


def discriminative_loss(
    descriptors: Tensor, labels: Tensor, regions: int, counted: Tensor | None = None
) -> Tensor:
    """Pull to the region's mean, push between the means, and the means' norms.

    mean_r mean_{i in r} [‖μ_r − s_i‖ − δ_v]₊² + mean_{r≠q} [2 δ_d − ‖μ_r − μ_q‖]₊² + γ mean_r ‖μ_r‖
    (De Brabandere, Neven and Van Gool, 2017, eq. 1 to 4), with the margins of `constants`.
    """
    s, member, area, means = by_region(descriptors, labels, regions, counted)
    present, least_one = (area > 0).float(), area.clamp(min=1)
    count = present.sum(dim=1).clamp(min=1)
    pull = relu(norm(s - means @ member.mT) - constants.PULL) ** 2
    pull = (pull[:, None] @ member)[:, 0] / least_one
    apart = norm(means[..., None] - means[:, :, None])
    pairs = present[:, :, None] * present[:, None] * (1 - torch.eye(regions, device=s.device))
    push = relu(constants.PUSH - apart) ** 2 * pairs
    loss = (
        pull.sum(dim=1) / count
        + push.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)
        + constants.REGULARISER * (norm(means) * present).sum(dim=1) / count
    )
    return loss.mean()


def triplet_loss(descriptors: Tensor, labels: Tensor, counted: Tensor | None = None) -> Tensor:
    """Each anchor lies nearer to pixels of its region than to others, by a margin.

    The mean of [‖s_a − s_p‖² − ‖s_a − s_n‖² + margin]₊ over the triplets of an image (Schroff,
    Kalenichenko and Philbin, 2015, eq. 3): a pixel, and two of its partners, one in its region and
    one outside. Triplets are not mined. An image without a triplet has loss 0.
    """
    step = constants.STRIDE
    s = descriptors[:, :, ::step, ::step].flatten(2)
    region = labels[:, ::step, ::step].flatten(1)
    partners = torch.from_numpy(constants.partners(region.shape[1])).to(s.device)
    distance = (s[:, :, None] - s[:, :, partners]).square().sum(dim=1)
    same = region[:, None] == region[:, partners]
    excess = relu(distance[:, :, None] - distance[:, None] + constants.TRIPLET_MARGIN)
    other = ~same
    if counted is not None:
        counts = counted[:, ::step, ::step].flatten(1)
        pairs = counts[:, None] & counts[:, partners]
        same, other = same & pairs, other & pairs
    triplets = (same[:, :, None] & other[:, None]).float()
    total = (excess * triplets).sum(dim=(1, 2, 3))
    return (total / triplets.sum(dim=(1, 2, 3)).clamp(min=1)).mean()


def magnet_loss(
    descriptors: Tensor, labels: Tensor, regions: int, counted: Tensor | None = None
) -> Tensor:
    """Each descriptor lies nearer to its region's mean than to the others, in units of the spread.

    The mean over pixels of [‖s − μ_own‖² / 2σ² + α + log Σ_{q ≠ own} exp(−‖s − μ_q‖² / 2σ²)]₊ with
    σ² = Σ ‖s − μ_own‖² / (pixels − 1) (Rippel et al., 2016, eq. 5 and 6). The regions of an image
    stand for the classes of a batch, with one cluster each. An image of one region has loss 0.
    """
    s, member, area, means = by_region(descriptors, labels, regions, counted)
    pixels = area.sum(dim=1)
    # For precision; the loss does not depend on it.
    centre = (means.detach() * area[:, None]).sum(dim=2) / pixels.clamp(min=1)[:, None]
    centre = centre[..., None]
    s, means = s - centre, means - centre
    squares = s.square().sum(dim=1)[:, :, None] + means.square().sum(dim=1)[:, None]
    distance = relu(squares - 2 * s.mT @ means)
    own = (distance * member).sum(dim=2)
    variance = own.sum(dim=1) / (pixels - 1).clamp(min=1) + constants.LEAST_VARIANCE
    other = (area > 0)[:, None] & (member == 0)
    exponents = torch.where(other, -distance / (2 * variance[:, None, None]), -1e9)
    excess = own / (2 * variance[:, None]) + constants.MAGNET_MARGIN + exponents.logsumexp(dim=2)
    # The sum of a pixel's memberships is 0 if it does not count.
    each = (relu(excess) * member.sum(dim=2)).sum(dim=1) / pixels.clamp(min=1)
    return (each * ((area > 0).sum(dim=1) > 1)).mean()


def by_region(
    descriptors: Tensor, labels: Tensor, regions: int, counted: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Descriptors `(N, C, P)`, membership of pixels `(N, P, R)`, areas `(N, R)` and means
    `(N, C, R)`."""
    s = descriptors.flatten(2)
    member = one_hot(labels.flatten(1), regions).to(s.dtype)
    if counted is not None:
        member = member * counted.flatten(1)[..., None]
    area = member.sum(dim=1)
    return s, member, area, s @ member / area.clamp(min=1)[:, None]


def norm(x: Tensor) -> Tensor:
    """The norm over the channels."""
    return (x.square().sum(dim=1) + constants.TINY).sqrt()
