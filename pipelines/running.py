"""The code location as the command line runs it: the jobs of a place or world, and why one failed in a sentence."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from pipelines.console import terminal
from pipelines.definitions import build_defs
from resources.workspace import Workspace, default_home
from urbanprint.catalogue import CATALOGUE_VARIABLE, Catalogue, find_catalogue
from urbanprint.errors import InputError, UrbanprintError
from urbanprint.settings import City, Conurbation, Country, Place, World

_JOBS: dict[type[Place], str] = {City: "city", Conurbation: "conurbation", Country: "country"}
"""Kind of place -> the job that makes everything of it."""


class Graph:
    """The code location and its instance, for the commands that run it."""

    def __init__(self, catalogue: Catalogue) -> None:
        os.environ[CATALOGUE_VARIABLE] = str(find_catalogue(catalogue.path).resolve())
        self._defs = build_defs(loggers={"console": terminal})
        self._workspace = Workspace(home=str(default_home()))
        self._instance = dg.DagsterInstance.get()

    def __enter__(self) -> "Graph":
        return self

    def __exit__(self, *error: object) -> None:
        self._instance.dispose()

    def sources(self, place: Place, *, refresh: bool) -> None:
        """Make the national tables a city needs, unless they exist and hold its edition; the survey of a country."""
        if isinstance(place, Conurbation):
            return
        if not isinstance(place, City):
            if not self._workspace.holds("selection_optimism"):
                self._launch("livelihood", only=["selection_optimism"])
            return
        city = place
        publisher = city.edition.publisher
        if not refresh:
            try:
                tables = [self._workspace.read_table(f"{publisher}_{table}") for table in ("deprivation", "areas")]
            except InputError:
                tables = []
            if tables and all((table["edition"] == city.edition.key).any() for table in tables):
                return
        self._launch(f"{publisher}_sources")

    def plan(self, place: Place, *, look_up: bool) -> pd.Series:
        """What a run of a place would ask of its imagery provider; `look_up` searches first."""
        if isinstance(place, Conurbation):
            self.make(place, only=["land_use", "income_cells", "cell_land_use", "tile_cells", "tile_plan"])
            return self.table("tile_plan", place).iloc[0]
        survey = ["survey_clusters"] if isinstance(place, Country) else []
        plan_of = [*survey, "areas", "sampled_areas", "sample_points", "imagery_plan"]
        self.make(place, only=plan_of, config={"imagery_plan": {"look_up": look_up}})
        return self.table("imagery_plan", place).iloc[0]

    def make(
        self, place: Place, *, only: list[str] | None = None, config: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Make the assets of a place, or `only` some of them; `config` is that of assets, by name."""
        self._launch(_JOBS[type(place)], partition=place.key, only=only, config=config)

    def plan_world(self, world: World) -> None:
        """Say what a run of the world would ask of its imagery provider."""
        self._launch("world", partition=world.key, only=["cell_plan"])

    def cells(self, world: World) -> None:
        """Make the images and cells of a world."""
        self._launch("world", partition=world.key)

    def grid_level(self, level: str) -> None:
        """Make the network of a level of a world."""
        self._launch("grid_level", partition=level)

    def geolocation(self, world: World) -> None:
        """Make the networks of all levels together, the scores and the report of a world."""
        self._launch("geolocation", partition=world.key)

    def board(self) -> None:
        """Bring the board over all cities up to date."""
        self._launch("board")

    def livelihood(self) -> None:
        """Bring the report over all countries up to date."""
        self._launch("livelihood", only=["transfer_matrix", "livelihood_report"])

    def sky(self, city: City) -> str:
        """Compare street and sky for a city that has been made, and say what came of it."""
        if city.orthophotos is None:
            raise UrbanprintError(f"[cities.{city.key}] names no orthophotos: set them to the key of an imagery table")
        if not self._workspace.holds_all(("folds", "street_images", "image_embeddings"), partition=city.key):
            raise UrbanprintError(f"{city.key} has not been made yet: urbanprint run {city.key}")
        self._launch("sky", partition=city.key)
        from urbanprint.aerial.fusion import fusion_sentence

        return fusion_sentence(self.table("sky_gains", city))

    def transfer(self) -> None:
        """Bring the report over all conurbations up to date."""
        self._launch("transfer")

    def table(self, asset: str, place: Place | World) -> pd.DataFrame:
        """Return a table the graph has made."""
        return self._workspace.read_table(asset, partition=place.key)

    def report(self, name: str) -> Path:
        """Return the folder of the report of a city or country, or of all countries."""
        return self._workspace.report(name)

    def _launch(
        self,
        job: str,
        *,
        partition: str | None = None,
        only: list[str] | None = None,
        config: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        result = self._defs.resolve_job_def(job).execute_in_process(
            instance=self._instance,
            partition_key=partition,
            asset_selection=[dg.AssetKey(name) for name in only] if only else None,
            run_config={
                "loggers": {"console": {}},
                "ops": {name: {"config": dict(values)} for name, values in (config or {}).items()},
            },
            raise_on_error=False,
        )
        if not result.success:
            raise UrbanprintError(_why(result))


def _why(result: dg.ExecuteInProcessResult) -> str:
    """The sentence of the first failure: an error of ours as it is, a failed check by name, anything else by step."""
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            ours = {cls.__name__ for cls in _subclasses(UrbanprintError)}
            # An error of ours says what to do, what caused it does not: the first of ours, else the deepest.
            while error is not None and error.cls_name not in ours and error.cause is not None:
                error = error.cause
            if error is not None and error.cls_name in ours:
                return error.message.split(": ", 1)[-1].strip()
            if error is not None:
                return f"{event.step_key} failed: {error.message.strip()}"
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    names = [f"{check.check_name} of {check.asset_key.to_user_string()}" for check in failed]
    return f"run {result.run_id} failed its checks: {', '.join(names)}" if names else f"run {result.run_id} failed"


def _subclasses(cls: type) -> list[type]:
    children: list[type] = cls.__subclasses__()
    return [cls, *[deeper for child in children for deeper in _subclasses(child)]]
