"""Judgement of the learners of survey clusters: the table, what a difference is worth, what choosing flatters."""

from itertools import permutations
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from assets.cluster_models import graph_config
from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.surveys import Surveys, jitter_of
from resources.tracking import Tracking
from resources.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from urbanprint.evaluation.crossfit import Learner
    from urbanprint.evaluation.study import ClusterStudy
    from urbanprint.evaluation.tasks import Task
    from urbanprint.settings import Country

_GROUP: dict[str, Any] = {"group_name": "evaluation", "owners": OWNERS, "partitions_def": CITIES}
REGISTERED = ("imagewise", "graph")
_MADE_OF = ("survey_clusters", "cluster_folds", "street_images", "scene_parses", "image_embeddings")
"""Tables a country needs to be transferred from and to."""

_STUDIES = {"learnable": (0.0, 0.3), "validation": (200, 1_400)}


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def cluster_predictions(
    cluster_baselines: pd.DataFrame,
    clusterwise_model: pd.DataFrame,
    cluster_imagewise_model: pd.DataFrame,
    graph_model: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """Held-out predictions of every learner side by side: no cluster is predicted by a model that saw it."""
    made = [cluster_baselines, cluster_imagewise_model, clusterwise_model, graph_model]
    return described(pd.concat(made, ignore_index=True))


@dg.asset(**_GROUP, kinds={"parquet", "mlflow"}, code_version="1")
def cluster_scorecard(
    context: dg.AssetExecutionContext,
    cities: Cities,
    tracking: Tracking,
    cluster_predictions: pd.DataFrame,
    cluster_folds: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """The table: every learner, indicator and task under every kind of fold, with 95 % intervals."""
    from urbanprint.evaluation.cluster_scores import score_clusters
    from urbanprint.maps.livelihood_figures import learner_chart
    from urbanprint.maps.livelihood_table import table_markdown

    country = cities.country(context.partition_key)
    scores = score_clusters(cluster_predictions, folds=cluster_folds, seed=country.evaluation.seed)
    table = table_markdown({country.name: scores})
    charts = {task: learner_chart(scores, task=task, title=country.name) for task in ("regression", "classification")}
    with tracking.run(country.key, "scorecard", tags={"dagster_run": context.run_id}) as run:
        run.file("scorecard.csv", scores.to_csv(index=False))
        run.file("scorecard.md", table)
        for task, chart in charts.items():
            run.file(f"figures/{task}.png", chart)
    return described(scores, pictures=charts, score_table=dg.MetadataValue.md(table), mlflow_run=run.run_id)


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def cluster_gains(
    context: dg.AssetExecutionContext, cities: Cities, cluster_predictions: pd.DataFrame, cluster_folds: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """By how much each picture model beats each map without pictures under blocks, and the graph the single images."""
    from urbanprint.maps.livelihood_verdict import picture_gains

    seed = cities.country(context.partition_key).evaluation.seed
    return described(picture_gains(cluster_predictions, folds=cluster_folds, seed=seed))


@dg.asset(
    **_GROUP, kinds={"mlflow"}, code_version="1", deps=["cluster_imagewise_model", "graph_model", "cluster_scorecard"]
)
def released_cluster_models(context: dg.AssetExecutionContext, tracking: Tracking) -> dg.MaterializeResult:
    """The alias `current` of each registered model, moved once the checks of the scorecard have passed."""
    country = context.partition_key
    released = {f"{country}-{name}": f"version {tracking.release(f'{country}-{name}')}" for name in REGISTERED}
    return dg.MaterializeResult(metadata=released)


@dg.asset(group_name="evaluation", owners=OWNERS, kinds={"parquet"}, code_version="1")
def selection_optimism() -> dg.Output[pd.DataFrame]:
    """How much "the best of 60 evaluations on the validation list" flatters, measured on simulated studies."""
    from urbanprint.evaluation.optimism import selection_optimism as measure
    from urbanprint.maps.livelihood_figures import optimism_chart

    parts = [
        measure(learnable=learnable, validation=int(validation), seed=0)
        for learnable in _STUDIES["learnable"]
        for validation in _STUDIES["validation"]
    ]
    table = pd.concat(parts, ignore_index=True)
    return described(table, pictures={"optimism": optimism_chart(table)})


@dg.asset(
    group_name="evaluation",
    owners=OWNERS,
    kinds={"parquet", "mlflow"},
    code_version="1",
    deps=["survey_clusters", "cluster_folds", "scene_parses"],
)
def transfer_matrix(
    context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace, surveys: Surveys, tracking: Tracking
) -> dg.Output[pd.DataFrame]:
    """Train on one country and test on another; add nothing, half or all of another to the training parts of one.

    Of all countries that have been built, those of one series of surveys together. Image features are of the frozen
    network; the image-wise network is not among the learners, as its trainings would take longer than all others.
    """
    from urbanprint.progress import Printed
    from urbanprint.tables import CLUSTER_SCORES

    # Read here and not as inputs: most countries of a catalogue have not been built, and that is no error.
    built = [cities.country(key) for key in cities.catalogue.countries if workspace.holds_all(_MADE_OF, partition=key)]
    pairs = [
        (here, there)
        for here, there in permutations(built, 2)
        if here.survey.series is not None and here.survey.series == there.survey.series
    ]
    parts = []
    with tracking.run("transfer", "transfer", tags={"dagster_run": context.run_id}) as run, Printed() as bar:
        for here, there in pairs:
            context.log.info(f"{there.name} to {here.name}")
            parts.append(_transferred(here, there, workspace, surveys, progress=bar).assign(country=here.key))
        columns = [*CLUSTER_SCORES.columns, "country"]
        scores = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns).astype("str")
        run.file("transfer.csv", scores.to_csv(index=False))
    return described(scores, countries=", ".join(country.key for country in built) or "none has been built")


def _transferred(
    here: "Country",
    there: "Country",
    workspace: Workspace,
    surveys: Surveys,
    *,
    progress: "Callable[[str, int, int], None]",
) -> pd.DataFrame:
    """Scores (`tables.CLUSTER_SCORES`) in `here` of learners that were given clusters of `there`."""
    from functools import partial

    from urbanprint.evaluation.cluster_baselines import baseline_learner
    from urbanprint.evaluation.study import transfer_study
    from urbanprint.models.clusterwise import clusterwise_learner
    from urbanprint.models.graph_learner import graph_learner
    from urbanprint.models.graph_rows import GRAPH_ROWS, node_features
    from urbanprint.models.provenance import Features
    from urbanprint.scenes.clusters import cluster_counts, image_counts

    both = [here.key, there.key]
    plan = here.evaluation
    study = transfer_study(
        *(_built(country, workspace, surveys) for country in (here, there)),
        buffer_m=plan.buffer_m,
        jitter=jitter_of(here.survey),
        seed=plan.seed,
    )
    scenes, embeddings = (
        pd.concat([workspace.read_table(asset, partition=key) for key in both], ignore_index=True)
        for asset in ("scene_parses", "image_embeddings")
    )
    objects = image_counts(scenes, study.images).fillna(0.0).astype("float32")
    frozen = Features(table=embeddings.set_index("image_id"))
    positions = study.images.set_index("image_id")[["longitude", "latitude"]]

    def baseline(name: str, task: "Task") -> "Learner":
        return baseline_learner(name, study.clusters, study.labels, study.folds, task=task, seed=plan.seed)

    def graph(name: str, task: "Task") -> "Learner":
        row = GRAPH_ROWS[name]
        nodes = node_features(row.nodes, objects=objects, images=lambda _split: frozen)
        config = graph_config(here, row)
        kept = workspace.models("transfer") / f"{there.key}-to-{here.key}" / name
        return graph_learner(nodes, positions, study.labels, study.folds, task=task, config=config, checkpoints=kept)

    predictions = study.predictions(
        {
            **{name: partial(baseline, name) for name in ("prior", "neighbours")},
            "clusterwise": lambda task: clusterwise_learner(
                partial(cluster_counts, scenes),
                study.labels,
                study.folds,
                task=task,
                candidates=here.training.methods,
                seed=here.training.seed,
            ),
            **{name: partial(graph, name) for name in ("graph_objects", "graph_images", "graph_both")},
        },
        tasks=("regression",),
        progress=progress,
    )
    return study.scores(predictions, seed=plan.seed)


def _built(country: "Country", workspace: Workspace, surveys: Surveys) -> "ClusterStudy":
    """The study of a country from the tables it has made, its clusters under the key of the country."""
    clusters, folds, images = (
        _named_apart(workspace.read_table(asset, partition=country.key), country)
        for asset in ("survey_clusters", "cluster_folds", "street_images")
    )
    return surveys.study(country, clusters.assign(country=country.key), folds, images)


def _named_apart(table: pd.DataFrame, country: "Country") -> pd.DataFrame:
    """The table with identifiers that no other country has: surveys number their clusters anew."""
    return table.assign(area_id=country.key + "/" + table["area_id"])
