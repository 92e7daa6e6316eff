"""The interactive map: what it holds, where its files lie, and that text from data stays text."""

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image

from urbanprint.errors import InputError
from urbanprint.maps.deprivation_map import Picture, deprivation_map
from urbanprint.maps.thumbnails import thumbnail

Draw = Callable[..., Path]


class _Page(HTMLParser):
    """The elements of a page and the text of each script, as a browser would split them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data
        self.words.append(data)


def _content(page: Path) -> dict[str, Any]:
    """What the map says, from the JSON the page holds."""
    parsed = _Page(page.read_text(encoding="utf-8"))
    scripts = [attributes for tag, attributes in parsed.tags if tag == "script"]
    place = next(n for n, attributes in enumerate(scripts) if attributes.get("id") == "urbanprint-content")
    return json.loads(parsed.scripts[place])


def _area(content: dict[str, Any], area_id: str) -> dict[str, Any]:
    return next(f["properties"] for f in content["areas"]["features"] if f["properties"]["area_id"] == area_id)


def _layer(content: dict[str, Any], name: str) -> tuple[int, dict[str, Any]]:
    names = [layer["name"] for layer in content["layers"]]
    return names.index(name), content["layers"][names.index(name)]


@pytest.fixture
def pictures(images: pd.DataFrame, photograph: Image.Image, tmp_path: Path) -> dict[str, list[Picture]]:
    """Two pictures of each imaged area, kept outside the map's folder."""
    file = tmp_path / "elsewhere" / "view 1.jpg"
    file.parent.mkdir()
    photograph.save(file)
    file.write_bytes(thumbnail(file))
    first = images.groupby("area_id").head(2)
    found: dict[str, list[Picture]] = {}
    for image_id, area_id in zip(first["image_id"], first["area_id"], strict=True):
        found.setdefault(area_id, []).append(Picture(image_id, file, file, page="https://example.org/view"))
    return found


@pytest.fixture
def draw(
    areas: gpd.GeoDataFrame,
    predictions: pd.DataFrame,
    images: pd.DataFrame,
    intervals: pd.DataFrame,
    pictures: dict[str, list[Picture]],
    tmp_path: Path,
) -> Draw:
    def _draw(**changes: object) -> Path:
        given: dict[str, Any] = {
            "areas": areas,
            "predictions": predictions,
            "images": images,
            "folder": tmp_path / "map",
            "pictures": pictures,
            "title": "Deprivation in <b>Simville</b>",
            "attribution": "Simulated statistics & <script>alert(2)</script>",
            "intervals": intervals,
            "report": "index.html",
            **changes,
        }
        return deprivation_map(given.pop("areas"), given.pop("predictions"), given.pop("images"), **given)

    return _draw


def test_every_layer_is_there_with_a_legend_that_covers_its_classes(draw: Draw) -> None:
    content = _content(draw())
    assert [layer["name"] for layer in content["layers"]] == [
        "Observed", "Predicted", "Difference", "Images", "Uncertainty",
    ]  # fmt: skip
    for place, layer in enumerate(content["layers"]):
        assert len(layer["labels"]) == len(layer["colours"])
        classes = [feature["properties"]["classes"][place] for feature in content["areas"]["features"]]
        assert {of for of in classes if of is not None} <= set(range(len(layer["labels"])))


def test_without_intervals_there_is_no_layer_of_uncertainty(draw: Draw) -> None:
    content = _content(draw(intervals=None))
    assert "Uncertainty" not in [layer["name"] for layer in content["layers"]]
    assert "low" not in content["areas"]["features"][0]["properties"]


def test_an_area_says_what_the_tables_say(
    draw: Draw, areas: gpd.GeoDataFrame, predictions: pd.DataFrame, intervals: pd.DataFrame
) -> None:
    content = _content(draw())
    for row, interval in zip(predictions.itertuples(), intervals.itertuples(), strict=True):
        shown = _area(content, row.area_id)
        assert shown["predicted"] == round(row.predicted, 3)
        assert (shown["low"], shown["high"]) == (round(interval.low, 3), round(interval.high, 3))
        assert shown["predicted_decile"] == min(10, int((1 - row.predicted) * 10) + 1)
    for row in areas.iloc[:-1].itertuples():
        shown = _area(content, row.area_id)
        assert shown["observed"] == round(row.imd_deprivation, 3)
        assert shown["observed_decile"] == row.imd_decile
        assert shown["classes"][0] == row.imd_decile - 1


