"""Is a photograph like those a model was fitted on? How unlike it is, and how rare that would be among its like.

What belongs here: arrays of features, whatever network they come from. Logits do not tell: a softmax shares all
probability out among the classes it has, so a picture of another world gets a class, and often with confidence.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.covariance import ledoit_wolf

from urbanprint.errors import InputError, MissingImages

UNFAMILIAR = 0.01
"""An image with at most this share is unlike the training images.

It is what the rule costs: of images like those of the calibration, at most 1 in 100 is called unlike. It loses little:
trained on 604 drawings of the simulated planet, a ResNet-18 gave all of 107 real photographs the least share there is.
"""

_LEAST_VARIANCE = 1e-6  # of standardised features: less is rounding, or a direction in which all images are equal


@dataclass(frozen=True, kw_only=True, eq=False)
class Familiarity:
    """The spread of training images in feature space, and how far calibration images lie out.

    `mean` (d,) and `whitening` (d, d) of the training images: the distance of features x is |(x - mean) whitening|.
    `distances` (m,): those of the calibration images, ascending.
    """

    mean: np.ndarray
    whitening: np.ndarray
    distances: np.ndarray

    def shares(self, features: np.ndarray) -> np.ndarray:
        """The share (k,) of calibration images at least as unlike the training images as each of (k, d) is.

        (1 + their number) / (1 + m), a conformal p-value (Bates et al. 2023, "Testing for outliers with conformal
        p-values", Annals of Statistics): an image exchangeable with the calibration images has a share of at most a
        with a probability of at most a, for every a. Raises `InputError` for features that are not finite or not of d
        columns.
        """
        found = _distances(features, self.mean, self.whitening)
        # Images of equal features count as equal, whatever the last digits, which change with the rows of a product.
        nearer = np.searchsorted(self.distances, found * (1.0 - 1e-9), side="left")
        return (1 + len(self.distances) - nearer) / (1 + len(self.distances))

    def unlike(self, shares: np.ndarray) -> np.ndarray:
        """Whether images of these shares (k,) are unlike the training images: (k,) of bool.

        At most `UNFAMILIAR`; with fewer than 99 calibration images, too few for so small a share, the least there is:
        farther out than all of them.
        """
        return shares <= max(UNFAMILIAR, 1 / (1 + len(self.distances)))

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays by name, of which `Familiarity(**tensors)` is the same again."""
        return {"mean": self.mean, "whitening": self.whitening, "distances": self.distances}


def fit_familiarity(training: np.ndarray, calibration: np.ndarray) -> Familiarity:
    """Learn what is familiar from features of training images (n, d) and of calibration images (m, d).

    The distance is that of Mahalanobis from the mean of the training images (Lee et al. 2018, "A simple unified
    framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS; one Gaussian, as style is not
    a matter of classes). Their covariance, of features scaled to a variance of 1, is shrunk towards the identity
    (Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices"), so n may be below
    d. It sees relations between features that do not hold: of 98 street photographs it finds all unlike drawings, where
    the distance to the 10th nearest neighbour (Sun et al. 2022) finds 70 % by cosines and 98 % by scaled features.

    The calibration images must not have trained the model, and one image a sequence is best, as for `fit_thresholds`.
    Raises `MissingImages` for fewer than 2 training images or no calibration image, `InputError` as `shares`.
    """
    if len(training) < 2 or not len(calibration):
        raise MissingImages(
            f"{len(training)} training and {len(calibration)} calibration images are too few to tell what is familiar:"
            f" at least 2 and 1 are needed, and {round(1 / UNFAMILIAR) - 1} of the calibration to do it well."
        )
    known = _checked(training, training.shape[1])
    mean, spread = known.mean(axis=0), known.std(axis=0)
    # A feature that is always the same has, but for rounding, no spread to be scaled by.
    scale = np.where(spread > _LEAST_VARIANCE * np.abs(mean), spread, 1.0)
    covariance, _ = ledoit_wolf((known - mean) / scale, assume_centered=True)
    root = np.linalg.cholesky(covariance + _LEAST_VARIANCE * np.eye(len(mean)))
    whitening = np.ascontiguousarray(solve_triangular(root, np.diag(1.0 / scale), lower=True).T)
    return Familiarity(mean=mean, whitening=whitening, distances=np.sort(_distances(calibration, mean, whitening)))


def _distances(features: np.ndarray, mean: np.ndarray, whitening: np.ndarray) -> np.ndarray:
    return np.linalg.norm((_checked(features, len(mean)) - mean) @ whitening, axis=1)


def _checked(features: np.ndarray, size: int) -> np.ndarray:
    """The features in float64, in which they are whitened."""
    if features.ndim != 2 or features.shape[1] != size:
        raise InputError(
            f"The features have shape {features.shape} where (images, {size}) is expected: take them from the network"
            " whose training images are known."
        )
    if not (finite := np.isfinite(features).all(axis=1)).all():
        raise InputError(f"The features of row {int(finite.argmin())} are not finite: read the image again.")
    return features.astype(np.float64)
