"""The graph network against the same layers in PyTorch Geometric: `python -m benchmarks.graph_layers`.

Complete graphs of 10 to 200 nodes with 512 features, forward and backward, the same weights on both sides:
seconds, ratio (above 1 means ours is faster), peak memory of a step and the largest difference of the outputs. The two
sides alternate, so that a machine that slows down slows both. On CUDA where there is one, else on one CPU thread.
"""

import os
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from urbanprint.models.graph import GraphConv, GraphNetwork, degrees

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch_geometric 2.8 calls what torch 2.15 deprecates when it is imported
    from torch_geometric.nn.conv import GraphConv as MessagePassing
    from torch_geometric.nn.dense import DenseGraphConv

_SIZES = (10, 20, 50, 100, 200)
_FEATURES = 512
_DENSE_BATCH, _LISTED_BATCH = 16, 2  # clusters; the messages between 200 images of 16 would take 2.5 GB
_SECONDS, _FEWEST = 2.0, 11  # a row takes about so long, and at least so many steps of either side

Step = Callable[[], Tensor]


class DenseTwin(nn.Module):
    """The network on PyTorch Geometric's dense layers; its pooling, which they do not offer, as it would be written."""

    def __init__(self, ours: GraphNetwork) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(_twin(conv) for conv in (ours.first, ours.second, ours.third, ours.fourth))
        self.assign = nn.ModuleList([_copied(ours.pool.assign), _copied(ours.last_pool.assign)])
        self.dense, self.output = _copied(ours.dense), _copied(ours.output)

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        for level, assign in enumerate(self.assign):
            for conv in self.convolutions[2 * level : 2 * level + 2]:
                nodes = torch.relu(conv(nodes, edges, mask if level == 0 else None))
            share = torch.softmax(assign(nodes), dim=1).transpose(1, 2)
            nodes, edges = share @ nodes, share @ edges @ share.transpose(1, 2)
        return self.output(torch.relu(self.dense(nodes.flatten(1))))


def _copied(linear: nn.Linear) -> nn.Linear:
    copy = nn.Linear(linear.in_features, linear.out_features)
    copy.load_state_dict(linear.state_dict())
    return copy


def _twin(conv: GraphConv) -> DenseGraphConv:
    twin = DenseGraphConv(conv.own.in_features, conv.own.out_features, aggr="mean")
    twin.load_state_dict(_their_names(conv))
    return twin


def _their_names(conv: GraphConv) -> dict[str, Tensor]:
    return {"lin_rel.weight": conv.neighbours.weight, "lin_rel.bias": conv.own.bias, "lin_root.weight": conv.own.weight}


def _trained(module: nn.Module, forward: Step) -> Step:
    """One forward and backward pass; returns the outputs."""

    def step() -> Tensor:
        outputs = forward()
        outputs.square().mean().backward()
        module.zero_grad(set_to_none=True)
        return outputs.detach()

    return step


def _seconds(steps: tuple[Step, Step], *, cuda: bool) -> tuple[float, float, float]:
    """Median seconds of either side, and the median of the ratios theirs / ours, over steps that alternate."""

    def timed(step: Step) -> float:
        begun = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    warm = [timed(step) for step in steps * 3]
    pairs = [(timed(steps[0]), timed(steps[1])) for _ in range(max(_FEWEST, round(_SECONDS / sum(warm[-2:]))))]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return ours, theirs, statistics.median(b / a for a, b in pairs)


def _peak_bytes(step: Step, *, cuda: bool) -> int:
    """The most a step holds beyond what was held before it."""
    step()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = profile.profiler.kineto_results.events() if profile.profiler else []
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def main() -> None:
    """Print the two tables."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler says on standard error when it starts
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cuda = device == "cuda"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = GraphNetwork(_FEATURES, 3, pooling="softmax").to(device)
    twin = DenseTwin(network).to(device)
    conv = GraphConv(_FEATURES, 64).to(device)
    passing = MessagePassing(_FEATURES, 64, aggr="add").to(device)
    passing.load_state_dict(_their_names(conv))

    head = f"{'nodes':>5} {'ours':>10} {'PyG':>10} {'ratio':>6} {'ours':>9} {'PyG':>9} {'ratio':>6} {'difference':>11}"
    for title in ("the network, dense layers", "GraphConv 512 -> 64, message passing along edges"):
        print(f"{title} ({device})\n{head}")
        for n in _SIZES:
            batch = _DENSE_BATCH if title.startswith("the") else _LISTED_BATCH
            nodes, edges = torch.randn(batch, n, _FEATURES, device=device), torch.ones(batch, n, n, device=device)
            mask = torch.ones(batch, n, dtype=torch.bool, device=device)
            if title.startswith("the"):
                steps = (
                    _trained(network, lambda: network(nodes, edges, mask)),  # noqa: B023
                    _trained(twin, lambda: twin(nodes, edges, mask)),  # noqa: B023
                )
            else:
                degree = degrees(edges)
                flat, index = nodes.flatten(0, 1), _listed(batch, n).to(device)
                weight = (edges / degree).flatten()
                steps = (
                    _trained(conv, lambda: conv(nodes, edges, degree=degree).flatten(0, 1)),  # noqa: B023
                    _trained(passing, lambda: passing(flat, index, weight)),  # noqa: B023
                )
            difference = float((steps[0]() - steps[1]()).abs().max())
            ours, theirs, ratio = _seconds(steps, cuda=cuda)
            peaks = [_peak_bytes(step, cuda=cuda) / 2**20 for step in steps]
            print(
                f"{n:>5} {ours * 1e3:8.2f}ms {theirs * 1e3:8.2f}ms {ratio:6.2f} {peaks[0]:6.2f}MiB {peaks[1]:6.2f}MiB"
                f" {peaks[1] / peaks[0]:6.2f} {difference:11.1e}",
                flush=True,
            )


def _listed(batch: int, n: int) -> Tensor:
    """All edges of the batch's complete graphs as (source, target), (2, batch x n x n), in the order of the matrix."""
    graph, target, source = torch.meshgrid(torch.arange(batch), torch.arange(n), torch.arange(n), indexing="ij")
    return torch.stack([(graph * n + source).flatten(), (graph * n + target).flatten()])


if __name__ == "__main__":
    main()
