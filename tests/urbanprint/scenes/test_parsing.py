"""From image files to the table of scenes: counting patches, batching, what is left out."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.scenes.parsing import Amounts, CountsBy, amounts_of_maps, parse_images

CLASSES = ("sky", "car", "person")


def test_amounts_of_a_drawn_map_are_those_drawn() -> None:
    labels = np.zeros((2, 20, 20), dtype=np.int64)
    labels[0, 2:6, 2:7] = 1  # a car of 20 pixels
    labels[0, 10:14, 10:15] = 1  # and another
    labels[0, 14, 15] = 1  # which touches this pixel at a corner: the same car
    confidence = np.full(labels.shape, 0.5)
    confidence[0][labels[0] == 1] = 0.9
    amounts = amounts_of_maps(labels, confidence, classes=CLASSES)
    np.testing.assert_allclose(amounts.fraction, [[359 / 400, 41 / 400, 0], [1, 0, 0]])
    np.testing.assert_array_equal(amounts.count, [[np.nan, 2, 0], [np.nan, 0, 0]])
    np.testing.assert_allclose(amounts.confidence, [[0.5, 0.9, np.nan], [0.5, np.nan, np.nan]])


def test_a_speck_is_part_of_the_fraction_but_no_object() -> None:
    labels = np.zeros((1, 100, 100), dtype=np.int64)
    labels[0, 5, 5] = labels[0, 50, 50:53] = 1
    amounts = amounts_of_maps(labels, np.ones(labels.shape), classes=CLASSES)
    assert amounts.fraction[0, 1] == pytest.approx(4e-4)
    assert amounts.count[0, 1] == 1


@dataclass
class RedIsCar:
    """A parser anyone can check: the share of red pixels is cars, one for each picture that has some."""

    classes: tuple[str, ...] = CLASSES
    size: int = 16
    counts_by: CountsBy = "components"
    batches: list[int] = field(default_factory=list)

    def parse(self, pixels: np.ndarray) -> Amounts:
        self.batches.append(len(pixels))
        red = (pixels[..., 0] > 128).mean(axis=(1, 2))
        nothing = np.zeros_like(red)
        fraction = np.stack([1 - red, red, nothing], axis=1)
        count = np.stack([nothing * np.nan, red > 0, nothing], axis=1)
        return Amounts(fraction=fraction, count=count, confidence=np.where(fraction > 0, 0.75, np.nan))


@pytest.fixture
def pictures(tmp_path: Path) -> pd.DataFrame:
    rows = []
    for number in range(5):
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[: 4 * number, :, 0] = 255
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        rows.append({"image_id": f"i{number}", "path": str(path), "area_id": "x"})
    return pd.DataFrame(rows)


def test_the_table_has_a_row_for_what_is_there_and_none_for_what_is_not(pictures: pd.DataFrame) -> None:
    parser = RedIsCar()
    told: list[tuple[int, int]] = []
    scenes = parse_images(pictures, parser, batch=2, progress=lambda done, total: told.append((done, total)))
    assert parser.batches == [2, 2, 1]
    assert told == [(2, 5), (4, 5), (5, 5)]
    wide = scenes.pivot_table(index="image_id", columns="class", values="fraction")
    assert wide["car"].fillna(0).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert "i0 car" not in set(scenes["image_id"] + " " + scenes["class"])
    assert "i4 sky" not in set(scenes["image_id"] + " " + scenes["class"])
    assert scenes.loc[scenes["class"] == "sky", "count"].isna().all()
    assert scenes.loc[scenes["class"] == "car", "count"].eq(1).all()
    assert list(scenes.columns) == list(tables.SCENES.columns)


def test_no_images_give_an_empty_table(pictures: pd.DataFrame) -> None:
    scenes = parse_images(pictures.head(0), RedIsCar())
    assert scenes.empty
    assert list(scenes.columns) == list(tables.SCENES.columns)


def test_a_file_that_is_no_image_is_named(pictures: pd.DataFrame) -> None:
    Path(pictures["path"][3]).write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"3\.png is not an image"):
        parse_images(pictures, RedIsCar())
