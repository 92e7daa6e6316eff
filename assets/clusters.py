"""Survey clusters: what was surveyed, what is seen in the images of each, and which fold tests it.

Belongs here: everything a learner of clusters is given. Learners are in `cluster_models`; images come from the same
assets as a city's.
"""

from typing import Any

import dagster as dg
import pandas as pd

from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.files import Files
from resources.surveys import jitter_of
from resources.workspace import Workspace

_OWN: dict[str, Any] = {"owners": OWNERS, "partitions_def": CITIES}


@dg.asset(**_OWN, group_name="sources", kinds={"csv", "parquet"}, code_version="1")
def survey_clusters(context: dg.AssetExecutionContext, cities: Cities, files: Files) -> dg.Output[pd.DataFrame]:
    """The clusters of a country's household survey: position as published, urban or rural, weight, indicators."""
    from urbanprint.indicators.survey import read_clusters
    from urbanprint.maps.livelihood_figures import cluster_map
    from urbanprint.vocabulary import LIVELIHOODS

    country = cities.country(context.partition_key)
    survey = country.survey
    path = files.path(survey.table)
    clusters = read_clusters(path, columns=survey.columns, id_columns=survey.id_columns, country=survey.country)
    known = {f"clusters with {name}": int(clusters[name].notna().sum()) for name in LIVELIHOODS}
    shown = next(name for name in LIVELIHOODS if clusters[name].notna().any())
    return described(
        clusters,
        known,
        pictures={shown: cluster_map(clusters, clusters.set_index("area_id")[shown], title=LIVELIHOODS[shown])},
        moved_by=f"up to {survey.urban_m:g} m in towns, {survey.rural_m:g} m in the country",
        licence=survey.licence,
        attribution=survey.attribution,
    )


@dg.asset(**_OWN, group_name="features", kinds={"torch", "parquet"}, code_version="1")
def scene_parses(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    files: Files,
    street_images: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """What is seen in each image: share of pixels, objects and confidence by class. No picture is parsed twice."""
    from urbanprint.imagery.store import ImageStore
    from urbanprint.progress import Printed
    from urbanprint.scenes.detections import read_detections
    from urbanprint.scenes.kept import parse_kept
    from urbanprint.scenes.parsers import load_parser

    country = cities.country(context.partition_key)
    scenes = country.scenes
    images = street_images[street_images["state"] == "fetched"]
    if scenes.detections is not None:
        found = read_detections(files.path(scenes.detections), images["image_id"], features_are=scenes.features_are)
    else:
        store = ImageStore(workspace.images)
        with Printed() as bar:
            found = parse_kept(
                images.assign(path=[str(store.path(sha256)) for sha256 in images["sha256"]]),
                lambda: load_parser(scenes),
                folder=workspace.scenes(scenes.parser),
                batch=scenes.batch,
                progress=lambda done, of: bar("parsing images", done, of),
            )
    return described(
        found,
        parser="published detections" if scenes.detections else scenes.parser,
        images_with_anything=found["image_id"].nunique(),
        images=len(images),
    )


@dg.asset(**_OWN, group_name="features", kinds={"parquet"}, code_version="1")
def cluster_features(street_images: pd.DataFrame, scene_parses: pd.DataFrame) -> dg.Output[pd.DataFrame]:
    """What all images of a cluster hold together: objects by class, mean shares of pixels, number of images."""
    from urbanprint.scenes.clusters import cluster_counts

    images = street_images[street_images["state"] == "fetched"]
    return described(cluster_counts(scene_parses, images).reset_index())


@dg.asset(**_OWN, group_name="models", kinds={"parquet"}, code_version="1")
def cluster_folds(
    context: dg.AssetExecutionContext, cities: Cities, survey_clusters: pd.DataFrame, image_coverage: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """Which fold tests each cluster with enough images: random places, whole regions, spatial blocks with a buffer."""
    from urbanprint.evaluation import clusters
    from urbanprint.imagery.coverage import enough_images

    country = cities.country(context.partition_key)
    plan = country.evaluation
    enough = enough_images(image_coverage, country.sample.least_images)
    folds = clusters.cluster_folds(
        survey_clusters[survey_clusters["area_id"].isin(enough.index[enough])],
        folds=plan.folds,
        seed=plan.seed,
        block_m=plan.block_m,
        jitter=jitter_of(country.survey),
        held_out="region",
    )
    counts = folds.groupby("kind")["fold"].nunique()
    return described(folds, {f"{kind} folds": int(count) for kind, count in counts.items()})
