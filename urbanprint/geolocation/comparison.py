"""All answers side by side: guesses of both designs, of the old fusion, of baselines, for the same test images.

What belongs here: from fitted systems and tables of images to the tables that are scored (`scores.GUESSES`) and to what
their probabilities and sets are worth. Nothing is trained here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pandera.pandas as pa
from scipy.spatial import KDTree
from scipy.special import log_softmax

from urbanprint.errors import InputError
from urbanprint.evaluation.bootstrap import draw_sums, group_draws, interval, ratio
from urbanprint.evaluation.calibration import (
    RELIABILITY_COLUMNS,
    expected_calibration_error,
    fit_temperature,
    reliability,
    top_confidence,
)
from urbanprint.geolocation.baselines import geometric_median, nearest_neighbour, prior
from urbanprint.geolocation.datasets import class_ids, class_labels, level_position, true_labels
from urbanprint.geolocation.geolocator import Geolocator
from urbanprint.geolocation.hierarchy import Hierarchy
from urbanprint.geolocation.network import CellClassifier
from urbanprint.geolocation.position import Circles
from urbanprint.geolocation.prediction_sets import fit_thresholds, prediction_sets
from urbanprint.geolocation.probabilities import conditional
from urbanprint.geolocation.scores import GUESSES, rank_of
from urbanprint.grid import LEVELS, encode, to_ids
from urbanprint.imagery.decoding import decode_batches
from urbanprint.imagery.quality import geocentric

NEAR_KM = 25.0
"""Training images no farther away than this make the density around a test image."""

BLOCK_LEVEL = LEVELS[-1]
"""Images of one cell of this level are drawn together: they show one town."""

SET_COVERAGE = pa.DataFrameSchema(
    {
        "model": pa.Column(str, pa.Check.str_length(min_value=1)),
        "level": pa.Column(int, pa.Check.ge(1)),
        "promised": pa.Column(bool),
        "coverage": pa.Column(float, pa.Check.in_range(0.0, 1.0)),
        "low": pa.Column(float, nullable=True),
        "high": pa.Column(float, nullable=True),
        "mean_size": pa.Column(float, pa.Check.ge(1)),
        "images": pa.Column(int, pa.Check.ge(1)),
    },
    unique=["model", "level"],
    strict=True,
    name="set_coverage",
)
"""How often prediction sets hold the true cell, with a 95 % interval, and how many cells they hold; `promised`: enough
calibration images lie in classes of the level for a set that is not every cell."""


def read_regions(path: Path) -> gpd.GeoDataFrame:
    """The polygons of a file that names the continent of each: columns continent, geometry (EPSG:4326).

    Raises `InputError` where no column is called continent, in capitals or not.
    """
    frame = gpd.read_file(path).to_crs(4326)
    named = {str(column).lower(): column for column in frame.columns}
    if "continent" not in named:
        raise InputError(
            f"{path.name} has no column of continents: use a file such as Natural Earth's admin_0_countries."
        )
    return frame.rename(columns={named["continent"]: "continent"})[["continent", "geometry"]]


def facts_of(test: pd.DataFrame, training: pd.DataFrame, *, regions: gpd.GeoDataFrame | None = None) -> pd.DataFrame:
    """What is known of the test images, as `GUESSES` has it: group, position, density, continent where `regions` are.

    `group` is the cell of `BLOCK_LEVEL`, `density` the number of training images within `NEAR_KM`, the continent that
    of the nearest region.
    """
    known = KDTree(geocentric(training["longitude"].to_numpy(), training["latitude"].to_numpy()))
    places = geocentric(test["longitude"].to_numpy(), test["latitude"].to_numpy())
    facts = test[["image_id", "longitude", "latitude"]].assign(
        group=to_ids(encode(test["longitude"], test["latitude"], BLOCK_LEVEL), BLOCK_LEVEL),
        density=known.query_ball_point(places, 1000 * NEAR_KM, return_length=True).astype(float),
    )
    if regions is not None:
        points = gpd.GeoSeries.from_xy(test["longitude"], test["latitude"], crs=4326)
        row, nearest = regions.sindex.nearest(points.to_numpy(), return_all=False)
        facts["continent"] = pd.Series(regions["continent"].to_numpy()[nearest[np.argsort(row)]], index=facts.index)
        facts = facts.astype({"continent": "str"})
    return facts.astype({"group": "str"})


def system_guesses(
    name: str, geolocator: Geolocator, level_logits: Sequence[np.ndarray], facts: pd.DataFrame, labels: np.ndarray
) -> pd.DataFrame:
    """The guesses of a fitted system; `labels` (n, levels) are `true_labels` of the images in `facts`."""
    log_p = geolocator.log_probabilities(level_logits)
    ranks = {
        f"rank_L{level}": rank_of(values, true)
        for level, values, true in zip(geolocator.hierarchy.numbers, log_p, labels.T, strict=True)
    }
    return _guesses(name, facts, geolocator.positions(log_p), ranks)


def fused_guesses(
    name: str, geolocator: Geolocator, level_logits: Sequence[np.ndarray], facts: pd.DataFrame, labels: np.ndarray
) -> pd.DataFrame:
    """The guesses of one classifier a level under the old fusion, which ranks cells of the finest level only."""
    finest = geolocator.hierarchy.numbers[-1]
    ranks = {f"rank_L{finest}": rank_of(geolocator.fused_scores(level_logits), labels[:, -1])}
    return _guesses(name, facts, geolocator.fused_positions(level_logits), ranks)


def nearest_guesses(
    name: str,
    features: Sequence[np.ndarray],
    facts: pd.DataFrame,
    training: pd.DataFrame,
    hierarchy: Hierarchy,
    labels: np.ndarray,
) -> pd.DataFrame:
    """The position of the training image with the most similar features; `features` are of training and test images.

    Its cell is ranked first, all others alike behind it.
    """
    nearest, _ = nearest_neighbour(features[0], features[1])
    found = training.iloc[nearest]
    cells = true_labels(hierarchy, found)
    ranks = {
        f"rank_L{level}": np.where((own == true) & (true >= 0), 1.0, np.inf)
        for level, own, true in zip(hierarchy.numbers, cells.T, labels.T, strict=True)
    }
    zero = np.zeros(len(found))
    at = Circles(longitude=found["longitude"].to_numpy(), latitude=found["latitude"].to_numpy(), radius_km=zero)
    return _guesses(name, facts, at, ranks)


def prior_guesses(
    name: str, facts: pd.DataFrame, training: pd.DataFrame, hierarchy: Hierarchy, labels: np.ndarray
) -> pd.DataFrame:
    """The geometric median of the training images for every test image; cells ranked by how many train them."""
    longitude, latitude = geometric_median(training["longitude"].to_numpy(), training["latitude"].to_numpy())
    trained = class_labels(hierarchy, training)
    ranks = {}
    for level, own, true in zip(hierarchy.levels, trained.T, labels.T, strict=True):
        share = prior(own, len(level))
        ranks[f"rank_L{level.number}"] = rank_of(np.broadcast_to(share, (len(true), len(share))), true)
    many = np.ones(len(facts))
    at = Circles(longitude=longitude * many, latitude=latitude * many, radius_km=0 * many)
    return _guesses(name, facts, at, ranks)


def set_coverage(
    name: str,
    geolocator: Geolocator,
    level_logits: Sequence[np.ndarray],
    facts: pd.DataFrame,
    labels: np.ndarray,
    *,
    repeats: int = 1000,
    seed: int,
) -> pd.DataFrame:
    """How often the sets of a system hold the true cell at each level it tells (`SET_COVERAGE`)."""
    log_p = geolocator.log_probabilities(level_logits)
    sets = prediction_sets(log_p, geolocator.thresholds, geolocator.hierarchy, finest=geolocator.finest)
    unit, weights = group_draws(facts["group"], repeats=repeats, seed=seed)
    rows = []
    for level, held, threshold, true in zip(
        geolocator.hierarchy.levels, sets, geolocator.thresholds, labels.T, strict=False
    ):
        covered = np.where(true >= 0, held[np.arange(len(true)), true], False)
        drawn = draw_sums(np.stack([covered, np.ones(len(true))], axis=1).astype(float), unit, weights)
        size = float(held.sum(axis=1).mean())
        rows.append((name, level.number, bool(np.isfinite(threshold)), *interval(ratio(*drawn.T)), size, len(true)))
    return SET_COVERAGE.validate(pd.DataFrame(rows, columns=list(SET_COVERAGE.columns)))


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelCalibration:
    """How well one classifier is calibrated on test images.

    `reliability` and `errors` (`calibration.expected_calibration_error`) are named "before" and "after" scaling by
    `temperature`. `true` and `predicted` (n,) are cell ids, of the test images that lie in a class; `accuracy` is of
    all.
    """

    temperature: float
    reliability: dict[str, pd.DataFrame]
    errors: dict[str, float]
    true: np.ndarray
    predicted: np.ndarray
    accuracy: float


def level_calibration(classifier: CellClassifier, calibration: pd.DataFrame, test: pd.DataFrame) -> LevelCalibration:
    """Fit the temperature of a classifier's softmax on images of the calibration part and judge it on test images.

    Both hold longitude, latitude and path. Raises `MissingImages` where no calibration image has a class.
    """
    number = level_position(classifier.hierarchy, classifier.level)
    logits = {name: _logits(classifier, part) for name, part in (("calibration", calibration), ("test", test))}
    fitted = class_labels(classifier.hierarchy, calibration)[:, number]
    labels = true_labels(classifier.hierarchy, test)[:, number]
    temperature = fit_temperature(logits["calibration"], fitted)
    tables, errors = {}, {}
    for name, divisor in (("before", 1.0), ("after", temperature)):
        confidence, correct = top_confidence(log_softmax(logits["test"] / divisor, axis=1), labels)
        tables[name] = reliability(confidence, correct)
        errors[name] = expected_calibration_error(confidence, correct)
    ids, known = class_ids(classifier.classes), labels >= 0
    best = logits["test"].argmax(axis=1)
    return LevelCalibration(
        temperature=temperature,
        reliability=tables,
        errors=errors,
        true=ids[labels[known]],
        predicted=ids[best[known]],
        accuracy=float((best == labels).mean()),
    )


def redealt_coverage(
    geolocator: Geolocator,
    level_logits: Sequence[np.ndarray],
    facts: pd.DataFrame,
    labels: np.ndarray,
    *,
    deals: int = 60,
    seed: int,
) -> np.ndarray:
    """Coverage of sets whose thresholds come from half of the test blocks, measured on the others: (deals, levels).

    Coverage is promised over all divisions into images that fit and images that test; that of a single one scatters by
    2 to 3 % where there are 270 blocks. The mean over divisions tells whether the promise is kept.
    """
    log_p = geolocator.log_probabilities(level_logits)
    rng, groups = np.random.default_rng(seed), facts["group"].to_numpy()
    names = np.unique(groups)
    found = []
    for _ in range(deals):
        fitting = np.isin(groups, rng.permutation(names)[: len(names) // 2])
        parts = [[values[rows] for values in log_p] for rows in (fitting, ~fitting)]
        thresholds = fit_thresholds(parts[0], labels[fitting], geolocator.hierarchy, coverage=geolocator.coverage)
        sets = prediction_sets(parts[1], thresholds, geolocator.hierarchy)
        true = labels[~fitting]
        rows = np.arange(len(true))
        found.append(
            [np.where(own >= 0, held[rows, own], False).mean() for held, own in zip(sets, true.T, strict=True)]
        )
    return np.array(found)


def confused(
    geolocator: Geolocator, level_logits: Sequence[np.ndarray], labels: np.ndarray, *, most: int
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """True and likeliest cell, by id, of the images that lie in a class, at each level of at most `most` classes."""
    found = {}
    log_p = geolocator.log_probabilities(level_logits)
    for level, values, true in zip(geolocator.hierarchy.levels, log_p, labels.T, strict=True):
        if len(level) <= most:
            ids, known = class_ids(level), true >= 0
            found[level.number] = ids[true[known]], ids[values[known].argmax(axis=1)]
    return found


CALIBRATION_COLUMNS = ("model", "level", "scaling", *RELIABILITY_COLUMNS)


def system_calibration(
    name: str, geolocator: Geolocator, level_logits: Sequence[np.ndarray], labels: np.ndarray
) -> pd.DataFrame:
    """`calibration.reliability` of a system at each level, `scaling` "before" and "after" its temperatures."""
    rows = []
    scaled = {
        "before": conditional(level_logits, geolocator.hierarchy),
        "after": geolocator.log_probabilities(level_logits),
    }
    for scaling, found in scaled.items():
        for level, log_p, true in zip(geolocator.hierarchy.numbers, found, labels.T, strict=True):
            table = reliability(*top_confidence(log_p, true))
            rows.append(table.assign(model=name, level=level, scaling=scaling))
    return pd.concat(rows, ignore_index=True)[list(CALIBRATION_COLUMNS)]


def calibration_errors(calibration: pd.DataFrame, *, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Expected calibration error of each system and level, from `CALIBRATION_COLUMNS`: model, level, before, after.

    `chance` is what 95 of 100 systems stay below whose probabilities are right: with few images in a bin, some gap
    between how sure they are and how often they happen to be right is always left.
    """
    gap = (calibration["accuracy"] - calibration["confidence"]).abs() * calibration["images"]
    table = calibration.assign(gap=gap).pivot_table(
        index=["model", "level"], columns="scaling", values=["gap", "images"], aggfunc="sum"
    )
    errors = pd.DataFrame({name: table["gap", name] / table["images", name] for name in ("before", "after")})
    rng = np.random.default_rng(seed)
    scaled = calibration[calibration["scaling"] == "after"].groupby(["model", "level"])
    errors["chance"] = pd.Series({key: _by_chance(bins, draws, rng) for key, bins in scaled})
    return errors.reset_index()


def _by_chance(bins: pd.DataFrame, draws: int, rng: np.random.Generator) -> float:
    """The 95 % quantile of the calibration error of probabilities that are right, with as many images in the bins."""
    images, confidence = bins["images"].to_numpy(), bins["confidence"].to_numpy().clip(0.0, 1.0)
    right = rng.binomial(images, confidence, size=(draws, len(bins)))
    return float(np.quantile(np.abs(right - images * confidence).sum(axis=1) / images.sum(), 0.95))


def _logits(classifier: CellClassifier, images: pd.DataFrame) -> np.ndarray:
    config = classifier.config
    batches = decode_batches(
        [Path(path) for path in images["path"]], size=config.size, batch=config.batch, threads=config.workers
    )
    return np.concatenate([classifier.logits(pixels) for pixels in batches])


def _guesses(name: str, facts: pd.DataFrame, at: Circles, ranks: dict[str, np.ndarray]) -> pd.DataFrame:
    made = facts.assign(model=name, guess_longitude=at.longitude, guess_latitude=at.latitude, **ranks)
    return GUESSES.validate(made)
