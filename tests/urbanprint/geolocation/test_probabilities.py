"""Probabilities down the hierarchy: they add up, whatever the logits, and the search finds what it should."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from urbanprint.errors import InputError
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.probabilities import (
    Candidates,
    adaptive_k,
    beam_search,
    conditional,
    joint,
    old_fusion,
)

Tree = Callable[[int], Hierarchy]
Logits = Callable[..., list[np.ndarray]]
SEEDS = st.integers(0, 10_000)
SCALES = st.sampled_from([1e-3, 1.0, 30.0, 1e4])


def pair() -> Hierarchy:
    """Cells 0 and 3 of L1; 0 holds three cells of L2, 3 holds two."""
    return Hierarchy.from_levels({1: np.array([0, 3]), 2: np.array([0, 1, 2, 12, 13])})


def assert_coherent(tree: Hierarchy, found: list[np.ndarray]) -> None:
    above = np.zeros((len(found[0]), 1))
    for level, values in zip(tree.levels, found, strict=True):
        assert np.isfinite(values).all()
        children = np.stack(
            [np.exp(values[:, level.parents == p]).sum(axis=1) for p in range(len(level.starts) - 1)], axis=1
        )
        np.testing.assert_allclose(children, np.exp(above), atol=1e-6)
        # In logarithms too: where both probabilities vanish, a parent must still be the sum of its children.
        summed = np.stack([logsumexp(values[:, level.parents == p], axis=1) for p in range(above.shape[1])], axis=1)
        np.testing.assert_allclose(summed, above, atol=1e-6, rtol=1e-9)
        above = values


@settings(deadline=None, max_examples=80)
@given(seed=SEEDS, scale=SCALES)
def test_children_sum_to_their_parents_with_a_classifier_a_level(
    make_tree: Tree, make_logits: Logits, seed: int, scale: float
) -> None:
    tree = make_tree(seed)
    assert_coherent(tree, conditional(make_logits(tree, images=4, seed=seed, scale=scale), tree))


@settings(deadline=None, max_examples=80)
@given(seed=SEEDS, scale=SCALES)
def test_children_sum_to_their_parents_with_one_classifier_of_the_leaves(
    make_tree: Tree, make_logits: Logits, seed: int, scale: float
) -> None:
    tree = make_tree(seed)
    leaves = make_logits(tree, images=4, seed=seed, scale=scale)[-1]
    found = joint(leaves, tree)
    assert_coherent(tree, found)
    np.testing.assert_allclose(np.exp(found[-1]), softmax(leaves, axis=1), atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, scale=SCALES)
def test_temperatures_a_level_keep_both_designs_coherent(
    make_tree: Tree, make_logits: Logits, seed: int, scale: float
) -> None:
    tree = make_tree(seed)
    logits = make_logits(tree, images=4, seed=seed, scale=scale)
    temperatures = np.random.default_rng(seed).uniform(0.2, 5.0, size=len(tree.levels)).tolist()
    assert_coherent(tree, conditional(logits, tree, temperatures=temperatures))
    assert_coherent(tree, conditional(joint(logits[-1], tree), tree, temperatures=temperatures))


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_joint_probabilities_are_unchanged_by_taking_them_apart_into_conditional_ones(
    make_tree: Tree, make_logits: Logits, seed: int
) -> None:
    tree = make_tree(seed)
    found = joint(make_logits(tree, images=4, seed=seed)[-1], tree)
    for once, twice in zip(found, conditional(found, tree), strict=True):
        np.testing.assert_allclose(twice, once, atol=1e-9)


def test_a_child_is_compared_with_its_siblings_only() -> None:
    """P(A) = 3/4; its children 1/2, 1/4, 1/4; those of B 2/3, 1/3, whatever is added to the logits of a family."""
    logits = [np.log([[3.0, 1.0]]), np.log([[2.0, 1.0, 1.0, 2.0, 1.0]]) + 700 * np.array([0, 0, 0, 1, 1])]
    coarse, fine = conditional(logits, pair())
    np.testing.assert_allclose(np.exp(coarse), [[0.75, 0.25]])
    np.testing.assert_allclose(np.exp(fine), [[3 / 8, 3 / 16, 3 / 16, 1 / 6, 1 / 12]])


def test_a_temperature_divides_the_logits_of_its_level() -> None:
    logits = [np.array([[2.0, 0.0]]), np.array([[3.0, 1.0, 0.0, 4.0, 0.0]])]
    coarse, fine = conditional(logits, pair(), temperatures=(2.0, 0.5))
    np.testing.assert_allclose(np.exp(coarse), softmax([[1.0, 0.0]], axis=1))
    np.testing.assert_allclose(np.exp(fine[:, :3] - coarse[:, :1]), softmax([[6.0, 2.0, 0.0]], axis=1))
    np.testing.assert_allclose(np.exp(joint(logits[1], pair(), temperature=2.0)[1]), softmax(logits[1] / 2, axis=1))


def test_the_old_fusion_prefers_an_unlikely_parent_where_logits_are_negative() -> None:
    """B has a probability of 1 % and its children the same logits as A's, and yet wins: -5 x 0.01 > -5 x 0.99."""
    logits = [np.log([[0.99, 0.01]]), np.full((1, 5), -5.0)]
    tree = pair()
    old, new = old_fusion(logits, tree)[-1], conditional(logits, tree)[-1]
    np.testing.assert_allclose(old, [[-4.95, -4.95, -4.95, -0.05, -0.05]])
    assert tree.levels[1].parents[old.argmax()] == 1
    assert tree.levels[1].parents[new.argmax()] == 0


