"""The interactive map: a folder with `map.html` and the small pictures it shows, to be moved, zipped or served as is.

Every area is written once, as GeoJSON with the class it falls in under each layer; the page colours the same shapes
anew when the reader picks a layer, and builds a popup only when one is opened. 4,835 London areas with four pictures
each make 10 MB in 5 s this way, instead of one folium layer a column and one folium popup an area.

Leaflet (the same files that folium would ask a content network for) is copied beside the map, which therefore opens
without the internet; only the base tiles need it.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import folium
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from branca.element import MacroElement
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import escape

from urbanprint.errors import InputError
from urbanprint.maps.leaflet import copy_leaflet
from urbanprint.maps.style import DECILE_COLOURS, DIVERGING_COLOURS, decile, model_name, one_model
from urbanprint.vocabulary import FOLD_KINDS, INDICATORS

LICENCE_PAGES: dict[str, str] = {
    "CC BY-SA 4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "OGL v3": "https://www.nationalarchives.gov.uk/doc/open-government-licence/version/3/",
    "Etalab 2.0": "https://www.etalab.gouv.fr/licence-ouverte-open-licence/",
}
"""Where a licence can be read; a licence that is not here is named without a link."""

COUNT_COLOURS = ("#e5f5e0", "#a1d99b", "#41ab5d", "#006d2c", "#00341a")
WIDTH_COLOURS = ("#efedf5", "#bcbddc", "#9e9ac8", "#756bb1", "#54278f")
NO_VALUE = "#b3bbc3"
SIMPLIFY_M = 6.0
"""Simplification in metres, far below what a screen shows at street zoom; neighbours keep their common border."""

SLIVER_M = 20.0
"""Gaps between the areas of a borough up to twice this many metres wide are no border of the borough."""


@dataclass(frozen=True)
class Picture:
    """One photograph in an area's popup: its row in the images table, its files, and its page at the source."""

    image_id: str
    thumbnail: Path
    gradcam: Path | None = None
    page: str | None = None


@dataclass(frozen=True)
class Layer:
    """One way to colour the areas: the classes in order, and the class of each area (None = no value)."""

    name: str
    meaning: str
    labels: tuple[str, ...]
    colours: tuple[str, ...]
    classes: tuple[int | None, ...]


# --- layers ----------------------------------------------------------------------------------------------------------


def _binned(values: pd.Series, edges: Sequence[float]) -> tuple[int | None, ...]:
    """The class of each value: how many of the inner edges lie at or below it."""
    classes = np.searchsorted(edges, values.to_numpy(dtype=float), side="right")
    return tuple(None if missing else int(of) for of, missing in zip(classes, values.isna(), strict=True))


def _layers(table: pd.DataFrame, *, indicator: str, model: str, kind: str) -> Iterator[Layer]:
    """The layers that `table` can fill, in the order the reader meets them."""
    name = INDICATORS[indicator]
    deciles = ("decile 1, most deprived", *(f"decile {step}" for step in range(2, 10)), "10, least")
    ends = range(2, 11)
    yield Layer(
        "Observed", f"{name} as published, by national decile.", deciles, DECILE_COLOURS,
        _binned(table["observed_decile"], ends),
    )  # fmt: skip
    held_out = f"held-out predictions of the model “{model_name(model)}”, folds of {FOLD_KINDS.get(kind, kind)}"
    yield Layer(
        "Predicted", f"What the model expects, by decile: {held_out}. No area was seen by the model that predicts it.",
        deciles, DECILE_COLOURS, _binned(table["predicted_decile"], ends),
    )  # fmt: skip
    yield Layer(
        "Difference", "Predicted minus observed, on the scale from 0 (least deprived) to 1 (most deprived).",
        ("over 0.35 less deprived", "0.20 to 0.35 less", "0.07 to 0.20 less", "within 0.07",
         "0.07 to 0.20 more", "0.20 to 0.35 more", "over 0.35 more deprived"),
        DIVERGING_COLOURS, _binned(table["predicted"] - table["observed"], (-0.35, -0.2, -0.07, 0.07, 0.2, 0.35)),
    )  # fmt: skip
    yield Layer(
        "Images", "How many photographs the area has.", ("1", "2 to 3", "4", "5 to 9", "10 or more"), COUNT_COLOURS,
        _binned(table["images"].where(table["images"] > 0), (2, 4, 5, 10)),
    )  # fmt: skip
    if "low" in table:
        yield Layer(
            "Uncertainty", "Width of the 90 % interval of the prediction, on the scale from 0 to 1.",
            ("up to 0.2", "0.2 to 0.4", "0.4 to 0.6", "0.6 to 0.8", "above 0.8"), WIDTH_COLOURS,
            _binned(table["high"] - table["low"], (0.2, 0.4, 0.6, 0.8)),
        )  # fmt: skip


