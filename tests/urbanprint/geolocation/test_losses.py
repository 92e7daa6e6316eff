"""Losses against loops, second libraries and numerical gradients."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from urbanprint.errors import InputError
from urbanprint.geolocation import sphere
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.losses import (
    HierarchicalLoss,
    effective_number_weights,
    haversine_km,
    segment_logsumexp,
    smoothed_targets,
)
from urbanprint.geolocation.probabilities import joint

Tree = Callable[[int], Hierarchy]
SEEDS = st.integers(0, 10_000)


def case(tree: Hierarchy, *, images: int, seed: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the leaves and targets whose rows sum to 1, float64."""
    rng = np.random.default_rng(seed)
    leaves = len(tree.levels[-1])
    return torch.from_numpy(scale * rng.normal(size=(images, leaves))), torch.from_numpy(
        rng.dirichlet(np.full(leaves, 0.5), size=images)
    )


# --- sums of exponentials -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, scale=st.sampled_from([1.0, 1e4]), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_logsumexp_by_segments_equals_a_loop(seed: int, scale: float, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(seed)
    segment = rng.integers(0, 5, size=12)  # in any order, some without columns
    values = torch.from_numpy(scale * rng.normal(size=(3, 12))).to(dtype)
    found = segment_logsumexp(values, torch.from_numpy(segment), 5)
    assert found.dtype == dtype
    for s in range(5):
        inside = values.numpy()[:, segment == s].astype(float)
        expected = logsumexp(inside, axis=1) if inside.shape[1] else np.full(3, -np.inf)
        np.testing.assert_allclose(found[:, s].numpy(), expected, rtol=1e-6, atol=1e-6)


def test_gradients_of_logsumexp_by_segments_are_right() -> None:
    values = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    segment = torch.tensor([0, 2, 2, 1, 0, 2, 1])
    assert torch.autograd.gradcheck(lambda v: segment_logsumexp(v, segment, 3), (values,))


# --- targets --------------------------------------------------------------------------------------------------------


def test_distances_in_single_precision_are_right_to_metres_near_and_far() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-180, 180, 500), rng.uniform(-89, 89, 500)
    near = np.concatenate([rng.normal(0, 1e-3, 250), rng.normal(0, 1, 250)])
    places = [x, y, np.clip(x + near, -180, 180), y + near / 2]
    found = haversine_km(*(torch.from_numpy(v).float() for v in places))
    np.testing.assert_allclose(found.numpy(), sphere.haversine_km(*places), atol=3e-3)
    far = [x, y, x[::-1].copy(), y[::-1].copy()]
    found = haversine_km(*(torch.from_numpy(v) for v in far))
    np.testing.assert_allclose(found.numpy(), sphere.haversine_km(*far), atol=1e-6)


def test_targets_fall_with_the_distance_beyond_the_true_cell_as_in_the_paper() -> None:
    rng = np.random.default_rng(1)
    cells = rng.uniform([-180, -90], [180, 90], size=(30, 2))
    cells[:10] = cells[10:20] + rng.normal(0, 1, size=(10, 2))  # some near each other
    cells[:, 0], cells[:, 1] = (cells[:, 0] + 180) % 360 - 180, np.clip(cells[:, 1], -90, 90)
    true = rng.integers(0, 30, size=8)
    images = cells[true] + rng.normal(0, 0.3, size=(8, 2))
    images[:, 1] = np.clip(images[:, 1], -90, 90)
    found = smoothed_targets(*(torch.from_numpy(v) for v in (*images.T, *cells.T)), tau_km=75.0)
    for row, (image, label) in enumerate(zip(images, true, strict=True)):
        distance = [sphere.haversine_km(*image, *cell) for cell in cells]
        weight = np.array([np.exp(-(d - distance[label]) / 75.0) for d in distance])
        np.testing.assert_allclose(found[row].numpy(), weight / weight.sum(), atol=1e-9)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(8, dtype=torch.float64))


def test_across_the_antimeridian_a_cell_is_near() -> None:
    x = torch.tensor([179.9])
    found = smoothed_targets(x, torch.zeros(1), torch.tensor([-179.9, 178.0]), torch.zeros(2), tau_km=75.0)
    assert found[0, 0] > 0.9


