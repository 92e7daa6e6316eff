"""A folder of photographs: manifests, EXIF, and clear words for what is wrong with them."""

import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import shapely
from PIL import Image

from urbanprint.errors import InputError
from urbanprint.imagery.records import Filters, ImageRecord, RejectedImage
from urbanprint.settings import Imagery
from urbanprint.sources.folder import Folder, exif_position
from urbanprint.sources.providers import terms_of

EVERYWHERE = shapely.box(-180, -90, 180, 90)
TERMS = terms_of(Imagery(key="f", provider="folder", folder="x", licence="CC0 1.0", attribution="us"))
GOOD = """file,lon,lat,sequence,captured_at,heading
a.jpg,-0.1,51.5,s1,1750097300000,370
b.jpg,-0.2,51.6,,2024-05-01T10:00:00Z,
"""


def folder(tmp_path: Path, manifest: str | None) -> Folder:
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    if manifest is None:
        return Folder(folder=tmp_path, manifest=None, terms=TERMS)
    path = tmp_path / "manifest.csv"
    path.write_text(manifest)
    return Folder(folder=tmp_path, manifest=path, terms=TERMS)


def test_a_manifest_places_its_photographs(tmp_path: Path) -> None:
    first, second = folder(tmp_path, GOOD).find(EVERYWHERE)
    assert first == ImageRecord(
        image_id="a", sequence_id="s1", longitude=-0.1, latitude=51.5, captured_at_ms=1750097300000, heading=10.0,
        address="a.jpg",
    )  # fmt: skip
    assert (second.sequence_id, second.captured_at_ms, second.heading) == ("b", 1714557600000, None)


def test_only_photographs_in_the_box_are_found(tmp_path: Path) -> None:
    found = folder(tmp_path, GOOD).find(shapely.box(-0.15, 51.4, -0.05, 51.55))
    assert [record.image_id for record in found] == ["a"]


