"""Static figures as PNG bytes: maps, scores, errors, coverage, training. One look, no pyplot, no state.

Each function takes a plain table and returns bytes that a report, an asset page or a tracking server shows. Figures
are 5.6 inches wide so that their text stays readable when a phone shrinks them to its width.
"""

from typing import Literal

import geopandas as gpd
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, Normalize, TwoSlopeNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter

from urbanprint.errors import InputError
from urbanprint.maps.style import (
    BASELINE,
    BASELINES,
    CATEGORY_COLOURS,
    CEILING,
    DECILE_COLOURS,
    DEPRIVATION,
    DIVERGING_COLOURS,
    FORBIDDEN,
    GRID,
    INK,
    MISSING,
    MUTED,
    PAPER,
    PICTURES,
    WIDTH,
    Deciles,
    Estimate,
    decile,
    drawn,
    model_name,
    model_order,
    new_figure,
    number_text,
    one_model,
)
from urbanprint.vocabulary import FOLD_KINDS, INDICATORS, MEASURES

Kind = Literal["sequential", "diverging", "categorical"]

# --- maps ------------------------------------------------------------------------------------------------------------


def _base_map(areas: gpd.GeoDataFrame, *, title: str) -> tuple[Figure, Axes, gpd.GeoDataFrame]:
    """An empty map frame in metres, with borough outlines and a scale bar; the caller fills the areas."""
    if areas.crs is None or areas.empty:
        raise InputError("The areas need rows and a coordinate system before they can be drawn; set EPSG:4326.")
    projected = areas.to_crs(areas.estimate_utm_crs())
    west, south, east, north = projected.total_bounds
    height = min(max(WIDTH * (north - south) / (east - west), 2.6), 6.4) + 0.75
    figure, (axes,) = new_figure(height)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    axes.set_axis_off()
    axes.set_aspect("equal")
    boroughs = projected[["district", "geometry"]].dissolve("district", method="unary")
    boroughs.boundary.plot(ax=axes, color=INK, linewidth=0.7, zorder=3)
    raw = (east - west) / 5
    step = 10 ** np.floor(np.log10(raw))
    length = step * max(factor for factor in (1, 2, 5) if factor * step <= raw)
    bottom = south - 0.045 * (north - south)
    axes.plot([west, west + length], [bottom, bottom], color=INK, linewidth=2, solid_capstyle="butt")
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    axes.annotate(label, (west + length, bottom), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
    return figure, axes, projected


def _fill(axes: Axes, projected: gpd.GeoDataFrame, colours: pd.Series) -> bool:
    """Fill each area with its colour, hatch those without; returns whether any lacks one."""
    known = colours.notna()
    border = 0.05 if len(projected) > 1500 else 0.25
    if known.any():
        projected[known].plot(ax=axes, color=colours[known].tolist(), edgecolor=PAPER, linewidth=border, zorder=1)
    if (~known).any():
        projected[~known].plot(ax=axes, color=MISSING, edgecolor="#b9c1c9", hatch="////", linewidth=0.2, zorder=1)
    return bool((~known).any())


def _colour_bar(figure: Figure, axes: Axes, scale: ScalarMappable, ends: tuple[str, str]) -> None:
    bar = figure.colorbar(scale, ax=axes, orientation="horizontal", fraction=0.035, pad=0.01, aspect=38)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8.5)
    bar.ax.grid(False)
    for position, text, align in ((0.0, ends[0], "left"), (1.0, ends[1], "right")):
        bar.ax.annotate(text, (position, 1), (0, 3), xycoords="axes fraction", textcoords="offset points",
                        ha=align, va="bottom", fontsize=8.5, color=MUTED)  # fmt: skip


def _swatches(axes: Axes, labels: dict[str, str], *, missing: bool) -> None:
    patches: list[Patch] = [Patch(facecolor=colour, edgecolor=GRID, label=label) for label, colour in labels.items()]
    if missing:
        patches.append(Patch(facecolor=MISSING, hatch="////", edgecolor="#b9c1c9", label="no value"))
    if patches:
        axes.legend(
            handles=patches, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4, handlelength=1.2, columnspacing=1.2
        )


