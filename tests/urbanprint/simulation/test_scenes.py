"""Scenes show what their view says, and the mask is the truth about the pixels."""

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from scipy.stats import spearmanr

from urbanprint.simulation.scenes import CLASSES, CUE_CLASSES, Scene, jpeg, render
from urbanprint.simulation.town import Town, build_town


@pytest.fixture(scope="module")
def town() -> Town:
    return build_town()


@pytest.fixture(scope="module")
def scenes(town: Town) -> dict[str, Scene]:
    """The first view of every third area."""
    firsts = town.images.drop_duplicates("area_id").iloc[::3]
    return {row.area_id: render(town.view(row.image_id)) for row in firsts.itertuples()}


def share(scene: Scene, name: str) -> float:
    return float((scene.mask == CLASSES.index(name)).mean())


def test_a_view_is_drawn_the_same_every_time(town: Town) -> None:
    view = town.view(town.images["image_id"].iloc[0])
    first, second = render(view), render(view)
    assert_array_equal(first.pixels, second.pixels)
    assert_array_equal(first.mask, second.mask)
    assert first.counts == second.counts
    assert jpeg(first) == jpeg(second)


@pytest.mark.parametrize(("width", "height"), [(256, 192), (64, 48), (512, 384), (250, 190)])
def test_size_is_as_asked(town: Town, width: int, height: int) -> None:
    scene = render(town.view(town.images["image_id"].iloc[3]), width=width, height=height)
    assert scene.pixels.shape == (height, width, 3)
    assert scene.pixels.dtype == np.uint8
    assert scene.mask.shape == (height, width)
    assert scene.mask.max() < len(CLASSES)


def test_jpeg_is_the_picture(town: Town) -> None:
    scene = render(town.view(town.images["image_id"].iloc[5]))
    with Image.open(io.BytesIO(jpeg(scene))) as image:
        assert image.format == "JPEG"
        decoded = np.asarray(image).astype(float)
    assert np.abs(decoded - scene.pixels).mean() < 8


def test_the_mask_is_the_truth_about_the_pixels(scenes: dict[str, Scene]) -> None:
    def mean_colour(name: str) -> np.ndarray:
        index = CLASSES.index(name)
        return np.concatenate([scene.pixels[scene.mask == index] for scene in scenes.values()]).mean(axis=0)

    red, green, blue = mean_colour("vegetation")
    assert green > 1.2 * red
    assert green > 1.5 * blue
    red, _, blue = mean_colour("boarded")
    assert red > 1.3 * blue
    assert mean_colour("sky").mean() > mean_colour("road").mean() + 30
    assert mean_colour("marking").mean() > mean_colour("road").mean() + 30


def test_sky_is_above_and_road_below(scenes: dict[str, Scene]) -> None:
    for scene in scenes.values():
        assert CLASSES.index("sky") not in scene.mask[-20:]
        assert CLASSES.index("road") not in scene.mask[:20]


@pytest.mark.parametrize(
    ("cue", "name"),
    [
        ("vegetation", "vegetation"),
        ("litter", "litter"),
        ("shutters", "shutter"),
        ("boarded", "boarded"),
        ("cars", "car"),
    ],
)
def test_more_of_a_cue_shows_more_of_its_class(town: Town, cue: str, name: str) -> None:
    for image_id in town.images["image_id"].iloc[:6]:
        view = town.view(image_id)
        drawn = [render(replace(view, **{cue: amount})) for amount in (-1.8, 0.0, 1.8)]
        counts = [scene.counts.get(name, 0) for scene in drawn]
        assert counts[0] < counts[2]
        assert counts == sorted(counts)
        assert share(drawn[0], name) < share(drawn[2], name)


def test_decay_dulls_the_buildings(town: Town) -> None:
    building = CLASSES.index("building")
    for image_id in town.images["image_id"].iloc[:6]:
        view = town.view(image_id)
        kept, neglected = (render(replace(view, decay=amount)) for amount in (-1.8, 1.8))
        assert neglected.pixels[neglected.mask == building].mean() < kept.pixels[kept.mask == building].mean() - 8


def test_cue_classes_follow_the_visible_latent(town: Town, scenes: dict[str, Scene]) -> None:
    visible = town.truth.set_index("area_id")["visible"].loc[list(scenes)]
    for name in CUE_CLASSES:
        correlation = spearmanr([share(scene, name) for scene in scenes.values()], visible).statistic
        assert correlation < -0.5 if name == "vegetation" else correlation > 0.3, (name, correlation)
    litter = [scene.counts.get("litter", 0) for scene in scenes.values()]
    assert spearmanr(litter, visible).statistic > 0.5


def test_traffic_keeps_left(town: Town) -> None:
    """Parked cars on the left show red rear lights and yellow plates, those on the right white ones."""
    car = CLASSES.index("car")
    left = right = 0
    for image_id in town.images["image_id"].iloc[:40:4]:
        scene = render(replace(town.view(image_id), cars=2.0, decay=-2.0))
        red, green, blue = (scene.pixels[..., channel].astype(int) for channel in range(3))
        yellow = (scene.mask == car) & (red > 150) & (green > 120) & (blue < 100)
        left += yellow[:, :128].sum()
        right += yellow[:, 128:].sum()
    assert left > 200
    assert right < 0.1 * left


def test_an_area_is_recognised_from_another_view(town: Town) -> None:
    """What an image-level split leaks: the nearest other picture is of the same area."""
    rows = town.images.groupby("area_id").head(2).iloc[:80]
    coarse = np.stack(
        [
            np.asarray(Image.fromarray(render(town.view(image_id), width=128, height=96).pixels).resize((16, 12)))
            for image_id in rows["image_id"]
        ]
    )
    flat = coarse.reshape(len(rows), -1).astype(float)
    distance = ((flat[:, None] - flat[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    area = rows["area_id"].to_numpy()
    assert (area[distance.argmin(axis=1)] == area).mean() > 0.8
