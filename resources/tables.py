"""Tables between assets: Parquet and GeoParquet, a file a partition, written whole or not at all."""

from pathlib import Path
from typing import Any

import dagster as dg
from upath import UPath

from resources.workspace import Workspace, read_parquet


class ParquetTables(dg.UPathIOManager):
    """Stores DataFrames and GeoDataFrames under one folder, `<asset>/<partition>.parquet`."""

    extension: str = ".parquet"

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: UPath) -> None:
        """Write beside and rename: a killed step leaves the former table, never half of a new one."""
        local = Path(str(path))
        beside = local.with_name(f".writing-{local.name}")
        obj.to_parquet(beside)
        beside.replace(local)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Any:
        """Return the table with geometry where the file has it."""
        return read_parquet(Path(str(path)))


class Tables(dg.ConfigurableIOManagerFactory):
    """The I/O manager of every asset that returns a table."""

    workspace: dg.ResourceDependency[Workspace]

    def create_io_manager(self, context: dg.InitResourceContext) -> ParquetTables:
        """Return the manager over the workspace's table folder."""
        return ParquetTables(base_path=UPath(self.workspace.tables))
