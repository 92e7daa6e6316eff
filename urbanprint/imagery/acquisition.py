"""The acquisition loop: from a sample of areas to stored images, resumable at any moment.

For each area of the sample: search, choose the images nearest to its sample points, fetch them. An area without
imagery is replaced by the next reserve of its stratum, and both facts are kept. The ledger knows every answer, so that
a second run asks only for what is missing.
"""

import io
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from PIL import Image, UnidentifiedImageError

from urbanprint.areas import assign
from urbanprint.errors import MissingImages, SourceError, UrbanprintError
from urbanprint.imagery.ledger import Ledger
from urbanprint.imagery.records import ImageRecord, RejectedImage, Source
from urbanprint.imagery.store import ImageStore

Progress = Callable[[str, int, int], None]
"""Called as (what is being done, how many are done, how many there are)."""

_FETCHES = 3  # times a body that is no whole image is asked for before it is given up
_PROVIDER_DOWN_AFTER = 25  # failures in a row: the provider is down, and asking on only makes it worse


@dataclass(frozen=True)
class Acquired:
    """What a run ends with: the manifest (`tables.IMAGES`) and the coverage (`tables.COVERAGE`)."""

    images: pd.DataFrame
    coverage: pd.DataFrame


def acquire(
    *,
    areas: gpd.GeoDataFrame,
    sampled: pd.DataFrame,
    points: pd.DataFrame,
    source: Source,
    ledger: Ledger,
    store: ImageStore,
    views: int,
    threads: int = 16,
    stale_after: timedelta | None = None,
    progress: Progress | None = None,
) -> Acquired:
    """Fetch up to `views` images for each sampled area and say what became of each.

    `areas` are all areas of the city (`tables.AREAS`): an image belongs to the one its position lies in, whichever
    search found it. `sampled` is `tables.SAMPLED_AREAS`, `points` `tables.SAMPLE_POINTS`. Searches older than
    `stale_after` are asked again. Raises `SourceError` when images are missing only because the provider failed:
    everything fetched is kept, and the next run continues.
    """
    if not source.terms.may_store:
        raise UrbanprintError(f"the terms of {source.name} do not allow storing images, which this step does")
    report = progress or (lambda _what, _done, _of: None)
    run = _Run(areas, points, source, ledger, store, views, threads, stale_after, report)
    reserves = {
        stratum: list(group.sort_values("order")["area_id"])
        for stratum, group in sampled[sampled["role"] == "reserve"].groupby("stratum")
    }
    facts = sampled.set_index("area_id")
    rows: list[dict[str, Any]] = []
    replaces: dict[str, str] = {}
    asked = list(sampled[sampled["role"] == "primary"].sort_values(["stratum", "order"])["area_id"])
    while asked:
        run.search(asked)
        run.fetch(asked)
        replacements = []
        for area_id in asked:
            held = run.fetched(area_id)
            stratum, role = facts.loc[area_id, ["stratum", "role"]]
            rows.append(
                {
                    "area_id": area_id,
                    "stratum": int(stratum),
                    "role": role,
                    "images": held,
                    "replaces": replaces.get(area_id),
                    "outcome": "imaged" if held else "no imagery",
                }
            )
            if not held and reserves.get(stratum):
                reserve = reserves[stratum].pop(0)
                replaces[reserve] = area_id
                replacements.append(reserve)
        asked = replacements
    coverage = pd.DataFrame(rows).astype({"replaces": "str"})
    coverage["replaces"] = coverage["replaces"].where(coverage["area_id"].isin(list(replaces)))
    if not (coverage["outcome"] == "imaged").any():
        raise MissingImages(
            f"{source.name} has no usable image in any of the {len(coverage)} areas asked for: "
            "check the imagery source and the districts of the city"
        )
    return Acquired(images=ledger.manifest(source=source.name, areas=coverage["area_id"]), coverage=coverage)


