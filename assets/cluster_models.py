"""Learners of survey clusters, each judged on clusters it never saw, under the same splits, for both tasks.

Each learner is a run in MLflow. Belongs here: the baselines, the image-wise network, the cluster-wise model, the graph
network with all its rows of the results table, and what is handed out of them.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import dagster as dg
import pandas as pd

from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.surveys import Surveys
from resources.tracking import TrackedRun, Tracking
from resources.workspace import Workspace

if TYPE_CHECKING:
    from urbanprint.evaluation.splits import Split
    from urbanprint.evaluation.study import ClusterStudy
    from urbanprint.evaluation.tasks import Task
    from urbanprint.models.clusterwise import ClusterwiseModel
    from urbanprint.models.graph_model import GraphConfig, GraphModel
    from urbanprint.models.graph_rows import GraphRow
    from urbanprint.models.imagewise import EpochRecord, ImagewiseConfig
    from urbanprint.models.provenance import Features
    from urbanprint.settings import Country

_GROUP: dict[str, Any] = {"group_name": "models", "owners": OWNERS, "partitions_def": CITIES}
HANDED_OUT = "graph_both"
"""The row of the graph network that is trained on all clusters and registered."""


@dg.asset(**_GROUP, kinds={"sklearn", "mlflow"}, code_version="1")
def cluster_baselines(
    context: dg.AssetExecutionContext,
    cities: Cities,
    surveys: Surveys,
    tracking: Tracking,
    survey_clusters: pd.DataFrame,
    cluster_folds: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """What a map without pictures predicts: chance, the mean, the nearest clusters, coordinates, the urban flag."""
    from urbanprint.evaluation import cluster_baselines as baselines
    from urbanprint.progress import Printed

    country = cities.country(context.partition_key)
    study = surveys.study(country, survey_clusters, cluster_folds)
    seed = country.evaluation.seed
    names = [name for name in baselines.cluster_baselines(study.clusters) if name != "country"]  # of one: the prior

    def learner_of(name: str) -> Any:
        return lambda task: baselines.baseline_learner(
            name, study.clusters, study.labels, study.folds, task=task, seed=seed
        )

    with tracking.run(country.key, "cluster baselines", tags={"dagster_run": context.run_id}) as run, Printed() as bar:
        run.parameters({"baselines": ", ".join(names), "seed": seed})
        predictions = study.predictions({name: learner_of(name) for name in names}, progress=bar)
        return _finished(run, country, study, predictions)


@dg.asset(**_GROUP, kinds={"sklearn", "mlflow"}, code_version="1")
def clusterwise_model(
    context: dg.AssetExecutionContext,
    cities: Cities,
    surveys: Surveys,
    tracking: Tracking,
    survey_clusters: pd.DataFrame,
    street_images: pd.DataFrame,
    scene_parses: pd.DataFrame,
    cluster_folds: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """Objects summed over a cluster: nearest neighbours, random forest or boosted trees, chosen inside training."""
    from functools import partial

    from urbanprint.models.clusterwise import clusterwise_learner
    from urbanprint.progress import Printed
    from urbanprint.scenes.clusters import cluster_counts

    country = cities.country(context.partition_key)
    study = surveys.study(country, survey_clusters, cluster_folds, street_images)
    tried: list[pd.DataFrame] = []

    def keep(split: "Split", model: "ClusterwiseModel") -> None:
        chosen = (model.tried["method"] == model.method) & (model.tried["error"] == model.error)
        table = model.tried.assign(split=split.label, task=model.task, indicator=model.indicator)
        tried.append(table.assign(chosen=chosen))

    def learner_of(task: "Task") -> Any:
        counts = partial(cluster_counts, scene_parses)
        return clusterwise_learner(
            counts,
            study.labels,
            study.folds,
            task=task,
            candidates=country.training.methods,
            seed=country.training.seed,
            on_model=keep,
        )

    with tracking.run(country.key, "cluster-wise", tags={"dagster_run": context.run_id}) as run, Printed() as bar:
        run.parameters({"features": "object counts and fractions", "seed": country.training.seed})
        _log_images(run, country, study)
        predictions = study.predictions({"clusterwise": learner_of}, progress=bar)
        candidates = pd.concat(tried, ignore_index=True)
        run.file("candidates.csv", candidates.to_csv(index=False))
        chosen = candidates.loc[candidates["chosen"], "method"].value_counts()
        return _finished(run, country, study, predictions, {f"{name} chosen": int(n) for name, n in chosen.items()})


@dg.multi_asset(
    group_name="models",
    partitions_def=CITIES,
    outs={
        "cluster_imagewise_model": dg.AssetOut(
            kinds={"torch", "mlflow"},
            owners=OWNERS,
            code_version="1",
            description="Held-out predictions of the network on single images: the majority of their votes, or their "
            "mean. An interrupted training resumes; a fold trained on the same images is not trained again.",
        ),
        "image_predictions": dg.AssetOut(
            kinds={"torch", "parquet"},
            owners=OWNERS,
            code_version="1",
            description="The same network's held-out prediction of each single image.",
        ),
    },
)
def cluster_imagewise_model(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    surveys: Surveys,
    tracking: Tracking,
    survey_clusters: pd.DataFrame,
    street_images: pd.DataFrame,
    cluster_folds: pd.DataFrame,
) -> Iterator[dg.Output]:
    """Every image learns a copy of its cluster's label; the network starts anew in every fold."""
    from urbanprint.evaluation.image_votes import image_scores
    from urbanprint.evaluation.tasks import Task
    from urbanprint.models.imagewise_clusters import fit_images, imagewise_cluster_learner
    from urbanprint.progress import Printed
    from urbanprint.sources.providers import require_training

    country = cities.country(context.partition_key)
    require_training(country.imagery)
    study = surveys.study(country, survey_clusters, cluster_folds, street_images)
    models, config = workspace.models(country.key), imagewise_config(country)
    of_images: list[pd.DataFrame] = []
    with tracking.run(country.key, "image-wise", tags={"dagster_run": context.run_id}) as run, Printed() as bar:
        run.parameters(vars(country.training))
        _log_images(run, country, study)

        def learner_of(task: "Task") -> Any:
            return imagewise_cluster_learner(
                study.labels,
                study.folds,
                task=task,
                config=config,
                checkpoints=models / "checkpoints",
                on_images=lambda table: of_images.append(table.assign(task=task)),
                on_epoch=lambda split, epoch: _log_epoch(run, f"{task}-{split.label}", epoch),
            )

        predictions = study.predictions({"imagewise": learner_of}, progress=bar)
        images = pd.concat(of_images, ignore_index=True)
        single = pd.concat(
            [image_scores(images[images["task"] == task], task=task).assign(task=task) for task in get_args(Task)]
        )
        run.file("scores_of_images_and_clusters.csv", single.to_csv(index=False))
        handed_out = fit_images(
            study.everything,
            study.images,
            study.labels,
            study.folds,
            task="regression",
            config=config,
            checkpoints=models / "checkpoints",
        )
        card = _card(country, study, predictions)
        _register(run, f"{country.key}-imagewise", handed_out.model.save(models / "imagewise", card), study)
        yield _finished(run, country, study, predictions, output="cluster_imagewise_model")
        yield described(images, output="image_predictions")


