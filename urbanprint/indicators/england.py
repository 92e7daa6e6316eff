"""The English Indices of Deprivation, as the ministry publishes them, and the ONS lookup of areas to districts.

What belongs here is reading those files: which column is which in each edition, and what a sound cell looks like.
"File 7: all ranks, deciles and scores for the indices of deprivation, and population denominators" is read in the
editions 2015 and 2019 (LSOA 2011) and 2025 (LSOA 2021). Other publishers have modules of their own beside this one.
"""

import csv
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from urbanprint.errors import InputError
from urbanprint.tables import DEPRIVATION
from urbanprint.vocabulary import INDICATORS

_LABELS: dict[str, str] = {
    "imd": "index of multiple deprivation",
    "income": "income",
    "employment": "employment",
    "education": "education skills and training",
    "health": "health deprivation and disability",
    "crime": "crime",
    "housing": "barriers to housing and services",
    "environment": "living environment",
}
"""Indicator -> its name in a column heading, as `_heading` reduces it."""

_TEXT_COLUMNS: dict[str, str] = {
    "area_id": "lsoa code",
    "name": "lsoa name",
    "district_code": "local authority district code",
    "district": "local authority district name",
}
_NUMBER_COLUMNS: dict[str, str] = {
    "population": "total population mid",
    **{
        f"{indicator}_{measure}": f"{label} {measure}"
        for indicator, label in _LABELS.items()
        for measure in ("score", "rank", "decile")
    },
}


@dataclass(frozen=True)
class _Sheet:
    """A CSV file as text: the header and the rows below it, each with its line number in the file."""

    name: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, position: int) -> list[str]:
        return [row[position].strip() for row in self.rows]


def read_file7(path: Path, *, edition: str, areas_ranked: int) -> pd.DataFrame:
    """Return the table `urbanprint.tables.DEPRIVATION` of the published File 7, in the order of the file.

    Columns are recognised by domain and measure, whatever the years and bracketed remarks in their headings; an empty
    cell is a missing value. Ranks may tie. `areas_ranked` is the number of areas in the whole edition (2019: 32,844;
    2025: 33,755), of which the file may hold a part:
    `<indicator>_deprivation` = 1 - (rank - 1) / (areas_ranked - 1), so 1 is the most deprived area of the country.

    Raises `InputError` for a file that is empty, a web page or a workbook, a missing column, a duplicate code, a cell
    that is not a number, and a rank, decile or population out of range.
    """
    sheet = _read_csv(path)
    positions = _find_columns(sheet, {**_TEXT_COLUMNS, **_NUMBER_COLUMNS})
    frame = pd.DataFrame({"edition": [edition] * len(sheet.rows)}, dtype="str")
    for column in _TEXT_COLUMNS:
        frame[column] = _texts(sheet, positions[column])
    _check_unique(sheet, frame["area_id"])
    for column in _NUMBER_COLUMNS:
        frame[column] = _numbers(sheet, positions[column])
    _check_range(sheet, positions, frame, ["population"], high=np.inf, low=0, hint="a number of people")
    for measure, high, hint in (
        ("rank", areas_ranked, f"{edition} ranks {areas_ranked:,} areas, so this is probably another edition"),
        ("decile", 10, "1 is the most deprived tenth"),
    ):
        _check_range(sheet, positions, frame, [f"{each}_{measure}" for each in INDICATORS], low=1, high=high, hint=hint)
    for indicator in INDICATORS:
        frame[f"{indicator}_deprivation"] = 1.0 - (frame[f"{indicator}_rank"] - 1.0) / (areas_ranked - 1)
    return DEPRIVATION.validate(frame[list(DEPRIVATION.columns)])


def read_district_lookup(path: Path, *, code_column: str | None = None) -> pd.DataFrame:
    """Return the columns area_id, district_code, district (str) of an ONS lookup, one row an area.

    Recognised are LSOA11CD or LSOA21CD with LADyyCD and LADyyNM of any year; `code_column` chooses among several LSOA
    columns. Raises `InputError` for missing or ambiguous columns and for an area in two districts.
    """
    sheet = _read_csv(path)
    wanted = {"area_id": code_column or "LSOAyyCD", "district_code": "LADyyCD", "district": "LADyyNM"}
    lookup = pd.DataFrame({column: _texts(sheet, _one(sheet, name)) for column, name in wanted.items()})
    lookup = lookup.drop_duplicates(ignore_index=True)
    twice = lookup.loc[lookup["area_id"].duplicated(keep=False)]
    if len(twice):
        area_id = twice["area_id"].iloc[0]
        districts = ", ".join(twice.loc[twice["area_id"] == area_id, "district_code"])
        raise InputError(f"{path.name} puts area {area_id} in several districts ({districts}): expected one.")
    return lookup


