"""The orthophoto source against the simulated WMS and WMTS: windows, exact places, what counts as a refusal."""

import dataclasses
import io
import math
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree

import numpy as np
import pytest
import requests
import shapely
from PIL import Image
from pyproj import Transformer

from urbanprint.errors import InputError, SourceError
from urbanprint.imagery.records import ImageRecord, RejectedImage
from urbanprint.simulation.faults import Answer, Fault, FaultKind
from urbanprint.simulation.protocols.ortho import OrthoServices
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.town import ORIGIN, build_town
from urbanprint.sources.http import Retry
from urbanprint.sources.ign_ortho import IgnOrtho, no_data_share

TOWN = build_town(boroughs=2, areas_per_borough=6)
QUICK = Retry(attempts=3, first_pause_s=0.01)
WAVE_M = 25.0
PARIS = {"EPSG:2154": (652000.0, 6862000.0), "EPSG:3035": (3760000.0, 2889000.0), "EPSG:32631": (452000.0, 5411000.0)}


def waves(crs: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Three plane waves in metres of Lambert-93, at positions of another CRS, (..., 3) of mean 128."""
    east, north = Transformer.from_crs(crs, "EPSG:2154", always_xy=True).transform(x, y)
    phases = np.stack([east, north, (east + north) / math.sqrt(2)], axis=-1)
    return 128 + 100 * np.sin(2 * np.pi * phases / WAVE_M)


def pattern(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    rgb = waves("EPSG:4326", longitude, latitude)
    return np.concatenate([rgb, np.full((*longitude.shape, 1), 255)], axis=-1).round().astype(np.uint8)


class Patterned(SimulationServer):
    """A server whose orthophotos show the pattern everywhere."""

    services = OrthoServices(pattern)

    def answer(self, path: str, query: dict[str, str], headers: Any) -> Answer:
        return self.services.answer(path, query, headers, self.url) or super().answer(path, query, headers)


@pytest.fixture(scope="module")
def patterned() -> Iterator[SimulationServer]:
    with Patterned(TOWN) as server:
        yield server


@pytest.fixture
def server() -> Iterator[SimulationServer]:
    with SimulationServer(TOWN) as server:
        yield server


def source(server: SimulationServer, service: Any = "wms", **options: Any) -> IgnOrtho:
    chosen = {"side_m": 40.0, "retry": QUICK, **options}
    return IgnOrtho(endpoint=f"{server.url}/ortho/{service}", service=service, **chosen)


def only(ortho: IgnOrtho) -> ImageRecord:
    (record,) = ortho.find(shapely.box(-180, -85, 180, 85))
    return record


def pixels(body: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(body)) as picture:
        return np.asarray(picture.convert("RGB"), float)


def town_corner(crs: str = "EPSG:2154") -> tuple[float, float]:
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*ORIGIN)
    return (math.floor(x / 40) * 40.0, math.floor(y / 40) * 40.0)


def centres(corner: tuple[float, float], side_m: float, resolution_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the middle of each pixel lies: row 0 in the north."""
    steps = (np.arange(round(side_m / resolution_m)) + 0.5) * resolution_m
    x, y = np.meshgrid(corner[0] + steps, corner[1] + side_m - steps)
    return x, y


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["wms", "wmts"])
@pytest.mark.parametrize(("crs", "resolution_m"), [("EPSG:2154", 0.5), *((crs, 0.2) for crs in PARIS)])
def test_every_pixel_shows_its_own_place(
    patterned: SimulationServer, crs: str, service: str, resolution_m: float
) -> None:
    ortho = source(patterned, service, crs=crs, corners=[PARIS[crs]], resolution_m=resolution_m)
    seen = pixels(ortho.fetch(only(ortho)))
    x, y = centres(PARIS[crs], 40.0, resolution_m)
    expected = waves(crs, x, y)
    # How far the picture is displaced, by least squares on the slopes of the pattern (Lucas and Kanade 1981).
    step = 0.01
    slopes = np.stack([waves(crs, x + step, y) - expected, waves(crs, x, y + step) - expected], axis=-1) / step
    shift_m = np.linalg.lstsq(slopes.reshape(-1, 2), (seen - expected).ravel(), rcond=None)[0]
    assert np.abs(shift_m).max() < 0.05 * resolution_m
    # And no part of it is displaced against the rest: half a pixel would be 100 * 2 pi / 25 * 0.1 = 2.5 levels.
    for quarter in (np.s_[:50, :50], np.s_[-50:, -50:]):
        assert np.abs((seen - expected)[quarter].mean(axis=(0, 1))).max() < 1.0


