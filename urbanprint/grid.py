"""The recursive world grid: cells of every level, their codes and ids, their place, size and neighbours.

What belongs here is arithmetic of cells. The world is halved in latitude [-90, 90] and longitude [-180, 180] again and
again; the quadrants of a cell are 0 north-west, 1 north-east, 2 south-west, 3 south-east. The digits from the coarsest
level on, read in base 4, are a cell's code (Morton order); joined by "/" they are its id: "0/1/2/3" is a cell of L4.
Level Ln has 4^n cells, 2^n rows from the north and 2^n columns from the west. A code means nothing without its level.

Every place has one cell at each level. A cell holds its south and west edge, but not its north and east edge; the
northernmost row holds the north pole as well; longitude 180 is longitude -180. Edges are multiples of 45 degrees times
a power of two, which floating point holds exactly, and no rounding moves a point across one.
"""

import numpy as np
from numpy.typing import ArrayLike

from urbanprint.errors import InputError

LEVELS = (1, 3, 5, 8)
"""The levels at which images are geolocated."""

DEEPEST = 24
"""The last level: its cells measure 1.2 x 2.4 m at the equator, below what a position of an image is worth."""

_CHUNK = 1 << 14  # points at a time, so that what lies between the steps stays in the cache: 2.5 times faster
_SHIFTS = (16, 8, 4, 2, 1)
_MASKS = (
    0xFFFFFFFF,
    0x0000FFFF0000FFFF,
    0x00FF00FF00FF00FF,
    0x0F0F0F0F0F0F0F0F,
    0x3333333333333333,
    0x5555555555555555,
)
"""Where the bits of a number stand while they are moved apart, until a free bit is before each (Morton order)."""

_CLOCKWISE = np.array([(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)])
"""Steps in row and column to the cells around, from the north."""

_AXIS_KM = 6378.137
_FLATTENING = 1 / 298.257223563
_ECCENTRICITY = np.sqrt(_FLATTENING * (2 - _FLATTENING))

Levels = int | np.ndarray
"""One level for all codes, or the level of each, shape (n,)."""


def encode(longitude: ArrayLike, latitude: ArrayLike, level: int) -> np.ndarray:
    """Return the code of the cell each point (degrees, shape (n,)) lies in at `level`: int64, shape (n,).

    Raises `InputError`, naming the first such row, for a longitude outside [-180, 180] (never wrapped: it is more often
    a mistake, such as exchanged columns, than a turn round the Earth), a latitude outside [-90, 90] and NaN.
    """
    _check_levels(level)
    longitude, latitude = np.asarray(longitude, dtype=float), np.asarray(latitude, dtype=float)
    if longitude.ndim != 1 or longitude.shape != latitude.shape:
        raise InputError(
            f"Longitudes of shape {longitude.shape} and latitudes of shape {latitude.shape}: give a list of each, of"
            " one length."
        )
    size = 1 << level
    codes = np.empty(len(longitude), dtype=np.int64)
    for first in range(0, len(codes), _CHUNK):
        part = slice(first, first + _CHUNK)
        check_positions(longitude[part], latitude[part], first=first)
        column = size // 2 + _steps(longitude[part], 360 / size)
        row = size // 2 - 1 - _steps(latitude[part], 180 / size)
        codes[part] = _interleave(np.maximum(row, 0), column & (size - 1))  # the pole; the antimeridian
    return codes


def boxes(codes: np.ndarray, level: Levels) -> np.ndarray:
    """Return west, south, east and north of each cell in degrees, exact, shape (n, 4)."""
    row, column = _rows_and_columns(codes, level)
    height = np.ldexp(180.0, -np.asarray(level))
    west, north = column * 2 * height - 180, 90 - row * height
    return np.stack([west, north - height, west + 2 * height, north], axis=-1)


def centres(codes: np.ndarray, level: Levels) -> tuple[np.ndarray, np.ndarray]:
    """Return longitude and latitude of the middle of each cell in degrees, exact, shape (n,) each."""
    west, south, east, north = boxes(codes, level).T
    return (west + east) / 2, (south + north) / 2


