"""The graph network's layers: equal to a second library's, blind to padding, indifferent to the order of images."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from urbanprint.models.graph import (
    REACH_M,
    GatedAttentionPool,
    GraphConv,
    GraphNetwork,
    SoftmaxPool,
    degrees,
    inverse_distance,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch_geometric 2.8 calls what torch 2.15 deprecates when it is imported
    dense = pytest.importorskip("torch_geometric.nn.dense.dense_graph_conv")
    sparse = pytest.importorskip("torch_geometric.nn.conv.graph_conv")

POOLINGS = ("softmax", "attention")


def graph(clusters: int, images: int, features: int = 12, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes, inverse-distance edges of images within a few kilometres, and a mask without padding."""
    generator = torch.Generator().manual_seed(seed)
    nodes = torch.randn(clusters, images, features, generator=generator)
    edges = inverse_distance(4000.0 * torch.randn(clusters, images, 3, generator=generator))
    return nodes, edges, torch.ones(clusters, images, dtype=torch.bool)


def network(pooling: str, *, seed: int = 0) -> GraphNetwork:
    torch.manual_seed(seed)
    return GraphNetwork(12, 3, pooling=pooling).eval()  # type: ignore[arg-type]


def with_padding(nodes: Tensor, edges: Tensor, mask: Tensor, more: int, fill: float) -> tuple[Tensor, Tensor, Tensor]:
    clusters, images, features = nodes.shape
    wide = torch.full((clusters, images + more, features), fill)
    square = torch.full((clusters, images + more, images + more), fill)
    marks = torch.zeros(clusters, images + more, dtype=torch.bool)
    wide[:, :images], square[:, :images, :images], marks[:, :images] = nodes, edges, mask
    return wide, square, marks


# --- against PyTorch Geometric --------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregation", ["add", "mean"])
@pytest.mark.parametrize(("inputs", "outputs"), [(12, 64), (64, 64), (512, 64), (64, 32)])
def test_graph_conv_equals_the_dense_layer_of_pytorch_geometric(aggregation: str, inputs: int, outputs: int) -> None:
    torch.manual_seed(1)
    nodes, edges, _ = graph(2, 40, inputs)
    edges[:, :, 5:] *= 0.01  # rows that sum to less than 1 are not divided
    edges[:, 7, :] *= 0.01
    ours, theirs = GraphConv(inputs, outputs), dense.DenseGraphConv(inputs, outputs, aggr=aggregation)
    theirs.load_state_dict(
        {
            "lin_rel.weight": ours.neighbours.weight,
            "lin_rel.bias": ours.own.bias,
            "lin_root.weight": ours.own.weight,
        }
    )
    found = ours(nodes, edges, degree=degrees(edges) if aggregation == "mean" else torch.ones(1))
    torch.testing.assert_close(found, theirs(nodes, edges), atol=1e-5, rtol=1e-5)


def test_graph_conv_equals_message_passing_along_a_list_of_edges() -> None:
    torch.manual_seed(2)
    nodes, edges, _ = graph(1, 15)
    ours, theirs = GraphConv(12, 64), sparse.GraphConv(12, 64, aggr="add")
    theirs.load_state_dict(
        {
            "lin_rel.weight": ours.neighbours.weight,
            "lin_rel.bias": ours.own.bias,
            "lin_root.weight": ours.own.weight,
        }
    )
    to, source = edges[0].nonzero().T
    listed = theirs(nodes[0], torch.stack([source, to]), edges[0][to, source])
    torch.testing.assert_close(ours(nodes, edges, degree=torch.ones(1))[0], listed, atol=1e-5, rtol=1e-5)


# --- by hand --------------------------------------------------------------------------------------------------------


