"""Temperatures of classes in a hierarchy, one a level.

They keep the hierarchy coherent only where they act on the softmax among siblings, or on the one over the leaves;
dividing the logarithms of each level's probabilities by a number of its own would make children outweigh their parent.
So: a classifier a level gets `fit_temperatures`, a leaf classifier gets one `evaluation.calibration.fit_temperature` of
its leaves; where that leaves a level off, `fit_temperatures` of its joint log-probabilities, which are valid logits of
`probabilities.conditional`.
"""

from collections.abc import Sequence

import numpy as np

from urbanprint.errors import MissingImages
from urbanprint.evaluation.calibration import fit_temperature
from urbanprint.geolocation.hierarchy import Hierarchy


def fit_temperatures(logits: Sequence[np.ndarray], labels: np.ndarray, hierarchy: Hierarchy) -> tuple[float, ...]:
    """The temperature of each level's softmax among siblings, for `probabilities.conditional`.

    `labels` (n, levels) as of `Hierarchy.labels`. The log-likelihood of a leaf is the sum of those of its steps down,
    so what is fitted level by level is also the best of all levels together. A level where no class has a sibling has
    temperature 1; images whose true class has none say nothing and are left out.

    Raises `MissingImages` where a level has siblings and no image lies in one of them.
    """
    hierarchy.check(logits)
    found = []
    for level, values, true in zip(hierarchy.levels, logits, labels.T, strict=True):
        siblings = np.diff(level.starts)
        rows = np.flatnonzero((true >= 0) & (siblings[level.parents[true]] > 1))
        if siblings.max() == 1:
            found.append(1.0)
        elif not len(rows):
            raise MissingImages(
                f"0 of {len(true)} images lie in a class of level {level.number} that has siblings, at least 1 is"
                " needed to fit its temperature: hold out more images."
            )
        else:
            family = level.children(level.parents[true[rows], None])
            among = np.where(family >= 0, np.take_along_axis(values[rows], family, axis=1), -np.inf)
            found.append(fit_temperature(among, true[rows] - level.starts[level.parents[true[rows]]]))
    return tuple(found)
