"""The results table: which scores stand where, what is marked, and the same cells in every form."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest

from urbanprint.errors import InputError
from urbanprint.maps.livelihood_table import (
    CLUSTER_FOLDS,
    LEARNERS,
    PICTURE_LEARNERS,
    READERS,
    Table,
    image_tables,
    results_tables,
    table_markdown,
    table_text,
    transfer_tables,
)
from urbanprint.tables import CLUSTER_SCORES
from urbanprint.vocabulary import CLUSTER_BASELINES, FOLD_KINDS, LIVELIHOODS, TASK_MEASURES

NAN = float("nan")
MEASURED = {"classification": ("accuracy", "auc"), "regression": ("r2", "pearson_r2", "pearson_r")}
Rows = Iterable[tuple[str, str, str, str, str, float]]


def scored(rows: Rows) -> pd.DataFrame:
    """Scores with an interval 0.05 wide on both sides, from (model, kind, indicator, task, measure, value)."""
    frame = pd.DataFrame(rows, columns=["model", "kind", "indicator", "task", "measure", "value"])
    frame = frame.assign(low=frame["value"] - 0.05, high=frame["value"] + 0.05, clusters=300, units=30)
    return CLUSTER_SCORES.validate(frame[list(CLUSTER_SCORES.columns)])


def value(model: str, kind: str, indicator: str, measure: str) -> float:
    """A different number for every score, better from learner to learner, all r positive."""
    return round(
        0.2
        + 0.03 * list(LEARNERS).index(model)
        + 0.01 * list(CLUSTER_FOLDS).index(kind)
        + 0.002 * list(LIVELIHOODS).index(indicator)
        + (0.0005 if measure == "pearson_r2" else 0.0),
        4,
    )


def country(
    *models: str, kinds: Iterable[str] = CLUSTER_FOLDS, indicators: Iterable[str] = LIVELIHOODS
) -> pd.DataFrame:
    return scored(
        (model, kind, indicator, task, measure, value(model, kind, indicator, measure))
        for model in models
        for kind in kinds
        for indicator in indicators
        for task, measures in MEASURED.items()
        for measure in measures
    )


@pytest.fixture(scope="module")
def scores() -> dict[str, pd.DataFrame]:
    """Two countries, of which the second has no BMI and one learner more."""
    models = ("prior", "coordinates_urban", "imagewise", "graph_images")
    return {"aland": country(*models), "bland": country(*models, "clusterwise", indicators=("poverty", "population"))}


def titled(tables: Iterable[Table], start: str) -> Table:
    (found,) = [table for table in tables if table.title.startswith(start)]
    return found


# --- names -----------------------------------------------------------------------------------------------------------


def test_baselines_stand_before_the_learners_of_pictures_and_every_kind_of_fold_has_a_name() -> None:
    assert list(LEARNERS) == [*CLUSTER_BASELINES, *PICTURE_LEARNERS]
    assert set(CLUSTER_FOLDS) == {*FOLD_KINDS, "listed"}


# --- which tables, rows and columns ----------------------------------------------------------------------------------


def test_the_honest_folds_come_first_and_wide_tables_are_split_by_country(scores: dict[str, pd.DataFrame]) -> None:
    titles = [table.title for table in results_tables(scores)]
    assert titles[:3] == [
        "Classification, spatial blocks with a buffer",
        "Regression, spatial blocks with a buffer: aland",
        "Regression, spatial blocks with a buffer: bland",
    ]
    assert [title.split(", ")[1].split(":")[0] for title in titles[::3]] == list(CLUSTER_FOLDS.values())


def test_a_country_without_an_indicator_has_no_column_for_it(scores: dict[str, pd.DataFrame]) -> None:
    classification, _, bland, *_ = results_tables(scores)
    assert classification.columns == (
        ("aland", "Asset wealth", "accuracy"),
        ("aland", "Population density", "accuracy"),
        ("aland", "Women's BMI", "accuracy"),
        ("bland", "Asset wealth", "accuracy"),
        ("bland", "Population density", "accuracy"),
    )
    assert bland.columns == (
        ("Asset wealth", "R²"),
        ("Asset wealth", "squared Pearson r"),
        ("Population density", "R²"),
        ("Population density", "squared Pearson r"),
    )
    assert classification.head[0] == [("aland", 3), ("bland", 2)]
    assert bland.head == [[("Asset wealth", 2), ("Population density", 2)], [("R²", 1), ("squared Pearson r", 1)] * 2]


def test_learners_keep_their_order_and_those_not_scored_have_no_row(scores: dict[str, pd.DataFrame]) -> None:
    classification, aland, *_ = results_tables(scores)
    names = ["prior", "coordinates + urban flag", "image-wise network", "graph: image features"]
    assert [row.name for row in aland.rows] == names
    assert [row.name for row in classification.rows] == [*names[:3], "cluster-wise: object counts", names[3]]
    assert [row.sort for row in aland.rows] == ["baseline", "baseline", "pictures", "pictures"]
    assert [np.isnan(cell.score.value) for cell in classification.rows[3].cells] == [True] * 3 + [False] * 2


def test_a_learner_without_a_name_comes_last_under_its_identifier(scores: dict[str, pd.DataFrame]) -> None:
    unnamed = scores["aland"].replace({"model": {"prior": "zebra"}})
    row = results_tables({"aland": unnamed})[0].rows[-1]
    assert (row.name, row.sort) == ("zebra", "pictures")


def test_every_cell_is_the_score_of_its_row_and_column(scores: dict[str, pd.DataFrame]) -> None:
    aland = results_tables(scores)[1]
    keys = [(indicator, measure) for indicator in LIVELIHOODS for measure in ("r2", "pearson_r2")]
    for row, model in zip(aland.rows, ("prior", "coordinates_urban", "imagewise", "graph_images"), strict=True):
        for cell, (indicator, measure) in zip(row.cells, keys, strict=True):
            expected = value(model, "block", indicator, measure)
            assert cell.score == pytest.approx((expected, expected - 0.05, expected + 0.05))


def test_scores_under_transfers_alone_are_no_results() -> None:
    frame = country("prior", kinds=["block"]).replace({"kind": {"block": "aland to bland"}})
    with pytest.raises(InputError, match="no scores under folds of spatial blocks"):
        results_tables({"bland": frame})


# --- what is marked --------------------------------------------------------------------------------------------------


def one_column(**r2: float) -> Table:
    rows = [(model, "block", "poverty", "regression", "r2", score) for model, score in r2.items()]
    return results_tables({"aland": scored(rows)})[0]


def test_a_picture_model_is_ahead_only_of_all_baselines() -> None:
    table = one_column(prior=0.0, coordinates=0.5, imagewise=0.4, graph_images=0.6)
    assert {row.name: row.cells[0].ahead for row in table.rows} == {
        "prior": False,
        "coordinates only": False,
        "image-wise network": False,
        "graph: image features": True,
    }


@pytest.mark.parametrize("baselines", [{}, {"prior": NAN}])
def test_nothing_is_ahead_of_baselines_that_were_not_scored(baselines: dict[str, float]) -> None:
    assert not any(row.cells[0].ahead for row in one_column(**baselines, imagewise=0.9).rows)


@pytest.mark.parametrize(("r", "negative"), [(0.6, False), (-0.6, True), (-0.05, False)])
def test_a_squared_r_below_which_r_is_negative_is_flagged_and_never_ahead(r: float, negative: bool) -> None:
    rows = [
        ("prior", "block", "poverty", "regression", "pearson_r2", 0.0),
        ("imagewise", "block", "poverty", "regression", "pearson_r2", r**2),
        ("imagewise", "block", "poverty", "regression", "pearson_r", r),
    ]
    table = results_tables({"aland": scored(rows)})[0]
    cell = table.rows[1].cells[0]
    assert (cell.negative, cell.ahead) == (negative, not negative)
    assert ("(r < 0)" in table_markdown({"aland": scored(rows)})) is negative


def test_a_flagged_baseline_is_no_hurdle() -> None:
    rows = [
        ("prior", "block", "poverty", "regression", "pearson_r2", 0.6),
        ("prior", "block", "poverty", "regression", "pearson_r", -0.77),
        ("coordinates", "block", "poverty", "regression", "pearson_r2", 0.3),
        ("imagewise", "block", "poverty", "regression", "pearson_r2", 0.4),
    ]
    assert results_tables({"aland": scored(rows)})[0].rows[-1].cells[0].ahead


def test_the_best_reachable_scores_stand_below_where_they_are_known(scores: dict[str, pd.DataFrame]) -> None:
    ceiling = pd.DataFrame(
        [
            ("poverty", "classification", "images", 0.8),
            ("poverty", "classification", "set", 0.9),
            ("poverty", "regression", "images", 0.6),
            ("poverty", "regression", "set", 0.7),
        ],
        columns=["indicator", "task", "reader", "score"],
    )
    classification, aland, bland, *_ = results_tables(scores, ceilings={"aland": ceiling})
    for table, best in ((classification, [0.8, NAN, NAN, NAN, NAN]), (aland, [0.6, NAN, NAN, NAN, NAN, NAN])):
        images, together = table.rows[-2:]
        assert [images.name, together.name] == list(READERS.values())
        assert images.sort == together.sort == "ceiling"
        np.testing.assert_equal([cell.score.value for cell in images.cells], best)
    assert bland.rows[-1].sort == "pictures"


# --- transfers and single images -------------------------------------------------------------------------------------


def test_transfers_have_only_the_learners_that_were_transferred() -> None:
    own = country("prior", "imagewise", "graph_images", kinds=["block", "random"], indicators=["poverty"])
    moved = country("prior", "graph_images", kinds=["block"], indicators=["poverty"])
    moved = pd.concat([moved.assign(kind=kind) for kind in ("aland to bland", "bland + half of aland")])
    tables = transfer_tables({"aland": own, "bland": pd.concat([own, moved], ignore_index=True)})
    assert [table.title for table in tables] == ["bland, Asset wealth, accuracy", "bland, Asset wealth, R²"]
    for table in tables:
        assert table.columns == (("aland to bland",), ("bland + half of aland",))
        assert [row.name for row in table.rows] == ["prior", "graph: image features"]


def test_without_transfers_there_is_no_such_table(scores: dict[str, pd.DataFrame]) -> None:
    assert transfer_tables(scores) == ()


def test_single_images_stand_beside_clusters() -> None:
    rows = [
        ("block", "poverty", "image", 0.6, "classification"),
        ("block", "poverty", "cluster", 0.8, "classification"),
        ("random", "poverty", "image", 0.7, "classification"),
        ("random", "poverty", "cluster", 0.9, "classification"),
    ]
    frame = pd.DataFrame(rows, columns=["kind", "indicator", "unit", "score", "task"]).assign(count=10)
    (table,) = image_tables({"aland": frame})
    assert table.title == "Classification, accuracy"
    assert table.head[0] == [("spatial blocks with a buffer", 2), ("random places", 2)]
    assert [row.name for row in table.rows] == ["aland, Asset wealth"]
    assert [cell.score.value for cell in table.rows[0].cells] == [0.6, 0.8, 0.7, 0.9]


# --- as text ---------------------------------------------------------------------------------------------------------


def test_markdown_holds_every_score_with_its_interval(scores: dict[str, pd.DataFrame]) -> None:
    blocks = table_markdown(scores).split("**")[1:]
    by_title = dict(zip(blocks[::2], blocks[1::2], strict=True))
    lines = by_title["Regression, random places: bland"].strip().splitlines()
    assert lines[0].split(" | ")[1:3] == ["Asset wealth, R²", "Asset wealth, squared Pearson r"]
    expected = value("prior", "random", "poverty", "r2")
    assert lines[2].split(" | ")[:2] == ["| prior", f"{expected:.2f} [{expected - 0.05:.2f}, {expected + 0.05:.2f}]"]
    assert len({line.count("|") for line in lines}) == 1


def test_a_bar_in_a_name_does_not_break_a_markdown_row() -> None:
    frame = scored([("a|b", "block", "poverty", "regression", "r2", 0.5)])
    assert "| a\\|b | 0.50 [0.45, 0.55] |" in table_markdown({"aland": frame})


def test_the_text_fits_a_terminal_and_has_intervals_for_blocks_only(scores: dict[str, pd.DataFrame]) -> None:
    text = table_text(scores)
    assert max(map(len, text.splitlines())) <= 160
    for block in re.split(r"\n\n(?=[A-Z])", text):
        squared_last = block.splitlines()[-1].split("  ")[-1]
        assert ("[" in block) == ("spatial blocks" in block)
        assert "Regression" not in block or "[" not in squared_last


def test_text_columns_are_aligned_under_headings_written_once(scores: dict[str, pd.DataFrame]) -> None:
    block = table_text(scores).split("\n\nRegression")[0].splitlines()
    country_line, indicator_line, measure_line, rule, *rows = block[2:]
    starts = [match.start() for match in re.finditer(r"(?<=  )-+", rule)]
    assert [measure_line[start:].split()[0] for start in starts] == ["accuracy"] * 5
    assert [match.start() for match in re.finditer(r"\S+", country_line)] == [starts[0], starts[3]]
    assert [match.start() for match in re.finditer(r"\S+( \S+)*", indicator_line)] == starts
    for row in rows:
        assert all(row[start] in "0-" and row[start - 2 : start] == "  " for start in starts)


def test_a_missing_score_is_a_dash_and_a_tiny_negative_one_has_no_sign() -> None:
    rows = [
        ("prior", "block", "poverty", "regression", "r2", -0.001),
        ("random", "block", "poverty", "regression", "r2", NAN),
    ]
    lines = table_text({"aland": scored(rows)}).splitlines()
    assert lines[-2].split() == ["random", "-"]
    assert lines[-1].split()[:2] == ["prior", "0.00"]


def test_the_measures_shown_are_those_of_the_vocabulary() -> None:
    assert {task: tuple(names) for task, names in TASK_MEASURES.items()} == MEASURED
