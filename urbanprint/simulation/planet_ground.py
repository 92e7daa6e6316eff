"""What is where on the simulated planet: land, provinces and countries, and the mean of every cue at any place.

What belongs here is what does not depend on photographs. Drives and images are in `planet.py`.

The model, for a place u on the sphere and a cue k, all terms of about unit variance:

    mean_k(u) = sqrt(latitude_k) T(u) + sqrt(biome_k) B_k(u) + sqrt(country_k) N_k(country of u)
              + sqrt(province_k) P_k(province of u) + sqrt(local_k) F_k(u)          the shares: CUES[k]
    T         (30 - |latitude in degrees|) / 15
    B_k, F_k  smooth fields whose correlation falls to exp(-1/2) over 1,500 km and over 100 km
    N_k       sqrt(.4) continent effect + sqrt(.6) own effect; its sign for the cues of SPLIT (paint is white or yellow)
    P_k       independent from province to province

A province is all land that is nearest to its capital, a country all provinces whose capitals are nearest to that of one
of them, so that borders are irregular and follow no grid.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from pyproj import Geod
from scipy.spatial import cKDTree

from urbanprint.geolocation.sphere import EARTH_KM, unit_vectors


class Shares(NamedTuple):
    """Of a cue's variance, what each scale accounts for; the rest is the noise of drives and images."""

    latitude: float = 0.0
    biome: float = 0.0
    country: float = 0.0
    province: float = 0.0
    local: float = 0.0

    @property
    def noise(self) -> float:
        """What place does not explain."""
        return 1.0 - sum(self)


CUES: dict[str, Shares] = {
    "elevation": Shares(latitude=0.70),
    "crown": Shares(latitude=0.40, biome=0.25),
    "vegetation": Shares(latitude=0.10, biome=0.50),
    "foliage": Shares(biome=0.50, local=0.05),
    "soil": Shares(biome=0.60, local=0.05),
    "haze": Shares(biome=0.35, country=0.15),
    "sky": Shares(biome=0.15, country=0.45, local=0.05),
    "line": Shares(country=0.85),
    "dashes": Shares(country=0.75),
    "edge": Shares(country=0.75),
    "bollard": Shares(country=0.30, province=0.40),
    "wall": Shares(country=0.20, province=0.50, local=0.05),
    "shade": Shares(country=0.15, province=0.45),
    "roof": Shares(country=0.25, province=0.45),
    "storeys": Shares(province=0.50),
    "windows": Shares(province=0.50),
    "road": Shares(country=0.10, local=0.30),
    "trim": Shares(province=0.10, local=0.30),
}
"""Cue of a picture -> what it tells of. What each looks like: `planet_scenes.RoadsideView`."""

SPLIT: tuple[str, ...] = ("line", "dashes", "edge")
"""Cues of which a country has one of two kinds."""

CONTINENTS: dict[str, tuple[float, float]] = {
    "Borealis": (-101.0, 46.0),
    "Tropica": (-67.0, 1.0),
    "Austrina": (-62.0, -32.0),
    "Meridia": (3.0, 47.0),
    "Equatoria": (27.0, -1.0),
    "Orienta": (104.0, 33.0),
    "Antipodea": (134.0, -26.0),
}
"""Continent -> longitude and latitude of its middle. Three lie across a border of the world's quadrants."""

_RADIUS_KM = (800.0, 1_050.0)
_COUNTRIES, _PROVINCES = 4, 16  # of a continent
_CONTINENT_SHARE = 0.4
_BIOME_KM, _LOCAL_KM, _WAVES = 1_500.0, 100.0, 256
_WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True, eq=False)
class Waves:
    """A smooth random field on the sphere for each of k cues: sums of m cosines, near enough Gaussian with covariance
    exp(-d^2 / (2 length^2)) at the distance d (Rahimi and Recht 2007, Random Features for Large-Scale Kernel Machines).
    """

    frequencies: np.ndarray  # (m, 3)
    phases: np.ndarray  # (m,)
    weights: np.ndarray  # (m, k)

    @classmethod
    def drawn(cls, *, length_km: float, fields: int, rng: np.random.Generator) -> "Waves":
        """`fields` independent fields."""
        frequencies = rng.normal(size=(_WAVES, 3)) * (EARTH_KM / length_km)
        return cls(frequencies, rng.uniform(0, 2 * np.pi, _WAVES), rng.normal(size=(_WAVES, fields)))

    def at(self, unit: np.ndarray) -> np.ndarray:
        """The fields (n, k) at unit vectors (n, 3)."""
        return np.sqrt(2 / _WAVES) * np.cos(unit @ self.frequencies.T + self.phases) @ self.weights


