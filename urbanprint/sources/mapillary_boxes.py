"""What a search of Mapillary is asked: boxes of the size it accepts, and what of the filters it has parameters for.

What belongs here is arithmetic, no request. Facts: https://www.mapillary.com/developer/api-documentation
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime

from urbanprint.imagery.records import Filters

_LARGEST_BOX_DEG = 0.009  # the server refuses boxes of 0.01 degrees; stay clear of rounding

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees."""


def boxes_over(bounds: Box) -> Iterator[Box]:
    """Yield boxes that the server accepts and that tile `bounds`."""
    west, south, east, north = bounds
    columns = max(1, math.ceil((east - west) / _LARGEST_BOX_DEG))
    rows = max(1, math.ceil((north - south) / _LARGEST_BOX_DEG))
    for row in range(rows):
        for column in range(columns):
            yield (
                west + (east - west) * column / columns,
                south + (north - south) * row / rows,
                west + (east - west) * (column + 1) / columns,
                south + (north - south) * (row + 1) / rows,
            )


def quarters(box: Box) -> Iterator[Box]:
    """Yield the four quarters of `box`."""
    west, south, east, north = box
    x, y = (west + east) / 2, (south + north) / 2
    yield from ((west, south, x, y), (x, south, east, y), (west, y, x, north), (x, y, east, north))


def parameters_of(filters: Filters) -> dict[str, str]:
    """Return what of `filters` a search has parameters for; the caller applies all of them to what comes back."""
    asked = {"is_pano": "true" if filters.panoramas else "false"}
    if filters.captured_from_ms is not None:
        asked["start_captured_at"] = _moment(filters.captured_from_ms // 1000)
    if filters.captured_to_ms is not None:
        asked["end_captured_at"] = _moment(-(-filters.captured_to_ms // 1000))
    if len(filters.creators) == 1:  # the parameter takes one name
        asked["creator_username"] = filters.creators[0]
    return asked


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
