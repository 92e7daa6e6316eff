"""Do the probabilities mean what they say? A temperature fitted on held-out examples, and how far off they are.

What belongs here: what is fitted on, or measured against, the true classes of examples that did not train the model.
Those should be of places the model has not seen (whole blocks): calibrated on near neighbours of what it was trained
on, it stays overconfident elsewhere.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from urbanprint.errors import InputError, MissingImages

TEMPERATURES = (0.05, 20.0)
"""Bounds of the search. Where every held-out image is right no T is the best, and one near the lower bound results."""

BINS = 15
"""Bins of the calibration error, as Guo et al. 2017 take them."""

RELIABILITY_COLUMNS = ("low", "high", "confidence", "accuracy", "images")


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T that makes softmax(logits / T) likeliest, for logits (n, k) and true classes (n,), -1 = in no class.

    One number fitted by minimising the negative log-likelihood (Guo et al. 2017, "On calibration of modern neural
    networks", ICML). It is convex in 1 / T, so the minimum found is the only one. Above 1 for an overconfident model;
    which class is the likeliest never changes. Columns may be -inf where an image has fewer classes.

    Raises `MissingImages` where no image has a class.
    """
    labelled = np.flatnonzero(labels >= 0)
    if not len(labelled):
        raise MissingImages(f"0 of {len(labels)} images lie in a class, at least 1 is needed to fit a temperature.")
    wanted = logits[labelled].astype(np.float64)
    highest = wanted.max(axis=1)
    lead = highest - logits[labelled, labels[labelled]]
    below = wanted - highest[:, None]
    scaled = np.empty_like(below)  # made once: half of the time of a step went into allocating it

    def loss(log_t: float) -> float:
        np.multiply(below, np.exp(-log_t), out=scaled)
        return float((lead * np.exp(-log_t) + np.log(np.exp(scaled, out=scaled).sum(axis=1))).mean())

    fitted = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(fitted.x))


def top_confidence(log_probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the likeliest class (n,) and whether it is the true one (n,), of log-probabilities (n, k)."""
    likeliest = log_probabilities.argmax(axis=1)
    return np.exp(log_probabilities.max(axis=1)), likeliest == labels


def reliability(confidence: np.ndarray, correct: np.ndarray, *, bins: int = BINS) -> pd.DataFrame:
    """How often images of about equal confidence are right, a row a bin that is not empty (`RELIABILITY_COLUMNS`).

    `low`, `high` bound the bin; `confidence` and `accuracy` are means in it. Bins hold about equally many images
    (Nguyen and O'Connor 2015, "Posterior calibration and exploratory analysis for natural language processing models"):
    of thousands of cells most confidences are small, and bins of equal width would put nearly all images into the
    first. Equal confidences share a bin, so the order of images does not matter.

    Raises `MissingImages` without images and `InputError` for a confidence outside [0, 1].
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if not len(confidence):
        raise MissingImages("There are 0 images, at least 1 is needed to measure calibration.")
    if not (valid := (confidence >= 0.0) & (confidence <= 1.0 + 1e-9)).all():
        row = int(valid.argmin())
        raise InputError(f"The confidence of row {row} is {confidence[row]}: probabilities lie in [0, 1].")
    edges = np.quantile(confidence, np.linspace(0.0, 1.0, bins + 1))
    number = np.searchsorted(edges[1:-1], confidence, side="left")
    count = np.bincount(number, minlength=bins)
    filled = count > 0
    means = [np.bincount(number, weights=v, minlength=bins)[filled] / count[filled] for v in (confidence, correct)]
    columns = (edges[:-1][filled], edges[1:][filled], *means, count[filled])
    return pd.DataFrame(dict(zip(RELIABILITY_COLUMNS, columns, strict=True)))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, *, bins: int = BINS) -> float:
    """Mean over images of |accuracy - confidence| of their bin in `reliability`, in [0, 1].

    A perfectly calibrated model does not reach 0: chance alone leaves about 0.8 sqrt(p (1 - p) bins / n), which is
    0.02 for 5,000 images at p = 0.7.
    """
    table = reliability(confidence, correct, bins=bins)
    gap = (table["accuracy"] - table["confidence"]).abs()
    return float(np.average(gap, weights=table["images"]))
