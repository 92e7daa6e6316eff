"""The command line: `urbanprint cities | plan | run | sky | locate | demo | takedown | ui`.

What a command does is done by the code location; here are only arguments and words. Dagster is imported inside
the commands, so that `urbanprint --help` answers at once.
"""

import argparse
import atexit
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urbanprint import __version__
from urbanprint.catalogue import CATALOGUE_VARIABLE, Catalogue, find_catalogue, read_catalogue
from urbanprint.errors import UrbanprintError
from urbanprint.settings import City, Conurbation, Country, Place, World

if TYPE_CHECKING:
    import dagster as dg
    import pandas as pd

DEMO_CITY = "simville"
_INTERRUPTED, _UNREAD = 130, 141
_JOBS: dict[type[Place], str] = {City: "city", Conurbation: "conurbation", Country: "country"}
"""Kind of place -> the job that makes everything of it."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status.

    0 done, 1 refused in one sentence, 2 wrong usage, 130 interrupted, 141 nobody reads what is printed any more.
    """
    options = _parser().parse_args(arguments)
    _enter_project(options)
    try:
        status = int(options.command(options))
        sys.stdout.flush()
        return status
    except UrbanprintError as error:
        print(f"urbanprint: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("urbanprint: interrupted; what was done is kept, run the same command to continue", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # as `head` does when it has its lines; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNREAD


def entry() -> int:
    """The `urbanprint` command: `main`, and the prompt is back at once.

    Python would first take a million objects of Dagster and torch apart one by one, for seconds. Exit handlers run
    last in, first out, so that those of every library have run before this one.
    """
    ended: list[int] = []

    def leave() -> None:
        if ended:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended[0])

    atexit.register(leave)
    ended.append(main())
    return ended[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="urbanprint",
        description="From published statistics and open imagery to an honest, explained map of a city.",
    )
    parser.add_argument("--version", action="version", version=f"urbanprint {__version__}")
    parser.add_argument("--catalogue", metavar="FILE", help=f"catalogue of cities (or {CATALOGUE_VARIABLE})")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    cities = commands.add_parser("cities", help="list the places and worlds of the catalogue")
    cities.set_defaults(command=_cities)

    plan = commands.add_parser("plan", help="say what a run would ask of the imagery provider, before it does")
    plan.add_argument("city")
    plan.add_argument("--look-up", action="store_true", help="search the areas first: free, and the plan is exact")
    plan.set_defaults(command=_plan)

    run = commands.add_parser("run", help="make everything of places or worlds, to map and report")
    run.add_argument(
        "places", nargs="+", metavar="city", help="a city, conurbation, country or world; several run in turn"
    )
    run.add_argument("--refresh-sources", action="store_true", help="ask the publishers whether their files changed")
    run.set_defaults(command=_run)

    sky = commands.add_parser("sky", help="say what tiles from above add to the street images of a city that was run")
    sky.add_argument("city")
    sky.set_defaults(command=_sky)

    locate = commands.add_parser("locate", help="say where photographs may have been taken, and draw the map")
    locate.add_argument("photographs", nargs="+", metavar="photo", type=Path)
    locate.add_argument("--world", help="the world whose model answers (default: the one that has been built)")
    locate.add_argument("--model", type=Path, metavar="FOLDER", help="folder of a fitted model, in place of a world's")
    locate.add_argument("--finest", type=int, metavar="LEVEL", help="answer no finer than this grid level")
    locate.add_argument("--out", type=Path, metavar="FOLDER", help="where the maps are written")
    locate.set_defaults(command=_locate)

    takedown = commands.add_parser("takedown", help="remove an image and every picture made of it, for good")
    takedown.add_argument("image", help="its identifier at the provider")
    takedown.set_defaults(command=_takedown)

    demo = commands.add_parser("demo", help=f"run the embedded simulated city, {DEMO_CITY}: no keys, no internet")
    demo.set_defaults(command=_run, places=[DEMO_CITY], refresh_sources=False)

    ui = commands.add_parser("ui", help="open the Dagster and MLflow web pages on this machine")
    ui.add_argument("--port", type=int, default=3000, help="port of the Dagster page (default 3000)")
    ui.add_argument("--mlflow-port", type=int, default=5000, help="port of the MLflow page (default 5000)")
    ui.set_defaults(command=_ui)
    return parser


