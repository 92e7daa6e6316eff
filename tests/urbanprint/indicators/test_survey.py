"""Surveys are read as published, and a mistake is told by file, row and column."""

import json

import numpy as np
import pandas as pd
import pytest

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.indicators.survey import (
    DHS_JITTER,
    Jitter,
    read_cluster_images,
    read_clusters,
    read_list_column,
    read_lists,
)

OWN = pd.DataFrame(
    {
        "area_id": ["b", "a", "c"],
        "country": ["in", "in", "ke"],
        "region": ["Kerala", None, "Nakuru"],
        "longitude": [76.5, 77.25, 36.0],
        "latitude": [10.0, 28.5, -0.25],
        "urban": ["urban", None, "rural"],
        "weight": [1.5, None, 0.0],
        "poverty": [0.25, -1.0, None],
        "population": [900.0, 12.5, 40.0],
        "bmi": [None, 21.5, 22.0],
    }
)

PUBLISHED = pd.DataFrame(
    {
        "key": ["p1", "p2", "p3"],
        "unique_cluster": ["ia_250417", "ia_250417", "ia_331881"],
        "ilon": [72.0, 73.0, 80.0],
        "ilat": [20.0, 20.5, 12.0],
        "features": [json.dumps([1, 255, 1]), "[]", "[4]"],
        "features_name": ["['Car', 'Void', 'Car']", "[]", "['Road']"],
        "confidence": ["[0.9, 0.1, 0.8]", "[]", "[0.7]"],
        "pov": [0.5, 0.5, -0.5],
        "pov_label": [1, 1, 0],
        "pop": [300.0, 300.0, 20.0],
        "pop_label": [1, 1, 0],
    }
)


def written(folder, frame, name="clusters.csv"):
    path = folder / name
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["clusters.csv", "clusters.parquet"])
def test_own_columns_come_back_as_written_sorted_by_cluster(tmp_path, name):
    clusters = read_clusters(written(tmp_path, OWN, name))
    tables.CLUSTERS.validate(clusters)
    assert clusters["area_id"].tolist() == ["a", "b", "c"]
    assert clusters["urban"].tolist() == [pd.NA, True, False]
    assert clusters["weight"].tolist() == [1.0, 1.5, 0.0]  # a missing weight is 1
    expected = OWN.sort_values("area_id", ignore_index=True)
    for column in ("longitude", "latitude", "poverty", "population", "bmi"):
        np.testing.assert_array_equal(clusters[column], expected[column].astype(float))
    assert clusters["region"].isna().tolist() == [True, False, False]


def test_the_published_file_has_a_row_an_image_and_a_country_in_its_identifiers(tmp_path):
    path = written(tmp_path, PUBLISHED)
    clusters = read_clusters(path).set_index("area_id")
    assert clusters["country"].tolist() == ["ia", "ia"]
    assert clusters.loc["ia_250417", ["longitude", "latitude"]].tolist() == [72.5, 20.25]  # mean of its images
    assert clusters.loc["ia_250417", ["poverty", "population"]].tolist() == [0.5, 300.0]
    assert clusters["bmi"].isna().all()
    assert clusters["urban"].isna().all()
    images = read_cluster_images(path)
    assert images["image_id"].tolist() == images["sequence_id"].tolist() == ["p1", "p2", "p3"]
    assert images["area_id"].tolist() == PUBLISHED["unique_cluster"].tolist()
    assert images["longitude"].tolist() == [72.0, 73.0, 80.0]


@pytest.mark.parametrize(
    ("heading", "cells"),
    [
        ("urban", ["1", "", "0"]),
        ("urban", ["True", "", "False"]),
        ("rural", ["0", "", "1"]),
        ("rural", ["no", "", "yes"]),
        ("rural", ["urban", "", "R"]),
        ("urban_rural", ["U", "", "R"]),
    ],
)
def test_urban_and_rural_are_told_however_they_are_written(tmp_path, heading, cells):
    frame = OWN.drop(columns="urban").assign(**{heading: cells})
    clusters = read_clusters(written(tmp_path, frame)).set_index("area_id")
    assert clusters.loc[["b", "a", "c"], "urban"].tolist() == [True, pd.NA, False]


def test_headings_of_another_survey_are_named_by_the_caller(tmp_path):
    frame = pd.DataFrame(
        {
            "nation": ["x", "x"],
            "year": [2010, 2015],
            "ea": ["07", "07"],
            "X": [1.5, 1.5],
            "lat": [2.0, 2.0],
            "w": [3, 4],
        }
    )
    clusters = read_clusters(
        written(tmp_path, frame),
        columns={"longitude": "X", "poverty": "w", "country": "nation"},
        id_columns=("nation", "year", "ea"),
    )
    assert clusters["area_id"].tolist() == ["x_2010_07", "x_2015_07"]
    assert clusters["poverty"].tolist() == [3.0, 4.0]


