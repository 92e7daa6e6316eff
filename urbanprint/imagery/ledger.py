"""What has been asked and what became of each image: one durable SQLite file a city.

Every change is one committed transaction in write-ahead mode, so a process killed at any moment loses at most what was
in flight, and several threads or processes may use one ledger. Tables: `searches` (area and request -> done) and
`images` (one row an image, `urbanprint.tables.IMAGES`).
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from urbanprint.imagery.records import ImageRecord, Terms

_SCHEMA = """
CREATE TABLE IF NOT EXISTS searches (
    area_id TEXT NOT NULL, request TEXT NOT NULL, done_at REAL NOT NULL, PRIMARY KEY (area_id, request)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (
    source TEXT NOT NULL, image_id TEXT NOT NULL, sequence_id TEXT NOT NULL, creator TEXT, captured_at_ms INTEGER,
    longitude REAL NOT NULL, latitude REAL NOT NULL, heading REAL, licence TEXT NOT NULL, attribution TEXT NOT NULL,
    is_panorama INTEGER NOT NULL DEFAULT 0, quality REAL,
    request TEXT, area_id TEXT, address TEXT, state TEXT NOT NULL DEFAULT 'found', reason TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, sha256 TEXT, width INTEGER, height INTEGER,
    PRIMARY KEY (source, image_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS images_by_area ON images (area_id, state);
"""
_MANIFEST = (
    "image_id, source, sequence_id, creator, captured_at_ms, longitude, latitude, heading, licence, attribution, "
    "request, area_id, state, reason, attempts, sha256, width, height"
)


class Ledger:
    """The ledger at `path`, created if absent. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        self._lock = threading.Lock()
        with self._lock:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file; the ledger cannot be used afterwards."""
        with self._lock:
            self._connection.close()

    def searched(self, request: str, *, since: float = 0.0) -> set[str]:
        """Return the areas for which `request` was answered after the moment `since` (seconds since 1970)."""
        rows = self._read("SELECT area_id FROM searches WHERE request = ? AND done_at > ?", (request, since))
        return {row["area_id"] for row in rows}

    def record_search(
        self,
        area_id: str,
        request: str,
        *,
        source: str,
        terms: Terms,
        found: Iterable[tuple[ImageRecord, str | None]],
    ) -> None:
        """Record the complete answer of one search: each image found with the area it lies in.

        An image already known keeps its state; only its address is renewed.
        """
        rows = [
            (
                source, record.image_id, record.sequence_id, record.creator, record.captured_at_ms, record.longitude,
                record.latitude, record.heading, record.licence or terms.licence, terms.credit(record.creator),
                record.is_panorama, record.quality, request, area_id, record.address,
            )
            for record, area_id in found
        ]  # fmt: skip
        with self._writing() as write:
            write.executemany(
                "INSERT INTO images (source, image_id, sequence_id, creator, captured_at_ms, longitude, latitude,"
                " heading, licence, attribution, is_panorama, quality, request, area_id, address)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (source, image_id) DO UPDATE SET address = excluded.address, area_id = excluded.area_id",
                rows,
            )
            write.execute(
                "INSERT INTO searches VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET done_at = excluded.done_at",
                (area_id, request, time.time()),
            )

    def images_in(self, area_id: str, *, source: str) -> list[Mapping[str, Any]]:
        """Return every image known to lie in the area, in a fixed order."""
        return self._read("SELECT * FROM images WHERE area_id = ? AND source = ? ORDER BY image_id", (area_id, source))

    def record_fetched(self, source: str, image_id: str, *, sha256: str, width: int, height: int) -> None:
        """Record that the pixels are stored under `sha256`."""
        self._change(
            "state = 'fetched', reason = NULL, attempts = attempts + 1, sha256 = ?, width = ?, height = ?",
            (sha256, width, height, source, image_id),
        )

    def record_rejected(self, source: str, image_id: str, reason: str) -> None:
        """Record that the image is of no use, for good."""
        self._change("state = 'rejected', reason = ?, attempts = attempts + 1", (reason, source, image_id))

    def record_failed(self, source: str, image_id: str, reason: str) -> None:
        """Record that the image could not be had this time; the next run asks again."""
        self._change("state = 'failed', reason = ?, attempts = attempts + 1", (reason, source, image_id))

    def manifest(self, *, source: str, areas: Iterable[str] | None = None) -> pd.DataFrame:
        """Return the manifest (`urbanprint.tables.IMAGES`), sorted by image; only images in `areas` if given."""
        with self._lock:
            images = pd.read_sql_query(
                f"SELECT {_MANIFEST} FROM images WHERE source = ? ORDER BY image_id", self._connection, params=[source]
            )
        if areas is not None:
            images = images[images["area_id"].isin(list(areas))].reset_index(drop=True)
        moments = pd.to_datetime(images.pop("captured_at_ms").astype("Int64"), unit="ms", utc=True)
        images.insert(4, "captured_at", moments.astype("datetime64[ms, UTC]"))
        for name in ("longitude", "latitude", "heading", "width", "height"):
            images[name] = images[name].astype(float)
        images["attempts"] = images["attempts"].astype(int)
        for name in ("image_id", "source", "sequence_id", "licence", "attribution", "state"):
            images[name] = images[name].astype("str")
        for name in ("creator", "request", "area_id", "reason", "sha256"):
            images[name] = images[name].astype("str").where(images[name].notna())
        return images

    def _change(self, assignments: str, values: tuple[object, ...]) -> None:
        with self._writing() as write:
            write.execute(f"UPDATE images SET {assignments} WHERE source = ? AND image_id = ?", values)

    def _read(self, query: str, values: tuple[object, ...]) -> list[Mapping[str, Any]]:
        with self._lock:
            cursor = self._connection.execute(query, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
