"""Figures of where photographs were taken as PNG bytes, in the style of `figures`: scores, calibration, maps.

Each function takes a plain table of one world. What a whole page of them says is in `geolocation_report`.
"""

from collections.abc import Iterable, Mapping

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullLocator

from urbanprint import grid
from urbanprint.errors import InputError
from urbanprint.geolocation.scores import WITHIN_KM
from urbanprint.geolocation.sphere import haversine_km
from urbanprint.maps.figures import _colour_bar, training_curves
from urbanprint.maps.style import (
    BASELINE,
    CEILING,
    INK,
    MINUS,
    MISSING,
    MUTED,
    PAPER,
    PICTURES,
    WIDTH,
    Estimate,
    drawn,
    new_figure,
    number_text,
)

MODELS: dict[str, str] = {
    "joint": "Joint network",
    "levels": "One network a level",
    "old-fusion": "One network a level, old fusion",
    "nearest-neighbour": "Nearest neighbour in features, no training",
    "prior": "Prior only",
}
"""Identifier -> name for people, in the order in which tables and charts show them; any other comes behind."""

OURS = ("joint", "levels")
"""The designs of this project, in blue; all others are what they are compared with, in grey."""

MOST_CLASSES = 16
"""A confusion matrix of more classes cannot be read on a phone."""

_PLACES = dict(zip(WITHIN_KM, ("street", "city", "region", "country", "continent"), strict=True))
_FARTHEST_KM = 20_000  # half way round the Earth
_LINES = {
    "joint": (PICTURES, "-"),
    "levels": ("#4d9fd1", (0, (5, 1.5))),
    "old-fusion": (INK, (0, (1.5, 1.2))),
    "nearest-neighbour": (BASELINE, "-"),
    "prior": ("#aab4bd", "-"),
}
_OTHER = (BASELINE, (0, (4, 1, 1, 1)))
# Lightness rises with the error, so the order survives greyscale and every colour vision (matplotlib's viridis).
_ERROR_COLOURS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
_LAND, _EDGE = "#dde2e6", "#4c5661"
_SHADES = LinearSegmentedColormap.from_list("shades", ["#f6f8fa", "#7fb7d6", PICTURES, "#06263d"])
_PERCENT = FuncFormatter(lambda share, _: f"{100 * share:g} %")
_WHOLE = FuncFormatter(lambda value, _: f"{value:,.0f}")
_QUARTERS = {"1 of 4": "fewest images nearby", "4 of 4": "most images nearby"}


def model_order(models: Iterable[str]) -> list[str]:
    """The models in the order of `MODELS`, those it does not know behind."""
    there = set(models)
    return [*(model for model in MODELS if model in there), *sorted(there - set(MODELS))]


def measure_name(measure: str) -> str:
    """The name for people of a measure of `geolocation.scores`, such as `within_200_km` or `top_1_L5`."""
    match measure.split("_"):
        case ["within", km, "km"]:
            return f"Within {int(km):,} km"
        case ["top", "1", level]:
            return f"Right cell of {level}"
        case ["top", number, level]:
            return f"Right cell of {level} among the {number} likeliest"
        case [mean, "km"]:
            return f"{mean.capitalize()} error, km"
    return "GeoScore, 0 to 5,000"


def measure_text(measure: str, value: float) -> str:
    """A value of a measure, or of the `coverage` of sets: shares in %, points and kilometres as whole numbers."""
    if pd.isna(value):
        return "-"
    return f"{number_text(100 * value, 1)} %" if _is_share(measure) else f"{round(value):,}".replace("-", MINUS)


def estimates(scores: pd.DataFrame, *, measure: str, by: str = "all") -> dict[tuple[str, str], Estimate]:
    """(model, stratum) -> score of one measure of `GEOLOCATION_SCORES`. Raises `InputError` where there is none."""
    chosen = scores[(scores["by"] == by) & (scores["measure"] == measure)]
    if chosen.empty:
        raise InputError(f"The scores hold no row of the measure {measure!r} by {by!r}; score the guesses first.")
    columns = chosen[["model", "stratum", "value", "low", "high"]]
    return {(model, stratum): Estimate(*numbers) for model, stratum, *numbers in columns.itertuples(index=False)}


# --- scores ----------------------------------------------------------------------------------------------------------


