"""Clusters of household surveys, and the image table and train and validation lists published with them.

What belongs here is reading those files: which column is which, what a sound cell looks like, and how far a source has
moved its positions. A file holds a row a cluster, or (as published with "Predicting Livelihood Indicators from
Community-Generated Street-Level Imagery", github.com/sustainlab-group/mapillarygcn) a row an image that repeats the
indicators of its cluster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.vocabulary import LIVELIHOODS

_HEADINGS: dict[str, tuple[str, ...]] = {
    "area_id": ("area_id", "cluster_id", "unique_cluster"),
    "country": ("country",),
    "region": ("region",),
    "longitude": ("longitude", "lon", "ilon"),
    "latitude": ("latitude", "lat", "ilat"),
    "urban": ("urban", "rural", "urban_rural"),
    "weight": ("weight",),
    "poverty": ("poverty", "pov"),
    "population": ("population", "pop"),
    "bmi": ("bmi",),
}
"""Column of `tables.CLUSTERS` -> the headings it is known by: ours, then published ones."""

_IMAGE_HEADING = "key"
"""A file that has this column holds a row an image."""

_URBAN = {"urban": True, "u": True, "true": True, "1": True, "1.0": True, "yes": True}
_RURAL = {"rural": False, "r": False, "false": False, "0": False, "0.0": False, "no": False}

_LISTS = {"train": "train", "training": "train", "val": "validation", "validation": "validation"}


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """The farthest a source has moved the positions of its clusters to hide the households, in metres."""

    urban_m: float
    rural_m: float

    @property
    def most_m(self) -> float:
        """The farthest any cluster can have been moved."""
        return max(self.urban_m, self.rural_m)


DHS_JITTER = Jitter(urban_m=2_000, rural_m=10_000)
"""Demographic and Health Surveys: urban up to 2 km, rural up to 5 km and one in a hundred up to 10 km
(dhsprogram.com, Methodology, GPS data collection). The least to assume of a survey that does not state its own."""


def read_clusters(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    id_columns: Sequence[str] = (),
    country: str | None = None,
) -> pd.DataFrame:
    """Return `urbanprint.tables.CLUSTERS` from a CSV or Parquet file, sorted by area_id.

    `columns` maps columns of the table to the file's headings and need only name what is not called as expected:
    area_id (cluster_id, unique_cluster), longitude (lon, ilon), latitude (lat, ilat), urban (rural, urban_rural),
    poverty (pov), population (pop), bmi, country, region, weight. `id_columns` are the headings whose values, joined by
    "_", name a cluster where no single column does. `country` stands for a column the file lacks; without both, it is
    the two letters at the head of published identifiers (`ia_250417`). A missing weight is 1, other missing cells stay
    missing; published classes (`pov_label`), detections and other columns are left alone.

    In a file with a row an image (it has the column `key`) a cluster lies at the mean position of its images.

    Raises `InputError` for a file that cannot be read, a column that is missing or named twice, an empty or repeated
    identifier, a cell that is not what its column holds, a position outside the Earth or at 0, 0 (which surveys write
    for "unknown"), and a cluster whose images disagree about it.
    """
    sheet = _read(path)
    found = _find(sheet, path, columns or {}, required=("longitude", "latitude"))
    if not id_columns and "area_id" not in found:
        raise InputError(
            f"{path.name} has no column {' or '.join(_HEADINGS['area_id'])}: name the column in `columns`, or"
            f" several in `id_columns`, among {', '.join(sheet.columns)}."
        )
    if not set(found) & set(LIVELIHOODS):
        raise InputError(
            f"{path.name} has no indicator, none of {', '.join(LIVELIHOODS)} (published: pov, pop, bmi): name one in"
            f" `columns`, among {', '.join(sheet.columns)}."
        )
    keys = [_texts(sheet, path, heading) for heading in (tuple(id_columns) or (found["area_id"],))]
    frame = pd.DataFrame({"area_id": reduce(lambda left, right: left + "_" + right, keys)})
    frame["country"] = _countries(sheet, path, found, frame["area_id"], country)
    frame["region"] = sheet[found["region"]] if "region" in found else pd.Series(None, index=sheet.index, dtype="str")
    _positions(sheet, path, found, frame)
    frame["urban"] = _urban(sheet, path, found)
    for column, otherwise in (("weight", 1.0), *((indicator, np.nan) for indicator in LIVELIHOODS)):
        frame[column] = _numbers(sheet, path, found[column]) if column in found else otherwise
    frame["weight"] = frame["weight"].fillna(1.0)
    if frame[list(LIVELIHOODS)].isna().to_numpy().all():
        raise InputError(f"{path.name} has no value of any indicator: fill in one of {', '.join(LIVELIHOODS)}.")
    if (wrong := (frame["weight"] < 0).to_numpy()).any():
        raise InputError(f"{_cell(path, wrong, found['weight'])} is negative: expected a survey weight, 0 or more.")
    frame = frame[list(tables.CLUSTERS.columns)]
    if _IMAGE_HEADING in sheet.columns:
        frame = _clusters_of_images(frame, path)
    elif (repeated := frame["area_id"].duplicated(keep=False)).any():
        area_id = frame.loc[repeated, "area_id"].iloc[0]
        rows = " and ".join(str(row + 2) for row in np.flatnonzero(frame["area_id"] == area_id)[:2])
        raise InputError(
            f"{path.name}: cluster {area_id} stands in rows {rows}; expected one row a cluster, or `id_columns` that"
            " tell them apart, such as country, year and number."
        )
    return tables.CLUSTERS.validate(frame.sort_values("area_id", ignore_index=True))


def read_cluster_images(path: Path) -> pd.DataFrame:
    """Return image_id, area_id, longitude, latitude and sequence_id of a published file with a row an image.

    The file names no capture sequence, so `sequence_id` is the image's own identifier: drives that cross from one
    cluster into another cannot be held apart, and blocks with a buffer must do it.

    Raises `InputError` as `read_clusters` does, and for an image that stands twice.
    """
    sheet = _read(path, only=(_IMAGE_HEADING, *(heading for names in _HEADINGS.values() for heading in names)))
    found = _find(sheet, path, {}, required=("area_id", "longitude", "latitude"))
    if _IMAGE_HEADING not in sheet.columns:
        raise InputError(f"{path.name} has no column {_IMAGE_HEADING}: expected a row an image, with its identifier.")
    images = pd.DataFrame(
        {"image_id": _texts(sheet, path, _IMAGE_HEADING), "area_id": _texts(sheet, path, found["area_id"])}
    )
    if (repeated := images["image_id"].duplicated().to_numpy()).any():
        raise InputError(
            f"{_cell(path, repeated, _IMAGE_HEADING)} is {images.loc[repeated, 'image_id'].iloc[0]}, which stands above"
            " already: expected one row an image."
        )
    _positions(sheet, path, found, images)
    return images.assign(sequence_id=images["image_id"])


def read_lists(train: Path, validation: Path) -> pd.Series:
    """Return which fixed list a cluster is on: "train" or "validation", named `list`, indexed by area_id.

    Each file holds an identifier a line, as published. Raises `InputError` for an empty file and for a cluster that
    stands twice.
    """
    parts = []
    for path, name in ((train, "train"), (validation, "validation")):
        if not path.is_file():
            raise InputError(f"{path} does not exist: name a text file with a cluster identifier a line.")
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        ids = [line for line in lines if line]
        if not ids:
            raise InputError(f"{path.name} is empty: expected a cluster identifier a line.")
        parts.append(pd.Series(name, index=ids, dtype="str"))
    return _listed(pd.concat(parts), f"{train.name} and {validation.name}")


def read_list_column(path: Path, *, column: str, id_column: str = "unique_cluster") -> pd.Series:
    """The same as `read_lists`, from a column of a file that holds train (training) or val (validation).

    A cluster with an empty cell is on neither list. A row may be an image: its cluster's rows must then agree.
    """
    sheet = _read(path, only=(column, id_column))
    for heading in (column, id_column):
        if heading not in sheet.columns:
            raise InputError(f"{path.name} has no column {heading}: name one that it has.")
    pairs = pd.DataFrame({"area_id": _texts(sheet, path, id_column), "list": sheet[column]})
    chosen = pairs["list"].str.casefold().map(_LISTS)
    if (wrong := (pairs["list"].notna() & chosen.isna()).to_numpy()).any():
        raise InputError(
            f"{_cell(path, wrong, column)} is {pairs.loc[wrong, 'list'].iloc[0]!r}: expected train or validation."
        )
    pairs = pairs.assign(list=chosen).dropna().drop_duplicates()
    return _listed(pairs.set_index("area_id")["list"], f"{path.name}, column {column}")


def _listed(lists: pd.Series, where: str) -> pd.Series:
    repeated = lists.index.duplicated(keep=False)
    if repeated.any():
        raise InputError(
            f"{where}: cluster {lists.index[repeated][0]} is listed twice ({', '.join(lists[repeated].iloc[:2])}), and"
            f" so are {len(set(lists.index[repeated])) - 1} more; expected each once, on one list."
        )
    return lists.rename_axis("area_id").rename("list").sort_index()


def _read(path: Path, *, only: Sequence[str] | None = None) -> pd.DataFrame:
    """The file as text cells, blanks missing. Detections are long (1.4 GB published): `only` keeps what is asked."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: name a CSV or Parquet file of clusters.")
    wanted = set(only) if only is not None else None
    try:
        if path.suffix == ".parquet":
            names = [name for name in pq.read_schema(path).names if _kept(name, wanted)]
            sheet = pd.read_parquet(path, columns=names)
            sheet = sheet.apply(lambda column: column.map(str, na_action="ignore").astype("str"))
        else:
            sheet = pd.read_csv(path, dtype="str", usecols=lambda name: _kept(name, wanted), encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path.name} is neither CSV in UTF-8 nor Parquet ({error}): save it as one of them."
        ) from error
    if sheet.empty:
        raise InputError(f"{path.name} has no rows: expected a row a cluster or an image.")
    sheet = sheet.apply(lambda column: column.str.strip())
    return sheet.mask(sheet == "")


