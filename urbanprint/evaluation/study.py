"""A study of survey clusters: what all learners of a country are given alike, so that their scores can be compared.

What belongs here: the clusters, their labels, folds, splits and images in one record, and running learners over them.
Which split holds what is in `clusters`, what a learner is in `crossfit`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pandas as pd

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.evaluation.cluster_scores import score_clusters
from urbanprint.evaluation.clusters import (
    NO_IMAGES,
    country_splits,
    cross_fit_clusters,
    joined_split,
    on_one_map,
    transfer_split,
)
from urbanprint.evaluation.crossfit import Learner
from urbanprint.evaluation.splits import Split
from urbanprint.evaluation.tasks import Task, cluster_labels
from urbanprint.indicators.survey import Jitter
from urbanprint.vocabulary import LIVELIHOODS

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
        self,
        learners: Mapping[str, LearnerOf],
        *,
        tasks: Sequence[Task] = get_args(Task),
        progress: Callable[[str, int, int], None] | None = None,
    ) -> pd.DataFrame:
        """Held-out predictions (`tables.CLUSTER_PREDICTIONS`) of every learner, for each task, under every split.

        Learners take turns on a split, so that what they share of it (the features of a network fine-tuned on its
        training part) is made once. Raises what the learners and `cross_fit_clusters` raise.
        """
        turns = [(task, kind, split) for task in tasks for kind, splits in self.splits.items() for split in splits]
        made = {task: {model: learner_of(task) for model, learner_of in learners.items()} for task in tasks}
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
    indicators: Sequence[str] = tuple(LIVELIHOODS),
    lists: pd.Series | None = None,
    images: pd.DataFrame | None = None,
) -> ClusterStudy:
    """The study of the clusters in `folds`, its splits past the guards; `lists` are fixed lists of a publication.

    Clusters without images, which are in no fold, leave the lists as well. Raises what `country_splits` raises.
    """
    if lists is not None and (unknown := sorted(set(lists.index) - set(clusters["area_id"]))):
        raise InputError(f"{len(unknown)} listed clusters, such as {unknown[0]}, are not in the survey: unlist them.")
    clusters = clusters[clusters["area_id"].isin(folds["area_id"])].reset_index(drop=True)
    if lists is not None:
        lists = lists[lists.index.isin(clusters["area_id"])]
    return ClusterStudy(
        clusters=clusters,
        labels=cluster_labels(clusters, indicators),
        folds=folds,
        splits=country_splits(folds, buffer_m=buffer_m, jitter=jitter, lists=lists),
        images=NO_IMAGES if images is None else images[images["area_id"].isin(folds["area_id"])].reset_index(drop=True),
    )


SHARES: dict[str, float] = {"alone": 0.0, "with half of": 0.5, "with all of": 1.0}
"""How much of another country joins the training parts, in words and as a share."""


def transfer_study(
    here: ClusterStudy, there: ClusterStudy, *, buffer_m: float, jitter: Jitter, seed: int
) -> ClusterStudy:
    """The study of what another country's clusters are worth here: trained there and tested here, or added to training.

    Splits: "<there> to <here>"; "alone", the block splits of `here` as they are; "with half of <there>", "with all of
    <there>", the same splits with places of the other country added to their training parts, in one seeded order, so
    that all of them test the same clusters. Added clusters within `buffer_m` of a test cluster are left out.

    Each study is of one country. Indicators that one of the two lacks are left out. Judge it on values: the median of a
    training part moves with what is added to it, so that accuracies above it do not compare. Raises `InputError` where
    the two have no indicator in common, or share cluster identifiers.
    """
    clusters = pd.concat([here.clusters, there.clusters], ignore_index=True)
    if clusters["area_id"].duplicated().any():
        area_id = clusters.loc[clusters["area_id"].duplicated(), "area_id"].iloc[0]
        raise InputError(f"Cluster {area_id} is in both countries: tell them apart by the country's name.")
    indicators = [name for name in here.labels.columns if name in there.labels.columns]
    mine, other = _country(here), _country(there)
    if not indicators:
        raise InputError(f"{mine} and {other} have no indicator in common.")
    # One map of both countries, for distances and for what is held out inside training.
    table = pd.concat([_folds_apart(study) for study in (here, there)], ignore_index=True)
    table = table.drop(columns=["x_m", "y_m"]).merge(on_one_map(clusters), on="area_id", validate="many_to_one")
    places = there.clusters.sort_values("area_id").groupby(["longitude", "latitude"]).ngroup().to_numpy()
    order = np.random.default_rng(seed).permutation(places.max() + 1)
    added = there.clusters.sort_values("area_id")["area_id"]
    across = transfer_split(clusters, table, train_on=other, test_on=mine, buffer_m=buffer_m, jitter=jitter)
    splits = {f"{other} to {mine}": [replace(across, name=f"{other} to {mine}")]}
    for words, share in SHARES.items():
        name = words if share == 0 else f"{words} {other}"
        more = set(added[np.isin(places, order[: round(share * len(order))])])
        splits[name] = [
            joined_split(split, more, table, buffer_m=buffer_m, name=name) for split in here.splits["block"]
        ]
    return ClusterStudy(
        clusters=clusters,
        labels=cluster_labels(clusters, indicators),
        folds=table,
        splits=splits,
        images=pd.concat([here.images, there.images], ignore_index=True),
    )


def _folds_apart(study: ClusterStudy) -> pd.DataFrame:
    """The folds with names of blocks and regions that no other country has."""
    folds, head = study.folds, _country(study) + "/"
    return folds.assign(block=head + folds["block"], borough=head + folds["borough"])


def _country(study: ClusterStudy) -> str:
    """The one country of a study."""
    names = study.clusters["country"].unique()
    if len(names) != 1:
        raise InputError(f"A study of {', '.join(names)} cannot be transferred: split it by country first.")
    return str(names[0])
