"""What a map without pictures would score: predictions from labels and positions alone, under the same folds.

What belongs here: models that see no image. A picture's score means nothing until it stands beside these: on 2,000
London LSOAs coordinates alone reach R2 0.51 under random folds.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import shapely
from geopandas import GeoDataFrame
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.evaluation.splits import iter_splits

BASELINES: dict[str, str] = {"mean": "the mean", "coordinates": "the coordinates", "neighbours": "the neighbours"}
"""The baselines: identifier -> name for people."""


def baseline_predictions(
    areas: GeoDataFrame, folds: pd.DataFrame, *, indicators: Sequence[str], buffer_m: float, neighbours: int = 10
) -> pd.DataFrame:
    """Held-out predictions (`tables.PREDICTIONS`) of three baselines, for the areas and kinds of fold in `folds`.

    - `mean`: the mean of the training areas;
    - `coordinates`: the unweighted mean of the `neighbours` nearest training areas, in projected metres;
    - `neighbours`: the mean of the training areas that touch the area (queen contiguity: a shared point is enough), and
      of the nearest as above where none does, as is usual when whole boroughs are held out.

    Labels are the columns `<indicator>_deprivation` of `areas`; an area without the label neither trains nor is scored
    on that indicator (its `observed` is missing). `buffer_m` applies to block folds, as in `iter_splits`.
    """
    if neighbours < 1:
        raise InputError(f"neighbours = {neighbours}: the coordinates baseline needs at least 1.")
    points = folds.drop_duplicates("area_id").set_index("area_id")[["x_m", "y_m"]]
    if absent := sorted(set(points.index) - set(areas["area_id"])):
        raise InputError(
            f"{len(absent)} areas of the folds, such as {absent[0]}, are not among the areas: remake them."
        )
    table = areas.set_index("area_id").loc[points.index]
    labels = table[[f"{indicator}_deprivation" for indicator in indicators]].to_numpy(dtype=float)
    position = pd.Series(np.arange(len(table)), index=table.index)
    places = points.to_numpy()
    touching = _contiguity(table.geometry.to_numpy())
    frames = []
    for kind in folds["kind"].unique():
        for split in iter_splits(folds, kind, buffer_m=buffer_m):
            train, test = position.loc[list(split.train)].to_numpy(), position.loc[list(split.test)].to_numpy()
            for column, indicator in enumerate(indicators):
                y = labels[:, column]
                labelled = train[~np.isnan(y[train])]
                if not len(labelled):
                    raise InputError(f"No training area of fold {split.fold} ({kind}) has a label for '{indicator}'.")
                nearest = _nearest_mean(places[labelled], y[labelled], places[test], neighbours)
                predicted = {
                    "mean": np.full(len(test), y[labelled].mean()),
                    "coordinates": nearest,
                    "neighbours": _touching_mean(touching[test][:, labelled], y[labelled], otherwise=nearest),
                }
                frames += [
                    pd.DataFrame(
                        {
                            "area_id": split.test,
                            "model": model,
                            "kind": kind,
                            "fold": split.fold,
                            "indicator": indicator,
                            "observed": y[test],
                            "predicted": values,
                        }
                    )
                    for model, values in predicted.items()
                ]
    return tables.PREDICTIONS.validate(pd.concat(frames, ignore_index=True))


def _contiguity(geometries: np.ndarray) -> csr_array:
    """Sparse (n, n) matrix, 1 where two areas share a point; borders can overlap, so 'touches' is too strict.

    Each area meets itself too, which no split lets count: a test area never trains.
    """
    left, right = shapely.STRtree(geometries).query(geometries, predicate="intersects")
    return csr_array((np.ones(len(left)), (left, right)), shape=(len(geometries), len(geometries)))


def _nearest_mean(places: np.ndarray, y: np.ndarray, targets: np.ndarray, neighbours: int) -> np.ndarray:
    nearest = cKDTree(places).query(targets, k=np.arange(1, min(neighbours, len(places)) + 1))[1]
    return y[nearest].mean(axis=1)


def _touching_mean(touching: csr_array, y: np.ndarray, *, otherwise: np.ndarray) -> np.ndarray:
    count = touching.sum(axis=1)
    return np.where(count > 0, touching @ y / np.maximum(count, 1), otherwise)
