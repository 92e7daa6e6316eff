"""The tree that can be read."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from urbanprint.explanation.tree import Branch, branches, draw_tree, fit_tree, question_text


@pytest.fixture(scope="module")
def features() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "count:car": rng.integers(0, 100, 400).astype(float),
            "fraction:vegetation": rng.uniform(0, 0.6, 400),
            "images": rng.integers(1, 200, 400).astype(float),
        }
    )


def test_a_planted_rule_is_read_off_the_tree(features: pd.DataFrame) -> None:
    target = (features["count:car"] >= 40).astype(float)
    tree = fit_tree(features, target, task="classification", depth=1)
    below = int((target == 0).sum())
    assert branches(tree) == [
        Branch(0, "", pytest.approx(1 - below / 400), 400, leaf=False),
        Branch(1, "car: at most 39", 0.0, below, leaf=True),
        Branch(1, "car: at least 40", 1.0, 400 - below, leaf=True),
    ]


def test_leaves_hold_the_means_of_their_clusters(features: pd.DataFrame) -> None:
    target = 10 * features["fraction:vegetation"] + (features["images"] > 100)
    tree = fit_tree(features, target, task="regression", depth=4)
    leaves = [line for line in branches(tree) if line.leaf]
    assert sum(line.clusters for line in leaves) == 400
    assert min(line.clusters for line in leaves) >= 16
    assert max(line.depth for line in leaves) <= 4
    assert sum(line.value * line.clusters for line in leaves) == pytest.approx(target.sum())


@pytest.mark.parametrize(
    ("column", "threshold", "below", "above"),
    [
        ("count:utility pole", 1234.5, "utility pole: at most 1,234", "utility pole: at least 1,235"),
        ("fraction:sky", 0.256, "sky covers < 26 %", "sky covers > 26 %"),
        ("fraction:litter", 0.0123, "litter covers < 1.2 %", "litter covers > 1.2 %"),
        ("fraction:roof", 0.00031, "roof covers < 0.031 %", "roof covers > 0.031 %"),
        ("images", 10.5, "at most 10 images", "at least 11 images"),
    ],
)  # fmt: skip
def test_questions_are_in_words(column: str, threshold: float, below: str, above: str) -> None:
    assert question_text(column, threshold, "<") == below
    assert question_text(column, threshold, ">") == above


def test_a_tree_too_deep_to_read_is_refused(features: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="1 to 4 questions"):
        fit_tree(features, features["images"], task="regression", depth=5)


def test_the_picture_grows_with_the_tree(features: pd.DataFrame) -> None:
    target = 10 * features["fraction:vegetation"] + (features["images"] > 100)
    heights = []
    for depth in (1, 4):
        tree = fit_tree(features, target, task="regression", depth=depth)
        picture = Image.open(io.BytesIO(draw_tree(tree, title="What a tree asks", value_name="Wealth")))
        assert picture.width == 1008  # 5.6 inches
        heights.append(picture.height)
    assert heights[1] > 3 * heights[0]
