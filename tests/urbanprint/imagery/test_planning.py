"""The plan: what is known before the first request leaves."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from urbanprint.catalogue import read_catalogue
from urbanprint.imagery.ledger import Ledger
from urbanprint.imagery.planning import plan_imagery
from urbanprint.imagery.records import ImageRecord, Terms
from urbanprint.imagery.store import ImageStore
from urbanprint.settings import City

TERMS = Terms(licence="x", attribution="x", page=None, may_store=True, may_train=True, may_show=True)


@pytest.fixture
def city() -> City:
    path = Path(__file__).resolve().parents[2] / "catalogues" / "small.toml"
    city = next(iter(read_catalogue(path).cities.values()))
    return replace(city, sample=replace(city.sample, views=4), imagery=replace(city.imagery, per_minute=60))


def tables(areas: int, *, primary: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    names = [f"E{number:05d}" for number in range(areas)]
    roles = ["primary"] * primary + ["reserve"] * (areas - primary)
    sampled = pd.DataFrame({"area_id": names, "stratum": 1, "order": range(areas), "role": roles})
    points = pd.DataFrame({"area_id": names * 2, "point_id": [str(i) for i in range(2 * areas)]})
    return sampled, points


def test_nothing_is_known_yet(city: City) -> None:
    plan = plan_imagery(city, *tables(10, primary=6))
    assert (plan.areas, plan.reserves, plan.points, plan.searches, plan.images) == (6, 4, 12, 6, 24)
    assert (plan.found, plan.held, plan.budget, plan.price) == (0, 0, None, "free of charge")
    assert plan.minutes == 30 / 60


def test_what_is_found_and_held_is_not_asked_for_and_the_budget_caps_the_rest(city: City, ledger: Ledger) -> None:
    for area, images in (("E00000", 9), ("E00001", 2), ("E00009", 5)):
        found = [
            (ImageRecord(image_id=f"{area}-{n}", sequence_id="s", longitude=0.0, latitude=0.0), area)
            for n in range(images)
        ]
        ledger.record_search(area, "key", source="street", terms=TERMS, found=found, place="#1")
    ledger.record_fetched("street", "E00000-0", sha256="ab", width=1, height=1)
    ledger.record_rejected("street", "E00001-0", "too dark")
    known = {"ledger": ledger, "source_name": "street", "request": "key", "price": 0.007}
    plan = plan_imagery(city, *tables(10, primary=6), **known)
    # Three more of the first area, the one usable of the second, all views of the four not searched yet.
    assert (plan.searches, plan.found, plan.held, plan.images) == (4, 10, 1, 3 + 1 + 16)
    assert plan.price == "$0.14"
    assert plan_imagery(city, *tables(10, primary=6), **known, searches_points=True).searches == 8
    assert plan_imagery(city, *tables(10, primary=6), **{**known, "request": "another"}).images == 24
    ledger.spend("street", limit=9)
    capped = plan_imagery(city, *tables(10, primary=6), **known, budget_images=10, per_image_requests=2)
    assert (capped.budget, capped.images, capped.price, capped.minutes) == (9, 9, "$0.06", (4 + 18) / 60)
    assert capped.as_table()["budget"].tolist() == [9.0]


def test_what_the_store_lacks_is_to_be_fetched_again(city: City, ledger: Ledger, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    found = [(ImageRecord(image_id=f"{n}", sequence_id="s", longitude=0.0, latitude=0.0), "E00000") for n in range(4)]
    ledger.record_search("E00000", "key", source="street", terms=TERMS, found=found)
    ledger.record_fetched("street", "0", sha256=store.write(b"there"), width=1, height=1)
    ledger.record_fetched("street", "1", sha256="ab" * 32, width=1, height=1)
    known = {"ledger": ledger, "source_name": "street", "request": "key"}
    assert plan_imagery(city, *tables(1, primary=1), **known).images == 2
    plan = plan_imagery(city, *tables(1, primary=1), **known, store=store)
    assert (plan.held, plan.images) == (1, 3)


def test_a_free_provider_has_no_budget(city: City) -> None:
    plan = plan_imagery(city, *tables(10, primary=6), budget_images=5)
    assert (plan.images, plan.budget) == (24, None)


def test_a_whole_country_is_planned_at_once(city: City) -> None:
    plan = plan_imagery(city, *tables(33_000, primary=33_000), price=0.007)
    assert (plan.images, plan.price) == (132_000, "$924.00")
