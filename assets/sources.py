"""National sources: published statistics and boundaries, unpartitioned, refreshed on a schedule.

Two publishers so far, each with the same two tables: England, and the embedded simulation, which serves the same files
through the same protocols. A file is asked for with its ETag and downloaded only when it has changed.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, described
from resources.addresses import Addresses
from resources.cities import Cities
from resources.workspace import Workspace
from urbanprint.settings import Edition

PUBLISHERS = {"england": "England", "simulation": "the embedded simulation"}


def _deprivation(publisher: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"{publisher}_deprivation",
        group_name="sources",
        kinds={"csv", "parquet"},
        owners=OWNERS,
        code_version="1",
        description=(
            f"Indices of Deprivation of {PUBLISHERS[publisher]}: score, rank and decile of the index and its seven "
            "domains with population, for every edition the catalogue uses. Ranks: 1 = most deprived."
        ),
    )
    def deprivation(
        context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace, addresses: Addresses
    ) -> dg.Output[pd.DataFrame]:
        from urbanprint.indicators.england import read_district_lookup, read_file7, with_districts

        tables: list[pd.DataFrame] = []
        files: dict[str, str | int] = {}
        for edition, path, sha256 in _fetched(context, cities.editions(publisher), "deprivation", workspace, addresses):
            table = read_file7(path, edition=edition.key, areas_ranked=edition.areas_ranked)
            if edition.lookup:
                from urbanprint.sources.open_data import fetch

                lookup = fetch(addresses.resolve(edition.lookup), folder=workspace.downloads)
                table, unknown = with_districts(table, read_district_lookup(lookup.path))
                files[f"{edition.key} areas without district in the lookup"] = len(unknown)
            tables.append(table)
            files[f"{edition.key} sha256"] = sha256
        return described(pd.concat(tables, ignore_index=True), files)

    return deprivation


def _boundaries(publisher: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"{publisher}_areas",
        group_name="sources",
        kinds={"geopackage", "parquet"},
        owners=OWNERS,
        code_version="1",
        description=f"Boundaries of the statistical areas of {PUBLISHERS[publisher]}, EPSG:4326, geometry repaired.",
    )
    def boundaries(
        context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace, addresses: Addresses
    ) -> dg.Output[gpd.GeoDataFrame]:
        from urbanprint.areas import read_boundaries

        frames, facts = [], {}
        for edition, path, sha256 in _fetched(context, cities.editions(publisher), "boundaries", workspace, addresses):
            read = read_boundaries(path, edition=edition.key)
            for note in read.notes:
                context.log.info(note)
            frames.append(read.frame)
            facts[f"{edition.key} repaired geometries"] = ", ".join(read.repaired) or "none"
            facts[f"{edition.key} sha256"] = sha256
        return described(gpd.GeoDataFrame(pd.concat(frames, ignore_index=True), crs=frames[0].crs), facts)

    return boundaries


def _fetched(
    context: dg.AssetExecutionContext,
    editions: tuple[Edition, ...],
    what: str,
    workspace: Workspace,
    addresses: Addresses,
) -> Iterator[tuple[Edition, Path, str]]:
    """Yield each edition with the local path of its file, unpacked, and the SHA-256 of what was fetched."""
    from urbanprint.errors import CatalogueError
    from urbanprint.sources.archives import unpack
    from urbanprint.sources.open_data import fetch

    if not editions:
        raise CatalogueError(f"no city of the catalogue uses an edition whose {what} would be fetched here")
    for edition in editions:
        file = fetch(
            addresses.resolve(getattr(edition, what)),
            folder=workspace.downloads,
            sha256=edition.deprivation_sha256 if what == "deprivation" else None,
        )
        context.log.info(f"{edition.key}: {file.path.name} {'is new' if file.changed else 'has not changed'}")
        yield edition, unpack(file.path, folder=workspace.downloads / "unpacked"), file.sha256


SOURCES = [make(publisher) for publisher in PUBLISHERS for make in (_deprivation, _boundaries)]
