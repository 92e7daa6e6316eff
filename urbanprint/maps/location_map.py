"""The location map: where a photograph may have been taken, how likely each place is, and how far off that may be.

What belongs here is the page of one photograph. It shows an answer, `LocationAnswer`, in plain values, whatever model
gave it; the world begins opposite the estimate, so that an answer at the antimeridian is in one piece.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely

from urbanprint.errors import InputError
from urbanprint.grid import boxes, from_ids
from urbanprint.maps.thumbnails import thumbnail
from urbanprint.maps.world import geojson, world_page, wrapped

# From hardly to very likely; lightness falls with every step.
_KINDS = (
    ("below 0.1 %", "#dbe8f4"),
    ("0.1 to 1 %", "#b7d2ea"),
    ("1 to 5 %", "#82b8dc"),
    ("5 to 20 %", "#4b97c9"),
    ("20 to 50 %", "#1c64a8"),
    ("50 % or more", "#08306b"),
)
_EDGES = (0.001, 0.01, 0.05, 0.2, 0.5)

_EARTH = pyproj.Geod(ellps="WGS84")
_FARTHEST_KM = 20_038.0  # half the equator


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A cell the photograph may come from: its id ("0/1/2"), its probability, whether it is in the prediction set."""

    cell_id: str
    probability: float
    in_set: bool


@dataclass(frozen=True, kw_only=True)
class LocationAnswer:
    """Where one photograph may have been taken. Positions are longitude and latitude in degrees.

    - `statement`: the answer in a sentence, such as "Somewhere in the cell 0/1/2, 90 %.";
    - `cell_id`: the cell it speaks of, None where it speaks of the whole Earth;
    - `levels`: at each level the cells worth showing, in any order; those of the prediction set are all among them;
    - `coverage`: how often such a set holds the true cell, a share;
    - `point`, `radius_km`: the mean position, and the radius on the ground that holds `share` of the probability;
    - `exif`: the position the camera wrote, if any; it has no part in the answer.
    """

    statement: str
    cell_id: str | None
    levels: Mapping[int, Sequence[Candidate]]
    point: tuple[float, float]
    radius_km: float
    coverage: float = 0.9
    share: float = 0.9
    exif: tuple[float, float] | None = None


def location_map(
    answer: LocationAnswer, *, land: np.ndarray, folder: Path, title: str, photograph: bytes | Path | None = None
) -> Path:
    """Write the map of an answer into `folder` and return the path of its `location_map.html`.

    `land` are the polygons drawn beneath (`read_land`). Of `photograph` a small copy without metadata is shown. The
    page is one file and holds everything it shows. Text is never read as HTML.

    Raises `InputError` for a position, radius, probability or id that is none, for a level without cells, and where the
    photograph is no readable image.
    """
    _check(answer)
    centre = answer.point[0]
    content = {
        "levels": [_level(number, answer.levels[number], centre) for number in sorted(answer.levels)],
        "first": _first_level(answer),
        "cell": _rectangles(boxes(*from_ids([answer.cell_id])), centre)[0] if answer.cell_id else [],
        "kinds": [{"name": name, "colour": colour} for name, colour in _KINDS],
        "edges": _EDGES,
        "coverage": answer.coverage,
        "share": answer.share,
        "point": answer.point[::-1],
        "radius_km": answer.radius_km,
        "circle": geojson(wrapped(np.array([_circle(answer.point, answer.radius_km)]), centre)[0], digits=3),
        "exif": None,
    }
    if answer.exif is not None:
        longitude, latitude = answer.exif
        metres = _EARTH.inv(*answer.point, longitude, latitude)[2]
        nearest = longitude + 360 * round((centre - longitude) / 360)
        content["exif"] = {"point": [latitude, nearest], "off_km": metres / 1000}
    panel = {
        "statement": answer.statement,
        "photograph": None if photograph is None else b64encode(thumbnail(photograph, width=640)).decode("ascii"),
    }
    page = world_page("location_map.html.j2", title=title, land=land, content=content, panel=panel, centre=centre)
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "location_map.html"
    written.write_text(page, encoding="utf-8")
    return written


def _level(number: int, candidates: Sequence[Candidate], centre: float) -> dict[str, Any]:
    """What the page shows of a level: its cells, the likeliest first, and the outline of the prediction set."""
    candidates = sorted(candidates, key=lambda each: (-each.probability, each.cell_id))
    whole = boxes(*from_ids([each.cell_id for each in candidates]))
    rectangles = _rectangles(whole, centre)
    held = [part for each, parts in zip(candidates, rectangles, strict=True) if each.in_set for part in parts]
    return {
        "level": number,
        "cells": [
            {
                "id": each.cell_id,
                "probability": float(each.probability),
                "held": bool(each.in_set),
                "box": box,
                "parts": parts,
            }
            for each, box, parts in zip(candidates, whole.tolist(), rectangles, strict=True)
        ],
        "held": len({each.cell_id for each in candidates if each.in_set}),
        "outline": geojson(shapely.boundary([shapely.union_all(shapely.box(*np.reshape(held, (-1, 4)).T))]), digits=5),
    }


def _rectangles(whole: np.ndarray, centre: float) -> list[list[list[float]]]:
    """West, south, east and north of the one or two parts of each box (n, 4) on the world around `centre`."""
    parts, numbers = wrapped(shapely.box(*whole.T), centre)
    found: list[list[list[float]]] = [[] for _ in whole]
    for part, number in zip(shapely.bounds(parts).tolist(), numbers, strict=True):
        found[number].append(part)
    return found


def _circle(point: tuple[float, float], radius_km: float) -> shapely.LineString:
    """The points at a distance from `point` along the ellipsoid; its longitudes go on where the circle goes round."""
    bearings = np.linspace(-180, 180, 361)
    east, north, reach = (np.full(len(bearings), each) for each in (*point, 1000 * radius_km))
    longitude, latitude, _ = _EARTH.fwd(east, north, bearings, reach)
    longitude = np.unwrap(longitude, period=360)
    longitude += 360 * np.round((point[0] - longitude.mean()) / 360)
    return shapely.LineString(np.stack([longitude, latitude], axis=1))


def _first_level(answer: LocationAnswer) -> int:
    """The level of the answered cell, or the next finer one there is; the coarsest for the whole Earth."""
    depth = len(answer.cell_id.split("/")) if answer.cell_id else 0
    return min((number for number in answer.levels if number >= depth), default=max(answer.levels))


def _check(answer: LocationAnswer) -> None:
    for name, position in (("point", answer.point), ("EXIF position", answer.exif)):
        if position is not None and not (abs(position[0]) <= 180 and abs(position[1]) <= 90):
            raise InputError(
                f"The {name} {position} is no longitude and latitude in degrees: correct it, or leave it out."
            )
    if not 0 <= answer.radius_km <= _FARTHEST_KM:
        raise InputError(
            f"radius_km = {answer.radius_km}: expected 0 to {_FARTHEST_KM:,.0f}, half the way round the Earth."
        )
    if not answer.levels or not all(answer.levels.values()):
        raise InputError("The answer has a level without cells, or no level: give the cells of at least one level.")
    for number, candidates in answer.levels.items():
        for each in candidates:
            if not 0 <= each.probability <= 1 + 1e-6:  # a sum of 32-bit numbers
                raise InputError(
                    f"The cell {each.cell_id} of L{number} has the probability {each.probability}: expected 0 to 1."
                )
