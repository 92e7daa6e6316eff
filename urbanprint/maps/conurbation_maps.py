"""Plain maps of a conurbation as PNG: the use of its land and the income of its cells, for whoever made the tables."""

import geopandas as gpd
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from urbanprint.landuse.classes import CLASSES
from urbanprint.maps.style import DECILE_COLOURS, WIDTH, drawn

_INCOME = LinearSegmentedColormap.from_list("income", DECILE_COLOURS)  # dark is poor, as in the deprivation maps
_BUILT = LinearSegmentedColormap.from_list("built", ["#5b1a2b", "#c8553d", "#f2a65a", "#f6dfb0"])
_GREEN = {
    "green urban areas": "#8cc084",
    "sports and leisure": "#5fa777",
    "farmland and wetlands": "#e8ecb0",
    "forests and natural areas": "#3d7a57",
    "open spaces without vegetation": "#d8cfc0",
    "water": "#6fa8dc",
    "roads": "#9aa3ad",
    "motorways": "#6b7480",
    "railways": "#4d5560",
}


@drawn
def land_use_map(polygons: gpd.GeoDataFrame) -> Figure:
    """Polygons by their column `class`; classes that are not those of `CLASSES` follow in shades of built land."""
    names = [str(name) for name in pd.unique(polygons["class"])]
    names.sort(key=lambda name: (CLASSES.index(name) if name in CLASSES else len(CLASSES), name))
    built = [name for name in names if name not in _GREEN]
    colours = {name: to_hex(_BUILT(k / max(1, len(built) - 1))) for k, name in enumerate(built)} | {
        name: colour for name, colour in _GREEN.items() if name in names
    }
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    axes = figure.subplots()
    polygons.plot(ax=axes, color=[colours[name] for name in polygons["class"]], linewidth=0)
    axes.set_axis_off()
    figure.legend(handles=[Patch(color=colours[name], label=name) for name in names], loc="outside lower left", ncols=2)
    return figure


@drawn
def cell_income_map(cells: gpd.GeoDataFrame) -> Figure:
    """Cells by `income`, between its 2nd and 98th percentile."""
    figure = Figure(figsize=(WIDTH, 5.0), layout="constrained")
    axes = figure.subplots()
    low, high = cells["income"].quantile([0.02, 0.98])
    cells.plot(ax=axes, column="income", cmap=_INCOME, vmin=low, vmax=high, linewidth=0)
    axes.set_axis_off()
    figure.colorbar(axes.collections[0], ax=axes, shrink=0.5, label="income, euros a year and head")
    return figure
