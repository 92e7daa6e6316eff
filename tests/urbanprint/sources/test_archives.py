"""Archives from strangers: the one file to read, and everything that is refused."""

import stat
import zipfile
from pathlib import Path

import pytest

from urbanprint.errors import InputError
from urbanprint.sources.archives import unpack


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_the_one_file_to_read_is_unpacked_with_what_belongs_to_it(tmp_path: Path) -> None:
    shapefile = {"gb/a.shp": b"1", "gb/a.dbf": b"2", "gb/a.prj": b"3", "read me.txt": b"4", "__MACOSX/a.shp": b"5"}
    path = unpack(_zip(tmp_path / "a.zip", shapefile), folder=tmp_path / "out")
    assert path.read_bytes() == b"1"
    assert sorted(each.name for each in path.parent.iterdir()) == ["a.dbf", "a.prj", "a.shp"]
    again = unpack(_zip(tmp_path / "a.zip", {"b.csv": b"x"}), folder=tmp_path / "out")
    assert again.read_bytes() == b"x"


def test_a_file_that_is_no_archive_is_returned_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n")
    assert unpack(tmp_path / "a.csv", folder=tmp_path / "out") == tmp_path / "a.csv"
    assert unpack(tmp_path, folder=tmp_path / "out") == tmp_path


def test_several_files_to_read_need_a_choice(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", {"2011.csv": b"1", "2021.csv": b"2"})
    with pytest.raises(InputError, match=r"a\.zip holds several files to read \(2011\.csv, 2021\.csv\)"):
        unpack(path, folder=tmp_path / "out")
    assert unpack(path, folder=tmp_path / "out", member="2021.csv").read_bytes() == b"2"
    with pytest.raises(InputError, match=r"holds no 2031\.csv"):
        unpack(path, folder=tmp_path / "out", member="2031.csv")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"readme.txt": b"1"}, "holds none of"),
        ({"[Content_Types].xml": b"1", "xl/workbook.xml": b"2"}, "is an Excel workbook"),
        ({"../evil.csv": b"1"}, r"'\.\./evil\.csv' leads out of the archive"),
        ({"a.csv": b"1", "/etc/evil.txt": b"1"}, "'/etc/evil.txt' leads out of the archive"),
        ({"a.csv": b"1", "x\\..\\..\\evil.txt": b"1"}, "leads out of the archive"),
        ({"a.csv": b"1", "C:evil.txt": b"1"}, "leads out of the archive"),
        ({"a.csv": b"0" * 40_000_000}, r"'a\.csv' would swell from .* to 40,000,000 bytes"),
    ],
)
def test_an_unfit_archive_is_refused(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(InputError, match=message):
        unpack(_zip(tmp_path / "a.zip", members), folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", {"a.csv": b"0123456789" * 10})
    with pytest.raises(InputError, match="more than 99 bytes"):
        unpack(path, folder=tmp_path / "out", max_bytes=99)


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.csv")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match=r"'a\.csv' is a link"):
        unpack(tmp_path / "a.zip", folder=tmp_path / "out")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "understated size", "web page"])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.zip"
    content = bytearray(_zip(path, {"a.csv": bytes(range(256)) * 40}).read_bytes())
    directory = content.index(b"PK\x01\x02")
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[60] ^= 0xFF
    elif damage == "understated size":  # a bomb that declares ten bytes
        content[directory + 24 : directory + 28] = (10).to_bytes(4, "little")
    else:
        content = bytearray(b"<html>moved</html>")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip is a damaged or truncated zip archive"):
        unpack(path, folder=tmp_path / "out")
    assert not (tmp_path / "out" / "a.zip.unpacked").exists()
