"""The simulated planet: what a photograph tells of where on Earth it was taken, and the images a provider would hold.

What belongs here is how the ground is photographed; what is where is in `planet_ground.py`, pictures are drawn in
`planet_scenes.py`, the best reachable scores are in `planet_ceiling.py`.

The model, for image i of drive d at the place u:

    cue     c_k(i) = mean_k(u) + sqrt(noise_k) (sqrt(s) e_k(d) + sqrt(1 - s) e_k(i))
            s = DRIVE_SHARE, noise_k: CUES[k], every e standard normal
    side    that of the country, the other one with probability SIDE_ERROR (one-way streets, overtaking)
    sun     its azimuth, one a drive: von Mises(SUN_CONCENTRATION) around south where the latitude is 0 or more, around
            north elsewhere

Drives start around towns, normally distributed with SPREAD_KM along each axis, on land only. Countries differ in how
many towns are photographed, towns in how often.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd

from urbanprint.simulation.planet_ground import CUES, Ground, build_ground, moved, points_in
from urbanprint.simulation.planet_scenes import RoadsideView, roadside_view

IMAGES = 20_000
"""About how many there are, in 4,444 drives: what a run that takes one image a drive can learn from in minutes."""

DRIVE_SHARE = 0.5
"""Of a cue's noise variance, the part that all images of a drive share: what leaks where drives are split."""

SIDE_ERROR = 0.03
SUN_CONCENTRATION = 2.0
SPREAD_KM = 22.0
"""Standard deviation, eastwards and northwards, of where a drive starts around its town."""

_TOWNS = 220
_IMAGES_A_DRIVE = 4.5
_COAST_KM = 30.0  # of a town at least
_GAP_M = (25.0, 60.0)
_PANORAMA_SHARE = 0.03
_CREATORS = ("overlander_9", "coast_to_coast", "lorry_lens", "mapper_7", "road_botanist", "night_bus")
_LETTERS = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"))


@dataclass(frozen=True, eq=False)
class Planet:
    """A built planet; the frames are shared by all callers and must not be changed.

    `towns`: area_id, country, longitude, latitude, weight (the share of all drives that start around it).
    `images`: the columns of `Town.images` (area_id is the town's), continent, country, province, side (as drawn: +1
    traffic keeps right, -1 left), sun_azimuth (degrees clockwise from north); a cue for each of `CUES`.
    """

    seed: int
    ground: Ground
    towns: pd.DataFrame
    images: pd.DataFrame

    def view(self, image_id: str) -> RoadsideView:
        """What the picture `image_id` is drawn from; KeyError when there is no such image."""
        image = self._rows[image_id]
        cues = {cue: image[f"cue_{cue}"] for cue in CUES}
        return roadside_view(
            image_id,
            seed=self.seed,
            plan=self._plans[image["sequence_id"]],
            side=image["side"],
            sun=(image["sun_azimuth"] - image["heading"]) % 360.0,
            cues=cues,
        )

    @cached_property
    def _rows(self) -> dict[str, dict]:
        return dict(zip(self.images["image_id"], self.images.to_dict("records"), strict=True))

    @cached_property
    def _plans(self) -> Mapping[str, int]:
        return {str(drive): number for number, drive in enumerate(self.images["sequence_id"].unique())}


@lru_cache(maxsize=4)
def build_planet(*, seed: int = 11, images: int = IMAGES) -> Planet:
    """Return the planet of `seed`, with about `images` images (at least 100).

    The same arguments give the same planet on every machine; ground and towns do not change with `images`.
    """
    if images < 100:
        raise ValueError(f"a planet has at least 100 images, not {images}")
    ground_rng, town_rng, image_rng = np.random.default_rng(seed).spawn(3)
    ground = build_ground(ground_rng)
    towns = _towns(ground, town_rng)
    return Planet(seed=seed, ground=ground, towns=towns, images=_images(ground, towns, images, image_rng))


