"""Chance that depends on place alone: numbers and smooth fields that are the same whenever they are asked for."""

from dataclasses import dataclass

import numpy as np


def uniform(cells: np.ndarray, *, salt: int) -> np.ndarray:
    """A number in [0, 1) for each cell (n, 2) of a lattice of whole numbers (splitmix64)."""
    mixed = cells.astype(np.uint64) * np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
    state = mixed[:, 0] + mixed[:, 1] + np.array([salt], np.int64).astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return ((state ^ (state >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True, eq=False)
class PlanarField:
    """A smooth Gaussian field on a plane, of mean 0 and variance 1, whose correlation is exp(-(d / length)^2 / 2).

    A sum of cosine waves of normally drawn frequencies and even phases (Rahimi and Recht 2007, "Random features for
    large-scale kernel machines", NeurIPS).
    """

    frequencies: np.ndarray
    phases: np.ndarray

    @classmethod
    def drawn(cls, *, length_m: float, rng: np.random.Generator, waves: int = 48) -> "PlanarField":
        """A field of that length, in metres."""
        return cls(rng.normal(scale=1 / length_m, size=(2, waves)), rng.uniform(0, 2 * np.pi, waves))

    def at(self, places: np.ndarray) -> np.ndarray:
        """Its values (n,) at `places` (n, 2), in metres."""
        return np.sqrt(2 / len(self.phases)) * np.cos(places @ self.frequencies + self.phases).sum(axis=1)
