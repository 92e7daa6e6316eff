"""What choosing on the validation list is worth: the score reported against the score the chosen model deserves.

What belongs here: the measurement only, by simulation, of a practice that the project does not follow. No figure from
here ever chooses a model.
"""

import numpy as np
import pandas as pd

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.evaluation.tasks import Task

_LEARNING_RATES = (0.3, 0.1, 0.03)
_FEATURES = 64
_TEST = 4_000
_BATCH = 64
_STEPS = 10


def selection_optimism(
    *,
    learnable: float,
    training: int = 800,
    validation: int = 200,
    evaluations: int = 60,
    runs: int = 6,
    studies: int = 200,
    seed: int,
) -> pd.DataFrame:
    """How much "the best of `evaluations` on the validation list" flatters, both tasks (`tables.SELECTION_OPTIMISM`).

    A study draws clusters with 64 standard normal features and an indicator of variance 1, of which the features carry
    the share `learnable` (0: nothing can be learned; else no model can exceed that R2), trains a linear model by
    stochastic gradient descent on squared error in `runs` runs (three learning rates in turn, its own batches), and
    evaluates it after every 10 batches of 64, `evaluations` times in all. The evaluation with the best score on
    `validation` clusters is the one reported: accuracy for classification at the training median, R2 for regression.

    - `reported`: that score, as a paper would print it;
    - `honest`: the same model on 4,000 clusters that chose nothing;
    - `optimism`: reported minus honest.

    Each has its mean over `studies` and the range that holds 95 % of them. Clusters are independent here; where
    neighbours resemble each other a list holds fewer independent clusters than it counts, and the optimism is larger.
    """
    if not 0.0 <= learnable < 1.0:
        raise InputError(f"learnable = {learnable}: the share the features carry lies between 0 and 1 (exclusive).")
    if evaluations < 1 or runs < 1 or studies < 2 or validation < 2 or evaluations % min(runs, evaluations):
        raise InputError(
            f"{evaluations} evaluations in {runs} runs on {validation} clusters, {studies} studies: at least one"
            " evaluation in each run, the same number in all, and two clusters and studies are needed."
        )
    rng = np.random.default_rng(seed)
    rows = []
    sizes = (training, validation, _TEST)
    found: dict[Task, list[tuple[float, float]]] = {"classification": [], "regression": []}
    for _ in range(studies):
        direction = rng.standard_normal(_FEATURES)
        direction *= np.sqrt(learnable) / np.linalg.norm(direction)
        x = [rng.standard_normal((size, _FEATURES)) for size in sizes]
        y = [each @ direction + np.sqrt(1 - learnable) * rng.standard_normal(len(each)) for each in x]
        for task, results in found.items():
            results.append(_study(x, y, task=task, evaluations=evaluations, runs=min(runs, evaluations), rng=rng))
    for task, results in found.items():
        reported, honest = np.array(results).T
        for quantity, values in (("reported", reported), ("honest", honest), ("optimism", reported - honest)):
            low, high = np.quantile(values, (0.025, 0.975))
            rows.append((task, float(learnable), evaluations, validation, quantity, values.mean(), low, high))
    return tables.SELECTION_OPTIMISM.validate(pd.DataFrame(rows, columns=list(tables.SELECTION_OPTIMISM.columns)))


def _study(
    x: list[np.ndarray], y: list[np.ndarray], *, task: Task, evaluations: int, runs: int, rng: np.random.Generator
) -> tuple[float, float]:
    """(score on the validation list, score on the test clusters) of the evaluation best on the validation list."""
    if task == "classification":
        median = np.median(y[0])
        y = [np.where(values >= median, 0.5, -0.5) for values in y]
    # All runs start near nothing, as a head on a pretrained network does; they differ in batches and rate.
    weights = rng.standard_normal((runs, _FEATURES)) * 0.01
    rates = np.resize(_LEARNING_RATES, (runs, 1)) / np.sqrt(_FEATURES)
    best, chosen = -np.inf, weights[0]
    for _ in range(evaluations // runs):
        for batch in rng.integers(0, len(y[0]), (_STEPS, runs, _BATCH)):
            rows = x[0][batch]  # (runs, batch, features)
            error = (rows @ weights[:, :, None])[:, :, 0] - y[0][batch]
            weights = weights - rates * (error[:, None, :] @ rows)[:, 0, :] / _BATCH
        scores = _scores(x[1] @ weights.T, y[1], task)
        if scores.max() > best:
            best, chosen = float(scores.max()), weights[scores.argmax()]
    return best, float(_scores(x[2] @ chosen[:, None], y[2], task)[0])


def _scores(predicted: np.ndarray, observed: np.ndarray, task: Task) -> np.ndarray:
    """A score a column of `predicted` (n, m): (m,). The indicator has mean 0, so no model needs an intercept."""
    if task == "classification":
        return ((predicted >= 0) == (observed >= 0)[:, None]).mean(axis=0)
    return 1 - ((observed[:, None] - predicted) ** 2).sum(axis=0) / ((observed - observed.mean()) ** 2).sum()