def _kept(name: str, wanted: set[str] | None) -> bool:
    return name in wanted if wanted is not None else name not in ("features", "features_name", "confidence")


def _find(sheet: pd.DataFrame, path: Path, columns: Mapping[str, str], *, required: Sequence[str]) -> dict[str, str]:
    """Column of the table -> heading in the file, for those it has."""
    if unknown := sorted(set(columns) - set(_HEADINGS)):
        raise InputError(f"Clusters have no column {unknown[0]}: `columns` maps some of {', '.join(_HEADINGS)}.")
    found = {}
    for column, headings in _HEADINGS.items():
        here = [columns[column]] if column in columns else [name for name in headings if name in sheet.columns]
        if len(here) > 1:
            raise InputError(f"{path.name} has both {' and '.join(here)} for {column}: say which in `columns`.")
        if column in columns and columns[column] not in sheet.columns:
            raise InputError(f"{path.name} has no column {columns[column]}, only {', '.join(sheet.columns)}.")
        if not here and column in required:
            raise InputError(
                f"{path.name} has no column {' or '.join(headings)}: name it in `columns`, among"
                f" {', '.join(sheet.columns)}."
            )
        if here:
            found[column] = here[0]
    return found


def _cell(path: Path, wrong: np.ndarray, heading: str) -> str:
    """The first wrong cell; row 1 is the header."""
    return f"{path.name}, row {int(np.flatnonzero(wrong)[0]) + 2}, column {heading!r}"


