"""Judgement: every score beside its baselines, with an interval, under each kind of fold; and what a leak shows."""

from typing import Any

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.tracking import Tracking
from resources.workspace import Workspace

_GROUP: dict[str, Any] = {"group_name": "evaluation", "owners": OWNERS, "partitions_def": CITIES}
REGISTERED = ("probe", "imagewise")


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def area_predictions(
    baseline_predictions: pd.DataFrame,
    probe_model: pd.DataFrame,
    imagewise_model: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """Held-out predictions of every model and baseline side by side: no area is predicted by a model that saw it."""
    from urbanprint.maps import figures
    from urbanprint.maps.content import shown_predictions

    made = [table for table in (baseline_predictions, probe_model, imagewise_model) if len(table)]
    predictions = pd.concat(made, ignore_index=True)
    shown = shown_predictions(predictions)
    return described(
        predictions,
        pictures={"scatter": figures.scatter(shown), "error_by_decile": figures.error_by_decile(shown)},
    )


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def prediction_intervals(area_predictions: pd.DataFrame, folds: pd.DataFrame) -> dg.Output[pd.DataFrame]:
    """A 90 % interval for each prediction from the residuals of other folds, with the coverage measured."""
    from urbanprint.evaluation.intervals import conformal, measured_coverage
    from urbanprint.maps import figures

    intervals = conformal(area_predictions, folds=folds)
    measured = measured_coverage(area_predictions, intervals, folds=folds)
    return described(intervals, pictures={"measured_coverage": figures.interval_coverage_chart(measured)})


@dg.asset(**_GROUP, kinds={"sklearn", "parquet"}, code_version="1")
def leakage_audit(
    context: dg.AssetExecutionContext,
    cities: Cities,
    areas: gpd.GeoDataFrame,
    street_images: pd.DataFrame,
    image_embeddings: pd.DataFrame,
    folds: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """What the probe would have scored under the forbidden split of images, beside honest splits, and its refusal."""
    from urbanprint.evaluation import audit
    from urbanprint.models.learners import ridge_on_images

    city = cities.city(context.partition_key)
    usable = (street_images["state"] == "fetched") & street_images["area_id"].isin(folds["area_id"])
    images = street_images[usable]
    found = audit.leakage_audit(
        images,
        image_embeddings.set_index("image_id").loc[images["image_id"]].to_numpy(),
        areas=areas,
        folds=folds,
        indicator="imd",
        learner=ridge_on_images,
        seed=city.evaluation.seed,
        buffer_m=city.evaluation.buffer_m,
    )
    return described(found.table)


@dg.asset(**_GROUP, kinds={"parquet", "mlflow"}, code_version="1")
def scorecard(
    context: dg.AssetExecutionContext,
    cities: Cities,
    tracking: Tracking,
    area_predictions: pd.DataFrame,
    folds: pd.DataFrame,
    leakage_audit: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """R², Spearman and errors of every model and baseline, under each kind of fold, with 95 % intervals."""
    from urbanprint.evaluation.scores import score
    from urbanprint.maps import figures, report

    city = cities.city(context.partition_key)
    scores = score(area_predictions, folds=folds, areas_ranked=city.edition.areas_ranked, seed=city.evaluation.seed)
    chart = figures.score_chart(scores)
    with tracking.run(city.key, "scorecard", tags={"dagster_run": context.run_id}) as run:
        r2 = scores[(scores["measure"] == "r2") & (scores["indicator"] == "imd")]
        run.metrics(dict(zip("r2_" + r2["model"] + "_" + r2["kind"], r2["value"], strict=True)))
        run.file("scorecard.csv", scores.to_csv(index=False))
        run.file("leakage_audit.csv", leakage_audit.to_csv(index=False))
        run.file("figures/scores.png", chart)
    return described(
        scores,
        pictures={"scores": chart},
        score_table=dg.MetadataValue.md(report.score_table_markdown(scores)),
        mlflow_run=run.run_id,
    )


@dg.asset(**_GROUP, kinds={"mlflow"}, code_version="1", deps=["probe_model", "imagewise_model", "scorecard"])
def released_models(
    context: dg.AssetExecutionContext, tracking: Tracking, area_predictions: pd.DataFrame
) -> dg.MaterializeResult:
    """The alias `current` of each registered model, moved once the checks of the scorecard have passed."""
    city = context.partition_key
    made = [name for name in REGISTERED if (area_predictions["model"] == name).any()]
    released = {f"{city}-{name}": f"version {tracking.release(f'{city}-{name}')}" for name in made}
    return dg.MaterializeResult(metadata=released)


@dg.asset(group_name="evaluation", owners=OWNERS, kinds={"parquet"}, code_version="1", deps=["scorecard"])
def scoreboard(workspace: Workspace) -> dg.Output[pd.DataFrame]:
    """The scorecards of all cities that have been built, side by side."""
    # Read here and not as an input: most cities of a catalogue have not been built, and that is no error.
    board = pd.concat(
        [table.assign(city=city) for city, table in workspace.read_partitions("scorecard").items()], ignore_index=True
    )
    shown = board[(board["measure"] == "r2") & (board["indicator"] == "imd") & (board["kind"] == "borough")]
    r2 = shown.pivot_table(index="city", columns="model", values="value").round(2).reset_index()
    lines = [list(map(str, r2.columns)), ["---"] * r2.shape[1], *[list(map(str, row)) for row in r2.to_numpy()]]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return described(board, r2_under_borough_folds=dg.MetadataValue.md(table))
