"""The catalogue of cities as a resource: settings in, plain records out."""

from functools import cached_property

import dagster as dg

from urbanprint.catalogue import Catalogue, City, Edition, read_catalogue


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

    def editions(self, publisher: str) -> tuple[Edition, ...]:
        """Return the editions of `publisher` that some city uses."""
        return self.catalogue.editions(publisher)
