"""Files people hand in: read, or refused in one sentence; and what their EXIF block says of where they were taken."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import GPS, IFD
from PIL.TiffImagePlugin import IFDRational

from urbanprint.errors import InputError
from urbanprint.geolocation import photographs
from urbanprint.geolocation.photographs import exif_position, read_photograph

BERLIN: dict[int, Any] = {
    GPS.GPSLatitudeRef: "N",
    GPS.GPSLatitude: (52.0, 31.0, 8.1),
    GPS.GPSLongitudeRef: "E",
    GPS.GPSLongitude: (13.0, 24.0, 1.06),
}


def picture(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def jpeg(gps: dict[int, Any] | None = None, *, side: int = 64) -> bytes:
    exif = Image.Exif()
    if gps is not None:
        exif.get_ifd(IFD.GPSInfo).update(gps)
    file = io.BytesIO()
    picture(side).save(file, "JPEG", exif=exif)
    return file.getvalue()


def written(folder: Path, content: bytes, name: str = "photo.jpg") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# --- real photographs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "longitude", "latitude"), [("berlin_*.jpg", 13.400, 52.519), ("lund_*.jpg", 13.195, 55.699)]
)
def test_real_photographs_say_where_they_were_taken(
    realdata: Path, pattern: str, longitude: float, latitude: float
) -> None:
    files = sorted((realdata / "exif_photos").glob(pattern))
    assert len(files) >= 3
    for path in files:
        photograph = read_photograph(path, size=64)
        assert photograph.position == pytest.approx((longitude, latitude), abs=0.001)
        assert photograph.notes == ()
        assert photograph.pixels.shape == (64, 64, 3)


def test_real_photographs_with_corrupt_or_empty_exif_are_read(realdata: Path) -> None:
    empty, corrupt = (
        read_photograph(realdata / "exif_photos" / f"{name}_exif.jpg", size=32) for name in ("empty", "corrupt")
    )
    assert empty.position is None
    assert (corrupt.width, corrupt.height) == (16, 16)
    # Its thumbnail belongs to another picture; the position is whole, a street in Rennes.
    assert corrupt.position == pytest.approx((-1.6678, 48.0810), abs=1e-4)
    assert any("16 x 16 pixels and is enlarged to 32 x 32" in note for note in empty.notes)


# --- EXIF positions -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(
    longitude=st.integers(-180 * 3_600 * 100, 180 * 3_600 * 100).filter(bool),
    latitude=st.integers(-90 * 3_600 * 100, 90 * 3_600 * 100),
)
def test_a_position_written_as_degrees_minutes_and_seconds_is_read_back(longitude: int, latitude: int) -> None:
    def parts(hundredths: int) -> tuple[IFDRational, ...]:
        seconds = abs(hundredths)
        return IFDRational(seconds // 360_000), IFDRational(seconds // 6_000 % 60), IFDRational(seconds % 6_000, 100)

    position, notes = exif_position(
        jpeg(
            {
                GPS.GPSLatitudeRef: "N" if latitude >= 0 else "S",
                GPS.GPSLatitude: parts(latitude),
                GPS.GPSLongitudeRef: "E" if longitude >= 0 else "W",
                GPS.GPSLongitude: parts(longitude),
            }
        )
    )
    assert position == pytest.approx((longitude / 360_000, latitude / 360_000), abs=1e-9)
    assert notes == ()


@pytest.mark.parametrize(
    "change",
    [
        {GPS.GPSLatitudeRef: None},
        {GPS.GPSLongitudeRef: None},
        {GPS.GPSLongitudeRef: "N"},
        {GPS.GPSLatitude: None},
        {GPS.GPSLatitude: (52.0, 31.0)},
        {GPS.GPSLatitude: (91.0, 0.0, 0.0)},
        {GPS.GPSLatitude: (90.0, 0.0, 0.1)},
        {GPS.GPSLongitude: (180.0, 1.0, 0.0)},
        {GPS.GPSLongitude: (13.0, 60.0, 0.0)},
        {GPS.GPSLongitude: (13.0, 24.0, 61.0)},
        {GPS.GPSLongitude: (IFDRational(13, 0), IFDRational(24, 1), IFDRational(1, 1))},
        {GPS.GPSLatitude: (IFDRational(52, 1), IFDRational(31, 1), IFDRational(0, 0))},
    ],
)
def test_a_position_that_is_not_sound_is_a_note(change: dict[int, Any]) -> None:
    gps = {tag: value for tag, value in {**BERLIN, **change}.items() if value is not None}
    position, notes = exif_position(jpeg(gps))
    assert position is None
    assert len(notes) == 1
    assert "no place on Earth" in notes[0]


def test_the_null_island_of_cameras_without_a_fix_is_a_note() -> None:
    zero = (0.0, 0.0, 0.0)
    position, notes = exif_position(jpeg({**BERLIN, GPS.GPSLatitude: zero, GPS.GPSLongitude: zero}))
    assert position is None
    assert "0 N 0 E" in notes[0]


def test_hemispheres_may_be_small_letters_or_end_in_a_zero_byte() -> None:
    position, _ = exif_position(jpeg({**BERLIN, GPS.GPSLatitudeRef: "s\0", GPS.GPSLongitudeRef: "w"}))
    assert position == pytest.approx((-13.40029, -52.51892), abs=1e-4)


def test_a_picture_without_exif_or_without_a_position_in_it_needs_no_note() -> None:
    assert exif_position(jpeg()) == (None, ())
    assert exif_position(jpeg({GPS.GPSAltitude: 27.0})) == (None, ())


def test_damage_to_the_exif_block_is_told_once() -> None:
    content = bytearray(jpeg(BERLIN))
    content[content.index(b"Exif\0\0") + 6 + 14] = 1  # the count of the pointer to the GPS block
    assert exif_position(bytes(content)) == (
        None,
        ("Its EXIF block is damaged (Tag data larger than file. Skipping tag 34853).",),
    )


@settings(deadline=None, max_examples=150)
@given(damage=st.lists(st.tuples(st.integers(0, 160), st.integers(0, 255)), min_size=1, max_size=12))
def test_no_damage_to_the_exif_block_stops_a_photograph(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]]
) -> None:
    content = bytearray(jpeg(BERLIN))
    start = content.index(b"Exif\0\0") + 6
    length = int.from_bytes(content[start - 8 : start - 6]) - 8  # of the segment, without its own length and name
    for offset, value in damage:
        content[start + offset % length] = value
    path = written(tmp_path_factory.mktemp("damaged"), bytes(content))
    photograph = read_photograph(path, size=32)
    assert (photograph.width, photograph.height) == (64, 64)
    assert photograph.position is None or len(photograph.position) == 2


# --- files that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, 0 bytes"),
        (b"Dear diary,\n", "is no JPEG, PNG or WebP image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no JPEG, PNG or WebP image"),
        (jpeg()[:900], "is an image whose end is missing or damaged"),
        (jpeg()[:20], "is an image whose end is missing or damaged"),
        (jpeg(side=1), "has 1 x 1 pixels, of which the shorter side needs 16"),
        (jpeg(side=15), "has 15 x 15 pixels, of which the shorter side needs 16"),
    ],
)
def test_what_is_no_photograph_is_refused_in_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InputError) as refused:
        read_photograph(path, size=32)
    text = str(refused.value)
    assert text.startswith(f"{path} {message}")
    assert text.endswith(".")
    assert "\n" not in text


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (9_000, 9_000)).save(path)
    with pytest.raises(InputError, match="has 9000 x 9000 pixels, more than the 80,000,000 that are read"):
        read_photograph(path, size=32)


def test_a_file_that_is_absent_a_folder_or_far_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_photograph(tmp_path / "none.jpg", size=32)
    with pytest.raises(InputError, match="cannot be read"):
        read_photograph(tmp_path, size=32)
    monkeypatch.setattr(photographs, "MOST_BYTES", 100)
    with pytest.raises(InputError, match="more than any photograph"):
        read_photograph(written(tmp_path, jpeg()), size=32)


def test_a_dark_picture_is_read_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "night.png"
    Image.fromarray(np.asarray(picture()) // 16).save(path)
    photograph = read_photograph(path, size=32)
    assert photograph.notes == ("The picture is dark: there is little to locate it by.",)
    assert photograph.pixels.mean() < 16
