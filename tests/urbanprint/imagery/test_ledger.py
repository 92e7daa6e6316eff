"""The ledger: what it remembers, for threads and processes that share it."""

import threading
from pathlib import Path

import pytest

from urbanprint import tables
from urbanprint.catalogue import Imagery
from urbanprint.imagery.ledger import Ledger
from urbanprint.imagery.records import ImageRecord
from urbanprint.sources.terms import terms_of

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


def test_a_changed_request_is_not_answered_from_memory(ledger: Ledger) -> None:
    search(ledger, "A", 1)
    assert ledger.searched("key") == {"A"}
    assert ledger.searched("another key") == set()
    assert ledger.searched("key", since=9e12) == set()


def test_a_failed_transaction_leaves_nothing_behind(ledger: Ledger) -> None:
    bad = [(record(1), "A"), (record(2, longitude=None), "A")]
    with pytest.raises(Exception, match="NOT NULL"):
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
