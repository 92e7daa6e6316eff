"""Which images and which edges a graph model's prediction rests on, and how much better more images make a model.

Explanations are of held-out clusters only: on a cluster the model was trained on they would show its memory. The
curves take any learner or predictor, so that all models of images stand on one axis.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import accuracy_score, r2_score
from torch import Tensor

from urbanprint.errors import InputError, LeakingSplit
from urbanprint.evaluation.crossfit import Learner
from urbanprint.evaluation.splits import Split, split_images
from urbanprint.evaluation.tasks import Task, task_labels
from urbanprint.models.embedding import pick_device
from urbanprint.models.graph_batches import Batch, Clusters, choose_images, pad
from urbanprint.models.graph_model import GraphModel

Predict = Callable[[pd.DataFrame], pd.DataFrame]
"""Images (image_id, area_id, ...) -> predictions indexed by area_id, a column an indicator."""

_CANDIDATES = 200  # edges of a cluster that are removed one at a time


def image_importance(
    model: GraphModel, features: pd.DataFrame, positions: pd.DataFrame, images: pd.DataFrame, *, indicator: str
) -> pd.DataFrame:
    """What each image of held-out clusters adds to the prediction of `indicator`.

    A row an image the model takes: area_id, image_id, predicted (with all images), without (predicted when this image
    is left out, with its edges), importance = predicted - without, in the prediction's unit, and weight, the image's
    share in the model's first pooling (its attention; sums to 1 over a cluster). A lone image cannot be left out: its
    `without` and importance are missing.

    Raises `LeakingSplit` for a cluster the model was trained on, `InputError` for an indicator it does not predict.
    """
    output, clusters = _held_out(model, features, positions, images, indicator)
    device = pick_device(model.config.device)
    frames = []
    for row, area_id in enumerate(clusters.area_ids):
        batch, outputs = _predicted(model, clusters, row, device=device)
        size = int(clusters.sizes[row])
        without = np.full(size, np.nan)
        if size > 1:
            left_out = ~torch.eye(size, dtype=torch.bool, device=device)
            without = _respond(model, _many(model, batch, batch.edges, left_out), output)
        with torch.no_grad():
            weights = model.network.image_weights(batch.nodes, batch.edges, batch.mask)[0].float().cpu().numpy()
        predicted = _respond(model, outputs, output)[0]
        frames.append(
            pd.DataFrame(
                {
                    "area_id": area_id,
                    "image_id": clusters.image_ids[clusters.starts[row] : clusters.starts[row + 1]],
                    "predicted": predicted,
                    "without": without,
                    "importance": predicted - without,
                    "weight": weights,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def edge_importance(
    model: GraphModel,
    features: pd.DataFrame,
    positions: pd.DataFrame,
    images: pd.DataFrame,
    *,
    indicator: str,
    most: int = 20,
) -> pd.DataFrame:
    """The `most` edges of each held-out cluster that matter to the prediction of `indicator`, the strongest first.

    Edges are removed one at a time: all of them up to 200 a cluster (20 images), of more those with the largest
    first-order effect, edge x gradient of the output. A row an edge: area_id, image_id, other_id, edge (its weight),
    predicted, without, importance = predicted - without. Raises as `image_importance` does.
    """
    output, clusters = _held_out(model, features, positions, images, indicator)
    device = pick_device(model.config.device)
    frames = []
    for row, area_id in enumerate(clusters.area_ids):
        batch, outputs = _predicted(model, clusters, row, device=device)
        edges = batch.edges.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model.network(batch.nodes, edges, batch.mask)[0, output], edges)
        effect = (gradient * batch.edges)[0]
        effect = effect + effect.T  # an edge goes both ways
        size = int(clusters.sizes[row])
        first, second = torch.triu_indices(size, size, offset=1, device=device)
        present = batch.edges[0, first, second] > 0.0
        first, second = first[present], second[present]
        kept = torch.argsort(effect[first, second].abs(), descending=True, stable=True)[: max(_CANDIDATES, most)]
        first, second = first[kept], second[kept]
        if not len(first):
            continue
        cut = batch.edges.expand(len(first), size, size).clone()
        every = torch.arange(len(first), device=device)
        cut[every, first, second] = cut[every, second, first] = 0.0
        mask = batch.mask.expand(len(first), size)
        without = _respond(model, _many(model, batch, cut, mask), output)
        predicted = _respond(model, outputs, output)[0]
        names = clusters.image_ids[clusters.starts[row] : clusters.starts[row + 1]]
        frame = pd.DataFrame(
            {
                "area_id": area_id,
                "image_id": names[first.cpu().numpy()],
                "other_id": names[second.cpu().numpy()],
                "edge": batch.edges[0, first, second].cpu().numpy(),
                "predicted": predicted,
                "without": without,
                "importance": predicted - without,
            }
        )
        frames.append(frame.sort_values("importance", key=np.abs, ascending=False, kind="stable").head(most))
    if not frames:
        raise InputError("None of these clusters has an edge between two images: edges of 'identity' explain nothing.")
    return pd.concat(frames, ignore_index=True)


def curve_at_prediction(
    predictors: Sequence[tuple[Split, Predict]],
    images: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    task: Task,
    counts: Sequence[int],
    draws: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Score against the number of images a test cluster is seen through, the models as they were trained.

    Each predictor belongs to the fold it was not trained on. Rows: images (at most, a cluster), mean_images (as found),
    draw, indicator, score, areas. The predictions of all folds are pooled; the score is accuracy at 0.5 or R2. Within
    a draw fewer images are a part of more.
    """
    rows = []
    for count in counts:
        for draw in range(draws):
            parts, found = [], []
            for split, predict in predictors:
                testing = images[images["area_id"].isin(split.test)]
                seen = choose_images(testing, most=count, seed=seed + draw)
                found.append(seen.groupby("area_id").size())
                parts.append((split, predict(seen)))
            rows += _scored(parts, labels, task=task, head={"images": count, "draw": draw}, found=found)
    return pd.DataFrame(rows)


