"""Figures of what a network looks at from above, as PNG bytes: classes of land use, pairs of them, single tiles.

Each function takes a plain table of one conurbation. Poor is orange and rich purple in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any, Literal

import numpy as np
import pandas as pd
import shapely
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullLocator
from matplotlib.transforms import Bbox
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import InputError
from urbanprint.explanation.gradcam import common_limit
from urbanprint.explanation.panels import COLOURS, overlay
from urbanprint.maps.style import DIVERGING_COLOURS, INK, MUTED, PAPER, WIDTH, Estimate, drawn, new_figure, number_text

End = Literal["poor", "rich"]

POOR, RICH = DIVERGING_COLOURS[-1], DIVERGING_COLOURS[0]
MORE, LESS = "#009e73", "#c4609a"  # green and pink of Okabe and Ito (2008), the pink darkened for thin lines
MOST_PAIRS = 30
"""Above it arrows can no longer be followed."""

_MARKS: dict[End, tuple[str, str, float]] = {"rich": (RICH, "D", 0.17), "poor": (POOR, "o", -0.17)}
_RATIOS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
_NAMED, _NAMED_SHARE = 4, 0.05  # polygons of a tile that are named, and the least share of the tile they cover


@dataclass(frozen=True, kw_only=True, eq=False)
class TileExample:
    """A tile to show: photograph uint8 (H, W, 3), activation map (h, w) >= 0 and the land use below, row 0 north.

    Polygons are (class, geometry) in units of the tile, x and y from 0 to 1, y upwards.
    """

    tile: np.ndarray
    activation: np.ndarray
    polygons: Sequence[tuple[str, BaseGeometry]]
    caption: str


# --- classes ---------------------------------------------------------------------------------------------------------


@drawn
def ratio_chart(ratios: pd.DataFrame, findings: pd.DataFrame) -> Figure:
    """The mean activation ratio of each class at both ends with 95 % intervals, the most to the rich end on top.

    Classes whose difference is beyond chance (`findings`) are bold and filled, all others grey and hollow. The axis
    is logarithmic and ends at 1/8 and 8; what lies beyond is an arrow at its edge.
    """
    columns = ratios[["end", "name", "value", "low", "high"]].dropna(subset="value")
    found = {(end, name): Estimate(*numbers) for end, name, *numbers in columns.itertuples(index=False)}
    ranked = findings.sort_values("attention", na_position="first")
    ranked = ranked[ranked["name"].isin([name for _, name in found])]
    if ranked.empty:
        raise InputError("There is no activation ratio of a class of the findings; explain some tiles first.")
    figure, (axes,) = new_figure(0.3 * len(ranked) + 1.25)
    numbers = np.array([*found.values()])
    low, high = np.clip(np.nanquantile(numbers[numbers > 0], (0, 1)) * (0.92, 1.08), 1 / 8, 8)
    low, high = min(low, 0.9), max(high, 1.1)
    labels = []
    for y, (name, sure) in enumerate(zip(ranked["name"], ranked["attention_found"], strict=True)):
        labels.append((name, bool(sure)))
        for end, (colour, marker, beside) in _MARKS.items():
            if (end, name) in found:
                _ratio(axes, y + beside, found[end, name], colour, marker, limits=(low, high), sure=bool(sure))
    axes.axvline(1, color=INK, linewidth=1, zorder=1)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(_RATIOS)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(xlim=(low, high), ylim=(-0.6, len(ranked) - 0.4))
    axes.set_yticks(range(len(labels)), [fill(name, 26) for name, _ in labels], fontsize=8.5, linespacing=0.95)
    for text, (_, sure) in zip(axes.get_yticklabels(), labels, strict=True):
        text.set(color=INK if sure else MUTED, fontweight="bold" if sure else "normal")
    axes.set_xlabel("mean activation ratio (1: no more than its area), with 95 % interval")
    axes.grid(axis="y", visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    handles = [
        Line2D([], [], color=colour, marker=marker, linewidth=2, label=f"{end} end")
        for end, (colour, marker, _) in _MARKS.items()
    ]
    handles.append(Line2D([], [], color=MUTED, marker="o", markerfacecolor=PAPER, linewidth=2,
                          label="may be chance (hollow, grey name)"))  # fmt: skip
    figure.legend(handles=handles, loc="outside lower left", ncols=3, columnspacing=1.4)
    return figure


def _ratio(
    axes: Axes, y: float, ratio: Estimate, colour: str, marker: str, *, limits: tuple[float, float], sure: bool
) -> None:
    """A mark with its interval; one beyond the axis is an arrow at its edge."""
    value, *ends = np.clip(ratio, *limits)
    axes.plot(ends, [y, y], color=colour, linewidth=2, alpha=0.6 if sure else 0.3, zorder=2)
    shape = "<" if ratio.value < limits[0] else ">" if ratio.value > limits[1] else marker
    axes.plot(value, y, shape, color=colour, markerfacecolor=colour if sure else PAPER, markersize=5.5,
              markeredgewidth=1.4, alpha=1 if sure else 0.75, zorder=3, clip_on=False)  # fmt: skip


@drawn
def agreement_chart(findings: pd.DataFrame) -> Figure:
    """A point a class: how much more of it there is where people are rich, and how much more the rich end looks at it.

    Filled on the side of what was found: left of the land, right of the attention. Names stand where there is room,
    those of what was found first.
    """
    rows = findings.dropna(subset=["land", "attention"])
    if rows.empty:
        raise InputError("No class has a difference of land and one of attention; test both first.")
    figure, (axes,) = new_figure(0.95 * WIDTH)
    land = 100 * rows["land"].to_numpy(dtype=float)
    attention = rows["attention"].to_numpy(dtype=float)
    axes.set_xscale("function", functions=(_signed_root, _signed_square))  # few classes cover much, most cover little
    reach_x, reach_y = 1.25 * max(np.abs(land).max(), 0.1), 1.2 * max(np.abs(attention).max(), 0.05)
    axes.set(xlim=(-reach_x, reach_x), ylim=(-reach_y, reach_y))
    steps = [step for step in (40, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05) if step < reach_x][::2][:3]
    axes.set_xticks([*(-step for step in steps), 0, *steps[::-1]])
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_signed))
    for corner in ((0.5, 0.5), (0, 0)):
        axes.add_patch(Rectangle(corner, 0.5, 0.5, transform=axes.transAxes, color="#eef3f6", linewidth=0, zorder=0))
    axes.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    axes.axhline(0, color=MUTED, linewidth=0.9, zorder=1)
    corners = [
        axes.annotate(text, (x, y), (4 if x == 0 else -4, -4 if y else 4), xycoords="axes fraction", color=MUTED,
                      textcoords="offset points", ha="right" if x else "left", va="top" if y else "bottom",
                      fontsize=8.5, fontstyle="italic")
        for x, y, text in ((1, 1, "both say rich"), (0, 0, "both say poor"), (0, 1, "land poor, attention rich"),
                           (1, 0, "land rich, attention poor"))
    ]  # fmt: skip
    for x, y, *which in zip(land, attention, rows["land_found"], rows["attention_found"], strict=True):
        axes.plot(x, y, "o", zorder=4, **_filled(*which))
    axes.set_xlabel("percentage points more of a tile where rich (square-root scale)")
    axes.set_ylabel("activation ratio, rich end less poor end")
    axes.spines[:].set_visible(False)
    handles = [
        Line2D([], [], marker="o", linewidth=0, label=label, **_filled(*which))
        for which, label in (
            ((True, True), "found in both"),
            ((True, False), "only the land differs"),
            ((False, True), "only the attention differs"),
            ((False, False), "neither, beyond chance"),
        )
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, columnspacing=1.4)
    found = rows["land_found"].astype(int) + rows["attention_found"].astype(int)
    order = np.lexsort((-np.hypot(land / reach_x, attention / reach_y), -found))
    names = [(rows["name"].iloc[k], (land[k], attention[k]), bool(found.iloc[k])) for k in order]
    _name_points(figure, axes, names, taken=corners)
    return figure


def _filled(land: bool, attention: bool) -> dict[str, Any]:
    style = "full" if land and attention else "left" if land else "right" if attention else "none"
    colour = INK if land or attention else MUTED
    return {"color": colour, "fillstyle": style, "markerfacecoloralt": PAPER, "markersize": 7.5, "markeredgewidth": 1.2}


def _signed(value: float, _: object) -> str:
    return ("+" if value > 0 else "") + f"{value:g}".replace("-", "\N{MINUS SIGN}")


def _signed_root(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.sqrt(np.abs(values))


def _signed_square(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.square(values)


def _name_points(
    figure: Figure, axes: Axes, points: Sequence[tuple[str, tuple[float, float], bool]], *, taken: Sequence[Any]
) -> None:
    """Write each name beside its point where it covers nothing; one that finds no room is left to the table."""
    figure.draw_without_rendering()  # places the axes, without which nothing has an extent
    dots = [
        Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in axes.transData.transform([p for _, p, _ in points])
    ]
    covered = [text.get_window_extent() for text in taken]
    frame = axes.get_window_extent()
    places = [(x, y) for x in (7, -7, 0) for y in (0, 7, -7) if x or y]
    for name, point, sure in points:
        for x, y in places:
            label = axes.annotate(fill(name, 20), point, (x, y), textcoords="offset points", fontsize=8, zorder=5,
                                  ha=("center", "left", "right")[int(np.sign(x))], color=INK if sure else MUTED,
                                  va=("center", "bottom", "top")[int(np.sign(y))], linespacing=0.95)  # fmt: skip
            label.set_in_layout(False)
            box = label.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not box.count_overlaps([*covered, *dots]):
                covered.append(box)
                break
            label.remove()


# --- pairs -----------------------------------------------------------------------------------------------------------


@drawn
def coactivation_network(pairs: pd.DataFrame, end: End, *, most: int = MOST_PAIRS) -> Figure:
    """An arrow a found pair, from the class that is present (left) to the one that draws more or less attention there.

    Width is the factor, on one scale for all figures. Classes stand in the order of `pairs`, those without an arrow not
    at all; of more than `most` pairs the strongest are drawn. Where nothing is found the figure says so.
    """
    rows = pairs[pairs["end"] == end]
    found = rows[rows["found"].astype(bool)]
    strength = np.log(found["value"].clip(1 / 8, 8)).abs()
    shown = found.loc[strength.nlargest(most).index]
    title = f"{end.capitalize()} end: {len(found):,} of {len(rows):,} pairs of classes"
    if len(found) > most:
        title += f", the {most} strongest"
    if shown.empty:
        figure, (axes,) = new_figure(1.0)
        axes.set_axis_off()
        axes.annotate("Nothing found: no pair differs from 1 by more than chance allows.", (0, 0.5), va="center",
                      xycoords="axes fraction", color=MUTED)  # fmt: skip
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        return figure
    order = list(dict.fromkeys(rows["first"]))
    columns = [[name for name in order if name in set(shown[side])] for side in ("second", "first")]
    tallest = max(map(len, columns))
    figure, (axes,) = new_figure(0.38 * tallest + 1.45)
    height = [dict(zip(names, np.linspace(tallest, 0, 2 * len(names) + 1)[1::2], strict=True)) for names in columns]
    for first, second, value in shown[["first", "second", "value"]].itertuples(index=False):
        start, stop = height[0][second], height[1][first]
        path = Path([(0.0, start), (0.5, start), (0.5, stop), (0.99, stop)], [1, 4, 4, 4])  # a cubic curve
        axes.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=9, alpha=0.8, **_line(value)))
    for x, align, places in ((-0.02, "right", height[0]), (1.02, "left", height[1])):
        for name, y in places.items():
            axes.text(x, y, fill(name, 18), ha=align, va="center", fontsize=8.5, linespacing=0.95)
    axes.set(xlim=(0, 1), ylim=(0, tallest))
    axes.set_axis_off()
    for x, align, text in ((0, "right", "where this is present …"), (1, "left", "… this is looked at")):
        axes.annotate(text, (x, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", ha=align,
                      fontsize=8.5, color=MUTED)  # fmt: skip
    handles = [Line2D([], [], label=f"{value:g} times as much", **_line(value)) for value in (1.25, 2.0, 0.8, 0.5)]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, columnspacing=1.4, handlelength=3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


def _line(value: float) -> dict[str, Any]:
    """The look of a factor: 1 point wide for no effect, 2.5 more for each doubling or halving."""
    width = 1.0 + 2.5 * abs(float(np.log2(np.clip(value, 1 / 8, 8))))
    if value > 1:
        return {"color": MORE, "linewidth": width}
    return {"color": LESS, "linewidth": width, "linestyle": (0, (3, 1))}


# --- tiles -----------------------------------------------------------------------------------------------------------


@drawn
def tiles_panel(examples: Sequence[TileExample]) -> Figure:
    """A row a tile: the photograph, and the same under its activation map with the land use, the largest named.

    Maps are drawn as activation ratios, so that all tiles share one scale: 1 is the mean of the tile.
    """
    if not examples:
        raise InputError("There is no tile to show; pass examples with a photograph, a map and the land use below.")
    ratios = [_as_ratio(example.activation) for example in examples]
    limit = max(common_limit(np.concatenate([ratio.ravel() for ratio in ratios])), 1.0)
    captions = [fill(example.caption, 88) for example in examples]
    heights = [WIDTH / 2 + 0.06 + 0.16 * (caption.count("\n") + 1) for caption in captions] + [0.42]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    *rows, foot = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for row, example, ratio, caption in zip(rows, examples, ratios, captions, strict=True):
        row.suptitle(caption, x=0.01, ha="left", fontsize=9, color=MUTED)
        photograph, explained = row.subplots(1, 2)
        for axes, picture in ((photograph, example.tile), (explained, overlay(example.tile, ratio, limit))):
            axes.imshow(picture, extent=(0, 1, 0, 1))
            axes.set_axis_off()
        _outline(explained, example.polygons)
    strip = foot.subplots(1, 1)
    shades = LinearSegmentedColormap.from_list("ratio", [COLOURS(0.5), COLOURS(1.0)])
    bar = figure.colorbar(ScalarMappable(Normalize(0, limit), shades), cax=strip, orientation="horizontal")
    bar.set_ticks([0, 1, limit], labels=["0", "1: the mean of the tile", f"{number_text(limit, 1)} and more"])
    for text, align in zip(bar.ax.get_xticklabels(), ("left", "center", "right"), strict=True):
        text.set(horizontalalignment=align)
    bar.ax.tick_params(labelsize=8.5)
    bar.outline.set_visible(False)
    return figure


def _as_ratio(activation: np.ndarray) -> np.ndarray:
    """The map divided by its mean, 0 where there is no activation."""
    mean = float(activation.mean())
    return np.asarray(activation, dtype=float) / mean if mean > 0 else np.zeros(activation.shape)


def _outline(axes: Axes, polygons: Sequence[tuple[str, BaseGeometry]]) -> None:
    """The borders of the land use on a tile, and the names of the largest polygons, each class once."""
    casing = [withStroke(linewidth=2.4, foreground=INK)]
    within = [(name, shapely.intersection(shape, shapely.box(0, 0, 1, 1))) for name, shape in polygons]
    for _, shape in within:
        for part in shapely.get_parts(shape):
            for ring in shapely.get_rings(part):
                axes.plot(*shapely.get_coordinates(ring).T, color=PAPER, linewidth=1.1, path_effects=casing)
    largest: dict[str, BaseGeometry] = {}
    for name, shape in sorted(within, key=lambda each: -each[1].area):
        if shape.area >= _NAMED_SHARE:
            largest.setdefault(name, shape)
    for name, shape in list(largest.items())[:_NAMED]:
        part = max(shapely.get_parts(shape), key=shapely.area)
        x, y = shapely.get_coordinates(shapely.maximum_inscribed_circle(part, tolerance=0.01))[0]
        align: Literal["left", "center", "right"] = "left" if x < 0.25 else "right" if x > 0.75 else "center"
        axes.text({"left": 0.02, "center": x, "right": 0.98}[align], y, fill(name, 16), ha=align, va="center",
                  fontsize=8, color=PAPER, fontweight="bold", linespacing=0.95,
                  path_effects=[withStroke(linewidth=2.2, foreground=INK)])  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1))
