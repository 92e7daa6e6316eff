"""Which images of an area are fetched: those nearest to its sample points."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

import numpy as np


def choose(
    images: Iterable[Mapping[str, Any]], points: np.ndarray, *, views: int, asked: Container[str] = ()
) -> list[Mapping[str, Any]]:
    """Return which images of an area to fetch next so that it ends with `views`, nearest to the sample points first.

    `images` are ledger rows of one area; `points` is (n, 2) longitude, latitude in degrees. Each point takes its
    nearest free image in turn; further views take what is nearest to any point. Rejected images are passed over.
    Fetched ones count as held, and so do those `asked` for in this run: one that failed is not replaced, because the
    next run asks for it again and the choice has to stay the same.
    """
    usable = [image for image in images if image["state"] != "rejected"]
    held = [image["state"] == "fetched" or image["image_id"] in asked for image in usable]
    missing = views - sum(held)
    if missing <= 0 or all(held):
        return []
    # Metres on the local tangent plane, up to one common factor: a degree of longitude shrinks with the latitude.
    scale = np.array([np.cos(np.radians(np.mean([image["latitude"] for image in usable]))), 1.0])
    positions = np.array([[image["longitude"], image["latitude"]] for image in usable]) * scale
    targets = points * scale if len(points) else positions.mean(axis=0, keepdims=True)
    distance = np.linalg.norm(targets[:, None] - positions[None], axis=2)
    taken: dict[int, None] = {}  # in the order of their choice
    free = np.ones(len(usable), dtype=bool)
    nearest = distance.min(axis=0)
    for row in [*distance, *[nearest] * views][: min(views, len(usable))]:
        index = int(np.where(free, row, np.inf).argmin())
        taken[index] = None
        free[index] = False
    # An earlier choice that is held may not be among the nearest any more: the missing ones are still filled up.
    order = dict.fromkeys([*taken, *np.argsort(nearest, kind="stable").tolist()])
    return [usable[index] for index in order if not held[index]][:missing]
