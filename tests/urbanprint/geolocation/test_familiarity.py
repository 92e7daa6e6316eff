"""How unlike an image is agrees with other libraries, is promised rightly, and tells drawings from photographs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from urbanprint.errors import InputError, MissingImages
from urbanprint.geolocation.datasets import cell_classes
from urbanprint.geolocation.familiarity import UNFAMILIAR, Familiarity, fit_familiarity
from urbanprint.geolocation.geolocator import Geolocator, fit_geolocator
from urbanprint.geolocation.network import GeolocationConfig
from urbanprint.geolocation.parts import deal_parts
from urbanprint.geolocation.sphere import FARTHEST_KM
from urbanprint.geolocation.training import train_classifier
from urbanprint.simulation.planet import build_planet
from urbanprint.simulation.planet_scenes import render_roadside
from urbanprint.simulation.scenes import jpeg


def features(images: int, *, seed: int, size: int = 8) -> np.ndarray:
    """Correlated features of various units."""
    mixing = np.random.default_rng(99).normal(size=(size, size))
    units = 10.0 ** np.linspace(-3, 3, size)
    return 5.0 + np.random.default_rng(seed).normal(size=(images, size)) @ mixing * units


# --- the distance and the share -------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [6, 40, 500])
def test_the_distance_is_that_of_mahalanobis_with_the_covariance_of_ledoit_and_wolf(images: int) -> None:
    training, calibration = features(images, seed=0), features(30, seed=1)
    spread = training.std(axis=0)
    covariance = LedoitWolf().fit((training - training.mean(axis=0)) / spread).covariance_ * np.outer(spread, spread)
    inverse, mean = np.linalg.inv(covariance), training.mean(axis=0)
    wanted = sorted(mahalanobis(row, mean, inverse) for row in calibration)
    np.testing.assert_allclose(fit_familiarity(training, calibration).distances, wanted, rtol=1e-3)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), calibration=st.integers(1, 30), digits=st.integers(0, 3))
def test_the_share_is_a_count_by_hand(seed: int, calibration: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    distances = np.sort(rng.exponential(size=calibration).round(digits))  # few digits: many ties
    asked = rng.exponential(size=9).round(digits)
    known = Familiarity(mean=np.zeros(1), whitening=np.eye(1), distances=distances)
    wanted = [(1 + sum(d >= one for d in distances)) / (1 + calibration) for one in asked]
    np.testing.assert_allclose(known.shares(asked[:, None]), wanted, rtol=1e-12)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), images=st.integers(2, 25), training=st.integers(2, 20), size=st.integers(1, 5))
def test_small_shares_are_as_rare_as_they_say(seed: int, images: int, training: int, size: int) -> None:
    """Exchangeable images take each other's places equally often: each in turn is asked about, the rest calibrate."""
    rng = np.random.default_rng(seed)
    known, others = rng.normal(size=(training, size)), rng.integers(-3, 4, (images, size)).astype(float)
    shares = np.array(
        [
            fit_familiarity(known, np.delete(others, number, axis=0)).shares(others[number : number + 1])[0]
            for number in range(images)
        ]
    )
    for share in shares:
        assert (shares <= share).mean() <= share + 1e-9


def test_shares_of_images_like_the_calibration_are_uniform() -> None:
    known = fit_familiarity(features(50, seed=2), features(2_000, seed=3))
    shares = known.shares(features(5_000, seed=4))
    levels = np.array([0.01, 0.1, 0.5, 0.9])
    np.testing.assert_allclose((shares[:, None] <= levels).mean(axis=0), levels, atol=0.03)
    assert known.unlike(shares).mean() == pytest.approx(UNFAMILIAR, abs=0.006)


def test_units_change_nothing() -> None:
    parts = [features(100, seed=seed) for seed in (5, 6)]
    units = np.geomspace(1e4, 1e-4, 8)
    known, other = fit_familiarity(*parts), fit_familiarity(*((part + 7.0) * units for part in parts))
    np.testing.assert_allclose(known.distances, other.distances, rtol=1e-6)


def test_a_relation_that_does_not_hold_is_unlike_though_each_feature_is_ordinary() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(400, 1))
    together = np.hstack([x, x + 0.1 * rng.normal(size=(400, 1))])
    known = fit_familiarity(together[:200], together[200:])
    assert known.unlike(known.shares(np.array([[1.0, 1.0], [1.0, -1.0]]))).tolist() == [False, True]


def test_a_feature_that_never_varied_is_no_obstacle_and_speaks_once_it_does() -> None:
    parts = [np.hstack([features(200, seed=seed), np.full((200, 1), 0.1)]) for seed in (8, 9)]
    known = fit_familiarity(*parts)
    alive = parts[1][:1] + np.eye(9)[8:]
    assert not known.unlike(known.shares(parts[1])).mean() > 0.02
    assert known.unlike(known.shares(alive)).all()


def test_fewer_images_than_features_are_enough() -> None:
    known = fit_familiarity(features(30, seed=10, size=200), features(150, seed=11, size=200))
    shares = known.shares(np.vstack([features(100, seed=12, size=200), 3.0 * features(5, seed=13, size=200)]))
    assert known.unlike(shares[:100]).mean() < 0.05
    assert known.unlike(shares[100:]).all()


