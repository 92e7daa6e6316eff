"""Land use as polygons: the Urban Atlas of 2012 and 2018, and what part of each cell a class takes.

What belongs here is geometry: reading the polygons of a functional urban area and cutting them by squares. All of it is
in EPSG:3035, whose areas are true on the ellipsoid, so that square metres are square metres.

Source: Copernicus Land Monitoring Service, Urban Atlas, https://land.copernicus.eu/en/products/urban-atlas.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS

from urbanprint.errors import InputError
from urbanprint.landuse.classes import NO_DATA, URBAN_ATLAS, classified

EQUAL_AREA = CRS("EPSG:3035")

LAND_USE = pa.DataFrameSchema(
    {
        "code": pa.Column(str, pa.Check.str_length(min_value=1)),
        "class": pa.Column(str, pa.Check.str_length(min_value=1)),
        "geometry": pa.Column(nullable=False),
    },
    strict=True,
    name="land_use",
)
"""Polygons of one use each, valid, in EPSG:3035."""

CELL_LAND_USE = pa.DataFrameSchema(
    {
        "cell_id": pa.Column(str, pa.Check.str_length(min_value=1)),
        "class": pa.Column(str, pa.Check.str_length(min_value=1)),
        "area_m2": pa.Column(float, pa.Check.gt(0)),
        "geometry": pa.Column(nullable=False),
    },
    unique=["cell_id", "class"],
    strict=True,
    name="cell_land_use",
)
"""The part of a cell that a class takes, a row a cell and class that it holds; geometry in EPSG:3035."""

_POLYGON = 3  # shapely.get_type_id
_POLYGONS = (_POLYGON, 6)

# The streets of a city are one polygon. Cut by 5,000 cells, one of 257,609 vertices and the 14,140 blocks between took
# 240 s, and 11 s with the streets first taken apart (measured, on a busy machine).
_MOST_VERTICES = 512
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Atlas:
    """Polygons as read (`LAND_USE`), how many had to be repaired, and how many were left out as "no data"."""

    polygons: gpd.GeoDataFrame
    repaired: int
    without_data: int


def read_urban_atlas(
    path: Path,
    *,
    year: Literal[2012, 2018],
    classes: Mapping[str, str] = URBAN_ATLAS,
    layer: str | None = None,
) -> Atlas:
    """Return the polygons of a GeoPackage, shapefile or geodatabase by their use in `year`.

    The code is read from the column code_`year` or code`year` in any case; a change layer has one of each year. `layer`
    need only be named where several have it. Invalid polygons are repaired (shapely `make_valid`, areas only).

    Raises `InputError`, naming file and polygon, for a file that cannot be read, no column of codes, codes that
    `classes` does not know, no coordinate system, and a geometry that is missing or no polygon.
    """
    layer, column = _layer(path, year=year, layer=layer)
    try:
        frame = pyogrio.read_dataframe(path, layer=layer, columns=[column], force_2d=True, on_invalid="ignore")
    except (DataSourceError, DataLayerError) as error:
        raise InputError(f"{path.name} cannot be read ({error}): download it again.") from error
    if frame.empty:
        raise InputError(f"{path.name} has no polygons: download it again.")
    if frame.crs is None:
        raise InputError(f"{path.name} states no coordinate system; Urban Atlas is published in EPSG:3035: assign it.")
    shapes = frame.geometry.to_numpy()
    if (wrong := ~np.isin(shapely.get_type_id(shapes), _POLYGONS) | shapely.is_empty(shapes)).any():
        raise InputError(
            f"{path.name}: polygon number {int(wrong.argmax()) + 1} has no geometry that is one: remove it."
        )
    codes = _codes(frame[column], file=path.name)
    named = classified(codes, classes, file=path.name)
    polygons = gpd.GeoDataFrame({"code": codes, "class": named}, geometry=shapes, crs=frame.crs).to_crs(EQUAL_AREA)
    polygons["geometry"], repaired = _repaired(polygons.geometry.to_numpy(), file=path.name)
    known = (named != NO_DATA).to_numpy()
    return Atlas(
        polygons=LAND_USE.validate(polygons[known].reset_index(drop=True)),
        repaired=repaired,
        without_data=int((~known).sum()),
    )


def clip_to_cells(polygons: gpd.GeoDataFrame, cells: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return what each cell holds of each class (`CELL_LAND_USE`), in the order of `cells`, then by class.

    `polygons` is `LAND_USE`, `cells` has cell_id and geometry in any system. Areas are in square metres and add up to
    the part of the cell that has a known use; a cell without any is not in the table.

    Raises `InputError` for polygons that overlap so much that they exceed a cell.
    """
    squares = cells.to_crs(EQUAL_AREA).geometry.to_numpy()
    shapes, owner = _parts(polygons.to_crs(EQUAL_AREA).geometry.to_numpy())
    classes, of_polygon = np.unique(polygons["class"].to_numpy(dtype="str"), return_inverse=True)
    part, cell = shapely.STRtree(squares).query(shapes, predicate="intersects")
    pieces, origin = shapely.get_parts(shapely.intersection(shapes[part], squares[cell]), return_index=True)
    areal = shapely.get_type_id(pieces) == _POLYGON  # others are where the two only touch
    pieces, origin = pieces[areal], origin[areal]
    group, held = _dissolved(pieces, cell[origin] * len(classes) + of_polygon[owner[part[origin]]])
    in_cell, in_class = np.divmod(group, len(classes))
    found = gpd.GeoDataFrame(
        {
            "cell_id": pd.Series(cells["cell_id"].to_numpy()[in_cell], dtype="str"),
            "class": pd.Series(classes[in_class], dtype="str"),
            "area_m2": shapely.area(held),
        },
        geometry=held,
        crs=EQUAL_AREA,
    )
    covered = np.bincount(in_cell, weights=found["area_m2"], minlength=len(cells))
    if (over := covered > shapely.area(squares) * (1 + _ROUNDING)).any():
        raise InputError(
            f"The land use of cell {cells['cell_id'].iloc[int(over.argmax())]} adds up to more than the cell: polygons"
            " overlap; give those of one year, and each functional urban area once."
        )
    return CELL_LAND_USE.validate(found[found["area_m2"] > 0].reset_index(drop=True))


