"""Which images and edges mattered, on held-out clusters only, and scores against the number of images."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from urbanprint.errors import InputError, LeakingSplit
from urbanprint.evaluation.splits import Split
from urbanprint.explanation.graph_importance import (
    curve_at_prediction,
    curve_with_training,
    edge_importance,
    image_importance,
)
from urbanprint.models.graph_batches import pad
from urbanprint.models.graph_learner import train_graph
from urbanprint.models.graph_model import GraphConfig, GraphModel

CONFIG = GraphConfig(epochs=25, patience=25, learning_rate=4e-3, batch_clusters=8, device="cpu", pooling="attention")
AREAS = [f"c{number:02d}" for number in range(60)]
HELD_OUT = AREAS[48:]


@pytest.fixture(scope="module")
def country() -> dict[str, pd.DataFrame]:
    """60 clusters of 8 images; one image in each, the third, shows what poverty is, and the others nothing."""
    rng = np.random.default_rng(0)
    poverty = rng.normal(size=len(AREAS))
    names = [f"{area}-{view}" for area in AREAS for view in range(8)]
    shown = rng.normal(size=(len(names), 4)) * 0.3
    shown[:, 0] = np.tile(np.arange(8) == 2, len(AREAS))
    shown[:, 1] = np.repeat(poverty, 8) * shown[:, 0]
    images = pd.DataFrame({"image_id": names, "area_id": np.repeat(AREAS, 8)})
    where = pd.DataFrame(rng.normal(size=(len(names), 2)) * 0.02 + [37.0, -1.0], columns=["longitude", "latitude"])
    return {
        "images": images,
        "features": pd.DataFrame(shown, index=names, dtype=np.float32),
        "positions": where.set_index(pd.Index(names)),
        "labels": pd.DataFrame({"poverty": poverty}, index=AREAS),
    }


def trained(country: dict[str, pd.DataFrame], config: GraphConfig = CONFIG) -> GraphModel:
    return train_graph(
        country["features"],
        country["positions"],
        country["images"],
        country["labels"],
        train_areas=AREAS[:40],
        validation_areas=AREAS[40:48],
        task="regression",
        config=config,
    )


@pytest.fixture(scope="module")
def model(country: dict[str, pd.DataFrame]) -> GraphModel:
    return trained(country)


def held_out(country: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    images = country["images"]
    return country["features"], country["positions"], images[images["area_id"].isin(HELD_OUT)]


# --- images ---------------------------------------------------------------------------------------------------------


def test_the_image_that_carries_the_signal_matters_most(country: dict[str, pd.DataFrame], model: GraphModel) -> None:
    found = image_importance(model, *held_out(country), indicator="poverty")
    assert len(found) == 8 * len(HELD_OUT)
    strength = found.assign(strength=found["importance"].abs()).set_index("image_id").groupby("area_id")["strength"]
    assert strength.idxmax().str.endswith("-2").mean() >= 0.75
    signed = found[found["image_id"].str.endswith("-2")].set_index("area_id")["importance"]
    assert np.corrcoef(signed, country["labels"].loc[signed.index, "poverty"])[0, 1] > 0.8


def test_an_images_importance_is_the_prediction_with_it_less_the_one_without(
    country: dict[str, pd.DataFrame], model: GraphModel
) -> None:
    features, positions, images = held_out(country)
    found = image_importance(model, features, positions, images, indicator="poverty")
    row = found.iloc[11]
    rest = images[images["image_id"] != row["image_id"]]
    with_it, without = (
        model.predict(features, positions, shown).loc[row["area_id"], "poverty"] for shown in (images, rest)
    )
    assert row["predicted"] == pytest.approx(with_it, abs=1e-6)
    assert row["without"] == pytest.approx(without, abs=1e-6)
    assert row["importance"] == pytest.approx(with_it - without, abs=1e-6)
    np.testing.assert_allclose(found.groupby("area_id")["weight"].sum(), 1.0, atol=1e-6)


def test_a_lone_image_cannot_be_left_out(country: dict[str, pd.DataFrame], model: GraphModel) -> None:
    features, positions, images = held_out(country)
    found = image_importance(model, features, positions, images.iloc[:1], indicator="poverty")
    assert found["weight"].tolist() == [1.0]
    assert found[["without", "importance"]].isna().all(axis=None)


def test_clusters_the_model_was_trained_on_are_refused(country: dict[str, pd.DataFrame], model: GraphModel) -> None:
    tables = country["features"], country["positions"], country["images"]
    for explain in (image_importance, edge_importance):
        with pytest.raises(LeakingSplit, match=r"48 of the clusters .* such as c00"):
            explain(model, *tables, indicator="poverty")
        with pytest.raises(InputError, match="predicts poverty, not 'bmi'"):
            explain(model, *held_out(country), indicator="bmi")


# --- edges ----------------------------------------------------------------------------------------------------------


def test_an_edges_importance_is_what_its_removal_changes(country: dict[str, pd.DataFrame], model: GraphModel) -> None:
    features, positions, images = held_out(country)
    found = edge_importance(model, features, positions, images, indicator="poverty", most=5)
    assert (found.groupby("area_id").size() == 5).all()
    assert (found["image_id"] < found["other_id"]).all()
    clusters = model.clusters(features, positions, images)
    row = found.iloc[7]
    number = clusters.area_ids.index(row["area_id"])
    batch = pad(clusters, np.array([number]), edges="inverse distance", seed=0, device="cpu")
    i, j = int(row["image_id"][-1]), int(row["other_id"][-1])
    assert row["edge"] == pytest.approx(float(batch.edges[0, i, j]))
    edges = batch.edges.clone()
    edges[0, i, j] = edges[0, j, i] = 0.0
    with torch.no_grad():
        both = [model.respond(model.network(batch.nodes, each, batch.mask))[0, 0] for each in (batch.edges, edges)]
    assert row["importance"] == pytest.approx(both[0] - both[1], abs=1e-6)


def test_the_edges_kept_are_the_strongest_of_all(country: dict[str, pd.DataFrame], model: GraphModel) -> None:
    features, positions, images = held_out(country)
    merged = images.assign(area_id=images["area_id"].where(images["area_id"] >= "c54", "c48"))  # 48 images, 1,128 edges
    every, few = (
        edge_importance(model, features, positions, merged, indicator="poverty", most=most).groupby("area_id")
        for most in (1128, 4)
    )
    assert every.size().tolist() == [1128, *6 * [28]]
    pd.testing.assert_frame_equal(every.head(4), few.head(4).set_axis(every.head(4).index), atol=1e-6)


def test_images_without_edges_between_them_have_none_to_explain(country: dict[str, pd.DataFrame]) -> None:
    alone = trained(country, GraphConfig(edges="identity", epochs=1, device="cpu"))
    with pytest.raises(InputError, match="identity"):
        edge_importance(alone, *held_out(country), indicator="poverty")


# --- curves ---------------------------------------------------------------------------------------------------------

SPLIT = Split(kind="block", fold=0, train=tuple(AREAS[:48]), test=tuple(HELD_OUT))


@pytest.fixture
def noisy() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images whose single value is their cluster's label and noise twice as wide: the more images, the better."""
    rng = np.random.default_rng(1)
    labels = pd.DataFrame({"poverty": rng.normal(size=len(AREAS))}, index=AREAS)
    images = pd.DataFrame(
        {"area_id": np.repeat(AREAS, 32), "image_id": [f"i{number:04d}" for number in range(60 * 32)]}
    )
    images["value"] = labels.loc[images["area_id"], "poverty"].to_numpy() + 2.0 * rng.normal(size=len(images))
    return images, labels


