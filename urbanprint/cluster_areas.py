"""The surroundings of survey clusters as areas: where each cluster's images are sought and to which they belong.

What belongs here: from positions that were moved on purpose to polygons. A survey says how far it has moved a cluster,
so its true place lies within that distance, and so do the streets its households see. Where the surroundings of two
clusters overlap, a place belongs to the nearer one, so that no image is in two clusters.
"""

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from pyproj import CRS, Geod

from urbanprint.indicators.survey import Jitter
from urbanprint.tables import AREAS
from urbanprint.vocabulary import LIVELIHOODS

_WGS84 = Geod(ellps="WGS84")
_CORNERS = 64  # of a circle: its area is 0.16 % too small
_MIDDLE = 5  # the decile of a cluster whose indicator is unknown


def cluster_areas(clusters: pd.DataFrame, jitter: Jitter, *, search_m: float | None = None) -> gpd.GeoDataFrame:
    """The surroundings of each cluster (`tables.AREAS`, without indicators of deprivation), sorted by area_id.

    A geodesic circle of `jitter.urban_m` or `jitter.rural_m` around the position, the larger where nobody knows which
    it is, or of `search_m`; less what is nearer to another cluster. Clusters at one position share their images: the
    first in order has the area, the others have none. The district is the region, or the country where no region is
    known.
    """
    clusters = clusters.sort_values("area_id").drop_duplicates(["longitude", "latitude"], ignore_index=True)
    longitude, latitude = clusters["longitude"].to_numpy(), clusters["latitude"].to_numpy()
    reach = np.where(clusters["urban"].to_numpy(dtype=bool, na_value=False), jitter.urban_m, jitter.rural_m)
    reach = np.minimum(reach, search_m if search_m is not None else np.inf)
    circles = gpd.GeoSeries(_circles(longitude, latitude, reach), crs=4326)
    if len(clusters) > 1:
        local = CRS.from_proj4(f"+proj=aeqd +lon_0={longitude.mean():.3f} +lat_0={latitude.mean():.3f} +datum=WGS84")
        circles = _parted(circles.to_crs(local), gpd.GeoSeries.from_xy(longitude, latitude, crs=4326).to_crs(local))
    district = clusters["region"].fillna(clusters["country"])
    columns = {
        "area_id": clusters["area_id"], "name": clusters["area_id"],
        "district_code": district, "district": district, "geometry": circles.to_crs(4326),
    }  # fmt: skip
    areas = (
        gpd.GeoDataFrame(columns)
        .reindex(columns=list(AREAS.columns))
        .astype({name: float for name in AREAS.columns if name not in columns})
    )
    return AREAS.validate(areas.set_crs(4326))


def livelihood_deciles(clusters: pd.DataFrame) -> pd.Series:
    """The decile of each cluster in its country (1 = lowest), indexed by area_id, for sampling and coverage.

    Of the first indicator that is known of any cluster: wealth where it was surveyed, so that 1 is the poorest. A
    cluster without it stands in the middle.
    """
    known = next(name for name in LIVELIHOODS if clusters[name].notna().any())
    values = clusters.set_index("area_id")[known]
    share = values.rank(method="average") / values.count()
    return (10 * share).map(np.ceil).fillna(_MIDDLE).clip(1, 10).astype(int)


def _circles(longitude: np.ndarray, latitude: np.ndarray, reach_m: np.ndarray) -> np.ndarray:
    """Polygons (n,) around points in degrees, `reach_m` (n,) metres away from them."""
    azimuth = np.tile(np.linspace(0.0, 360.0, _CORNERS, endpoint=False), len(longitude))
    start_x, start_y, metres = (np.repeat(values, _CORNERS) for values in (longitude, latitude, reach_m))
    east, north, _ = _WGS84.fwd(start_x, start_y, azimuth, metres)
    corners = np.column_stack([east, north]).reshape(len(longitude), _CORNERS, 2)
    return shapely.polygons(corners)


def _parted(circles: gpd.GeoSeries, points: gpd.GeoSeries) -> gpd.GeoSeries:
    """Each circle without what is nearer to another point than to its own; both projected."""
    one, other = circles.sindex.query(circles, predicate="intersects")
    crowded = np.unique(one[one != other])
    if len(crowded) == 0:
        return circles
    cells = gpd.GeoSeries(
        shapely.get_parts(
            shapely.voronoi_polygons(shapely.MultiPoint(points.to_list()), extend_to=shapely.box(*circles.total_bounds))
        ),
        crs=points.crs,
    )
    point, cell = cells.sindex.query(points, predicate="intersects")
    own = cells.iloc[cell].set_axis(point).sort_index()
    parted = circles.copy()
    parted.iloc[crowded] = shapely.intersection(circles.iloc[crowded].to_numpy(), own.loc[crowded].to_numpy())
    return parted
