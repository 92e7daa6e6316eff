"""The small pictures a map shows: a thumbnail of each photograph and, beside it, where its prediction comes from.

Files are named by the hash of the photograph, so one that is there is not drawn again, and a takedown finds them.
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from urbanprint.explanation.gradcam import common_limit
from urbanprint.explanation.panels import overlay
from urbanprint.maps.deprivation_map import Picture
from urbanprint.maps.thumbnails import pixels, thumbnail

WIDTH = 240
"""Pixels across."""


def write_pictures(
    images: pd.DataFrame,
    *,
    folder: Path,
    path_of: Callable[[str], Path],
    maps: Mapping[str, np.ndarray],
    page_of: Callable[[str], str | None],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, tuple[Picture, ...]]:
    """Write thumbnails and overlays of fetched `images` under `folder` and return the pictures of each area.

    Pictures of earlier runs that are not among them are removed. `path_of` gives the stored file of a SHA-256, `maps`
    the GradCAM of an image, all drawn on one common scale; `page_of` the page of an image at its provider, if any.
    """
    thumbnails, overlays = folder / "thumbnails", folder / "gradcam"
    thumbnails.mkdir(parents=True, exist_ok=True)
    overlays.mkdir(exist_ok=True)
    shown = {f"{sha256}.jpg" for sha256 in images["sha256"]}
    for file in (*thumbnails.glob("*.jpg"), *overlays.glob("*.jpg")):
        if file.name not in shown:
            file.unlink()  # taken down, past its time, or of terms that no longer allow showing it
    limit = common_limit(np.stack(list(maps.values()))) if maps else 1.0
    pictures: dict[str, tuple[Picture, ...]] = {}
    rows = zip(images["image_id"], images["area_id"], images["sha256"], strict=True)
    for done, (image_id, area_id, sha256) in enumerate(rows, start=1):
        path = path_of(sha256)
        small = thumbnails / f"{sha256}.jpg"
        if not small.is_file():
            small.write_bytes(thumbnail(path, width=WIDTH))
        explained = None
        if image_id in maps:
            # Drawn anew: the scale is common to all maps of a run and moves with them.
            explained = overlays / f"{sha256}.jpg"
            drawn = BytesIO()
            tinted = overlay(pixels(small, width=WIDTH), maps[image_id], limit)
            Image.fromarray(tinted).save(drawn, "JPEG", quality=80)
            explained.write_bytes(drawn.getvalue())
        picture = Picture(image_id=image_id, thumbnail=small, gradcam=explained, page=page_of(image_id))
        pictures[area_id] = (*pictures.get(area_id, ()), picture)
        if progress is not None:
            progress(done, len(images))
    return pictures
