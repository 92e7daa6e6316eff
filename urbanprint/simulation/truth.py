"""Results held against the truth: the best the pictures allow, and whether explanations point at what was planted."""

import re
from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd

from urbanprint.explanation.faithfulness import energy_share
from urbanprint.simulation.country import CountryName, build_country
from urbanprint.simulation.scenes import CLASSES, CUE_CLASSES, render
from urbanprint.simulation.statistics import ceiling
from urbanprint.simulation.survey import ceiling as country_ceiling
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


def survey_ceiling(survey: str, images: pd.DataFrame) -> pd.DataFrame | None:
    """Return the best scores that `images` (image_id, area_id) allow (`survey.ceiling`), of a survey by its address.

    None for a survey that is not the embedded simulation's, or images of other pictures than its own.
    """
    asked = re.search(r"/survey/(simland-[ab])(-single)?\.csv$", survey)
    if asked is None:
        return None
    country = build_country(cast(CountryName, asked[1]))
    if not images["image_id"].isin(country.images["image_id"]).all():
        return None
    return country_ceiling(country, images, world="single" if asked[2] else "several")


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
