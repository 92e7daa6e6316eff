"""Street meets sky: does a picture from above add to pictures from the street? A ridge on each, and both stacked.

What belongs here: judging what either shows of an area, and both together, under the same folds. The features are those
of a frozen network, so that nothing in them has seen a label.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from geopandas import GeoDataFrame
from scipy.optimize import nnls
from sklearn.model_selection import GroupKFold

from urbanprint.errors import MissingImages
from urbanprint.evaluation.baselines import baseline_predictions
from urbanprint.evaluation.crossfit import Learner, cross_fit
from urbanprint.evaluation.splits import Split, inner_groups
from urbanprint.models.probe import area_means, fit_probe

View = Literal["street", "sky"]
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
    """Held-out predictions (`tables.PREDICTIONS`) of a ridge on street features, one on those from above, and of both;
    and on the same areas and folds those of the baselines, which see no picture (`evaluation.baselines`).

    Both together are these two and a ridge on the features side by side, stacked: each weighs as much as it explains
    of training areas held out from all three, and no less than nothing (Breiman 1996, "Stacked regressions", Machine
    Learning 24). So a view that shows nothing costs little, and views that need each other are still read together.

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
    maps = baseline_predictions(areas, kept, indicators=list(labels.columns), buffer_m=buffer_m)
    fitted = [
        cross_fit(
            _learner(get_args(View) if views == "street and sky" else (views,), features, labels, kept),
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
    return pd.concat([maps, *fitted], ignore_index=True)


def _learner(views: Sequence[str], features: pd.DataFrame, labels: pd.DataFrame, folds: pd.DataFrame) -> Learner:
    def learn(split: Split, training: pd.DataFrame, testing: pd.DataFrame) -> pd.DataFrame:
        group_of = dict(zip(split.train, inner_groups(split, folds), strict=True))
        # All three train on the areas that have both, so that what differs is what they look at.
        means = {view: _of_areas(view, features, training) for view in get_args(View)}
        there = sorted(set(means["street"].index) & set(means["sky"].index))
        known, groups = labels.loc[there], [group_of[area] for area in there]
        seen = [means[view].loc[there].to_numpy() for view in views]
        asked = [_of_areas(view, features, testing).loc[list(split.test)].to_numpy() for view in views]
        if len(views) == 1:
            told = fit_probe(seen[0], known, groups).predict(asked[0])
        else:
            told = _together(seen, asked, known, groups)
        return pd.DataFrame(told, index=list(split.test), columns=list(known.columns))

    return learn


def _together(
    seen: Sequence[np.ndarray], asked: Sequence[np.ndarray], labels: pd.DataFrame, groups: Sequence[str]
) -> np.ndarray:
    """A ridge on each view and one on all side by side, stacked."""
    seen, asked = [*seen, np.hstack(seen)], [*asked, np.hstack(asked)]
    held_out = [out_of_group(each, labels, groups) for each in seen]
    told = [fit_probe(x, labels, groups).predict(new) for x, new in zip(seen, asked, strict=True)]
    return stacked(held_out, labels.to_numpy(), told)


def out_of_group(features: np.ndarray, labels: pd.DataFrame, groups: Sequence[str]) -> np.ndarray:
    """What probes on features (n, d) say of areas (n, k) whose group they were not fitted on, in at most 5 folds."""
    told = np.empty(labels.shape)
    for train, test in GroupKFold(min(5, len(set(groups)))).split(features, groups=groups):
        probe = fit_probe(features[train], labels.iloc[train], [groups[row] for row in train])
        told[test] = probe.predict(features[test])
    return told


def stacked(held_out: Sequence[np.ndarray], labels: np.ndarray, told: Sequence[np.ndarray]) -> np.ndarray:
    """One prediction (m, k) of several `told` (m, k), each weighted by least squares of `labels` (n, k) on what it says
    of areas `held_out` (n, k). No weight is below 0; labels may be missing (NaN). In [0, 1], as deprivation is."""
    together = np.empty_like(told[0])
    for column in range(labels.shape[1]):
        known = np.isfinite(labels[:, column])
        x, y = np.stack([each[known, column] for each in held_out], axis=1), labels[known, column]
        varies = x.std(axis=0) > 1e-9  # what says the same of all areas explains nothing
        weights, _ = nnls((x - x.mean(axis=0)) * varies, y - y.mean())
        asked = np.stack([each[:, column] for each in told], axis=1)
        together[:, column] = y.mean() + (asked - x.mean(axis=0)) @ weights
    return together.clip(0.0, 1.0)


def _of_areas(view: str, features: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The mean features of each area that has images of `view`, indexed by area_id in order."""
    chosen = images[images["view"] == view]
    areas, means = area_means(features.loc[chosen["image_id"]].to_numpy(), chosen["area_id"].tolist())
    return pd.DataFrame(means, index=pd.Index(areas, name="area_id"))


def fusion_sentence(gains: pd.DataFrame, *, indicator: str = "imd", kind: str = "borough") -> str:
    """What the sky adds to the street and the street to the sky, of `evaluation.scores.difference` from each."""
    rows = gains[(gains["indicator"] == indicator) & (gains["kind"] == kind)].set_index("model_b")

    def told(alone: str) -> str:
        row = rows.loc[alone]
        claim = "adds" if row["low"] > 0 else "takes away" if row["high"] < 0 else "is not shown to add"
        return f"{claim} (R² {row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}])"

    where = f"on {rows['areas'].iloc[0]} areas with whole {kind}s held out"
    return f"To the street images the sky {told('street')}, to the sky the street {told('sky')}, {where}."
