"""The graph network as a learner: its training, and the factory for cross-fitting.

One network has an output an indicator; labels that are missing are masked. Everything chosen on data - the scaling of
the features, the epoch to stop at - is chosen inside the training part of a split.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from urbanprint.errors import InputError, LeakingSplit, MissingImages
from urbanprint.evaluation.crossfit import Learner
from urbanprint.evaluation.splits import Split, inner_split
from urbanprint.evaluation.tasks import Task, task_labels
from urbanprint.models.card import CARD_FILE, load_card
from urbanprint.models.embedding import mixed_precision, pick_device
from urbanprint.models.graph import GraphNetwork
from urbanprint.models.graph_batches import Clusters, gather, padded, plan_batches
from urbanprint.models.graph_model import (
    GraphConfig,
    GraphEpoch,
    GraphModel,
    Scaling,
    build_network,
    cluster_outputs,
    load_graph,
    standardise,
)
from urbanprint.models.learners import VALIDATION_SHARE
from urbanprint.models.provenance import FeatureSource, features_for
from urbanprint.models.training import learning_rate_at

_CLIP = 2.0  # largest norm of the gradient


def masked_losses(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Cross-entropy or squared error of each known label, (known,); NaN targets are left out."""
    known = torch.isfinite(targets)
    outputs, targets = outputs.float()[known], targets[known]
    if task == "classification":
        return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    return (outputs - targets) ** 2


def train_graph(
    features: pd.DataFrame,
    positions: pd.DataFrame,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    train_areas: Sequence[str],
    validation_areas: Sequence[str],
    task: Task,
    config: GraphConfig,
    on_epoch: Callable[[GraphEpoch], None] | None = None,
) -> GraphModel:
    """Train on `train_areas`, keep the epoch with the least loss on `validation_areas`, stop when it rises.

    `labels` is indexed by area_id, a column an indicator, NaN where unknown: 0 or 1 for classification, else values in
    any unit. Areas without images or labels are left out. The same on every run on a CPU.

    Raises `LeakingSplit` for an area in both parts, `MissingImages` where a part has no labelled area with images,
    `InputError` for an indicator no training area has.
    """
    if shared := sorted(set(train_areas) & set(validation_areas)):
        raise LeakingSplit(f"{len(shared)} areas are in training and in validation: {', '.join(shared[:5])}.")
    parts, targets = [], []
    labelled = labels.index[labels.notna().any(axis=1)]
    for name, areas in (("training", train_areas), ("validation", validation_areas)):
        usable = images[images["area_id"].isin(labelled.intersection(list(areas)))]
        if usable.empty:
            raise MissingImages(f"0 of {len(areas)} {name} areas have images and labels, at least 1 is needed.")
        parts.append(gather(features, positions, usable, most=config.max_images, seed=config.seed))
        targets.append(labels.loc[list(parts[-1].area_ids)].to_numpy(dtype=np.float32))
    unknown = labels.columns[np.isnan(targets[0]).all(axis=0)]
    if len(unknown):
        raise InputError(f"indicator {unknown[0]!r} is known in no training area: leave it out.")
    scaling = _scaling(parts[0].features, targets[0], task)
    training, validation = parts
    for part in parts:
        standardise(part.features, scaling)
    wanted, held_out = (torch.from_numpy((target - scaling[2]) / scaling[3]) for target in targets)

    device = pick_device(config.device)
    network = build_network(training.features.shape[1], labels.shape[1], config).to(device)
    _start_at_the_mean(network, wanted, task)
    optimiser = _optimiser(network, config)
    history: list[GraphEpoch] = []
    best = _copy(network)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # dropout draws from the global generator
        torch.manual_seed(config.seed)
        while len(history) < config.epochs and _may_improve(history, config.patience):
            loss = _train_epoch(network, optimiser, training, wanted, task, config, epoch=len(history), device=device)
            outputs = cluster_outputs(network.eval(), validation, config, device=device)
            error = float(masked_losses(outputs, held_out, task).mean())
            improved = error < min((epoch.validation_loss for epoch in history), default=math.inf)
            epoch = GraphEpoch(
                epoch=len(history),
                train_loss=loss,
                validation_loss=error,
                learning_rate=optimiser.param_groups[0]["lr"],
                best=improved,
            )
            history.append(epoch)
            best = _copy(network) if improved else best
            if on_epoch is not None:
                on_epoch(epoch)
    network.load_state_dict(best)
    return GraphModel(
        network=network.eval(),
        config=config,
        task=task,
        indicators=tuple(labels.columns),
        scaling=scaling,
        trained_on=frozenset(training.area_ids + validation.area_ids),
        history=tuple(history),
    )


