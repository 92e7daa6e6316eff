"""The one table everything joins to: areas with their geometry and statistics.

What belongs here is geometry of areas: reading boundary files of any make into valid EPSG:4326 polygons, joining them
to statistics, telling in which area a point lies, and distances on the ground through a metric projection.
"""

import difflib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS
from pyproj.exceptions import CRSError

from urbanprint.errors import CatalogueError, InputError
from urbanprint.tables import AREAS, BOUNDARIES

_WGS84 = CRS("EPSG:4326")
_DATASETS = (".shp", ".gpkg", ".geojson", ".json")
_RECOGNISED_CRS = (CRS("EPSG:27700"), CRS("OGC:CRS84"))
"""Systems recognised by their parameters where a file does not say the code (shapefiles of the GLA, GeoJSON)."""

_PREFERRED_CODES = re.compile(r"LSOA\d\d(CD|_code)|area_id", re.IGNORECASE)
_OTHER_CODES = re.compile(r".*CD", re.IGNORECASE)
_POLYGONS = ("Polygon", "MultiPolygon")

Frame = TypeVar("Frame", bound=pd.DataFrame)


@dataclass(frozen=True)
class Boundaries:
    """Boundaries as read (`tables.BOUNDARIES`), the codes of repaired geometries, and what else was done, in words."""

    frame: gpd.GeoDataFrame
    repaired: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class JoinedAreas:
    """Areas with statistics and geometry (`tables.AREAS`), and the codes that stand on one side only."""

    areas: gpd.GeoDataFrame
    without_boundary: tuple[str, ...]
    without_statistics: tuple[str, ...]


def read_boundaries(
    path: Path,
    *,
    edition: str,
    code_column: str | None = None,
    crs: str | None = None,
    layer: str | None = None,
) -> Boundaries:
    """Return the boundaries in a GeoPackage, shapefile (or the folder of one) or GeoJSON file, in EPSG:4326.

    The code is read from `code_column`, else from LSOAyyCD, lsoayy_code or area_id, else from the only column that
    ends in CD. A coordinate system without an EPSG code is recognised by its parameters; `crs` states it where the
    file does not. Invalid polygons are repaired (shapely `make_valid`, areas only) and reported.

    Raises `InputError`, naming file and code, for a file that cannot be read, an unknown or absent coordinate system,
    coordinates that cannot be in it, a missing, unreadable (unclosed ring) or non-polygon geometry, and a duplicate
    code.
    """
    dataset = _dataset(path)
    geometry, codes, stated, notes = _read(dataset, code_column=code_column, layer=layer)
    source, recognised = _recognise(crs or stated, file=dataset.name)
    if recognised:
        notes.append(f"the coordinate system carries no EPSG code; its parameters are those of {source.name}")
    _check_codes(codes, file=dataset.name)
    _check_polygons(geometry, codes, file=dataset.name)
    invalid = ~shapely.is_valid(geometry)
    geometry = _repaired(geometry, invalid)
    lost = codes[shapely.is_empty(geometry)]
    if len(lost):
        raise InputError(f"{dataset.name}: the polygon of {lost[0]} has no area: correct or remove it.")
    geometry = _to_wgs84(geometry, crs=source, codes=codes, file=dataset.name)
    if source != _WGS84:
        notes.append(f"transformed from {source.name} to EPSG:4326")
    # Rounding in the transformation can make a polygon with a near-degenerate corner invalid again.
    invalid_after = ~shapely.is_valid(geometry)
    geometry = _repaired(geometry, invalid_after)
    repaired = tuple(sorted(codes[invalid | invalid_after]))
    frame = gpd.GeoDataFrame(
        {"edition": pd.Series([edition] * len(codes), dtype="str"), "area_id": pd.Series(codes, dtype="str")},
        geometry=geometry,
        crs=_WGS84,
    )
    return Boundaries(frame=BOUNDARIES.validate(frame), repaired=repaired, notes=tuple(notes))


def join(deprivation: pd.DataFrame, boundaries: gpd.GeoDataFrame) -> JoinedAreas:
    """Join statistics (`tables.DEPRIVATION`) and boundaries (`tables.BOUNDARIES`) of one edition each by code.

    The areas come sorted by code. Raises `InputError` for several editions in one table and for tables without a
    common code, as editions of different census years have few.
    """
    for table, rows in (("statistics", deprivation), ("boundaries", boundaries)):
        editions = sorted(rows["edition"].unique())
        if len(editions) != 1:
            raise InputError(f"The {table} hold the editions {', '.join(editions) or 'none'}: select one to join.")
    published, drawn = set(deprivation["area_id"]), set(boundaries["area_id"])
    if not published & drawn:
        raise InputError(
            f"No area of the statistics {deprivation['edition'].iloc[0]} (such as {min(published)}) is among the "
            f"boundaries {boundaries['edition'].iloc[0]} (such as {min(drawn)}): they belong to different geographies."
        )
    merged = boundaries[["area_id", "geometry"]].merge(deprivation.drop(columns="edition"), on="area_id")
    areas = gpd.GeoDataFrame(merged[list(AREAS.columns)], geometry="geometry", crs=boundaries.crs)
    return JoinedAreas(
        areas=AREAS.validate(areas.sort_values("area_id", ignore_index=True)),
        without_boundary=tuple(sorted(published - drawn)),
        without_statistics=tuple(sorted(drawn - published)),
    )


