"""Systems and baselines on the same test images: facts of the images, guesses, calibration, coverage of sets."""

from pathlib import Path
from typing import cast

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from urbanprint.errors import InputError
from urbanprint.evaluation.calibration import expected_calibration_error, reliability, top_confidence
from urbanprint.geolocation import comparison
from urbanprint.geolocation.datasets import true_labels
from urbanprint.geolocation.geolocator import Geolocator, fit_geolocator
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.network import CellClassifier
from urbanprint.geolocation.scores import score
from urbanprint.geolocation.sphere import haversine_km

Parts = dict[str, pd.DataFrame]
Systems = dict[str, Geolocator]
Logits = dict[str, list[np.ndarray]]


@pytest.fixture(scope="module")
def systems(classifiers: dict[str, CellClassifier], parts: Parts) -> dict[str, Geolocator]:
    chosen = {"joint": ["joint"], "levels": ["L1", "L3", "L5"]}
    return {
        name: fit_geolocator(
            [classifiers[network] for network in networks], training=parts["train"], calibration=parts["calibration"]
        )
        for name, networks in chosen.items()
    }


@pytest.fixture(scope="module")
def facts(parts: Parts) -> pd.DataFrame:
    return comparison.facts_of(parts["test"], parts["train"])


@pytest.fixture(scope="module")
def seen(systems: dict[str, Geolocator], parts: Parts) -> dict[str, list[np.ndarray]]:
    paths = [Path(path) for path in parts["test"]["path"]]
    return {name: list(system.read(paths).level_logits) for name, system in systems.items()}


def test_density_counts_the_training_images_near_each_test_image(facts: pd.DataFrame, parts: Parts) -> None:
    train = parts["train"]
    expected = [
        (haversine_km(row.longitude, row.latitude, train["longitude"], train["latitude"]) <= 25).sum()
        for row in parts["test"].itertuples()
    ]
    assert facts["density"].tolist() == expected
    assert facts["group"].str.count("/").eq(7).all()


def test_an_image_is_of_the_continent_it_lies_in_or_of_the_nearest(parts: Parts, tmp_path: Path) -> None:
    shapes = [shapely.box(-180, -90, 0, 90), shapely.box(60, -90, 180, 90)]
    gpd.GeoDataFrame({"CONTINENT": ["West", "East"]}, geometry=shapes, crs=4326).to_file(tmp_path / "regions.geojson")
    regions = comparison.read_regions(tmp_path / "regions.geojson")
    test = parts["test"].assign(longitude=np.linspace(-170, 170, len(parts["test"])))
    found = comparison.facts_of(test, parts["train"], regions=regions).set_index("image_id")["continent"]
    assert (found == np.where(test.set_index("image_id")["longitude"] < 30, "West", "East")).all()
    gpd.GeoDataFrame(geometry=shapes, crs=4326).to_file(tmp_path / "nameless.geojson")
    with pytest.raises(InputError, match=r"nameless\.geojson has no column of continents"):
        comparison.read_regions(tmp_path / "nameless.geojson")


def test_all_models_are_scored_on_the_same_images_and_networks_beat_the_prior(
    systems: dict[str, Geolocator],
    seen: dict[str, list[np.ndarray]],
    facts: pd.DataFrame,
    parts: Parts,
    tree: Hierarchy,
) -> None:
    labels = true_labels(tree, parts["test"])
    colour = {
        part: np.array([np.bincount([int(path.split("/")[-1][0])], minlength=8) for path in parts[part]["path"]])
        for part in ("train", "test")
    }
    guesses = pd.concat(
        [
            *(comparison.system_guesses(name, systems[name], seen[name], facts, labels) for name in systems),
            comparison.fused_guesses("old-fusion", systems["levels"], seen["levels"], facts, labels),
            comparison.nearest_guesses(
                "nearest-neighbour", (colour["train"], colour["test"]), facts, parts["train"], tree, labels
            ),
            comparison.prior_guesses("prior", facts, parts["train"], tree, labels),
        ],
        ignore_index=True,
    )
    assert guesses.groupby("model")["image_id"].nunique().eq(len(parts["test"])).all()
    scores = score(guesses, seed=1, repeats=50)
    overall = scores[scores["by"] == "all"].set_index(["model", "measure"])["value"]
    for name in ("joint", "levels", "nearest-neighbour"):
        assert overall[name, "geoscore"] > overall["prior", "geoscore"] + 1000
    # The colour is the cell, so the neighbour in colour lies in it: right at every level.
    assert all(overall["nearest-neighbour", f"top_1_L{level}"] == 1.0 for level in tree.numbers)
    assert ("old-fusion", "top_1_L5") in overall.index
    assert ("old-fusion", "top_1_L1") not in overall.index


