"""Random trees of cells, logits for them, and a world whose photographs show the colour of their cell."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from urbanprint.geolocation.datasets import cell_classes
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.network import CellClassifier, GeolocationConfig
from urbanprint.geolocation.parts import deal_parts
from urbanprint.geolocation.training import train_classifier
from urbanprint.grid import centres

# Learns the world below in 4 seconds on one core; a ResNet-18 takes twice as long.
CONFIG = GeolocationConfig(
    backbone="shufflenet_v2_x0_5",
    weights="none",
    size=32,
    epochs=10,
    batch=12,
    learning_rate=5e-3,
    dropout=0.0,
    label_smoothing=0.05,
    cutmix=0.2,
    augment=False,
    validation_share=0.0,
    workers=1,
    device="cpu",
    checkpoint_seconds=60.0,
)


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


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """192 photographs of 32 pixels: 8 cells of L5, two in each of 4 cells of L3, these two in each of 2 of L1.

    In a cell there are 4 towns, about 100 km apart, and in a town 6 photographs within 600 m, a sequence of three each.
    All photographs of a cell have its colour, some noise aside.
    """
    folder, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    cells = np.array([0x005, 0x00A, 0x0F0, 0x0FF, 0x305, 0x30A, 0x3C5, 0x3CA])
    rows = []
    for number, (longitude, latitude) in enumerate(zip(*centres(cells, 5), strict=True)):
        colour = np.array([60 + 130 * (number >> bit & 1) for bit in range(3)])
        for town in range(4):
            for image in range(6):
                name = f"{number}{town}{image}"
                pixels = rng.normal(colour, 12.0, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}.png")
                rows.append(
                    {
                        "image_id": name,
                        "sequence_id": f"{number}{town}{image // 3}",
                        "longitude": longitude + town - 1.5,
                        "latitude": latitude + town - 1.5 + image * 0.001,
                        "path": str(folder / f"{name}.png"),
                    }
                )
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def config() -> GeolocationConfig:
    """Settings with which a network learns the world in seconds."""
    return CONFIG


@pytest.fixture(scope="session")
def parts(world: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The photographs of half of the towns train, a quarter each calibrate and test."""
    dealt = deal_parts(world, seed=0, shares={"train": 0.5, "calibration": 0.25, "test": 0.25})
    return {str(name): part for name, part in world.groupby(dealt.to_numpy())}


@pytest.fixture(scope="session")
def tree(parts: dict[str, pd.DataFrame]) -> Hierarchy:
    """The cells of the world at three levels: 2, 4 and 8 classes."""
    return cell_classes(parts["train"], levels=(1, 3, 5), least=6)


@pytest.fixture(scope="session")
def classifiers(
    parts: dict[str, pd.DataFrame], tree: Hierarchy, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, CellClassifier]:
    """By name: one classifier a level, and the joint one, trained on the world."""
    folder = tmp_path_factory.mktemp("classifiers")
    found = {}
    for level in (*tree.numbers, None):
        model = train_classifier(
            parts["train"],
            tree,
            design="joint" if level is None else "level",
            level=level,
            config=CONFIG,
            checkpoint=folder / f"{level}.pt",
        )
        found[model.name] = model
    return found
