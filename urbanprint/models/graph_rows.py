"""The rows of the results table that the graph network fills: what its nodes hold, its edges, its pooling."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import pandas as pd

from urbanprint.evaluation.splits import Split
from urbanprint.models.graph import Edges, Pooling
from urbanprint.models.provenance import Features

Nodes = Literal["objects", "images", "both"]
"""Features of a node: object counts and fractions of its image, features of the image network, or both side by side."""


class GraphRow(NamedTuple):
    """One row."""

    nodes: Nodes
    edges: Edges = "inverse distance"
    pooling: Pooling = "softmax"


GRAPH_ROWS: dict[str, GraphRow] = {
    "graph_objects": GraphRow("objects"),
    "graph_images": GraphRow("images"),
    "graph_both": GraphRow("both"),
    "graph_both_random": GraphRow("both", edges="random"),
    "graph_both_identity": GraphRow("both", edges="identity"),
    "graph_both_complete": GraphRow("both", edges="complete"),
    "graph_both_attention": GraphRow("both", pooling="attention"),
}
"""Learner -> its row, those of Lee et al. 2021 first; identity lets no image hear of another before the pooling."""


def node_features(
    nodes: Nodes, *, objects: pd.DataFrame, images: Callable[[Split], Features]
) -> pd.DataFrame | Callable[[Split], Features]:
    """The features of a row's nodes, a source for `graph_learner`; `objects` is indexed by image_id and knows no label.

    `images` says for each split what its image features have seen, and what is side by side with them has seen it too.
    """
    if nodes == "objects":
        return objects
    if nodes == "images":
        return images

    def side_by_side(split: Split) -> Features:
        found = images(split)
        return Features(table=objects.join(found.table, how="inner"), fitted_on=found.fitted_on)

    return side_by_side
