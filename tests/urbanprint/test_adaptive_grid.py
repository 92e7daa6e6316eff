"""Cells of mixed levels: the tree by its definition, and one cell for every place on Earth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from urbanprint.adaptive_grid import Cells, adaptive_cells, make_cells
from urbanprint.errors import InputError
from urbanprint.grid import DEEPEST, all_codes, areas_km2, boxes, centres, encode, from_ids, parents, to_ids

SPHERE = Geod(a=6_371_000, b=6_371_000)


def _ids(cells: Cells) -> list[str]:
    return to_ids(cells.codes, cells.levels).tolist()


def _clustered(seed: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Images in towns of very different size, and a few anywhere."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(12, 0.5))
    town = rng.choice(12, images, p=share)
    x, y = rng.uniform(-180, 180, 12)[town] + rng.normal(0, 2, images), rng.uniform(-80, 80, 12)[town]
    anywhere = rng.random(images) < 0.1
    x, y = np.where(anywhere, rng.uniform(-180, 180, images), x), y + rng.normal(0, 2, images)
    return (x + 180) % 360 - 180, np.clip(y, -90, 90)


def _split(places: list[str], cell: str, *, most: int, least: int, deepest: int) -> list[str]:
    """The leaves within a cell, by the definition; `places` are the ids of the images at the deepest level."""
    within = [place for place in places if place.startswith(cell)]
    if cell and len(within) < least:
        return []
    level = len(cell.split("/")) if cell else 0
    if cell and (len(within) <= most or level == deepest):
        return [cell]
    quadrants = [f"{cell}/{digit}".lstrip("/") for digit in "0123"]
    return [leaf for each in quadrants for leaf in _split(within, each, most=most, least=least, deepest=deepest)]


def _owner(ids: list[str], place: str) -> str:
    """The cell a place belongs to, by the definition: climb until a cell is below, then the nearest centre."""
    digits = place.split("/")
    for level in reversed(range(len(digits) + 1)):
        here = "/".join(digits[:level])
        if here in ids:
            return here
        below = [each for each in ids if each.startswith(here)]
        if below:
            empty = "/".join(digits[: level + 1])
            distances = [_metres(empty, each) for each in below]
            return next(e for e, metres in zip(below, distances, strict=True) if metres <= min(distances) + 0.01)
    raise AssertionError("the Earth holds every cell")


def _metres(one: str, other: str) -> float:
    (lon, lat), (lon2, lat2) = (
        (float(x[0]), float(y[0])) for x, y in (centres(*from_ids([each])) for each in (one, other))
    )
    return float(SPHERE.inv(lon, lat, lon2, lat2)[2])


# --- adaptive cells ---


def test_a_town_gets_small_cells_and_the_country_large_ones() -> None:
    longitude, latitude = np.repeat([10.0, 100.0, -100.0], [9, 5, 4]), np.repeat([50.0, 50.0, -50.0], [9, 5, 4])
    cells = adaptive_cells(longitude, latitude, most=8, least=2, deepest=5)
    assert _ids(cells) == ["1/0/2/2/2", "1/1", "2"]
    assert np.bincount(cells.locate(longitude, latitude)).tolist() == [9, 5, 4]
    assert cells.levels.tolist() == [5, 2, 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(40, 400), st.integers(4, 60), st.data())
def test_the_cells_are_the_leaves_of_the_definition(seed: int, images: int, most: int, data: st.DataObject) -> None:
    least, deepest = data.draw(st.integers(1, min(most // 4 + 1, images // 4))), data.draw(st.integers(1, 6))
    longitude, latitude = _clustered(seed, images)
    cells = adaptive_cells(longitude, latitude, most=most, least=least, deepest=deepest)
    places = to_ids(encode(longitude, latitude, deepest), deepest).tolist()
    assert _ids(cells) == _split(places, "", most=most, least=least, deepest=deepest)


@pytest.mark.parametrize(("most", "least"), [(1000, 250), (1000, 50), (300, 1)])
def test_every_cell_holds_enough_and_only_the_deepest_too_many(most: int, least: int) -> None:
    longitude, latitude = _clustered(3, 20_000)
    cells = adaptive_cells(longitude, latitude, most=most, least=least, deepest=7)
    own = encode(longitude, latitude, DEEPEST)
    held = [(parents(own, DEEPEST, int(lv)) == code).sum() for code, lv in zip(cells.codes, cells.levels, strict=True)]
    assert min(held) >= least
    assert max(np.array(held)[cells.levels < 7]) <= most
    counts = np.bincount(cells.locate(longitude, latitude))
    assert (counts >= held).all() and counts.sum() == 20_000
    assert sum(held) == 20_000 if least == 1 else sum(held) < 20_000


def test_the_order_of_images_does_not_matter() -> None:
    longitude, latitude = _clustered(1, 3000)
    order = np.random.default_rng(0).permutation(3000)
    one = adaptive_cells(longitude, latitude, most=100, least=20, deepest=8)
    two = adaptive_cells(longitude[order], latitude[order], most=100, least=20, deepest=8)
    assert _ids(one) == _ids(two)


def test_more_images_at_one_position_than_a_cell_may_hold_end_at_the_deepest_level() -> None:
    cells = adaptive_cells(np.full(50, 2.35), np.full(50, 48.85), most=10, least=2, deepest=DEEPEST)
    assert cells.levels.tolist() == [DEEPEST]


def test_numbers_that_leave_no_cells_are_refused() -> None:
    longitude, latitude = _clustered(0, 40)
    for least in (0, 27):
        with pytest.raises(InputError, match=f"least = {least} with most = 100.*least can be 1 to 26"):
            adaptive_cells(longitude, latitude, most=100, least=least, deepest=5)
    with pytest.raises(InputError, match="3 images leave fewer than least = 2 in every quadrant"):
        adaptive_cells([-90.0, 90.0, 90.0], [45.0, 45.0, -45.0], most=10, least=2, deepest=5)
    with pytest.raises(InputError, match=r"Row 1 lies at longitude 10\.0, latitude nan"):
        adaptive_cells([10.0, 10.0], [0.0, np.nan], most=10, least=1, deepest=5)


# --- to which cell a place belongs ---


@pytest.mark.parametrize("level", [1, 3, 8])
def test_the_cells_of_one_level_are_the_fixed_grid(level: int) -> None:
    cells = make_cells(all_codes(level), level)
    longitude, latitude = _clustered(level, 5000)
    assert np.array_equal(cells.locate(longitude, latitude), encode(longitude, latitude, level))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_a_place_belongs_to_the_cell_of_the_definition(seed: int, most: int) -> None:
    longitude, latitude = _clustered(seed, 150)
    cells = adaptive_cells(longitude, latitude, most=most, least=max(1, most // 5), deepest=5)
    rng = np.random.default_rng(seed)
    longitude, latitude = (
        np.append(longitude[:20], rng.uniform(-180, 180, 20)),
        np.append(latitude[:20], np.linspace(-90, 90, 20)),
    )
    places = to_ids(encode(longitude, latitude, 6), 6)
    owners = [_ids(cells)[number] for number in cells.locate(longitude, latitude)]
    assert owners == [_owner(_ids(cells), place) for place in places]


def test_equally_near_cells_are_taken_in_morton_order() -> None:
    """From the centre of 0, those of 1 (over the pole) and 2 (along the meridian) are 90 degrees away."""
    cells = make_cells(np.array([2, 1]), 1)
    assert cells.locate([-90.0, -1.0, -1.0], [45.0, 89.0, 1.0]).tolist() == [0, 0, 0]


def test_the_nearest_is_told_apart_by_metres_at_the_deepest_level() -> None:
    """At the equator, cells of the deepest level are twice as wide as high."""
    corner = "1/" + "2/" * (DEEPEST - 2)
    cells = make_cells(*from_ids([corner + "1", corner + "2"]))
    empty = centres(*from_ids([corner + "0", corner + "3"]))
    assert cells.locate(*empty).tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_cells_and_empty_cells_together_cover_the_earth_once(seed: int) -> None:
    cells = adaptive_cells(*_clustered(seed, 4000), most=100, least=25, deepest=9)
    ends = np.append(cells.starts[1:], 4**DEEPEST)
    sides = np.log2(ends - cells.starts) / 2
    levels = (DEEPEST - sides).astype(int)
    assert np.array_equal(sides, DEEPEST - levels)  # every territory is a sum of whole cells
    codes = cells.starts >> 2 * (DEEPEST - levels)
    assert areas_km2(codes, levels).sum() == pytest.approx(510_065_621.724, rel=1e-12)
    assert set(cells.owners) == set(range(len(cells.codes)))
    assert np.array_equal(cells.locate(*centres(codes, levels)), cells.owners)
    assert np.array_equal(cells.locate(*centres(cells.codes, cells.levels)), np.arange(len(cells.codes)))
    west, south, _, _ = boxes(cells.codes, cells.levels).T
    assert np.array_equal(cells.locate(west, south), np.arange(len(cells.codes)))


def test_stored_ids_bring_the_same_cells_back() -> None:
    cells = adaptive_cells(*_clustered(4, 4000), most=100, least=20, deepest=8)
    again = make_cells(*from_ids(_ids(cells)[::-1]))
    assert _ids(again) == _ids(cells)
    everywhere = np.random.default_rng(0).uniform(-180, 180, 2000), np.random.default_rng(1).uniform(-90, 90, 2000)
    assert np.array_equal(again.locate(*everywhere), cells.locate(*everywhere))


def test_overlapping_cells_and_no_cells_are_refused() -> None:
    with pytest.raises(InputError, match="The cells 1 and 1/2/3 overlap"):
        make_cells(*from_ids(["2", "1/2/3", "1"]))
    with pytest.raises(InputError, match="The cells 0/1 and 0/1 overlap"):
        make_cells(np.array([1, 1]), 2)
    with pytest.raises(InputError, match="no cells"):
        make_cells(np.array([], dtype=int), 3)
