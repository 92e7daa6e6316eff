"""From scenes to features of clusters: how much of each class all images of a cluster hold together.

What belongs here: summing over images. What is learned from the sums is in `models.clusterwise`.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from urbanprint.errors import InputError

COUNT, FRACTION, IMAGES = "count:", "fraction:", "images"
"""Columns of cluster features: `count:<class>`, `fraction:<class>` and the number of images."""


def _text(column: pd.Series) -> pa.Array:
    """The column as one piece of Arrow text, whatever pandas keeps it as."""
    values = pa.array(column).cast(pa.large_string())
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def cluster_counts(scenes: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return features of clusters, float, indexed by area_id (sorted), for every cluster in `images`.

    - `count:<class>`: objects of the class, summed over the cluster's images;
    - `fraction:<class>`: share of pixels the class covers, mean over the images with measured fractions (one without
      the class counts as 0); missing for a cluster without such an image;
    - `images`: the number of images of the cluster, parsed or not.

    `scenes` is `tables.SCENES`; `images` holds image_id and area_id, one row an image. Scenes of other images and
    images in no cluster are left out. A class that is nowhere counted has no `count:`, one whose share is nowhere known
    no `fraction:`. Raises `InputError` for an image listed twice.
    """
    images = images[images["area_id"].notna()]
    if images["image_id"].duplicated().any():
        twice = images.loc[images["image_id"].duplicated(), "image_id"].iloc[0]
        raise InputError(f"image {twice} is listed twice: an image belongs to one cluster, keep one of its rows.")
    area_of_image, areas = pd.factorize(images["area_id"], sort=True)
    # Arrow looks up 16 million identifiers without making a Python string of any.
    image = pc.index_in(_text(scenes["image_id"]), value_set=_text(images["image_id"])).fill_null(-1).to_numpy()
    kept = image >= 0
    image = image[kept]
    encoded = pc.dictionary_encode(_text(scenes["class"]))
    classes = encoded.dictionary.to_pylist()
    class_of_row = encoded.indices.to_numpy()[kept]
    cell = area_of_image[image].astype(np.int64) * len(classes) + class_of_row

    def summed(column: str) -> tuple[np.ndarray, np.ndarray]:
        """Sums (areas, classes), and the rows of the kept scenes where the column is known."""
        values = scenes[column].to_numpy(dtype=float)[kept]
        known = np.flatnonzero(~np.isnan(values))
        sums = np.bincount(cell[known], weights=values[known], minlength=len(areas) * len(classes))
        return sums.reshape(len(areas), len(classes)).astype(float), known

    def by_class(prefix: str, values: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
        seen = sorted((classes[index], index) for index in np.unique(class_of_row[known]))
        return {f"{prefix}{name}": values[:, index] for name, index in seen}

    counts, known = summed("count")
    features = by_class(COUNT, counts, known)
    fractions, known = summed("fraction")
    measured = np.zeros(len(images), dtype=bool)
    measured[image[known]] = True
    parsed = np.bincount(area_of_image[measured], minlength=len(areas)).astype(float)
    features |= by_class(FRACTION, fractions / np.where(parsed > 0, parsed, np.nan)[:, None], known)
    features[IMAGES] = np.bincount(area_of_image, minlength=len(areas)).astype(float)
    return pd.DataFrame(features, index=pd.Index(areas, name="area_id"))


def image_counts(scenes: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return the same features of single images, indexed by image_id (sorted): `count:<class>` and `fraction:<class>`.

    An image without objects has counts of 0, one that was not parsed has no fractions.
    """
    alone = cluster_counts(scenes, images.assign(area_id=images["image_id"]))
    return alone.drop(columns=IMAGES).rename_axis("image_id")


def columns_of_classes(columns: pd.Index | list[str]) -> dict[str, list[str]]:
    """Which columns of cluster features belong to each class: its count and its fraction; `images` is its own."""
    belonging: dict[str, list[str]] = {}
    for column in columns:
        name = column.removeprefix(COUNT).removeprefix(FRACTION)
        belonging.setdefault(name, []).append(column)
    return belonging