@drawn
def choropleth(
    areas: gpd.GeoDataFrame,
    column: str,
    *,
    title: str,
    kind: Kind = "sequential",
    ends: tuple[str, str] = ("", ""),
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A map of one column, with borough outlines and a scale bar; areas without a value are hatched grey.

    `ends` names the low and the high end of the colour bar. `limits` fixes the scale, so that several maps compare:
    by default [0, 1] where all values lie there, else their range; a diverging scale is symmetric about zero.
    """
    if column not in areas.columns:
        raise InputError(f"The areas have no column {column!r} to map; they have {', '.join(map(str, areas.columns))}.")
    figure, axes, projected = _base_map(areas, title=title)
    values = projected[column]
    if kind == "categorical":
        classes = sorted(values.dropna().unique())
        if len(classes) > len(CATEGORY_COLOURS):
            raise InputError(f"{column} has {len(classes)} classes; a map can tell {len(CATEGORY_COLOURS)} apart.")
        palette = dict(zip(classes, CATEGORY_COLOURS, strict=False))
        missing = _fill(axes, projected, values.map(palette))
        _swatches(axes, {str(name): colour for name, colour in palette.items()}, missing=missing)
        return figure
    palette_map: Colormap
    norm: Normalize
    if kind == "diverging":
        reach = max(map(abs, limits)) if limits else float(values.abs().max())
        norm = TwoSlopeNorm(0.0, -(reach or 1.0), reach or 1.0)
        palette_map = LinearSegmentedColormap.from_list("diverging", DIVERGING_COLOURS)
    else:
        low, high = limits or ((0.0, 1.0) if values.dropna().between(0, 1).all() else (values.min(), values.max()))
        norm = Normalize(low, high)
        palette_map = LinearSegmentedColormap.from_list("sequential", DECILE_COLOURS[::-1])
    scale = ScalarMappable(norm, palette_map)
    colours = pd.Series([to_hex(colour) for colour in scale.to_rgba(values.to_numpy(dtype=float))], index=values.index)
    _colour_bar(figure, axes, scale, ends)
    _swatches(axes, {}, missing=_fill(axes, projected, colours.where(values.notna())))
    return figure


@drawn
def sample_map(areas: gpd.GeoDataFrame, sampled: pd.DataFrame, *, title: str = "Areas in the sample") -> Figure:
    """Where the primary sample lies, coloured by the stratum (deprivation decile) that drew it; the rest is white."""
    figure, axes, projected = _base_map(areas, title=title)
    primary = sampled[sampled["role"] == "primary"].set_index("area_id")["stratum"]
    stratum = projected["area_id"].map(primary)
    colours = stratum.map(dict(enumerate(DECILE_COLOURS, start=1)))
    _fill(axes, projected, colours.fillna("#f7f8f9"))
    strip = ScalarMappable(Normalize(0.5, 10.5), ListedColormap(DECILE_COLOURS))
    _colour_bar(figure, axes, strip, ("decile 1, most deprived", "10, least"))
    note = f"{int(stratum.notna().sum()):,} of {len(areas):,} areas"
    axes.annotate(note, (1, 0), xycoords="axes fraction", ha="right", va="bottom", fontsize=8.5, color=MUTED)
    return figure


# --- scores ----------------------------------------------------------------------------------------------------------


def _interval(axes: Axes, y: float, score: Estimate, colour: str, *, floor: float, hollow: bool = False) -> None:
    """A dot with its interval and its value in words; a value left of the axis is an arrow at its edge."""
    if np.isnan(score.value):
        axes.annotate("not scored", (0, y), (6, 0), textcoords="offset points", va="center", fontsize=8.5, color=MUTED)
        return
    if not np.isnan(score.low):
        axes.plot([max(score.low, floor), score.high], [y, y], color=colour, linewidth=2, alpha=0.55, zorder=2)
    face = PAPER if hollow else colour
    shape = "<" if score.value < floor else ("D" if hollow else "o")
    axes.plot(max(score.value, floor), y, shape, color=colour, markerfacecolor=face, markersize=6.5,
              markeredgewidth=1.6, zorder=4, clip_on=False)  # fmt: skip
    right = score.value if np.isnan(score.high) else score.high
    axes.annotate(number_text(score.value), (max(right, floor), y), (6, 0), textcoords="offset points",
                  va="center", fontsize=8.5, color=colour, zorder=5,
                  path_effects=[withStroke(linewidth=2.5, foreground=PAPER)])  # fmt: skip


def estimates(scores: pd.DataFrame, *, indicator: str, measure: str) -> dict[tuple[str, str], Estimate]:
    """(model, kind) -> score of one indicator and measure. Raises `InputError` where there is none."""
    chosen = scores[(scores["indicator"] == indicator) & (scores["measure"] == measure)]
    if chosen.empty:
        raise InputError(f"The scores hold no {measure} of {indicator}; score that indicator first.")
    columns = chosen[["model", "kind", "value", "low", "high"]]
    return {(model, kind): Estimate(*numbers) for model, kind, *numbers in columns.itertuples(index=False)}


@drawn
def score_chart(
    scores: pd.DataFrame,
    *,
    ceiling: float | None = None,
    forbidden: Estimate | None = None,
    indicator: str = "imd",
    measure: str = "r2",
) -> Figure:
    """Each model and baseline with its 95 % interval, a panel a kind of fold on one common axis.

    The ceiling is the best reachable score where it is known (a simulated city). The forbidden score, of a split that
    leaks, is a hollow red point: shown so that nobody mistakes it for a result.
    """
    found = estimates(scores, indicator=indicator, measure=measure)
    kinds = [kind for kind in FOLD_KINDS if any(of == kind for _, of in found)]
    models = model_order(sorted({model for model, _ in found}))[::-1]
    extra = int(forbidden is not None)
    heights = 0.27 * (len(models) + extra) + 0.5
    figure, panels = new_figure(heights * len(kinds) + 0.55, rows=len(kinds), sharex=True)
    ends = [end for score in found.values() for end in (score.value, score.low)]
    floor = max(float(np.nanmin([*ends, 0.0])) - 0.04, -0.6)
    highs = [end for score in (*found.values(), forbidden or Estimate(0.0)) for end in (score.value, score.high)]
    for axes, kind in zip(panels, kinds, strict=True):
        axes.set_title(f"Folds of {FOLD_KINDS[kind]}")
        axes.grid(axis="y", visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
        for y, model in enumerate(models, start=extra):
            colour = BASELINE if model in BASELINES else PICTURES
            score = found.get((model, kind), Estimate(float("nan")))
            _interval(axes, y, score, colour, floor=floor)
        if forbidden is not None:
            _interval(axes, 0, forbidden, FORBIDDEN, floor=floor, hollow=True)
            axes.axhline(0.5, color=GRID, linewidth=0.8)
        if ceiling is not None:
            axes.axvline(ceiling, color=CEILING, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
        named = [model_name(model) for model in models]
        axes.set_yticks(range(len(models) + extra), ["Forbidden: image split"] * extra + named)
        if extra:
            axes.get_yticklabels()[0].set_color(FORBIDDEN)
        axes.set_ylim(-0.6, len(models) + extra - 0.4)
    if ceiling is not None:
        panels[0].annotate(f"ceiling {ceiling:.2f}", (ceiling, 1), (0, 5), xycoords=("data", "axes fraction"),
                           textcoords="offset points", ha="center", fontsize=8.5, color=CEILING)  # fmt: skip
    panels[-1].set_xlim(floor, float(np.nanmax([*highs, ceiling or 0.0])) * 1.12 + 0.02)
    panels[-1].set_xlabel(f"{MEASURES[measure]}, {INDICATORS[indicator]}, with 95 % interval")
    return figure


@drawn
def domain_chart(
    scores: pd.DataFrame, *, pictures: str = "probe", coordinates: str = "coordinates", kind: str = "borough"
) -> Figure:
    """R² of each indicator: a model that sees pictures against a map without pictures, under one kind of fold."""
    chosen = scores[(scores["measure"] == "r2") & (scores["kind"] == kind)]
    found = {
        (model, indicator): Estimate(*numbers)
        for model, indicator, *numbers in chosen[["model", "indicator", "value", "low", "high"]].itertuples(index=False)
    }
    ranked = sorted(
        (name for name in INDICATORS if (pictures, name) in found), key=lambda name: found[pictures, name].value
    )
    if not ranked:
        raise InputError(f"The scores hold no R2 of the model {pictures!r} under folds of kind {kind!r}.")
    figure, (axes,) = new_figure(0.42 * len(ranked) + 1.1)
    shown = [score for (model, _), score in found.items() if model in (pictures, coordinates)]
    floor = max(
        float(np.nanmin([0.0, *(score.value for score in shown), *(score.low for score in shown)])) - 0.04, -0.6
    )
    for y, indicator in enumerate(ranked):
        _interval(axes, y + 0.16, found[pictures, indicator], PICTURES, floor=floor)
        if (coordinates, indicator) in found:
            _interval(axes, y - 0.16, found[coordinates, indicator], BASELINE, floor=floor)
    axes.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    axes.grid(axis="y", visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_yticks(range(len(ranked)), [INDICATORS[name] for name in ranked])
    axes.set_xlim(floor, float(np.nanmax([0.1, *(score.high for score in shown), *(s.value for s in shown)])) * 1.15)
    axes.set_xlabel(f"R², folds of {FOLD_KINDS.get(kind, kind)}, with 95 % interval")
    handles = [
        Line2D([], [], color=colour, marker="o", linewidth=2, label=model_name(model))
        for model, colour in ((pictures, PICTURES), (coordinates, BASELINE))
    ]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return figure


@drawn
def interval_coverage_chart(measured: pd.DataFrame, *, indicator: str = "imd") -> Figure:
    """Share of areas whose published value lies in its interval, beside the share promised.

    `measured` has model, kind, indicator, level, coverage, mean_width, areas, a row a model and kind of fold.
    """
    chosen = measured[measured["indicator"] == indicator]
    if chosen.empty:
        raise InputError(f"The measured interval coverage holds no row of the indicator {indicator!r}.")
    level = float(chosen["level"].iloc[0])
    rank = {model: place for place, model in enumerate(model_order(sorted(chosen["model"].unique())))}
    kinds = [kind for kind in FOLD_KINDS if (chosen["kind"] == kind).any()]
    figure, panels = new_figure(sum(0.25 * (chosen["kind"] == kind).sum() + 0.45 for kind in kinds) + 0.5,
                             rows=len(kinds), sharex=True)  # fmt: skip
    for axes, kind in zip(panels, kinds, strict=True):
        rows = chosen[chosen["kind"] == kind]
        rows = rows.sort_values("model", key=lambda models: models.map(rank), ascending=False)
        axes.set_title(f"Folds of {FOLD_KINDS[kind]}")
        axes.axvline(level, color=CEILING, linewidth=1.2, linestyle=(0, (4, 2)))
        columns = (rows["model"], rows["coverage"].astype(float), rows["mean_width"].astype(float))
        for y, (model, share, width) in enumerate(zip(*columns, strict=True)):
            colour = BASELINE if model in BASELINES else PICTURES
            axes.plot([level, share], [y, y], color=colour, linewidth=1.5, alpha=0.5)
            axes.plot(share, y, "o", color=colour, markersize=6.5)
            text = f"{share:.0%}   mean width {width:.2f}"
            axes.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, color=colour)
        axes.set_yticks(range(len(rows)), [model_name(model) for model in rows["model"]])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
    panels[-1].set_xlim(min(0.5, float(chosen["coverage"].min()) - 0.05), 1.0)
    panels[-1].xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panels[-1].set_xlabel(f"areas inside their interval (dashed: the {level:.0%} promised)")
    return figure


# --- predictions, coverage, training ---------------------------------------------------------------------------------


@drawn
def scatter(predictions: pd.DataFrame, *, indicator: str = "imd", title: str = "Predicted against observed") -> Figure:
    """Held-out prediction against published value, a point an area (hexagons above 1,500), and the mean a decile.

    A line of means flatter than the diagonal is shrinkage: the model hedges towards the middle.
    """
    rows = one_model(predictions, indicator=indicator).dropna(subset=["observed", "predicted"])
    figure, (axes,) = new_figure(WIDTH * 0.86)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="identity", zorder=2)
    if len(rows) > 1500:
        axes.grid(False)
        sequential = LinearSegmentedColormap.from_list("density", [PAPER, "#7fb7d6", PICTURES, "#06263d"])
        axes.hexbin(rows["observed"], rows["predicted"], gridsize=42, extent=(0, 1, 0, 1), mincnt=1, cmap=sequential,
                    linewidths=0.2, zorder=1)  # fmt: skip
    else:
        axes.plot(rows["observed"], rows["predicted"], "o", color=PICTURES, markersize=4.5, alpha=0.45,
                  markeredgewidth=0, label="an area", zorder=3)  # fmt: skip
    means = rows.groupby(decile(rows["observed"]))[["observed", "predicted"]].mean()
    axes.plot(means["observed"], means["predicted"], "-o", color=FORBIDDEN, linewidth=1.6, markersize=4.5,
              markeredgecolor=PAPER, label="mean of each decile", zorder=4)  # fmt: skip
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", title=title)
    axes.set_xlabel("observed deprivation (1 = most deprived)")
    axes.set_ylabel(f"predicted, {len(rows):,} held-out areas")
    axes.legend(loc="upper left")
    return figure


@drawn
def error_by_decile(predictions: pd.DataFrame, *, indicator: str = "imd") -> Figure:
    """Predicted minus observed in each observed decile: quartile boxes, whiskers to the 5th and 95th percentile."""
    rows = one_model(predictions, indicator=indicator).dropna(subset=["observed", "predicted"])
    groups = dict(list((rows["predicted"] - rows["observed"]).groupby(decile(rows["observed"]))))
    figure, (axes,) = new_figure(3.3)
    axes.axhline(0, color=MUTED, linewidth=1)
    axes.boxplot(list(groups.values()), positions=list(groups), whis=(5, 95), widths=0.55, showfliers=False,
                 patch_artist=True, manage_ticks=False,
                 boxprops={"facecolor": "#cfe1ee", "edgecolor": PICTURES},
                 medianprops={"color": PICTURES, "linewidth": 2},
                 whiskerprops={"color": PICTURES}, capprops={"linewidth": 0})  # fmt: skip
    axes.set_xticks(range(1, 11), [f"{name}\n{len(groups.get(name, ()))}" for name in range(1, 11)])
    axes.set_xlim(0.4, 10.6)
    axes.grid(axis="x", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_title("Where the error lies")
    axes.set_ylabel("predicted minus observed")
    axes.set_xlabel("observed decile (1 = most deprived), and its number of areas")
    return figure


@drawn
def coverage_by_decile(coverage: pd.DataFrame, *, deciles: Deciles = DEPRIVATION) -> Figure:
    """Share of the areas asked for that have imagery, in each decile, with the counts."""
    asked = coverage.groupby("stratum").size().reindex(range(1, 11), fill_value=0)
    imaged = coverage[coverage["outcome"] == "imaged"].groupby("stratum").size().reindex(range(1, 11), fill_value=0)
    share = imaged / asked.where(asked > 0)
    figure, (axes,) = new_figure(3.1)
    axes.bar(share.index, asked.gt(0).astype(float), width=0.72, color=MISSING)
    axes.bar(share.index, share.fillna(0.0), width=0.72, color=PICTURES)
    for stratum, value in share.dropna().items():
        axes.annotate(f"{value:.0%}", (float(stratum), 1.0), (0, 3), textcoords="offset points",  # type: ignore[arg-type]
                      ha="center", fontsize=8.5)  # fmt: skip
    axes.set_xticks(range(1, 11), [f"{stratum}\n{imaged[stratum]}/{asked[stratum]}" for stratum in range(1, 11)])
    axes.set_ylim(0, 1.1)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axes.grid(axis="x", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_title("Areas with imagery")
    axes.set_xlabel(f"{deciles.label}; areas with imagery / areas asked")
    return figure


@drawn
def training_curves(history: pd.DataFrame) -> Figure:
    """The course of a training: losses in one panel, every other measure in its own.

    `history` has `epoch`, optionally `fold` (a line each), and numeric columns; those that end in `loss` share a panel.
    """
    measures = [name for name in history.select_dtypes("number").columns if name not in ("epoch", "fold")]
    losses = [name for name in measures if name.endswith("loss")]
    panels = ([losses] if losses else []) + [[name] for name in measures if name not in losses]
    if not panels:
        raise InputError("The training history has no numeric column beside epoch and fold; log a loss each epoch.")
    figure, frames = new_figure(2.1 * len(panels) + 0.3, rows=len(panels), sharex=True)
    runs = [rows for _, rows in history.groupby("fold")] if "fold" in history else [history]
    for axes, names in zip(frames, panels, strict=True):
        for name, colour in zip(names, (BASELINE, PICTURES, FORBIDDEN, CEILING), strict=False):
            for place, rows in enumerate(runs):
                label = name.replace("_", " ") if place == 0 else None
                axes.plot(
                    rows["epoch"], rows[name], color=colour, linewidth=1.6, alpha=1 / len(runs) ** 0.4, label=label
                )
        axes.legend(loc="best")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    frames[0].set_title("Training" if len(runs) == 1 else f"Training, {len(runs)} folds")
    frames[-1].set_xlabel("epoch")
    return figure