def areas_km2(codes: np.ndarray, level: Levels) -> np.ndarray:
    """Return the area of each cell on the WGS 84 ellipsoid in square kilometres, shape (n,).

    In closed form: the zone from the equator to latitude p has the area pi a^2 q(p), with q after Snyder, Map
    Projections: A Working Manual (1987), equation 3-12.
    """
    west, south, east, north = boxes(codes, level).T
    return _AXIS_KM**2 * np.radians(east - west) * (_authalic(north) - _authalic(south)) / 2


def all_codes(level: int) -> np.ndarray:
    """Return the codes of all 4^level cells of a level, in order."""
    _check_levels(level)
    return np.arange(4**level, dtype=np.int64)


def parents(codes: np.ndarray, level: Levels, to: Levels) -> np.ndarray:
    """Return the code of the ancestor of each cell at level `to`, shape (n,); a cell is its own ancestor at its level.

    Raises `InputError` where `to` is deeper than the cell.
    """
    codes = _checked(codes, level)
    _check_levels(to)
    steps = np.asarray(level) - np.asarray(to)
    if (steps < 0).any():
        row = int(np.argmin(np.broadcast_to(steps, codes.shape)))
        own, asked = (int(np.broadcast_to(each, codes.shape)[row]) for each in (level, to))
        raise InputError(f"The cell in row {row} is of L{own} and has no parent at L{asked}: ask for L1 to L{own}.")
    return codes >> 2 * steps


def children(codes: np.ndarray, steps: int = 1) -> np.ndarray:
    """Return the codes of the cells inside each cell `steps` levels deeper, shape (n, 4^steps), in Morton order."""
    return (np.asarray(codes, dtype=np.int64)[:, None] << 2 * steps) + np.arange(4**steps)


