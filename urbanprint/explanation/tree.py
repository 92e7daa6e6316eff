"""A decision tree that can be read, drawn as a picture. Belongs here: fitting it, and drawing it.

It is no learner of the results table: it says in a few questions what a bigger model has in its hundreds of trees. The
picture is a list of questions and answers, indented, because a tree drawn from top to bottom is too wide for a page.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from urbanprint.evaluation.tasks import Task
from urbanprint.maps.style import DIVERGING_COLOURS, GRID, INK, MUTED, WIDTH, drawn, new_figure, number_text
from urbanprint.scenes.clusters import COUNT, FRACTION, IMAGES

DEEPEST = 4
_SMALLEST_LEAF = 0.04  # of the clusters
_ROW, _INDENT = 0.235, 0.2  # inches


@dataclass(frozen=True)
class Branch:
    """A line of the tree: how deep, what is asked ("" at the root), what lies there, and whether anything follows."""

    depth: int
    question: str
    value: float
    clusters: int
    leaf: bool


def fit_tree(
    features: pd.DataFrame, target: pd.Series, *, task: Task, depth: int = DEEPEST, seed: int = 0
) -> DecisionTreeClassifier | DecisionTreeRegressor:
    """A tree of at most `depth` (and at most 4) questions, each leaf at least 4 % of the clusters.

    `features` (clusters, columns) as of `scenes.clusters.cluster_counts`; `target` without NaN, of the task.
    """
    if not 1 <= depth <= DEEPEST:
        raise ValueError(f"depth = {depth}: a tree that can be read asks 1 to {DEEPEST} questions in a row")
    kind = DecisionTreeClassifier if task == "classification" else DecisionTreeRegressor
    tree = kind(max_depth=depth, min_samples_leaf=max(1, round(_SMALLEST_LEAF * len(target))), random_state=seed)
    return tree.fit(features, target)


def branches(tree: DecisionTreeClassifier | DecisionTreeRegressor) -> list[Branch]:
    """The lines of a fitted tree from top to bottom: at each question "fewer" before "more".

    The value of a line is the mean of its clusters: for a classification the share of label 1.
    """
    return list(_lines(tree, node=0, depth=0, question=""))


def _lines(
    tree: DecisionTreeClassifier | DecisionTreeRegressor, *, node: int, depth: int, question: str
) -> Iterator[Branch]:
    inside = tree.tree_
    value = (
        float(inside.value[node, 0] @ tree.classes_) if hasattr(tree, "classes_") else float(inside.value[node, 0, 0])
    )
    left, right = int(inside.children_left[node]), int(inside.children_right[node])
    yield Branch(depth, question, value, int(inside.n_node_samples[node]), leaf=left < 0)
    if left >= 0:
        column = str(tree.feature_names_in_[inside.feature[node]])
        for child, side in ((left, "<"), (right, ">")):
            asked = question_text(column, float(inside.threshold[node]), side)
            yield from _lines(tree, node=child, depth=depth + 1, question=asked)


def question_text(column: str, threshold: float, side: str) -> str:
    """A condition for people: "vegetation covers < 12 %", "car: at least 32", "at most 180 images".

    Counts are whole numbers, so that a threshold between two of them is said as the nearer one of its side.
    """
    if column.startswith(FRACTION):
        percent = 100 * threshold
        # Two digits of a rare class: one decimal would say "covers < 0.0 %".
        amount = f"{percent:.2g}" if percent < 10 else f"{percent:.0f}"
        return f"{column.removeprefix(FRACTION)} covers {side} {amount} %"
    number = f"at most {np.floor(threshold):,.0f}" if side == "<" else f"at least {np.floor(threshold) + 1:,.0f}"
    return f"{column.removeprefix(COUNT)}: {number}" if column != IMAGES else f"{number} images"


@drawn
def draw_tree(
    tree: DecisionTreeClassifier | DecisionTreeRegressor, *, title: str, value_name: str, digits: int = 2
) -> Figure:
    """The tree as a picture (PNG): a line a question, indented; at each leaf a bar for its value and its clusters.

    `value_name` says what the value is, with its unit.
    """
    lines = branches(tree)
    height = _ROW * (len(lines) + 1) + 0.75
    figure, (axes,) = new_figure(height)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    axes.set(xlim=(0, WIDTH), ylim=(len(lines) + 0.2, -1.2))
    axes.set_axis_off()
    leaves = [line.value for line in lines if line.leaf]
    low, high = min(leaves), max(leaves)
    axes.text(WIDTH - 0.02, -0.75, f"{value_name} (clusters)", ha="right", va="center", fontsize=8.5, color=MUTED)
    for row, line in enumerate(lines):
        _draw_line(axes, row, line, low=low, high=high, digits=digits)
        _draw_elbow(axes, row, lines)
    return figure


def _draw_line(axes: Axes, row: int, line: Branch, *, low: float, high: float, digits: int) -> None:
    x = _INDENT * line.depth
    text = line.question or "all clusters"
    axes.text(
        x + 0.06,
        row,
        text,
        va="center",
        fontsize=9,
        color=INK,
        fontweight="bold" if line.leaf else "normal",
        parse_math=False,
    )
    number = f"{number_text(line.value, digits)} ({line.clusters:,})"
    axes.text(WIDTH - 0.02, row, number, ha="right", va="center", fontsize=8.5, color=INK if line.leaf else MUTED)
    if line.leaf:
        share = (line.value - low) / (high - low) if high > low else 0.5
        colour = DIVERGING_COLOURS[round(share * (len(DIVERGING_COLOURS) - 1))]
        axes.add_patch(Rectangle((WIDTH - 1.75, row - 0.3), 0.75, 0.6, facecolor="none", edgecolor=GRID, linewidth=0.7))
        axes.add_patch(
            Rectangle(
                (WIDTH - 1.75, row - 0.3), 0.04 + 0.71 * share, 0.6, facecolor=colour, edgecolor=MUTED, linewidth=0.4
            )
        )


def _draw_elbow(axes: Axes, row: int, lines: list[Branch]) -> None:
    """The line from a branch up to the one it belongs to."""
    depth = lines[row].depth
    if depth == 0:
        return
    parent = max(above for above in range(row) if lines[above].depth == depth - 1)
    x = _INDENT * (depth - 1) + 0.1
    axes.plot([x, x, x + 0.13], [parent + 0.4, row, row], color=MUTED, linewidth=0.8, solid_capstyle="butt")