@dg.asset(**_GROUP, kinds={"torch", "mlflow"}, code_version="1", deps=["cluster_imagewise_model"])
def graph_model(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    surveys: Surveys,
    tracking: Tracking,
    survey_clusters: pd.DataFrame,
    street_images: pd.DataFrame,
    scene_parses: pd.DataFrame,
    image_embeddings: pd.DataFrame,
    cluster_folds: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """The graph over a cluster's images: objects, image features or both as nodes, every kind of edge and pooling."""
    from urbanprint.evaluation.tasks import Task
    from urbanprint.models.graph_learner import fit_graph, graph_learner
    from urbanprint.models.graph_rows import GRAPH_ROWS, node_features
    from urbanprint.models.provenance import features_for
    from urbanprint.progress import Printed
    from urbanprint.scenes.clusters import image_counts

    country = cities.country(context.partition_key)
    study = surveys.study(country, survey_clusters, cluster_folds, street_images)
    models = workspace.models(country.key)
    objects = image_counts(scene_parses, study.images).fillna(0.0).astype("float32")
    positions = study.images.set_index("image_id")[["longitude", "latitude"]]
    of_task = {
        task: image_features(country, study, image_embeddings, models / "checkpoints", task) for task in get_args(Task)
    }
    with tracking.run(country.key, "graph", tags={"dagster_run": context.run_id}) as run, Printed() as bar:
        run.parameters(vars(country.graph))
        _log_images(run, country, study)

        def learner_of(name: str) -> Any:
            row = GRAPH_ROWS[name]
            return lambda task: graph_learner(
                node_features(row.nodes, objects=objects, images=of_task[task]),
                positions,
                study.labels,
                study.folds,
                task=task,
                config=graph_config(country, row),
                checkpoints=models / "graph" / name / task,
                on_model=lambda split, model: _log_curves(run, f"{name}-{task}-{split.label}", model),
            )

        predictions = study.predictions({name: learner_of(name) for name in GRAPH_ROWS}, progress=bar)
        row = GRAPH_ROWS[HANDED_OUT]
        source = node_features(row.nodes, objects=objects, images=of_task["regression"])
        handed_out = fit_graph(
            study.everything,
            study.images,
            features_for(source, study.everything),
            positions,
            study.labels,
            study.folds,
            task="regression",
            config=graph_config(country, row),
        )
        card = _card(country, study, predictions)
        _register(run, f"{country.key}-graph", handed_out.save(models / "graph" / "all", card), study)
        return _finished(run, country, study, predictions)


def imagewise_config(country: "Country") -> "ImagewiseConfig":
    """The settings of the network on single images."""
    from dataclasses import asdict, fields

    from urbanprint.models.imagewise import ImagewiseConfig

    own = {field.name for field in fields(ImagewiseConfig)}
    return ImagewiseConfig(**{name: value for name, value in asdict(country.training).items() if name in own})


def graph_config(country: "Country", row: "GraphRow") -> "GraphConfig":
    """The settings of the graph network in a row of the results table."""
    from dataclasses import asdict

    from urbanprint.models.graph_model import GraphConfig

    settings = asdict(country.graph)
    del settings["features"]
    return GraphConfig(
        **settings,
        edges=row.edges,
        pooling=row.pooling,
        max_images=country.sample.views,
        seed=country.training.seed,
    )


def image_features(
    country: "Country", study: "ClusterStudy", embeddings: pd.DataFrame, checkpoints: Path, task: "Task"
) -> "Callable[[Split], Features]":
    """Features of images for each split, as the catalogue asks: fine-tuned on its training part, or frozen."""
    from urbanprint.models.imagewise_clusters import imagewise_features
    from urbanprint.models.provenance import Features

    if country.graph.features == "fine-tuned":
        config = imagewise_config(country)
        return imagewise_features(
            study.images, study.labels, study.folds, task=task, config=config, checkpoints=checkpoints, keep=1
        )
    frozen = Features(table=embeddings.set_index("image_id"))
    return lambda _split: frozen


def _log_images(run: TrackedRun, country: "Country", study: "ClusterStudy") -> None:
    from urbanprint.tables import fingerprint

    run.dataset("street_images", digest=fingerprint(study.images), source=country.imagery.key, rows=len(study.images))


_PER_EPOCH = ("train_loss", "validation_loss", "learning_rate")


def _log_epoch(run: TrackedRun, training: str, epoch: "EpochRecord") -> None:
    run.metrics({f"{training}/{name}": getattr(epoch, name) for name in _PER_EPOCH}, step=epoch.epoch)


def _log_curves(run: TrackedRun, training: str, model: "GraphModel") -> None:
    # Whole trainings at once: a hundred of them take seconds each, and one request an epoch would take as long.
    run.curves({f"{training}/{name}": [getattr(epoch, name) for epoch in model.history] for name in _PER_EPOCH})


def _card(country: "Country", study: "ClusterStudy", predictions: pd.DataFrame) -> dict[str, Any]:
    """What a model's card says beside what the model knows of itself; its scores are those of the fold models."""
    import json

    from urbanprint.statements import INTENDED_USE, LIMITS
    from urbanprint.tables import fingerprint

    scores = study.scores(predictions, seed=country.evaluation.seed)
    return {
        "country": country.key,
        "split": {kind: len(splits) for kind, splits in study.splits.items()},
        "scores": json.loads(scores.to_json(orient="records")),
        "data_version": fingerprint(study.images[["image_id", "sha256", "area_id"]]),
        "licence": ", ".join(sorted({country.survey.licence, *study.images["licence"]})),
        "intended_use": INTENDED_USE,
        "limits": LIMITS,
    }


def _register(run: TrackedRun, name: str, folder: Path, study: "ClusterStudy") -> None:
    from urbanprint.models.card import write_training_images

    write_training_images(folder, study.images["image_id"])
    run.model(name, folder)


def _finished(
    run: TrackedRun,
    country: "Country",
    study: "ClusterStudy",
    predictions: pd.DataFrame,
    more: Mapping[str, Any] | None = None,
    *,
    output: str = "result",
) -> dg.Output[pd.DataFrame]:
    """Log the scores of a learner to its run and describe its predictions with its scorecard."""
    from urbanprint.maps.livelihood_figures import learner_chart
    from urbanprint.maps.livelihood_table import table_markdown

    scores = study.scores(predictions, seed=country.evaluation.seed)
    names = scores["model"] + "/" + scores["measure"] + "_" + scores["kind"] + "_" + scores["indicator"]
    run.metrics(dict(zip(names, scores["value"], strict=True)))
    run.file("scores.csv", scores.to_csv(index=False))
    chart = learner_chart(scores, task="regression", title=country.name)
    run.file("figures/scores.png", chart)
    return described(
        predictions,
        more,
        pictures={"scores": chart},
        output=output,
        scorecard=dg.MetadataValue.md(table_markdown({country.name: scores})),
        mlflow_run=run.run_id,
    )
