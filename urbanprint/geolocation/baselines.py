"""What an answer scores without a geolocation model: from training labels and positions alone, or from features.

What belongs here: guesses that are functions of training arrays, with nothing fitted by gradient. A model that does not
beat the nearest neighbour in feature space has learned nothing that its backbone did not know.
"""

import numpy as np

from urbanprint.errors import InputError, MissingImages
from urbanprint.geolocation.sphere import EARTH_KM, to_degrees, unit_vectors

_STARTS = 256  # points over the sphere, about 1,400 km apart, from the best of which the median is sought
_STEPS = 200  # images of a continent need about 20; the limit is for images spread over the whole Earth
_NEAR = 1e-7  # radians, 0.6 m: nearer than this, a training point pulls no harder
_BLOCK = 1 << 24  # similarities held at a time, 64 MB


def prior(labels: np.ndarray, classes: int) -> np.ndarray:
    """Log share (classes,) of the training images (n,) in each class, -inf for none; labels of -1 are left out.

    Its largest is the most frequent training cell. Raises `MissingImages` where no image has a class.
    """
    count = np.bincount(labels[labels >= 0], minlength=classes)
    if not count.sum():
        raise MissingImages(f"0 of {len(labels)} training images lie in a class, at least 1 is needed for a prior.")
    with np.errstate(divide="ignore"):
        return np.log(count / count.sum())


def geometric_median(longitude: np.ndarray, latitude: np.ndarray) -> tuple[float, float]:
    """The point (degrees) with the least mean great-circle distance to the training points (n,), in degrees.

    Weiszfeld's iteration on the sphere (Fletcher, Venkatasubramanian and Joshi 2009, "The geometric median on
    Riemannian manifolds"), from the best of 256 points spread evenly. Points all over the Earth can have several local
    minima: the one found is no worse than the best start. Raises `MissingImages` without points.
    """
    if not len(longitude):
        raise MissingImages("There are 0 training images, at least 1 is needed for a geometric median.")
    points = unit_vectors(longitude, latitude)
    starts = _spread(_STARTS)
    median = starts[np.argmin([np.arccos(np.clip(points @ start, -1.0, 1.0)).sum() for start in starts])]
    for _ in range(_STEPS):
        cosine = np.clip(points @ median, -1.0, 1.0)
        away = points - cosine[:, None] * median
        sine = np.linalg.norm(away, axis=1)
        angle = np.arctan2(sine, cosine)
        pull = (away / np.maximum(sine, _NEAR)[:, None]).sum(axis=0)
        step = pull / (1.0 / np.maximum(angle, _NEAR)).sum()
        length = np.linalg.norm(step)
        median = np.cos(length) * median + np.sinc(length / np.pi) * step
        median /= np.linalg.norm(median)
        if length * EARTH_KM < 1e-3:
            break
    east, north = to_degrees(median)
    return float(east), float(north)


def nearest_neighbour(training: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The training image (m,) most like each image, the first among equals, and their cosine similarity (m,).

    Features are (n, d) and (m, d); positions and cells of the images found are the guess. Compared in float32 and in
    blocks, so that memory does not grow with m. Raises `MissingImages` without training images and `InputError` for
    features without a direction (all 0, or not finite).
    """
    if not len(training):
        raise MissingImages("There are 0 training images, at least 1 is needed for a nearest neighbour.")
    known, wanted = _normalised(training, "training"), _normalised(features, "image")
    nearest, similarity = np.empty(len(wanted), dtype=np.int64), np.empty(len(wanted), dtype=np.float32)
    rows = max(1, _BLOCK // len(known))
    for start in range(0, len(wanted), rows):
        block = wanted[start : start + rows] @ known.T
        best = block.argmax(axis=1)
        nearest[start : start + rows] = best
        similarity[start : start + rows] = block[np.arange(len(best)), best]
    return nearest, similarity


def _normalised(features: np.ndarray, what: str) -> np.ndarray:
    features = np.asarray(features, dtype=np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    if not (valid := np.isfinite(length) & (length > 0.0)).all():
        raise InputError(f"The {what} features of row {int(valid.argmin())} are all 0 or not finite: embed it again.")
    return features / length


def _spread(count: int) -> np.ndarray:
    """Points (count, 3) spread evenly over the sphere, on a golden spiral."""
    number = np.arange(count)
    latitude = np.degrees(np.arcsin(1.0 - (2 * number + 1) / count))
    return unit_vectors(np.degrees(number * np.pi * (3.0 - np.sqrt(5.0))), latitude)
