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

# A ResNet ends with 7 cells a side at 224 pixels; small pictures are explained at a layer at least as fine.
_CELLS = 7


def map_layer(backbone: Backbone, *, size: int) -> str:
    """Return the deepest layer whose map of a picture of `size` pixels still has 7 cells a side."""
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
    """Return signed maps, float32 (n, h, w), a map a row of `images` (area_id, path), in the logit of `indicator`.

    Maps are relative to the average of the pictures of their fold: positive where a picture raises the prediction
    above what the average picture would have there.

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
            relative=True,
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


def spread_views(images: pd.DataFrame, predictions: pd.DataFrame, *, rows: int = 6) -> np.ndarray:
    """Return positions in `images` of a view each of `rows` areas, from the least to the most deprived prediction.

    `predictions` are held-out predictions of one model, kind and indicator.
    """
    held_out = predictions.set_index("area_id").sort_values("predicted")
    chosen = held_out.index[np.linspace(0, len(held_out) - 1, min(rows, len(held_out))).round().astype(int)]
    first = images.reset_index(drop=True).reset_index(names="row").drop_duplicates("area_id").set_index("area_id")
    return first.loc[chosen, "row"].to_numpy()


def spread_panel(images: pd.DataFrame, maps: np.ndarray, areas: pd.DataFrame, predictions: pd.DataFrame) -> bytes:
    """Return a panel (PNG) of `spread_views`; `predictions` are held out, of one model, kind and indicator."""
    at = spread_views(images, predictions)
    chosen = predictions.set_index("area_id").loc[images["area_id"].iloc[at]]
    names = areas.set_index("area_id")["name"]
    return panel(
        [pixels(Path(path), width=360) for path in images["path"].iloc[at]],
        maps[at],
        observed=chosen["observed"].tolist(),
        predicted=chosen["predicted"].tolist(),
        titles=names.loc[chosen.index].tolist(),
        limit=common_limit(maps),
    )
