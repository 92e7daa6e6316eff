"""Figures of a conurbation seen from above: each shows the numbers it was given, and refuses what it cannot show."""

from io import BytesIO
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from PIL import Image

from urbanprint.errors import InputError
from urbanprint.landuse.classes import CLASSES
from urbanprint.maps import aerial_figures, attention_figures
from urbanprint.maps.attention_figures import LESS, MORE, POOR, RICH, TileExample
from urbanprint.maps.style import BASELINE, CEILING, DECILE_COLOURS, PAPER, PICTURES, Estimate


def figure(draw: Any, *args: Any, **kwargs: Any) -> Figure:
    """The figure itself, before it becomes a PNG."""
    return draw.__wrapped__(*args, **kwargs)


def opened(png: bytes) -> np.ndarray:
    with Image.open(BytesIO(png)) as image:
        assert image.format == "PNG"
        assert image.width == 1008
        return np.asarray(image.convert("RGB")).astype(int)


def count(png: bytes, colour: str) -> int:
    """How many pixels have a colour."""
    return int((np.abs(opened(png) - 255 * np.array(to_rgb(colour))).max(axis=2) <= 2).sum())


def texts(drawn: Figure) -> list[str]:
    """What is written in the panels, each text in one line."""
    return [text.get_text().replace("\n", " ") for axes in drawn.axes for text in axes.texts]


def ticks(drawn: Figure) -> list[str]:
    """The names along the first panel from top to bottom."""
    return [label.get_text().replace("\n", " ") for label in drawn.axes[0].get_yticklabels()][::-1]


# --- scores, calibration, maps, transfer -----------------------------------------------------------------------------


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [
        (model, kind, "pearson_r", value, value - 0.05, value + 0.05, 400, 30)
        for model, values in {"binomial": (0.5, 0.6), "coordinates": (0.1, 0.55), "mean": (-0.1, np.nan)}.items()
        for kind, value in zip(("block", "random"), values, strict=True)
    ]
    columns = ["model", "kind", "measure", "value", "low", "high", "areas", "units"]
    return pd.DataFrame(rows, columns=columns)


def test_block_folds_are_filled_and_random_folds_hollow(scores: pd.DataFrame) -> None:
    axes = figure(aerial_figures.aerial_score_chart, scores).axes[0]
    marks = {
        (line.get_marker(), line.get_color(), line.get_markerfacecolor(), float(line.get_xdata()[0]))
        for line in axes.lines
        if line.get_marker() in ("o", "D")
    }
    assert marks == {
        ("o", PICTURES, PICTURES, 0.5),
        ("D", PICTURES, PAPER, 0.6),
        ("o", BASELINE, BASELINE, 0.1),
        ("D", BASELINE, PAPER, 0.55),
        ("o", BASELINE, BASELINE, -0.1),
    }


def test_what_was_not_scored_is_said_and_maps_without_pictures_come_first(scores: pd.DataFrame) -> None:
    drawn = figure(aerial_figures.aerial_score_chart, scores)
    assert texts(drawn).count("not scored") == 1
    assert ticks(drawn) == ["Mean of the city", "Coordinates only", "Network, binomial head"]


def test_the_ceiling_is_a_line_only_where_it_is_known(scores: pd.DataFrame) -> None:
    assert count(aerial_figures.aerial_score_chart(scores, Estimate(0.8, 0.75, 0.85)), CEILING) > 300
    assert count(aerial_figures.aerial_score_chart(scores, Estimate(0.8)), CEILING) > 300
    assert count(aerial_figures.aerial_score_chart(scores), CEILING) == 0


