"""Figures of what the imagery covers and of what was rejected: PNG bytes, in the style of `figures`."""

from collections.abc import Iterable
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from urbanprint.errors import InputError
from urbanprint.imagery.coverage import ANY, coverage_gap
from urbanprint.imagery.quality import KEPT
from urbanprint.maps.style import (
    BASELINE,
    CEILING,
    DECILE_COLOURS,
    DEPRIVATION,
    FORBIDDEN,
    INK,
    MINUS,
    MUTED,
    PAPER,
    PICTURES,
    Deciles,
    drawn,
    new_figure,
)

_SERIES = {"areas": (PICTURES, "o", -0.2), "points": (CEILING, "s", 0.0), "people": (BASELINE, "D", 0.2)}
"""Measure -> colour, marker, and how far beside its decile it stands."""
_LABELS = {"areas": "areas", "points": "street points", "people": "people"}
_EXTREMES = (DECILE_COLOURS[0], DECILE_COLOURS[6])  # of the first and the last decile: 10 itself is too pale
_WORST_SHADE = 0.25  # share of images at which a cell of the rejections is darkest: more is rare


@drawn
def coverage_bias_chart(bias: pd.DataFrame, *, deciles: Deciles = DEPRIVATION) -> Figure:
    """The share of areas, street points and people with imagery in each decile, with intervals and the gap in words.

    Below it, where `bias` (`tables.COVERAGE_BIAS`) holds several years or sources: the share of street points of the
    first and the last decile in each of them. `deciles` says what they are deciles of.
    """
    if not (bias["total"] > 0).any():
        raise InputError("No area was asked for images, so there is no coverage to draw: run the acquisition first.")
    years = [year for year in sorted(bias["year"].unique()) if year != ANY]
    sources = [source for source in sorted(bias["source"].unique()) if source != ANY]
    more = [(column, values) for column, values in (("year", years), ("source", sources)) if len(values) > 1]
    figure, panels = new_figure(3.4 + 2.0 * len(more), rows=1 + len(more))
    _by_decile(panels[0], bias[(bias["source"] == ANY) & (bias["year"] == ANY)], deciles)
    for axes, (column, values) in zip(panels[1:], more, strict=True):
        other = "source" if column == "year" else "year"
        _by(axes, bias[(bias["measure"] == "points") & (bias[other] == ANY)], deciles, column=column, values=values)
    return figure


def _by_decile(axes: Axes, bias: pd.DataFrame, deciles: Deciles) -> None:
    for measure, (colour, marker, beside) in _SERIES.items():
        rows = bias[(bias["measure"] == measure) & (bias["total"] > 0)]
        at = rows["decile"] + beside
        axes.vlines(at, rows["low"], rows["high"], color=colour, linewidth=2, alpha=0.55)
        axes.plot(at, rows["share"], marker, color=colour, markersize=5.5, label=_LABELS[measure], clip_on=False)
    asked = bias[bias["measure"] == "areas"].set_index("decile")["total"].astype(int)
    axes.set_xticks(range(1, 11), [f"{decile}\n{asked.get(decile, 0):,}" for decile in range(1, 11)])
    axes.set_xlim(0.45, 10.55)
    axes.grid(axis="x", visible=False)
    for edge in np.arange(1.5, 10):
        axes.axvline(edge, color="#f0f3f5", linewidth=0.8, zorder=0)
    axes.set_ylim(0, 1.02)
    _percent(axes, [0, 0.25, 0.5, 0.75, 1])
    _titled(axes, "With imagery: areas, street points, people", columns=3)
    axes.set_xlabel(f"{deciles.label}, and its areas asked for\n{_gap_sentence(bias)}")


def _gap_sentence(bias: pd.DataFrame) -> str:
    """The gap of areas and points in words."""
    gaps = coverage_gap(bias).set_index("measure")
    parts = []
    for measure in ("areas", "points"):
        gap, low, high = (_points(gaps[column][measure]) for column in ("gap", "low", "high"))
        parts.append(f"{_LABELS[measure]} {gap} [{low}, {high}]")
    ends = gaps.iloc[0]
    return f"decile {ends['least_deprived']} minus {ends['most_deprived']}, in points: {', '.join(parts)}"


def _points(share: float) -> str:
    """A difference of shares in percentage points, signed."""
    rounded = round(100 * share)
    return "0" if rounded == 0 else f"{rounded:+d}".replace("-", MINUS)


