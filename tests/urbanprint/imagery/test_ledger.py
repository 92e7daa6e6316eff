"""The ledger: what it remembers, for threads and processes that share it."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from urbanprint import tables
from urbanprint.errors import BudgetSpent, InputError
from urbanprint.imagery.budget import Purse
from urbanprint.imagery.ledger import Ledger
from urbanprint.imagery.manifest import write_manifest
from urbanprint.imagery.records import UNWANTED, ImageRecord
from urbanprint.settings import Imagery
from urbanprint.sources.providers import terms_of

TERMS = terms_of(Imagery(key="m", provider="mapillary"))


def record(number: int, **changes: object) -> ImageRecord:
    values = {"image_id": f"{number}", "sequence_id": "s", "longitude": 1.0, "latitude": 2.0, "creator": "<b>ann</b>"}
    return ImageRecord(**{**values, **changes})  # type: ignore[arg-type]


def search(ledger: Ledger, area: str, *numbers: int, **changes: object) -> None:
    found = [(record(number, **changes), area) for number in numbers]
    ledger.record_search(area, "key", source="mapillary", terms=TERMS, found=found)


def test_the_manifest_follows_its_schema_and_names_the_creator(ledger: Ledger) -> None:
    search(ledger, "A", 1, 2, captured_at_ms=1_700_000_000_123, heading=359.5)
    ledger.record_fetched("mapillary", "1", sha256="ab" * 32, width=4, height=3)
    ledger.record_rejected("mapillary", "2", "too dark")
    manifest = tables.IMAGES.validate(ledger.manifest(source="mapillary"))
    assert manifest["state"].tolist() == ["fetched", "rejected"]
    assert manifest["attribution"].unique().tolist() == ["© <b>ann</b>, Mapillary contributors, CC BY-SA 4.0"]
    assert manifest["captured_at"].iloc[0].isoformat() == "2023-11-14T22:13:20.123000+00:00"


def test_an_empty_manifest_follows_its_schema(ledger: Ledger) -> None:
    assert tables.IMAGES.validate(ledger.manifest(source="mapillary")).empty


def test_a_search_found_again_keeps_the_state_and_renews_the_address(ledger: Ledger) -> None:
    search(ledger, "A", 1, address="old")
    ledger.record_fetched("mapillary", "1", sha256="ab" * 32, width=4, height=3)
    search(ledger, "A", 1, address="new")
    (image,) = ledger.images_in("A", source="mapillary")
    assert (image["state"], image["address"], image["attempts"]) == ("fetched", "new", 1)


def test_a_corrected_licence_reaches_what_is_known_and_names_the_completed_creator(ledger: Ledger) -> None:
    search(ledger, "A", 1, 2, creator="ann")
    ledger.record_completed("mapillary", record(1, creator="bob"), area_id="A", terms=TERMS)
    corrected = replace(TERMS, licence="CC0", attribution="by {creator}")
    found = [(record(number, creator=None), "A") for number in (1, 2, 3)]
    ledger.record_search("A", "key", source="mapillary", terms=corrected, found=found)
    images = ledger.images_in("A", source="mapillary")
    assert [image["attribution"] for image in images] == ["by bob", "by ann", "by an unnamed contributor"]
    assert {image["licence"] for image in images} == {"CC0"}


def test_a_changed_request_is_not_answered_from_memory(ledger: Ledger) -> None:
    search(ledger, "A", 1)
    assert ledger.searched("key") == {"A"}
    assert ledger.searched("another key") == set()
    assert ledger.searched("key", since=9e12) == set()


def test_a_failed_transaction_leaves_nothing_behind(ledger: Ledger) -> None:
    bad = [(record(1), "A"), (record(2, captured_at_ms=2**70), "A")]
    with pytest.raises(OverflowError):
        ledger.record_search("A", "key", source="mapillary", terms=TERMS, found=bad)
    assert ledger.images_in("A", source="mapillary") == []
    assert ledger.searched("key") == set()


def test_threads_and_two_ledgers_on_one_file_lose_nothing(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(tmp_path / "ledger.sqlite")

    def work(mine: Ledger, first: int) -> None:
        for number in range(first, first + 40):
            search(mine, f"area {number}", number)
            mine.record_fetched("mapillary", str(number), sha256=f"{number:064d}", width=1, height=1)

    threads = [
        threading.Thread(target=work, args=(lg, start)) for lg, start in ((ledger, 0), (ledger, 100), (other, 200))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert (ledger.manifest(source="mapillary")["state"] == "fetched").sum() == 120


OLD_COLUMNS = "is_panorama INTEGER NOT NULL DEFAULT 0, quality REAL,"
OLD_TABLES = """
CREATE TABLE searches (
    area_id TEXT NOT NULL, request TEXT NOT NULL, done_at REAL NOT NULL, PRIMARY KEY (area_id, request)
) WITHOUT ROWID;
CREATE TABLE images (
    source TEXT NOT NULL, image_id TEXT NOT NULL, sequence_id TEXT NOT NULL, creator TEXT, captured_at_ms INTEGER,
    longitude REAL NOT NULL, latitude REAL NOT NULL, heading REAL, licence TEXT NOT NULL, attribution TEXT NOT NULL,
    %s
    request TEXT, area_id TEXT, address TEXT, state TEXT NOT NULL DEFAULT 'found', reason TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, sha256 TEXT, width INTEGER, height INTEGER,
    PRIMARY KEY (source, image_id)
) WITHOUT ROWID;
CREATE INDEX images_by_area ON images (area_id, state);
INSERT INTO searches VALUES ('A', 'key', 5.0);
INSERT INTO images (source, image_id, sequence_id, longitude, latitude, licence, attribution, request, area_id, state,
    attempts, sha256) VALUES ('mapillary', '1', 's', 1, 2, 'CC', 'ann', 'key', 'A', 'fetched', 1, 'ab');
