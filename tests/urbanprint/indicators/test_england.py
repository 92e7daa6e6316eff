"""File 7 of the English Indices of Deprivation, in the headings of each edition, and district lookups."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pyogrio
import pytest
from scipy.stats import spearmanr

from urbanprint.errors import InputError
from urbanprint.indicators.england import read_district_lookup, read_file7, with_districts
from urbanprint.tables import DEPRIVATION
from urbanprint.vocabulary import INDICATORS

_PUBLISHED_LABELS = {
    "imd": "Index of Multiple Deprivation (IMD)",
    "income": "Income",
    "employment": "Employment",
    "education": "Education, Skills and Training",
    "health": "Health Deprivation and Disability",
    "crime": "Crime",
    "housing": "Barriers to Housing and Services",
    "environment": "Living Environment",
}
_RATES = ("income", "employment")
_RANK = "Rank (where 1 is most deprived)"
_DECILE = "Decile (where 1 is most deprived 10% of LSOAs)"


def _header(*, lsoa: int, district: int, population: str) -> list[str]:
    columns = [f"LSOA code ({lsoa})", f"LSOA name ({lsoa})"]
    columns += [f"Local Authority District {part} ({district})" for part in ("code", "name")]
    for indicator, label in _PUBLISHED_LABELS.items():
        columns += [f"{label} Score{' (rate)' * (indicator in _RATES)}", f"{label} {_RANK}", f"{label} {_DECILE}"]
    # Columns that look like those wanted: a supplementary index and a sub-domain with its heading cut off as published.
    columns += ["Income Deprivation Affecting Children Index (IDACI) Score (rate)"]
    columns += ["Children and Young People Sub-domain Decile (where 1 is most deprived 10% of LSO"]
    return [*columns, population]


HEADERS = {
    2015: _header(lsoa=2011, district=2013, population="Total population: mid 2012 (excluding prisoners)"),
    2019: _header(lsoa=2011, district=2019, population="Total population: mid 2015 (excluding prisoners)"),
    2025: _header(lsoa=2021, district=2024, population="Total population: mid 2022"),
}


def _row(number: int, *, rank: float = 1, decile: float = 1) -> list[object]:
    row: list[object] = [f"E0100000{number}", f"Town 00{number}A", "E06000001", "Town"]
    for position in range(len(INDICATORS)):
        row += [10.5 + position, rank, decile]
    return [*row, 0.9, 9, 1500 + number]


def _write(path: Path, header: list[str], rows: list[list[object]], *, encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


@pytest.fixture
def header() -> list[str]:
    return list(HEADERS[2019])


@pytest.mark.parametrize("year", HEADERS)
def test_every_edition_is_read_by_its_headings(tmp_path: Path, year: int) -> None:
    rows = [_row(1, rank=1), _row(2, rank=51, decile=5), _row(3, rank=101, decile=10)]
    table = read_file7(_write(tmp_path / "file7.csv", HEADERS[year], rows), edition=f"imd{year}", areas_ranked=101)
    assert list(table.columns) == list(DEPRIVATION.columns)
    assert set(table["edition"]) == {f"imd{year}"}
    assert table["area_id"].tolist() == ["E01000001", "E01000002", "E01000003"]
    assert table["population"].tolist() == [1501, 1502, 1503]
    for position, indicator in enumerate(INDICATORS):
        assert set(table[f"{indicator}_score"]) == {10.5 + position}
        assert table[f"{indicator}_deprivation"].tolist() == [1.0, 0.5, 0.0]
        assert table[f"{indicator}_decile"].tolist() == [1, 5, 10]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_encodings_case_spaces_and_wording_make_no_difference(tmp_path: Path, header: list[str], encoding: str) -> None:
    row = _row(1)
    row[1] = "  Bæ 001A "
    names = [f" {name.upper()}  " for name in header]
    names[13] = "Education, Skills & Training Domain Score"
    table = read_file7(
        _write(tmp_path / "file7.csv", names, [row, []], encoding=encoding), edition="e", areas_ranked=10
    )
    assert table["name"].tolist() == ["Bæ 001A"]


def test_equal_ranks_and_empty_cells_are_sound(tmp_path: Path, header: list[str]) -> None:
    without_crime = _row(3, rank=2)
    for measure in ("Score", _RANK, _DECILE):
        without_crime[header.index(f"Crime {measure}")] = ""
    path = _write(tmp_path / "file7.csv", header, [_row(1, rank=2), _row(2, rank=2), without_crime])
    table = read_file7(path, edition="e", areas_ranked=3)
    assert table["imd_deprivation"].tolist() == [0.5, 0.5, 0.5]
    assert table["crime_deprivation"].isna().tolist() == [False, False, True]


def _spoilt(header: list[str], column: str, value: object) -> list[list[object]]:
    second = _row(2)
    second[header.index(column)] = value
    return [_row(1), second]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Crime Score", "n/a", r"file7\.csv, line 3, column 'Crime Score' is 'n/a': expected a number"),
        ("Crime Score", "inf", "expected a number"),
        (f"Income {_RANK}", 33_000, r"line 3, column 'Income Rank .*is 33000.*ranks 32,844 areas.*another edition"),
        (f"Income {_RANK}", 0, "expected 1 to 32844"),
        (f"Health Deprivation and Disability {_DECILE}", 11, "is 11: expected 1 to 10"),
        ("Total population: mid 2015 (excluding prisoners)", -1, "is -1: expected 0"),
        ("LSOA code (2011)", "E01000001", r"area E01000001 stands on lines 2 and 3"),
        ("LSOA code (2011)", "", r"line 3, column 'LSOA code \(2011\)' is empty"),
    ],
)
def test_a_wrong_cell_is_named_with_line_and_column(
    tmp_path: Path, header: list[str], column: str, value: object, message: str
) -> None:
    path = _write(tmp_path / "file7.csv", header, _spoilt(header, column, value))
    with pytest.raises(InputError, match=message):
        read_file7(path, edition="imd2019", areas_ranked=32_844)


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path, header: list[str]) -> None:
    header[header.index("Crime Score")] = "Crimes Score"
    path = _write(tmp_path / "file7.csv", header, [_row(1)])
    with pytest.raises(InputError, match="no column 'crime score'; the nearest is 'Crimes Score'"):
        read_file7(path, edition="e", areas_ranked=10)


def test_a_column_that_comes_twice_is_refused(tmp_path: Path, header: list[str]) -> None:
    header[header.index("Income Deprivation Affecting Children Index (IDACI) Score (rate)")] = "Income Score (2018)"
    with pytest.raises(InputError, match="2 columns 'income score'"):
        read_file7(_write(tmp_path / "file7.csv", header, [_row(1)]), edition="e", areas_ranked=10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"PK\x03\x04rest of a workbook", "is an Excel workbook, not CSV"),
        (b"LSOA code (2011),LSOA name (2011)\n", "a header but no rows"),
        (b"LSOA code (2011),LSOA name (2011)\nE01000001,A\nE010000", r"line 3: 1 cells where the header has 2"),
        (b"SQLite format 3\x00,\x00\nx,y\n", "no column|is not CSV"),
    ],
)
def test_what_is_not_file_7_is_said_in_words(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file7.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"file7\.csv.*({message})"):
        read_file7(tmp_path / "file7.csv", edition="e", areas_ranked=10)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"file7\.csv does not exist"):
        read_file7(tmp_path / "file7.csv", edition="e", areas_ranked=10)


# --- lookups ---


def _lookup(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8-sig")
    return path


def test_districts_are_replaced_from_a_lookup_of_any_year(tmp_path: Path, header: list[str]) -> None:
    table = read_file7(
        _write(tmp_path / "file7.csv", header, [_row(1), _row(2), _row(3)]), edition="e", areas_ranked=10
    ).iloc[::-1]
    path = _lookup(
        tmp_path / "lookup.csv",
        "LSOA11CD,LSOA11NM,LAD22CD,LAD22NM\nE01000001,a,E06000099,New\nE01000001,a,E06000099,New\nE01000003,c,E06000098,Newer\n",
    )
    replaced, missing = with_districts(table, read_district_lookup(path))
    assert missing == ("E01000002",)
    assert replaced["district_code"].tolist() == ["E06000098", "E06000001", "E06000099"]
    assert replaced["district"].tolist() == ["Newer", "Town", "New"]
    DEPRIVATION.validate(replaced)


def test_a_lookup_between_censuses_needs_a_choice(tmp_path: Path) -> None:
    path = _lookup(tmp_path / "lookup.csv", "LSOA11CD,LSOA21CD,LAD22CD,LAD22NM\nE01000001,E01033333,E06000099,New\n")
    with pytest.raises(InputError, match="one column LSOAyyCD, found 2 in: LSOA11CD, LSOA21CD"):
        read_district_lookup(path)
    assert read_district_lookup(path, code_column="LSOA21CD")["area_id"].tolist() == ["E01033333"]


def test_a_lookup_that_contradicts_itself_or_lacks_districts_is_refused(tmp_path: Path) -> None:
    torn = "LSOA11CD,LAD22CD,LAD22NM\nE01000001,E06000099,New\nE01000001,E06000098,Newer\n"
    with pytest.raises(InputError, match=r"area E01000001 in several districts \(E06000099, E06000098\)"):
        read_district_lookup(_lookup(tmp_path / "lookup.csv", torn))
    with pytest.raises(InputError, match="one column LADyyCD, found 0"):
        read_district_lookup(_lookup(tmp_path / "lookup.csv", "LSOA11CD,MSOA11CD\nE01000001,E02000001\n"))


# --- the published files ---


def test_the_published_file_7_of_2019_is_read(realdata: Path) -> None:
    table = read_file7(realdata / "england" / "iod2019_london_file7.csv", edition="imd2019", areas_ranked=32_844)
    assert len(table) == 4_835
    assert table["district_code"].nunique() == 33
    first = table.set_index("area_id").loc["E01000001"]
    assert (first["imd_score"], first["imd_rank"], first["imd_decile"]) == (6.208, 29_199, 9)
    assert (first["environment_rank"], first["population"]) == (7_789, 1_296)
    assert first["imd_deprivation"] == pytest.approx(1 - 29_198 / 32_843)
    for indicator in INDICATORS:
        # Ranks are of the scores as published, to three places: -1 but for ties of rounding.
        assert spearmanr(table[f"{indicator}_rank"], table[f"{indicator}_score"]).statistic < -0.999


def test_the_edition_of_2025_does_not_pass_for_2019(realdata: Path, tmp_path: Path) -> None:
    england = pd.read_csv(realdata / "england" / "imd2025_england.csv")
    london = pyogrio.read_dataframe(realdata / "england" / "london_lsoa21.gpkg", read_geometry=False)
    rows = london.merge(england, left_on="LSOA21CD", right_on="lsoa21_code")
    names = {"imd": "IMD", "housing": "Housing_and_Services"}
    columns = [rows["LSOA21CD"], rows["LSOA21NM"], rows["LADCD_ACTIVE"], rows["LADCD_ACTIVE"]]
    for indicator in INDICATORS:
        columns += [rows[f"{names.get(indicator, indicator.title())}_{each}"] for each in ("score", "rank", "decile")]
    filler = pd.Series(np.full(len(rows), 1_500))
    frame = pd.concat([*columns, filler, filler, filler], axis=1)
    path = _write(tmp_path / "file7_2025.csv", HEADERS[2025], frame.to_numpy().tolist())
    table = read_file7(path, edition="imd2025", areas_ranked=33_755)
    assert len(table) == 4_994
    assert spearmanr(table["imd_rank"], table["imd_score"]).statistic == pytest.approx(-1, abs=1e-6)
    with pytest.raises(InputError, match="ranks 32,844 areas, so this is probably another edition"):
        read_file7(path, edition="imd2019", areas_ranked=32_844)


def test_ranks_tie_in_the_whole_country(realdata: Path, tmp_path: Path, header: list[str]) -> None:
    england = pd.read_csv(realdata / "england" / "imd2019_england.csv")
    frame = pd.DataFrame(
        {0: england["lsoa11_code"], 1: england["LSOA11NM"], 2: england["LAD19CD"], 3: england["LAD19NM"]}
    )
    for position in range(len(INDICATORS)):
        for offset, column in enumerate(("IMD_score", "IMD_rank", "IMD_decile")):
            frame[4 + 3 * position + offset] = england[column]
    for position in range(28, 31):
        frame[position] = 1_500
    path = _write(tmp_path / "file7.csv", header, frame.to_numpy().tolist())
    table = read_file7(path, edition="imd2019", areas_ranked=32_844)
    assert (len(table), table["imd_rank"].nunique()) == (32_844, 32_818)
    assert spearmanr(table["imd_rank"], table["imd_score"]).statistic == pytest.approx(-1, abs=1e-6)
    assert (table["imd_deprivation"].min(), table["imd_deprivation"].max()) == (0.0, 1.0)
