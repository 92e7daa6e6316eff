"""The cluster-wise learner: what it learns, what it chooses on, what it must not see."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest

from urbanprint.errors import InputError
from urbanprint.evaluation.splits import Split, iter_splits, split_images
from urbanprint.models import clusterwise
from urbanprint.models.clusterwise import ClusterwiseModel, choose, clusterwise_learner
from urbanprint.scenes.clusters import cluster_counts

CLUSTERS, VIEWS = 120, 3


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusterwise, "TREES", 20)
    monkeypatch.setattr(clusterwise, "INNER_FOLDS", 2)


@pytest.fixture(scope="module")
def country() -> dict[str, pd.DataFrame]:
    """Clusters in a row, whose poverty is the number of litter heaps less the cars, and whose bmi is noise."""
    rng = np.random.default_rng(5)
    area_ids = [f"C{number:03d}" for number in range(CLUSTERS)]
    images = pd.DataFrame(
        {
            "image_id": [f"{area}-{view}" for area in area_ids for view in range(VIEWS)],
            "area_id": np.repeat(area_ids, VIEWS),
            "sequence_id": np.repeat(area_ids, VIEWS),
        }
    )
    counts = rng.poisson(rng.gamma(2, 3, (len(images), 3)))
    wide = pd.DataFrame(counts, columns=["car", "litter", "person"]).assign(image_id=images["image_id"])
    scenes = wide.melt("image_id", var_name="class", value_name="count").assign(fraction=np.nan)
    summed = pd.DataFrame(counts).groupby(np.repeat(area_ids, VIEWS)).sum()
    labels = pd.DataFrame({"poverty": (summed[1] - summed[0]).astype(float), "bmi": rng.normal(size=CLUSTERS)})
    labels.loc["C000", "poverty"] = np.nan
    block = [f"b{number // 10:02d}" for number in range(CLUSTERS)]
    folds = pd.DataFrame(
        {
            "area_id": area_ids,
            "kind": "block",
            "fold": [number // 10 % 3 for number in range(CLUSTERS)],
            "borough": "all",
            "block": block,
            "x_m": 1000.0 * np.arange(CLUSTERS),
            "y_m": 0.0,
        }
    )
    return {"images": images, "scenes": scenes, "labels": labels, "folds": folds}


def _learned(country: dict[str, pd.DataFrame], **settings: object) -> tuple[pd.DataFrame, pd.DataFrame, list]:
    """Held-out predictions and labels of all folds, and the models."""
    models: list[tuple[Split, ClusterwiseModel]] = []
    learner = clusterwise_learner(
        cluster_counts(country["scenes"], country["images"]),
        country["labels"],
        country["folds"],
        seed=0,
        on_model=lambda split, model: models.append((split, model)),
        **settings,  # type: ignore[arg-type]
    )
    splits = list(iter_splits(country["folds"], "block"))
    parts = [learner(split, *split_images(split, country["images"])) for split in splits]
    predicted = pd.concat(parts)
    return predicted, country["labels"].loc[predicted.index], models


def _r2(predicted: pd.Series, observed: pd.Series) -> float:
    known = observed.notna()
    predicted, observed = predicted[known], observed[known]
    return 1 - ((predicted - observed) ** 2).sum() / ((observed - observed.mean()) ** 2).sum()


def test_regression_learns_what_counts_say_and_nothing_from_noise(country: dict[str, pd.DataFrame]) -> None:
    predicted, observed, models = _learned(country, task="regression")
    assert sorted(predicted.index) == sorted(country["labels"].index)
    assert _r2(predicted["poverty"], observed["poverty"]) > 0.5
    assert _r2(predicted["bmi"], observed["bmi"]) < 0.1
    assert [model.indicator for _, model in models] == ["poverty", "bmi"] * 3


def test_classification_gives_probabilities_of_the_upper_half(country: dict[str, pd.DataFrame]) -> None:
    predicted, observed, models = _learned(country, task="classification")
    assert predicted["poverty"].between(0, 1).all()
    upper = observed["poverty"] >= observed["poverty"].median()
    assert ((predicted["poverty"] >= 0.5) == upper)[observed["poverty"].notna()].mean() > 0.75
    assert all(0 <= model.error <= 1 for _, model in models)


def test_the_least_inner_error_is_chosen_and_all_tried_are_reported(country: dict[str, pd.DataFrame]) -> None:
    counts = cluster_counts(country["scenes"], country["images"])
    target = country["labels"]["poverty"].dropna()
    model = choose(counts.loc[target.index], target, np.arange(len(target)) % 7, task="regression", seed=0)
    assert len(model.tried) == sum(len(settings) for settings in clusterwise.SETTINGS.values())
    assert model.error == model.tried["error"].min()
    best = model.tried.loc[model.tried["error"].idxmin()]
    assert (model.method, model.settings) == (best["method"], best["settings"])


def test_only_the_methods_asked_for_are_tried(country: dict[str, pd.DataFrame]) -> None:
    _, _, models = _learned(country, task="regression", candidates=("k-NN",))
    assert {name for _, model in models for name in model.tried["method"]} == {"k-NN"}
    with pytest.raises(InputError, match="unknown cluster-wise method 'deep'"):
        _learned(country, task="regression", candidates=("deep",))


def test_no_inner_fold_divides_a_block(country: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(clusterwise, "choose", _spy(seen))
    _learned(country, task="regression", candidates=("k-NN",))
    blocks = country["folds"].set_index("area_id")["block"]
    assert set(seen[0]) <= set(blocks)
    assert len(seen) == 6


def _spy(seen: list[np.ndarray]) -> Callable[..., ClusterwiseModel]:
    original = choose

    def spied(features: pd.DataFrame, target: pd.Series, groups: np.ndarray, **rest: object) -> ClusterwiseModel:
        seen.append(groups)
        return original(features, target, groups, **rest)  # type: ignore[arg-type]

    return spied


def test_test_labels_move_no_prediction(country: dict[str, pd.DataFrame]) -> None:
    split = next(iter_splits(country["folds"], "block"))
    train, test = split_images(split, country["images"])
    counts = cluster_counts(country["scenes"], country["images"])
    outcomes = []
    for shift in (0.0, 1000.0):
        labels = country["labels"].copy()
        labels.loc[list(split.test)] += shift
        for task in ("regression", "classification"):
            learner = clusterwise_learner(
                counts, labels, country["folds"], task=task, candidates=("k-NN", "boosted trees"), seed=0
            )
            outcomes.append(learner(split, train, test))
    pd.testing.assert_frame_equal(outcomes[0], outcomes[2])
    pd.testing.assert_frame_equal(outcomes[1], outcomes[3])


def test_a_cluster_that_lost_images_is_summed_again_or_left_out(country: dict[str, pd.DataFrame]) -> None:
    split = next(iter_splits(country["folds"], "block"))
    crossing = split.train[0]
    images = country["images"].copy()
    # A drive that ends in a test cluster: its image in the training cluster is removed by the guard.
    images.loc[images["image_id"] == f"{crossing}-0", "sequence_id"] = split.test[0]
    train, test = split_images(split, images)

    def fitted_on(counts: clusterwise.Counts) -> ClusterwiseModel:
        models = []
        learner = clusterwise_learner(
            counts,
            country["labels"][["bmi"]],
            country["folds"],
            task="regression",
            candidates=("k-NN",),
            seed=0,
            on_model=lambda _, model: models.append(model),
        )
        learner(split, train, test)
        return models[0]

    table = cluster_counts(country["scenes"], images)
    knn = {name: fitted_on(counts).estimator for name, counts in
           {"table": table, "images": partial(cluster_counts, country["scenes"])}.items()}  # fmt: skip
    rows = {name: len(estimator[-1]._fit_X) for name, estimator in knn.items()}
    assert rows == {"table": len(split.train) - 1, "images": len(split.train)}


def test_labels_of_one_class_are_refused() -> None:
    features = pd.DataFrame({"count:car": np.arange(6.0), "images": 1.0})
    with pytest.raises(InputError, match="1 labels, too few"):
        choose(features, pd.Series(np.ones(6), name="bmi"), np.arange(6), task="classification", seed=0)


def test_a_class_never_seen_by_a_side_counts_as_none() -> None:
    features = pd.DataFrame({"count:car": np.arange(20.0), "count:boat": np.arange(20.0), "images": 1.0})
    target = pd.Series(np.arange(20.0), name="poverty")
    model = choose(features, target, np.arange(20), task="regression", candidates=("k-NN",), seed=0)
    without = features.drop(columns="count:boat").assign(**{"count:tram": 1.0})
    np.testing.assert_array_equal(model.predict(without), model.predict(features.assign(**{"count:boat": 0.0})))
