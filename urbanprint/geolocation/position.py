"""From probabilities of cells to a point on Earth with an error radius.

What belongs here: positions of answers. Cells come as circles: a centre, and the distance from it to the cell's
farthest corner. Answers are circles too: a point, and how far away the truth may be. Nothing here averages degrees, so
the antimeridian and the poles are places like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.prediction_sets import Answers, check_share
from urbanprint.geolocation.sphere import EARTH_KM, FARTHEST_KM, distances_km, to_degrees, unit_vectors

NEAR_KM = 200.0
"""Distance over which probability counts as being at one place, the size of a region.

On the simulated planet the mean of all probability scored 4,027 points and 55 % within 200 km, the likeliest cell 4,241
and 64 %, this mean 4,267 and 67 %; between 100 and 800 km it hardly matters."""

_REACH = 5.0  # times NEAR_KM: farther away, the weight is below 1 %


@dataclass(frozen=True, kw_only=True, eq=False)
class Circles:
    """Points with a radius: degrees (n,), degrees (n,), kilometres on the ground (n,)."""

    longitude: np.ndarray
    latitude: np.ndarray
    radius_km: np.ndarray


def peak_position(log_probabilities: np.ndarray, cells: Circles, *, share: float = 0.9) -> Circles:
    """The mean position of the probability around its peak, and the radius around it that holds a `share` of it all.

    With w(d) = exp(-d / `NEAR_KM`), the peak is the cell's centre around which the sum of p w(d) over all cells is
    largest, and the position the mean of the centres as unit vectors, weighted by p w(d) and brought back to the
    sphere. A mean of all cells (Mardia and Jupp 2000, "Directional statistics") would lie between two likely places
    far apart, where nothing may be. Among equal peaks the first answers.

    Probabilities are (n, k), centres (k,). A cell is inside the radius once its farthest point is, so a single certain
    cell answers its own circle, and a radius holds at least its share: where other places are likely too, it is large,
    and `prediction_sets` gives the places.
    """
    check_share(share, "share")
    probabilities = np.exp(log_probabilities)
    centres = unit_vectors(cells.longitude, cells.latitude)
    near = _nearness(centres)
    peaks = (probabilities @ near).argmax(axis=1)
    mean = (near[peaks].multiply(probabilities)) @ centres
    points = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    reach = distances_km(points, centres) + cells.radius_km
    order = np.argsort(reach, axis=1)
    held = np.take_along_axis(probabilities, order, axis=1).cumsum(axis=1)
    last = np.minimum((held < share - 1e-12).sum(axis=1), held.shape[1] - 1)
    rows = np.arange(len(reach))
    longitude, latitude = to_degrees(points)
    return Circles(
        longitude=longitude, latitude=latitude, radius_km=np.minimum(reach[rows, order[rows, last]], FARTHEST_KM)
    )


def _nearness(centres: np.ndarray) -> csr_array:
    """exp(-d / NEAR_KM) between centres (k, 3), up to `_REACH` times as far: (k, k)."""
    chord = 2 * np.sin(_REACH * NEAR_KM / EARTH_KM / 2)
    tree = cKDTree(centres)
    apart = tree.sparse_distance_matrix(tree, chord, output_type="ndarray")
    km = 2 * EARTH_KM * np.arcsin(apart["v"] / 2)
    return csr_array((np.exp(-km / NEAR_KM), (apart["i"], apart["j"])), shape=(len(centres), len(centres)))


def positions(
    log_probabilities: Sequence[np.ndarray],
    cells: Sequence[Circles],
    hierarchy: Hierarchy,
    *,
    share: float = 0.9,
    finest: int | None = None,
) -> Circles:
    """`peak_position` at the finest level that `finest` allows; log-probabilities and cells are one a level."""
    hierarchy.check(log_probabilities, what="log-probabilities")
    level = len(hierarchy.upto(finest)) - 1
    return peak_position(log_probabilities[level], cells[level], share=share)


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
