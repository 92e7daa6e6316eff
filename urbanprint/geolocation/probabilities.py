"""From logits to one coherent set of probabilities down the hierarchy, and the search for the likeliest cells.

What belongs here: arithmetic on logits (n, classes) of n images, a matrix a level. All probabilities are natural
logarithms in float64. Coherent means: at every level they sum to 1, and children sum to their parent. A matrix of 1,000
images and 8,655 cells takes 69 MB: go through many images in batches.

Two designs give coherent probabilities: a classifier a level (`conditional`), and one classifier of the leaves
(`joint`). `old_fusion` is the comparator that is neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from urbanprint.errors import InputError
from urbanprint.geolocation.hierarchy import Hierarchy, Level

STEPS = ((0.85, 1), (0.65, 2), (0.40, 3))
"""How many cells are kept at a level whose likeliest cell has at least this probability."""

MOST = 6
"""How many are kept below the last step."""

_TINY = 1e-290  # below, a sum of exponentials begins to lose digits


def conditional(
    logits: Sequence[np.ndarray], hierarchy: Hierarchy, *, temperatures: Sequence[float] | None = None
) -> list[np.ndarray]:
    """Log-probabilities at every level from the logits of one classifier a level.

    P(child) = P(parent) x softmax of the child's logit / T among its siblings: what a level's classifier thinks of
    cousins has no say. `temperatures` are one a level (`calibration.fit_temperatures`), 1 if None.

    The result of `joint` is a valid input too, since the softmax of log P(child) among siblings is P(child | parent):
    that is how probabilities of a leaf classifier get a temperature a level and stay coherent.
    """
    hierarchy.check(logits)
    temperatures = [1.0] * len(logits) if temperatures is None else temperatures
    parent = np.zeros((len(logits[0]), 1))
    found = []
    for level, values, temperature in zip(hierarchy.levels, logits, temperatures, strict=True):
        scaled = np.asarray(values, dtype=np.float64) / temperature
        parent = scaled + (parent - _siblings_logsumexp(scaled, level))[:, level.parents]
        found.append(parent)
    return found


def joint(logits: np.ndarray, hierarchy: Hierarchy, *, temperature: float = 1.0) -> list[np.ndarray]:
    """Log-probabilities at every level from logits (n, leaves): a softmax over the leaves, parents sum their leaves."""
    hierarchy.levels[-1].check(logits, images=len(logits))
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    leaves = scaled - scaled.max(axis=1, keepdims=True)
    sums = [np.exp(leaves)]
    for level in hierarchy.levels[:0:-1]:
        sums.append(np.add.reduceat(sums[-1], level.starts[:-1], axis=1))
    total = np.log(sums[-1].sum(axis=1, keepdims=True))
    found = [leaves - total]
    # One exponential a leaf is twice as fast as families each with their own maximum, which so small a sum needs.
    for level, each in zip(hierarchy.levels[:0:-1], sums[1:], strict=True):
        found.append(np.log(each) - total if each.min(initial=1.0) > _TINY else _siblings_logsumexp(found[-1], level))
    return found[::-1]


def old_fusion(logits: Sequence[np.ndarray], hierarchy: Hierarchy) -> list[np.ndarray]:
    """Scores, not probabilities: P(parent) x the child's LOGIT, as an earlier grid project fused its levels.

    Kept to be compared with. Where logits are negative, a smaller P(parent) makes the product larger: the unlikely
    parent wins. Adding a constant to all logits of a level, which changes no softmax, changes its answer.
    """
    parents = [np.zeros((len(logits[0]), 1)), *conditional(logits, hierarchy)[:-1]]
    return [
        np.exp(parent)[:, level.parents] * values
        for level, values, parent in zip(hierarchy.levels, logits, parents, strict=True)
    ]


def adaptive_k(confidence: np.ndarray, classes: np.ndarray | int) -> np.ndarray:
    """How many cells to keep at a level, given the probability of its likeliest: `STEPS`, at most `classes`."""
    # Rounded first: exp(log(0.85)) may come out a digit below 0.85.
    confidence = np.round(confidence, 12)
    k = np.select([confidence >= least for least, _ in STEPS], [kept for _, kept in STEPS], MOST)
    return np.minimum(k, classes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """The cells kept at a level, likeliest first: positions (n, most) in the level and their log-probabilities.

    Where an image kept fewer, the position is -1 and the log-probability -inf.
    """

    level: Level
    cells: np.ndarray
    log_probabilities: np.ndarray


def beam_search(
    log_probabilities: Sequence[np.ndarray],
    hierarchy: Hierarchy,
    *,
    width: int | None = None,
    finest: int | None = None,
) -> tuple[Candidates, ...]:
    """The likeliest cells of each level down to `finest`, looked for only under the cells kept a level above.

    At each level `width` cells are kept or, if None, as many as `adaptive_k` says of the likeliest of them. A narrow
    beam is not exact at the finest level: the likeliest leaf may lie under a parent that was dropped. A beam as wide as
    the widest level is.
    """
    if width is not None and width < 1:
        raise InputError(f"width = {width}: a beam keeps at least 1 cell.")
    hierarchy.check(log_probabilities, what="log-probabilities")
    kept = np.zeros((len(log_probabilities[0]), 1), dtype=np.int64)  # the Earth
    found = []
    for level, values in zip(hierarchy.upto(finest), log_probabilities, strict=False):
        reached = level.children(kept)
        scores = np.where(reached >= 0, np.take_along_axis(values, reached, axis=1), -np.inf)
        classes = (reached >= 0).sum(axis=1)
        k = adaptive_k(np.exp(scores.max(axis=1)), classes) if width is None else np.minimum(width, classes)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : k.max(initial=1)]
        within = np.arange(order.shape[1]) < k[:, None]
        kept = np.where(within, np.take_along_axis(reached, order, axis=1), -1)
        best = np.where(within, np.take_along_axis(scores, order, axis=1), -np.inf)
        found.append(Candidates(level=level, cells=kept, log_probabilities=best))
    return tuple(found)


def _siblings_logsumexp(values: np.ndarray, level: Level) -> np.ndarray:
    """Over the children of each parent: (n, classes) to (n, parents). Stable: each family has its own maximum."""
    starts = level.starts[:-1]
    highest = np.maximum.reduceat(values, starts, axis=1)
    shifted = values - highest[:, level.parents]
    return highest + np.log(np.add.reduceat(np.exp(shifted, out=shifted), starts, axis=1))
