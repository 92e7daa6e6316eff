"""The cluster-wise models of each fold, applied to the clusters they never saw: what explanations of them start from.

What belongs here: fitting them again (which costs seconds and is the same for the same seed, so that no pickled model
has to be kept), and handing them to `importance` and to the curves of `graph_importance`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from urbanprint.evaluation.splits import Split, split_images
from urbanprint.evaluation.tasks import Task, task_labels
from urbanprint.explanation.graph_importance import Predict
from urbanprint.explanation.importance import HeldOut, correlated_groups, each_class, permutation_importance
from urbanprint.models.clusterwise import ClusterwiseModel, clusterwise_learner
from urbanprint.vocabulary import CLUSTERWISE_METHODS

Counting = Callable[[pd.DataFrame], pd.DataFrame]
"""Images -> features of their clusters, as `partial(cluster_counts, scenes)`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldModels:
    """The models of a split, by indicator; features of its training and test clusters; what was observed of these."""

    split: Split
    models: Mapping[str, ClusterwiseModel]
    training: pd.DataFrame
    testing: pd.DataFrame
    observed: pd.DataFrame


def fold_models(
    counting: Counting,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    folds: pd.DataFrame,
    splits: Sequence[Split],
    *,
    task: Task,
    candidates: Sequence[str] = CLUSTERWISE_METHODS,
    seed: int,
) -> list[FoldModels]:
    """The models `clusterwise_learner` fits with the same arguments, split by split."""
    found = []
    for split in splits:
        fitted: list[ClusterwiseModel] = []
        keep = _adding_to(fitted)
        learner = clusterwise_learner(
            counting, labels, folds, task=task, candidates=candidates, seed=seed, on_model=keep
        )
        training, testing = split_images(split, images)
        learner(split, training, testing)
        _, observed = task_labels(labels, split, task=task)
        found.append(
            FoldModels(
                split=split,
                models={model.indicator: model for model in fitted},
                training=counting(training),
                testing=counting(testing),
                observed=observed,
            )
        )
    return found


def _adding_to(fitted: list[ClusterwiseModel]) -> Callable[[Split, ClusterwiseModel], None]:
    return lambda _split, model: fitted.append(model)


def class_importance(
    fitted: Sequence[FoldModels], *, indicator: str, task: Task, unit_of: Mapping[str, str], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Permutation importance on held-out clusters (`IMPORTANCE_COLUMNS`), class by class and by groups of them."""
    parts = [
        HeldOut(
            predict=each.models[indicator].predict,
            features=each.testing,
            observed=each.observed[indicator].loc[each.testing.index],
        )
        for each in fitted
    ]
    every = pd.concat([each.testing.head(0) for each in fitted])  # a class may be seen in one fold's test alone
    members = (each_class(every), correlated_groups([each.training for each in fitted]))
    by_class, by_group = (
        permutation_importance(parts, group, task=task, unit_of=unit_of, seed=seed) for group in members
    )
    return by_class, by_group


def predictors(fitted: Sequence[FoldModels], counting: Counting) -> list[tuple[Split, Predict]]:
    """Each split with what predicts its test clusters from any of their images."""

    def predictor(of: FoldModels) -> Predict:
        def predict(images: pd.DataFrame) -> pd.DataFrame:
            features = counting(images)
            columns = {indicator: model.predict(features) for indicator, model in of.models.items()}
            return pd.DataFrame(columns, index=features.index)

        return predict

    return [(each.split, predictor(each)) for each in fitted]
