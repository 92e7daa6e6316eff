"""The coverage map: every cell in its place and state, found exactly under a click, in one small file."""

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from matplotlib.colors import to_rgb
from PIL import Image

from urbanprint.errors import InputError
from urbanprint.grid import all_codes, boxes, encode, from_ids, neighbours, parents, to_ids
from urbanprint.land import land_codes, read_land
from urbanprint.maps.coverage_map import REASON_LENGTH, coverage_map

HOSTILE = "</script><script>alert(1)</script><b>no images</b>"
CODES = all_codes(8)
IDS = to_ids(CODES, 8)
LAND = np.array([shapely.box(-30, -40, 25, 50), shapely.box(150, -75, 180, 70), shapely.box(-180, -90, -140, -60)])

Draw = Callable[..., Path]


@pytest.fixture(scope="module")
def cells() -> pd.DataFrame:
    """Cells in no order: a quarter of the land was never asked, half of the rest has images, one has very many."""
    rng = np.random.default_rng(5)
    on_land = np.isin(CODES, land_codes(LAND, 8))
    asked = on_land & (rng.random(len(CODES)) < 0.75)
    images = np.where(asked & (rng.random(len(CODES)) < 0.5), rng.integers(1, 30, len(CODES)), 0)
    images[np.argmax(images > 0)] = 70_000
    table = pd.DataFrame(
        {
            "cell_id": IDS,
            "state": np.where(images > 0, "data", np.where(on_land, "empty", "ocean")),
            "images": images,
            "asked_at": pd.Timestamp("2026-03-04T05:06:07Z") + pd.to_timedelta(CODES, unit="s"),
            "reason": np.where(CODES % 2, HOSTILE, "all too dark"),
        }
    )
    table["asked_at"] = table["asked_at"].where(asked)
    table["reason"] = table["reason"].where(asked & (images == 0))
    return table.sample(frac=1, random_state=1, ignore_index=True)


@pytest.fixture
def draw(cells: pd.DataFrame, tmp_path: Path) -> Draw:
    def _draw(table: pd.DataFrame = cells, *, land: np.ndarray = LAND, title: str = "Coverage") -> Path:
        return coverage_map(table, land=land, folder=tmp_path / "map", title=title)

    return _draw


