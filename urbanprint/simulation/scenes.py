"""Street scenes of the simulated town: a picture, its mask of classes and its object counts, from one geometry.

What belongs here is the finished picture: reduced, textured and encoded. What stands in the street is in `street.py`.
"""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from urbanprint.simulation.canvas import CAMERA_M, CLASS_INDEX, CLASSES, CUE_CLASSES, FAR_M, SCALE, smooth_noise
from urbanprint.simulation.street import Street
from urbanprint.simulation.styles import View

__all__ = ["CLASSES", "CUE_CLASSES", "Scene", "jpeg", "render"]


@dataclass(frozen=True, eq=False)
class Scene:
    """`pixels` uint8 (height, width, 3), RGB; `mask` uint8 (height, width), index into CLASSES; `counts` of objects."""

    pixels: np.ndarray
    mask: np.ndarray
    counts: dict[str, int]


def render(view: View, *, width: int = 256, height: int = 192) -> Scene:
    """Draw `view`; the same view and size give the same pixels."""
    rng = np.random.default_rng([view.seed, int(view.image_id)])
    street = Street(view, width=width, height=height, rng=rng)
    street.draw()
    canvas = street.canvas.image
    mask = np.asarray(canvas)[::SCALE, ::SCALE, 3].copy()
    pixels = np.asarray(canvas.reduce(SCALE))[..., :3]
    return Scene(pixels=_textured(street, pixels, mask), mask=mask, counts=dict(street.counts))


def jpeg(scene: Scene, quality: int = 85) -> bytes:
    """The picture as JPEG bytes, 4:2:0."""
    buffer = io.BytesIO()
    Image.fromarray(scene.pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _textured(street: Street, pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Courses of brick, stains, patched asphalt, leaves, and the grain of a sensor, on the reduced picture."""
    width, height = street.size
    focal = np.float32(street.focal)
    right = np.arange(width, dtype=np.float32) - np.float32(street.vanishing[0])
    down = np.arange(height, dtype=np.float32) - np.float32(street.vanishing[1])
    flat = mask.ravel()
    wall = np.flatnonzero(flat == CLASS_INDEX["building"])
    floor = np.flatnonzero((flat == CLASS_INDEX["road"]) | (flat == CLASS_INDEX["pavement"]))
    offset = street.plan.integers(0, 512, 2)
    # Damp runs down walls and asphalt is patched where the field is high: more of it with decay.
    least, strength = np.float32(1.5 - 1.9 * street.decay), np.float32(0.10 + 0.18 * street.decay)
    gain = np.ones(height * width, np.float32)

    # The ray of a pixel meets its wall at depth z and height y ...
    distance = np.where(right < 0, -street.walls[-1], street.walls[1]).astype(np.float32)
    z_of_column = np.minimum(focal * distance / np.maximum(np.abs(right), 1.0), np.float32(FAR_M))
    z = z_of_column[wall % width]
    y = np.float32(CAMERA_M) - down[wall // width] * (z / focal)
    gain[wall] -= strength * np.clip(_stains(26 * z, 11 * y, offset) - least, 0, 1.2)
    if street.style.finish != "render":
        course = np.float32(0.30 if street.style.finish == "brick" else 0.62)
        joints = np.maximum(
            np.cos(y * (np.float32(2 * np.pi) / course)),
            np.cos((z / (2 * course) + 0.5 * np.floor(y / course)) * np.float32(2 * np.pi)) - np.float32(0.15),
        )
        # Too fine to be seen far away.
        gain[wall] -= np.clip((focal * course / z - 2) * np.float32(0.07), 0, 0.35) * np.maximum(joints - 0.55, 0)

    # ... or the ground at depth z and offset x.
    z = focal * np.float32(CAMERA_M) / np.maximum(down[floor // width], np.float32(0.5))
    x = right[floor % width] * (z / focal)
    gain[floor] -= 0.7 * strength * np.clip(_stains(26 * z, 11 * x, offset) - least, 0, 1.2)

    row, column = street.rng.integers(0, 512, 2)
    grain = _window(_grain_field(), int(row), int(column), height, width)
    rough = np.where(mask == CLASS_INDEX["vegetation"], np.float32(0.09), np.float32(0.016))
    gain = gain.reshape(height, width) + grain * rough
    exposure = np.array(street.style.cast, np.float32) * np.float32(street.rng.uniform(0.98, 1.02))
    lit = gain[..., None] * exposure
    lit *= pixels
    return np.minimum(lit, 255, out=lit).astype(np.uint8)


def _stains(u: np.ndarray, v: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The stain field at (u, v), which repeats every 512."""
    index = ((u.astype(np.int32) + offset[0]) & 511) * 512 + ((v.astype(np.int32) + offset[1]) & 511)
    return _stain_field().ravel().take(index)


def _window(field: np.ndarray, row: int, column: int, height: int, width: int) -> np.ndarray:
    """A (height, width) piece of a field that repeats."""
    if row + height <= field.shape[0] and column + width <= field.shape[1]:
        return field[row : row + height, column : column + width]
    return field[np.ix_(np.arange(row, row + height) % len(field), np.arange(column, column + width) % field.shape[1])]


@lru_cache(maxsize=1)
def _stain_field() -> np.ndarray:
    return 0.75 * smooth_noise(9.0, 512, 1) + 0.65 * smooth_noise(2.5, 512, 2)


@lru_cache(maxsize=1)
def _grain_field() -> np.ndarray:
    return np.tile(smooth_noise(0.6, 512, 5), (2, 2))
