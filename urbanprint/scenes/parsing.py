"""From image files to one long table of what is seen in them: the protocol of a parser, batches, counting.

A parser says for each picture which share of it a class covers, how many objects of the class there are, and how sure
it is. Which network says so is its own affair (`compact`, `checkpoints`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pandas as pd
from scipy import ndimage

from urbanprint import tables
from urbanprint.imagery.decoding import decode_batches
from urbanprint.scenes.classes import is_thing

CountsBy = Literal["segments", "components"]
"""How objects are told apart: each segment of a panoptic network is one, or each connected patch of a class is one.

Patches undercount: two cars that overlap in the picture are one patch; and overcount what a lamp post cuts in two.
"""

SMALLEST_PATCH = 3e-4
"""Share of the picture below which a connected patch is not counted as an object."""

_EIGHT = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner are connected


@dataclass(frozen=True, eq=False)
class Amounts:
    """What n pictures hold of k classes, each (n, k): share of pixels, number of objects, mean confidence in [0, 1].

    `count` is NaN for classes that cannot be counted, `confidence` where there is nothing of the class.
    """

    fraction: np.ndarray
    count: np.ndarray
    confidence: np.ndarray


class Parser(Protocol):
    """What turns pixels into amounts."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes it knows, in the order of the columns of its amounts."""

    @property
    def size(self) -> int:
        """The side in pixels of the squares it is given."""

    @property
    def counts_by(self) -> CountsBy:
        """How it tells objects apart."""

    def parse(self, pixels: np.ndarray) -> Amounts:
        """What pictures, uint8 (n, size, size, 3), RGB, hold."""


def parse_images(
    images: pd.DataFrame,
    parser: Parser,
    *,
    batch: int = 16,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Return what is seen in each image (`tables.SCENES`): a row an image and class, where there is some of the class.

    `images` holds image_id and path; `workers` threads decode two batches ahead; `progress` is called with (images
    done, images in all). Raises `InputError` naming the file that cannot be decoded.
    """
    image_ids = images["image_id"].to_numpy(dtype=object)
    paths = [Path(path) for path in images["path"]]
    parts, done = [], 0
    for pixels in decode_batches(paths, size=parser.size, batch=batch, threads=workers):
        parts.append(to_rows(image_ids[done : done + len(pixels)], parser.classes, parser.parse(pixels)))
        done += len(pixels)
        if progress is not None:
            progress(done, len(paths))
    return tables.SCENES.validate(pd.concat(parts, ignore_index=True) if parts else empty_scenes())


def to_rows(image_ids: np.ndarray, classes: tuple[str, ...], amounts: Amounts) -> pd.DataFrame:
    """The rows of `tables.SCENES` for `amounts` of n images: classes a picture has nothing of have no row."""
    image, name = np.nonzero((amounts.fraction > 0) | (amounts.count > 0))
    return pd.DataFrame(
        {
            "image_id": pd.array(image_ids[image], dtype="str"),
            "class": pd.array(np.asarray(classes, dtype=object)[name], dtype="str"),
            "fraction": amounts.fraction[image, name].astype(float),
            "count": amounts.count[image, name].astype(float),
            "confidence": amounts.confidence[image, name].astype(float),
        }
    )


def empty_scenes() -> pd.DataFrame:
    """A table of scenes without rows."""
    return to_rows(np.empty(0, dtype=object), (), Amounts(*(np.empty((0, 0)) for _ in range(3))))


def amounts_of_maps(labels: np.ndarray, confidence: np.ndarray, *, classes: tuple[str, ...]) -> Amounts:
    """Amounts from semantic maps (n, height, width): `labels` index `classes`, `confidence` is that of each pixel.

    Objects of things are counted as connected patches of at least `SMALLEST_PATCH` of the picture.
    """
    n, pixels, k = len(labels), labels[0].size, len(classes)
    flat = labels.reshape(n, -1).astype(np.int64) + k * np.arange(n)[:, None]
    covered = np.bincount(flat.ravel(), minlength=n * k).reshape(n, k)
    sure = np.bincount(flat.ravel(), weights=confidence.ravel(), minlength=n * k).reshape(n, k)
    count = np.full((n, k), np.nan)
    things = [index for index, name in enumerate(classes) if is_thing(name, classes=classes)]
    count[:, things] = 0.0
    for row, column in _present(covered, things):
        patches, _ = ndimage.label(labels[row] == column, structure=_EIGHT)
        count[row, column] = (np.bincount(patches.ravel())[1:] >= SMALLEST_PATCH * pixels).sum()
    return Amounts(
        fraction=covered / pixels,
        count=count,
        confidence=np.divide(sure, covered, out=np.full((n, k), np.nan), where=covered > 0),
    )


def _present(covered: np.ndarray, columns: list[int]) -> Iterator[tuple[int, int]]:
    """Picture and class of everything in `columns` that covers a pixel."""
    for row, position in zip(*np.nonzero(covered[:, columns]), strict=True):
        yield int(row), columns[position]
