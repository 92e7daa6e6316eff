"""The street of a view: its plan, its houses and what stands in it, stroke by stroke.

What belongs here is what is drawn and how much of it: the plan comes from the area's style and is the same in all
its views, the amounts come from the view's cues. Traffic keeps left.
"""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy.special import ndtr

from urbanprint.simulation.canvas import CLASS_INDEX, FAR_M, SCALE, Canvas, Colour, Span, rgb, smooth_noise
from urbanprint.simulation.styles import Style, View

_FLOOR_M = 2.9
_GOLDEN = 0.6180339887498949
_CAR_COLOURS = ((196, 200, 205), (36, 40, 46), (120, 128, 138), (32, 62, 118), (150, 28, 34), (228, 230, 230))
_SCRAP_COLOURS = ((244, 244, 240), (244, 244, 240), (214, 54, 48), (58, 112, 196), (240, 196, 60))
_TREE_SLOTS_M = (13.0, 21.0, 31.0, 10.0, 44.0, 60.0)

_SACK = (
    *((-1.0, 0.0), (-1.05, 0.5), (-0.7, 1.05), (-0.15, 1.3), (-0.25, 1.65)),
    *((0.25, 1.65), (0.15, 1.3), (0.7, 1.0), (1.05, 0.45), (0.95, 0.0)),
)
# What the streams of `_Street._spread` decide.
_SHUTTERS, _SHOPS, _BOARDS, _PANES, _HEDGES, _CARS = range(6)

_Stroke = Callable[[float, int, np.ndarray], None]


