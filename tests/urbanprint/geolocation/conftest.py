"""Random trees of cells, and logits for them."""

from collections.abc import Callable

import numpy as np
import pytest

from urbanprint.geolocation.hierarchy import Hierarchy


@pytest.fixture(scope="session")
def make_tree() -> Callable[[int], Hierarchy]:
    """Builds a tree from a seed: one to four levels out of six, families of 1 to 7, about a third of them undivided."""

    def build(seed: int) -> Hierarchy:
        rng = np.random.default_rng(seed)
        numbers = np.sort(rng.choice(np.arange(1, 7), size=rng.integers(1, 5), replace=False)).tolist()
        cells, frontier, above = {}, np.zeros(1, dtype=np.int64), 0
        for number in numbers:
            room = 4 ** (number - above)
            families = [
                parent * room + rng.choice(room, size=rng.integers(1, min(room, 7) + 1), replace=False)
                for parent in frontier
                if above == 0 or rng.random() < 0.7
            ]
            if not families:
                break
            frontier, above = np.concatenate(families), number
            cells[number] = frontier
        return Hierarchy.from_levels(cells)

    return build


@pytest.fixture(scope="session")
def make_logits() -> Callable[..., list[np.ndarray]]:
    """Builds normal logits for each level of a tree, multiplied by `scale`."""

    def build(tree: Hierarchy, *, images: int, seed: int, scale: float = 1.0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [scale * rng.normal(size=(images, len(level))) for level in tree.levels]

    return build
