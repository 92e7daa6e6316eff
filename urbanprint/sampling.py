"""Which areas are asked for images, and at which points: the same choice on every machine.

What belongs here is drawing. All chance comes from hashes of (seed, area_id), so neither row order nor the version of
a library nor another area in the table changes what an area draws (NumPy's generators may change with a release).
"""

import hashlib
from collections.abc import Iterable
from typing import Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from pyproj import Geod

from urbanprint.errors import InputError
from urbanprint.tables import SAMPLE_POINTS, SAMPLED_AREAS
from urbanprint.vocabulary import INDICATORS

_WGS84 = Geod(ellps="WGS84")
_CANDIDATES = 64
_ROUNDS = 12


def stratify(
    areas: pd.DataFrame,
    *,
    size: int | Literal["all"],
    allocation: Literal["equal", "proportional"],
    seed: int,
    indicator: str = "imd",
) -> pd.DataFrame:
    """Return every area in the order its stratum draws it (`tables.SAMPLED_AREAS`), sorted by stratum and order.

    Strata are the published national deciles of `indicator`, which a city need not fill. Of a stratum, the first are
    `primary` and the rest `reserve`. "equal" takes the same number from each stratum and hands the shortage of small
    ones on to the others evenly; "proportional" follows the strata's sizes (largest remainder).

    Raises `InputError` for a size below 1 or above the number of areas, and for an area without a decile.
    """
    if indicator not in INDICATORS:
        raise InputError(f"{indicator!r} is no indicator: choose one of {', '.join(INDICATORS)}.")
    deciles = areas.set_index("area_id")[f"{indicator}_decile"]
    if deciles.isna().any():
        missing = deciles.index[deciles.isna()]
        raise InputError(
            f"{len(missing)} areas have no {indicator} decile, such as {missing.min()}: remove them or stratify by "
            f"another indicator."
        )
    return draw(deciles.astype(int), size=size, allocation=allocation, seed=seed)


def draw(
    strata: pd.Series, *, size: int | Literal["all"], allocation: Literal["equal", "proportional"], seed: int
) -> pd.DataFrame:
    """The same for strata of any making: `strata` is indexed by area_id, whole numbers from 1 to 10.

    Raises `InputError` for a size below 1 or above the number of areas.
    """
    total = len(strata) if size == "all" else size
    if not 1 <= total <= len(strata):
        raise InputError(
            f"A sample of {total} areas was asked for, of {len(strata)}: give 1 to {len(strata)}, or 'all'."
        )
    drawn = pd.DataFrame(
        {
            "area_id": strata.index.astype("str"),
            "stratum": strata.to_numpy(),
            "draw": [hashlib.blake2b(f"{seed}/{each}".encode(), digest_size=16).digest() for each in strata.index],
        }
    ).sort_values(["stratum", "draw"], ignore_index=True)
    drawn["order"] = drawn.groupby("stratum").cumcount().astype(int)
    sizes = {stratum: int((drawn["stratum"] == stratum).sum()) for stratum in drawn["stratum"].unique()}
    quotas = _equal(sizes, total) if allocation == "equal" else _proportional(sizes, total)
    primary = drawn["order"] < drawn["stratum"].map(quotas)
    drawn["role"] = pd.Series(np.where(primary, "primary", "reserve"), dtype="str")
    return SAMPLED_AREAS.validate(drawn[list(SAMPLED_AREAS.columns)])