class _Run:
    """One pass over areas: what all its threads share."""

    def __init__(
        self,
        areas: gpd.GeoDataFrame,
        points: pd.DataFrame,
        source: Source,
        ledger: Ledger,
        store: ImageStore,
        views: int,
        threads: int,
        stale_after: timedelta | None,
        report: Progress,
    ) -> None:
        self._areas = areas
        self._shapes = areas.set_index("area_id").geometry
        self._points = {key: group[["longitude", "latitude"]].to_numpy() for key, group in points.groupby("area_id")}
        self._source, self._ledger, self._store = source, ledger, store
        self._views, self._threads, self._report = views, threads, report
        self._since = 0.0 if stale_after is None else time.time() - stale_after.total_seconds()
        self._failures = 0

    def search(self, area_ids: Sequence[str]) -> None:
        """Search each area that has not been searched yet."""
        answered = self._ledger.searched(self._source.request_key, since=self._since)
        self._each("searching areas", [area for area in area_ids if area not in answered], self._search)

    def fetch(self, area_ids: Sequence[str]) -> None:
        """Fetch what each area still wants; a rejected image gives way to the next nearest."""
        asked: set[str] = set()
        while True:
            wanted = [
                image
                for area_id in area_ids
                for image in choose(
                    self._ledger.images_in(area_id, source=self._source.name),
                    self._points.get(area_id, np.empty((0, 2))),
                    views=self._views,
                    asked=asked,
                )
            ]
            if not wanted:
                break
            asked |= {image["image_id"] for image in wanted}
            self._each("fetching images", wanted, self._fetch)
        failed = [
            i for a in area_ids for i in self._ledger.images_in(a, source=self._source.name) if i["state"] == "failed"
        ]
        if failed:
            raise SourceError(
                f"{len(failed)} images could not be fetched from {self._source.name} this time "
                f"(first: image {failed[0]['image_id']}, {failed[0]['reason']}); run again to ask for those alone"
            )

    def fetched(self, area_id: str) -> int:
        """How many images of the area are stored."""
        held = self._ledger.images_in(area_id, source=self._source.name)
        return sum(image["state"] == "fetched" for image in held)

    def _each(self, what: str, items: Sequence[Any], work: Callable[[Any], None]) -> None:
        if not items:
            return
        with ThreadPoolExecutor(self._threads) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    future.result()
                    self._report(what, done, len(futures))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _search(self, area_id: str) -> None:
        records = list(self._source.find(self._shapes[area_id]))
        longitudes = np.array([record.longitude for record in records])
        latitudes = np.array([record.latitude for record in records])
        near: gpd.GeoDataFrame = self._areas.iloc[:0]
        if records:
            around = shapely.box(longitudes.min(), latitudes.min(), longitudes.max(), latitudes.max())
            near = self._areas.iloc[self._areas.sindex.query(around)]
        lies_in = assign(longitudes, latitudes, near)
        self._ledger.record_search(
            area_id,
            self._source.request_key,
            source=self._source.name,
            terms=self._source.terms,
            found=zip(records, lies_in, strict=True),
        )

    def _fetch(self, image: Mapping[str, Any]) -> None:
        source, image_id = self._source.name, image["image_id"]
        record = ImageRecord(**{name: image[name] for name in ImageRecord.__dataclass_fields__})
        try:
            pixels, (width, height) = self._whole(record)
        except RejectedImage as error:
            self._ledger.record_rejected(source, image_id, str(error))
        except SourceError as error:
            self._ledger.record_failed(source, image_id, str(error))
            self._failures += 1
            if self._failures >= _PROVIDER_DOWN_AFTER:
                raise SourceError(
                    f"{source} failed {self._failures} times in a row, last: {error}; run again when it is back, "
                    "what has been fetched is kept"
                ) from None
            return
        else:
            self._ledger.record_fetched(source, image_id, sha256=self._store.write(pixels), width=width, height=height)
        self._failures = 0

    def _whole(self, record: ImageRecord) -> tuple[bytes, tuple[int, int]]:
        """Fetch until the body decodes completely: a truncated picture is a broken transfer, not a bad picture."""
        for attempt in range(_FETCHES):
            pixels = self._source.fetch(record)
            try:
                with Image.open(io.BytesIO(pixels)) as picture:
                    picture.load()
                    return pixels, picture.size
            except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
                if attempt + 1 == _FETCHES:
                    raise RejectedImage("it is not a whole image") from None
        raise AssertionError  # the loop returns or raises


def choose(
    images: Iterable[Mapping[str, Any]], points: np.ndarray, *, views: int, asked: Container[str] = ()
) -> list[Mapping[str, Any]]:
    """Return which images of an area to fetch next so that it ends with `views`, nearest to the sample points first.

    `images` are ledger rows of one area; `points` is (n, 2) longitude, latitude in degrees. Each point takes its
    nearest free image in turn; further views take what is nearest to any point. Rejected images are passed over.
    Fetched ones count as held, and so do those `asked` for in this run: one that failed is not replaced, because the
    next run asks for it again and the choice has to stay the same.
    """
    usable = [image for image in images if image["state"] != "rejected"]
    held = [image["state"] == "fetched" or image["image_id"] in asked for image in usable]
    missing = views - sum(held)
    if missing <= 0 or all(held):
        return []
    # Metres on the local tangent plane, up to one common factor: a degree of longitude shrinks with the latitude.
    scale = np.array([np.cos(np.radians(np.mean([image["latitude"] for image in usable]))), 1.0])
    positions = np.array([[image["longitude"], image["latitude"]] for image in usable]) * scale
    targets = points * scale if len(points) else positions.mean(axis=0, keepdims=True)
    distance = np.linalg.norm(targets[:, None] - positions[None], axis=2)
    taken: list[int] = []
    for row in [*distance, *[distance.min(axis=0)] * views][:views]:
        taken += [index for index in np.argsort(row, kind="stable") if index not in taken][:1]
    # An earlier choice that is held may not be among the nearest any more: the missing ones are still filled up.
    free = [*[index for index in taken if not held[index]], *np.argsort(distance.min(axis=0), kind="stable")]
    return [usable[index] for index in dict.fromkeys(free) if not held[index]][:missing]
