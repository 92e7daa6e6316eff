"""How an area looks whatever its deprivation, and what a single view is drawn from."""

import colorsys
from dataclasses import dataclass
from typing import Literal

import numpy as np

Finish = Literal["brick", "render", "stone"]


@dataclass(frozen=True)
class Style:
    """The look of an area, unrelated to deprivation: colours are "#rrggbb", lengths metres.

    `cast` is the colour balance of the camera that was there, `plan` the seed of the street's own layout.
    """

    wall: str
    wall_second: str
    accent: str
    frame: str
    roof: str
    sky_top: str
    sky_low: str
    road: str
    pavement: str
    finish: Finish
    floors: int
    window_columns: int
    window_height: float
    unit_width: float
    setback: float
    shop_share: float
    horizon: float
    cast: tuple[float, float, float]
    plan: int


@dataclass(frozen=True)
class View:
    """All that a picture is drawn from: cues are standard normal, `seed` fixes every other choice."""

    image_id: str
    seed: int
    style: Style
    vegetation: float
    litter: float
    shutters: float
    boarded: float
    decay: float
    cars: float


def _hex(hue: float, saturation: float, value: float) -> str:
    return "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hsv_to_rgb(hue % 1, saturation, value))


def random_style(rng: np.random.Generator) -> Style:
    """A style drawn without regard to anything else."""
    finish: Finish = (["brick", "render", "stone"] * 2)[rng.integers(6)]  # type: ignore[assignment]
    if finish == "brick":
        wall = (rng.uniform(-0.03, 0.12), rng.uniform(0.25, 0.62), rng.uniform(0.45, 0.80))
    elif finish == "render":
        wall = (rng.uniform(0, 1), rng.uniform(0.08, 0.45), rng.uniform(0.68, 0.95))
    else:
        wall = (rng.uniform(0.05, 0.70), rng.uniform(0.05, 0.25), rng.uniform(0.50, 0.80))
    paler = min(wall[2] * rng.uniform(0.8, 1.2), 1.0)
    second = (wall[0] + rng.uniform(-0.15, 0.15), wall[1] * rng.uniform(0.5, 1.3), paler)
    slate_or_tile = 0.6 if rng.random() < 0.5 else rng.uniform(-0.02, 0.08)
    sky = (rng.uniform(0.50, 0.68), rng.uniform(0.05, 0.60), rng.uniform(0.55, 0.95))
    low = (rng.choice([0.08, 0.58]) + rng.uniform(-0.06, 0.06), rng.uniform(0.02, 0.32), rng.uniform(0.75, 0.98))
    warmth = round(float(rng.uniform(0.90, 1.12)), 3)
    return Style(
        wall=_hex(*wall),
        wall_second=_hex(*second),
        accent=_hex(rng.uniform(0, 1), rng.uniform(0.45, 0.9), rng.uniform(0.35, 0.85)),
        frame=_hex(rng.uniform(0, 1), rng.uniform(0.0, 0.15), rng.choice([0.25, 0.92])),
        roof=_hex(slate_or_tile, rng.uniform(0.05, 0.45), rng.uniform(0.25, 0.55)),
        sky_top=_hex(*sky),
        sky_low=_hex(*low),
        road=_hex(rng.uniform(0, 1), rng.uniform(0.0, 0.16), rng.uniform(0.34, 0.62)),
        pavement=_hex(rng.uniform(0.0, 0.20), rng.uniform(0.0, 0.35), rng.uniform(0.50, 0.85)),
        finish=finish,
        floors=int(rng.integers(2, 5)),
        window_columns=int(rng.integers(2, 4)),
        window_height=round(float(rng.uniform(1.2, 1.9)), 2),
        unit_width=round(float(rng.uniform(5.5, 8.5)), 2),
        setback=round(float(rng.choice([0.0, 1.6, 2.6])), 2),
        shop_share=round(float(rng.uniform(0.1, 0.6)), 2),
        horizon=round(float(rng.uniform(0.46, 0.56)), 3),
        cast=(warmth, 1.0, round(float(rng.uniform(0.86, 1.10)), 3)),
        plan=int(rng.integers(2**31)),
    )
