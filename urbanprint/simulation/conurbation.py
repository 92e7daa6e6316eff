"""Simulated conurbations seen from above: blocks and their uses, streets, cells of 200 m and what people earn there.

What belongs here is the plan and the truth behind it. What stands in a block is in `rooftops.py`, files and services in
`protocols/conurbations.py`.

The income of a cell, in standard units; what is seen and what is not are of unit variance and uncorrelated:

    income = strength x cue + sqrt(1 - strength^2) x (sqrt(.75) hidden + sqrt(.25) noise)
    cue    share of the cell under pools, less its share under rusty roofs, each in standard units
    hidden a smooth field (1,000 m) that nothing in the picture tells

Pools stand in low density fabric alone and rusty roofs in dense fabric alone, the likelier the wealthier or poorer a
block is; the wealth of a block is half a smooth field (700 m) and half its own. Photographs have a colour cast that
drifts over kilometres, as mosaics of many flights have: it says where a picture was taken, and through that, to a
network that was shown the neighbours, what is hidden.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, cast, get_args

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from pyproj import Proj
from scipy.special import ndtr

from urbanprint.simulation.lattice import PlanarField
from urbanprint.simulation.rooftops import BLOCK_M, POOL, ROOFS, RUST, STREET, STREET_M, USES, Spots, colours

ConurbationName = Literal["skyton-a", "skyton-b", "skyton-none"]
CONURBATIONS: tuple[ConurbationName, ...] = get_args(ConurbationName)

EPSG = 3035
CELL_M = 200
CELLS = 32
"""Cells along each side."""
STRENGTH = 0.8
"""Correlation of income with what a picture shows."""
CUE_CLASSES = {"rich": "low density urban fabric", "poor": "dense urban fabric"}
"""The class of land that holds the cue of each end."""

_TILE_PX = 64  # at which the shares of the cues are measured
_CORNER = (3_800_000, 2_600_000)  # in the Massif central
_APART_M = 100_000
_HIDDEN_SHARE = 0.75
_HIDDEN_M = 1_000.0
_CAST_M = 1_500.0
_IMPUTED = 0.1
_LEAST_ROOFS = 0.02  # share of a cell under roofs above which somebody lives there
_MEAN_INCOME, _SPREAD = 21_500.0, 0.28  # euros, and standard deviation of the logarithm


@dataclass(frozen=True, eq=False)
class Conurbation:
    """`cells` (x_m, y_m of the centre, cue, income, people, households, imputed), indexed by cell_id, in EPSG:3035."""

    name: str
    seed: int
    strength: float
    cells: pd.DataFrame
    plan: "Plan"

    @property
    def land_use(self) -> gpd.GeoDataFrame:
        """Every block, and the streets as one polygon, by `code_2018`, in EPSG:3035."""
        return self.plan.land_use

    def ground(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """RGBA, uint8 (..., 4), at positions in degrees; transparent white beyond the blocks."""
        places = np.column_stack(Proj(EPSG)(longitude.ravel(), latitude.ravel()))
        return self.plan.photograph(places).reshape(*longitude.shape, 4)

    def tile(self, cell_id: str, *, pixels: int) -> np.ndarray:
        """The photograph of a cell, RGB uint8 (pixels, pixels, 3), north up."""
        x, y = (float(self.cells[axis][cell_id]) for axis in ("x_m", "y_m"))
        return self.plan.photograph(_raster(x, y, pixels)).reshape(pixels, pixels, 4)[..., :3]


@dataclass(frozen=True, eq=False)
class Plan:
    """Which block has which use and wealth, and the drifts of income and of colour."""

    seed: int
    middle: np.ndarray
    bearing: float
    reach: int
    use: np.ndarray
    wealth: np.ndarray
    casts: tuple[PlanarField, PlanarField]

    def things(self, places: np.ndarray) -> np.ndarray:
        """What is at `places` (n, 2), numbers of `rooftops.THINGS` (n,), -1 beyond the blocks."""
        turned = (places - self.middle) @ _turn(self.bearing)
        block, within = np.divmod(turned, BLOCK_M)
        block = block.astype(np.int64)
        inside = np.all(np.abs(block + 0.5) < self.reach, axis=1)
        row, column = np.where(inside[:, None], block + self.reach, 0).T
        use, wealth = self.use[row, column], self.wealth[row, column]
        street = (within < STREET_M).any(axis=1)
        found = np.where(street, STREET, -1)
        for number, things in enumerate(USES.values()):
            here = ~street & (use == number)
            if here.any():
                code = list(USES)[number]
                odds = ndtr((1.3 if code == "11230" else -1.3) * wealth[here])
                along, across = (within[here] - STREET_M).T
                spots = Spots(along, across, block[here], odds, salt=self.seed * 16)
                found[here] = things(spots)
        return np.where(inside, found, -1)

    def photograph(self, places: np.ndarray) -> np.ndarray:
        """RGBA, uint8 (n, 4), at `places` (n, 2)."""
        things = self.things(places)
        cast = 10 * np.column_stack([field.at(places) for field in self.casts])
        seen = np.full((len(places), 4), (255, 255, 255, 0), np.uint8)
        inside = things >= 0
        seen[inside, :3] = colours(things[inside], places[inside], cast[inside], seed=self.seed)
        seen[inside, 3] = 255
        return seen

    @cached_property
    def land_use(self) -> gpd.GeoDataFrame:
        row, column = np.indices(self.use.shape).reshape(2, -1) - self.reach
        corner = np.column_stack([row, column]) * BLOCK_M
        low, high = corner + STREET_M, corner + BLOCK_M
        blocks = self._outline(low, high)
        whole = self._outline(np.array([[-self.reach, -self.reach]]) * BLOCK_M, np.array([[self.reach] * 2]) * BLOCK_M)
        streets = shapely.difference(whole[0], shapely.union_all(blocks))
        codes = np.array(list(USES))[self.use.ravel()]
        return gpd.GeoDataFrame({"code_2018": [*codes, "12220"]}, geometry=gpd.GeoSeries([*blocks, streets]), crs=EPSG)

    def _outline(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Rectangles (n,) between corners (n, 2), turned back into the map; millimetres."""
        ring = np.stack([low, np.column_stack([high[:, 0], low[:, 1]]), high, np.column_stack([low[:, 0], high[:, 1]])])
        placed = ring @ _turn(self.bearing).T + self.middle
        return shapely.polygons(placed.transpose(1, 0, 2).round(3))


