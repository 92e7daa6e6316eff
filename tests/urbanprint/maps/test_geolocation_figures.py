"""Figures of geolocation: each shows the numbers it was given, and refuses what it cannot show."""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from urbanprint.errors import InputError
from urbanprint.evaluation.calibration import expected_calibration_error, reliability
from urbanprint.geolocation.scores import GUESSES, WITHIN_KM, score
from urbanprint.grid import encode
from urbanprint.maps import geolocation_figures as figures
from urbanprint.maps.style import BASELINE, CEILING, PICTURES

LAND = np.array([shapely.box(-20, -30, 50, 35), shapely.box(100, -40, 150, -10)])
CEILING_SCORES = pd.DataFrame(
    {"measure": ["within_200_km", "within_2500_km", "geoscore"], "score": [0.6, 0.9, 4100.0], "expected": 0.5}
)


def _guesses(models: dict[str, float]) -> pd.DataFrame:
    """60 images on the equator in 12 groups; each model guesses up to so many degrees east of them, evenly spread."""
    parts = []
    for model, farthest in models.items():
        frame = pd.DataFrame({"image_id": [f"i{number:02d}" for number in range(60)], "model": model})
        frame["group"] = [f"g{number % 12}" for number in range(60)]
        frame = frame.assign(longitude=np.linspace(-60.0, 60.0, 60), latitude=0.0, guess_latitude=0.0)
        frame["guess_longitude"] = frame["longitude"] + np.linspace(0.0, farthest, 60)
        frame["continent"] = np.where(frame["longitude"] < 0, "Americas", "Africa")
        parts.append(frame.assign(density=np.arange(60.0)))
    return GUESSES.validate(pd.concat(parts, ignore_index=True))


GUESSED = _guesses({"prior": 90.0, "nearest-neighbour": 40.0, "levels": 20.0, "joint": 10.0})
SCORES = score(GUESSED, repeats=50, seed=1)


def figure(draw: Any, *args: Any, **kwargs: Any) -> Figure:
    """The figure itself, before it becomes a PNG."""
    return draw.__wrapped__(*args, **kwargs)


def legend(drawn: Figure) -> list[str]:
    return [text.get_text() for text in drawn.legends[0].get_texts()]


def values(drawn: Figure, *, colour: str) -> set[float]:
    """Where on the axis of values the dots of a colour are."""
    dots = [line for line in drawn.axes[0].lines if line.get_marker() == "o" and line.get_color() == colour]
    return {round(float(x), 9) for dot in dots for x in np.atleast_1d(dot.get_xdata())}


CHARTS: dict[str, Callable[[], bytes]] = {
    "within": partial(figures.within_chart, GUESSED, ceiling=CEILING_SCORES),
    "score": partial(figures.score_chart, SCORES, measure="geoscore", title="GeoScore", ceiling=CEILING_SCORES),
    "stratum": partial(figures.stratum_chart, SCORES, measure="within_750_km", by="density", title="Density"),
    "reliability": lambda: figures.reliability_chart(
        {"after": reliability(np.linspace(0.1, 0.9, 50), np.arange(50) % 2)}, title="L8"
    ),
    "confusion": partial(figures.confusion_chart, np.array(["0", "1"]), np.array(["0", "0"]), title="L1"),
    "curves": lambda: figures.curves_chart(
        pd.DataFrame({"epoch": [0, 1], "train_loss": [2.0, 1.0], "validation_loss": [2.1, 1.4],
                      "validation_accuracy": [0.1, 0.3], "seconds": [60.0, 61.0]})
    ),
    "error": partial(figures.error_map, GUESSED[GUESSED["model"] == "joint"], land=LAND, title="Errors"),
    "cells": partial(figures.cell_chart, np.arange(64.0), title="Cells"),
}  # fmt: skip


@pytest.mark.parametrize("chart", CHARTS)
def test_every_figure_is_a_png_of_one_width_with_something_on_it(chart: str) -> None:
    with Image.open(BytesIO(CHARTS[chart]())) as image:
        assert (image.format, image.width) == ("PNG", 1008)
        paper = np.asarray(image.convert("L")) == 255
        assert len(image.convert("RGB").getcolors(1_000_000)) > 50
    assert 0.1 < paper.mean() < 0.99


# --- scores ----------------------------------------------------------------------------------------------------------