def select_districts(areas: Frame, district_codes: Sequence[str]) -> Frame:
    """Return the rows of `areas` (statistics or joined areas) in the named districts: a city is a list of districts.

    Raises `CatalogueError` for a code that no row has, naming the nearest there is.
    """
    known = areas[["district_code", "district"]].drop_duplicates("district_code").set_index("district_code")["district"]
    for code in district_codes:
        if code not in known.index:
            nearest = next(iter(difflib.get_close_matches(code, known.index, n=1, cutoff=0.0)), None)
            near = f"; the nearest code is {nearest} ({known[nearest]})" if nearest else ""
            raise CatalogueError(f"No area lies in district {code}{near}: correct the city's list of districts.")
    return areas[areas["district_code"].isin(list(district_codes))].reset_index(drop=True)


def assign(points_lon: np.ndarray, points_lat: np.ndarray, areas: gpd.GeoDataFrame) -> np.ndarray:
    """Return the area_id each point (degrees, shape (n,)) lies in, or None: an object array of shape (n,).

    A point on a shared border belongs to the area with the smallest code, whatever the order of `areas`.
    """
    ordered = areas.sort_values("area_id")
    # Asking per area prepares each polygon once for all its points, which takes half the time of asking per point.
    area, point = shapely.STRtree(shapely.points(points_lon, points_lat)).query(
        ordered.geometry.to_numpy(), predicate="intersects"
    )
    found = np.full(len(points_lon), None, dtype=object)
    # Written from the largest code to the smallest, so that the smallest stays.
    descending = np.argsort(-area, kind="stable")
    found[point[descending]] = ordered["area_id"].to_numpy(dtype=object)[area[descending]]
    return found


