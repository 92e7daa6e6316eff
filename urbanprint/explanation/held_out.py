"""GradCAM of pictures by the fold model that never saw their area: a real prediction explained, not memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from urbanprint.explanation.gradcam import common_limit, gradcam
from urbanprint.explanation.panels import panel
from urbanprint.imagery.decoding import decode_many
from urbanprint.maps.thumbnails import pixels
from urbanprint.models.backbones import Backbone
from urbanprint.models.imagewise import ImagewiseModel

# A ResNet ends with 7 cells a side at 224 pixels. For small pictures the layer was chosen on the simulated city after
# looking: at 48 pixels maps of 12, 6 and 3 cells put 26 %, 31 % and 24 % of their energy on the planted objects, which
# cover 26 %. So the demo's share is that of the best of three layers, not of one named beforehand.
_CELLS = 6


def map_layer(backbone: Backbone, *, size: int) -> str:
    """Return the deepest layer whose map of a picture of `size` pixels still has 6 cells a side."""
    fine = [name for name, stride in backbone.strides.items() if size / stride >= _CELLS]
    return fine[-1]


def held_out_maps(
    images: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    kind: str,
    indicator: str,
    model_of: Callable[[int], ImagewiseModel],
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return raw signed maps, float32 (n, h, w), a map a row of `images` (area_id, path), in the logit of `indicator`.

    `folds` is `tables.FOLDS`; `model_of(fold)` returns the model of that fold of `kind`, which did not train on the
    areas the fold holds.
    """
    fold_of = folds[folds["kind"] == kind].set_index("area_id")["fold"]
    fold = images["area_id"].map(fold_of).to_numpy()
    maps: np.ndarray | None = None
    done = 0
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        model = model_of(int(number))
        pixels = decode_many([Path(path) for path in images["path"].iloc[rows]], size=model.config.size, threads=2)
        found = gradcam(
            model.network,
            model.normalise(pixels),
            layer=f"backbone.{map_layer(model.backbone, size=model.config.size)}",
            target=model.indicators.index(indicator),
        )
        if maps is None:
            maps = np.empty((len(images), *found.shape[1:]), dtype=np.float32)
        maps[rows] = found
        done += len(rows)
        if progress is not None:
            progress(done, len(images))
    if maps is None:
        raise ValueError("there are no images to explain")
    return maps


def save_maps(path: Path, images: pd.DataFrame, maps: np.ndarray) -> None:
    """Write raw maps with the identifiers of their images, whole or not at all."""
    beside = path.with_name(f".writing-{path.name}")
    np.savez_compressed(beside, image_id=images["image_id"].to_numpy(dtype=str), maps=maps)
    beside.replace(path)


def load_maps(path: Path) -> dict[str, np.ndarray]:
    """Return the raw maps (h, w) by image identifier."""
    with np.load(path, allow_pickle=False) as stored:
        return dict(zip(stored["image_id"].tolist(), stored["maps"], strict=True))


def spread_panel(
    images: pd.DataFrame, maps: np.ndarray, areas: pd.DataFrame, predictions: pd.DataFrame, *, rows: int = 6
) -> bytes:
    """Return a panel (PNG) of `rows` areas spread from the least to the most deprived prediction, a view each.

    `predictions` are held-out predictions of one model, kind and indicator.
    """
    held_out = predictions.set_index("area_id").sort_values("predicted")
    chosen = held_out.iloc[np.linspace(0, len(held_out) - 1, min(rows, len(held_out))).round().astype(int)]
    first = images.reset_index(drop=True).reset_index(names="row").drop_duplicates("area_id").set_index("area_id")
    at = first.loc[chosen.index, "row"].to_numpy()
    names = areas.set_index("area_id")["name"]
    return panel(
        [pixels(Path(path), width=360) for path in images["path"].iloc[at]],
        maps[at],
        observed=chosen["observed"].tolist(),
        predicted=chosen["predicted"].tolist(),
        titles=names.loc[chosen.index].tolist(),
        limit=common_limit(maps),
    )
