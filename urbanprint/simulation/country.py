"""The simulated countries: survey clusters, what is true of them, and the street images a provider would hold.

What belongs here is the generative model, so that every number a model is scored against is known. What the survey
publishes of it and the best reachable scores are in `survey.py`, pictures are drawn in `scenes.py`.

The model, for cluster a, image i of cluster a, indicator d and cue k:

    field        = sqrt(.20) region effect + sqrt(.50) smooth field + sqrt(.30) local noise
    level   G(a)   standard normal, from one field: what every single image shows
    share   p(a) = (1 + x) / 2,  x = f(f(t)),  f(t) = t - sin(2 pi t) / (2 pi),  t uniform on (-1, 1), from another
                   field: how many of the cluster's images show the shabby look; mostly nearly none, half or all
    look    b(i) = +1 with probability p(a), else -1
    cue     c_k(i) = r_k G(a) + sqrt(1 - r_k^2) noise        r_k = LEVEL_CUES[k]
            c_k(i) = r_k b(i) + sqrt(1 - r_k^2) noise        r_k = LOOK_CUES[k]
    tilt    A(a) = x, variety H(a) = -x^2, both standardised
    signal  S(a) = G                                         in the world "single"
            S(a) = sqrt(.15) G + sqrt(.15) A + sqrt(.70) H   in the world "several"
    latent  L_d(a) = u_d urban + v_d S(a) + e_d E_d(a)       u_d, v_d: EFFECTS[d], urban standardised

G, A, H, urban and every E_d have unit variance and are uncorrelated. The worlds share their images; only what the
survey says of a cluster differs. Variety is greatest where both looks are seen equally often. Any function of one image
is linear in b(i), so a mean of such functions follows x alone, with which H is uncorrelated: no averaging of single
images reads the variety.
"""

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from pyproj import Geod
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from urbanprint.simulation.styles import Style, View, random_style
from urbanprint.simulation.town import normal_scores

CountryName = Literal["simland-a", "simland-b"]
World = Literal["several", "single"]

COUNTRIES: tuple[CountryName, ...] = get_args(CountryName)

LEVEL_CUES: dict[str, float] = {"vegetation": -0.92, "cars": 0.85}
"""Cue of a view -> its correlation with the cluster's level."""

LOOK_CUES: dict[str, float] = {"litter": 0.92, "shutters": 0.88, "boarded": 0.88, "decay": 0.85}
"""Cue of a view -> its correlation with the look of the image; together they leave no doubt about it."""

WEIGHTS: dict[World, tuple[float, float, float]] = {
    "several": (np.sqrt(0.15), np.sqrt(0.15), np.sqrt(0.70)),
    "single": (1.0, 0.0, 0.0),
}
"""World -> weight of level, tilt and variety in the signal."""

PLANTED: dict[World, tuple[str, ...]] = {
    "several": ("vegetation", "car", "litter", "shutter", "boarded"),
    "single": ("vegetation", "car"),
}
"""World -> the classes of `scenes.CLASSES` whose amounts tell of the signal."""

JITTER_M: dict[bool, float] = {True: 2_000.0, False: 10_000.0}
"""Urban or not -> the farthest that the survey moves a cluster from where it is."""


class Effects(NamedTuple):
    """Of an indicator: correlation of its latent with urban and with the signal; mean and standard deviation."""

    urban: float
    signal: float
    centre: float
    scale: float

    @property
    def unseen(self) -> float:
        """Loading of what neither images nor the urban flag tell."""
        return float(np.sqrt(1 - self.urban**2 - self.signal**2))


EFFECTS: dict[str, Effects] = {
    "poverty": Effects(urban=0.30, signal=-0.90, centre=50.0, scale=15.0),
    "population": Effects(urban=0.60, signal=0.70, centre=2.5, scale=0.6),
    "bmi": Effects(urban=0.40, signal=-0.78, centre=22.0, scale=1.5),
}
"""Poverty is an asset index, higher where wealthier (see `vocabulary.LIVELIHOODS`); population the decadic logarithm of
people a square kilometre; BMI in kg / m2."""

UNPUBLISHED: dict[CountryName, tuple[str, ...]] = {"simland-a": (), "simland-b": ("bmi",)}

URBAN_SHARE = 0.4

CLUSTERS = 300
"""Clusters of a country unless another number is asked for: of 110, no learner found what shows in several images."""


def leaning(rank: np.ndarray) -> np.ndarray:
    """x = 2 p - 1 at a rank in (0, 1): drawn to -1, 0 and 1, where the slope is 0."""
    turn = 2 * rank - 1
    for _ in range(2):
        turn = turn - np.sin(2 * np.pi * turn) / (2 * np.pi)
    return np.clip(turn, -1, 1)  # rounding alone can leave the interval


