"""Figures: each is a PNG of a useful size, shows what it was given, and refuses what it cannot show honestly."""

from io import BytesIO

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from urbanprint.errors import InputError
from urbanprint.maps import figures
from urbanprint.maps.style import DECILE_COLOURS, WEALTH, Estimate, decile, model_order, number_text


def _pixels(png: bytes) -> np.ndarray:
    with Image.open(BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def _holds(png: bytes, colour: str) -> bool:
    """Whether a good number of pixels have a colour."""
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return int((np.abs(_pixels(png) - wanted).max(axis=2) <= 2).sum()) > 300


@pytest.mark.parametrize("kind", ["sequential", "diverging", "categorical"])
def test_a_choropleth_hatches_the_area_without_a_value(areas: gpd.GeoDataFrame, kind: figures.Kind) -> None:
    column = "imd_decile" if kind == "categorical" else "imd_deprivation"
    chosen = areas.assign(imd_decile=areas["imd_decile"] // 4)
    png = figures.choropleth(chosen, column, title="Deprivation", kind=kind)
    assert _holds(png, "#e9ecef")
    assert not _holds(figures.choropleth(chosen.iloc[:-1], column, title="Deprivation", kind=kind), "#e9ecef")


def test_the_two_ends_of_a_diverging_map_are_equally_far_from_zero(areas: gpd.GeoDataFrame) -> None:
    only_positive = areas.assign(residual=np.linspace(0.0, 0.4, 60))
    png = figures.choropleth(only_positive, "residual", title="Residual", kind="diverging")
    purple = _pixels(png)[..., 2] - _pixels(png)[..., 0] > 300
    assert purple.sum() < 0.02 * purple.size, "purple stands for values below zero, of which there are none"


def test_a_choropleth_of_a_missing_column_or_too_many_classes_is_refused(areas: gpd.GeoDataFrame) -> None:
    with pytest.raises(InputError, match="no column 'wealth'"):
        figures.choropleth(areas, "wealth", title="")
    with pytest.raises(InputError, match="60 classes"):
        figures.choropleth(areas, "area_id", title="", kind="categorical")
    with pytest.raises(InputError, match="coordinate system"):
        figures.choropleth(areas.set_crs(None, allow_override=True), "imd_deprivation", title="")


def test_the_sample_map_colours_primary_areas_by_stratum(areas: gpd.GeoDataFrame) -> None:
    sampled = pd.DataFrame({"area_id": areas["area_id"], "stratum": 1, "order": range(60), "role": "reserve"})
    assert not _area_has(figures.sample_map(areas, sampled), DECILE_COLOURS[0])
    sampled.loc[:9, "role"] = "primary"
    assert _area_has(figures.sample_map(areas, sampled), DECILE_COLOURS[0])


def _area_has(png: bytes, colour: str) -> bool:
    """Whether the colour appears in the upper half, where no colour bar is."""
    pixels = _pixels(png)
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return bool((np.abs(pixels[: len(pixels) // 2] - wanted).max(axis=2) <= 2).any())


def test_the_score_chart_marks_ceiling_and_forbidden_score_only_where_given(scores: pd.DataFrame) -> None:
    plain = figures.score_chart(scores)
    marked = figures.score_chart(scores, ceiling=0.75, forbidden=Estimate(0.94, 0.92, 0.96))
    for colour in ("#6a4c93", "#c0401a"):
        assert _holds(marked, colour)
        assert not _holds(plain, colour)


def test_a_score_without_a_value_or_an_interval_is_drawn(scores: pd.DataFrame) -> None:
    few = scores.assign(low=np.nan, high=np.nan)
    few.loc[few["model"] == "mean", "value"] = -3.0
    assert _pixels(figures.score_chart(few)).size


@pytest.mark.parametrize("many", [False, True])
def test_scatter_shows_held_out_areas(predictions: pd.DataFrame, many: bool) -> None:
    rows = pd.concat([predictions] * 30, ignore_index=True) if many else predictions
    assert _holds(figures.scatter(rows), "#c0401a")


def test_a_scatter_of_two_models_is_refused(predictions: pd.DataFrame) -> None:
    mixed = pd.concat([predictions, predictions.assign(model="mean")])
    with pytest.raises(InputError, match="mean/borough"):
        figures.scatter(mixed)
    with pytest.raises(InputError, match="'crime'"):
        figures.error_by_decile(predictions, indicator="crime")


def test_the_other_figures_draw(
    predictions: pd.DataFrame, coverage: pd.DataFrame, scores: pd.DataFrame, measured: pd.DataFrame
) -> None:
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "training_loss": [0.3, 0.2, 0.1],
            "validation_loss": [0.3, 0.25, 0.24],
            "r2": [0, 0.2, 0.3],
        }
    )
    for png in (
        figures.error_by_decile(predictions),
        figures.coverage_by_decile(coverage),
        figures.domain_chart(scores),
        figures.interval_coverage_chart(measured),
        figures.training_curves(history),
        figures.training_curves(pd.concat([history.assign(fold=fold) for fold in range(3)])),
    ):
        height, width, _ = _pixels(png).shape
        assert width == 1008
        assert 300 < height < 2000


def test_coverage_names_what_its_deciles_are_of(coverage: pd.DataFrame) -> None:
    draw = figures.coverage_by_decile.__wrapped__
    for figure, label in (
        (draw(coverage), "deprivation decile (1 = most deprived)"),
        (draw(coverage, deciles=WEALTH), "wealth decile (1 = poorest)"),
    ):
        assert figure.axes[0].get_xlabel().startswith(label)


def test_a_history_without_measures_is_refused() -> None:
    with pytest.raises(InputError, match="training history"):
        figures.training_curves(pd.DataFrame({"epoch": [1, 2]}))


def test_deciles_follow_the_definition_of_the_tables() -> None:
    assert decile(pd.Series([0.99, 0.75, 0.25, 0.0, -0.2, 1.3])).tolist() == [1, 3, 8, 10, 10, 1]
    assert decile(pd.Series([np.nan])).isna().all()


def test_models_stand_in_the_order_of_the_argument() -> None:
    assert model_order(["probe", "zz", "coordinates", "mean"]) == ["mean", "coordinates", "probe", "zz"]


def test_numbers_have_a_true_minus_and_missing_ones_a_dash() -> None:
    assert [number_text(value) for value in (-0.061, 0.5, float("nan"))] == ["\N{MINUS SIGN}0.06", "0.50", "-"]