def _layer(path: Path, *, year: int, layer: str | None) -> tuple[str, str]:
    """The layer that has codes of the year, and their column."""
    if not path.exists():
        raise InputError(f"{path} does not exist: name the GeoPackage, shapefile or geodatabase of an urban area.")
    pattern = re.compile(rf"code_?{year}", re.IGNORECASE)
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        fields = {name: list(pyogrio.read_info(path, layer=name)["fields"]) for name in layers}
    except (DataSourceError, DataLayerError) as error:
        raise InputError(
            f"{path.name} cannot be read ({error}): unpack an archive first, and name the file."
        ) from error
    found = [
        (name, field)
        for name, names in fields.items()
        for field in names
        if layer in (None, name) and pattern.fullmatch(field)
    ]
    if len(found) != 1:
        told = f"{len(found)} columns" if found else "no column"
        among = "; ".join(f"layer {name}: {', '.join(names)}" for name, names in fields.items())
        raise InputError(f"{path.name} has {told} code_{year} of land use: name the layer that has one, of {among}.")
    return found[0]


def _codes(column: pd.Series, *, file: str) -> pd.Series:
    """Codes as text; some copies hold them as numbers."""
    if (empty := column.isna()).any():
        raise InputError(
            f"{file}, polygon number {int(empty.argmax()) + 1}, column {column.name!r} is empty: fill it in."
        )
    whole = column.astype("int64") if pd.api.types.is_numeric_dtype(column) else column
    return whole.astype("str").str.strip()


def _repaired(shapes: np.ndarray, *, file: str) -> tuple[np.ndarray, int]:
    """Valid polygons, and how many had to be made so; the lines and points that fall off are dropped."""
    invalid = ~shapely.is_valid(shapes)
    sound = shapes.copy()
    sound[invalid] = shapely.make_valid(shapes[invalid], method="structure", keep_collapsed=False)
    if (lost := shapely.is_empty(sound)).any():
        raise InputError(f"{file}: polygon number {int(lost.argmax()) + 1} has no area: remove it.")
    return sound, int(invalid.sum())


def _parts(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`shapes` cut into parts of at most `_MOST_VERTICES`, and the position of each part's polygon in `shapes`."""
    parts, owners = [], []
    owner = np.arange(len(shapes))
    while len(shapes):
        large = shapely.get_num_coordinates(shapes) > _MOST_VERTICES
        parts.append(shapes[~large])
        owners.append(owner[~large])
        shapes = np.array([half for shape in shapes[large] for half in _halves(shape)], dtype=object)
        owner = np.repeat(owner[large], 2)
    found = np.concatenate(parts)
    invalid = ~shapely.is_valid(found)  # GEOS does not promise that what `clip_by_rect` returns is valid
    found[invalid] = shapely.make_valid(found[invalid], method="structure", keep_collapsed=False)
    return found, np.concatenate(owners)


def _halves(shape: shapely.Geometry) -> list[shapely.Geometry]:
    """The two halves of a polygon, cut across the longer side of its bounds."""
    west, south, east, north = shape.bounds
    if east - west > north - south:
        middle = (west + east) / 2
        boxes = [(west, south, middle, north), (middle, south, east, north)]
    else:
        middle = (south + north) / 2
        boxes = [(west, south, east, middle), (west, middle, east, north)]
    return [shapely.clip_by_rect(shape, *box) for box in boxes]  # 14 times as fast as intersections (measured)


def _dissolved(pieces: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, list[shapely.Geometry]]:
    """The groups there are, in order, and the pieces of each as one geometry."""
    order = np.argsort(group, kind="stable")
    groups, start = np.unique(group[order], return_index=True)
    of_group = np.split(pieces[order], start)[1:]  # what comes before the first is empty
    return groups, [each[0] if len(each) == 1 else shapely.union_all(each) for each in of_group]
