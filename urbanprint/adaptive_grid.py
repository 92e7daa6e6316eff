"""Cells of mixed levels: small where there are many images, large where there are few, and one for every place.

What belongs here is which cells a model tells apart. `Cells` holds them, of one level (`make_cells(all_codes(3), 3)`)
or of several (`adaptive_cells`), so that a model is trained on either in the same way: `locate` gives the class of
each point, and `grid.boxes`, `grid.centres`, `grid.to_ids` and `grid.parents` take the cells' codes and levels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from urbanprint.errors import InputError
from urbanprint.grid import DEEPEST, Levels, centres, children, encode, parents, to_ids


@dataclass(frozen=True, eq=False, kw_only=True)
class Cells:
    """Disjoint cells, the leaves of a tree whose inner nodes are their parents, in Morton order.

    They need not cover the Earth. A place in none of them belongs to the cell whose centre is nearest (on the sphere)
    to the centre of the largest empty cell it lies in, among the cells inside the parent of that empty cell. So the
    ancestors of a place's cell, from that parent on, are the place's own, and everything follows from codes and levels:
    their ids are all that needs to be stored.
    """

    codes: np.ndarray
    """int64, shape (n,)."""
    levels: np.ndarray
    """int64, shape (n,)."""
    starts: np.ndarray
    """Codes at `DEEPEST` at which another cell's territory begins, in order: int64, shape (m,)."""
    owners: np.ndarray
    """The number of the cell, 0 to n - 1, whose territory begins there: int64, shape (m,)."""

    def locate(self, longitude: ArrayLike, latitude: ArrayLike) -> np.ndarray:
        """Return the number of the cell each point (degrees, shape (n,)) belongs to, as `codes` counts them: int64.

        Raises `InputError`, naming the first row, for a position that is none.
        """
        places = encode(longitude, latitude, DEEPEST)
        return self.owners[np.searchsorted(self.starts, places, side="right") - 1]


def make_cells(codes: np.ndarray, levels: Levels) -> Cells:
    """Return the cells, given in any order, that are told apart; stored ids come back by `make_cells(*from_ids(ids))`.

    Raises `InputError` for none at all and for cells that overlap, naming two.
    """
    codes = np.asarray(codes, dtype=np.int64)
    levels = np.broadcast_to(levels, codes.shape).astype(np.int64)
    if not len(codes):
        raise InputError("There are no cells to tell apart: give at least one.")
    order = np.argsort(_first_place(codes, levels), kind="stable")
    codes, levels = codes[order], levels[order]
    starts, ends = _first_place(codes, levels), _first_place(codes + 1, levels)
    if (overlap := starts[1:] < ends[:-1]).any():
        first = int(np.argmax(overlap))
        one, other = to_ids(codes, levels)[first : first + 2]
        raise InputError(f"The cells {one} and {other} overlap: a place can belong to one only, so leave one out.")
    empty, empty_levels = _largest_empty(codes, levels)
    territories = np.concatenate([starts, _first_place(empty, empty_levels)])
    owners = np.concatenate([np.arange(len(codes)), _nearest(empty, empty_levels, codes, levels)])
    order = np.argsort(territories)
    return Cells(codes=codes, levels=levels, starts=territories[order], owners=owners[order])


def adaptive_cells(longitude: ArrayLike, latitude: ArrayLike, *, most: int, least: int, deepest: int) -> Cells:
    """Return the cells of a quadtree that splits a cell while it holds more than `most` images, down to L`deepest`.

    A quadrant with fewer than `least` images is no cell: its images belong to a cell nearby inside its parent, as
    `Cells` says. So each cell holds at least `least` images of its own, and more than `most` only at L`deepest`; what
    it was handed comes on top. Astruc et al., OpenStreetView-5M (CVPR 2024), split cells of more than 1,000 images.

    Raises `InputError` for `least` below 1 or above most // 4 + 1, where a split could leave no cell, for a position
    that is none, and for fewer than `least` images in every quadrant of the Earth.
    """
    if not 1 <= least <= most // 4 + 1:
        raise InputError(
            f"least = {least} with most = {most}: of the quadrants of a cell that is split, one is sure to hold"
            f" {most // 4 + 1} images, so least can be 1 to {most // 4 + 1}."
        )
    places = np.sort(encode(longitude, latitude, deepest))
    codes, parts = np.arange(4), []
    for level in range(1, deepest + 1):
        edges = np.stack([codes, codes + 1]) << 2 * (deepest - level)
        first, end = np.searchsorted(places, edges)
        codes, images = codes[end - first >= least], (end - first)[end - first >= least]
        split = (images > most) & (level < deepest)
        parts.append((codes[~split], np.full(np.count_nonzero(~split), level)))
        codes = children(codes[split]).ravel()
    leaves, levels = (np.concatenate(each) for each in zip(*parts, strict=True))
    if not len(leaves):
        raise InputError(
            f"{len(places)} images leave fewer than least = {least} in every quadrant of the Earth: give more images or"
            " a smaller number."
        )
    return make_cells(leaves, levels)


def _first_place(codes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The code at `DEEPEST` of the north-western corner of each cell."""
    return codes << 2 * (DEEPEST - levels)


def _largest_empty(codes: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Code and level of the cells that hold none of these and lie in none, but whose parent holds one."""
    inner = np.zeros(1, dtype=np.int64)  # the Earth
    parts = []
    for level in range(1, int(levels.max()) + 1):
        below = levels >= level
        within = parents(codes[below], levels[below], level)
        empty = np.setdiff1d(children(inner), within)
        parts.append((empty, np.full(len(empty), level)))
        inner = np.unique(within[levels[below] > level])
    empty, empty_levels = (np.concatenate(each) for each in zip(*parts, strict=True))
    return empty, empty_levels


def _nearest(empty: np.ndarray, empty_levels: np.ndarray, codes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """For each empty cell, the number of the cell with the nearest centre among those inside its parent."""
    siblings = _first_place(empty >> 2, empty_levels - 1), _first_place((empty >> 2) + 1, empty_levels - 1)
    firsts, ends = (np.searchsorted(_first_place(codes, levels), edge) for edge in siblings)
    heading, towards = _directions(empty, empty_levels), _directions(codes, levels)
    owners = np.empty(len(empty), dtype=np.int64)
    for row, (first, end) in enumerate(zip(firsts, ends, strict=True)):
        chords = np.linalg.norm(towards[first:end] - heading[row], axis=1)
        # Of centres at one distance the first in Morton order, whatever the last bits are on this machine.
        owners[row] = first + np.argmax(chords <= chords.min() * (1 + 1e-9))
    return owners


def _directions(codes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Unit vectors from the middle of the sphere to the centres, shape (n, 3)."""
    longitude, latitude = np.radians(centres(codes, levels))
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )
