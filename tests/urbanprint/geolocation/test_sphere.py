"""Distances on the sphere, against the geodesic of a second library and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from urbanprint.geolocation.sphere import EARTH_KM, FARTHEST_KM, distances_km, haversine_km, to_degrees, unit_vectors

POINT = st.tuples(st.floats(-180, 180), st.floats(-90, 90))


def random_points(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-180, 180, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))


def test_haversine_equals_the_geodesic_on_a_sphere_of_the_same_radius() -> None:
    (x, y), (other_x, other_y) = random_points(2000, 0), random_points(2000, 1)
    metres = Geod(a=EARTH_KM * 1000, b=EARTH_KM * 1000).inv(x, y, other_x, other_y)[2]
    np.testing.assert_allclose(haversine_km(x, y, other_x, other_y), metres / 1000, rtol=1e-9, atol=1e-6)


def test_haversine_is_within_0_56_percent_of_the_ellipsoid() -> None:
    (x, y), (other_x, other_y) = random_points(20_000, 2), random_points(20_000, 3)
    x, y = np.append(x, [0, 0]), np.append(y, [0, 89.5])  # along the equator, and near the pole: the extremes
    other_x, other_y = np.append(other_x, [0.1, 0]), np.append(other_y, [0, 90])
    km = Geod(ellps="WGS84").inv(x, y, other_x, other_y)[2] / 1000
    off = np.abs(haversine_km(x, y, other_x, other_y) / km - 1)
    assert 0.004 < off.max() < 0.0056


@settings(deadline=None)
@given(a=POINT, b=POINT)
def test_distances_are_symmetric_bounded_and_nought_only_at_the_point(
    a: tuple[float, float], b: tuple[float, float]
) -> None:
    there, back = haversine_km(*a, *b), haversine_km(*b, *a)
    assert there == pytest.approx(back, abs=1e-9)
    assert 0.0 <= there <= FARTHEST_KM * (1 + 1e-12)
    assert haversine_km(*a, *a) == 0.0


def test_the_antimeridian_and_the_poles_are_no_border() -> None:
    degree = np.pi * EARTH_KM / 180
    assert haversine_km(179.5, 0.0, -179.5, 0.0) == pytest.approx(degree)
    assert haversine_km(-180.0, 10.0, 180.0, 10.0) == pytest.approx(0.0, abs=1e-9)
    assert haversine_km(0.0, 89.5, 180.0, 89.5) == pytest.approx(degree)
    assert haversine_km(0.0, 0.0, 180.0, 0.0) == pytest.approx(FARTHEST_KM)


@settings(deadline=None)
@given(a=POINT, east=st.floats(-1e-3, 1e-3), north=st.floats(-1e-3, 1e-3))
def test_the_matrix_of_distances_keeps_a_third_of_a_metre(a: tuple[float, float], east: float, north: float) -> None:
    b = (a[0] + east, float(np.clip(a[1] + north, -90, 90)))
    found = distances_km(unit_vectors(*np.array([a]).T), unit_vectors(*np.array([b]).T))
    assert found[0, 0] == pytest.approx(haversine_km(*a, *b), abs=0.3e-3)


@settings(deadline=None)
@given(point=POINT, length=st.floats(0.01, 100))
def test_vectors_of_any_length_come_back_as_degrees(point: tuple[float, float], length: float) -> None:
    longitude, latitude = to_degrees(length * unit_vectors(*point))
    assert haversine_km(longitude, latitude, *point) == pytest.approx(0.0, abs=1e-6)
