"""Land: reading its polygons, which cells of the world grid meet it, and which points lie on it.

What belongs here is the filter that keeps the search for images off the sea. Geometry is planar in longitude and
latitude, as land files are: land at longitude 180 does not touch the cells that begin at -180.
"""

from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import ArrayLike
from pyogrio.errors import DataLayerError, DataSourceError

from urbanprint.errors import InputError
from urbanprint.grid import all_codes, boxes, check_positions, children

_POLYGONS = ("Polygon", "MultiPolygon")


def read_land(path: Path) -> np.ndarray:
    """Return the land of a GeoJSON file or shapefile (or the folder of one) in EPSG:4326: valid shapely Polygons.

    Invalid polygons are repaired (shapely `make_valid`, areas only; one without any area is left out), multipolygons
    are taken apart, so that each part is tested within its own bounds.

    Raises `InputError`, naming file and feature, for a file that cannot be read, an absent coordinate system, a missing
    or non-polygon geometry, and coordinates outside [-180, 180] and [-90, 90].
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: name a file of land polygons, such as Natural Earth's ne_50m_land.")
    try:
        frame = gpd.read_file(path, columns=[])
    except (DataSourceError, DataLayerError, shapely.errors.GEOSException) as error:
        raise InputError(
            f"{path.name} cannot be read as polygons ({error}): expected a complete GeoJSON file or shapefile (.shp"
            " with .shx, .dbf, .prj)."
        ) from error
    if not isinstance(frame, gpd.GeoDataFrame) or frame.empty:
        raise InputError(f"{path.name} holds no features with geometry: expected polygons of land.")
    if frame.crs is None:
        raise InputError(f"{path.name} states no coordinate system (a shapefile needs its .prj): add it.")
    for number, each in enumerate(frame.geometry, start=1):
        if each is None or each.is_empty or each.geom_type not in _POLYGONS:
            kind = "empty" if each is None or each.is_empty else f"a {each.geom_type}"
            raise InputError(f"{path.name}: feature {number} is {kind}: expected a Polygon or MultiPolygon.")
    land = np.array(frame.to_crs(4326).geometry)
    bounds = shapely.bounds(land)
    # Natural Earth 1:110m ends at 180.00000000000014. What a transformation could not place is infinite.
    inside = (np.abs(bounds) <= np.array([180, 90, 180, 90]) + 1e-9).all(axis=1)
    if not inside.all():
        row = int(np.argmin(inside))
        raise InputError(
            f"{path.name}: feature {row + 1} has the bounds {np.round(bounds[row], 3).tolist()}: expected longitudes in"
            " [-180, 180] and latitudes in [-90, 90]; correct the file."
        )
    invalid = ~shapely.is_valid(land)
    land[invalid] = shapely.make_valid(land[invalid], method="structure", keep_collapsed=False)
    parts = shapely.get_parts(land)
    return parts[~shapely.is_empty(parts)]


def land_codes(land: np.ndarray, level: int) -> np.ndarray:
    """Return the codes of the cells of `level` whose box meets a polygon of `land`, touching included, in order."""
    # A box inside one polygon answers for all cells in it, and so does a box off land: only the coast is looked at more
    # closely. Three levels at a time take half as long as all boxes of L8 at once, or as every level in turn.
    levels = range(level, 0, -3)[::-1]
    codes, settled = all_codes(levels[0]), []
    for at in levels[:-1]:
        met, inland = (_related(land, codes, at, predicate) for predicate in ("intersects", "contains"))
        settled.append(children(inland, level - at).ravel())
        codes = children(np.setdiff1d(met, inland), 3).ravel()
    return np.sort(np.concatenate([*settled, _related(land, codes, level, "intersects")]))


def on_land(land: np.ndarray, longitude: ArrayLike, latitude: ArrayLike) -> np.ndarray:
    """Return whether each point (degrees, shape (n,)) lies on `land`, its shore included: bool, shape (n,).

    Raises `InputError`, naming the first row, for a position that is none.
    """
    longitude, latitude = np.asarray(longitude, dtype=float), np.asarray(latitude, dtype=float)
    check_positions(longitude, latitude)
    found = np.zeros(len(longitude), dtype=bool)
    found[shapely.STRtree(shapely.points(longitude, latitude)).query(land, predicate="intersects")[1]] = True
    return found


def _related(land: np.ndarray, codes: np.ndarray, level: int, predicate: str) -> np.ndarray:
    """The cells among `codes` to whose box a polygon of `land` has the relation `predicate`, in order."""
    # The polygons ask and the boxes are in the tree: so each polygon is prepared once. The other way round, each box is
    # tested against all vertices of each polygon near it, 15 s in place of 0.2 s for L8 and 1:50m.
    tree = shapely.STRtree(shapely.box(*boxes(codes, level).T))
    return codes[np.unique(tree.query(land, predicate=predicate)[1])]
