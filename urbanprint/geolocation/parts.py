"""Which images train, calibrate and test, and the guard that refuses parts which know each other.

What belongs here: dividing a table of images (`image_id`, `sequence_id`, `longitude`, `latitude` in degrees, `sha256`
where it is known). No cells, no model. Images of one drive, and images of one street, show the same wall twice: random
parts would test memory. So images are first joined into groups that nothing divides, then groups are dealt out.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from urbanprint.errors import InputError, LeakingSplit, MissingImages
from urbanprint.imagery.quality import geocentric

SHARES: Mapping[str, float] = {"train": 0.7, "calibration": 0.15, "test": 0.15}

APART_M = 1_000.0
"""Least distance between images of two parts (Astruc et al. 2024, OpenStreetView-5M, split by the same rule)."""

_SHARED = {"sequence_id": "sequence", "sha256": "photograph"}  # the same photograph uploaded twice has two ids


def deal_parts(
    images: pd.DataFrame, *, seed: int, shares: Mapping[str, float] = SHARES, apart_m: float = APART_M
) -> pd.Series:
    """The part of each image, named as in `shares`, indexed as `images`; the order of rows changes nothing.

    Images that share a sequence or a photograph, or lie nearer than `apart_m` metres, are joined, and so are those
    joined to them. Whole groups are dealt out in seeded order, each to the part that lacks the most images. Groups
    larger than the smallest part should be come first, when that is the part with the largest share: a metropolis,
    which is one group, trains. The pairs of near images take 16 bytes each.

    Raises `MissingImages` where there are too few groups for a part to get one.
    """
    _check_images(images)
    if not shares or min(shares.values()) <= 0.0:
        raise InputError(f"shares = {dict(shares)}: a positive share for each part is expected.")
    ordered = images.sort_values("image_id")
    group = _groups(ordered, apart_m)
    sizes = np.bincount(group)
    wanted = len(images) * np.array(list(shares.values())) / sum(shares.values())
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(sizes[order] <= wanted.min(), kind="stable")]
    part_of = np.empty(len(sizes), dtype=np.int64)
    for number in order.tolist():
        part_of[number] = wanted.argmax()
        wanted[part_of[number]] -= sizes[number]
    names = np.array(list(shares), dtype=object)
    parts = pd.Series(names[part_of[group]], index=ordered.index, name="part", dtype="str").reindex(images.index)
    if empty := sorted(set(shares) - set(parts)):
        raise MissingImages(
            f"{len(images)} images form {len(sizes)} groups that share no sequence and lie {apart_m:g} m apart, too few"
            f" for a part '{empty[0]}': fetch images of more places."
        )
    return parts


def check_parts(images: pd.DataFrame, parts: pd.Series, *, apart_m: float = APART_M) -> None:
    """Raise `LeakingSplit`, naming the images, unless the parts (n,) are strangers to each other.

    Two parts may share no sequence and no photograph, and each two of their images lie at least `apart_m` metres apart,
    straight through the Earth, which is what it is on the ground (1 mm less at 10 km).
    """
    _check_images(images)
    table = images.assign(part=parts.to_numpy())
    for column, unit in _SHARED.items():
        if column in table:
            _refuse_shared(table, column, unit)
    places = geocentric(images["longitude"].to_numpy(), images["latitude"].to_numpy())
    for one, other in combinations(sorted(set(table["part"])), 2):
        _refuse_near(table, places, one, other, apart_m)


def _check_images(images: pd.DataFrame) -> None:
    if images.empty:
        raise MissingImages("There are 0 images to divide into parts: fetch images first.")
    if (twice := images["image_id"].duplicated()).any():
        raise InputError(f"Image {images.loc[twice, 'image_id'].iloc[0]} stands in several rows: keep one of them.")


def _groups(images: pd.DataFrame, apart_m: float) -> np.ndarray:
    """The number of each image's group, (n,), counted in the order in which groups first appear."""
    edges = [_in_a_row(images[column]) for column in _SHARED if column in images]
    places = geocentric(images["longitude"].to_numpy(), images["latitude"].to_numpy())
    edges.append(KDTree(places).query_pairs(apart_m, output_type="ndarray"))
    one, other = np.concatenate(edges).T
    graph = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(len(images), len(images)))
    return pd.factorize(connected_components(graph, directed=False)[1])[0]


def _in_a_row(values: pd.Series) -> np.ndarray:
    """Pairs (m, 2) of positions that chain together those of equal values; a missing value equals none."""
    numbers = pd.factorize(values)[0]
    order = np.argsort(numbers, kind="stable")
    same = (numbers[order][1:] == numbers[order][:-1]) & (numbers[order][1:] >= 0)
    return np.column_stack([order[:-1][same], order[1:][same]])


def _refuse_shared(table: pd.DataFrame, column: str, unit: str) -> None:
    parts = table.groupby(column)["part"].nunique()
    if (shared := parts.index[parts > 1]).empty:
        return
    offenders = table[table[column] == shared[0]].drop_duplicates("part").iloc[:2]
    one, other = (f"{row.image_id} ({row.part})" for row in offenders.itertuples())
    raise LeakingSplit(
        f"The parts leak: {len(shared)} {unit}{' is' if len(shared) == 1 else 's are'} in several, such as {shared[0]}"
        f" of image {one} and image {other}; divide the images by deal_parts."
    )


def _refuse_near(table: pd.DataFrame, places: np.ndarray, one: str, other: str, apart_m: float) -> None:
    here, there = (np.flatnonzero(table["part"] == part) for part in (one, other))
    distance, nearest = KDTree(places[there]).query(places[here], distance_upper_bound=apart_m)
    near = np.flatnonzero(distance < apart_m)
    if not len(near):
        return
    ids = table["image_id"].to_numpy()
    offenders = ", ".join(
        f"{ids[here[row]]} ({distance[row]:.0f} m from {ids[there[nearest[row]]]})"
        for row in near[np.argsort(distance[near], kind="stable")][:3]
    )
    raise LeakingSplit(
        f"The parts leak: {len(near)} images of '{one}' lie nearer than {apart_m:g} m to one of '{other}': {offenders}"
        f"{', ...' if len(near) > 3 else ''}; divide the images by deal_parts."
    )
