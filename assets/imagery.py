"""From points to pixels: what will be asked, what was fetched, and what the search for images met."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.imagery import ImagerySources
from resources.workspace import Workspace

_GROUP: dict[str, Any] = {"group_name": "imagery", "owners": OWNERS, "partitions_def": CITIES}


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def imagery_plan(
    context: dg.AssetExecutionContext, cities: Cities, sampled_areas: pd.DataFrame, sample_points: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """What the coming run asks of the imagery provider at most: areas, points, searches, images, minutes, price."""
    from urbanprint.imagery.planning import plan_imagery

    return described(plan_imagery(cities.city(context.partition_key), sampled_areas, sample_points).as_table())


class ImageryRefresh(dg.Config):
    """How fresh the answers of the imagery provider have to be."""

    search_again_after_days: float | None = None
    """Searches older than this are asked again; images already fetched never are. None: never search again."""


@dg.multi_asset(
    group_name="imagery",
    partitions_def=CITIES,
    outs={
        "street_images": dg.AssetOut(
            kinds={"parquet", "jpeg"},
            owners=OWNERS,
            code_version="1",
            description="The manifest, a row an image: where it is from, which area it lies in, what became of it. "
            "Pixels lie in the image store under their SHA-256.",
        ),
        "image_coverage": dg.AssetOut(
            kinds={"parquet"},
            owners=OWNERS,
            code_version="1",
            description="Which areas have imagery: an area without is replaced within its deprivation decile, "
            "and how often that happens is a result.",
        ),
    },
)
def street_images(
    context: dg.AssetExecutionContext,
    config: ImageryRefresh,
    cities: Cities,
    workspace: Workspace,
    imagery_sources: ImagerySources,
    areas: gpd.GeoDataFrame,
    sampled_areas: pd.DataFrame,
    sample_points: pd.DataFrame,
    imagery_plan: pd.DataFrame,
) -> Iterator[dg.Output]:
    """Fetch the images of the sample; what an interrupted run has fetched is kept and not asked for again."""
    from contextlib import closing
    from datetime import timedelta

    from urbanprint.errors import SourceError
    from urbanprint.imagery.acquisition import acquire
    from urbanprint.imagery.ledger import Ledger
    from urbanprint.imagery.store import ImageStore
    from urbanprint.maps import figures
    from urbanprint.progress import Printed
    from urbanprint.sources.http import HttpStatusError

    city = cities.city(context.partition_key)
    context.log.info(
        f"asking for at most {imagery_plan['images'].item()} images in {imagery_plan['areas'].item()} areas"
    )
    days = config.search_again_after_days
    with closing(Ledger(workspace.ledger(city.key))) as ledger:
        try:
            acquired = acquire(
                areas=areas,
                sampled=sampled_areas,
                points=sample_points,
                source=imagery_sources.source(city.imagery),
                ledger=ledger,
                store=ImageStore(workspace.images),
                views=city.sample.views,
                threads=city.imagery.threads,
                stale_after=None if days is None else timedelta(days=days),
                progress=Printed(),
            )
        except HttpStatusError:
            raise  # refused for good: a wrong token does not become right by waiting
        except SourceError as error:
            raise dg.RetryRequested(max_retries=2, seconds_to_wait=20) from error
    states = acquired.images["state"].value_counts()
    yield described(
        acquired.images,
        {f"{state} images": int(count) for state, count in states.items()},
        output="street_images",
    )
    yield described(
        acquired.coverage,
        output="image_coverage",
        pictures={"coverage_by_decile": figures.coverage_by_decile(acquired.coverage)},
        areas_without_imagery=int((acquired.coverage["outcome"] == "no imagery").sum()),
    )