@drawn
def within_chart(guesses: pd.DataFrame, *, ceiling: pd.DataFrame | None = None) -> Figure:
    """The share of test images located within each distance, a line a model of `scores.GUESSES`.

    `ceiling`, of `simulation.planet_ceiling.ceiling`, adds the best reachable shares as points.
    """
    _check_rows(guesses)
    km = _errors_km(guesses)
    figure, (axes,) = new_figure(4.4)
    reach = np.geomspace(WITHIN_KM[0], _FARTHEST_KM, 600)
    for model in model_order(guesses["model"]):
        off = np.sort(km[guesses["model"] == model])
        colour, line = _LINES.get(model, _OTHER)
        axes.plot(reach, np.searchsorted(off, reach, side="right") / len(off), color=colour, linestyle=line,
                  linewidth=2.2 if model in OURS else 1.7, label=MODELS.get(model, model),
                  zorder=4 if model in OURS else 3)  # fmt: skip
    best = _ceiling_scores(ceiling)
    points = {km: best[f"within_{km}_km"] for km in WITHIN_KM if f"within_{km}_km" in best}
    if points:
        axes.plot(*zip(*points.items(), strict=True), "D", color=CEILING, markersize=6, markeredgecolor=PAPER,
                  label="best reachable from these pictures", zorder=5)  # fmt: skip
    axes.set(xscale="log", xlim=(WITHIN_KM[0], _FARTHEST_KM), ylim=(0, 1))
    axes.xaxis.set_minor_locator(NullLocator())
    names = [f"{km:,} km\n{place}" for km, place in _PLACES.items()]
    axes.set_xticks([*WITHIN_KM, _FARTHEST_KM], [*names, f"{_FARTHEST_KM:,} km"], fontsize=8.5)
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.spines["left"].set_visible(False)
    axes.set_title(f"{guesses['image_id'].nunique():,} test images: how many are located within a distance")
    figure.legend(loc="outside lower left", ncols=2, columnspacing=1.4, handlelength=2.6)
    return figure


@drawn
def score_chart(scores: pd.DataFrame, *, measure: str, title: str, ceiling: pd.DataFrame | None = None) -> Figure:
    """One measure of each model over all test images (`GEOLOCATION_SCORES`) with its 95 % interval.

    The best reachable value, where `ceiling` has the measure, is a dashed line. Raises `InputError` where the scores
    hold nothing of the measure.
    """
    found = estimates(scores, measure=measure)
    models = model_order(model for model, _ in found)[::-1]
    figure, (axes,) = new_figure(0.27 * len(models) + 1.05)
    for y, model in enumerate(models):
        _dot(axes, y, found[model, "all"], measure, _colour(model))
    best = _ceiling_scores(ceiling).get(measure)
    if best is not None:
        axes.axvline(best, color=CEILING, linewidth=1.4, linestyle=(0, (4, 2)), zorder=1)
        label = f"best reachable from these pictures: {measure_text(measure, best)}"
        line = Line2D([], [], color=CEILING, linewidth=1.4, linestyle=(0, (4, 2)), label=label)
        figure.legend(handles=[line], loc="outside lower left")
    axes.set_yticks(range(len(models)), [MODELS.get(model, model) for model in models], fontsize=8.5)
    axes.set_ylim(-0.6, len(models) - 0.4)
    _score_axis(axes, measure, [*found.values(), Estimate(best or 0.0)])
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


@drawn
def stratum_chart(scores: pd.DataFrame, *, measure: str, by: str, title: str) -> Figure:
    """One measure in each continent or quarter of image density: our models beside the best they are compared with.

    The best is that of all images together. Raises `InputError` where the scores hold nothing of the measure by `by`.
    """
    found, overall = estimates(scores, measure=measure, by=by), estimates(scores, measure=measure)
    strata = sorted({stratum for _, stratum in found})
    models = [model for model in OURS if (model, "all") in overall]
    rivals = {model: score.value for (model, _), score in overall.items() if model not in OURS}
    if rivals:
        better = min if measure in ("mean_km", "median_km") else max
        models.append(better(rivals, key=lambda model: rivals[model]))
    images = scores[scores["by"] == by].groupby("stratum")["images"].max()
    figure, (axes,) = new_figure((0.2 * len(models) + 0.16) * len(strata) + 1.15)
    for y, stratum in enumerate(reversed(strata)):
        for place, model in enumerate(models):
            if (model, stratum) in found:
                beside = 0.27 * ((len(models) - 1) / 2 - place)
                _dot(axes, y + beside, found[model, stratum], measure, _colour(model))
    names = [f"{_QUARTERS.get(name, name)}\n{images[name]:,} test images" for name in reversed(strata)]
    axes.set_yticks(range(len(strata)), names, fontsize=8.5)
    axes.set_ylim(-0.55, len(strata) - 0.45)
    axes.hlines(np.arange(1, len(strata)) - 0.5, 0, 1, transform=axes.get_yaxis_transform(), color=MISSING, linewidth=1)
    _score_axis(axes, measure, list(found.values()))
    handles = [
        Line2D([], [], color=_colour(model), marker="o", linewidth=2, label=MODELS.get(model, model))
        for model in models
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, columnspacing=1.4)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


