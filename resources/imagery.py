"""Imagery providers as a resource: a city's settings and the secrets of the environment in, a plain source out."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from resources.addresses import SIMULATION_TOKEN, Addresses
from resources.workspace import Workspace
from urbanprint.settings import SIMULATION_SCHEME, Imagery, Place

if TYPE_CHECKING:
    from urbanprint.imagery.ledger import Ledger
    from urbanprint.imagery.records import Source
    from urbanprint.imagery.store import FeatureStore, ImageStore


SKY = "-sky"
"""End of the name of a city's second ledger, of its tiles from above."""


class ImagerySources(dg.ConfigurableResource):
    """Builds the source a city's images come from."""

    addresses: dg.ResourceDependency[Addresses]
    workspace: dg.ResourceDependency[Workspace]

    def source(self, imagery: Imagery, ledger: "Ledger") -> "Source":
        """Return the source; raises `MissingSecret` naming the variable when its key is not in the environment.

        The provider's rate limit is shared by all runs of this machine, and what is paid is counted in `ledger`.
        """
        from urbanprint.imagery.budget import Purse
        from urbanprint.sources.limits import RateLimit
        from urbanprint.sources.providers import key_variable, secret_variable, source_of

        simulated = (imagery.endpoint or "").startswith(SIMULATION_SCHEME)
        shared = self.workspace.limits / imagery.provider
        return source_of(
            imagery,
            endpoint=self.addresses.resolve(imagery.endpoint) if imagery.endpoint else None,
            key=SIMULATION_TOKEN if simulated else os.environ.get(key_variable(imagery) or ""),
            secret=None if simulated else os.environ.get(secret_variable(imagery) or ""),
            limit=RateLimit(imagery.per_minute, shared=shared) if imagery.per_minute else None,
            budget=None if imagery.budget is None else Purse(ledger, imagery.provider, imagery.budget),
        )


@contextmanager
def open_ledger(workspace: Workspace, city: str) -> Iterator["Ledger"]:
    """The city's ledger, in which whatever was taken down anywhere in the workspace is blocked."""
    from urbanprint.imagery.ledger import Ledger

    with closing(Ledger(workspace.ledger(city))) as ledger:
        for name in workspace.taken_down():
            ledger.take_down(name)
        yield ledger


def image_store(city: Place, workspace: Workspace) -> "ImageStore | FeatureStore":
    """Return where the city's images are kept: their pixels, or only features where the terms forbid keeping pixels."""
    from urbanprint.imagery.store import ImageStore
    from urbanprint.sources.providers import terms_of

    if terms_of(city.imagery).may_store:
        return ImageStore(workspace.images)
    from urbanprint.models.embedding import feature_store

    training = city.training
    return feature_store(
        workspace.features,
        backbone=training.backbone,
        weights=training.weights,
        size=training.frozen_size,
        seed=training.seed,
    )
