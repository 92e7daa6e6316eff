"""What the learners of survey clusters look at, on clusters they never saw, and how many images they need."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import dagster as dg
import pandas as pd

from assets.cluster_models import image_features
from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.surveys import Surveys
from resources.tracking import PANEL_TAG, Tracking
from resources.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from urbanprint.evaluation.splits import Split
    from urbanprint.evaluation.tasks import Task
    from urbanprint.explanation.graph_importance import Predict
    from urbanprint.models.provenance import Features

_GROUP: dict[str, Any] = {"group_name": "explanation", "owners": OWNERS, "partitions_def": CITIES}
KIND = "block"
"""Explanations are of the models under block folds, the ones the verdict is about."""

_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)
_DRAWS = 3
_EXPLAINED = 4  # clusters of each fold


@dg.asset(**_GROUP, kinds={"sklearn", "mlflow"}, code_version="1")
def feature_importance(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    surveys: Surveys,
    tracking: Tracking,
    survey_clusters: pd.DataFrame,
    street_images: pd.DataFrame,
    scene_parses: pd.DataFrame,
    cluster_folds: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """How far held-out R² falls when a class, or a group of correlated classes, is shuffled; and a readable tree."""
    from functools import partial

    from urbanprint.explanation.clusterwise import class_importance, fold_models
    from urbanprint.explanation.tree import draw_tree, fit_tree
    from urbanprint.maps.livelihood_figures import importance_chart
    from urbanprint.scenes.clusters import cluster_counts
    from urbanprint.vocabulary import LIVELIHOODS

    country = cities.country(context.partition_key)
    study = surveys.study(country, survey_clusters, cluster_folds, street_images)
    counting = partial(cluster_counts, scene_parses)
    seed = country.training.seed
    fitted = fold_models(
        counting,
        study.images,
        study.labels,
        study.folds,
        study.splits[KIND],
        task="regression",
        candidates=country.training.methods,
        seed=seed,
    )
    block_of = dict(zip(study.folds["area_id"], study.folds["block"], strict=True))
    tables, pictures = [], {}
    features = counting(study.images)
    for indicator in study.labels.columns:
        by_class, by_group = class_importance(
            fitted, indicator=indicator, task="regression", unit_of=block_of, seed=seed
        )
        tables += [by_class.assign(indicator=indicator, by="class"), by_group.assign(indicator=indicator, by="group")]
        name = LIVELIHOODS[indicator]
        pictures[f"importance_{indicator}"] = importance_chart(by_class, title=name, measure="R²")
        known = study.labels[indicator].reindex(features.index).dropna()
        tree = fit_tree(features.loc[known.index], known, task="regression", depth=3, seed=seed)
        pictures[f"tree_{indicator}"] = draw_tree(
            tree, title=f"{name} in a few questions", value_name=f"mean {indicator}"
        )
    with tracking.run(country.key, "feature importance", tags={"dagster_run": context.run_id}) as run:
        for name, png in pictures.items():
            run.file(f"figures/{name}.png", png)
    _keep(workspace, country.key, pictures)
    return described(pd.concat(tables, ignore_index=True), pictures=pictures)


@dg.asset(**_GROUP, kinds={"torch", "parquet"}, code_version="1", deps=["graph_model"])
def image_importance(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    surveys: Surveys,
    survey_clusters: pd.DataFrame,
    street_images: pd.DataFrame,
    image_embeddings: pd.DataFrame,
    cluster_folds: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """Which images, and which edges between them, moved the graph's prediction of clusters it had never seen."""
    from urbanprint.explanation import graph_importance
    from urbanprint.maps.livelihood_figures import image_panel
    from urbanprint.maps.thumbnails import pixels
    from urbanprint.models.graph_model import load_graph
    from urbanprint.sources.providers import terms_of

    country = cities.country(context.partition_key)
    study = surveys.study(country, survey_clusters, cluster_folds, street_images)
    models = workspace.models(country.key)
    features_of = image_features(country, study, image_embeddings, models / "checkpoints", "regression")
    positions = study.images.set_index("image_id")[["longitude", "latitude"]]
    indicator = study.labels.columns[0]
    images, edges = [], []
    for split in study.splits[KIND]:
        model = load_graph(models / "graph" / "graph_images" / "regression" / split.label)
        testing = study.images[study.images["area_id"].isin(split.test)]
        chosen = testing["area_id"].value_counts().index[:_EXPLAINED]  # those with the most to choose among
        shown = testing[testing["area_id"].isin(chosen)]
        features = features_of(split).table
        images.append(graph_importance.image_importance(model, features, positions, shown, indicator=indicator))
        edges.append(graph_importance.edge_importance(model, features, positions, shown, indicator=indicator, most=10))
    table = pd.concat([*images, *edges], ignore_index=True).assign(indicator=indicator)
    pictures: dict[str, bytes] = {}
    in_panel: list[str] = []
    if terms_of(country.imagery).may_show:
        first = images[0][images[0]["area_id"] == images[0]["area_id"].iloc[0]]
        in_panel = first["image_id"].tolist()
        paths = study.images.set_index("image_id")["path"]
        pictures["panel"] = image_panel(
            first,
            {image_id: pixels(Path(paths[image_id]), width=240) for image_id in first["image_id"]},
            title=f"Cluster {first['area_id'].iloc[0]}",
            unit=indicator,
        )
        _keep(workspace, country.key, {"image_panel": pictures["panel"]})
    explained = f"{indicator}, {len(images)} folds, {_EXPLAINED} clusters each"
    return described(table, {PANEL_TAG: " ".join(in_panel)}, pictures=pictures, explained=explained)