LEANINGS: np.ndarray = leaning((np.arange(256) + 0.5) / 256)
"""256 equally probable values of x = 2 p - 1."""

# Open ocean, never confused with a real place.
_ORIGINS: dict[CountryName, tuple[float, float]] = {"simland-a": (-40.0, 20.0), "simland-b": (-25.0, -18.0)}
_PREFIXES: dict[CountryName, str] = {"simland-a": "SA", "simland-b": "SB"}
_REGIONS = ("Northmark", "Eastreach", "Southvale", "Westmoor", "Midlow", "Farholm")
_REGION_SHARE, _SMOOTH_SHARE, _LENGTH_M = 0.20, 0.50, 40_000.0
_PANORAMA_SHARE, _DUPLICATE_SHARE = 0.04, 0.04
# Shabby walls are sooty, others pale, and the sky is one: a hundred clusters must suffice to learn the looks.
_SKY, _HAZE = "#6fa8dc", "#e8e4d8"
_SOOT, _SOOT_SECOND = "#5a4a3e", "#4c4038"
_PALE = (0.85, 0.97)
_CREATORS = ("dusty_road", "tuktuk_lens", "mapper_7", "sahel_rider", "monsoon_view")
_WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True, eq=False)
class Country:
    """A built country; the frames are shared by all callers and must not be changed.

    `clusters`: area_id, region, urban, weight, longitude, latitude (as published, moved by the survey), true_longitude,
    true_latitude. `truth`: area_id, level, share, tilt, variety, urban (standardised), `unseen_<indicator>`.
    `images`: the columns of `Town.images`, `look` (+1 or -1) and `shows`: the image whose picture it is, another one
    where the same photograph was uploaded twice. `styles`: sequence_id -> the look of its street.
    """

    name: CountryName
    seed: int
    clusters: pd.DataFrame
    truth: pd.DataFrame
    images: pd.DataFrame
    styles: Mapping[str, Style]

    def view(self, image_id: str) -> View:
        """What the picture `image_id` is drawn from; KeyError when there is no such image."""
        image = self._rows[self._rows[image_id]["shows"]]
        cues = {cue: image[f"cue_{cue}"] for cue in (*LEVEL_CUES, *LOOK_CUES)}
        style = self.styles[image["sequence_id"]]
        if image["look"] > 0:
            style = replace(style, wall=_SOOT, wall_second=_SOOT_SECOND)
        return View(image_id=image["image_id"], seed=self.seed, style=style, **cues)

    @cached_property
    def _rows(self) -> dict[str, dict]:
        return dict(zip(self.images["image_id"], self.images.to_dict("records"), strict=True))


@lru_cache(maxsize=4)
def build_country(name: CountryName, *, seed: int = 11, clusters: int = CLUSTERS) -> Country:
    """Return the country of `name` and `seed`; the same arguments give the same country on every machine.

    Its area grows with the number of clusters (at least 12), each with 8 to 40 images.
    """
    if name not in COUNTRIES or clusters < 12:
        raise ValueError(f"a country is one of {', '.join(COUNTRIES)} and has at least 12 clusters")
    start = np.random.default_rng([seed, COUNTRIES.index(name)])
    place_rng, latent_rng, image_rng, style_rng = start.spawn(4)
    urban = np.arange(clusters) < round(URBAN_SHARE * clusters)
    true_m, published_m, region = _places(urban, place_rng)
    true, published = (_degrees(metres, np.array(_ORIGINS[name])) for metres in (true_m, published_m))
    weight = place_rng.lognormal(0.0, 0.4, clusters)
    frame = pd.DataFrame(
        {
            "area_id": [f"{_PREFIXES[name]}{number + 1:04d}" for number in range(clusters)],
            "region": np.array(_REGIONS)[region],
            "urban": urban,
            "weight": (weight / weight.mean()).round(4),
            "longitude": published[:, 0],
            "latitude": published[:, 1],
            "true_longitude": true[:, 0],
            "true_latitude": true[:, 1],
        }
    )
    truth = _truth(true_m, region, urban, latent_rng)
    images = _images(frame, truth, image_rng)
    urban_drives = images["area_id"].map(frame.set_index("area_id")["urban"]).groupby(images["sequence_id"]).first()
    styles = {str(drive): _style(bool(is_urban), style_rng) for drive, is_urban in urban_drives.items()}
    truth.insert(0, "area_id", frame["area_id"])
    return Country(name=name, seed=seed, clusters=frame, truth=truth, images=images, styles=styles)


# --- places ---------------------------------------------------------------------------------------------------------


