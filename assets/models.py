"""Folds, baselines and models: every prediction here is of an area the model never saw.

Each training is a run in MLflow. The registered model is fitted on all areas; its scores are those of the fold models.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, described, picture
from assets.partitions import CITIES
from resources.cities import Cities
from resources.tracking import TrackedRun, Tracking
from resources.workspace import Workspace

if TYPE_CHECKING:
    from urbanprint.models.imagewise import EpochRecord
    from urbanprint.settings import City

_GROUP: dict[str, Any] = {"group_name": "models", "owners": OWNERS, "partitions_def": CITIES}


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def folds(
    context: dg.AssetExecutionContext, cities: Cities, areas: gpd.GeoDataFrame, image_coverage: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """Which fold tests each area with enough images: random areas, whole boroughs, spatial blocks with a buffer."""
    from urbanprint.evaluation.splits import make_folds
    from urbanprint.imagery.coverage import enough_images

    plan = cities.city(context.partition_key).evaluation
    enough = enough_images(image_coverage, cities.city(context.partition_key).sample.least_images)
    imaged = areas[areas["area_id"].isin(enough.index[enough])]
    table = make_folds(imaged, folds=plan.folds, seed=plan.seed, block_m=plan.block_m)
    counts = table.groupby("kind")["fold"].nunique()
    return described(table, {f"{kind} folds": int(count) for kind, count in counts.items()})


@dg.asset(**_GROUP, kinds={"sklearn", "parquet"}, code_version="1")
def baseline_predictions(
    context: dg.AssetExecutionContext, cities: Cities, areas: gpd.GeoDataFrame, folds: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """What a map without pictures predicts under the same folds: the mean, coordinates only, the neighbours' mean."""
    from urbanprint.evaluation import baselines

    city = cities.city(context.partition_key)
    return described(
        baselines.baseline_predictions(
            areas[areas["area_id"].isin(folds["area_id"])],
            folds,
            indicators=city.training.indicators,
            buffer_m=city.evaluation.buffer_m,
        )
    )


