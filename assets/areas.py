"""From national tables to the areas of a city, and which of them and which points in them are looked at."""

from typing import Any

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, described
from assets.partitions import CITIES
from assets.sources import PUBLISHERS
from resources.cities import Cities
from resources.workspace import Workspace

_GROUP: dict[str, Any] = {
    "group_name": "areas",
    "owners": OWNERS,
    "partitions_def": CITIES,
    "kinds": {"geopandas", "parquet"},
}


@dg.asset(
    **_GROUP,
    deps=[f"{publisher}_{table}" for publisher in PUBLISHERS for table in ("deprivation", "areas")],
    code_version="1",
)
def areas(context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace) -> dg.Output[gpd.GeoDataFrame]:
    """The one table everything joins to: the city's areas with statistics, population and geometry."""
    from urbanprint.areas import join, select_districts
    from urbanprint.maps import figures

    city = cities.city(context.partition_key)
    publisher = city.edition.publisher
    # Read here and not as inputs: a city needs the tables of one publisher, and the others may not exist yet.
    statistics = workspace.read_table(f"{publisher}_deprivation")
    boundaries = workspace.read_table(f"{publisher}_areas")
    statistics = select_districts(statistics[statistics["edition"] == city.edition.key], city.districts)
    joined = join(statistics, boundaries[boundaries["edition"] == city.edition.key])
    if joined.without_boundary:
        context.log.warning(f"{len(joined.without_boundary)} areas have no boundary: {joined.without_boundary[:10]}")
    return described(
        joined.areas,
        pictures={"observed_deprivation": figures.choropleth(joined.areas, "imd_deprivation", title=city.name)},
        districts=joined.areas["district"].nunique(),
        areas_without_boundary=len(joined.without_boundary),
        licence=city.edition.licence,
        attribution=city.edition.attribution,
    )


@dg.asset(**_GROUP, code_version="1")
def sampled_areas(
    context: dg.AssetExecutionContext, cities: Cities, areas: gpd.GeoDataFrame
) -> dg.Output[pd.DataFrame]:
    """Areas in the order their deprivation decile draws them: the first are asked for images, the rest are reserves."""
    from urbanprint.maps import figures
    from urbanprint.sampling import stratify

    plan = cities.city(context.partition_key).sample
    sampled = stratify(areas, size=plan.areas, allocation=plan.allocation, seed=plan.seed)
    return described(
        sampled,
        pictures={"sample": figures.sample_map(areas, sampled)},
        primary=int((sampled["role"] == "primary").sum()),
    )


@dg.asset(**_GROUP, code_version="1")
def sample_points(
    context: dg.AssetExecutionContext, cities: Cities, areas: gpd.GeoDataFrame, sampled_areas: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """Points inside each area at which a view is wanted, at least the minimum spacing in metres apart."""
    from urbanprint import sampling

    plan = cities.city(context.partition_key).sample
    points = sampling.sample_points(
        areas, sampled_areas["area_id"], points_per_area=plan.views, spacing_m=plan.spacing_m, seed=plan.seed
    )
    return described(points, spacing_m=plan.spacing_m)
