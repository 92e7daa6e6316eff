"""What a model of cells learns from: which cells are classes, which class an image has, and the tables that say so.

What belongs here: tables and maps made from a table of images (`image_id`, `sequence_id`, `longitude`, `latitude`, and
`path` or `sha256`). Image files are never copied: a manifest names them. The same images give the same bytes, in
whatever order their rows come.

A cell with too few images is no class, and its images are handed to its parent. Where the parent has other classes
below it, it hands them on to the nearest of these, for training only: an image is scored against the cell it lies in.
"""

import json

import numpy as np
import pandas as pd
import pandera.pandas as pa

from urbanprint.adaptive_grid import make_cells
from urbanprint.errors import InputError, MissingImages
from urbanprint.geolocation.hierarchy import Hierarchy, Level, cell_name
from urbanprint.geolocation.position import Circles
from urbanprint.geolocation.sphere import haversine_km, to_degrees, unit_vectors
from urbanprint.grid import LEVELS, boxes, centres, encode, to_ids

MAP_VERSION = 1
"""Of the files `labels_json` and `parents_json` write."""

DIVIDED_SHARE = 0.5
"""A cell is divided where the classes inside it hold at least this share of its images."""

_TEXT = pa.Column(str, pa.Check.str_length(min_value=1))
_COUNT = pa.Column(int, pa.Check.ge(0))

LEVEL_MANIFEST = pa.DataFrameSchema(
    {
        "image_id": pa.Column(str, pa.Check.str_length(min_value=1), unique=True),
        "part": pa.Column(str, required=False),
        "cell": _TEXT,
        "class_cell": _TEXT,
        "label": _COUNT,
        "handed": pa.Column(bool),
        "longitude": pa.Column(float, pa.Check.in_range(-180.0, 180.0)),
        "latitude": pa.Column(float, pa.Check.in_range(-90.0, 90.0)),
        "sequence_id": pa.Column(str, nullable=True),
        "path": pa.Column(str, required=False),
        "sha256": pa.Column(str, nullable=True, required=False),
    },
    strict=True,
    name="level_manifest",
)
"""A row an image, sorted by image_id: the id of the cell it lies in at the level, and of the class it trains (`label`
counts the classes). `handed`: it lies in no class, and trains one near it."""

CLASS_REPORT = pa.DataFrameSchema(
    {
        "level": pa.Column(int, pa.Check.ge(1), unique=True),
        **dict.fromkeys(("cells", "classes", "undivided", "images", "handed", "smallest", "largest"), _COUNT),
        "median": pa.Column(float, pa.Check.ge(0)),
    },
    strict=True,
    name="class_report",
)
"""A row a level: cells with images, classes, how many of these are coarser cells that are not divided; images, how many
of them lie in no class; the images that train the smallest, the largest and the median class."""


def cell_classes(
    images: pd.DataFrame, *, levels: tuple[int, ...] = LEVELS, least: int, share: float = DIVIDED_SHARE
) -> Hierarchy:
    """The classes of each level: the cells with at least `least` of these images, which should be those that train.

    A cell whose classes below would hold less than `share` of its images is not divided: one town large enough would
    else stand for a country. It stands below as its own only child, and all its images keep a class.

    Raises `MissingImages` for a level where no class is left.
    """
    if least < 1 or not 0.0 < share <= 1.0:
        raise InputError(f"least = {least} and share = {share}: at least 1 image and a share in (0, 1] are expected.")
    finest = max(levels)
    places = encode(images["longitude"], images["latitude"], finest)
    cells: dict[int, np.ndarray] = {}
    above, parents, held = 0, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)  # the Earth, always divided
    for level in sorted(levels):
        codes, counts = np.unique(places >> 2 * (finest - level), return_counts=True)
        wanted = (counts >= least) & np.isin(codes >> 2 * (level - above), parents)
        codes, counts = codes[wanted], counts[wanted]
        parent = np.searchsorted(parents, codes >> 2 * (level - above))
        divided = np.bincount(parent, weights=counts, minlength=len(parents)) >= share * held
        codes, counts = codes[divided[parent]], counts[divided[parent]]
        if not len(codes):
            raise MissingImages(
                f"No cell of level {level} can be a class: none holds at least {least} of the {len(places)} images, or"
                " none of those that do holds most of its parent's; leave the level out or fetch more images."
            )
        cells[level], above, parents, held = codes, level, codes, counts
    return Hierarchy.from_levels(cells)


def class_labels(hierarchy: Hierarchy, images: pd.DataFrame) -> np.ndarray:
    """The class each image trains at each level, (n, levels): everywhere on Earth there is one.

    The cell it lies in where that is a class; else that of the nearest class inside its parent (`adaptive_grid.Cells`).
    """
    leaves = hierarchy.levels[-1]
    territory = make_cells(leaves.cells, leaves.depths)  # in Morton order, as the leaves are: the numbers agree
    return hierarchy.ancestors(territory.locate(images["longitude"], images["latitude"]))


def true_labels(hierarchy: Hierarchy, images: pd.DataFrame) -> np.ndarray:
    """The class each image lies in at each level, (n, levels), -1 where that cell is no class: what is scored."""
    finest = hierarchy.numbers[-1]
    return hierarchy.labels(encode(images["longitude"], images["latitude"], finest), depth=finest)


