"""What is answered without a geolocation model, against brute force and second libraries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.neighbors import NearestNeighbors

from urbanprint.errors import InputError, MissingImages
from urbanprint.geolocation import baselines
from urbanprint.geolocation.baselines import geometric_median, nearest_neighbour, prior
from urbanprint.geolocation.sphere import haversine_km


def test_the_prior_is_the_share_of_training_images() -> None:
    np.testing.assert_allclose(np.exp(prior(np.array([2, 0, 2, 2, -1]), 4)), [0.25, 0, 0.75, 0])
    assert prior(np.array([2, 0, 2, 2, -1]), 4).argmax() == 2


def test_no_training_images_are_said() -> None:
    with pytest.raises(MissingImages, match="0 of 1 training images lie in a class"):
        prior(np.array([-1]), 4)
    with pytest.raises(MissingImages, match="0 training images"):
        geometric_median(np.array([]), np.array([]))
    with pytest.raises(MissingImages, match="0 training images"):
        nearest_neighbour(np.zeros((0, 3)), np.ones((2, 3)))


# --- geometric median -----------------------------------------------------------------------------------------------


def off_km(found: tuple[float, float], longitude: float, latitude: float) -> float:
    return float(haversine_km(*found, longitude, latitude))


def test_the_median_of_a_symmetric_cross_is_its_middle_also_on_the_antimeridian_and_at_a_pole() -> None:
    assert off_km(geometric_median(np.array([9, 11, 10, 10]), np.array([0, 0, -1, 1])), 10, 0) < 0.01
    assert off_km(geometric_median(np.array([179, -179, 180, -180]), np.array([0, 0, -1, 1])), 180, 0) < 0.01
    assert off_km(geometric_median(np.array([0, 90, 180, -90]), np.full(4, 70.0)), 0, 90) < 0.01


def test_the_place_of_more_than_half_of_the_images_is_the_median() -> None:
    longitude, latitude = np.array([5.0] * 6 + [100, -60, 170, 20, 80]), np.array([50.0] * 6 + [10, -30, 60, 0, -80])
    assert off_km(geometric_median(longitude, latitude), 5, 50) < 0.01


def test_outliers_do_not_drag_it_away() -> None:
    rng = np.random.default_rng(0)
    x, y = np.append(rng.normal(10, 1, 90), np.full(10, 150.0)), np.append(rng.normal(45, 1, 90), np.full(10, -30.0))
    assert off_km(geometric_median(x, y), 10, 45) < 60


def test_one_image_is_its_own_median() -> None:
    assert off_km(geometric_median(np.array([-70.0]), np.array([-33.0])), -70, -33) < 0.01


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), images=st.integers(3, 30))
def test_no_direct_search_from_the_median_or_an_image_nearby_finds_a_better_point(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    centre = rng.uniform([-180, -90], [180, 90])
    x, y = (
        ((centre[0] + rng.normal(0, 15, images) + 180) % 360) - 180,
        np.clip(centre[1] + rng.normal(0, 15, images), -90, 90),
    )

    def mean_km(place: np.ndarray) -> float:
        return float(haversine_km(place[0], place[1], x, y).mean())

    found = np.array(geometric_median(x, y))
    for start in (found, np.array([x[0], y[0]])):
        assert mean_km(found) <= minimize(mean_km, start, method="Nelder-Mead").fun + 0.01


# --- nearest neighbour ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 500, 1 << 24])
def test_neighbours_equal_those_of_a_second_library_whatever_the_block(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "_BLOCK", block)
    rng = np.random.default_rng(1)
    training, features = rng.normal(size=(150, 8)) * rng.uniform(0.1, 9, (150, 1)), rng.normal(size=(40, 8))
    nearest, similarity = nearest_neighbour(training, features)
    distance, expected = NearestNeighbors(n_neighbors=1, metric="cosine").fit(training).kneighbors(features)
    assert nearest.tolist() == expected[:, 0].tolist()
    np.testing.assert_allclose(similarity, 1 - distance[:, 0], atol=1e-6)


def test_among_equals_the_first_training_image_is_taken() -> None:
    nearest, similarity = nearest_neighbour(np.array([[0.0, 1.0], [2.0, 0.0], [5.0, 0.0]]), np.array([[1.0, 0.0]]))
    assert nearest.tolist() == [1]
    assert similarity.tolist() == [1.0]


def test_features_without_a_direction_are_named() -> None:
    with pytest.raises(InputError, match="The training features of row 1 are all 0 or not finite"):
        nearest_neighbour(np.array([[1.0], [0.0]]), np.array([[1.0]]))
    with pytest.raises(InputError, match="The image features of row 0"):
        nearest_neighbour(np.array([[1.0]]), np.array([[np.nan]]))
