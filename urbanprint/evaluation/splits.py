"""Folds of areas, and the guard that refuses a split in which training sees what it is tested on.

What belongs here: which areas and images train, validate and test. No model, no score. Everything that divides areas or
images goes through `check_split`, so that no room of the project can cross-validate on leaking units by accident.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from geopandas import GeoDataFrame
from scipy.spatial import cKDTree

from urbanprint import tables
from urbanprint.errors import InputError, LeakingSplit
from urbanprint.vocabulary import FOLD_KINDS

LEVELS: tuple[str, ...] = ("image", "sequence", "area", "block", "borough")
"""The units that can leak, finest to coarsest."""

_COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("image_id", "sha256"),  # the same photograph uploaded twice has two ids and one hash
    "sequence": ("sequence_id", "panorama_id"),
    "area": ("area_id",),
    "block": ("block",),
    "borough": ("borough",),
}
"""The columns whose shared values are a leak, by level."""

_KIND_LEVEL = {"random": "area", "borough": "borough", "block": "block"}

_REMEDY = {
    "image": "drop the training images that are shared, as split_images does",
    "sequence": "drop the training images of shared sequences, as split_images does",
    "area": "keep all images of an area on one side: divide areas (make_folds), then their images (split_images)",
    "block": "assign whole blocks to folds (make_folds, kind 'block')",
    "borough": "assign whole boroughs to folds (make_folds, kind 'borough')",
}


@dataclass(frozen=True)
class Split:
    """One fold as test, the rest as training; `buffered` areas are in neither. All ids sorted.

    `kind` says how parts inside training are drawn; `name` what the split is called where that does not say enough.
    """

    kind: str
    fold: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    buffered: tuple[str, ...] = ()
    name: str = ""

    @property
    def label(self) -> str:
        """Tells the split apart from all others of a study, in names of files and of metrics."""
        return f"{self.name or self.kind}-{self.fold}".replace(" ", "-")


def check_split(train: pd.DataFrame, test: pd.DataFrame, *, level: str, buffer_m: float = 0.0) -> None:
    """Raise `LeakingSplit` unless no unit lies on both sides of a split made at `level` (one of `LEVELS`).

    Both frames hold `area_id` and whichever unit columns apply: image_id, sha256, sequence_id, panorama_id, block,
    borough. Images, sequences and areas must never be shared, whatever the level: labels live on areas, so a split of
    images or sequences that puts views of one area on both sides leaks its label by design. A block or borough split
    must not share blocks or boroughs either; blocks are squares of the map that cross borough borders, so neither of
    these two levels includes the other.

    With `buffer_m` > 0 both frames also hold x_m and y_m (metres, projected), and no training area may lie nearer than
    that to a test area.

    Raises
    ------
    LeakingSplit
        Names the level, how many units are shared, the first of them with their rows on each side, and the remedy.
    InputError
        A column that is needed is absent, or a unit is unknown (null), so that the split cannot be judged.

    The reason for the rule: Roberts et al. 2017, "Cross-validation strategies for data with temporal, spatial,
    hierarchical, or phylogenetic structure", Ecography 40, 913-929.
    """
    if level not in LEVELS:
        raise InputError(f"'{level}' is not a level of a split: use one of {', '.join(LEVELS)}.")
    needed = {"area_id"} | ({level} if level in ("block", "borough") else set())
    needed |= {"x_m", "y_m"} if buffer_m > 0 else set()
    for side, frame in (("training", train), ("test", test)):
        if absent := sorted(needed - set(frame.columns)):
            raise InputError(f"The {side} side has no column {', '.join(absent)}: a {level} split cannot be judged.")
    # Areas before sequences: a split that shares both should be told about the leak of labels first.
    for held_apart in ("image", "area", "sequence") + ((level,) if level in ("block", "borough") else ()):
        for column in _COLUMNS[held_apart]:
            if column in train.columns and column in test.columns:
                _refuse_shared(train, test, column=column, unit=held_apart, level=level)
    if buffer_m > 0:
        _refuse_near(train, test, buffer_m=buffer_m)


def make_folds(
    areas: GeoDataFrame,
    *,
    folds: int,
    seed: int,
    block_m: float,
    kinds: Sequence[str] = tuple(FOLD_KINDS),
    crs: str | None = None,
) -> pd.DataFrame:
    """Which fold tests each area, under each kind of fold (`tables.FOLDS`, a row an area and kind).

    `random` deals shuffled areas out evenly. `borough` and `block` pack whole districts, or whole squares of `block_m`
    metres of the map projected by `crs` (None: its UTM zone), into folds of nearly equal numbers of areas. There are
    never more folds than boroughs or blocks, so the folds of a kind can be fewer than asked for: count them in the
    result.

    The seed moves random and block folds only: the packing of boroughs follows from their sizes. On the 4,835 LSOAs of
    London merely breaking ties in size another way moves the R2 of a coordinates-only baseline from -0.03 to -0.12, so
    a seed there would invite a lucky one.

    Raises `InputError` for fewer than two boroughs, blocks or areas for a kind asked for.
    """
    if folds < 2 or block_m <= 0:
        raise InputError(f"folds = {folds} and block_m = {block_m}: at least 2 folds and a positive length are needed.")
    if unknown := sorted(set(kinds) - set(FOLD_KINDS)):
        raise InputError(f"Unknown kind of fold {', '.join(unknown)}: use some of {', '.join(FOLD_KINDS)}.")
    areas = areas.sort_values("area_id", ignore_index=True)
    points = areas.geometry.to_crs(crs or areas.estimate_utm_crs()).representative_point()
    units = pd.DataFrame(
        {
            "area_id": areas["area_id"],
            "borough": areas["district"],
            "block": _blocks(points.x.to_numpy(), points.y.to_numpy(), block_m),
            "x_m": points.x.to_numpy(),
            "y_m": points.y.to_numpy(),
        }
    )
    rng = np.random.default_rng(seed)
    dealt = rng.permutation(len(units))
    block_order = rng.permutation(np.unique(units["block"])).tolist()
    boroughs = sorted(units["borough"].unique(), reverse=True)  # the order of scikit-learn's GroupKFold among equals
    frames = []
    for kind in kinds:
        if kind == "random":
            _refuse_too_few(kind, len(units))
            fold = pd.Series(dealt % min(folds, len(units)))
        else:
            order = boroughs if kind == "borough" else block_order
            _refuse_too_few(kind, len(order))
            fold = units[kind].map(_pack(units[kind], order, folds))
        frames.append(units.assign(kind=kind, fold=fold.astype("int64")))
    return tables.FOLDS.validate(pd.concat(frames, ignore_index=True)[list(tables.FOLDS.columns)])


def iter_splits(folds: pd.DataFrame, kind: str, *, buffer_m: float = 0.0) -> Iterator[Split]:
    """The splits of one kind, fold by fold, each past the guard.

    For kind `block` the training areas nearer than `buffer_m` metres to a test area are left out (`Split.buffered`),
    because spatial autocorrelation does not end at the border of a square; the other kinds take no buffer.
    """
    chosen = folds[folds["kind"] == kind].sort_values("area_id", ignore_index=True)
    if chosen.empty:
        raise InputError(f"The folds hold no kind '{kind}', only {', '.join(sorted(folds['kind'].unique()))}.")
    buffer_m = buffer_m if kind == "block" else 0.0
    level = _KIND_LEVEL[kind]
    columns = ["area_id", "x_m", "y_m"] + ([level] if level != "area" else [])
    for fold in np.unique(chosen["fold"]):
        testing = (chosen["fold"] == fold).to_numpy()
        training = ~testing
        if buffer_m > 0:
            nearest, _ = _nearest(chosen[training], chosen[testing])
            training[np.flatnonzero(training)[nearest < buffer_m]] = False
        if not training.any():
            raise InputError(
                f"Fold {fold} of kind '{kind}' has no training areas left"
                f" with a buffer of {buffer_m:g} m: use a smaller buffer_m or larger blocks."
            )
        train, test = chosen[training], chosen[testing]
        check_split(train[columns], test[columns], level=level, buffer_m=buffer_m)
        yield Split(
            kind=kind,
            fold=int(fold),
            train=tuple(train["area_id"]),
            test=tuple(test["area_id"]),
            buffered=tuple(chosen.loc[~training & ~testing, "area_id"]),
        )


def split_images(split: Split, images: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The images of the training areas and of the test areas, past the guard.

    A capture drive crosses area borders, so training images that share a photograph, sequence or panorama with a test
    image are left out: the test side is never thinned.
    """
    train = images[images["area_id"].isin(split.train)]
    test = images[images["area_id"].isin(split.test)]
    for column in (*_COLUMNS["image"], *_COLUMNS["sequence"]):
        if column in images.columns:
            train = train[~train[column].isin(test[column].dropna())]
    check_split(train, test, level="area")
    return train, test


