"""Clusters of unequal numbers of images as batches for the graph network: choosing, gathering, bucketing, padding.

Arrays in, tensors out; nothing here is learned. What a cluster looks like depends neither on the order of the rows
that are given nor on the clusters gathered beside it.
"""

import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from pyproj import Transformer
from torch import Tensor

from urbanprint.errors import InputError, MissingImages
from urbanprint.models.embedding import to_device
from urbanprint.models.graph import Edges, inverse_distance

_BUCKET = 1.1  # sizes in a bucket differ by at most this factor, so that padding costs at most a fifth of n squared


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Images cluster by cluster, sorted by area_id and image_id.

    `features` (images, d) float32; `places` (images, 3) float32, metres from the cluster's mean position; the images
    of cluster i are the rows `starts[i]` to `starts[i + 1]`.
    """

    area_ids: tuple[str, ...]
    image_ids: np.ndarray
    features: np.ndarray
    places: np.ndarray
    starts: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Number of images of each cluster."""
        return np.diff(self.starts)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clusters padded to the largest of them: nodes (b, n, d), edges (b, n, n), mask (b, n), true for images.

    `rows` (b,) are their positions in the `Clusters`.
    """

    rows: np.ndarray
    nodes: Tensor
    edges: Tensor
    mask: Tensor


def choose_images(images: pd.DataFrame, *, most: int, seed: int) -> pd.DataFrame:
    """Keep at most `most` images an area, the same whatever the order of the rows; sorted by area_id and image_id.

    For one seed the choice of fewer images is a part of the choice of more.
    """
    drawn = pd.util.hash_array(images["image_id"].to_numpy(dtype=object), hash_key=f"{seed:016d}", categorize=False)
    ordered = images.assign(_drawn=drawn).sort_values(["area_id", "_drawn", "image_id"])
    kept = ordered[ordered.groupby("area_id").cumcount() < most]
    return kept.drop(columns="_drawn").sort_values(["area_id", "image_id"], ignore_index=True)


def gather(
    features: pd.DataFrame,
    positions: pd.DataFrame,
    images: pd.DataFrame,
    *,
    most: int,
    seed: int,
) -> Clusters:
    """Gather the clusters of `images` (image_id, area_id), at most `most` images of each (`choose_images`).

    `features` and `positions` (longitude and latitude in degrees) are indexed by image_id. Raises `MissingImages`
    where no image is left, `InputError` for an image without features or position or with a missing value.
    """
    if images.empty:
        raise MissingImages("there are 0 images of the clusters asked for, at least 1 was needed: fetch images first.")
    chosen = choose_images(images[["image_id", "area_id"]], most=most, seed=seed)
    names, starts = np.unique(chosen["area_id"].to_numpy(dtype=object), return_index=True)
    starts = np.append(starts, len(chosen))
    values = _rows_of(features, chosen["image_id"], what="features", dtype=np.float32)
    degrees = _rows_of(positions[["longitude", "latitude"]], chosen["image_id"], what="positions", dtype=np.float64)
    return Clusters(
        area_ids=tuple(names.tolist()),
        image_ids=chosen["image_id"].to_numpy(dtype=object),
        features=values,
        places=_local_metres(degrees, starts),
        starts=starts,
    )


def _rows_of(table: pd.DataFrame, image_ids: pd.Series, *, what: str, dtype: type) -> np.ndarray:
    at = table.index.get_indexer(pd.Index(image_ids))
    if (absent := at < 0).any():
        raise InputError(
            f"{int(absent.sum())} images have no row in the {what}, image_id {image_ids[absent].iloc[0]} among them: "
            f"make the {what} of all images, or leave these images out."
        )
    values = table.to_numpy(dtype=dtype)[at]
    if not (finite := np.isfinite(values)).all():
        row, column = np.argwhere(~finite)[0]
        raise InputError(
            f"the {what} of image_id {image_ids.iloc[row]} have no number in column {table.columns[column]!r}: "
            f"fill it, or leave the image out."
        )
    return values


def _local_metres(degrees: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Places (n, 3) on the ellipsoid, metres from their cluster's mean, so that float32 keeps millimetres.

    Straight lines between them are geodesic distances to within 1 cm in 20 km, at the poles and the antimeridian too.
    """
    to_metres = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    places = np.column_stack(to_metres.transform(degrees[:, 0], degrees[:, 1], np.zeros(len(degrees))))
    sizes = np.diff(starts)
    centres = np.add.reduceat(places, starts[:-1]) / sizes[:, None]
    return (places - np.repeat(centres, sizes, axis=0)).astype(np.float32)


def plan_batches(
    sizes: np.ndarray, *, clusters: int, cells: int, rng: np.random.Generator | None = None
) -> list[np.ndarray]:
    """Divide clusters of `sizes` images into batches of similar sizes: rows of the clusters, each in one batch.

    A batch has at most `clusters` of them, and at most `cells` entries (number x largest size squared) where it has
    more than one. With `rng` clusters of similar sizes, and the batches, come in random order.
    """
    shuffled = np.arange(len(sizes)) if rng is None else rng.permutation(len(sizes))
    bucket = np.floor(np.log(sizes[shuffled]) / np.log(_BUCKET))
    batches: list[list[int]] = []
    largest = 0
    for row in shuffled[np.argsort(bucket, kind="stable")].tolist():
        grown = max(largest, int(sizes[row]))
        if not batches or len(batches[-1]) == clusters or (len(batches[-1]) + 1) * grown**2 > cells:
            batches.append([])
            grown = int(sizes[row])
        batches[-1].append(row)
        largest = grown
    order = range(len(batches)) if rng is None else rng.permutation(len(batches)).tolist()
    return [np.array(batches[number]) for number in order]


def pad(clusters: Clusters, rows: np.ndarray, *, edges: Edges, seed: int, device: str) -> Batch:
    """The clusters at `rows` as one batch on the device. `seed` draws the edges where they are random.

    Random edges are symmetric, uniform in [0, 1) with a diagonal of 1, and depend on the seed, the cluster and its
    number of images alone.
    """
    sizes = clusters.sizes[rows]
    n = int(sizes.max())
    mask = np.arange(n) < sizes[:, None]
    taken = (clusters.starts[rows][:, None] + np.arange(n))[mask]
    nodes = np.zeros((len(rows), n, clusters.features.shape[1]), dtype=np.float32)
    nodes[mask] = clusters.features[taken]
    if edges == "inverse distance":
        places = np.zeros((len(rows), n, 3), dtype=np.float32)
        places[mask] = clusters.places[taken]
        matrix = inverse_distance(to_device(places, device))
    elif edges == "random":
        drawn = np.zeros((len(rows), n, n), dtype=np.float32)
        for i, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            drawn[i, :size, :size] = _random_edges(int(size), seed=seed, area_id=clusters.area_ids[row])
        matrix = to_device(drawn, device)
    elif edges == "identity":
        matrix = torch.eye(n, device=device).expand(len(rows), n, n)
    else:
        matrix = torch.ones(len(rows), n, n, device=device)
    return Batch(rows=rows, nodes=to_device(nodes, device), edges=matrix, mask=to_device(mask, device))


def _random_edges(size: int, *, seed: int, area_id: str) -> np.ndarray:
    draw = np.random.default_rng([seed, zlib.crc32(area_id.encode())]).random((size, size), dtype=np.float32)
    above = np.triu(draw, 1)
    return above + above.T + np.eye(size, dtype=np.float32)


def padded(
    clusters: Clusters, batches: Sequence[np.ndarray], *, edges: Edges, seed: int, device: str
) -> Iterator[Batch]:
    """The batches in their order, each made while the one before it is computed on."""
    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for rows in batches:
            ready, ahead = ahead, pool.submit(pad, clusters, rows, edges=edges, seed=seed, device=device)
            if ready is not None:
                yield ready.result()
        if ahead is not None:
            yield ahead.result()
