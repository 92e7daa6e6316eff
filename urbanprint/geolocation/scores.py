"""How far guesses of places are off, how often the cell is right, how sure that is, and which model is better.

What belongs here: measures of guesses, their intervals, and paired differences. Images of one sequence or one block
resemble each other, so intervals resample whole groups, as `evaluation.scores` does, whose bootstrap this is.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pandera.pandas as pa
from numpy.typing import ArrayLike

from urbanprint.errors import InputError
from urbanprint.evaluation.bootstrap import draw_sums as _sums
from urbanprint.evaluation.bootstrap import group_draws as _draws
from urbanprint.evaluation.bootstrap import interval as _interval
from urbanprint.evaluation.bootstrap import ratio as _ratio
from urbanprint.geolocation.sphere import haversine_km

WITHIN_KM = (1, 25, 200, 750, 2500)
"""Street, city, region, country, continent: the distances of IM2GPS and all that followed."""

GEOSCORE_MOST = 5000.0
GEOSCORE_KM = 1492.7
"""Points of a perfect guess, and km at which they have fallen to 1 / e (Astruc et al. 2024, OpenStreetView-5M)."""

DENSITY_PARTS = 4
"""Images are told apart by quarters of the density of images around them."""

_STRATA = ("all", "continent", "density")
_RANK = r"rank_L\d+"
_KEYS = {"by": pa.Column(str, pa.Check.isin(_STRATA)), "stratum": pa.Column(str, pa.Check.str_length(min_value=1))}
_VALUES = {
    "measure": pa.Column(str, pa.Check.str_matches(r"^(within_\d+_km|mean_km|median_km|geoscore|top_\d+_L\d+)$")),
    "value": pa.Column(float, nullable=True),
    "low": pa.Column(float, nullable=True),
    "high": pa.Column(float, nullable=True),
    "images": pa.Column(int, pa.Check.ge(1)),
    "groups": pa.Column(int, pa.Check.ge(1)),
}
_MODEL = pa.Column(str, pa.Check.str_length(min_value=1))

GUESSES = pa.DataFrameSchema(
    {
        "image_id": pa.Column(str, pa.Check.str_length(min_value=1)),
        "model": _MODEL,
        "group": pa.Column(str, pa.Check.str_length(min_value=1)),
        **{
            name: pa.Column(float, pa.Check.in_range(-most, most))
            for most, names in (
                (180.0, ("longitude", "guess_longitude")),
                (90.0, ("latitude", "guess_latitude")),
            )
            for name in names
        },
        "continent": pa.Column(str, nullable=True, required=False),
        "density": pa.Column(float, nullable=True, required=False),
        _RANK: pa.Column(float, pa.Check.ge(1), nullable=True, required=False, regex=True),
    },
    unique=["image_id", "model"],
    strict=True,
    name="guesses",
)
"""A row a test image and model: where it is and where the model says, in degrees. `group` is the sequence or block that
is resampled as a whole; `density` any measure of how many training images are near; `rank_L<level>` what `rank_of`
says of the true cell, missing for a model that ranks no cells of the level."""

GEOLOCATION_SCORES = pa.DataFrameSchema(
    {"model": _MODEL, **_KEYS, **_VALUES},
    unique=["model", "by", "stratum", "measure"],
    strict=True,
    name="geolocation_scores",
)
"""Scores with group-bootstrap 95 % intervals: of all images, by continent, and by quarter of image density."""

GEOLOCATION_DIFFERENCES = pa.DataFrameSchema(
    {"model_a": _MODEL, "model_b": _MODEL, **_KEYS, **_VALUES},
    unique=["model_a", "model_b", "by", "stratum", "measure"],
    strict=True,
    name="geolocation_differences",
)
"""Measure of model_a minus that of model_b on the images both guess, with paired 95 % intervals."""


def geoscore(km: ArrayLike) -> np.ndarray:
    """Points of a guess `km` off: 5000 exp(-km / 1492.7)."""
    return GEOSCORE_MOST * np.exp(-np.asarray(km) / GEOSCORE_KM)


def rank_of(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rank (n,) of the true class (n,) in (n, classes), 1 = likeliest; infinite for the label -1, in no class.

    Ties count against the model: one that cannot tell k classes apart has rank k, not 1.
    """
    true = log_probabilities[np.arange(len(labels)), labels]
    return np.where(labels >= 0, (log_probabilities >= true[:, None]).sum(axis=1), np.inf)


def score(guesses: pd.DataFrame, *, top: Sequence[int] = (1, 5), repeats: int = 1000, seed: int) -> pd.DataFrame:
    """Every measure of every model, of all images and of each stratum (`GEOLOCATION_SCORES`), from `GUESSES`.

    - `within_<d>_km`: share of guesses at most d km off, great circles on a sphere (`sphere.haversine_km`);
    - `mean_km`, `median_km`; the median of an even number is the mean of the two in the middle;
    - `geoscore`: mean of 5000 exp(-km / 1492.7);
    - `top_<k>_L<level>`: share of images whose true cell is among the k likeliest of the level; an image in a cell that
      is no class counts as wrong. Models that rank no cells have no such rows.

    Strata are the continents and quarters of `density` (of images, the same for all models), where those columns are
    there; images that lack one are in no stratum of it. `low`, `high`: 2.5 and 97.5 % percentiles over `repeats` draws
    of whole groups, missing where there is one group. The draws take 8 bytes a group and repeat: 160 MB for 20,000.
    """
    rows = []
    for model, part in _prepared(guesses).groupby("model", sort=False):
        for by, stratum, images in _strata(part):
            unit, weights = _draws(images["group"], repeats=repeats, seed=seed)
            counts = (len(images), weights.shape[1])
            for measure, values in _measures(images, unit, weights, top).items():
                rows.append((model, by, stratum, measure, *_interval(values), *counts))
    return GEOLOCATION_SCORES.validate(pd.DataFrame(rows, columns=list(GEOLOCATION_SCORES.columns)))