def test_one_image_in_two_rows_is_one_image(tmp_path: Path) -> None:
    twice = folder(tmp_path, "file,lon,lat,area\na.jpg,1,2,X\na.jpg,1,2,Y\n")
    assert len(list(twice.find(EVERYWHERE))) == 1


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        ("file,lat\na.jpg,1\n", "lacks a column for longitude: one of longitude, lon, lng, x"),
        ("file,lon,lat\na.jpg,1,2\nb.jpg,x,3\n", "row 3: longitude 'x' is not a number of degrees within 180"),
        ("file,lon,lat\na.jpg,1,91\n", "row 2: latitude '91' is not a number of degrees within 90"),
        ("file,lon,lat\na.jpg,1,2\na.jpg,1,3\n", "image 'a' stands at two different positions"),
        ("", "is not a CSV with a header"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(tmp_path: Path, manifest: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        list(folder(tmp_path, manifest).find(EVERYWHERE))


def test_a_file_outside_the_folder_or_absent_is_rejected(tmp_path: Path) -> None:
    source = folder(tmp_path, "file,lon,lat\n../secret.txt,1,2\nabsent.jpg,1,2\n")
    escaping, absent = source.find(EVERYWHERE)
    with pytest.raises(RejectedImage, match="lies outside the folder"):
        source.fetch(escaping)
    with pytest.raises(RejectedImage, match="does not exist"):
        source.fetch(absent)


def test_a_folder_without_any_position_asks_for_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no photograph in .* holds a position in its EXIF: give a manifest"):
        list(folder(tmp_path, None).find(EVERYWHERE))


def test_a_changed_manifest_is_a_changed_request(tmp_path: Path) -> None:
    import os

    before = folder(tmp_path, GOOD).request_key
    os.utime(tmp_path / "manifest.csv", ns=(1, 1))
    assert Folder(folder=tmp_path, manifest=tmp_path / "manifest.csv", terms=TERMS).request_key != before


def test_a_photograph_added_in_a_subfolder_is_a_changed_request(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    before = folder(tmp_path, None).request_key
    again = Folder(folder=tmp_path, manifest=None, terms=TERMS)
    assert again.request_key == before
    Image.new("RGB", (8, 8)).save(tmp_path / "deep" / "er" / "c.jpg")
    assert Folder(folder=tmp_path, manifest=None, terms=TERMS).request_key != before


def test_filters_are_honoured_and_part_of_the_request(tmp_path: Path) -> None:
    everyone = folder(tmp_path, GOOD)

    def filtered(**facts: Any) -> Folder:
        return Folder(folder=tmp_path, manifest=tmp_path / "manifest.csv", terms=TERMS, filters=Filters(**facts))

    for facts, expected in (
        ({"heading": (0.0, 20.0)}, ["a"]),  # of b no heading is known
        ({"captured_to_ms": 1_720_000_000_000}, ["b"]),
        ({"creators": ("ann",)}, []),
        ({"panoramas": True}, []),
    ):
        assert [record.image_id for record in filtered(**facts).find(EVERYWHERE)] == expected
        assert filtered(**facts).request_key != everyone.request_key


def test_a_missing_manifest_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no manifest at .*gone\.csv: name a CSV"):
        Folder(folder=tmp_path, manifest=tmp_path / "gone.csv", terms=TERMS)


def test_a_file_that_is_a_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    source = folder(tmp_path, "file,lon,lat\nsub,1,2\n")
    with pytest.raises(RejectedImage, match="is no file"):
        source.fetch(next(source.find(EVERYWHERE)))


def test_a_name_no_file_can_have_is_rejected(tmp_path: Path) -> None:
    record = ImageRecord(image_id="a", sequence_id="a", longitude=1, latitude=2, address="a\0.jpg")
    with pytest.raises(RejectedImage, match="cannot exist"):
        folder(tmp_path, GOOD).fetch(record)


@pytest.mark.parametrize("time", ["0001-01-01", "9999-01-01", "9" * 30, "999999999999999", "²", "soon"])
def test_a_time_out_of_range_is_no_time(tmp_path: Path, time: str) -> None:
    (record,) = folder(tmp_path, f"file,lon,lat,time\na.jpg,1,2,{time}\n").find(EVERYWHERE)
    assert record.captured_at_ms is None


def test_a_heading_a_hair_west_of_north_is_below_360(tmp_path: Path) -> None:
    (record,) = folder(tmp_path, "file,lon,lat,heading\na.jpg,1,2,-1e-20\n").find(EVERYWHERE)
    assert record.heading == 0.0


def test_tiff_files_are_not_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "c.tif")
    source = folder(tmp_path, None)
    with pytest.raises(InputError, match="JPEG, PNG and WebP files"):
        list(source.find(EVERYWHERE))
    assert source.unplaced == ("a.jpg", "b.jpg")


def test_a_picture_that_says_it_is_enormous_has_no_position(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    assert exif_position(tmp_path / "bomb.png") is None


def test_real_photographs_are_placed_by_their_exif(realdata: Path) -> None:
    source = Folder(folder=realdata / "exif_photos", manifest=None, terms=TERMS)
    placed = {record.image_id: (record.longitude, record.latitude) for record in source.find(EVERYWHERE)}
    berlin, lund = placed["berlin_01.jpg"], placed["lund_01.jpg"]
    assert berlin == (pytest.approx(13.4, abs=0.3), pytest.approx(52.5, abs=0.2))
    assert lund == (pytest.approx(13.2, abs=0.3), pytest.approx(55.7, abs=0.2))
    assert source.unplaced == ("empty_exif.jpg",)  # the corrupt one is corrupt elsewhere: its position is whole


def test_a_text_file_has_no_position(tmp_path: Path) -> None:
    (tmp_path / "words.jpg").write_text("not a picture")
    assert exif_position(tmp_path / "words.jpg") is None


def test_the_london_manifest_holds_98_photographs_in_99_rows(realdata: Path) -> None:
    source = Folder(
        folder=realdata / "london_street", manifest=realdata / "london_street" / "manifest.csv", terms=TERMS
    )
    records = list(source.find(EVERYWHERE))
    assert len(records) == 98
    assert source.fetch(records[0])[:3] == b"\xff\xd8\xff"
