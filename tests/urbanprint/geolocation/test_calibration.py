"""A temperature planted in each level of a hierarchy is found again."""

import numpy as np
import pytest

from urbanprint.errors import MissingImages
from urbanprint.evaluation.calibration import expected_calibration_error, fit_temperature, top_confidence
from urbanprint.geolocation.calibration import fit_temperatures
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.probabilities import conditional, joint


def drawn(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A class of each row, drawn with its probabilities."""
    return (rng.random((len(probabilities), 1)) > probabilities.cumsum(axis=1)).sum(axis=1)


def tree() -> Hierarchy:
    """4 cells of L1, 6 in each at L3, and of those every other divided into 3 at L4."""
    coarse = np.arange(4)
    middle = (coarse[:, None] * 16 + np.arange(6)).ravel()
    return Hierarchy.from_levels({1: coarse, 3: middle, 4: (middle[::2, None] * 4 + np.arange(3)).ravel()})


def calibrated(images: int, seed: int) -> tuple[Hierarchy, list[np.ndarray], np.ndarray]:
    """Logits a level, and leaves drawn with the probabilities that they stand for."""
    rng = np.random.default_rng(seed)
    cells = tree()
    logits = [1.5 * rng.normal(size=(images, len(level))) for level in cells.levels]
    return cells, logits, cells.ancestors(drawn(np.exp(conditional(logits, cells)[-1]), rng))


def test_each_level_gets_the_temperature_planted_in_it() -> None:
    cells, logits, labels = calibrated(8000, seed=1)
    planted = (2.0, 0.6, 4.0)
    overconfident = [values * t for values, t in zip(logits, planted, strict=True)]
    assert fit_temperatures(overconfident, labels, cells) == pytest.approx(planted, rel=0.08)


def test_temperatures_fitted_level_by_level_are_the_best_of_the_leaves_together() -> None:
    cells, logits, labels = calibrated(400, seed=2)
    fitted = np.array(fit_temperatures(logits, labels, cells))

    def loss(temperatures: np.ndarray) -> float:
        return -conditional(logits, cells, temperatures=temperatures.tolist())[-1][np.arange(400), labels[:, -1]].mean()

    for change in np.vstack([np.eye(3), -np.eye(3), np.ones((1, 3))]) * 0.01:
        assert loss(fitted * (1 + change)) > loss(fitted)


def test_a_leaf_classifier_gets_one_temperature_or_one_a_level() -> None:
    """Leaves sharpened by 2 need a temperature of 2; taken apart into steps, one a level serves them nearly as well."""
    cells, logits, labels = calibrated(4000, seed=3)
    leaves = 2.0 * conditional(logits, cells)[-1]
    once = fit_temperature(leaves, labels[:, -1])
    assert once == pytest.approx(2.0, rel=0.05)
    sharpened = joint(leaves, cells)
    split = conditional(sharpened, cells, temperatures=fit_temperatures(sharpened, labels, cells))
    true = (np.arange(4000), labels[:, -1])
    before, plain, apart = (
        found[-1][true].mean() for found in (sharpened, joint(leaves, cells, temperature=once), split)
    )
    assert plain > before + 0.1
    assert apart == pytest.approx(plain, abs=0.02)


def test_images_in_no_class_say_nothing() -> None:
    cells, logits, labels = calibrated(500, seed=4)
    more = [np.vstack([values, np.full((3, values.shape[1]), 9.0) * [[1], [2], [3]]]) for values in logits]
    unlabelled = np.vstack([labels, np.full((3, 3), -1)])
    assert fit_temperatures(more, unlabelled, cells) == fit_temperatures(logits, labels, cells)
    assert fit_temperature(more[0], unlabelled[:, 0]) == fit_temperature(logits[0], labels[:, 0])


def test_a_level_without_siblings_has_nothing_to_fit() -> None:
    chain = Hierarchy.from_levels({1: np.array([0, 1]), 2: np.array([0, 4])})
    logits = [np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.zeros((3, 2))]
    assert fit_temperatures(logits, np.array([[0, 0], [0, 0], [0, 0]]), chain)[1] == 1.0


def test_no_images_to_calibrate_on_is_said() -> None:
    with pytest.raises(MissingImages, match="0 of 2 images lie in a class"):
        fit_temperature(np.zeros((2, 3)), np.array([-1, -1]))
    cells, logits, labels = calibrated(20, seed=5)
    labels[:, 2] = -1
    with pytest.raises(MissingImages, match="0 of 20 images lie in a class of level 4 that has siblings"):
        fit_temperatures(logits, labels, cells)


def test_calibration_lowers_the_error_of_every_level() -> None:
    cells, logits, labels = calibrated(6000, seed=8)
    overconfident = [values * 3.0 for values in logits]
    held_out, test = slice(0, 3000), slice(3000, None)
    temperatures = fit_temperatures([v[held_out] for v in overconfident], labels[held_out], cells)
    before = conditional([v[test] for v in overconfident], cells)
    after = conditional([v[test] for v in overconfident], cells, temperatures=temperatures)
    for level, true in enumerate(labels[test].T):
        worse, better = (expected_calibration_error(*top_confidence(found[level], true)) for found in (before, after))
        assert better < 0.04 < 0.1 < worse