def _scaling(features: np.ndarray, targets: np.ndarray, task: Task) -> Scaling:
    """Means and spreads of the features and of the labels; a constant column keeps a spread of 1."""
    centre = features.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(centre)
    for rows in np.array_split(features, 1 + len(features) // 65_536):  # whole, the differences would take 4 GB more
        squares += ((rows - centre) ** 2).sum(axis=0)
    if task == "classification":
        mean, deviation = np.zeros(targets.shape[1]), np.ones(targets.shape[1])
    else:
        mean, deviation = np.nanmean(targets, axis=0), np.nanstd(targets, axis=0)
    found = (centre, np.sqrt(squares / len(features)), mean, deviation)
    single = [np.asarray(values, dtype=np.float32) for values in found]
    for spread in single[1::2]:
        spread[spread == 0.0] = 1.0
    return single[0], single[1], single[2], single[3]


def _start_at_the_mean(network: GraphNetwork, targets: Tensor, task: Task) -> None:
    """Let the untrained network predict each indicator's mean: epochs then go into what differs between clusters."""
    mean = torch.nanmean(targets, dim=0)
    with torch.no_grad():
        network.output.weight.mul_(0.1)
        network.output.bias.copy_(torch.logit(mean.clamp(0.01, 0.99)) if task == "classification" else mean)


def _optimiser(network: nn.Module, config: GraphConfig) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},  # biases
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _train_epoch(
    network: GraphNetwork,
    optimiser: torch.optim.AdamW,
    clusters: Clusters,
    targets: Tensor,
    task: Task,
    config: GraphConfig,
    *,
    epoch: int,
    device: str,
) -> float:
    network.train()
    plan = plan_batches(
        clusters.sizes,
        clusters=config.batch_clusters,
        cells=config.batch_cells,
        rng=np.random.default_rng([config.seed, epoch]),
    )
    losses: list[Tensor] = []
    batches = padded(clusters, plan, edges=config.edges, seed=config.seed, device=device)
    for step, batch in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(
                (epoch + (step + 0.5) / len(plan)) / config.epochs, peak=config.learning_rate
            )
        with mixed_precision(device):
            outputs = network(batch.nodes, batch.edges, batch.mask)
        each = masked_losses(outputs, targets[torch.from_numpy(batch.rows)].to(device), task)
        optimiser.zero_grad(set_to_none=True)
        each.mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimiser.step()
        losses.append(each.detach())
    return float(torch.cat(losses).mean())


def _may_improve(history: list[GraphEpoch], patience: int) -> bool:
    return not history or any(epoch.best for epoch in history[-patience:])


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def graph_learner(
    features: FeatureSource,
    positions: pd.DataFrame,
    labels: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    task: Task,
    config: GraphConfig,
    checkpoints: Path | None = None,
    on_model: Callable[[Split, GraphModel], object] | None = None,
    on_epoch: Callable[[Split, GraphEpoch], None] | None = None,
) -> Learner:
    """The graph network: probabilities of label 1 for classification, values in the labels' unit for regression.

    `features` are indexed by image_id, a column a feature: object counts, image features or both side by side, with
    their provenance where they have seen labels. `positions` are indexed by image_id with longitude and latitude,
    `labels` by area_id, a column an indicator (NaN = unknown). A part of whole blocks of the training areas, the same
    as the image-wise network's for the same seed, decides when to stop; the labels' median or scale is that of the
    training areas. A fold that was finished under `checkpoints` is not trained again.

    The learner raises `LeakingSplit` for features fitted on labels of the areas a split tests.
    """

    def learn(split: Split, training: pd.DataFrame, testing: pd.DataFrame) -> pd.DataFrame:
        table = features_for(features, split)
        model = fit_graph(
            split,
            training,
            table,
            positions,
            labels,
            folds,
            task=task,
            config=config,
            folder=None if checkpoints is None else checkpoints / split.label,
            on_epoch=on_epoch,
        )
        if on_model is not None:
            on_model(split, model)
        return model.predict(table, positions, testing)

    return learn


def fit_graph(
    split: Split,
    training: pd.DataFrame,
    features: pd.DataFrame,
    positions: pd.DataFrame,
    labels: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    task: Task,
    config: GraphConfig,
    folder: Path | None = None,
    on_epoch: Callable[[Split, GraphEpoch], None] | None = None,
) -> GraphModel:
    """Train on the images of the training clusters of a split; a model in `folder` made of the same is read instead.

    Arguments as of `graph_learner`, `features` past the guard.
    """
    wanted, _ = task_labels(labels, split, task=task)
    trained, validated = inner_split(split, folds, share=VALIDATION_SHARE, seed=config.seed)
    mark = "" if folder is None else _fingerprint(features, positions, training, wanted, task, config, trained)
    if folder is not None and (folder / CARD_FILE).is_file() and load_card(folder)["data_version"] == mark:
        return load_graph(folder, device=config.device)
    model = train_graph(
        features,
        positions,
        training,
        wanted,
        train_areas=trained,
        validation_areas=validated,
        task=task,
        config=config,
        on_epoch=(lambda epoch: on_epoch(split, epoch)) if on_epoch else None,
    )
    # The median or scale of the labels comes from all training areas, whether they have images or not.
    model = replace(model, trained_on=model.trained_on | frozenset(split.train))
    if folder is not None:
        model.save(folder, _fold_card(split, mark))
    return model


def _fingerprint(
    features: pd.DataFrame,
    positions: pd.DataFrame,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    task: Task,
    config: GraphConfig,
    trained: Sequence[str],
) -> str:
    """What a finished fold is recognised by: everything its weights depend on, in the order of the images' ids."""
    images = images[["image_id", "area_id"]].sort_values(["area_id", "image_id"])
    settings = {name: value for name, value in asdict(config).items() if name != "device"}
    text = json.dumps([task, settings, list(trained), list(features.columns), images.to_numpy().tolist()])
    digest = hashlib.sha256(text.encode())
    digest.update(features.loc[images["image_id"]].to_numpy(dtype=np.float64).tobytes())
    for table in (positions.loc[images["image_id"]], labels):
        digest.update(pd.util.hash_pandas_object(table).to_numpy().tobytes())
    return digest.hexdigest()


def _fold_card(split: Split, data_version: str) -> dict[str, Any]:
    return {
        "split": {"kind": split.kind, "fold": split.fold, "test": list(split.test)},
        "scores": {},
        "data_version": data_version,
        "licence": "that of the images it was trained on",
        "intended_use": "predicting the test areas of its fold",
        "limits": "one fold of a cross-validation, without scores of its own",
    }
