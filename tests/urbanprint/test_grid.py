"""The recursive world grid: one exact cell for every place, and cells that fit into each other."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyproj import Geod

from urbanprint.errors import InputError
from urbanprint.grid import (
    DEEPEST,
    LEVELS,
    all_codes,
    areas_km2,
    boxes,
    centres,
    children,
    encode,
    from_ids,
    from_key,
    neighbours,
    parents,
    to_ids,
    to_key,
)

EARTH_KM2 = 510_065_621.724  # the surface of the WGS 84 ellipsoid
LEVEL = st.integers(1, DEEPEST)


def _edge(level: int, step: int, side: int) -> float:
    """An edge between columns of a level, or the number just west or just east of it."""
    edge = float(Fraction(360 * (step % 2**level), 2**level) - 180)
    return float(np.nextafter(edge, side * np.inf)) if side else edge


EDGES = st.builds(_edge, st.integers(1, DEEPEST), st.integers(0, 2**DEEPEST), st.sampled_from([-1, 0, 1]))
LONGITUDE = st.one_of(st.floats(-180, 180), EDGES.filter(lambda edge: -180 <= edge <= 180))
LATITUDE = st.one_of(st.floats(-90, 90), EDGES.map(lambda edge: edge / 2).filter(lambda edge: -90 <= edge <= 90))


def _descended(longitude: float, latitude: float, level: int) -> str:
    """The id, by halving the world in exact fractions."""
    x, y = Fraction(-180 if longitude == 180 else longitude), Fraction(latitude)
    west, south, width, height = Fraction(-180), Fraction(-90), Fraction(360), Fraction(180)
    digits = []
    for _ in range(level):
        width, height = width / 2, height / 2
        east, north = x >= west + width, y >= south + height
        west, south = west + east * width, south + north * height
        digits.append({(True, False): "0", (True, True): "1", (False, False): "2", (False, True): "3"}[north, east])
    return "/".join(digits)


def _id(longitude: float, latitude: float, level: int) -> str:
    return str(to_ids(encode(np.array([longitude]), np.array([latitude]), level), level)[0])


# --- the cell of a place ---


@pytest.mark.parametrize(
    ("longitude", "latitude", "cell"),
    [
        (-90.0, 45.0, "0/1/2"),
        (90.0, 45.0, "1/1/2"),
        (-90.0, -45.0, "2/1/2"),
        (90.0, -45.0, "3/1/2"),
        (-0.1276, 51.5072, "0/1/3/3"),  # London
        (2.3522, 48.8566, "1/0/2/2"),  # Paris
        (151.2093, -33.8688, "3/1/3/2"),  # Sydney
        (0.0, 0.0, "1/2/2/2"),  # on both edges: the cell to the north-east
        (-180.0, 90.0, "0/0/0/0"),
        (180.0, 90.0, "0/0/0/0"),
        (-180.0, -90.0, "2/2/2/2"),
        (180.0, -90.0, "2/2/2/2"),
        (180.0, 0.0, "0/2/2/2"),
    ],
)
def test_known_places_have_known_cells(longitude: float, latitude: float, cell: str) -> None:
    assert _id(longitude, latitude, len(cell.split("/"))) == cell


@settings(max_examples=500, deadline=None)
@given(LONGITUDE, LATITUDE, LEVEL)
@example(np.nextafter(0, -1), np.nextafter(0, -1), 8)
@example(np.nextafter(180, 0), np.nextafter(90, 0), 24)
def test_a_place_lies_where_exact_halving_puts_it(longitude: float, latitude: float, level: int) -> None:
    assert _id(longitude, latitude, level) == _descended(longitude, latitude, level)


@pytest.mark.parametrize("level", [1, 3, 8, 17, DEEPEST])
def test_a_million_points_lie_in_the_boxes_of_their_cells(level: int) -> None:
    rng = np.random.default_rng(level)
    longitude, latitude = rng.uniform(-180, 180, 1_000_000), rng.uniform(-90, 90, 1_000_000)
    longitude[:400], latitude[:400] = np.tile([-180.0, 180.0, 0.0, 90.0], 100), np.repeat([-90.0, 90.0, 0.0, 45.0], 100)
    west, south, east, north = boxes(encode(longitude, latitude, level), level).T
    longitude[longitude == 180] = -180
    assert ((west <= longitude) & (longitude < east)).all()
    assert ((south <= latitude) & ((latitude < north) | (latitude == 90) & (north == 90))).all()


@settings(max_examples=100, deadline=None)
@given(LEVEL, st.data())
def test_the_middle_and_the_south_western_corner_of_a_cell_lie_in_it(level: int, data: st.DataObject) -> None:
    codes = np.array([data.draw(st.integers(0, 4**level - 1))])
    west, south, _, _ = boxes(codes, level).T
    assert encode(*centres(codes, level), level) == codes == encode(west, south, level)


def test_points_are_taken_as_lists_series_and_single_precision() -> None:
    longitude, latitude = np.array([2.5, -120.25], dtype=np.float32), np.array([48.5, 30.0], dtype=np.float32)
    assert encode(longitude, latitude, 8).tolist() == encode([2.5, -120.25], [48.5, 30.0], 8).tolist()
    assert encode([], [], 8).dtype == np.int64


@pytest.mark.parametrize("place", [(np.nan, 0.0), (0.0, np.nan), (180.0000001, 0.0), (-np.inf, 0.0), (0.0, 90.5)])
def test_a_position_that_is_none_is_refused_by_its_row(place: tuple[float, float]) -> None:
    longitude, latitude = np.zeros(40_000), np.zeros(40_000)
    longitude[[33_333, 35_000]], latitude[[33_333, 35_000]] = place
    with pytest.raises(InputError, match=f"Row 33333 lies at longitude {place[0]}, latitude {place[1]}: expected"):
        encode(longitude, latitude, 8)


def test_lists_of_two_lengths_and_levels_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2,\) and latitudes of shape \(1,\)"):
        encode([0.0, 1.0], [0.0], 3)
    for level in (0, DEEPEST + 1):
        with pytest.raises(InputError, match=f"no such level as {level}"):
            encode([0.0], [0.0], level)
    with pytest.raises(InputError, match=r"Code 16 in row 1 is no cell of L2, which has 0 to 15"):
        boxes(np.array([15, 16]), 2)


# --- boxes, parents, children ---


@pytest.mark.parametrize("level", [1, 3, 5])
def test_box_edges_are_exact_fractions_of_the_world(level: int) -> None:
    for code, box in zip(all_codes(level), boxes(all_codes(level), level), strict=True):
        west, north, side = Fraction(-180), Fraction(90), Fraction(180)
        for digit in (int(code) >> 2 * (level - 1 - place) & 3 for place in range(level)):
            side /= 2
            west, north = west + (digit % 2) * 2 * side, north - (digit // 2) * side
        assert [Fraction(edge) for edge in box] == [west, north - side, west + 2 * side, north]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, DEEPEST - 1), st.data())
def test_children_tile_their_parent_exactly(level: int, data: st.DataObject) -> None:
    code = np.array([data.draw(st.integers(0, 4**level - 1))])
    (west, south, east, north), ((x, y),) = boxes(code, level)[0], np.column_stack(centres(code, level))
    quadrants = [[west, y, x, north], [x, y, east, north], [west, south, x, y], [x, south, east, y]]  # NW NE SW SE
    assert boxes(children(code)[0], level + 1).tolist() == quadrants
    assert parents(children(code)[0], level + 1, level).tolist() == [code[0]] * 4


def test_all_cells_of_a_level_are_the_descendants_of_the_quadrants() -> None:
    for level in LEVELS:
        assert len(all_codes(level)) == 4**level
        assert children(all_codes(1), level - 1).ravel().tolist() == all_codes(level).tolist()


@settings(max_examples=100, deadline=None)
@given(LONGITUDE, LATITUDE, LEVEL, LEVEL)
def test_the_parent_of_a_places_cell_is_the_places_cell_above(x: float, y: float, one: int, two: int) -> None:
    deep, shallow = max(one, two), min(one, two)
    assert parents(encode([x], [y], deep), deep, shallow) == encode([x], [y], shallow)


def test_cells_of_mixed_levels_are_handled_at_once() -> None:
    codes, levels = np.array([3, 7, 255]), np.array([1, 2, 4])
    assert to_ids(codes, levels).tolist() == ["3", "1/3", "3/3/3/3"]
    assert parents(codes, levels, 1).tolist() == parents(codes, levels, np.array([1, 1, 1])).tolist() == [3, 1, 3]
    for function in (boxes, neighbours, areas_km2):
        each = [function(codes[row : row + 1], int(levels[row]))[0] for row in range(3)]
        assert np.array_equal(function(codes, levels), each)
    with pytest.raises(InputError, match="row 0 is of L1 and has no parent at L2"):
        parents(codes, levels, 2)


# --- ids ---


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from("0123"), min_size=1, max_size=DEEPEST).map("/".join), max_size=20))
def test_ids_come_back_whatever_their_levels(ids: list[str]) -> None:
    codes, levels = from_ids(ids)
    assert to_ids(codes, levels).tolist() == ids
    assert levels.tolist() == [len(each.split("/")) for each in ids]
    assert codes.tolist() == [int(each.replace("/", ""), base=4) for each in ids]
    assert [from_key(to_key(each)) for each in ids] == ids


def test_sorted_ids_stand_in_the_order_of_codes() -> None:
    ids = to_ids(all_codes(5), 5)
    assert ids.tolist() == sorted(ids.tolist())
    assert to_key("0/1/2/3") == "0-1-2-3"


@pytest.mark.parametrize(
    "text", ["", "/", "0/", "/0", "4", "0/4", "01", "0-1", "0//1", "0 1", "0/1 2", "L1", "/".join("0" * 25), "é"]
)
def test_a_text_that_is_no_id_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match=f"^{text!r} is no cell"):
        from_ids(["0/1", text, "x"])


# --- sizes and neighbours ---


@pytest.mark.parametrize("level", [1, 3, 5, 8, 9])
def test_areas_of_a_level_sum_to_the_earths(level: int) -> None:
    assert areas_km2(all_codes(level), level).sum() == pytest.approx(EARTH_KM2, rel=1e-12)


@pytest.mark.parametrize(("longitude", "latitude"), [(0.0, 89.9), (10.0, 60.0), (-170.0, 0.1), (100.0, -33.0)])
@pytest.mark.parametrize("level", [1, 3, 5, 8, 14])
def test_areas_equal_those_of_geodesic_polygons(longitude: float, latitude: float, level: int) -> None:
    codes = encode([longitude], [latitude], level)
    ((west, south, east, north),) = boxes(codes, level)
    along = np.linspace(west, east, 20_000)  # a geodesic leaves the parallel between its ends
    area, _ = Geod(ellps="WGS84").polygon_area_perimeter(
        [*along, *along[::-1]], [*np.full_like(along, south), *np.full_like(along, north)]
    )
    assert areas_km2(codes, level)[0] == pytest.approx(area / 1e6, rel=1e-6)


@pytest.mark.parametrize("level", [1, 2, 3, 6])
def test_neighbours_are_neighbours_of_each_other(level: int) -> None:
    around = neighbours(all_codes(level), level)
    pairs = {(code, other) for code, row in enumerate(around.tolist()) for other in row}
    assert pairs == {(other, code) for code, other in pairs}


@pytest.mark.parametrize("level", [3, 8])
def test_neighbours_are_the_cells_one_step_away_clockwise_from_the_north(level: int) -> None:
    codes = all_codes(level)
    longitude, latitude = centres(codes, level)
    for place, (north, east) in enumerate([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]):
        x, y = longitude + east * 360 / 2**level, latitude + north * 180 / 2**level
        beyond = np.abs(y) > 90  # over the pole: down on the opposite meridian
        x, y = np.where(beyond, x + 180, x), np.where(beyond, np.sign(y) * 180 - y, y)
        assert np.array_equal(neighbours(codes, level)[:, place], encode((x + 180) % 360 - 180, y, level))


def test_neighbours_beyond_the_antimeridian_and_the_pole() -> None:
    codes, _ = from_ids(["0/0/0"])
    assert to_ids(neighbours(codes, 3)[0], 3).tolist() == [
        *("1/0/0", "1/0/1"),  # north, north-east
        *("0/0/1", "0/0/3", "0/0/2"),  # east, south-east, south
        *("1/1/3", "1/1/1", "0/1/1"),  # south-west, west, north-west
    ]
