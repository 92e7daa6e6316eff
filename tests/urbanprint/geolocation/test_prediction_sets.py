"""Sets hold the true cell as often as they say, and an answer is never finer than it may be."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urbanprint.errors import InputError
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.prediction_sets import (
    COVERAGE_COLUMNS,
    confident_cells,
    fit_thresholds,
    measured_coverage,
    prediction_sets,
)
from urbanprint.geolocation.probabilities import conditional, joint


def tree() -> Hierarchy:
    """All of L1 and L2: 4 and 16 cells."""
    return Hierarchy.from_leaves(np.arange(16), 2, levels=(1, 2))


def world(images: int, *, seed: int, skill: float = 1.5) -> tuple[list[np.ndarray], np.ndarray]:
    """Log-probabilities, overconfident threefold, and labels of images drawn from one distribution."""
    rng = np.random.default_rng(seed)
    logits = skill * rng.normal(size=(images, 16))
    leaves = (rng.random((images, 1)) > np.exp(joint(logits, tree())[-1]).cumsum(axis=1)).sum(axis=1)
    return joint(3.0 * logits, tree()), tree().ancestors(leaves)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_hold_the_true_cell_as_often_as_they_say_though_probabilities_are_overconfident(coverage: float) -> None:
    thresholds = fit_thresholds(*world(4000, seed=0), tree(), coverage=coverage)
    probabilities, labels = world(4000, seed=1)
    for found, true in zip(prediction_sets(probabilities, thresholds, tree()), labels.T, strict=True):
        table = measured_coverage(found, true, groups=np.zeros(4000))
        assert table.loc[0, "coverage"] == pytest.approx(coverage, abs=0.02)
        assert 1 < table.loc[0, "mean_size"] < found.shape[1] - 1


def test_over_many_calibrations_of_few_images_the_mean_coverage_is_the_promised_one() -> None:
    """Of 99 images at 90 % the threshold is the 90th best: coverage is Beta(90, 10), mean 0.9, without ties."""
    probabilities, labels = world(99 * 200, seed=2)
    tested, truth = world(4000, seed=3)
    held = []
    for start in range(0, 99 * 200, 99):
        part = slice(start, start + 99)
        threshold = fit_thresholds([v[part] for v in probabilities], labels[part], tree())[1]
        held.append((tested[1][np.arange(4000), truth[:, 1]] >= threshold).mean())
    assert np.mean(held) == pytest.approx(0.9, abs=0.01)


def test_the_threshold_is_the_corrected_quantile() -> None:
    """Nine images whose true cell has 0.1 .. 0.9: at 80 % the ceil(10 x 0.8) = 8th best is 0.2."""
    flat = Hierarchy.from_levels({1: np.array([0, 1])})
    p = np.arange(1, 10) / 10
    thresholds = fit_thresholds([np.log(np.stack([p, 1 - p], axis=1))], np.zeros((9, 1), dtype=int), flat, coverage=0.8)
    np.testing.assert_allclose(np.exp(thresholds), [0.2])


def test_a_hundred_times_point_55_is_55() -> None:
    """In floating point it is 55.00000000000001: the 55th best of 99 is meant, not the 56th."""
    flat = Hierarchy.from_levels({1: np.array([0, 1])})
    p = np.arange(1, 100) / 100
    labels = np.zeros((99, 1), dtype=int)
    thresholds = fit_thresholds([np.log(np.stack([p, 1 - p], axis=1))], labels, flat, coverage=0.55)
    np.testing.assert_allclose(np.exp(thresholds), [0.45])


def test_too_few_images_to_vouch_for_the_coverage_give_all_cells() -> None:
    probabilities, labels = world(8, seed=4)
    thresholds = fit_thresholds(probabilities, labels, tree())
    assert thresholds == (-np.inf, -np.inf)
    assert all(found.all() for found in prediction_sets(probabilities, thresholds, tree()))


def test_images_in_no_class_count_as_not_covered() -> None:
    """A twentieth lies in no class: the sets of the others grow until 90 % of all are held."""
    probabilities, labels = world(4000, seed=5)
    labels[::20, 1] = -1
    thresholds = fit_thresholds(probabilities, labels, tree())
    tested, truth = world(4000, seed=6)
    truth[::20, 1] = -1
    coverage = measured_coverage(prediction_sets(tested, thresholds, tree())[1], truth[:, 1], groups=truth[:, 1] < 0)
    assert coverage["coverage"].tolist() == [pytest.approx(0.9 / 0.95, abs=0.02), 0.0]
    assert coverage["images"].tolist() == [3800, 200]
    labels[::8, 1] = -1
    assert fit_thresholds(probabilities, labels, tree())[1] == -np.inf


def test_a_set_is_never_empty() -> None:
    probabilities, _ = world(50, seed=7)
    for found, values in zip(prediction_sets(probabilities, (0.0, 0.0), tree()), probabilities, strict=True):
        assert (found.sum(axis=1) == 1).all()
        assert found[np.arange(50), values.argmax(axis=1)].all()


def test_coverage_is_told_by_group() -> None:
    sets = np.array([[True, False], [True, True], [False, True]])
    table = measured_coverage(sets, np.array([1, 1, 1]), groups=np.array(["Africa", "Asia", "Asia"]))
    assert tuple(table.columns) == COVERAGE_COLUMNS
    assert table.to_numpy().tolist() == [["Africa", 0.0, 1.0, 1], ["Asia", 1.0, 1.5, 2]]


# --- one cell -------------------------------------------------------------------------------------------------------


def test_the_answer_is_the_finest_cell_that_is_sure_enough() -> None:
    """Three images: 0.95 in one leaf; 0.95 in one L1 cell, shared by two of its leaves; spread over the Earth."""
    rest = 0.05 / 15
    leaves = np.full((3, 16), rest)
    leaves[0, 6] = 0.95
    leaves[1, [8, 9]] = (0.95 - 2 * rest) / 2 + rest
    leaves[1] /= leaves[1].sum()
    leaves[2] = 1 / 16
    answers = confident_cells(joint(np.log(leaves), tree()), tree())
    assert answers.levels.tolist() == [1, 0, -1]
    assert answers.cells.tolist() == [6, 2, -1]
    np.testing.assert_allclose(np.exp(answers.log_probabilities[[0, 2]]), [0.95, 1.0])


def test_the_asked_confidence_itself_is_enough() -> None:
    flat = Hierarchy.from_levels({1: np.array([0, 1])})
    assert confident_cells(joint(np.log([[0.9, 0.1]]), flat), flat).cells.tolist() == [0]


def test_no_answer_is_finer_than_the_cap() -> None:
    probabilities, labels = world(300, seed=8)
    free, capped = (confident_cells(probabilities, tree(), confidence=0.6, finest=cap) for cap in (None, 1))
    assert free.levels.max() == 1
    assert capped.levels.max() == 0
    sure = free.levels == 1
    assert capped.cells[sure].tolist() == (free.cells[sure] // 4).tolist()
    thresholds = fit_thresholds(probabilities, labels, tree())
    assert [found.shape for found in prediction_sets(probabilities, thresholds, tree(), finest=1)] == [(300, 4)]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), confidence=st.floats(0.51, 0.99), scale=st.sampled_from([1.0, 10.0]))
def test_answers_equal_a_search_over_all_cells(
    make_tree: Callable[[int], Hierarchy],
    make_logits: Callable[..., list[np.ndarray]],
    seed: int,
    confidence: float,
    scale: float,
) -> None:
    cells = make_tree(seed)
    probabilities = conditional(make_logits(cells, images=5, seed=seed, scale=scale), cells)
    answers = confident_cells(probabilities, cells, confidence=confidence)
    for image in range(5):
        sure = [
            (level, cell)
            for level, values in enumerate(probabilities)
            for cell in range(values.shape[1])
            if np.exp(values[image, cell]) >= confidence
        ]
        assert (answers.levels[image], answers.cells[image]) == (max(sure) if sure else (-1, -1))


def test_impossible_wishes_are_refused() -> None:
    probabilities, labels = world(20, seed=9)
    with pytest.raises(InputError, match="coverage = 90"):
        fit_thresholds(probabilities, labels, tree(), coverage=90)
    with pytest.raises(InputError, match=r"confidence = 0\.5: a share above 0\.5"):
        confident_cells(probabilities, tree(), confidence=0.5)
    with pytest.raises(InputError, match="finest = 0"):
        prediction_sets(probabilities, (0.0, 0.0), tree(), finest=0)
