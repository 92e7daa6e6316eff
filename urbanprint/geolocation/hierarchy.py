"""The classes of a geolocation model: which cells there are at each level, which lies in which, and labels of images.

What belongs here: the tree of cells. Not where on Earth they are: a cell is its code, an integer whose base-4 digits
are the quadrants taken from the whole Earth down, a digit a level, so its ancestor m levels up is `code >> 2 * m`.
Levels may be skipped (1, 3, 5, 8).

A cell that is not divided further stands in every finer level as its own only child. So all levels cover the same
ground, and children share out their parent's probability at every level, without a special case anywhere. This is also
how cells of different sizes become one set of leaves (a quadtree split where there are many images).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from urbanprint.errors import InputError

HIERARCHY_VERSION = 1
FINEST = 31
"""The finest level whose codes fit a signed 64-bit integer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """The k classes of a level, in the order of their place in the tree, so that children of a parent are neighbours.

    - `number`: the level, 4^number cells on the whole Earth;
    - `cells` (k,) int64: their codes;
    - `depths` (k,): the levels of those codes: `number`, or less for a cell that is not divided further. Where all are
      `number`, the codes ascend;
    - `parents` (k,): position of each class's parent in the next coarser level; 0, the Earth, in the coarsest;
    - `starts` (parents + 1,): the children of parent p are the classes `starts[p]` to `starts[p + 1]`, at least one.
    """

    number: int
    cells: np.ndarray
    depths: np.ndarray
    parents: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.cells)

    def children(self, parents: np.ndarray) -> np.ndarray:
        """Classes under the parents (n, m), a parent's together: (n, m x most children), -1 where there are fewer.

        A parent of -1 has none.
        """
        first = self.starts[parents]
        count = np.where(parents >= 0, self.starts[parents + 1] - first, 0)
        offset = np.arange(np.diff(self.starts).max())
        found = np.where(offset < count[..., None], first[..., None] + offset, -1)
        return found.reshape(len(parents), parents.shape[1] * len(offset))

    def check(self, values: np.ndarray, *, images: int, what: str = "logits") -> None:
        """Raise `InputError` unless `values` are finite numbers (images, classes)."""
        if values.shape != (images, len(self)):
            raise InputError(
                f"The {what} of level {self.number} have shape {values.shape} where {(images, len(self))} is expected:"
                " a row an image and a column a class; take them from the model of this hierarchy."
            )
        if not (finite := np.isfinite(values).all(axis=1)).all():
            raise InputError(
                f"The {what} of level {self.number} are not finite in row {int(finite.argmin())}: the model has"
                " diverged, or its input is damaged."
            )


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The levels from coarse to fine, at least one. The classes of the finest are the leaves."""

    levels: tuple[Level, ...]

    @classmethod
    def from_levels(cls, cells: Mapping[int, np.ndarray]) -> "Hierarchy":
        """Build from the codes at each level, in any order, repeated or not.

        Raises `InputError` for a cell whose parent is not among the cells of the next coarser level, a code that its
        level does not have, and a level without cells.
        """
        own = {number: _checked(number, cells[number]) for number in sorted(cells)}
        if not own:
            raise InputError("A hierarchy was asked for without levels: give the cells of at least one level.")
        earth = Level(number=0, cells=_ZERO, depths=_ZERO, parents=_ZERO, starts=np.array([0, 1]))
        levels = [earth]
        for number, codes in own.items():
            levels.append(_divide(levels[-1], number, codes, finest=max(own)))
        return cls(tuple(levels[1:]))

    @classmethod
    def from_leaves(cls, codes: np.ndarray, depths: np.ndarray | int, *, levels: Sequence[int]) -> "Hierarchy":
        """Build from the leaves: cells by code (n,) and the level each belongs to; their ancestors at `levels` follow.

        Leaves given in the order of the tree (Morton order) keep their numbers. Raises `InputError` for leaves of a
        level that is not among `levels`, for a leaf that holds other leaves, and as `from_levels`.
        """
        codes = np.asarray(codes)
        depths = np.broadcast_to(depths, codes.shape)
        if unknown := sorted(set(depths.tolist()) - set(levels)):
            raise InputError(f"There are leaves of level {unknown[0]}, which is not among the levels {list(levels)}.")
        inside = {number: depths >= number for number in levels}
        hierarchy = cls.from_levels({n: codes[held] >> 2 * (depths[held] - n) for n, held in inside.items()})
        last = hierarchy.levels[-1]
        for depth in np.unique(depths).tolist():
            if len(divided := np.setdiff1d(codes[depths == depth], last.cells[last.depths == depth])):
                leaf = cell_name(int(divided[0]), depth)
                raise InputError(f"The leaf {leaf} of level {depth} holds finer leaves: keep it or them.")
        return hierarchy

    @property
    def numbers(self) -> tuple[int, ...]:
        """The levels' numbers, coarse to fine."""
        return tuple(level.number for level in self.levels)

    def upto(self, finest: int | None) -> tuple[Level, ...]:
        """The levels not finer than `finest`, all if None. Raises `InputError` where none is left."""
        levels = tuple(level for level in self.levels if finest is None or level.number <= finest)
        if not levels:
            raise InputError(f"finest = {finest}: the coarsest level is {self.numbers[0]}; allow at least that.")
        return levels

    def labels(self, codes: np.ndarray, *, depth: int) -> np.ndarray:
        """Class of each image at each level: (n, levels) positions, -1 where the cell it lies in is no class.

        `codes` (n,) are the cells the images lie in at level `depth`, the finest level of the hierarchy or finer.
        """
        finest = self.numbers[-1]
        if depth < finest:
            raise InputError(f"depth = {depth}: labels need codes of level {finest} or finer.")
        leaf = np.asarray(codes, dtype=np.int64) >> 2 * (depth - finest)
        columns = []
        for level in self.levels:
            first = _first_leaf(level.cells, level.depths, finest)
            found = np.searchsorted(first, leaf, side="right") - 1
            inside = (found >= 0) & (leaf - first[found] < 1 << 2 * (finest - level.depths[found]))
            columns.append(np.where(inside, found, -1))
        return np.stack(columns, axis=1)

    def ancestors(self, leaves: np.ndarray) -> np.ndarray:
        """Class at each level of images whose leaf (n,) is known: (n, levels) positions; a leaf of -1 has none."""
        columns = [np.asarray(leaves)]
        for level in self.levels[:0:-1]:
            columns.append(np.where(columns[-1] >= 0, level.parents[columns[-1]], -1))
        return np.stack(columns[::-1], axis=1)

    def check(self, values: Sequence[np.ndarray], *, what: str = "logits") -> None:
        """Raise `InputError` unless `values` holds, a level each, finite numbers (n, classes) of the same n images."""
        if len(values) != len(self.levels):
            raise InputError(f"The {what} are of {len(values)} levels, the hierarchy has {list(self.numbers)}.")
        for level, array in zip(self.levels, values, strict=True):
            level.check(array, images=len(values[0]), what=what)

    def to_json(self) -> str:
        """Return the levels and their codes as text, the same bytes for the same classes."""
        levels = [{"level": v.number, "cells": v.cells[v.depths == v.number].tolist()} for v in self.levels]
        return (
            json.dumps({"levels": levels, "version": HIERARCHY_VERSION}, sort_keys=True, separators=(",", ":")) + "\n"
        )

    @classmethod
    def from_json(cls, text: str, *, name: str) -> "Hierarchy":
        """Read what `to_json` wrote; `name` is the file it came from. Raises `InputError` for anything else."""
        try:
            stored = json.loads(text)
            version = stored["version"]
            cells = {entry["level"]: np.asarray(entry["cells"]) for entry in stored["levels"]}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{name} holds no hierarchy ({error!r}): write it again with to_json.") from error
        if version != HIERARCHY_VERSION:
            raise InputError(
                f"{name} has version {version!r} and this release reads {HIERARCHY_VERSION}: build the hierarchy again."
            )
        return cls.from_levels(cells)


