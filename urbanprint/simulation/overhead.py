"""The simulated town from above: the colour of any point of ground, so that maps of every projection agree.

What belongs here is what stands where; rasters, projections and files are the business of `protocols/ortho.py`.
Each area has streets in a lattice of its own direction, blocks of plots between them, and on each plot a house with
a garden, or, the likelier the more deprived the area looks, a paved yard.
"""

import numpy as np
import shapely
from scipy.special import ndtr

from urbanprint.simulation.lattice import uniform
from urbanprint.simulation.town import ORIGIN, Town

_M_PER_DEGREE = 111_229.0 * np.array([np.cos(np.radians(ORIGIN[1])), 1.0])  # of longitude and latitude, near enough
_BLOCK_M = (96.0, 62.0)
_STREET_M = 9.0
_PLOT_M = (14.5, 26.5)  # six by two plots fill a block
_STREET, _LINE = (104, 104, 108), (214, 212, 200)
_GARDEN, _YARD, _TREE = (96, 132, 70), (158, 150, 142), (44, 84, 44)
_ROOFS = np.array([(150, 78, 60), (172, 96, 70), (110, 108, 112), (134, 124, 112)], float)


class Overhead:
    """The ground of a town as a function of position."""

    def __init__(self, town: Town) -> None:
        self._shapes = town.areas.geometry.to_numpy()
        self._tree = shapely.STRtree(self._shapes)
        shapely.prepare(self._shapes)
        self._yards = ndtr(-0.5 + town.truth["visible"].to_numpy())
        self._bearings = np.radians(np.random.default_rng(town.seed).uniform(0, 90, len(self._shapes)))

    def colours(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """RGBA, uint8 of shape (..., 4), at positions in degrees; transparent white outside of the town."""
        colours = np.full((longitude.size, 4), (255, 255, 255, 0), np.uint8)
        positions = np.column_stack([longitude.ravel(), latitude.ravel()])
        left = np.arange(longitude.size)
        for area in self._tree.query(shapely.box(*positions.min(axis=0), *positions.max(axis=0))):
            inside = shapely.contains_xy(self._shapes[area], *positions[left].T)
            colours[left[inside], :3] = self._ground(area, positions[left[inside]])
            colours[left[inside], 3] = 255
            left = left[~inside]
        return colours.reshape(*longitude.shape, 4)

    def _ground(self, area: int, positions: np.ndarray) -> np.ndarray:
        """RGB (n, 3) at `positions` (n, 2) in an area."""
        bearing = self._bearings[area]
        turn = np.array([[np.cos(bearing), -np.sin(bearing)], [np.sin(bearing), np.cos(bearing)]])
        along = (positions - ORIGIN) * _M_PER_DEGREE @ turn
        block, within = np.divmod(along, _BLOCK_M)
        plot, spot = np.divmod(within - _STREET_M, _PLOT_M)
        key = (block * (6, 2) + plot).astype(np.int64)
        draws = [uniform(key, salt=4 * int(area) + k) for k in range(4)]
        ground = np.where((draws[0] < self._yards[area])[:, None], _YARD, _GARDEN).astype(float)
        grown = np.hypot(spot[:, 0] - 3 - 8 * draws[1], spot[:, 1] - 20) < 0.5 + 2.5 * draws[2]
        ground[grown & (draws[0] >= self._yards[area])] = _TREE
        roofed = (spot[:, 0] > 1.5) & (spot[:, 0] < 13) & (spot[:, 1] > 2) & (spot[:, 1] < 13)
        shade = np.where(spot[:, 1] < 7.5, 1.08, 0.88)[:, None]  # the two slopes of the roof
        ground[roofed] = (_ROOFS[(draws[3] * len(_ROOFS)).astype(int)] * shade)[roofed]
        ground[(within < _STREET_M).any(axis=1)] = _STREET
        ground[(np.abs(within - _STREET_M / 2) < 0.3).any(axis=1)] = _LINE
        grain = uniform(np.floor(along * 2).astype(np.int64), salt=-1)  # half a metre
        return np.clip(ground + 24 * (grain[:, None] - 0.5), 0, 254)