def test_edges_fall_linearly_with_distance_and_are_never_negative() -> None:
    places = torch.tensor([[[0.0, 0.0, 0.0], [REACH_M / 4, 0.0, 0.0], [0.0, 2 * REACH_M, 0.0]]])
    expected = torch.tensor([[[1.0, 0.75, 0.0], [0.75, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    torch.testing.assert_close(inverse_distance(places), expected)


def test_edges_of_many_images_far_from_their_centre_keep_metres() -> None:
    places = np.random.default_rng(0).normal(size=(80, 3)) * 50.0 + [9000.0, -9000.0, 4000.0]
    exact = 1 - np.linalg.norm(places[:, None] - places[None], axis=2) / REACH_M
    edges = inverse_distance(torch.from_numpy(places.astype(np.float32))[None])[0]
    np.testing.assert_allclose(edges.numpy(), exact, atol=1e-6)
    assert (edges.diagonal() == 1.0).all()


def test_softmax_pool_gives_weighted_means_of_nodes_and_s_transposed_a_s() -> None:
    torch.manual_seed(3)
    nodes, edges, mask = graph(1, 6)
    pool = SoftmaxPool(12, 4)
    v, a = nodes[0].numpy().astype(float), edges[0].numpy().astype(float)
    with torch.no_grad():
        logits = (pool.assign(nodes)[0]).numpy().astype(float)
        pooled, pooled_edges = pool(nodes, edges, mask)
    s = np.exp(logits) / np.exp(logits).sum(axis=0)
    np.testing.assert_allclose(pooled[0].numpy(), s.T @ v, atol=1e-6)
    np.testing.assert_allclose(pooled_edges[0].numpy(), s.T @ a @ s, atol=1e-6)


def test_gated_attention_is_a_convex_mix_with_the_weights_of_the_paper() -> None:
    torch.manual_seed(4)
    nodes, _, mask = graph(1, 6)
    pool = GatedAttentionPool(12)
    w, v, u = pool.score.weight[0], pool.content, pool.gate
    scores = torch.stack([w @ (torch.tanh(v(h)) * torch.sigmoid(u(h))) for h in nodes[0]])
    weights = torch.exp(scores) / torch.exp(scores).sum()
    torch.testing.assert_close(pool.weights(nodes, mask)[0, :, 0], weights)
    torch.testing.assert_close(pool(nodes, mask)[0], weights @ nodes[0])


# --- padding and order ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    images=st.integers(1, 50),
    more=st.integers(1, 150),
    fill=st.sampled_from([0.0, 7.0, -1e6]),
    pooling=st.sampled_from(POOLINGS),
    seed=st.integers(0, 99),
)
def test_padding_changes_nothing_whatever_numbers_it_holds(
    images: int, more: int, fill: float, pooling: str, seed: int
) -> None:
    model, cluster = network(pooling, seed=seed), graph(2, images, seed=seed)
    with torch.inference_mode():
        alone, padded = model(*cluster), model(*with_padding(*cluster, more, fill))
    torch.testing.assert_close(padded, alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_150_padding_nodes_change_neither_outputs_nor_gradients(pooling: str) -> None:
    model, cluster = network(pooling), graph(2, 50)
    found = []
    for inputs in (cluster, with_padding(*cluster, 150, 3.0)):
        model.zero_grad()
        outputs = model(*inputs)
        outputs.sum().backward()
        found.append((outputs.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-6, rtol=0)
    for alone, padded in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(alone, padded, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(images=st.integers(2, 200), pooling=st.sampled_from(POOLINGS), seed=st.integers(0, 99))
def test_the_order_of_images_changes_nothing(images: int, pooling: str, seed: int) -> None:
    model, (nodes, edges, mask) = network(pooling, seed=seed), graph(1, images, seed=seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(images))
    with torch.inference_mode():
        shuffled = model(nodes[:, order], edges[:, order][:, :, order], mask)
        torch.testing.assert_close(shuffled, model(nodes, edges, mask), atol=1e-6, rtol=0)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_image_edge_and_cluster_of_a_batch_counts_for_its_own_cluster_only(pooling: str) -> None:
    model, (nodes, edges, mask) = network(pooling), graph(2, 7)
    before = model(nodes, edges, mask)
    for image in range(7):
        changed = nodes.clone()
        changed[0, image] += 3.0
        after = model(changed, edges, mask)
        assert (after[0] - before[0]).abs().max() > 1e-4
        torch.testing.assert_close(after[1], before[1], atol=1e-7, rtol=0)
    cut = edges.clone()
    cut[0, 2, 5] = 0.0
    assert (model(nodes, cut, mask)[0] - before[0]).abs().max() > 1e-7


@pytest.mark.parametrize("pooling", POOLINGS)
def test_image_weights_sum_to_one_over_the_images_and_are_zero_for_padding(pooling: str) -> None:
    padded = with_padding(*graph(2, 9), 5, 1e6)
    weights = network(pooling).image_weights(*padded)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    assert (weights[:, 9:] == 0.0).all()
    assert (weights[:, :9] > 0.0).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_mixed_precision_gives_nearly_the_same_outputs_and_gradients(pooling: str) -> None:
    model, cluster = network(pooling), with_padding(*graph(2, 60), 20, 1.0)
    found = []
    for mixed in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            outputs = model(*cluster)
        outputs.float().square().sum().backward()
        assert model.first.neighbours.weight.grad is not None
        found.append((outputs.dtype, outputs.detach().float(), model.first.neighbours.weight.grad.clone()))
    assert [dtype for dtype, _, _ in found] == [torch.float32, torch.bfloat16]
    torch.testing.assert_close(found[1][1], found[0][1], atol=0.01, rtol=0.05)
    assert torch.nn.functional.cosine_similarity(found[0][2].flatten(), found[1][2].flatten(), dim=0) > 0.98


def test_the_network_has_the_published_widths() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in network("softmax").state_dict().items()}
    assert shapes["first.own.weight"] == (64, 12)
    assert shapes["second.neighbours.weight"] == (64, 64)
    assert shapes["pool.assign.weight"] == (32, 64)
    assert shapes["third.own.weight"] == (32, 64)
    assert shapes["fourth.neighbours.weight"] == (32, 32)
    assert shapes["last_pool.assign.weight"] == (8, 32)
    assert shapes["dense.weight"] == (256, 8 * 32)
    assert shapes["output.weight"] == (3, 256)
