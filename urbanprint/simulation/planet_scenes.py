"""Roadside scenes of the simulated planet: what a place's cues look like.

What belongs here is how each cue is drawn. Houses, cars and lamps are those of `street.py`. Every picture is drawn as
where traffic keeps left; where it keeps right it is the mirror image.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from PIL import Image
from scipy.special import ndtr

from urbanprint.simulation.canvas import CLASS_INDEX, FAR_M, SCALE, Colour, rgb, smooth_noise
from urbanprint.simulation.scenes import Scene
from urbanprint.simulation.street import Street
from urbanprint.simulation.styles import Style, View

_Gradient = tuple[Colour, ...]
_Stroke = Callable[[float, int, np.ndarray], None]

_SKY: _Gradient = ((70, 176, 190), (92, 156, 222), (128, 112, 205))
_CLEAR, _HAZY = (128, 184, 236), (246, 222, 178)
_SOIL: _Gradient = ((172, 70, 42), (212, 176, 112), (150, 146, 138), (74, 66, 62))
_FOLIAGE: _Gradient = ((168, 156, 66), (88, 136, 50), (28, 84, 66))
_WALL: _Gradient = ((196, 78, 66), (224, 178, 84), (138, 178, 112), (98, 146, 200), (176, 120, 182))
_ROOF: _Gradient = ((190, 82, 50), (132, 96, 84), (70, 84, 104))
_LINE: _Gradient = ((242, 242, 240), (242, 186, 30))
_BOLLARD: _Gradient = ((222, 34, 34), (244, 206, 40), (40, 168, 70), (36, 74, 210))
_TRIM: _Gradient = ((170, 36, 36), (236, 232, 224), (34, 62, 150))
_WHITE, _SUN = (244, 244, 242), (255.0, 250.0, 226.0)

# Half an outline of a tree's crown: shares of its half width, shares of the tree's height.
_CROWNS = np.array(
    [
        [(0.72, 0.08), (0.50, 0.32), (0.32, 0.56), (0.15, 0.80), (0.0, 1.0)],  # conifer
        [(0.35, 0.28), (0.95, 0.42), (1.05, 0.66), (0.65, 0.92), (0.0, 1.0)],  # broadleaf
        [(0.10, 0.66), (1.30, 0.70), (1.35, 0.80), (0.85, 0.95), (0.0, 1.0)],  # an umbrella, as of acacias
    ]
)
_ELEVATION = (12.0, 78.0)  # degrees, of the sun
_LONGEST_SHADOW_M = 12.0
_HOUSE_M, _GAP_M, _SETBACK_M, _SHOULDER_M = 8.0, 8.0, 2.6, 1.7
_PLOT_M = _HOUSE_M + _GAP_M
_POST_M, _POST_OFF_M = 1.2, 0.6
_STOREY_M = 2.9  # as `street.py` builds
_TRAFFIC = 0.75  # of one direction, that a car is seen
# What else a street can show, which tells of no place.
_NEAT = {"vegetation": 0.0, "cars": 0.0, "litter": -9.0, "shutters": -9.0, "boarded": -9.0, "decay": -2.0}


@dataclass(frozen=True)
class RoadsideView(View):
    """All that a roadside picture is drawn from; `sun` is its azimuth in degrees clockwise from straight ahead.

    `cues`, about standard normal, are drawn by the share of the normal distribution below them:
    elevation   of the sun: warm light and long shadows -> pale light and short ones
    crown       conifer -> broadleaf -> umbrella
    vegetation  few trees on bare soil -> many on green fields; foliage: yellow -> green -> dark blue-green
    soil        red -> sand -> grey -> black
    sky         cyan -> blue -> violet; haze: clear -> milky
    line        white -> yellow; dashes: short -> unbroken; edge: width of the lines along the edges
    road        dark -> pale
    bollard     red -> yellow -> green -> blue
    wall        red -> ochre -> green -> blue -> mauve; shade: dark -> light; roof: tiles -> slate
    storeys     one -> four; windows: low and few -> high and many
    trim        red -> white -> blue frames and doors
    """

    side: int
    sun: float
    cues: Mapping[str, float]


def roadside_view(
    image_id: str, *, seed: int, plan: int, side: int, sun: float, cues: Mapping[str, float]
) -> RoadsideView:
    """The view of an image; `plan` is the seed of its drive's layout."""
    share = _shares(cues)
    wall, trim = _blend(_WALL, share["wall"]), _blend(_TRIM, share["trim"])
    light = 0.5 + 0.6 * share["shade"]
    grey = 58 + 90 * share["road"]
    style = Style(
        wall=_hex(_scaled(wall, light)),
        wall_second=_hex(_scaled(wall, 0.94 * light)),
        accent=_hex(_scaled(trim, 0.8)),
        frame=_hex(trim),
        roof=_hex(_blend(_ROOF, share["roof"])),
        sky_top=_hex(_blend(_SKY, share["sky"])),
        sky_low=_hex(_blend((_CLEAR, _HAZY), share["haze"])),
        road=_hex((grey, grey, grey)),
        pavement=_hex(_blend(_SOIL, share["soil"])),
        finish="render",
        floors=1,
        window_columns=2 + round(1.6 * share["windows"]),
        window_height=round(0.8 + 1.2 * share["windows"], 2),
        unit_width=_HOUSE_M,
        setback=_SETBACK_M,
        shop_share=0.0,
        horizon=0.5,
        cast=(1.0, 1.0, 1.0),
        plan=plan,
    )
    return RoadsideView(image_id=image_id, seed=seed, style=style, side=side, sun=sun, cues=cues, **_NEAT)


