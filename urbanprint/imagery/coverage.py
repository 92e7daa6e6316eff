"""Who is in the picture: the share of areas, street points and people with imagery, by deprivation.

Where deprived areas have less imagery, a map made of imagery knows least about those it is about. Belongs here: the
shares, their intervals, the gap between the extremes, and which areas hold enough images to speak of. Not here: the
search itself, and drawings.
"""

from typing import Final

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from urbanprint.errors import InputError
from urbanprint.imagery.quality import geocentric
from urbanprint.tables import COVERAGE_BIAS

ANY: Final = "any"
"""Stands for all sources together, and for all years together and images without a date."""

COVERED: Final[dict[str, str]] = {
    "areas": "areas with imagery",
    "points": "street points with an image nearby",
    "people": "people in areas with imagery",
}
"""What a share is of: identifier -> name for people."""

GAP_COLUMNS: Final = ("measure", "source", "year", "most_deprived", "least_deprived", "gap", "low", "high")
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


def coverage_bias(
    areas: pd.DataFrame,
    sampled: pd.DataFrame,
    points: pd.DataFrame,
    images: pd.DataFrame,
    coverage: pd.DataFrame,
    *,
    within_m: float = 50.0,
    least_images: int = 1,
) -> pd.DataFrame:
    """Return the share with imagery by measure, source, year of capture and decile (`tables.COVERAGE_BIAS`).

    Of the areas asked for (`coverage`, `tables.COVERAGE`): `areas` counts those that hold at least `least_images`
    fetched images, `people` those who live there (areas without a published population left out), `points` the sample
    points with a fetched image within `within_m` metres, whichever area it lies in. Deciles are the strata of `sampled`
    and run 1..10, a decile that was not asked has a total of 0 and no share. Source and year "any" are always there;
    an image without a date counts in no single year.

    Intervals are Wilson's at 95 % for areas and points. Points of an area share its streets, which that interval does
    not know: it is too narrow. People are counted, not drawn, and have none.
    Raises `InputError` where an area asked for is not among the sampled ones.
    """
    asked = coverage.loc[coverage["outcome"] != "not asked", "area_id"]
    stratum = sampled.set_index("area_id")["stratum"]
    if not (known := asked.isin(stratum.index)).all():
        raise InputError(
            f"area {asked[~known].iloc[0]} was asked for images but is not in the sample: sample and coverage belong "
            "to two runs, materialize them together"
        )
    decile = asked.map(stratum).to_numpy(dtype=int)
    population = asked.map(areas.set_index("area_id")["population"]).fillna(0.0).to_numpy(dtype=float)
    points = points[points["area_id"].isin(asked)]
    places = geocentric(points["longitude"].to_numpy(), points["latitude"].to_numpy())
    point_decile = points["area_id"].map(stratum).to_numpy(dtype=int)

    fetched = images[images["state"] == "fetched"]
    year = fetched["captured_at"].dt.year
    at = geocentric(fetched["longitude"].to_numpy(), fetched["latitude"].to_numpy())
    tables = []
    for source in (ANY, *sorted(fetched["source"].unique())):
        for when in (ANY, *sorted(year.dropna().astype(int).unique())):
            chosen = np.ones(len(fetched), dtype=bool)
            if source != ANY:
                chosen &= (fetched["source"] == source).to_numpy()
            if when != ANY:
                chosen &= (year == when).to_numpy()
            held = asked.map(fetched.loc[chosen, "area_id"].value_counts()).fillna(0).to_numpy()
            imaged = held >= least_images
            seen = _near(places, at[chosen], within_m)
            for measure, covers, weights, of in (
                ("areas", imaged, np.ones(len(asked)), decile),
                ("points", seen, np.ones(len(points)), point_decile),
                ("people", imaged, population, decile),
            ):
                covered = np.bincount(of, weights * covers, minlength=11)[1:]
                total = np.bincount(of, weights, minlength=11)[1:]
                low, high = wilson(covered, total) if measure != "people" else (np.nan, np.nan)
                tables.append(
                    pd.DataFrame(
                        {"measure": measure, "source": source, "year": str(when), "decile": range(1, 11),
                         "covered": covered, "total": total, "share": _share(covered, total), "low": low, "high": high}
                    )
                )  # fmt: skip
    return COVERAGE_BIAS.validate(pd.concat(tables, ignore_index=True))


def coverage_gap(bias: pd.DataFrame) -> pd.DataFrame:
    """Return how much smaller the share is in the most deprived decile than in the least (`GAP_COLUMNS`).

    A row a measure, source and year of `bias` (`tables.COVERAGE_BIAS`); the deciles compared are the outermost that
    were asked for. `gap` is the share of the least deprived minus that of the most deprived, in [-1, 1]: above 0,
    deprived areas are seen less. The 95 % interval is Newcombe's from the two Wilson intervals (Newcombe 1998,
    "Interval estimation for the difference between independent proportions", method 10); people have none.
    """
    rows = []
    for key, group in bias[bias["total"] > 0].sort_values("decile").groupby(["measure", "source", "year"], sort=False):
        most, least = group.iloc[0], group.iloc[-1]
        gap = least["share"] - most["share"]
        low = gap - np.hypot(least["share"] - least["low"], most["high"] - most["share"])
        high = gap + np.hypot(least["high"] - least["share"], most["share"] - most["low"])
        rows.append((*key, int(most["decile"]), int(least["decile"]), gap, low, high))
    return pd.DataFrame(rows, columns=list(GAP_COLUMNS))


def enough_images(coverage: pd.DataFrame, least: int) -> pd.Series:
    """Return area_id -> whether the area holds at least `least` images: of the others, later steps say nothing."""
    return (coverage.set_index("area_id")["images"] >= least).rename("enough_images")


def wilson(covered: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 95 % interval of a share, NaN where the total is 0.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    trials = np.where(total > 0, total, np.nan)
    share = covered / trials
    middle = (share + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    half = _Z / (1 + _Z**2 / trials) * np.sqrt(share * (1 - share) / trials + (_Z / (2 * trials)) ** 2)
    return np.clip(middle - half, 0.0, share), np.clip(middle + half, share, 1.0)


def _share(covered: np.ndarray, total: np.ndarray) -> np.ndarray:
    return covered / np.where(total > 0, total, np.nan)


def _near(places: np.ndarray, images: np.ndarray, within_m: float) -> np.ndarray:
    """Which of `places` have an image within `within_m` metres; both in metres, shape (n, 3)."""
    if not len(places) or not len(images):
        return np.zeros(len(places), dtype=bool)
    distance, _ = KDTree(images).query(places, distance_upper_bound=np.nextafter(within_m, np.inf))
    return np.isfinite(distance)