@dg.asset(**_GROUP, kinds={"sklearn", "mlflow"}, code_version="1")
def probe_model(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tracking: Tracking,
    areas: gpd.GeoDataFrame,
    street_images: pd.DataFrame,
    image_embeddings: pd.DataFrame,
    folds: pd.DataFrame,
    baseline_predictions: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """Held-out predictions of a ridge on the frozen features of an area's views; penalty chosen inside training."""
    from urbanprint.evaluation.crossfit import cross_fit
    from urbanprint.models.card import write_training_images
    from urbanprint.models.learners import fit_areas, labels_of, probe_learner
    from urbanprint.progress import Printed
    from urbanprint.sources.providers import require_training

    city = cities.city(context.partition_key)
    require_training(city.imagery)
    images = _usable(street_images, folds)
    features = image_embeddings.set_index("image_id")
    labels = labels_of(areas, city.training.indicators)
    with tracking.run(city.key, "probe", tags={"dagster_run": context.run_id}) as run, Printed() as bar:
        _log_learning(run, city, images)
        predictions = cross_fit(
            probe_learner(features, labels, folds),
            model="probe",
            images=images,
            areas=areas,
            folds=folds,
            indicators=list(labels.columns),
            buffer_m=city.evaluation.buffer_m,
            progress=bar,
        )
        blocks = dict(zip(folds["area_id"], folds["block"], strict=True))
        scores = _scored(predictions, baseline_predictions, folds, city)
        training = city.training
        config = {
            "backbone": training.backbone,
            "weights": training.weights,
            "size": training.frozen_size,
        }
        folder = fit_areas(features, labels, images, blocks).save(
            workspace.models(city.key) / "probe", _card(city, config, folds, images, scores)
        )
        write_training_images(folder, images["image_id"])
        return _finished(run, city, "probe", folder, predictions, scores)


@dg.asset(**_GROUP, kinds={"torch", "mlflow"}, code_version="1")
def imagewise_model(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tracking: Tracking,
    areas: gpd.GeoDataFrame,
    street_images: pd.DataFrame,
    folds: pd.DataFrame,
    baseline_predictions: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """Held-out predictions of the network fine-tuned on an area's views, all indicators at once.

    An interrupted training resumes at its last checkpoint; a fold trained on the same data is not trained again.
    Where the terms forbid keeping pixels there is nothing to train on, and the table is empty.
    """
    from dataclasses import asdict, fields

    from urbanprint.evaluation.crossfit import cross_fit
    from urbanprint.imagery.store import ImageStore
    from urbanprint.maps import figures
    from urbanprint.models.card import write_training_images
    from urbanprint.models.imagewise import ImagewiseConfig
    from urbanprint.models.learners import imagewise_learner, labels_of, train_on_all
    from urbanprint.progress import Printed
    from urbanprint.sources.providers import require_training, terms_of

    city = cities.city(context.partition_key)
    training = city.training
    require_training(city.imagery)
    if not terms_of(city.imagery).may_store:
        nothing = baseline_predictions.iloc[:0]
        return described(nothing, not_trained=f"the terms of {city.imagery.provider} do not allow keeping pixels")
    store = ImageStore(workspace.images)
    images = _usable(street_images, folds)
    images["path"] = [str(store.path(sha256)) for sha256 in images["sha256"]]
    labels = labels_of(areas, training.indicators)
    own = {field.name for field in fields(ImagewiseConfig)}
    config = ImagewiseConfig(**{name: value for name, value in asdict(training).items() if name in own})
    folder = workspace.models(city.key)
    with tracking.run(city.key, "imagewise", tags={"dagster_run": context.run_id}) as run, Printed() as bar:
        _log_learning(run, city, images)
        predictions = cross_fit(
            imagewise_learner(
                labels,
                folds,
                config=config,
                checkpoints=folder / "checkpoints",
                on_model=lambda split, model: write_training_images(
                    model.save(folder / "folds" / f"{split.kind}-{split.fold}", _card(city, {}, folds, images, None)),
                    images.loc[images["area_id"].isin(split.train), "image_id"],
                ),
                on_epoch=lambda split, epoch: _log_epoch(run, f"{split.kind}-{split.fold}", epoch),
            ),
            model="imagewise",
            images=images,
            areas=areas,
            folds=folds,
            indicators=list(labels.columns),
            buffer_m=city.evaluation.buffer_m,
            progress=bar,
        )
        model = train_on_all(images, labels, folds, config=config, checkpoint=folder / "checkpoints" / "all.pt")
        for epoch in model.history:
            _log_epoch(run, "all", epoch)
        history = pd.DataFrame([asdict(epoch) for epoch in model.history])
        curves = figures.training_curves(history[["epoch", "train_loss", "validation_loss", "validation_r2"]])
        run.file("figures/training_curves.png", curves)
        scores = _scored(predictions, baseline_predictions, folds, city)
        saved = model.save(folder / "imagewise", _card(city, {}, folds, images, scores))
        write_training_images(saved, images["image_id"])
        return _finished(run, city, "imagewise", saved, predictions, scores, training_curves=picture(curves))


def _usable(street_images: pd.DataFrame, folds: pd.DataFrame) -> pd.DataFrame:
    """The fetched images of the areas in the folds."""
    fetched = (street_images["state"] == "fetched") & street_images["area_id"].isin(folds["area_id"])
    return street_images[fetched].reset_index(drop=True)


def _log_learning(run: TrackedRun, city: "City", images: pd.DataFrame) -> None:
    from dataclasses import asdict

    from urbanprint.tables import fingerprint

    run.parameters({**asdict(city.training), "views_an_area": city.sample.views, "folds": city.evaluation.folds})
    run.dataset("street_images", digest=fingerprint(images), source=city.imagery.key, rows=len(images))


def _log_epoch(run: TrackedRun, training: str, epoch: "EpochRecord") -> None:
    measured = ("train_loss", "validation_loss", "validation_r2", "learning_rate", "seconds")
    run.metrics({f"{training}/{name}": getattr(epoch, name) for name in measured}, step=epoch.epoch)


def _scored(predictions: pd.DataFrame, baselines: pd.DataFrame, folds: pd.DataFrame, city: "City") -> pd.DataFrame:
    from urbanprint.evaluation.scores import score

    return score(
        pd.concat([baselines, predictions], ignore_index=True),
        folds=folds,
        areas_ranked=city.edition.areas_ranked,
        seed=city.evaluation.seed,
    )


def _card(
    city: "City", config: dict[str, Any], folds: pd.DataFrame, images: pd.DataFrame, scores: pd.DataFrame | None
) -> dict[str, Any]:
    """What a model's card says beside what the model knows of itself; fold models carry no scores of their own."""
    import json

    from urbanprint.statements import INTENDED_USE, LIMITS
    from urbanprint.tables import fingerprint

    return {
        "city": city.key,
        "edition": city.edition.key,
        "config": config,
        "split": {kind: int(count) for kind, count in folds.groupby("kind")["fold"].nunique().items()},
        "scores": [] if scores is None else json.loads(scores.to_json(orient="records")),
        "data_version": fingerprint(images[["image_id", "sha256", "area_id"]]),
        "licence": ", ".join(sorted({city.edition.licence, *images["licence"]})),
        "intended_use": INTENDED_USE,
        "limits": LIMITS,
    }


def _finished(
    run: TrackedRun,
    city: "City",
    name: str,
    folder: Any,
    predictions: pd.DataFrame,
    scores: pd.DataFrame,
    **facts: Any,
) -> dg.Output[pd.DataFrame]:
    """Log scores and model to the run and describe the predictions."""
    imd = scores[(scores["model"] == name) & (scores["indicator"] == "imd")]
    run.metrics(dict(zip(imd["measure"] + "_" + imd["kind"], imd["value"], strict=True)))
    run.file("scores.csv", scores.to_csv(index=False))
    run.model(f"{city.key}-{name}", folder)
    r2 = imd[imd["measure"] == "r2"].set_index("kind")["value"]
    return described(
        predictions,
        {f"R2, {kind} folds": float(value) for kind, value in r2.items()},
        mlflow_run=dg.MetadataValue.text(run.run_id),
        model=dg.MetadataValue.path(str(folder)),
        **facts,
    )