def inner_groups(split: Split, folds: pd.DataFrame) -> np.ndarray:
    """The group of each of `split.train`, in its order, for a nested GroupKFold (an object array of names).

    Its borough for borough folds, else its block; where the training side is a single borough, its blocks.
    """
    chosen = folds[folds["kind"] == split.kind].set_index("area_id").loc[list(split.train)]
    by_borough = split.kind == "borough" and len(chosen["borough"].unique()) > 1
    return chosen["borough" if by_borough else "block"].to_numpy(dtype=object)


def inner_split(
    split: Split, folds: pd.DataFrame, *, share: float, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training and validation areas, both from `split.train`, for early stopping and selection.

    Whole groups (`inner_groups`) move to validation, in seeded order, until their areas come nearest to `share` of the
    training areas; at least one group stays on each side. Test areas are never touched.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"share = {share}: the validation part of the training areas lies between 0 and 1.")
    areas = pd.DataFrame({"area_id": split.train, "group": inner_groups(split, folds)})
    sizes = areas["group"].value_counts().sort_index()
    if len(sizes) < 2:
        raise InputError(
            f"The training areas of fold {split.fold} ({split.kind}) lie in one block,"
            f" {sizes.index[0]}: no validation part can be held out; use a smaller block_m."
        )
    order = np.random.default_rng(seed).permutation(sizes.index.to_numpy(dtype=object))
    filled = sizes.loc[order].cumsum().to_numpy()[:-1]
    held_out = order[: int(np.argmin(np.abs(filled - share * len(areas)))) + 1]
    validating = areas["group"].isin(held_out)
    train, validation = areas[~validating], areas[validating]
    check_split(train, validation, level="area")
    return tuple(train["area_id"]), tuple(validation["area_id"])


