"""The loop's promises, one by one, against a street in memory: budget, terms, doubt, weeding, two runs at once."""

import io
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image

from urbanprint import tables
from urbanprint.errors import InputError, MissingImages, SourceError, UrbanprintError
from urbanprint.imagery.acquisition import Acquired, acquire
from urbanprint.imagery.budget import Purse
from urbanprint.imagery.ledger import Ledger
from urbanprint.imagery.quality import Examined
from urbanprint.imagery.records import ImageRecord, RejectedImage, Terms
from urbanprint.imagery.retention import expire, take_down
from urbanprint.imagery.store import FeatureStore, ImageStore, Store
from urbanprint.sources.limits import ProviderDown

TERMS = Terms(
    licence="CC0", attribution="{creator}", page=None, may_store=True, may_train=True, may_show=True, keep_days=30.0
)
LETTERS = "ABCD"
VIEWS = 3


def picture(image_id: str) -> bytes:
    noise = np.random.default_rng(list(image_id.encode())).integers(0, 255, (36, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Street:
    """Four areas side by side, a hundredth of a degree wide, five images in each: A0, ..., D4, from west to east."""

    terms: Terms = TERMS
    price: float = 0.0
    purse: Purse | None = None
    request_key: str = "street"
    looks_at_points: bool = False
    before: Callable[[str], bytes | None] = lambda _image_id: None
    searches: list[str] = field(default_factory=list)
    fetches: list[str] = field(default_factory=list)
    name = "street"

    def find(self, area: shapely.Polygon, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        west, _, east, _ = area.bounds
        self.searches.append(f"{west:.2f}")
        for column, letter in enumerate(LETTERS):
            for number in range(5):
                longitude = (column + number / 5 + 0.1) / 100
                if west <= longitude <= east:
                    yield ImageRecord(
                        image_id=f"{letter}{number}", sequence_id=letter, longitude=longitude, latitude=0.005,
                        creator="ann", address="here",
                    )  # fmt: skip

    def fetch(self, record: ImageRecord) -> bytes:
        if self.purse:
            self.purse.spend()
        self.fetches.append(record.image_id)
        other = self.before(record.image_id)
        return picture(record.image_id) if other is None else other


@pytest.fixture
def street() -> Street:
    return Street()


@pytest.fixture
def pixels(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def go(street: Street, ledger: Ledger, pixels: ImageStore) -> Callable[..., Acquired]:
    boxes = [shapely.box(column / 100, 0, (column + 1) / 100, 0.01) for column in range(4)]
    areas = gpd.GeoDataFrame({"area_id": list(LETTERS)}, geometry=boxes, crs=4326)
    sampled = pd.DataFrame(
        {"area_id": list(LETTERS), "stratum": [1, 2, 1, 2], "order": [0, 0, 1, 1], "role": "primary"}
    )
    points = pd.DataFrame(
        {"point_id": list(LETTERS), "area_id": list(LETTERS), "longitude": [0.0, 0.01, 0.02, 0.03], "latitude": 0.005}
    )

    def go(**changes: object) -> Acquired:
        given = {
            "areas": areas, "sampled": sampled, "points": points, "source": street, "ledger": ledger, "store": pixels,
            "views": VIEWS, "threads": 2, **changes,
        }  # fmt: skip
        acquired = acquire(**given)  # type: ignore[arg-type]
        tables.IMAGES.validate(acquired.images)
        tables.COVERAGE.validate(acquired.coverage)
        return acquired

    return go


def fetched(acquired: Acquired) -> list[str]:
    return acquired.images.loc[acquired.images["state"] == "fetched", "image_id"].tolist()


FIRST = [f"{letter}{number}" for letter in LETTERS for number in range(VIEWS)]


def test_each_area_gets_what_is_nearest_to_its_points_whatever_the_number_of_threads(go, street: Street) -> None:
    assert fetched(go(threads=8)) == FIRST
    assert sorted(street.fetches) == FIRST


def test_a_spent_budget_stops_the_run_and_a_larger_one_goes_on(go, street: Street, ledger: Ledger) -> None:
    street.purse = Purse(ledger, "street", 5)
    stopped = go(threads=1)
    assert (len(street.fetches), street.purse.left) == (5, 0)
    assert stopped.stopped is not None
    assert "5 of 5 paid requests to street" in stopped.stopped
    assert "7 images have not been asked for" in stopped.stopped
    # Strata alternate: A and C are of one, B and D of the other.
    assert stopped.coverage.set_index("area_id")["outcome"].to_dict() == {
        "A": "imaged", "B": "imaged", "C": "not asked", "D": "not asked",
    }  # fmt: skip
    assert Counter(stopped.images["state"]) == {"fetched": 5, "planned": 7, "found": 8}
    assert go().stopped is not None
    assert len(street.fetches) == 5
    street.purse = Purse(ledger, "street", 100)
    complete = go()
    assert complete.stopped is None
    assert fetched(complete) == FIRST
    assert sorted(street.fetches) == FIRST


def test_a_budget_of_nothing_is_no_lack_of_imagery(go, street: Street, ledger: Ledger) -> None:
    street.purse = Purse(ledger, "street", 0)
    assert set(go().coverage["outcome"]) == {"not asked"}


def test_what_the_budget_stops_has_been_weeded_as_well(go, street: Street, ledger: Ledger) -> None:
    street.purse = Purse(ledger, "street", 5)
    stopped = go(threads=1, weed=lambda images: {name: "too near" for name in images["image_id"] if name == "A0"})
    assert stopped.stopped is not None
    assert "A0" not in fetched(stopped)
    assert "8 images have not been asked for" in stopped.stopped


def test_what_failed_before_the_budget_was_spent_is_told_and_is_no_lack_of_imagery(
    go, street: Street, ledger: Ledger
) -> None:
    find = street.find

    def failing(area: shapely.Polygon, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        if area.bounds[0] == 0.02:
            raise SourceError("too dense")
        return find(area, points)

    def down(image_id: str) -> None:
        if image_id[0] == "A":
            raise SourceError("no answer")

    street.find, street.before = failing, down  # type: ignore[method-assign]
    street.purse = Purse(ledger, "street", 7)
    stopped = go(threads=1, views=5)
    assert stopped.coverage.set_index("area_id")["outcome"].to_dict() == {
        "A": "not asked", "B": "imaged", "C": "not asked", "D": "not asked",
    }  # fmt: skip
    assert stopped.stopped is not None
    assert "1 searches failed at street this time (first: C, too dense)" in stopped.stopped
    assert "5 images failed at street this time (first: A0, no answer)" in stopped.stopped


def test_a_paid_placeholder_is_final_and_a_broken_body_is_bought_once_more(go, street: Street) -> None:
    street.price = 0.007
    reasons = {picture("A0"): "grey placeholder", picture("B0"): "truncated"}
    acquired = go(inspect=lambda pixels: Examined(reason=reasons.get(pixels)))
    bought = Counter(street.fetches)
    assert (bought["A0"], bought["B0"], bought["C0"]) == (1, 2, 1)
    assert {"A3", "B3"} <= set(fetched(acquired))
    again = go(inspect=lambda pixels: Examined(reason=reasons.get(pixels)))
    assert fetched(again) == fetched(acquired)
    assert Counter(street.fetches) == bought


def test_what_was_paid_for_is_not_bought_again_for_another_store_unless_allowed(
    go, street: Street, ledger: Ledger, tmp_path: Path
) -> None:
    street.price = 0.01
    old, new = (
        FeatureStore(tmp_path / "features", extract=lambda pixels: np.array([float(len(pixels))]), key=key)
        for key in ("size-1", "size-2")
    )
    before = go(store=old)
    with pytest.raises(
        InputError, match=r"12 images from street .* feature store size-2 in .*\$0\.12 .*pay_again=True"
    ):
        go(store=new)
    assert len(street.fetches) == len(FIRST)
    assert go(store=old).images.equals(before.images), "a refusal changes nothing"
    assert fetched(go(store=new, pay_again=True)) == FIRST
    assert len(street.fetches) == 2 * len(FIRST)


def test_terms_that_forbid_storing_leave_features_and_no_pixel(go, street: Street, tmp_path: Path) -> None:
    street.terms = replace(TERMS, may_store=False)
    with pytest.raises(UrbanprintError, match=r"do not allow storing its pixels: give a FeatureStore"):
        go()

    def mean(pixels: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(pixels)) as image:
            return np.asarray(image).mean(axis=(0, 1))

    features = FeatureStore(tmp_path / "features", extract=mean, key="mean-1")
    acquired = go(store=features)
    for sha256 in acquired.images["sha256"].dropna():
        assert features.read(sha256).shape == (3,)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in written if path.suffix == ".npy"]) == len(FIRST)
    for path in written:
        content = path.read_bytes()
        assert not any(picture(image_id)[:64] in content for image_id in FIRST), path
    with pytest.raises(InputError, match="acquire it first"):
        features.read("00" * 32)


def test_what_searches_leave_out_is_completed_and_an_image_may_turn_out_to_lie_elsewhere(go, street: Street) -> None:
    find = street.find

    def bare(area: shapely.Polygon, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        return (replace(record, creator=None, address=None) for record in find(area, points))

    def complete(record: ImageRecord) -> ImageRecord:
        completed.append(record.image_id)
        longitude = 0.0305 if record.image_id == "A0" else record.longitude
        return replace(record, creator="bob", address="there", longitude=longitude)

    completed: list[str] = []
    street.find, street.complete = bare, complete  # type: ignore[method-assign,attr-defined]
    images = go().images.set_index("image_id")
    assert images.loc["A0", "area_id"] == "D"
    by_area = images[images["state"] == "fetched"].groupby("area_id").groups
    assert {area: sorted(ids) for area, ids in by_area.items()} == {
        "A": ["A1", "A2", "A3"], "B": ["B0", "B1", "B2"], "C": ["C0", "C1", "C2"], "D": ["D0", "D1", "D2"],
    }  # fmt: skip
    assert set(images.loc[images["state"] == "fetched", "attribution"]) == {"bob"}
    assert max(Counter(completed).values()) == 1


def test_a_fault_that_may_pass_is_asked_about_again_and_only_then_rejected(go, street: Street) -> None:
    street.before = lambda image_id: b"<html>" if image_id == "A0" else None
    acquired = go()
    assert acquired.images.set_index("image_id").loc["A0", ["state", "reason"]].tolist() == ["rejected", "not an image"]
    assert Counter(street.fetches)["A0"] == 6
    # It is looked at again only after all others are through.
    assert street.fetches.index("B0") < [i for i, name in enumerate(street.fetches) if name == "A0"][3]
    assert "A3" in fetched(acquired)


def test_a_fault_that_has_passed_loses_nothing(go, street: Street) -> None:
    street.before = lambda image_id: picture(image_id)[:200] if street.fetches.count(image_id) < 5 else None
    assert fetched(go()) == FIRST


def test_a_verdict_on_the_picture_is_final_at_once(go, street: Street) -> None:
    acquired = go(inspect=lambda pixels: Examined(reason="too dark" if pixels == picture("B1") else None))
    assert Counter(street.fetches)["B1"] == 1
    assert acquired.images.set_index("image_id").loc["B1", "reason"] == "too dark"
    assert "B3" in fetched(acquired)


def test_weeded_images_give_way_to_the_next_until_the_area_has_its_views(go, street: Street) -> None:
    def weed(images: pd.DataFrame) -> dict[str, str]:
        tables.IMAGES.validate(images)
        return {name: "too near" for name in images["image_id"] if name in ("A0", "A3")}

    acquired = go(weed=weed)
    assert fetched(acquired) == ["A1", "A2", "A4", *FIRST[3:]]
    assert go(weed=weed).images.equals(acquired.images)
    assert max(Counter(street.fetches).values()) == 1


def test_failures_are_told_and_asked_about_alone(go, street: Street) -> None:
    def down(image_id: str) -> None:
        if image_id in ("A1", "C2"):
            raise SourceError("no answer")

    street.before = down
    with pytest.raises(SourceError, match=r"2 images failed at street this time \(first: A1, no answer\)"):
        go()
    street.before, street.fetches = (lambda _image_id: None), []
    assert fetched(go()) == FIRST
    assert sorted(street.fetches) == ["A1", "C2"]


def test_an_image_that_fails_run_after_run_gives_way_at_last(go, street: Street) -> None:
    def broken(image_id: str) -> None:
        if image_id == "A1":
            raise SourceError("no answer")

    street.before = broken
    for _ in range(4):
        with pytest.raises(SourceError):
            go()
    acquired = go()
    assert "A3" in fetched(acquired)
    assert acquired.images.set_index("image_id").loc["A1", "reason"] == "it failed 5 times, last: no answer"


def test_a_provider_that_is_down_ends_the_run_and_keeps_what_there_is(go, street: Street, ledger: Ledger) -> None:
    def down(_image_id: str) -> None:
        if len(street.fetches) > 4:
            raise ProviderDown("street is down")

    street.before = down
    with pytest.raises(ProviderDown, match="run again when it is back"):
        go(threads=1)
    assert (ledger.manifest(source="street")["state"] == "fetched").sum() == 4
    assert not (ledger.manifest(source="street")["state"] == "failed").any()
    street.before, street.fetches = (lambda _image_id: None), []
    assert fetched(go()) == FIRST
    assert len(street.fetches) == len(FIRST) - 4


def test_a_failed_search_waits_for_the_next_run_and_holds_up_no_other_area(go, street: Street) -> None:
    find = street.find

    def failing(area: shapely.Polygon, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        if area.bounds[0] == 0.02:
            raise SourceError("too dense")
        return find(area, points)

    street.find = failing  # type: ignore[method-assign]
    with pytest.raises(SourceError, match=r"1 searches failed at street this time \(first: C, too dense\)"):
        go()
    street.find = find  # type: ignore[method-assign]
    street.fetches = []
    assert fetched(go()) == FIRST
    assert sorted(street.fetches) == ["C0", "C1", "C2"]


def test_nothing_anywhere_is_an_error(go, street: Street) -> None:
    def gone(image_id: str) -> bytes:
        raise RejectedImage("gone")

    street.before = gone
    with pytest.raises(MissingImages, match="no usable image in any of the 4 areas"):
        go()


def test_a_changed_request_area_or_point_is_searched_anew_and_sees_its_own_answers(go, street: Street) -> None:
    go()
    assert len(street.searches) == 4
    moved = pd.DataFrame({"point_id": ["x"], "area_id": ["A"], "longitude": [0.01], "latitude": [0.005]})
    go(points=moved)
    assert len(street.searches) == 4, "this source does not look at points"
    street.looks_at_points = True
    go(points=moved)
    assert len(street.searches) == 5, "only one area has other points"
    find = street.find
    street.request_key = "street since 2020"
    street.find = lambda area, points=None: (r for r in find(area, points) if r.image_id[1] in "34")  # type: ignore[method-assign]
    narrowed = go()
    assert len(street.searches) == 9
    assert fetched(narrowed) == [f"{letter}{number}" for letter in LETTERS for number in (3, 4)]
    assert set(narrowed.images["request"]) == {"street since 2020"}


def test_what_the_store_has_lost_is_fetched_anew(go, street: Street, pixels: ImageStore) -> None:
    images = go().images.set_index("image_id")
    pixels.path(images.loc["B2", "sha256"]).write_bytes(b"")
    street.fetches = []
    assert fetched(go()) == FIRST
    assert street.fetches == ["B2"]


def test_two_runs_at_once_share_the_work_and_both_end_with_all_of_it(go, street: Street, tmp_path: Path) -> None:
    together = threading.Barrier(2)

    def run(_number: int) -> list[str]:
        with closing(Ledger(tmp_path / "ledger.sqlite")) as own:
            together.wait()
            return fetched(go(ledger=own))

    street.before = lambda _image_id: threading.Event().wait(0.02) or None
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == [FIRST, FIRST]
    assert sorted(street.fetches) == FIRST
    assert sorted(street.searches) == ["0.00", "0.01", "0.02", "0.03"]


def test_two_runs_at_once_do_not_wait_for_each_others_failures(go, street: Street, tmp_path: Path) -> None:
    find, together = street.find, threading.Barrier(2)

    def failing(area: shapely.Polygon, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        threading.Event().wait(0.05)
        if area.bounds[0] < 0.02:
            raise SourceError("no answer")
        return find(area, points)

    def run(_number: int) -> str:
        with closing(Ledger(tmp_path / "ledger.sqlite")) as own:
            together.wait()
            with pytest.raises(SourceError) as error:
                go(ledger=own)
            return str(error.value)

    def broken(image_id: str) -> None:
        raise SourceError("no answer")

    street.find, street.before = failing, broken  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        assert all("2 searches failed at street" in message for message in pool.map(run, range(2)))


def test_pixels_past_their_time_are_removed_and_the_ledger_says_so(go, street: Street, ledger: Ledger, pixels) -> None:
    images = go().images
    now = ledger.fetched_before(9e12, source="street")
    assert len(now) == len(FIRST)
    assert expire(ledger, pixels, TERMS, 0.0, source="street") == 0
    assert expire(ledger, pixels, replace(TERMS, keep_days=None), 9e12, source="street") == 0
    assert expire(ledger, pixels, TERMS, 9e12, source="street") == len(FIRST)
    assert not any(pixels.holds(sha256) for sha256 in images["sha256"].dropna())
    after = ledger.manifest(source="street")
    assert set(after["reason"].dropna()) == {"removed after the 30 days its terms allow"}
    assert fetched(go()) == FIRST


def test_features_have_no_time_that_could_be_over(go, ledger: Ledger, tmp_path: Path) -> None:
    features = FeatureStore(tmp_path / "f", extract=lambda pixels: np.array([float(len(pixels))]), key="size")
    images = go(store=features).images
    assert expire(ledger, features, TERMS, 9e12, source="street") == 0
    assert all(features.holds(sha256) for sha256 in images["sha256"].dropna())


def test_no_pixels_of_weeded_images_outlive_the_weeding_or_their_time(
    go, street: Street, ledger: Ledger, pixels
) -> None:
    # A0 and A1 are exact copies: the pixels stay while one of them is kept.
    street.before = lambda image_id: picture("A0") if image_id == "A1" else None
    unwanted = {"A0": "copy", "B0": "too near"}
    images = go(weed=lambda table: {name: unwanted[name] for name in table["image_id"] if name in unwanted})
    by_id = images.images.set_index("image_id")
    assert by_id.loc["A1", "sha256"] == by_id.loc["A0", "sha256"]
    assert (pixels.holds(by_id.loc["A0", "sha256"]), pixels.holds(by_id.loc["B0", "sha256"])) == (True, False)
    # What a run killed in the middle of weeding has left goes when its time is over, and stays rejected.
    left = pixels.write(picture("B0"))
    expire(ledger, pixels, TERMS, 9e12, source="street")
    assert not pixels.holds(left)
    assert not pixels.holds(by_id.loc["A0", "sha256"])
    after = ledger.manifest(source="street").set_index("image_id")
    assert after.loc[["A0", "B0"], "reason"].tolist() == ["copy", "too near"]
    assert expire(ledger, pixels, TERMS, 9e12, source="street") == 0


def test_an_image_taken_down_is_removed_and_replaced(go, street: Street, ledger: Ledger, pixels: ImageStore) -> None:
    images = go().images.set_index("image_id")
    (known,) = take_down(ledger, pixels, "A1")
    assert (known.sha256, known.area_id) == (images.loc["A1", "sha256"], "A")
    assert not pixels.holds(images.loc["A1", "sha256"])
    street.fetches = []
    assert "A1" not in fetched(go())
    assert street.fetches == ["A3"]


def test_pixels_taken_down_are_not_even_written_under_another_id(go, street: Street, ledger: Ledger, pixels) -> None:
    go(views=1)
    take_down(ledger, pixels, "A0")
    street.before = lambda image_id: picture("A0") if image_id == "A1" else None
    acquired = go(views=1)
    assert acquired.images.set_index("image_id").loc["A1", "reason"] == "taken down"
    assert "A2" in fetched(acquired)


def test_what_killed_processes_left_half_written_is_swept(go, pixels: ImageStore) -> None:
    pixels.write(b"whole")
    aside = pixels.folder / ".writing"
    assert list(aside.iterdir()) == []
    old, young = aside / "old", aside / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    go()
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize("key", ["../up", "a/b", ""])
def test_a_feature_stores_key_names_no_other_place(key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no identifier"):
        FeatureStore(tmp_path, extract=lambda _pixels: np.zeros(1), key=key)


def test_both_stores_are_stores(tmp_path: Path) -> None:
    features: Store = FeatureStore(tmp_path / "f", extract=lambda pixels: np.array([float(len(pixels))]), key="size")
    images: Store = ImageStore(tmp_path / "i")
    for store in (features, images):
        sha256 = store.write(b"abc")
        assert store.write(b"abc") == sha256
        assert store.holds(sha256)
        assert (store.remove(sha256), store.remove(sha256), store.holds(sha256)) == (True, False, False)
