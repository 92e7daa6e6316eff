"""Graph learner: batches without waste, training that is honest and repeatable, features that must not have leaked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from urbanprint.errors import InputError, LeakingSplit, MissingImages
from urbanprint.evaluation.splits import Split
from urbanprint.models.graph_batches import choose_images, gather, pad, padded, plan_batches
from urbanprint.models.graph_learner import graph_learner, masked_losses
from urbanprint.models.graph_model import GraphConfig, GraphEpoch, GraphModel, load_graph
from urbanprint.models.provenance import Features, features_for

CONFIG = GraphConfig(epochs=2, batch_clusters=8, device="cpu", max_images=30)
CARD = {
    "split": {},
    "scores": {},
    "data_version": "v1",
    "licence": "none",
    "intended_use": "tests",
    "limits": "all",
}


@pytest.fixture(scope="module")
def country() -> dict[str, pd.DataFrame]:
    """48 clusters of 3 to 24 images; poverty is the mean of one noisy feature, population that of two, half unknown."""
    rng = np.random.default_rng(0)
    images, features, labels = [], [], {}
    for number in range(48):
        area, level, size = f"c{number:02d}", rng.normal(size=2), int(rng.integers(3, 25))
        noisy = rng.normal(size=(size, 6)) * [1, 1, 5, 0.1, 1, 0] + [*level, 0, 0, 100, 7]
        features.append(noisy)
        labels[area] = {"poverty": level[0], "population": 900 + 100 * level.sum() if number % 2 else np.nan}
        for view in range(size):
            place = {"longitude": 77 + rng.normal() * 0.01, "latitude": 20 + rng.normal() * 0.01}
            images.append({"image_id": f"{area}-{view:02d}", "area_id": area, **place})
    table = pd.DataFrame(images)
    areas = sorted(labels)
    folds = pd.DataFrame({"area_id": areas, "kind": "block", "fold": [i // 4 % 3 for i in range(48)]})
    folds = folds.assign(borough="one", block=[f"b{i // 4:02d}" for i in range(48)], x_m=0.0, y_m=0.0)
    return {
        "images": table,
        "positions": table.set_index("image_id")[["longitude", "latitude"]],
        "features": pd.DataFrame(np.concatenate(features), index=pd.Index(table["image_id"]), dtype=np.float32),
        "labels": pd.DataFrame.from_dict(labels, orient="index").loc[areas],
        "folds": folds,
    }


def split_of(country: dict[str, pd.DataFrame], fold: int = 0) -> Split:
    folds = country["folds"]
    test = folds["fold"] == fold
    return Split(kind="block", fold=fold, train=tuple(folds["area_id"][~test]), test=tuple(folds["area_id"][test]))


def sides(country: dict[str, pd.DataFrame], split: Split) -> tuple[pd.DataFrame, pd.DataFrame]:
    images = country["images"]
    return images[images["area_id"].isin(split.train)], images[images["area_id"].isin(split.test)]


def learned(country: dict[str, pd.DataFrame], config: GraphConfig = CONFIG, **options: Any) -> pd.DataFrame:
    given = {"task": "regression", **options}
    source, labels = given.pop("features", country["features"]), given.pop("labels", country["labels"])
    learn = graph_learner(source, country["positions"], labels, country["folds"], config=config, **given)
    split = split_of(country)
    return learn(split, *sides(country, split))


# --- batches --------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=60),
    clusters=st.integers(1, 20),
    cells=st.integers(1, 200_000),
    shuffled=st.booleans(),
)
def test_each_cluster_is_in_one_batch_and_no_batch_is_too_large(
    sizes: list[int], clusters: int, cells: int, shuffled: bool
) -> None:
    rng = np.random.default_rng(1) if shuffled else None
    plan = plan_batches(np.array(sizes), clusters=clusters, cells=cells, rng=rng)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(sizes)))
    for rows in plan:
        assert len(rows) <= clusters
        assert len(rows) == 1 or len(rows) * max(sizes[row] for row in rows) ** 2 <= cells


def test_little_of_a_padded_batch_is_padding() -> None:
    sizes = np.clip(np.random.default_rng(0).lognormal(3.5, 1.0, 2000), 1, 200).astype(int)
    plan = plan_batches(sizes, clusters=16, cells=2_000_000, rng=np.random.default_rng(1))
    padded_cells = sum(len(rows) * int(sizes[rows].max()) ** 2 for rows in plan)
    assert (sizes**2).sum() / padded_cells > 0.9
    assert (sizes**2).sum() / (len(sizes) * 200**2) < 0.2  # what padding all to 200 would use


def test_at_most_so_many_images_are_chosen_whatever_their_order_and_fewer_are_a_part_of_more(
    country: dict[str, pd.DataFrame],
) -> None:
    images = country["images"]
    chosen = choose_images(images, most=5, seed=3)
    assert chosen.groupby("area_id").size().equals(images.groupby("area_id").size().clip(upper=5))
    pd.testing.assert_frame_equal(chosen, choose_images(images.sample(frac=1.0, random_state=1), most=5, seed=3))
    assert set(choose_images(images, most=3, seed=3)["image_id"]) <= set(chosen["image_id"])
    assert set(choose_images(images, most=5, seed=4)["image_id"]) != set(chosen["image_id"])


def test_edges_are_one_less_the_geodesic_distance_over_19_89_km(country: dict[str, pd.DataFrame]) -> None:
    images, features = country["images"], country["features"]
    # Across the antimeridian at 70 N, images some 10 km apart, where degrees would be off by 360 or by three times.
    positions = (country["positions"] - [77.0, 20.0]) * 10 + [180.0, 70.0]
    positions["longitude"] = (positions["longitude"] + 180) % 360 - 180
    clusters = gather(features, positions, images[images["area_id"] == "c07"], most=200, seed=0)
    batch = pad(clusters, np.array([0]), edges="inverse distance", seed=0, device="cpu")
    at = positions.loc[clusters.image_ids]
    lon, lat = at["longitude"].to_numpy(), at["latitude"].to_numpy()
    assert lon.min() < -179 < 179 < lon.max()
    first, second = np.triu_indices(len(at))
    _, _, metres = Geod(ellps="WGS84").inv(lon[first], lat[first], lon[second], lat[second])
    np.testing.assert_allclose(batch.edges[0].numpy()[first, second], np.clip(1 - metres / 19_890, 0, 1), atol=2e-6)
    assert (batch.edges[0].diagonal() == 1.0).all()


def test_random_identity_and_complete_edges(country: dict[str, pd.DataFrame]) -> None:
    clusters = gather(country["features"], country["positions"], country["images"], most=200, seed=0)
    rows = np.array([3, 4, 5])

    def edges(kind: str, rows: np.ndarray = rows, seed: int = 0) -> torch.Tensor:
        return pad(clusters, rows, edges=kind, seed=seed, device="cpu").edges  # type: ignore[arg-type]

    n = int(clusters.sizes[rows].max())
    assert (edges("identity") == torch.eye(n)).all()
    assert (edges("complete") == 1.0).all()
    size = int(clusters.sizes[4])
    drawn = edges("random")[1, :size, :size]
    assert torch.equal(drawn, drawn.T)
    assert (drawn.diagonal() == 1.0).all()
    assert ((drawn >= 0.0) & (drawn <= 1.0)).all()
    assert torch.equal(drawn, edges("random", np.array([4]))[0])  # the same in any batch
    assert not torch.equal(drawn, edges("random", seed=1)[1, :size, :size])


def test_a_batch_holds_each_clusters_own_images_and_zeros(country: dict[str, pd.DataFrame]) -> None:
    clusters = gather(country["features"], country["positions"], country["images"], most=200, seed=0)
    for batch in padded(clusters, [np.array([4, 1, 9]), np.array([0])], edges="complete", seed=0, device="cpu"):
        assert batch.mask.sum(dim=1).tolist() == clusters.sizes[batch.rows].tolist()
        for i, row in enumerate(batch.rows):
            expected = country["features"][country["images"]["area_id"].to_numpy() == clusters.area_ids[row]]
            np.testing.assert_array_equal(batch.nodes[i][batch.mask[i]].numpy(), expected.to_numpy())
            assert (batch.nodes[i][~batch.mask[i]] == 0.0).all()


def test_images_without_features_and_features_without_numbers_are_named(country: dict[str, pd.DataFrame]) -> None:
    images, features, positions = (country[name] for name in ("images", "features", "positions"))
    with pytest.raises(InputError, match=r"1 images have no row in the features.*c00-00"):
        gather(features.drop(index="c00-00"), positions, images, most=9, seed=0)
    broken = features.copy()
    broken.loc["c03-01", 2] = np.nan
    with pytest.raises(InputError, match=r"features of image_id c03-01 have no number in column 2"):
        gather(broken, positions, images, most=200, seed=0)
    with pytest.raises(MissingImages, match="0 images"):
        gather(features, positions, images.iloc[:0], most=9, seed=0)


# --- training -------------------------------------------------------------------------------------------------------


def test_missing_labels_give_no_gradient() -> None:
    outputs = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    targets = torch.tensor([[0.0, float("nan")], [float("nan"), 1.0]])
    losses = masked_losses(outputs, targets, "regression")
    assert losses.tolist() == [1.0, 9.0]
    losses.sum().backward()
    assert outputs.grad is not None
    assert outputs.grad.tolist() == [[2.0, 0.0], [0.0, 6.0]]


@pytest.mark.parametrize("pooling", ["softmax", "attention"])
def test_it_learns_what_the_images_say_in_the_labels_own_unit(country: dict[str, pd.DataFrame], pooling: Any) -> None:
    predicted = learned(country, replace(CONFIG, pooling=pooling, epochs=25, learning_rate=4e-3))
    observed = country["labels"].loc[predicted.index]
    assert predicted.index.tolist() == sorted(split_of(country).test)
    for indicator, least in (("poverty", 0.85), ("population", 0.5)):
        both = pd.DataFrame({"p": predicted[indicator], "o": observed[indicator]}).dropna()
        assert np.corrcoef(both["p"], both["o"])[0, 1] > least
    assert predicted["population"].between(500, 1300).all()


def test_classification_gives_the_probability_of_the_upper_half_of_the_training_part(
    country: dict[str, pd.DataFrame],
) -> None:
    predicted = learned(country, replace(CONFIG, epochs=15, learning_rate=4e-3), task="classification")["poverty"]
    median = country["labels"].loc[list(split_of(country).train), "poverty"].median()
    right = (predicted >= 0.5) == (country["labels"].loc[predicted.index, "poverty"] >= median)
    assert predicted.between(0.0, 1.0).all()
    assert right.mean() >= 0.8


def test_the_same_seed_gives_the_same_predictions_and_another_one_others(country: dict[str, pd.DataFrame]) -> None:
    first = learned(country)
    pd.testing.assert_frame_equal(first, learned(country), check_exact=True)
    assert not first.equals(learned(country, replace(CONFIG, seed=1)))


def test_neither_test_labels_nor_test_features_move_the_training(country: dict[str, pd.DataFrame]) -> None:
    test = list(split_of(country).test)
    labels, features = country["labels"].copy(), country["features"].copy()
    labels.loc[test] = 1e6
    models: list[GraphModel] = []
    options: dict[str, Any] = {"on_model": lambda split, model: models.append(model), "task": "classification"}
    learned(country, **options)
    features.loc[country["images"].loc[country["images"]["area_id"].isin(test), "image_id"]] *= 50.0
    learned(country, labels=labels, features=features, **options)
    for name, tensor in models[0].network.state_dict().items():
        assert torch.equal(tensor, models[1].network.state_dict()[name]), name
    for ours, theirs in zip(models[0].scaling, models[1].scaling, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert models[0].trained_on == set(split_of(country).train)


def test_padding_the_batch_and_permuting_the_images_leave_a_prediction_as_it_was(
    country: dict[str, pd.DataFrame],
) -> None:
    models: list[GraphModel] = []
    learned(country, replace(CONFIG, edges="random"), on_model=lambda split, model: models.append(model))
    tables = country["features"], country["positions"]
    images = country["images"]
    together = models[0].predict(*tables, images)
    shuffled = models[0].predict(*tables, images.sample(frac=1.0, random_state=2))
    pd.testing.assert_frame_equal(together, shuffled, check_exact=True)
    alone = pd.concat([models[0].predict(*tables, part) for _, part in images.groupby("area_id")])
    np.testing.assert_allclose(together["poverty"], alone["poverty"], atol=1e-6)


def test_it_stops_when_the_validation_part_gets_worse_and_keeps_the_best_epoch(
    country: dict[str, pd.DataFrame],
) -> None:
    epochs: list[GraphEpoch] = []
    models: list[GraphModel] = []
    learned(
        country,
        replace(CONFIG, epochs=40, patience=2, learning_rate=0.02, dropout=0.0),
        on_epoch=lambda split, epoch: epochs.append(epoch),
        on_model=lambda split, model: models.append(model),
    )
    assert models[0].history == tuple(epochs)
    assert len(epochs) < 40
    best = max(epoch.epoch for epoch in epochs if epoch.best)
    assert epochs[best].validation_loss == min(epoch.validation_loss for epoch in epochs)
    assert len(epochs) - 1 - best == 2


def test_an_indicator_nobody_has_and_settings_out_of_range_are_refused(country: dict[str, pd.DataFrame]) -> None:
    with pytest.raises(InputError, match="bmi"):
        learned(country, labels=country["labels"].assign(bmi=np.nan))
    with pytest.raises(InputError, match=r"dropout = 1.0"):
        GraphConfig(dropout=1.0)


# --- on disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "pooling"), [("classification", "softmax"), ("regression", "attention")])
def test_a_model_comes_back_from_disk_as_it_was(
    country: dict[str, pd.DataFrame], tmp_path: Path, task: Any, pooling: Any
) -> None:
    models: list[GraphModel] = []
    config = replace(CONFIG, pooling=pooling)
    predicted = learned(country, config, task=task, on_model=lambda split, model: models.append(model))
    models[0].save(tmp_path / "graph", CARD)
    back = load_graph(tmp_path / "graph", device="cpu")
    _, testing = sides(country, split_of(country))
    again = back.predict(country["features"], country["positions"], testing)
    pd.testing.assert_frame_equal(again, predicted, check_exact=True)
    assert (back.config, back.task, back.trained_on, back.history) == (
        models[0].config,
        task,
        models[0].trained_on,
        models[0].history,
    )
    with pytest.raises(InputError, match="trained on 6 features and got 5"):
        back.predict(country["features"].iloc[:, :5], country["positions"], testing)


def test_a_finished_fold_is_not_trained_again_unless_what_it_was_made_of_changed(
    country: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    epochs: list[GraphEpoch] = []
    options: dict[str, Any] = {"checkpoints": tmp_path, "on_epoch": lambda split, epoch: epochs.append(epoch)}
    first = learned(country, **options)
    trained = len(epochs)
    pd.testing.assert_frame_equal(learned(country, **options), first, check_exact=True)
    assert len(epochs) == trained > 0
    learned(country, features=country["features"] * 2.0, **options)
    assert len(epochs) == 2 * trained


# --- provenance -----------------------------------------------------------------------------------------------------


def test_features_fitted_on_the_test_labels_are_refused(country: dict[str, pd.DataFrame]) -> None:
    split, table = split_of(country), country["features"]
    leaking = Features(table=table, fitted_on=frozenset(country["labels"].index))
    with pytest.raises(LeakingSplit, match=r"fitted on the labels of 16 of 16 test areas of fold 0 .*: c00, c01"):
        learned(country, features=leaking)
    honest = Features(table=table, fitted_on=frozenset(split.train))
    pd.testing.assert_frame_equal(learned(country, features=honest), learned(country))


def test_features_may_differ_by_split_and_must_not_have_seen_the_buffer() -> None:
    table = pd.DataFrame({"green": [0.1]}, index=["i1"])
    split = Split(kind="block", fold=2, train=("a", "b"), test=("c",), buffered=("d",))
    assert features_for(table, split) is table
    assert features_for(lambda each: Features(table=table, fitted_on=frozenset(each.train)), split) is table
    with pytest.raises(LeakingSplit, match="1 of 1 buffered areas of fold 2"):
        features_for(Features(table=table, fitted_on=frozenset({"a", "d"})), split)
    with pytest.raises(LeakingSplit, match="test areas"):
        features_for(lambda each: Features(table=table, fitted_on=frozenset(each.test)), split)
