"""Folds of survey clusters, training across countries, and held-out predictions of clusters.

What belongs here: which clusters train and test. A cluster plays the part of an area (`tables.FOLDS`, `Split`), so
`splits` and its guard do the work; this module adds what is peculiar to surveys. The same place is visited in several
years and stands there as several clusters: places are dealt out, never visits. Positions are moved on purpose: blocks
and buffers must exceed that. Countries or regions stand in the column `borough`, which is the unit that is held out
whole.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Literal

import geopandas as gpd
import numpy as np
import pandas as pd
from pyproj import CRS, Transformer
from scipy.spatial import cKDTree

from urbanprint import tables
from urbanprint.errors import InputError, LeakingSplit, MissingImages
from urbanprint.evaluation.crossfit import Learner
from urbanprint.evaluation.splits import Split, check_split, iter_splits, make_folds, split_images
from urbanprint.evaluation.tasks import Task, task_labels
from urbanprint.indicators.survey import Jitter

NO_IMAGES = pd.DataFrame({"image_id": [], "sequence_id": [], "area_id": []}, dtype="str")
"""The images of learners that look at none."""


def cluster_folds(
    clusters: pd.DataFrame,
    *,
    folds: int,
    seed: int,
    block_m: float,
    jitter: Jitter,
    held_out: Literal["country", "region"] = "country",
) -> pd.DataFrame:
    """Which fold tests each cluster (`tables.FOLDS`), under random, borough and block folds.

    - `random` deals out places: clusters at one position share a fold;
    - `borough` holds out whole countries one at a time, or packs whole regions into `folds` folds (a cluster without a
      region counts as a region of its country). A single country or region leaves this kind out;
    - `block` packs squares of `block_m` metres.

    `x_m`, `y_m` are metres in a Lambert azimuthal equal-area projection about the middle of the clusters: it errs by at
    most 2 % from Nigeria to Ethiopia, where the one UTM zone that serves a city stretches distances by 4 % and more.

    Raises `InputError` for blocks smaller than the jitter, in which a cluster's true place would mostly lie in another
    block than its position, and whatever `make_folds` raises.
    """
    if block_m < jitter.most_m:
        raise InputError(
            f"block_m = {block_m:g}: positions of this source were moved by up to {jitter.most_m:g} m, so blocks must"
            " be at least that large."
        )
    clusters = clusters.sort_values("area_id", ignore_index=True)
    x_m, y_m = _projected(clusters["longitude"].to_numpy(), clusters["latitude"].to_numpy())
    unit = clusters["country"]
    if held_out == "region":
        unit = clusters["region"].fillna(clusters["country"] + ", region unknown")
    place = clusters.groupby(["longitude", "latitude"]).ngroup()
    first = ~place.duplicated()
    places = gpd.GeoDataFrame(
        {"area_id": place[first].map("{:07d}".format), "district": unit[first]},
        geometry=gpd.points_from_xy(clusters.loc[first, "longitude"], clusters.loc[first, "latitude"]),
        crs=4326,
    )
    made = [make_folds(places, folds=folds, seed=seed, block_m=block_m, kinds=("random", "block"))]
    if (units := unit.nunique()) > 1:
        count = units if held_out == "country" else folds
        made.insert(1, make_folds(places, folds=count, seed=seed, block_m=block_m, kinds=("borough",)))
    by_place = pd.concat(made).rename(columns={"area_id": "place"}).drop(columns=["borough", "x_m", "y_m"])
    units_of = clusters[["area_id"]].assign(place=place.map("{:07d}".format), borough=unit, x_m=x_m, y_m=y_m)
    table = pd.concat(
        [units_of.merge(part, on="place", validate="many_to_one") for _, part in by_place.groupby("kind", sort=False)],
        ignore_index=True,
    )
    return tables.FOLDS.validate(table[list(tables.FOLDS.columns)])


def check_places(folds: pd.DataFrame) -> None:
    """Raise `LeakingSplit` if clusters at one position, such as two visits to a village, are in different folds."""
    of_place = folds.groupby(["kind", "x_m", "y_m"])["fold"].transform("nunique")
    if (apart := of_place > 1).any():
        row = folds[apart].iloc[0]
        others = folds[(folds[["kind", "x_m", "y_m"]] == row[["kind", "x_m", "y_m"]]).all(axis=1)]
        raise LeakingSplit(
            f"The {row['kind']} folds leak: {int(apart.sum())} clusters share their position with one of another fold,"
            f" such as {' and '.join(others['area_id'].iloc[:2])}; deal out places, as cluster_folds does."
        )


def cluster_splits(folds: pd.DataFrame, kind: str, *, buffer_m: float, jitter: Jitter) -> Iterator[Split]:
    """The splits of one kind, as `iter_splits` makes them, past the guards for places and jitter.

    Two clusters `buffer_m` apart can truly be up to twice the jitter nearer than that: twice the jitter is safe, the
    jitter itself the least allowed. Raises `InputError` below it and `LeakingSplit` for places in several folds.
    """
    _check_buffer(buffer_m, jitter)
    check_places(folds)
    yield from iter_splits(folds, kind, buffer_m=buffer_m)


def transfer_split(
    clusters: pd.DataFrame, folds: pd.DataFrame, *, train_on: str, test_on: str, buffer_m: float, jitter: Jitter
) -> Split:
    """Train on one country, test on all of another; training clusters within `buffer_m` of a test cluster left out.

    Its kind is "block", so that what a learner holds out inside training is whole blocks of the training country.
    """
    _check_buffer(buffer_m, jitter)
    train, test = (_of_country(clusters, country) for country in (train_on, test_on))
    return _buffered(folds, train=train, test=test, fold=0, buffer_m=buffer_m)


def pooled_splits(
    clusters: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    country: str,
    other: str,
    share: float,
    buffer_m: float,
    seed: int,
    jitter: Jitter,
) -> Iterator[Split]:
    """The block splits of `country`, with a `share` (0.5, 1.0) of the places of `other` added to every training part.

    Places come in one seeded order, so that the half is part of the whole. Share 0 trains on `country` alone: the row
    that pooling must beat.
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"share = {share}: the part of the other country that is pooled lies between 0 and 1.")
    here, there = (_of_country(clusters, name) for name in (country, other))
    positions = clusters[clusters["area_id"].isin(there)].sort_values("area_id")
    place = positions.groupby(["longitude", "latitude"]).ngroup().to_numpy()
    order = np.random.default_rng(seed).permutation(place.max() + 1)
    added = positions.loc[np.isin(place, order[: round(share * len(order))]), "area_id"]
    own = folds[folds["area_id"].isin(here)]
    for split in cluster_splits(own, "block", buffer_m=buffer_m, jitter=jitter):
        train = {*split.train, *added}
        yield _buffered(folds, train=train, test=set(split.test), fold=split.fold, buffer_m=buffer_m)


