"""Thumbnails: small, upright, and free of what a camera wrote about its owner."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from urbanprint.errors import InputError
from urbanprint.maps.thumbnails import thumbnail


def _jpeg(image: Image.Image, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def _opened(jpeg: bytes) -> Image.Image:
    image = Image.open(BytesIO(jpeg))
    image.load()
    assert image.format == "JPEG"
    return image


def test_a_thumbnail_has_the_width_asked_for_and_the_shape_of_the_photograph(photograph: Image.Image) -> None:
    assert _opened(thumbnail(_jpeg(photograph), width=80)).size == (80, 60)


def test_a_small_photograph_is_not_blown_up(photograph: Image.Image) -> None:
    assert _opened(thumbnail(_jpeg(photograph), width=1000)).size == photograph.size


def test_exif_position_and_comments_are_gone_and_the_picture_is_upright(photograph: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    exif[0x010F] = "Camera of Ada"
    exif.get_ifd(0x8825)[1] = "N"
    small = thumbnail(_jpeg(photograph, exif=exif, comment=b"Ada was here"), width=90)
    assert b"Ada" not in small
    assert not _opened(small).getexif()
    assert _opened(small).size == (90, 120)


def test_a_path_and_a_picture_with_transparency_work_too(tmp_path: Path, photograph: Image.Image) -> None:
    file = tmp_path / "view.png"
    photograph.convert("RGBA").save(file)
    assert _opened(thumbnail(file, width=40)).mode == "RGB"


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "view.jpg"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"view\.jpg cannot be read"):
        thumbnail(file)


def test_a_truncated_photograph_is_refused(photograph: Image.Image) -> None:
    jpeg = _jpeg(photograph)
    with pytest.raises(InputError, match="cannot be read"):
        thumbnail(jpeg[: len(jpeg) // 2])
