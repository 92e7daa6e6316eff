"""Orthophotos of the town: `/ortho/wms` (WMS 1.3.0) and `/ortho/wmts` (WMTS 1.0.0, key-value pairs).

Both draw the same ground at the true coordinates of their pixels' centres. No recorded answers: requests, documents
and exceptions follow OGC 06-042 (WMS 1.3.0) and OGC 07-057r7 (WMTS 1.0.0).
"""

import io
from collections.abc import Callable
from functools import lru_cache
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image
from pyproj import CRS, Proj

from urbanprint.simulation.faults import Answer
from urbanprint.simulation.protocols.wire import Headers, Query

Ground = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Longitude and latitude in degrees, of one shape -> RGBA, uint8 (..., 4), transparent where there is nothing."""

LAYER = "ORTHOIMAGERY.ORTHOPHOTOS"
LARGEST_PX = 5000
_SYSTEMS = ("EPSG:2154", "EPSG:3035", "EPSG:3857", "EPSG:4326", "EPSG:32629", "EPSG:32631")
_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG"}
_EDGE_M = 20037508.342789244
_TILE_PX = 256
_LEVELS = 20
_XML = "text/xml; charset=utf-8"


class OrthoServices:
    """A WMS and a WMTS over `ground`; the latest pictures are kept."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._kept = lru_cache(maxsize=256)(self._drawn)

    def answer(self, path: str, query: Query, _headers: Headers, _base: str) -> Answer | None:
        """Capabilities, a map or a tile."""
        asked = {name.upper(): value for name, value in query.items()}
        if path == "/ortho/wms":
            return _wms_capabilities() if asked.get("REQUEST") == "GetCapabilities" else self.map(asked)
        if path == "/ortho/wmts":
            return _wmts_capabilities() if asked.get("REQUEST") == "GetCapabilities" else self.tile(asked)
        return None

    def map(self, query: Query) -> Answer:
        """GetMap. Exceptions come in a 200, as most servers send them."""
        if query.get("SERVICE") != "WMS" or query.get("REQUEST") != "GetMap" or query.get("VERSION") != "1.3.0":
            return _wms_exception("OperationNotSupported", "SERVICE=WMS, VERSION=1.3.0 and REQUEST=GetMap are served")
        layer, style = query.get("LAYERS", ""), query.get("STYLES", "")
        system, kind = query.get("CRS", ""), query.get("FORMAT", "")
        if layer != LAYER:
            return _wms_exception("LayerNotDefined", f"Layer {layer} unknown.")
        if style not in ("", "normal"):
            return _wms_exception("StyleNotDefined", f"Style {style} unknown for layer {layer}.")
        if system not in _SYSTEMS:
            return _wms_exception("InvalidCRS", f"CRS {system} unknown for layer {layer}.")
        if kind not in _FORMATS:
            return _wms_exception("InvalidFormat", f"Format {kind} unknown.")
        try:
            edges = tuple(float(edge) for edge in query["BBOX"].split(","))
            width, height = int(query["WIDTH"]), int(query["HEIGHT"])
            first_low, second_low, first_high, second_high = edges
        except (KeyError, ValueError):
            return _wms_exception(None, "Parameters BBOX, WIDTH and HEIGHT are four numbers and two whole numbers.")
        if first_low >= first_high or second_low >= second_high:
            return _wms_exception(None, "Parameter BBOX is empty.")
        if not (1 <= width <= LARGEST_PX and 1 <= height <= LARGEST_PX):
            return _wms_exception(None, f"WIDTH and HEIGHT are between 1 and {LARGEST_PX}.")
        if CRS(system).axis_info[0].direction == "north":
            edges = (second_low, first_low, second_high, first_high)
        transparent = kind == "image/png" and query.get("TRANSPARENT", "FALSE").upper() == "TRUE"
        return Answer(self._kept(system, edges, width, height, kind, transparent), 200, kind)

    def tile(self, query: Query) -> Answer:
        """GetTile of the matrix set PM, the squares of Web Mercator."""
        for name in ("LAYER", "STYLE", "FORMAT", "TILEMATRIXSET", "TILEMATRIX", "TILEROW", "TILECOL"):
            if name not in query:
                return _wmts_exception("MissingParameterValue", f"Parameter {name} is missing.", name)
        expected = {"SERVICE": "WMTS", "VERSION": "1.0.0", "REQUEST": "GetTile", "TILEMATRIXSET": "PM"}
        for name, value in {**expected, "LAYER": LAYER, "STYLE": "normal", "FORMAT": "image/jpeg"}.items():
            if query.get(name) != value:
                return _wmts_exception("InvalidParameterValue", f"{name} {query.get(name)} unknown.", name)
        numbers = [query[name] for name in ("TILEMATRIX", "TILEROW", "TILECOL")]
        if not all(number.isdecimal() for number in numbers) or int(numbers[0]) >= _LEVELS:
            return _wmts_exception("InvalidParameterValue", "Tile indices are whole numbers.", "TILEMATRIX")
        level, row, column = map(int, numbers)
        if max(row, column) >= 2**level:
            return _wmts_exception("TileOutOfRange", "Tile out of range.", "TILEROW")
        side = 2 * _EDGE_M / 2**level
        west, north = column * side - _EDGE_M, _EDGE_M - row * side
        edges = (west, north - side, west + side, north)
        return Answer(self._kept("EPSG:3857", edges, _TILE_PX, _TILE_PX, "image/jpeg", False), 200, "image/jpeg")

    def _drawn(
        self, system: str, edges: tuple[float, ...], width: int, height: int, kind: str, transparent: bool
    ) -> bytes:
        """The picture of a box (west, south, east, north in `system`); white where there is nothing."""
        west, south, east, north = edges
        x = west + (east - west) * (np.arange(width) + 0.5) / width
        y = north - (north - south) * (np.arange(height) + 0.5) / height
        # All systems are of WGS 84 or ETRS89, between which PROJ moves nothing. A transformer is made anew in every
        # thread, which takes 70 ms, and every request has a thread of its own.
        grid = np.meshgrid(x, y)
        longitude, latitude = grid if CRS(system).is_geographic else Proj(system)(*grid, inverse=True)
        pixels = self._ground(longitude, latitude)
        if not transparent:
            pixels = np.where(pixels[..., 3:] == 0, 255, pixels)[..., :3].astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, _FORMATS[kind], **({"quality": 92} if kind == "image/jpeg" else {}))
        return buffer.getvalue()