def class_circles(hierarchy: Hierarchy, images: pd.DataFrame) -> tuple[Circles, ...]:
    """The classes of each level as circles: the mean position of the images in them, and the farthest of their corners.

    Images gather in towns: of a cell 150 km wide, the mean position is nearer to the next photograph than the middle,
    which a class without images gets.
    """
    points = unit_vectors(images["longitude"], images["latitude"])
    labels = true_labels(hierarchy, images)
    return tuple(_circles(level, points, true) for level, true in zip(hierarchy.levels, labels.T, strict=True))


def class_ids(level: Level) -> np.ndarray:
    """The cell ids of a level's classes, such as 0/1/2/3; shorter for cells that are not divided."""
    return to_ids(level.cells, level.depths)


def level_manifest(images: pd.DataFrame, hierarchy: Hierarchy, *, level: int) -> pd.DataFrame:
    """The images as the model of a level sees them (`LEVEL_MANIFEST`); of other columns those it names are kept."""
    number = level_position(hierarchy, level)
    classes = hierarchy.levels[number]
    label = class_labels(hierarchy, images)[:, number]
    made = images.assign(
        cell=to_ids(encode(images["longitude"], images["latitude"], level), level),
        class_cell=class_ids(classes)[label],
        label=label,
        handed=true_labels(hierarchy, images)[:, number] < 0,
    ).astype({"cell": "str", "class_cell": "str"})
    columns = [name for name in LEVEL_MANIFEST.columns if name in made]
    return LEVEL_MANIFEST.validate(made[columns].sort_values("image_id", ignore_index=True))


def level_labels(training: pd.DataFrame, hierarchy: Hierarchy, *, level: int) -> pd.DataFrame:
    """The classes of a level, a row each: label, class_cell, parent (that of its class a level above), images.

    `training` is the part of the `level_manifest` that trains; the parent of the coarsest level is "the Earth".
    """
    number = level_position(hierarchy, level)
    classes = hierarchy.levels[number]
    above = class_ids(hierarchy.levels[number - 1]) if number else np.array([cell_name(0, 0)])
    return pd.DataFrame(
        {
            "label": np.arange(len(classes)),
            "class_cell": pd.Series(class_ids(classes), dtype="str"),
            "parent": pd.Series(above[classes.parents], dtype="str"),
            "images": np.bincount(training["label"], minlength=len(classes)),
        }
    )


def class_report(images: pd.DataFrame, hierarchy: Hierarchy) -> pd.DataFrame:
    """How the images fill the classes of each level (`CLASS_REPORT`)."""
    trained, true = class_labels(hierarchy, images), true_labels(hierarchy, images)
    rows = []
    for number, level in enumerate(hierarchy.levels):
        sizes = np.bincount(trained[:, number], minlength=len(level))
        rows.append(
            {
                "level": level.number,
                "cells": len(np.unique(encode(images["longitude"], images["latitude"], level.number))),
                "classes": len(level),
                "undivided": int((level.depths < level.number).sum()),
                "images": len(images),
                "handed": int((true[:, number] < 0).sum()),
                "smallest": int(sizes.min()),
                "largest": int(sizes.max()),
                "median": float(np.median(sizes)),
            }
        )
    return CLASS_REPORT.validate(pd.DataFrame(rows))


def labels_json(hierarchy: Hierarchy, *, level: int) -> str:
    """The label map of a level as text: cell id -> number of the class, sorted; the same bytes for the same classes."""
    ids = class_ids(hierarchy.levels[level_position(hierarchy, level)]).tolist()
    return _json({"labels": {name: number for number, name in enumerate(ids)}, "level": level})


def parents_json(hierarchy: Hierarchy) -> str:
    """Which class lies in which as text: level -> cell id -> id of its class a level above, sorted.

    An undivided cell is its own parent. The coarsest level is left out: its classes lie in the Earth.
    """
    parents = {
        str(level.number): dict(zip(class_ids(level).tolist(), class_ids(above)[level.parents].tolist(), strict=True))
        for above, level in zip(hierarchy.levels[:-1], hierarchy.levels[1:], strict=True)
    }
    return _json({"parents": parents})


def level_position(hierarchy: Hierarchy, level: int) -> int:
    """Where a level stands among the hierarchy's. Raises `InputError` for one it does not have."""
    if level not in hierarchy.numbers:
        raise InputError(f"There is no level {level} among {list(hierarchy.numbers)}: choose one of these.")
    return hierarchy.numbers.index(level)


def _json(content: dict[str, object]) -> str:
    return json.dumps({**content, "version": MAP_VERSION}, sort_keys=True, indent=0, separators=(",", ":")) + "\n"


def _circles(level: Level, points: np.ndarray, labels: np.ndarray) -> Circles:
    inside = labels >= 0
    total = np.stack([np.bincount(labels[inside], axis[inside], minlength=len(level)) for axis in points.T], axis=1)
    empty = np.bincount(labels[inside], minlength=len(level)) == 0
    middles = centres(level.cells, level.depths)
    longitude, latitude = to_degrees(np.where(empty[:, None], unit_vectors(*middles), total))
    # Of a box that crosses neither the equator nor a meridian of 0 or 180 degrees, the farthest point is a corner.
    west, south, east, north = boxes(level.cells, level.depths).T
    corners = [haversine_km(longitude, latitude, x, y) for x in (west, east) for y in (south, north)]
    return Circles(longitude=longitude, latitude=latitude, radius_km=np.max(corners, axis=0))
