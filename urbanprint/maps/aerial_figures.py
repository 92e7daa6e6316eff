"""Figures of a conurbation seen from above as PNG bytes, in the style of `figures`: scores, calibration, transfer.

What the network looks at is drawn in `attention_figures`; what a whole page of both says is in `aerial_report`.
"""

from collections.abc import Mapping
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from urbanprint.errors import InputError
from urbanprint.maps.figures import _colour_bar, _interval
from urbanprint.maps.livelihood_figures import _scale_bar
from urbanprint.maps.style import (
    BASELINE,
    BASELINES,
    CEILING,
    DECILE_COLOURS,
    INK,
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
    **BASELINES,
    "regression": "Network, regression head",
    "cumulative": "Network, cumulative head",
    "binomial": "Network, binomial head",
}
"""Identifier -> name for people, in the order in which tables and charts show them; any other comes behind."""

OTHERS = "all others"
"""In the column trained_on of a transfer table: every conurbation but the one tested on."""

_SHADES = LinearSegmentedColormap.from_list("shades", ["#f6f8fa", "#7fb7d6", PICTURES, "#06263d"])
_INCOME = LinearSegmentedColormap.from_list("income", DECILE_COLOURS)  # dark is poor, as in the deprivation maps
_UNKNOWN = "#b9c1c9"
_FEW_ENOUGH = 6  # conurbations whose intervals can still be read on a phone


def model_order(models: pd.Series) -> list[str]:
    """The models in the order of `MODELS`, those it does not know behind."""
    there = set(models)
    return [*(model for model in MODELS if model in there), *sorted(there - set(MODELS))]


def class_names(classes: int) -> list[str]:
    """Income classes as people count them: "1 (poorest)" to "5 (richest)"."""
    return ["1 (poorest)", *map(str, range(2, classes)), f"{classes} (richest)"]


def estimates(scores: pd.DataFrame, *, measure: str) -> dict[tuple[str, str], Estimate]:
    """(model, kind) -> score of one measure. Raises `InputError` where there is none."""
    rows = scores[scores["measure"] == measure]
    if rows.empty:
        raise InputError(f"The scores hold no row of the measure {measure!r}; score the predictions first.")
    columns = rows[["model", "kind", "value", "low", "high"]]
    return {(model, kind): Estimate(*numbers) for model, kind, *numbers in columns.itertuples(index=False)}


@drawn
def aerial_score_chart(scores: pd.DataFrame, ceiling: Estimate | None = None) -> Figure:
    """Pearson r of each model with its 95 % interval: filled under block folds, hollow under random ones.

    The ceiling is the best r any model could reach, with its interval, where it is known (a simulated conurbation).
    """
    found = estimates(scores, measure="pearson_r")
    models = model_order(scores["model"])[::-1]
    figure, (axes,) = new_figure(0.44 * len(models) + 1.15)
    ends = np.array([*found.values(), ceiling or Estimate(0.0)])
    low, high = min(float(np.nanmin(ends)), 0.0), float(np.nanmax(ends))
    for y, model in enumerate(models):
        colour = BASELINE if model in BASELINES else PICTURES
        for kind, beside in (("block", 0.17), ("random", -0.17)):
            if (model, kind) in found:
                _interval(axes, y + beside, found[model, kind], colour, floor=-1.0, hollow=kind == "random")
    axes.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    handles = [
        Line2D([], [], color=colour, marker=marker, markerfacecolor=face, markeredgewidth=1.6, linewidth=0, label=label)
        for colour, marker, face, label in (
            (INK, "o", INK, "block folds: what to expect elsewhere"),
            (INK, "D", PAPER, "random folds: neighbours give it away"),
            (BASELINE, "s", BASELINE, "no picture looked at"),
            (PICTURES, "s", PICTURES, "aerial picture"),
        )
    ]
    if ceiling is not None:
        line = axes.axvline(ceiling.value, color=CEILING, linewidth=1.3, linestyle=(0, (4, 2)), zorder=1)
        line.set_label(f"best reachable: {number_text(ceiling.value)}")
        if not np.isnan(ceiling.low):
            axes.axvspan(ceiling.low, ceiling.high, color=CEILING, alpha=0.1, linewidth=0, zorder=0)
        handles.append(line)
    axes.set_yticks(range(len(models)), [MODELS.get(model, model) for model in models])
    axes.set(ylim=(-0.55, len(models) - 0.45), xlim=(low - 0.03, high + 0.1 * (high - low) + 0.02))
    axes.set_xlabel("Pearson r with 95 % interval")
    axes.grid(axis="y", visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    figure.legend(handles=handles, loc="outside lower left", ncols=2, columnspacing=1.4)
    return figure


@drawn
def calibration_chart(calibration: pd.DataFrame, pit: Mapping[str, np.ndarray]) -> Figure:
    """How far the probabilities are off at each threshold, and the histogram of the true classes within them.

    `calibration` is `models.ordinal.threshold_calibration` with the column `scaling`, "before" or "after"; `pit` holds
    the `models.ordinal.pit_histogram` of each scaling.
    """
    looks = {"before": (BASELINE, "s"), "after": (PICTURES, "o")}
    if unknown := {*calibration["scaling"], *pit} - looks.keys():
        raise InputError(f"The scaling {min(unknown)!r} is unknown; a calibration is 'before' or 'after' scaling.")
    thresholds = sorted(calibration["threshold"].unique())
    figure, (errors, histogram) = new_figure(0.3 * len(thresholds) + 3.6, rows=2)
    errors.set_title("How far off is P(class at most k)?")
    for scaling, (colour, marker) in looks.items():
        rows = calibration[calibration["scaling"] == scaling]
        errors.plot(100 * rows["error"], rows["threshold"], marker, color=colour, markersize=6.5, clip_on=False)
    names = class_names(len(thresholds) + 1)
    errors.set_yticks(thresholds, [f"at most {names[threshold]}" for threshold in thresholds])
    errors.set(ylim=(len(thresholds) - 0.4, -0.6), xlim=(0, 1.1 * max(100 * calibration["error"].max(), 1.0)))
    errors.set_xlabel("expected calibration error, percentage points")
    histogram.set_title("Where in its distribution does the true class lie?")
    highest = 1.0
    for scaling, (colour, _) in looks.items():
        if scaling in pit:
            density = np.asarray(pit[scaling]) * len(pit[scaling])
            highest = max(highest, float(density.max()))
            edges = np.linspace(0, 1, len(density) + 1)
            histogram.stairs(density, edges, baseline=None, color=colour, linewidth=2.2 if scaling == "after" else 1.6)
    histogram.axhline(1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    histogram.set(xlim=(0, 1), ylim=(0, 1.12 * highest))
    histogram.set_xlabel("probability integral transform of the true class")
    histogram.set_ylabel("cells (1: as promised)")
    for axes in (errors, histogram):
        axes.spines[["left", "bottom"]].set_visible(False)
    handles = [
        Line2D([], [], color=colour, marker=marker, linewidth=2, label=f"{scaling} scaling")
        for scaling, (colour, marker) in looks.items()
        if scaling in pit or (calibration["scaling"] == scaling).any()
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure


@drawn
def income_map(cells: gpd.GeoDataFrame, classes: int) -> Figure:
    """Observed and predicted income class of each cell, on one scale; grey where it is not known.

    `cells` hold observed (0 = poorest), predicted (the expected class) and square geometries in EPSG:4326. They stand
    side by side, or one above the other where the conurbation is much wider than high.
    """
    if cells.crs is None or not cells.crs.is_geographic or cells.empty:
        raise InputError("The cells need rows and longitude and latitude before they can be drawn; set EPSG:4326.")
    west, south, east, north = cells.total_bounds
    south -= 0.09 * (north - south)  # room for the scale bar
    shape = (north - south) / ((east - west) * np.cos(np.radians((south + north) / 2)))  # height by width
    rows, columns = (1, 2) if shape > 0.6 else (2, 1)
    figure = Figure(figsize=(WIDTH, min(WIDTH / columns * shape, 5.0) * rows + 0.25 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns).ravel()
    scale = ScalarMappable(Normalize(0, classes - 1), _INCOME)
    for axes, column in zip(panels, ("observed", "predicted"), strict=True):
        value = cells[column].to_numpy(dtype=float, na_value=np.nan)
        colours = np.where(np.isnan(value)[:, None], to_rgba(_UNKNOWN), scale.to_rgba(value))
        # Without antialiasing no seams are seen between the squares of the grid.
        cells.plot(ax=axes, color=colours, linewidth=0, antialiased=False)
        axes.set(xlim=(west, east), ylim=(south, north))
        axes.set_axis_off()
        axes.set_title(column.capitalize() + (" (grey: no value)" if np.isnan(value).any() else ""))
    _scale_bar(panels[0], west, south + 0.03 * (north - south), east - west)
    bar = figure.colorbar(scale, ax=panels, orientation="horizontal", fraction=0.04, pad=0.02, aspect=42)
    bar.set_ticks(list(range(classes)), labels=[str(number + 1) for number in range(classes)])
    bar.set_label(f"income class, from 1 (poorest) to {classes} (richest)")
    bar.outline.set_visible(False)
    return figure


@drawn
def transfer_chart(transfer: pd.DataFrame) -> Figure:
    """Pearson r of networks trained on one conurbation, or on `OTHERS`, and tested on another: a matrix.

    `transfer` has trained_on, tested_on, value, low and high. Up to six conurbations have their intervals written.
    """
    if transfer.empty:
        raise InputError("The transfer table has no row; score a network on a conurbation it was not trained on.")
    names = dict.fromkeys([*transfer["trained_on"], *transfer["tested_on"]])
    trained, tested = (
        sorted(set(transfer[side]), key=lambda name: (name == OTHERS, list(names).index(name)))
        for side in ("trained_on", "tested_on")
    )
    figure, (axes,) = new_figure(0.62 * len(trained) + 1.5)
    values = np.full((len(trained), len(tested)), np.nan)
    columns = transfer[["trained_on", "tested_on", "value", "low", "high"]]
    for source, target, *numbers in columns.itertuples(index=False):
        score, place = Estimate(*numbers), (trained.index(source), tested.index(target))
        values[place] = score.value
        look: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center",
                                "color": PAPER if score.value > 0.5 else INK}  # fmt: skip
        written = len(tested) <= _FEW_ENOUGH and not np.isnan(score.low)
        axes.annotate(number_text(score.value), place[::-1], (0, 5 if written else 0), fontweight="bold", **look)
        if written:
            ends = f"{number_text(score.low)} to {number_text(score.high)}"
            axes.annotate(ends, place[::-1], (0, -7), fontsize=7.5, **look)
    axes.imshow(values, cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
    if trained[-1] == OTHERS:
        axes.axhline(len(trained) - 1.5, color=PAPER, linewidth=6)
    axes.set_xticks(range(len(tested)), tested, rotation=90 if len(tested) > _FEW_ENOUGH else 0)
    axes.set_yticks(range(len(trained)), trained)
    axes.set(xlabel="tested on", ylabel="trained on")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    _colour_bar(figure, axes, ScalarMappable(Normalize(0, 1), _SHADES), ("Pearson r", "1: perfect"))
    return figure