def _content(page: Path) -> dict[str, Any]:
    found = re.search(r'id="urbanprint-content">(.*?)</script>', page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def _array(content: dict[str, Any], name: str, kind: str = "<u4") -> np.ndarray:
    return np.frombuffer(base64.b64decode(content[name]), dtype=kind)


def _states(table: pd.DataFrame) -> pd.Series:
    """What the page calls the state of each cell."""
    empty = table["asked_at"].isna().map({True: "Land not asked yet", False: "Land without usable images"})
    return table["state"].map({"data": "Land with images", "ocean": "Ocean"}).fillna(empty)


# --- what the page holds ---


def test_each_cell_stands_at_its_code_with_what_the_table_says(draw: Draw, cells: pd.DataFrame) -> None:
    content = _content(draw())
    table = cells.set_index("cell_id").loc[IDS]
    state = np.array(content["names"])[_array(content, "state", "u1")]
    assert state.tolist() == _states(table).tolist()
    assert _array(content, "images").tolist() == table["images"].tolist()
    seconds = [0 if pd.isna(time) else int(time.timestamp()) for time in table["asked_at"]]
    assert _array(content, "asked").tolist() == seconds
    reasons = np.array(content["reasons"])[_array(content, "reason")]
    assert reasons.tolist() == table["reason"].fillna("").tolist()


def test_the_page_is_one_file_that_loads_nothing(draw: Draw) -> None:
    page = draw()
    assert [file.name for file in page.parent.iterdir()] == ["coverage_map.html"]
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=", text)
    assert "innerHTML" not in text.split("<script>")[-1], "text is set as text by the map's own script"


def test_the_same_table_makes_the_same_bytes(draw: Draw, cells: pd.DataFrame) -> None:
    first = draw().read_bytes()
    assert draw(cells.sort_values("cell_id")).read_bytes() == first


def test_text_never_becomes_html(draw: Draw) -> None:
    page = draw(title=HOSTILE)
    assert "<script>alert" not in page.read_text(encoding="utf-8")
    assert HOSTILE in _content(page)["reasons"]


def test_ten_megabytes_hold_the_real_land_with_a_reason_of_its_own_for_every_cell(draw: Draw, realdata: Path) -> None:
    land = read_land(realdata / "natural_earth" / "ne_50m_land.json")
    on_land = np.isin(CODES, land_codes(land, 8))
    table = pd.DataFrame({"cell_id": IDS, "state": np.where(on_land, "empty", "ocean"), "images": 0})
    table["asked_at"] = pd.Timestamp("2026-01-01", tz="UTC")
    table["reason"] = ["no images in " + cell_id * 30 for cell_id in IDS]
    page = draw(table, land=land)
    assert page.stat().st_size < 10_000_000
    content = _content(page)
    assert len(content["reasons"]) == 1 + on_land.sum()
    assert {len(reason) for reason in content["reasons"][1:]} == {REASON_LENGTH}
    drawn = shapely.from_geojson(json.dumps(content["land"]))
    assert sum(part.area for part in drawn.geoms) == pytest.approx(shapely.area(land).sum(), rel=2e-3)


def test_a_world_without_land_is_drawn(draw: Draw) -> None:
    ocean = pd.DataFrame({"cell_id": IDS, "state": "ocean", "images": 0, "asked_at": pd.NaT, "reason": None})
    content = _content(draw(ocean, land=np.empty(0, dtype=object)))
    assert content["land"]["geometries"] == []
    assert content["reasons"] == [""]
    assert not _array(content, "state", "u1").any()


def test_mistakes_are_named(draw: Draw, cells: pd.DataFrame) -> None:
    first = cells["cell_id"].iloc[0]
    with pytest.raises(InputError, match="no column reason"):
        draw(cells.drop(columns="reason"))
    with pytest.raises(InputError, match=f"{first} has 0 rows"):
        draw(cells.iloc[1:])
    with pytest.raises(InputError, match=f"{first} has 2 rows"):
        draw(pd.concat([cells, cells.iloc[:1]]))
    with pytest.raises(InputError, match="0/1/2 is not of L8"):
        draw(cells.assign(cell_id=cells["cell_id"].replace(first, "0/1/2")))
    with pytest.raises(InputError, match="'paris' is no cell"):
        draw(cells.assign(cell_id=cells["cell_id"].replace(first, "paris")))
    for state, images in (("land", 0), ("data", 0), ("ocean", 3), ("empty", 1), ("data", -1), ("ocean", None)):
        wrong = cells.astype({"images": float})
        wrong.loc[0, ["state", "images"]] = [state, images]
        with pytest.raises(InputError, match=f"{first} is in the state '{state}' with"):
            draw(wrong)


_VISIONS = {  # Machado, Oliveira and Fernandes (2009), severity 1, linear RGB
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def _lab(colour: str, vision: str) -> np.ndarray:
    """CIE L*a*b* (D65) of a colour as somebody with this vision sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.asarray(_VISIONS[vision]) @ np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    x, y, z = np.cbrt(np.clip(to_xyz @ linear, 0.009, None) / [0.95047, 1, 1.08883])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", _VISIONS)
def test_no_two_colours_look_alike_to_any_colour_vision(draw: Draw, vision: str) -> None:
    colours = [_lab(kind["colour"], vision) for kind in _content(draw())["kinds"]]
    apart = [np.linalg.norm(one - other) for place, one in enumerate(colours) for other in colours[:place]]
    assert min(apart) > 13, "2 is just noticeable side by side"


# --- what a reader meets, in a browser without internet ---


@pytest.fixture(scope="module")
def map_file(cells: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coverage_map(cells, land=LAND, folder=tmp_path_factory.mktemp("coverage"), title="Coverage")


@pytest.fixture(scope="module")
def page(browser: Any, map_file: Path) -> Iterator[Any]:
    """The map on a desktop; whatever goes wrong in the page fails the tests."""
    wrong: list[str] = []
    opened = browser.new_page(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    opened.route("http*://**", lambda route: (wrong.append(route.request.url), route.abort()))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    opened.goto(map_file.as_uri())
    yield opened
    opened.close()
    assert wrong == []


def _find(page: Any, wanted: str) -> str:
    """The id of the cell that the search finds."""
    page.fill("#find input", wanted)
    page.keyboard.press("Enter")
    return page.locator("#cell h2").inner_text().removeprefix("Cell ")


def _show(page: Any, level: int) -> None:
    page.get_by_text(f"L{level}", exact=True).click()


def _on_screen(page: Any, longitude: float, latitude: float) -> tuple[float, float]:
    world = page.locator(".leaflet-image-layer").bounding_box()
    return (
        world["x"] + (longitude + 180) / 360 * world["width"],
        world["y"] + (90 - latitude) / 180 * world["height"],
    )


def _told(page: Any) -> dict[str, str]:
    lines = (row.split("\t") for row in page.locator("#cell table").inner_text().split("\n"))
    return {name: value.replace("\N{NO-BREAK SPACE}", " ") for name, value in lines}


@pytest.mark.parametrize("level", [3, 5, 8])
def test_the_page_finds_the_cell_that_the_grid_has_for_any_place(page: Any, level: int) -> None:
    rng = np.random.default_rng(level)
    edges = rng.integers(-128, 129, (150, 2)) * [1.40625, 0.703125]
    beside = np.clip(np.nextafter(edges, rng.choice([-np.inf, np.inf], edges.shape)), [-180, -90], [180, 90])
    corners = np.array([(x, y) for x in (-180, -0.0, 180) for y in (-90, -5e-324, 90)])
    at = np.concatenate([rng.uniform([-180, -90], [180, 90], (150, 2)), edges, beside, corners])
    _show(page, level)
    found = page.evaluate(
        """at => at.map(([longitude, latitude]) => {
            document.querySelector("#find input").value = latitude + ", " + longitude;
            document.querySelector("#find button").click();
            return document.querySelector("#cell h2").textContent.slice(5);
        })""",
        at.tolist(),
    )
    assert found == to_ids(encode(*at.T, level), level).tolist()


def test_a_click_on_a_cell_shows_what_is_known_of_it(page: Any, cells: pd.DataFrame) -> None:
    _show(page, 8)
    table = cells.assign(told=_states(cells)).set_index("cell_id")
    middle = int(encode([0.0], [0.0], 8)[0])
    assert _find(page, IDS[middle]) == IDS[middle]
    seen = set()
    for code in [middle, *neighbours(np.array([middle]), 8)[0]]:
        west, south, east, north = boxes(np.array([code]), 8)[0]
        for x, y in ((0.1, 0.1), (0.9, 0.9)):  # near two corners
            page.mouse.click(*_on_screen(page, west + x * (east - west), south + y * (north - south)))
            assert page.locator("#cell h2").inner_text() == f"Cell {IDS[code]}"
        row, told = table.loc[IDS[code]], _told(page)
        assert told["State"] == row["told"]
        assert told["Images"] == str(row["images"])
        assert told["Asked"] == ("never" if pd.isna(row["asked_at"]) else f"{row['asked_at']:%Y-%m-%d %H:%M} UTC")
        assert told.get("Why empty") == (None if pd.isna(row["reason"]) else row["reason"])
        sides = [f"{abs(each):.2f}°" + (f" {'S' if each < 0 else 'N'}" if each else "") for each in (south, north)]
        assert told["Latitude"] == " to ".join(sides)
        seen.add(told["State"])
    assert seen == {"Land with images", "Land without usable images", "Land not asked yet"}


@pytest.mark.parametrize("level", [3, 5, 8])
def test_every_cell_is_painted_in_the_colour_of_its_kind_and_counted(
    page: Any, cells: pd.DataFrame, level: int, map_file: Path
) -> None:
    kinds = _content(map_file)["kinds"]
    codes, _ = from_ids(cells["cell_id"])
    told = pd.get_dummies(_states(cells)).assign(images=cells["images"]).groupby(parents(codes, 8, level)).sum()
    by_count = [
        (told["images"] >= 1000, "1,000 images or more"),
        (told["images"] >= 100, "100 to 999 images"),
        (told["images"] >= 10, "10 to 99 images"),
        (told["images"] >= 1, "1 to 9 images"),
        (told["Land not asked yet"] > 0, "Not asked yet"),
        (told["Land without usable images"] > 0, "No usable images"),
    ]
    expected = np.select(*zip(*by_count, strict=True), default="Ocean").tolist()
    _show(page, level)
    source = page.locator(".leaflet-image-layer").get_attribute("src")
    with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as picture:
        assert picture.size == (2**level, 2**level)
        pixels = np.asarray(picture.convert("RGB"))
    west, _, _, north = boxes(all_codes(level), level).T
    row, column = np.round((90 - north) / 180 * 2**level), np.round((west + 180) / 360 * 2**level)
    colours = {kind["name"]: (np.array(to_rgb(kind["colour"])) * 255).round().astype(int).tolist() for kind in kinds}
    painted = pixels[row.astype(int), column.astype(int)].tolist()
    assert painted == [colours[name] for name in expected]

    counts = pd.Series(expected).value_counts()
    legend = [line.split("\n") for line in page.locator(".key li").all_inner_texts()]
    assert legend == [[k["name"], f"{counts[k['name']]:,}"] for k in kinds if k["name"] in counts]
    land = 4**level - counts.get("Ocean", 0)
    imaged, land = sum(name.startswith("1") for name in expected), 4**level - expected.count("Ocean")
    assert f"{imaged:,} of {land:,} cells on land have images" in page.locator("#summary").inner_text()


def test_a_coarser_cell_sums_up_the_cells_in_it(page: Any, cells: pd.DataFrame) -> None:
    _show(page, 8)
    code = int(encode([10.0], [10.0], 8)[0])
    _find(page, IDS[code])
    _show(page, 5)
    inside = cells[from_ids(cells["cell_id"])[0] >> 6 == code >> 6]
    assert page.locator("#cell h2").inner_text() == f"Cell {to_ids(np.array([code >> 6]), 5)[0]}"
    told = _told(page)
    counts = _states(inside).value_counts()
    assert told["Cells in it"] == ", ".join(
        f"{counts[name]} {name.lower()}"
        for name in ("Land without usable images", "Land not asked yet", "Land with images")
    )
    assert told["Images"] == f"{inside['images'].sum():,}"
    assert told["Asked"] == f"last {inside['asked_at'].max():%Y-%m-%d %H:%M} UTC"


def test_arrow_keys_walk_over_the_antimeridian_and_stop_at_the_poles(page: Any) -> None:
    _show(page, 8)
    east = int(encode([179.9], [10.0], 8)[0])
    _find(page, IDS[east])
    page.locator("#map").focus()
    for key, place in (("ArrowRight", 2), ("ArrowUp", 0), ("ArrowLeft", 6), ("ArrowDown", 4)):  # clockwise from north
        page.keyboard.press(key)
        east = int(neighbours(np.array([east]), 8)[0, place])
        assert page.locator("#cell h2").inner_text() == f"Cell {IDS[east]}"
    for pole, key in ((90.0, "ArrowUp"), (-90.0, "ArrowDown")):
        assert _find(page, f"{pole}, 20") == (last := to_ids(encode([20.0], [pole], 8), 8)[0])
        page.locator("#map").focus()
        page.keyboard.press(key)
        assert page.locator("#cell h2").inner_text() == f"Cell {last}"


@pytest.mark.parametrize("wanted", ["", "Paris", "91, 0", "0, 181", "48,86 2,35", "0/1", "0/1/4"])
def test_what_is_no_place_is_said_not_guessed(page: Any, wanted: str) -> None:
    assert _find(page, wanted) == "Not found"


def test_a_phone_shows_the_map_the_cell_and_the_legend_without_scrolling_sideways(browser: Any, map_file: Path) -> None:
    phone = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    phone.goto(map_file.as_uri())
    phone.locator("#map").tap(position={"x": 200, "y": 200})
    assert phone.locator("#cell h2").inner_text().startswith("Cell ")
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    for part in ("#cell h2", "#levels", ".key"):
        box = phone.locator(part).bounding_box()
        assert box["y"] + box["height"] < 844
    phone.close()
