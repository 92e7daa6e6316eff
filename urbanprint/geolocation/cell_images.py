"""Images from all over a world, cell by cell: where they are sought, how a source is asked, what became of each cell.

What belongs here is what a search by cell adds to the acquisition of a city (`urbanprint.imagery.acquisition`), whose
loop, ledger and store it uses: cells take the place of areas. A cell of L8 is 150 km wide and holds up to millions of
images, so no source is asked for all of them: one image a sequence, near points spread over the land.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import geopandas as gpd
import numpy as np
import pandas as pd
import pandera.pandas as pa
import shapely
from scipy.spatial import KDTree
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import InputError
from urbanprint.grid import all_codes, areas_km2, boxes, centres, encode, to_ids
from urbanprint.imagery.quality import geocentric
from urbanprint.imagery.records import ImageRecord, Source
from urbanprint.land import land_codes, on_land
from urbanprint.settings import Imagery

_TURNS = 8  # draws of points until each cell has enough on land; a cell that is 3 % land gets 20 of 640
_METRES_A_DEGREE = 111_320.0

WORLD_GRID = pa.DataFrameSchema(
    {
        "cell_id": pa.Column(str, pa.Check.str_length(min_value=1), unique=True),
        "land": pa.Column(bool),
        "longitude": pa.Column(float, pa.Check.in_range(-180.0, 180.0)),
        "latitude": pa.Column(float, pa.Check.in_range(-90.0, 90.0)),
        "area_km2": pa.Column(float, pa.Check.gt(0)),
    },
    strict=True,
    name="world_grid",
)
"""Every cell of a level, in order: whether it has land, its centre in degrees, its area on the ellipsoid."""

CELL_COVERAGE = pa.DataFrameSchema(
    {
        "cell_id": pa.Column(str, pa.Check.str_length(min_value=1), unique=True),
        "state": pa.Column(str, pa.Check.isin(["ocean", "empty", "data"])),
        "images": pa.Column(int, pa.Check.ge(0)),
        "asked_at": pa.Column("datetime64[ms, UTC]", nullable=True, coerce=True),
        "reason": pa.Column(str, nullable=True),
    },
    strict=True,
    name="cell_coverage",
)
"""Every cell of a level: no land, no usable image (never asked where `asked_at` is missing), or how many images."""


def world_grid(land: np.ndarray, level: int) -> pd.DataFrame:
    """The cells of a level and which of them meet the polygons of `land` (`WORLD_GRID`)."""
    codes = all_codes(level)
    longitude, latitude = centres(codes, level)
    return WORLD_GRID.validate(
        pd.DataFrame(
            {
                "cell_id": pd.Series(to_ids(codes, level), dtype="str"),
                "land": np.isin(codes, land_codes(land, level)),
                "longitude": longitude,
                "latitude": latitude,
                "area_km2": areas_km2(codes, level),
            }
        )
    )


def cells_to_ask(
    land: np.ndarray, *, level: int, cells: int | Literal["all"], probes: int, seed: int
) -> tuple[gpd.GeoDataFrame, pd.DataFrame, pd.DataFrame]:
    """The cells with land as the tables that `acquire` takes: areas, the sample of them, points in each.

    Areas hold area_id (the id of the cell) and geometry (its box) of every cell with land; the sample is `cells` of
    them in seeded order, the same first ones for every number of cells, all of one stratum and none in reserve. Points
    are up to `probes` a cell of the sample, uniform on its land; a cell that land hardly touches has its centre.
    """
    codes = land_codes(land, level)
    if not len(codes):
        raise InputError("The land meets no cell of the grid: name a file with the land of the whole world.")
    ids = to_ids(codes, level)
    areas = gpd.GeoDataFrame(
        {"area_id": pd.Series(ids, dtype="str")}, geometry=shapely.box(*boxes(codes, level).T), crs="EPSG:4326"
    )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    order = order if cells == "all" else order[:cells]
    sampled = areas[["area_id"]].iloc[order].reset_index(drop=True)
    sampled = sampled.assign(stratum=1, order=np.arange(len(order)), role="primary")
    asked = np.sort(order)
    return areas, sampled, _points(land, codes[asked], level, probes=probes, rng=rng)


def _points(land: np.ndarray, codes: np.ndarray, level: int, *, probes: int, rng: np.random.Generator) -> pd.DataFrame:
    """Up to `probes` points on the land of each cell (`tables.SAMPLE_POINTS`)."""
    cell = np.empty(0, dtype=np.int64)
    places = np.empty((0, 2))
    for _ in range(_TURNS):
        lacking = probes - np.bincount(cell, minlength=len(codes))
        if not lacking.any():
            break
        drawn = np.repeat(np.flatnonzero(lacking), probes)
        west, south, east, north = boxes(codes[drawn], level).T
        # Uniform on the ground: a degree of longitude shrinks towards the poles.
        longitude = rng.uniform(west, east)
        latitude = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(south)), np.sin(np.radians(north)))))
        ashore = on_land(land, longitude, latitude)
        cell = np.concatenate([cell, drawn[ashore]])
        places = np.vstack([places, np.column_stack([longitude, latitude])[ashore]])
        kept = pd.Series(cell).groupby(cell).cumcount().to_numpy() < probes
        cell, places = cell[kept], places[kept]
    bare = np.setdiff1d(np.arange(len(codes)), cell)
    cell = np.concatenate([cell, bare])
    places = np.vstack([places, np.column_stack(centres(codes[bare], level))])
    points = pd.DataFrame({"area_id": to_ids(codes[cell], level), "longitude": places[:, 0], "latitude": places[:, 1]})
    points = points.sort_values("area_id", kind="stable", ignore_index=True)
    number = points.groupby("area_id").cumcount().astype(str)
    points.insert(0, "point_id", points["area_id"] + "#" + number)
    return points.astype({"point_id": "str", "area_id": "str"})


def answers_for_cells(imagery: Imagery) -> bool:
    """Whether the provider can be asked about a whole cell; others are asked around points."""
    return imagery.provider in ("folder", "street-view") or imagery.discovery == "sequences"


def cell_source(source: Source, *, probe_m: float | None) -> Source:
    """The source as one that is asked about cells, and answers with one image a sequence, the one nearest to a point.

    With `probe_m` squares of that side around the points are asked for, in place of the whole cell. Everything else is
    the source's own.
    """
    return cast(Source, _CellSource(source, probe_m))


class _CellSource:
    def __init__(self, source: Source, probe_m: float | None) -> None:
        self._source, self._probe_m = source, probe_m
        self.looks_at_points = probe_m is not None or bool(getattr(source, "looks_at_points", False))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    @property
    def request_key(self) -> str:
        around = "" if self._probe_m is None else f"&probe_m={self._probe_m:g}"
        return f"{self._source.request_key}&one-a-sequence{around}"

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        points = np.empty((0, 2)) if points is None else points
        records = [record for part in self._parts(area, points) for record in self._source.find(part, points)]
        away = _nearest_m(records, points)
        ranked = sorted(zip(away, records, strict=True), key=lambda found: (found[0], found[1].image_id))
        first = {record.sequence_id: record for _, record in reversed(ranked)}
        yield from (record for _, record in ranked if first[record.sequence_id] is record)

    def _parts(self, area: BaseGeometry, points: np.ndarray) -> Iterator[BaseGeometry]:
        if self._probe_m is None:
            yield area
            return
        for longitude, latitude in points:
            half = self._probe_m / 2 / _METRES_A_DEGREE
            wide = half / max(np.cos(np.radians(latitude)), 1e-3)
            window = shapely.box(longitude - wide, latitude - half, longitude + wide, latitude + half)
            if not (inside := shapely.intersection(window, area)).is_empty:
                yield inside


def _nearest_m(records: list[ImageRecord], points: np.ndarray) -> np.ndarray:
    """Metres (n,) from each record to the nearest of the points, 0 where there are none."""
    if not len(points) or not records:
        return np.zeros(len(records))
    places = geocentric(
        *(np.array([getattr(record, axis) for record in records]) for axis in ("longitude", "latitude"))
    )
    distance, _ = KDTree(geocentric(points[:, 0], points[:, 1])).query(places)
    return np.asarray(distance)


def usable(images: pd.DataFrame) -> pd.DataFrame:
    """Of a manifest the images that were fetched, sorted."""
    return images[images["state"] == "fetched"].sort_values("image_id", ignore_index=True)


def cell_coverage(grid: pd.DataFrame, images: pd.DataFrame, asked: Mapping[str, float], *, level: int) -> pd.DataFrame:
    """What became of every cell of a world (`CELL_COVERAGE`).

    `grid` is `WORLD_GRID`, `images` the manifest (`tables.IMAGES`), `asked` says of each cell that was searched when,
    in seconds since 1970. An image counts for the cell it lies in. The reason of an empty cell names what was found.
    """
    cell = pd.Series(to_ids(encode(images["longitude"], images["latitude"], level), level), index=images.index)
    fetched = images["state"] == "fetched"
    held = cell[fetched].value_counts()
    why = images.loc[~fetched, "reason"].fillna("not fetched").groupby(cell[~fetched]).agg(_told)
    table = grid[["cell_id"]].copy()
    table["images"] = table["cell_id"].map(held).fillna(0).astype(int)
    moments = table["cell_id"].map(dict(asked)).astype(float)
    table["asked_at"] = pd.to_datetime(moments, unit="s", utc=True).astype("datetime64[ms, UTC]")
    empty = np.where(grid["land"], "empty", "ocean")
    table["state"] = pd.Series(np.where(table["images"] > 0, "data", empty), dtype="str")
    unseen = (table["state"] == "empty") & moments.notna()
    table["reason"] = table["cell_id"].map(why).fillna("no images found").astype("str").where(unseen)
    return CELL_COVERAGE.validate(table[list(CELL_COVERAGE.columns)])


def _told(reasons: pd.Series) -> str:
    """How many images were of no use, and why, the most frequent reason first."""
    counts = reasons.value_counts()
    return f"{len(reasons)} images of no use: " + ", ".join(f"{reason} {count}" for reason, count in counts.items())
