"""The tables that flow through the graph: one schema a table, read by the library and by the asset checks alike.

Coordinates are degrees in EPSG:4326. Ranks are as published, 1 = most deprived. Deciles run 1..10, 1 = most deprived.
`<indicator>_deprivation` is the normalised rank in [0, 1], 1 = most deprived: 1 - (rank - 1) / (n - 1), n the number
of areas ranked in the edition (the whole country, not the city).
"""

import hashlib

import pandas as pd
import pandera.pandas as pa

from urbanprint.vocabulary import FOLD_KINDS, IMAGE_STATES, INDICATORS, LIVELIHOODS, MEASURES, TASK_MEASURES, TASKS


def _text(*, nullable: bool = False, unique: bool = False) -> pa.Column:
    return pa.Column(
        str, nullable=nullable, unique=unique, checks=None if nullable else pa.Check.str_length(min_value=1)
    )


def _unit(*, nullable: bool = False) -> pa.Column:
    return pa.Column(float, pa.Check.in_range(0.0, 1.0), nullable=nullable)


_INDICATOR_COLUMNS: dict[str, pa.Column] = {}
for _indicator in INDICATORS:
    _INDICATOR_COLUMNS[f"{_indicator}_score"] = pa.Column(float, nullable=True)
    _INDICATOR_COLUMNS[f"{_indicator}_rank"] = pa.Column(float, pa.Check.ge(1), nullable=True)
    _INDICATOR_COLUMNS[f"{_indicator}_decile"] = pa.Column(float, pa.Check.in_range(1, 10), nullable=True)
    _INDICATOR_COLUMNS[f"{_indicator}_deprivation"] = _unit(nullable=True)

_POSITION = {
    "longitude": pa.Column(float, pa.Check.in_range(-180.0, 180.0)),
    "latitude": pa.Column(float, pa.Check.in_range(-90.0, 90.0)),
}

DEPRIVATION = pa.DataFrameSchema(
    {
        "edition": _text(),
        "area_id": _text(),
        "name": _text(),
        "district_code": _text(),
        "district": _text(),
        "population": pa.Column(float, pa.Check.ge(0), nullable=True),
        **_INDICATOR_COLUMNS,
    },
    unique=["edition", "area_id"],
    strict=True,
    name="deprivation",
)
"""Published statistics, a row an area of an edition."""

BOUNDARIES = pa.DataFrameSchema(
    {"edition": _text(), "area_id": _text(), "geometry": pa.Column(nullable=False)},
    unique=["edition", "area_id"],
    strict=True,
    name="boundaries",
)
"""Boundaries, a row an area of an edition, valid (Multi)Polygons in EPSG:4326."""

AREAS = pa.DataFrameSchema(
    {
        "area_id": _text(unique=True),
        "name": _text(),
        "district_code": _text(),
        "district": _text(),
        "population": pa.Column(float, pa.Check.ge(0), nullable=True),
        **_INDICATOR_COLUMNS,
        "geometry": pa.Column(nullable=False),
    },
    strict=True,
    name="areas",
)
"""The one table everything joins to: the areas of a city with statistics and geometry."""

SAMPLED_AREAS = pa.DataFrameSchema(
    {
        "area_id": _text(unique=True),
        "stratum": pa.Column(int, pa.Check.in_range(1, 10)),
        "order": pa.Column(int, pa.Check.ge(0)),
        "role": pa.Column(str, pa.Check.isin(["primary", "reserve"])),
    },
    strict=True,
    name="sampled_areas",
)
"""Every area of the city in the order its stratum draws it: the first are `primary`, the rest `reserve`."""

SAMPLE_POINTS = pa.DataFrameSchema(
    {"point_id": _text(unique=True), "area_id": _text(), **_POSITION}, strict=True, name="sample_points"
)
"""Points inside each area at which a view is wanted, at least the minimum spacing in metres apart."""