def test_a_line_passes_through_the_scores_within_each_distance() -> None:
    lines = {line.get_label(): line for line in figure(figures.within_chart, GUESSED).axes[0].lines}
    assert list(lines) == [figures.MODELS[name] for name in ("joint", "levels", "nearest-neighbour", "prior")]
    for model in ("joint", "prior"):
        km, share = lines[figures.MODELS[model]].get_data()
        for limit in WITHIN_KM:
            scored = SCORES.query(f"model == @model and by == 'all' and measure == 'within_{limit}_km'")["value"].item()
            assert np.interp(limit, km, share) == pytest.approx(scored, abs=0.02)
        assert share[-1] == 1.0


def test_the_best_reachable_shares_are_points_where_they_are_known() -> None:
    drawn = figure(figures.within_chart, GUESSED, ceiling=CEILING_SCORES)
    best = drawn.axes[0].lines[-1]
    assert best.get_color() == CEILING
    assert best.get_xydata().tolist() == [[200, 0.6], [2500, 0.9]]
    assert all(line.get_color() != CEILING for line in figure(figures.within_chart, GUESSED).axes[0].lines)


def test_ours_are_blue_and_what_they_are_compared_with_is_grey() -> None:
    drawn = figure(figures.score_chart, SCORES, measure="geoscore", title="GeoScore")
    found = {model: score.value for (model, _), score in figures.estimates(SCORES, measure="geoscore").items()}
    assert values(drawn, colour=PICTURES) == {round(found["joint"], 9)}
    assert values(drawn, colour=BASELINE) == {round(found[name], 9) for name in ("nearest-neighbour", "prior")}
    assert [text.get_text() for text in drawn.axes[0].get_yticklabels()][::-1] == [
        figures.MODELS[name] for name in ("joint", "levels", "nearest-neighbour", "prior")
    ]


def test_the_ceiling_of_a_score_is_a_line_with_its_value() -> None:
    drawn = figure(figures.score_chart, SCORES, measure="geoscore", title="GeoScore", ceiling=CEILING_SCORES)
    assert legend(drawn) == ["best reachable from these pictures: 4,100"]
    unknown = figure(figures.score_chart, SCORES, measure="median_km", title="Median", ceiling=CEILING_SCORES)
    assert not unknown.legends


def test_strata_show_our_models_and_the_best_they_are_compared_with() -> None:
    drawn = figure(figures.stratum_chart, SCORES, measure="within_750_km", by="continent", title="Continents")
    assert legend(drawn) == [figures.MODELS[name] for name in ("joint", "levels", "nearest-neighbour")]
    labels = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    assert labels == ["Americas\n30 test images", "Africa\n30 test images"], "from below"


def test_of_errors_in_kilometres_the_lowest_is_the_best() -> None:
    drawn = figure(figures.stratum_chart, SCORES, measure="median_km", by="density", title="Density")
    assert legend(drawn)[-1] == figures.MODELS["nearest-neighbour"]
    labels = [text.get_text().split("\n")[0] for text in drawn.axes[0].get_yticklabels()]
    assert labels[::-1] == ["fewest images nearby", "2 of 4", "3 of 4", "most images nearby"]


def test_what_was_not_scored_cannot_be_charted() -> None:
    with pytest.raises(InputError, match="no row of the measure 'top_1_L5' by 'all'"):
        figures.score_chart(SCORES, measure="top_1_L5", title="L5")
    with pytest.raises(InputError, match="'geoscore' by 'density'"):
        figures.stratum_chart(SCORES[SCORES["by"] == "all"], measure="geoscore", by="density", title="Density")
    with pytest.raises(InputError, match="has no row"):
        figures.within_chart(GUESSED.iloc[:0])


def test_models_come_in_their_order_and_unknown_ones_behind() -> None:
    assert figures.model_order(["prior", "zeta", "joint", "alpha", "prior"]) == ["joint", "prior", "alpha", "zeta"]


@pytest.mark.parametrize(
    ("measure", "value", "name", "text"),
    [
        ("within_2500_km", 0.3456, "Within 2,500 km", "34.6 %"),
        ("top_1_L5", 0.0, "Right cell of L5", "0.0 %"),
        ("top_10_L8", 1.0, "Right cell of L8 among the 10 likeliest", "100.0 %"),
        ("median_km", 1234.4, "Median error, km", "1,234"),
        ("geoscore", -0.4, "GeoScore, 0 to 5,000", "0"),
        ("mean_km", float("nan"), "Mean error, km", "-"),
        ("within_1_km", -0.051, "Within 1 km", "\N{MINUS SIGN}5.1 %"),
    ],
)
def test_measures_and_their_values_are_named_for_people(measure: str, value: float, name: str, text: str) -> None:
    assert figures.measure_name(measure) == name
    assert figures.measure_text(measure, value) == text


