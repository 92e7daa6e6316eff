"""The catalogue of cities and countries as a resource: settings in, plain records out."""

from functools import cached_property

import dagster as dg

from urbanprint.catalogue import Catalogue, read_catalogue
from urbanprint.settings import City, Country, Edition, Place


class Cities(dg.ConfigurableResource):
    """The catalogue at `path`; without one, the catalogue the library finds by itself."""

    path: str | None = None

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue, read once."""
        return read_catalogue(self.path)

    def city(self, key: str) -> City:
        """Return the city called `key`."""
        return self.catalogue.city(key)

    def country(self, key: str) -> Country:
        """Return the country called `key`."""
        return self.catalogue.country(key)

    def place(self, key: str) -> Place:
        """Return the city or country called `key`."""
        return self.catalogue.place(key)

    def editions(self, publisher: str) -> tuple[Edition, ...]:
        """Return the editions of `publisher` that some city uses."""
        return self.catalogue.editions(publisher)