def projected(areas: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return `areas` in the UTM zone of their centre: x, y in metres, true to scale within about 0.1 %."""
    return areas.to_crs(areas.estimate_utm_crs())


def representative_points(areas: gpd.GeoDataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return x_m and y_m, each of shape (n,): a point inside every area, in metres (`projected`)."""
    points = projected(areas).representative_point()
    return points.x.to_numpy(), points.y.to_numpy()


def _dataset(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path} does not exist: name a GeoPackage, shapefile or GeoJSON file.")
    if path.suffix.lower() == ".zip":
        raise InputError(f"{path.name} is a zip archive: unpack it first (urbanprint.sources.archives.unpack).")
    if not path.is_dir():
        return path
    found = sorted(each for each in path.rglob("*") if each.suffix.lower() in _DATASETS)
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise InputError(f"{path} holds {len(found)} boundary files ({names}): name one.")
    return found[0]


def _read(
    path: Path, *, code_column: str | None, layer: str | None
) -> tuple[np.ndarray, np.ndarray, str | None, list[str]]:
    """Geometries (None where no library can read them), codes, the CRS as the file states it, GDAL's remarks."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        try:
            layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
            if layer is None and len(layers) != 1:
                raise InputError(
                    f"{path.name} holds {len(layers)} layers with geometry ({', '.join(layers)}): name one."
                )
            described = pyogrio.read_info(path, layer=layer or layers[0], force_feature_count=True)
            if not described["features"]:
                raise InputError(f"{path.name} holds no features: expected a polygon an area.")
            column = _code_column(list(described["fields"]), named=code_column, file=path.name)
            meta, _, wkb, values = pyogrio.raw.read(path, layer=layer or layers[0], columns=[column], force_2d=True)
        except (DataSourceError, DataLayerError) as error:
            raise InputError(
                f"{path.name} cannot be read as boundaries ({error}): expected a complete GeoPackage, shapefile "
                f"(.shp with .shx, .dbf, .prj) or GeoJSON file."
            ) from error
    codes = np.array(["" if value is None else str(value).strip() for value in values[0]], dtype=object)
    geometry = shapely.from_wkb(wkb, on_invalid="ignore")
    broken = np.flatnonzero(shapely.is_missing(geometry))
    if len(broken):
        raise InputError(f"{path.name}: area {codes[broken[0]]} {_fault(wkb[broken[0]])}: correct the file.")
    return geometry, codes, meta["crs"], [str(remark.message) for remark in remarks]


def _fault(wkb: bytes | None) -> str:
    """Why a geometry could not be read."""
    if wkb is None:
        return "has no geometry"
    try:
        shapely.from_wkb(wkb)
    except shapely.errors.GEOSException as error:
        reason = str(error).partition(": ")[2]
        return f"has a ring that is not closed ({reason})" if "closed" in reason else f"cannot be read ({reason})"
    raise AssertionError("a geometry that can be read is not missing")


def _code_column(fields: Sequence[str], *, named: str | None, file: str) -> str:
    if named is not None:
        if named not in fields:
            raise InputError(f"{file} has no column {named}; it has {', '.join(fields)}.")
        return named
    for pattern in (_PREFERRED_CODES, _OTHER_CODES):
        found = [field for field in fields if pattern.fullmatch(field)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"{file} has several code columns ({', '.join(found)}): name the one to read.")
    raise InputError(f"{file} has no column of area codes such as LSOA21CD; it has {', '.join(fields)}: name one.")


def _recognise(stated: str | None, *, file: str) -> tuple[CRS, bool]:
    """The coordinate system, as EPSG defines it, and whether it had to be recognised by its parameters.

    A system that only names its ellipsoid brings no datum shift: British National Grid rebuilt so lies 125 m off in
    London (measured), while EPSG's own definition is right within 0.2 m in the median.
    """
    remedy = "reproject the file to EPSG:4326, or state its system as `crs`"
    if not stated:
        raise InputError(f"{file} states no coordinate system (a shapefile needs its .prj): {remedy}.")
    try:
        crs = CRS.from_user_input(stated)
    except CRSError as error:
        raise InputError(f"{file}: {stated!r} is not a coordinate system: {remedy}.") from error
    code = crs.to_epsg()
    if code is not None:
        return CRS.from_epsg(code), False
    for known in _RECOGNISED_CRS:
        if _parameters(crs) == _parameters(known):
            return known, True
    raise InputError(
        f"{file}: the coordinate system {crs.name!r} carries no EPSG code and is not known here: {remedy}."
    )


def _parameters(crs: CRS) -> tuple[object, ...]:
    """What makes two coordinate systems the same, whatever they are called."""
    operation = crs.coordinate_operation
    values = [] if operation is None else sorted((each.code, round(float(each.value), 9)) for each in operation.params)
    return (
        crs.is_projected,
        None if operation is None else operation.method_code,
        tuple(values),
        None if crs.ellipsoid is None else (crs.ellipsoid.semi_major_metre, round(crs.ellipsoid.inverse_flattening, 6)),
        None if crs.prime_meridian is None else crs.prime_meridian.longitude,
        tuple(axis.unit_conversion_factor for axis in crs.axis_info),
    )


def _check_codes(codes: np.ndarray, *, file: str) -> None:
    if (codes == "").any():
        raise InputError(f"{file}: feature {int(np.flatnonzero(codes == '')[0]) + 1} has no area code.")
    unique, counts = np.unique(codes.astype(str), return_counts=True)
    if (counts > 1).any():
        row = int(np.argmax(counts))
        raise InputError(f"{file}: area {unique[row]} stands {counts[row]} times: expected one (multi)polygon an area.")


def _check_polygons(geometry: np.ndarray, codes: np.ndarray, *, file: str) -> None:
    empty = np.flatnonzero(shapely.is_empty(geometry))
    if len(empty):
        raise InputError(f"{file}: area {codes[empty[0]]} has an empty geometry: correct or remove it.")
    for row, each in enumerate(geometry):
        if each.geom_type not in _POLYGONS:
            raise InputError(f"{file}: area {codes[row]} is a {each.geom_type}: expected a Polygon or MultiPolygon.")


def _repaired(geometry: np.ndarray, invalid: np.ndarray) -> np.ndarray:
    """`geometry` with the invalid ones made valid; lines and points that fall off in the repair are dropped."""
    sound = geometry.copy()
    sound[invalid] = shapely.make_valid(geometry[invalid], method="structure", keep_collapsed=False)
    return sound


def _to_wgs84(geometry: np.ndarray, *, crs: CRS, codes: np.ndarray, file: str) -> np.ndarray:
    bounds = shapely.bounds(geometry)
    remedy = f"coordinates that cannot be in {crs.name}: state their real system as `crs`, or correct the file"
    outside = ~np.isfinite(bounds).all(axis=1)
    degrees = (np.abs(bounds) <= [180, 90, 180, 90]).all(axis=1)
    outside |= ~degrees if crs.is_geographic else degrees
    if not outside.any():
        shapes = gpd.GeoSeries(geometry, crs=crs).to_crs(_WGS84)
        west, south, east, north = crs.area_of_use.bounds if crs.area_of_use else (-180.0, -90.0, 180.0, 90.0)
        shown = shapes.bounds.to_numpy()
        # Systems are used a little beyond their stated area; a wrong one is off by much more than a degree.
        inside = (shown >= [west - 1, south - 1, west - 1, south - 1]) & (shown <= [east + 1, north + 1] * 2)
        outside = ~inside.all(axis=1)
        if not outside.any():
            return shapes.to_numpy()
    row = int(np.flatnonzero(outside)[0])
    raise InputError(f"{file}: area {codes[row]} has {remedy}; its bounds are {np.round(bounds[row], 3).tolist()}.")
