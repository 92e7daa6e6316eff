"""The image-wise model of survey clusters: every image learns a copy of its cluster's label, and the images then vote.

What belongs here: labels as targets, and the features that a fine-tuned network hands to other models. How images vote
is in `evaluation.image_votes`. The network is in `imagewise.py`, its training in `training.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import pandas as pd

from urbanprint.evaluation.crossfit import Learner
from urbanprint.evaluation.image_votes import pool_images
from urbanprint.evaluation.splits import Split, inner_split, split_images
from urbanprint.evaluation.tasks import Task, task_labels
from urbanprint.models.embedding import embed
from urbanprint.models.imagewise import EpochRecord, ImagewiseConfig, ImagewiseModel, Loss
from urbanprint.models.learners import VALIDATION_SHARE
from urbanprint.models.provenance import Features
from urbanprint.models.training import train

RESNET34 = ImagewiseConfig(backbone="resnet34")
"""The network of the livelihood papers; `loss` and `pooled_share` are set by the task."""

_LOSSES: dict[Task, Loss] = {"classification": "cross-entropy", "regression": "squared-error"}


@dataclass(frozen=True, kw_only=True)
class ImagewiseClusters:
    """A network trained on the images of clusters, and the mean and spread that its targets were scaled by.

    `fitted_on` are the clusters whose labels it has seen, in its weights, its stopping or its scale.
    """

    model: ImagewiseModel
    task: Task
    centre: pd.Series
    spread: pd.Series
    fitted_on: frozenset[str]

    def predict_images(self, images: pd.DataFrame) -> pd.DataFrame:
        """Probability of label 1, or value in the label's unit, of each image: image_id, area_id and the indicators.

        `images` holds image_id, area_id, path. Raises `InputError` and `MissingImages` as the network does.
        """
        predicted = self.model.predict_views(images)
        names = list(self.model.indicators)
        predicted[names] = predicted[names].astype(float) * self.spread + self.centre
        return predicted

    def predict(self, images: pd.DataFrame) -> pd.DataFrame:
        """The prediction of each cluster from its images (`pool_images`), indexed by area_id."""
        return pool_images(self.predict_images(images), task=self.task)

    def features(self, images: pd.DataFrame) -> Features:
        """What the network's last layer sees of each image (image_id, path), with the clusters it was fitted on."""
        config = self.model.config
        paths = [Path(path) for path in images["path"]]
        batch = config.batch_areas * config.views
        found = embed(
            paths, self.model.backbone, size=config.size, batch=batch, device=config.device, workers=config.workers
        )
        index = pd.Index(images["image_id"], name="image_id")
        columns = [f"cnn_{number}" for number in range(found.shape[1])]
        return Features(table=pd.DataFrame(found, index=index, columns=columns), fitted_on=self.fitted_on)


def fit_images(
    split: Split,
    training: pd.DataFrame,
    labels: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    task: Task,
    config: ImagewiseConfig,
    checkpoints: Path,
    on_epoch: Callable[[Split, EpochRecord], None] | None = None,
) -> ImagewiseClusters:
    """Train on the images of the training clusters of a split; a fold finished under `checkpoints` is read instead.

    Classes are cut at the median of the training clusters, values scaled by their mean and standard deviation. A part
    of whole blocks of them decides when to stop. Raises `InputError` for an indicator no training cluster has.
    """
    wanted, _ = task_labels(labels, split, task=task)
    scaled = task == "regression"
    centre = wanted.mean() if scaled else pd.Series(0.0, index=wanted.columns)
    spread = wanted.std(ddof=0).replace(0.0, 1.0) if scaled else pd.Series(1.0, index=wanted.columns)
    trained, validated = inner_split(split, folds, share=VALIDATION_SHARE, seed=config.seed)
    present = set(training["area_id"])
    model = train(
        training,
        (wanted - centre) / spread,
        train_areas=[area for area in trained if area in present],
        validation_areas=[area for area in validated if area in present],
        config=replace(config, loss=_LOSSES[task], pooled_share=0.0),
        checkpoint=checkpoints / f"{task}-{split.label}.pt",
        on_epoch=(lambda record: on_epoch(split, record)) if on_epoch else None,
    )
    return ImagewiseClusters(model=model, task=task, centre=centre, spread=spread, fitted_on=frozenset(split.train))


def imagewise_cluster_learner(
    labels: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    task: Task,
    config: ImagewiseConfig = RESNET34,
    checkpoints: Path,
    on_model: Callable[[Split, ImagewiseClusters], object] | None = None,
    on_images: Callable[[pd.DataFrame], object] | None = None,
    on_epoch: Callable[[Split, EpochRecord], None] | None = None,
) -> Learner:
    """The image-wise network: share of votes for label 1, or mean value in the label's unit, of each cluster.

    `labels` is indexed by area_id, a column an indicator, NaN where unknown; images also hold `path`. `on_images` gets
    the held-out predictions of single images: image_id, area_id, kind, fold, indicator, observed (of the cluster),
    predicted.
    """

    def learn(split: Split, training: pd.DataFrame, testing: pd.DataFrame) -> pd.DataFrame:
        fitted = fit_images(
            split, training, labels, folds, task=task, config=config, checkpoints=checkpoints, on_epoch=on_epoch
        )
        if on_model is not None:
            on_model(split, fitted)
        predicted = fitted.predict_images(testing)
        if on_images is not None:
            _, observed = task_labels(labels, split, task=task)
            on_images(_long(predicted, observed, split))
        return pool_images(predicted, task=task)

    return learn


def _long(predicted: pd.DataFrame, observed: pd.DataFrame, split: Split) -> pd.DataFrame:
    keys = ["image_id", "area_id"]
    table = predicted.melt(keys, var_name="indicator", value_name="predicted")
    truth = observed.rename_axis("area_id").reset_index().melt("area_id", var_name="indicator", value_name="observed")
    table = table.merge(truth, on=["area_id", "indicator"], how="left").assign(
        kind=split.name or split.kind, fold=split.fold
    )
    return table[[*keys, "kind", "fold", "indicator", "observed", "predicted"]]


def imagewise_features(
    images: pd.DataFrame,
    labels: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    task: Task,
    config: ImagewiseConfig = RESNET34,
    checkpoints: Path,
    keep: int = 8,
) -> Callable[[Split], Features]:
    """Features of all `images` (image_id, area_id, sequence_id, path) for each split, fine-tuned on its training part.

    A `FeatureSource` for learners. The training is that of `imagewise_cluster_learner` with the same arguments, and
    read from `checkpoints` where it was finished; features of the last `keep` splits are kept in memory.
    """

    @lru_cache(maxsize=keep)
    def of_split(split: Split) -> Features:
        training, _ = split_images(split, images)
        fitted = fit_images(split, training, labels, folds, task=task, config=config, checkpoints=checkpoints)
        return fitted.features(images)

    return of_split
