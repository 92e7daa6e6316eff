"""The graph network over the images of a cluster: edges, layers and the network. Tensors in, tensors out.

What belongs here: what is computed for a batch of clusters (b, n, ...) padded to n nodes, with a mask (b, n) of the
nodes that are images; what padding holds, of features and edges, is any finite number. Not: how batches are made
(`graph_batches`) or how the network is trained (`graph_learner`).

Padding is never seen: it sends nothing along edges, the softmax over nodes gives it nothing, and no layer normalises
over nodes or clusters. So a cluster's output depends neither on its padding nor on the order of its images, nor on the
other clusters of its batch.

Sources: Lee et al. 2021, "Predicting livelihood indicators from community-generated street-level imagery" (AAAI), whose
published code uses the layers of Such et al. 2017, "Robust spatial filtering with graph convolutional neural networks"
(IEEE JSTSP 11), on one adjacency matrix; Ilse et al. 2018, "Attention-based deep multiple instance learning" (ICML).
"""

from typing import Literal

import torch
from torch import Tensor, nn

Edges = Literal["inverse distance", "random", "identity", "complete"]
Pooling = Literal["softmax", "attention"]

REACH_M = 19_890.0
"""Distance at which the edge between two images is 0, metres: the largest within a cluster of the published data."""

WIDE, NARROW, DENSE = 64, 32, 256  # channels before and after the first pooling, units of the dense layer
SLOTS = (32, 8)  # nodes that are left after each pooling
_ATTENTION = 64  # hidden units of the attention gate


def inverse_distance(places: Tensor, *, reach_m: float = REACH_M) -> Tensor:
    """Edges 1 - d / reach_m, not below 0, from places (b, n, 3) in metres: (b, n, n), with a diagonal of exactly 1."""
    # The faster mode by matrix products is off by metres at 10 km in float32, and differently with padding.
    distance = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")
    return (1.0 - distance / reach_m).clamp(min=0.0)


def degrees(edges: Tensor, mask: Tensor | None = None) -> Tensor:
    """Sum of the edges (b, n, n) of each node to the images, or 1 where that is smaller: (b, n, 1), float32."""
    if mask is None:
        return edges.float().sum(dim=-1, keepdim=True).clamp(min=1.0)
    with torch.autocast(edges.device.type, enabled=False):  # bf16 would round each node's scale
        return torch.bmm(edges.float(), mask.float()[:, :, None]).clamp(min=1.0)


