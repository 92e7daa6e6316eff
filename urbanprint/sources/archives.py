"""Zip archives from strangers: which file in one is to be read, and whether it is safe to unpack.

What belongs here is everything that can be wrong with an archive before its content is looked at.
"""

import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from urbanprint.errors import InputError

SIDECARS = frozenset({".shx", ".dbf", ".prj", ".cpg"})
"""What lies beside a .shp and belongs to it."""

_READABLE = frozenset({".csv", ".gpkg", ".shp", ".geojson"})
_LONGEST_RATIO = 200
_CHUNK_BYTES = 1 << 16


def unpack(path: Path, *, folder: Path, member: str | None = None, max_bytes: int = 4 << 30) -> Path:
    """Return the one file to read in the zip archive `path`, unpacked below `folder`; what is no archive, as it is.

    To read are .csv, .gpkg, .shp and .geojson; `member` chooses where there are several. Raises `InputError`, naming
    archive and member, for an archive that is damaged, holds none or several, is encrypted, leads out of the folder
    (absolute path, `..`, link), or swells beyond `max_bytes` or by more than a factor of 200.
    """
    if path.is_dir():
        return path
    with path.open("rb") as stream:
        magic = stream.read(2)
    if magic != b"PK" and path.suffix.lower() != ".zip":
        return path
    target = folder / f"{path.name}.unpacked"
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) as archive:
            wanted = _chosen_members(archive, path=path, member=member, max_bytes=max_bytes)
            for entry in wanted:
                _extract(archive, entry, target=part / entry.filename)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path.name} is a damaged or truncated zip archive ({error}): download it again.") from error
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    return target / wanted[0].filename


def _chosen_members(
    archive: zipfile.ZipFile, *, path: Path, member: str | None, max_bytes: int
) -> list[zipfile.ZipInfo]:
    """The member to read, then what belongs to it; every member is checked, also those left alone."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    for entry in entries:
        _check_member(entry, path=path)
    if sum(entry.file_size for entry in entries) > max_bytes:
        raise InputError(f"{path.name} would unpack to more than {max_bytes:,} bytes: refused.")
    readable = [
        entry
        for entry in entries
        if PurePosixPath(entry.filename).suffix.lower() in _READABLE and not entry.filename.startswith("__MACOSX/")
    ]
    names = ", ".join(sorted(entry.filename for entry in readable))
    if member is not None:
        readable = [entry for entry in readable if entry.filename == member]
        if not readable:
            raise InputError(f"{path.name} holds no {member}: choose one of {names or 'none'}.")
    if len(readable) > 1:
        raise InputError(f"{path.name} holds several files to read ({names}): choose one with `member`.")
    if not readable:
        if any(entry.filename == "[Content_Types].xml" for entry in entries):
            raise InputError(f"{path.name} is an Excel workbook: save the sheet as CSV and name that file.")
        raise InputError(f"{path.name} holds none of {', '.join(sorted(_READABLE))}: expected one file to read.")
    chosen = PurePosixPath(readable[0].filename)
    if chosen.suffix.lower() != ".shp":
        return readable
    beside = [entry for entry in entries if PurePosixPath(entry.filename).with_suffix("") == chosen.with_suffix("")]
    return readable + [entry for entry in beside if PurePosixPath(entry.filename).suffix.lower() in SIDECARS]


def _check_member(entry: zipfile.ZipInfo, *, path: Path) -> None:
    name = entry.filename
    # Backslashes and drive letters are paths on Windows, and names elsewhere: refused on both.
    if name.startswith(("/", "\\")) or ":" in name or ".." in re.split(r"[/\\]", name):
        raise InputError(f"{path.name}: the path of {name!r} leads out of the archive: refused.")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise InputError(f"{path.name}: {name!r} is a link, not a file: refused.")
    if entry.flag_bits & 0x1:
        raise InputError(f"{path.name}: {name!r} is encrypted: unpack it by hand and name the file.")
    if entry.file_size > max(entry.compress_size, 1 << 16) * _LONGEST_RATIO:
        raise InputError(
            f"{path.name}: {name!r} would swell from {entry.compress_size:,} to {entry.file_size:,} bytes: refused."
        )


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, *, target: Path) -> None:
    """Write one member; `zipfile` stops at the declared size and then compares the checksum, so no more can come."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("wb") as stream:
        shutil.copyfileobj(source, stream, _CHUNK_BYTES)