# --- shapes ----------------------------------------------------------------------------------------------------------


def _simplified(areas: gpd.GeoDataFrame) -> gpd.GeoSeries:
    """Outlines simplified together, so that neighbours still touch, in EPSG:4326."""
    metres = areas.geometry.to_crs(areas.estimate_utm_crs())
    return metres.simplify_coverage(SIMPLIFY_M).to_crs(4326)


def _rounded(shape: Any) -> dict[str, Any]:
    """A shape as GeoJSON with 5 decimals (1 m)."""
    return json.loads(shapely.to_geojson(shapely.transform(shape, lambda corners: corners.round(5))))


def _boroughs(outlines: gpd.GeoDataFrame) -> list[dict[str, Any]]:
    """Each borough's name, outline and a point inside it for its label."""
    found = []
    metres = outlines.to_crs(outlines.estimate_utm_crs())
    # Generalised boundaries leave slivers between neighbours, which would be drawn as borders: they are closed first.
    closed = metres.buffer(SLIVER_M, join_style="mitre").groupby(metres["district"], sort=True).agg(shapely.union_all)
    whole_boroughs = gpd.GeoSeries(closed, crs=metres.crs).buffer(-SLIVER_M, join_style="mitre")
    for district, whole in whole_boroughs.simplify(SIMPLIFY_M).to_crs(4326).items():
        label = shapely.point_on_surface(whole)
        found.append({"name": district, "outline": _rounded(whole.boundary), "label": [label.y, label.x]})
    return found


# --- pictures --------------------------------------------------------------------------------------------------------


def _addresses(folder: Path) -> Callable[[Path], str]:
    """A function from a picture file to its address relative to the map.

    A file from outside `folder` is copied in, named by its content.
    """
    root = folder.resolve()
    resolved = cache(Path.resolve)  # pictures share a few parents, and resolving 40,000 paths takes 15 s

    def address(file: Path) -> str:
        if not file.is_file():
            raise InputError(f"The picture {file} is not a file; write the thumbnails before the map.")
        file = resolved(file.parent) / file.name
        if not file.is_relative_to(root):
            kept = root / "pictures" / f"{sha256(file.read_bytes()).hexdigest()[:20]}{file.suffix.lower()}"
            kept.parent.mkdir(exist_ok=True)
            file = shutil.copyfile(file, kept)
        return quote(file.relative_to(root).as_posix())

    return address


def _credit(row: Mapping[Any, Any]) -> str:
    """Who made the picture and under which attribution, in words."""
    creator, attribution = row["creator"], str(row["attribution"])
    if pd.isna(creator) or not creator or str(creator) in attribution:
        return attribution
    return f"{creator}, {attribution}"


def _pictures(
    pictures: Mapping[str, Sequence[Picture]], images: pd.DataFrame, folder: Path
) -> dict[str, list[dict[str, str | None]]]:
    rows = images.set_index("image_id")[["creator", "attribution", "licence"]].to_dict("index")
    address = _addresses(folder)
    shown: dict[str, list[dict[str, str | None]]] = {}
    for area_id, of_area in pictures.items():
        for picture in of_area:
            row = rows.get(picture.image_id)
            if row is None:
                raise InputError(
                    f"The picture {picture.image_id} of area {area_id} is not in the images table, so its creator and "
                    "licence are unknown; pass the images it comes from."
                )
            if picture.page is not None and not picture.page.startswith(("https://", "http://")):
                raise InputError(f"The page {picture.page!r} of picture {picture.image_id} is no http(s) address.")
            entry = {
                "thumbnail": address(picture.thumbnail),
                "gradcam": address(picture.gradcam) if picture.gradcam else None,
                "credit": _credit(row),
                "licence": row["licence"],
                "licence_page": LICENCE_PAGES.get(row["licence"]),
                "page": picture.page,
            }
            shown.setdefault(area_id, []).append(entry)
    return shown


# --- the page --------------------------------------------------------------------------------------------------------