def test_a_short_tau_leaves_the_nearest_cell_and_a_long_one_all_alike() -> None:
    place = torch.tensor([0.2]), torch.tensor([0.0])
    cells = torch.tensor([0.0, 1.0, 90.0]), torch.zeros(3)
    torch.testing.assert_close(smoothed_targets(*place, *cells, tau_km=0.1), torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(
        smoothed_targets(*place, *cells, tau_km=1e9), torch.full((1, 3), 1 / 3), atol=1e-4, rtol=0
    )
    with pytest.raises(InputError, match="tau_km = 0"):
        smoothed_targets(*place, *cells, tau_km=0)


# --- the loss at every level ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, scale=st.sampled_from([1.0, 1e4]), weighted=st.booleans())
def test_the_loss_equals_a_sum_over_images_levels_and_cells(
    make_tree: Tree, seed: int, scale: float, weighted: bool
) -> None:
    tree = make_tree(seed)
    rng = np.random.default_rng(seed)
    logits, targets = case(tree, images=3, seed=seed, scale=scale)
    level_weights = rng.uniform(0.1, 2.0, size=len(tree.levels))
    image_weights = rng.uniform(0.5, 2.0, size=3)
    leaf_classes = tree.ancestors(np.arange(targets.shape[1]))
    total = 0.0
    for image in range(3):
        loss = 0.0
        for number, values in enumerate(joint(logits.numpy(), tree)):
            for cell in range(values.shape[1]):
                target = targets[image].numpy()[leaf_classes[:, number] == cell].sum()
                loss -= level_weights[number] * target * values[image, cell]
        total += loss * (image_weights[image] / image_weights.sum() if weighted else 1 / 3)
    weights = torch.from_numpy(image_weights) if weighted else None
    found = HierarchicalLoss(tree, level_weights=level_weights.tolist())(logits, targets, weights)
    assert found.item() == pytest.approx(total, rel=1e-9, abs=1e-9)


def test_the_leaf_level_alone_with_one_hot_targets_is_the_cross_entropy(make_tree: Tree) -> None:
    tree = make_tree(3)
    logits, _ = case(tree, images=5, seed=0)
    labels = torch.arange(5) % logits.shape[1]
    one_hot = torch.nn.functional.one_hot(labels, logits.shape[1])
    loss = HierarchicalLoss(tree, level_weights=[0.0] * (len(tree.levels) - 1) + [1.0])
    torch.testing.assert_close(loss(logits, one_hot), torch.nn.functional.cross_entropy(logits, labels))
    weights = effective_number_weights(np.arange(1, logits.shape[1] + 1), beta=0.9).double()
    torch.testing.assert_close(
        loss(logits, one_hot, weights[labels]), torch.nn.functional.cross_entropy(logits, labels, weight=weights)
    )


@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_the_loss_are_right(make_tree: Tree, seed: int) -> None:
    tree = make_tree(seed)
    logits, targets = case(tree, images=3, seed=seed)
    loss = HierarchicalLoss(tree, level_weights=[1.0] * len(tree.levels))
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), (logits.requires_grad_(),))


def test_gradients_are_finite_for_huge_logits(make_tree: Tree) -> None:
    tree = make_tree(3)
    logits, targets = case(tree, images=4, seed=1, scale=1e4)
    logits = logits.float().requires_grad_()
    HierarchicalLoss(tree, level_weights=[1.0] * len(tree.levels))(logits, targets.float()).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().max() > 0


def test_a_near_miss_costs_less_than_a_far_one() -> None:
    tree = Hierarchy.from_leaves(np.array([0, 1, 15]), 2, levels=(1, 2))
    loss = HierarchicalLoss(tree, level_weights=[1.0, 1.0])
    target = torch.tensor([[1.0, 0.0, 0.0]])
    near, far = (loss(torch.tensor([guess]), target) for guess in ([0.0, 4.0, 0.0], [0.0, 0.0, 4.0]))
    assert near < far


def test_under_bfloat16_autocast_sums_stay_in_single_precision(make_tree: Tree) -> None:
    tree = make_tree(3)
    logits, targets = case(tree, images=8, seed=2, scale=20.0)
    rounded, soft = logits.bfloat16(), targets.float()
    loss = HierarchicalLoss(tree, level_weights=[1.0] * len(tree.levels))
    exact = loss(rounded.double(), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(rounded, soft)
        places = smoothed_targets(
            torch.tensor([10.0]), torch.tensor([50.0]), torch.tensor([10.01, 10.02]), torch.full((2,), 50.0), tau_km=1.0
        )
    assert found.dtype == places.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=1e-5)
    distance = sphere.haversine_km(10.0, 50.0, np.array([10.01, 10.02]), 50.0)
    np.testing.assert_allclose(places[0].numpy(), np.exp(-distance) / np.exp(-distance).sum(), atol=2e-3)


def test_the_tree_moves_with_the_module_and_is_not_among_its_weights(make_tree: Tree) -> None:
    loss = HierarchicalLoss(make_tree(3), level_weights=[1.0] * len(make_tree(3).levels))
    assert loss.state_dict() == {}
    assert {buffer.device.type for buffer in loss.to("meta").buffers()} == {"meta"}


def test_weights_of_levels_that_mean_nothing_are_refused(make_tree: Tree) -> None:
    tree = Hierarchy.from_leaves(np.array([0, 1]), 2, levels=(1, 2))
    with pytest.raises(InputError, match=r"There are 1 level_weights for the levels \[1, 2\]"):
        HierarchicalLoss(tree, level_weights=[1.0])
    for wrong in ([0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0], [float("inf"), 1.0]):
        with pytest.raises(InputError, match="numbers of at least 0 are expected"):
            HierarchicalLoss(tree, level_weights=wrong)


# --- weights of classes ---------------------------------------------------------------------------------------------


def test_class_weights_are_the_inverse_effective_numbers_with_mean_one() -> None:
    counts = np.array([1, 10, 100, 1000])
    effective = np.array([sum(0.99**i for i in range(n)) for n in counts])
    expected = (1 / effective) / (1 / effective).mean()
    np.testing.assert_allclose(effective_number_weights(counts, beta=0.99).numpy(), expected, rtol=1e-6)


def test_beta_runs_from_equal_weights_to_the_inverse_count() -> None:
    counts = np.array([1, 4])
    np.testing.assert_allclose(effective_number_weights(counts, beta=0.0), [1, 1])
    np.testing.assert_allclose(effective_number_weights(counts, beta=1 - 1e-9), [1.6, 0.4], rtol=1e-5)


def test_a_class_without_images_has_no_weight_and_is_not_in_the_mean() -> None:
    np.testing.assert_allclose(effective_number_weights(np.array([0, 5, 5])), [0, 1, 1])
    with pytest.raises(InputError, match="None of the 2 classes has training images"):
        effective_number_weights(np.array([0, 0]))
    with pytest.raises(InputError, match="beta = 1"):
        effective_number_weights(np.array([1]), beta=1)
