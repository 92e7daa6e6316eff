"""The command line: `urbanprint cities | plan | run | sky | locate | demo | takedown | ui`.

What a command does is done by the code location; here are only arguments and words. Dagster is imported inside
the commands, so that `urbanprint --help` answers at once.
"""

import argparse
import atexit
import os
import sys
from pathlib import Path

from urbanprint import __version__
from urbanprint.catalogue import CATALOGUE_VARIABLE, read_catalogue
from urbanprint.errors import UrbanprintError
from urbanprint.settings import City, Conurbation, Country, Place, World

DEMO_CITY = "simville"
_INTERRUPTED, _UNREAD = 130, 141


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
    from pipelines.running import Graph

    city: Place | World
    with Graph(catalogue) as graph:
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
    from pipelines.running import Graph
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
    with Graph(catalogue) as graph:
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
            graph.cells(world)
            for level in world.levels:
                print(f"{level}:", file=sys.stderr)
                graph.grid_level(level)
            graph.geolocation(world)
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
    from pipelines.running import Graph

    city = catalogue.city(options.city)
    with Graph(catalogue) as graph:
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


if __name__ == "__main__":
    sys.exit(entry())