# --- how sure --------------------------------------------------------------------------------------------------------


@drawn
def reliability_chart(tables: Mapping[str, pd.DataFrame], *, title: str) -> Figure:
    """How often images of about equal confidence are right, before and after scaling, with the calibration error.

    `tables` maps "before" and "after", or one of them, to `calibration.reliability`; the mean gap of its bins, weighted
    by their images, is the expected calibration error.
    """
    looks = {"before": (BASELINE, "s", "before scaling"), "after": (PICTURES, "o", "after scaling")}
    shown = {name: tables[name] for name in looks if name in tables}
    if not shown:
        raise InputError(
            f"There is no reliability 'before' or 'after' scaling, only {sorted(tables)}; measure it first."
        )
    figure, (axes,) = new_figure(0.86 * WIDTH)
    highest = max(float(table[["confidence", "accuracy"]].to_numpy().max()) for table in shown.values())
    highest = min(1.06 * highest, 1.0)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="as sure as right", zorder=2)
    for name, table in shown.items():
        colour, marker, label = looks[name]
        gap = (table["accuracy"] - table["confidence"]).abs()
        error = 100 * float(np.average(gap, weights=table["images"]))
        axes.plot(table["confidence"], table["accuracy"], marker=marker, color=colour, linewidth=1.6, markersize=5,
                  markeredgecolor=PAPER, markeredgewidth=0.6, label=f"{label}, off by {error:.1f} points on average",
                  zorder=3, clip_on=False)  # fmt: skip
    axes.set(xlim=(0, highest), ylim=(0, highest), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_PERCENT)
    axes.set_xlabel("confidence: probability of the likeliest cell")
    axes.set_ylabel("accuracy: share that is right")
    axes.set_title(title)
    figure.legend(loc="outside lower left")
    return figure


@drawn
def confusion_chart(true: np.ndarray, predicted: np.ndarray, *, title: str) -> Figure:
    """Which cell the images of each cell are taken for: each row is the images of one true cell and adds up to 1.

    `true` and `predicted` (n,) are names. Up to half of `MOST_CLASSES` classes the squares hold the numbers of images.
    Raises `InputError` for more than `MOST_CLASSES`.
    """
    names, (row, column) = np.unique(np.stack([true, predicted]).astype(str), return_inverse=True)
    if not 0 < len(names) <= MOST_CLASSES:
        raise InputError(f"There are {len(names)} classes; 1 to {MOST_CLASSES} can be shown: choose a coarser level.")
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (row, column), 1)
    images = counts.sum(axis=1)
    shares = counts / np.where(images > 0, images, np.nan)[:, None]
    figure, (axes,) = new_figure(0.9 * WIDTH)
    axes.imshow(shares, cmap=_SHADES, vmin=0, vmax=1)
    if 2 * len(names) <= MOST_CLASSES:
        for place, share in np.ndenumerate(shares):
            axes.annotate(f"{counts[place]:,}", place[::-1], ha="center", va="center", fontsize=8.5,
                          color=PAPER if share > 0.5 else INK)  # fmt: skip
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 8 else 0, fontsize=8.5)
    axes.set_yticks(
        range(len(names)), [f"{name}  ({count:,})" for name, count in zip(names, images, strict=True)], fontsize=8.5
    )
    axes.set_xlabel("cell said to be the likeliest")
    axes.set_ylabel("true cell (images)")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    _colour_bar(figure, axes, ScalarMappable(Normalize(0, 1), _SHADES), ("share of the images of the true cell", ""))
    return figure


def curves_chart(history: pd.DataFrame) -> bytes:
    """The course of a training (`geolocation.network.CellEpoch`, a row each): losses, and the accuracy held out."""
    return training_curves(history[["epoch", "train_loss", "validation_loss", "validation_accuracy"]])


# --- maps ------------------------------------------------------------------------------------------------------------


