"""The acquisition loop: from a sample of areas to kept images, resumable at any moment.

For each area of the sample: search, choose the images nearest to its sample points, fetch them. An area without
imagery is replaced by the next reserve of its stratum, and both facts are kept. The ledger knows every answer, so that
a second run asks only for what is missing, and a run beside this one never asks for the same.

A source may have two abilities that not all have: `complete(record) -> ImageRecord` fills in what searches leave out,
and `looks_at_points = True` says that its searches depend on the sample points.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import geopandas as gpd
import pandas as pd

from urbanprint.errors import BudgetSpent, InputError, MissingImages, SourceError, UrbanprintError
from urbanprint.imagery.choosing import choose
from urbanprint.imagery.ledger import TAKEN_DOWN, Ledger
from urbanprint.imagery.quality import Examined, examine
from urbanprint.imagery.records import ImageRecord, RejectedImage, Source
from urbanprint.imagery.searching import Progress, Searches
from urbanprint.imagery.store import Store
from urbanprint.settings import Quality
from urbanprint.sources.http import HttpStatusError
from urbanprint.sources.limits import ProviderDown

Inspect = Callable[[bytes], Examined]
"""Looks at a fetched body and says what it is, and why it is of no use if it is of none."""

Weed = Callable[[pd.DataFrame], Mapping[str, str]]
"""Looks at the fetched images of the run (`tables.IMAGES`) and returns which are of no use, image_id -> reason."""

BROKEN_TRANSFERS = frozenset({"not an image", "truncated"})
PASSING_REASONS = BROKEN_TRANSFERS | {"grey placeholder"}
"""Reasons of `Inspect` that a moment later may be gone: a broken transfer, a server in trouble."""

_LOOKS = 3  # times a body is asked for in a row while its reason may pass
_PAID_LOOKS = 2  # the same where each costs money; a placeholder is a whole answer, and never bought again
_GIVEN_UP_AFTER = 5  # runs in which an image failed while its provider was up
_REFUSED = frozenset({401, 403})  # the provider refuses us, not the image: it would refuse every other one too


@dataclass(frozen=True)
class Acquired:
    """What a run ends with: the manifest (`tables.IMAGES`) and the coverage (`tables.COVERAGE`)."""

    images: pd.DataFrame
    coverage: pd.DataFrame
    stopped: str | None = None
    """Why images are missing that could be had: the budget was spent, and what failed besides. None: none is."""


def acquire(
    *,
    areas: gpd.GeoDataFrame,
    sampled: pd.DataFrame,
    points: pd.DataFrame,
    source: Source,
    ledger: Ledger,
    store: Store,
    views: int,
    threads: int = 16,
    stale_after: timedelta | None = None,
    progress: Progress | None = None,
    inspect: Inspect | None = None,
    weed: Weed | None = None,
    pay_again: bool = False,
) -> Acquired:
    """Fetch up to `views` images for each sampled area and say what became of each.

    `areas` are all areas of the city (`tables.AREAS`): an image belongs to the one its position lies in, whichever
    search found it. `sampled` is `tables.SAMPLED_AREAS`, `points` `tables.SAMPLE_POINTS`. Searches older than
    `stale_after` are asked again. At most `threads` requests are under way at once; `inspect` looks at what has come
    while others wait for answers (None: `quality.examine` with the usual thresholds), `weed` after each round.

    A spent budget ends the run without an error: `Acquired.stopped` says so, and the next run with a larger one goes
    on. Everything fetched is kept as well when this raises `SourceError`, because images are missing that only a
    failing provider kept back (`ProviderDown` when it answers nothing any more), and the next run continues.
    Raises `UrbanprintError` for a store of pixels where the terms forbid one, and `InputError`, before anything is
    asked, where images that have been paid for are not in `store` and `pay_again` does not allow buying them again.
    """
    if store.keeps_pixels and not source.terms.may_store:
        raise UrbanprintError(
            f"the terms of {source.name} do not allow storing its pixels: give a FeatureStore, which keeps only "
            "features computed from them in memory"
        )
    store.sweep()
    with ledger.worker() as worker:
        run = _Run(
            areas=areas,
            points=points,
            source=source,
            ledger=ledger,
            store=store,
            worker=worker,
            views=views,
            threads=threads,
            stale_after=stale_after,
            progress=progress,
            inspect=inspect or partial(examine, quality=Quality()),
            weed=weed,
        )
        run.forget_lost(sampled["area_id"], pay_again=pay_again)
        coverage, stopped = _cover(run, sampled)
    if not stopped and not (coverage["outcome"] == "imaged").any():
        raise MissingImages(
            f"{source.name} has no usable image in any of the {len(coverage)} areas asked for: "
            "check the imagery source and the districts of the city"
        )
    images = ledger.manifest(source=source.name, areas=coverage["area_id"], request=source.request_key)
    return Acquired(images=images, coverage=coverage, stopped=stopped)


def _cover(run: "_Run", sampled: pd.DataFrame) -> tuple[pd.DataFrame, str | None]:
    """Have `run` fetch the sample, reserves in place of areas without imagery; return the coverage and `stopped`."""
    reserves = {
        stratum: list(group.sort_values("order")["area_id"])
        for stratum, group in sampled[sampled["role"] == "reserve"].groupby("stratum")
    }
    stratum_of = sampled.set_index("area_id")["stratum"]
    replaces: dict[str, str] = {}
    # All strata alternate, so that a run which the budget stops has a balanced sample and not the first decile.
    asked = list(sampled[sampled["role"] == "primary"].sort_values(["order", "stratum"])["area_id"])
    stopped: str | None = None
    while asked and stopped is None:
        run.search(asked)
        try:
            run.fetch(asked)
        except BudgetSpent as spent:
            missing = sum(len(run.wanted(area_id)) for area_id in run.covered)
            stopped = "; ".join([f"{spent}; {missing:,} images have not been asked for", *run.failures()])
        else:
            run.raise_failures()
        empty = [area_id for area_id in asked if not run.held(area_id)]
        asked = []
        for area_id in empty:
            if stopped is None and reserves.get(stratum_of[area_id]):
                asked.append(reserves[stratum_of[area_id]].pop(0))
                replaces[asked[-1]] = area_id

    def outcome(area_id: str, held: int) -> str:
        if held:
            return "imaged"
        # What the provider has kept back may be there: only an answer says that there is no imagery.
        open_still = area_id in run.failed_searches or run.wanted(area_id, asked=())
        return "not asked" if stopped and open_still else "no imagery"

    coverage = pd.DataFrame({"area_id": pd.Series(run.covered, dtype="str")})
    coverage = coverage.merge(sampled[["area_id", "stratum", "role"]], on="area_id", how="left", validate="1:1")
    coverage["images"] = [run.held(area_id) for area_id in run.covered]
    coverage["replaces"] = coverage["area_id"].map(replaces).astype("str").where(coverage["area_id"].isin(replaces))
    coverage["outcome"] = [outcome(*row) for row in zip(coverage["area_id"], coverage["images"], strict=True)]
    return coverage, stopped


@dataclass(kw_only=True)
class _Run(Searches):
    """One pass over areas that fetches what its searches find."""

    store: Store
    views: int
    inspect: Inspect
    weed: Weed | None
    covered: list[str] = field(default_factory=list)  # areas whose images are fetched, in the order of asking
    asked: set[str] = field(default_factory=set)  # images this run has asked for
    doubted: set[str] = field(default_factory=set)  # of these, those whose body was bad and that get a second look
    moved_to: set[str] = field(default_factory=set)  # areas that turned out to hold an image of another one
    failed_images: dict[str, tuple[str, str]] = field(default_factory=dict)  # image -> its area, why

    def fetch(self, area_ids: Sequence[str]) -> None:
        """Fetch what each area still wants; a rejected image gives way to the next nearest."""
        self.covered.extend(area_ids)
        unfinished = list(area_ids)
        while unfinished:
            wanted = [image for area_id in unfinished for image in self.wanted(area_id, asked=self.asked)]
            self.ledger.record_planned(self.source.name, [image["image_id"] for image in wanted])
            self.asked.update(image["image_id"] for image in wanted)
            self.moved_to.clear()
            try:
                self.each("fetching images", wanted, self._fetch)
            except BudgetSpent:
                self._weeded()  # what the run ends with has been looked through as well
                raise
            changed = {image["area_id"] for image in wanted} | self.moved_to | self._weeded()
            unfinished = [area_id for area_id in self.covered if area_id in changed]

    def forget_lost(self, area_ids: Iterable[str], *, pay_again: bool) -> None:
        """The ledger claims what the store has: where it has lost something, that is fetched anew.

        What costs money is not bought again unless `pay_again`: a store of other features lacks all that is paid for.
        """
        name = self.source.name
        fetched = self.ledger.manifest(source=name, areas=area_ids, request=self.source.request_key, state="fetched")
        kept = zip(fetched["image_id"], fetched["sha256"], strict=True)
        lost = [image_id for image_id, sha256 in kept if not self.store.holds(sha256)]
        if lost and self.source.price > 0 and not pay_again:
            raise InputError(
                f"{len(lost):,} images from {name} have been paid for and are not in the {self.store}: go back to the "
                f"store or the settings they were fetched with, or allow buying them again for "
                f"${len(lost) * self.source.price:,.2f} with pay_again=True"
            )
        for image_id in lost:
            self.ledger.record_removed(name, image_id, "it was no longer in the store")

    def wanted(self, area_id: str, *, asked: Iterable[str] | None = None) -> list[Mapping[str, Any]]:
        """The images the area still lacks; those `asked` for count as there, by default those that failed."""
        return choose(
            self._images_in(area_id),
            self.points_in(area_id),
            views=self.views,
            asked=set(self.failed_images) if asked is None else set(asked),
        )

    def held(self, area_id: str) -> int:
        """How many images of the area are kept."""
        return sum(image["state"] == "fetched" for image in self._images_in(area_id))

    def raise_failures(self) -> None:
        """Raise `SourceError` if the provider kept something back this time that is still wanted."""
        if failures := self.failures():
            raise SourceError(failures[0])

    def failures(self) -> list[str]:
        """What the provider kept back this time that is still wanted: a sentence on searches, one on images."""
        lacking = {area_id for area_id, _ in self.failed_images.values() if self.held(area_id) < self.views}
        images = {image_id: why for image_id, (area_id, why) in self.failed_images.items() if area_id in lacking}
        told = [self.told("searches", self.failed_searches), self.told("images", images)]
        return [sentence for sentence in told if sentence]

    def _images_in(self, area_id: str) -> list[Mapping[str, Any]]:
        return self.ledger.images_in(area_id, source=self.source.name, request=self.source.request_key)

    def _fetch(self, image: Mapping[str, Any]) -> bool:
        image_id = image["image_id"]
        claim = self.ledger.claim_image(self.source.name, image_id, worker=self.worker)
        if claim != "mine":
            return claim == "settled"
        self.failed_images.pop(image_id, None)
        try:
            record = self._completed(image)
            if record is None:
                self.ledger.release_image(self.source.name, image_id)
            else:
                self._keep(image_id, *self._sound(record))
        except RejectedImage as error:
            self.ledger.record_rejected(self.source.name, image_id, str(error))
        except ProviderDown as error:
            raise ProviderDown(f"{error}; run again when it is back, what has been fetched is kept") from None
        except SourceError as error:
            if isinstance(error, HttpStatusError) and error.status in _REFUSED:
                raise
            if image["attempts"] + 1 >= _GIVEN_UP_AFTER:
                reason = f"it failed {image['attempts'] + 1} times, last: {error}"
                self.ledger.record_rejected(self.source.name, image_id, reason)
            else:
                self.ledger.record_failed(self.source.name, image_id, str(error))
                self.failed_images[image_id] = image["area_id"], str(error)
        return True

    def _completed(self, image: Mapping[str, Any]) -> ImageRecord | None:
        """The record with what only the image's own entity knows, or None where that puts it in another area."""
        record = ImageRecord(**{name: image[name] for name in ImageRecord.__dataclass_fields__})
        complete = getattr(self.source, "complete", None)
        if complete is None or (record.creator is not None and record.address is not None):
            return record
        with self.asking:
            record = complete(record)
        lies_in = self.lie_in([record])[0]
        self.ledger.record_completed(self.source.name, record, area_id=lies_in, terms=self.source.terms)
        if lies_in == image["area_id"]:
            return record
        # Known to the right area from now on, which may want it; this one takes its next nearest.
        self.asked.discard(record.image_id)
        self.moved_to.add(lies_in)
        return None

    def _sound(self, record: ImageRecord) -> tuple[bytes, Examined]:
        """The body and what it shows, asked for again while its fault may pass: if paid, once and if it came broken."""
        free = self.source.price == 0
        looks, passing = (_LOOKS, PASSING_REASONS) if free else (_PAID_LOOKS, BROKEN_TRANSFERS)
        for look in range(looks):
            with self.asking:
                pixels = self.source.fetch(record)
            seen = self.inspect(pixels)
            if seen.reason is None:
                return pixels, seen
            if seen.reason not in passing:
                break
            if look + 1 == looks and free and record.image_id not in self.doubted:
                # A server in trouble gives bad bodies to all who ask: look again when the others are through.
                self.doubted.add(record.image_id)
                self.asked.discard(record.image_id)
                raise SourceError(seen.reason)
        raise RejectedImage(str(seen.reason))

    def _keep(self, image_id: str, pixels: bytes, seen: Examined) -> None:
        """Store and record at once: what lies between is all that a kill can lose of a body that has come."""
        if self.ledger.is_taken_down(image_id, hashlib.sha256(pixels).hexdigest()):
            raise RejectedImage(TAKEN_DOWN)
        sha256 = self.store.write(pixels)
        kept = self.ledger.record_fetched(
            self.source.name,
            image_id,
            sha256=sha256,
            width=int(seen.width or 0),
            height=int(seen.height or 0),
            phash=seen.phash,
        )
        if not kept:  # taken down in this very moment
            self.store.remove(sha256)

    def _weeded(self) -> set[str]:
        """Reject what `weed` has no use for; return the areas that lack an image now."""
        if self.weed is None:
            return set()
        name, request = self.source.name, self.source.request_key
        fetched = self.ledger.manifest(source=name, areas=self.covered, request=request, state="fetched")
        reasons = self.weed(fetched)
        self.ledger.weed(name, reasons)
        weeded = fetched[fetched["image_id"].isin(list(reasons))]
        if self.store.keeps_pixels:
            for sha256 in set(weeded["sha256"]):
                if not self.ledger.is_kept(sha256):
                    self.store.remove(sha256)
        return set(weeded["area_id"])
