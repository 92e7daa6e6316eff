"""Results held against the truth: the best the pictures allow, and whether explanations point at what was planted."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from urbanprint.explanation.faithfulness import energy_share
from urbanprint.simulation.scenes import CLASSES, CUE_CLASSES, render
from urbanprint.simulation.statistics import ceiling
from urbanprint.simulation.town import build_town


def best_r2(images: pd.DataFrame, *, indicator: str, seed: int) -> float | None:
    """Return the best reachable R2 of `indicator` from these images (image_id, area_id) of the simulated town.

    None for images of a provider that gives the town's pictures names of its own: then their cues are not known.
    """
    town = build_town()
    if not images["image_id"].isin(town.images["image_id"]).all():
        return None
    reachable = ceiling(town, images, seed=seed).set_index("indicator")["r2"]
    return float(reachable[indicator])


def masks_of(images: pd.DataFrame) -> np.ndarray:
    """Return the class mask of each image (image_id) of the simulated town, uint8 (n, H, W)."""
    town = build_town()
    return np.stack([render(town.view(image_id)).mask for image_id in images["image_id"]])


def cue_shares(
    images: pd.DataFrame, maps: np.ndarray, masks: np.ndarray, *, untrained: Sequence[np.ndarray] = ()
) -> dict[str, float]:
    """Return the share of CAM energy on planted cue classes, their share of pixels, and the 95 % interval of the gap.

    `images` holds image_id and area_id, `maps` raw maps (n, h, w), `masks` classes (n, H, W), rows alike. `untrained`
    are the maps of networks with random weights, whose mean share is the null: a single one strays by chance.
    """
    cues = [CLASSES.index(name) for name in CUE_CLASSES]
    found = energy_share(maps, masks, cues, groups=images["area_id"].tolist())
    shares = {
        "CAM energy on planted cues": found.cam_share,
        "pixels of planted cues": found.pixel_share,
        "gap low": found.low,
        "gap high": found.high,
    }
    if untrained:
        null = [energy_share(random, masks, cues).cam_share for random in untrained]
        shares["CAM energy on planted cues, random weights"] = float(np.mean(null))
    return shares
