"""An ArcGIS feature service over the boundaries; errors come in a 200, as ArcGIS sends them."""

import json
from dataclasses import dataclass
from typing import Any

import geopandas as gpd

from urbanprint.simulation.faults import Answer
from urbanprint.simulation.protocols.wire import Headers, Query, json_answer

_LAYER = "/arcgis/rest/services/areas/FeatureServer/0"


@dataclass(frozen=True, eq=False)
class FeatureService:
    """Layer 0 of the service over `table`, at most `page` features an answer."""

    table: gpd.GeoDataFrame
    page: int

    def answer(self, path: str, query: Query, _headers: Headers, _base: str) -> Answer | None:
        """The layer's description, a count, or a page of features."""
        if path == _LAYER:
            return self.metadata(query)
        return self.query(query) if path == f"{_LAYER}/query" else None

    def metadata(self, query: Query) -> Answer:
        """The layer's description, the part of it that clients read."""
        if query.get("f") != "json":
            return _arcgis_error("Invalid or missing input parameters.", ["only f=json is simulated"])
        kinds = {"FID": "esriFieldTypeOID"}
        return json_answer(
            {
                "currentVersion": 11.4,
                "id": 0,
                "name": "areas",
                "type": "Feature Layer",
                "geometryType": "esriGeometryPolygon",
                "objectIdField": "FID",
                "maxRecordCount": self.page,
                "supportedQueryFormats": "JSON, geoJSON",
                "capabilities": "Query",
                "advancedQueryCapabilities": {"supportsPagination": True, "supportsOrderBy": True},
                "fields": [
                    {"name": name, "type": kinds.get(name, "esriFieldTypeString"), "alias": name}
                    for name in ("FID", "LSOA11CD", "LSOA11NM")
                ],
            }
        )

    def query(self, query: Query) -> Answer:
        """A count, or one page of features as GeoJSON."""
        if query.get("where", "").replace(" ", "") != "1=1":
            return _arcgis_error("Unable to complete operation.", ["Unable to perform query operation."])
        if query.get("returnCountOnly") == "true":
            return json_answer({"count": len(self.table)})
        if query.get("f") != "geojson" or query.get("outSR", "4326") != "4326":
            return _arcgis_error("Invalid or missing input parameters.", ["only f=geojson in 4326 is simulated"])
        try:
            offset = int(query.get("resultOffset") or 0)
            wanted = min(int(query.get("resultRecordCount") or self.page), self.page)
        except ValueError:
            return _arcgis_error("Invalid query parameters.", ["'resultOffset' and 'resultRecordCount' are numbers"])
        page = self.table.iloc[offset : offset + wanted]
        body = json.loads(page.to_json(drop_id=True))
        features = [{**feature, "id": feature["properties"]["FID"]} for feature in body["features"]]
        answer: dict[str, Any] = {"type": "FeatureCollection", "features": features}
        if offset + wanted < len(self.table):
            answer["properties"] = {"exceededTransferLimit": True}
        return json_answer(answer)


def _arcgis_error(message: str, details: list[str]) -> Answer:
    return json_answer({"error": {"code": 400, "message": message, "details": details}})