@dataclass(frozen=True, eq=False)
class Ground:
    """The ground of a planet; the frames are shared by all callers and must not be changed.

    `land`: GeoDataFrame, EPSG:4326, a row a continent: continent, geometry.
    `countries`: country, continent, side (+1 traffic keeps right, -1 left), weight (images per area, relative).
    `provinces`: province, country, continent, longitude, latitude (of its capital).
    """

    land: gpd.GeoDataFrame
    countries: pd.DataFrame
    provinces: pd.DataFrame
    biome: Waves
    local: Waves
    effects: np.ndarray  # (provinces, cues): what a province has of its country and of its own

    def province_of(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """Row (n,) in `provinces` of each place: that of the nearest capital."""
        nearest: np.ndarray = self._capitals.query(unit_vectors(longitude, latitude))[1]
        return nearest

    def side_of(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """The side (n,) on which traffic keeps at each place, +1 right and -1 left."""
        return self._sides[self.province_of(longitude, latitude)]

    def means(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """The mean of every cue (n, len(CUES)) at each place."""
        unit = unit_vectors(longitude, latitude)
        shares = np.array(list(CUES.values()))
        warmth = (30.0 - np.abs(np.asarray(latitude, float))) / 15.0
        return (
            np.sqrt(shares[:, 0]) * warmth[:, None]
            + np.sqrt(shares[:, 1]) * self.biome.at(unit)
            + self.effects[self.province_of(longitude, latitude)]
            + np.sqrt(shares[:, 4]) * self.local.at(unit)
        )

    def is_land(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """Whether each place (n,) lies on land."""
        return shapely.contains_xy(self._union, longitude, latitude)

    @cached_property
    def _capitals(self) -> cKDTree:
        return cKDTree(unit_vectors(self.provinces["longitude"], self.provinces["latitude"]))

    @cached_property
    def _sides(self) -> np.ndarray:
        return self.countries.set_index("country")["side"].loc[self.provinces["country"]].to_numpy()

    @cached_property
    def _union(self) -> shapely.Geometry:
        union = shapely.union_all(self.land.geometry.to_numpy())
        shapely.prepare(union)
        return union


def build_ground(rng: np.random.Generator) -> Ground:
    """Draw a planet's ground."""
    place_rng, effect_rng, field_rng = rng.spawn(3)
    land = gpd.GeoDataFrame(
        {"continent": list(CONTINENTS)},
        geometry=[_outline(middle, place_rng) for middle in CONTINENTS.values()],
        crs="EPSG:4326",
    )
    capitals, country = zip(*(_provinces(shape, place_rng) for shape in land.geometry), strict=True)
    continent = np.repeat(np.arange(len(land)), _COUNTRIES)
    of_province = np.concatenate([_COUNTRIES * k + own for k, own in enumerate(country)])
    names = np.array([f"{land['continent'][k]} {'ABCD'[number % _COUNTRIES]}" for number, k in enumerate(continent)])
    # Neighbours mostly keep the same side; every other continent keeps left, so that the side never tells it all.
    side = np.where(effect_rng.permutation(len(land)) % 2, 1, -1)[continent]
    side = np.where(effect_rng.random(len(continent)) < 0.15, -side, side)
    countries = pd.DataFrame(
        {
            "country": names,
            "continent": land["continent"].to_numpy()[continent],
            "side": side,
            "weight": effect_rng.lognormal(0.0, 1.0, len(continent)).round(4),
        }
    )
    provinces = pd.DataFrame(
        {
            "province": [f"P{number + 1:03d}" for number in range(len(of_province))],
            "country": names[of_province],
            "continent": countries["continent"].to_numpy()[of_province],
            "longitude": np.concatenate(capitals)[:, 0],
            "latitude": np.concatenate(capitals)[:, 1],
        }
    )
    return Ground(
        land=land,
        countries=countries,
        provinces=provinces,
        biome=Waves.drawn(length_km=_BIOME_KM, fields=len(CUES), rng=field_rng),
        local=Waves.drawn(length_km=_LOCAL_KM, fields=len(CUES), rng=field_rng),
        effects=_effects(continent, of_province, effect_rng),
    )


def moved(places: np.ndarray, azimuth: np.ndarray | float, metres: np.ndarray | float) -> np.ndarray:
    """Where one comes to from each of `places` along a geodesic; both are longitudes and latitudes (2, n), to 1e-7."""
    longitude, latitude, azimuth, metres = np.broadcast_arrays(*places, azimuth, metres)
    longitude, latitude, _ = _WGS84.fwd(longitude, latitude, azimuth, metres)
    return np.round([longitude, latitude], 7)


def _outline(middle: tuple[float, float], rng: np.random.Generator) -> shapely.Polygon:
    """A coast that is a distorted circle, by four harmonics of falling weight."""
    azimuth = np.arange(0.0, 360.0, 3.0)
    order = np.arange(2, 6)
    waves = np.cos(np.radians(azimuth)[:, None] * order + rng.uniform(0, 2 * np.pi, 4)) @ (0.28 / order)
    reach_m = 1_000 * rng.uniform(*_RADIUS_KM) * (1 + waves)
    return shapely.Polygon(moved(np.array(middle)[:, None], azimuth, reach_m).T)


def _provinces(shape: shapely.Polygon, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Capitals of a continent's provinces (n, 2) in degrees, and the country 0, 1, ... of each (n,)."""
    places = points_in(shape, 12 * _PROVINCES, rng)
    capitals = places[_spread(unit_vectors(*places.T), _PROVINCES, rng)]
    unit = unit_vectors(*capitals.T)
    return capitals, (unit @ unit[_spread(unit, _COUNTRIES, rng)].T).argmax(axis=1)


def points_in(shape: shapely.Polygon, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` places (n, 2) in degrees, uniform on the surface of the sphere within `shape`."""
    west, south, east, north = shape.bounds
    found = np.empty((0, 2))
    while len(found) < n:
        # Equal areas of a sphere lie between equal steps of the sine of the latitude (Archimedes).
        sine = rng.uniform(np.sin(np.radians(south)), np.sin(np.radians(north)), 4 * n)
        drawn = np.column_stack([rng.uniform(west, east, 4 * n), np.degrees(np.arcsin(sine))]).round(6)
        found = np.vstack([found, drawn[shapely.contains_xy(shape, *drawn.T)]])
    return found[:n]


def _spread(unit: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of `n` of the points `unit`, each the farthest of eight by chance from those before it (Mitchell 1991)."""
    chosen = [int(rng.integers(len(unit)))]
    while len(chosen) < n:
        left = np.setdiff1d(np.arange(len(unit)), chosen)
        drawn = rng.choice(left, min(8, len(left)), replace=False)
        chosen.append(int(drawn[(unit[drawn] @ unit[chosen].T).max(axis=1).argmin()]))
    return np.array(chosen)


def _effects(continent: np.ndarray, country: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What each province has of its country and of its own, (provinces, cues), from the continent of each country and
    the country of each province."""
    of_continent = rng.normal(size=(continent.max() + 1, len(CUES)))[continent]
    of_country = np.sqrt(_CONTINENT_SHARE) * of_continent
    of_country = of_country + np.sqrt(1 - _CONTINENT_SHARE) * rng.normal(size=of_country.shape)
    split = [cue in SPLIT for cue in CUES]
    of_country[:, split] = np.sign(of_country[:, split])
    shares = np.array(list(CUES.values()))
    own = rng.normal(size=(len(country), len(CUES)))
    return np.sqrt(shares[:, 2]) * of_country[country] + np.sqrt(shares[:, 3]) * own
