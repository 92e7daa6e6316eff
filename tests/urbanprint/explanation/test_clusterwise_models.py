"""Explanations of the cluster-wise models start from the models that were judged, on clusters they never saw."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from urbanprint.evaluation.clusters import cluster_folds, cross_fit_clusters
from urbanprint.evaluation.splits import split_images
from urbanprint.evaluation.study import ClusterStudy, make_study
from urbanprint.explanation.clusterwise import FoldModels, class_importance, fold_models, predictors
from urbanprint.indicators.survey import DHS_JITTER
from urbanprint.models.clusterwise import clusterwise_learner
from urbanprint.scenes.clusters import cluster_counts
from urbanprint.simulation.country import PLANTED, build_country
from urbanprint.simulation.scenes import CLASSES, render
from urbanprint.simulation.survey import survey


@pytest.fixture(scope="module")
def country() -> tuple[ClusterStudy, pd.DataFrame]:
    """A country whose images are counted by their true classes: what a perfect parser would see."""
    built = build_country("simland-a", clusters=150)
    images = built.images[~built.images["is_pano"]].groupby("area_id").head(8)
    rows = []
    for image_id in images["image_id"]:
        mask = render(built.view(image_id), width=32, height=24).mask
        fraction = np.bincount(mask.ravel(), minlength=len(CLASSES)) / mask.size
        rows += [(image_id, name, share, np.nan, 1.0) for name, share in zip(CLASSES, fraction, strict=True) if share]
    scenes = pd.DataFrame(rows, columns=["image_id", "class", "fraction", "count", "confidence"])
    clusters = survey(built, world="single")
    folds = cluster_folds(clusters, folds=3, seed=0, block_m=60_000, jitter=DHS_JITTER, held_out="region")
    study = make_study(clusters, folds, buffer_m=20_000, jitter=DHS_JITTER, images=images)
    return study, scenes


CANDIDATES = ("random forest",)


@pytest.fixture(scope="module")
def fitted(country: tuple[ClusterStudy, pd.DataFrame]) -> list[FoldModels]:
    study, scenes = country
    return fold_models(
        partial(cluster_counts, scenes),
        study.images,
        study.labels[["poverty"]],
        study.folds,
        study.splits["block"],
        task="regression",
        candidates=CANDIDATES,
        seed=3,
    )


def test_they_predict_what_the_learner_predicted(
    country: tuple[ClusterStudy, pd.DataFrame], fitted: list[FoldModels]
) -> None:
    study, scenes = country
    counting, labels = partial(cluster_counts, scenes), study.labels[["poverty"]]
    learner = clusterwise_learner(counting, labels, study.folds, task="regression", candidates=CANDIDATES, seed=3)
    judged = cross_fit_clusters(
        learner,
        model="clusterwise",
        splits=study.splits["block"],
        labels=labels,
        task="regression",
        images=study.images,
    )
    again = pd.concat(predict(split_images(split, study.images)[1]) for split, predict in predictors(fitted, counting))
    expected = judged.set_index("area_id")["predicted"]
    np.testing.assert_allclose(again["poverty"].loc[expected.index], expected, rtol=1e-9)


def test_the_planted_classes_come_first(country: tuple[ClusterStudy, pd.DataFrame], fitted: list[FoldModels]) -> None:
    study, _ = country
    block_of = dict(zip(study.folds["area_id"], study.folds["block"], strict=True))
    by_class, by_group = class_importance(fitted, indicator="poverty", task="regression", unit_of=block_of, seed=3)
    assert set(by_class["name"].iloc[:2]) == set(PLANTED["single"])
    assert by_class["low"].iloc[0] > 0
    assert any(name in by_group["classes"].iloc[0].split(", ") for name in PLANTED["single"])
