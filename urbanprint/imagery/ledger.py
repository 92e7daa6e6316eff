"""What has been asked and what became of each image: one durable SQLite file a city.

Every change is one committed transaction in write-ahead mode, and several threads and processes may use one ledger.
What is committed survives SIGKILL at any moment: it is in the kernel's hands (`synchronous=NORMAL`). A power cut may
take the last moments before it, and the images of those are fetched again; paid requests are counted with
`synchronous=FULL` and survive that as well.

States of an image: found -> planned -> fetched | rejected (with reason, for good) | failed (with reason; asked again by
the next run). Claims keep two runs from asking for the same thing (`claims.py`).
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from filelock import FileLock

from urbanprint.imagery.claims import Worker, is_alive
from urbanprint.imagery.ledger_schema import migrate
from urbanprint.imagery.manifest import MANIFEST_COLUMNS, as_manifest
from urbanprint.imagery.records import UNWANTED, ImageRecord, Terms

TAKEN_DOWN = "taken down"
"""Reason of an image that was removed on request and is never fetched again."""

Claim = Literal["mine", "another's", "settled"]


@dataclass(frozen=True)
class TakenDown:
    """What a ledger knew of an image that is taken down."""

    source: str
    image_id: str
    sha256: str | None
    area_id: str | None


class Ledger:
    """The ledger at `path`, created if absent, brought up to date if older. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._workers = path.with_name(f"{path.name}.workers")
        self._workers.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        self._lock = threading.RLock()
        # Two processes that turn on write-ahead mode at once get "database is locked" whatever the time-out.
        with FileLock(self._workers / "opening", timeout=60):
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            migrate(self._connection, path)

    def close(self) -> None:
        """Close the file; the ledger cannot be used afterwards."""
        with self._lock:
            self._connection.close()

    # Who is at work ---------------------------------------------------------------------------------------------------

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """Register a run; its claims end with the context, and with its process."""
        with Worker(self._workers) as worker:
            try:
                yield worker
            finally:
                with self._writing() as write:
                    write.execute("DELETE FROM claims WHERE worker = ?", (worker.key,))

    def claim_search(self, area_id: str, request: str, *, worker: Worker, since: float = 0.0) -> Claim:
        """Claim a search; it is settled when it was answered after `since` (seconds since 1970)."""
        with self._writing() as write:
            done = write.execute(
                "SELECT 1 FROM searches WHERE area_id = ? AND request = ? AND done_at > ?", (area_id, request, since)
            ).fetchone()
            return "settled" if done else self._claim(write, _search(area_id, request), worker)

    def claim_image(self, source: str, image_id: str, *, worker: Worker) -> Claim:
        """Claim the fetch of an image; it is settled when it is fetched or rejected."""
        with self._writing() as write:
            (state,) = write.execute(
                "SELECT state FROM images WHERE source = ? AND image_id = ?", (source, image_id)
            ).fetchone()
            if state in ("fetched", "rejected"):
                return "settled"
            return self._claim(write, _image(source, image_id), worker)

    def release_search(self, area_id: str, request: str) -> None:
        """Give the claim on a search back that was not answered."""
        self._release(_search(area_id, request))

    def release_image(self, source: str, image_id: str) -> None:
        """Give the claim on an image back that nothing became of."""
        self._release(_image(source, image_id))

    def _release(self, thing: str) -> None:
        with self._writing() as write:
            write.execute("DELETE FROM claims WHERE thing = ?", (thing,))

    def _claim(self, write: sqlite3.Connection, thing: str, worker: Worker) -> Claim:
        held = write.execute("SELECT worker FROM claims WHERE thing = ?", (thing,)).fetchone()
        if held and held[0] != worker.key and is_alive(self._workers, held[0]):
            return "another's"
        write.execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", (thing, worker.key))
        return "mine"

    # Searches ---------------------------------------------------------------------------------------------------------

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
        place: str = "",
    ) -> None:
        """Record the complete answer of one search: each image found with the area it lies in.

        `request` is the source's own key and `place` what in the area decided the answer (`search_key`). An image
        already known keeps its state; what is newer is taken over, licence and credit too, except that a search never
        overwrites the position and the creator that `record_completed` has given, and that what the filters of another
        request did not want is found again.
        """
        found = list(found)
        with self._writing() as write:
            known = write.execute(
                "SELECT image_id, creator, completed FROM images WHERE source = ?"
                " AND image_id IN (SELECT value FROM json_each(?))",
                (source, json.dumps([record.image_id for record, _ in found])),
            )
            creators = {image_id: (creator, completed) for image_id, creator, completed in known}

            def credit(record: ImageRecord) -> str:
                creator, completed = creators.get(record.image_id, (None, False))
                return terms.credit(creator if completed else record.creator or creator)

            rows = [
                (
                    source, record.image_id, record.sequence_id, record.creator, record.captured_at_ms,
                    record.longitude, record.latitude, record.heading, record.licence or terms.licence, credit(record),
                    record.is_panorama, record.quality, request, lies_in, record.address, record.image_id,
                )
                for record, lies_in in found
            ]  # fmt: skip
            write.execute("INSERT OR IGNORE INTO requests (request) VALUES (?)", (request,))
            write.executemany(
                "INSERT INTO images (source, image_id, sequence_id, creator, captured_at_ms, longitude, latitude,"
                " heading, licence, attribution, is_panorama, quality, request, area_id, address, state, reason)"
                " SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
                f" iif(blocked, 'rejected', 'found'), iif(blocked, '{TAKEN_DOWN}', NULL)"
                " FROM (SELECT EXISTS (SELECT 1 FROM taken_down WHERE name = ?) AS blocked) WHERE true"
                " ON CONFLICT (source, image_id) DO UPDATE SET"
                "  address = coalesce(excluded.address, address), heading = coalesce(excluded.heading, heading),"
                "  quality = coalesce(excluded.quality, quality),"
                "  longitude = iif(completed, longitude, excluded.longitude),"
                "  latitude = iif(completed, latitude, excluded.latitude),"
                "  area_id = iif(completed, area_id, excluded.area_id),"
                "  licence = excluded.licence, attribution = excluded.attribution,"
                "  creator = iif(completed, creator, coalesce(excluded.creator, creator))",
                rows,
            )
            write.executemany(
                f"UPDATE images SET state = 'found', reason = NULL WHERE state = 'rejected' AND reason = '{UNWANTED}'"
                " AND source = ? AND image_id = ? AND NOT EXISTS (SELECT 1 FROM answers AS a JOIN requests ON id ="
                " request_id WHERE a.source = images.source AND a.image_id = images.image_id AND request = ?)",
                [(source, row[1], request) for row in rows],
            )
            write.executemany(
                "INSERT OR IGNORE INTO answers SELECT ?, ?, id FROM requests WHERE request = ?",
                [(source, row[1], request) for row in rows],
            )
            write.execute(
                "INSERT INTO searches VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET done_at = excluded.done_at",
                (area_id, request + place, time.time()),
            )
            write.execute("DELETE FROM claims WHERE thing = ?", (_search(area_id, request + place),))

    # Images -----------------------------------------------------------------------------------------------------------

    def images_in(self, area_id: str, *, source: str, request: str | None = None) -> list[Mapping[str, Any]]:
        """Return every image known to lie in the area, in a fixed order; only answers to `request` if given."""
        return self._read(
            f"SELECT * FROM images WHERE area_id = ? AND source = ? AND {_ANSWERS_TO} ORDER BY image_id",
            (area_id, source, request, request),
        )

    def record_planned(self, source: str, image_ids: Iterable[str]) -> None:
        """Record, all at once, that a run is going to fetch these images."""
        with self._writing() as write:
            write.executemany(
                "UPDATE images SET state = 'planned' WHERE source = ? AND image_id = ? AND state = 'found'",
                [(source, image_id) for image_id in image_ids],
            )

    def record_completed(self, source: str, record: ImageRecord, *, area_id: str | None, terms: Terms) -> None:
        """Record what the provider's own entity says of a known image, and the area that puts it in."""
        self._change(
            "completed = 1, sequence_id = ?, creator = ?, captured_at_ms = ?, longitude = ?, latitude = ?, heading = ?,"
            " licence = ?, attribution = ?, quality = ?, address = ?, area_id = ?",
            (
                record.sequence_id, record.creator, record.captured_at_ms, record.longitude, record.latitude,
                record.heading, record.licence or terms.licence, terms.credit(record.creator), record.quality,
                record.address, area_id,
            ),
            source,
            record.image_id,
            settled=False,
        )  # fmt: skip

    def record_fetched(
        self, source: str, image_id: str, *, sha256: str, width: int, height: int, phash: int | None = None
    ) -> bool:
        """Record that what is kept of the pixels lies under `sha256`; `phash` is the hash of the picture, 64 bits.

        Returns False, and rejects the image, where image or pixels have been taken down: then nothing may be kept.
        """
        with self._writing() as write:
            blocked = self._blocked(write, image_id, sha256)
            if blocked:
                self._reject(write, source, image_id, TAKEN_DOWN)
            else:
                self._set(
                    write,
                    "state = 'fetched', reason = NULL, attempts = attempts + 1, sha256 = ?, width = ?, height = ?,"
                    " fetched_at = ?, phash = ?",
                    (sha256, width, height, time.time(), None if phash is None else f"{phash:016x}"),
                    source,
                    image_id,
                )
        return not blocked

    def is_taken_down(self, *names: str) -> bool:
        """Whether one of these image ids or hashes has been taken down."""
        with self._lock:
            return self._blocked(self._connection, *names)

    def record_rejected(self, source: str, image_id: str, reason: str) -> None:
        """Record that the image is of no use, for good."""
        self._change("state = 'rejected', reason = ?, attempts = attempts + 1", (reason,), source, image_id)

    def record_failed(self, source: str, image_id: str, reason: str) -> None:
        """Record that the image could not be had this time; the next run asks again."""
        self._change("state = 'failed', reason = ?, attempts = attempts + 1", (reason,), source, image_id)

    def record_removed(self, source: str, image_id: str, reason: str) -> None:
        """Record that a fetched image is no longer kept, and why: it is as if only found, and may be fetched anew."""
        self._change(
            "state = 'found', reason = ?, sha256 = NULL, width = NULL, height = NULL, fetched_at = NULL, phash = NULL",
            (reason,),
            source,
            image_id,
        )

    def weed(self, source: str, reasons: Mapping[str, str]) -> None:
        """Reject fetched images, all at once: image_id -> reason. Their hashes stay known, for takedowns of copies."""
        with self._writing() as write:
            write.executemany(
                "UPDATE images SET state = 'rejected', reason = ?"
                " WHERE source = ? AND image_id = ? AND state = 'fetched'",
                [(reason, source, image_id) for image_id, reason in reasons.items()],
            )

    def is_kept(self, sha256: str) -> bool:
        """Whether any image, of whatever source, is kept under this hash."""
        return bool(self._read("SELECT 1 FROM images WHERE sha256 = ? AND state = 'fetched' LIMIT 1", (sha256,)))

    def take_down(self, image_id: str) -> tuple[TakenDown, ...]:
        """Block an image and its pixels for good; return what was known of it, and of others with the same pixels.

        A hash of pixels blocks them as well.
        An id that is not known is blocked as well, in case a later search finds it. Removing what is kept under the
        hashes is the caller's part.
        """
        with self._writing() as write:
            rows = write.execute(
                "SELECT source, image_id, sha256, area_id FROM images WHERE image_id = :name OR sha256 = :name"
                " OR sha256 IN (SELECT sha256 FROM images WHERE image_id = :name) ORDER BY source, image_id",
                {"name": image_id},
            ).fetchall()
            known = tuple(TakenDown(*row) for row in rows)
            for name in {image_id, *(each.sha256 for each in known if each.sha256)}:
                write.execute("INSERT OR IGNORE INTO taken_down VALUES (?, ?)", (name, time.time()))
            for each in known:
                self._reject(write, each.source, each.image_id, TAKEN_DOWN)
        return known

    def fetched_before(self, moment: float, *, source: str) -> list[Mapping[str, Any]]:
        """Return image_id, sha256 and state of what came before `moment`, or nobody knows when, rejected since or not.

        Of a rejected image the hash is known, and something may still be kept under it.
        """
        return self._read(
            "SELECT image_id, sha256, state FROM images WHERE source = ? AND sha256 IS NOT NULL"
            " AND coalesce(fetched_at, 0) < ? ORDER BY image_id",
            (source, moment),
        )

    # Money ------------------------------------------------------------------------------------------------------------

    def spend(self, source: str, *, limit: int) -> bool:
        """Count one paid request unless `limit` have been; return whether it may leave. Survives a power cut."""
        with self._writing(durable=True) as write:
            write.execute("INSERT OR IGNORE INTO spending VALUES (?, 0)", (source,))
            return bool(
                write.execute(
                    "UPDATE spending SET requests = requests + 1 WHERE source = ? AND requests < ?", (source, limit)
                ).rowcount
            )

    def spent(self, source: str) -> int:
        """Return how many paid requests to `source` have been counted."""
        rows = self._read("SELECT requests FROM spending WHERE source = ?", (source,))
        return int(rows[0]["requests"]) if rows else 0

    # Tables -----------------------------------------------------------------------------------------------------------

    def known_by_area(self, *, source: str, request: str | None = None) -> pd.DataFrame:
        """Return, an area a row, how many images are usable (not rejected) and how many of them fetched."""
        rows = self._read(
            "SELECT area_id, count(*) AS usable, sum(state = 'fetched') AS fetched FROM images"
            f" WHERE source = ? AND area_id IS NOT NULL AND state != 'rejected' AND {_ANSWERS_TO} GROUP BY area_id",
            (source, request, request),
        )
        return pd.DataFrame(rows, columns=["area_id", "usable", "fetched"]).astype({"area_id": "str"})

    def areas_searched(self, *, request: str | None = None) -> set[str]:
        """Return the areas searched at any time, wherever in them; with the source's key `request` if given."""
        rows = self._read(
            "SELECT DISTINCT area_id FROM searches WHERE ? IS NULL OR substr(request, 1, length(?)) = ?", (request,) * 3
        )
        return {row["area_id"] for row in rows}

    def asked_at(self, request: str) -> dict[str, float]:
        """Return when each area was last searched with the source's key `request`, in seconds since 1970."""
        rows = self._read(
            "SELECT area_id, max(done_at) AS at FROM searches WHERE substr(request, 1, length(?)) = ? GROUP BY area_id",
            (request,) * 2,
        )
        return {row["area_id"]: row["at"] for row in rows}

    def manifest(
        self,
        *,
        source: str,
        areas: Iterable[str] | None = None,
        request: str | None = None,
        state: str | None = None,
    ) -> pd.DataFrame:
        """Return the manifest (`urbanprint.tables.IMAGES`), sorted by image; only what matches what is given."""
        batches = self.manifest_batches(source=source, areas=areas, request=request, state=state)
        return pd.concat(list(batches), ignore_index=True)

    def manifest_batches(
        self,
        *,
        source: str,
        areas: Iterable[str] | None = None,
        request: str | None = None,
        state: str | None = None,
        rows: int = 10_000,
    ) -> Iterator[pd.DataFrame]:
        """Yield the manifest in tables of at most `rows` rows, so that memory does not grow with it; at least one."""
        within = None if areas is None else json.dumps(list(areas))
        # An image can be the answer of several requests: the manifest of one names that one.
        columns = ", ".join(MANIFEST_COLUMNS).replace(" request,", " coalesce(?, request),")
        last = ""
        while True:
            found = self._tuples(
                f"SELECT {columns} FROM images WHERE source = ? AND image_id > ?"
                " AND (? IS NULL OR area_id IN (SELECT value FROM json_each(?)))"
                f" AND (? IS NULL OR state = ?) AND {_ANSWERS_TO} ORDER BY image_id LIMIT ?",
                (request, source, last, within, within, state, state, request, request, rows),
            )
            if found or not last:
                yield as_manifest(found)
            if len(found) < rows:
                return
            last = found[-1][0]

    # SQL --------------------------------------------------------------------------------------------------------------

    def _change(
        self, assignments: str, values: tuple[object, ...], source: str, image_id: str, *, settled: bool = True
    ) -> None:
        with self._writing() as write:
            self._set(write, assignments, values, source, image_id, settled=settled)

    def _set(
        self,
        write: sqlite3.Connection,
        assignments: str,
        values: tuple[object, ...],
        source: str,
        image_id: str,
        *,
        settled: bool = True,
    ) -> None:
        # A takedown while the image was on its way stays: nothing brings such an image back.
        write.execute(
            f"UPDATE images SET {assignments} WHERE source = ? AND image_id = ? AND reason IS NOT '{TAKEN_DOWN}'",
            (*values, source, image_id),
        )
        if settled:
            write.execute("DELETE FROM claims WHERE thing = ?", (_image(source, image_id),))

    def _reject(self, write: sqlite3.Connection, source: str, image_id: str, reason: str) -> None:
        self._set(
            write,
            "state = 'rejected', reason = ?, sha256 = NULL, width = NULL, height = NULL, address = NULL",
            (reason,),
            source,
            image_id,
        )

    def _blocked(self, connection: sqlite3.Connection, *names: str) -> bool:
        marks = ", ".join("?" * len(names))
        return (
            connection.execute(f"SELECT 1 FROM taken_down WHERE name IN ({marks}) LIMIT 1", names).fetchone()
            is not None
        )

    def _read(self, query: str, values: tuple[object, ...]) -> list[Mapping[str, Any]]:
        with self._lock:
            cursor = self._connection.execute(query, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def _tuples(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if durable:
                self._connection.execute("PRAGMA synchronous=FULL")
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            finally:
                if durable:
                    self._connection.execute("PRAGMA synchronous=NORMAL")


_ANSWERS_TO = (
    "(? IS NULL OR EXISTS (SELECT 1 FROM answers JOIN requests ON requests.id = answers.request_id"
    " WHERE answers.source = images.source AND answers.image_id = images.image_id AND requests.request = ?))"
)


def _image(source: str, image_id: str) -> str:
    return f"image/{source}/{image_id}"


def _search(area_id: str, request: str) -> str:
    return f"search/{area_id}/{request}"
