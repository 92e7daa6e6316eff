"""The uses of land, in few enough classes to compare: which class each code of Urban Atlas belongs to.

What belongs here is the table of codes, and reading one that a user brings instead. Codes are joined, never names of
classes, whose wording differs between editions. Codes: Copernicus Urban Atlas 2012 and 2018, mapping guide. Classes:
those of Levy Abitbol and Karsai, Nature Machine Intelligence 2 (2020) 684-692, save that they left airports out.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from urbanprint.errors import InputError

NO_DATA = "no data"
"""The class of ground whose use is not known; it is no use of land, and no polygon is read of it."""

URBAN_ATLAS: Mapping[str, str] = MappingProxyType(
    {
        "11100": "continuous urban fabric",  # more than 80 % sealed
        "11210": "dense urban fabric",  # 50 to 80 %
        "11220": "medium density urban fabric",  # 30 to 50 %
        "11230": "low density urban fabric",  # 10 to 30 %
        "11240": "very low density urban fabric",  # less than 10 %
        "11300": "isolated structures",
        "12100": "industry, commerce and public units",
        "12210": "motorways",
        "12220": "roads",
        "12230": "railways",
        "12300": "ports and airports",
        "12400": "ports and airports",
        "13100": "construction and dump sites",
        "13300": "construction and dump sites",
        "13400": "no current use",
        "14100": "green urban areas",
        "14200": "sports and leisure",
        "21000": "farmland and wetlands",
        "22000": "farmland and wetlands",
        "23000": "farmland and wetlands",
        "24000": "farmland and wetlands",
        "25000": "farmland and wetlands",
        "31000": "forests and natural areas",
        "32000": "forests and natural areas",
        "33000": "open spaces without vegetation",
        "40000": "farmland and wetlands",
        "50000": "water",
        "91000": NO_DATA,  # clouds and shadows
        "92000": NO_DATA,  # no imagery
    }
)
"""Code of Urban Atlas 2012 and 2018 -> class."""

CLASSES: tuple[str, ...] = tuple(dict.fromkeys(name for name in URBAN_ATLAS.values() if name != NO_DATA))
"""The 19 classes of `URBAN_ATLAS`, from the most to the least built over."""


def read_classes(path: Path) -> dict[str, str]:
    """Return code -> class of a CSV with the columns code and class, to be used in place of `URBAN_ATLAS`.

    The class "no data" leaves the polygons of a code out. Raises `InputError` for a file that cannot be read, a missing
    column, an empty cell and a code that stands twice.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: name a CSV with the columns code and class.")
    try:
        sheet = pd.read_csv(path, dtype="str", encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is no CSV in UTF-8 ({error}): save it as one.") from error
    if missing := [name for name in ("code", "class") if name not in sheet.columns]:
        raise InputError(f"{path.name} has no column {missing[0]}, only {', '.join(sheet.columns)}.")
    table = sheet[["code", "class"]].apply(lambda column: column.str.strip()).fillna("")
    for name in table.columns:
        if (empty := table[name] == "").any():
            raise InputError(f"{path.name}, row {int(empty.argmax()) + 2}, column {name!r} is empty: fill it in.")
    if (twice := table["code"].duplicated()).any():
        raise InputError(
            f"{path.name}: code {table.loc[twice, 'code'].iloc[0]} stands twice; expected one class a code."
        )
    return dict(zip(table["code"], table["class"], strict=True))


def classified(codes: pd.Series, classes: Mapping[str, str], *, file: str) -> pd.Series:
    """Return the class of each code. Raises `InputError` that names the codes `classes` does not know."""
    found = codes.map(dict(classes))
    if unknown := sorted(set(codes[found.isna()])):
        raise InputError(
            f"{file} has {len(unknown)} codes without a class ({', '.join(unknown)}): give a table of classes that"
            " names them (a CSV with the columns code and class)."
        )
    return found.astype("str")
