"""The graph network as a model: its settings, how a trained one is applied, and the model directory it is kept in.

Not here: how it is trained (`graph_learner`), how batches are made (`graph_batches`), its layers (`graph`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from urbanprint.errors import InputError
from urbanprint.evaluation.tasks import Task
from urbanprint.models.card import check_architecture, load_model, save_model
from urbanprint.models.embedding import mixed_precision, pick_device
from urbanprint.models.graph import Edges, GraphNetwork, Pooling
from urbanprint.models.graph_batches import Clusters, gather, padded, plan_batches
from urbanprint.vocabulary import INDICATORS, LIVELIHOODS

_ARCHITECTURE = "graph"


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """How to train. `max_images` of a cluster, a seeded choice; `patience` = epochs without a better validation loss.

    A batch has at most `batch_clusters` clusters, and at most `batch_cells` entries of padded edges (clusters x images
    squared; 2,000,000 are 8 MB) unless it is one cluster. Raises `InputError` naming the setting that is out of range.
    """

    edges: Edges = "inverse distance"
    pooling: Pooling = "softmax"
    max_images: int = 200
    epochs: int = 60
    patience: int = 12
    batch_clusters: int = 16
    batch_cells: int = 2_000_000
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        wanted = {
            "max_images": (self.max_images >= 1, "at least 1"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "patience": (self.patience >= 1, "at least 1"),
            "batch_clusters": (self.batch_clusters >= 1, "at least 1"),
            "batch_cells": (self.batch_cells >= 1, "at least 1"),
            "learning_rate": (0.0 < self.learning_rate <= 1.0, "above 0 and at most 1"),
            "weight_decay": (self.weight_decay >= 0.0, "0 or more"),
            "dropout": (0.0 <= self.dropout < 1.0, "at least 0 and below 1"),
            "seed": (self.seed >= 0, "0 or more"),
        }
        for setting, (holds, expected) in wanted.items():
            if not holds:
                raise InputError(f"graph setting {setting} = {getattr(self, setting)!r} must be {expected}.")


Scaling = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Mean and spread of the features (d,), mean and spread of the labels (outputs,): 0 and 1 for classification."""


@dataclass(frozen=True, kw_only=True)
class GraphEpoch:
    """What one epoch did; losses are means over known labels. `best` = the least validation loss so far."""

    epoch: int
    train_loss: float
    validation_loss: float
    learning_rate: float
    best: bool


@dataclass(frozen=True, kw_only=True)
class GraphModel:
    """A trained network and how to apply it. `trained_on`: the areas whose labels it has seen, in any part."""

    network: GraphNetwork
    config: GraphConfig
    task: Task
    indicators: tuple[str, ...]
    scaling: Scaling
    trained_on: frozenset[str]
    history: tuple[GraphEpoch, ...] = ()

    def clusters(self, features: pd.DataFrame, positions: pd.DataFrame, images: pd.DataFrame) -> Clusters:
        """The clusters of `images` as this model sees them, features standardised. Raises as `gather` does."""
        if features.shape[1] != len(self.scaling[0]):
            raise InputError(
                f"the graph model was trained on {len(self.scaling[0])} features and got {features.shape[1]}: "
                f"use the table it was trained with."
            )
        found = gather(features, positions, images, most=self.config.max_images, seed=self.config.seed)
        standardise(found.features, self.scaling)
        return found

    def respond(self, outputs: Tensor) -> np.ndarray:
        """Predictions from the network's outputs: probabilities of label 1, or values in the labels' own unit."""
        values = outputs.detach().float().cpu().numpy().astype(np.float64)
        return (
            1.0 / (1.0 + np.exp(-values))
            if self.task == "classification"
            else values * self.scaling[3] + self.scaling[2]
        )

    def predict(self, features: pd.DataFrame, positions: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
        """Predictions indexed by area_id (sorted), a column an indicator; `images` holds image_id and area_id."""
        clusters = self.clusters(features, positions, images)
        device = pick_device(self.config.device)
        outputs = cluster_outputs(self.network.to(device).eval(), clusters, self.config, device=device)
        return pd.DataFrame(
            self.respond(outputs), index=pd.Index(clusters.area_ids, name="area_id"), columns=list(self.indicators)
        )

    def save(self, folder: Path, card: Mapping[str, Any]) -> Path:
        """Write the model directory; architecture, config, labels and training are added to what `card` holds."""
        tensors = {f"network.{name}": tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}
        tensors |= {f"scaling.{number}": array for number, array in enumerate(self.scaling)}
        names = INDICATORS | LIVELIHOODS
        unit = "probability of at least the median" if self.task == "classification" else "as in the survey"
        own = {
            "architecture": _ARCHITECTURE,
            "config": {"task": self.task, **asdict(self.config)},
            "labels": {name: {"name": names.get(name, name), "unit": unit} for name in self.indicators},
            "trained_on": sorted(self.trained_on),
            "history": [asdict(epoch) for epoch in self.history],
        }
        return save_model(folder, tensors, {**card, **own})


def load_graph(folder: Path, *, device: str | None = None) -> GraphModel:
    """The model in a model directory, in eval mode. Raises `InputError` or `MissingWeights` as `load_model` does."""
    tensors, card = load_model(folder)
    check_architecture(folder, card, _ARCHITECTURE)
    settings = dict(card["config"])
    task = settings.pop("task")
    config = GraphConfig(**{**settings, "device": device})
    scaling = tuple(tensors.pop(f"scaling.{number}") for number in range(4))
    network = build_network(len(scaling[0]), len(card["labels"]), config)
    state = {name.removeprefix("network."): torch.from_numpy(tensor) for name, tensor in tensors.items()}
    if {name: tensor.shape for name, tensor in network.state_dict().items()} != {n: t.shape for n, t in state.items()}:
        raise InputError(f"{folder}: its tensors are not those of a graph network: save the model again.")
    network.load_state_dict(state)
    return GraphModel(
        network=network.eval(),
        config=config,
        task=task,
        indicators=tuple(card["labels"]),
        scaling=scaling,  # type: ignore[arg-type]
        trained_on=frozenset(card["trained_on"]),
        history=tuple(GraphEpoch(**epoch) for epoch in card["history"]),
    )


def build_network(inputs: int, outputs: int, config: GraphConfig) -> GraphNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return GraphNetwork(inputs, outputs, pooling=config.pooling, dropout=config.dropout)


@torch.inference_mode()
def cluster_outputs(network: GraphNetwork, clusters: Clusters, config: GraphConfig, *, device: str) -> Tensor:
    """Outputs (clusters, k) on the CPU, in the clusters' order."""
    plan = plan_batches(clusters.sizes, clusters=len(clusters.sizes), cells=config.batch_cells)
    found = torch.empty(len(clusters.sizes), network.output.out_features)
    for batch in padded(clusters, plan, edges=config.edges, seed=config.seed, device=device):
        with mixed_precision(device):
            outputs = network(batch.nodes, batch.edges, batch.mask)
        found[torch.from_numpy(batch.rows)] = outputs.float().cpu()
    return found


def standardise(features: np.ndarray, scaling: Scaling) -> None:
    """In place: the rows of a million images are not held twice."""
    np.subtract(features, scaling[0], out=features)
    np.divide(features, scaling[1], out=features)