def test_the_old_fusion_changes_its_answer_when_a_constant_is_added_and_probabilities_do_not() -> None:
    logits = [np.log([[0.99, 0.01]]), np.full((1, 5), -5.0)]
    moved = [logits[0], logits[1] + 10.0]
    tree = pair()
    assert old_fusion(logits, tree)[-1].argmax() != old_fusion(moved, tree)[-1].argmax()
    np.testing.assert_allclose(conditional(moved, tree)[-1], conditional(logits, tree)[-1])


@pytest.mark.parametrize(
    ("confidence", "k"),
    [(1.0, 1), (0.85, 1), (0.8499, 2), (0.65, 2), (0.6499, 3), (0.40, 3), (0.3999, 6), (0.0, 6)],
)
def test_fewer_cells_are_kept_the_surer_the_parent(confidence: float, k: int) -> None:
    assert adaptive_k(np.array([confidence, np.nextafter(confidence, 0.0)]), 100).tolist() == [k, k]  # but for rounding


@settings(deadline=None)
@given(confidence=st.floats(0.0, 1.0), classes=st.integers(1, 10))
def test_never_more_cells_are_kept_than_there_are(confidence: float, classes: int) -> None:
    assert 1 <= adaptive_k(np.array([confidence]), classes)[0] <= classes


@settings(deadline=None, max_examples=80)
@given(seed=SEEDS, scale=st.sampled_from([0.3, 2.0, 1e4]))
def test_a_wide_beam_finds_what_a_look_at_all_leaves_finds(
    make_tree: Tree, make_logits: Logits, seed: int, scale: float
) -> None:
    tree = make_tree(seed)
    probabilities = conditional(make_logits(tree, images=6, seed=seed, scale=scale), tree)
    widest = max(len(level) for level in tree.levels)
    for found, values in zip(beam_search(probabilities, tree, width=widest), probabilities, strict=True):
        assert found.cells[:, 0].tolist() == values.argmax(axis=1).tolist()
        np.testing.assert_array_equal(found.log_probabilities, -np.sort(-values, axis=1))
        assert (np.sort(found.cells, axis=1) == np.arange(values.shape[1])).all()


