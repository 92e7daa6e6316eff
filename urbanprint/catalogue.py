"""The catalogue: `cities.toml` read into records of places and worlds, every mistake one sentence.

What belongs here is reading: which table is which record, defaults, and messages that name table and key.

An address is an http(s) URL, a local path (relative ones start at the catalogue's folder, `${NAME}` is taken from the
environment), or `simulation:/...`, which the embedded simulated city answers.
"""

import difflib
import os
import re
import tomllib
import types
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from urbanprint.errors import CatalogueError
from urbanprint.settings import City, Conurbation, Country, Edition, Imagery, Place, RejectedValue, World

CATALOGUE_VARIABLE = "URBANPRINT_CATALOGUE"
_KEY = re.compile(r"[a-z0-9][a-z0-9-]*")
_KINDS: Mapping[str, type] = {"cities": City, "conurbations": Conurbation, "countries": Country, "worlds": World}
_RECORDS = ("imagery", "edition", "survey", "income", "land_use")
"""Records of a place that have no defaults."""
"""Table of the file -> what each of its tables is. Defaults of cities stand in [defaults], of others in a table there.
"""

_JOBS: Mapping[type, tuple[str, str]] = {
    City: ("city", "a city"),
    Conurbation: ("conurbation", "a conurbation seen from above"),
    Country: ("country", "a country of survey clusters"),
}
"""Kind of place -> the job that makes all of it, and what it is called in a sentence."""
_PlaceKind = TypeVar("_PlaceKind", bound=Place)


@dataclass(frozen=True)
class Catalogue:
    """The cities, conurbations, countries and worlds of one catalogue file."""

    path: Path
    cities: Mapping[str, City]
    conurbations: Mapping[str, Conurbation]
    countries: Mapping[str, Country]
    worlds: Mapping[str, World]

    @property
    def places(self) -> dict[str, Place]:
        """Cities, conurbations and countries by key: they are partitions of one dimension."""
        return {**self.cities, **self.conurbations, **self.countries}

    def place(self, key: str) -> Place:
        """Return the place called `key`; raises `CatalogueError` naming the nearest one if there is none."""
        if key not in self.places:
            raise CatalogueError(f"{self.path} has no city, conurbation or country {key!r}{_nearest(key, self.places)}")
        return self.places[key]

    def city(self, key: str) -> City:
        """Return the city called `key`; raises `CatalogueError` for another kind of place too."""
        return self._of_kind(key, City)

    def conurbation(self, key: str) -> Conurbation:
        """Return the conurbation called `key`; raises `CatalogueError` for another kind of place too."""
        return self._of_kind(key, Conurbation)

    def country(self, key: str) -> Country:
        """Return the country called `key`; raises `CatalogueError` for another kind of place too."""
        return self._of_kind(key, Country)

    def _of_kind(self, key: str, kind: type[_PlaceKind]) -> _PlaceKind:
        place = self.place(key)
        if not isinstance(place, kind):
            job, what = _JOBS[type(place)]
            raise CatalogueError(f"{key} is {what}, and this is for {_JOBS[kind][1]}: use the job `{job}`")
        return place

    def world(self, key: str) -> World:
        """Return the world called `key`; raises `CatalogueError` naming the nearest one if there is none."""
        if key not in self.worlds:
            raise CatalogueError(f"{self.path} has no world {key!r}{_nearest(key, self.worlds)}")
        return self.worlds[key]

    def editions(self, publisher: str) -> tuple[Edition, ...]:
        """The editions of `publisher` that some city uses, in the order of the file."""
        used = {city.edition.key: city.edition for city in self.cities.values()}
        return tuple(edition for edition in used.values() if edition.publisher == publisher)


def find_catalogue(path: str | Path | None = None) -> Path:
    """Return the catalogue file to use: `path`, `URBANPRINT_CATALOGUE`, `./cities.toml`, or the one of this project."""
    named = path or os.environ.get(CATALOGUE_VARIABLE)
    if named:
        return Path(named).expanduser()
    here = Path("cities.toml")
    return here if here.is_file() else Path(__file__).resolve().parent.parent / "cities.toml"


