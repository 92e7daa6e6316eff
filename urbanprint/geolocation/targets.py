"""What is wanted of the images of a batch, and what it costs to miss it: the objectives of the two designs, and CutMix.

What belongs here: tensors of one batch, on any device. Both objectives take soft targets (b, classes) whose rows sum to
1, so that mixing two images mixes their targets in either design.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.losses import HierarchicalLoss, smoothed_targets


class LevelObjective(nn.Module):
    """Cross-entropy of one level's classes with label smoothing."""

    def __init__(self, classes: int, *, label_smoothing: float) -> None:
        super().__init__()
        self.classes = classes
        self.label_smoothing = label_smoothing

    def targets(self, labels: Tensor, places: Tensor) -> Tensor:  # noqa: ARG002 - the joint design needs them
        """What is wanted of images of these classes (b,): (b, classes), rows sum to 1."""
        return functional.one_hot(labels, self.classes).float()

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = self.label_smoothing if self.training else 0.0
        return functional.cross_entropy(logits.float(), targets, label_smoothing=smoothing)


class JointObjective(nn.Module):
    """`HierarchicalLoss` with targets that fall off with the distance of an image from the leaves' centres."""

    def __init__(
        self, hierarchy: Hierarchy, centres: Tensor, *, tau_km: float, level_weights: Sequence[float] | None = None
    ) -> None:
        """Take the leaves' centres (leaves, 2) in degrees; all levels weigh 1 where `level_weights` is None."""
        super().__init__()
        self.loss = HierarchicalLoss(hierarchy, level_weights=level_weights or (1.0,) * len(hierarchy.levels))
        self.tau_km = tau_km
        self.register_buffer("centres", centres)

    def targets(self, labels: Tensor, places: Tensor) -> Tensor:
        """Targets (b, leaves) of images of these leaves (b,) at longitude and latitude (b, 2); rows sum to 1.

        Where another leaf's centre is nearer than that of the image's own, as in a cell so large that it was not
        divided, distances to centres say nothing, and its own takes all.
        """
        centres = self.get_buffer("centres")
        smoothed = smoothed_targets(*places.T, *centres.T, tau_km=self.tau_km)
        own = smoothed.gather(1, labels[:, None])
        plain = functional.one_hot(labels, len(centres)).to(smoothed.dtype)
        return torch.where(own >= smoothed.amax(dim=1, keepdim=True), smoothed, plain)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.loss(logits, targets)


def cut_and_mix(views: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """CutMix of a batch: a rectangle of each view is that of another, and so is its share of the target.

    Views (n, 3, H, W), targets (n, k). One rectangle for the batch, of an area drawn uniformly, around a place drawn
    uniformly and cut off at the edges (Yun et al. 2019, "CutMix: Regularization strategy to train strong classifiers
    with localizable features", ICCV, with alpha = 1).
    """
    height, width = views.shape[2:]
    area, across, down = torch.rand(3, generator=generator).tolist()
    half = math.sqrt(area) / 2
    top, bottom = (round(height * min(max(down + side, 0.0), 1.0)) for side in (-half, half))
    left, right = (round(width * min(max(across + side, 0.0), 1.0)) for side in (-half, half))
    other = torch.randperm(len(views), generator=generator).to(views.device)
    mixed = views.clone()
    mixed[:, :, top:bottom, left:right] = views[other, :, top:bottom, left:right]
    share = (bottom - top) * (right - left) / (height * width)
    return mixed, (1.0 - share) * targets + share * targets[other]