def joined_split(split: Split, added: set[str], folds: pd.DataFrame, *, buffer_m: float, name: str) -> Split:
    """A block split with more training clusters, those within `buffer_m` of a test cluster left out again.

    `folds` has all of them on one map (`on_one_map`).
    """
    joined = _buffered(folds, train={*split.train, *added}, test=set(split.test), fold=split.fold, buffer_m=buffer_m)
    return replace(joined, name=name)


def on_one_map(clusters: pd.DataFrame) -> pd.DataFrame:
    """area_id, x_m and y_m of clusters of several countries, in metres of one projection, as in `cluster_folds`."""
    x_m, y_m = _projected(clusters["longitude"].to_numpy(), clusters["latitude"].to_numpy())
    return pd.DataFrame({"area_id": clusters["area_id"], "x_m": x_m, "y_m": y_m})


def listed_split(lists: pd.Series, folds: pd.DataFrame) -> Split:
    """The one split of fixed lists (`survey.read_lists`): "train" trains, "validation" tests; the rest is in neither.

    Its kind is "random": such lists were drawn at random, with no regard to distance. A score on the validation list
    is a test score only if nothing was chosen on it. Raises `InputError` for a listed cluster that does not exist and
    `LeakingSplit` for a place on both lists.
    """
    chosen = folds[folds["kind"] == "random"].set_index("area_id").sort_index()
    if unknown := sorted(set(lists.index) - set(chosen.index)):
        raise InputError(f"{len(unknown)} listed clusters, such as {unknown[0]}, are not in the table: unlist them.")
    train, test = (tuple(sorted(lists.index[lists == name])) for name in ("train", "validation"))
    if not train or not test:
        raise InputError(f"The lists hold {len(train)} train and {len(test)} validation clusters: both are needed.")
    check_places(chosen.loc[[*train, *test]].reset_index().assign(fold=[0] * len(train) + [1] * len(test)))
    listed = {*train, *test}
    unlisted = tuple(area for area in chosen.index if area not in listed)
    return Split(kind="random", fold=0, train=train, test=test, buffered=unlisted, name="listed")