IMAGES = pa.DataFrameSchema(
    {
        "image_id": _text(unique=True),
        "source": _text(),
        "sequence_id": _text(),
        "creator": _text(nullable=True),
        "captured_at": pa.Column("datetime64[ms, UTC]", nullable=True, coerce=True),
        **_POSITION,
        "heading": pa.Column(float, pa.Check.in_range(0.0, 360.0), nullable=True),
        "licence": _text(),
        "attribution": _text(),
        "request": _text(nullable=True),
        "area_id": _text(nullable=True),
        "state": pa.Column(str, pa.Check.isin(IMAGE_STATES)),
        "reason": _text(nullable=True),
        "attempts": pa.Column(int, pa.Check.ge(0)),
        "sha256": _text(nullable=True),
        "phash": _text(nullable=True),
        "width": pa.Column(float, nullable=True),
        "height": pa.Column(float, nullable=True),
    },
    strict=True,
    name="images",
)
"""The manifest, a row an image: where it is from, which area it lies in, what became of it."""

COVERAGE = pa.DataFrameSchema(
    {
        "area_id": _text(unique=True),
        "stratum": pa.Column(int, pa.Check.in_range(1, 10)),
        "role": pa.Column(str, pa.Check.isin(["primary", "reserve"])),
        "images": pa.Column(int, pa.Check.ge(0)),
        "replaces": _text(nullable=True),
        "outcome": pa.Column(str, pa.Check.isin(["imaged", "no imagery", "not asked"])),
    },
    strict=True,
    name="image_coverage",
)
"""What the search for images met, a row an area that was asked for; "not asked": the budget was spent before it."""

IMAGE_QUALITY = pa.DataFrameSchema(
    {
        "source": _text(),
        "decile": pa.Column(float, pa.Check.in_range(1, 10), nullable=True),
        "reason": _text(),
        "images": pa.Column(int, pa.Check.ge(1)),
        "share": _unit(),
    },
    unique=["source", "decile", "reason"],
    strict=True,
    name="image_quality",
)
"""How many images were kept and how many rejected for which reason, by source and deprivation decile of the area."""

COVERAGE_BIAS = pa.DataFrameSchema(
    {
        "measure": pa.Column(str, pa.Check.isin(["areas", "points", "people"])),
        "source": _text(),
        "year": _text(),
        "decile": pa.Column(int, pa.Check.in_range(1, 10)),
        "covered": pa.Column(float, pa.Check.ge(0)),
        "total": pa.Column(float, pa.Check.ge(0)),
        "share": _unit(nullable=True),
        "low": _unit(nullable=True),
        "high": _unit(nullable=True),
    },
    unique=["measure", "source", "year", "decile"],
    strict=True,
    name="coverage_bias",
)
"""Share of areas, street points and people with imagery, by deprivation decile, source and year of capture."""

FOLDS = pa.DataFrameSchema(
    {
        "area_id": _text(),
        "kind": pa.Column(str, pa.Check.isin(list(FOLD_KINDS))),
        "fold": pa.Column(int, pa.Check.ge(0)),
        "borough": _text(),
        "block": _text(),
        "x_m": pa.Column(float),
        "y_m": pa.Column(float),
    },
    unique=["area_id", "kind"],
    strict=True,
    name="folds",
)
"""Which fold tests an area, under each kind of fold; x_m, y_m = representative point in metres, projected."""

PREDICTIONS = pa.DataFrameSchema(
    {
        "area_id": _text(),
        "model": _text(),
        "kind": _text(),
        "fold": pa.Column(int, pa.Check.ge(0)),
        "indicator": pa.Column(str, pa.Check.isin(list(INDICATORS))),
        "observed": _unit(nullable=True),
        "predicted": pa.Column(float),
    },
    unique=["area_id", "model", "kind", "indicator"],
    strict=True,
    name="predictions",
)
"""Held-out predictions: each area predicted once, by the fold model that never saw it."""

SCORES = pa.DataFrameSchema(
    {
        "model": _text(),
        "kind": _text(),
        "indicator": pa.Column(str, pa.Check.isin(list(INDICATORS))),
        "measure": pa.Column(str, pa.Check.isin(list(MEASURES))),
        "value": pa.Column(float, nullable=True),
        "low": pa.Column(float, nullable=True),
        "high": pa.Column(float, nullable=True),
        "areas": pa.Column(int, pa.Check.ge(0)),
    },
    unique=["model", "kind", "indicator", "measure"],
    strict=True,
    name="scorecard",
)
"""Scores with block-bootstrap 95 % intervals."""


