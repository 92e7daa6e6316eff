"""The simulated countries: their surveys as files, and Mapillary for each under its own name.

`/survey/<country>.csv` is the survey of the world "several", `/survey/<country>-single.csv` that of the world "single";
`/<country>/mapillary/...`, `/<country>/mapillary-tiles/...` and `/<country>/thumbs/...` are what `/mapillary/...` and
so on are for the town.
"""

import re
import threading

from urbanprint.simulation.country import COUNTRIES, CountryName, World, build_country
from urbanprint.simulation.faults import Answer
from urbanprint.simulation.protocols.camera import Camera
from urbanprint.simulation.protocols.mapillary import GraphApi
from urbanprint.simulation.protocols.open_data import file_answer
from urbanprint.simulation.protocols.vector_tiles import VectorTiles
from urbanprint.simulation.protocols.wire import Headers, Provider, Query
from urbanprint.simulation.survey import survey

_WIDTH = 128  # pixels: what a small network is shown, and cheap to draw


class Countries:
    """Every simulated country, of `clusters` clusters each; built when first asked for."""

    def __init__(self, *, clusters: int, token: str, thumb_lifetime_s: float, dense_box: int) -> None:
        self._clusters = clusters
        self._token, self._lifetime_s, self._dense_box = token, thumb_lifetime_s, dense_box
        self._lock = threading.Lock()
        self._built: dict[CountryName, list[Provider]] = {}

    def answer(self, path: str, query: Query, headers: Headers, base: str) -> Answer | None:
        """A survey, or what the country's Mapillary answers."""
        for name in COUNTRIES:
            if match := re.fullmatch(rf"/survey/{name}(-single)?\.csv", path):
                return self.survey(name, "single" if match[1] else "several", headers)
            if path.startswith(f"/{name}/"):
                answers = (
                    provider.answer(path.removeprefix(f"/{name}"), query, headers, f"{base}/{name}")
                    for provider in self._mapillary(name)
                )
                return next((answer for answer in answers if answer is not None), None)
        return None

    def survey(self, name: CountryName, world: World, headers: Headers) -> Answer:
        """The file of a survey, or a part of it."""
        table = survey(build_country(name, clusters=self._clusters), world=world)
        return file_answer(table.to_csv(index=False).encode(), "text/csv; charset=utf-8", headers)

    def _mapillary(self, name: CountryName) -> list[Provider]:
        with self._lock:
            if name not in self._built:
                country = build_country(name, clusters=self._clusters)
                camera = Camera(country, width=_WIDTH)
                graph = GraphApi(
                    country, camera, token=self._token, thumb_lifetime_s=self._lifetime_s, dense_box=self._dense_box
                )
                self._built[name] = [graph, VectorTiles(country, token=self._token)]
            return self._built[name]