@dg.asset(**_GROUP, kinds={"torch", "parquet"}, code_version="1", deps=["graph_model"])
def image_curves(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    surveys: Surveys,
    survey_clusters: pd.DataFrame,
    street_images: pd.DataFrame,
    scene_parses: pd.DataFrame,
    image_embeddings: pd.DataFrame,
    image_predictions: pd.DataFrame,
    cluster_folds: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """Held-out score of each way of looking against the number of images a cluster is seen through."""
    from functools import partial

    from urbanprint.evaluation.tasks import Task
    from urbanprint.explanation.clusterwise import fold_models, predictors
    from urbanprint.explanation.graph_importance import curve_at_prediction
    from urbanprint.maps.livelihood_figures import curve_chart
    from urbanprint.models.graph_model import load_graph
    from urbanprint.scenes.clusters import cluster_counts

    country = cities.country(context.partition_key)
    study = surveys.study(country, survey_clusters, cluster_folds, street_images)
    models, seed = workspace.models(country.key), country.training.seed
    counting = partial(cluster_counts, scene_parses)
    positions = study.images.set_index("image_id")[["longitude", "latitude"]]
    splits = study.splits[KIND]
    most = int(study.images.groupby("area_id").size().max())
    counts = [count for count in _COUNTS if count < most] + [most]
    parts = []
    for task in get_args(Task):
        features_of = image_features(country, study, image_embeddings, models / "checkpoints", task)
        fitted = fold_models(
            *(counting, study.images, study.labels, study.folds, splits),
            task=task,
            candidates=country.training.methods,
            seed=seed,
        )

        def graph(split: "Split", task: "Task", features_of: "Callable[[Split], Features]") -> "Predict":
            model = load_graph(models / "graph" / "graph_images" / task / split.label)
            table = features_of(split).table
            return lambda images: model.predict(table, positions, images)

        ways = {
            "imagewise": [(split, _votes(image_predictions, split, task)) for split in splits],
            "clusterwise": predictors(fitted, counting),
            "graph_images": [(split, graph(split, task, features_of)) for split in splits],
        }
        for model, way in ways.items():
            curve = curve_at_prediction(
                way, study.images, study.labels, task=task, counts=counts, draws=_DRAWS, seed=seed
            )
            parts.append(curve.assign(model=model, task=task))
    table = pd.concat(parts, ignore_index=True)
    chart = curve_chart(table[table["task"] == "regression"], measure="R²")
    return described(table, pictures={"curves": chart})


def _votes(image_predictions: pd.DataFrame, split: "Split", task: "Task") -> "Predict":
    """The image-wise network of a fold, by what it has said of each image."""
    from urbanprint.evaluation.image_votes import pool_images

    of_fold = (image_predictions["kind"] == (split.name or split.kind)) & (image_predictions["fold"] == split.fold)
    own = image_predictions[of_fold & (image_predictions["task"] == task)]
    of_image = own.pivot_table(index="image_id", columns="indicator", values="predicted")

    def predict(images: pd.DataFrame) -> pd.DataFrame:
        seen = images[["image_id", "area_id"]].merge(of_image, left_on="image_id", right_index=True)
        return pool_images(seen, task=task)

    return predict


def _keep(workspace: Workspace, country: str, pictures: dict[str, bytes]) -> None:
    """Keep figures for the report."""
    folder = workspace.models(country) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, png in pictures.items():
        (folder / f"{name}.png").write_bytes(png)
