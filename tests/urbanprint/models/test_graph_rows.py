"""The graph's rows of the results table, and what their nodes have seen."""

import pandas as pd
import pytest

from urbanprint.errors import LeakingSplit
from urbanprint.evaluation.splits import Split
from urbanprint.maps.livelihood_table import PICTURE_LEARNERS
from urbanprint.models.graph_rows import GRAPH_ROWS, node_features
from urbanprint.models.provenance import Features, features_for

SPLIT = Split(kind="block", fold=0, train=("a",), test=("b",))
INDEX = pd.Index(["i1", "i2"], name="image_id")
OBJECTS = pd.DataFrame({"count:car": [1.0, 2.0]}, index=INDEX)
CNN = pd.DataFrame({"cnn_0": [0.5, 0.25]}, index=INDEX)


def test_every_row_stands_in_the_table() -> None:
    assert set(GRAPH_ROWS) == {name for name in PICTURE_LEARNERS if name.startswith("graph")}
    assert {row.edges for row in GRAPH_ROWS.values()} == {"inverse distance", "random", "identity", "complete"}


def test_nodes_hold_objects_image_features_or_both_side_by_side() -> None:
    def images(_split: Split) -> Features:
        return Features(table=CNN, fitted_on=frozenset({"a"}))

    assert features_for(node_features("objects", objects=OBJECTS, images=images), SPLIT) is OBJECTS
    assert features_for(node_features("images", objects=OBJECTS, images=images), SPLIT) is CNN
    both = features_for(node_features("both", objects=OBJECTS, images=images), SPLIT)
    assert list(both.columns) == ["count:car", "cnn_0"]
    assert both.loc["i2"].tolist() == [2.0, 0.25]


@pytest.mark.parametrize("nodes", ["images", "both"])
def test_features_tuned_on_the_test_labels_are_refused_in_every_row(nodes: str) -> None:
    def leaking(_split: Split) -> Features:
        return Features(table=CNN, fitted_on=frozenset({"a", "b"}))

    with pytest.raises(LeakingSplit, match="1 of 1 test areas"):
        features_for(node_features(nodes, objects=OBJECTS, images=leaking), SPLIT)
