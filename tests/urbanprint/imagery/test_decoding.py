"""Decoding: upright, whole, RGB, and a clear sentence for what is no image."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from urbanprint.errors import InputError
from urbanprint.imagery.decoding import decode, decode_batches, decode_many

RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 200, 20), (20, 20, 220), (250, 250, 250)


def quarters(mode: str = "RGB") -> Image.Image:
    """160 x 80: red and green above blue and white."""
    pixels = np.zeros((80, 160, 3), dtype=np.uint8)
    pixels[:40, :80], pixels[:40, 80:], pixels[40:, :80], pixels[40:, 80:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "JPEG", "quality": 95, **options})
    return buffer.getvalue()


def corners(pixels: np.ndarray) -> list[list[int]]:
    q = len(pixels) // 4
    return [pixels[y, x].tolist() for y in (q, -q) for x in (q, -q)]


def close(found: list[list[int]], expected: list[tuple[int, int, int]]) -> bool:
    return bool(np.abs(np.array(found) - np.array(expected)).max() < 12)


def test_the_whole_view_is_squashed_and_nothing_is_cropped() -> None:
    pixels = decode(encoded(quarters()), size=32)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert close(corners(pixels), [RED, GREEN, BLUE, WHITE])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_undone(orientation: int) -> None:
    stored = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    image = quarters()
    for turn in stored[orientation]:
        image = image.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert close(corners(decode(encoded(image, exif=exif), size=32)), [RED, GREEN, BLUE, WHITE])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "LA", "1"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("view.tif" if mode == "CMYK" else "view.png")
    quarters(mode).save(path)
    pixels = decode(path, size=16)
    assert pixels.shape == (16, 16, 3)
    assert pixels[-4, -4].min() > 200


def test_draft_decoding_equals_decoding_in_full_to_a_few_grey_levels() -> None:
    y, x = np.mgrid[0:768, 0:1024]
    waves = np.stack([127 + 120 * np.sin(x / 90), 127 + 120 * np.cos(y / 70), (x + y) / 8], axis=-1).astype(np.uint8)
    full = np.asarray(Image.fromarray(waves).resize((64, 64), Image.Resampling.BOX), dtype=float)
    assert np.abs(decode(encoded(Image.fromarray(waves)), size=64) - full).mean() < 3.0


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    page = tmp_path / "login.jpg"
    page.write_text("<html>please log in</html>")
    with pytest.raises(InputError, match=r"login\.jpg is not an image"):
        decode(page, size=32)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    whole = encoded(quarters().resize((640, 480)))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"half\.jpg is a damaged image"):
        decode(path, size=32)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.jpg does not exist"):
        decode(tmp_path / "gone.jpg", size=32)


def greys(folder: Path, n: int) -> list[Path]:
    paths = [folder / f"{level}.png" for level in range(n)]
    for level, path in enumerate(paths):
        Image.new("L", (20, 10), level).save(path)
    return paths


def test_many_keep_their_order_whatever_the_number_of_threads(tmp_path: Path) -> None:
    pixels = decode_many(greys(tmp_path, 30), size=8, threads=4)
    assert pixels.shape == (30, 8, 8, 3)
    assert pixels[:, 0, 0, 0].tolist() == list(range(30))


def test_batches_hold_every_image_once_in_order(tmp_path: Path) -> None:
    batches = list(decode_batches(greys(tmp_path, 11), size=8, batch=4, threads=2))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert np.concatenate(batches)[:, 0, 0, 0].tolist() == list(range(11))
    assert list(decode_batches([], size=8, batch=4, threads=2)) == []


def test_one_damaged_image_among_many_is_named(tmp_path: Path) -> None:
    paths = greys(tmp_path, 6)
    paths[4].write_bytes(b"no")
    with pytest.raises(InputError, match=r"4\.png"):
        decode_many(paths, size=8, threads=2)
    with pytest.raises(InputError, match=r"4\.png"):
        list(decode_batches(paths, size=8, batch=2, threads=2))


def test_real_photographs_with_corrupt_or_empty_exif_still_decode(realdata: Path) -> None:
    photographs = sorted((realdata / "exif_photos").glob("*.jpg"))
    assert {"corrupt_exif.jpg", "empty_exif.jpg"} <= {path.name for path in photographs}
    pixels = decode_many(photographs, size=64, threads=2)
    assert (pixels.reshape(len(pixels), -1).std(axis=1) > 0).sum() >= len(photographs) - 2
