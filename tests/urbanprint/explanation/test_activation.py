"""Activation over land use: zonal sums against shapely and by hand, ratios neutral on even maps, means over pairs."""

import numpy as np
import pandas as pd
import pytest
import shapely
from geopandas import GeoDataFrame
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from urbanprint.errors import InputError
from urbanprint.explanation import activation
from urbanprint.explanation.activation import (
    CLASS_COLUMNS,
    PAIR_COLUMNS,
    Zones,
    activation_ratios,
    class_shares,
    co_appearance_gain,
    coactivation,
    label_zones,
    mean_ratios,
    polygon_zones,
)
from urbanprint.simulation.conurbation import build_conurbation

CRS = "EPSG:3035"
TILES = np.array([[0.0, 0.0, 200.0, 200.0], [200.0, 0.0, 400.0, 200.0], [100.0, 300.0, 300.0, 500.0]])


def land(*parts: tuple[str, shapely.Geometry], crs: str | None = CRS) -> GeoDataFrame:
    return GeoDataFrame({"use": [name for name, _ in parts]}, geometry=[shape for _, shape in parts], crs=crs)


def zones_of(*parts: tuple[str, shapely.Geometry], shape: tuple[int, int], tiles: np.ndarray = TILES[:1]) -> Zones:
    classes = sorted({name for name, _ in parts})
    return polygon_zones(land(*parts), tiles, column="use", classes=classes, shape=shape)


def fractions(zones: Zones) -> np.ndarray:
    """As (tiles, classes, height, width)."""
    tiles, height, width = zones.shape
    blocks = zones.fractions.toarray().reshape(tiles, len(zones.classes), tiles, height, width)
    assert all(blocks[a, :, b].sum() == 0 for a in range(tiles) for b in range(tiles) if a != b)
    return np.stack([blocks[tile, :, tile] for tile in range(tiles)])


