"""The image-wise learner of clusters: copied labels, votes and means, and features whose provenance is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, r2_score

from urbanprint.errors import InputError, LeakingSplit
from urbanprint.evaluation.crossfit import Learner
from urbanprint.evaluation.image_votes import image_scores, pool_images
from urbanprint.evaluation.splits import Split, split_images
from urbanprint.evaluation.tasks import Task
from urbanprint.models import training
from urbanprint.models.imagewise import ImagewiseConfig
from urbanprint.models.imagewise_clusters import (
    RESNET34,
    ImagewiseClusters,
    imagewise_cluster_learner,
    imagewise_features,
)
from urbanprint.models.provenance import features_for
from urbanprint.models.training import masked_loss

CONFIG = ImagewiseConfig(
    backbone="resnet18",
    weights="none",
    size=32,
    views=4,
    epochs=5,
    batch_areas=6,
    learning_rate=2e-3,
    dropout=0.0,
    patience=9,
    augment=False,
    workers=1,
    device="cpu",
    checkpoint_seconds=60.0,
)
BRIEF = replace(CONFIG, backbone="shufflenet_v2_x0_5", epochs=1)
CLUSTERS = [f"c{number:02d}" for number in range(32)]
SPLIT = Split(kind="block", fold=0, train=tuple(CLUSTERS[:24]), test=tuple(CLUSTERS[24:]))
OTHER = Split(kind="block", fold=1, train=tuple(CLUSTERS[8:]), test=tuple(CLUSTERS[:8]))


@pytest.fixture(scope="module")
def country(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Images, labels and folds: 2 to 5 images a cluster, the greener the poorer; BMI is known of every other one."""
    folder, rng = tmp_path_factory.mktemp("country"), np.random.default_rng(0)
    level = rng.permutation(np.linspace(0, 1, len(CLUSTERS)))
    rows = []
    for number, (cluster, green) in enumerate(zip(CLUSTERS, level, strict=True)):
        for image in range(2 + number % 4):
            pixels = rng.integers(60, 120, (32, 32, 3), dtype=np.uint8)
            pixels[: round(28 * green) + 2] = (40, 190, 40)
            path = folder / f"{cluster}_{image}.png"
            Image.fromarray(pixels).save(path)
            rows.append({"image_id": path.stem, "area_id": cluster, "sequence_id": path.stem, "path": str(path)})
    labels = pd.DataFrame({"poverty": 5000 - 800 * level, "bmi": 20 + 4 * level}, index=CLUSTERS)
    labels.loc[CLUSTERS[1::2], "bmi"] = np.nan
    folds = pd.DataFrame(
        {
            "area_id": CLUSTERS,
            "kind": "block",
            "fold": np.arange(len(CLUSTERS)) // 8,
            "borough": "all",
            "block": [f"b{number // 4}" for number in range(len(CLUSTERS))],
            "x_m": 0.0,
            "y_m": 0.0,
        }
    )
    return pd.DataFrame(rows), labels, folds


def predictions(learner: Learner, images: pd.DataFrame) -> pd.DataFrame:
    return learner(SPLIT, *split_images(SPLIT, images))


def test_the_network_is_the_one_of_the_papers_unless_another_is_named() -> None:
    assert RESNET34.backbone == "resnet34"


