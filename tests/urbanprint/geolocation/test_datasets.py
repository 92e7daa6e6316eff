"""Classes, labels and manifests: from counts of images, whatever the order of rows."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urbanprint.errors import InputError, MissingImages
from urbanprint.geolocation.datasets import (
    CLASS_REPORT,
    LEVEL_MANIFEST,
    cell_classes,
    class_circles,
    class_ids,
    class_labels,
    class_report,
    labels_json,
    level_manifest,
    parents_json,
    true_labels,
)
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.sphere import haversine_km
from urbanprint.grid import boxes, encode, from_ids, to_ids

SEEDS = st.integers(0, 10_000)


def photographs(counts: dict[str, int]) -> pd.DataFrame:
    """So many images near the middle of each cell."""
    names = np.repeat(list(counts), list(counts.values()))
    west, south, east, north = boxes(*from_ids(names)).T
    within = np.random.default_rng(0).uniform(0.4, 0.6, (2, len(names)))
    ids = [f"i{number:04d}" for number in range(len(names))]
    return pd.DataFrame(
        {
            "image_id": ids,
            "sequence_id": ids,
            "longitude": west + within[0] * (east - west),
            "latitude": south + within[1] * (north - south),
            "sha256": ids,
        }
    )


def over_the_earth(seed: int, images: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    towns = rng.uniform((-180, -90), (180, 90), (12, 2))
    place = towns[rng.integers(12, size=images)] + rng.normal(0, 4.0, (images, 2))
    ids = [f"i{number:04d}" for number in range(images)]
    return pd.DataFrame(
        {
            "image_id": ids,
            "sequence_id": ids,
            "longitude": (place[:, 0] + 180) % 360 - 180,
            "latitude": place[:, 1].clip(-90, 90),
        }
    )


def names(tree: Hierarchy, level: int) -> list[str]:
    return class_ids(tree.levels[tree.numbers.index(level)]).tolist()


def test_a_cell_with_enough_images_is_a_class() -> None:
    images = photographs({"0/0/0": 5, "0/1/1": 9, "3/3/3": 4, "2/2/2": 3})
    tree = cell_classes(images, levels=(1, 3), least=4)
    assert names(tree, 1) == ["0", "3"]
    assert names(tree, 3) == ["0/0/0", "0/1/1", "3/3/3"]


def test_the_images_of_small_cells_stay_with_the_parent_that_is_not_divided_for_them() -> None:
    images = photographs({"0/0/0": 3, "0/0/1": 3, "0/1/1": 3, "3/3/3": 20, "3/0/0": 2})
    tree = cell_classes(images, levels=(1, 3), least=4)
    assert names(tree, 3) == ["0", "3/3/3"]
    assert true_labels(tree, images)[:9].tolist() == [[0, 0]] * 9


def test_a_cell_is_not_divided_where_its_classes_would_hold_the_smaller_share() -> None:
    images = photographs({"0/0/0": 6, "0/0/1": 3, "0/1/1": 3, "0/2/2": 1, "3/3/3": 4})
    assert names(cell_classes(images, levels=(1, 3), least=4), 3) == ["0", "3/3/3"]
    assert names(cell_classes(images, levels=(1, 3), least=4, share=0.4), 3) == ["0/0/0", "3/3/3"]


def test_an_image_in_no_class_trains_the_nearest_of_its_parent_and_is_scored_as_in_none() -> None:
    images = photographs({"0/0/0": 9, "0/3/3": 9, "0/3/0": 2, "1/2/0": 9})
    tree = cell_classes(images, levels=(1, 3), least=4)
    assert names(tree, 3) == ["0/0/0", "0/3/3", "1/2/0"]
    assert class_labels(tree, images)[18:20].tolist() == [[0, 1]] * 2  # 1/2/0 is nearer, but of another parent
    assert true_labels(tree, images)[18:20].tolist() == [[0, -1]] * 2


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, least=st.integers(1, 12))
def test_every_image_trains_a_class_under_its_own_parents(seed: int, least: int) -> None:
    images = over_the_earth(seed)
    tree = cell_classes(images, levels=(1, 2, 4), least=least)
    trained, true = class_labels(tree, images), true_labels(tree, images)
    assert (trained >= 0).all()
    np.testing.assert_array_equal(trained[true >= 0], true[true >= 0])
    np.testing.assert_array_equal(trained, tree.ancestors(trained[:, -1]))


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, least=st.integers(1, 12))
def test_classes_hold_enough_images_and_most_of_their_parents(seed: int, least: int) -> None:
    images = over_the_earth(seed)
    tree = cell_classes(images, levels=(1, 2, 4), least=least)
    labels = true_labels(tree, images)
    for number, level in enumerate(tree.levels):
        assert np.bincount(labels[labels[:, number] >= 0, number], minlength=len(level)).min() >= least
        if number:
            above = labels[:, number - 1]
            lost = pd.Series(labels[above >= 0, number] < 0).groupby(above[above >= 0]).mean()
            assert lost.max() <= 0.5


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_shuffled_rows_give_the_same_bytes(seed: int) -> None:
    images = over_the_earth(5)
    written = []
    for rows in (images, images.sample(frac=1, random_state=seed)):
        tree = cell_classes(rows, levels=(1, 2, 4), least=5)
        manifest = level_manifest(rows, tree, level=4)
        report = class_report(rows, tree)
        tables = [table.to_csv(index=False) for table in (manifest, report)]
        written.append([tree.to_json(), labels_json(tree, level=4), parents_json(tree), *tables])
    assert written[0] == written[1]


def test_the_maps_are_sorted_and_say_their_version() -> None:
    tree = cell_classes(photographs({"0/0/0": 5, "0/1/1": 9, "3/3/3": 2, "3/0/0": 2}), levels=(1, 3), least=4)
    assert json.loads(labels_json(tree, level=3)) == {
        "labels": {"0/0/0": 0, "0/1/1": 1, "3": 2},
        "level": 3,
        "version": 1,
    }
    assert json.loads(parents_json(tree)) == {
        "parents": {"3": {"0/0/0": "0", "0/1/1": "0", "3": "3"}},
        "version": 1,
    }
    text = labels_json(tree, level=3)
    assert text.index('"0/0/0"') < text.index('"0/1/1"') < text.index('"3"') < text.index('"level"')


def test_the_manifest_names_cell_and_class_and_no_other_columns() -> None:
    images = photographs({"0/0/0": 9, "0/3/3": 9, "0/3/0": 2}).assign(part="train", creator="somebody")
    tree = cell_classes(images, levels=(1, 3), least=4)
    manifest = level_manifest(images[::-1], tree, level=3)
    assert set(manifest.columns) == set(LEVEL_MANIFEST.columns) - {"path"}
    assert manifest["image_id"].is_monotonic_increasing
    handed = manifest.iloc[-1]
    assert (handed["cell"], handed["class_cell"], handed["label"], handed["handed"]) == ("0/3/0", "0/3/3", 1, True)
    inside = manifest[~manifest["handed"]]
    assert (inside["cell"] == inside["class_cell"]).all()
    assert inside["cell"].tolist() == to_ids(encode(inside["longitude"], inside["latitude"], 3), 3).tolist()


def test_the_report_counts_what_was_handed_on() -> None:
    images = photographs({"0/0/0": 9, "0/3/3": 5, "0/3/0": 2, "1/1/1": 3, "1/2/2": 3})
    report = class_report(images, cell_classes(images, levels=(1, 3), least=4))
    assert report.to_dict("records") == [
        dict(zip(CLASS_REPORT.columns, row, strict=True))
        for row in (
            (1, 2, 2, 0, 22, 0, 6, 16, 11.0),
            (3, 5, 3, 1, 22, 2, 6, 9, 7.0),
        )
    ]


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_a_circle_holds_its_whole_cell(seed: int) -> None:
    images = over_the_earth(seed)
    tree = cell_classes(images, levels=(1, 2, 4), least=3)
    rng = np.random.default_rng(seed)
    for level, circles in zip(tree.levels, class_circles(tree, images), strict=True):
        west, south, east, north = boxes(level.cells, level.depths).T
        x, y = rng.uniform(west, east, (200, len(level))), rng.uniform(south, north, (200, len(level)))
        distance = haversine_km(circles.longitude, circles.latitude, x, y)
        assert (distance <= circles.radius_km + 1e-6).all()


def test_a_circle_is_where_the_images_are_or_in_the_middle_where_there_are_none() -> None:
    images = photographs({"0/0/0": 5, "0/1/1": 5})
    tree = cell_classes(images, levels=(1, 3), least=4)
    images[["longitude", "latitude"]] = [-170.0, 80.0]
    assert true_labels(tree, images)[0].tolist() == [0, 0]
    leaves = class_circles(tree, images)[-1]
    assert (leaves.longitude[0], leaves.latitude[0]) == pytest.approx((-170.0, 80.0))
    assert (leaves.longitude[1], leaves.latitude[1]) == pytest.approx((-22.5, 78.75))


def test_what_makes_no_classes_is_refused() -> None:
    images = photographs({"0/0/0": 5})
    with pytest.raises(MissingImages, match="No cell of level 1 can be a class"):
        cell_classes(images, levels=(1, 3), least=6)
    with pytest.raises(InputError, match=r"least = 0 and share = 0\.5"):
        cell_classes(images, levels=(1, 3), least=0)
    tree = cell_classes(images, levels=(1, 3), least=5)
    with pytest.raises(InputError, match=r"no level 5 among \[1, 3\]"):
        level_manifest(images, tree, level=5)
