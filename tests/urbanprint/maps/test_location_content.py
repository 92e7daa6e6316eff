"""What people read of an answer: how sure, which cells, how far the EXIF position is; and that nothing is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from urbanprint.geolocation.geolocator import Answer, LikelyCell
from urbanprint.geolocation.photographs import Photograph
from urbanprint.maps.location_content import location_answer, statement, told

ANSWER = Answer(
    candidates={
        1: (LikelyCell(cell="1", probability=0.97),),
        3: (LikelyCell(cell="1/2/0", probability=0.6), LikelyCell(cell="1/2/1", probability=0.3)),
    },
    sure=LikelyCell(cell="1", probability=0.97),
    confidence=0.9,
    sets={
        1: (LikelyCell(cell="1", probability=0.97),),
        3: (LikelyCell(cell="1/2/0", probability=0.6), LikelyCell(cell="1/0/0", probability=0.02)),
    },
    coverage=0.9,
    longitude=12.0,
    latitude=-34.56,
    radius_km=1234.0,
    familiar=0.42,
    widened=False,
)
PHOTOGRAPH = Photograph(
    path=Path("here.jpg"),
    pixels=np.zeros((8, 8, 3), dtype=np.uint8),
    width=640,
    height=480,
    position=(12.0, -33.56),
    notes=("The picture is dark: there is little to locate it by.",),
)


def test_the_sentence_names_the_cell_where_it_is_and_how_sure() -> None:
    assert statement(ANSWER) == "Somewhere in the cell 1 (0.0°N to 90.0°N, 0.0°E to 180.0°E), 97%."
    earth = replace(ANSWER, sure=LikelyCell(cell="the Earth", probability=1.0))
    assert statement(earth) == "Somewhere on Earth: no part of the grid has a probability of 90%."


def test_the_lines_say_set_candidates_position_exif_and_notes() -> None:
    lines = told(PHOTOGRAPH, ANSWER)
    text = "\n".join(lines)
    assert lines[0] == "here.jpg"
    assert "set      2 cells of L3 (1/2/0 60%, 1/0/0 2%); such sets hold the true cell 90% of the time" in text
    assert "L3       1/2/0 60%, 1/2/1 30%" in text
    assert "point    34.6°S 12.0°E, and 90% of the probability within 1,234 km" in text
    assert "EXIF     33.6°S 12.0°E, 111 km from the point; it had no part in the answer" in text
    assert "note     The picture is dark" in text
    assert "EXIF     no position" in "\n".join(told(replace(PHOTOGRAPH, position=None), ANSWER))


def test_the_map_holds_the_whole_set_and_the_candidates_beside_it() -> None:
    found = location_answer(ANSWER, PHOTOGRAPH)
    assert {each.cell_id: each.in_set for each in found.levels[3]} == {"1/2/0": True, "1/0/0": True, "1/2/1": False}
    assert [each.in_set for each in found.levels[1]] == [True]
    assert (found.cell_id, found.point, found.exif) == ("1", (12.0, -34.56), (12.0, -33.56))


def test_an_unfamiliar_photograph_is_somewhere_on_earth() -> None:
    every = tuple(LikelyCell(cell=cell, probability=0.25) for cell in "0123")
    widened = replace(
        ANSWER, widened=True, familiar=0.004, sure=LikelyCell(cell="the Earth", probability=1.0), sets={1: every},
        radius_km=20015.0,
    )  # fmt: skip
    assert statement(widened).startswith("Somewhere on Earth: the photograph is unlike those the model has learned")
    text = "\n".join(told(PHOTOGRAPH, widened))
    assert "0.4% of the photographs it was calibrated on are as unusual: it is unlike what the model knows" in text
    found = location_answer(widened, PHOTOGRAPH)
    assert found.cell_id is None
    assert sorted(each.cell_id for each in found.levels[1] if each.in_set) == list("0123")
