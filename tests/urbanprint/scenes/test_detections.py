"""Published detections instead of parsing."""

import numpy as np
import pandas as pd
import pytest

from urbanprint.errors import InputError
from urbanprint.scenes.detections import detected_scenes


def _rows(scenes: pd.DataFrame) -> list[tuple]:
    return list(scenes[["image_id", "class", "count", "confidence"]].itertuples(index=False, name=None))


def test_a_row_an_image_and_a_row_a_detection_say_the_same() -> None:
    lists = pd.DataFrame(
        {
            "key": ["a", "b"],
            "unique_cluster": [1, 1],
            "features_name": [["object--vehicle--car", "object--vehicle--car", "human--person"], ["Bus"]],
            "confidence": [[0.9, 0.7, 0.5], [1.0]],
        }
    )
    expected = [("a", "car", 2.0, pytest.approx(0.8)), ("a", "person", 1.0, 0.5), ("b", "bus", 1.0, 1.0)]
    assert _rows(detected_scenes(lists)) == expected
    assert _rows(detected_scenes(lists.explode(["features_name", "confidence"]))) == expected
    written = lists.assign(features_name=lists["features_name"].map(str), confidence=lists["confidence"].map(str))
    assert _rows(detected_scenes(written)) == expected
    assert detected_scenes(lists)["fraction"].isna().all()


def test_counts_may_stand_in_features() -> None:
    table = pd.DataFrame({"image_id": ["a"], "features_name": ["['car', 'bus', 'boat']"], "features": ["[3, 1, 0]"]})
    assert detected_scenes(table, features_are="counts")[["class", "count"]].to_numpy().tolist() == [
        ["bus", 1.0],
        ["car", 3.0],
    ]


def test_an_image_without_detections_has_no_row_and_a_missing_confidence_stays_missing() -> None:
    table = pd.DataFrame({"key": [7, 8, 9], "features_name": ["[]", None, "car"], "confidence": ["[]", None, None]})
    scenes = detected_scenes(table.drop(columns="confidence"))
    assert scenes[["image_id", "class", "count"]].to_numpy().tolist() == [["9", "car", 1.0]]
    assert np.isnan(scenes["confidence"][0])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"features_name": ["car"]}, "no column image_id or key"),
        ({"key": ["a"], "names": ["car"]}, "no column features_name"),
        (
            {"key": ["a", "b"], "features_name": ["car", ["car", "bus"]], "confidence": [0.5, [0.5]]},
            r"image b has lists of unequal length \(2 in features_name, 1 in confidence\)",
        ),
        ({"key": ["a"], "features_name": ["car"], "confidence": ["high"]}, "image a: confidence holds 'high'"),
    ],
)
def test_a_wrong_table_is_one_sentence(table: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        detected_scenes(pd.DataFrame(table))