def _enter_project(options: argparse.Namespace) -> None:
    """Make the project folder the current one: Dagster's state and the workspace lie under it."""
    if options.catalogue:
        os.environ[CATALOGUE_VARIABLE] = str(Path(options.catalogue).expanduser().resolve())
    elif os.environ.get(CATALOGUE_VARIABLE):
        os.environ[CATALOGUE_VARIABLE] = str(Path(os.environ[CATALOGUE_VARIABLE]).expanduser().resolve())
    if not Path("dagster.yaml").is_file():
        os.chdir(Path(__file__).resolve().parent.parent)
    os.environ.setdefault("DAGSTER_HOME", str(Path.cwd()))


def _cities(_options: argparse.Namespace) -> int:
    catalogue = read_catalogue()
    rows: list[tuple[str, ...]] = [("city", "name", "edition", "imagery", "districts", "areas sampled")]
    for city in catalogue.cities.values():
        districts, sampled = str(len(city.districts)), str(city.sample.areas)
        rows.append((city.key, city.name, city.edition.key, city.imagery.key, districts, sampled))
    _print_table(rows)
    if catalogue.conurbations:
        rows = [("conurbation", "name", "incomes", "imagery", "cells sampled")]
        for place in catalogue.conurbations.values():
            rows.append((place.key, place.name, place.income.edition, place.imagery.key, str(place.sample.areas)))
        print()
        _print_table(rows)
    if catalogue.countries:
        rows = [("country", "name", "survey", "imagery", "images a cluster")]
        for country in catalogue.countries.values():
            table = country.survey.table if country.simulated else Path(country.survey.table).name
            rows.append((country.key, country.name, table, country.imagery.key, f"at most {country.sample.views}"))
        print()
        _print_table(rows)
    if catalogue.worlds:
        rows = [("world", "name", "imagery", "levels", "images a cell")]
        for world in catalogue.worlds.values():
            levels = " ".join(f"L{level}" for level in world.cells.levels)
            rows.append((world.key, world.name, world.imagery.key, levels, f"at most {world.sample.views}"))
        print()
        _print_table(rows)
    return 0


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _plan(options: argparse.Namespace) -> int:
    catalogue = read_catalogue()
    city: Place | World
    with _Graph(catalogue) as graph:
        if options.city in catalogue.worlds:
            city = catalogue.world(options.city)
            if options.look_up:
                raise UrbanprintError(
                    f"{city.key} is a world, whose cells cannot be looked up first: leave --look-up out"
                )
            graph.plan_world(city)
            plan = graph.table("cell_plan", city).iloc[0]
        else:
            city = catalogue.place(options.city)
            graph.sources(city, refresh=False)
            plan = graph.plan(city, look_up=options.look_up)
    minutes = "no rate limit" if plan["minutes"] != plan["minutes"] else f"at least {plan['minutes']:.1f} minutes"
    budget = "" if plan["budget"] != plan["budget"] else f"\n  budget    {plan['budget']:,.0f} paid requests left"
    places = "cells" if isinstance(city, World) else "areas"
    print(
        f"{city.name}: {plan['areas']:,} {places} with {plan['points']:,} points"
        f" ({plan['reserves']:,} {places} in reserve)\n"
        f"  searches  at most {plan['searches']:,}, free; more where an answer is full\n"
        f"  images    at most {plan['images']:,} ({plan['found']:,} found so far, {plan['held']:,} of them fetched)\n"
        f"  time      {minutes}\n"
        f"  price     {plan['price']}{budget}"
    )
    return 0


def _run(options: argparse.Namespace) -> int:
    catalogue = read_catalogue()
    from urbanprint.scenes.parsers import require_pixels
    from urbanprint.sources.providers import require_training

    worlds = [catalogue.world(key) for key in options.places if key in catalogue.worlds]
    places = [catalogue.place(key) for key in options.places if key not in catalogue.worlds]
    for world in worlds:
        require_training(world.imagery)  # asked before the first image is paid for
    for place in places:
        require_training(place.imagery)
        if isinstance(place, Country):
            require_pixels(place)
    with _Graph(catalogue) as graph:
        for place in places:
            if len(places) > 1:
                print(f"{place.name}:", file=sys.stderr)
            graph.sources(place, refresh=options.refresh_sources)
            graph.make(place)
        if any(isinstance(place, City) for place in places):
            graph.board()
        for place in places:
            _print_report(graph.report(place.key))
        if any(isinstance(place, Country) for place in places):
            graph.livelihood()
        if sum(isinstance(place, Country) for place in places) > 1:
            _print_report(graph.report("livelihood"))
        if sum(isinstance(place, Conurbation) for place in places) > 1:
            graph.transfer()
            _print_report(graph.report("aerial-transfer"))
        for world in worlds:
            graph.world(world)
            _print_report(graph.report(world.key))
    return 0


