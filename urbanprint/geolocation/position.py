"""From probabilities of cells to a point on Earth with an error radius.

What belongs here: positions of answers. Cells come as circles: a centre, and the distance from it to the cell's
farthest corner. Answers are circles too: a point, and how far away the truth may be. Nothing here averages degrees, so
the antimeridian and the poles are places like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.prediction_sets import Answers, check_share
from urbanprint.geolocation.sphere import FARTHEST_KM, distances_km, to_degrees, unit_vectors

_CANCELLED = 1e-9  # length of a mean vector below which its direction is rounding error


@dataclass(frozen=True, kw_only=True, eq=False)
class Circles:
    """Points with a radius: degrees (n,), degrees (n,), kilometres on the ground (n,)."""

    longitude: np.ndarray
    latitude: np.ndarray
    radius_km: np.ndarray


def mean_position(log_probabilities: np.ndarray, cells: Circles, *, share: float = 0.9) -> Circles:
    """The mean position of each image and the radius that holds a `share` of its probability.

    The mean of the cells' centres (k,) as unit vectors, weighted by the probabilities (n, k) and brought back to the
    sphere: the point with the least mean squared chord to the cells (Mardia and Jupp 2000, "Directional statistics").
    Where the vectors cancel, as for two antipodes of equal probability, every point is as good, and the answer is the
    centre of the likeliest cell, the first among equals.

    A cell is inside the radius once its farthest point is, so a single certain cell answers its own circle, and a
    radius holds at least its share. Two likely places far apart have their mean between them, where nothing may be:
    the radius says so, and `prediction_sets` gives the places.
    """
    check_share(share, "share")
    probabilities = np.exp(log_probabilities)
    centres = unit_vectors(cells.longitude, cells.latitude)
    mean = probabilities @ centres
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    likeliest = centres[log_probabilities.argmax(axis=1)]
    points = np.where(length > _CANCELLED, mean / np.maximum(length, _CANCELLED), likeliest)
    reach = distances_km(points, centres) + cells.radius_km
    order = np.argsort(reach, axis=1)
    held = np.take_along_axis(probabilities, order, axis=1).cumsum(axis=1)
    last = np.minimum((held < share - 1e-12).sum(axis=1), held.shape[1] - 1)
    rows = np.arange(len(reach))
    longitude, latitude = to_degrees(points)
    return Circles(
        longitude=longitude, latitude=latitude, radius_km=np.minimum(reach[rows, order[rows, last]], FARTHEST_KM)
    )


def positions(
    log_probabilities: Sequence[np.ndarray],
    cells: Sequence[Circles],
    hierarchy: Hierarchy,
    *,
    share: float = 0.9,
    finest: int | None = None,
) -> Circles:
    """`mean_position` at the finest level that `finest` allows; log-probabilities and cells are one a level."""
    hierarchy.check(log_probabilities, what="log-probabilities")
    level = len(hierarchy.upto(finest)) - 1
    return mean_position(log_probabilities[level], cells[level], share=share)


def answer_positions(answers: Answers, cells: Sequence[Circles]) -> Circles:
    """The circle of each answer's cell; for the whole Earth no point (NaN) and a radius of half its circumference."""
    longitude, latitude = np.full((2, len(answers.levels)), np.nan)
    radius_km = np.full(len(answers.levels), FARTHEST_KM)
    for number, circles in enumerate(cells):
        here = answers.levels == number
        chosen = answers.cells[here]
        longitude[here], latitude[here] = circles.longitude[chosen], circles.latitude[chosen]
        radius_km[here] = circles.radius_km[chosen]
    return Circles(longitude=longitude, latitude=latitude, radius_km=radius_km)