def _refuse_shared(train: pd.DataFrame, test: pd.DataFrame, *, column: str, unit: str, level: str) -> None:
    if column != "sha256":  # a photograph that was not fetched has no hash, and trains nothing
        for side, frame in (("training", train), ("test", test)):
            if unknown := int(frame[column].isna().sum()):
                raise InputError(
                    f"{unknown} of {len(frame)} {side} rows have no {column}: fill or drop them before splitting."
                )
    counts = [frame[column].dropna().astype(str).value_counts() for frame in (train, test)]
    shared = sorted(counts[0].index.intersection(counts[1].index))
    if not shared:
        return
    offenders = ", ".join(f"{v} ({counts[0][v]} in training, {counts[1][v]} in test)" for v in shared[:3])
    raise LeakingSplit(
        f"The {level} split leaks: {len(shared)} {column} {'value is' if len(shared) == 1 else 'values are'}"
        f" on both sides: {offenders}{', ...' if len(shared) > 3 else ''}; {_REMEDY[unit]}."
    )


def _refuse_near(train: pd.DataFrame, test: pd.DataFrame, *, buffer_m: float) -> None:
    distance, neighbour = _nearest(train, test)
    near = np.flatnonzero(distance < buffer_m)
    if not len(near):
        return
    offenders = ", ".join(
        f"{train['area_id'].iloc[i]} ({distance[i]:.0f} m from test area {test['area_id'].iloc[neighbour[i]]})"
        for i in near[np.argsort(distance[near], kind="stable")][:3]
    )
    raise LeakingSplit(
        f"The split leaks across its buffer: {len(near)} training areas are nearer than {buffer_m:g} m to a test area:"
        f" {offenders}{', ...' if len(near) > 3 else ''}; leave them out, as iter_splits(buffer_m=...) does."
    )


def _nearest(train: pd.DataFrame, test: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Distance in metres from each training area to its nearest test area, and that area's position."""
    return cKDTree(test[["x_m", "y_m"]].to_numpy()).query(train[["x_m", "y_m"]].to_numpy())


def _blocks(x_m: np.ndarray, y_m: np.ndarray, block_m: float) -> list[str]:
    """Names of the squares of a grid fixed to the projection's origin, so that adding an area moves no border."""
    column, row = (np.floor(v / block_m).astype(int) for v in (x_m, y_m))
    return [f"b{c:03d}_{r:03d}" for c, r in zip(column - column.min(), row - row.min(), strict=True)]


def _pack(units: pd.Series, order: Sequence[str], folds: int) -> dict[str, int]:
    """Whole units into folds, largest first into the emptiest fold; `order` decides among equals."""
    sizes = units.value_counts()
    filled = [0] * min(folds, len(order))
    fold_of = {}
    for unit in sorted(order, key=lambda name: -sizes[name]):
        fold_of[unit] = filled.index(min(filled))
        filled[fold_of[unit]] += int(sizes[unit])
    return fold_of


def _refuse_too_few(kind: str, units: int) -> None:
    if units < 2:
        noun, remedy = {
            "random": ("area", "add areas"),
            "borough": ("borough", "add districts to the city, or leave 'borough' out of the kinds"),
            "block": ("block", "use a smaller block_m"),
        }[kind]
        raise InputError(f"Folds of kind '{kind}' need at least two {noun}s and there is {units}: {remedy}.")