def _table(
    areas: gpd.GeoDataFrame, rows: pd.DataFrame, images: pd.DataFrame, intervals: pd.DataFrame | None, indicator: str
) -> pd.DataFrame:
    """What the map says of each area, in the order of `areas`."""
    table = areas[["area_id", "name", "district"]].copy()
    table["observed"] = areas[f"{indicator}_deprivation"]
    table["observed_decile"] = areas[f"{indicator}_decile"]
    table["predicted"] = table["area_id"].map(rows.set_index("area_id")["predicted"]).clip(0, 1)
    table["predicted_decile"] = decile(table["predicted"])
    table["images"] = table["area_id"].map(images["area_id"].value_counts()).fillna(0).astype(int)
    if intervals is not None:
        same = intervals.merge(rows[["area_id", "model", "kind", "indicator"]]).set_index("area_id")
        table["low"], table["high"] = table["area_id"].map(same["low"]), table["area_id"].map(same["high"])
    return table


class _Explorer(MacroElement):
    """The panel, legend, search and popups that the template adds to a folium map."""

    def __init__(
        self, *, title: str, attribution: str, report: str | None, tiles: dict[str, str], content: dict[str, Any]
    ) -> None:
        super().__init__()
        self.title, self.attribution, self.report = title, attribution, report
        self.tiles, self.content = tiles, content
        templates = Environment(loader=PackageLoader("urbanprint.maps"), autoescape=True, undefined=StrictUndefined)
        self._template = templates.get_template("deprivation_map.html.j2")


def deprivation_map(
    areas: gpd.GeoDataFrame,
    predictions: pd.DataFrame,
    images: pd.DataFrame,
    *,
    folder: Path,
    pictures: Mapping[str, Sequence[Picture]],
    title: str,
    attribution: str,
    intervals: pd.DataFrame | None = None,
    indicator: str = "imd",
    report: str | None = None,
) -> Path:
    """Write the interactive map of one indicator into `folder` and return the path of its `map.html`.

    `areas`, `predictions` (of one model under one kind of fold) and `images` follow their schemas in
    `urbanprint.tables`; only images in the state `fetched` count. `pictures` gives the photographs of an area's popup.
    `intervals` has area_id, model, kind, indicator, low, high, in normalised ranks. `report` is the address of the
    report, relative to the map. Text from data is never read as HTML.

    Raises `InputError` for predictions of several models, and for a picture without a file or a row in `images`.
    """
    if areas.crs is None or areas.empty:
        raise InputError("The areas need rows and a coordinate system before they can be mapped; set EPSG:4326.")
    folder.mkdir(parents=True, exist_ok=True)
    rows = one_model(predictions, indicator=indicator)
    fetched = images[images["state"] == "fetched"]
    table = _table(areas.reset_index(drop=True), rows, fetched, intervals, indicator)
    model, kind = rows[["model", "kind"]].iloc[0]
    layers = list(_layers(table, indicator=indicator, model=model, kind=kind))
    outlines = gpd.GeoDataFrame(table[["district"]], geometry=_simplified(areas.reset_index(drop=True)), crs=4326)

    # JSON knows no NaN: a missing value is null, which the page shows as "-".
    rounded = table.round(3).astype(object).where(table.notna(), None).to_dict("records")
    classes = zip(*(layer.classes for layer in layers), strict=True)
    features = [
        {"type": "Feature", "geometry": _rounded(shape), "properties": {**row, "classes": of}}
        for shape, row, of in zip(outlines.geometry, rounded, classes, strict=True)
    ]
    legends = [{key: value for key, value in asdict(layer).items() if key != "classes"} for layer in layers]
    west, south, east, north = outlines.total_bounds

    page = folium.Map([(south + north) / 2, (west + east) / 2], tiles=None, prefer_canvas=True, zoom_control=False)
    script, style = copy_leaflet(folder)
    page.default_js, page.default_css = [("leaflet", script)], [("leaflet_css", style)]
    # OpenStreetMap twice, once in quiet grey: the light maps made for overlays (CARTO, Stadia) ask for a key.
    tiles = [
        folium.TileLayer("OpenStreetMap", name="Light", show=True, class_name="quiet"),
        folium.TileLayer("OpenStreetMap", name="Streets", show=False),
    ]
    for layer in tiles:
        layer.add_to(page)
    explorer = _Explorer(
        title=title,
        attribution=attribution,
        report=report,
        tiles={layer.layer_name: layer.get_name() for layer in tiles},
        content={
            "areas": {"type": "FeatureCollection", "features": features},
            "boroughs": _boroughs(outlines),
            "layers": legends,
            "missing": NO_VALUE,
            "pictures": _pictures(pictures, fetched, folder),
            "bounds": [[south, west], [north, east]],
        },
    )
    page.add_child(explorer)
    page.get_root().title = escape(title)  # type: ignore[attr-defined]  # branca writes it as it is
    written = folder / "map.html"
    written.write_text(page.get_root().render(), encoding="utf-8")
    return written
