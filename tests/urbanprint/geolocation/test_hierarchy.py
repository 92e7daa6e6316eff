"""The tree of cells: which classes there are, whose children they are, and what an image is labelled."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urbanprint.errors import InputError
from urbanprint.geolocation.hierarchy import Hierarchy, cell_name

SEEDS = st.integers(0, 10_000)

# 0 and 3 of L1; of L3, 0/1/0 and 0/1/1 in the first, 3/3/3 in the second; of L4, two in 0/1/1 alone.
SMALL = {1: [0, 3], 3: [0b000100, 0b000101, 0b111111], 4: [0b00010101, 0b00010111]}


def small() -> Hierarchy:
    return Hierarchy.from_levels({number: np.array(codes) for number, codes in SMALL.items()})


def test_levels_may_be_skipped_and_a_parent_is_the_code_without_its_last_digits() -> None:
    tree = small()
    assert tree.numbers == (1, 3, 4)
    assert tree.levels[1].cells.tolist() == SMALL[3]
    assert tree.levels[1].parents.tolist() == [0, 0, 1]
    assert tree.levels[1].starts.tolist() == [0, 2, 3]


def test_a_cell_that_is_not_divided_stands_below_as_its_own_only_child() -> None:
    last = small().levels[-1]
    assert last.cells.tolist() == [SMALL[3][0], *SMALL[4], SMALL[3][2]]
    assert last.depths.tolist() == [3, 4, 4, 3]
    assert last.parents.tolist() == [0, 1, 1, 2]


def test_order_and_repetition_of_the_cells_change_nothing() -> None:
    shuffled = Hierarchy.from_levels({number: np.array(codes[::-1] * 2) for number, codes in SMALL.items()})
    assert shuffled.to_json() == small().to_json()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_every_level_shares_out_the_one_above(make_tree: Callable[[int], Hierarchy], seed: int) -> None:
    tree = make_tree(seed)
    above = 1
    for level in tree.levels:
        assert level.starts[0] == 0
        assert level.starts[-1] == len(level)
        assert (np.diff(level.starts) >= 1).all()
        assert len(level.starts) == above + 1
        for parent in range(above):
            assert (level.parents[level.starts[parent] : level.starts[parent + 1]] == parent).all()
        above = len(level)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_children_are_the_slices_of_their_parents(make_tree: Callable[[int], Hierarchy], seed: int) -> None:
    level = make_tree(seed).levels[-1]
    parents = np.random.default_rng(seed).integers(-1, len(level.starts) - 1, size=(5, 3))
    for asked, found in zip(parents, level.children(parents), strict=True):
        expected = [child for p in asked if p >= 0 for child in np.flatnonzero(level.parents == p)]
        assert found[found >= 0].tolist() == expected


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_an_image_is_labelled_by_the_cell_it_lies_in(make_tree: Callable[[int], Hierarchy], seed: int) -> None:
    tree = make_tree(seed)
    depth = 7
    codes = np.concatenate([np.arange(0, 4**depth, 61), tree.levels[-1].cells << 2 * (depth - tree.levels[-1].depths)])
    labels = tree.labels(codes, depth=depth)
    for number, level in enumerate(tree.levels):
        inside = codes[:, None] >> 2 * (depth - level.depths) == level.cells
        expected = np.where(inside.any(axis=1), inside.argmax(axis=1), -1)
        assert labels[:, number].tolist() == expected.tolist()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_labels_follow_from_the_leaf(make_tree: Callable[[int], Hierarchy], seed: int) -> None:
    tree = make_tree(seed)
    last = tree.levels[-1]
    labels = tree.labels(last.cells << 2 * (10 - last.depths), depth=10)
    assert labels[:, -1].tolist() == list(range(len(last)))
    np.testing.assert_array_equal(tree.ancestors(np.arange(len(last))), labels)
    assert (tree.ancestors(np.array([-1])) == -1).all()


def test_a_place_without_a_class_can_have_one_a_level_above() -> None:
    assert small().labels(np.array([0b00010110, 0b00000000, 0b01000000]), depth=4).tolist() == [
        [0, 1, -1],
        [0, -1, -1],
        [-1, -1, -1],
    ]


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_a_tree_is_known_by_its_leaves_in_any_order(make_tree: Callable[[int], Hierarchy], seed: int) -> None:
    tree = make_tree(seed)
    last = tree.levels[-1]
    order = np.random.default_rng(seed).permutation(len(last))
    built = Hierarchy.from_leaves(last.cells[order], last.depths[order], levels=tree.numbers)
    assert built.to_json() == tree.to_json()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_a_tree_comes_back_from_json_and_is_written_the_same_again(
    make_tree: Callable[[int], Hierarchy], seed: int
) -> None:
    tree = make_tree(seed)
    text = tree.to_json()
    again = Hierarchy.from_json(text, name="tree.json")
    assert again.to_json() == text
    for before, after in zip(tree.levels, again.levels, strict=True):
        for name in ("cells", "depths", "parents", "starts"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_the_file_is_sorted_and_says_its_version() -> None:
    assert small().to_json() == (
        '{"levels":[{"cells":[0,3],"level":1},{"cells":[4,5,63],"level":3},{"cells":[21,23],"level":4}],"version":1}\n'
    )


def test_a_class_without_its_parent_is_named() -> None:
    with pytest.raises(InputError, match="1 cells of level 3 have no parent, such as 2/0/1: add 2 to level 1"):
        Hierarchy.from_levels({1: np.array([0]), 3: np.array([0b000001, 0b100001])})


def test_a_cell_inside_one_that_ended_above_is_an_orphan() -> None:
    with pytest.raises(InputError, match=r"such as 0/0/0/1: add 0/0/0 to level 3"):
        Hierarchy.from_levels({1: np.array([0, 1]), 3: np.array([0b010000]), 4: np.array([0b00000001])})


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({}, "without levels"),
        ({1: []}, "Level 1 has no cells"),
        ({1: [4]}, "Level 1 has no cell 4: its codes run from 0 to 3"),
        ({1: [-1]}, "Level 1 has no cell -1"),
        ({1: [0.0]}, "of type float64"),
        ({0: [0]}, "Level 0 does not exist"),
        ({32: [0]}, "levels run from 1 to 31"),
    ],
)
def test_impossible_cells_are_refused(cells: dict[int, list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Hierarchy.from_levels({n: np.array(c, dtype=None if c else int) for n, c in cells.items()})


def test_the_deepest_level_fits() -> None:
    tree = Hierarchy.from_leaves(np.array([4**31 - 1]), 31, levels=(1, 31))
    assert [level.cells.tolist() for level in tree.levels] == [[3], [4**31 - 1]]


def test_leaves_may_not_hold_each_other_nor_lie_between_the_levels() -> None:
    with pytest.raises(InputError, match="The leaf 0 of level 1 holds finer leaves"):
        Hierarchy.from_leaves(np.array([0, 0b0011]), np.array([1, 2]), levels=(1, 2))
    with pytest.raises(InputError, match="leaves of level 2, which is not among the levels"):
        Hierarchy.from_leaves(np.array([0]), 2, levels=(1, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "tree.json holds no hierarchy"),
        ("[]", "tree.json holds no hierarchy"),
        ('{"version": 1, "levels": [{"level": 1}]}', "tree.json holds no hierarchy"),
        ('{"version": 2, "levels": []}', "tree.json has version 2 and this release reads 1"),
        ('{"version": 1, "levels": [{"level": "1", "cells": [0]}]}', "Level '1' does not exist"),
        ('{"version": 1, "levels": [{"level": 1, "cells": ["0"]}]}', "codes are integers"),
    ],
)
def test_a_file_that_holds_no_hierarchy_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Hierarchy.from_json(text, name="tree.json")


def test_a_precision_cap_leaves_the_levels_not_finer_than_it() -> None:
    tree = small()
    assert [level.number for level in tree.upto(3)] == [1, 3]
    assert [level.number for level in tree.upto(2)] == [1]
    assert len(tree.upto(None)) == 3
    with pytest.raises(InputError, match="finest = 0: the coarsest level is 1"):
        tree.upto(0)


def test_labels_need_codes_as_fine_as_the_leaves() -> None:
    with pytest.raises(InputError, match="depth = 3: labels need codes of level 4 or finer"):
        small().labels(np.array([0]), depth=3)


def test_a_cell_is_named_by_its_quadrants() -> None:
    assert [cell_name(0b00011011, 4), cell_name(0, 2), cell_name(0, 0)] == ["0/1/2/3", "0/0", "the Earth"]