def read_catalogue(path: str | Path | None = None) -> Catalogue:
    """Read the catalogue at `path` (see `find_catalogue`).

    Raises `CatalogueError` for whatever is wrong with it: one sentence that names file, table and key.
    """
    path = find_catalogue(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise CatalogueError(
            f"there is no catalogue at {path}: name one with --catalogue or {CATALOGUE_VARIABLE}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path} is not valid TOML: {error}") from None
    reader = _Reader(path)
    known = ("defaults", "editions", "imagery", *_KINDS)
    for name in document:
        if name not in known:
            raise CatalogueError(f"{path}: unknown table [{name}]{_nearest(name, known)}")
    for name in known:
        if not isinstance(document.get(name, {}), dict):
            raise CatalogueError(f"{path}: {name} must be a table: [{name}.<key>]")
    defaults = reader.defaults(document.get("defaults", {}))
    shared: dict[str, Mapping[str, Any]] = {
        name: {
            key: reader.record(kind, table, f"{name}.{key}", key=key) for key, table in reader.tables(document, name)
        }
        for name, kind in (("editions", Edition), ("imagery", Imagery))
    }
    found = {
        name: {
            key: reader.place(kind, key, table, f"{name}.{key}", defaults=defaults[name], shared=shared)
            for key, table in reader.places(document, name)
        }
        for name, kind in _KINDS.items()
    }
    for key, times in Counter(key for group in found.values() for key in group).items():
        if times > 1:
            both = " and ".join(f"[{name}.{key}]" for name in _KINDS if key in found[name])
            raise CatalogueError(f"{path}: there are {both}: rename one, each is a partition")
    if not any(found.values()):
        raise CatalogueError(f"{path}: no [cities.<key>] table; add one for each city")
    return Catalogue(path=path, **{name: types.MappingProxyType(group) for name, group in found.items()})


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it knows {', '.join(known)}"


class _Reader:
    """Turns TOML tables into records; knows the file so that messages can name it."""

    _ADDRESSES = frozenset(
        {
            "deprivation", "boundaries", "lookup", "folder", "manifest", "endpoint", "weights",
            "table", "train_list", "validation_list", "detections", "land", "regions", "polygons", "classes",
        }
    )  # fmt: skip

    def __init__(self, path: Path) -> None:
        self._path = path

    def tables(self, document: Mapping[str, Any], name: str) -> list[tuple[str, Mapping[str, Any]]]:
        group = document.get(name, {})
        for key, table in group.items():
            if not _KEY.fullmatch(key):
                raise CatalogueError(f"{self._path}: [{name}.{key}]: keys are lower-case letters, digits and hyphens")
            if not isinstance(table, dict):
                raise CatalogueError(f"{self._path}: {name}.{key} must be a table: [{name}.{key}]")
        return list(group.items())

    def places(self, document: Mapping[str, Any], name: str) -> list[tuple[str, Mapping[str, Any]]]:
        """The tables of places; one that is `like` another takes from it whatever it does not say."""
        tables = dict(self.tables(document, name))
        merged: list[tuple[str, Mapping[str, Any]]] = []
        for key, table in tables.items():
            own = {name: value for name, value in table.items() if name != "like"}
            if "like" in table:
                like = table["like"]
                known = [other for other, its in tables.items() if "like" not in its]
                if like not in known:
                    raise CatalogueError(
                        f"{self._path}: [{name}.{key}] like: unknown {like!r}{_nearest(str(like), known)}"
                    )
                own = _merged(tables[like], own)
            merged.append((key, own))
        return merged

    def defaults(self, document: Any) -> dict[str, Mapping[str, Any]]:
        """The sections each kind of place starts from, checked."""
        self._check_defaults(document, "defaults", City, also=tuple(_KINDS)[1:])
        found: dict[str, Mapping[str, Any]] = {"cities": {n: v for n, v in document.items() if n not in _KINDS}}
        for name in tuple(_KINDS)[1:]:
            found[name] = document.get(name, {})
            self._check_defaults(found[name], f"defaults.{name}", _KINDS[name])
        return found

    def _check_defaults(self, defaults: Any, where: str, kind: type, *, also: tuple[str, ...] = ()) -> None:
        known = (*self._sections(kind), *also)
        if not isinstance(defaults, dict):
            raise CatalogueError(f"{self._path}: {where} must be a table: [{where}]")
        for name, values in defaults.items():
            if name not in known:
                raise CatalogueError(f"{self._path}: unknown table [{where}.{name}]{_nearest(name, known)}")
            if not isinstance(values, dict):
                raise CatalogueError(f"{self._path}: {where}.{name} must be a table: [{where}.{name}]")

    def place(
        self,
        kind: type,
        key: str,
        table: Mapping[str, Any],
        where: str,
        *,
        defaults: Mapping[str, Any],
        shared: Mapping[str, Mapping[str, Any]],
    ) -> Any:
        """A city or country: records it shares with others by key, sections of its own over the defaults."""
        values = dict(table)
        named = {"imagery": shared["imagery"]} | ({"edition": shared["editions"]} if kind is City else {})
        if kind is City and "orthophotos" in values:
            named["orthophotos"] = shared["imagery"]
        for name, known in named.items():
            if values.get(name) is None:
                raise CatalogueError(f"{self._path}: [{where}] lacks the key {name!r}: one of {', '.join(known)}")
            if values[name] not in known:
                raise CatalogueError(
                    f"{self._path}: [{where}] {name}: unknown {values[name]!r}{_nearest(str(values[name]), known)}"
                )
            values[name] = known[values[name]]
        for name, section in self._sections(kind).items():
            own = values.get(name, {})
            if not isinstance(own, dict):
                raise CatalogueError(f"{self._path}: [{where}] {name} must be a table: [{where}.{name}]")
            values[name] = self.record(section, {**defaults.get(name, {}), **own}, f"{where}.{name}")
        place = self.record(kind, values, where, key=key)
        if isinstance(place, City) and not place.districts:
            raise CatalogueError(f"{self._path}: [{where}] districts: list at least one district code")
        return place

    @staticmethod
    def _sections(kind: type) -> dict[str, type]:
        """The sections of a place, such as `sample`: name -> record. What it shares with others is none of them."""
        hints = get_type_hints(kind)
        return {f.name: hints[f.name] for f in fields(kind) if f.name not in _RECORDS and is_dataclass(hints[f.name])}

    def record(self, kind: type, table: Mapping[str, Any], where: str, **given: Any) -> Any:
        hints = get_type_hints(kind)
        known = {f.name: f for f in fields(kind) if f.name not in given}
        for name in table:
            if name not in known:
                raise CatalogueError(f"{self._path}: [{where}] has an unknown key {name!r}{_nearest(name, known)}")
        values = dict(given)
        for name, described in known.items():
            if name in table:
                values[name] = self._value(table[name], hints[name], name, where)
            elif described.default is MISSING and described.default_factory is MISSING:
                raise CatalogueError(f"{self._path}: [{where}] lacks the key {name!r}")
        try:
            return kind(**values)
        except RejectedValue as rejected:
            name, expected, found = rejected.args
            raise CatalogueError(f"{self._path}: [{where}] {name}: expected {expected}, found {found!r}") from None

    def _value(self, value: Any, hint: Any, name: str, where: str) -> Any:
        if isinstance(hint, type) and is_dataclass(hint):
            if isinstance(value, hint):
                return value
            if not isinstance(value, dict):
                raise CatalogueError(f"{self._path}: [{where}] {name} must be a table: [{where}.{name}]")
            return self.record(hint, value, f"{where}.{name}")
        if not _fits(value, hint):
            raise CatalogueError(f"{self._path}: [{where}] {name}: expected {_described(hint)}, found {value!r}")
        if get_origin(hint) in (tuple, dict):
            return get_origin(hint)(value)
        if name in self._ADDRESSES and isinstance(value, str):
            return self._address(value, name, where)
        return float(value) if hint is float else value

    def _address(self, value: str, name: str, where: str) -> str:
        def from_environment(match: re.Match[str]) -> str:
            if match[1] not in os.environ:
                raise CatalogueError(f"{self._path}: [{where}] {name}: the environment variable {match[1]} is not set")
            return os.environ[match[1]]

        value = re.sub(r"\$\{(\w+)\}", from_environment, value)
        if re.match(r"[a-z]+:/", value) or (name == "weights" and value in ("imagenet", "none")):
            return value
        return str((self._path.resolve().parent / Path(value).expanduser()).resolve())


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` where it says something, `under` where it does not; tables within tables as well."""
    both = dict(under)
    for name, value in over.items():
        below = both.get(name)
        both[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, get_args(hint)[1]) for item in value.values())
    if origin is types.UnionType or str(origin) == "typing.Union":
        return any(_fits(value, option) for option in get_args(hint) if option is not type(None))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is date:  # a moment is a date with too much to it
        return isinstance(value, date) and not isinstance(value, datetime)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _described(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(option) for option in get_args(hint))
    if origin is tuple:
        return f"a list, each item {_described(get_args(hint)[0])}"
    if origin is dict:
        return f"a table, each value {_described(get_args(hint)[1])}"
    if origin is types.UnionType or str(origin) == "typing.Union":
        return " or ".join(_described(option) for option in get_args(hint) if option is not type(None))
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false", date: "a date"}[hint]
