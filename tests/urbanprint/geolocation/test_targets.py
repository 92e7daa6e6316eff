"""What is wanted of a batch: the objectives of both designs, and what mixing does to pixels and targets alike."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.losses import smoothed_targets
from urbanprint.geolocation.targets import JointObjective, LevelObjective, cut_and_mix

SEEDS = st.integers(0, 10_000)


def test_the_level_objective_is_cross_entropy_smoothed_in_training_only() -> None:
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1, 1, 2])
    objective = LevelObjective(4, label_smoothing=0.2)
    targets = objective.targets(labels, torch.zeros(5, 2))
    smooth = functional.cross_entropy(logits, labels, label_smoothing=0.2)
    torch.testing.assert_close(objective.train()(logits, targets), smooth)
    torch.testing.assert_close(objective.eval()(logits, targets), functional.cross_entropy(logits, labels))


def joint(centres: list[tuple[float, float]], *, tau_km: float = 75.0) -> JointObjective:
    tree = Hierarchy.from_levels({2: np.arange(len(centres))})
    return JointObjective(tree, torch.tensor(centres), tau_km=tau_km)


def test_the_joint_targets_fall_off_with_distance() -> None:
    centres = [(0.0, 0.0), (1.0, 0.0), (5.0, 0.0)]
    places = torch.tensor([[0.2, 0.0], [5.1, 0.0]])
    targets = joint(centres).targets(torch.tensor([0, 2]), places)
    x, y = torch.tensor(centres).T
    torch.testing.assert_close(targets, smoothed_targets(places[:, 0], places[:, 1], x, y, tau_km=75.0))
    assert targets[0, 0] > targets[0, 1] > targets[0, 2] > 0


def test_an_image_far_from_the_centre_of_its_own_large_cell_wants_that_cell_alone() -> None:
    targets = joint([(0.0, 0.0), (30.0, 0.0)]).targets(torch.tensor([1]), torch.tensor([[3.0, 0.0]]))
    assert targets.tolist() == [[0.0, 1.0]]


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_joint_targets_sum_to_one_and_none_is_larger_than_that_of_the_own_cell(
    make_tree: Callable[[int], Hierarchy], seed: int
) -> None:
    tree, rng = make_tree(seed), np.random.default_rng(seed)
    leaves = len(tree.levels[-1])
    centres, places = (torch.from_numpy(rng.uniform((-180, -90), (180, 90), (n, 2))).float() for n in (leaves, 9))
    labels = torch.from_numpy(rng.integers(leaves, size=9))
    targets = JointObjective(tree, centres, tau_km=2000.0).targets(labels, places)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(9))
    assert (targets.gather(1, labels[:, None])[:, 0] == targets.amax(dim=1)).all()


def test_levels_weigh_alike_unless_told_otherwise() -> None:
    tree = Hierarchy.from_levels({1: np.array([0, 1]), 2: np.array([0, 1, 4, 5])})
    logits, centres = torch.tensor([[2.0, 0.0, 1.0, -1.0]]), torch.zeros(4, 2)
    targets = functional.one_hot(torch.tensor([0]), 4).float()
    alike = JointObjective(tree, centres, tau_km=75.0)(logits, targets)
    single = [
        JointObjective(tree, centres, tau_km=75.0, level_weights=w)(logits, targets) for w in ((1.0, 0.0), (0.0, 1.0))
    ]
    torch.testing.assert_close(alike, single[0] + single[1])


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_targets_are_mixed_as_the_pixels_are(seed: int) -> None:
    classes = 6
    views = torch.arange(classes).float()[:, None, None, None].expand(classes, 3, 20, 30)
    targets = torch.eye(classes)
    mixed, wanted = cut_and_mix(views, targets, torch.Generator().manual_seed(seed))
    share = torch.stack([(mixed == number).float().mean(dim=(1, 2, 3)) for number in range(classes)], dim=1)
    torch.testing.assert_close(wanted, share)
    assert torch.equal(views[:, 0, 0, 0], torch.arange(classes).float())  # the batch itself is left as it was


def test_a_rectangle_stays_where_it_was_and_is_of_the_size_of_cutmix() -> None:
    """Of area u around a uniform place, (sqrt(u) - u / 4)^2 lies inside: 1/2 - 1/5 + 1/48 on average over u."""
    alike = torch.linspace(-1, 1, 30).expand(8, 3, 20, 30)
    numbered = torch.arange(8).float()[:, None, None, None].expand(8, 3, 20, 30)
    exchanged = []
    for seed in range(400):
        assert torch.equal(cut_and_mix(alike, torch.eye(8), torch.Generator().manual_seed(seed))[0], alike)
        mixed, _ = cut_and_mix(numbered, torch.eye(8), torch.Generator().manual_seed(seed))
        exchanged.append(float((mixed != numbered).float().mean()))
    own = 1 / 8  # of the views get their own rectangle back
    assert np.mean(exchanged) == pytest.approx((1 / 2 - 1 / 5 + 1 / 48) * (1 - own), abs=0.04)