def curve_with_training(
    learner: Learner,
    splits: Sequence[Split],
    images: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    task: Task,
    counts: Sequence[int],
    draws: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """Score against the number of images a cluster, trained anew on so few: the table of `curve_at_prediction`.

    Test clusters are seen through as many images as training clusters. A learner that keeps finished folds recognises
    them by their images.
    """
    rows = []
    for count in counts:
        for draw in range(draws):
            kept = choose_images(images, most=count, seed=seed + draw)
            parts, found = [], []
            for split in splits:
                training, testing = split_images(split, kept)
                found.append(testing.groupby("area_id").size())
                parts.append((split, learner(split, training, testing)))
            rows += _scored(parts, labels, task=task, head={"images": count, "draw": draw}, found=found)
    return pd.DataFrame(rows)


def _held_out(
    model: GraphModel, features: pd.DataFrame, positions: pd.DataFrame, images: pd.DataFrame, indicator: str
) -> tuple[int, Clusters]:
    """The number of the output and the clusters, past the guard."""
    if indicator not in model.indicators:
        raise InputError(f"the model predicts {', '.join(model.indicators)}, not {indicator!r}: ask for one of these.")
    if seen := sorted(model.trained_on.intersection(images["area_id"])):
        raise LeakingSplit(
            f"{len(seen)} of the clusters to explain are among those the model was trained on, such as {seen[0]}: "
            f"explain held-out clusters, each by the model of its own fold."
        )
    model.network.to(pick_device(model.config.device)).eval()
    return model.indicators.index(indicator), model.clusters(features, positions, images)


@torch.no_grad()
def _predicted(model: GraphModel, clusters: Clusters, row: int, *, device: str) -> tuple[Batch, Tensor]:
    batch = pad(clusters, np.array([row]), edges=model.config.edges, seed=model.config.seed, device=device)
    return batch, model.network(batch.nodes, batch.edges, batch.mask)


@torch.no_grad()
def _many(model: GraphModel, batch: Batch, edges: Tensor, mask: Tensor) -> Tensor:
    """Outputs (m, k) of m variants of one cluster, in parts no larger than the model's batches.

    In float32 on every device: what a single image adds can be below the rounding of bf16.
    """
    nodes, edges = batch.nodes.expand(len(mask), -1, -1), edges.expand(len(mask), -1, -1)
    at_once = max(1, model.config.batch_cells // mask.shape[1] ** 2)
    parts = zip(nodes.split(at_once), edges.split(at_once), mask.split(at_once), strict=True)
    return torch.cat([model.network(*part) for part in parts])


def _respond(model: GraphModel, outputs: Tensor, output: int) -> np.ndarray:
    return model.respond(outputs)[:, output]


def _scored(
    parts: Sequence[tuple[Split, pd.DataFrame]],
    labels: pd.DataFrame,
    *,
    task: Task,
    head: dict[str, int],
    found: Sequence[pd.Series],
) -> list[dict[str, float | str]]:
    predicted = pd.concat([prediction for _, prediction in parts])
    observed = pd.concat(
        [task_labels(labels, split, task=task)[1].loc[prediction.index] for split, prediction in parts]
    )
    rows = []
    for indicator in predicted.columns:
        known = observed[indicator].notna()
        truth, answer = observed.loc[known, indicator], predicted.loc[known, indicator]
        score = accuracy_score(truth, answer >= 0.5) if task == "classification" else r2_score(truth, answer)
        mean_images = float(pd.concat(found).mean())
        rows.append({**head, "mean_images": mean_images, "indicator": indicator, "score": score, "areas": len(truth)})
    return rows
