"""The sheet that a street scene is drawn on: perspective, haze, classes, and smooth noise.

World coordinates are metres with the camera above the origin: x to the right, y up, z ahead. Colour and class of a
pixel are written by the same stroke (class in the fourth channel), so that picture and mask cannot disagree.
"""

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

CLASSES: tuple[str, ...] = (
    "sky",
    "building",
    "roof",
    "window",
    "door",
    "shop",
    "shutter",
    "boarded",
    "vegetation",
    "pavement",
    "road",
    "marking",
    "car",
    "litter",
    "lamp",
)
"""Classes of the mask; the value of a pixel is the index here."""

CUE_CLASSES: tuple[str, ...] = ("vegetation", "litter", "shutter", "boarded", "car")
"""Classes whose amount follows the visible latent. (Decay follows it too, as a texture of buildings and ground.)"""

CLASS_INDEX = {name: index for index, name in enumerate(CLASSES)}
CAMERA_M = 2.3  # a camera on the roof of a car
FAR_M = 140.0
SCALE = 2  # drawn at twice the size, then reduced: that is the antialiasing
_CIRCLE = tuple((float(np.cos(a)), float(np.sin(a))) for a in np.linspace(0, 2 * np.pi, 12, endpoint=False))

Colour = tuple[float, float, float]
Span = tuple[float, float]
Ink = tuple[int, int, int, int]


class Canvas:
    """Strokes in world coordinates on an RGBX image, X the class."""

    def __init__(self, sky: Image.Image, *, vanishing: Span, focal: float, haze: Colour) -> None:
        self.image = sky
        self.pen = ImageDraw.Draw(self.image)
        self.vx, self.vy = vanishing
        self.focal = focal
        self.haze = haze

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        scale = self.focal / z
        return self.vx + scale * x, self.vy + scale * (CAMERA_M - y)

    def ink(self, colour: Colour, z: float, name: str, light: float = 1.0) -> Ink:
        """`colour` under `light`, faded towards the sky with the distance `z`."""
        far = 1.6 * (z / (z + 130.0)) ** 2
        keep = (1 - far) * light
        red, green, blue = colour
        haze = self.haze
        # Pillow itself clips at 255.
        return (
            int(red * keep + haze[0] * far),
            int(green * keep + haze[1] * far),
            int(blue * keep + haze[2] * far),
            CLASS_INDEX[name],
        )

    def wall(self, x: float, z: Span, y: Span, ink: Ink) -> None:
        """A rectangle in a plane along the street."""
        near, far = self.focal / z[0], self.focal / z[1]
        left, right = self.vx + near * x, self.vx + far * x
        bottom, top = CAMERA_M - y[0], CAMERA_M - y[1]
        vy = self.vy
        self.pen.polygon(
            (left, vy + near * bottom, right, vy + far * bottom, right, vy + far * top, left, vy + near * top), ink
        )

    def front(self, x: Span, y: Span, z: float, ink: Ink) -> None:
        """A rectangle that faces the camera."""
        scale = self.focal / z
        x0, x1 = sorted((self.vx + scale * x[0], self.vx + scale * x[1]))
        y0, y1 = sorted((self.vy + scale * (CAMERA_M - y[0]), self.vy + scale * (CAMERA_M - y[1])))
        self.pen.rectangle((x0, y0, x1, y1), ink)

    def ground(self, x: Span, z: Span, ink: Ink, y: float = 0.0) -> None:
        """A rectangle lying `y` above the road."""
        near, far = self.focal / z[0], self.focal / z[1]
        low, high = self.vy + near * (CAMERA_M - y), self.vy + far * (CAMERA_M - y)
        vx = self.vx
        corners = (vx + near * x[0], low, vx + near * x[1], low, vx + far * x[1], high, vx + far * x[0], high)
        self.pen.polygon(corners, ink)

    def shape(self, corners: Iterable[tuple[float, float, float]], ink: Ink) -> None:
        self.pen.polygon([self.at(*corner) for corner in corners], ink)

    def wheel(self, x: float, z: float, radius: float, ink: Ink) -> None:
        self.shape(((x, 0.34 + radius * dy, z + radius * dz) for dz, dy in _CIRCLE), ink)

    def disc(self, x: float, y: float, z: float, radius: float, ink: Ink, squash: float = 1.0) -> None:
        cx, cy = self.at(x, y, z)
        r = self.focal / z * radius
        self.pen.ellipse((cx - r, cy - r * squash, cx + r, cy + r * squash), ink)


def rgb(colour: str) -> Colour:
    """The channels, 0 to 255, of "#rrggbb"."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def smooth_noise(sigma: float, size: int, seed: int) -> np.ndarray:
    """A field (size, size) of unit variance that repeats without a seam."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), sigma, mode="wrap")
    return ((field - field.mean()) / field.std()).astype(np.float32)