def render_roadside(view: RoadsideView, *, width: int = 128, height: int = 96) -> Scene:
    """Draw `view`; the same view and size give the same pixels."""
    rng = np.random.default_rng([view.seed, int(view.image_id)])
    road = Roadside(view, width=width, height=height, rng=rng)
    road.draw()
    canvas = road.canvas.image
    mask = np.asarray(canvas)[::SCALE, ::SCALE, 3]
    pixels = np.asarray(canvas.reduce(SCALE))[..., :3] * road.daylight
    pixels += rng.normal(0.0, 2.5, (height, width, 1)).astype(np.float32)
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    mirrored = slice(None, None, 1 if view.side < 0 else -1)
    return Scene(pixels=pixels[:, mirrored].copy(), mask=mask[:, mirrored].copy(), counts=dict(road.counts))


class Roadside(Street):
    """One view being drawn, as where traffic keeps left."""

    def __init__(self, view: RoadsideView, *, width: int, height: int, rng: np.random.Generator) -> None:
        self.share = _shares(view.cues)
        self.sun = np.radians(view.sun if view.side < 0 else -view.sun)
        low, high = _ELEVATION
        self.elevation = np.radians(low + (high - low) * self.share["elevation"])
        super().__init__(view, width=width, height=height, rng=rng)
        # Walls on the left are lit by a sun on the right.
        lit = 0.20 * np.sin(self.sun) * np.cos(self.elevation)
        self.light = {-1: 0.95 + lit, 1: 0.95 - lit}
        self.sunny = 1.12 if self.sun % (2 * np.pi) < np.pi else 0.82  # the right half of a tree
        self.soil, self.asphalt = rgb(view.style.pavement), rgb(view.style.road)
        self.leaf = _blend(_FOLIAGE, self.share["foliage"])
        self.field = _blend((self.soil, self.leaf), 0.85 * self.share["vegetation"])
        self.paint = _blend(_BOLLARD, self.share["bollard"])
        crown = 2 * self.share["crown"]
        lower = min(int(crown), 1)
        outline = _CROWNS[lower] + (crown - lower) * (_CROWNS[lower + 1] - _CROWNS[lower])
        self.crown: list[tuple[float, float]] = outline.tolist()
        up = self.share["elevation"]
        warm = np.array([1.06, 0.93 + 0.07 * up, 0.76 + 0.24 * up], np.float32)
        self.daylight = np.float32(0.84 + 0.16 * up) * warm

    def _sky(self, style: Style) -> Image.Image:
        # Made small and enlarged: a sky has no fine detail.
        small = (48, 36)
        scale = small[0] / self.size[0]
        right = np.arange(small[0]) + 0.5 - scale * self.vanishing[0]
        up = (scale * self.vanishing[1] - np.arange(small[1]) - 0.5)[:, None]
        down = np.clip(1 - up / (scale * self.vanishing[1]), 0, 1)[..., None]
        top, low = np.array(rgb(style.sky_top)), np.array(rgb(style.sky_low))
        row, column = self.plan.integers(0, 192, 2)
        cover = np.clip(_clouds()[row : row + small[1], column : column + small[0], None], 0, 0.7)
        sky = top + (low - top) * down**1.3
        sky = sky + (250.0 - sky) * cover
        # The cosine of the angle between the ray of a pixel and the sun.
        level = np.cos(self.elevation)
        ahead, aside, above = level * np.cos(self.sun), level * np.sin(self.sun), np.sin(self.elevation)
        focal = scale * self.focal
        near = np.clip((focal * ahead + right * aside + up * above) / np.sqrt(focal**2 + right**2 + up**2), 0, 1)
        glow = np.clip(0.5 * near**8 + near**400, 0, 1)[..., None]
        classed = np.full((small[1], small[0], 4), CLASS_INDEX["sky"], np.uint8)
        classed[..., :3] = sky + (_SUN - sky) * glow
        full = (self.size[0] * SCALE, self.size[1] * SCALE)
        return Image.frombytes("RGBX", small, classed.tobytes()).resize(full, Image.Resampling.BILINEAR)

    def _ground(self) -> None:
        canvas = self.canvas
        far = 3 * FAR_M
        ridge = [(x, 4 + 14 * y, far) for x, y in zip(range(-340, 341, 85), self.plan.random(9).tolist(), strict=True)]
        canvas.shape(((-340, -6, far), *ridge, (340, -6, far)), canvas.ink(self.field, far / 2, "vegetation"))
        for near, end in ((1.2, 9.0), (9.0, 22.0), (22.0, 50.0), (50.0, FAR_M)):
            depth, middle = (near, end * 1.01), (near * end) ** 0.5
            canvas.ground((-300.0, 300.0), depth, canvas.ink(self.field, middle, "vegetation"))
            shoulders = (self.kerb[-1] - _SHOULDER_M, self.kerb[1] + _SHOULDER_M)
            canvas.ground(shoulders, depth, canvas.ink(self.soil, middle, "pavement"))
            canvas.ground((self.kerb[-1], self.kerb[1]), depth, canvas.ink(self.asphalt, middle, "road"))

    def _markings(self) -> None:
        canvas = self.canvas
        centre = (self.kerb[-1] + self.kerb[1]) / 2
        line, period = _blend(_LINE, self.share["line"]), 7.0
        painted = period * (0.12 + 0.88 * self.share["dashes"])
        start = 1.5 + period * self.plan.random() + self.ahead
        for k in range(-1, 9):
            near, end = max(start + period * k, 1.3), start + period * k + painted
            if near < end:
                canvas.ground((centre - 0.13, centre + 0.13), (near, end), canvas.ink(line, near, "marking"))
        width = 0.34 * self.share["edge"]
        for side in (-1, 1) if width > 0.04 else ():
            x = self.kerb[side] - side * 0.3
            canvas.ground((x, x - side * width), (1.3, 70.0), canvas.ink(_WHITE, 9.0, "marking"))

    def _row(self, side: int) -> None:
        """Nothing: houses stand among the trees, see `_furniture`."""

    def _furniture(self) -> None:
        """Shadows, markings, then houses, trees, posts and cars from far to near."""
        strokes: list[tuple[float, int, np.ndarray, _Stroke]] = []
        for side in (-1, 1):
            luck = self.luck[:64] if side < 0 else self.luck[64:]
            first = 8.0 + 5.0 * luck[0, 0] + self.ahead
            strokes += [(first + _PLOT_M * k, side, luck[k], self._home) for k in range(3)]
            for k in range(4):
                gap = first + _PLOT_M * (k - 1) + _HOUSE_M
                strokes += [
                    (gap + _GAP_M * (number + 0.2 + 0.6 * own[1]) / 3, side, own, self._tree)
                    for number, own in enumerate(luck[8 + 3 * k : 11 + 3 * k])
                    if own[2] < 1.1 * self.share["vegetation"]
                ]
            strokes += [(4.4 + 6.0 * k + self.ahead, side, luck[0], self._post) for k in range(6)]
            if self.rng.random() < _TRAFFIC:
                strokes.append((float(self.rng.uniform(8.0, 30.0)), side, luck[40], self._car))
        strokes = [stroke for stroke in strokes if stroke[0] > 2.5]
        for z, side, luck, draw in strokes:
            if z < 24.0 and draw == self._post:
                self._shade(self.kerb[side] + side * _POST_OFF_M, z, 0.17, _POST_M)
            elif z < 24.0 and draw == self._tree:
                x, height = self._trunk(side, luck)
                self._shade(x, z, 0.15 * height, height)
        # Over the shadows: paint that hardly shows would tell nothing.
        self._markings()
        for z, side, luck, draw in sorted(strokes, key=lambda stroke: -stroke[0]):
            draw(z, side, luck)

    def _home(self, z: float, side: int, luck: np.ndarray) -> None:
        floors = 1 + int(3 * self.share["storeys"] + luck[3])
        colour = rgb(self.style.wall if luck[4] < 0.5 else self.style.wall_second)
        self._house(side, int(64 * luck[5]), (z, z + _HOUSE_M), floors, 0.95 + 0.1 * luck[6], colour)
        # From the road little is seen of a roof: its eaves, and a gable clad like it.
        canvas, x, top = self.canvas, self.walls[side], floors * _STOREY_M + 0.5
        clad = canvas.ink(self.roof, z, "roof", self.light[side])
        canvas.wall(x, (z, z + _HOUSE_M), (top - 0.9, top), clad)
        canvas.shape(((x, top, z), (x + side * 4.5, top + 2.6, z), (x + side * 9.0, top, z)), clad)

    def _trunk(self, side: int, luck: np.ndarray) -> tuple[float, float]:
        """Where a tree stands across the street, and its height."""
        return float(self.kerb[side] + side * (2.4 + 3.0 * luck[3])), float(4.6 + 2.4 * luck[4])

    def _tree(self, z: float, side: int, luck: np.ndarray) -> None:
        canvas = self.canvas
        self.counts["vegetation"] += 1
        x, height = self._trunk(side, luck)
        canvas.front((x - 0.16, x + 0.16), (0.0, 0.72 * height), z, canvas.ink((84, 66, 50), z, "vegetation"))
        half, leaf = 0.36 * height, _scaled(self.leaf, 0.85 + 0.3 * luck[5])
        for turn, light in ((half, self.sunny), (-half, 1.94 - self.sunny)):
            outline = [(x + turn * dx, height * y, z) for dx, y in self.crown]
            canvas.shape(((x, outline[0][1], z), *outline), canvas.ink(leaf, z, "vegetation", light))

    def _post(self, z: float, side: int, _luck: np.ndarray) -> None:
        """A bollard: its colour with a white band."""
        canvas = self.canvas
        self.counts["lamp"] += 1
        x = self.kerb[side] + side * _POST_OFF_M
        canvas.front((x - 0.17, x + 0.17), (0.0, _POST_M), z, canvas.ink(self.paint, z, "lamp"))
        canvas.front((x - 0.17, x + 0.17), (0.72, 0.92), z, canvas.ink(_WHITE, z, "lamp"))

    def _shade(self, x: float, z: float, half: float, height: float) -> None:
        """The strip of ground in the shade of something upright, in the colours of what it falls on."""
        length = min(height / np.tan(self.elevation), _LONGEST_SHADOW_M)
        sine, cosine = float(np.sin(self.sun)), float(np.cos(self.sun))
        # Never nearer than the camera sees.
        length = min(length, (z - 1.3) / cosine) if cosine > 0 else length
        left, right = self.kerb[-1], self.kerb[1]
        borders = (left - _SHOULDER_M, left, right, right + _SHOULDER_M)
        cuts = [(x - border) / sine for border in borders] if sine else []
        for start, end in pairwise(sorted([0.0, length, *(cut for cut in cuts if 0 < cut < length)])):
            middle = x - sine * (start + end) / 2
            colour, name = self.field, "vegetation"
            if left < middle < right:
                colour, name = self.asphalt, "road"
            elif borders[0] < middle < borders[3]:
                colour, name = self.soil, "pavement"
            corners = [(start, -half), (start, half), (end, half), (end, -half)]
            self.canvas.shape(
                (
                    (x - sine * along + cosine * off, 0.0, max(z - cosine * along - sine * off, 1.2))
                    for along, off in corners
                ),
                self.canvas.ink(colour, z, name, 0.6),
            )


def _shares(cues: Mapping[str, float]) -> dict[str, float]:
    """Cue -> the share of the standard normal distribution below it."""
    return dict(zip(cues, ndtr(list(cues.values())).tolist(), strict=True))


def _blend(stops: tuple[Colour, ...], share: float) -> Colour:
    """The colour at `share` of the way along a gradient."""
    place = share * (len(stops) - 1)
    lower = min(int(place), len(stops) - 2)
    red, green, blue = (a + (place - lower) * (b - a) for a, b in zip(stops[lower], stops[lower + 1], strict=True))
    return red, green, blue


def _scaled(colour: Colour, light: float) -> Colour:
    return colour[0] * light, colour[1] * light, colour[2] * light


def _hex(colour: Colour) -> str:
    return "#" + "".join(f"{min(round(channel), 255):02x}" for channel in colour)


@lru_cache(maxsize=1)
def _clouds() -> np.ndarray:
    return 0.15 * smooth_noise(5.0, 256, 6)
