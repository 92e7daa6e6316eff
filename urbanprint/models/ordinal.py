"""Heads for ordered classes, such as income quintiles: one number of a network -> the probability of every class.

What belongs here: the heads, their calibration on pictures of places the network has not seen, and what is read off
and measured on the probabilities of ordered classes. Classes are numbered from 0, the lowest. Heads are torch; what
follows from probabilities is numpy.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn import functional

from urbanprint.errors import InputError, MissingImages
from urbanprint.evaluation.calibration import BINS, TEMPERATURES, expected_calibration_error

Kind = Literal["binomial", "cumulative", "regression"]


class OrdinalHead(nn.Module, ABC):
    """Outputs (n, `width`) of a network -> log-probabilities (n, `classes`), in float32 at least, also under autocast.

    Under every head a higher output means higher classes, and an output of 0 is the middle of an untrained head. Behind
    a network in `nn.Sequential` it makes one network of class log-probabilities, which gradients can explain.
    Raises `InputError` for outputs of another shape and for fewer than two classes.
    """

    width = 1

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise InputError(f"classes = {classes}: an ordinal head needs at least 2 classes.")
        self.classes = classes

    def forward(self, outputs: Tensor) -> Tensor:
        if outputs.ndim != 2 or outputs.shape[1] != self.width:
            raise InputError(
                f"The outputs have the shape {tuple(outputs.shape)}: an ordinal head takes (n, {self.width})."
            )
        with torch.autocast(outputs.device.type, enabled=False):
            return self._log_probabilities(_precise(outputs))

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss to train with, a scalar, of outputs (n, width) and true classes (n,), int64."""
        return negative_log_likelihood(self(outputs), labels)

    @abstractmethod
    def _log_probabilities(self, outputs: Tensor) -> Tensor:
        """Of outputs (n, width) in full precision: (n, classes)."""


class BinomialHead(OrdinalHead):
    """Class k of K has the probability Binomial(k; K - 1, p), p the sigmoid of the output: always one peak.

    Beckham and Pal 2017, "Unimodal probability distributions for deep ordinal classification", ICML. The spread follows
    from p and cannot be learnt; `Calibration.spread` sets it afterwards.
    """

    def _log_probabilities(self, outputs: Tensor) -> Tensor:
        # From the logit and never from p, which is 1 in float32 above a logit of 17.
        trials = outputs.new_tensor(self.classes - 1.0)
        k = torch.arange(self.classes, dtype=outputs.dtype, device=outputs.device)
        coefficients = torch.lgamma(trials + 1) - torch.lgamma(k + 1) - torch.lgamma(trials - k + 1)
        return coefficients + k * functional.logsigmoid(outputs) + (trials - k) * functional.logsigmoid(-outputs)


class CumulativeHead(OrdinalHead):
    """P(class <= k) = sigmoid(threshold_k - output), with ordered thresholds that are learnt.

    The proportional odds model (McCullagh 1980, "Regression models for ordinal data", JRSS B 42). The thresholds start
    where an output of 0 makes all classes equally likely.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        start = torch.logit(torch.arange(1, classes, dtype=torch.float64) / classes)
        self.first = nn.Parameter(start[:1].float())
        self.log_gaps = nn.Parameter(start.diff().log().float())

    @property
    def thresholds(self) -> Tensor:
        """Where neighbouring classes part, (classes - 1,), ascending."""
        return torch.cat([self.first, self.first + self.log_gaps.exp().cumsum(0)])

    def _log_probabilities(self, outputs: Tensor) -> Tensor:
        # s(b) - s(a) = s(b) s(-a) (1 - exp(a - b)) for sigmoids s: no difference of nearly equal numbers is taken.
        lead = self.thresholds - outputs
        below, above = functional.logsigmoid(lead), functional.logsigmoid(-lead)
        between = torch.log(-torch.expm1(-self.log_gaps.exp()))
        return functional.pad(below, (0, 1)) + functional.pad(above, (1, 0)) + functional.pad(between, (1, 1))


class RegressionHead(OrdinalHead):
    """The class number as a value, trained by squared error: value = output + (K - 1) / 2.

    P(k) is proportional to exp(-(value - k)^2 / 2), so that the likeliest class is the value rounded, and the classes
    at the ends take all beyond them. `Calibration.spread` is the variance in place of 1.
    """

    def values(self, outputs: Tensor) -> Tensor:
        """The predicted class before it is rounded (n,)."""
        return _precise(outputs)[:, 0] + (self.classes - 1) / 2

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        values = self.values(outputs)
        return functional.mse_loss(values, labels.to(values.dtype))

    def _log_probabilities(self, outputs: Tensor) -> Tensor:
        k = torch.arange(self.classes, dtype=outputs.dtype, device=outputs.device)
        return torch.log_softmax(-((self.values(outputs)[:, None] - k) ** 2) / 2, dim=1)


_HEADS: dict[str, type[OrdinalHead]] = {
    "binomial": BinomialHead,
    "cumulative": CumulativeHead,
    "regression": RegressionHead,
}


def ordinal_head(kind: Kind, *, classes: int) -> OrdinalHead:
    """The head of that name. Raises `InputError` for an unknown one and for fewer than two classes."""
    if kind not in _HEADS:
        raise InputError(f"'{kind}' is not an ordinal head: use one of {', '.join(_HEADS)}.")
    return _HEADS[kind](classes)


def negative_log_likelihood(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log P(true class), a scalar, of log-probabilities (n, classes) and true classes (n,), int64."""
    return functional.nll_loss(log_probabilities, labels)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Two numbers that make a head's probabilities mean what they say; 1 leaves them as they are.

    `temperature` divides the output, the logit: above 1 it moves predictions towards the middle, as an overfitted
    network needs. `spread` divides the log-probabilities, which are normalised again: above 1 it widens a distribution
    about the same likeliest class (the tau of Beckham and Pal 2017).
    """

    temperature: float = 1.0
    spread: float = 1.0

    def log_probabilities(self, head: OrdinalHead, outputs: Tensor) -> Tensor:
        """What `head` gives for `outputs` (n, width), calibrated: (n, classes)."""
        return torch.log_softmax(head(_precise(outputs) / self.temperature) / self.spread, dim=1)


def fit_calibration(head: OrdinalHead, outputs: Tensor, labels: Tensor) -> Calibration:
    """The calibration under which the true classes `labels` (n,) of held-out `outputs` (n, width) are likeliest.

    Fitted by Nelder and Mead's search on both logarithms. Hold out whole blocks: on neighbours of the training tiles a
    network looks surer than it is elsewhere. Raises `MissingImages` without labels.
    """
    if not len(labels):
        raise MissingImages("There are 0 held-out images, at least 1 is needed to calibrate an ordinal head.")

    def calibration(logs: np.ndarray) -> Calibration:
        return Calibration(temperature=math.exp(logs[0]), spread=math.exp(logs[1]))

    def loss(logs: np.ndarray) -> float:
        return negative_log_likelihood(calibration(logs).log_probabilities(head, outputs), labels).item()

    bounds = [tuple(np.log(TEMPERATURES))] * 2
    # By default the search starts with steps of 0.00025 where a coordinate is 0, and ends before it has moved.
    options = {"xatol": 1e-3, "initial_simplex": [[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]]}
    with torch.no_grad():
        fitted = minimize(loss, x0=[0.0, 0.0], bounds=bounds, method="Nelder-Mead", options=options)
    return calibration(fitted.x)


def expected_class(probabilities: np.ndarray) -> np.ndarray:
    """The mean class number (n,) of probabilities (n, classes), from 0 to classes - 1."""
    return probabilities @ np.arange(probabilities.shape[1])


def likeliest_class(probabilities: np.ndarray) -> np.ndarray:
    """The mode (n,) of probabilities (n, classes), the lower class of a tie."""
    return probabilities.argmax(axis=1)


def quantile_class(probabilities: np.ndarray, level: float) -> np.ndarray:
    """The lowest class (n,) up to which at least `level` of the probability (n, classes) lies."""
    return (_cumulative(probabilities) < level).sum(axis=1)


def ranked_probability_score(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How far probabilities (n, classes) are from the true classes (n,), one a row: 0 perfect, 1 the far end for sure.

    The mean over thresholds k of (P(class <= k) - [label <= k])^2 (Epstein 1969, "A scoring system for probability
    forecasts of ranked categories", J. Appl. Meteorol. 8). Only the true probabilities make its expectation least.
    """
    _check(probabilities, labels)
    return ((_cumulative(probabilities) - _reached(probabilities, labels)) ** 2).mean(axis=1)