def test_interpolated_mercator_coordinates_are_those_of_proj(patterned: SimulationServer) -> None:
    ortho = source(patterned, "wmts", side_m=200.0)
    window = ortho.window("ORTHOIMAGERY.ORTHOPHOTOS_2154_652000_6862000_200_0.2")
    x, y = centres((window.x, window.y), window.side_m, 0.2)
    exact = Transformer.from_crs("EPSG:2154", "EPSG:3857", always_xy=True).transform(x[::37, ::41], y[::37, ::41])
    np.testing.assert_allclose(np.stack(ortho._mercator(window))[:, ::37, ::41], exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("crs", ["EPSG:2154", "EPSG:32629"])
def test_both_services_show_the_same_town(server: SimulationServer, crs: str) -> None:
    drawn, tiled = (
        pixels(ortho.fetch(only(ortho)))
        for ortho in (source(server, service, crs=crs, corners=[town_corner(crs)]) for service in ("wms", "wmts"))
    )
    apart = [np.abs(drawn - np.roll(tiled, shift, axis=(0, 1))).mean() for shift in ((0, 0), (0, 1), (1, 0), (-1, -1))]
    assert apart[0] == min(apart)


def test_the_box_of_a_map_is_written_in_the_order_of_the_axes(patterned: SimulationServer) -> None:
    boxes = {}
    for crs, corner in PARIS.items():
        ortho = source(patterned, crs=crs, corners=[corner])
        ortho.fetch(only(ortho))
        boxes[crs] = parse_qs(patterned.requests[-1].query)["BBOX"][0]
    assert boxes["EPSG:2154"] == "652000,6862000,652040,6862040"
    assert boxes["EPSG:3035"] == "2889000,3760000,2889040,3760040"  # north first


def test_the_tiles_asked_for_are_those_around_the_window(patterned: SimulationServer) -> None:
    ortho = source(patterned, "wmts", corners=[PARIS["EPSG:2154"]])
    record, start = only(ortho), len(patterned.requests)
    ortho.fetch(record)
    asked = [parse_qs(request.query) for request in patterned.requests[start:]]
    tiles = {(int(tile["TILECOL"][0]), int(tile["TILEROW"][0])) for tile in asked}
    # The formula of the OpenStreetMap wiki, "Slippy map tilenames".
    latitude = math.radians(record.latitude)
    row = (1 - math.asinh(math.tan(latitude)) / math.pi) / 2 * 2**19
    assert {tile["TILEMATRIX"][0] for tile in asked} == {"19"}
    assert (int((record.longitude + 180) / 360 * 2**19), int(row)) in tiles
    assert len(asked) == len(tiles) <= 9


# --- windows ----------------------------------------------------------------------------------------------------------


def test_windows_lie_on_the_lattice_and_have_their_centre_in_the_area(server: SimulationServer) -> None:
    ortho, area = source(server, side_m=200.0), TOWN.areas.geometry.iloc[3]
    windows = list(ortho.find(area))
    to_metres = Transformer.from_crs("EPSG:4326", "EPSG:2154", always_xy=True)
    west, south, east, north = area.bounds
    for record in windows:
        window = ortho.window(record.image_id)
        assert window.x % 200 == 0 == window.y % 200
        x, y = to_metres.transform(record.longitude, record.latitude)
        assert (x, y) == pytest.approx((window.x + 100, window.y + 100), abs=1e-3)
        assert west <= record.longitude <= east
        assert south <= record.latitude <= north
    assert len({record.image_id for record in windows}) == len(windows)


def test_areas_find_every_window_of_the_town_between_them(server: SimulationServer) -> None:
    ortho = source(server, side_m=200.0)
    apart = {record.image_id for area in TOWN.areas.geometry for record in ortho.find(area)}
    together = list(ortho.find(shapely.box(*TOWN.areas.total_bounds)))
    town = TOWN.areas.union_all()
    inside = {r.image_id for r in together if shapely.contains_xy(town, r.longitude, r.latitude)}
    assert len(inside) > 50
    assert inside <= apart <= {record.image_id for record in together}


def test_identifiers_name_layer_crs_corner_side_and_resolution(server: SimulationServer) -> None:
    assert only(source(server, corners=[(652000, 6862000)], side_m=200)).image_id == (
        "ORTHOIMAGERY.ORTHOPHOTOS_2154_652000_6862000_200_0.2"
    )
    negative = source(server, corners=[(-86840.5, 7043949.25)])
    assert negative.window(only(negative).image_id) == dataclasses.replace(
        negative.window(only(negative).image_id), x=-86840.5, y=7043949.25
    )
    with pytest.raises(InputError, match="another layer or grid"):
        source(server, resolution_m=0.5).window(only(negative).image_id)


def test_windows_of_a_kilometre_block_are_one_sequence(server: SimulationServer) -> None:
    corners = [(652000 + 200 * i, 6862000 + 200 * j) for i in range(10) for j in range(5)]
    records = list(source(server, side_m=200.0, corners=corners).find(shapely.box(-10, 40, 10, 60)))
    assert len(records) == 50
    assert {record.sequence_id for record in records} == {"2154_652000_6862000_1000", "2154_653000_6862000_1000"}


def test_another_grid_or_layer_is_another_request(server: SimulationServer) -> None:
    options: list[dict[str, Any]] = [
        {}, {"crs": "EPSG:3035"}, {"side_m": 80.0}, {"resolution_m": 0.4}, {"corners": [(0, 0)]},
        {"corners": [(0, 40)]}, {"layer": "HR.ORTHOIMAGERY.ORTHOPHOTOS"}, {"service": "wmts"}, {"image_format": "png"},
    ]  # fmt: skip
    assert len({source(server, **chosen).request_key for chosen in options}) == len(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crs": "EPSG:4326"}, "projected CRS in metres"),
        ({"crs": "Paris"}, "no coordinate system"),
        ({"side_m": 0.5}, r"is 2\.5 pixels wide"),
        ({"side_m": 2000.0}, "from 1 to 4096"),
        ({"layer": "A&LAYERS=B"}, "no name of a layer"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        IgnOrtho(**options)


def test_an_area_outside_of_the_grid_s_country_is_a_mistake() -> None:
    martinique = shapely.box(-61.2, 14.4, -60.8, 14.9)
    with pytest.raises(InputError, match=r"outside of EPSG:2154 \(France"):
        list(IgnOrtho().find(martinique))
    assert len(list(IgnOrtho(crs="EPSG:5490", side_m=800.0).find(martinique))) > 3000


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["wms", "wmts"])
@pytest.mark.parametrize(("image_format", "start"), [("jpeg", b"\xff\xd8\xff"), ("png", b"\x89PNG")])
def test_a_window_is_a_picture_of_its_size(
    server: SimulationServer, service: str, image_format: str, start: bytes
) -> None:
    ortho = source(server, service, corners=[town_corner()], image_format=image_format)
    body = ortho.fetch(only(ortho))
    assert body.startswith(start)
    assert pixels(body).shape == (200, 200, 3)


@pytest.mark.parametrize("service", ["wms", "wmts"])
@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_a_window_out_at_sea_is_rejected_with_its_share(
    server: SimulationServer, service: str, image_format: str
) -> None:
    ortho = source(server, service, corners=[(652000, 6862000)], image_format=image_format)
    with pytest.raises(RejectedImage, match="100% of the window"):
        ortho.fetch(only(ortho))


def test_a_window_on_the_shore_is_kept_if_so_much_no_data_is_allowed(server: SimulationServer) -> None:
    coast = TOWN.areas.union_all().boundary.interpolate(0.1, normalized=True)
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:2154", always_xy=True).transform(coast.x, coast.y)
    corner = (round(x, 1) - 20, round(y, 1) - 20)
    with pytest.raises(RejectedImage, match=r"\d\d% of the window") as rejected:
        strict = source(server, corners=[corner])
        strict.fetch(only(strict))
    share = int(re.findall(r"\d+", str(rejected.value))[0]) / 100
    lenient = source(server, corners=[corner], largest_no_data=0.9)
    body = lenient.fetch(only(lenient))
    rgba = np.dstack([pixels(body), np.full((200, 200), 255.0)])
    assert 0.2 < share < 0.8
    assert no_data_share(rgba) == pytest.approx(share, abs=0.005)


def test_transparent_and_white_pixels_are_no_data() -> None:
    window = np.full((10, 10, 4), 120, np.uint8)
    window[:2, :, 3] = 0
    window[2:5] = 255
    assert no_data_share(window) == 0.5


@pytest.mark.parametrize("service", ["wms", "wmts"])
def test_an_unknown_layer_is_a_mistake_and_not_asked_for_twice(server: SimulationServer, service: str) -> None:
    ortho = source(server, service, layer="NO.SUCH.LAYER", corners=[town_corner()])
    with pytest.raises(InputError, match=r"NO\.SUCH\.LAYER"):
        ortho.fetch(only(ortho))
    assert len(server.requests) == 1


class Excepted(SimulationServer):
    """A server whose first map is an exception report of a passing trouble, in a 200."""

    reports = 1

    def answer(self, path: str, query: dict[str, str], headers: Any) -> Answer:
        if path == "/ortho/wms" and self.reports:
            self.reports -= 1
            text = '<?xml version="1.0"?><ServiceExceptionReport><ServiceException>Server busy</ServiceException>'
            return Answer(f"{text}</ServiceExceptionReport>".encode(), 200, "text/xml")
        return super().answer(path, query, headers)


def test_any_other_exception_inside_a_200_is_asked_again() -> None:
    with Excepted(TOWN) as server:
        ortho = source(server, corners=[town_corner()])
        assert ortho.fetch(only(ortho))
        server.reports = 99
        with pytest.raises(SourceError, match="Server busy"):
            ortho.fetch(only(ortho))


@pytest.mark.parametrize("service", ["wms", "wmts"])
def test_a_broken_answer_is_asked_again(server: SimulationServer, service: str) -> None:
    first = source(server, service, corners=[town_corner()])
    sound = first.fetch(only(first))
    kinds: tuple[FaultKind, ...] = ("html", "truncated", "error_in_200", "unavailable", "placeholder", "reset")
    for kind in kinds:
        server.inject(Fault(kind, "/ortho/", times=1))
        again = source(server, service, corners=[town_corner()])
        assert again.fetch(only(again)) == sound
    assert [request.fault for request in server.requests if request.fault] == list(kinds)


def test_tiles_that_neighbouring_windows_share_are_fetched_once(server: SimulationServer) -> None:
    x, y = town_corner()
    ortho = source(server, "wmts", corners=[(x, y), (x + 40, y)])
    for record in list(ortho.find(shapely.box(-10, 40, 10, 60))):
        ortho.fetch(record)
    asked = [request.query for request in server.requests]
    assert len(asked) == len(set(asked))


# --- the simulated services -------------------------------------------------------------------------------------------


def test_the_tile_matrices_are_the_well_known_ones(server: SimulationServer) -> None:
    document = requests.get(f"{server.url}/ortho/wmts?SERVICE=WMTS&REQUEST=GetCapabilities", timeout=5)
    found = ElementTree.fromstring(document.content).findall(".//{*}ScaleDenominator")
    scales = [float(scale.text or 0) for scale in found]
    # GoogleMapsCompatible, OGC 07-057r7, table E.4.
    assert scales[0] == pytest.approx(559082264.0287178)
    assert scales[18] == pytest.approx(2132.729583849784)
    assert len(scales) == 20


def test_exceptions_are_those_of_the_standards(server: SimulationServer) -> None:
    query = "SERVICE=WMS&VERSION=1.3.0&REQUEST=GetMap&LAYERS=NONE&STYLES=&CRS=EPSG:2154"
    report = requests.get(f"{server.url}/ortho/wms?{query}", timeout=5)
    root = ElementTree.fromstring(report.content)
    assert root.tag == "{http://www.opengis.net/ogc}ServiceExceptionReport"
    assert root[0].get("code") == "LayerNotDefined"
    report = requests.get(f"{server.url}/ortho/wmts?SERVICE=WMTS&REQUEST=GetTile", timeout=5)
    assert report.status_code == 400
    assert ElementTree.fromstring(report.content)[0].get("exceptionCode") == "MissingParameterValue"
