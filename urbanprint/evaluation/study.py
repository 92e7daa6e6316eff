"""A study of survey clusters: what all learners of a country are given alike, so that their scores can be compared.

What belongs here: the clusters, their labels, folds, splits and images in one record, and running learners over them.
Which split holds what is in `clusters`, what a learner is in `crossfit`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.evaluation.cluster_scores import score_clusters
from urbanprint.evaluation.clusters import (
    NO_IMAGES,
    cluster_folds,
    country_splits,
    cross_fit_clusters,
    pooled_splits,
    transfer_split,
)
from urbanprint.evaluation.crossfit import Learner
from urbanprint.evaluation.splits import Split
from urbanprint.evaluation.tasks import Task, cluster_labels
from urbanprint.indicators.survey import Jitter

LearnerOf = Callable[[Task], Learner]
"""A learner for each of the two tasks."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ClusterStudy:
    """Clusters (`tables.CLUSTERS`) that are in the folds (`tables.FOLDS`), and the splits by kind.

    `labels` is indexed by area_id, a column an indicator; `images` holds at least image_id, area_id and sequence_id; it
    is empty for learners that look at none.
    """

    clusters: pd.DataFrame
    labels: pd.DataFrame
    folds: pd.DataFrame
    splits: Mapping[str, Sequence[Split]]
    images: pd.DataFrame

    @property
    def everything(self) -> Split:
        """All clusters as training part: for the models that are handed out, which test nothing."""
        kind = str(self.folds["kind"].iloc[0])
        return Split(kind=kind, fold=-1, train=tuple(sorted(set(self.folds["area_id"]))), test=())

    def predictions(
        self, learners: Mapping[str, LearnerOf], *, progress: Callable[[str, int, int], None] | None = None
    ) -> pd.DataFrame:
        """Held-out predictions (`tables.CLUSTER_PREDICTIONS`) of every learner, for both tasks, under every split.

        Learners take turns on a split, so that what they share of it (the features of a network fine-tuned on its
        training part) is made once. Raises what the learners and `cross_fit_clusters` raise.
        """
        turns = [
            (task, kind, split) for task in get_args(Task) for kind, splits in self.splits.items() for split in splits
        ]
        made = {task: {model: learner_of(task) for model, learner_of in learners.items()} for task in get_args(Task)}
        parts = []
        for done, (task, kind, split) in enumerate(turns):
            for number, (model, learner) in enumerate(made[task].items()):
                if progress is not None:
                    progress("training and predicting", done * len(learners) + number, len(turns) * len(learners))
                parts.append(
                    cross_fit_clusters(
                        learner,
                        model=model,
                        splits=[split],
                        labels=self.labels,
                        task=task,
                        images=self.images,
                        kind=kind,
                    )
                )
        if progress is not None:
            progress("training and predicting", len(turns) * len(learners), len(turns) * len(learners))
        return tables.CLUSTER_PREDICTIONS.validate(pd.concat(parts, ignore_index=True))

    def scores(self, predictions: pd.DataFrame, *, seed: int) -> pd.DataFrame:
        """`tables.CLUSTER_SCORES` of predictions of this study."""
        return score_clusters(predictions, folds=self.folds, seed=seed)


def make_study(
    clusters: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    buffer_m: float,
    jitter: Jitter,
    lists: pd.Series | None = None,
    images: pd.DataFrame | None = None,
) -> ClusterStudy:
    """The study of the clusters in `folds`, its splits past the guards; `lists` are fixed lists of a publication.

    Clusters without images, which are in no fold, leave the lists as well. Raises what `country_splits` raises.
    """
    clusters = clusters[clusters["area_id"].isin(folds["area_id"])].reset_index(drop=True)
    if lists is not None:
        lists = lists[lists.index.isin(clusters["area_id"])]
    return ClusterStudy(
        clusters=clusters,
        labels=cluster_labels(clusters),
        folds=folds,
        splits=country_splits(folds, buffer_m=buffer_m, jitter=jitter, lists=lists),
        images=NO_IMAGES if images is None else images[images["area_id"].isin(folds["area_id"])].reset_index(drop=True),
    )


SHARES: dict[str, float] = {"with half of": 0.5, "with all of": 1.0}
"""How much of another country joins the training parts, in words and as a share."""


def transfer_study(
    here: ClusterStudy, there: ClusterStudy, *, folds: int, block_m: float, buffer_m: float, jitter: Jitter, seed: int
) -> ClusterStudy:
    """The study of what another country's clusters are worth here: trained there and tested here, or added to training.

    Splits: "<there> to <here>"; "with half of <there>", "with all of <there>": block folds here, to whose training
    parts the other country's clusters are added. Each study is of one country, and they share no cluster. Indicators
    that one of the two lacks are left out. Raises `InputError` where they have none in common, or share clusters.
    """
    clusters = pd.concat([here.clusters, there.clusters], ignore_index=True)
    if clusters["area_id"].duplicated().any():
        area_id = clusters.loc[clusters["area_id"].duplicated(), "area_id"].iloc[0]
        raise InputError(f"Cluster {area_id} is in both countries: nothing is transferred between them.")
    indicators = [name for name in here.labels.columns if name in there.labels.columns]
    if not indicators:
        raise InputError(f"{' and '.join(_country(study) for study in (here, there))} have no indicator in common.")
    table = cluster_folds(clusters, folds=folds, seed=seed, block_m=block_m, jitter=jitter)
    mine, other = _country(here), _country(there)
    splits = {
        f"{other} to {mine}": [
            transfer_split(clusters, table, train_on=other, test_on=mine, buffer_m=buffer_m, jitter=jitter)
        ]
    }
    for words, share in SHARES.items():
        splits[f"{words} {other}"] = list(
            pooled_splits(
                clusters, table, country=mine, other=other, share=share, buffer_m=buffer_m, seed=seed, jitter=jitter
            )
        )
    return ClusterStudy(
        clusters=clusters,
        labels=cluster_labels(clusters, indicators),
        folds=table,
        splits=splits,
        images=pd.concat([here.images, there.images], ignore_index=True),
    )


def _country(study: ClusterStudy) -> str:
    """The one country of a study."""
    names = study.clusters["country"].unique()
    if len(names) != 1:
        raise InputError(f"A study of {', '.join(names)} cannot be transferred: split it by country first.")
    return str(names[0])
