"""Explanations drawn for people: photograph, signed map, overlay, observed and predicted. Belongs here: drawing."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from urbanprint.explanation.gradcam import common_limit, for_display, upsample

COLOURS = LinearSegmentedColormap.from_list("lowers_raises", ["#1f5fa8", "#8fbcdd", "#f7f7f7", "#f0a07c", "#b81d2e"])
"""Diverging and readable with colour blindness: red raises predicted deprivation, blue lowers it, white is neutral."""

_LOWERS, _RAISES = (255.0 * np.array(COLOURS(end)[:3]) for end in (0.0, 1.0))
_OBSERVED, _PREDICTED, _INK = "#1b1b1b", "#d1741f", "#333333"


def overlay(photograph: np.ndarray, raw_map: np.ndarray, limit: float) -> np.ndarray:
    """The photograph uint8 (H, W, 3) tinted by a raw map (h, w), uint8 (H, W, 3).

    The tint's colour is the sign and its strength the size, up to `limit`; where the map is 0 the photograph is left
    as it is, in grey so that its own colours are not taken for the map's.
    """
    height, width = photograph.shape[:2]
    scaled = for_display(upsample(raw_map[None], height, width), limit=limit)[0]
    tint = np.where(scaled[..., None] > 0.0, _RAISES, _LOWERS)
    grey = (photograph @ np.array([0.299, 0.587, 0.114]))[..., None]
    strength = 0.75 * np.abs(scaled)[..., None]  # and not all of it: the cue below the tint has to stay visible
    return np.round((1.0 - strength) * grey + strength * tint).astype(np.uint8)


def panel(
    photographs: Sequence[np.ndarray],
    maps: np.ndarray,
    *,
    observed: Sequence[float],
    predicted: Sequence[float],
    titles: Sequence[str],
    label: str = "Deprivation",
    limit: float | None = None,
    dpi: int = 130,
) -> bytes:
    """A PNG with a row a view: photograph | signed map | overlay | observed and predicted in [0, 1].

    `photographs` are uint8 (H, W, 3) of any sizes, `maps` raw (n, h, w), all shown on one scale: `limit`, or the
    maps' `common_limit`. `observed` may be NaN. Titles are drawn as they are, never read as mathematics.
    """
    rows = len(photographs)
    if not rows == len(maps) == len(observed) == len(predicted) == len(titles) or not rows:
        raise ValueError("a panel needs one map, observed value, prediction and title for each photograph")
    scale = common_limit(maps) if limit is None else limit
    figure = Figure(
        figsize=(10.4, 0.75 + 2.05 * rows),
        dpi=dpi,
        facecolor="white",
        layout=ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05),
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 4, squeeze=False, gridspec_kw={"width_ratios": [1, 1, 1, 0.8]})
    for row, (photograph, raw_map) in enumerate(zip(photographs, maps, strict=True)):
        height, width = photograph.shape[:2]
        smooth = upsample(raw_map[None], height, width)[0]
        axes[row, 0].imshow(photograph)
        axes[row, 1].imshow(smooth, cmap=COLOURS, vmin=-scale, vmax=scale)
        axes[row, 2].imshow(overlay(photograph, raw_map, scale))
        axes[row, 0].set_title(titles[row], fontsize=8.5, color=_INK, loc="left", parse_math=False)
        for axis in axes[row, :3]:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        _dots(axes[row, 3], observed=observed[row], predicted=predicted[row], label=label, last=row == rows - 1)
    for axis, heading in zip(axes[0, 1:3], ("what raises and lowers it", "overlay"), strict=True):
        axis.set_title(heading, fontsize=8.5, color=_INK, loc="left")
    bar = figure.colorbar(
        ScalarMappable(Normalize(-scale, scale), COLOURS), ax=axes[:, :3], location="bottom", shrink=0.5, aspect=45
    )
    bar.set_ticks([-scale, 0.0, scale], labels=["lowers the prediction", "neutral", "raises the prediction"])
    bar.ax.tick_params(labelsize=8, length=0, colors=_INK)
    bar.outline.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _dots(axis: Axes, *, observed: float, predicted: float, label: str, last: bool) -> None:
    """Observed and predicted on one line from the least to the most deprived."""
    axis.set(xlim=(-0.06, 1.06), ylim=(-1.0, 1.0), yticks=[], xticks=[0.0, 0.5, 1.0])
    axis.axhline(0.0, color="#d9d9d9", linewidth=5, solid_capstyle="round", zorder=0)
    if np.isfinite(observed):
        axis.plot([observed, predicted], [0.0, 0.0], color="#9a9a9a", linewidth=1.5, zorder=1)
        axis.plot(observed, 0.0, "o", color=_OBSERVED, markersize=9, zorder=2)
        axis.text(
            np.clip(observed, 0.13, 0.87), 0.3, f"observed {observed:.2f}", ha="center", fontsize=8.5, color=_OBSERVED
        )
    axis.plot(predicted, 0.0, "o", color=_PREDICTED, markersize=9, zorder=3)
    axis.text(
        np.clip(predicted, 0.13, 0.87), -0.48, f"predicted {predicted:.2f}", ha="center", fontsize=8.5, color=_PREDICTED
    )
    axis.spines[:].set_visible(False)
    axis.tick_params(labelsize=8, length=0, colors=_INK, labelbottom=last)
    if last:
        axis.set_xlabel(f"{label}: 0 = least, 1 = most deprived", fontsize=8, color=_INK)