# --- how sure --------------------------------------------------------------------------------------------------------


def test_the_legend_of_a_reliability_diagram_tells_the_calibration_error() -> None:
    rng = np.random.default_rng(5)
    confidence = rng.uniform(0.2, 0.9, 400)
    correct = rng.random(400) < confidence**2
    drawn = figure(
        figures.reliability_chart,
        {"after": reliability(confidence**2, correct), "before": reliability(confidence, correct)},
        title="L8",
    )
    before, after = (100 * expected_calibration_error(sure, correct) for sure in (confidence, confidence**2))
    assert legend(drawn) == [
        "as sure as right",
        f"before scaling, off by {before:.1f} points on average",
        f"after scaling, off by {after:.1f} points on average",
    ]
    assert after < before / 2


def test_reliability_of_neither_before_nor_after_is_refused() -> None:
    with pytest.raises(InputError, match="only \\['joint'\\]"):
        figures.reliability_chart({"joint": pd.DataFrame()}, title="L8")


def test_rows_of_a_confusion_matrix_are_shares_and_its_squares_hold_the_numbers() -> None:
    true, predicted = np.array(["0", "0", "0", "0", "2"]), np.array(["0", "0", "0", "3", "2"])
    axes = figure(figures.confusion_chart, true, predicted, title="L1").axes[0]
    shares = np.asarray(axes.images[0].get_array().filled(np.nan))
    np.testing.assert_array_equal(shares, [[0.75, 0, 0.25], [0, 1, 0], [np.nan] * 3])
    assert [text.get_text() for text in axes.texts] == ["3", "0", "1", "0", "1", "0", "0", "0", "0"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0  (4)", "2  (1)", "3  (0)"]


def test_many_classes_have_no_numbers_and_too_many_are_refused() -> None:
    names = np.array([f"0/{number:02d}" for number in range(17)])
    assert not figure(figures.confusion_chart, names[:16], names[:16], title="L3").axes[0].texts
    for wrong in (names, names[:0]):
        with pytest.raises(InputError, match=f"There are {len(wrong)} classes; 1 to 16"):
            figures.confusion_chart(wrong, wrong, title="L3")


# --- maps ------------------------------------------------------------------------------------------------------------


def test_images_on_the_map_have_the_colour_of_their_error() -> None:
    guesses = GUESSED[GUESSED["model"] == "joint"].iloc[:5].copy()
    guesses["guess_longitude"] = guesses["longitude"] + np.array([24, 26, 700, 2400, 2600]) / 111.195
    drawn = figure(figures.error_map, guesses.iloc[::-1], land=LAND, title="Errors")
    points = drawn.axes[0].collections[-1]
    np.testing.assert_allclose(points.get_offsets(), guesses[["longitude", "latitude"]])
    np.testing.assert_allclose(
        points.get_facecolors()[:, :3], [to_rgb(colour) for colour in figures._ERROR_COLOURS], atol=1e-9
    )
    assert legend(drawn)[0] == "up to 25 km: 20 %"
    assert legend(drawn)[-1] == "farther off: 20 %"


def test_a_map_needs_no_land_but_one_model() -> None:
    one = GUESSED[GUESSED["model"] == "joint"]
    assert len(figure(figures.error_map, one, land=LAND[:0], title="Errors").axes[0].collections) == 1
    with pytest.raises(InputError, match=r"several models \(joint, levels, nearest-neighbour, prior\)"):
        figures.error_map(GUESSED, land=LAND, title="Errors")


@pytest.mark.parametrize(("longitude", "latitude", "row", "column"), [(-179, 89, 0, 0), (2.0, 48.0, 1, 4)])
def test_a_cell_is_shaded_where_it_lies(longitude: float, latitude: float, row: int, column: int) -> None:
    cells = np.zeros(64)
    cells[encode([longitude], [latitude], 3)] = 1.0
    axes = figure(figures.cell_chart, cells, title="Cells").axes[0]
    shaded = np.asarray(axes.images[0].get_array())
    assert np.argwhere(shaded).tolist() == [[row, column]]
    assert axes.texts[0].get_text() == "1 of 64 cells"


@pytest.mark.parametrize("number", [0, 1, 3, 8, 63])
def test_values_that_are_not_of_a_level_are_refused(number: int) -> None:
    with pytest.raises(InputError, match=f"There are {number} values"):
        figures.cell_chart(np.zeros(number), title="Cells")