@pytest.mark.parametrize(("calibration", "most"), [(1, 1 / 2), (48, 1 / 49), (99, 0.01), (1_000, 10 / 1_001)])
def test_unlike_is_a_share_of_a_hundredth_or_the_least_there_is(calibration: int, most: float) -> None:
    known = Familiarity(mean=np.zeros(1), whitening=np.eye(1), distances=np.arange(float(calibration)))
    possible = np.arange(1, calibration + 2) / (calibration + 1)
    assert possible[known.unlike(possible)].max() == pytest.approx(most)


def test_it_comes_back_from_its_tensors() -> None:
    known = fit_familiarity(features(50, seed=14), features(60, seed=15))
    again = Familiarity(**known.tensors())
    np.testing.assert_array_equal(again.shares(features(9, seed=16)), known.shares(features(9, seed=16)))
    assert known.shares(features(0, seed=16)).shape == (0,)


def test_features_that_are_none_are_refused() -> None:
    training, calibration = features(20, seed=17), features(20, seed=18)
    for few in ((training[:1], calibration), (training, calibration[:0])):
        with pytest.raises(MissingImages, match=f"{len(few[0])} training and {len(few[1])} calibration images"):
            fit_familiarity(*few)
    known = fit_familiarity(training, calibration)
    with pytest.raises(InputError, match=r"shape \(20, 7\) where \(images, 8\) is expected"):
        known.shares(training[:, :7])
    training[3, 2] = np.nan
    with pytest.raises(InputError, match="row 3 are not finite"):
        fit_familiarity(training, calibration)


# --- drawings and photographs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """Pictures of the simulated planet, two a drive: those that train, calibrate and test."""
    folder, built = tmp_path_factory.mktemp("planet"), build_planet(images=1_000)
    images = built.images[~built.images["is_pano"]].groupby("sequence_id").head(2).reset_index(drop=True)
    paths = [folder / f"{name}.jpg" for name in images["image_id"]]
    for name, path in zip(images["image_id"], paths, strict=True):
        path.write_bytes(jpeg(render_roadside(built.view(name), width=64, height=48)))
    images = images[["image_id", "sequence_id", "longitude", "latitude"]].assign(path=[str(path) for path in paths])
    dealt = deal_parts(images, seed=0, shares={"train": 0.5, "calibration": 0.3, "test": 0.2})
    return {str(name): part for name, part in images.groupby(dealt.to_numpy())}


@pytest.fixture(scope="module")
def geolocator(
    planet: dict[str, pd.DataFrame], config: GeolocationConfig, tmp_path_factory: pytest.TempPathFactory
) -> Geolocator:
    """A system that has seen nothing but drawings of the planet."""
    hierarchy = cell_classes(planet["train"], levels=(1, 3), least=5)
    model = train_classifier(
        planet["train"],
        hierarchy,
        design="joint",
        config=replace(config, size=48, epochs=2),
        checkpoint=tmp_path_factory.mktemp("planet-model") / "joint.pt",
    )
    return fit_geolocator([model], training=planet["train"], calibration=planet["calibration"])


def white_noise(rng: np.random.Generator) -> np.ndarray:
    return rng.random((48, 64, 3))


def like_a_photograph(rng: np.random.Generator) -> np.ndarray:
    """Amplitudes fall as 1 / frequency, as in photographs (Field 1987), and the channels are much alike."""
    frequency = np.hypot(np.fft.fftfreq(48)[:, None], np.fft.fftfreq(64))
    noise = np.fft.fft2(rng.normal(size=(4, 48, 64))) / np.maximum(frequency, 1 / 64)
    texture = np.fft.ifft2(noise).real
    grey = texture[3] + 0.3 * texture[:3]
    return np.moveaxis(0.5 + 0.2 * (grey - grey.mean()) / grey.std(), 0, 2)


def gradient(rng: np.random.Generator) -> np.ndarray:
    corners = rng.random((2, 2, 3))
    y, x = np.linspace(0, 1, 48)[:, None, None], np.linspace(0, 1, 64)[:, None]
    return (1 - y) * ((1 - x) * corners[0, 0] + x * corners[0, 1]) + y * ((1 - x) * corners[1, 0] + x * corners[1, 1])


@pytest.mark.parametrize("draw", [white_noise, like_a_photograph, gradient])
def test_pictures_of_another_style_get_the_whole_earth(
    geolocator: Geolocator, tmp_path: Path, draw: Callable[[np.random.Generator], np.ndarray]
) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for path in paths:
        Image.fromarray((255 * draw(rng).clip(0, 1)).astype(np.uint8)).save(path)
    for answer in geolocator.locate(paths):
        assert answer.familiar < UNFAMILIAR
        assert (answer.sure.cell, answer.cells_level, answer.radius_km) == ("the Earth", 1, FARTHEST_KM)
        assert len(answer.cells) == len(geolocator.hierarchy.levels[0])


def test_other_pictures_of_the_planet_are_familiar(geolocator: Geolocator, planet: dict[str, pd.DataFrame]) -> None:
    seen = geolocator.read([Path(path) for path in planet["test"]["path"]])
    assert (seen.familiar >= UNFAMILIAR).mean() > 0.9
    assert np.median(seen.familiar) == pytest.approx(0.5, abs=0.15)
    widened = [answer.widened for answer in geolocator.answers(seen)]
    assert widened == (seen.familiar <= UNFAMILIAR).tolist()
