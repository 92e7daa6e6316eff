"""Figures of the livelihood models as PNG bytes, in the style of `figures`: scores, maps of clusters, what models see.

Each function takes a plain table of one country. What a whole page of them says is in `livelihood_report`.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from pyproj import Geod

from urbanprint.errors import InputError
from urbanprint.evaluation.tasks import Task
from urbanprint.maps.figures import _colour_bar, _interval
from urbanprint.maps.livelihood_table import CLUSTER_FOLDS, LEARNERS, READERS, SHOWN_MEASURES
from urbanprint.maps.style import (
    BASELINE,
    CATEGORY_COLOURS,
    CEILING,
    DECILE_COLOURS,
    DIVERGING_COLOURS,
    FORBIDDEN,
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
from urbanprint.vocabulary import CLUSTER_BASELINES, LIVELIHOODS, TASK_MEASURES

_CEILING_LINES = {"images": (0, (1.5, 1.5)), "set": (0, (4, 2))}
_MARKERS = "osD^vP*X"


@drawn
def learner_chart(
    scores: pd.DataFrame, *, task: Task, title: str, kind: str = "block", ceiling: pd.DataFrame | None = None
) -> Figure:
    """Each learner's score with its 95 % interval under one kind of fold, a panel an indicator, on one common axis.

    `scores` is `tables.CLUSTER_SCORES`; shown is accuracy or R2. Baselines are grey, picture models blue. `ceiling`, of
    `simulation.survey.ceiling`, adds a line for each way of reading the pictures.
    """
    measure = SHOWN_MEASURES[task][0]
    chosen = scores[(scores["task"] == task) & (scores["kind"] == kind) & (scores["measure"] == measure)]
    indicators = [name for name in LIVELIHOODS if (chosen["indicator"] == name).any()]
    if not indicators:
        raise InputError(f"The scores hold no {measure} under folds of kind '{kind}'; score the {task} first.")
    there = set(chosen["model"])
    models = [*(name for name in LEARNERS if name in there), *sorted(there - set(LEARNERS))][::-1]
    best = _ceiling_scores(ceiling, task)
    figure, panels = new_figure((0.23 * len(models) + 0.45) * len(indicators) + 0.8, rows=len(indicators), sharex=True)
    lowest = float(np.nanmin([*chosen["low"], *chosen["value"]]))
    floor = max(lowest - 0.02, 0.3 if task == "classification" else -0.3)
    for axes, indicator in zip(panels, indicators, strict=True):
        rows = chosen[chosen["indicator"] == indicator].set_index("model")[["value", "low", "high"]]
        rows = rows.mask(rows.abs() < 0.005, 0.0)  # never -0.00
        for y, model in enumerate(models):
            score = Estimate(*rows.loc[model]) if model in rows.index else Estimate(float("nan"))
            _interval(axes, y, score, BASELINE if model in CLUSTER_BASELINES else PICTURES, floor=floor)
        for reader, style in _CEILING_LINES.items():
            if (indicator, reader) in best:
                axes.axvline(best[indicator, reader], color=CEILING, linewidth=1.3, linestyle=style, zorder=1)
        axes.axvline(0.5 if task == "classification" else 0.0, color=MUTED, linewidth=0.9, zorder=1)
        axes.set_title(LIVELIHOODS[indicator])
        axes.set_yticks(range(len(models)), [LEARNERS.get(model, model) for model in models], fontsize=8.5)
        axes.tick_params(axis="y", pad=9)  # room for the arrow of a score left of the axis
        axes.set_ylim(-0.6, len(models) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
    panels[-1].set_xlim(floor, float(np.nanmax([*chosen["high"], *chosen["value"], *best.values()])) + 0.06)
    panels[-1].set_xlabel(f"{TASK_MEASURES[task][measure]}, {CLUSTER_FOLDS.get(kind, kind)}, with 95 % interval")
    handles = [
        Line2D([], [], color=colour, marker="o", linewidth=2, label=label)
        for colour, label in ((BASELINE, "no picture looked at"), (PICTURES, "pictures"))
    ]
    handles += [
        Line2D([], [], color=CEILING, linewidth=1.3, linestyle=style, label=READERS[reader])
        for reader, style in _CEILING_LINES.items()
        if any(of == reader for _, of in best)
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, columnspacing=1.4)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


def _ceiling_scores(ceiling: pd.DataFrame | None, task: Task) -> dict[tuple[str, str], float]:
    if ceiling is None:
        return {}
    rows = ceiling[ceiling["task"] == task]
    return dict(zip(zip(rows["indicator"], rows["reader"], strict=True), rows["score"], strict=True))


@drawn
def cluster_map(
    clusters: pd.DataFrame,
    values: pd.Series,
    *,
    title: str,
    unit: str = "",
    diverging: bool = False,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A point a cluster of one country at its published position, coloured by `values` (area_id -> value).

    A degree of longitude is drawn as long as it is at the middle latitude. `limits` fixes the colours so that several
    maps compare: by default the range of the values, or a range symmetric about zero for a diverging scale. Clusters
    without a value are small crosses. Raises `InputError` where no cluster has one.
    """
    value = clusters["area_id"].map(values).astype(float)
    if value.isna().all():
        raise InputError(f"None of the {len(clusters)} clusters has a value to map; pass values indexed by area_id.")
    longitude, latitude = clusters["longitude"].to_numpy(), clusters["latitude"].to_numpy()
    middle = (latitude.min() + latitude.max()) / 2
    stretch = 1 / np.cos(np.radians(middle))
    reach_x, reach_y = max(np.ptp(longitude), 0.1), max(np.ptp(latitude), 0.1)
    figure, (axes,) = new_figure(float(np.clip(WIDTH * stretch * reach_y / reach_x, 2.6, 6.4)) + 0.75)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    axes.set_axis_off()
    axes.set_aspect(stretch)
    if diverging:
        reach = max(map(abs, limits)) if limits else float(value.abs().max()) or 1.0
        scale = ScalarMappable(TwoSlopeNorm(0.0, -reach, reach), _ramp(DIVERGING_COLOURS))
    else:
        scale = ScalarMappable(Normalize(*(limits or (value.min(), value.max()))), _ramp(DECILE_COLOURS[::-1]))
    known = value.notna().to_numpy()
    axes.plot(longitude[~known], latitude[~known], "x", color="#b9c1c9", markersize=3, zorder=1)
    size = float(np.clip(9000 / len(clusters), 6, 40))
    axes.scatter(longitude[known], latitude[known], s=size, c=scale.to_rgba(value.to_numpy()[known]), edgecolors=MUTED,
                 linewidths=0.3, zorder=2)  # fmt: skip
    _scale_bar(axes, longitude.min(), latitude.min() - 0.05 * reach_y, reach_x)
    _colour_bar(figure, axes, scale, ("", unit))
    note = f"{int(known.sum()):,} clusters" + ("" if known.all() else f"; x: {int((~known).sum()):,} without a value")
    axes.annotate(note, (1, 0), xycoords="axes fraction", ha="right", va="bottom", fontsize=8.5, color=MUTED)
    return figure