def _places(urban: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True and published places in metres, (n, 2) each, and the region of each cluster (n,).

    The circles of the jitter around the published places never overlap: an image lies in one of them at most.
    """
    radius = 17_500.0 * np.sqrt(len(urban))
    cities = _in_circle(max(2, len(urban) // 16), 0.8 * radius, rng)
    reach = np.where(urban, JITTER_M[True], JITTER_M[False])
    true, published = np.empty((len(urban), 2)), np.empty((len(urban), 2))
    for number, is_urban in enumerate(urban):
        while True:
            drawn = cities[number % len(cities)] + rng.normal(0, 12_000, 2) if is_urban else None
            true[number] = _in_circle(1, radius, rng)[0] if drawn is None else drawn
            # In any direction, by any distance up to the jitter, as the Demographic and Health Surveys move theirs.
            angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0, reach[number])
            published[number] = true[number] + distance * np.array([np.cos(angle), np.sin(angle)])
            gaps = np.hypot(*(published[:number] - published[number]).T)
            if (gaps > reach[:number] + reach[number]).all():
                break
    capitals = 0.6 * radius * np.column_stack([np.cos(np.arange(5) * 0.4 * np.pi), np.sin(np.arange(5) * 0.4 * np.pi)])
    return true, published, cdist(true, np.vstack([capitals, [[0.0, 0.0]]])).argmin(axis=1)


def _in_circle(n: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """`n` points (n, 2), uniform in the circle around the origin."""
    angle, distance = rng.uniform(0, 2 * np.pi, n), radius * np.sqrt(rng.random(n))
    return distance[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])


def _degrees(metres: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Metres east and north (n, 2) of an origin, or of n origins, azimuthal equidistant -> longitude and latitude."""
    azimuth, distance = np.degrees(np.arctan2(metres[:, 0], metres[:, 1])), np.hypot(*metres.T)
    origin = np.broadcast_to(origin, metres.shape)
    longitude, latitude, _ = _WGS84.fwd(origin[:, 0], origin[:, 1], azimuth, distance)
    return np.round(np.column_stack([longitude, latitude]), 7)


# --- latents --------------------------------------------------------------------------------------------------------


def _truth(metres: np.ndarray, region: np.ndarray, urban: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """What is true of the clusters; columns after area_id as in `Country.truth`."""
    n = len(metres)
    covariance = np.exp(-(cdist(metres, metres) ** 2) / (2 * _LENGTH_M**2)) + 1e-8 * np.eye(n)
    factor = np.linalg.cholesky(covariance)
    town = _standardised(urban.astype(float))
    share = np.zeros(n)
    # A country has few regions and cities: left alone, fields would correlate by chance and no stated effect would
    # hold. What a linear fit cannot undo, for variety is no linear function of its field, is drawn again.
    while not share.any() or abs((town * variety(share)).mean()) > 0.05:
        field = (
            np.sqrt(_REGION_SHARE) * rng.normal(size=(len(_REGIONS), 2))[region]
            + np.sqrt(_SMOOTH_SHARE) * factor @ rng.normal(size=(n, 2))
            + np.sqrt(1 - _REGION_SHARE - _SMOOTH_SHARE) * rng.normal(size=(n, 2))
        )
        share = (1 + leaning((rankdata(_unrelated(field[:, 0], [town])) - 0.5) / n)) / 2
    known = [town, tilt(share), variety(share)]
    level = normal_scores(_unrelated(field[:, 1], known))
    columns = {"level": level, "share": share, "tilt": known[1], "variety": known[2], "urban": town}
    for indicator in EFFECTS:
        columns[f"unseen_{indicator}"] = _unrelated(rng.normal(size=n), [*known, level])
    return pd.DataFrame(columns)


def tilt(share: np.ndarray) -> np.ndarray:
    """Which look prevails, standardised."""
    return (2 * share - 1) / LEANINGS.std()


def variety(share: np.ndarray) -> np.ndarray:
    """How mixed the looks are, standardised; the tilt says nothing of it."""
    squares = LEANINGS**2
    return (squares.mean() - (2 * share - 1) ** 2) / squares.std()


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _unrelated(values: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    """What of `values` the `others` do not explain linearly, standardised."""
    basis = np.column_stack([np.ones(len(values)), *others])
    return _standardised(values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0])


# --- images ---------------------------------------------------------------------------------------------------------


def _images(clusters: pd.DataFrame, truth: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """8 to 40 images a cluster, few more often than many, in drives of three to six images 25 m apart."""
    counts = 8 + (33 * rng.random(len(clusters)) ** 1.5).astype(int)
    cluster = np.repeat(np.arange(len(clusters)), counts)
    within = np.arange(len(cluster)) - np.repeat(np.cumsum(counts) - counts, counts)
    length = rng.integers(3, 7, len(clusters))[cluster]
    drive = np.unique(1_000 * cluster + within // length, return_inverse=True)[1]
    stop, drives = within % length, drive.max() + 1

    reach = np.where(clusters["urban"], JITTER_M[True], JITTER_M[False])
    first = _in_circle(drives, 1.0, rng)[drive] * 0.45 * reach[cluster, None]
    bearing = rng.uniform(0, 360, drives)[drive]
    ahead = np.column_stack([np.sin(np.deg2rad(bearing)), np.cos(np.deg2rad(bearing))])
    offset = first + (25.0 * stop + rng.uniform(-5, 5, len(cluster)))[:, None] * ahead
    centres = clusters[["true_longitude", "true_latitude"]].to_numpy()[cluster]
    start_ms = rng.integers(1_546_300_800_000, 1_761_955_200_000, drives)[drive]  # 2019-01-01 to 2025-11-01
    has_computed = rng.random(len(cluster)) > 0.04
    raw = offset + np.where(has_computed[:, None], rng.normal(0, 6.0, offset.shape), 0.0)

    numbers = rng.permutation(np.unique(rng.integers(10**14, 10**15, len(cluster) + 64)))[: len(cluster)]
    images = pd.DataFrame(
        {
            "image_id": numbers.astype(str),
            "area_id": clusters["area_id"].to_numpy()[cluster],
            "sequence_id": _names(drives, rng)[drive],
            "creator": np.array(_CREATORS)[rng.integers(0, len(_CREATORS), drives)[drive]],
            "captured_at": pd.to_datetime(start_ms + 4_000 * stop, unit="ms", utc=True).astype("datetime64[ms, UTC]"),
            "has_computed_geometry": has_computed,
            "thumb": rng.choice(["ok", "late", "never"], len(cluster), p=[0.97, 0.02, 0.01]),
            "heading": ((bearing + rng.normal(0, 4, len(cluster))) % 360).round(2),
            "is_pano": rng.random(len(cluster)) < _PANORAMA_SHARE,
            "look": np.where(rng.random(len(cluster)) < truth["share"].to_numpy()[cluster], 1.0, -1.0),
        }
    )
    for names, metres in ((["longitude", "latitude"], offset), (["raw_longitude", "raw_latitude"], raw)):
        images[names] = _degrees(metres, centres)
    level = truth["level"].to_numpy()[cluster]
    for cues, cause in ((LEVEL_CUES, level), (LOOK_CUES, images["look"].to_numpy())):
        for cue, loading in cues.items():
            images[f"cue_{cue}"] = loading * cause + np.sqrt(1 - loading**2) * rng.normal(size=len(cluster))
    return _with_duplicates(images, rng)


def _with_duplicates(images: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Let a few images be the first photograph of their cluster again, uploaded by itself under another id."""
    first = images.groupby("area_id")["image_id"].transform("first")
    again = (rng.random(len(images)) < _DUPLICATE_SHARE) & (images["image_id"] != first)
    images["shows"] = images["image_id"].where(~again, first)
    same = ["longitude", "latitude", "raw_longitude", "raw_latitude", "has_computed_geometry", "heading", "look"]
    same += ["captured_at", "is_pano", *(f"cue_{cue}" for cue in (*LEVEL_CUES, *LOOK_CUES))]
    originals = images.set_index("image_id")
    images.loc[again, same] = originals.loc[first[again], same].to_numpy()
    images.loc[again, "sequence_id"] = _names(int(again.sum()), rng)
    return images.astype(originals.dtypes[same].to_dict())


def _names(n: int, rng: np.random.Generator) -> np.ndarray:
    """Names of sequences: 22 letters and digits."""
    letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"))
    return np.array(["".join(row) for row in letters[rng.integers(0, len(letters), (n, 22))]], dtype=object)


def _style(urban: bool, rng: np.random.Generator) -> Style:
    """A street's style: in town close and high, in the country low behind gardens; nothing else of it tells a thing."""
    pale = [colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, 0.25), rng.uniform(*_PALE)) for _ in range(2)]
    wall, second = ("#" + "".join(f"{round(255 * channel):02x}" for channel in colour) for colour in pale)
    style = replace(random_style(rng), wall=wall, wall_second=second, sky_top=_SKY, sky_low=_HAZE, cast=(1.0, 1.0, 1.0))
    if urban:
        return replace(style, setback=0.0, floors=3 + int(rng.integers(2)), shop_share=0.45)
    return replace(style, setback=2.6, floors=2, shop_share=0.10)
