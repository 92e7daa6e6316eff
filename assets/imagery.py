"""From points to pixels: what will be asked, what was fetched, and what the search for images met."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.imagery import ImagerySources, image_store, open_ledger
from resources.workspace import Workspace
from urbanprint.settings import Country, Place

if TYPE_CHECKING:
    from urbanprint.maps.style import Deciles

if TYPE_CHECKING:
    from urbanprint.imagery.acquisition import Acquired
    from urbanprint.settings import Imagery

_GROUP: dict[str, Any] = {"group_name": "imagery", "owners": OWNERS, "partitions_def": CITIES}


def _deciles(place: Place) -> "Deciles":
    """What the deciles of a place's sample are of."""
    from urbanprint.maps.style import DEPRIVATION, WEALTH

    return WEALTH if isinstance(place, Country) else DEPRIVATION


class LookUp(dg.Config):
    """Whether to look before planning."""

    look_up: bool = False
    """Search the areas first, which is free with every provider: the plan then knows what there is to fetch."""


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="2")
def imagery_plan(
    context: dg.AssetExecutionContext,
    config: LookUp,
    cities: Cities,
    workspace: Workspace,
    imagery_sources: ImagerySources,
    areas: gpd.GeoDataFrame,
    sampled_areas: pd.DataFrame,
    sample_points: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """What the coming run asks of the provider at most: areas, points, searches, images, minutes, price, budget."""
    from urbanprint.imagery.planning import plan_imagery
    from urbanprint.imagery.searching import find_images
    from urbanprint.progress import Printed
    from urbanprint.sources.providers import price_of, searches_points

    city = cities.place(context.partition_key)
    request = None  # only a source knows its request key, and making one may need a secret
    with open_ledger(workspace, city.key) as ledger:
        if config.look_up:
            source = imagery_sources.source(city.imagery, ledger)
            request = source.request_key
            find_images(
                areas=areas,
                sampled=sampled_areas,
                points=sample_points,
                source=source,
                ledger=ledger,
                threads=city.imagery.threads,
                progress=Printed(),
            )
        plan = plan_imagery(
            city,
            sampled_areas,
            sample_points,
            ledger=ledger,
            store=image_store(city, workspace),
            request=request,
            price=price_of(city.imagery),
            budget_images=city.imagery.budget,
            # Its searches leave out the address and the creator: an image takes its entity and its pixels.
            per_image_requests=2.0 if city.imagery.provider == "mapillary" else 1.0,
            searches_points=searches_points(city.imagery),
        )
    return described(plan.as_table())


class ImageryRefresh(dg.Config):
    """How fresh the answers of the imagery provider have to be."""

    search_again_after_days: float | None = None
    """Searches older than this are asked again; images already fetched never are. None: never search again."""
    pay_again: bool = False
    """Buy images again that have been paid for and that the store lacks, as it does when the features change."""


@dg.multi_asset(
    group_name="imagery",
    partitions_def=CITIES,
    outs={
        "street_images": dg.AssetOut(
            kinds={"parquet", "jpeg"},
            owners=OWNERS,
            code_version="2",
            description="The manifest, a row an image: where it is from, which area it lies in, what became of it. "
            "Pixels lie in the image store under their SHA-256; where the terms forbid that, only features do.",
        ),
        "image_coverage": dg.AssetOut(
            kinds={"parquet"},
            owners=OWNERS,
            code_version="2",
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
    import time

    from urbanprint.imagery.retention import expire
    from urbanprint.maps import figures

    city = cities.place(context.partition_key)
    store = image_store(city, workspace)
    plan = imagery_plan.iloc[0]
    context.log.info(f"asking for at most {plan['images']} images in {plan['areas']} areas, price: {plan['price']}")
    with open_ledger(workspace, city.key) as ledger:
        source = imagery_sources.source(city.imagery, ledger)
        expired = expire(ledger, store, source.terms, time.time(), source=source.name)
        acquired = acquired_images(
            city.imagery,
            config,
            areas=areas,
            sampled=sampled_areas,
            points=sample_points,
            source=source,
            ledger=ledger,
            store=store,
            views=city.sample.views,
        )
    if acquired.stopped:
        context.log.warning(acquired.stopped)
    states = acquired.images["state"].value_counts()
    yield described(
        acquired.images,
        {f"{state} images": int(count) for state, count in states.items()},
        output="street_images",
        removed_after_their_time=expired,
        notes="\n".join([*getattr(source, "notes", ()), *filter(None, [acquired.stopped])]) or "none",
    )
    yield described(
        acquired.coverage,
        output="image_coverage",
        pictures={"coverage_by_decile": figures.coverage_by_decile(acquired.coverage, deciles=_deciles(city))},
        areas_without_imagery=int((acquired.coverage["outcome"] == "no imagery").sum()),
    )


def acquired_images(imagery: "Imagery", config: ImageryRefresh, **asked: Any) -> "Acquired":
    """What `acquire` fetches of `asked` under the settings of `imagery`; a provider in trouble is asked again later."""
    from datetime import timedelta
    from functools import partial

    from urbanprint.errors import SourceError
    from urbanprint.imagery.acquisition import acquire
    from urbanprint.imagery.quality import examine, weed
    from urbanprint.progress import Printed
    from urbanprint.sources.http import HttpStatusError
    from urbanprint.sources.limits import ProviderDown

    days, quality = config.search_again_after_days, imagery.quality
    try:
        return acquire(
            **asked,
            threads=imagery.threads,
            stale_after=None if days is None else timedelta(days=days),
            progress=Printed(),
            pay_again=config.pay_again,
            inspect=partial(examine, quality=quality),
            weed=partial(
                weed,
                spacing_m=quality.spacing_m,
                distance_bits=quality.distance_bits,
                within_m=quality.duplicate_within_m,
            ),
        )
    except HttpStatusError:
        raise  # refused for good: a wrong key does not become right by waiting
    except ProviderDown as error:
        raise dg.RetryRequested(max_retries=2, seconds_to_wait=60) from error
    except SourceError as error:
        raise dg.RetryRequested(max_retries=2, seconds_to_wait=20) from error


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def image_quality(
    context: dg.AssetExecutionContext, cities: Cities, street_images: pd.DataFrame, sampled_areas: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """How many images were rejected, by reason, source and deprivation decile, beside those that were kept."""
    from urbanprint.imagery.quality import rejections
    from urbanprint.maps.coverage_figures import rejection_chart

    table = rejections(street_images, sampled_areas.set_index("area_id")["stratum"])
    deciles = _deciles(cities.place(context.partition_key))
    return described(table, pictures={"rejections": rejection_chart(table, deciles=deciles)})


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def coverage_bias(
    context: dg.AssetExecutionContext,
    cities: Cities,
    areas: gpd.GeoDataFrame,
    sampled_areas: pd.DataFrame,
    sample_points: pd.DataFrame,
    street_images: pd.DataFrame,
    image_coverage: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """The share of areas, street points and people with imagery by decile, source and year: who is in the picture."""
    from urbanprint.imagery import coverage
    from urbanprint.maps.coverage_figures import coverage_bias_chart

    place = cities.place(context.partition_key)
    bias = coverage.coverage_bias(
        areas, sampled_areas, sample_points, street_images, image_coverage, least_images=place.sample.least_images
    )
    return described(bias, pictures={"coverage_bias": coverage_bias_chart(bias, deciles=_deciles(place))})