def cell_name(code: int, depth: int) -> str:
    """A cell's digits from the Earth down, such as 0/1/2/3; "the Earth" at depth 0."""
    return "/".join(np.base_repr(code, 4).zfill(depth)) if depth else "the Earth"


_ZERO = np.zeros(1, dtype=np.int64)


def _checked(number: int, codes: np.ndarray) -> np.ndarray:
    """The codes, sorted and unique."""
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= FINEST:
        raise InputError(f"Level {number!r} does not exist: levels run from 1 to {FINEST}.")
    codes = np.asarray(codes)
    if not len(codes):
        raise InputError(f"Level {number} has no cells: leave it out, or give at least one.")
    if codes.dtype.kind not in "iu":
        raise InputError(f"The cells of level {number} are of type {codes.dtype}: codes are integers.")
    codes = np.unique(codes.astype(np.int64))
    if len(outside := codes[(codes < 0) | (codes >= 1 << 2 * number)]):
        raise InputError(f"Level {number} has no cell {outside[0]}: its codes run from 0 to {(1 << 2 * number) - 1}.")
    return codes


def _divide(above: Level, number: int, codes: np.ndarray, *, finest: int) -> Level:
    """The level below `above`, with the cells `codes` and those of `above` that none of them lies in."""
    parents = codes >> 2 * (number - above.number)
    if len(orphans := codes[~np.isin(parents, above.cells[above.depths == above.number])]):
        orphan = int(orphans[0])
        missing = cell_name(orphan >> 2 * (number - above.number), above.number)
        raise InputError(
            f"{len(orphans)} cells of level {number} have no parent, such as {cell_name(orphan, number)}: add {missing}"
            f" to level {above.number}, or remove them."
        )
    undivided = (above.depths < above.number) | ~np.isin(above.cells, parents)
    cells = np.concatenate([codes, above.cells[undivided]])
    depths = np.concatenate([np.full(len(codes), number), above.depths[undivided]])
    first = _first_leaf(cells, depths, finest)
    order = np.argsort(first)
    parents = np.searchsorted(_first_leaf(above.cells, above.depths, finest), first[order], side="right") - 1
    return Level(
        number=number,
        cells=cells[order],
        depths=depths[order],
        parents=parents,
        starts=np.searchsorted(parents, np.arange(len(above) + 1)),
    )


def _first_leaf(cells: np.ndarray, depths: np.ndarray, finest: int) -> np.ndarray:
    """The smallest code inside each cell at the finest level: the order of the tree."""
    return cells << 2 * (finest - depths)