CLUSTERS = pa.DataFrameSchema(
    {
        "area_id": _text(unique=True),
        "country": _text(),
        "region": _text(nullable=True),
        **_POSITION,
        "urban": pa.Column("boolean", nullable=True),
        "weight": pa.Column(float, pa.Check.ge(0)),
        **{indicator: pa.Column(float, nullable=True) for indicator in LIVELIHOODS},
    },
    strict=True,
    name="survey_clusters",
)
"""Survey clusters, a row a cluster of a survey; positions as published, moved by up to the source's `Jitter`."""

CLUSTER_PREDICTIONS = pa.DataFrameSchema(
    {
        "area_id": _text(),
        "model": _text(),
        "kind": _text(),
        "fold": pa.Column(int, pa.Check.ge(0)),
        "indicator": pa.Column(str, pa.Check.isin(list(LIVELIHOODS))),
        "task": pa.Column(str, pa.Check.isin(list(TASKS))),
        "observed": pa.Column(float, nullable=True),
        "predicted": pa.Column(float),
    },
    unique=["area_id", "model", "kind", "indicator", "task"],
    strict=True,
    name="cluster_predictions",
)
"""Held-out predictions of clusters: the value, or the probability of lying at or above the training median; `kind` is a
kind of fold or the name of a transfer between countries."""

CLUSTER_SCORES = pa.DataFrameSchema(
    {
        "model": _text(),
        "kind": _text(),
        "indicator": pa.Column(str, pa.Check.isin(list(LIVELIHOODS))),
        "task": pa.Column(str, pa.Check.isin(list(TASKS))),
        "measure": pa.Column(str, pa.Check.isin([name for names in TASK_MEASURES.values() for name in names])),
        "value": pa.Column(float, nullable=True),
        "low": pa.Column(float, nullable=True),
        "high": pa.Column(float, nullable=True),
        "clusters": pa.Column(int, pa.Check.ge(0)),
        "units": pa.Column(int, pa.Check.ge(0)),
    },
    unique=["model", "kind", "indicator", "task", "measure"],
    strict=True,
    name="cluster_scorecard",
)
"""Scores of clusters with block-bootstrap 95 % intervals; `units` are the blocks, countries or regions resampled."""

SELECTION_OPTIMISM = pa.DataFrameSchema(
    {
        "task": pa.Column(str, pa.Check.isin(list(TASKS))),
        "learnable": _unit(),
        "evaluations": pa.Column(int, pa.Check.ge(1)),
        "validation": pa.Column(int, pa.Check.ge(2)),
        "quantity": pa.Column(str, pa.Check.isin(["reported", "honest", "optimism"])),
        "value": pa.Column(float),
        "low": pa.Column(float),
        "high": pa.Column(float),
    },
    unique=["task", "learnable", "evaluations", "validation", "quantity"],
    strict=True,
    name="selection_optimism",
)
"""By how much the best of several evaluations on one validation list flatters: means over simulated studies, and the
range that holds 95 % of them."""

SCENES = pa.DataFrameSchema(
    {
        "image_id": _text(),
        "class": _text(),
        "fraction": _unit(nullable=True),
        "count": pa.Column(float, pa.Check.ge(0), nullable=True),
        "confidence": _unit(nullable=True),
    },
    unique=["image_id", "class"],
    strict=True,
    name="scenes",
)
"""What is seen in images, a row an image and class where there is some: share of pixels, objects, mean confidence.

A class that cannot be counted has no count, published detections have no fraction. How objects were told apart is said
by the parser (`scenes.parsing.CountsBy`)."""


def fingerprint(table: pd.DataFrame) -> str:
    """Return a hash of what the table holds (64 hexadecimal digits): equal tables have equal fingerprints."""
    geometric = [name for name in table.columns if table[name].dtype == "geometry"]
    plain = table.drop(columns=geometric)
    digest = hashlib.sha256("\0".join([*map(str, plain.columns), *geometric]).encode())
    digest.update(pd.util.hash_pandas_object(pd.DataFrame(plain), index=False).to_numpy().tobytes())
    for name in geometric:
        digest.update(b"".join(table[name].to_wkb()))
    return digest.hexdigest()
