"""Labels of a task know nothing of what they test; planted leaks are refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from urbanprint.errors import InputError, LeakingSplit
from urbanprint.evaluation.splits import Split
from urbanprint.evaluation.tasks import check_classes, classify, cluster_labels, median_cut, task_labels

LABELS = pd.DataFrame(
    {"poverty": [1.0, 2.0, 3.0, 10.0, 11.0], "bmi": [20.0, np.nan, 24.0, np.nan, 23.0]}, index=list("abcde")
)
SPLIT = Split(kind="random", fold=0, train=("a", "b", "c"), test=("d", "e"))


def test_a_class_is_1_at_or_above_the_median_of_the_training_part():
    train, test = task_labels(LABELS, SPLIT, task="classification")
    assert train["poverty"].tolist() == [0.0, 1.0, 1.0]  # median 2, not the 3 of all five
    assert test["poverty"].tolist() == [1.0, 1.0]
    np.testing.assert_array_equal(train["bmi"], [0.0, np.nan, 1.0])  # the median of the known, 22
    np.testing.assert_array_equal(test["bmi"], [np.nan, 1.0])


def test_regression_labels_are_the_values_in_the_order_of_the_split():
    train, test = task_labels(LABELS, SPLIT, task="regression")
    pd.testing.assert_frame_equal(pd.concat([train, test]), LABELS)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2))
def test_no_test_value_moves_a_training_label(values):
    moved = LABELS.assign(poverty=[1.0, 2.0, 3.0, *values])
    train, _ = task_labels(moved, SPLIT, task="classification")
    assert train["poverty"].tolist() == [0.0, 1.0, 1.0]


def test_at_least_half_of_the_training_part_is_1():
    rng = np.random.default_rng(0)
    labels = pd.DataFrame({"poverty": rng.normal(size=101)}, index=[f"c{i:03d}" for i in range(101)])
    split = Split(kind="random", fold=0, train=tuple(labels.index[:71]), test=tuple(labels.index[71:]))
    train, _ = task_labels(labels, split, task="classification")
    assert train["poverty"].sum() == 36


@pytest.mark.parametrize("area_ids", [list("abcde"), list("abcd")])
def test_a_median_taken_over_test_clusters_is_refused(area_ids):
    with pytest.raises(LeakingSplit, match=r"outside the training part of fold 0 \(random\).*such as d; cut at"):
        classify(LABELS[["poverty"]], median_cut(LABELS[["poverty"]], area_ids), split=SPLIT)


def test_a_median_taken_over_buffered_clusters_is_refused():
    split = Split(kind="block", fold=1, train=("a", "b"), test=("d",), buffered=("c",))
    with pytest.raises(LeakingSplit, match=r"1 clusters outside .* 0 of them test clusters"):
        classify(LABELS, median_cut(LABELS, ["a", "b", "c"]), split=split)


def test_published_classes_cut_at_the_median_of_all_are_refused():
    everywhere = (LABELS[["poverty"]] >= LABELS["poverty"].median()).astype(float)
    with pytest.raises(LeakingSplit, match=r"classes of 'poverty' leak: 1 clusters, such as b"):
        check_classes(everywhere, LABELS, split=SPLIT)
    train, test = task_labels(LABELS, SPLIT, task="classification")
    check_classes(pd.concat([train, test]), LABELS, split=SPLIT)


def test_an_indicator_unknown_in_training_has_no_median():
    with pytest.raises(InputError, match=r"None of the 2 training clusters has a value of 'bmi'"):
        median_cut(LABELS, ["b", "d"])


def test_labels_of_clusters_leave_out_what_no_cluster_has():
    clusters = LABELS.rename_axis("area_id").reset_index().assign(population=np.nan)
    assert list(cluster_labels(clusters).columns) == ["poverty", "bmi"]