def _ramp(colours: Sequence[str]) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list("ramp", colours)


def _scale_bar(axes: Axes, west: float, south: float, degrees: float) -> None:
    """A bar of a round length, about a fifth of the map wide, measured on the ellipsoid."""
    metres = Geod(ellps="WGS84").inv(west, south, west + degrees, south)[2]
    raw = metres / 5
    step = 10 ** np.floor(np.log10(raw))
    length = step * max(factor for factor in (1, 2, 5) if factor * step <= raw)
    axes.plot([west, west + degrees * length / metres], [south, south], color=INK, linewidth=2, solid_capstyle="butt")
    axes.annotate(f"{length / 1000:g} km", (west + degrees * length / metres, south), (4, 0),
                  textcoords="offset points", va="center", fontsize=8.5)  # fmt: skip


@drawn
def importance_chart(importance: pd.DataFrame, *, title: str, measure: str, most: int = 15) -> Figure:
    """By how much the held-out score falls when a class, or a group of them, is shuffled, with 95 % intervals.

    `importance` is of `explanation.importance.permutation_importance` (name, value, low, high); the `most` important
    are drawn. Grey where the interval holds zero.
    """
    rows = importance.sort_values("value", ascending=False, kind="stable").head(most)[::-1]
    if rows.empty:
        raise InputError("The table of importance has no row; measure the importance of a class first.")
    names = [fill(str(name), 30) for name in rows["name"]]
    heights = [0.13 + 0.15 * (name.count("\n") + 1) for name in names]
    middle = np.cumsum(heights) - np.array(heights) / 2
    figure, (axes,) = new_figure(sum(heights) + 0.95)
    sure = (rows["low"] > 0) | (rows["high"] < 0)
    colours = np.where(sure, "#79aacb", "#cdd4da").tolist()
    axes.barh(middle, rows["value"], height=0.17, color=colours)
    axes.hlines(middle, rows["low"], rows["high"], color=INK, linewidth=1.2)
    axes.axvline(0, color=MUTED, linewidth=0.9)
    axes.set_yticks(middle, names, fontsize=8.5)
    axes.set_ylim(0, sum(heights))
    axes.margins(x=0.04)
    axes.grid(axis="y", visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    more = f" (the {most} highest of {len(importance)})" if len(importance) > most else ""
    axes.set_xlabel(f"fall of {measure} when shuffled{more}")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


@drawn
def optimism_chart(optimism: pd.DataFrame) -> Figure:
    """The best score on the validation list beside what the same model deserves (`tables.SELECTION_OPTIMISM`).

    A panel a task; the range holds 95 % of the simulated studies.
    """
    tasks = [task for task in SHOWN_MEASURES if (optimism["task"] == task).any()]
    if not tasks:
        raise InputError("The table of selection optimism has no row; run evaluation.optimism first.")
    settings = optimism[["learnable", "validation"]].drop_duplicates().sort_values(["learnable", "validation"])[::-1]
    labels = [
        f"{'nothing to learn' if learnable == 0 else f'R² at most {learnable:g}'},\n{validation:,} clusters"
        for learnable, validation in settings.itertuples(index=False)
    ]
    figure, panels = new_figure((0.52 * len(settings) + 0.95) * len(tasks) + 0.35, rows=len(tasks))
    for axes, task in zip(panels, tasks, strict=True):
        rows = optimism[optimism["task"] == task].set_index(["learnable", "validation", "quantity"])
        for y, (learnable, validation) in enumerate(settings.itertuples(index=False)):
            for quantity, colour, beside in (("reported", FORBIDDEN, 0.17), ("honest", PICTURES, -0.17)):
                if (learnable, validation, quantity) in rows.index:
                    score = Estimate(*rows.loc[(learnable, validation, quantity), ["value", "low", "high"]])
                    _interval(axes, y + beside, score, colour, floor=-np.inf)
        axes.axvline(0.5 if task == "classification" else 0.0, color=MUTED, linewidth=0.9, zorder=1)
        axes.set_title(f"{task.capitalize()}, {TASK_MEASURES[task][SHOWN_MEASURES[task][0]]}")
        axes.set_yticks(range(len(labels)), labels, fontsize=8.5)
        axes.set_ylim(-0.55, len(labels) - 0.45)
        axes.margins(x=0.09)
        axes.set_xlabel("mean, and the range of 95 % of the simulated studies")
        axes.grid(axis="y", visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
    handles = [
        Line2D([], [], color=colour, marker="o", linewidth=2, label=label)
        for colour, label in ((FORBIDDEN, "reported: best on the list"), (PICTURES, "honest: on new clusters"))
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return figure


@drawn
def curve_chart(curve: pd.DataFrame, *, measure: str, title: str = "Score by number of images a cluster") -> Figure:
    """Mean score over draws against the images a cluster is seen through, a line a model, a panel an indicator.

    `curve` is of `explanation.graph_importance.curve_at_prediction` with the column `model`; the band spans the draws.
    """
    indicators = [name for name in LIVELIHOODS if (curve["indicator"] == name).any()]
    if not indicators:
        raise InputError("The curve has no row of a livelihood indicator; measure curve_at_prediction first.")
    there = set(curve["model"])
    models = [*(name for name in LEARNERS if name in there), *sorted(there - set(LEARNERS))]
    figure, panels = new_figure(2.3 * len(indicators) + 0.6, rows=len(indicators), sharex=True)
    for axes, indicator in zip(panels, indicators, strict=True):
        for place, model in enumerate(models):
            rows = curve[(curve["indicator"] == indicator) & (curve["model"] == model)]
            scores = rows.groupby("images")["score"].agg(["mean", "min", "max"])
            colour = CATEGORY_COLOURS[place % len(CATEGORY_COLOURS)]
            axes.fill_between(scores.index, scores["min"], scores["max"], color=colour, alpha=0.15, linewidth=0)
            axes.plot(scores.index, scores["mean"], marker=_MARKERS[place % len(_MARKERS)], color=colour, linewidth=1.6,
                      markersize=4.5, markeredgecolor=PAPER, markeredgewidth=0.5,
                      label=LEARNERS.get(model, model))  # fmt: skip
        axes.set_title(LIVELIHOODS[indicator])
        axes.set_ylabel(measure)
        axes.spines["left"].set_visible(False)
    counts = sorted(curve["images"].unique())
    panels[-1].set_xscale("log")
    panels[-1].xaxis.set_minor_locator(NullLocator())
    panels[-1].set_xticks(counts, [f"{count:g}" for count in counts])
    panels[-1].set_xlabel("images a cluster, at most")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2)
    return figure


@drawn
def image_panel(
    importance: pd.DataFrame, images: Mapping[str, np.ndarray], *, title: str, unit: str, shown: int = 4
) -> Figure:
    """The images of one cluster that move its prediction most, and those that move it least.

    `importance` is of `explanation.graph_importance.image_importance`, of one cluster; `images` maps an image_id to
    uint8 (H, W, 3). Below each stand what it adds to the prediction, in `unit`, and its share of the attention. Images
    without an array cannot be shown and are passed over.
    """
    if len(clusters := importance["area_id"].unique()) != 1:
        raise InputError(f"The importances are of {len(clusters)} clusters; a panel shows the images of one.")
    rows = importance[importance["image_id"].isin(list(images))].dropna(subset="importance")
    if rows.empty:
        raise InputError(f"No image of cluster {clusters[0]} can be shown; pass their pixels.")
    rows = rows.sort_values("importance", key=np.abs, ascending=False, kind="stable")
    most = rows.head(shown)
    least = rows.iloc[len(most) :].tail(shown)
    parts = [
        (name, part)
        for name, part in (("Move the prediction most", most), ("Move the prediction least", least))
        if len(part)
    ]
    tallest = max(
        images[image_id].shape[0] / images[image_id].shape[1] for _, part in parts for image_id in part["image_id"]
    )
    figure = Figure(figsize=(WIDTH, (WIDTH / shown * tallest + 0.65) * len(parts) + 0.3), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    digits = max(0, 2 - int(np.floor(np.log10(most["importance"].abs().max() or 1.0))))
    for line, (name, part) in zip(figure.subplots(len(parts), shown, squeeze=False), parts, strict=True):
        for axes in line:
            axes.set_axis_off()
        line[0].set_title(name, fontsize=9, fontweight="normal", color=MUTED)
        columns = (part["image_id"], part["importance"].round(digits) + 0.0, part["weight"])
        for axes, image_id, moved, weight in zip(line, *columns, strict=False):
            axes.imshow(images[image_id])
            sign = "+" if moved > 0 else ""
            lines = (f"{sign}{number_text(moved, digits)} {unit}".rstrip(), f"weight {100 * weight:.1f} %")
            colours = (FORBIDDEN if moved > 0 else PICTURES if moved < 0 else MUTED, MUTED)
            for place, (text, colour) in enumerate(zip(lines, colours, strict=True)):
                axes.annotate(text, (0, 0), (0, -4 - 11 * place), xycoords="axes fraction", va="top", color=colour,
                              textcoords="offset points", fontsize=8.5)  # fmt: skip
    return figure
