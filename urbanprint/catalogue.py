"""The catalogue of cities: `cities.toml` read into records, every mistake one sentence naming table and key.

What belongs here is what a user may say about a city: whose statistics, which districts, which imagery, how large a
sample, how it is judged and trained. Where files lie and how they are read is for others.

An address is an http(s) URL, a local path (relative ones start at the catalogue's folder, `${NAME}` is taken from the
environment), or `simulation:/...`, which the embedded simulated city answers.
"""

import difflib
import os
import re
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from urbanprint.errors import CatalogueError
from urbanprint.vocabulary import INDICATORS

CATALOGUE_VARIABLE = "URBANPRINT_CATALOGUE"
SIMULATION_SCHEME = "simulation:"
_KEY = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, kw_only=True)
class Edition:
    """One edition of published statistics and the boundaries its areas are drawn in."""

    key: str
    publisher: Literal["england", "simulation"]
    areas_ranked: int
    """Number of areas ranked in the whole country; ranks run 1..areas_ranked."""
    deprivation: str
    boundaries: str
    lookup: str | None = None
    """Address of an area-to-district lookup that replaces the districts of the statistics."""
    deprivation_sha256: str | None = None
    licence: str
    attribution: str

    def __post_init__(self) -> None:
        _require(self.areas_ranked >= 2, "areas_ranked", "at least 2", self.areas_ranked)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What a picture has to be to count (`urbanprint.imagery.quality`). Grey levels run from 0 to 255."""

    least_side: int = 32
    """Pixels of the shorter side: no network takes less."""
    most_pixels: int = 80_000_000
    """Width times height, known before anything is decoded; Pillow itself refuses from 89,478,485 on."""
    darkest: float = 40.0
    brightest: float = 250.0
    """Bounds of the mean grey level."""
    flattest: float = 0.8
    """Share of the pixels that have one grey level, from which on a picture is a placeholder."""
    blurriest: float = 60.0
    """Least variance of the Laplacian at 256 pixels across. Of 105 sharp street photographs the least has 148; blurred
    by half a percent of their width, 95 % fall below 60."""
    distance_bits: int = 4
    """Two pictures of one place are the same when at most so many of the 64 bits of their hashes differ; -1: never."""
    duplicate_within_m: float = 20.0
    """How far apart one place is, in metres: the error of a phone's position in a street."""
    spacing_m: float = 0.0
    """Least distance between two images, in metres. 0: none, as views in several directions share one position."""

    def __post_init__(self) -> None:
        _require(self.least_side >= 1, "least_side", "at least 1 pixel", self.least_side)
        _require(1 <= self.most_pixels <= 89_478_485, "most_pixels", "1 to 89478485 pixels", self.most_pixels)
        _require(0 <= self.darkest <= 255, "darkest", "a grey level, 0 to 255", self.darkest)
        _require(self.darkest < self.brightest <= 255, "brightest", "above darkest, at most 255", self.brightest)
        _require(0 < self.flattest <= 1, "flattest", "a share above 0, at most 1", self.flattest)
        _require(self.blurriest >= 0, "blurriest", "at least 0", self.blurriest)
        _require(-1 <= self.distance_bits <= 16, "distance_bits", "-1 (off) to 16 bits", self.distance_bits)
        _require(
            0 <= self.duplicate_within_m <= 1000, "duplicate_within_m", "0 to 1000 metres", self.duplicate_within_m
        )
        _require(0 <= self.spacing_m <= 1000, "spacing_m", "0 (off) to 1000 metres", self.spacing_m)


_ONLY_OF = {
    "budget": ("street-view",),
    "radius_m": ("street-view",),
    "secret_variable": ("street-view",),
    "key_variable": ("mapillary", "street-view"),
    "least_quality": ("mapillary",),
    "endpoint": ("mapillary", "street-view", "panoramax", "kartaview"),
    "folder": ("folder",),
    "manifest": ("folder",),
}
"""Keys of an imagery table -> the providers they mean something to. Elsewhere a key without effect would mislead."""