def mean_value(images: pd.DataFrame) -> pd.DataFrame:
    return images.groupby("area_id")[["value"]].mean().rename(columns={"value": "poverty"})


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_curve_rises_with_the_number_of_images(noisy: tuple[pd.DataFrame, pd.DataFrame], task: Any) -> None:
    def predict(images: pd.DataFrame) -> pd.DataFrame:
        return mean_value(images) if task == "regression" else (mean_value(images) > 0).astype(float)

    curve = curve_at_prediction([(SPLIT, predict)], *noisy, task=task, counts=[1, 4, 32], draws=6)
    assert curve.columns.tolist() == ["images", "draw", "mean_images", "indicator", "score", "areas"]
    assert len(curve) == 3 * 6
    scores = curve.groupby("images")["score"].mean()
    assert scores.is_monotonic_increasing
    assert scores[32] > 0.7
    assert curve.groupby("images")["mean_images"].first().to_dict() == {1: 1.0, 4: 4.0, 32: 32.0}
    spread = curve.groupby("images")["score"].std()
    assert spread[32] == 0.0  # all of the images: every draw is the same
    assert spread[1] > 0.0


def test_training_anew_sees_as_few_images_as_testing(noisy: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    seen = []

    def learn(split: Split, training: pd.DataFrame, testing: pd.DataFrame) -> pd.DataFrame:
        assert set(training["area_id"]) == set(split.train)
        assert set(testing["area_id"]) == set(split.test)
        seen.append({int(size) for side in (training, testing) for size in side.groupby("area_id").size()})
        return mean_value(testing)

    curve = curve_with_training(
        learn, [SPLIT], noisy[0].assign(sequence_id=noisy[0]["image_id"]), noisy[1], task="regression", counts=[2, 16]
    )
    assert seen == [{2}, {16}]
    assert curve.set_index("images")["score"].is_monotonic_increasing
    assert (curve["areas"] == len(HELD_OUT)).all()
