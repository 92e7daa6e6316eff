"""Answers that say how sure they are: sets of cells with a stated coverage, and the finest cell that is sure enough.

What belongs here: from coherent log-probabilities a level, (n, classes) each, to cells. `finest` caps precision in
every answer: nothing finer than that level is ever told, whatever the model knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from urbanprint.errors import InputError
from urbanprint.geolocation.hierarchy import Hierarchy

COVERAGE_COLUMNS = ("group", "coverage", "mean_size", "images")


def fit_thresholds(
    log_probabilities: Sequence[np.ndarray], labels: np.ndarray, hierarchy: Hierarchy, *, coverage: float = 0.9
) -> tuple[float, ...]:
    """The log-probability a cell needs to be in the set, a level, such that sets hold the true cell `coverage` often.

    Split conformal prediction with the score -log P(true cell): of all sets with that coverage these are the smallest
    on average (least ambiguous sets; Sadinle, Lei and Wasserman 2019, "Least ambiguous set-valued classifiers with
    bounded error levels", JASA). They need no random numbers, so an image always gets the same set, and no sorting.
    The price: coverage holds over all images together, less on hard ones and more on easy ones, where adaptive sets
    (Romano, Sesia and Candes 2020) even it out by larger sets; read `measured_coverage` by group.

    `labels` (n, levels) are the true classes of held-out images, -1 = in no class: such an image is covered by no set
    and counts as not covered. The threshold is the ceil((n + 1) coverage)-th best score; -inf, all cells, where there
    are too few images for that. Coverage is promised for images exchangeable with these: hold out blocks, and take one
    image a sequence (intervals of a nominal 90 % calibrated on random folds covered 77.8 % of unseen boroughs).
    """
    check_share(coverage, "coverage")
    hierarchy.check(log_probabilities, what="log-probabilities")
    rows = np.arange(len(labels))
    thresholds = []
    for values, true in zip(log_probabilities, labels.T, strict=True):
        of_true = np.where(true >= 0, values[rows, true], -np.inf)
        # Rounded first: 100 x 0.55 is 55.00000000000001 in floating point, and the ceiling would take the 56th.
        position = int(np.ceil(round((len(rows) + 1) * coverage, 9)))
        thresholds.append(float(np.sort(of_true)[-position]) if position <= len(rows) else -np.inf)
    return tuple(thresholds)


def prediction_sets(
    log_probabilities: Sequence[np.ndarray],
    thresholds: Sequence[float],
    hierarchy: Hierarchy,
    *,
    finest: int | None = None,
) -> tuple[np.ndarray, ...]:
    """Which cells are in each image's set: (n, classes) of bool a level, down to `finest`.

    The likeliest cell is always in: an empty set would be no answer. Where it is right more often than `coverage`, so
    are the sets.
    """
    hierarchy.check(log_probabilities, what="log-probabilities")
    sets = []
    for _, values, threshold in zip(hierarchy.upto(finest), log_probabilities, thresholds, strict=False):
        held = values >= threshold
        held[np.arange(len(values)), values.argmax(axis=1)] = True
        sets.append(held)
    return tuple(sets)


def measured_coverage(sets: np.ndarray, labels: np.ndarray, *, groups: np.ndarray) -> pd.DataFrame:
    """How often sets (n, classes) hold the true class (n,), a row a group, sorted (`COVERAGE_COLUMNS`).

    `coverage` is a share in [0, 1], `mean_size` in cells. `groups` (n,) are continents, blocks, set sizes.
    """
    held = np.where(labels >= 0, sets[np.arange(len(sets)), labels], False)
    table = pd.DataFrame({"group": groups, "coverage": held.astype(float), "mean_size": sets.sum(axis=1)})
    found = table.groupby("group", as_index=False).agg(
        coverage=("coverage", "mean"), mean_size=("mean_size", "mean"), images=("coverage", "size")
    )
    return found[list(COVERAGE_COLUMNS)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """One cell an image: `levels` (n,) positions in the hierarchy's levels, `cells` (n,) positions in that level.

    Both are -1, with a log-probability of 0, for the whole Earth: no cell even of the coarsest level was sure enough.
    """

    levels: np.ndarray
    cells: np.ndarray
    log_probabilities: np.ndarray


def confident_cells(
    log_probabilities: Sequence[np.ndarray], hierarchy: Hierarchy, *, confidence: float = 0.9, finest: int | None = None
) -> Answers:
    """The finest cell, not finer than `finest`, with at least the probability `confidence`: "somewhere in here, 90 %".

    As parents sum their children, the cells that qualify lie in each other for a confidence above 0.5; below, two could
    contradict each other, so that is refused. The answer is as good as the calibration of the probabilities.
    """
    check_share(confidence, "confidence", above=0.5)
    hierarchy.check(log_probabilities, what="log-probabilities")
    images = np.arange(len(log_probabilities[0]))
    levels, cells = np.full((2, len(images)), -1)
    best = np.zeros(len(images))
    for number, (_, values) in enumerate(zip(hierarchy.upto(finest), log_probabilities, strict=False)):
        top = values.argmax(axis=1)
        probability = values[images, top]
        sure = probability >= np.log(confidence) - 1e-12
        levels[sure], cells[sure], best[sure] = number, top[sure], probability[sure]
    return Answers(levels=levels, cells=cells, log_probabilities=best)


def check_share(share: float, name: str, *, above: float = 0.0) -> None:
    """Raise `InputError` unless the share is one."""
    if not above < share < 1.0:
        raise InputError(f"{name} = {share}: a share above {above:g} and below 1 is expected, such as 0.9.")
