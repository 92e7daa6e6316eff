"""Livelihood figures: each is a PNG that shows what it was given and refuses what it cannot show."""

from functools import cache
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import center_of_mass, label

from urbanprint.errors import InputError
from urbanprint.maps import livelihood_figures as figures
from urbanprint.maps.style import (
    BASELINE,
    CATEGORY_COLOURS,
    CEILING,
    DECILE_COLOURS,
    DIVERGING_COLOURS,
    FORBIDDEN,
    PICTURES,
)
from urbanprint.tables import CLUSTER_SCORES, SELECTION_OPTIMISM

CROSS = "#b9c1c9"


@cache
def pixels(png: bytes) -> np.ndarray:
    with Image.open(BytesIO(png)) as image:
        assert image.format == "PNG"
        assert image.width == 1008
        return np.asarray(image.convert("RGB")).astype(int)


def rgb(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def count(png: bytes, colour: str) -> int:
    """How many pixels have a colour."""
    return int((np.abs(pixels(png) - rgb(colour)).max(axis=2) <= 2).sum())


@pytest.fixture
def scores() -> pd.DataFrame:
    """One baseline and two picture models on two indicators, one of which the second was not scored on."""
    rows = []
    for indicator in ("poverty", "population"):
        for model, value in (("coordinates", 0.4), ("imagewise", 0.5), ("graph_images", 0.6)):
            if (model, indicator) != ("graph_images", "population"):
                numbers = (value, value - 0.1, value + 0.1, 300, 30)
                rows.append((model, "block", indicator, "regression", "r2", *numbers))
    return CLUSTER_SCORES.validate(pd.DataFrame(rows, columns=list(CLUSTER_SCORES.columns)))


@pytest.fixture
def clusters() -> pd.DataFrame:
    """A grid of 10 by 10 clusters a tenth of a degree apart."""
    row, column = (each.ravel() for each in np.mgrid[:10, :10])
    ids = [f"c{i:02d}" for i in range(100)]
    return pd.DataFrame({"area_id": ids, "longitude": 30 + column / 10, "latitude": 60 + row / 10})


# --- scores ----------------------------------------------------------------------------------------------------------


def test_baselines_and_picture_models_are_told_apart_by_colour(scores: pd.DataFrame) -> None:
    png = figures.learner_chart(scores, task="regression", title="aland")
    only = figures.learner_chart(scores[scores["model"] == "coordinates"], task="regression", title="aland")
    assert count(png, PICTURES) > 2 * count(only, PICTURES)  # the legend alone remains
    assert count(only, BASELINE) > 300


def test_a_panel_is_added_for_each_indicator(scores: pd.DataFrame) -> None:
    one = figures.learner_chart(scores[scores["indicator"] == "poverty"], task="regression", title="aland")
    assert pixels(figures.learner_chart(scores, task="regression", title="aland")).shape[0] > 1.4 * pixels(one).shape[0]


def test_the_ceiling_is_drawn_only_where_it_is_known(scores: pd.DataFrame) -> None:
    ceiling = pd.DataFrame(
        {"indicator": "poverty", "task": ["regression", "classification"], "reader": "set", "score": [0.8, 0.9]}
    )
    assert count(figures.learner_chart(scores, task="regression", title="aland", ceiling=ceiling), CEILING) > 300
    for unknown in (None, ceiling[ceiling["task"] == "classification"]):
        assert count(figures.learner_chart(scores, task="regression", title="aland", ceiling=unknown), CEILING) == 0


def test_what_was_not_scored_cannot_be_charted(scores: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no accuracy under folds of kind 'block'"):
        figures.learner_chart(scores, task="classification", title="aland")
    with pytest.raises(InputError, match="no r2 under folds of kind 'random'"):
        figures.learner_chart(scores, task="regression", title="aland", kind="random")


# --- maps ------------------------------------------------------------------------------------------------------------


def test_a_cluster_map_is_as_wide_and_high_as_the_country(clusters: pd.DataFrame) -> None:
    values = pd.Series(1.0, index=clusters["area_id"])
    png = pixels(figures.cluster_map(clusters, values, title="aland", limits=(0.0, 1.0)))
    points, number = label((np.abs(png - rgb(DECILE_COLOURS[0])).max(axis=2) <= 2)[: int(0.9 * len(png))])
    assert number == 100
    south_north, west_east = np.ptp(center_of_mass(points > 0, points, range(1, 101)), axis=0)
    # At latitude 60.45 a degree of longitude is 0.49 of a degree of latitude: the square of degrees is twice as high.
    assert south_north / west_east == pytest.approx(1 / np.cos(np.radians(60.45)), rel=0.01)


def test_clusters_without_a_value_are_crosses(clusters: pd.DataFrame) -> None:
    values = pd.Series(np.linspace(0, 1, 100), index=clusters["area_id"])
    assert count(figures.cluster_map(clusters, values, title="aland"), CROSS) < 20
    assert count(figures.cluster_map(clusters, values.iloc[:50], title="aland"), CROSS) > 300


def test_a_map_of_differences_is_white_in_the_middle_and_equally_far_to_both_sides(clusters: pd.DataFrame) -> None:
    above = pd.Series(np.linspace(0.3, 0.4, 100), index=clusters["area_id"])
    png = pixels(figures.cluster_map(clusters, above, title="aland", diverging=True))
    upper = png[: int(0.8 * len(png))]
    assert not (np.abs(upper - rgb(DIVERGING_COLOURS[0])).max(axis=2) <= 12).any(), (
        "purple stands for values below zero"
    )
    orange = (upper[..., 0] > 170) & (upper[..., 2] < 90)
    assert orange.sum() > 1000


def test_a_map_of_nothing_is_refused(clusters: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="None of the 100 clusters"):
        figures.cluster_map(clusters, pd.Series({"elsewhere": 1.0}), title="aland")


# --- importance, optimism, curves ------------------------------------------------------------------------------------


@pytest.fixture
def importance() -> pd.DataFrame:
    return pd.DataFrame(
        {"name": ["car", "sky", "a very long group of classes + that is + written on two lines"],
         "value": [0.05, 0.01, 0.03], "low": [0.03, -0.01, 0.02], "high": [0.07, 0.03, 0.04]}
    )  # fmt: skip


def test_bars_that_cannot_be_told_from_zero_are_grey(importance: pd.DataFrame) -> None:
    sure, grey = "#79aacb", "#cdd4da"
    png = figures.importance_chart(importance, title="Classes", measure="accuracy")
    assert count(png, sure) > 4 * count(png, grey) > 300
    unsure = figures.importance_chart(importance.assign(low=-0.1), title="Classes", measure="accuracy")
    assert count(unsure, sure) == 0


def test_only_the_most_important_are_drawn(importance: pd.DataFrame) -> None:
    few = figures.importance_chart(importance, title="Classes", measure="accuracy", most=1)
    assert pixels(few).shape[0] < pixels(figures.importance_chart(importance, title="", measure="accuracy")).shape[0]
    with pytest.raises(InputError, match="has no row"):
        figures.importance_chart(importance.iloc[:0], title="Classes", measure="accuracy")


def test_reported_and_honest_scores_stand_side_by_side() -> None:
    rows = [
        (task, learnable, 60, validation, quantity, value, value - 0.03, value + 0.03)
        for task in ("classification", "regression")
        for learnable in (0.0, 0.3)
        for validation in (200, 1400)
        for quantity, value in (("reported", 0.6), ("honest", 0.5), ("optimism", 0.1))
    ]
    optimism = SELECTION_OPTIMISM.validate(pd.DataFrame(rows, columns=list(SELECTION_OPTIMISM.columns)))
    png = figures.optimism_chart(optimism)
    assert min(count(png, FORBIDDEN), count(png, PICTURES)) > 1000
    one = figures.optimism_chart(optimism[optimism["task"] == "regression"])
    assert pixels(png).shape[0] > 1.6 * pixels(one).shape[0]
    with pytest.raises(InputError, match="has no row"):
        figures.optimism_chart(optimism.iloc[:0])


def test_a_curve_has_a_line_a_model() -> None:
    rows = [
        (images, draw, indicator, model, score * (1 - 0.5 / images) + 0.01 * draw)
        for images in (1, 10, 100)
        for draw in range(3)
        for indicator in ("poverty", "bmi")
        for model, score in (("imagewise", 0.5), ("graph_images", 0.7), ("zebra", 0.3))
    ]
    curve = pd.DataFrame(rows, columns=["images", "draw", "indicator", "model", "score"])
    png = figures.curve_chart(curve, measure="R²")
    for colour in CATEGORY_COLOURS[:3]:
        assert count(png, colour) > 1000
    fewer = figures.curve_chart(curve[curve["model"] != "zebra"], measure="R²")
    assert count(fewer, CATEGORY_COLOURS[2]) == 0
    with pytest.raises(InputError, match="no row of a livelihood indicator"):
        figures.curve_chart(curve.assign(indicator="imd"), measure="R²")


# --- images of a cluster ---------------------------------------------------------------------------------------------


@pytest.fixture
def moved() -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Ten images, each of one colour, of which i9 raises the prediction most and i0 does nothing."""
    ids = [f"i{i}" for i in range(10)]
    frame = pd.DataFrame({"area_id": "c1", "image_id": ids, "importance": np.arange(10) / 100, "weight": 0.1})
    images = {name: np.full((30, 40, 3), (20 * i, 255 - 20 * i, 128), dtype=np.uint8) for i, name in enumerate(ids)}
    return frame, images


def shown(png: bytes, images: dict[str, np.ndarray]) -> set[str]:
    colours = {name: "#{:02x}{:02x}{:02x}".format(*image[0, 0]) for name, image in images.items()}
    return {name for name, colour in colours.items() if count(png, colour) > 5000}


def test_the_panel_shows_the_most_and_the_least_important_images(
    moved: tuple[pd.DataFrame, dict[str, np.ndarray]],
) -> None:
    frame, images = moved
    png = figures.image_panel(frame, images, title="c1", unit="", shown=3)
    assert shown(png, images) == {"i9", "i8", "i7", "i2", "i1", "i0"}
    lowering = figures.image_panel(frame.assign(importance=-frame["importance"]), images, title="c1", unit="", shown=3)
    assert shown(lowering, images) == shown(png, images)
    assert count(png, FORBIDDEN) > 50
    assert count(png, PICTURES) == 0
    assert count(lowering, PICTURES) > 50


def test_a_cluster_of_few_images_shows_each_once(moved: tuple[pd.DataFrame, dict[str, np.ndarray]]) -> None:
    frame, images = moved
    one_row = figures.image_panel(frame.iloc[-2:], images, title="c1", unit="", shown=3)
    assert shown(one_row, images) == {"i8", "i9"}
    assert pixels(one_row).shape[0] < pixels(figures.image_panel(frame, images, title="c1", unit="")).shape[0]


def test_images_that_may_not_be_shown_are_passed_over(moved: tuple[pd.DataFrame, dict[str, np.ndarray]]) -> None:
    frame, images = moved
    public = {name: image for name, image in images.items() if name != "i9"}
    assert "i9" not in shown(figures.image_panel(frame, public, title="c1", unit="", shown=2), images)
    with pytest.raises(InputError, match="No image of cluster c1"):
        figures.image_panel(frame, {}, title="c1", unit="")
    with pytest.raises(InputError, match="of 2 clusters"):
        figures.image_panel(pd.concat([frame, frame.assign(area_id="c2")]), images, title="c1", unit="")