def test_a_missing_value_is_null_and_has_no_class(draw: Draw, areas: gpd.GeoDataFrame) -> None:
    content = _content(draw())
    unpredicted, unpublished = _area(content, areas["area_id"].iloc[0]), _area(content, areas["area_id"].iloc[-1])
    assert unpredicted["predicted"] is None
    assert unpredicted["low"] is None
    assert unpredicted["classes"][1:] == [None, None, None, None]
    assert unpublished["observed"] is None
    assert unpublished["classes"][0] is None
    assert "NaN" not in json.dumps(content["areas"])


def test_a_difference_has_the_sign_its_legend_promises(
    draw: Draw, areas: gpd.GeoDataFrame, predictions: pd.DataFrame
) -> None:
    shift = pd.Series([0.5, -0.5, 0.0, 0.1] * 15)[: len(predictions)]
    observed = pd.Series(0.5, index=predictions.index)
    level = areas.assign(imd_deprivation=0.5)
    content = _content(draw(areas=level, predictions=predictions.assign(observed=observed, predicted=0.5 + shift)))
    place, layer = _layer(content, "Difference")
    labels = [layer["labels"][_area(content, area)["classes"][place]] for area in predictions["area_id"][:4]]
    assert labels == ["over 0.35 more deprived", "over 0.35 less deprived", "within 0.07", "0.07 to 0.20 more"]


def test_only_fetched_images_count(draw: Draw, images: pd.DataFrame, areas: gpd.GeoDataFrame) -> None:
    some = images.copy()
    some.loc[some.index[3], "state"] = "rejected"
    content = _content(draw(images=some))
    place, layer = _layer(content, "Images")
    shown = [_area(content, area) for area in areas["area_id"].iloc[:3]]
    assert [area["images"] for area in shown] == [0, 3, 4]
    assert [of if of is None else layer["labels"][of] for of in (area["classes"][place] for area in shown)] == [
        None, "2 to 3", "4",
    ]  # fmt: skip


def test_text_from_data_never_becomes_html(draw: Draw) -> None:
    page = draw()
    parsed = _Page(page.read_text(encoding="utf-8"))
    assert "<script>alert" not in page.read_text(encoding="utf-8"), "only escaped, in the JSON or as an entity"
    assert ("b", {}) not in parsed.tags
    assert "Simulated statistics & <script>alert(2)</script>" in "".join(parsed.words)
    content = _content(page)
    names = [feature["properties"]["name"] for feature in content["areas"]["features"]]
    assert "<script>alert(1)</script> 001A" in names
    credits = {picture["credit"] for area in content["pictures"].values() for picture in area}
    assert credits == {"<script>alert(1)</script>, Simville contributors", "Simville contributors"}
    assert "innerHTML" not in page.read_text(encoding="utf-8")


def test_the_folder_can_be_moved(draw: Draw, tmp_path: Path) -> None:
    page = draw()
    moved = tmp_path / "moved"
    shutil.move(page.parent, moved)
    pictures = [picture for area in _content(moved / "map.html")["pictures"].values() for picture in area]
    assert len(pictures) == 20
    for picture in pictures:
        assert (moved / picture["thumbnail"]).is_file()
        assert picture["licence_page"] == "https://creativecommons.org/licenses/by-sa/4.0/"
    assert str(tmp_path) not in (moved / "map.html").read_text(encoding="utf-8")
    assert len(list((moved / "pictures").iterdir())) == 1, "the same picture is copied once"


def test_a_picture_already_beside_the_map_stays_where_it_is(
    draw: Draw, pictures: dict[str, list[Picture]], tmp_path: Path
) -> None:
    (area_id, (first, _)), *_ = pictures.items()
    inside = tmp_path / "map" / "small pictures" / "a#1.jpg"
    inside.parent.mkdir(parents=True)
    shutil.copyfile(first.thumbnail, inside)
    content = _content(draw(pictures={area_id: [Picture(first.image_id, inside)]}))
    assert content["pictures"][area_id][0]["thumbnail"] == "small%20pictures/a%231.jpg"
    assert content["pictures"][area_id][0]["gradcam"] is None


def test_neighbours_still_touch_after_simplification(draw: Draw, areas: gpd.GeoDataFrame) -> None:
    features = _content(draw())["areas"]["features"]
    drawn = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in features]
    assert shapely.coverage_is_valid(np.array(drawn))
    assert shapely.union_all(drawn).area == pytest.approx(areas.union_all().area, rel=1e-3)
    digits = json.dumps([feature["geometry"]["coordinates"] for feature in features])
    assert max(len(number.split(".")[1].rstrip("]")) for number in digits.split(",") if "." in number) <= 5


