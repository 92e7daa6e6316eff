"""Where files lie: one folder holds everything a run makes.

Only paths and the tables under them; what is in the files is for the library.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from urbanprint.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

HOME_VARIABLE = "URBANPRINT_HOME"


def default_home() -> Path:
    """Return the folder named by URBANPRINT_HOME, else `data` in the current folder."""
    return Path(os.environ.get(HOME_VARIABLE, "data")).expanduser().resolve()


class Workspace(dg.ConfigurableResource):
    """The folder that holds downloads, tables, images, models, reports and the experiment log."""

    home: str

    @property
    def downloads(self) -> Path:
        """Files fetched from publishers, kept to be asked for only when they change."""
        return self._folder("downloads")

    @property
    def tables(self) -> Path:
        """Parquet and GeoParquet tables, one folder an asset."""
        return self._folder("tables")

    @property
    def images(self) -> Path:
        """Pixels by content hash, shared by all cities."""
        return self._folder("images")

    @property
    def features(self) -> Path:
        """Vectors of images whose pixels may not be kept, by content hash."""
        return self._folder("features")

    @property
    def parsed(self) -> Path:
        """What parsers have seen in pictures, a folder a parser."""
        return self._folder("scenes")

    def scenes(self, parser: str) -> Path:
        """What a parser has seen in pictures, by content hash, shared by all places."""
        return self.parsed / re.sub(r"[^a-z0-9]+", "-", parser.lower()).strip("-")

    @property
    def limits(self) -> Path:
        """One small file a provider, through which all runs of this machine keep its rate limit together."""
        return self._folder("limits")

    @property
    def tracking(self) -> Path:
        """The MLflow database and its artifacts."""
        return self._folder("mlflow")

    def ledger(self, city: str) -> Path:
        """What has been asked of the city's imagery source, and the answers."""
        return self._folder("ledgers") / f"{city}.sqlite"

    def ledgers(self) -> list[Path]:
        """The ledgers of all cities that have been asked about, in order."""
        return sorted(self._folder("ledgers").glob("*.sqlite"))

    def taken_down(self) -> list[str]:
        """Image identifiers and hashes that no city may fetch, from any provider."""
        path = self._folder("ledgers") / "taken_down.txt"
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []

    def take_down(self, names: Iterable[str]) -> None:
        """Add image identifiers and hashes to those that no city may fetch."""
        every = sorted({*self.taken_down(), *names})
        path = self._folder("ledgers") / "taken_down.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".writing")
        beside.write_text("".join(f"{name}\n" for name in every), encoding="utf-8")
        beside.replace(path)

    def models(self, city: str) -> Path:
        """The city's trained models and their checkpoints."""
        return self._folder("models") / city

    def report(self, city: str) -> Path:
        """The city's report and map, a folder that can be moved or zipped."""
        return self._folder("reports") / city

    def read_table(self, asset: str, *, partition: str | None = None) -> "pd.DataFrame | gpd.GeoDataFrame":
        """Return a table an asset has written; raises `InputError` saying what to materialize if it has not."""
        path = self.tables / asset / f"{partition}.parquet" if partition else self.tables / f"{asset}.parquet"
        if not path.is_file():
            made = f"{asset} of {partition}" if partition else asset
            raise InputError(f"{made} has not been made yet: materialize it first (`urbanprint run` does)")
        return read_parquet(path)

    def holds(self, asset: str) -> bool:
        """Whether an unpartitioned asset has written its table."""
        return (self.tables / f"{asset}.parquet").is_file()

    def holds_all(self, assets: Iterable[str], *, partition: str) -> bool:
        """Whether every one of these assets has written its table of the partition."""
        return all((self.tables / asset / f"{partition}.parquet").is_file() for asset in assets)

    def read_partitions(self, asset: str) -> "dict[str, pd.DataFrame]":
        """Return the tables of every partition an asset has written, by partition, in order."""
        return {path.stem: read_parquet(path) for path in sorted((self.tables / asset).glob("[!.]*.parquet"))}

    def _folder(self, name: str) -> Path:
        return Path(self.home) / name


def read_parquet(path: Path) -> "pd.DataFrame | gpd.GeoDataFrame":
    """Return the table at `path`: a GeoDataFrame where the file holds geometry, a DataFrame where it does not."""
    import geopandas as gpd
    import pandas as pd
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        is_geo = b"geo" in (pq.read_schema(file).metadata or {})
    return gpd.read_parquet(path) if is_geo else pd.read_parquet(path)