def by_shapely(parts: list[tuple[str, shapely.Geometry]], tiles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The same fractions, polygon by polygon and cell by cell (tiles, classes, height, width)."""
    classes = sorted({name for name, _ in parts})
    found = np.zeros((len(tiles), len(classes), *shape))
    for t, (west, south, east, north) in enumerate(tiles):
        x, y = np.linspace(west, east, shape[1] + 1), np.linspace(north, south, shape[0] + 1)
        cells = shapely.box(x[None, :-1], y[1:, None], x[None, 1:], y[:-1, None])
        for name, polygon in parts:
            found[t, classes.index(name)] += shapely.area(shapely.intersection(polygon, cells)) / shapely.area(cells)
    return found


def mosaic(seed: int) -> list[tuple[str, shapely.Geometry]]:
    """Irregular land use in five classes that covers the three tiles without gaps."""
    rng = np.random.default_rng(seed)
    points = shapely.multipoints(rng.uniform(0, 500, size=(60, 2)))
    cells = shapely.get_parts(shapely.voronoi_polygons(points, extend_to=shapely.box(-50, -50, 550, 550)))
    return [("abcde"[k], cell) for k, cell in zip(rng.integers(0, 5, len(cells)), cells, strict=True)]


def test_axis_aligned_shapes_have_the_fractions_one_reads_off() -> None:
    """Cells of 50 m: a block over one and a half columns of the upper half, and a strip 5 m wide at the bottom."""
    block, strip = shapely.box(0, 100, 75, 200), shapely.box(0, 0, 200, 5)
    found = fractions(zones_of(("block", block), ("strip", strip), shape=(4, 4)))[0]
    assert_allclose(found[0], [[1, 0.5, 0, 0], [1, 0.5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], rtol=0, atol=1e-12)
    assert_allclose(found[1], [[0] * 4, [0] * 4, [0] * 4, [0.1] * 4], rtol=0, atol=1e-12)


def test_row_0_is_the_north_and_column_0_the_west() -> None:
    corner = shapely.box(0, 150, 50, 200)
    assert_array_equal(fractions(zones_of(("corner", corner), shape=(4, 4)))[0, 0].nonzero(), [[0], [0]])


def test_a_hole_belongs_to_what_fills_it_and_orientation_does_not_matter() -> None:
    outer, hole = shapely.box(20, 20, 180, 180), shapely.box(60, 60, 140, 140)
    ring = shapely.difference(outer, hole)
    for turned in (ring, shapely.reverse(ring), shapely.normalize(ring)):
        zones = zones_of(("park", hole), ("ring", turned), shape=(5, 5))
        assert_allclose(zones.areas(), [[80**2 / 200**2, (160**2 - 80**2) / 200**2]], rtol=0, atol=1e-12)
        assert fractions(zones)[0, 1, 2, 2] == 0.0


@pytest.mark.parametrize("shape", [(7, 7), (3, 10), (1, 1)])
def test_irregular_shapes_equal_shapelys_intersections(shape: tuple[int, int]) -> None:
    parts = mosaic(seed=1)
    found = fractions(zones_of(*parts, shape=shape, tiles=TILES))
    assert_allclose(found, by_shapely(parts, TILES, shape), rtol=0, atol=1e-9)
    assert_allclose(found.sum(axis=1), 1.0, rtol=0, atol=1e-9)


coordinates = st.floats(-150, 350, allow_nan=False)


@settings(max_examples=60, deadline=None)
@example([(40.0, -1.0), (0.0625, 7.267933447386104e-79), (0.0, -1.0)], 1, 1)  # which GEOS cannot clip
@given(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=12), st.integers(1, 6), st.integers(1, 6))
def test_any_polygon_equals_shapelys_intersections(points: list[tuple[float, float]], height: int, width: int) -> None:
    """Also those that cross the tile's border, touch it, surround it, miss it, and their bays."""
    hull = shapely.convex_hull(shapely.multipoints(points))
    bay = shapely.buffer(shapely.points(points[0]), 40)
    shape = shapely.difference(hull, bay) if shapely.area(hull) > 1 else bay
    found = fractions(zones_of(("it", shape), shape=(height, width)))
    assert_allclose(found, by_shapely([("it", shape)], TILES[:1], (height, width)), rtol=0, atol=1e-9)


def test_a_polygon_of_very_many_vertices_is_divided_and_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shapely.multilinestrings([[(0, k), (500, k + 9)] for k in range(5, 500, 31)])
    across = shapely.multilinestrings([[(k, 0), (k + 5, 500)] for k in range(5, 500, 23)])
    streets = shapely.buffer(shapely.union(lines, across), 2.0)
    whole = zones_of(("streets", streets), shape=(6, 6), tiles=TILES)
    monkeypatch.setattr(activation, "_VERTICES", 40)
    monkeypatch.setattr(activation, "_AT_ONCE", 2)
    divided = zones_of(("streets", streets), shape=(6, 6), tiles=TILES)
    assert_allclose(fractions(divided), fractions(whole), rtol=0, atol=1e-9)
    assert_allclose(fractions(whole), by_shapely([("streets", streets)], TILES, (6, 6)), rtol=0, atol=1e-9)


def test_streets_between_many_blocks_count_the_same_where_clipping_makes_them_cross_themselves() -> None:
    """Of the polygon of these streets GEOS makes pieces that cross themselves: a tile then counts several times."""
    town = build_conurbation("town", seed=1000, cells=20)
    x, y = (corner + 200.0 * steps for corner, steps in zip((3_801_600, 2_597_800), np.indices((5, 11)), strict=True))
    bounds = np.stack([x, y, x + 200, y + 200], axis=-1).reshape(-1, 4)
    land = town.land_use
    zones = polygon_zones(land, bounds, column="code_2018", classes=sorted(set(land["code_2018"])), shape=(4, 4))
    streets = land.geometry.iloc[-1]
    expected = [shapely.intersection(streets, shapely.box(*tile)).area / 40_000 for tile in bounds]
    assert_allclose(zones.areas()[:, zones.classes.index("12220")], expected, atol=1e-9)


def test_polygons_that_touch_a_tile_only_cover_nothing_of_it() -> None:
    beside = shapely.box(200, 0, 300, 200), shapely.box(0, 200, 200, 300), shapely.box(200, 200, 300, 300)
    zones = zones_of(*(("beside", shape) for shape in beside), shape=(4, 4))
    assert zones.fractions.nnz == 0


def test_polygons_in_degrees_unknown_classes_and_overlaps_are_refused() -> None:
    square = shapely.box(0, 0, 200, 200)
    for crs in ("EPSG:4326", None):
        with pytest.raises(InputError, match="project them, areas are not measured in degrees"):
            polygon_zones(land(("a", square), crs=crs), TILES, column="use", classes=["a"], shape=(2, 2))
    with pytest.raises(InputError, match="'a' in column use is none of the 1 classes"):
        polygon_zones(land(("a", square)), TILES, column="use", classes=["b"], shape=(2, 2))
    with pytest.raises(InputError, match=r"tile 0 cover 2\.00 times the area"):
        zones_of(("a", square), ("b", square), shape=(2, 2))


def test_no_tiles_and_no_polygons_give_empty_zones() -> None:
    nothing = polygon_zones(land(), TILES, column="use", classes=["a"], shape=(2, 2))
    assert_array_equal(nothing.areas(), np.zeros((3, 1)))
    assert zones_of(("a", shapely.box(0, 0, 1, 1)), shape=(2, 2), tiles=np.zeros((0, 4))).areas().shape == (0, 1)


def test_labels_count_by_the_part_of_their_pixel_in_a_cell() -> None:
    labels = np.array([[[0, 0, 1], [0, 2, 1], [9, 2, 1]]])  # 9 is no class
    found = fractions(label_zones(labels, classes=["a", "b", "c"], shape=(2, 1)))[0, :, :, 0]
    assert_allclose(found, np.array([[2.5, 0.5], [1.5, 1.5], [0.5, 1.5]]) / 4.5)


def test_a_tile_whose_labels_are_no_class_lies_in_none() -> None:
    labels = np.array([[[-1, 7]], [[0, 1]]])
    assert_allclose(label_zones(labels, classes=["a", "b"], shape=(1, 2)).areas(), [[0, 0], [0.5, 0.5]])


def test_labels_at_the_resolution_of_the_maps_select_cells() -> None:
    rng = np.random.default_rng(0)
    labels, maps = rng.integers(0, 3, size=(4, 5, 6)), rng.random((4, 5, 6))
    zones = label_zones(labels, classes=["a", "b", "c"], shape=(5, 6))
    expected = [[m[row == k].sum() for k in range(3)] for m, row in zip(maps, labels, strict=True)]
    assert_allclose(zones.sums(maps), expected)


def test_fine_labels_of_axis_aligned_polygons_give_the_zones_of_the_polygons() -> None:
    west, east = shapely.box(0, 0, 80, 200), shapely.box(80, 0, 200, 200)
    labels = np.repeat([[0] * 8 + [1] * 12], 20, axis=0)[None]  # pixels of 10 m
    found = label_zones(labels, classes=["east", "west"], shape=(3, 3))
    polygons = zones_of(("west", east), ("east", west), shape=(3, 3))
    assert_allclose(fractions(found), fractions(polygons), rtol=0, atol=1e-9)


def test_shares_sum_to_one_and_even_maps_are_neutral() -> None:
    zones = zones_of(*mosaic(seed=2), shape=(7, 7), tiles=TILES)
    maps = np.random.default_rng(0).random((3, 7, 7)).astype(np.float32)
    assert_allclose(zones.sums(maps).sum(axis=1), maps.sum(axis=(1, 2)), rtol=1e-6)
    assert_allclose(class_shares(maps, zones).sum(axis=1), 1.0, rtol=0, atol=1e-9)
    even = activation_ratios(np.full((3, 7, 7), 0.37), zones)
    assert np.isfinite(even).any(axis=1).all()
    assert_allclose(even[np.isfinite(even)], 1.0, rtol=0, atol=1e-9)


def test_a_ratio_is_activation_share_over_area_share() -> None:
    """All activation in the western column, half of which is a park that covers an eighth of the tile."""
    parts = [("park", shapely.box(0, 0, 50, 100)), ("town", shapely.box(50, 0, 200, 200))]
    maps = np.zeros((1, 4, 4))
    maps[0, :, 0] = 3.0
    zones = zones_of(*parts, shape=(4, 4))
    assert_allclose(class_shares(maps, zones), [[0.5, 0.0]])
    assert_allclose(activation_ratios(maps, zones), [[4.0, 0.0]])


def test_slivers_dark_tiles_and_absent_classes_have_no_ratio() -> None:
    parts = [
        ("corner", shapely.box(0, 0, 15, 15)),
        ("far", shapely.box(900, 0, 950, 9)),
        ("wide", shapely.difference(shapely.box(0, 0, 400, 200), shapely.box(0, 0, 15, 15))),
    ]
    zones = zones_of(*parts, shape=(2, 2), tiles=TILES[:2])
    maps = np.stack([np.ones((2, 2)), np.zeros((2, 2))])
    ratios = activation_ratios(maps, zones)
    assert_array_equal(np.isfinite(ratios), [[False, False, True], [False, False, False]])
    assert np.isfinite(activation_ratios(maps, zones, least_share=0.0)[0]).tolist() == [True, False, True]


def test_negative_maps_and_maps_of_another_size_are_refused() -> None:
    zones = zones_of(("a", shapely.box(0, 0, 200, 200)), shape=(2, 2), tiles=TILES[:2])
    with pytest.raises(InputError, match="map of tile 1 has negative values"):
        class_shares(np.stack([np.ones((2, 2)), -np.ones((2, 2))]), zones)
    with pytest.raises(InputError, match=r"shape \(2, 3, 3\) and their zones \(2, 2, 2\)"):
        class_shares(np.ones((2, 3, 3)), zones)


RATIOS = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, 0.5], [2.0, 4.0, 1.5], [np.nan, 1.0, np.nan]])
UNITS = pd.Series(["w", "w", "e", "e"])