def _by(axes: Axes, bias: pd.DataFrame, deciles: Deciles, *, column: str, values: list[str]) -> None:
    """The first and the last decile asked for side by side, for each value of `column`."""
    asked = sorted(bias.loc[bias["total"] > 0, "decile"].unique())
    extremes = zip((asked[0], asked[-1]), (deciles.first, deciles.last), _EXTREMES, (-0.09, 0.09), strict=True)
    places = np.arange(len(values))
    for decile, name, colour, beside in extremes:
        rows = bias[bias["decile"] == decile].set_index(column).reindex(values)
        axes.vlines(places + beside, rows["low"], rows["high"], color=colour, linewidth=2, alpha=0.55)
        axes.plot(places + beside, rows["share"], "o", color=colour, markersize=5.5, label=f"decile {decile}, {name}")
    every = -(-len(values) // 11)  # of a long row of years only some are named, so that the names stay apart
    axes.set_xticks(places[::every], values[::every])
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, min(1.02, 1.1 * float(np.nanmax([0.05, *bias.loc[bias[column].isin(values), "high"]]))))
    _percent(axes, axes.get_yticks())
    _titled(axes, f"Street points with an image, by {'year of capture' if column == 'year' else column}", columns=2)


def _percent(axes: Axes, ticks: Iterable[float]) -> None:
    low, high = axes.get_ylim()
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_yticks(shown, [f"{100 * tick:.0f} %" for tick in shown])
    axes.spines["left"].set_visible(False)


def _titled(axes: Axes, title: str, *, columns: int) -> None:
    """The title with the legend between it and the panel."""
    axes.set_title(title, pad=22)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, borderaxespad=0.1, columnspacing=1.2,
        handletextpad=0.2,
    )  # fmt: skip


@drawn
def rejection_chart(table: pd.DataFrame, *, deciles: Deciles = DEPRIVATION) -> Figure:
    """Which share of the images was rejected for which reason in each decile (`tables.IMAGE_QUALITY`), all sources.

    The last column is of all images, and counts those outside the city too.
    """
    if table.empty:
        raise InputError("No image has been looked at, so there are no rejections to draw: run the acquisition first.")
    counts = table.pivot_table(index="reason", columns="decile", values="images", aggfunc="sum", fill_value=0)
    counts = counts.reindex(columns=range(1, 11), fill_value=0)
    overall = table.groupby("reason")["images"].sum()
    reasons = [reason for reason in overall.sort_values(ascending=False).index if reason != KEPT]
    examined = counts.sum()
    shares = counts.reindex(reasons, fill_value=0) / examined.where(examined > 0)
    shares["all"] = overall[reasons] / overall.sum()
    figure, (axes,) = new_figure(0.3 * max(len(reasons), 1) + 1.25)
    ramp = LinearSegmentedColormap.from_list("rejected", [PAPER, "#f3c9b8", FORBIDDEN])
    axes.pcolormesh(np.arange(12) - 0.5, np.arange(len(reasons) + 1) - 0.5, shares.to_numpy(dtype=float), cmap=ramp,
                    vmin=0, vmax=_WORST_SHADE, edgecolors=PAPER, linewidth=1.5)  # fmt: skip
    for row, reason in enumerate(reasons):
        for column, share in enumerate(shares.loc[reason]):
            shown = "" if not share > 0 else "<0.1" if share < 0.0005 else f"{100 * share:.1f}"
            axes.annotate(shown, (column, row), ha="center", va="center", fontsize=8,
                          color=PAPER if share > 0.8 * _WORST_SHADE else INK)  # fmt: skip
    axes.axvline(9.5, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(reasons)), [fill(reason, 22) for reason in reasons], fontsize=8.5)
    labels = [f"{name}\n{_short(number)}" for name, number in [*examined.items(), ("all", overall.sum())]]
    axes.set_xticks(range(11), labels, fontsize=8)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    kept = overall.get(KEPT, 0) / overall.sum()
    axes.set_title(f"Images rejected, in % ({100 * kept:.1f} % kept)")
    axes.set_xlabel(f"{deciles.label}, and its images")
    return figure


def _short(number: int) -> str:
    """A count that fits under a narrow column."""
    return f"{number:,}" if number < 10_000 else f"{number / 1000:,.0f}k"
