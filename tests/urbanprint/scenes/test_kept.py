"""Scenes are kept by the content of the picture: parsed once, resumed, forgotten on request."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from urbanprint.scenes import kept
from urbanprint.scenes.kept import forget, parse_kept
from urbanprint.scenes.parsing import Amounts, CountsBy


class Greyness:
    """A parser whose one class covers as much of a picture as its first channel is bright."""

    classes = ("grey", "rest")
    size = 8
    counts_by: CountsBy = "components"

    def __init__(self, dies_after: int | None = None) -> None:
        self.seen = 0
        self._dies_after = dies_after

    def parse(self, pixels: np.ndarray) -> Amounts:
        if self._dies_after is not None and self.seen + len(pixels) > self._dies_after:
            raise KeyboardInterrupt
        self.seen += len(pixels)
        grey = pixels[..., 0].mean(axis=(1, 2)) / 255
        fraction = np.stack([grey, 1 - grey], axis=1)
        return Amounts(fraction=fraction, count=np.full_like(fraction, np.nan), confidence=np.ones_like(fraction))


@pytest.fixture
def images(tmp_path: Path) -> pd.DataFrame:
    rows = []
    for number in range(7):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8), (30 * number + 20,) * 3).save(path)
        rows.append((f"image-{number}", f"sha-{number}", str(path)))
    rows.append(("the same again", "sha-3", rows[3][2]))
    return pd.DataFrame(rows, columns=["image_id", "sha256", "path"])


def test_every_picture_is_parsed_once_and_every_image_has_its_scenes(images: pd.DataFrame, tmp_path: Path) -> None:
    parser = Greyness()
    first = parse_kept(images, lambda: parser, folder=tmp_path / "kept", batch=2)
    assert parser.seen == 7
    grey = first[first["class"] == "grey"].set_index("image_id")["fraction"]
    assert grey["image-2"] == pytest.approx(80 / 255)
    assert grey["the same again"] == grey["image-3"]

    def never() -> Greyness:
        raise AssertionError("a parser was loaded although nothing is new")

    again = parse_kept(images, never, folder=tmp_path / "kept", batch=2)
    pd.testing.assert_frame_equal(
        *(table.sort_values(["image_id", "class"], ignore_index=True) for table in (first, again))
    )


def test_an_interrupted_parse_goes_on_where_its_last_part_ended(
    images: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "AT_ONCE", 2)
    told: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        parse_kept(images, lambda: Greyness(dies_after=5), folder=tmp_path / "kept", batch=1)
    rest = Greyness()
    found = parse_kept(
        images, lambda: rest, folder=tmp_path / "kept", batch=1, progress=lambda done, of: told.append((done, of))
    )
    assert rest.seen == 3
    assert told[-1] == (7, 7)
    assert found["image_id"].nunique() == 8


def test_what_was_seen_in_a_picture_is_forgotten(images: pd.DataFrame, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    parse_kept(images, Greyness, folder=folder)
    assert len(forget(folder, "sha-3")) == 1
    assert forget(folder, "sha-3") == []
    left = pd.concat(pd.read_parquet(path) for path in folder.glob("*.parquet"))
    assert set(left["image_id"]) == {f"sha-{number}" for number in (0, 1, 2, 4, 5, 6)}


def test_a_picture_in_which_nothing_is_seen_is_not_parsed_again(images: pd.DataFrame, tmp_path: Path) -> None:
    class Blind(Greyness):
        def parse(self, pixels: np.ndarray) -> Amounts:
            self.seen += len(pixels)
            nothing = np.zeros((len(pixels), 2))
            return Amounts(fraction=nothing, count=nothing * np.nan, confidence=nothing * np.nan)

    blind = Blind()
    for _ in range(2):
        assert parse_kept(images, lambda: blind, folder=tmp_path / "kept").empty
    assert blind.seen == 7


def test_two_runs_that_parsed_the_same_pictures_do_no_harm(images: pd.DataFrame, tmp_path: Path) -> None:
    alone = parse_kept(images, Greyness, folder=tmp_path / "one")
    parse_kept(images, Greyness, folder=tmp_path / "other")
    for path in (tmp_path / "other").glob("*.parquet"):
        path.rename(tmp_path / "one" / path.name)
    assert len(parse_kept(images, Greyness, folder=tmp_path / "one")) == len(alone)
