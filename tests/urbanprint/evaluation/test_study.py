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

SETTINGS = {"buffer_m": 20_000.0, "jitter": DHS_JITTER, "seed": 0}


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
    listed = make_study(study.clusters, study.folds, buffer_m=20_000, jitter=DHS_JITTER, lists=lists)
    (split,) = listed.splits["listed"]
    assert (len(split.train), len(split.test)) == (40, 20)
    predictions = listed.predictions({"one": recording([], "one", study.labels)})
    assert (predictions["kind"] == "listed").sum() == 20 * 3 * 2
    assert split.label != listed.splits["random"][0].label, "trainings would overwrite each other"
    lists["a slip of the pen"] = "train"
    with pytest.raises(InputError, match="1 listed clusters, such as a slip of the pen, are not in the survey"):
        make_study(study.clusters, study.folds, buffer_m=20_000, jitter=DHS_JITTER, lists=lists)


def test_another_country_trains_and_never_tests(studies: tuple[ClusterStudy, ClusterStudy]) -> None:
    here, there = studies
    study = transfer_study(here, there, **SETTINGS)
    added = ["alone", "with half of simland-b", "with all of simland-b"]
    assert list(study.splits) == ["simland-b to simland-a", *added]
    mine, other = set(here.clusters["area_id"]), set(there.clusters["area_id"])
    (across,) = study.splits["simland-b to simland-a"]
    assert (set(across.test), set(across.train)) == (mine, other)
    given = []
    for name in added:
        for split, own in zip(study.splits[name], here.splits["block"], strict=True):
            assert split.test == own.test, "columns that do not test the same clusters cannot be compared"
            assert set(split.train) - other <= set(own.train)
        (clusters,) = {frozenset(set(split.train) & other) for split in study.splits[name]}
        given.append(clusters)
    none, half, every = given
    assert (none, every) == (frozenset(), other)
    assert half < every
    assert len(half) == pytest.approx(30, abs=2)
    assert list(study.labels.columns) == ["poverty", "population"]  # Simland B asked nobody for their weight
    labels = [split.label for splits in study.splits.values() for split in splits]
    assert len(set(labels)) == len(labels), "trainings would overwrite each other"


def test_what_is_held_out_inside_training_is_never_shared_by_two_countries(
    studies: tuple[ClusterStudy, ClusterStudy],
) -> None:
    study = transfer_study(*studies, **SETTINGS)
    country_of = study.clusters.set_index("area_id")["country"]
    for unit in ("block", "borough"):
        assert (study.folds.groupby(unit)["area_id"].agg(lambda ids: country_of[ids].nunique()) == 1).all()


def test_countries_that_share_clusters_or_no_indicator_are_refused(studies: tuple[ClusterStudy, ClusterStudy]) -> None:
    here, there = studies
    with pytest.raises(InputError, match="SA0001 is in both countries: tell them apart"):
        transfer_study(here, here, **SETTINGS)
    only = there.clusters.assign(poverty=np.nan, population=np.nan, bmi=20.0)
    wealth = here.clusters.assign(population=np.nan, bmi=np.nan)
    studies_apart = (
        make_study(table, study.folds, buffer_m=20_000, jitter=DHS_JITTER)
        for table, study in ((wealth, here), (only, there))
    )
    with pytest.raises(InputError, match="no indicator in common"):
        transfer_study(*studies_apart, **SETTINGS)