def neighbours(codes: np.ndarray, level: Levels) -> np.ndarray:
    """Return the codes of the eight cells around each, clockwise from the north, shape (n, 8).

    Neighbours lie on beyond the antimeridian and beyond a pole, where the row goes on at the opposite meridian. In the
    two rows at the poles of L1 and L2 one cell therefore stands in several places, at L1 the cell itself among them.
    """
    row, column = _rows_and_columns(codes, level)
    size = np.left_shift(1, level)
    row, column, size = (np.expand_dims(each, -1) for each in (row, column, size))
    row, column = row + _CLOCKWISE[:, 0], column + _CLOCKWISE[:, 1]
    beyond = (row < 0) | (row >= size)
    return _interleave(np.clip(row, 0, size - 1), (column + beyond * (size // 2)) & (size - 1))


def to_ids(codes: np.ndarray, level: Levels) -> np.ndarray:
    """Return the id of each cell, an array of text of shape (n,). Sorted, cells of all levels stand in Morton order."""
    codes = _checked(codes, level)
    levels = np.broadcast_to(level, codes.shape)[:, None]
    deepest = int(levels.max(initial=1))
    place = np.arange(deepest)
    letters = np.full((len(codes), 2 * deepest - 1), ord("/"), dtype=np.uint32)
    letters[:, ::2] = ord("0") + (codes[:, None] >> 2 * np.maximum(levels - 1 - place, 0) & 3)
    letters[np.arange(2 * deepest - 1) >= 2 * levels - 1] = 0  # NumPy's text ends where zeros begin
    return letters.view(f"U{2 * deepest - 1}")[:, 0]


def from_ids(ids: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the code and the level of each id, int64 of shape (n,) each.

    Raises `InputError` for a text that is no id, naming it.
    """
    texts = np.asarray(ids, dtype=str)
    letters = np.ascontiguousarray(texts).view(np.uint32).reshape(len(texts), texts.itemsize // 4)
    letters = letters[:, : 2 * DEEPEST]  # one more than the longest id has
    digits, strokes, length = letters[:, ::2].astype(np.int64) - ord("0"), letters[:, 1::2], (letters > 0).sum(axis=1)
    levels = (length + 1) // 2
    used = np.arange(digits.shape[1]) < levels[:, None]
    between = np.arange(strokes.shape[1]) < levels[:, None] - 1
    sound = (length % 2 == 1) & ((digits >= 0) & (digits < 4) | ~used).all(axis=1)
    sound &= ((strokes == ord("/")) | ~between).all(axis=1)
    if not sound.all():
        wrong = str(texts[np.argmin(sound)])
        raise InputError(f"{wrong!r} is no cell: expected 1 to {DEEPEST} digits from 0 to 3 joined by /, as in 0/1.")
    weights = 2 * np.maximum(levels[:, None] - 1 - np.arange(digits.shape[1]), 0)
    return np.where(used, digits << weights, 0).sum(axis=1), levels


def to_key(cell_id: str) -> str:
    """Return the id as it stands in partition keys and file names, which cannot hold a stroke: "0-1-2-3"."""
    return cell_id.replace("/", "-")


def from_key(key: str) -> str:
    """Return the id of a partition key or file name: "0/1/2/3"."""
    return key.replace("-", "/")


def check_positions(longitude: np.ndarray, latitude: np.ndarray, *, first: int = 0) -> None:
    """Raise `InputError`, naming the first row, counted from `first`, that is no position on Earth or is NaN."""
    inside = (np.abs(longitude) <= 180) & (np.abs(latitude) <= 90)  # false for NaN
    if not inside.all():
        row = int(np.argmin(inside))
        raise InputError(
            f"Row {first + row} lies at longitude {longitude[row]}, latitude {latitude[row]}: expected [-180, 180] and"
            " [-90, 90] in degrees; correct or remove it."
        )


def _steps(degrees: np.ndarray, width: float) -> np.ndarray:
    """The whole number of `width` in `degrees`, rounded down, int64: exact, whatever the division rounds to."""
    steps = np.floor(degrees / width)
    steps -= degrees < steps * width  # just below an edge, the quotient can be rounded up onto it
    return steps.astype(np.int64)


def _interleave(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    for shift, mask in zip(_SHIFTS, _MASKS[1:], strict=True):
        row = (row | row << shift) & mask
        column = (column | column << shift) & mask
    return row << 1 | column


def _rows_and_columns(codes: np.ndarray, level: Levels) -> tuple[np.ndarray, np.ndarray]:
    codes = _checked(codes, level)
    row, column = codes >> 1 & _MASKS[-1], codes & _MASKS[-1]
    for shift, mask in zip(_SHIFTS[::-1], _MASKS[-2::-1], strict=True):
        row = (row | row >> shift) & mask
        column = (column | column >> shift) & mask
    return row, column


def _authalic(latitude: np.ndarray) -> np.ndarray:
    """Snyder's q of a latitude in degrees: 2 at the pole of a sphere."""
    sine = np.sin(np.radians(latitude))
    squeezed = _ECCENTRICITY * sine
    return (1 - _ECCENTRICITY**2) * (sine / (1 - squeezed**2) + np.arctanh(squeezed) / _ECCENTRICITY)


def _checked(codes: np.ndarray, level: Levels) -> np.ndarray:
    _check_levels(level)
    codes = np.asarray(codes, dtype=np.int64)
    if (wrong := (codes < 0) | (codes >> 2 * np.asarray(level) > 0)).any():
        row = int(np.argmax(wrong))
        at = int(np.broadcast_to(level, codes.shape)[row])
        raise InputError(f"Code {codes[row]} in row {row} is no cell of L{at}, which has 0 to {4**at - 1}.")
    return codes


def _check_levels(level: Levels) -> None:
    if ((np.asarray(level) < 1) | (np.asarray(level) > DEEPEST)).any():
        raise InputError(f"There is no such level as {level}: levels go from 1 to {DEEPEST}.")
