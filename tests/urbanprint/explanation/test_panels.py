"""Panels: a picture that opens, on one scale, that keeps text from outside as text."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from urbanprint.explanation.panels import overlay, panel


def photograph(height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_overlay_is_red_where_the_map_raises_and_blue_where_it_lowers() -> None:
    grey = np.full((40, 40, 3), 128, dtype=np.uint8)
    tinted = overlay(grey, np.array([[1.0, 0.0], [0.0, -1.0]]), limit=1.0)
    assert tinted.shape == (40, 40, 3)
    assert tinted.dtype == np.uint8
    red, blue = tinted[2, 2].astype(int), tinted[-3, -3].astype(int)
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50


def test_a_zero_map_leaves_the_photograph_in_grey() -> None:
    view = photograph()
    plain = overlay(view, np.zeros((2, 2)), limit=1.0)
    np.testing.assert_array_equal(plain[..., 0], plain[..., 2])
    np.testing.assert_allclose(plain[..., 0], view @ np.array([0.299, 0.587, 0.114]), atol=0.51)


def test_a_panel_is_a_png_with_a_row_a_view() -> None:
    maps = np.random.default_rng(1).normal(size=(3, 4, 4)).astype(np.float32)
    sizes = []
    for rows in (1, 3):
        png = panel(
            [photograph(48 + 8 * i, 64) for i in range(rows)],
            maps[:rows],
            observed=[0.9, float("nan"), 0.2][:rows],
            predicted=[0.7, 0.5, 0.3][:rows],
            titles=["a $x^$ <b>", "b_$", "c"][:rows],
        )
        with Image.open(io.BytesIO(png)) as image:
            assert image.format == "PNG"
            sizes.append(image.size)
    assert sizes[0][0] == sizes[1][0] > 1000
    assert sizes[1][1] > 2 * sizes[0][1]


def test_a_panel_needs_as_many_of_everything() -> None:
    with pytest.raises(ValueError, match="one map, observed value, prediction and title"):
        panel([photograph()], np.zeros((2, 2, 2)), observed=[0.1], predicted=[0.1], titles=["a"])


def test_drawing_leaves_pyplot_out() -> None:
    source = sys.modules["urbanprint.explanation.panels"]
    assert not any(getattr(value, "__name__", "") == "matplotlib.pyplot" for value in vars(source).values())