def with_districts(deprivation: pd.DataFrame, lookup: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return `deprivation` with the districts of `lookup`, and the codes of areas the lookup does not know.

    Those keep the district they were published with. Useful where districts were merged after the statistics.
    """
    found = deprivation[["area_id"]].merge(lookup, on="area_id", how="left", validate="many_to_one")
    found.index = deprivation.index
    columns = ["district_code", "district"]
    replaced = deprivation.assign(**{column: found[column].fillna(deprivation[column]) for column in columns})
    return replaced, tuple(sorted(deprivation.loc[found["district_code"].isna(), "area_id"]))


def _read_csv(path: Path) -> _Sheet:
    if not path.is_file():
        raise InputError(f"{path} does not exist: name a CSV file.")
    content = path.read_bytes()
    start = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if not start:
        raise InputError(f"{path.name} is empty: download it again.")
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise InputError(f"{path.name} is an Excel workbook, not CSV: take the CSV version, or save the sheet as CSV.")
    if start == b"<":
        raise InputError(f"{path.name} is a web page, not CSV: open its address in a browser and take the file itself.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    reader = csv.reader(io.StringIO(text, newline=""))
    lines: list[int] = []
    rows: list[list[str]] = []
    try:
        for row in reader:
            if not any(row):
                continue
            lines.append(reader.line_num)
            rows.append(row)
            if len(row) != len(rows[0]):
                raise InputError(
                    f"{path.name}, line {reader.line_num}: {len(row)} cells where the header has {len(rows[0])}; the "
                    f"file is cut off or damaged, download it again."
                )
    except csv.Error as error:
        raise InputError(f"{path.name} is not CSV ({error}): name the published CSV file.") from error
    if len(rows) < 2:
        raise InputError(f"{path.name} has a header but no rows: download it again.")
    return _Sheet(name=path.name, header=[name.strip() for name in rows[0]], rows=rows[1:], lines=lines[1:])


def _heading(name: str) -> str:
    """What stays the same in a heading from year to year: its words, without remarks in brackets, digits and case."""
    without_remarks = re.sub(r"\([^)]*\)?", " ", name.casefold().replace("&", " and "))
    return " ".join(word for word in re.findall(r"[a-z]+", without_remarks) if word != "domain")


def _find_columns(sheet: _Sheet, headings: dict[str, str]) -> dict[str, int]:
    """Table column -> position in the sheet."""
    found: dict[str, list[int]] = {}
    for position, name in enumerate(sheet.header):
        found.setdefault(_heading(name), []).append(position)
    for heading in headings.values():
        positions = found.get(heading, [])
        if not positions:
            nearest = difflib.get_close_matches(heading, found, n=1, cutoff=0.0)[0]
            raise InputError(
                f"{sheet.name} has no column {heading!r}; the nearest is {sheet.header[found[nearest][0]]!r}. Expected "
                f"File 7 of the Indices of Deprivation, which holds all scores, ranks, deciles and populations."
            )
        if len(positions) > 1:
            raise InputError(f"{sheet.name} has {len(positions)} columns {heading!r}: expected one, remove the others.")
    return {column: found[heading][0] for column, heading in headings.items()}


def _one(sheet: _Sheet, wanted: str) -> int:
    """The position of the one column of this name, whatever its case and the two digits at its yy."""
    pattern = re.compile(re.escape(wanted).replace("yy", r"\d\d"), re.IGNORECASE)
    positions = [position for position, name in enumerate(sheet.header) if pattern.fullmatch(name)]
    if len(positions) != 1:
        found = ", ".join(sheet.header[position] for position in positions) or ", ".join(sheet.header)
        raise InputError(f"{sheet.name}: expected one column {wanted}, found {len(positions)} in: {found}.")
    return positions[0]


def _texts(sheet: _Sheet, position: int) -> pd.Series:
    cells = sheet.column(position)
    if "" in cells:
        raise InputError(f"{_cell(sheet, cells.index(''), position)} is empty: expected a code or name.")
    return pd.Series(cells, dtype="str")


def _numbers(sheet: _Sheet, position: int) -> pd.Series:
    cells = pd.Series(sheet.column(position), dtype="str")
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    wrong = (cells != "") & ~np.isfinite(numbers)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(f"{_cell(sheet, row, position)} is {cells.iloc[row]!r}: expected a number, or nothing.")
    return numbers


def _check_unique(sheet: _Sheet, codes: pd.Series) -> None:
    repeated = codes[codes.duplicated(keep=False)]
    if len(repeated):
        rows = repeated.index[repeated == repeated.iloc[0]]
        lines = " and ".join(str(sheet.lines[row]) for row in rows)
        raise InputError(f"{sheet.name}: area {repeated.iloc[0]} stands on lines {lines}; expected one row an area.")


def _check_range(
    sheet: _Sheet,
    positions: dict[str, int],
    frame: pd.DataFrame,
    columns: Sequence[str],
    *,
    low: float,
    high: float,
    hint: str,
) -> None:
    for column in columns:
        wrong = (frame[column] < low) | (frame[column] > high)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"{_cell(sheet, row, positions[column])} is {frame[column].iloc[row]:g}: expected {low:g} to {high:g}; "
                f"{hint}."
            )


def _cell(sheet: _Sheet, row: int, position: int) -> str:
    return f"{sheet.name}, line {sheet.lines[row]}, column {sheet.header[position]!r}"