def test_errors_from_the_table_are_those_of_the_probabilities(
    systems: Systems, seen: Logits, parts: Parts, tree: Hierarchy
) -> None:
    labels = true_labels(tree, parts["test"])
    table = comparison.system_calibration("joint", systems["joint"], seen["joint"], labels)
    errors = comparison.calibration_errors(table).set_index("level")["after"]
    log_p = systems["joint"].log_probabilities(seen["joint"])
    for number, level in enumerate(tree.numbers):
        expected = expected_calibration_error(*top_confidence(log_p[number], labels[:, number]))
        assert errors[level] == pytest.approx(expected)


def test_right_probabilities_stay_below_what_chance_leaves_in_95_of_100_draws() -> None:
    rng = np.random.default_rng(5)
    below = []
    for _ in range(60):
        confidence = rng.uniform(0.2, 0.9, 300)
        bins = reliability(confidence, rng.random(300) < confidence)
        table = pd.concat([bins.assign(model="m", level=1, scaling=scaling) for scaling in ("before", "after")])
        (found,) = comparison.calibration_errors(table).to_dict("records")
        below.append(found["after"] <= found["chance"])
        assert found["before"] == found["after"]
    assert 0.87 <= np.mean(below) <= 1.0
    off = table.assign(accuracy=(table["accuracy"] - 0.2).clip(lower=0.0))
    (found,) = comparison.calibration_errors(off).to_dict("records")
    assert found["after"] > found["chance"]


def test_confusion_is_of_levels_with_few_classes(systems: Systems, seen: Logits, parts: Parts, tree: Hierarchy) -> None:
    labels = true_labels(tree, parts["test"])
    found = comparison.confused(systems["joint"], seen["joint"], labels, most=4)
    assert list(found) == [1, 3]
    true, predicted = found[3]
    best = systems["joint"].log_probabilities(seen["joint"])[1].argmax(axis=1)
    assert (true == predicted).mean() == (best == labels[:, 1]).mean()


def test_coverage_is_counted_and_says_whether_it_was_promised(
    systems: dict[str, Geolocator],
    seen: dict[str, list[np.ndarray]],
    facts: pd.DataFrame,
    parts: Parts,
    tree: Hierarchy,
) -> None:
    labels = true_labels(tree, parts["test"])
    table = comparison.set_coverage("joint", systems["joint"], seen["joint"], facts, labels, seed=1, repeats=50)
    assert table["level"].tolist() == list(tree.numbers)
    assert table["promised"].all()
    assert (table["coverage"] >= 0.5).all()
    nowhere = comparison.set_coverage(
        "joint", systems["joint"], seen["joint"], facts, np.full_like(labels, -1), seed=1, repeats=50
    )
    assert (nowhere["coverage"] == 0).all()


def test_the_mean_coverage_over_divisions_is_what_was_promised() -> None:
    """A made-up system of one level whose probabilities are right: 4 cells, 400 images in 100 blocks."""
    rng = np.random.default_rng(3)
    tree = Hierarchy.from_levels({1: np.arange(4)})
    logits = rng.normal(scale=1.5, size=(4000, 4))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random(4000)[:, None] > chances.cumsum(axis=1)).sum(axis=1)[:, None].clip(0, 3)

    class Right:
        hierarchy, coverage = tree, 0.9

        def log_probabilities(self, level_logits: list[np.ndarray]) -> list[np.ndarray]:
            return [np.log(chances)]

    facts = pd.DataFrame({"group": [str(row % 100) for row in range(4000)]})
    right = cast(Geolocator, Right())
    found = comparison.redealt_coverage(right, [logits], facts, labels, seed=2)
    assert found.shape == (60, 1)
    assert found.mean() == pytest.approx(0.9, abs=0.005)


def test_a_level_is_calibrated_on_one_part_and_judged_on_another(
    classifiers: dict[str, CellClassifier], parts: Parts, tree: Hierarchy
) -> None:
    found = comparison.level_calibration(classifiers["L3"], parts["calibration"], parts["test"])
    assert found.temperature > 0
    assert set(found.reliability) == set(found.errors) == {"before", "after"}
    assert (found.true == found.predicted).mean() == pytest.approx(found.accuracy)  # every test image has a class here
    assert len(found.true) == len(parts["test"])