def _wms_exception(code: str | None, message: str) -> Answer:
    attribute = "" if code is None else f" code={quoteattr(code)}"
    report = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ServiceExceptionReport version="1.3.0" xmlns="http://www.opengis.net/ogc">'
        f"<ServiceException{attribute}>{escape(message)}</ServiceException></ServiceExceptionReport>"
    )
    return Answer(report.encode(), 200, _XML)


def _wmts_exception(code: str, message: str, locator: str) -> Answer:
    report = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ExceptionReport xmlns="http://www.opengis.net/ows/1.1" version="1.1.0" xml:lang="en">'
        f"<Exception exceptionCode={quoteattr(code)} locator={quoteattr(locator)}>"
        f"<ExceptionText>{escape(message)}</ExceptionText></Exception></ExceptionReport>"
    )
    return Answer(report.encode(), 400, _XML)


def _wms_capabilities() -> Answer:
    systems = "".join(f"<CRS>{system}</CRS>" for system in _SYSTEMS)
    formats = "".join(f"<Format>{kind}</Format>" for kind in _FORMATS)
    document = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<WMS_Capabilities version="1.3.0" xmlns="http://www.opengis.net/wms">'
        "<Service><Name>WMS</Name><Title>Orthophotos of a simulated town</Title>"
        f"<MaxWidth>{LARGEST_PX}</MaxWidth><MaxHeight>{LARGEST_PX}</MaxHeight></Service>"
        f"<Capability><Request><GetMap>{formats}</GetMap></Request>"
        "<Exception><Format>XML</Format></Exception>"
        f"<Layer><Title>Town</Title>{systems}<Layer><Name>{LAYER}</Name><Title>Orthophotos</Title></Layer></Layer>"
        "</Capability></WMS_Capabilities>"
    )
    return Answer(document.encode(), 200, _XML)


def _wmts_capabilities() -> Answer:
    metres_per_pixel = 2 * _EDGE_M / _TILE_PX
    matrices = "".join(
        f"<TileMatrix><ows:Identifier>{level}</ows:Identifier>"
        # A standardised pixel is 0.28 mm wide (OGC 07-057r7, 6.1).
        f"<ScaleDenominator>{metres_per_pixel / 2**level / 0.00028!r}</ScaleDenominator>"
        f"<TopLeftCorner>{-_EDGE_M!r} {_EDGE_M!r}</TopLeftCorner>"
        f"<TileWidth>{_TILE_PX}</TileWidth><TileHeight>{_TILE_PX}</TileHeight>"
        f"<MatrixWidth>{2**level}</MatrixWidth><MatrixHeight>{2**level}</MatrixHeight></TileMatrix>"
        for level in range(_LEVELS)
    )
    document = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<Capabilities version="1.0.0" xmlns="http://www.opengis.net/wmts/1.0" '
        'xmlns:ows="http://www.opengis.net/ows/1.1"><Contents>'
        f"<Layer><ows:Title>Orthophotos</ows:Title><ows:Identifier>{LAYER}</ows:Identifier>"
        '<Style isDefault="true"><ows:Identifier>normal</ows:Identifier></Style><Format>image/jpeg</Format>'
        "<TileMatrixSetLink><TileMatrixSet>PM</TileMatrixSet></TileMatrixSetLink></Layer>"
        "<TileMatrixSet><ows:Identifier>PM</ows:Identifier>"
        f"<ows:SupportedCRS>urn:ogc:def:crs:EPSG::3857</ows:SupportedCRS>{matrices}</TileMatrixSet>"
        "</Contents></Capabilities>"
    )
    return Answer(document.encode(), 200, _XML)