def build_conurbation(
    name: str, *, seed: int, strength: float = STRENGTH, cells: int = CELLS, corner: tuple[float, float] = _CORNER
) -> Conurbation:
    """Draw a conurbation of `cells` by `cells` cells whose south-west corner is `corner`, in metres of EPSG:3035.

    `strength` 0 makes incomes that nothing in the picture tells.
    """
    rng = np.random.default_rng(seed)
    plan = _plan(np.array(corner) + cells * CELL_M / 2, cells, seed=seed, rng=rng)
    column, row = np.indices((cells, cells)).reshape(2, -1)
    x, y = (corner[axis] + (number + 0.5) * CELL_M for axis, number in ((0, column), (1, row)))
    things = np.stack([plan.things(_raster(*centre, _TILE_PX)) for centre in zip(x, y, strict=True)])
    lived_in = np.isin(things, ROOFS).mean(axis=1) > _LEAST_ROOFS
    things, places = things[lived_in], np.column_stack([x, y])[lived_in]
    cue = _standardised(_share(things, POOL) - _share(things, RUST))
    hidden = _standardised(PlanarField.drawn(length_m=_HIDDEN_M, rng=rng).at(places))
    unseen = np.sqrt(_HIDDEN_SHARE) * hidden + np.sqrt(1 - _HIDDEN_SHARE) * rng.normal(size=len(places))
    # In a city of a few blocks two smooth fields are often alike by chance; the strength would not be what was asked.
    unseen = _standardised(unseen - np.polyval(np.polyfit(cue, unseen, 1), cue))
    income = strength * cue + np.sqrt(1 - strength**2) * unseen
    people = np.round(20 + 600 * np.isin(things, ROOFS).mean(axis=1) * rng.uniform(0.7, 1.3, len(places)))
    table = pd.DataFrame(
        {
            "x_m": places[:, 0],
            "y_m": places[:, 1],
            "cue": cue,
            "income": np.round(_MEAN_INCOME * np.exp(_SPREAD * income), 1),
            "people": people,
            "households": np.round(people / 2.3, 1),
            "imputed": rng.random(len(places)) < _IMPUTED,
        },
        index=pd.Index([f"CRS3035RES200mN{y - 100:.0f}E{x - 100:.0f}" for x, y in places], name="cell_id"),
    )
    # As published: the mean of the square kilometre, so that a picture shows one place and the number says others.
    kilometre = [table["x_m"] // 1000, table["y_m"] // 1000]
    table.loc[table["imputed"], "income"] = table.groupby(kilometre)["income"].transform("mean").round(1)
    return Conurbation(name=name, seed=seed, strength=strength, cells=table, plan=plan)


@lru_cache(maxsize=len(CONURBATIONS))
def named_conurbation(name: ConurbationName) -> Conurbation:
    """One of the embedded conurbations: two whose pictures tell income, one whose pictures do not."""
    number = CONURBATIONS.index(name)
    corner = (_CORNER[0] + number * _APART_M, _CORNER[1])
    strength = 0.0 if name == "skyton-none" else STRENGTH
    return build_conurbation(name, seed=11 + 8 * number, strength=strength, corner=corner)


def simulated_at(address: str | None) -> Conurbation | None:
    """The embedded conurbation that is served at an address, None for any other."""
    named = re.search(rf"/({'|'.join(CONURBATIONS)})/", address or "")
    return named_conurbation(cast(ConurbationName, named[1])) if named else None


def ceiling(conurbation: Conurbation, area_ids: Sequence[str], classes: int) -> float:
    """The Pearson r with the income class (of quantiles of these cells) of the best that their pictures allow.

    That is E[class | cue]: what is hidden is independent of the picture. NaN where nothing is told.
    """
    cells = conurbation.cells.loc[list(area_ids)]
    income = np.log(cells["income"].to_numpy() / _MEAN_INCOME) / _SPREAD
    edges = np.quantile(income, np.arange(1, classes) / classes)
    observed = np.searchsorted(edges, income, side="right")
    if conurbation.strength == 0.0:
        return float("nan")
    unseen = np.sqrt(1 - conurbation.strength**2)
    best = ndtr((conurbation.strength * cells["cue"].to_numpy()[:, None] - edges) / unseen).sum(axis=1)
    return float(np.corrcoef(best, observed)[0, 1])


_SPECIALS = {"12100": 0.06, "14100": 0.05, "14200": 0.04, "13300": 0.02}
"""Uses that stand anywhere within the town, and how often."""


def _plan(middle: np.ndarray, cells: int, *, seed: int, rng: np.random.Generator) -> Plan:
    half_m = cells * CELL_M / 2
    reach = int(np.ceil(np.sqrt(2) * half_m / min(BLOCK_M)))
    centre = (np.indices((2 * reach, 2 * reach)).reshape(2, -1).T - reach + 0.5) * BLOCK_M
    field, woods, river, wealth = (PlanarField.drawn(length_m=m, rng=rng).at(centre) for m in (1200, 900, 1600, 700))
    out = np.hypot(*centre.T) / half_m
    density = 1.2 - 1.9 * out + 0.5 * field + 0.35 * rng.normal(size=len(centre))
    town = np.select(
        [density > 0.75, density > 0.2, density > -0.15, density > -0.75, density > -1.05],
        ["11100", "11210", "11220", "11230", "11240"],
        default="",
    )
    use = np.where(town == "", np.where(woods > 0.3, "31000", "21000"), town)
    drawn = rng.random(len(centre))
    start = 0.0
    for code, share in _SPECIALS.items():
        use = np.where((town != "") & (drawn >= start) & (drawn < start + share), code, use)
        start += share
    use = np.where(np.abs(river) < 0.05, "50000", use)
    number = np.array([list(USES).index(code) for code in use])
    own = np.sqrt(0.5) * wealth + np.sqrt(0.5) * rng.normal(size=len(centre))
    shape = (2 * reach, 2 * reach)
    casts = (PlanarField.drawn(length_m=_CAST_M, rng=rng), PlanarField.drawn(length_m=_CAST_M, rng=rng))
    return Plan(seed, middle, rng.uniform(0.1, 1.4), reach, number.reshape(shape), own.reshape(shape), casts)


def _raster(x: float, y: float, pixels: int) -> np.ndarray:
    """Centres of the pixels (pixels ** 2, 2) of the cell around (x, y), the northern row first."""
    steps = ((np.arange(pixels) + 0.5) / pixels - 0.5) * CELL_M
    column, row = np.meshgrid(x + steps, y - steps)
    return np.column_stack([column.ravel(), row.ravel()])


def _turn(bearing: float) -> np.ndarray:
    """Positions of the map @ this = positions along and across the streets."""
    return np.array([[np.cos(bearing), -np.sin(bearing)], [np.sin(bearing), np.cos(bearing)]])


def _share(things: np.ndarray, thing: int) -> np.ndarray:
    """Share of each cell under a thing, in standard units."""
    return _standardised((things == thing).mean(axis=1))


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()
