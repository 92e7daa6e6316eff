"""The best that a picture of the simulated planet tells of where it was taken, by Bayes' rule.

What belongs here is the posterior over places and what it is worth. The generative model itself is in `planet.py`.

The prior stands on 64 places a town, each for an equal share of the normal distribution around the town where drives
start, without those at sea. Of the cues x of an image, the probability at the place u is, up to what is the same at all
places,

    log p(x | u) = sum_k -(x_k - mean_k(u))^2 / (2 noise_k) + side side(u) log((1 - e) / e) / 2     e = SIDE_ERROR
                 - SUN_CONCENTRATION cos(azimuth) hemisphere(u)                     for the reader "compass" alone

The picture shows where the sun is from the camera, not the compass direction. Drives go in all directions alike, so
that without a compass this tells nothing.

Approximations, small beside the 22 km around a town: an image is where its drive starts (100 m off on average), of the
drives only those that start at sea are lost, and a place stands for the few kilometres around it. For guesses of a
point, probability is summed by cells of L10, 20 km high, and points are tried at a fifth of the distance that counts
from each other, or, for the GeoScore, in these cells. With cells and steps half as large, the accuracy within 200 km
was .001 higher as expected and .01 higher as scored.

Everything takes the cues as they were drawn, before a renderer turned them into pixels, and one image at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from urbanprint import grid
from urbanprint.geolocation.scores import geoscore
from urbanprint.geolocation.sphere import EARTH_KM, distances_km, haversine_km, to_degrees, unit_vectors
from urbanprint.simulation.planet import SIDE_ERROR, SPREAD_KM, SUN_CONCENTRATION, Planet
from urbanprint.simulation.planet_ground import CUES, moved

Reader = Literal["pixels", "compass"]
"""What a model sees: the picture, or the picture and the direction the camera looked in."""

WITHIN_KM = (200, 750, 2500)
"""Distances at which guesses are judged."""

_PLACES = 64  # a town
_CHUNK = 256  # images at a time: 29 MB
_MASSES = 10  # level of the cells to which probability is summed for guesses of a point
_GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
_NOISE = np.array([shares.noise for shares in CUES.values()])


@dataclass(frozen=True, eq=False)
class Places:
    """Places that stand for the prior: degrees (n,), degrees (n,) and probability (n,)."""

    longitude: np.ndarray
    latitude: np.ndarray
    probability: np.ndarray


def places_of(planet: Planet) -> Places:
    """Where images of `planet` are, whatever they show."""
    number = np.arange(_PLACES)
    # A sunflower: rings of equal probability, turned by the golden angle (Vogel 1979).
    distance_m = 1_000 * SPREAD_KM * np.sqrt(-2 * np.log1p(-(number + 0.5) / _PLACES))
    azimuth = np.degrees(number * _GOLDEN_ANGLE) % 360
    towns = planet.towns
    middle = np.repeat(towns[["longitude", "latitude"]].to_numpy().T, _PLACES, axis=1)
    longitude, latitude = moved(middle, np.tile(azimuth, len(towns)), np.tile(distance_m, len(towns)))
    land = planet.ground.is_land(longitude, latitude)
    town = np.repeat(np.arange(len(towns)), _PLACES)[land]
    probability = (towns["weight"].to_numpy() / np.bincount(town))[town]
    return Places(longitude[land], latitude[land], probability)


def posteriors(planet: Planet, rows: pd.DataFrame, places: Places, *, reader: Reader) -> Iterator[np.ndarray]:
    """The probability of each of `places` given what each of `rows` of `planet.images` shows, (up to 256, n) a turn."""
    means = planet.ground.means(places.longitude, places.latitude)
    side = planet.ground.side_of(places.longitude, places.latitude)
    hemisphere = np.where(places.latitude >= 0, 1.0, -1.0)
    of_place = np.column_stack([means, side, hemisphere])
    constant = np.log(places.probability) - (means**2 / (2 * _NOISE)).sum(axis=1)
    cues = rows[[f"cue_{cue}" for cue in CUES]].to_numpy()
    of_side = rows["side"].to_numpy() * np.log((1 - SIDE_ERROR) / SIDE_ERROR) / 2
    of_sun = -SUN_CONCENTRATION * np.cos(np.radians(rows["sun_azimuth"].to_numpy()))
    of_image = np.column_stack([cues / _NOISE, of_side, of_sun * (reader == "compass")])
    for first in range(0, len(rows), _CHUNK):
        posterior = of_image[first : first + _CHUNK] @ of_place.T + constant
        posterior = np.exp(posterior - posterior.max(axis=1, keepdims=True))
        yield posterior / posterior.sum(axis=1, keepdims=True)


def reachable(planet: Planet, images: pd.DataFrame, *, reader: Reader = "pixels") -> pd.DataFrame:
    """What the best answer to each of `images` (image_id) scores, a row an image and measure.

    Columns: image_id, measure, score, expected = what the answer scores on average over all images that show the same.
    Measures are named as in `geolocation.scores`: `top_1_L<level>` of the likeliest cell, `within_<d>_km` of the point
    with the most probability so near, `geoscore` of the point where most is expected.
    """
    rows = planet.images.set_index("image_id").loc[images["image_id"]]
    true = rows["longitude"].to_numpy(), rows["latitude"].to_numpy()
    places = places_of(planet)
    units = unit_vectors(places.longitude, places.latitude)
    cells = {level: _cells(places, level) for level in (*grid.LEVELS, _MASSES)}
    masses = cells.pop(_MASSES)[1]
    middles = (units.T @ masses).T
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    guesses = {f"within_{limit}_km": _guesses(limit, middles) for limit in WITHIN_KM}
    guesses["geoscore"] = (middles, geoscore(distances_km(middles, middles)).astype(np.float32))

    parts, last = [], 0
    for posterior in posteriors(planet, rows, places, reader=reader):
        first, last = last, last + len(posterior)
        names, here = rows.index[first:last], (true[0][first:last], true[1][first:last])
        for level, (codes, members) in cells.items():
            chance = posterior @ members
            right = codes[chance.argmax(axis=1)] == grid.encode(*here, level)
            parts.append(_part(names, f"top_1_L{level}", right, chance.max(axis=1)))
        mass = (posterior @ masses).astype(np.float32)
        for measure, (points, worth) in guesses.items():
            gain = mass @ worth
            km = haversine_km(*here, *to_degrees(points[gain.argmax(axis=1)]))
            score = geoscore(km) if measure == "geoscore" else km <= int(measure.split("_")[1])
            parts.append(_part(names, measure, score, gain.max(axis=1)))
    return pd.concat(parts, ignore_index=True)


def ceiling(planet: Planet, images: pd.DataFrame, *, reader: Reader = "pixels") -> pd.DataFrame:
    """The best that `images` (image_id) allow, a row a measure of `reachable`.

    Columns: measure, score = what the best answers score on these images, expected = what they score on average over
    all images that show the same.
    """
    scores = reachable(planet, images, reader=reader).groupby("measure", sort=False)[["score", "expected"]].mean()
    return scores.reset_index()


def _cells(places: Places, level: int) -> tuple[np.ndarray, csr_array]:
    """Codes of the cells with places (k,), and the matrix (n, k) that sums values of places to those of cells."""
    codes, cell = np.unique(grid.encode(places.longitude, places.latitude, level), return_inverse=True)
    return codes, csr_array((np.ones(len(cell)), (np.arange(len(cell)), cell)))


def _guesses(limit_km: int, middles: np.ndarray) -> tuple[np.ndarray, csr_array]:
    """Points (m, 3) a fifth of the limit apart, and whether each of `middles` (n, 3) is within the limit of each."""
    points = round(4 * np.pi * (5 * EARTH_KM / limit_km) ** 2)
    step = np.arange(points) + 0.5
    latitude, longitude = np.arcsin(1 - 2 * step / points), step * _GOLDEN_ANGLE
    lattice = unit_vectors(np.degrees(longitude), np.degrees(latitude))
    chord = 2 * np.sin(limit_km / EARTH_KM / 2)
    lattice = lattice[np.isfinite(cKDTree(middles).query(lattice, distance_upper_bound=chord)[0])]
    near = csr_array(middles @ lattice.T >= np.cos(limit_km / EARTH_KM))
    return lattice, near.astype(np.float32)


def _part(image_ids: pd.Index, measure: str, score: np.ndarray, expected: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"image_id": image_ids, "measure": measure, "score": score.astype(float), "expected": expected})
