"""The location map: cells where they lie, whatever meridian or pole is near, and an answer that says how sure it is."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from urbanprint.errors import InputError
from urbanprint.grid import boxes, encode, from_ids, neighbours, to_ids
from urbanprint.land import read_land
from urbanprint.maps.location_map import Candidate, LocationAnswer, location_map

HOSTILE = "</script><script>alert(1)</script><b>Somewhere</b>"
NOWHERE = np.empty(0, dtype=object)
EARTH = pyproj.Geod(ellps="WGS84")

Draw = Callable[..., Path]


def _answer(longitude: float, latitude: float, **changes: Any) -> LocationAnswer:
    """A cell at L3 and L5 with 60 %, the eight around it with 5 % each; the first six of the nine are the set."""
    levels = {}
    for level in (5, 3):
        cell = encode([longitude], [latitude], level)
        around = dict.fromkeys([int(cell[0]), *neighbours(cell, level)[0].tolist()])  # at a pole some stand twice
        ids = to_ids(np.array(list(around)), level).tolist()
        levels[level] = [
            Candidate(cell_id=cell_id, probability=0.05 if place else 0.6, in_set=place < 6)
            for place, cell_id in reversed(list(enumerate(ids)))
        ]
    here = levels[3][-1].cell_id
    answer = LocationAnswer(
        statement=f"Somewhere in the cell {here}, 60 %.", cell_id=here, levels=levels, point=(longitude, latitude),
        radius_km=900.0,
    )  # fmt: skip
    return replace(answer, **changes)


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    def _draw(answer: LocationAnswer, *, land: np.ndarray = NOWHERE, **changes: Any) -> Path:
        return location_map(answer, land=land, folder=tmp_path / "map", **{"title": "Where?", **changes})

    return _draw


def _content(page: Path) -> dict[str, Any]:
    found = re.search(r'id="urbanprint-content">(.*?)</script>', page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def _shapes(collection: dict[str, Any]) -> np.ndarray:
    return shapely.get_parts(shapely.from_geojson(json.dumps(collection)))


places = given(st.floats(-180, 180), st.floats(-90, 90))
often = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# --- cells ---


@often
@places
def test_the_parts_of_a_cell_are_the_cell_on_a_world_around_the_point(
    draw: Draw, longitude: float, latitude: float
) -> None:
    content = _content(draw(_answer(longitude, latitude)))
    for level in content["levels"]:
        for cell in level["cells"]:
            parts = np.array(cell["parts"])
            assert (parts[:, 0] >= longitude - 180).all() and (parts[:, 2] <= longitude + 180).all()
            west, south, east, north = boxes(*from_ids([cell["id"]]))[0]
            assert cell["box"] == [west, south, east, north]
            assert (parts[:, [1, 3]] == [south, north]).all()
            assert (parts[:, 2] - parts[:, 0]).sum() == pytest.approx(east - west, abs=1e-9)
            middle = (parts[:, 0] + parts[:, 2]) / 2
            turned = (middle + 180) % 360 - 180
            assert ((west - 1e-9 <= turned) & (turned <= east + 1e-9)).all()


def test_neighbours_across_the_antimeridian_touch(draw: Draw) -> None:
    content = _content(draw(_answer(179.9, 10.0)))
    level = content["levels"][1]
    west, east = (to_ids(encode([x], [10.0], 5), 5)[0] for x in (179.9, -179.9))
    found = {cell["id"]: cell["parts"] for cell in level["cells"]}
    assert found[west][0][2] == found[east][0][0] == 180.0
    assert len(found[west]) == len(found[east]) == 1


@often
@places
def test_the_outline_goes_round_the_prediction_set(draw: Draw, longitude: float, latitude: float) -> None:
    for level in _content(draw(_answer(longitude, latitude)))["levels"]:
        held = [shapely.box(*part) for cell in level["cells"] if cell["held"] for part in cell["parts"]]
        ring = shapely.union_all(_shapes(level["outline"]))
        assert shapely.hausdorff_distance(ring, shapely.boundary(shapely.union_all(held))) < 1e-4
        assert level["held"] == sum(cell["held"] for cell in level["cells"])


def test_the_likeliest_cell_comes_first_and_levels_go_from_coarse_to_fine(draw: Draw) -> None:
    content = _content(draw(_answer(2.3, 48.9)))
    assert [level["level"] for level in content["levels"]] == [3, 5]
    for level in content["levels"]:
        assert level["cells"][0]["id"] == to_ids(encode([2.3], [48.9], level["level"]), level["level"])[0]
        assert [cell["probability"] for cell in level["cells"]] == [0.6] + [0.05] * 8


@pytest.mark.parametrize(
    ("cell_id", "first"), [(None, 3), ("1", 3), ("1/0/2", 3), ("1/0/2/2", 5), ("1/0/2/2/2", 5), ("1/0/2/2/2/0", 5)]
)
def test_the_map_opens_at_the_level_of_the_answer(draw: Draw, cell_id: str | None, first: int) -> None:
    content = _content(draw(_answer(2.3, 48.9, cell_id=cell_id)))
    assert content["first"] == first
    expected = [] if cell_id is None else [boxes(*from_ids([cell_id]))[0].tolist()]
    if cell_id != "1":  # its eastern edge lies beyond the world around 2.3 degrees
        assert content["cell"] == expected


def test_a_level_without_a_prediction_set_has_no_outline(draw: Draw) -> None:
    only = {1: [Candidate(cell_id="0", probability=0.4, in_set=False)]}
    level = _content(draw(_answer(2.3, 48.9, levels=only)))["levels"][0]
    assert (level["held"], len(_shapes(level["outline"]))) == (0, 0)


# --- positions ---


@often
@given(st.floats(-180, 180), st.floats(-90, 90), st.floats(0, 19_900))
def test_the_circle_is_everywhere_as_far_from_the_point_as_it_says(
    draw: Draw, longitude: float, latitude: float, radius_km: float
) -> None:
    # Up to 19,900 km: beyond, near the antipode, a line along the ellipsoid is no longer the shortest.
    content = _content(draw(_answer(longitude, latitude, radius_km=radius_km)))
    parts = _shapes(content["circle"])
    corners = shapely.get_coordinates(parts)
    assert (np.abs(corners[:, 0] - longitude) <= 180 + 6e-4).all()
    inner = corners[np.abs(corners[:, 0] - longitude) < 180 - 1e-3]  # where it was cut, it runs straight
    assert len(inner) >= 300 or radius_km < 1
    start = np.broadcast_to([[longitude], [latitude]], (2, len(inner)))
    away = EARTH.inv(*start, *inner.T)[2] / 1000
    assert np.abs(away - radius_km).max(initial=0) < 0.12  # 3 decimals of a degree


@pytest.mark.parametrize("latitude", [70.0, -70.0])
def test_a_circle_around_a_pole_reaches_from_edge_to_edge(draw: Draw, latitude: float) -> None:
    content = _content(draw(_answer(100.0, latitude, radius_km=4000.0)))
    west, south, east, north = shapely.total_bounds(_shapes(content["circle"]))
    assert (west, east) == (-80.0, 280.0)
    assert abs((north if latitude > 0 else south) - np.sign(latitude) * 74.0) < 2  # beyond the pole, 36 + 16 degrees


def test_the_camera_s_position_is_drawn_on_the_near_side_with_its_distance(draw: Draw) -> None:
    content = _content(draw(_answer(179.0, 0.0, exif=(-179.0, 0.0))))
    assert content["exif"]["point"] == [0.0, 181.0]
    assert content["exif"]["off_km"] == pytest.approx(2 * np.radians(1) * 6378.137)
    assert _content(draw(_answer(179.0, 0.0)))["exif"] is None


# --- page ---


def test_the_page_is_one_file_that_loads_nothing(draw: Draw) -> None:
    page = draw(_answer(2.3, 48.9))
    assert [file.name for file in page.parent.iterdir()] == ["location_map.html"]
    assert not re.findall(r"<(?:script|link|iframe)[^>]*\s(?:src|href)=", page.read_text(encoding="utf-8"))


def test_text_never_becomes_html(draw: Draw) -> None:
    text = draw(_answer(2.3, 48.9, statement=HOSTILE), title=HOSTILE).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<b>Somewhere" not in text
    assert text.count("&lt;b&gt;Somewhere&lt;/b&gt;") == 3, "title, heading, statement"


def test_the_photograph_is_shown_small_and_without_metadata(draw: Draw, realdata: Path) -> None:
    file = realdata / "exif_photos" / "berlin_01.jpg"
    with Image.open(file) as original:
        assert original.getexif()
    page = draw(_answer(13.4, 52.5), photograph=file).read_text(encoding="utf-8")
    found = re.search(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert found is not None
    with Image.open(BytesIO(base64.b64decode(found[1]))) as shown:
        assert not shown.getexif()
        assert shown.width <= 640
    assert "<img" not in draw(_answer(13.4, 52.5)).read_text(encoding="utf-8").split("<main>")[1].split("</main>")[0]


@pytest.mark.parametrize("longitude", [0.0, 179.5, -100.0])
def test_real_land_lies_where_it_does_on_a_world_around_any_point(draw: Draw, realdata: Path, longitude: float) -> None:
    land = read_land(realdata / "natural_earth" / "ne_50m_land.json")
    page = draw(_answer(longitude, 0.0), land=land)
    drawn = _shapes(_content(page)["land"])
    assert shapely.area(drawn).sum() == pytest.approx(shapely.area(land).sum(), rel=2e-3)
    shapely.prepare(drawn)
    for x, y, dry in ((2.35, 48.86, True), (-100.0, 40.0, True), (175.0, 67.5, True), (-175.0, 66.9, True),
                      (-30.0, 40.0, False), (178.0, -17.8, True), (10.0, -80.0, True)):  # fmt: skip
        nearest = x + 360 * round((longitude - x) / 360)
        assert shapely.contains_xy(drawn, nearest, y).any() == dry
    assert page.stat().st_size < 2_000_000


def test_mistakes_are_named(draw: Draw, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"point \(200\.0, 10\.0\) is no longitude"):
        draw(_answer(0.0, 10.0, point=(200.0, 10.0)))
    with pytest.raises(InputError, match=r"EXIF position .* is no longitude"):
        draw(_answer(0.0, 10.0, exif=(0.0, float("nan"))))
    with pytest.raises(InputError, match="radius_km = -1"):
        draw(_answer(0.0, 10.0, radius_km=-1))
    with pytest.raises(InputError, match="without cells"):
        draw(_answer(0.0, 10.0, levels={}))
    with pytest.raises(InputError, match="without cells"):
        draw(_answer(0.0, 10.0, levels={3: []}))
    with pytest.raises(InputError, match=r"0/1 of L2 has the probability 1\.2"):
        draw(_answer(0.0, 10.0, levels={2: [Candidate(cell_id="0/1", probability=1.2, in_set=True)]}))
    with pytest.raises(InputError, match="'0/7' is no cell"):
        draw(_answer(0.0, 10.0, levels={2: [Candidate(cell_id="0/7", probability=0.2, in_set=True)]}))
    with pytest.raises(InputError, match="cannot be read as an image"):
        draw(_answer(0.0, 10.0), photograph=b"text")
    assert not (tmp_path / "map").exists(), "nothing is written of an answer with a mistake"


# --- what a reader meets, in a browser without internet ---


@pytest.mark.parametrize(
    ("longitude", "latitude", "width"), [(2.3, 48.9, 1280), (179.9, -17.0, 1280), (100.0, 88.0, 390), (2.3, 48.9, 390)]
)
def test_a_reader_sees_the_answer_and_asks_about_cells(
    browser: Any, draw: Draw, longitude: float, latitude: float, width: int
) -> None:
    answer = _answer(longitude, latitude, exif=(longitude - 1, latitude - 1), statement=HOSTILE)
    wrong: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 844}, reduced_motion="reduce", has_touch=width < 700)
    page.route("http*://**", lambda route: (wrong.append(route.request.url), route.abort()))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.goto(draw(answer, land=np.array([shapely.box(0, 40, 20, 60)])).as_uri())
    assert page.locator(".statement").inner_text() == HOSTILE
    off = EARTH.inv(longitude, latitude, longitude - 1, latitude - 1)[2] / 1000
    assert f"{off:,.0f}\N{NO-BREAK SPACE}km from the estimate" in page.locator("#facts").inner_text()
    sides = f"{abs(latitude):.1f}°\N{NO-BREAK SPACE}{'S' if latitude < 0 else 'N'}, {longitude:.1f}°\N{NO-BREAK SPACE}E"
    assert sides in page.locator("#facts").inner_text(), "no more digits than a radius of 900 km deserves"
    assert page.evaluate("document.documentElement.scrollWidth") == width

    page.get_by_text("L5", exact=True).click()
    cell, parts = to_ids(encode([longitude], [latitude], 5), 5)[0], page.locator("#cells button")
    assert parts.first.inner_text().split("\n") == [cell, "60\N{NO-BREAK SPACE}%"]
    parts.first.click()
    card = page.locator("#cell")
    assert card.locator("h2").inner_text() == f"Cell {cell}"
    assert page.locator("#map").bounding_box()["y"] >= 0, "a phone scrolls back to the map"
    page.get_by_text("L3", exact=True).click()
    assert not card.is_visible()
    assert "outlined cells are the prediction set" in page.locator("#set").inner_text()
    page.locator("header").scroll_into_view_if_needed()
    at, world = page.locator("i.camera").first.bounding_box(), page.locator("#map").bounding_box()
    assert world["x"] < at["x"] < world["x"] + world["width"], "the position of the camera is in view"
    page.mouse.click(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    south_west = encode([(longitude - 1 + 180) % 360 - 180], [latitude - 1], 3)
    assert card.locator("h2").inner_text() == f"Cell {to_ids(south_west, 3)[0]}"
    page.close()
    assert wrong == []