def _texts(sheet: pd.DataFrame, path: Path, heading: str) -> pd.Series:
    if heading not in sheet.columns:
        raise InputError(f"{path.name} has no column {heading}, only {', '.join(sheet.columns)}.")
    if (empty := sheet[heading].isna().to_numpy()).any():
        raise InputError(f"{_cell(path, empty, heading)} is empty: expected an identifier or a name.")
    return sheet[heading]


def _numbers(sheet: pd.DataFrame, path: Path, heading: str) -> pd.Series:
    numbers = pd.to_numeric(sheet[heading], errors="coerce").astype(float)
    if (wrong := (sheet[heading].notna() & ~np.isfinite(numbers)).to_numpy()).any():
        raise InputError(
            f"{_cell(path, wrong, heading)} is {sheet.loc[wrong, heading].iloc[0]!r}: expected a number, or nothing."
        )
    return numbers


def _positions(sheet: pd.DataFrame, path: Path, found: Mapping[str, str], frame: pd.DataFrame) -> None:
    """Adds longitude and latitude to `frame`."""
    for column, most in (("longitude", 180.0), ("latitude", 90.0)):
        degrees = _numbers(sheet, path, found[column])
        if (wrong := ~(degrees.abs() <= most).to_numpy()).any():
            given = sheet[found[column]].iloc[int(np.flatnonzero(wrong)[0])]
            raise InputError(
                f"{_cell(path, wrong, found[column])} is {'empty' if pd.isna(given) else given}: expected a {column}"
                f" in degrees, {-most:g} to {most:g}."
            )
        frame[column] = degrees
    if (nowhere := ((frame["longitude"] == 0) & (frame["latitude"] == 0)).to_numpy()).any():
        raise InputError(
            f"{_cell(path, nowhere, found['longitude'])}: the position is 0, 0, which surveys write for an unknown one;"
            " drop the row."
        )