@dataclass(frozen=True, kw_only=True)
class Imagery:
    """Where street images come from."""

    key: str
    provider: Literal["mapillary", "street-view", "panoramax", "kartaview", "folder"]
    endpoint: str | None = None
    """Address of the provider's interface, if not the public one."""
    key_variable: str | None = None
    """Name of the environment variable that holds the key, if not the provider's usual one; the key itself never
    stands in a file."""
    secret_variable: str | None = None
    """The same for the secret that signs requests."""
    folder: str | None = None
    manifest: str | None = None
    """CSV beside the images with a position a row; without it positions are read from EXIF."""

    captured_from: date | None = None
    captured_before: date | None = None
    panoramas: bool = False
    """Panoramas instead of flat views."""
    heading: tuple[float, ...] = ()
    """From and to, degrees clockwise from north; empty: every direction."""
    creators: tuple[str, ...] = ()
    """Only images of these people; empty: of everyone."""
    least_quality: float | None = None
    """The provider's own score of a picture, in [0, 1]."""
    quality: Quality = field(default_factory=Quality)

    radius_m: int = 50
    """How far from a sample point an image may lie, for a provider that is asked about points, in metres."""
    threads: int = 16
    per_minute: int | None = None
    budget: int | None = None
    """Paid requests that may ever be made for a city; needed where images cost money."""

    licence: str | None = None
    attribution: str | None = None
    may_store: bool | None = None
    may_train: bool | None = None
    may_show: bool | None = None
    """What your own agreement with the provider allows, where it differs from the public terms."""
    keep_days: float | None = None
    """For how long pixels may be kept."""

    def __post_init__(self) -> None:
        _require(self.threads >= 1, "threads", "at least 1", self.threads)
        _require(self.radius_m >= 1, "radius_m", "at least 1 metre", self.radius_m)
        _require(self.per_minute is None or self.per_minute >= 1, "per_minute", "at least 1", self.per_minute)
        _require(self.budget is None or self.budget >= 0, "budget", "at least 0 requests", self.budget)
        _require(self.keep_days is None or self.keep_days > 0, "keep_days", "more than 0 days", self.keep_days)
        _require(
            self.least_quality is None or 0 <= self.least_quality <= 1, "least_quality", "0 to 1", self.least_quality
        )
        _require(
            not self.heading or (len(self.heading) == 2 and all(0 <= each < 360 for each in self.heading)),
            "heading",
            "two directions of 0 to below 360 degrees, from and to",
            list(self.heading),
        )
        for name, providers in _ONLY_OF.items():
            if self.provider not in providers:
                default = {each.name: each.default for each in fields(self)}[name]
                expected = f"no such key, which is for {' and '.join(providers)} only"
                _require(getattr(self, name) == default, name, expected, getattr(self, name))
        if self.captured_from and self.captured_before:
            _require(self.captured_from < self.captured_before, "captured_before", "later than captured_from", None)
        if self.provider == "folder":
            for name in ("folder", "licence", "attribution"):
                _require(getattr(self, name) is not None, name, "given when provider is folder", None)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """How areas and points are drawn."""

    areas: int | Literal["all"] = 500
    allocation: Literal["equal", "proportional"] = "equal"
    views: int = 4
    """Images wanted in an area."""
    spacing_m: float = 30.0
    """Least distance between two sample points, in metres."""
    least_images: int = 1
    """Nothing is learned from an area with fewer images, and nothing is predicted for it."""
    seed: int = 7

    def __post_init__(self) -> None:
        _require(self.areas == "all" or self.areas >= 1, "areas", 'at least 1, or "all"', self.areas)
        _require(self.views >= 1, "views", "at least 1", self.views)
        _require(self.spacing_m >= 0, "spacing_m", "at least 0 metres", self.spacing_m)
        _require(1 <= self.least_images <= self.views, "least_images", "from 1 to views", self.least_images)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How predictions are judged."""

    folds: int = 5
    block_m: float = 3000.0
    """Side of a spatial block, in metres."""
    buffer_m: float = 500.0
    """Training areas nearer than this to a test block are left out, in metres."""
    seed: int = 7

    def __post_init__(self) -> None:
        _require(self.folds >= 2, "folds", "at least 2", self.folds)
        _require(self.block_m > 0, "block_m", "more than 0 metres", self.block_m)
        _require(self.buffer_m >= 0, "buffer_m", "at least 0 metres", self.buffer_m)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How pictures are turned into predictions."""

    backbone: str = "resnet18"
    weights: str = "imagenet"
    """`imagenet`, the path of a weights file, or openly `none`."""
    views: int = 4
    """Images of an area drawn for each epoch; predictions use all of them."""
    size: int = 224
    """Side of the square an image is decoded to, in pixels."""
    embedding_size: int | None = None
    """The same for the frozen features, which are cheap; None: as `size`."""
    epochs: int = 30
    patience: int = 6
    frozen_stages: int = 0
    """Stages of the network, from the input, that keep their weights: a halving of the resolution ends a stage."""
    batch_areas: int = 16
    learning_rate: float = 3e-4
    indicators: tuple[str, ...] = tuple(INDICATORS)
    seed: int = 7

    @property
    def frozen_size(self) -> int:
        """Side of the square the frozen network sees, in pixels."""
        return self.embedding_size or self.size

    def __post_init__(self) -> None:
        _require(self.size >= 32, "size", "at least 32 pixels", self.size)
        _require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        _require(self.batch_areas >= 2, "batch_areas", "at least 2", self.batch_areas)
        _require(self.learning_rate > 0, "learning_rate", "more than 0", self.learning_rate)
        _require("imd" in self.indicators, "indicators", 'a list that holds "imd"', list(self.indicators))
        for indicator in self.indicators:
            _require(indicator in INDICATORS, "indicators", f"from {', '.join(INDICATORS)}", indicator)


