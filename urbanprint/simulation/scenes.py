"""Street scenes of the simulated town: a picture, its mask of classes and its object counts, from one geometry.

What belongs here is drawing. A scene is a street canyon in one-point perspective, traffic on the left. World
coordinates are metres with the camera above the origin: x to the right, y up, z ahead. Colour and class of a pixel
are written by the same stroke (class in the alpha channel of the canvas), so that picture and mask cannot disagree.
"""

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from urbanprint.simulation.town import Style, View

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

_INDEX = {name: index for index, name in enumerate(CLASSES)}
_CAMERA_M = 2.3  # a camera on the roof of a car
_FAR_M = 140.0
_FLOOR_M = 2.9
_SCALE = 2  # drawn at twice the size, then reduced: that is the antialiasing
_GOLDEN = 0.6180339887498949
_CAR_COLOURS = ((196, 200, 205), (36, 40, 46), (120, 128, 138), (32, 62, 118), (150, 28, 34), (228, 230, 230))
_LITTER_COLOURS = ((244, 244, 240), (214, 54, 48), (58, 112, 196), (240, 196, 60), (26, 28, 32), (26, 28, 32))

Colour = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Scene:
    """`pixels` uint8 (height, width, 3) RGB; `mask` uint8 (height, width), index into CLASSES; objects drawn by class."""

    pixels: np.ndarray
    mask: np.ndarray
    counts: dict[str, int]


def render(view: View, *, width: int = 256, height: int = 192) -> Scene:
    """Draw `view`; the same view and size give the same pixels."""
    rng = np.random.default_rng([view.seed, int(view.image_id)])
    street = _Street(view, width=width, height=height, rng=rng)
    street.draw()
    canvas = street.canvas.image
    mask = np.asarray(canvas.getchannel("A"))[::_SCALE, ::_SCALE]
    pixels = np.asarray(canvas.convert("RGB").reduce(_SCALE))
    return Scene(pixels=street.textured(pixels, mask), mask=np.ascontiguousarray(mask), counts=dict(street.counts))