def _print_report(folder: Path) -> None:
    print((folder / "summary.txt").read_text(encoding="utf-8"))
    for name, page in (
        ("map", "map.html"),
        ("map", "coverage_map.html"),
        ("table", "table.md"),
        ("report", "index.html"),
    ):
        if (folder / page).is_file():
            print(f"{name:<7} {folder / page}")
    print()


def _sky(options: argparse.Namespace) -> int:
    catalogue = read_catalogue()
    city = catalogue.city(options.city)
    with _Graph(catalogue) as graph:
        print(graph.sky(city))
    return 0


def _locate(options: argparse.Namespace) -> int:
    from pipelines.locating import locate

    return locate(options.photographs, world=options.world, model=options.model, finest=options.finest, out=options.out)


def _takedown(options: argparse.Namespace) -> int:
    import dagster as dg

    from pipelines.definitions import build_resources
    from pipelines.takedown import take_down

    resources = build_resources()
    with dg.DagsterInstance.get() as instance:
        removed = take_down(
            options.image, workspace=resources["workspace"], tracking=resources["tracking"], instance=instance
        )
    print(f"{options.image} is taken down in {', '.join(removed.cities)} and will not be fetched again.")
    print(f"  removed  pixels, {len(removed.files)} files, {removed.panels} panels, {len(removed.runs)} runs with one")
    for model in removed.models:
        print(f"  learned from it: {model}")
    for city in removed.cities:
        print(f"  build again without it: urbanprint run {city}")
    return 0


def _ui(options: argparse.Namespace) -> int:
    import subprocess

    from resources.workspace import default_home

    tracking = default_home() / "mlflow"
    tracking.mkdir(parents=True, exist_ok=True)
    pages = {
        "Dagster": [
            sys.executable, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", str(options.port),
            "--module-name", "pipelines.definitions",
        ],
        "MLflow": [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(options.mlflow_port),
            "--backend-store-uri", f"sqlite:///{tracking / 'mlflow.db'}", "--workers", "1",
        ],
    }  # fmt: skip
    print(
        f"Dagster  http://127.0.0.1:{options.port}\nMLflow   http://127.0.0.1:{options.mlflow_port}\nCtrl-C stops both."
    )
    running = [subprocess.Popen(command) for command in pages.values()]
    try:
        for process in running:
            process.wait()
    finally:
        for process in running:
            process.terminate()
    return 0


class _Graph:
    """The code location and its instance, for the commands that run it."""

    def __init__(self, catalogue: Catalogue) -> None:
        import dagster as dg

        os.environ[CATALOGUE_VARIABLE] = str(find_catalogue(catalogue.path).resolve())
        from pipelines.console import terminal
        from pipelines.definitions import build_defs
        from resources.workspace import Workspace, default_home

        self._defs = build_defs(loggers={"console": terminal})
        self._workspace = Workspace(home=str(default_home()))
        self._instance = dg.DagsterInstance.get()

    def __enter__(self) -> "_Graph":
        return self

    def __exit__(self, *error: object) -> None:
        self._instance.dispose()

    def sources(self, place: Place, *, refresh: bool) -> None:
        """Make the national tables a city needs, unless they exist and hold its edition; the survey of a country."""
        from urbanprint.errors import InputError

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

    def plan(self, place: Place, *, look_up: bool) -> "pd.Series":
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

    def world(self, world: World) -> None:
        """Make everything of a world: its images and cells, the network of each level, the joint one, the report."""
        self._launch("world", partition=world.key)
        for level in world.levels:
            print(f"{level}:", file=sys.stderr)
            self._launch("grid_level", partition=level)
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

    def table(self, asset: str, place: Place | World) -> "pd.DataFrame":
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
        import dagster as dg

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


def _why(result: "dg.ExecuteInProcessResult") -> str:
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


if __name__ == "__main__":
    sys.exit(entry())
