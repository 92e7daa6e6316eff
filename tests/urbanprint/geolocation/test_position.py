"""From cells to a point: closed forms on the sphere, across the antimeridian and over the poles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urbanprint.errors import InputError
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.position import NEAR_KM, Circles, answer_positions, peak_position, positions
from urbanprint.geolocation.prediction_sets import confident_cells
from urbanprint.geolocation.probabilities import joint
from urbanprint.geolocation.sphere import EARTH_KM, FARTHEST_KM, haversine_km

DEGREE_KM = np.pi * EARTH_KM / 180
PULL = 1 / (1 + np.exp(-0.2 * DEGREE_KM / NEAR_KM))  # of the peak, where a place 0.2 degrees away is as likely


def circles(*places: tuple[float, float], radius_km: float = 0.0) -> Circles:
    longitude, latitude = np.array(places, dtype=float).T
    return Circles(longitude=longitude, latitude=latitude, radius_km=np.full(len(places), radius_km))


def mean(weights: list[float], cells: Circles, *, share: float = 0.9) -> tuple[float, float, float]:
    with np.errstate(divide="ignore"):
        found = peak_position(np.log([weights]), cells, share=share)
    return float(found.longitude[0]), float(found.latitude[0]), float(found.radius_km[0])


def test_near_places_pull_the_position_and_far_ones_do_not() -> None:
    assert mean([0.5, 0.5], circles((10, 0), (10.2, 0)))[:2] == pytest.approx((10.2 - 0.2 * PULL, 0), abs=1e-4)
    assert mean([0.4, 0.6], circles((10, 20), (10, 60)))[:2] == pytest.approx((10, 60))  # too far apart for a mean


def test_the_mean_across_the_antimeridian_is_there_and_not_at_greenwich() -> None:
    longitude, latitude, radius_km = mean([0.2, 0.2, 0.6], circles((179.9, 0), (-179.9, 0), (180, 0)))
    assert (abs(longitude), latitude) == pytest.approx((180, 0))
    assert radius_km == pytest.approx(0.1 * DEGREE_KM)


def test_the_mean_of_places_around_a_pole_is_the_pole() -> None:
    _, latitude, radius_km = mean([0.2] * 5, circles((0, 89), (90, 89), (180, 89), (-90, 89), (0, 90)))
    assert latitude == pytest.approx(90)
    assert radius_km == pytest.approx(DEGREE_KM)


def test_many_places_near_each_other_outweigh_the_likeliest_alone() -> None:
    cells = circles((100, 0), (0, 0), (0.1, 0), (-0.1, 0))
    longitude, latitude, _ = mean([0.4, 0.2, 0.2, 0.2], cells)
    assert (longitude, latitude) == pytest.approx((0, 0))


def test_antipodes_of_equal_probability_answer_the_first_and_say_that_it_may_be_the_other() -> None:
    longitude, latitude, radius_km = mean([0.5, 0.5], circles((25, 40), (-155, -40)))
    assert (longitude, latitude) == pytest.approx((25, 40))
    assert radius_km == pytest.approx(FARTHEST_KM)


def test_the_radius_holds_the_share_asked_for() -> None:
    """From the mean at 0 E, 80 % lies within 1 degree, the rest at 40: the radius jumps at 80 %."""
    cells = circles((-1, 0), (0, 0), (1, 0), (-40, 0), (40, 0))
    weights = [0.2, 0.4, 0.2, 0.1, 0.1]
    assert mean(weights, cells, share=0.8)[2] == pytest.approx(DEGREE_KM, rel=1e-6)
    assert mean(weights, cells, share=0.81)[2] == pytest.approx(40 * DEGREE_KM)


def test_a_share_that_is_met_but_for_rounding_is_met() -> None:
    """0.7 + 0.1 is 0.7999999999999999."""
    assert mean([0.7, 0.1, 0.1, 0.1], circles((0, 0), (0, 1), (-40, 0), (40, 0)), share=0.8)[2] < 2 * DEGREE_KM


def test_a_certain_cell_answers_its_own_circle() -> None:
    longitude, latitude, radius_km = mean([0.0, 1.0], circles((5, 5), (100, 50), radius_km=70.0))
    assert (longitude, latitude) == pytest.approx((100, 50))
    assert radius_km == pytest.approx(70, abs=0.001)


def test_no_radius_is_larger_than_the_earth() -> None:
    assert mean([0.5, 0.5], circles((0, 0), (180, 0), radius_km=500.0))[2] == FARTHEST_KM


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), cells=st.integers(1, 40), share=st.floats(0.05, 0.99))
def test_mean_and_radius_equal_a_slow_calculation(seed: int, cells: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-20, 20, cells), rng.uniform(70, 90, cells)
    ground = Circles(longitude=x, latitude=y, radius_km=rng.uniform(0, 300, cells))
    p = rng.dirichlet(np.full(cells, 0.3)) + 1e-12
    p /= p.sum()
    found = peak_position(np.log(p[None]), ground, share=share)
    km = np.array([haversine_km(x[cell], y[cell], x, y) for cell in range(cells)])
    near = np.where(km <= 5 * NEAR_KM, np.exp(-km / NEAR_KM), 0.0)
    peak = max(range(cells), key=lambda cell: sum(p * near[cell]))
    vector = np.zeros(3)
    for weight, a, b in zip(p * near[peak], np.radians(x), np.radians(y), strict=True):
        vector += weight * np.array([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)])
    vector /= np.linalg.norm(vector)
    expected = np.degrees([np.arctan2(vector[1], vector[0]), np.arcsin(vector[2])])
    assert haversine_km(found.longitude[0], found.latitude[0], *expected) == pytest.approx(0, abs=0.01)
    reach = haversine_km(*expected, x, y) + ground.radius_km
    held, radius = 0.0, 0.0
    for cell in np.argsort(reach):
        if held >= share - 1e-12:
            break
        held, radius = held + p[cell], reach[cell]
    assert found.radius_km[0] == pytest.approx(min(radius, FARTHEST_KM), abs=0.01)


def small() -> tuple[Hierarchy, list[Circles]]:
    """Two L1 cells; the first holds two of L2, the second stands for itself."""
    tree = Hierarchy.from_levels({1: np.array([0, 1]), 2: np.array([0, 1])})
    coarse = circles((-90, 45), (90, 45), radius_km=6000.0)
    return tree, [coarse, circles((-135, 67.5), (-45, 67.5), (90, 45), radius_km=3000.0)]


def test_an_answer_is_the_circle_of_its_cell_and_the_whole_earth_has_no_middle() -> None:
    tree, cells = small()
    answers = confident_cells(joint(np.log([[0.96, 0.02, 0.02], [0.5, 0.45, 0.05], [0.3, 0.3, 0.4]]), tree), tree)
    found = answer_positions(answers, cells)
    np.testing.assert_allclose(found.longitude, [-135, -90, np.nan])
    np.testing.assert_allclose(found.latitude, [67.5, 45, np.nan])
    np.testing.assert_allclose(found.radius_km, [3000, 6000, FARTHEST_KM])


def test_positions_are_taken_at_the_finest_level_allowed() -> None:
    tree, cells = small()
    probabilities = joint(np.log([[0.9, 0.05, 0.05]]), tree)
    for cap, level in ((None, 1), (2, 1), (1, 0)):
        found = positions(probabilities, cells, tree, finest=cap)
        expected = peak_position(probabilities[level], cells[level])
        for name in ("longitude", "latitude", "radius_km"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_share_is_below_one() -> None:
    with pytest.raises(InputError, match="share = 1"):
        mean([1.0], circles((0, 0)), share=1)
