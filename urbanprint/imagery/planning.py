"""What a run will ask of an imagery provider and what it will cost, known before the first request leaves."""

from dataclasses import asdict, dataclass

import pandas as pd

from urbanprint.imagery.ledger import Ledger
from urbanprint.imagery.store import Store
from urbanprint.settings import Place, World


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Requests of the coming run, at most: what has been fetched before is not asked for again."""

    areas: int
    """Areas asked for at first; reserves are asked only in place of areas without imagery."""
    reserves: int
    points: int
    searches: int
    """Free requests that find images; areas searched before are not searched again.

    Exact only with the source's request key: without it, an area searched with any request counts as searched.
    """
    found: int
    """Usable images of these areas that earlier, free searches have found."""
    held: int
    """Of these, the images that have been fetched and, where a store is given, are there."""
    images: int
    """Images to fetch, as many as the budget allows."""
    minutes: float | None
    """Least time under the provider's rate limit; None where there is no limit."""
    budget: int | None
    """Paid requests that may still leave; None where there is no budget."""
    price: str

    def as_table(self) -> pd.DataFrame:
        """Return the plan as a table of one row; minutes and budget are NaN where there is no limit."""
        return pd.DataFrame([asdict(self)]).astype({"minutes": float, "budget": float})


def plan_imagery(
    city: Place | World,
    sampled: pd.DataFrame,
    points: pd.DataFrame,
    *,
    ledger: Ledger | None = None,
    store: Store | None = None,
    source_name: str | None = None,
    request: str | None = None,
    price: float = 0.0,
    budget_images: int | None = None,
    per_image_requests: float = 1.0,
    searches_points: bool = False,
) -> Plan:
    """Return the plan for `sampled` (`tables.SAMPLED_AREAS`) and `points` (`tables.SAMPLE_POINTS`) of `city`.

    One search an area, or a point of it with `searches_points`; a search splits where the provider's answer is full.
    `ledger` is what earlier runs have left, under `source_name` (None: the city's provider) and, if given, the source's
    `request` key; what `store` lacks of it is to be fetched again. `price` is that of one image in US dollars,
    `budget_images` the whole budget of paid requests, of which the ledger knows what is spent (a free provider has
    none), `per_image_requests` how many requests an image takes under the rate limit.
    """
    name = source_name or city.imagery.provider
    primary = sampled.loc[sampled["role"] == "primary", "area_id"]
    primary_points = points["area_id"][points["area_id"].isin(primary)]
    known = pd.DataFrame({"usable": 0, "fetched": 0}, index=pd.Index(primary))
    searched = pd.Series(False, index=known.index)
    if ledger is not None:
        known.update(ledger.known_by_area(source=name, request=request).set_index("area_id"))
        if store is not None:
            fetched = ledger.manifest(source=name, areas=primary, request=request, state="fetched")
            there = fetched.loc[[store.holds(sha256) for sha256 in fetched["sha256"]], "area_id"]
            known["fetched"] = there.value_counts().reindex(known.index, fill_value=0)
        searched |= known.index.isin(ledger.areas_searched(request=request))
    # What a searched area can give is known; the others may give all their views.
    views = known["usable"].clip(upper=city.sample.views).where(searched, city.sample.views)
    images = int((views - known["fetched"]).clip(lower=0).sum())
    left = None
    if budget_images is not None and price > 0:
        left = max(0, budget_images - (ledger.spent(name) if ledger is not None else 0))
        images = min(images, left)
    searches = int((~searched[primary_points]).sum()) if searches_points else int((~searched).sum())
    limit = city.imagery.per_minute
    return Plan(
        areas=len(primary),
        reserves=len(sampled) - len(primary),
        points=len(primary_points),
        searches=searches,
        found=int(known["usable"].sum()),
        held=int(known["fetched"].sum()),
        images=images,
        minutes=(searches + images * per_image_requests) / limit if limit else None,
        budget=left,
        price=f"${images * price:,.2f}" if price else "free of charge",
    )
