"""Searching areas: which images a provider has there, asked once and remembered; free with every provider.

Belongs here: the pass over areas, its threads and claims. What is fetched of it is for `acquisition.py`.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from urbanprint.areas import assign
from urbanprint.errors import SourceError
from urbanprint.imagery.claims import Worker
from urbanprint.imagery.ledger import Ledger
from urbanprint.imagery.records import ImageRecord, Source
from urbanprint.sources.http import HttpStatusError
from urbanprint.sources.limits import ProviderDown

Progress = Callable[[str, int, int], None]
"""Called as (what is being done, how many are done, how many there are)."""

_POLL_S = 0.25


def find_images(
    *,
    areas: gpd.GeoDataFrame,
    sampled: pd.DataFrame,
    points: pd.DataFrame,
    source: Source,
    ledger: Ledger,
    threads: int = 16,
    progress: Progress | None = None,
) -> None:
    """Search the areas that a run would ask for at first, so that a plan knows what there is; nothing is fetched.

    Tables as in `acquire`. What was searched before is not asked again, and `acquire` asks none of this again. Raises
    `SourceError` when the provider kept something back.
    """
    with ledger.worker() as worker:
        searches = Searches(
            areas=areas, points=points, source=source, ledger=ledger, worker=worker, threads=threads, progress=progress
        )
        searches.search(list(sampled.loc[sampled["role"] == "primary", "area_id"]))
        searches.raise_failed("searches", searches.failed_searches)


@dataclass(kw_only=True)
class Searches:
    """One pass over areas: what all its threads share."""

    areas: gpd.GeoDataFrame
    points: pd.DataFrame
    source: Source
    ledger: Ledger
    worker: Worker
    threads: int
    stale_after: timedelta | None = None
    progress: Progress | None = None
    asking: threading.BoundedSemaphore = field(init=False)  # held while the source is asked
    failed_searches: dict[str, str] = field(default_factory=dict)  # area -> why

    def __post_init__(self) -> None:
        self.asking = threading.BoundedSemaphore(self.threads)
        self._since = 0.0 if self.stale_after is None else time.time() - self.stale_after.total_seconds()
        self._shapes = self.areas.set_index("area_id").geometry
        positions = self.points[["longitude", "latitude"]].to_numpy()
        rows = self.points.groupby("area_id").indices
        self._points = {str(area_id): positions[at] for area_id, at in rows.items()}
        self._report = self.progress or (lambda _what, _done, _of: None)
        self.areas.sindex  # noqa: B018  built here, once, before threads share it

    def search(self, area_ids: Sequence[str]) -> None:
        """Search each area that has not been searched yet; failures wait for `raise_failed`."""
        self.each("searching areas", area_ids, self._search)

    def raise_failed(self, what: str, failures: Mapping[str, str]) -> None:
        """Raise `SourceError` for what the provider kept back this time, name -> why, if there is any."""
        if sentence := self.told(what, failures):
            raise SourceError(sentence)

    def told(self, what: str, failures: Mapping[str, str]) -> str:
        """Return in a sentence what the provider kept back this time, name -> why; empty if it kept nothing back."""
        if not failures:
            return ""
        first = min(failures)
        return (
            f"{len(failures)} {what} failed at {self.source.name} this time (first: {first}, {failures[first]}); "
            "run again to ask for those alone"
        )

    def points_in(self, area_id: str) -> np.ndarray:
        """The sample points of an area, (n, 2) longitude and latitude in degrees."""
        return self._points.get(area_id, np.empty((0, 2)))

    def each(self, what: str, items: Sequence[Any], work: Callable[[Any], bool]) -> None:
        """Do `work` for each item in threads; where it returns False another run has the item: wait for that one."""
        waiting, done = list(items), 0
        # As many threads again as requests may be under way: what has come is looked at while others wait for answers.
        with ThreadPoolExecutor(2 * self.threads) as pool:
            while waiting:
                futures = {pool.submit(work, item): item for item in waiting}
                waiting = []
                try:
                    for future in as_completed(futures):
                        if future.result():
                            done += 1
                            self._report(what, done, len(items))
                        else:
                            waiting.append(futures[future])
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
                if waiting:
                    time.sleep(_POLL_S)

    def _search(self, area_id: str) -> bool:
        request, points = self.source.request_key, self.points_in(area_id)
        place = _place(self._shapes[area_id].bounds, points if getattr(self.source, "looks_at_points", False) else None)
        claim = self.ledger.claim_search(area_id, request + place, worker=self.worker, since=self._since)
        if claim != "mine":
            return claim == "settled"
        try:
            with self.asking:
                records = list(self.source.find(self._shapes[area_id], points))
        except (ProviderDown, HttpStatusError):
            raise
        except SourceError as error:
            # Given back at once: two runs would else wait for each other's failures.
            self.ledger.release_search(area_id, request + place)
            self.failed_searches[area_id] = str(error)
            return True
        self.ledger.record_search(
            area_id,
            request,
            source=self.source.name,
            terms=self.source.terms,
            found=zip(records, self.lie_in(records), strict=True),
            place=place,
        )
        return True

    def lie_in(self, records: Sequence[ImageRecord]) -> np.ndarray:
        """The area each record lies in, or None: an object array of shape (n,)."""
        if not records:
            return np.empty(0, dtype=object)
        longitudes = np.array([record.longitude for record in records])
        latitudes = np.array([record.latitude for record in records])
        around = shapely.box(longitudes.min(), latitudes.min(), longitudes.max(), latitudes.max())
        return assign(longitudes, latitudes, self.areas.iloc[self.areas.sindex.query(around)])


def _place(bounds: Sequence[float], points: np.ndarray | None) -> str:
    """What in an area decides the answer of a search, as a digest: a changed area is another request."""
    digest = hashlib.blake2b(np.round(bounds, 7).tobytes(), digest_size=8)
    if points is not None:
        digest.update(np.round(points, 7).tobytes())
    return f"#{digest.hexdigest()}"
