"""A planted temperature is found again, and what is calibrated is measured as calibrated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urbanprint.errors import InputError, MissingImages
from urbanprint.evaluation.calibration import (
    RELIABILITY_COLUMNS,
    TEMPERATURES,
    expected_calibration_error,
    fit_temperature,
    reliability,
    top_confidence,
)


def drawn(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A class of each row, drawn with its probabilities."""
    return (rng.random((len(probabilities), 1)) > probabilities.cumsum(axis=1)).sum(axis=1)


@pytest.mark.parametrize("planted", [0.5, 1.0, 3.0])
def test_the_temperature_of_overconfident_or_timid_logits_is_recovered(planted: float) -> None:
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.normal(size=(8000, 20))
    exp = np.exp(logits)
    labels = drawn(exp / exp.sum(axis=1, keepdims=True), rng)
    assert fit_temperature(logits * planted, labels) == pytest.approx(planted, rel=0.05)


@pytest.mark.parametrize("lead", [0.5, 5.0, 1e4])
def test_where_every_image_is_right_probabilities_become_certain(lead: float) -> None:
    temperature = fit_temperature(lead * np.eye(4), np.arange(4))
    assert TEMPERATURES[0] <= temperature < 1.0 or lead == 1e4  # so far ahead is certain at any temperature
    assert 3 * np.exp(-lead / temperature) < 2e-4


def by_hand(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    edges = np.quantile(confidence, np.linspace(0, 1, bins + 1))
    error = 0.0
    for number in range(bins):
        low = -1.0 if number == 0 else edges[number]
        high = 2.0 if number == bins - 1 else edges[number + 1]
        inside = [i for i, c in enumerate(confidence) if low < c <= high]
        if inside:
            error += len(inside) / len(confidence) * abs(confidence[inside].mean() - correct[inside].mean())
    return error


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), images=st.integers(1, 200), bins=st.integers(1, 20), digits=st.integers(1, 6))
def test_the_calibration_error_equals_a_count_by_hand(seed: int, images: int, bins: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.random(images).round(digits)  # few digits: many ties
    correct = rng.random(images) < 0.5
    found = expected_calibration_error(confidence, correct, bins=bins)
    assert found == pytest.approx(by_hand(confidence, correct, bins), abs=1e-12)


def test_the_calibration_error_of_calibrated_predictions_is_near_nought() -> None:
    rng = np.random.default_rng(6)
    confidence = rng.random(50_000)
    assert expected_calibration_error(confidence, rng.random(50_000) < confidence) < 0.01
    assert expected_calibration_error(confidence, rng.random(50_000) < confidence**2) > 0.1


def test_chance_alone_leaves_what_the_docstring_says() -> None:
    rng = np.random.default_rng(7)
    errors = [expected_calibration_error(rng.uniform(0.69, 0.71, 5000), rng.random(5000) < 0.7) for _ in range(50)]
    assert np.mean(errors) == pytest.approx(0.8 * np.sqrt(0.7 * 0.3 * 15 / 5000), rel=0.1)


def test_the_reliability_table_has_equal_bins_that_are_right_as_often_as_they_say() -> None:
    rng = np.random.default_rng(9)
    confidence = rng.random(15_000) ** 3
    table = reliability(confidence, rng.random(15_000) < confidence)
    assert tuple(table.columns) == RELIABILITY_COLUMNS
    assert table["images"].tolist() == [1000] * 15
    assert table["confidence"].between(table["low"], table["high"]).all()
    assert (table["accuracy"] - table["confidence"]).abs().max() < 0.05


def test_equal_confidences_share_a_bin_so_the_order_of_images_does_not_matter() -> None:
    confidence, correct = np.full(100, 0.5), np.arange(100) < 50
    assert len(reliability(confidence, correct)) == 1
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.0)


def test_confidence_is_of_the_likeliest_class_and_no_class_is_never_right() -> None:
    confidence, correct = top_confidence(np.log([[0.2, 0.8], [0.6, 0.4], [0.6, 0.4]]), np.array([1, 1, -1]))
    np.testing.assert_allclose(confidence, [0.8, 0.6, 0.6])
    assert correct.tolist() == [True, False, False]


def test_confidences_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match=r"confidence of row 1 is 1\.5"):
        reliability(np.array([0.5, 1.5]), np.array([True, True]))
    with pytest.raises(InputError, match="confidence of row 0 is nan"):
        reliability(np.array([np.nan]), np.array([True]))
    with pytest.raises(MissingImages, match="0 images"):
        reliability(np.array([]), np.array([]))