def _towns(ground: Ground, rng: np.random.Generator) -> pd.DataFrame:
    """More of them to the area in some countries than in others; columns as in `Planet.towns`."""
    drawn = np.vstack([points_in(shape, 20 * _TOWNS // len(ground.land), rng) for shape in ground.land.geometry])
    ashore = [ground.is_land(*moved(drawn.T, azimuth, 1_000 * _COAST_KM)) for azimuth in range(0, 360, 45)]
    drawn = drawn[np.all(ashore, axis=0)]
    country = ground.provinces["country"].to_numpy()[ground.province_of(*drawn.T)]
    weight = ground.countries.set_index("country")["weight"].loc[country].to_numpy()
    chosen = np.sort(rng.choice(len(drawn), _TOWNS, replace=False, p=weight / weight.sum()))
    size = rng.lognormal(0.0, 0.7, _TOWNS)
    return pd.DataFrame(
        {
            "area_id": [f"T{number + 1:04d}" for number in range(_TOWNS)],
            "country": country[chosen],
            "longitude": drawn[chosen, 0],
            "latitude": drawn[chosen, 1],
            "weight": size / size.sum(),
        }
    )


def _images(ground: Ground, towns: pd.DataFrame, images: int, rng: np.random.Generator) -> pd.DataFrame:
    """Drives of three to six images; columns as in `Planet.images`."""
    drives = round(images / _IMAGES_A_DRIVE)
    town = np.sort(rng.choice(len(towns), drives, p=towns["weight"]))
    length = rng.integers(3, 7, drives)
    drive = np.repeat(np.arange(drives), length)
    stop = np.arange(len(drive)) - np.repeat(np.cumsum(length) - length, length)
    along = np.cumsum(rng.uniform(*_GAP_M, len(drive)))
    along -= along[stop == 0][drive]  # metres from the drive's first image
    bearing = rng.uniform(0, 360, drives)
    place = _places(ground, towns, town, drive, bearing, along, rng)
    has_computed = rng.random(len(drive)) > 0.04
    strayed = moved(place, rng.uniform(0, 360, len(drive)), np.abs(rng.normal(0, 8, len(drive))))
    raw = np.where(has_computed, strayed, place)
    province = ground.provinces.iloc[ground.province_of(*place)].reset_index(drop=True)
    start_ms = rng.integers(1_546_300_800_000, 1_761_955_200_000, drives)[drive]  # 2019-01-01 to 2025-11-01
    numbers = rng.permutation(np.unique(rng.integers(10**14, 10**15, len(drive) + 64)))[: len(drive)]
    names = np.array(["".join(row) for row in _LETTERS[rng.integers(0, len(_LETTERS), (drives, 22))]], dtype=object)
    noon = np.where(place[1] >= 0, 180.0, 0.0)
    turn = np.degrees(rng.vonmises(0.0, SUN_CONCENTRATION, drives))[drive]
    wrong = rng.random(len(drive)) < SIDE_ERROR
    table = pd.DataFrame(
        {
            "image_id": numbers.astype(str),
            "area_id": towns["area_id"].to_numpy()[town[drive]],
            "sequence_id": names[drive],
            "creator": np.array(_CREATORS)[rng.integers(0, len(_CREATORS), drives)[drive]],
            "captured_at": pd.to_datetime(start_ms + 4_000 * stop, unit="ms", utc=True).astype("datetime64[ms, UTC]"),
            "longitude": place[0],
            "latitude": place[1],
            "raw_longitude": raw[0],
            "raw_latitude": raw[1],
            "has_computed_geometry": has_computed,
            "thumb": rng.choice(["ok", "late", "never"], len(drive), p=[0.97, 0.02, 0.01]),
            "heading": ((bearing[drive] + rng.normal(0, 4, len(drive))) % 360).round(2),
            "is_pano": rng.random(len(drive)) < _PANORAMA_SHARE,
            "continent": province["continent"],
            "country": province["country"],
            "province": province["province"],
            "side": np.where(wrong, -1, 1) * ground.side_of(*place),
            "sun_azimuth": ((noon + turn) % 360).round(2),
        }
    )
    spread = np.sqrt([shares.noise for shares in CUES.values()])
    habit, own = rng.normal(size=(drives, len(CUES)))[drive], rng.normal(size=(len(drive), len(CUES)))
    cues = ground.means(*place) + spread * (np.sqrt(DRIVE_SHARE) * habit + np.sqrt(1 - DRIVE_SHARE) * own)
    # Rounded, so that the last digit of a matrix product is the same on every machine.
    return pd.concat([table, pd.DataFrame(cues.round(6), columns=[f"cue_{cue}" for cue in CUES])], axis=1)


def _places(
    ground: Ground,
    towns: pd.DataFrame,
    town: np.ndarray,
    drive: np.ndarray,
    bearing: np.ndarray,
    along: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Longitude and latitude (2, n) of each image; a drive that leaves the land starts elsewhere."""
    middle = towns[["longitude", "latitude"]].to_numpy()[town].T
    start = np.full(middle.shape, np.nan)
    at_sea = np.ones(len(town), bool)
    while at_sea.any():
        offset = 1_000 * SPREAD_KM * rng.normal(size=(2, at_sea.sum()))
        start[:, at_sea] = moved(middle[:, at_sea], np.degrees(np.arctan2(*offset)), np.hypot(*offset))
        place = moved(start[:, drive], bearing[drive], along)
        at_sea = np.bincount(drive, ~ground.is_land(*place)) > 0
    return place