def jpeg(scene: Scene, quality: int = 85) -> bytes:
    """The picture as JPEG bytes, 4:2:0."""
    buffer = io.BytesIO()
    Image.fromarray(scene.pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


# --- canvas ---------------------------------------------------------------------------------------------------------


class _Canvas:
    """Strokes in world coordinates on an image whose alpha channel holds the class."""

    def __init__(self, sky: np.ndarray, *, vanishing: tuple[float, float], focal: float, haze: Colour) -> None:
        self.image = Image.fromarray(sky)
        self.pen = ImageDraw.Draw(self.image)
        self.vx, self.vy = vanishing
        self.focal = focal
        self.haze = haze

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        scale = self.focal / z
        return self.vx + scale * x, self.vy + scale * (_CAMERA_M - y)

    def ink(self, colour: Sequence[float], z: float, name: str, light: float = 1.0) -> tuple[int, int, int, int]:
        """`colour` under `light`, faded towards the sky with the distance `z`."""
        haze = z / (z + 130.0)
        haze *= haze * 1.6
        keep = (1 - haze) * light
        red, green, blue = (min(255, int(c * keep + h * haze)) for c, h in zip(colour, self.haze, strict=True))
        return red, green, blue, _INDEX[name]

    def wall(self, x: float, z: tuple[float, float], y: tuple[float, float], ink: tuple[int, ...]) -> None:
        """A rectangle in a plane along the street."""
        near, far = self.focal / z[0], self.focal / z[1]
        left, right = self.vx + near * x, self.vx + far * x
        bottom, top = _CAMERA_M - y[0], _CAMERA_M - y[1]
        vy = self.vy
        self.pen.polygon(
            (left, vy + near * bottom, right, vy + far * bottom, right, vy + far * top, left, vy + near * top), ink
        )

    def front(self, x: tuple[float, float], y: tuple[float, float], z: float, ink: tuple[int, ...]) -> None:
        """A rectangle that faces the camera."""
        scale = self.focal / z
        x0, x1 = sorted((self.vx + scale * x[0], self.vx + scale * x[1]))
        y0, y1 = sorted((self.vy + scale * (_CAMERA_M - y[0]), self.vy + scale * (_CAMERA_M - y[1])))
        self.pen.rectangle((x0, y0, x1, y1), ink)

    def ground(self, x: tuple[float, float], z: tuple[float, float], ink: tuple[int, ...], y: float = 0.0) -> None:
        """A rectangle lying `y` above the road."""
        near, far = self.focal / z[0], self.focal / z[1]
        low, high = self.vy + near * (_CAMERA_M - y), self.vy + far * (_CAMERA_M - y)
        vx = self.vx
        self.pen.polygon((vx + near * x[0], low, vx + near * x[1], low, vx + far * x[1], high, vx + far * x[0], high), ink)

    def shape(self, corners: Iterable[tuple[float, float, float]], ink: tuple[int, ...]) -> None:
        self.pen.polygon([self.at(*corner) for corner in corners], ink)

    def disc(self, x: float, y: float, z: float, radius: float, ink: tuple[int, ...], squash: float = 1.0) -> None:
        cx, cy = self.at(x, y, z)
        r = self.focal / z * radius
        self.pen.ellipse((cx - r, cy - r * squash, cx + r, cy + r * squash), ink)


# --- street ---------------------------------------------------------------------------------------------------------


class _Street:
    """One view being drawn: amounts of each cue in [0, 1], the plan of the street, and the strokes."""

    def __init__(self, view: View, *, width: int, height: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.style: Style = view.style
        self.size = (width, height)
        cues = (view.vegetation, view.litter, view.shutters, view.boarded, view.decay, view.cars)
        self.vegetation, self.litter, self.shutters, self.boarded, self.decay, self.cars = map(float, ndtr(cues))
        self.counts: Counter[str] = Counter()
        self.vanishing = (width * rng.uniform(0.42, 0.56), height * (view.style.horizon + rng.uniform(-0.015, 0.015)))
        self.focal = 0.75 * width
        self.kerb = {-1: -rng.uniform(3.1, 3.7), 1: rng.uniform(5.0, 5.9)}
        pavement = rng.uniform(2.1, 2.7)
        self.walls = {side: self.kerb[side] + side * (pavement + view.style.setback) for side in (-1, 1)}
        self.path = {side: self.kerb[side] + side * pavement for side in (-1, 1)}
        bright = int(rng.integers(2)) * 2 - 1
        self.light = {bright: 1.06, -bright: 0.80}
        self.wall_colours = [_rgb(view.style.wall), _rgb(view.style.wall_second)]
        # Neglect dulls paint: colours move towards a sooty grey.
        self.dull = 0.55 * self.decay
        self.phase = rng.random(8)
        sky = self._sky(view.style)
        self.canvas = _Canvas(
            sky,
            vanishing=(self.vanishing[0] * _SCALE, self.vanishing[1] * _SCALE),
            focal=self.focal * _SCALE,
            haze=_rgb(view.style.sky_low),
        )

    def draw(self) -> None:
        self._ground()
        for side in (-1, 1):
            self._row(side)
        self._furniture()

    def _dulled(self, colour: Colour) -> Colour:
        grey = 0.25 * colour[0] + 0.45 * colour[1] + 0.15 * colour[2]
        soot = (grey * 0.92, grey * 0.86, grey * 0.76)
        red, green, blue = (c + self.dull * (s - c) for c, s in zip(colour, soot, strict=True))
        return red, green, blue

    def _spread(self, index: int, stream: int) -> float:
        """Evenly spread numbers in [0, 1): a share p of the units has a value below p, with little sampling noise."""
        return (self.phase[stream] + index * _GOLDEN) % 1.0

    def _sky(self, style: Style) -> np.ndarray:
        width, height = self.size[0] * _SCALE, self.size[1] * _SCALE
        down = np.clip(np.arange(height, dtype=np.float32) / (self.vanishing[1] * _SCALE), 0, 1)[:, None, None]
        top, low = np.array(_rgb(style.sky_top), np.float32), np.array(_rgb(style.sky_low), np.float32)
        clouds = _cloud_field()
        row, column = self.rng.integers(0, 256, 2)
        # Drawn small and enlarged: clouds have no fine detail.
        small = clouds[row : row + 48, column : column + 64]
        cover = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))[..., None]
        sky = top + (low - top) * down**1.3
        sky = sky + (250.0 - sky) * np.clip(cover, 0, 0.75)
        canvas = np.empty((height, width, 4), np.uint8)
        canvas[..., :3] = sky
        canvas[..., 3] = _INDEX["sky"]
        return canvas

    def _ground(self) -> None:
        canvas, style = self.canvas, self.style
        road = self._dulled(_rgb(style.road))
        paving = self._dulled(_rgb(style.pavement))
        for near, far in ((1.2, 9.0), (9.0, 22.0), (22.0, 50.0), (50.0, _FAR_M)):
            depth = (near, far * 1.01)
            middle = (near * far) ** 0.5
            canvas.ground((self.kerb[-1], self.kerb[1]), depth, canvas.ink(road, middle, "road"))
            for side in (-1, 1):
                kerb, wall, path = self.kerb[side], self.walls[side], self.path[side]
                canvas.ground((kerb, wall), depth, canvas.ink(paving, middle, "pavement"))
                if style.setback:
                    self._garden(side, (path, wall), depth, middle)
                # A verge whose width is the amount of vegetation.
                verge = kerb + side * (0.25 + 1.1 * self.vegetation)
                if self.vegetation > 0.25:
                    canvas.ground((kerb + side * 0.25, verge), depth, canvas.ink((96, 132, 62), middle, "vegetation"))
                canvas.ground((kerb, kerb + side * 0.16), depth, canvas.ink((176, 174, 168), middle, "pavement", 0.95))
        self._markings()
        # The street ends in a row of distant houses and trees.
        far = self.canvas.ink((120, 126, 118), 70.0, "building")
        canvas.front((self.walls[-1], self.walls[1]), (0.0, 6.0), _FAR_M, far)
        trees = self.canvas.ink((84, 112, 74), 75.0, "vegetation")
        for k in range(round(7 * self.vegetation)):
            canvas.disc(self.walls[-1] + 1.5 + 2.2 * k, 3.2, _FAR_M, 2.4, trees)

    def _garden(self, side: int, x: tuple[float, float], depth: tuple[float, float], middle: float) -> None:
        """A front garden: lawn where there is much vegetation, paved over where there is little."""
        if self.vegetation > 0.45:
            self.canvas.ground(x, depth, self.canvas.ink((92, 128, 60), middle, "vegetation", self.light[side]))
        else:
            self.canvas.ground(x, depth, self.canvas.ink((138, 132, 124), middle, "pavement", 0.9))

    def _markings(self) -> None:
        canvas = self.canvas
        centre = (self.kerb[-1] + self.kerb[1]) / 2
        worn = 236 - 70 * self.decay
        start = self.rng.uniform(2.5, 5.5)
        zebra = self.rng.uniform(9.0, 16.0) if self.rng.random() < 0.2 else None
        for k in range(18):
            z = start + 5.2 * k
            if zebra is None or not zebra - 3 < z < zebra + 4:
                canvas.ground((centre - 0.07, centre + 0.07), (z, z + 2.6), canvas.ink((worn, worn, worn), z, "marking"))
        for side in (-1, 1):
            x = self.kerb[side] - side * 0.3
            yellow = canvas.ink((worn, worn * 0.82, worn * 0.28), 12.0, "marking")
            canvas.ground((x, x - side * 0.09), (1.5, 60.0), yellow)
        if zebra is not None:
            stripes = np.arange(self.kerb[-1] + 0.3, self.kerb[1] - 0.6, 1.15)
            for x in stripes:
                canvas.ground((x, x + 0.58), (zebra, zebra + 2.6), canvas.ink((worn, worn, worn), zebra, "marking"))

    # --- buildings ---

    def _row(self, side: int) -> None:
        """The houses of one side, drawn from far to near."""
        rng, style = self.rng, self.style
        ends = [rng.uniform(3.0, 5.0)]
        while ends[-1] < 80.0:
            ends.append(ends[-1] + style.unit_width * rng.uniform(0.85, 1.15))
        ends.append(_FAR_M)
        jitter = rng.uniform(0.93, 1.07, len(ends))
        floors = np.clip(style.floors + rng.choice([-1, 0, 0, 0, 1], len(ends)), 2, 5)
        for unit in range(len(ends) - 2, -1, -1):
            self._house(side, unit, (ends[unit], ends[unit + 1]), int(floors[unit]), float(jitter[unit]))

    def _house(self, side: int, unit: int, z: tuple[float, float], floors: int, jitter: float) -> None:
        canvas, style, x = self.canvas, self.style, self.walls[side]
        middle = (z[0] * z[1]) ** 0.5
        light = self.light[side] * jitter
        colour = self._dulled(self.wall_colours[unit % 2])
        top = floors * _FLOOR_M + 0.5
        back = x + side * 9.0
        ridge = (x + side * 4.5, top + 2.6)
        roof = self._dulled(_rgb(style.roof))
        canvas.shape(
            ((x, top, z[0]), (x, top, z[1]), (ridge[0], ridge[1], z[1]), (ridge[0], ridge[1], z[0])),
            canvas.ink(roof, middle, "roof", light),
        )
        # The gable towards the camera, in half shade.
        gable = canvas.ink(colour, z[0], "building", 0.78 * jitter)
        canvas.shape(((x, 0, z[0]), (x, top, z[0]), (*ridge, z[0]), (back, top, z[0]), (back, 0, z[0])), gable)
        chimney = z[0] + 0.8
        canvas.front(
            (ridge[0] - 0.5, ridge[0] + 0.5),
            (top + 1.6, top + 3.9),
            chimney,
            canvas.ink(colour, z[0], "building", 0.7),
        )
        canvas.wall(x, z, (0.0, top), canvas.ink(colour, middle, "building", light))
        if z[0] > 62.0:
            return
        canvas.wall(x, z, (top - 0.35, top), canvas.ink(_rgb(style.frame), middle, "building", 0.9 * light))
        index = 2 * unit + (side > 0)
        shuttered = self._spread(index, 0) < 0.85 * self.shutters
        is_shop = shuttered or self._spread(index, 1) < style.shop_share
        if is_shop:
            self._shop(x, z, light, shuttered=shuttered)
        else:
            self._ground_floor(x, z, index, light)
        for floor in range(1, floors):
            self._windows(x, z, floor, index, light)

    def _shop(self, x: float, z: tuple[float, float], light: float, *, shuttered: bool) -> None:
        canvas, rng = self.canvas, self.rng
        margin = 0.06 * (z[1] - z[0])
        span = (z[0] + margin, z[1] - margin)
        middle = (z[0] * z[1]) ** 0.5
        canvas.wall(x, span, (2.45, 3.05), canvas.ink(self._dulled(_rgb(self.style.accent)), middle, "shop", light))
        if not shuttered:
            glow = rng.uniform(0.85, 1.15)
            canvas.wall(x, span, (0.0, 2.45), canvas.ink((74, 70, 66), middle, "shop", light))
            for k in range(3):
                step = (span[1] - span[0]) / 3
                pane = (span[0] + (k + 0.08) * step, span[0] + (k + 0.92) * step)
                canvas.wall(x, pane, (0.5, 2.3), canvas.ink((206, 178, 122), middle, "shop", light * glow))
            self.counts["shop"] += 1
            return
        self.counts["shutter"] += 1
        steel = (158, 162, 166)
        canvas.wall(x, span, (0.0, 2.45), canvas.ink(steel, middle, "shutter", light))
        if z[0] < 30.0:
            slat = canvas.ink((112, 116, 122), middle, "shutter", light)
            for k in range(9):
                canvas.wall(x, span, (0.12 + 0.26 * k, 0.20 + 0.26 * k), slat)
        if z[0] < 40.0 and rng.random() < 0.35 + 0.6 * self.decay:
            self._graffiti(x, span, light)

    def _graffiti(self, x: float, span: tuple[float, float], light: float) -> None:
        rng, canvas = self.rng, self.canvas
        length = span[1] - span[0]
        z = span[0] + length * np.linspace(0.15, 0.8, 7)
        y = 1.1 + 0.55 * np.sin(np.arange(7) * 2.1 + rng.uniform(0, 6)) * rng.uniform(0.6, 1.0, 7)
        colour = ((200, 40, 110), (30, 90, 180), (30, 30, 34), (220, 120, 20))[rng.integers(4)]
        ink = canvas.ink(colour, span[0], "shutter", light)
        points = [canvas.at(x, float(b), float(a)) for a, b in zip(z, y, strict=True)]
        canvas.pen.line(points, ink, width=max(1, int(0.11 * canvas.focal / span[0])), joint="curve")

    def _ground_floor(self, x: float, z: tuple[float, float], index: int, light: float) -> None:
        """A front door and ground-floor windows."""
        canvas = self.canvas
        length = z[1] - z[0]
        start = z[0] + 0.08 * length
        door = self._dulled(_rgb(self.style.accent))
        frame = canvas.ink(_rgb(self.style.frame), start, "building", light)
        canvas.wall(x, (start - 0.1, start + 1.15), (0.0, 2.5), frame)
        canvas.wall(x, (start, start + 1.05), (0.0, 2.25), canvas.ink(door, start, "door", light))
        self.counts["door"] += 1
        self._opening(x, (z[0] + 0.40 * length, z[0] + 0.88 * length), (0.85, 2.35), 64 * index, light)

    def _windows(self, x: float, z: tuple[float, float], floor: int, index: int, light: float) -> None:
        style = self.style
        step = (z[1] - z[0]) / style.window_columns
        bottom = floor * _FLOOR_M + 0.75
        for column in range(style.window_columns):
            near = z[0] + (column + 0.22) * step
            span = (near, near + 0.56 * step)
            self._opening(x, span, (bottom, bottom + style.window_height), 64 * index + 8 * floor + column + 1, light)

    def _opening(self, x: float, z: tuple[float, float], y: tuple[float, float], index: int, light: float) -> None:
        """A window, or the boards that close it."""
        canvas = self.canvas
        if z[1] < 1.5:
            return
        if self._spread(index, 2) < 0.62 * self.boarded:
            self.counts["boarded"] += 1
            wood = (188, 148, 96) if index % 3 else (166, 124, 74)
            canvas.wall(x, z, y, canvas.ink(wood, z[0], "boarded", light))
            if z[0] < 32.0:
                for share in (0.33, 0.66):
                    seam = y[0] + share * (y[1] - y[0])
                    canvas.wall(x, z, (seam - 0.035, seam + 0.035), canvas.ink((112, 82, 48), z[0], "boarded", light))
            return
        self.counts["window"] += 1
        frame = canvas.ink(_rgb(self.style.frame), z[0], "window", light)
        border = 0.10
        canvas.wall(x, (z[0] - border, z[1] + border), (y[0] - 0.16, y[1] + border), frame)
        # Panes mirror the sky by chance: some bright, most dark.
        mirror = 0.35 + 0.65 * self._spread(index, 3) ** 2
        glass = tuple(c * mirror * 0.62 for c in canvas.haze)
        canvas.wall(x, z, y, canvas.ink(glass, z[0], "window", light))
        if z[0] < 26.0:
            middle = (z[0] + z[1]) / 2
            canvas.wall(x, (middle - 0.04, middle + 0.04), y, frame)
            sash = (y[0] + y[1]) / 2
            canvas.wall(x, z, (sash - 0.04, sash + 0.04), frame)

    # --- objects ---

    def _furniture(self) -> None:
        """Trees, hedges, lamps, cars and litter, from far to near."""
        rng = self.rng
        strokes: list[tuple[float, str, int, int]] = []
        for side in (-1, 1):
            wanted = self.vegetation * 6.0 - 0.8 + (0.5 if side > 0 else 0.0)
            for k in range(round(max(0.0, wanted))):
                strokes.append(((13.0, 21.0, 31.0, 9.5, 44.0, 60.0)[k] + rng.uniform(-1, 1.5), "tree", side, k))
            for k in range(9):
                if self._spread(2 * k + (side > 0), 4) < 0.9 * self.vegetation - 0.1:
                    strokes.append((6.0 + 5.0 * k, "hedge", side, k))
            for k in range(8):
                if self._spread(2 * k + (side > 0), 5) < 0.08 + 0.80 * self.cars:
                    strokes.append((6.8 + 5.6 * k + rng.uniform(-0.3, 0.3), "car", side, k))
            strokes += [(18.0 + 22.0 * k, "lamp", side, k) for k in range(2)]
        for k in range(round(26 * self.litter**1.2)):
            strokes.append((4.6 + 13.0 * rng.random() ** 1.6, "litter", 1 - 2 * (k % 2), k))
        strokes.sort(reverse=True)
        draw = {"tree": self._tree, "hedge": self._hedge, "car": self._car, "lamp": self._lamp, "litter": self._litter}
        for z, kind, side, k in strokes:
            draw[kind](z, side, k)

    def _tree(self, z: float, side: int, k: int) -> None:
        canvas, rng = self.canvas, self.rng
        self.counts["vegetation"] += 1
        x = self.kerb[side] + side * 0.75
        trunk = 2.3
        radius = (1.1 + 1.0 * self.vegetation) * rng.uniform(0.9, 1.15)
        canvas.front((x - 0.14, x + 0.14), (0.0, trunk + radius), z, canvas.ink((82, 66, 52), z, "vegetation"))
        hue = rng.uniform(-12, 14)
        leaves = rng.uniform(-0.8, 0.8, (11, 2))
        leaves = leaves[np.argsort(leaves[:, 1])]
        for dx, dy in leaves:
            shade = 0.72 + 0.30 * (dy + 0.8) / 1.6 + (0.07 if dx * side < 0 else 0.0)
            ink = canvas.ink((88 + hue, 128 + 0.3 * hue, 58), z, "vegetation", shade)
            canvas.disc(x + dx * radius, trunk + radius * (1.0 + dy), z, radius * 0.48, ink)

    def _hedge(self, z: float, side: int, k: int) -> None:
        canvas = self.canvas
        self.counts["vegetation"] += 1
        x = self.path[side] + side * 0.1 if self.style.setback else self.walls[side] - side * 0.45
        depth, high = (z, z + 3.6), 0.5 + 0.75 * self.vegetation
        light = self.light[side]
        canvas.front((x, x + side * 0.45), (0, high), z, canvas.ink((66, 98, 46), z, "vegetation", 0.85))
        canvas.wall(x, depth, (0, high), canvas.ink((72, 110, 50), z, "vegetation", light))
        canvas.ground((x, x + side * 0.45), depth, canvas.ink((104, 144, 70), z, "vegetation"), y=high)

    def _lamp(self, z: float, side: int, k: int) -> None:
        canvas = self.canvas
        x = self.kerb[side] + side * 0.35
        ink = canvas.ink((72, 78, 80), z, "lamp")
        canvas.front((x - 0.07, x + 0.07), (0.0, 6.2), z, ink)
        canvas.front((x - side * 1.1, x), (6.1, 6.25), z, ink)
        canvas.front((x - side * 1.3, x - side * 0.8), (6.0, 6.15), z, canvas.ink((236, 230, 200), z, "lamp"))
        self.counts["lamp"] += 1

    def _car(self, z: float, side: int, k: int) -> None:
        """A parked car: on the left its rear towards us, on the right its front (traffic keeps left)."""
        canvas, rng = self.canvas, self.rng
        self.counts["car"] += 1
        paint: Colour = _CAR_COLOURS[rng.integers(len(_CAR_COLOURS))]
        if rng.random() < 0.9 * self.decay:
            paint = (112, 84, 62)  # faded and rusty
        kerb = self.kerb[side] - side * 0.22
        x = (kerb - side * 1.75, kerb)  # street face, kerb face
        end = z + 4.2
        glass = canvas.ink((40, 50, 58), z, "car")
        body, dark = canvas.ink(paint, z, "car", 0.92), canvas.ink(paint, z, "car", 0.70)
        tyre = canvas.ink((22, 22, 24), z, "car")
        canvas.ground((x[0] - side * 0.15, x[1]), (z - 0.15, end), canvas.ink((52, 52, 56), z, "road"))
        for wheel in (z + 0.75, end - 0.75):
            canvas.shape(((x[0], 0, wheel - 0.33), (x[0], 0.62, wheel - 0.33), (x[0], 0.62, wheel + 0.33), (x[0], 0, wheel + 0.33)), tyre)
        for edge in (x[0], x[1]):
            canvas.front((edge, edge + (0.22 if edge == min(x) else -0.22)), (0.0, 0.4), z, tyre)
        # Along the street: lower body, then the cabin with its windows.
        canvas.wall(x[0], (z, end), (0.30, 0.88), dark)
        inner = x[0] + side * 0.14
        cabin = (z + (0.35 if side < 0 else 1.15), end - (1.15 if side < 0 else 0.35))
        canvas.ground(x, (z, end), body, y=0.88)
        canvas.shape(
            ((x[0], 0.88, cabin[0] - 0.2), (inner, 1.42, cabin[0] + 0.25), (inner, 1.42, cabin[1] - 0.35), (x[0], 0.88, cabin[1] + 0.2)),
            glass,
        )
        outer = x[1] - side * 0.14
        back = z + (0.06 if side < 0 else 0.95)
        canvas.shape(((x[0], 0.88, back), (x[1], 0.88, back), (outer, 1.42, cabin[0] + 0.2), (inner, 1.42, cabin[0] + 0.2)), glass)
        canvas.ground((inner, outer), (cabin[0] + 0.2, cabin[1] - 0.3), body, y=1.42)
        # The face towards the camera: bumper, lights, plate.
        canvas.front(x, (0.28, 0.88), z, body)
        canvas.front(x, (0.28, 0.42), z, canvas.ink((44, 46, 50), z, "car"))
        lamp = (206, 34, 30) if side < 0 else (250, 246, 224)
        plate = (238, 206, 60) if side < 0 else (240, 240, 236)  # British plates: yellow behind, white before
        for edge in x:
            inward = 0.34 if edge == min(x) else -0.34
            canvas.front((edge, edge + inward), (0.60, 0.78), z, canvas.ink(lamp, z, "car"))
        middle = (x[0] + x[1]) / 2
        canvas.front((middle - 0.28, middle + 0.28), (0.46, 0.58), z, canvas.ink(plate, z, "car"))

    def _litter(self, z: float, side: int, k: int) -> None:
        canvas, rng = self.canvas, self.rng
        self.counts["litter"] += 1
        x = self.kerb[side] + side * rng.uniform(-1.0, 1.9)
        colour = _LITTER_COLOURS[k % len(_LITTER_COLOURS)]
        ink = canvas.ink(colour, z, "litter")
        if sum(colour) < 100:  # a bin bag
            size = rng.uniform(0.26, 0.40)
            canvas.disc(x, size * 0.8, z, size, ink, squash=0.85)
            canvas.disc(x - size * 0.2, size * 1.2, z, size * 0.3, canvas.ink((96, 98, 104), z, "litter"))
        else:
            size = rng.uniform(0.14, 0.26)
            turn = rng.uniform(0.3, 1.0)
            canvas.shape(
                (
                    (x - size, 0.02, z),
                    (x - size * 0.2, 0.02 + size * turn, z + 0.1),
                    (x + size, size * 0.5, z + 0.15),
                    (x + size * 0.5, 0.0, z - 0.1),
                ),
                ink,
            )

    # --- texture ---

    def textured(self, pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Courses of brick, stains, patched asphalt, leaves, and the grain of a sensor, on the reduced picture."""
        width, height = self.size
        columns = np.arange(width, dtype=np.float32) - np.float32(self.vanishing[0])
        rows = (np.arange(height, dtype=np.float32) - np.float32(self.vanishing[1]))[:, None]
        x_wall = np.where(columns < 0, -self.walls[-1], self.walls[1]).astype(np.float32)
        # One pixel's ray meets the wall at depth z and height y, or the ground at depth z and offset x.
        z_wall = np.minimum(np.float32(self.focal) * x_wall / np.maximum(np.abs(columns), 1.0), _FAR_M)
        y_wall = _CAMERA_M - rows * (z_wall / np.float32(self.focal))
        z_ground = np.float32(self.focal * _CAMERA_M) / np.maximum(rows, 0.5)
        is_building = mask == _INDEX["building"]
        is_ground = (mask == _INDEX["road"]) | (mask == _INDEX["pavement"])
        gain = np.ones((height, width), np.float32)
        field = _stain_field()
        offset = self.rng.integers(0, 512, 2)

        if self.style.finish != "render":
            course = 0.30 if self.style.finish == "brick" else 0.62
            shown = np.clip((np.float32(self.focal * course) / z_wall - 2.0) / 5.0, 0, 1) * 0.16
            row_number = np.floor(y_wall / course)
            joint = np.maximum(
                np.cos(y_wall * np.float32(2 * np.pi / course)),
                np.cos((z_wall / np.float32(2 * course) + 0.5 * row_number) * np.float32(2 * np.pi)) - 0.15,
            )
            gain = np.where(is_building, gain - shown * np.maximum(joint - 0.55, 0) * 2.2, gain)

        def sampled(u: np.ndarray, v: np.ndarray, per_metre: tuple[float, float]) -> np.ndarray:
            i = (u * per_metre[0]).astype(np.int32) + offset[0]
            j = (v * per_metre[1]).astype(np.int32) + offset[1]
            return field[i & 511, j & 511]

        depth = np.broadcast_to(np.where(is_building, z_wall, z_ground), (height, width))
        across = np.where(is_building, y_wall, columns * (z_ground / np.float32(self.focal)))
        stain = sampled(depth, across, (26.0, 11.0))
        # Damp runs down walls, asphalt is patched: both where the field is high, more of it with decay.
        stained = np.clip(stain - (1.5 - 1.9 * self.decay), 0, 1.2) * np.float32(0.16 + 0.22 * self.decay)
        gain -= np.where(is_building, stained, np.where(is_ground, 0.7 * stained, 0))
        grain = _grain_field()
        row, column = self.rng.integers(0, 512, 2)
        noise = _window(grain, int(row), int(column), height, width)
        leafy = np.where(mask == _INDEX["vegetation"], np.float32(0.13), np.float32(0.022))
        gain += noise * leafy
        gain *= np.float32(self.rng.uniform(0.95, 1.05))
        return np.clip(pixels * gain[..., None], 0, 255).astype(np.uint8)


def _rgb(colour: str) -> Colour:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _window(field: np.ndarray, row: int, column: int, height: int, width: int) -> np.ndarray:
    """A (height, width) piece of a field that repeats."""
    if row + height <= field.shape[0] and column + width <= field.shape[1]:
        return field[row : row + height, column : column + width]
    return field[np.ix_(np.arange(row, row + height) % len(field), np.arange(column, column + width) % field.shape[1])]


def _smooth_noise(sigma: float, size: int, seed: int) -> np.ndarray:
    """A field (size, size) of unit variance that repeats without a seam."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), sigma, mode="wrap")
    return ((field - field.mean()) / field.std()).astype(np.float32)


@lru_cache(maxsize=1)
def _stain_field() -> np.ndarray:
    return 0.75 * _smooth_noise(9.0, 512, 1) + 0.65 * _smooth_noise(2.5, 512, 2)


@lru_cache(maxsize=1)
def _cloud_field() -> np.ndarray:
    return 0.18 * (_smooth_noise(7.0, 320, 3) + 0.5 * _smooth_noise(3.0, 320, 4))


@lru_cache(maxsize=1)
def _grain_field() -> np.ndarray:
    return np.tile(_smooth_noise(0.6, 512, 5), (2, 2))
