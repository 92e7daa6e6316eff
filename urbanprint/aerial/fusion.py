"""Street meets sky: does a picture from above add to pictures from the street? One ridge on each, and on both.

What belongs here: putting the features of both side by side, area by area, under the same folds. The features are those
of a frozen network, so that nothing in them has seen a label.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from geopandas import GeoDataFrame

from urbanprint.errors import MissingImages
from urbanprint.evaluation.crossfit import Learner, cross_fit
from urbanprint.evaluation.splits import Split, inner_groups
from urbanprint.models.probe import area_means, fit_probe

Views = Literal["street", "sky", "street and sky"]
KINDS = ("borough", "block")
"""Kinds of fold. At random a tile of almost every square kilometre is tested, and what was photographed with it may not
train."""


def fused_predictions(
    street: pd.DataFrame,
    sky: pd.DataFrame,
    features: pd.DataFrame,
    *,
    areas: GeoDataFrame,
    folds: pd.DataFrame,
    labels: pd.DataFrame,
    buffer_m: float,
    progress: Callable[[str, int, int], None] | None = None,
) -> pd.DataFrame:
    """Held-out predictions (`tables.PREDICTIONS`) of ridges on street features, on those from above, and on both.

    `street` and `sky` hold image_id, sequence_id, sha256 and area_id, `features` a row for each image of both, indexed
    by image_id; an area has the mean of each. Judged are areas that have both, under whole boroughs and blocks.
    Training images that share a drive or a square kilometre of photographs with a test image are left out, and with
    them areas that have no others. Raises `MissingImages` where no area has both.
    """
    both = set(street["area_id"]) & set(sky["area_id"]) & set(folds["area_id"])
    if not both:
        raise MissingImages("No area has a street image and a tile from above: fetch both for one sample of areas.")
    kept = folds[folds["area_id"].isin(both) & folds["kind"].isin(KINDS)].reset_index(drop=True)
    columns = ["image_id", "sequence_id", "sha256", "area_id"]
    images = pd.concat([street[columns].assign(view="street"), sky[columns].assign(view="sky")], ignore_index=True)
    images = images[images["area_id"].isin(both)].reset_index(drop=True)
    parts = [
        cross_fit(
            _learner(("street", "sky") if views == "street and sky" else (views,), features, labels, kept),
            model=views,
            images=images,
            areas=areas,
            folds=kept,
            indicators=list(labels.columns),
            buffer_m=buffer_m,
            progress=progress,
        )
        for views in get_args(Views)
    ]
    return pd.concat(parts, ignore_index=True)


def _learner(views: Sequence[str], features: pd.DataFrame, labels: pd.DataFrame, folds: pd.DataFrame) -> Learner:
    def learn(split: Split, training: pd.DataFrame, testing: pd.DataFrame) -> pd.DataFrame:
        group_of = dict(zip(split.train, inner_groups(split, folds), strict=True))
        # All three train on the areas that have both, so that what differs is what they look at.
        there = set(_of_areas(("street", "sky"), features, training).index)
        seen = _of_areas(views, features, training).loc[sorted(there)]
        probe = fit_probe(seen.to_numpy(), labels.loc[seen.index], [group_of[area] for area in seen.index])
        asked = _of_areas(views, features, testing)
        return pd.DataFrame(probe.predict(asked.to_numpy()), index=asked.index, columns=list(probe.indicators))

    return learn


def _of_areas(views: Sequence[str], features: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The mean features of each area that has images of all `views`, side by side, indexed by area_id."""
    tables = []
    for view in views:
        chosen = images[images["view"] == view]
        areas, means = area_means(features.loc[chosen["image_id"]].to_numpy(), chosen["area_id"].tolist())
        tables.append(pd.DataFrame(means, index=pd.Index(areas, name="area_id")).add_prefix(f"{view}-"))
    joined = pd.concat(tables, axis=1, join="inner")
    return joined.loc[np.sort(joined.index.to_numpy())]


def fusion_sentence(gains: pd.DataFrame, *, indicator: str = "imd", kind: str = "borough") -> str:
    """What the sky adds to the street and the street to the sky, of `evaluation.scores.difference` from each."""
    rows = gains[(gains["indicator"] == indicator) & (gains["kind"] == kind)].set_index("model_b")

    def told(alone: str) -> str:
        row = rows.loc[alone]
        claim = "adds" if row["low"] > 0 else "takes away" if row["high"] < 0 else "is not shown to add"
        return f"{claim} (R² {row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}])"

    where = f"on {rows['areas'].iloc[0]} areas with whole {kind}s held out"
    return f"To the street images the sky {told('street')}, to the sky the street {told('sky')}, {where}."