def difference(
    guesses: pd.DataFrame, model_a: str, model_b: str, *, top: Sequence[int] = (1, 5), repeats: int = 1000, seed: int
) -> pd.DataFrame:
    """Each measure of model_a minus that of model_b, on the images both guess (`GEOLOCATION_DIFFERENCES`).

    Both see the same draws of groups, so what they share cancels out. Measures and strata as in `score`.
    """
    prepared = _prepared(guesses)
    for model in (model_a, model_b):
        if model not in set(prepared["model"]):
            raise InputError(f"There are no guesses of '{model}', only of {', '.join(sorted(set(prepared['model'])))}.")
    a, b = (prepared[prepared["model"] == model] for model in (model_a, model_b))
    a, b = a[a["image_id"].isin(b["image_id"])], b[b["image_id"].isin(a["image_id"])]
    if a.empty:
        raise InputError(f"'{model_a}' and '{model_b}' guess no image in common: score them on the same images.")
    rows = []
    for (by, stratum, images), (_, _, others) in zip(_strata(a), _strata(b), strict=True):
        unit, weights = _draws(images["group"], repeats=repeats, seed=seed)
        of_a, of_b = (_measures(part, unit, weights, top) for part in (images, others))
        counts = (len(images), weights.shape[1])
        rows += [
            (model_a, model_b, by, stratum, measure, *_interval(of_a[measure] - of_b[measure]), *counts)
            for measure in of_a
            if measure in of_b
        ]
    return GEOLOCATION_DIFFERENCES.validate(pd.DataFrame(rows, columns=list(GEOLOCATION_DIFFERENCES.columns)))


def _prepared(guesses: pd.DataFrame) -> pd.DataFrame:
    """The guesses sorted by image, `km` off, `density` as the name of its quarter. Raises `InputError`."""
    table = GUESSES.validate(guesses).sort_values("image_id", ignore_index=True)
    facts = [name for name in ("group", "longitude", "latitude", "continent", "density") if name in table]
    images = table[["image_id", *facts]].drop_duplicates()
    if (twice := images["image_id"].duplicated()).any():
        raise InputError(
            f"Image {images.loc[twice, 'image_id'].iloc[0]} has different {', '.join(facts)} in different rows: what is"
            " known of an image is the same for every model."
        )
    position = table[["longitude", "latitude", "guess_longitude", "guess_latitude"]].to_numpy()
    table["km"] = haversine_km(*position.T)
    if "density" in table:
        part = pd.qcut(images["density"], DENSITY_PARTS, labels=False, duplicates="drop")
        names = part.map(lambda number: f"{number + 1:.0f} of {DENSITY_PARTS}", na_action="ignore")
        table["density"] = table["image_id"].map(dict(zip(images["image_id"], names, strict=True)))
    return table


def _strata(images: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    yield "all", "all", images
    for by in _STRATA[1:]:
        if by in images:
            for stratum, part in images.groupby(by):
                yield by, str(stratum), part


def _measures(images: pd.DataFrame, unit: np.ndarray, weights: np.ndarray, top: Sequence[int]) -> dict[str, np.ndarray]:
    """Each measure of each draw: (draws,)."""
    km = images["km"].to_numpy()
    terms = {f"within_{limit}_km": km <= limit for limit in WITHIN_KM}
    terms |= {"mean_km": km, "geoscore": geoscore(km)}
    for column in map(str, images.filter(regex=_RANK)):
        ranks = images[column].to_numpy()
        if (missing := np.isnan(ranks)).all():
            continue
        if missing.any():
            row = images[missing].iloc[0]
            raise InputError(
                f"{column} of image {row['image_id']} is missing for '{row['model']}', which ranks others: a true cell"
                " that is no class has rank infinity."
            )
        terms |= {f"top_{k}_{column.removeprefix('rank_')}": ranks <= k for k in top}
    sums = _sums(np.stack([np.ones(len(km)), *terms.values()], axis=1).astype(float), unit, weights)
    means = {name: _ratio(column, sums[:, 0]) for name, column in zip(terms, sums.T[1:], strict=True)}
    return means | {"median_km": _median(km, unit, weights)}


def _median(values: np.ndarray, unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of each draw (draws,), in parts of at most 4 million numbers."""
    order = np.argsort(values, kind="stable")
    values, unit = values[order], unit[order]
    found = []
    for part in np.array_split(weights, 1 + weights.shape[0] * len(values) // 4_000_000):
        drawn = part[:, unit].cumsum(axis=1)
        size = drawn[:, -1:]
        low, high = ((drawn <= middle).sum(axis=1) for middle in ((size - 1) // 2, size // 2))
        found.append((values[low] + values[high]) / 2)
    return np.concatenate(found)
