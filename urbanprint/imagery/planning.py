"""What a run will ask of an imagery provider, known before the first request leaves."""

from dataclasses import asdict, dataclass

import pandas as pd

from urbanprint.catalogue import City


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Requests of the coming run, at most: what has been fetched before is not asked for again."""

    areas: int
    """Areas asked for at first; reserves are asked only in place of areas without imagery."""
    reserves: int
    points: int
    searches: int
    images: int
    minutes: float | None
    """Least time under the provider's rate limit; None where there is no limit."""
    price: str

    def as_table(self) -> pd.DataFrame:
        """Return the plan as a table of one row; minutes are NaN where there is no limit."""
        return pd.DataFrame([asdict(self)]).astype({"minutes": float})


def plan_imagery(city: City, sampled: pd.DataFrame, points: pd.DataFrame) -> Plan:
    """Return the plan for `sampled` (`tables.SAMPLED_AREAS`) and `points` (`tables.SAMPLE_POINTS`) of `city`.

    One search an area and one request an image; a search splits where the provider's answer is full. Both providers
    so far are free of charge.
    """
    primary = sampled[sampled["role"] == "primary"]
    images = len(primary) * city.sample.views
    limit = city.imagery.per_minute
    return Plan(
        areas=len(primary),
        reserves=len(sampled) - len(primary),
        points=int(points["area_id"].isin(primary["area_id"]).sum()),
        searches=len(primary),
        images=images,
        minutes=(len(primary) + images) / limit if limit else None,
        price="free of charge",
    )