@dataclass(frozen=True, kw_only=True)
class City:
    """Everything a run needs to know about a city."""

    key: str
    name: str
    edition: Edition
    districts: tuple[str, ...]
    imagery: Imagery
    sample: Sample = field(default_factory=Sample)
    evaluation: Evaluation = field(default_factory=Evaluation)
    training: Training = field(default_factory=Training)

    @property
    def simulated(self) -> bool:
        """Whether the truth behind this city is known."""
        return self.edition.publisher == "simulation"


@dataclass(frozen=True)
class Catalogue:
    """The cities of one catalogue file."""

    path: Path
    cities: Mapping[str, City]

    def city(self, key: str) -> City:
        """Return the city called `key`; raises `CatalogueError` naming the nearest one if there is none."""
        if key not in self.cities:
            raise CatalogueError(f"{self.path} has no city {key!r}{_nearest(key, self.cities)}")
        return self.cities[key]

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
    known = ("defaults", "editions", "imagery", "cities")
    for name in document:
        if name not in known:
            raise CatalogueError(f"{path}: unknown table [{name}]{_nearest(name, known)}")
    for name in known:
        if not isinstance(document.get(name, {}), dict):
            raise CatalogueError(f"{path}: {name} must be a table: [{name}.<key>]")
    defaults = document.get("defaults", {})
    for name, values in defaults.items():
        if name not in ("sample", "evaluation", "training"):
            near = _nearest(name, ("sample", "evaluation", "training"))
            raise CatalogueError(f"{path}: unknown table [defaults.{name}]{near}")
        if not isinstance(values, dict):
            raise CatalogueError(f"{path}: defaults.{name} must be a table: [defaults.{name}]")
    editions = {
        key: reader.record(Edition, table, f"editions.{key}", key=key)
        for key, table in reader.tables(document, "editions")
    }
    imagery = {
        key: reader.record(Imagery, table, f"imagery.{key}", key=key)
        for key, table in reader.tables(document, "imagery")
    }
    cities = {}
    for key, table in reader.tables(document, "cities"):
        cities[key] = reader.city(key, table, defaults, editions, imagery)
    if not cities:
        raise CatalogueError(f"{path}: no [cities.<key>] table; add one for each city")
    return Catalogue(path=path, cities=types.MappingProxyType(cities))


class _Rejected(Exception):
    """A value a record refuses: (key, what was expected, what was found)."""


def _require(held: bool, key: str, expected: str, found: object) -> None:
    if not held:
        raise _Rejected(key, expected, found)


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it knows {', '.join(known)}"


class _Reader:
    """Turns TOML tables into records; knows the file so that messages can name it."""

    _ADDRESSES = frozenset({"deprivation", "boundaries", "lookup", "folder", "manifest", "endpoint", "weights"})

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

    def city(
        self,
        key: str,
        table: Mapping[str, Any],
        defaults: Mapping[str, Any],
        editions: Mapping[str, Edition],
        imagery: Mapping[str, Imagery],
    ) -> City:
        where = f"cities.{key}"
        values = dict(table)
        for name, known in (("edition", editions), ("imagery", imagery)):
            if values.get(name) is None:
                raise CatalogueError(f"{self._path}: [{where}] lacks the key {name!r}: one of {', '.join(known)}")
            if values[name] not in known:
                raise CatalogueError(
                    f"{self._path}: [{where}] {name}: unknown {values[name]!r}{_nearest(str(values[name]), known)}"
                )
            values[name] = known[values[name]]
        for name, kind in (("sample", Sample), ("evaluation", Evaluation), ("training", Training)):
            own = values.get(name, {})
            if not isinstance(own, dict):
                raise CatalogueError(f"{self._path}: [{where}] {name} must be a table: [{where}.{name}]")
            values[name] = self.record(kind, {**defaults.get(name, {}), **own}, f"{where}.{name}")
        city: City = self.record(City, values, where, key=key)
        if not city.districts:
            raise CatalogueError(f"{self._path}: [{where}] districts: list at least one district code")
        return city

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
        except _Rejected as rejected:
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
        if get_origin(hint) is tuple:
            return tuple(value)
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


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
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
    if origin is types.UnionType or str(origin) == "typing.Union":
        return " or ".join(_described(option) for option in get_args(hint) if option is not type(None))
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false", date: "a date"}[hint]