@drawn
def error_map(guesses: pd.DataFrame, *, land: np.ndarray, title: str) -> Figure:
    """Where the test images of one model are, coloured by how far off it places them, on plain longitude and latitude.

    `guesses` is `scores.GUESSES` of one model, `land` (n,) polygons in EPSG:4326 as `land.read_land` returns them.
    Raises `InputError` for guesses of several models.
    """
    _check_rows(guesses)
    if len(models := model_order(guesses["model"])) > 1:
        raise InputError(f"The guesses are of several models ({', '.join(models)}); a map shows the errors of one.")
    ordered = guesses.sort_values("image_id")  # neither the near nor the far hide the others
    number = np.searchsorted(WITHIN_KM[1:], _errors_km(ordered))
    figure, (axes,) = new_figure(0.5 * WIDTH + 0.95)
    if len(land):
        gpd.GeoSeries(shapely.simplify(land, 0.1)).plot(ax=axes, color=_LAND, aspect=None)
    size = float(np.clip(9000 / len(ordered), 4, 30))
    axes.scatter(ordered["longitude"], ordered["latitude"], s=size, c=np.array(_ERROR_COLOURS)[number], linewidths=0.3,
                 edgecolors=_EDGE, zorder=2)  # fmt: skip
    axes.set(xlim=(-180, 180), ylim=(-90, 90), aspect="equal", xticks=[], yticks=[], xlabel="", ylabel="")
    axes.spines[:].set_visible(True)
    shares = np.bincount(number, minlength=len(_ERROR_COLOURS)) / len(ordered)
    limits = [*(f"up to {km:,} km" for km in WITHIN_KM[1:]), "farther off"]
    handles = [
        Line2D([], [], color=colour, marker="o", markersize=6, markeredgecolor=_EDGE, markeredgewidth=0.3, linewidth=0,
               label=f"{limit}: {share:.0%}".replace("%", " %"))
        for colour, limit, share in zip(_ERROR_COLOURS, limits, shares, strict=True)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower left", ncols=3, columnspacing=1.2, handletextpad=0.2)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


@drawn
def cell_chart(values: np.ndarray, *, title: str) -> Figure:
    """The world with each cell shaded by its value, the highest darkest; `values` (4^level,) in the order of codes."""
    level = len(values).bit_length() // 2
    if len(values) != 4**level or not level:
        raise InputError(f"There are {len(values)} values; a level has 4, 16, 64, ... cells: pass one for each.")
    west, _, _, north = grid.boxes(grid.all_codes(level), level).T
    figure, (axes,) = new_figure(0.5 * WIDTH + 0.55)
    world = np.asarray(values, dtype=float)[np.lexsort((west, -north))].reshape(2**level, 2**level)
    axes.imshow(world, cmap=_SHADES, vmin=0, extent=(-180, 180, -90, 90), aspect="equal", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    note = f"{int((world > 0).sum()):,} of {world.size:,} cells"
    axes.annotate(note, (1, 0), (0, -4), xycoords="axes fraction", textcoords="offset points", ha="right", va="top",
                  fontsize=8.5, color=MUTED)  # fmt: skip
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


def _is_share(measure: str) -> bool:
    return measure.startswith(("within_", "top_", "coverage"))


def _check_rows(guesses: pd.DataFrame) -> None:
    if guesses.empty:
        raise InputError("The table of guesses has no row; locate the test images first.")


def _errors_km(guesses: pd.DataFrame) -> np.ndarray:
    names = ("longitude", "latitude", "guess_longitude", "guess_latitude")
    return haversine_km(*(guesses[name].to_numpy() for name in names))


def _ceiling_scores(ceiling: pd.DataFrame | None) -> dict[str, float]:
    """Measure -> what the best answers score on the same images."""
    return {} if ceiling is None else dict(zip(ceiling["measure"], ceiling["score"], strict=True))


def _colour(model: str) -> str:
    return _LINES[model][0] if model in OURS else BASELINE


def _dot(axes: Axes, y: float, score: Estimate, measure: str, colour: str) -> None:
    """A dot with its interval and its value in words."""
    if not np.isnan(score.low):
        axes.plot([score.low, score.high], [y, y], color=colour, linewidth=2, alpha=0.55, zorder=2)
    axes.plot(score.value, y, "o", color=colour, markersize=6, markeredgecolor=PAPER, markeredgewidth=0.5, zorder=4,
              clip_on=False)  # fmt: skip
    right = score.value if np.isnan(score.high) else score.high
    axes.annotate(measure_text(measure, score.value), (right, y), (6, 0), textcoords="offset points", va="center",
                  fontsize=8.5, zorder=5, path_effects=[withStroke(linewidth=2.5, foreground=PAPER)])  # fmt: skip


def _score_axis(axes: Axes, measure: str, found: list[Estimate]) -> None:
    """An axis from 0 with room for the words right of the last interval."""
    highest = float(np.nanmax([end for score in found for end in (score.value, score.high)]))
    axes.set_xlim(0, 1.14 * (highest or 1.0))
    axes.xaxis.set_major_formatter(_PERCENT if _is_share(measure) else _WHOLE)
    axes.set_xlabel(f"{measure_name(measure)}, with 95 % interval")
    axes.grid(axis="y", visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