def sample_points(
    areas: gpd.GeoDataFrame, area_ids: Iterable[str], *, points_per_area: int, spacing_m: float, seed: int
) -> pd.DataFrame:
    """Return points inside the areas (`tables.SAMPLE_POINTS`), in the order of `area_ids`.

    Points are uniform over the area (by surface on the sphere), each kept if it is at least `spacing_m` metres from
    those before it (geodesic distance, WGS 84). An area too small for `points_per_area` gets fewer, never closer
    ones, and always at least one.

    Raises `InputError` for a number of points below 1, a negative spacing, and an unknown area.
    """
    if points_per_area < 1 or not spacing_m >= 0:
        raise InputError(f"{points_per_area} points an area at {spacing_m} m: expected at least 1 and at least 0 m.")
    polygons = dict(zip(areas["area_id"], areas.geometry, strict=True))
    rows: list[tuple[str, str, float, float]] = []
    for area_id in area_ids:
        if area_id not in polygons:
            raise InputError(f"There is no area {area_id!r} to draw points in: sample and areas belong to two cities.")
        points = _spaced_points(
            polygons[area_id], count=points_per_area, spacing_m=spacing_m, chance=f"{seed}/{area_id}"
        )
        rows += [(f"{area_id}-{number}", area_id, lon, lat) for number, (lon, lat) in enumerate(points)]
    frame = pd.DataFrame(rows, columns=list(SAMPLE_POINTS.columns))
    return SAMPLE_POINTS.validate(frame.astype({"point_id": "str", "area_id": "str"}))


def _equal(sizes: dict[int, int], total: int) -> dict[int, int]:
    """Stratum -> how many to take; what a full stratum cannot give, the others share."""
    quotas = dict.fromkeys(sizes, 0)
    while (left := total - sum(quotas.values())) > 0:
        unfilled = [stratum for stratum in quotas if quotas[stratum] < sizes[stratum]]
        share = max(1, left // len(unfilled))
        # A remainder goes one by one to the most deprived strata first.
        for stratum in unfilled[:left]:
            quotas[stratum] = min(quotas[stratum] + share, sizes[stratum])
    return quotas


def _proportional(sizes: dict[int, int], total: int) -> dict[int, int]:
    """Stratum -> how many to take, by largest remainder (Hamilton); ties go to the more deprived stratum."""
    areas = sum(sizes.values())
    # In whole numbers: the remainders of total * size / areas, without rounding.
    quotas = {stratum: total * size // areas for stratum, size in sizes.items()}
    by_remainder = sorted(quotas, key=lambda stratum: (-(total * sizes[stratum] % areas), stratum))
    for stratum in by_remainder[: total - sum(quotas.values())]:
        quotas[stratum] += 1
    return quotas


def _uniforms(key: str) -> np.ndarray:
    """Uniform numbers in [0, 1) that belong to `key`: shape (2, _CANDIDATES), 53 random bits each."""
    stream = hashlib.shake_256(key.encode()).digest(8 * 2 * _CANDIDATES)
    return (np.frombuffer(stream, "<u8") >> np.uint64(11)).reshape(2, _CANDIDATES) * 2.0**-53


def _spaced_points(polygon: shapely.Geometry, *, count: int, spacing_m: float, chance: str) -> np.ndarray:
    """At most `count` points inside `polygon`, longitude and latitude in degrees, shape (m, 2) with m >= 1."""
    west, south, east, north = polygon.bounds
    low, high = np.sin(np.radians([south, north]))
    shapely.prepare(polygon)
    kept = np.empty((0, 2))
    for attempt in range(_ROUNDS):
        across, up = _uniforms(f"{chance}/{attempt}")
        longitudes = west + across * (east - west)
        latitudes = np.degrees(np.arcsin(low + up * (high - low)))  # uniform by surface
        inside = shapely.contains_xy(polygon, longitudes, latitudes)
        candidates = np.column_stack([longitudes[inside], latitudes[inside]])
        for point in kept:
            candidates = candidates[_distances_m(candidates, point) >= spacing_m]
        while len(candidates) and len(kept) < count:
            point, candidates = candidates[0], candidates[1:]
            kept = np.vstack([kept, point])
            candidates = candidates[_distances_m(candidates, point) >= spacing_m]
        if len(kept) == count:
            return kept
    if len(kept):
        return kept
    # Too thin to be hit by chance: its representative point lies inside by construction.
    return shapely.get_coordinates(shapely.point_on_surface(polygon))


def _distances_m(points: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Geodesic distances in metres from `points`, shape (n, 2) in degrees, to `point`, shape (2,)."""
    here = np.broadcast_to(point, points.shape)
    _, _, metres = _WGS84.inv(points[:, 0], points[:, 1], here[:, 0], here[:, 1])
    return np.asarray(metres)
