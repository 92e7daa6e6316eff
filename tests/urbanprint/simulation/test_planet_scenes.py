"""Roadside scenes show every cue of their place, at the size a small network is shown, and traffic on its side."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from urbanprint.simulation.canvas import CLASSES
from urbanprint.simulation.planet import Planet, build_planet
from urbanprint.simulation.planet_ground import CUES
from urbanprint.simulation.planet_scenes import RoadsideView, render_roadside, roadside_view
from urbanprint.simulation.scenes import Scene, jpeg

FLAT = dict.fromkeys(CUES, 0.0)
SHOWN = ("sky", "building", "roof", "window", "door", "vegetation", "pavement", "road", "marking", "car", "lamp")


@pytest.fixture(scope="module")
def planet() -> Planet:
    return build_planet(images=600)


def view(number: int, *, side: int = -1, sun: float = 30.0, **cues: float) -> RoadsideView:
    """A view whose cues are as given, all others average."""
    return roadside_view(str(number), seed=0, plan=number, side=side, sun=sun, cues={**FLAT, **cues})


def of_class(scene: Scene, name: str) -> np.ndarray:
    """Where the class is, bool (height, width)."""
    return scene.mask == CLASSES.index(name)


def features(scene: Scene) -> list[float]:
    """Of every class: its share, its mean colour, its mean and highest row, and the share of columns with it."""
    values: list[float] = []
    for name in SHOWN:
        where = of_class(scene, name)
        rows = np.nonzero(where)[0] / len(where) if where.any() else np.zeros(1)
        colour = scene.pixels[where].mean(axis=0) / 255 if where.any() else np.zeros(3)
        values += [where.mean(), *colour, rows.mean(), rows.min(), where.any(axis=0).mean()]
    return values


def across(scene: Scene) -> float:
    """Columns from the middle of the picture to the paint in front of the camera, positive to the right."""
    return float(np.nonzero(of_class(scene, "marking")[-8:])[1].mean() - (scene.mask.shape[1] - 1) / 2)


def test_a_view_is_drawn_the_same_every_time(planet: Planet) -> None:
    name = planet.images["image_id"].iloc[0]
    first, second = (render_roadside(planet.view(name)) for _ in range(2))
    assert_array_equal(first.pixels, second.pixels)
    assert_array_equal(first.mask, second.mask)
    assert first.counts == second.counts
    assert jpeg(first) == jpeg(second)


@pytest.mark.parametrize(("width", "height"), [(128, 96), (64, 48), (256, 192), (250, 190)])
def test_size_is_as_asked(planet: Planet, width: int, height: int) -> None:
    scene = render_roadside(planet.view(planet.images["image_id"].iloc[3]), width=width, height=height)
    assert scene.pixels.shape == (height, width, 3)
    assert scene.pixels.dtype == np.uint8
    assert scene.mask.shape == (height, width)
    assert set(np.unique(scene.mask)) <= {CLASSES.index(name) for name in SHOWN}


def test_every_place_passes_the_filter_for_dark_pictures(planet: Planet) -> None:
    """A picture whose mean grey is below 40 is taken for one of the night."""
    names = planet.images.drop_duplicates("sequence_id")["image_id"]
    assert min(render_roadside(planet.view(name), width=64, height=48).pixels.mean() for name in names) > 50


def test_where_traffic_keeps_right_is_the_mirror_image_of_where_it_keeps_left() -> None:
    left = render_roadside(view(5, side=-1, sun=50.0))
    right = render_roadside(view(5, side=1, sun=-50.0))
    assert_array_equal(left.pixels[:, ::-1], right.pixels)
    assert_array_equal(left.mask[:, ::-1], right.mask)


@pytest.mark.parametrize("side", [-1, 1])
def test_the_camera_drives_on_the_side_of_its_country(side: int) -> None:
    """The middle of the road is on the other side of the camera, and so are the cars that come towards it."""
    red, white = np.zeros(2), np.zeros(2)
    for number in range(40):
        scene = render_roadside(view(number, side=side, dashes=3.0, edge=-3.0))
        assert side * across(scene) < 0
        red_of, green, blue = (scene.pixels[..., channel].astype(int) for channel in range(3))
        rear = of_class(scene, "car") & (red_of > 150) & (green < 70) & (blue < 70)
        front = of_class(scene, "car") & (red_of > 190) & (green > 190) & (blue > 150) & (blue < green - 6)
        for half, columns in enumerate((slice(None, 64), slice(64, None))):
            red[half] += rear[:, columns].sum()
            white[half] += front[:, columns].sum()
    own, other = (0, 1) if side < 0 else (1, 0)
    assert red[own] > 2 * red[other]
    assert white[other] > 2 * white[own]


def test_the_planets_pictures_show_the_side_its_images_name(planet: Planet) -> None:
    for image in planet.images.iloc[::12].itertuples():
        seen = planet.view(image.image_id)
        assert seen.side == image.side
        unbroken = {**seen.cues, "dashes": 3.0, "edge": -3.0}
        assert across(render_roadside(replace(seen, cues=unbroken))) * image.side < 0


def test_every_cue_can_be_read_from_64_pixels() -> None:
    """A linear probe on colours and sizes, on pictures whose cues are drawn apart from each other and from any place.

    A cue that only its place betrayed would fail here.
    """
    rng = np.random.default_rng(0)
    cues = rng.normal(size=(500, len(CUES)))
    sides, suns = rng.choice([-1, 1], 500), rng.uniform(0, 360, 500)
    seen = np.array(
        [
            features(
                render_roadside(
                    view(number, side=int(sides[number]), sun=suns[number], **dict(zip(CUES, row, strict=True))),
                    width=64,
                    height=48,
                )
            )
            for number, row in enumerate(cues)
        ]
    )
    probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 3, 9)))
    read = cross_val_predict(probe, seen, cues, cv=KFold(5, shuffle=True, random_state=0))
    correlation = {cue: np.corrcoef(read[:, k], cues[:, k])[0, 1] for k, cue in enumerate(CUES)}
    assert min(correlation.values()) > 0.6, correlation


@pytest.mark.parametrize(
    ("cue", "name", "channel"),
    [
        ("line", "marking", "yellow"),
        ("soil", "pavement", "unred"),
        ("road", "road", "bright"),
        ("shade", "building", "bright"),
        ("roof", "roof", "unred"),
        ("foliage", "vegetation", "unred"),
    ],
)
def test_a_cue_colours_what_it_is_said_to(cue: str, name: str, channel: str) -> None:
    def amount(value: float) -> float:
        scene = render_roadside(view(3, **{cue: value, "edge": -3.0, "vegetation": 1.0}))
        red, green, blue = scene.pixels[of_class(scene, name)].mean(axis=0)
        return float({"yellow": red + green - 2 * blue, "unred": blue - red, "bright": red + green + blue}[channel])

    amounts = [amount(value) for value in (-2.0, 0.0, 2.0)]
    assert amounts == sorted(amounts)
    assert amounts[2] > amounts[0] + 15


@pytest.mark.parametrize(
    ("cue", "name"),
    [("vegetation", "vegetation"), ("storeys", "building"), ("windows", "window"), ("dashes", "marking")],
)
def test_more_of_a_cue_shows_more_of_its_class(cue: str, name: str) -> None:
    for number in range(4):
        shares = [of_class(render_roadside(view(number, **{cue: value})), name).mean() for value in (-1.8, 0.0, 1.8)]
        assert shares[0] < shares[1] < shares[2]


def test_the_sun_brightens_its_part_of_the_sky_and_a_high_one_shortens_shadows() -> None:
    low = render_roadside(view(2, sun=25.0, elevation=-2.0))
    brightness, sky = low.pixels.mean(axis=2), of_class(low, "sky")
    assert brightness[:, 72:][sky[:, 72:]].mean() > brightness[:, :56][sky[:, :56]].mean() + 10

    def shaded(elevation: float) -> float:
        scene = render_roadside(view(2, sun=90.0, elevation=elevation, vegetation=1.5))
        asphalt = scene.pixels.mean(axis=2)[of_class(scene, "road")]
        return float((asphalt < 0.75 * np.quantile(asphalt, 0.9)).mean())

    assert shaded(-1.0) > shaded(0.5) + 0.1


def test_images_of_a_drive_resemble_each_other_more_than_those_of_other_drives(planet: Planet) -> None:
    """What a split by images would leak."""
    rows = planet.images.groupby("sequence_id").head(2).iloc[:120]
    coarse = np.stack(
        [render_roadside(planet.view(name), width=64, height=48).pixels[::4, ::4] for name in rows["image_id"]]
    )
    flat = coarse.reshape(len(rows), -1).astype(float)
    distance = ((flat[:, None] - flat[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    drive = rows["sequence_id"].to_numpy()
    assert (drive[distance.argmin(axis=1)] == drive).mean() > 0.5