class GraphConv(nn.Module):
    """Nodes V (b, n, inputs), edges A (b, n, n) -> A V W / degree + V U + c, of shape (b, n, outputs).

    With a degree of 1 this is the layer of Such et al. 2017 (eq. 6) on one adjacency matrix, and GraphConv of Morris et
    al. 2019, "Weisfeiler and Leman go neural" (AAAI), with edge weights: PyTorch Geometric's `DenseGraphConv` with
    aggr="add". With `degrees(A)` it is the same with aggr="mean". Neither the symmetric normalisation of Kipf and
    Welling 2017 nor their shared weights: an image keeps a weight of its own. Nodes in `padding` (b, n, 1) send none.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.neighbours = nn.Linear(inputs, outputs, bias=False)
        self.own = nn.Linear(inputs, outputs)

    def forward(self, nodes: Tensor, edges: Tensor, *, degree: Tensor, padding: Tensor | None = None) -> Tensor:
        # (A V) W = A (V W): W mostly narrows, and edges are never copied, neither to mask nor to normalise them.
        sent = self.neighbours(nodes)
        if padding is not None:
            sent = sent.masked_fill(padding, 0.0)
        return torch.addcdiv(self.own(nodes), torch.bmm(edges.to(sent.dtype), sent), degree.to(sent.dtype))


class SoftmaxPool(nn.Module):
    """Nodes V (b, n, inputs), edges A -> S'V (b, slots, inputs) and S'AS (b, slots, slots), S (b, n, slots).

    S is the softmax over the nodes of a linear map of V, so that each slot is a weighted mean of images (Such et al.
    2017, graph embed pooling). DiffPool takes the softmax over the slots instead.
    """

    def __init__(self, inputs: int, slots: int) -> None:
        super().__init__()
        self.assign = nn.Linear(inputs, slots)

    def weights(self, nodes: Tensor, mask: Tensor | None = None) -> Tensor:
        """S: columns sum to 1, rows of padding are 0."""
        return _softmax_over_nodes(self.assign(nodes), mask)

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        share = self.weights(nodes, mask).transpose(1, 2).to(nodes.dtype)
        return torch.bmm(share, nodes), torch.bmm(torch.bmm(share, edges.to(share.dtype)), share.transpose(1, 2))


class GatedAttentionPool(nn.Module):
    """Nodes V (b, n, inputs) -> their weighted mean (b, inputs), with the weights of Ilse et al. 2018 (eq. 9).

    The weights are the softmax over the nodes of w' (tanh(V h) * sigmoid(U h)).
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.content = nn.Linear(inputs, _ATTENTION)
        self.gate = nn.Linear(inputs, _ATTENTION)
        self.score = nn.Linear(_ATTENTION, 1, bias=False)  # a bias would cancel in the softmax

    def weights(self, nodes: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention (b, n, 1): sums to 1 over the images, 0 for padding."""
        scores = self.score(torch.tanh(self.content(nodes)) * torch.sigmoid(self.gate(nodes)))
        return _softmax_over_nodes(scores, mask)

    def forward(self, nodes: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.bmm(self.weights(nodes, mask).transpose(1, 2).to(nodes.dtype), nodes).squeeze(1)


class GraphNetwork(nn.Module):
    """Nodes (b, n, inputs), edges (b, n, n), mask (b, n) -> outputs (b, outputs).

    GraphConv 64, 64; with `pooling` "softmax" a pool to 32 nodes, GraphConv 32, 32, a pool to 8 nodes; with "attention"
    gated attention; then dense 256 and the output. ReLU after each layer but the last. Every cluster has at least one
    image.

    The published network adds up neighbours and normalises each layer over the batch, padding included. Here the sum is
    divided by the degree: a node's scale does not depend on how many images there are, and nothing needs to be
    normalised over nodes. Sums without batch normalisation did not train: R2 0.0 where means reach 0.75, on 240
    simulated clusters of 5 to 40 images.
    """

    def __init__(self, inputs: int, outputs: int, *, pooling: Pooling, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = GraphConv(inputs, WIDE), GraphConv(WIDE, WIDE)
        self.pool: SoftmaxPool | GatedAttentionPool
        if pooling == "softmax":
            self.pool = SoftmaxPool(WIDE, SLOTS[0])
            self.third, self.fourth = GraphConv(WIDE, NARROW), GraphConv(NARROW, NARROW)
            self.last_pool = SoftmaxPool(NARROW, SLOTS[1])
        else:
            self.pool = GatedAttentionPool(WIDE)
        self.dense = nn.Linear(SLOTS[1] * NARROW if pooling == "softmax" else WIDE, DENSE)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(DENSE, outputs)

    def _images(self, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        """The nodes after the first two convolutions."""
        degree, padding = degrees(edges, mask), ~mask[:, :, None]
        nodes = torch.relu_(self.first(self.dropout(nodes), edges, degree=degree, padding=padding))
        return torch.relu_(self.second(nodes, edges, degree=degree, padding=padding))

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        nodes = self._images(nodes, edges, mask)
        if isinstance(self.pool, GatedAttentionPool):
            pooled = self.pool(nodes, mask)
        else:
            nodes, edges = self.pool(nodes, edges, mask)
            degree = degrees(edges)
            nodes = torch.relu_(self.third(nodes, edges, degree=degree))
            nodes = torch.relu_(self.fourth(nodes, edges, degree=degree))
            pooled = torch.bmm(self.last_pool.weights(nodes).transpose(1, 2).to(nodes.dtype), nodes)
        return self.output(self.dropout(torch.relu_(self.dense(pooled.flatten(1)))))

    def image_weights(self, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        """Each image's share (b, n) in the first pooling, a mean over its slots: sums to 1, 0 for padding."""
        return self.pool.weights(self._images(nodes, edges, mask), mask).mean(dim=2)


def _softmax_over_nodes(scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        scores = scores.masked_fill(~mask[:, :, None], float("-inf"))
    return torch.softmax(scores, dim=1)
