"""What a simulated conurbation looks like from above: which thing is at a point of a block, and its colour.

What belongs here is the inside of a block of each use of land. Where blocks lie and what they are used for is in
`conurbation.py`. Everything is a function of position alone, so that maps of every projection and resolution agree.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from urbanprint.simulation.lattice import uniform

BLOCK_M = (120.0, 90.0)
"""Sides of a block with the street at two of its edges, in metres."""
STREET_M = 10.0

THINGS: dict[str, tuple[int, int, int]] = {
    "street": (112, 112, 116),
    "yard": (164, 156, 146),
    "grass": (104, 142, 78),
    "tree": (48, 88, 48),
    "tiles": (168, 92, 66),
    "slate": (98, 102, 114),
    "rust": (222, 84, 16),
    "pool": (64, 190, 226),
    "flat roof": (152, 148, 142),
    "bare": (182, 158, 120),
    "pitch": (122, 152, 74),
    "field": (178, 174, 104),
    "furrow": (146, 152, 86),
    "water": (46, 76, 104),
}
"""What can be at a point, and its colour on an average day."""

_NUMBER = {name: number for number, name in enumerate(THINGS)}
POOL, RUST = _NUMBER["pool"], _NUMBER["rust"]
"""The two cues: pools in the gardens of low density, rusty roofs in dense fabric."""
ROOFS = tuple(_NUMBER[name] for name in ("tiles", "slate", "rust", "flat roof"))
STREET = _NUMBER["street"]


@dataclass(frozen=True, eq=False)
class Spots:
    """Points of blocks of one use: metres from the block's inner corner, the block's number, and its wealth."""

    along: np.ndarray
    across: np.ndarray
    block: np.ndarray
    odds: np.ndarray
    """Probability (n,) of the cue of the block's use: of a pool on a plot, of a rusty roof on a house."""
    salt: int

    def plots(self, width: float, depth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Divide the blocks into plots: metres along and across within the plot, and the plot's key (n, 2)."""
        column, x = np.divmod(self.along, width)
        row, y = np.divmod(self.across, depth)
        return x, y, np.column_stack([self.block[:, 0] * 64 + column, self.block[:, 1] * 64 + row]).astype(np.int64)

    def chance(self, key: np.ndarray, number: int) -> np.ndarray:
        """A number in [0, 1) for each plot."""
        return uniform(key, salt=self.salt + number)


def _within(x: np.ndarray, y: np.ndarray, west: float, south: float, east: float, north: float) -> np.ndarray:
    return (x >= west) & (x < east) & (y >= south) & (y < north)


def _houses(
    spots: Spots, *, plot: tuple[float, float], house: tuple[float, float, float, float], green: float
) -> tuple:
    """Plots with a house each: what is at every point, and x, y and key of the plots."""
    x, y, key = spots.plots(*plot)
    things = np.where(spots.chance(key, 0) < green, _NUMBER["grass"], _NUMBER["yard"])
    grown = np.hypot(x - 4 - 6 * spots.chance(key, 1), y - plot[1] + 7) < 2 + 3 * spots.chance(key, 2)
    things = np.where(grown & (spots.chance(key, 3) < green), _NUMBER["tree"], things)
    roof = np.where(spots.chance(key, 4) < 0.6, _NUMBER["tiles"], _NUMBER["slate"])
    return np.where(_within(x, y, *house), roof, things), x, y, key


def _continuous(spots: Spots) -> np.ndarray:
    return _houses(spots, plot=(18, 40), house=(0, 0, 18, 27), green=0.1)[0]


def _dense(spots: Spots) -> np.ndarray:
    house = (2, 2, 15, 21)
    things, x, y, key = _houses(spots, plot=(17, 40), house=house, green=0.4)
    return np.where(_within(x, y, *house) & (spots.chance(key, 5) < spots.odds), RUST, things)


def _medium(spots: Spots) -> np.ndarray:
    return _houses(spots, plot=(22, 40), house=(4, 4, 16, 16), green=0.8)[0]


def _low(spots: Spots) -> np.ndarray:
    things, x, y, key = _houses(spots, plot=(27.5, 40), house=(6, 4, 19, 15), green=0.95)
    return np.where(_within(x, y, 8, 22, 21, 30) & (spots.chance(key, 5) < spots.odds), POOL, things)


def _very_low(spots: Spots) -> np.ndarray:
    return _houses(spots, plot=(55, 40), house=(20, 8, 33, 19), green=1.0)[0]


def _industry(spots: Spots) -> np.ndarray:
    x, y, _ = spots.plots(55, 80)
    return np.where(_within(x, y, 4, 6, 48, 62), _NUMBER["flat roof"], _NUMBER["street"])


def _wood(share: float, ground: str) -> Callable[[Spots], np.ndarray]:
    def things(spots: Spots) -> np.ndarray:
        *_, key = spots.plots(6, 6)
        return np.where(spots.chance(key, 0) < share, _NUMBER["tree"], _NUMBER[ground])

    return things


def _sports(spots: Spots) -> np.ndarray:
    x, y, _ = spots.plots(110, 80)
    line = _within(x, y, 8, 8, 102, 72) & ~_within(x, y, 11, 11, 99, 69)
    return np.where(line, _NUMBER["bare"], _NUMBER["pitch"])


def _farmland(spots: Spots) -> np.ndarray:
    return np.where(spots.across % 14 < 6, _NUMBER["furrow"], _NUMBER["field"])


def _water(spots: Spots) -> np.ndarray:
    return np.full(len(spots.along), _NUMBER["water"])


USES: dict[str, Callable[[Spots], np.ndarray]] = {
    "11100": _continuous,
    "11210": _dense,
    "11220": _medium,
    "11230": _low,
    "11240": _very_low,
    "12100": _industry,
    "13300": _wood(0.05, "bare"),
    "14100": _wood(0.4, "grass"),
    "14200": _sports,
    "21000": _farmland,
    "31000": _wood(0.9, "grass"),
    "50000": _water,
}
"""Code of Urban Atlas -> what is at each point of such a block. Streets, 12220, are what lies between blocks."""


def colours(things: np.ndarray, places: np.ndarray, cast: np.ndarray, *, seed: int) -> np.ndarray:
    """RGB in [0, 254], float (n, 3), of `things` (n,) at `places` (n, 2) under a cast (n, 2): warm and green."""
    palette = np.array(list(THINGS.values()), dtype=float)
    palette += np.random.default_rng(seed).normal(scale=5, size=palette.shape)
    grain = uniform(np.floor(places / 2).astype(np.int64), salt=seed)
    warm, green = cast.T
    tint = np.column_stack([warm - green / 2, green, -warm - green / 2])
    return np.clip(palette[things] + 20 * (grain[:, None] - 0.5) + tint, 0, 254)