def test_classes_are_voted_for_by_the_images(
    country: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    images, labels, folds = country
    kept: list[pd.DataFrame] = []
    models: list[ImagewiseClusters] = []
    learner = imagewise_cluster_learner(
        labels,
        folds,
        task="classification",
        config=CONFIG,
        checkpoints=tmp_path,
        on_model=lambda _, fitted: models.append(fitted),
        on_images=kept.append,
    )
    voted = predictions(learner, images)
    assert voted.index.tolist() == list(SPLIT.test)
    assert voted.to_numpy().min() >= 0
    assert voted.to_numpy().max() <= 1
    # The median of the training clusters, never of all.
    observed = labels.loc[list(SPLIT.test), "poverty"] >= labels.loc[list(SPLIT.train), "poverty"].median()
    assert accuracy_score(observed, voted["poverty"] >= 0.5) >= 0.75

    (of_images,) = kept
    assert len(of_images) == 2 * images["area_id"].isin(SPLIT.test).sum()
    poverty = of_images[of_images["indicator"] == "poverty"]
    assert (poverty["observed"] == observed.loc[poverty["area_id"]].to_numpy()).all()
    share = (poverty["predicted"] >= 0.5).groupby(poverty["area_id"]).mean()
    decided = share[share != 0.5].index
    assert ((voted.loc[decided, "poverty"] >= 0.5) == (share[decided] > 0.5)).all()
    scores = image_scores(of_images, task="classification").set_index(["indicator", "unit"])
    assert scores.loc[("poverty", "cluster"), "score"] == accuracy_score(observed, voted["poverty"] >= 0.5)
    assert scores.loc[("poverty", "image"), "score"] == ((poverty["predicted"] >= 0.5) == poverty["observed"]).mean()
    assert scores.loc[("bmi", "cluster"), "count"] == 4
    # Each image learnt a copy of its cluster's label; no loss looked at several images.
    assert models[0].model.config == replace(CONFIG, pooled_share=0.0, loss="cross-entropy")
    assert models[0].fitted_on == frozenset(SPLIT.train)


def test_values_are_the_mean_over_the_images_in_the_unit_of_the_label(
    country: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    images, labels, folds = country
    kept: list[pd.DataFrame] = []
    learner = imagewise_cluster_learner(
        labels, folds, task="regression", config=CONFIG, checkpoints=tmp_path, on_images=kept.append
    )
    predicted = predictions(learner, images)
    assert r2_score(labels.loc[list(SPLIT.test), "poverty"], predicted["poverty"]) > 0.5
    assert np.corrcoef(predicted["poverty"], predicted["bmi"])[0, 1] < -0.5
    mean = kept[0].pivot_table(index="area_id", columns="indicator", values="predicted", aggfunc="mean")
    pd.testing.assert_frame_equal(predicted[["bmi", "poverty"]], mean, check_names=False)
    scores = image_scores(pd.concat(kept), task="regression").set_index(["indicator", "unit"])["score"]
    assert scores["poverty", "cluster"] == pytest.approx(
        r2_score(labels.loc[list(SPLIT.test), "poverty"], predicted["poverty"])
    )


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_test_labels_change_nothing_but_what_is_observed(
    country: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], tmp_path: Path, task: Task
) -> None:
    images, labels, folds = country
    other = labels.copy()
    other.loc[list(SPLIT.test)] = other.loc[list(SPLIT.test)].to_numpy()[::-1] * 9
    one, two = (
        predictions(
            imagewise_cluster_learner(table, folds, task=task, config=BRIEF, checkpoints=tmp_path / name), images
        )
        for name, table in (("one", labels), ("two", other))
    )
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_features_are_those_of_the_learners_own_network_and_say_what_they_have_seen(
    country: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels, folds = country
    fitted: list[ImagewiseClusters] = []
    learner = imagewise_cluster_learner(
        labels,
        folds,
        task="regression",
        config=BRIEF,
        checkpoints=tmp_path,
        on_model=lambda _, model: fitted.append(model),
    )
    predictions(learner, images)
    monkeypatch.setattr(training, "_train_epoch", None)  # whoever trained again would fail
    source = imagewise_features(images, labels, folds, task="regression", config=BRIEF, checkpoints=tmp_path)
    table = features_for(source, SPLIT)
    assert table.index.tolist() == images["image_id"].tolist()
    assert table.shape[1] == fitted[0].model.backbone.feature_size
    network = fitted[0].model.network
    with torch.no_grad():
        outputs = network.head(torch.from_numpy(table.to_numpy(copy=True))).numpy()
    values = fitted[0].predict_images(images)[["poverty", "bmi"]]
    np.testing.assert_allclose(outputs * fitted[0].spread.to_numpy() + fitted[0].centre.to_numpy(), values, rtol=1e-4)
    assert source(SPLIT) is source(SPLIT)


def test_features_that_have_seen_the_test_labels_are_refused(
    country: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    images, labels, folds = country
    source = imagewise_features(images, labels, folds, task="classification", config=BRIEF, checkpoints=tmp_path)
    leaking = source(OTHER)
    assert not leaking.fitted_on & set(OTHER.test)
    with pytest.raises(LeakingSplit, match="labels of 8 of 8 test areas"):
        features_for(leaking, SPLIT)


def test_an_indicator_no_training_cluster_has_is_named(
    country: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    images, labels, folds = country
    learner = imagewise_cluster_learner(
        labels.assign(bmi=np.nan), folds, task="regression", config=CONFIG, checkpoints=tmp_path
    )
    with pytest.raises(InputError, match="'bmi'"):
        predictions(learner, images)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
@settings(deadline=None)
def test_the_majority_decides_and_the_mean_probability_where_votes_are_even(probabilities: list[float]) -> None:
    table = pd.DataFrame({"area_id": "a", "poverty": probabilities})
    pooled = pool_images(table, task="classification").loc["a", "poverty"]
    votes = sum(p >= 0.5 for p in probabilities)
    assert 0 <= pooled <= 1
    if 2 * votes != len(probabilities):
        assert (pooled >= 0.5) == (2 * votes > len(probabilities))
    elif abs(np.mean(probabilities) - 0.5) > 1e-9:
        assert (pooled >= 0.5) == (np.mean(probabilities) > 0.5)


def test_scores_of_images_and_clusters_by_hand() -> None:
    """Cluster a (label 1): two of three images right; cluster b (label 0): both wrong; c is unknown."""
    predicted = pd.DataFrame(
        {
            "image_id": list("uvwxyz"),
            "area_id": list("aaabbc"),
            "kind": "block",
            "fold": 0,
            "indicator": "poverty",
            "observed": [1.0, 1.0, 1.0, 0.0, 0.0, np.nan],
            "predicted": [0.9, 0.8, 0.1, 0.7, 0.6, 0.5],
        }
    )
    scores = image_scores(predicted, task="classification").set_index("unit")
    assert scores.loc["image", "score"] == pytest.approx(2 / 5)
    assert scores.loc["cluster", "score"] == pytest.approx(1 / 2)
    assert scores["count"].to_dict() == {"image": 5, "cluster": 2}


# --- what training gained for it ---


def test_the_squared_error_is_over_known_labels_only() -> None:
    outputs = torch.tensor([[0.3, -2.0], [1.0, 5.0]], requires_grad=True)
    loss = masked_loss(outputs, torch.tensor([[2.3, float("nan")], [float("nan"), 4.0]]), loss="squared-error")
    assert loss.item() == pytest.approx((4.0 + 1.0) / 2)
    loss.backward()
    assert outputs.grad is not None
    assert outputs.grad[0, 1] == outputs.grad[1, 0] == 0.0


@pytest.mark.parametrize(("setting", "value"), [("loss", "hinge"), ("pooled_share", 1.5)])
def test_a_setting_of_the_loss_out_of_range_is_named(setting: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{setting} = {value!r} must be"):
        ImagewiseConfig(**{setting: value})  # type: ignore[arg-type]
