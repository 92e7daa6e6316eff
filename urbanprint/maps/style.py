"""The look shared by figures, map and report: colours, type, classes, and the names of models for people.

Colours keep their order in greyscale and for readers with any common colour blindness (ColorBrewer YlGnBu and PuOr,
Okabe and Ito's set for unordered classes). What is drawn with them lives in the modules beside this one.
"""

from collections.abc import Callable
from functools import cache, wraps
from io import BytesIO
from typing import Any, Final, NamedTuple, ParamSpec

import pandas as pd
from matplotlib import colormaps, font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from urbanprint.errors import InputError

MINUS: Final = "\N{MINUS SIGN}"
WIDTH: Final = 5.6
"""Width of every figure in inches: narrow enough that its text stays legible on a phone."""

INK, MUTED, GRID, PAPER = "#1d2733", "#5b6773", "#e1e6ea", "#ffffff"
PICTURES, BASELINE, FORBIDDEN, CEILING, MISSING = "#0b5c8f", "#727d88", "#c0401a", "#6a4c93", "#e9ecef"

DECILE_COLOURS: tuple[str, ...] = tuple(to_hex(colormaps["YlGnBu"](0.98 - 0.1 * step)) for step in range(10))
"""Ten colours, the first for decile 1 (most deprived, darkest), the last for decile 10."""

DIVERGING_COLOURS: tuple[str, ...] = tuple(to_hex(colormaps["PuOr_r"](0.08 + 0.14 * step)) for step in range(7))
"""Seven colours from purple (below zero) through near white to orange (above zero)."""

CATEGORY_COLOURS: tuple[str, ...] = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#8c8c3a",
    "#555555",
)
"""Unordered classes, after Okabe and Ito (2008)."""

BASELINES: dict[str, str] = {
    "mean": "Mean of the city",
    "neighbours": "Neighbours' mean",
    "coordinates": "Coordinates only",
}
"""Models that see no picture: identifier -> name for people."""

PICTURE_MODELS: dict[str, str] = {
    "probe": "Pictures: frozen features",
    "imagewise": "Pictures: fine-tuned network",
}
"""Models that see pictures, as far as they have a name for people; any other model is shown by its identifier."""


class Deciles(NamedTuple):
    """What deciles are of, and what the first and the last of them are."""

    of: str
    first: str
    last: str

    @property
    def label(self) -> str:
        """The label of an axis of deciles."""
        return f"{self.of} decile (1 = {self.first})"


DEPRIVATION = Deciles(of="deprivation", first="most deprived", last="least deprived")
"""The deciles of a city's areas."""

WEALTH = Deciles(of="wealth", first="poorest", last="wealthiest")
"""The deciles of a country's clusters (`cluster_areas.livelihood_deciles`)."""


class Estimate(NamedTuple):
    """A score with its 95 % interval; unknown ends are NaN."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


def model_name(model: str) -> str:
    """The name of a model for people."""
    return BASELINES.get(model) or PICTURE_MODELS.get(model, model)


def model_order(models: list[str]) -> list[str]:
    """Models in the order they are shown: baselines from the weakest idea to the strongest, then pictures."""
    known = [*BASELINES, *PICTURE_MODELS]
    return sorted(models, key=lambda model: (known.index(model) if model in known else len(known), model))


def number_text(value: float, digits: int = 2) -> str:
    """A number with a true minus sign, never that of a zero; "-" where it is missing."""
    return "-" if pd.isna(value) else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)


def decile(deprivation: pd.Series) -> pd.Series:
    """Decile 1..10 (1 = most deprived) of a normalised rank in [0, 1]; NaN stays NaN."""
    return ((1 - deprivation.clip(0, 1)) * 10 // 1 + 1).clip(upper=10)


def one_model(predictions: pd.DataFrame, *, indicator: str) -> pd.DataFrame:
    """The predictions of one indicator, a row an area.

    Raises `InputError` where they come from several models or kinds of fold, which no single map or scatter can show.
    """
    chosen = predictions[predictions["indicator"] == indicator]
    if chosen.empty:
        raise InputError(f"The predictions hold no row of the indicator {indicator!r}; pass those of that indicator.")
    sources = chosen[["model", "kind"]].drop_duplicates()
    if len(sources) > 1:
        named = ", ".join(f"{model}/{kind}" for model, kind in sources.itertuples(index=False))
        raise InputError(f"The predictions come from several models or kinds of fold ({named}); pass those of one.")
    return chosen


@cache
def font_families() -> tuple[str, ...]:
    """The preferred sans-serif fonts that this machine has, best first; never empty."""
    preferred = ("Inter", "Source Sans 3", "Helvetica Neue", "Arial", "Liberation Sans")
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return (*(family for family in preferred if family in installed), "DejaVu Sans")


Parameters = ParamSpec("Parameters")


def drawn(draw: Callable[Parameters, Figure]) -> Callable[Parameters, bytes]:
    """Decorate a function that draws a figure: it runs under the project's style and returns PNG bytes."""

    @wraps(draw)
    def png(*args: Parameters.args, **kwargs: Parameters.kwargs) -> bytes:
        look: Any = {
            "font.family": list(font_families()),
            "font.size": 9.5,
            "text.color": INK,
            "axes.labelcolor": MUTED,
            "axes.edgecolor": GRID,
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": True,
            "grid.color": GRID,
            "grid.linewidth": 0.8,
            "xtick.color": MUTED,
            "ytick.color": INK,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "legend.frameon": False,
            "legend.fontsize": 8.5,
            "hatch.color": "#b9c1c9",
            "hatch.linewidth": 0.6,
            "figure.facecolor": PAPER,
        }
        out = BytesIO()
        with rc_context(look):
            draw(*args, **kwargs).savefig(out, format="png", dpi=180)
        return out.getvalue()

    return png


def new_figure(height: float, *, rows: int = 1, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of `height` inches with its panels from top to bottom."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, 1, squeeze=False, sharex=sharex)[:, 0])
