"""Attention to classes of land: planted maps are found, chance is not, and the checks tell learning from none."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from scipy.stats import false_discovery_control

from urbanprint.aerial import findings, sanity
from urbanprint.aerial.attention import RATIO_COLUMNS, Looked, end_of, looked_at, pair_table, ratio_table, zones_of
from urbanprint.aerial.learning import predictions_of
from urbanprint.errors import InputError
from urbanprint.evaluation.splits import iter_splits
from urbanprint.simulation.lattice import PlanarField

CLASSES = ("houses", "roads", "woods")


@pytest.fixture(scope="module")
def land(cells: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """In each cell houses to the west and woods to the east of a road of 40 m."""
    strips = {"houses": (0, 80), "roads": (80, 120), "woods": (120, 200)}
    rows = [
        (name, shapely.box(x - 100 + start, y - 100, x - 100 + stop, y + 100))
        for x, y in zip(cells["x_m"], cells["y_m"], strict=True)
        for name, (start, stop) in strips.items()
    ]
    return gpd.GeoDataFrame({"class": [name for name, _ in rows]}, geometry=[shape for _, shape in rows], crs=3035)


@pytest.fixture(scope="module")
def predictions(incomes: pd.Series, folds: pd.DataFrame) -> pd.DataFrame:
    """Held-out predictions that are right."""
    parts = []
    for split in iter_splits(folds, "block", buffer_m=300):
        edges = np.quantile(incomes.loc[list(split.train)], [0.2, 0.4, 0.6, 0.8])
        right = np.searchsorted(edges, incomes.loc[list(split.test)], side="right")
        table = pd.DataFrame(np.eye(5)[right], index=list(split.test), columns=[f"p{k}" for k in range(5)])
        parts.append(predictions_of(table, incomes, split=split, model="binomial"))
    return pd.concat(parts).sort_values("area_id", ignore_index=True)


def planted(n: int, *, rich: str, poor: str) -> dict[str, np.ndarray]:
    """Maps of 10 x 10 cells: the rich end looks at one strip, the poor end at another."""
    columns = {"houses": slice(0, 4), "roads": slice(4, 6), "woods": slice(6, 10)}
    maps = {end: np.full((n, 10, 10), 0.1, dtype=np.float32) for end in ("poor", "rich")}
    maps["rich"][:, :, columns[rich]] = 1.0
    maps["poor"][:, :, columns[poor]] = 1.0
    return maps


@pytest.fixture(scope="module")
def looked(cells: gpd.GeoDataFrame, land: gpd.GeoDataFrame, folds: pd.DataFrame, predictions: pd.DataFrame) -> Looked:
    zones = zones_of(cells, land, size_m=200, crs="EPSG:3035", shape=(10, 10))
    return looked_at(planted(len(cells), rich="woods", poor="houses"), zones, predictions, folds)


def test_the_middle_class_is_of_no_end() -> None:
    assert end_of(np.arange(5), 5).tolist() == ["poor", "poor", "", "rich", "rich"]
    assert end_of(np.arange(4), 4).tolist() == ["poor", "poor", "rich", "rich"]


def test_zones_take_the_shares_of_the_land(looked: Looked) -> None:
    assert looked.classes == CLASSES
    np.testing.assert_allclose(looked.shares, np.tile([0.4, 0.2, 0.4], (len(looked.shares), 1)), atol=1e-9)


def test_ratios_are_those_worked_out_by_hand(looked: Looked) -> None:
    # Of the rich end: 40 cells of 1 and 60 of 0.1 sum to 46; woods hold 40 of it on 0.4 of the tile.
    table = ratio_table(looked, repeats=100, seed=1).set_index(["end", "name"])["value"]
    assert table["rich", "woods"] == pytest.approx(40 / 46 / 0.4)
    assert table["rich", "houses"] == pytest.approx(4 / 46 / 0.4)
    assert table["poor", "houses"] == pytest.approx(40 / 46 / 0.4)
    assert findings.top_class(ratio_table(looked, repeats=100, seed=1), "rich") == "woods"


def test_uniform_maps_are_neutral_to_nine_digits(
    cells: gpd.GeoDataFrame, land: gpd.GeoDataFrame, folds: pd.DataFrame, predictions: pd.DataFrame
) -> None:
    zones = zones_of(cells, land, size_m=200, crs="EPSG:3035", shape=(10, 10))
    maps = {end: np.ones((len(cells), 10, 10), dtype=np.float32) for end in ("poor", "rich")}
    ratios = looked_at(maps, zones, predictions, folds).ratios
    assert np.abs(ratios[np.isfinite(ratios)] - 1).max() < 1e-9


def test_a_class_held_by_few_tiles_is_not_the_top(looked: Looked) -> None:
    table = ratio_table(looked, repeats=100, seed=1)
    with pytest.raises(InputError, match="No class of land is held by 1000 tiles predicted rich"):
        findings.top_class(table, "rich", least_tiles=1000)


def test_a_high_mean_of_a_wide_interval_is_not_the_top() -> None:
    rows = [("poor", "houses", 1.6, 1.5, 1.7, 150, 30), ("poor", "bare ground", 2.0, 1.1, 2.9, 40, 9)]
    assert findings.top_class(pd.DataFrame(rows, columns=list(RATIO_COLUMNS)), "poor") == "houses"


def test_planted_attention_is_found_and_even_land_is_not(looked: Looked, cells: gpd.GeoDataFrame) -> None:
    found = findings.class_findings(looked, cells[["x_m", "y_m"]], size_m=200, permutations=999, seed=2)
    of = found.set_index("name")
    assert of.loc["woods", "attention"] > 1 and of.loc["houses", "attention"] < -1
    assert not of["land_found"].any()


def test_incomes_without_a_link_are_rarely_linked_to_land() -> None:
    """Both fields are smooth and know nothing of each other: of many tests about 5 % reject."""
    column, row = np.indices((20, 20)).reshape(2, -1)
    places = pd.DataFrame({"x_m": 200.0 * column, "y_m": 200.0 * row})
    units = pd.Series([f"{c}_{r}" for c, r in zip(column // 5, row // 5, strict=True)])
    rng = np.random.default_rng(8)
    rejected = []
    for seed in range(60):
        at = places.to_numpy()
        income = PlanarField.drawn(length_m=600, rng=rng).at(at) + rng.normal(size=len(at))
        shares = np.stack([PlanarField.drawn(length_m=600, rng=rng).at(at) for _ in range(4)], axis=1)
        nulls = findings.nulls_of(places, units, size_m=200, permutations=299, seed=seed)
        table = findings.tests_of("land", shares, income > np.median(income), nulls, ("a", "b", "c", "d"))
        rejected += (table["land_shifts"] <= 0.05).tolist()
    assert 0.02 < np.mean(rejected) < 0.09


def test_pairs_are_judged_at_both_ends(looked: Looked, cells: gpd.GeoDataFrame) -> None:
    pairs = pair_table(looked, repeats=100, seed=1)
    table = findings.pair_findings(pairs, looked, cells[["x_m", "y_m"]], size_m=200, permutations=199, seed=1)
    assert len(table) == 2 * 3 * 2
    # Every tile holds every class, so that the presence of one tells nothing of another.
    np.testing.assert_allclose(table["value"], 1.0)
    assert table["q_value"].isna().all() and not table["found"].any()


def test_maps_are_like_themselves_and_unlike_noise(looked: Looked, cells: gpd.GeoDataFrame) -> None:
    rng = np.random.default_rng(0)
    maps = {end: rng.random((len(cells), 8, 8)) for end in ("poor", "rich")}
    noise = {end: rng.random((len(cells), 8, 8)) for end in ("poor", "rich")}
    same, other = (
        sanity.likeness_check("name", "", maps, others, looked.units, repeats=200, seed=1) for others in (maps, noise)
    )
    assert same["value"] == pytest.approx(1.0) and not same["passed"]
    assert abs(other["value"]) < 0.05 and other["passed"]


def test_a_constant_map_has_no_likeness() -> None:
    assert np.isnan(sanity.map_likeness(np.ones((1, 4, 4)), np.arange(16.0).reshape(1, 4, 4)))[0]


def test_the_planted_class_has_to_come_first(looked: Looked) -> None:
    ratios = ratio_table(looked, repeats=100, seed=1)
    rows = sanity.planted_check(ratios, {"rich": "woods", "poor": "roads"})
    assert [row["passed"] for row in rows] == [True, False]
    assert "most surely looked at is houses" in rows[1]["explanation"]


def test_shuffled_incomes_are_the_same_incomes_elsewhere(incomes: pd.Series) -> None:
    dealt = sanity.shuffled(incomes, seed=1)
    assert sorted(dealt) == sorted(incomes)
    assert abs(np.corrcoef(dealt, incomes)[0, 1]) < 0.3


def test_a_network_that_calls_every_tile_the_middle_finds_nothing(looked: Looked, cells: gpd.GeoDataFrame) -> None:
    silent = replace(looked, end=np.full(len(looked.end), ""), ratios=np.full_like(looked.ratios, np.nan))
    ratios = ratio_table(silent, repeats=100, seed=1)
    assert ratios["value"].isna().all() and (ratios["tiles"] == 0).all()
    places = cells[["x_m", "y_m"]]
    found = findings.class_findings(silent, places, size_m=200, permutations=199, seed=1)
    assert found["attention"].isna().all() and not found["attention_found"].any()
    pairs = findings.pair_findings(
        pair_table(silent, repeats=100, seed=1), silent, places, size_m=200, permutations=199, seed=1
    )
    assert not pairs["found"].any()
    (row,) = sanity.planted_check(ratios, {"rich": "woods"})
    assert not row["passed"] and "no class is on 20 tiles predicted rich" in row["explanation"]


def test_only_what_survives_shifts_and_all_that_was_asked_is_found(looked: Looked, cells: gpd.GeoDataFrame) -> None:
    rng = np.random.default_rng(3)
    end = np.where(cells["x_m"] + cells["y_m"] > (cells["x_m"] + cells["y_m"]).median(), "rich", "poor")
    ratios = rng.random(looked.ratios.shape)
    ratios[:, 0] += end == "rich"  # houses differ, the rest is noise
    table = findings.class_findings(
        replace(looked, ratios=ratios, end=end), cells[["x_m", "y_m"]], size_m=200, permutations=999, seed=2
    ).set_index("name")
    np.testing.assert_allclose(table["attention_q"], false_discovery_control(table["attention_shifts"]))
    assert table["attention_found"].to_dict() == {"houses": True, "roads": False, "woods": False}