def pit_histogram(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 10) -> np.ndarray:
    """Probability integral transform of the true classes: the share in each of `bins` equal bins of [0, 1].

    All are 1 / bins where distributions mean what they say; a U says that they are too narrow, a hump too wide, a slope
    that they lie to one side. A class covers the interval from P(class < label) to P(class <= label) evenly, so nothing
    is drawn at random (Czado, Gneiting and Held 2009, "Predictive model assessment for count data", Biometrics 65).
    """
    _check(probabilities, labels)
    edges = np.pad(_cumulative(probabilities), ((0, 0), (1, 1)), constant_values=(0.0, 1.0))
    rows = np.arange(len(labels))
    low, high = edges[rows, labels], edges[rows, labels + 1]
    # A true class of probability 0 covers no interval, and all of it lies at `low`.
    width = np.maximum(high - low, np.finfo(float).tiny)
    reached = np.clip((np.linspace(0.0, 1.0, bins + 1)[:, None] - low) / width, 0.0, 1.0)
    reached[-1] = 1.0
    return np.diff(reached.mean(axis=1))


def threshold_calibration(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> pd.DataFrame:
    """How well P(class <= k) is calibrated, a row a threshold: threshold k, predicted and observed shares, error.

    `error` is the expected calibration error of that one question (`evaluation.calibration`), in [0, 1].
    """
    _check(probabilities, labels)
    predicted, observed = _cumulative(probabilities), _reached(probabilities, labels)
    errors = [expected_calibration_error(p, o, bins=bins) for p, o in zip(predicted.T, observed.T, strict=True)]
    return pd.DataFrame(
        {
            "threshold": np.arange(predicted.shape[1]),
            "predicted": predicted.mean(axis=0),
            "observed": observed.mean(axis=0),
            "error": errors,
        }
    )


def _precise(values: Tensor) -> Tensor:
    """In float32, float64 if that is what it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _cumulative(probabilities: np.ndarray) -> np.ndarray:
    """P(class <= k) for all classes but the last, (n, classes - 1); sums of float32 may end above 1 by rounding."""
    return probabilities[:, :-1].cumsum(axis=1, dtype=np.float64).clip(0.0, 1.0)


def _reached(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the true class is at most k, for all classes but the last, (n, classes - 1)."""
    return labels[:, None] <= np.arange(probabilities.shape[1] - 1)


def _check(probabilities: np.ndarray, labels: np.ndarray) -> None:
    n, classes = probabilities.shape
    if len(labels) != n or not n:
        raise MissingImages(f"There are {n} rows of probabilities and {len(labels)} labels: as many are needed, not 0.")
    if (outside := (labels < 0) | (labels >= classes)).any():
        row = int(outside.argmax())
        raise InputError(f"The label of row {row} is {labels[row]}: classes are numbered from 0 to {classes - 1}.")