def country_splits(
    folds: pd.DataFrame, *, buffer_m: float, jitter: Jitter, lists: pd.Series | None = None
) -> dict[str, list[Split]]:
    """The splits of every kind of fold there is, and of the fixed `lists` under the name "listed" where given."""
    kinds = folds["kind"].unique()
    splits = {kind: list(cluster_splits(folds, kind, buffer_m=buffer_m, jitter=jitter)) for kind in kinds}
    return splits if lists is None else {**splits, "listed": [listed_split(lists, folds)]}


def cross_fit_clusters(
    learner: Learner,
    *,
    model: str,
    splits: Iterable[Split],
    labels: pd.DataFrame,
    task: Task,
    images: pd.DataFrame | None = None,
    kind: str | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> pd.DataFrame:
    """Return the held-out predictions (`tables.CLUSTER_PREDICTIONS`) of `learner`, split by split.

    `labels` is indexed by area_id, a column an indicator; what was observed is labelled by `task_labels`, anew for each
    split. `images` as `splits.split_images` takes them, or None for a learner that sees none. `kind` names the rows
    where the split's own kind does not say enough ("ng to et"). Raises `MissingImages` for a cluster not predicted.
    """
    images = NO_IMAGES if images is None else images
    parts = []
    for done, split in enumerate(splits):
        if progress is not None:
            progress(f"{model}: {kind or split.kind} fold {split.fold}", done)
        predicted = learner(split, *split_images(split, images))
        if absent := sorted(set(split.test) - set(predicted.index)):
            raise MissingImages(
                f"{model} predicted nothing for {len(absent)} clusters of {split.name or split.kind} fold {split.fold},"
                f" {absent[0]} among them: leave clusters without images out of the folds."
            )
        _, observed = task_labels(labels, split, task=task)
        predicted = predicted.loc[list(split.test), list(labels.columns)].astype(float)
        part = predicted.rename_axis("area_id").reset_index()
        part = part.melt("area_id", var_name="indicator", value_name="predicted")
        part["observed"] = observed.melt()["value"].astype(float)
        parts.append(part.assign(model=model, kind=kind or split.kind, fold=split.fold, task=task))
    table = pd.concat(parts, ignore_index=True)
    return tables.CLUSTER_PREDICTIONS.validate(table[list(tables.CLUSTER_PREDICTIONS.columns)])


def _projected(longitude: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # About a whole degree, so that adding a cluster rarely moves the map.
    middle = [round((v.min() + v.max()) / 2) for v in (longitude, latitude)]
    projection = CRS.from_proj4(f"+proj=laea +lon_0={middle[0]} +lat_0={middle[1]} +datum=WGS84 +units=m")
    return Transformer.from_crs(4326, projection, always_xy=True).transform(longitude, latitude)


def _check_buffer(buffer_m: float, jitter: Jitter) -> None:
    if buffer_m < jitter.most_m:
        raise InputError(
            f"buffer_m = {buffer_m:g}: positions of this source were moved by up to {jitter.most_m:g} m, so clusters"
            f" need at least that between training and test; {2 * jitter.most_m:g} m is safe."
        )


def _of_country(clusters: pd.DataFrame, country: str) -> set[str]:
    if not (here := clusters["country"] == country).any():
        raise InputError(
            f"There are no clusters of '{country}', only of {', '.join(sorted(set(clusters['country'])))}."
        )
    return set(clusters.loc[here, "area_id"])


def _buffered(folds: pd.DataFrame, *, train: set[str], test: set[str], fold: int, buffer_m: float) -> Split:
    """A split of these clusters, those near a test cluster left out, past the guard."""
    chosen = folds[folds["kind"] == "block"].sort_values("area_id")
    training, testing = (chosen[chosen["area_id"].isin(side)] for side in (train, test))
    tree = cKDTree(testing[["x_m", "y_m"]].to_numpy())
    kept = tree.query(training[["x_m", "y_m"]].to_numpy())[0] >= buffer_m
    if not kept.any():
        raise InputError(f"No training cluster is {buffer_m:g} m from the test clusters: use a smaller buffer_m.")
    columns = ["area_id", "x_m", "y_m"]
    check_split(training.loc[kept, columns], testing[columns], level="area", buffer_m=buffer_m)
    return Split(
        kind="block",
        fold=fold,
        train=tuple(training.loc[kept, "area_id"]),
        test=tuple(testing["area_id"]),
        buffered=tuple(training.loc[~kept, "area_id"]),
    )
