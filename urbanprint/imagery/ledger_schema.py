"""The tables of a ledger, and how a file of an older version becomes one of this version, keeping everything.

`PRAGMA user_version` counts the steps a file has been through. Files from before it was counted carry 0, with or
without the columns added since; the first step takes them all, and a new file too.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from urbanprint.errors import InputError

_TABLES = (
    # Which area was searched with which request, and when the answer was complete.
    """CREATE TABLE IF NOT EXISTS searches (
        area_id TEXT NOT NULL, request TEXT NOT NULL, done_at REAL NOT NULL, PRIMARY KEY (area_id, request)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS images (
        source TEXT NOT NULL, image_id TEXT NOT NULL, sequence_id TEXT NOT NULL, creator TEXT, captured_at_ms INTEGER,
        longitude REAL NOT NULL, latitude REAL NOT NULL, heading REAL, licence TEXT NOT NULL,
        attribution TEXT NOT NULL, request TEXT, area_id TEXT, address TEXT, state TEXT NOT NULL DEFAULT 'found',
        reason TEXT, attempts INTEGER NOT NULL DEFAULT 0, sha256 TEXT, width INTEGER, height INTEGER,
        PRIMARY KEY (source, image_id)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS images_by_area ON images (area_id, state)",
)
_COLUMNS = {
    "is_panorama": "INTEGER NOT NULL DEFAULT 0",
    "quality": "REAL",
    "completed": "INTEGER NOT NULL DEFAULT 0",  # 1: the provider's own entity gave the facts, searches know less
    "fetched_at": "REAL",
}
_VERSION_1 = (
    # One image can be in the answers of several requests, and a request must see its own answers only.
    "CREATE TABLE requests (id INTEGER PRIMARY KEY, request TEXT NOT NULL UNIQUE)",
    """CREATE TABLE answers (
        source TEXT NOT NULL, image_id TEXT NOT NULL, request_id INTEGER NOT NULL,
        PRIMARY KEY (source, image_id, request_id)
    ) WITHOUT ROWID""",
    "INSERT INTO requests (request) SELECT DISTINCT request FROM images WHERE request IS NOT NULL",
    "INSERT INTO answers SELECT source, image_id, id FROM images JOIN requests USING (request)",
    "CREATE TABLE claims (thing TEXT PRIMARY KEY, worker TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE spending (source TEXT PRIMARY KEY, requests INTEGER NOT NULL) WITHOUT ROWID",
    # Image ids and hashes of pixels alike.
    "CREATE TABLE taken_down (name TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX images_by_hash ON images (sha256) WHERE sha256 IS NOT NULL",
)


def _count_versions(write: sqlite3.Connection) -> None:
    for statement in _TABLES:
        write.execute(statement)
    there = {row[1] for row in write.execute("PRAGMA table_info(images)")}
    for name, kind in _COLUMNS.items():
        if name not in there:
            write.execute(f"ALTER TABLE images ADD COLUMN {name} {kind}")
    for statement in _VERSION_1:
        write.execute(statement)


def _keep_hashes_of_pictures(write: sqlite3.Connection) -> None:
    # As text: 64 bits without a sign do not fit SQLite's whole numbers.
    write.execute("ALTER TABLE images ADD COLUMN phash TEXT")


_STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (_count_versions, _keep_hashes_of_pictures)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file behind `connection`, in autocommit mode, to this version in one transaction.

    Raises `InputError` for a file that a later version of urbanprint has written.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(_STEPS):
            raise InputError(
                f"{path} has been written by a later version of urbanprint (ledger version {version}, known up to "
                f"{len(_STEPS)}): update urbanprint"
            )
        for step in _STEPS[version:]:
            step(connection)
        connection.execute(f"PRAGMA user_version = {len(_STEPS)}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
