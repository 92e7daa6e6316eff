"""The models as learners: what `urbanprint.evaluation.crossfit` trains once a fold.

Each function here closes over what does not change between folds (features, labels, settings) and returns a function
of a split. What is chosen on data - the penalty of a ridge, the epoch to stop at - is chosen inside the training part.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from urbanprint.evaluation.crossfit import Learner
from urbanprint.evaluation.splits import Split, inner_groups, inner_split
from urbanprint.models.imagewise import EpochRecord, ImagewiseConfig, ImagewiseModel
from urbanprint.models.probe import ALPHAS, Probe, area_means, fit_probe
from urbanprint.models.training import train

VALIDATION_SHARE = 0.15
"""Share of the training areas, whole blocks or boroughs, that early stopping looks at."""


def probe_learner(features: pd.DataFrame, labels: pd.DataFrame, folds: pd.DataFrame) -> Learner:
    """Ridge on the mean features of an area.

    `features` is indexed by image_id, a column a feature; `labels` by area_id, a column an indicator (NaN = unknown).
    """

    def learn(split: Split, training: pd.DataFrame, testing: pd.DataFrame) -> pd.DataFrame:
        group_of = dict(zip(split.train, inner_groups(split, folds), strict=True))
        probe = fit_areas(features, labels, training, group_of)
        areas, means = area_means(features.loc[testing["image_id"]].to_numpy(), testing["area_id"].tolist())
        return pd.DataFrame(probe.predict(means), index=areas, columns=list(probe.indicators))

    return learn


def fit_areas(features: pd.DataFrame, labels: pd.DataFrame, images: pd.DataFrame, group_of: dict[str, str]) -> Probe:
    """Fit the probe on the areas that have `images`; `group_of` says which areas stay together in the inner folds."""
    areas, means = area_means(features.loc[images["image_id"]].to_numpy(), images["area_id"].tolist())
    return fit_probe(means, labels.loc[areas], [group_of[area] for area in areas])


def imagewise_learner(
    labels: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    config: ImagewiseConfig,
    checkpoints: Path,
    on_model: Callable[[Split, ImagewiseModel], object] | None = None,
    on_epoch: Callable[[Split, EpochRecord], None] | None = None,
) -> Learner:
    """The fine-tuned network. Images also hold `path`; a finished fold under `checkpoints` is not trained again."""

    def learn(split: Split, training: pd.DataFrame, testing: pd.DataFrame) -> pd.DataFrame:
        trained, validated = inner_split(split, folds, share=VALIDATION_SHARE, seed=config.seed)
        present = set(training["area_id"])
        model = train(
            training,
            labels,
            train_areas=[area for area in trained if area in present],
            validation_areas=[area for area in validated if area in present],
            config=config,
            checkpoint=checkpoints / f"{split.kind}-{split.fold}.pt",
            on_epoch=(lambda record: on_epoch(split, record)) if on_epoch else None,
        )
        if on_model is not None:
            on_model(split, model)
        return model.predict(testing).set_index("area_id")

    return learn


def ridge_on_images(features: np.ndarray, labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Predict single images by the probe's ridge: (n, d), (n,) and (m, d) to (m,). For the leakage audit."""
    ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=ALPHAS))
    return ridge.fit(features, labels).predict(wanted)


def labels_of(areas: pd.DataFrame, indicators: tuple[str, ...]) -> pd.DataFrame:
    """Normalised ranks, indexed by area_id, a column an indicator; indicators nobody has are left out."""
    labels = areas.set_index("area_id")[[f"{indicator}_deprivation" for indicator in indicators]]
    labels.columns = pd.Index(indicators)
    return labels.loc[:, np.isfinite(labels.to_numpy()).any(axis=0)]


def train_on_all(
    images: pd.DataFrame, labels: pd.DataFrame, folds: pd.DataFrame, *, config: ImagewiseConfig, checkpoint: Path
) -> ImagewiseModel:
    """Train the model that is handed out: on all areas, less a part of whole blocks that early stopping looks at."""
    areas = folds.drop_duplicates("area_id").sort_values("area_id")
    everything = Split(kind=str(areas["kind"].iloc[0]), fold=-1, train=tuple(areas["area_id"]), test=())
    trained, validated = inner_split(everything, folds, share=VALIDATION_SHARE, seed=config.seed)
    return train(images, labels, train_areas=trained, validation_areas=validated, config=config, checkpoint=checkpoint)