def _countries(
    sheet: pd.DataFrame, path: Path, found: Mapping[str, str], area_ids: pd.Series, country: str | None
) -> pd.Series:
    if "country" in found:
        if country is not None:
            raise InputError(f"{path.name} has a column {found['country']}, and country = '{country}' too: give one.")
        return _texts(sheet, path, found["country"])
    if country is not None:
        return pd.Series(country, index=sheet.index, dtype="str")
    letters = area_ids.str.extract(r"^([a-z]{2})_", expand=False)
    if (unknown := letters.isna().to_numpy()).any():
        raise InputError(
            f"{path.name} has no column country, and cluster {area_ids[unknown].iloc[0]} does not begin with two"
            " letters and _ as published ones do: give `country`."
        )
    return letters


def _urban(sheet: pd.DataFrame, path: Path, found: Mapping[str, str]) -> pd.Series:
    if "urban" not in found:
        return pd.Series(pd.NA, index=sheet.index, dtype="boolean")
    heading = found["urban"]
    flags = sheet[heading].str.casefold().map(_URBAN | _RURAL)
    if (wrong := (sheet[heading].notna() & flags.isna()).to_numpy()).any():
        raise InputError(
            f"{_cell(path, wrong, heading)} is {sheet.loc[wrong, heading].iloc[0]!r}: expected urban or rural, U or R,"
            " true or false, 1 or 0, or nothing."
        )
    flags = flags.astype("boolean")
    # A column called "rural" says the opposite with yes and no, and the same with words.
    spoken = sheet[heading].str.casefold().isin(["urban", "rural", "u", "r"])
    return flags.where(spoken | flags.isna(), ~flags) if heading == "rural" else flags


def _clusters_of_images(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """One row a cluster from one row an image."""
    groups = rows.groupby("area_id", sort=False)
    for column in ("country", "region", "urban", "weight", *LIVELIHOODS):
        pairs = rows[["area_id", column]].drop_duplicates()
        if (several := pairs["area_id"].duplicated()).any():
            area_id = pairs.loc[several, "area_id"].iloc[0]
            values = pairs.loc[pairs["area_id"] == area_id, column].tolist()
            raise InputError(
                f"{path.name}: the images of cluster {area_id} disagree about {column} ({values[0]} and {values[1]});"
                " expected one value a cluster."
            )
    clusters = groups.first().assign(**groups[["longitude", "latitude"]].mean()).reset_index()
    return clusters[list(rows.columns)]