def test_each_borough_has_an_outline_and_a_label_inside(draw: Draw, areas: gpd.GeoDataFrame) -> None:
    boroughs = _content(draw())["boroughs"]
    whole = areas.dissolve("district").geometry
    assert [borough["name"] for borough in boroughs] == sorted(whole.index)
    for borough in boroughs:
        latitude, longitude = borough["label"]
        assert whole[borough["name"]].contains(shapely.Point(longitude, latitude))


def test_mistakes_are_named(
    draw: Draw, areas: gpd.GeoDataFrame, predictions: pd.DataFrame, pictures: dict[str, list[Picture]], tmp_path: Path
) -> None:
    area_id, (first, _) = next(iter(pictures.items()))
    with pytest.raises(InputError, match="mean/borough"):
        draw(predictions=pd.concat([predictions, predictions.assign(model="mean")]))
    with pytest.raises(InputError, match="stranger of area X01000001 is not in the images table"):
        draw(pictures={area_id: [Picture("stranger", first.thumbnail)]})
    with pytest.raises(InputError, match=r"gone\.jpg is not a file"):
        draw(pictures={area_id: [Picture(first.image_id, tmp_path / "gone.jpg")]})
    with pytest.raises(InputError, match="no http"):
        draw(pictures={area_id: [Picture(first.image_id, first.thumbnail, page="javascript:alert(1)")]})
    with pytest.raises(InputError, match="coordinate system"):
        draw(areas=areas.iloc[:0])


def test_the_real_london_stays_small(draw: Draw, realdata: Path, predictions: pd.DataFrame) -> None:
    london = gpd.read_file(realdata / "england" / "london_lsoa11.gpkg", columns=["LSOA11CD", "LSOA11NM"])
    areas = gpd.GeoDataFrame(
        {
            "area_id": london["LSOA11CD"],
            "name": london["LSOA11NM"],
            "district": london["LSOA11NM"].str.rsplit(" ", n=1).str[0],
            "imd_deprivation": 0.5,
            "imd_decile": 5.0,
        },
        geometry=london.geometry,
    )
    row = predictions.iloc[0].to_dict()
    page = draw(
        areas=areas,
        predictions=pd.DataFrame([{**row, "area_id": area} for area in areas["area_id"]]),
        pictures={},
        intervals=None,
    )
    content = _content(page)
    assert len(content["areas"]["features"]) == 4835
    assert len(content["boroughs"]) == 33
    assert page.stat().st_size < 5_000_000
    assert all(feature["geometry"]["coordinates"] for feature in content["areas"]["features"])


# --- Leaflet ---------------------------------------------------------------------------------------------------------


def _addresses(page: Path) -> list[str]:
    """Every script and style the page loads."""
    tags = _Page(page.read_text(encoding="utf-8")).tags
    return [value for _, attributes in tags for name in ("src", "href") if (value := attributes.get(name))]


def test_the_page_loads_nothing_from_the_internet(draw: Draw) -> None:
    page = draw()
    loaded = _addresses(page)
    assert {"leaflet/leaflet.js", "leaflet/leaflet.css"} <= set(loaded)
    assert not [address for address in loaded if address.startswith(("http", "//"))]
    assert (page.parent / "leaflet" / "leaflet.js").read_bytes().startswith(b"/* @preserve\n * Leaflet 1.9")


def test_a_reader_finds_a_place_and_sees_its_pictures(browser: Any, draw: Draw) -> None:
    """In a real browser, without internet: search, popup, layers; no error, no dialog from hostile text."""
    wrong: list[str] = []
    page = browser.new_page(viewport={"width": 390, "height": 780})
    page.route("http*://**", lambda route: route.abort())
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.goto(draw().as_uri())
    page.click(".fold")
    page.fill("#place-search", "X01000001")
    page.keyboard.press("Enter")
    popup = page.locator(".place")
    popup.wait_for()
    assert popup.locator("h2").inner_text() == "Ashford Vale 002A"
    assert "<script>alert(1)</script>, Simville contributors" in popup.inner_text()
    popup.locator("img").first.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.place img').naturalWidth > 0")
    page.keyboard.press("Escape")
    for name in ("Predicted", "Difference", "Images", "Uncertainty"):
        page.locator(".choices").get_by_text(name, exact=True).click()
    assert "no value (2 areas)" in page.locator(".key").inner_text()
    assert page.locator(".key li").count() == 6
    page.close()
    assert wrong == []
