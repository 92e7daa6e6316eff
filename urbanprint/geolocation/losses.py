"""Losses of a classifier of the leaves: near misses cost less than far ones, and every level has its say. Torch only.

What belongs here: tensors in, scalars out. All sums of exponentials are in float32 (float64 if given), also under
bfloat16 autocast, and on any device; no step loops over classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from urbanprint.errors import InputError
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.sphere import EARTH_KM


def segment_logsumexp(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """Logsumexp over the columns of `values` (b, k) in each segment (k,) of 0 .. count - 1: (b, count).

    Stable: each segment has its own maximum. -inf for a segment without columns. In float32 at least.
    """
    values = _precise(values)
    shape = (len(values), count)
    index = segment.expand_as(values)
    lowest = torch.finfo(values.dtype).min
    highest = values.new_full(shape, lowest).scatter_reduce(1, index, values.detach(), "amax", include_self=True)
    with torch.autocast(values.device.type, enabled=False):
        total = values.new_zeros(shape).index_add(1, segment, torch.exp(values - highest[:, segment]))
        return highest + torch.log(total)


def haversine_km(longitude: Tensor, latitude: Tensor, other_longitude: Tensor, other_latitude: Tensor) -> Tensor:
    """Great-circle distance in km of points in degrees, which broadcast; in float32 it is right to about a metre.

    Not by the cosine of the angle: in float32 that is off by up to 3 km at short range.
    """
    x, y, other_x, other_y = (
        torch.deg2rad(_precise(v)) for v in (longitude, latitude, other_longitude, other_latitude)
    )
    h = torch.sin((other_y - y) / 2) ** 2 + torch.cos(y) * torch.cos(other_y) * torch.sin((other_x - x) / 2) ** 2
    return 2 * EARTH_KM * torch.asin(torch.sqrt(h.clamp(0.0, 1.0)))


def smoothed_targets(
    longitude: Tensor, latitude: Tensor, cell_longitude: Tensor, cell_latitude: Tensor, *, tau_km: float
) -> Tensor:
    """Targets (b, k) over cells with centres (k,) for images at (b,), in degrees; rows sum to 1.

    Proportional to exp(-(d(c, y) - d(c_true, y)) / tau), d the distance of the image y from a cell's centre in km (Haas
    et al. 2023, "PIGEON: Predicting image geolocations", with tau = 75 km). There the weights are used as they
    are, and an image in a dense region counts as often as it has near cells; here they sum to 1, so that every image
    counts once. The true cell's term then cancels and needs no label. With tau -> 0 the nearest centre takes all.

    Raises `InputError` for a tau that is not above 0.
    """
    if not tau_km > 0.0:
        raise InputError(f"tau_km = {tau_km}: a distance above 0 km is expected, such as 75.")
    distance = haversine_km(longitude[:, None], latitude[:, None], cell_longitude, cell_latitude)
    return torch.softmax(-distance / tau_km, dim=1)


class HierarchicalLoss(nn.Module):
    """Cross-entropy at every level, from logits (b, leaves) and targets (b, leaves) whose rows sum to 1.

    The log-probability of a cell is the logsumexp of its leaves, its target the sum of theirs (Astruc et al. 2024,
    OpenStreetView-5M, uses the sum of leaves likewise). `level_weights` are one a level from coarse to fine, at least 0
    and not all 0. Targets are `smoothed_targets` or one-hot. Raises `InputError` for other weights.
    """

    def __init__(self, hierarchy: Hierarchy, *, level_weights: Sequence[float]) -> None:
        super().__init__()
        if len(level_weights) != len(hierarchy.levels):
            raise InputError(f"There are {len(level_weights)} level_weights for the levels {list(hierarchy.numbers)}.")
        if min(level_weights) < 0 or not 0 < sum(level_weights) < float("inf"):
            raise InputError(f"level_weights = {list(level_weights)}: numbers of at least 0 are expected, not all 0.")
        self.level_weights = tuple(level_weights)
        self.classes = tuple(len(level) for level in hierarchy.levels)
        for number, level in enumerate(hierarchy.levels):
            # The hierarchy is stored with the model; weights files need not hold it again.
            self.register_buffer(f"parents_{number}", torch.from_numpy(level.parents), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, image_weights: Tensor | None = None) -> Tensor:
        """Mean over the images, or the mean weighted by `image_weights` (b,), such as those of their true class."""
        with torch.autocast(logits.device.type, enabled=False):
            log_p = torch.log_softmax(_precise(logits), dim=1)
            targets = targets.to(log_p.dtype)
            loss = log_p.new_zeros(len(log_p))
            for number in reversed(range(len(self.classes))):
                loss = loss - self.level_weights[number] * (targets * log_p).sum(dim=1)
                if number:
                    parents, count = self.get_buffer(f"parents_{number}"), self.classes[number - 1]
                    log_p = segment_logsumexp(log_p, parents, count)
                    targets = targets.new_zeros(len(targets), count).index_add(1, parents, targets)
            return loss.mean() if image_weights is None else (loss * image_weights).sum() / image_weights.sum()


def effective_number_weights(counts: np.ndarray, *, beta: float = 0.999) -> Tensor:
    """Class weights (k,) proportional to (1 - beta) / (1 - beta^n) for n training images, their mean 1; float32.

    The inverse of the effective number of samples (Cui et al. 2019, "Class-balanced loss based on effective number of
    samples", CVPR). beta 0 weighs all classes alike, beta -> 1 by 1 / n. A class without images has no weight and does
    not count in the mean. Raises `InputError` for a beta outside [0, 1), or where no class has images.
    """
    if not 0.0 <= beta < 1.0:
        raise InputError(f"beta = {beta}: a number from 0 to below 1 is expected, such as 0.999.")
    counts = np.asarray(counts, dtype=np.float64)
    present = counts > 0
    if not present.any():
        raise InputError(f"None of the {len(counts)} classes has training images: weights need at least one.")
    weights = np.zeros(len(counts))
    weights[present] = (1.0 - beta) / (1.0 - beta ** counts[present])
    return torch.from_numpy(weights / weights[present].mean()).float()


def _precise(values: Tensor) -> Tensor:
    """In float32, float64 if that is what it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