def test_a_country_stands_for_a_column_that_is_missing(tmp_path):
    path = written(tmp_path, OWN.drop(columns="country"))
    assert set(read_clusters(path, country="ke")["country"]) == {"ke"}
    with pytest.raises(InputError, match=r"has no column country, and cluster b does not begin with two letters"):
        read_clusters(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"latitude": [10.0, 95.0, 0.0]}, r"clusters.csv, row 3, column 'latitude' is 95.0: expected a latitude"),
        ({"longitude": [None, 1.0, 1.0]}, r"row 2, column 'longitude' is empty: expected a longitude"),
        ({"longitude": [1.0, 1.0, 0.0], "latitude": [1.0, 1.0, 0.0]}, r"row 4.*position is 0, 0"),
        ({"poverty": ["0.1", "poor", "0.2"]}, r"row 3, column 'poverty' is 'poor': expected a number"),
        ({"poverty": ["0.1", "inf", "0.2"]}, r"row 3, column 'poverty' is 'inf': expected a number"),
        ({"urban": ["urban", "suburb", ""]}, r"row 3, column 'urban' is 'suburb': expected urban or rural"),
        ({"area_id": ["a", "b", "a"]}, r"cluster a stands in rows 2 and 4; expected one row a cluster"),
        ({"area_id": ["a", None, "c"]}, r"row 3, column 'area_id' is empty"),
        ({"weight": [1.0, -1.0, 1.0]}, r"row 3, column 'weight' is negative"),
        ({"pov": [1.0, 1.0, 1.0]}, r"has both poverty and pov for poverty: say which"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path, change, sentence):
    with pytest.raises(InputError, match=sentence):
        read_clusters(written(tmp_path, OWN.assign(**change)))


def test_a_wrong_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.csv does not exist"):
        read_clusters(tmp_path / "none.csv")
    for name in ("empty.csv", "broken.parquet"):
        (tmp_path / name).write_text("")
        with pytest.raises(InputError, match=f"{name} is neither CSV in UTF-8 nor Parquet"):
            read_clusters(tmp_path / name)
    with pytest.raises(InputError, match=r"has no rows"):
        read_clusters(written(tmp_path, OWN[:0]))
    with pytest.raises(InputError, match=r"has no column longitude or lon or ilon"):
        read_clusters(written(tmp_path, OWN.drop(columns="longitude")))
    with pytest.raises(InputError, match=r"has no indicator"):
        read_clusters(written(tmp_path, OWN.drop(columns=["poverty", "population", "bmi"])))
    with pytest.raises(InputError, match=r"has no column wealth"):
        read_clusters(written(tmp_path, OWN), columns={"poverty": "wealth"})
    with pytest.raises(InputError, match=r"Clusters have no column wealth"):
        read_clusters(written(tmp_path, OWN), columns={"wealth": "poverty"})


def test_images_that_disagree_about_their_cluster_or_stand_twice_are_named(tmp_path):
    with pytest.raises(InputError, match=r"images of cluster ia_250417 disagree about poverty \(0.5 and 0.75\)"):
        read_clusters(written(tmp_path, PUBLISHED.assign(pov=[0.5, 0.75, 0.0])))
    with pytest.raises(InputError, match=r"row 4, column 'key' is p1, which stands above"):
        read_cluster_images(written(tmp_path, PUBLISHED.assign(key=["p1", "p2", "p1"])))


def test_fixed_lists_come_from_two_files_or_a_column(tmp_path):
    train, validation = tmp_path / "train.txt", tmp_path / "val.txt"
    train.write_text("ia_2\nia_1\n")
    validation.write_text("ia_3\n\n")
    expected = {"ia_1": "train", "ia_2": "train", "ia_3": "validation"}
    assert read_lists(train, validation).to_dict() == expected
    rows = pd.DataFrame(
        {
            "unique_cluster": ["ia_1", "ia_1", "ia_2", "ia_3", "ia_4"],
            "fold": ["train", "train", "Training", "val", None],
        }
    )
    assert read_list_column(written(tmp_path, rows), column="fold").to_dict() == expected


def test_a_cluster_on_both_lists_is_refused(tmp_path):
    train, validation = tmp_path / "train.txt", tmp_path / "val.txt"
    train.write_text("ia_1\nia_2\n")
    validation.write_text("ia_2\n")
    with pytest.raises(InputError, match=r"cluster ia_2 is listed twice \(train, validation\)"):
        read_lists(train, validation)
    rows = pd.DataFrame({"unique_cluster": ["ia_1", "ia_1"], "fold": ["train", "test"]})
    with pytest.raises(InputError, match=r"row 3, column 'fold' is 'test': expected train or validation"):
        read_list_column(written(tmp_path, rows), column="fold")


def test_the_jitter_of_a_source_is_the_farthest_it_moves_any_cluster():
    assert DHS_JITTER.most_m == 10_000
    assert Jitter(urban_m=500, rural_m=0).most_m == 500


def test_the_lsms_asset_index_goes_through_the_same_reader(realdata):
    path = realdata / "livelihood" / "lsms_asset_index.csv"
    parts = ("country", "year", "ea_id", "lon", "lat")
    clusters = read_clusters(path, columns={"poverty": "asset_index"}, id_columns=parts)
    assert len(clusters) == 2_973
    assert clusters["country"].value_counts().to_dict() == {"ng": 960, "et": 654, "tz": 600, "ug": 555, "mw": 204}
    raw = pd.read_csv(path)
    assert sorted(clusters["poverty"]) == sorted(raw["asset_index"])
    assert len(clusters.drop_duplicates(["longitude", "latitude"])) == 1_374  # most places were visited again
    with pytest.raises(InputError, match="cluster ug_2005_0 stands in rows 2420 and 2421"):
        read_clusters(path, columns={"poverty": "asset_index"}, id_columns=parts[:3])
