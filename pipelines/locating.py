"""`urbanprint locate`: photographs in, sentences and maps out, from a system that a world's run has fitted."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resources.addresses import Addresses
from resources.files import Files
from resources.workspace import Workspace, default_home
from urbanprint.catalogue import read_catalogue
from urbanprint.errors import InputError, SourceError
from urbanprint.settings import World

if TYPE_CHECKING:
    import numpy as np

SYSTEM = "geolocator-joint"
"""The folder of the system that answers, among a world's models."""


def locate(
    photographs: Sequence[Path], *, world: str | None, model: Path | None, finest: int | None, out: Path | None
) -> int:
    """Say where each photograph may have been taken and write its map; return 1 if one of them could not be read.

    A file that is no photograph gets its sentence, and the others are located all the same.
    """
    workspace = Workspace(home=str(default_home()))
    answering = _world(world, workspace) if world or model is None else None
    if model is None:
        model = workspace.models(str(answering and answering.key)) / SYSTEM
    from urbanprint.geolocation.geolocator import load_geolocator
    from urbanprint.geolocation.photographs import read_photograph
    from urbanprint.maps.location_content import location_answer, told
    from urbanprint.maps.location_map import location_map

    system = load_geolocator(model, finest=finest).capped(answering.cells.finest if answering else None)
    confidence = answering.cells.confidence if answering else 0.9
    land = _land(answering, workspace)
    refused = 0
    for number, path in enumerate(photographs):
        try:
            photograph = read_photograph(path, size=system.classifiers[0].config.size)
        except InputError as error:
            print(f"urbanprint: {error}", file=sys.stderr)
            refused += 1
            continue
        (answer,) = system.answers(system.see(photograph.pixels[None]), confidence=confidence)
        print("\n".join(told(photograph, answer)))
        page = location_map(
            location_answer(answer, photograph),
            land=land,
            folder=(out or workspace.report("located")) / _folder(path, photographs[:number]),
            title=f"Where was {path.name} taken?",
            photograph=path,
        )
        print(f"  map      {page}\n")
    return 1 if refused else 0


def _folder(path: Path, before: Sequence[Path]) -> str:
    """The name of the photograph, numbered where another of the same name came before it."""
    same = sum(other.stem == path.stem for other in before)
    return f"{path.stem}-{same + 1}" if same else path.stem


def _world(key: str | None, workspace: Workspace) -> World:
    """The world called `key`, or the only one that has been built."""
    catalogue = read_catalogue()
    built = [each for each in catalogue.worlds if (workspace.models(each) / SYSTEM).is_dir()]
    if key is None and len(built) != 1:
        found = f"{len(built)} worlds have been built ({', '.join(built)})" if built else "no world has been built yet"
        first = next(iter(catalogue.worlds), "earth")
        raise InputError(f"{found}: name one with --world, or build one with `urbanprint run {first}`.")
    world = catalogue.world(key or built[0])
    if world.key not in built:
        raise InputError(f"{world.key} has not been built yet: build it with `urbanprint run {world.key}`.")
    return world


def _land(world: World | None, workspace: Workspace) -> "np.ndarray":
    """The land behind the map; none where no world is named or its file cannot be had, which is said."""
    import numpy as np

    from urbanprint.land import read_land

    addresses = Addresses()
    try:
        if world is None:
            return np.empty(0, dtype=object)
        return read_land(Files(addresses=addresses, workspace=workspace).path(world.land))
    except SourceError as error:
        print(f"urbanprint: the map has no land behind it: {error}", file=sys.stderr)
        return np.empty(0, dtype=object)
    finally:
        addresses.close()
