"""Street meets sky: what tiles from above add to a city's street images, under the same folds."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, described
from assets.imagery import ImageryRefresh, acquired_images
from assets.partitions import CITIES
from resources.cities import Cities
from resources.imagery import SKY, ImagerySources, open_ledger
from resources.tracking import Tracking
from resources.workspace import Workspace

if TYPE_CHECKING:
    from urbanprint.settings import City, Imagery

_GROUP: dict[str, Any] = {"group_name": "sky", "owners": OWNERS, "partitions_def": CITIES}


@dg.asset(**_GROUP, kinds={"parquet", "jpeg"}, code_version="1")
def area_tiles(
    context: dg.AssetExecutionContext,
    config: ImageryRefresh,
    cities: Cities,
    workspace: Workspace,
    imagery_sources: ImagerySources,
    areas: gpd.GeoDataFrame,
    sampled_areas: pd.DataFrame,
    sample_points: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """The manifest of the tiles from above of a city's sampled areas: those nearest to the sample points."""
    from urbanprint.imagery.store import ImageStore

    city = cities.city(context.partition_key)
    imagery = _orthophotos(city)
    with open_ledger(workspace, f"{city.key}{SKY}") as ledger:
        acquired = acquired_images(
            imagery,
            config,
            areas=areas,
            sampled=sampled_areas[sampled_areas["role"] == "primary"],
            points=sample_points,
            source=imagery_sources.source(imagery, ledger),
            ledger=ledger,
            store=ImageStore(workspace.images),
            views=city.sample.views,
        )
    return described(acquired.images, notes=acquired.stopped or "none")


@dg.multi_asset(
    group_name="sky",
    partitions_def=CITIES,
    outs={
        "street_and_sky": dg.AssetOut(
            kinds={"sklearn", "mlflow"},
            owners=OWNERS,
            code_version="3",
            description="Scores of ridges on street and sky, of both stacked, and of maps without pictures.",
        ),
        "sky_gains": dg.AssetOut(
            kinds={"parquet"},
            owners=OWNERS,
            code_version="2",
            description="What both together score more than each alone, on the same draws.",
        ),
    },
)
def street_and_sky(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tracking: Tracking,
    areas: gpd.GeoDataFrame,
    street_images: pd.DataFrame,
    image_embeddings: pd.DataFrame,
    folds: pd.DataFrame,
    area_tiles: pd.DataFrame,
) -> Iterator[dg.Output]:
    """Fit and judge all three; the backbone of the tiles is the frozen one of the street images."""
    from urbanprint.aerial.fusion import fused_predictions, fusion_sentence
    from urbanprint.evaluation.scores import difference, score
    from urbanprint.imagery.store import ImageStore
    from urbanprint.maps.figures import score_chart
    from urbanprint.models.backbones import load_backbone
    from urbanprint.models.embedding import embed
    from urbanprint.models.learners import labels_of
    from urbanprint.progress import Printed

    city = cities.city(context.partition_key)
    training, store = city.training, ImageStore(workspace.images)
    tiles = area_tiles[(area_tiles["state"] == "fetched") & area_tiles["area_id"].notna()]
    backbone = load_backbone(training.backbone, weights=training.weights, seed=training.seed)
    with Printed() as bar:
        seen = embed(
            [store.path(sha256) for sha256 in tiles["sha256"]],
            backbone,
            size=training.frozen_size,
            progress=lambda done, of: bar("embedding tiles", done, of),
        )
    street = image_embeddings.set_index("image_id")
    sky = pd.DataFrame(seen, index=pd.Index(tiles["image_id"]), columns=street.columns)
    predictions = fused_predictions(
        street_images[street_images["image_id"].isin(street.index)],
        tiles,
        pd.concat([street, sky]),
        areas=areas,
        folds=folds,
        labels=labels_of(areas, training.indicators),
        buffer_m=city.evaluation.buffer_m,
    )
    seed = city.evaluation.seed
    scores = score(predictions, folds=folds, areas_ranked=city.edition.areas_ranked, seed=seed)
    gains = pd.concat(
        [difference(predictions, "street and sky", alone, folds=folds, seed=seed) for alone in ("street", "sky")],
        ignore_index=True,
    )
    verdict = fusion_sentence(gains)
    chart = score_chart(scores)
    with tracking.run(city.key, "street and sky", tags={"dagster_run": context.run_id}) as run:
        r2 = scores[(scores["measure"] == "r2") & (scores["indicator"] == "imd")]
        run.metrics(dict(zip("r2_" + r2["model"].str.replace(" ", "_") + "_" + r2["kind"], r2["value"], strict=True)))
        run.file("scores.csv", scores.to_csv(index=False))
        run.file("figures/scores.png", chart)
    folder = workspace.report(city.key)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "street_and_sky.png").write_bytes(chart)
    run_id = dg.MetadataValue.text(run.run_id)
    yield described(scores, pictures={"scores": chart}, output="street_and_sky", verdict=verdict, mlflow_run=run_id)
    yield described(gains, output="sky_gains", verdict=verdict)


def _orthophotos(city: "City") -> "Imagery":
    """The orthophotos of a city. Raises `CatalogueError` where it names none."""
    from urbanprint.errors import CatalogueError

    if city.orthophotos is None:
        raise CatalogueError(
            f'[cities.{city.key}] names no orthophotos: set orthophotos = "<key of an imagery table>" first'
        )
    return city.orthophotos
