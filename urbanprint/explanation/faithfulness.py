"""Is an explanation about what it claims to be about? Tests of maps against planted truths and against the model.

A map that looks convincing proves nothing. Two figures can fail: the share of a map's energy on the cues known to
matter, beside their share of the pixels; and how fast the prediction moves when the pixels a map ranks first are
removed, beside random pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from urbanprint.explanation.gradcam import upsample


@dataclass(frozen=True, kw_only=True)
class EnergyShare:
    """Shares in [0, 1], means over images. `low` and `high` bound cam_share - pixel_share with 95 % confidence."""

    cam_share: float
    pixel_share: float
    low: float
    high: float
    images: int

    @property
    def gap(self) -> float:
        """cam_share - pixel_share: above 0 where the maps prefer the cues."""
        return self.cam_share - self.pixel_share

    @property
    def faithful(self) -> bool:
        """Whether the energy on the cues exceeds their share of the pixels by more than chance."""
        return self.low > 0.0


def energy_share(
    maps: np.ndarray,
    masks: np.ndarray,
    classes: Sequence[int],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    draws: int = 2000,
) -> EnergyShare:
    """Share of the maps' energy |CAM| on pixels of the `classes`, beside the share of pixels of those classes.

    `maps` are raw signed maps (n, h, w), resized to the `masks` (n, H, W) of class numbers. A map that is zero
    everywhere points nowhere and counts as its pixel share. The interval is a bootstrap over images, or over `groups`
    (n,), the areas they come from, because views of an area resemble each other.
    """
    if len(maps) != len(masks) or not len(maps):
        raise ValueError(f"there are {len(maps)} maps and {len(masks)} masks; an equal number above 0 is expected")
    cues = np.isin(masks, list(classes))
    pixel = cues.mean(axis=(1, 2))
    energy = np.abs(upsample(maps, *masks.shape[1:]).astype(np.float64))
    total = energy.sum(axis=(1, 2))
    cam = np.where(total > 0.0, (energy * cues).sum(axis=(1, 2)) / np.where(total > 0.0, total, 1.0), pixel)

    _, unit = np.unique(np.arange(len(maps)) if groups is None else np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(unit, weights=cam - pixel), np.bincount(unit)
    drawn = np.random.default_rng(seed).integers(0, len(sums), size=(draws, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return EnergyShare(
        cam_share=float(cam.mean()), pixel_share=float(pixel.mean()), low=float(low), high=float(high), images=len(maps)
    )


def null_p_value(share: EnergyShare, null: Sequence[EnergyShare]) -> float:
    """Chance that a network which learnt nothing prefers the cues as much: (1 + #null at or above) / (1 + #null).

    `null` holds the shares of the same architecture with random weights, one a seed (Adebayo et al., 2018, sanity
    checks). One such network is not enough: edges and textures alone move its gap, by +-0.025 between seeds for
    ResNet-18 on the simulated town (20 networks and targets), so that its own interval may well lie above 0.
    """
    return (1 + sum(other.gap >= share.gap for other in null)) / (1 + len(null))


def deletion_curve(
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    maps: np.ndarray,
    *,
    fill: np.ndarray,
    steps: int = 10,
) -> np.ndarray:
    """Mean prediction as the pixels with the highest map values go first, (steps + 1,), from none to all removed.

    `predict` maps images (n, H, W, 3) to predictions (n,); `fill` broadcasts to the images and replaces what is
    removed (their mean colour, or a blurred copy). With signed maps the prediction falls fast where the map is right;
    compare with random maps (Petsiuk et al., 2018). Ties are broken by position.
    """
    n, height, width = images.shape[:3]
    order = np.argsort(-upsample(maps, height, width).reshape(n, -1), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(height * width)[None], axis=1)
    removed = rank.reshape(n, height, width, 1)
    curve = [
        predict(np.where(removed < round(height * width * step / steps), fill, images).astype(images.dtype)).mean()
        for step in range(steps + 1)
    ]
    return np.array(curve, dtype=np.float64)