def by_hand(probabilities: list[np.ndarray], tree: Hierarchy, image: int, width: int | None) -> list[list[int]]:
    kept, found = [0], []
    for level, values in zip(tree.levels, probabilities, strict=True):
        reached = [c for c in range(len(level)) if level.parents[c] in kept]
        ranked = sorted(reached, key=lambda c: -values[image, c])
        k = width or int(adaptive_k(np.exp(values[image, ranked[:1]]), len(reached))[0])
        kept = ranked[:k]
        found.append(kept)
    return found


@settings(deadline=None, max_examples=80)
@given(seed=SEEDS, scale=st.sampled_from([0.5, 3.0, 30.0]), width=st.sampled_from([None, 1, 2, 5]))
def test_the_beam_looks_only_under_the_cells_it_kept(
    make_tree: Tree, make_logits: Logits, seed: int, scale: float, width: int | None
) -> None:
    tree = make_tree(seed)
    probabilities = conditional(make_logits(tree, images=6, seed=seed, scale=scale), tree)
    found = beam_search(probabilities, tree, width=width)
    for image in range(6):
        expected = by_hand(probabilities, tree, image, width)
        assert [kept.cells[image][kept.cells[image] >= 0].tolist() for kept in found] == expected


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_where_a_beam_kept_fewer_there_is_no_cell_and_no_probability(
    make_tree: Tree, make_logits: Logits, seed: int
) -> None:
    tree = make_tree(seed)
    for kept in beam_search(conditional(make_logits(tree, images=6, seed=seed, scale=3.0), tree), tree):
        assert isinstance(kept, Candidates)
        assert kept.cells.shape[1] <= min(6, len(kept.level))
        np.testing.assert_array_equal(kept.cells < 0, np.isneginf(kept.log_probabilities))
        assert (kept.cells[:, 0] >= 0).all()


def test_a_narrow_beam_can_miss_the_likeliest_leaf() -> None:
    """A is likelier (0.6) and split in three (0.2 each), B (0.4) has all in one cell."""
    probabilities = joint(np.log([[0.2, 0.2, 0.2, 0.398, 0.002]]), pair())
    assert probabilities[1].argmax() == 3
    assert beam_search(probabilities, pair(), width=1)[-1].cells[0, 0] == 0
    assert beam_search(probabilities, pair(), width=2)[-1].cells[0, 0] == 3


def test_a_beam_goes_no_deeper_than_the_cap() -> None:
    probabilities = joint(np.log([[0.2, 0.2, 0.2, 0.3, 0.1]]), pair())
    assert [kept.level.number for kept in beam_search(probabilities, pair(), finest=1)] == [1]
    with pytest.raises(InputError, match="finest = 0"):
        beam_search(probabilities, pair(), finest=0)


def test_no_images_are_no_trouble() -> None:
    tree = pair()
    probabilities = conditional([np.zeros((0, 2)), np.zeros((0, 5))], tree)
    assert [values.shape for values in probabilities] == [(0, 2), (0, 5)]
    assert [len(kept.cells) for kept in beam_search(probabilities, tree)] == [0, 0]


def test_logits_of_another_model_are_refused() -> None:
    tree, good = pair(), [np.zeros((3, 2)), np.zeros((3, 5))]
    with pytest.raises(InputError, match=r"logits are of 1 levels, the hierarchy has \[1, 2\]"):
        conditional(good[:1], tree)
    with pytest.raises(InputError, match=r"level 2 have shape \(3, 4\) where \(3, 5\) is expected"):
        conditional([good[0], np.zeros((3, 4))], tree)
    with pytest.raises(InputError, match=r"level 2 have shape \(2, 5\)"):
        conditional([good[0], np.zeros((2, 5))], tree)
    with pytest.raises(InputError, match="level 2 are not finite in row 1"):
        joint(np.array([[0.0] * 5, [np.nan] * 5]), tree)
    with pytest.raises(InputError, match="width = 0"):
        beam_search(good, tree, width=0)