def test_coactivation_is_the_mean_with_both_over_the_mean_with_the_first() -> None:
    table = coactivation(RATIOS, UNITS, classes=["a", "b", "c"], repeats=50, seed=0)
    assert tuple(table.columns) == PAIR_COLUMNS
    pairs = table.set_index(["first", "second"])
    assert len(pairs) == 6
    assert pairs.loc[("a", "b"), "value"] == pytest.approx(np.mean([1, 2]) / np.mean([1, 3, 2]))
    assert pairs.loc[("b", "a"), "value"] == pytest.approx(np.mean([2, 4]) / np.mean([2, 4, 1]))
    assert pairs.loc[("c", "b"), "value"] == pytest.approx(1.5 / np.mean([0.5, 1.5]))
    assert pairs.loc[("a", "b"), ["tiles", "units"]].tolist() == [2, 2]
    assert pairs.loc[("c", "b"), ["tiles", "units"]].tolist() == [1, 1]


def test_the_gain_of_coming_together_is_a_ratio_of_shares() -> None:
    held = np.array([[1, 1], [1, 1], [1, 0], [1, 0], [0, 1]], dtype=bool)
    status = np.array([True, True, True, False, False])
    table = co_appearance_gain(status, held, pd.Series(list("abcde")), classes=["x", "y"], repeats=50, seed=0)
    assert table["value"].tolist() == pytest.approx([(2 / 2) / (3 / 4), (2 / 2) / (2 / 3)])
    assert table["tiles"].tolist() == [2, 2]


