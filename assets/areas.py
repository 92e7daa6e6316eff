"""From national tables and surveys to the areas of a place, and which of them, and which points, are looked at."""

from typing import Any

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, described
from assets.partitions import CITIES
from assets.sources import PUBLISHERS
from resources.cities import Cities
from resources.surveys import jitter_of
from resources.workspace import Workspace
from urbanprint.settings import City, Country

_GROUP: dict[str, Any] = {
    "group_name": "areas",
    "owners": OWNERS,
    "partitions_def": CITIES,
    "kinds": {"geopandas", "parquet"},
}


@dg.asset(
    **_GROUP,
    deps=[
        *(f"{publisher}_{table}" for publisher in PUBLISHERS for table in ("deprivation", "areas")),
        "survey_clusters",
    ],
    code_version="2",
)
def areas(context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace) -> dg.Output[gpd.GeoDataFrame]:
    """The one table everything joins to: the areas of a city with statistics, population and geometry.

    Of a country, the surroundings of its survey clusters.
    """
    place = cities.place(context.partition_key)
    # Read here and not as inputs: a place needs the tables of one publisher, and the others may not exist yet.
    if isinstance(place, Country):
        return _surroundings(place, workspace)
    return _districts(context, cities.city(place.key), workspace)


def _districts(context: dg.AssetExecutionContext, city: City, workspace: Workspace) -> dg.Output[gpd.GeoDataFrame]:
    from urbanprint.areas import join, select_districts
    from urbanprint.maps import figures

    publisher = city.edition.publisher
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


def _surroundings(country: Country, workspace: Workspace) -> dg.Output[gpd.GeoDataFrame]:
    from urbanprint.cluster_areas import cluster_areas

    clusters = workspace.read_table("survey_clusters", partition=country.key)
    made = cluster_areas(clusters, jitter_of(country.survey), search_m=country.survey.search_m)
    return described(
        made,
        clusters_at_the_position_of_another=len(clusters) - len(made),
        licence=country.survey.licence,
        attribution=country.survey.attribution,
    )


@dg.asset(**_GROUP, code_version="2")
def sampled_areas(
    context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace, areas: gpd.GeoDataFrame
) -> dg.Output[pd.DataFrame]:
    """Areas in the order their decile draws them: the first are asked for images, the rest are reserves.

    Deciles are of deprivation, in a country of the wealth of its clusters (1 = poorest).
    """
    from urbanprint.cluster_areas import livelihood_deciles
    from urbanprint.maps import figures
    from urbanprint.sampling import draw, stratify

    place = cities.place(context.partition_key)
    plan = place.sample
    if isinstance(place, Country):
        clusters = workspace.read_table("survey_clusters", partition=place.key)
        strata = livelihood_deciles(clusters[clusters["area_id"].isin(areas["area_id"])])
        sampled = draw(strata, size=plan.areas, allocation=plan.allocation, seed=plan.seed)
    else:
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

    plan = cities.place(context.partition_key).sample
    points = sampling.sample_points(
        areas, sampled_areas["area_id"], points_per_area=plan.views, spacing_m=plan.spacing_m, seed=plan.seed
    )
    return described(points, spacing_m=plan.spacing_m)
