"""Imagery providers as a resource: a city's settings and the secrets of the environment in, a plain source out."""

import os
from pathlib import Path

import dagster as dg

from resources.addresses import SIMULATION_TOKEN, Addresses
from urbanprint.catalogue import SIMULATION_SCHEME, Imagery
from urbanprint.imagery.records import Source


class ImagerySources(dg.ConfigurableResource):
    """Builds the source a city's images come from."""

    addresses: dg.ResourceDependency[Addresses]

    def source(self, imagery: Imagery) -> Source:
        """Return the source; raises `MissingSecret` naming the variable when its token is not in the environment."""
        from urbanprint.sources.terms import terms_of

        if imagery.provider == "folder":
            from urbanprint.sources.folder import Folder

            return Folder(
                folder=Path(str(imagery.folder)),
                manifest=Path(imagery.manifest) if imagery.manifest else None,
                terms=terms_of(imagery),
            )
        from urbanprint.sources.mapillary import Mapillary

        simulated = (imagery.endpoint or "").startswith(SIMULATION_SCHEME)
        return Mapillary(
            token=SIMULATION_TOKEN if simulated else os.environ.get(imagery.token_variable),
            token_variable=imagery.token_variable,
            terms=terms_of(imagery),
            endpoint=self.addresses.resolve(imagery.endpoint) if imagery.endpoint else None,
            per_minute=imagery.per_minute,
        )
