"""Features of clusters, against pandas as the slow oracle."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urbanprint.errors import InputError
from urbanprint.scenes.clusters import cluster_counts, columns_of_classes, image_counts


def _scenes(rows: list[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["image_id", "class", "fraction", "count"]).assign(confidence=0.5)
    return frame.astype({"image_id": "str", "class": "str", "fraction": float, "count": float})


def test_counts_are_summed_and_fractions_averaged_over_parsed_images() -> None:
    scenes = _scenes(
        [
            ("a1", "car", 0.2, 2),
            ("a1", "sky", 0.8, np.nan),
            ("a2", "sky", 1.0, np.nan),
            ("b1", "car", np.nan, 5),  # a published detection: no fraction
            ("elsewhere", "car", 1.0, 100),
        ]
    )
    images = pd.DataFrame(
        {"image_id": ["a1", "a2", "a3", "b1", "c1", "nowhere"], "area_id": ["A", "A", "A", "B", "C", None]}
    )
    counts = cluster_counts(scenes, images)
    assert counts.index.tolist() == ["A", "B", "C"]
    assert counts.columns.tolist() == ["count:car", "fraction:car", "fraction:sky", "images"]
    assert counts["count:car"].tolist() == [2, 5, 0]
    # a3 was not parsed: it says nothing about fractions.
    np.testing.assert_allclose(counts["fraction:car"], [0.1, np.nan, np.nan])
    np.testing.assert_allclose(counts["fraction:sky"], [0.9, np.nan, np.nan])
    assert counts["images"].tolist() == [3, 1, 1]


def test_an_image_listed_twice_is_refused() -> None:
    images = pd.DataFrame({"image_id": ["a", "a"], "area_id": ["A", "B"]})
    with pytest.raises(InputError, match="image a is listed twice"):
        cluster_counts(_scenes([("a", "car", 1, 1)]), images)


def test_no_scenes_leave_the_number_of_images() -> None:
    counts = cluster_counts(_scenes([]), pd.DataFrame({"image_id": ["a", "b"], "area_id": ["A", "A"]}))
    assert counts.to_dict("index") == {"A": {"images": 2.0}}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pandas_groups_to_the_same_sums(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = pd.DataFrame({"image_id": [f"i{k}" for k in range(30)], "area_id": rng.choice(list("ABCD"), 30)})
    cells = pd.MultiIndex.from_product([images["image_id"], ["car", "person", "sky"]], names=["image_id", "class"])
    scenes = pd.DataFrame({"fraction": rng.random(90), "count": rng.integers(0, 5, 90)}, index=cells).reset_index()
    scenes = scenes.sample(frac=0.6, random_state=seed % 2**31)
    joined = scenes.merge(images, on="image_id")
    counts = cluster_counts(scenes, images)
    expected = joined.pivot_table(index="area_id", columns="class", values="count", aggfunc="sum", fill_value=0)
    parsed = joined.groupby("area_id")["image_id"].nunique()
    for name in expected:
        both = counts.loc[expected.index]
        np.testing.assert_allclose(both[f"count:{name}"], expected[name])
        total = joined[joined["class"] == name].groupby("area_id")["fraction"].sum().reindex(expected.index).fillna(0)
        np.testing.assert_allclose(both[f"fraction:{name}"], total / parsed.loc[expected.index])
    shuffled = cluster_counts(scenes.sample(frac=1, random_state=1), images.sample(frac=1, random_state=2))
    pd.testing.assert_frame_equal(counts, shuffled, check_exact=False)


def test_a_categorical_class_is_read_as_text() -> None:
    scenes = _scenes([("a", "car", 0.5, 1), ("a", "sky", 0.5, np.nan)]).astype({"class": "category"})
    images = pd.DataFrame({"image_id": ["a"], "area_id": ["A"]})
    assert cluster_counts(scenes, images).loc["A", "count:car"] == 1


def test_the_features_of_an_image_are_those_of_a_cluster_of_one() -> None:
    scenes = _scenes([("b", "car", 0.25, 2), ("b", "sky", 0.75, np.nan)])
    images = pd.DataFrame({"image_id": ["b", "a"], "area_id": ["A", "A"]})
    features = image_counts(scenes, images)
    assert features.index.tolist() == ["a", "b"]
    assert features.columns.tolist() == ["count:car", "fraction:car", "fraction:sky"]
    np.testing.assert_array_equal(features, [[0, np.nan, np.nan], [2, 0.25, 0.75]])


def test_a_class_owns_its_count_and_its_fraction() -> None:
    assert columns_of_classes(["count:car", "fraction:car", "fraction:sky", "images"]) == {
        "car": ["count:car", "fraction:car"],
        "sky": ["fraction:sky"],
        "images": ["images"],
    }
