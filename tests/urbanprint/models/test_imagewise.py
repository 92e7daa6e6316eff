"""The image-wise model: settings checked, views pooled exactly, saved and loaded without a change."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from urbanprint.errors import InputError, MissingImages
from urbanprint.models.card import load_card
from urbanprint.models.imagewise import ImagewiseConfig, ImagewiseModel, build, load_imagewise, pool_views

CARD = dict.fromkeys(("split", "scores", "data_version", "licence", "intended_use", "limits"), "")


@pytest.fixture(scope="module")
def model() -> ImagewiseModel:
    return build(ImagewiseConfig(weights="none", size=32, views=2, batch_areas=2, device="cpu"), ("imd", "crime"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Area "a" has three views, "b" one; the rows are mixed."""
    folder, rng = tmp_path_factory.mktemp("views"), np.random.default_rng(0)
    rows = []
    for image, area in (("i1", "a"), ("i2", "b"), ("i3", "a"), ("i4", "a")):
        path = folder / f"{image}.png"
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        rows.append({"image_id": image, "area_id": area, "path": str(path)})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("size", 16, "at least 32 pixels"),
        ("views", 0, "at least 1"),
        ("epochs", 0, "at least 1"),
        ("batch_areas", 1, "at least 2"),
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", float("nan"), "above 0"),
        ("weight_decay", -1.0, "0 or more"),
        ("dropout", 1.0, "below 1"),
        ("patience", 0, "at least 1"),
        ("frozen_stages", 6, "between 0 and 5"),
        ("seed", -1, "0 or more"),
        ("workers", 0, "at least 1"),
    ],
)
def test_a_setting_out_of_range_is_named(setting: str, value: Any, expected: str) -> None:
    with pytest.raises(InputError, match=f"{setting} = .*{expected}"):
        ImagewiseConfig(**{setting: value})


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_pooling_is_the_mean_of_each_areas_own_views(area: list[int]) -> None:
    logits = np.random.default_rng(len(area)).normal(size=(len(area), 3))
    pooled = pool_views(torch.tensor(logits), torch.tensor(area), areas=5).numpy()
    for number in range(5):
        own = logits[np.array(area) == number]
        np.testing.assert_allclose(pooled[number], own.mean(axis=0) if len(own) else 0.0, atol=1e-12)


def test_an_areas_output_is_the_mean_of_its_views_outputs(model: ImagewiseModel, images: pd.DataFrame) -> None:
    views = model.predict_views(images)
    areas = model.predict(images).set_index("area_id")
    assert views["image_id"].tolist() == ["i1", "i2", "i3", "i4"]
    assert areas.index.tolist() == ["a", "b"]
    logits = np.log(views[["imd", "crime"]] / (1 - views[["imd", "crime"]]))
    mean = logits[views["area_id"] == "a"].mean()
    np.testing.assert_allclose(areas.loc["a"], 1 / (1 + np.exp(-mean)), rtol=1e-4)
    np.testing.assert_allclose(areas.loc["b"], views.loc[1, ["imd", "crime"]].astype(float), rtol=1e-5)


def test_predicting_from_nothing_says_so(model: ImagewiseModel, images: pd.DataFrame) -> None:
    with pytest.raises(MissingImages, match="there are 0 images"):
        model.predict(images.iloc[:0])


def test_a_saved_model_predicts_the_same_bits(model: ImagewiseModel, images: pd.DataFrame, tmp_path: Path) -> None:
    loaded = load_imagewise(model.save(tmp_path / "model", CARD))
    pd.testing.assert_frame_equal(loaded.predict(images), model.predict(images), check_exact=True)
    assert loaded.layer == "backbone.layer4"
    card = load_card(tmp_path / "model")
    assert card["config"]["backbone"] == "resnet18"
    assert card["labels"]["imd"]["name"] == "Index of Multiple Deprivation"


def test_a_model_trained_from_published_weights_loads_without_them(images: pd.DataFrame, tmp_path: Path) -> None:
    """Its card says where it began; loading takes its own weights and asks nobody for the published ones."""
    trained = build(ImagewiseConfig(size=32, device="cpu"), ("imd",), weights="none")
    loaded = load_imagewise(trained.save(tmp_path / "model", CARD))
    assert loaded.config.weights == "imagenet"
    pd.testing.assert_frame_equal(loaded.predict(images), trained.predict(images))


def test_the_seed_decides_the_untrained_network() -> None:
    one, same, other = (
        build(ImagewiseConfig(weights="none", seed=seed), ("imd",)).network.head.weight for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