class Street:
    """One view being drawn: amounts of each cue in [0, 1], the plan of the street, and the strokes."""

    def __init__(self, view: View, *, width: int, height: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.style: Style = view.style
        self.size = (width, height)
        cues = (view.vegetation, view.litter, view.shutters, view.boarded, view.decay, view.cars)
        self.vegetation, self.litter, self.shutters, self.boarded, self.decay, self.cars = map(float, ndtr(cues))
        self.counts: Counter[str] = Counter()
        # The street itself is the area's: its views stand a few metres apart in it, as those of one drive do.
        plan = np.random.default_rng(view.style.plan)
        across, horizon = plan.uniform(0.42, 0.56) + rng.uniform(-0.008, 0.008), rng.uniform(-0.005, 0.005)
        self.vanishing = (width * across, height * (view.style.horizon + horizon))
        self.focal = 0.75 * width
        self.kerb = {-1: -plan.uniform(3.1, 3.7), 1: plan.uniform(5.0, 5.9)}
        pavement = plan.uniform(2.1, 2.7)
        self.walls = {side: self.kerb[side] + side * (pavement + view.style.setback) for side in (-1, 1)}
        self.path = {side: self.kerb[side] + side * pavement for side in (-1, 1)}
        self.bright = int(plan.integers(2)) * 2 - 1  # the sunny side
        self.light = {self.bright: 1.06, -self.bright: 0.82}
        self.phase = plan.random(6)
        self.luck = plan.random((128, 48))  # a row an object: its colour, shape and place
        self.plan = plan
        self.ahead = rng.uniform(-0.45, 0.45)  # metres along the street
        # Neglect dulls paint: colours move towards a sooty grey.
        self.dull = 0.45 * self.decay
        self.roof, self.accent = self._dulled(rgb(view.style.roof)), self._dulled(rgb(view.style.accent))
        sky = self._sky(view.style)
        self.canvas = Canvas(
            sky,
            vanishing=(self.vanishing[0] * SCALE, self.vanishing[1] * SCALE),
            focal=self.focal * SCALE,
            haze=rgb(view.style.sky_low),
        )

    def draw(self) -> None:
        """All strokes, from far to near."""
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

    def _sky(self, style: Style) -> Image.Image:
        # Made small and enlarged: a sky has no fine detail.
        small = (64, 48)
        down = np.clip(np.linspace(0, self.size[1] / self.vanishing[1], small[1]), 0, 1)[:, None, None]
        top, low = np.array(rgb(style.sky_top)), np.array(rgb(style.sky_low))
        row, column = self.plan.integers(0, 256, 2)
        cover = np.clip(_cloud_field()[row : row + small[1], column : column + small[0], None], 0, 0.75)
        sky = top + (low - top) * down**1.3
        sky = sky + (250.0 - sky) * cover
        full = (self.size[0] * SCALE, self.size[1] * SCALE)
        classed = np.full((small[1], small[0], 4), CLASS_INDEX["sky"], np.uint8)
        classed[..., :3] = sky
        return Image.frombytes("RGBX", small, classed.tobytes()).resize(full, Image.Resampling.BILINEAR)

    def _ground(self) -> None:
        canvas, style = self.canvas, self.style
        road = self._dulled(rgb(style.road))
        paving = self._dulled(rgb(style.pavement))
        for near, far in ((1.2, 9.0), (9.0, 22.0), (22.0, 50.0), (50.0, FAR_M)):
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
        houses = canvas.ink((120, 126, 118), 70.0, "building")
        canvas.front((self.walls[-1], self.walls[1]), (0.0, 6.0), FAR_M, houses)
        trees = canvas.ink((84, 112, 74), 75.0, "vegetation")
        for k in range(round(7 * self.vegetation)):
            canvas.disc(self.walls[-1] + 1.5 + 2.2 * k, 3.2, FAR_M, 2.4, trees)

    def _garden(self, side: int, x: Span, depth: Span, middle: float) -> None:
        """A front garden: lawn where there is much vegetation, paved over where there is little."""
        if self.vegetation > 0.45:
            self.canvas.ground(x, depth, self.canvas.ink((92, 128, 60), middle, "vegetation", self.light[side]))
        else:
            self.canvas.ground(x, depth, self.canvas.ink((138, 132, 124), middle, "pavement", 0.9))

    def _markings(self) -> None:
        canvas = self.canvas
        centre = (self.kerb[-1] + self.kerb[1]) / 2
        worn = 236 - 70 * self.decay
        start = self.plan.uniform(3.0, 5.0) + self.ahead
        zebra = self.plan.uniform(9.0, 16.0) + self.ahead if self.plan.random() < 0.2 else None
        for k in range(18):
            z = start + 5.2 * k
            if zebra is None or not zebra - 3 < z < zebra + 4:
                paint = canvas.ink((worn, worn, worn), z, "marking")
                canvas.ground((centre - 0.07, centre + 0.07), (z, z + 2.6), paint)
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
        rng, style = self.plan, self.style
        ends = [rng.uniform(3.0, 5.0)]
        while ends[-1] < 80.0:
            ends.append(ends[-1] + style.unit_width * rng.uniform(0.85, 1.15))
        ends = [*(end + self.ahead for end in ends), FAR_M]
        jitter, paint = rng.uniform(0.85, 1.12, len(ends)), rng.random((len(ends), 1))
        first, second = np.array(rgb(style.wall)), np.array(rgb(style.wall_second))
        colours = first + (second - first) * paint
        floors = np.clip(style.floors + rng.choice([-1, 0, 0, 0, 1], len(ends)), 2, 5)
        for unit in range(len(ends) - 2, -1, -1):
            colour = self._dulled(tuple(colours[unit].tolist()))
            self._house(side, unit, (ends[unit], ends[unit + 1]), int(floors[unit]), float(jitter[unit]), colour)

    def _house(self, side: int, unit: int, z: Span, floors: int, jitter: float, colour: Colour) -> None:
        canvas, style, x = self.canvas, self.style, self.walls[side]
        middle = (z[0] * z[1]) ** 0.5
        light = self.light[side] * jitter
        top = floors * _FLOOR_M + 0.5
        back = x + side * 9.0
        ridge = (x + side * 4.5, top + 2.6)
        canvas.shape(
            ((x, top, z[0]), (x, top, z[1]), (ridge[0], ridge[1], z[1]), (ridge[0], ridge[1], z[0])),
            canvas.ink(self.roof, middle, "roof", light),
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
        if z[0] > 52.0:
            return
        canvas.wall(x, z, (top - 0.35, top), canvas.ink(rgb(style.frame), middle, "building", 0.9 * light))
        index = 2 * unit + (side > 0)
        shuttered = self._spread(index, _SHUTTERS) < 0.85 * self.shutters
        is_shop = shuttered or self._spread(index, _SHOPS) < style.shop_share
        if is_shop:
            self._shop(x, z, light, self.luck[index % 64], shuttered=shuttered)
        else:
            self._ground_floor(x, z, index, light)
        for floor in range(1, floors):
            self._windows(x, z, floor, index, light)

    def _shop(self, x: float, z: Span, light: float, luck: np.ndarray, *, shuttered: bool) -> None:
        canvas = self.canvas
        margin = 0.06 * (z[1] - z[0])
        span = (z[0] + margin, z[1] - margin)
        middle = (z[0] * z[1]) ** 0.5
        canvas.wall(x, span, (2.45, 3.05), canvas.ink(self.accent, middle, "shop", light))
        if not shuttered:
            glow = 0.85 + 0.3 * luck[0]
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
        if z[0] < 40.0 and luck[0] < 0.35 + 0.6 * self.decay:
            self._graffiti(x, span, light, luck)

    def _graffiti(self, x: float, span: Span, light: float, luck: np.ndarray) -> None:
        canvas = self.canvas
        z = span[0] + (span[1] - span[0]) * np.linspace(0.15, 0.8, 7)
        y = 1.1 + 0.55 * np.sin(np.arange(7) * 2.1 + 6 * luck[1]) * (0.6 + 0.4 * luck[2:9])
        colour = ((200, 40, 110), (30, 90, 180), (30, 30, 34), (220, 120, 20))[int(4 * luck[9])]
        ink = canvas.ink(colour, span[0], "shutter", light)
        points = [canvas.at(x, float(b), float(a)) for a, b in zip(z, y, strict=True)]
        canvas.pen.line(points, ink, width=max(1, int(0.11 * canvas.focal / span[0])), joint="curve")

    def _ground_floor(self, x: float, z: Span, index: int, light: float) -> None:
        """A front door and ground-floor windows."""
        canvas = self.canvas
        length = z[1] - z[0]
        start = z[0] + 0.08 * length
        frame = canvas.ink(rgb(self.style.frame), start, "building", light)
        canvas.wall(x, (start - 0.1, start + 1.15), (0.0, 2.5), frame)
        canvas.wall(x, (start, start + 1.05), (0.0, 2.25), canvas.ink(self.accent, start, "door", light))
        self.counts["door"] += 1
        self._opening(x, (z[0] + 0.40 * length, z[0] + 0.88 * length), (0.85, 2.35), 64 * index, light)

    def _windows(self, x: float, z: Span, floor: int, index: int, light: float) -> None:
        style = self.style
        step = (z[1] - z[0]) / style.window_columns
        bottom = floor * _FLOOR_M + 0.75
        for column in range(style.window_columns):
            near = z[0] + (column + 0.22) * step
            span = (near, near + 0.56 * step)
            self._opening(x, span, (bottom, bottom + style.window_height), 64 * index + 8 * floor + column + 1, light)

    def _opening(self, x: float, z: Span, y: Span, index: int, light: float) -> None:
        """A window, or the boards that close it."""
        canvas = self.canvas
        if z[1] < 1.5:
            return
        if self._spread(index, _BOARDS) < 0.62 * self.boarded:
            self.counts["boarded"] += 1
            wood = (188, 148, 96) if index % 3 else (166, 124, 74)
            canvas.wall(x, z, y, canvas.ink(wood, z[0], "boarded", light))
            if z[0] < 32.0:
                for share in (0.33, 0.66):
                    seam = y[0] + share * (y[1] - y[0])
                    canvas.wall(x, z, (seam - 0.035, seam + 0.035), canvas.ink((112, 82, 48), z[0], "boarded", light))
            return
        self.counts["window"] += 1
        frame = canvas.ink(rgb(self.style.frame), z[0], "window", light)
        border = 0.10
        canvas.wall(x, (z[0] - border, z[1] + border), (y[0] - 0.16, y[1] + border), frame)
        # Panes mirror the sky by chance: some bright, most dark.
        mirror = 0.35 + 0.65 * self._spread(index, _PANES) ** 2
        red, green, blue = canvas.haze
        mirror *= 0.62
        glass = (red * mirror, green * mirror, blue * mirror)
        canvas.wall(x, z, y, canvas.ink(glass, z[0], "window", light))
        if z[0] < 26.0:
            middle = (z[0] + z[1]) / 2
            canvas.wall(x, (middle - 0.04, middle + 0.04), y, frame)
            sash = (y[0] + y[1]) / 2
            canvas.wall(x, z, (sash - 0.04, sash + 0.04), frame)

    # --- objects ---

    def _furniture(self) -> None:
        """Trees, hedges, lamps, cars and litter, from far to near."""
        strokes: list[tuple[float, int, np.ndarray, _Stroke]] = []
        for side in (-1, 1):
            even = side > 0
            trees = round(max(0.0, self.vegetation * 6.0 - 0.8 + 0.5 * even))
            hedged, parked = 0.9 * self.vegetation - 0.1, 0.08 + 0.80 * self.cars
            lucky = self.luck[64 + even : 128 : 2]
            strokes += [
                (z + self.ahead + 2.5 * luck[0] - 1, side, luck, self._tree)
                for z, luck in zip(_TREE_SLOTS_M[:trees], lucky[:6], strict=False)
            ]
            strokes += [
                (6.0 + 5.0 * k + self.ahead, side, self.luck[0], self._hedge)
                for k in range(9)
                if self._spread(2 * k + even, _HEDGES) < hedged
            ]
            strokes += [
                (6.8 + 5.6 * k + self.ahead + 0.6 * luck[0], side, luck, self._car)
                for k, luck in enumerate(lucky[6:14])
                if self._spread(2 * k + even, _CARS) < parked
            ]
            strokes += [(18.0 + 22.0 * k + self.ahead, side, self.luck[0], self._lamp) for k in range(2)]
        strokes += [
            (4.8 + 13.0 * luck[0] ** 1.6 + self.ahead, 1 - 2 * (k % 2), luck, self._bag if k % 3 == 2 else self._scrap)
            for k, luck in enumerate(self.luck[96 : 96 + round(26 * self.litter**1.2)])
        ]
        for z, side, luck, draw in sorted(strokes, key=lambda stroke: -stroke[0]):
            draw(float(z), side, luck)

    def _tree(self, z: float, side: int, luck: np.ndarray) -> None:
        canvas = self.canvas
        self.counts["vegetation"] += 1
        x = self.kerb[side] + side * 0.75
        radius = float((1.05 + 0.95 * self.vegetation) * (0.9 + 0.25 * luck[1]))
        centre = 2.3 + radius
        canvas.disc(x, 0.0, z, radius * 0.8, canvas.ink((58, 60, 58), z, "pavement"), squash=0.16)
        canvas.front((x - 0.12, x + 0.12), (0.0, centre), z, canvas.ink((82, 66, 52), z, "vegetation"))
        hue = float(26 * luck[2] - 12)
        green = (86 + hue, 126 + 0.3 * hue, 56)
        canvas.disc(x, centre, z, radius * 0.95, canvas.ink(green, z, "vegetation", 0.78))
        clumps = 21 if z < 26 else 9
        turn, out = 2 * np.pi * luck[3 : 3 + clumps], np.sqrt(luck[24 : 24 + clumps])
        for up, right in sorted(zip((out * np.sin(turn)).tolist(), (out * np.cos(turn)).tolist(), strict=True)):
            shade = 0.90 + 0.22 * up - 0.10 * right * self.bright
            ink = canvas.ink(green, z, "vegetation", shade)
            canvas.disc(x + right * radius * 0.85, centre + up * radius * 0.85, z, radius * 0.34, ink)

    def _hedge(self, z: float, side: int, _luck: np.ndarray) -> None:
        canvas = self.canvas
        self.counts["vegetation"] += 1
        x = self.path[side] + side * 0.1 if self.style.setback else self.walls[side] - side * 0.45
        depth, high = (z, z + 3.6), 0.5 + 0.75 * self.vegetation
        light = self.light[side]
        canvas.front((x, x + side * 0.45), (0, high), z, canvas.ink((66, 98, 46), z, "vegetation", 0.85))
        canvas.wall(x, depth, (0, high), canvas.ink((72, 110, 50), z, "vegetation", light))
        canvas.ground((x, x + side * 0.45), depth, canvas.ink((104, 144, 70), z, "vegetation"), y=high)

    def _lamp(self, z: float, side: int, _luck: np.ndarray) -> None:
        canvas = self.canvas
        x = self.kerb[side] + side * 0.35
        ink = canvas.ink((72, 78, 80), z, "lamp")
        canvas.front((x - 0.07, x + 0.07), (0.0, 6.2), z, ink)
        canvas.front((x - side * 1.1, x), (6.1, 6.25), z, ink)
        canvas.front((x - side * 1.3, x - side * 0.8), (6.0, 6.15), z, canvas.ink((236, 230, 200), z, "lamp"))
        self.counts["lamp"] += 1

    def _car(self, z: float, side: int, luck: np.ndarray) -> None:
        """A parked car: on the left its rear towards us, on the right its front (traffic keeps left)."""
        canvas = self.canvas
        self.counts["car"] += 1
        paint = self._dulled(_CAR_COLOURS[int(len(_CAR_COLOURS) * luck[1])])
        if luck[2] < 0.5 * self.decay:
            paint = (118, 92, 70)  # faded and rusty
        kerb = self.kerb[side] - side * 0.22
        x = (kerb - side * 1.75, kerb)  # street face, kerb face
        low, waist, top, end = 0.24, 0.86, 1.42, z + 4.2
        inner, outer = x[0] + side * 0.16, x[1] - side * 0.16
        # Windscreen and rear window slope; the bonnet is the longer end.
        tail, bonnet = 0.35, 1.15
        near, far = (tail, bonnet) if side < 0 else (bonnet, tail)
        glass = canvas.ink((38, 48, 56), z, "car")
        body, shade = canvas.ink(paint, z, "car"), canvas.ink(paint, z, "car", 0.72)
        tyre = canvas.ink((20, 20, 22), z, "car")
        canvas.ground((x[0] - side * 0.25, x[1]), (z - 0.2, end), canvas.ink((44, 44, 48), z, "road"))
        for edge in x:
            canvas.front((edge, edge + (0.24 if edge == min(x) else -0.24)), (0.0, 0.45), z + 0.3, tyre)
        canvas.wall(x[0], (z, end), (low, waist), shade)
        if z < 30.0:
            for wheel in (z + 0.78, end - 0.78):
                canvas.wheel(x[0], wheel, 0.34, tyre)
                canvas.wheel(x[0], wheel, 0.18, canvas.ink((150, 152, 156), z, "car"))
        canvas.ground(x, (z, end), body, y=waist)
        side_glass = ((x[0], waist, z + near), (inner, top, z + near + 0.45), (inner, top, end - far - 0.45))
        canvas.shape((*side_glass, (x[0], waist, end - far)), glass)
        screen = ((x[0], waist, z + near), (x[1], waist, z + near), (outer, top, z + near + 0.45))
        canvas.shape((*screen, (inner, top, z + near + 0.45)), glass)
        canvas.ground((inner, outer), (z + near + 0.42, end - far - 0.42), body, y=top)
        pillar = (z + near + 1.25, z + near + 1.37)
        canvas.shape(
            ((x[0], waist, pillar[0]), (inner, top, pillar[0]), (inner, top, pillar[1]), (x[0], waist, pillar[1])),
            shade,
        )
        # The face towards the camera: bumper, lights, plate.
        canvas.front(x, (low, waist), z, canvas.ink(paint, z, "car", 0.88))
        canvas.front(x, (low, 0.40), z, canvas.ink((44, 46, 50), z, "car"))
        lamp = (206, 34, 30) if side < 0 else (250, 246, 224)
        plate = (238, 206, 60) if side < 0 else (240, 240, 236)  # British plates: yellow behind, white before
        for edge in x:
            inward = 0.34 if edge == min(x) else -0.34
            canvas.front((edge, edge + inward), (0.58, 0.76), z, canvas.ink(lamp, z, "car"))
        middle = (x[0] + x[1]) / 2
        canvas.front((middle - 0.28, middle + 0.28), (0.44, 0.56), z, canvas.ink(plate, z, "car"))

    def _bag(self, z: float, side: int, luck: np.ndarray) -> None:
        """A bin bag: a sagging sack with a knot."""
        canvas = self.canvas
        self.counts["litter"] += 1
        x, size = self.kerb[side] + side * (0.3 + 1.6 * luck[1]), 0.30 + 0.14 * luck[2]
        ink = canvas.ink((34, 36, 42), z, "litter")
        canvas.shape(((x + size * dx, size * y, z) for dx, y in _SACK), ink)
        gleam = ((-0.6, 0.5), (-0.4, 0.95), (-0.2, 0.9), (-0.35, 0.45))
        canvas.shape(((x + size * dx, size * y, z) for dx, y in gleam), canvas.ink((92, 96, 104), z, "litter"))

    def _scrap(self, z: float, side: int, luck: np.ndarray) -> None:
        """Paper, a can, a box: something small and bright."""
        canvas = self.canvas
        self.counts["litter"] += 1
        x = self.kerb[side] + side * (2.9 * luck[1] - 1.0)
        size, turn = 0.14 + 0.12 * luck[2], 0.3 + 0.7 * luck[3]
        corners = ((-1.0, 0.02, 0.0), (-0.2, size * turn, 0.1), (1.0, size * 0.5, 0.15), (0.5, 0.0, -0.1))
        ink = canvas.ink(_SCRAP_COLOURS[int(len(_SCRAP_COLOURS) * luck[4])], z, "litter")
        canvas.shape(((x + size * dx, y, z + dz) for dx, y, dz in corners), ink)


@lru_cache(maxsize=1)
def _cloud_field() -> np.ndarray:
    return 0.17 * (smooth_noise(7.0, 320, 3) + 0.35 * smooth_noise(4.0, 320, 4))
