"""Ordinal heads against closed forms and scipy; a planted miscalibration is found; scores against their definitions."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binom
from torch import Tensor

from urbanprint.errors import InputError, MissingImages
from urbanprint.models.ordinal import (
    BinomialHead,
    Calibration,
    CumulativeHead,
    Kind,
    RegressionHead,
    expected_class,
    fit_calibration,
    likeliest_class,
    negative_log_likelihood,
    ordinal_head,
    pit_histogram,
    quantile_class,
    ranked_probability_score,
    threshold_calibration,
)

KINDS: list[Kind] = ["binomial", "cumulative", "regression"]
LOGITS = np.array([-60.0, -27.6, -3.0, -0.1, 0.0, 0.1, 3.0, 27.6, 60.0])


def column(values: np.ndarray | list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.as_tensor(values, dtype=dtype)[:, None]


def drawn(probabilities: np.ndarray, seed: int) -> np.ndarray:
    """A class of each row, drawn with its probabilities."""
    return (np.random.default_rng(seed).random((len(probabilities), 1)) > probabilities.cumsum(axis=1)).sum(axis=1)


def random_probabilities(n: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), size=n)


@pytest.mark.parametrize(
    ("classes", "dtype", "tolerance"),
    [*((classes, torch.float64, 1e-12) for classes in (2, 5, 10, 100)), (5, torch.float32, 1e-6)],
)
def test_the_binomial_is_that_of_scipy_also_at_the_ends(classes: int, dtype: torch.dtype, tolerance: float) -> None:
    ours = BinomialHead(classes)(column(LOGITS, dtype)).double().numpy()
    # Mirrored above 0, where scipy's p would be rounded to 1.
    expected = binom.logpmf(np.arange(classes), classes - 1, expit(-np.abs(LOGITS))[:, None])
    expected[LOGITS > 0] = expected[LOGITS > 0, ::-1]
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(np.exp(ours), np.exp(expected), atol=tolerance)


def test_the_cumulative_head_is_a_difference_of_sigmoids() -> None:
    head = CumulativeHead(4).double()
    with torch.no_grad():
        head.first.fill_(-1.5)
        head.log_gaps.copy_(torch.tensor([0.2, 2.0]).log())
    below = expit(np.array([-1.5, -1.3, 0.7]) - LOGITS[2:-2, None])
    expected = np.diff(np.pad(below, ((0, 0), (1, 1)), constant_values=(0, 1)), axis=1)
    np.testing.assert_allclose(head(column(LOGITS[2:-2])).exp().detach(), expected, atol=1e-7)
    assert torch.isfinite(head(column(LOGITS))).all()


@pytest.mark.parametrize("classes", [2, 5])
def test_untrained_thresholds_make_all_classes_equally_likely(classes: int) -> None:
    probabilities = CumulativeHead(classes)(torch.zeros(1, 1)).exp()
    np.testing.assert_allclose(probabilities.detach(), 1 / classes, atol=1e-6)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8))
def test_thresholds_are_ordered_whatever_is_learnt(log_gaps: list[float]) -> None:
    head = CumulativeHead(len(log_gaps) + 2)
    with torch.no_grad():
        head.log_gaps.copy_(torch.tensor(log_gaps))
    assert (head.thresholds.diff() > 0).all()


@given(st.floats(-0.999, 4.999))
def test_the_likeliest_class_of_the_regression_is_its_value_rounded(value: float) -> None:
    outputs = column([value - 2.0])
    head = RegressionHead(5)
    assert head.values(outputs).item() == pytest.approx(value)
    (likeliest,) = likeliest_class(head(outputs).exp().numpy())
    assert abs(likeliest - np.clip(value, 0, 4)) <= 0.5 + 1e-9


@pytest.mark.parametrize("kind", ["binomial", "regression"])
@settings(max_examples=50)
@given(output=st.floats(-40, 40), classes=st.integers(2, 12), spread=st.floats(0.3, 5))
def test_binomial_and_regression_have_one_peak_at_every_spread(
    kind: Kind, output: float, classes: int, spread: float
) -> None:
    head = ordinal_head(kind, classes=classes)
    steps = np.diff(Calibration(spread=spread).log_probabilities(head, column([output])).numpy()[0])
    rising = steps > 1e-12
    assert not (rising[1:] & ~rising[:-1]).any()


@pytest.mark.parametrize("kind", KINDS)
@given(outputs=st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=6), classes=st.integers(2, 10))
@settings(max_examples=30)
def test_probabilities_sum_to_one_and_classes_rise_with_the_output(
    kind: Kind, outputs: list[float], classes: int
) -> None:
    head = ordinal_head(kind, classes=classes)
    probabilities = head(column(sorted(outputs), torch.float32)).detach().exp().numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert (np.diff(expected_class(probabilities)) >= -1e-4).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: Kind) -> None:
    head = ordinal_head(kind, classes=5).double()
    outputs = column([-9.0, -0.7, 0.0, 2.0, 12.0]).requires_grad_()
    labels = torch.tensor([0, 4, 2, 1, 3])
    assert torch.autograd.gradcheck(head, (outputs,))
    assert torch.autograd.gradcheck(lambda out, *_: head.loss(out, labels), (outputs, *head.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_confident_mistake_has_a_finite_loss_and_gradient(kind: Kind) -> None:
    head = ordinal_head(kind, classes=5)
    outputs = torch.tensor([[200.0], [-200.0]], requires_grad=True)
    loss = head.loss(outputs, torch.tensor([0, 4]))
    loss.backward()
    assert math.isfinite(loss.item()) and loss.item() > 100
    assert torch.isfinite(outputs.grad).all()
    assert outputs.grad[0] > 0 > outputs.grad[1]


def test_losses_are_the_likelihood_and_the_squared_error() -> None:
    outputs, labels = column([0.3, -1.0]), torch.tensor([3, 0])
    p = expit(0.3), expit(-1.0)
    expected = -(math.log(4 * p[0] ** 3 * (1 - p[0])) + 4 * math.log(1 - p[1])) / 2
    assert BinomialHead(5).loss(outputs, labels).item() == pytest.approx(expected)
    assert negative_log_likelihood(BinomialHead(5)(outputs), labels).item() == pytest.approx(expected)
    assert RegressionHead(5).loss(outputs, labels).item() == pytest.approx((0.7**2 + 1.0**2) / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_outputs_give_float32_probabilities_also_under_autocast(kind: Kind) -> None:
    outputs = torch.tensor([[1.5], [-0.25]], dtype=torch.bfloat16)
    head = ordinal_head(kind, classes=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(outputs)
    torch.testing.assert_close(found, head(outputs.float()), rtol=0, atol=0)
    assert found.dtype == torch.float32


def test_unknown_heads_too_few_classes_and_wrong_widths_are_refused() -> None:
    unknown: Any = "softmax"
    with pytest.raises(InputError, match="'softmax' is not an ordinal head: use one of binomial, cumulative, regress"):
        ordinal_head(unknown, classes=5)
    with pytest.raises(InputError, match="classes = 1"):
        ordinal_head("binomial", classes=1)
    with pytest.raises(InputError, match=r"shape \(3, 2\): an ordinal head takes \(n, 1\)"):
        ordinal_head("regression", classes=5)(torch.zeros(3, 2))


@pytest.mark.parametrize("kind", ["binomial", "regression"])
def test_a_planted_temperature_and_spread_are_found_again(kind: Kind) -> None:
    head = ordinal_head(kind, classes=7)
    true = column(np.random.default_rng(0).normal(0, 1.2, size=20_000))
    planted = Calibration(temperature=1.0, spread=1.6).log_probabilities(head, true).exp().numpy()
    found = fit_calibration(head, true * 2.5, torch.from_numpy(drawn(planted, seed=1)))
    assert found.temperature == pytest.approx(2.5, rel=0.05)
    assert found.spread == pytest.approx(1.6, rel=0.05)


def test_calibration_makes_a_cumulative_head_likelier_on_what_it_was_too_sure_of() -> None:
    head = CumulativeHead(5).requires_grad_(False)
    true = column(np.random.default_rng(0).normal(0, 1.5, size=5_000))
    labels = drawn(head(true).exp().numpy(), seed=1)
    calibration = fit_calibration(head, 3 * true, torch.from_numpy(labels))
    raw, calibrated = head(3 * true).exp().numpy(), calibration.log_probabilities(head, 3 * true).exp().numpy()
    assert calibration.temperature == pytest.approx(3.0, rel=0.1)
    assert threshold_calibration(raw, labels)["error"].min() > 0.05
    assert threshold_calibration(calibrated, labels)["error"].max() < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_of_few_outputs_is_as_likely_as_the_best_of_a_grid(kind: Kind) -> None:
    """A conurbation has some hundred cells in float32: a search that takes tiny steps first would stop where it is."""
    head = ordinal_head(kind, classes=5).requires_grad_(False)
    true = column(np.random.default_rng(0).normal(0, 1.5, size=400), torch.float32)
    labels = torch.from_numpy(drawn(head(true).exp().numpy(), seed=1))
    found = fit_calibration(head, 0.4 * true, labels)

    def loss(calibration: Calibration) -> float:
        return negative_log_likelihood(calibration.log_probabilities(head, 0.4 * true), labels).item()

    steps = np.geomspace(0.2, 5, 25)
    best = min(loss(Calibration(temperature=t, spread=s)) for t in steps for s in steps)
    assert loss(found) <= best + 2e-3 < loss(Calibration()) - 0.02


def test_no_calibration_is_the_head_itself() -> None:
    head = BinomialHead(5)
    torch.testing.assert_close(Calibration().log_probabilities(head, column(LOGITS)), head(column(LOGITS)))


def test_nothing_can_be_calibrated_on_no_images() -> None:
    with pytest.raises(MissingImages, match="0 held-out images"):
        fit_calibration(BinomialHead(5), torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64))


def test_expected_likeliest_and_quantile_class_of_a_known_distribution() -> None:
    probabilities = np.array([[0.1, 0.4, 0.4, 0.1], [0.0, 0.0, 0.25, 0.75]])
    np.testing.assert_allclose(expected_class(probabilities), [1.5, 2.75])
    assert likeliest_class(probabilities).tolist() == [1, 3]
    assert quantile_class(probabilities, 0.05).tolist() == [0, 2]
    assert quantile_class(probabilities, 0.5).tolist() == [1, 3]
    assert quantile_class(probabilities, 1.0).tolist() == [3, 3]


@settings(max_examples=30)
@given(p=st.floats(0.01, 0.99), level=st.floats(0.01, 0.99))
def test_quantiles_of_the_binomial_are_those_of_scipy(p: float, level: float) -> None:
    probabilities = BinomialHead(6)(column([math.log(p / (1 - p))])).exp().numpy()
    low, high = binom.ppf([level - 1e-9, level + 1e-9], 5, p)  # a quantile may stand exactly on a step
    assert low <= quantile_class(probabilities, level)[0] <= high


def test_the_ranked_probability_score_is_its_definition() -> None:
    probabilities, labels = random_probabilities(50, 5, seed=0), drawn(random_probabilities(50, 5, seed=1), seed=2)
    expected = [
        sum((row[: k + 1].sum() - (label <= k)) ** 2 for k in range(4)) / 4
        for row, label in zip(probabilities, labels, strict=True)
    ]
    np.testing.assert_allclose(ranked_probability_score(probabilities, labels), expected)
    ends = np.array([[1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0]])
    np.testing.assert_allclose(ranked_probability_score(ends, np.array([0, 1, 2])), [0.0, 0.5, 1.0])


def test_the_true_probabilities_have_the_least_ranked_probability_score() -> None:
    true = random_probabilities(1, 5, seed=3)
    others = random_probabilities(20, 5, seed=4)

    def expectation(forecast: np.ndarray) -> float:
        return float(true[0] @ ranked_probability_score(np.tile(forecast, (5, 1)), np.arange(5)))

    assert all(expectation(true[0]) < expectation(other) for other in others)


def test_the_transform_of_calibrated_classes_is_flat_and_of_narrow_ones_a_u() -> None:
    head = RegressionHead(9)
    outputs = column(np.random.default_rng(0).uniform(-2, 2, size=20_000))
    labels = drawn(Calibration(spread=3.0).log_probabilities(head, outputs).exp().numpy(), seed=1)

    def histogram(spread: float) -> np.ndarray:
        return pit_histogram(Calibration(spread=spread).log_probabilities(head, outputs).exp().numpy(), labels)

    np.testing.assert_allclose(histogram(3.0), 0.1, atol=0.01)
    narrow, wide = histogram(1.0), histogram(9.0)
    assert narrow[[0, -1]].min() > 0.15 > 0.09 > narrow[4:6].max()
    assert wide[[0, -1]].max() < 0.09 < 0.105 < wide[4:6].min()


def test_the_transform_spreads_a_class_over_its_interval_and_sums_to_one() -> None:
    probabilities = np.array([[0.25, 0.5, 0.25], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(pit_histogram(probabilities[:1], np.array([1]), bins=4), [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(pit_histogram(probabilities[1:2], np.array([2]), bins=4), 0.25)
    # The true class had no probability: all of it lies at the end that the forecast took for certain.
    np.testing.assert_allclose(pit_histogram(probabilities[2:], np.array([2]), bins=4), [0, 0, 0, 1])
    np.testing.assert_allclose(pit_histogram(probabilities[1:2], np.array([0]), bins=4), [1, 0, 0, 0])


def test_calibration_by_threshold_says_which_boundary_is_off() -> None:
    probabilities = random_probabilities(20_000, 4, seed=5)
    labels = drawn(probabilities, seed=6)
    moved = probabilities.copy()
    moved[:, 2:] = probabilities[:, 2:].sum(axis=1, keepdims=True) * [0.9, 0.1]  # only the last boundary is misplaced
    table = threshold_calibration(moved, labels)
    assert table["threshold"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(table["observed"], [(labels <= k).mean() for k in range(3)])
    np.testing.assert_allclose(table["predicted"], moved.cumsum(axis=1)[:, :3].mean(axis=0))
    assert table["error"][:2].max() < 0.02
    assert table["error"][2] > 0.1


def test_labels_that_are_no_classes_or_too_few_are_named() -> None:
    with pytest.raises(InputError, match="label of row 1 is 3: classes are numbered from 0 to 2"):
        pit_histogram(np.full((2, 3), 1 / 3), np.array([0, 3]))
    with pytest.raises(MissingImages, match="2 rows of probabilities and 1 labels"):
        ranked_probability_score(np.full((2, 3), 1 / 3), np.array([0]))
