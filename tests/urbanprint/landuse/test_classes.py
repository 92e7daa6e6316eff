"""Every code of Urban Atlas has one of 19 classes, and a user's table can take the place of ours."""

import json

import pandas as pd
import pytest

from urbanprint.errors import InputError
from urbanprint.landuse.classes import CLASSES, NO_DATA, URBAN_ATLAS, classified, read_classes


def test_there_are_19_classes_and_no_data_is_none_of_them():
    assert len(CLASSES) == 19
    assert set(URBAN_ATLAS.values()) == {*CLASSES, NO_DATA}
    assert NO_DATA not in CLASSES


def test_codes_are_mapped_by_number_and_merged():
    codes = pd.Series(["11100", "12400", "12300", "91000"])
    assert classified(codes, URBAN_ATLAS, file="x").tolist() == [
        "continuous urban fabric",
        "ports and airports",
        "ports and airports",
        "no data",
    ]


def test_unknown_codes_are_named():
    with pytest.raises(InputError, match=r"narva.gpkg has 2 codes without a class \(14110, 99999\)"):
        classified(pd.Series(["99999", "11100", "14110", "14110"]), URBAN_ATLAS, file="narva.gpkg")


def test_a_table_of_the_user_is_read_as_text(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text("class,code,remark\nbuilt ,11100,\nno data, 50000,sea\n", encoding="utf-8-sig")
    assert read_classes(path) == {"11100": "built", "50000": "no data"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("code,name\n1,a\n", r"has no column class, only code, name"),
        ("code,class\n11100,a\n,b\n", r"row 3, column 'code' is empty"),
        ("code,class\n11100, \n", r"row 2, column 'class' is empty"),
        ("code,class\n11100,a\n11100,b\n", r"code 11100 stands twice"),
        ("", r"is no CSV"),
    ],
)
def test_a_table_with_a_mistake_is_refused(tmp_path, text, sentence):
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"classes\.csv.*{sentence}"):
        read_classes(path)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.csv does not exist"):
        read_classes(tmp_path / "none.csv")


@pytest.mark.parametrize("year", [2012, 2018])
def test_the_official_list_of_codes_is_the_table(realdata, year):
    steps = json.loads((realdata / "urban_atlas" / f"ua{year}.json").read_text())["steps"]
    (enumerated,) = (step["parameters"] for step in steps if step["check_ident"] == "qc_tool.vector.enum")
    ((column, codes),) = enumerated["column_defs"]
    assert column == f"code_{year}"
    assert set(codes) == set(URBAN_ATLAS)