"""


@pytest.mark.parametrize("columns", ["", OLD_COLUMNS])
def test_a_ledger_from_before_versions_were_counted_keeps_everything(columns: str, tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    old = sqlite3.connect(path)
    old.executescript(OLD_TABLES % columns)
    old.close()
    for _ in range(2):  # the second time it is of this version already
        ledger = Ledger(path)
        (image,) = ledger.images_in("A", source="mapillary", request="key")
        assert (image["state"], image["sha256"], image["is_panorama"], image["quality"]) == ("fetched", "ab", 0, None)
        assert ledger.searched("key") == {"A"}
        assert len(tables.IMAGES.validate(ledger.manifest(source="mapillary"))) == 1
        ledger.close()


def test_a_ledger_of_a_later_version_is_refused(tmp_path: Path) -> None:
    later = sqlite3.connect(tmp_path / "later.sqlite")
    later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(InputError, match=r"later\.sqlite .* later version"):
        Ledger(tmp_path / "later.sqlite")


def test_a_claim_holds_for_others_until_its_run_ends(ledger: Ledger, tmp_path: Path) -> None:
    search(ledger, "A", 1)
    with ledger.worker() as mine, ledger.worker() as other:
        assert ledger.claim_image("mapillary", "1", worker=mine) == "mine"
        assert ledger.claim_image("mapillary", "1", worker=mine) == "mine"
        assert ledger.claim_image("mapillary", "1", worker=other) == "another's"
        ledger.record_failed("mapillary", "1", "time-out")
        assert ledger.claim_image("mapillary", "1", worker=other) == "mine"
        ledger.record_fetched("mapillary", "1", sha256="ab" * 32, width=1, height=1)
        assert ledger.claim_image("mapillary", "1", worker=mine) == "settled"
        assert ledger.claim_search("B", "key", worker=mine) == "mine"
        assert ledger.claim_search("B", "key", worker=other) == "another's"
        assert ledger.claim_search("A", "key", worker=other) == "settled"
    with ledger.worker() as third:
        assert ledger.claim_search("B", "key", worker=third) == "mine"
    assert not list((tmp_path / "ledger.sqlite.workers").glob("*.lock"))


def test_what_an_entity_says_is_not_overwritten_by_a_later_search(ledger: Ledger) -> None:
    search(ledger, "A", 1, creator=None)
    whole = record(1, longitude=1.5, creator="ann", address="http://there")
    ledger.record_completed("mapillary", whole, area_id="B", terms=TERMS)
    search(ledger, "A", 1, creator=None, longitude=1.0)
    (image,) = ledger.images_in("B", source="mapillary")
    assert (image["longitude"], image["creator"], image["address"]) == (1.5, "ann", "http://there")
    assert image["attribution"].startswith("© ann")


def test_a_request_sees_its_own_answers_only(ledger: Ledger) -> None:
    search(ledger, "A", 1, 2)
    ledger.record_search("A", "other", source="mapillary", terms=TERMS, found=[(record(2), "A"), (record(3), "A")])
    seen = {
        key: [i["image_id"] for i in ledger.images_in("A", source="mapillary", request=key)] for key in ("key", "other")
    }
    assert seen == {"key": ["1", "2"], "other": ["2", "3"]}
    manifest = ledger.manifest(source="mapillary", request="other")
    assert manifest["image_id"].tolist() == ["2", "3"]
    assert manifest["request"].tolist() == ["other", "other"]


def test_an_image_taken_down_never_comes_back(ledger: Ledger) -> None:
    search(ledger, "A", 1, 2, 3)
    for number in (1, 2):
        ledger.record_fetched("mapillary", f"{number}", sha256="ab" * 32, width=1, height=1)
    known = ledger.take_down("1")
    assert [(each.image_id, each.sha256, each.area_id) for each in known] == [
        ("1", "ab" * 32, "A"),
        ("2", "ab" * 32, "A"),
    ]
    search(ledger, "A", 1)
    ledger.record_failed("mapillary", "1", "time-out")
    assert not ledger.record_fetched("mapillary", "1", sha256="cd" * 32, width=1, height=1)
    # The same bytes under another id are blocked as well.
    assert not ledger.record_fetched("mapillary", "3", sha256="ab" * 32, width=1, height=1)
    manifest = ledger.manifest(source="mapillary")
    assert manifest["state"].tolist() == ["rejected"] * 3
    assert manifest["reason"].tolist() == ["taken down"] * 3
    assert manifest["sha256"].isna().all()
    assert ledger.take_down("9") == ()
    search(ledger, "A", 9)
    assert ledger.images_in("A", source="mapillary")[-1]["state"] == "rejected"


def test_a_purse_is_spent_once_by_all_who_share_it(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(tmp_path / "ledger.sqlite")

    def spend(number: int) -> bool:
        try:
            Purse((ledger, other)[number % 2], "google", 10).spend()
        except BudgetSpent:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(30))) == 10
    assert (Purse(other, "google", 10).left, Purse(other, "google", 15).left) == (0, 5)
    with pytest.raises(BudgetSpent, match="10 of 10 paid requests to google"):
        Purse(other, "google", 10).spend()
    other.close()


def test_batches_of_a_manifest_are_the_manifest(ledger: Ledger, tmp_path: Path) -> None:
    search(ledger, "A", *range(10, 17))
    search(ledger, "B", *range(20, 25))
    whole = ledger.manifest(source="mapillary", areas=["A"])
    assert whole["image_id"].tolist() == [str(number) for number in range(10, 17)]
    assert write_manifest(ledger.manifest_batches(source="mapillary", areas=["A"], rows=3), tmp_path / "m.parquet") == 7
    pd.testing.assert_frame_equal(tables.IMAGES.validate(pd.read_parquet(tmp_path / "m.parquet")), whole)
    assert write_manifest(ledger.manifest_batches(source="none"), tmp_path / "none.parquet") == 0


def test_what_the_filters_of_one_request_do_not_want_another_request_may_find_again(ledger: Ledger) -> None:
    wanted = record(1)
    ledger.record_search("A", "of 2020", source="mapillary", terms=TERMS, found=[(wanted, "A")])
    ledger.record_rejected("mapillary", wanted.image_id, UNWANTED)
    ledger.record_search("A", "of 2020", source="mapillary", terms=TERMS, found=[(wanted, "A")])
    assert ledger.images_in("A", source="mapillary")[0]["state"] == "rejected"
    ledger.record_search("A", "of any year", source="mapillary", terms=TERMS, found=[(wanted, "A")])
    assert ledger.images_in("A", source="mapillary")[0]["state"] == "found"
