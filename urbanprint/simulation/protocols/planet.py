"""The simulated planet: its land as a file, and Mapillary under its own name.

`/planet/land.geojson` is the land; `/planet/mapillary/...`, `/planet/mapillary-tiles/...` and `/planet/thumbs/...` are
what `/mapillary/...` and so on are for the town.
"""

import threading

from urbanprint.simulation.faults import Answer
from urbanprint.simulation.planet import Planet, build_planet
from urbanprint.simulation.planet_scenes import render_roadside
from urbanprint.simulation.protocols.camera import Camera
from urbanprint.simulation.protocols.mapillary import GraphApi
from urbanprint.simulation.protocols.open_data import file_answer
from urbanprint.simulation.protocols.vector_tiles import VectorTiles
from urbanprint.simulation.protocols.wire import Headers, Provider, Query
from urbanprint.simulation.scenes import jpeg

PREFIX = "/planet"
WIDTH = 128
"""Pixels of a picture: what a small network is shown, and cheap to draw."""


class Roadsides(Camera):
    """Takes the pictures of a planet."""

    def __init__(self, planet: Planet, *, width: int) -> None:
        super().__init__(planet, width=width)
        self._planet = planet

    def _taken(self, image_id: str, width: int) -> bytes:
        return jpeg(render_roadside(self._planet.view(image_id), width=width, height=width * 3 // 4))


class PlanetApi:
    """The simulated planet with about `images` images; built when first asked for."""

    def __init__(self, *, images: int, token: str, thumb_lifetime_s: float, dense_box: int) -> None:
        self._images = images
        self._token, self._lifetime_s, self._dense_box = token, thumb_lifetime_s, dense_box
        self._lock = threading.Lock()
        self._built: list[Provider] = []

    def answer(self, path: str, query: Query, headers: Headers, base: str) -> Answer | None:
        """The land, or what the planet's Mapillary answers."""
        if not path.startswith(f"{PREFIX}/"):
            return None
        if path == f"{PREFIX}/land.geojson":
            land = build_planet(images=self._images).ground.land
            return file_answer(land.to_json(drop_id=True).encode(), "application/geo+json", headers)
        answers = (
            provider.answer(path.removeprefix(PREFIX), query, headers, f"{base}{PREFIX}")
            for provider in self._mapillary()
        )
        return next((answer for answer in answers if answer is not None), None)

    def _mapillary(self) -> list[Provider]:
        with self._lock:
            if not self._built:
                planet = build_planet(images=self._images)
                camera = Roadsides(planet, width=WIDTH)
                graph = GraphApi(
                    planet, camera, token=self._token, thumb_lifetime_s=self._lifetime_s, dense_box=self._dense_box
                )
                self._built = [graph, VectorTiles(planet, token=self._token)]
            return self._built
