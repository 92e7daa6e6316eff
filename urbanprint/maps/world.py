"""What the maps of the world share: the land behind them, a world that may begin at any longitude, and their page.

What belongs here is not what a map says. A page is one file that opens without the internet, on a phone or out of a
mail: Leaflet is written into it with everything shown. Longitude and latitude are drawn as they are (EPSG:4326): a cell
of the world grid is a rectangle, the poles are on the map, and the cell under a click follows from arithmetic.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import shapely
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from urbanprint.maps.leaflet import leaflet_text

SIMPLIFY_DEGREES = 0.02
"""Simplification of the land: 2 km, a pixel at the deepest zoom. Natural Earth 1:50m becomes 0.5 MB of text."""

_TURNS = 360 * np.arange(-2, 3)


def wrapped(shapes: np.ndarray, centre: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of `shapes` (n,) on the world that reaches 180 degrees to each side of the longitude `centre`.

    Shapes, up to 540 degrees from `centre`, stand there as on a world that goes on to both sides, cut at its edges: a
    shape across the far meridian has a part at each. Second: the number of the shape, 0 to n - 1, each part is of.
    """
    copies = [shapely.transform(shapes, lambda corners, turn=turn: corners + np.array([turn, 0])) for turn in _TURNS]
    cut = shapely.clip_by_rect(np.concatenate(copies), centre - 180, -90, centre + 180, 90)
    parts, numbers = shapely.get_parts(cut, return_index=True)
    held = ~shapely.is_empty(parts)
    return parts[held], numbers[held] % max(len(shapes), 1)


def geojson(shapes: np.ndarray, *, digits: int) -> dict[str, Any]:
    """Return the shapes, polygons or lines, as one GeoJSON geometry with so many decimals."""
    rounded = shapely.transform(shapes, lambda corners: corners.round(digits))
    return json.loads(shapely.to_geojson(shapely.geometrycollections(rounded)))


def world_page(
    template: str,
    *,
    title: str,
    land: np.ndarray,
    content: Mapping[str, Any],
    panel: Mapping[str, Any] | None = None,
    centre: float = 0.0,
) -> str:
    """Return the page of `template`, which extends `world.html.j2`, on the world around the longitude `centre`.

    `content` reaches its script as JSON; the template itself can name what is in `panel`, which is escaped.

    `land` (shapely Polygons in EPSG:4326, as `read_land` returns them) is drawn behind or, as a coastline, above what
    the template draws; there may be none.
    """
    templates = Environment(loader=PackageLoader("urbanprint.maps"), autoescape=True, undefined=StrictUndefined)
    script, style = leaflet_text()
    drawn, _ = wrapped(shapely.simplify(np.asarray(land, dtype=object), SIMPLIFY_DEGREES), centre)
    return templates.get_template(template).render(
        title=title,
        leaflet_script=Markup(script),
        leaflet_style=Markup(style),
        **(panel or {}),
        content={**content, "land": geojson(drawn, digits=2), "centre": centre},
    )
