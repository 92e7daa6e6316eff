"""Published detections instead of parsing: objects that a provider or a study has already found in its images.

Belongs here: reading such tables into `tables.SCENES`. They hold no pixels, so that fractions are unknown.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.scenes.classes import class_name

FeaturesAre = Literal["identifiers", "counts"]
"""What the column `features` holds: an identifier of each object, or how many objects there are of each name."""

IMAGE_COLUMNS: tuple[str, ...] = ("image_id", "key")


def read_detections(path: Path, image_ids: pd.Series, *, features_are: FeaturesAre = "identifiers") -> pd.DataFrame:
    """Return the scenes (`tables.SCENES`) of the images named, from a CSV or Parquet file of `detected_scenes`.

    Only the columns of detections are read, and identifiers as text: a blank cell would turn them into numbers. Raises
    `InputError` for a file that is missing or holds none of these images: published identifiers are those of the
    images of the publication, which a new search may not find.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: name a CSV or Parquet file of detections.")
    wanted = {*IMAGE_COLUMNS, "features_name", "features", "confidence"}
    if path.suffix == ".parquet":
        table = pd.read_parquet(path, columns=[name for name in pq.read_schema(path).names if name in wanted])
    else:
        table = pd.read_csv(path, dtype="str", usecols=lambda name: name in wanted, encoding="utf-8-sig")
    key = next((name for name in IMAGE_COLUMNS if name in table.columns), None)
    if key is not None:
        table = table[table[key].astype("str").isin(set(image_ids))]
    found = detected_scenes(table, features_are=features_are)
    if found.empty:
        raise InputError(
            f"{path.name} has no detection in any of the {len(image_ids)} images that were fetched, such as"
            f" {next(iter(image_ids), 'none')}: name detections of these, or leave `detections` out to parse them."
        )
    return found


def detected_scenes(table: pd.DataFrame, *, features_are: FeaturesAre = "identifiers") -> pd.DataFrame:
    """Return objects by image and class (`tables.SCENES`, `fraction` unknown) from a table of detections.

    `table` holds `image_id` (or `key`), `features_name` and, if known, `confidence` and `features`. A cell holds one
    value, a list, or a list written as text ("['car', 'bus']"), and so one row may be an image or a detection. Each
    name is one object, or with `features_are` = "counts" as many as `features` says. Confidences are averaged over
    objects. Names may be Mapillary's ("object--vehicle--car") or plain.

    Raises `InputError` for a column that is missing, lists of unequal length, or a number that is none.
    """
    key = next((name for name in IMAGE_COLUMNS if name in table.columns), None)
    needed = ["features_name"] + (["features"] if features_are == "counts" else [])
    absent = [name for name in needed if name not in table.columns]
    if key is None or absent:
        raise InputError(
            f"the table of detections has no column {'image_id or key' if key is None else absent[0]}, only "
            f"{', '.join(map(str, table.columns))}: name its columns as published."
        )
    columns = needed + (["confidence"] if "confidence" in table.columns else [])
    lists = pd.DataFrame({name: table[name].map(_list) for name in columns}).assign(image_id=table[key].astype("str"))
    lengths = lists[columns].map(len)
    unequal = lengths.ne(lengths["features_name"], axis=0).any(axis=1).to_numpy()
    if unequal.any():
        described = ", ".join(f"{number} in {name}" for name, number in lengths[unequal].iloc[0].items())
        raise InputError(
            f"image {lists['image_id'][unequal].iloc[0]!s} has lists of unequal length ({described}): mend the row."
        )
    objects = lists[lengths["features_name"] > 0].explode(columns, ignore_index=True)
    numbers = {name: _numbers(objects[name], name, objects["image_id"]) for name in columns if name != "features_name"}
    names = objects["features_name"].astype("str")
    found = pd.DataFrame(
        {
            "image_id": objects["image_id"],
            "class": names.map({name: class_name(name) for name in names.unique()}),
            "count": numbers["features"] if "features" in numbers else np.ones(len(objects)),
        }
    )
    confidence = numbers.get("confidence", np.full(len(objects), np.nan))
    found["sure"], found["weight"] = confidence * found["count"], np.where(np.isnan(confidence), 0.0, found["count"])
    summed = found.groupby(["image_id", "class"], as_index=False)[["count", "sure", "weight"]].sum()
    summed = summed[summed["count"] > 0].reset_index(drop=True)
    return tables.SCENES.validate(
        pd.DataFrame(
            {
                "image_id": summed["image_id"].astype("str"),
                "class": summed["class"].astype("str"),
                "fraction": np.nan,
                "count": summed["count"],
                "confidence": summed["sure"] / summed["weight"].where(summed["weight"] > 0),
            }
        )
    )


def _list(cell: object) -> Sequence[object]:
    """A cell as a list: of itself, of the parts of a list written as text, or empty where missing."""
    if isinstance(cell, str):
        text = cell.strip()
        if not text.startswith("["):
            return [text] if text else []
        parts = (part.strip().strip("'\"") for part in text.strip("[]").split(","))
        return [part for part in parts if part]
    if isinstance(cell, (list, tuple, np.ndarray)):
        return list(cell)
    return [] if pd.isna(cell) else [cell]  # type: ignore[call-overload]


def _numbers(column: pd.Series, name: str, image_ids: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = numbers.isna() & column.notna() & (column.astype("str").str.lower() != "nan")
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"image {image_ids[first]!s}: {name} holds {column[first]!r}, which is no number: mend the row."
        )
    return numbers.to_numpy(dtype=float)