def test_scores_without_a_pearson_r_cannot_be_charted(scores: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no row of the measure 'pearson_r'"):
        aerial_figures.aerial_score_chart(scores.assign(measure="rps"))


@pytest.fixture
def calibration() -> pd.DataFrame:
    rows = [
        (k, 0.2 + 0.3 * k, 0.25 + 0.3 * k, error, scaling)
        for scaling, error in (("before", 0.09), ("after", 0.02))
        for k in range(3)
    ]
    return pd.DataFrame(rows, columns=["threshold", "predicted", "observed", "error", "scaling"])


def test_calibration_is_shown_before_and_after(calibration: pd.DataFrame) -> None:
    pit = {"before": np.array([0.4, 0.1, 0.1, 0.4]), "after": np.full(4, 0.25)}
    drawn = figure(aerial_figures.calibration_chart, calibration, pit)
    assert ticks(drawn)[::-1] == ["at most 1 (poorest)", "at most 2", "at most 3"]
    assert [sorted(set(line.get_xdata())) for line in drawn.axes[0].lines] == [[9.0], [2.0]]
    steps = [patch.get_data()[0] for patch in drawn.axes[1].patches]
    assert np.allclose(steps, [[1.6, 0.4, 0.4, 1.6], [1, 1, 1, 1]]), "1 is as many as promised"
    assert (
        min(count(aerial_figures.calibration_chart(calibration, pit), colour) for colour in (BASELINE, PICTURES)) > 99
    )
    with pytest.raises(InputError, match="The scaling 'later' is unknown"):
        aerial_figures.calibration_chart(calibration.assign(scaling="later"), pit)


def _cells(columns: int, rows: int) -> gpd.GeoDataFrame:
    x, y = (each.ravel() for each in np.meshgrid(np.arange(columns), np.arange(rows)))
    squares = shapely.box(4 + x / 365, 48 + y / 555, 4 + (x + 1) / 365, 48 + (y + 1) / 555)
    return gpd.GeoDataFrame({"observed": x * 5 // columns, "predicted": 2.0}, geometry=squares, crs=4326)


def test_both_maps_share_one_scale_from_the_poorest_to_the_richest() -> None:
    png = aerial_figures.income_map(_cells(10, 10), 5)
    poorest, richest = DECILE_COLOURS[0], DECILE_COLOURS[-1]
    halves = opened(png)[: len(opened(png)) // 2, :500], opened(png)[: len(opened(png)) // 2, 508:]
    for colour in (poorest, richest):
        near = [np.abs(half - 255 * np.array(to_rgb(colour))).max(axis=2) <= 2 for half in halves]
        assert near[0].sum() > 5000, "a fifth of the observed cells"
        assert near[1].sum() == 0, "the network hedges"


def test_a_conurbation_wider_than_high_is_shown_one_map_above_the_other() -> None:
    wide, square = (figure(aerial_figures.income_map, _cells(*size), 5) for size in ((20, 4), (10, 10)))
    for drawn, along in ((wide, "y0"), (square, "x0")):
        drawn.draw_without_rendering()
        first, second = (axes.get_position() for axes in drawn.axes[:2])
        assert abs(getattr(first, along) - getattr(second, along)) > 0.2


def test_cells_without_a_value_are_grey_and_named() -> None:
    cells = _cells(10, 10)
    cells.loc[cells.index < 50, "predicted"] = np.nan
    titles = [axes.get_title() for axes in figure(aerial_figures.income_map, cells, 5).axes[:2]]
    assert titles == ["Observed", "Predicted (grey: no value)"]
    assert count(aerial_figures.income_map(cells, 5), "#b9c1c9") > 5000
    for wrong in (cells.iloc[:0], cells.to_crs(2154), cells.set_crs(None, allow_override=True)):
        with pytest.raises(InputError, match="EPSG:4326"):
            aerial_figures.income_map(wrong, 5)


def test_the_transfer_matrix_has_all_others_last_and_leaves_untested_pairs_blank() -> None:
    rows = [
        ("all others", "lille", 0.7, 0.6, 0.8),
        ("nice", "lille", 0.1, 0.05, 0.2),
        ("lille", "nice", -0.1, -0.2, 0.0),
    ]
    transfer = pd.DataFrame(rows, columns=["trained_on", "tested_on", "value", "low", "high"])
    drawn = figure(aerial_figures.transfer_chart, transfer)
    names = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert names == ["nice", "lille", "all others"]
    shown = np.ma.filled(drawn.axes[0].images[0].get_array(), np.nan)
    assert [label.get_text() for label in drawn.axes[0].get_xticklabels()] == ["nice", "lille"]
    assert np.array_equal(shown, [[np.nan, 0.1], [-0.1, np.nan], [np.nan, 0.7]], equal_nan=True)
    assert {"0.70", "0.60 to 0.80", "\N{MINUS SIGN}0.10"} <= set(texts(drawn))
    opened(aerial_figures.transfer_chart(transfer))
    with pytest.raises(InputError, match="has no row"):
        aerial_figures.transfer_chart(transfer.iloc[:0])


# --- classes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def findings() -> pd.DataFrame:
    """19 classes, the attention of each higher than that of the one before; the first and the last are found."""
    attention = np.linspace(-0.9, 0.9, 19)
    found = np.abs(attention) > 0.85
    return pd.DataFrame(
        {"name": CLASSES, "attention": attention, "attention_found": found, "land": attention[::-1] / 50,
         "land_found": found & (attention > 0)}
    )  # fmt: skip


@pytest.fixture
def ratios(findings: pd.DataFrame) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"end": end, "name": findings["name"], "value": 1.2 + sign * findings["attention"] / 2})
        for end, sign in (("poor", -1), ("rich", 1))
    ]
    table = pd.concat(parts, ignore_index=True)
    return table.assign(low=table["value"] - 0.1, high=table["value"] + 0.1, tiles=40, units=9)


def test_classes_are_ordered_by_rich_minus_poor_and_found_ones_are_bold(
    ratios: pd.DataFrame, findings: pd.DataFrame
) -> None:
    drawn = figure(attention_figures.ratio_chart, ratios, findings)
    axes = drawn.axes[0]
    assert ticks(drawn) == list(CLASSES)[::-1], "the most to the rich end on top"
    bold = [label.get_fontweight() == "bold" for label in axes.get_yticklabels()]
    assert bold == list(findings["attention_found"])
    assert axes.get_xscale() == "log"
    filled = {
        (line.get_color(), round(float(line.get_ydata()[0])))
        for line in axes.lines
        if line.get_marker() in ("o", "D") and line.get_markerfacecolor() == line.get_color()
    }
    assert filled == {(POOR, 0), (RICH, 0), (POOR, 18), (RICH, 18)}


def test_a_ratio_beyond_the_axis_is_an_arrow_at_its_edge(ratios: pd.DataFrame, findings: pd.DataFrame) -> None:
    extreme = ratios.copy()
    extreme.loc[0, ["value", "low"]] = 0.0
    extreme.loc[1, ["value", "high"]] = 30.0
    axes = figure(attention_figures.ratio_chart, extreme, findings).axes[0]
    arrows = {line.get_marker(): float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() in ("<", ">")}
    assert arrows == {"<": axes.get_xlim()[0], ">": 8.0}


def test_a_class_of_one_end_only_is_shown_without_the_other(ratios: pd.DataFrame, findings: pd.DataFrame) -> None:
    lone = findings.copy()
    lone.loc[5, "attention"] = np.nan
    drawn = figure(
        attention_figures.ratio_chart, ratios[(ratios["name"] != CLASSES[5]) | (ratios["end"] == "poor")], lone
    )
    assert ticks(drawn)[-1] == CLASSES[5], "what cannot be compared stands below"
    at_bottom = [line for line in drawn.axes[0].lines if line.get_marker() in ("o", "D") and line.get_ydata()[0] < 0.5]
    assert [line.get_color() for line in at_bottom] == [POOR]
    opened(attention_figures.ratio_chart(ratios, findings))
    with pytest.raises(InputError, match="no activation ratio"):
        attention_figures.ratio_chart(ratios.assign(value=np.nan), findings)


def test_points_lie_where_land_and_attention_say_and_are_filled_on_the_side_that_was_found(
    findings: pd.DataFrame,
) -> None:
    drawn = figure(attention_figures.agreement_chart, findings)
    points = [line for line in drawn.axes[0].lines if line.get_marker() == "o"]
    assert np.allclose([line.get_xdata()[0] for line in points], 100 * findings["land"])
    assert np.allclose([line.get_ydata()[0] for line in points], findings["attention"])
    assert [line.get_fillstyle() for line in points] == ["right", *["none"] * 17, "full"]
    assert {"both say rich", "both say poor", "land poor, attention rich", "land rich, attention poor"} <= set(
        texts(drawn)
    )


def test_names_of_points_never_cover_each_other_and_found_ones_are_named(findings: pd.DataFrame) -> None:
    crowded = findings.assign(land=findings["land"] / 10, attention=findings["attention"] / 10)
    drawn = figure(attention_figures.agreement_chart, crowded)
    drawn.draw_without_rendering()
    named = [text for text in drawn.axes[0].texts if text.get_text().replace("\n", " ") in CLASSES]
    boxes = [text.get_window_extent() for text in named]
    assert not any(box.count_overlaps(boxes[:place]) for place, box in enumerate(boxes))
    assert {CLASSES[0], CLASSES[18]} <= {text.get_text().replace("\n", " ") for text in named}


def test_classes_without_both_differences_are_no_points(findings: pd.DataFrame) -> None:
    opened(attention_figures.agreement_chart(findings))
    half = findings.assign(attention=findings["attention"].where(findings.index > 9))
    points = [
        line for line in figure(attention_figures.agreement_chart, half).axes[0].lines if line.get_marker() == "o"
    ]
    assert len(points) == 9
    with pytest.raises(InputError, match="No class has a difference of land and one of attention"):
        attention_figures.agreement_chart(findings.assign(land=np.nan))


# --- pairs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pairs() -> pd.DataFrame:
    """All pairs of 19 classes at the rich end; water doubles attention to roads and halves that to forests."""
    rows = [("rich", first, second, 1.0, False) for first in CLASSES for second in CLASSES if first != second]
    table = pd.DataFrame(rows, columns=["end", "first", "second", "value", "found"])
    for first, value in (("roads", 2.0), ("forests and natural areas", 0.5)):
        table.loc[(table["first"] == first) & (table["second"] == "water"), ["value", "found"]] = [value, True]
    return table


def test_an_arrow_goes_from_what_is_present_to_what_is_looked_at(pairs: pd.DataFrame) -> None:
    drawn = figure(attention_figures.coactivation_network, pairs, "rich")
    axes = drawn.axes[0]
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert {to_hex(arrow.get_edgecolor()) for arrow in arrows} == {MORE, LESS}
    assert len({arrow.get_linewidth() for arrow in arrows}) == 1, "twice and half are equally strong"
    places = {text.get_text().replace("\n", " "): text.get_position() for text in axes.texts}
    assert places["water"][0] < 0
    assert min(places["roads"][0], places["forests and natural areas"][0]) > 1
    assert "motorways" not in places, "classes without an arrow are left out"
    assert drawn.get_suptitle() == "Rich end: 2 of 342 pairs of classes"
    png = attention_figures.coactivation_network(pairs, "rich")
    assert opened(png).shape[0] > 300


def test_where_nothing_is_found_the_figure_says_so(pairs: pd.DataFrame) -> None:
    drawn = figure(attention_figures.coactivation_network, pairs.assign(found=False), "rich")
    assert drawn.get_suptitle() == "Rich end: 0 of 342 pairs of classes"
    assert texts(drawn)[0].startswith("Nothing found")
    assert "0 of 0 pairs" in figure(attention_figures.coactivation_network, pairs, "poor").get_suptitle()


def test_of_too_many_pairs_the_strongest_are_drawn(pairs: pd.DataFrame) -> None:
    drawn = figure(
        attention_figures.coactivation_network, pairs.assign(found=True, value=pairs["value"] + 0.01), "rich", most=1
    )
    assert drawn.get_suptitle().endswith("342 of 342 pairs of classes, the 1 strongest")
    assert {text for text in texts(drawn) if text in CLASSES} == {"roads", "water"}


# --- tiles -----------------------------------------------------------------------------------------------------------


def example(**changes: Any) -> TileExample:
    """A grey tile of a wood in the north, a narrow road, and water in the south that the map looks at alone."""
    given: dict[str, Any] = {
        "tile": np.full((60, 60, 3), 120, dtype=np.uint8),
        "activation": np.repeat([[0.0], [4.0]], 2, axis=1),
        "polygons": [
            ("forests and natural areas", shapely.box(0, 0.52, 1, 1)),
            ("roads", shapely.box(0, 0.48, 1, 0.52)),
            ("water", shapely.box(-1, -1, 1, 0.48)),
        ],
        "caption": "A tile.",
    }
    return TileExample(**given | changes)


def test_a_tile_stands_beside_its_map_with_the_largest_classes_named() -> None:
    drawn = figure(attention_figures.tiles_panel, [example()])
    photograph, explained, _ = drawn.axes
    assert texts(drawn) == ["forests and natural areas", "water"], "a road of less than a twentieth is only outlined"
    assert (photograph.images[0].get_array() == 120).all()
    overlay = explained.images[0].get_array().astype(int)
    redness = overlay[..., 0] - overlay[..., 2]
    assert redness[:5].max() == 0, "row 0 is north, where the map is 0"
    assert redness[-5:].min() > 60
    ends = [line.get_ydata().max() for line in explained.lines]
    assert max(ends) == 1.0, "y goes upwards"


def test_tiles_of_any_total_activation_share_one_scale() -> None:
    weak = example(activation=example().activation / 1000)
    drawn = figure(attention_figures.tiles_panel, [example(), weak])
    first, second = (drawn.axes[place].images[0].get_array() for place in (1, 3))
    assert (first == second).all(), "ratios to the mean of the tile"


def test_a_map_without_activation_leaves_the_tile_grey() -> None:
    drawn = figure(attention_figures.tiles_panel, [example(activation=np.zeros((2, 2)), polygons=[])])
    assert (drawn.axes[1].images[0].get_array() == 120).all()
    opened(attention_figures.tiles_panel([example()]))
    with pytest.raises(InputError, match="no tile to show"):
        attention_figures.tiles_panel([])
