"""Published files as a resource: an address of the catalogue in, a local path out."""

from typing import TYPE_CHECKING

import dagster as dg

from resources.addresses import Addresses
from resources.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path


class Files(dg.ConfigurableResource):
    """Fetches files into the workspace, each again only if it has changed."""

    addresses: dg.ResourceDependency[Addresses]
    workspace: dg.ResourceDependency[Workspace]

    def path(self, address: str) -> "Path":
        """Return the local path of the file at an address."""
        from urbanprint.sources.open_data import fetch

        return fetch(self.addresses.resolve(address), folder=self.workspace.downloads).path
