"""Published files: an address or a path in, a checked local file out.

What belongs here is fetching, whatever the file says: HTTP downloads that resume and are remembered by ETag, and ArcGIS
feature layers page by page. Archives are opened in `urbanprint.sources.archives`; what a file means is read elsewhere
(`urbanprint.indicators`, `urbanprint.areas`).
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import requests

from urbanprint.errors import DownloadError, InputError, SourceError
from urbanprint.sources.archives import SIDECARS
from urbanprint.sources.http import ANY_HOST, HttpClient

Progress = Callable[[int, int | None], None]
"""Called with what is done and what there is to do (None: unknown): bytes of a file, features of a layer."""

_LAYER = re.compile(r"/(FeatureServer|MapServer)/\d+/?$", re.IGNORECASE)
_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_CHUNK_BYTES = 1 << 16
_ATTEMPTS = 5
_FIRST_PAUSE_S = 0.5


@dataclass(frozen=True)
class FetchedFile:
    """A file that lies on this machine; `changed` compares its bytes with the last time the address was asked for."""

    path: Path
    address: str
    sha256: str
    etag: str | None
    last_modified: str | None
    changed: bool
    bytes: int


def fetch(
    address: str,
    *,
    folder: Path,
    client: HttpClient | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> FetchedFile:
    """Return the file behind `address`: a local path, a file served over HTTP, or an ArcGIS feature layer.

    Raises `InputError` for a path that does not exist, `DownloadError` for everything that stops a download.
    """
    if _LAYER.search(address) is None:
        return fetch_file(address, folder=folder, client=client, sha256=sha256, progress=progress)
    if sha256 is not None:
        raise InputError(f"{address} is a feature layer, which has no fixed bytes: leave the sha256 out.")
    return fetch_features(address, folder=folder, client=client, progress=progress)


def fetch_file(
    address: str,
    *,
    folder: Path,
    client: HttpClient | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> FetchedFile:
    """Return the file behind `address`, downloaded into `folder` where it is not on this machine already.

    A local path (`~` and file:// allowed) is used in place and never copied; a folder is a data set too, as shapefiles
    are. An HTTP file is asked for again only if it changed (RFC 9110 conditional requests), goes on where an
    interrupted download stopped (Range with If-Range), and takes its place by one rename once length and `sha256` are
    right. With `sha256` given and those bytes already here, no request is made at all.

    Raises `InputError` for a path that does not exist and `DownloadError`, naming the file, for anything else.
    """
    scheme = _SCHEME.match(address)
    if scheme is None or scheme[1].lower() == "file":
        return _local_file(address, folder=folder, sha256=sha256)
    if scheme[1].lower() not in {"http", "https"}:
        raise InputError(f"{address}: {scheme[1]}:// is not understood; name an http(s) address or a local path.")
    path = folder / _file_name(address)
    known = _remembered(path, address=address)
    if sha256 is not None and known.get("sha256") == sha256.lower():
        return _fetched(path, known, changed=False)
    with _borrowed(client) as http:
        answer = _download(address, path=path, known=known, http=http, progress=progress)
    if answer is None:
        _check_sha256(address, found=known["sha256"], expected=sha256)
        return _fetched(path, known, changed=False)
    part = _part(path)
    record = {"address": address, **answer, "sha256": _sha256(part), "bytes": part.stat().st_size}
    try:
        _check_sha256(address, found=record["sha256"], expected=sha256)
    except DownloadError:
        _forget_part(path)
        raise
    _keep(part, path=path, record=record)
    _forget_part(path)
    return _fetched(path, record, changed=record["sha256"] != known.get("sha256"))


def fetch_features(
    address: str, *, folder: Path, client: HttpClient | None = None, progress: Progress | None = None
) -> FetchedFile:
    """Return all features of an ArcGIS layer (`.../FeatureServer/<n>`) as one GeoJSON file in EPSG:4326.

    Pages follow the layer's own `maxRecordCount` in the order of its object ids and are kept until the last has come,
    so that an interrupted fetch asks for no page twice. A layer that says when it was last edited is not asked again
    until that changes. Raises `DownloadError` for an error answered with status 200, a page that is not GeoJSON, and a
    number of features other than the layer's own count.
    """
    address = address.rstrip("/")
    path = folder / f"{_file_name(address)}.geojson"
    known = _remembered(path, address=address)
    with _borrowed(client) as http:
        layer = _json(http, address, {"f": "json"})
        everything = {"where": "1=1", "f": "json", "returnCountOnly": "true"}
        snapshot = {
            "address": address,
            "features": _needed(_json(http, f"{address}/query", everything), "count", address),
            "object_id": _object_id_field(layer, address),
            "page": _needed(layer, "maxRecordCount", address),
            "edited": (layer.get("editingInfo") or {}).get("lastEditDate"),
        }
        if snapshot["edited"] is not None and known.get("snapshot") == snapshot:
            return _fetched(path, known, changed=False)
        pages = _fetch_pages(http, snapshot, folder=path.with_name(path.name + ".pages"), progress=progress)
    part = _part(path)
    _merge_pages(pages, snapshot=snapshot, path=part)
    record = {"address": address, "snapshot": snapshot, "sha256": _sha256(part), "bytes": part.stat().st_size}
    _keep(part, path=path, record=record)
    shutil.rmtree(pages[0].parent)
    return _fetched(path, record, changed=record["sha256"] != known.get("sha256"))


# --- files on this machine -------------------------------------------------------------------------------------------


def _local_file(address: str, *, folder: Path, sha256: str | None) -> FetchedFile:
    name = unquote(urlsplit(address).path) if address.lower().startswith("file://") else address
    path = Path(name).expanduser().resolve()
    if not path.exists():
        raise InputError(f"{address} does not exist: name a file or folder on this machine, or an http(s) address.")
    # Where the path is used in place, only the memory of its last content lies in our folder.
    memory = folder / f"{_file_name(str(path))}.json"
    found = _sha256(path)
    _check_sha256(address, found=found, expected=sha256)
    size = sum(each.stat().st_size for each in _files(path))
    record = {"address": address, "sha256": found, "bytes": size}
    known = _read_json(memory)
    if known != record:
        _write_json(memory, record)
    return _fetched(path, record, changed=known.get("sha256") != found)


def _files(path: Path) -> list[Path]:
    """The files that are one data set: a folder's, a shapefile with what lies beside it, or the one file."""
    if path.is_dir():
        return sorted(each for each in path.rglob("*") if each.is_file())
    if path.suffix.lower() == ".shp":
        return sorted(each for each in path.parent.glob(f"{path.stem}.*") if each.suffix.lower() in SIDECARS | {".shp"})
    return [path]


def _sha256(path: Path) -> str:
    files = _files(path)
    if files == [path]:
        return _sha256_of_file(path)
    listing = "".join(f"{each.relative_to(path.parent)} {_sha256_of_file(each)}\n" for each in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_sha256(address: str, *, found: str, expected: str | None) -> None:
    if expected is not None and found != expected.lower():
        raise DownloadError(
            f"{address} has the SHA-256 {found}, not {expected}: the file changed or was damaged; check it, then "
            f"correct the sha256 or the address."
        )


def _file_name(address: str) -> str:
    """A name safe on every file system and different for every address, with the readable end of the address."""
    base = PurePosixPath(unquote(urlsplit(address).path)).name
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", base).strip("._")[-80:] or "file"
    return f"{hashlib.sha256(address.encode()).hexdigest()[:12]}-{readable}"


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _memory(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _forget_part(path: Path) -> None:
    _part(path).unlink(missing_ok=True)
    _memory(_part(path)).unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    """What is remembered in `path`; nothing where it is absent or half written."""
    try:
        remembered = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return remembered if isinstance(remembered, dict) else {}


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    part.write_text(json.dumps(record, indent=2), "utf-8")
    part.replace(path)


def _remembered(path: Path, *, address: str) -> dict[str, Any]:
    """The record of an earlier fetch, if the file is still what it was then."""
    known = _read_json(_memory(path))
    intact = known.get("address") == address and path.is_file() and _sha256(path) == known.get("sha256")
    return known if intact else {}


def _keep(part: Path, *, path: Path, record: Mapping[str, Any]) -> None:
    """Put a complete file in its place in one step, on the disk before its record says so."""
    with part.open("rb+") as stream:
        os.fsync(stream.fileno())
    part.replace(path)
    _write_json(_memory(path), record)


def _fetched(path: Path, record: Mapping[str, Any], *, changed: bool) -> FetchedFile:
    return FetchedFile(
        path=path,
        address=record["address"],
        sha256=record["sha256"],
        etag=record.get("etag"),
        last_modified=record.get("last_modified"),
        changed=changed,
        bytes=record["bytes"],
    )


# --- one file over HTTP ----------------------------------------------------------------------------------------------


@contextmanager
def _borrowed(client: HttpClient | None) -> Iterator[HttpClient]:
    """The caller's client, or one of our own that is closed in the end."""
    # Publishers redirect to wherever their files lie; nothing here is secret.
    http = client or HttpClient(name="open data", trusted_hosts=ANY_HOST)
    try:
        yield http
    except SourceError as error:
        raise DownloadError(f"{error}; a local path can be named in place of the address.") from error
    finally:
        if client is None:
            http.close()


def _download(
    address: str, *, path: Path, known: Mapping[str, Any], http: HttpClient, progress: Progress | None
) -> dict[str, Any] | None:
    """Complete the `.part` of `path` and return its validators, or None where the known file is still current."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    reason = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
        validators = _read_json(_memory(part))
        done = part.stat().st_size if part.exists() else 0
        # A compressed body has other lengths and ranges than the file.
        headers = {"Accept-Encoding": "identity", **_if_changed(known), **_if_same(validators, done)}
        with http.get(address, headers=headers, stream=True, accept=(200, 206, 304, 416)) as response:
            if response.status_code == 304:
                _forget_part(path)
                return None
            if response.status_code in (206, 416):
                if not _continues(response, validators, done):
                    reason = "the server's file changed meanwhile"
                    _forget_part(path)
                    continue
                if response.status_code == 416:  # nothing is left: stopped between the last byte and the rename
                    return validators
            if response.status_code == 200:
                done = 0
                validators = {
                    "etag": response.headers.get("ETag"),
                    "last_modified": response.headers.get("Last-Modified"),
                }
                _forget_part(path)
                _write_json(_memory(part), validators)
            total = _total_bytes(response, done)
            try:
                with part.open("ab") as stream:
                    for chunk in response.iter_content(_CHUNK_BYTES):
                        done += stream.write(chunk)
                        if progress:
                            progress(done, total)
            except requests.RequestException as error:
                reason = type(error).__name__
                continue
        if total is None or done == total:
            return validators
        reason = f"{done} bytes instead of {total}"
        if done > total:
            _forget_part(path)
    raise DownloadError(
        f"{address} broke off {_ATTEMPTS} times (last: {reason}): run again to go on from where it stopped, or "
        f"download it by hand and name its path."
    )


def _if_changed(known: Mapping[str, Any]) -> dict[str, str]:
    if known.get("etag"):
        return {"If-None-Match": known["etag"]}
    return {"If-Modified-Since": known["last_modified"]} if known.get("last_modified") else {}


def _if_same(validators: Mapping[str, Any], done: int) -> dict[str, str]:
    """Ask for the rest; only a strong validator proves that it belongs to what we have (RFC 9110, 13.1.5)."""
    etag = validators.get("etag")
    validator = etag if etag and not etag.startswith("W/") else validators.get("last_modified")
    return {"Range": f"bytes={done}-", "If-Range": validator} if done and validator else {}


def _continues(response: requests.Response, validators: Mapping[str, Any], done: int) -> bool:
    """Whether a 206 is the rest of what we have: some servers and proxies answer Range but overlook If-Range."""
    starts = response.headers.get("Content-Range", "").startswith((f"bytes {done}-", f"bytes */{done}"))
    return starts and response.headers.get("ETag", validators.get("etag")) == validators.get("etag")


def _total_bytes(response: requests.Response, done: int) -> int | None:
    length = response.headers.get("Content-Length")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return None if length is None or encoded else done + int(length)


# --- a feature layer -------------------------------------------------------------------------------------------------


def _json(http: HttpClient, url: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object behind `url`; ArcGIS answers many errors with status 200."""
    body = http.get_json(url, params=params, unsound=_passing_error)
    if not isinstance(body, dict) or "error" in body:
        reason = body.get("error") if isinstance(body, dict) else body
        raise DownloadError(f"{url} answered an error: {json.dumps(reason)[:300]}.")
    return body


def _passing_error(response: requests.Response) -> str | None:
    """Why an answer with status 200 is an error that may pass: its own code is one of HTTP's."""
    body = response.json()
    error = body.get("error") if isinstance(body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return f"an error: {json.dumps(error)[:300]}" if isinstance(code, int) and (code == 429 or code >= 500) else None


def _needed(body: Mapping[str, Any], key: str, address: str) -> int:
    value = body.get(key)
    if not isinstance(value, int) or value < 1:
        raise DownloadError(
            f"{address} gives {key} = {value!r}: expected a positive number, as a layer with features has."
        )
    return value


def _object_id_field(layer: Mapping[str, Any], address: str) -> str:
    typed = [field["name"] for field in layer.get("fields") or () if field.get("type") == "esriFieldTypeOID"]
    name = layer.get("objectIdField") or next(iter(typed), None)
    if name is None:
        raise DownloadError(f"{address} names no object id field: expected the address of a feature layer.")
    return name


def _fetch_pages(
    http: HttpClient, snapshot: Mapping[str, Any], *, folder: Path, progress: Progress | None
) -> list[Path]:
    """Every page of the layer as a file in `folder`, in order; pages of the same snapshot are not asked for again."""
    if _read_json(folder / "layer.json") != snapshot:
        shutil.rmtree(folder, ignore_errors=True)
        _write_json(folder / "layer.json", snapshot)
    pages: list[Path] = []
    done, total = 0, snapshot["features"]
    while done < total:
        page = folder / f"{done:09d}.geojson"
        features = _read_json(page).get("features")
        if features is None:
            query = {
                "where": "1=1",
                "outFields": "*",
                "outSR": 4326,
                "orderByFields": snapshot["object_id"],
                "resultOffset": done,
                "resultRecordCount": snapshot["page"],
                "f": "geojson",
            }
            body = _json(http, f"{snapshot['address']}/query", query)
            features = body.get("features")
            if not isinstance(features, list) or not features:
                raise DownloadError(
                    f"{snapshot['address']} gave no features from number {done} on, of {total}: try later."
                )
            _write_json(page, {"features": features})
        pages.append(page)
        done += len(features)  # a server may send fewer than asked for
        if progress:
            progress(done, total)
    return pages


def _merge_pages(pages: list[Path], *, snapshot: Mapping[str, Any], path: Path) -> None:
    """Write one FeatureCollection; its features are as many as the layer counted and each object id comes once."""
    ids: list[Any] = []
    with path.open("w", encoding="utf-8") as stream:
        stream.write('{"type":"FeatureCollection","features":[')
        for page in pages:
            for feature in _read_json(page)["features"]:
                stream.write(",\n" if ids else "\n")
                json.dump(feature, stream, separators=(",", ":"))
                ids.append(feature.get("id", (feature.get("properties") or {}).get(snapshot["object_id"])))
        stream.write("\n]}\n")
    if len(ids) != snapshot["features"] or len(set(ids)) != len(ids):
        shutil.rmtree(pages[0].parent)
        path.unlink()
        raise DownloadError(
            f"{snapshot['address']} gave {len(ids)} features, {len(set(ids))} of them different, but counts "
            f"{snapshot['features']}: it changed meanwhile; run again."
        )
