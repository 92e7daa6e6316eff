"""A study gives all learners the same splits; a transfer study adds another country to training, never to the test."""

import numpy as np
import pandas as pd
import pytest

from urbanprint.errors import InputError
from urbanprint.evaluation.clusters import cluster_folds
from urbanprint.evaluation.crossfit import Learner
from urbanprint.evaluation.splits import Split
from urbanprint.evaluation.study import ClusterStudy, make_study, transfer_study
from urbanprint.evaluation.tasks import Task
from urbanprint.indicators.survey import DHS_JITTER
from urbanprint.simulation.country import CountryName, build_country
from urbanprint.simulation.survey import survey

SETTINGS = {"folds": 3, "block_m": 40_000.0, "buffer_m": 20_000.0, "jitter": DHS_JITTER, "seed": 0}


def study_of(name: CountryName) -> ClusterStudy:
    clusters = survey(build_country(name, clusters=60), world="several")
    folds = cluster_folds(clusters, folds=3, seed=0, block_m=40_000, jitter=DHS_JITTER, held_out="region")
    return make_study(clusters, folds, buffer_m=20_000, jitter=DHS_JITTER)


@pytest.fixture(scope="module")
def studies() -> tuple[ClusterStudy, ClusterStudy]:
    return study_of("simland-a"), study_of("simland-b")


def recording(seen: list[tuple[str, Task, Split]], model: str, labels: pd.DataFrame):
    """A learner that predicts 0.5 and notes what it was asked."""

    def learner_of(task: Task) -> Learner:
        def learn(split: Split, _training: pd.DataFrame, _testing: pd.DataFrame) -> pd.DataFrame:
            seen.append((model, task, split))
            return pd.DataFrame(0.5, index=list(split.test), columns=labels.columns)

        return learn

    return learner_of


def test_learners_take_turns_on_the_same_splits(studies: tuple[ClusterStudy, ClusterStudy]) -> None:
    study, _ = studies
    seen: list[tuple[str, Task, Split]] = []
    told: list[tuple[int, int]] = []
    predictions = study.predictions(
        {name: recording(seen, name, study.labels) for name in ("one", "other")},
        progress=lambda _what, done, of: told.append((done, of)),
    )
    assert [model for model, _, _ in seen[:4]] == ["one", "other", "one", "other"]
    assert all(a[1:] == b[1:] for a, b in zip(seen[::2], seen[1::2], strict=True))
    assert set(predictions["kind"]) == {"random", "borough", "block"}
    assert len(predictions) == 2 * 2 * 3 * 60 * 3  # models, tasks, kinds, clusters, indicators
    assert told[-1] == (len(seen), len(seen))


def test_fixed_lists_are_judged_beside_the_folds(studies: tuple[ClusterStudy, ClusterStudy]) -> None:
    study, _ = studies
    ids = study.clusters["area_id"].tolist()
    lists = pd.Series(["train"] * 40 + ["validation"] * 20, index=ids).rename_axis("area_id")
    lists["a cluster without images"] = "train"
    listed = make_study(study.clusters, study.folds, buffer_m=20_000, jitter=DHS_JITTER, lists=lists)
    (split,) = listed.splits["listed"]
    assert (len(split.train), len(split.test)) == (40, 20)
    predictions = listed.predictions({"one": recording([], "one", study.labels)})
    assert (predictions["kind"] == "listed").sum() == 20 * 3 * 2


def test_another_country_trains_and_never_tests(studies: tuple[ClusterStudy, ClusterStudy]) -> None:
    here, there = studies
    study = transfer_study(here, there, **SETTINGS)
    assert list(study.splits) == ["simland-b to simland-a", "with half of simland-b", "with all of simland-b"]
    mine, other = set(here.clusters["area_id"]), set(there.clusters["area_id"])
    (across,) = study.splits["simland-b to simland-a"]
    assert (set(across.test), set(across.train)) == (mine, other)
    added = {}
    for words in ("with half of simland-b", "with all of simland-b"):
        splits = study.splits[words]
        assert set().union(*(split.test for split in splits)) == mine
        added[words] = {frozenset(set(split.train) & other) for split in splits}
        assert len(added[words]) == 1, "each fold is given the same clusters"
    (half,), (every,) = added.values()
    assert every == other
    assert half < every
    assert len(half) == pytest.approx(30, abs=2)
    assert list(study.labels.columns) == ["poverty", "population"]  # Simland B asked nobody for their weight


def test_countries_that_share_clusters_or_no_indicator_are_refused(studies: tuple[ClusterStudy, ClusterStudy]) -> None:
    here, there = studies
    with pytest.raises(InputError, match="SA0001 is in both countries"):
        transfer_study(here, here, **SETTINGS)
    only = there.clusters.assign(poverty=np.nan, population=np.nan, bmi=20.0)
    wealth = here.clusters.assign(population=np.nan, bmi=np.nan)
    studies_apart = (
        make_study(table, study.folds, buffer_m=20_000, jitter=DHS_JITTER)
        for table, study in ((wealth, here), (only, there))
    )
    with pytest.raises(InputError, match="no indicator in common"):
        transfer_study(*studies_apart, **SETTINGS)