def test_pairs_that_never_meet_have_no_value_and_no_limits() -> None:
    held = np.array([[True, False], [False, True]])
    table = co_appearance_gain(np.ones(2, bool), held, pd.Series([0, 1]), classes=["x", "y"], repeats=20, seed=0)
    assert table[["value", "low", "high"]].isna().all(axis=None)
    assert (table[["tiles", "units"]] == 0).all(axis=None)


def test_limits_are_those_of_copying_whole_blocks() -> None:
    rng = np.random.default_rng(0)
    n, units = 120, pd.Series(np.repeat(np.arange(12), 10))
    ratios = np.where(rng.random((n, 2)) < 0.7, rng.gamma(4, 0.25, size=(n, 2)), np.nan)
    row = coactivation(ratios, units, classes=["a", "b"], repeats=4000, seed=1).iloc[0]
    values = []
    for _ in range(2000):
        a, b = ratios.reshape(12, 10, 2)[rng.integers(0, 12, size=12)].reshape(n, 2).T
        values.append(np.nanmean(a[np.isfinite(b)]) / np.nanmean(a))
    # The standard error of a quantile of 2,000 draws is about .01 of the range of the draws.
    assert_allclose([row["low"], row["high"]], np.quantile(values, [0.025, 0.975]), atol=0.05 * np.ptp(values))


def test_mean_ratios_are_means_over_the_tiles_that_hold_a_class() -> None:
    table = mean_ratios(RATIOS, UNITS, classes=["a", "b", "c"], repeats=200, seed=0)
    assert tuple(table.columns) == CLASS_COLUMNS
    assert_allclose(table["value"], [2.0, 7 / 3, 1.0])
    assert table["tiles"].tolist() == [3, 3, 2]
    assert table["units"].tolist() == [2, 2, 2]
    # Only three samples of two blocks exist: both, or one of them twice.
    assert_allclose(table.loc[0, ["low", "high"]].astype(float), [2.0, 2.0])
    assert_allclose(table.loc[1, ["low", "high"]].astype(float), [2.0, 2.5])


def test_one_block_gives_values_without_limits() -> None:
    table = mean_ratios(RATIOS, pd.Series(["w"] * 4), classes=["a", "b", "c"], seed=0)
    assert table["value"].notna().all()
    assert table[["low", "high"]].isna().all(axis=None)
