"""Parts of images: whole groups, strangers to each other, and a guard that does not trust whoever made them."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from urbanprint.errors import InputError, LeakingSplit, MissingImages
from urbanprint.geolocation.parts import check_parts, deal_parts

WGS84 = Geod(ellps="WGS84")
SEEDS = st.integers(0, 10_000)


def scattered(seed: int, *, images: int = 60, spread: float = 0.12) -> pd.DataFrame:
    """Images over about 13 km around a place anywhere on Earth, in sequences of three; one has none."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform(-179, 179), rng.uniform(-80, 80)
    table = pd.DataFrame(
        {
            "image_id": [f"i{number:03d}" for number in rng.permutation(images)],
            "sequence_id": [f"s{number // 3}" for number in range(images)],
            "longitude": middle[0] + rng.uniform(0, spread, images) / np.cos(np.radians(middle[1])),
            "latitude": middle[1] + rng.uniform(0, spread, images),
            "sha256": [f"h{number}" for number in range(images)],
        }
    )
    table["longitude"] = (table["longitude"] + 180) % 360 - 180
    table.loc[0, "sequence_id"] = None
    return table


def leaks(images: pd.DataFrame, parts: pd.Series, apart_m: float) -> bool:
    """Whether two images of different parts know each other, looked for pair by pair."""
    rows: list[dict[str, Any]] = images.fillna({"sequence_id": "none"}).to_dict("records")  # type: ignore[assignment]
    for (one, here), (other, there) in combinations(list(zip(rows, parts, strict=True)), 2):
        if here == there:
            continue
        _, _, distance = WGS84.inv(one["longitude"], one["latitude"], other["longitude"], other["latitude"])
        if distance < apart_m or any(one[unit] == other[unit] for unit in ("sequence_id", "sha256")):
            return True
    return False


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, apart_m=st.sampled_from([200.0, 400.0]))
def test_no_two_images_of_different_parts_know_each_other(seed: int, apart_m: float) -> None:
    images = scattered(seed)
    parts = deal_parts(images, seed=seed, shares={"train": 0.8, "test": 0.2}, apart_m=apart_m)
    assert not leaks(images, parts, apart_m)
    check_parts(images, parts, apart_m=apart_m)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_the_guard_agrees_with_a_look_at_every_pair(seed: int) -> None:
    images = scattered(seed, images=12, spread=0.2)
    rng = np.random.default_rng(seed)
    of_sequence = dict(zip(images["sequence_id"].unique(), rng.choice(["a", "b"], 5), strict=True))
    parts = images["sequence_id"].map(of_sequence).fillna("a")
    if seed % 3 == 0:
        parts[int(rng.integers(12))] = "b"  # tears a sequence apart
    if leaks(images, parts, 900.0):
        with pytest.raises(LeakingSplit, match="The parts leak"):
            check_parts(images, parts, apart_m=900.0)
    else:
        check_parts(images, parts, apart_m=900.0)


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS)
def test_the_order_of_rows_changes_no_part(seed: int) -> None:
    images = scattered(seed)
    parts = deal_parts(images, seed=3, apart_m=100.0)
    shuffled = images.sample(frac=1, random_state=seed)
    pd.testing.assert_series_equal(deal_parts(shuffled, seed=3, apart_m=100.0).sort_index(), parts)


def far_apart(images: int) -> pd.DataFrame:
    """Images 11 km from each other, each a sequence of its own."""
    number = np.arange(images)
    ids = [f"i{n:04d}" for n in number]
    return pd.DataFrame({"image_id": ids, "sequence_id": ids, "longitude": 0.1 * number, "latitude": 0.0})


def test_parts_have_the_shares_asked_for_and_another_seed_deals_otherwise() -> None:
    images = far_apart(1_000)
    one, other = (deal_parts(images, seed=seed) for seed in (1, 2))
    assert one.value_counts().to_dict() == {"train": 700, "calibration": 150, "test": 150}
    assert 0.4 < (one == other).mean() < 0.7  # by chance 0.7^2 + 2 x 0.15^2 = 0.535


def test_images_in_a_chain_stay_together_however_long_it_is() -> None:
    images = far_apart(100)
    chain = images.index < 40
    images.loc[chain, "longitude"] = -60 + 0.008 * np.arange(40)  # each 890 m from the next, 35 km in all
    assert len(set(deal_parts(images, seed=0)[chain])) == 1
    assert len(set(deal_parts(images, seed=0, apart_m=800.0)[chain])) == 3


def test_a_group_too_large_for_the_small_parts_trains() -> None:
    images = far_apart(100)
    images.loc[images.index < 30, "sequence_id"] = "metropolis"
    for seed in range(20):
        parts = deal_parts(images, seed=seed)
        assert set(parts[:30]) == {"train"}
        assert parts.value_counts().to_dict() == {"train": 70, "calibration": 15, "test": 15}


def test_images_without_a_sequence_are_not_one_sequence() -> None:
    images = far_apart(100).assign(sequence_id=None)
    assert set(deal_parts(images, seed=0)) == {"train", "calibration", "test"}
    check_parts(images, deal_parts(images, seed=0))


def test_distance_is_measured_across_the_antimeridian_and_near_the_poles() -> None:
    images = far_apart(4).assign(longitude=[179.999, -179.999, 0.0, 90.0], latitude=[10.0, 10.0, 89.999, 89.999])
    with pytest.raises(LeakingSplit, match=r"i0000 \(219 m from i0001\)"):
        check_parts(images[:2], pd.Series(["test", "train"]))
    with pytest.raises(LeakingSplit, match=r"i0002 \(158 m from i0003\)"):
        check_parts(images[2:], pd.Series(["test", "train"]))


def test_images_a_kilometre_apart_are_strangers_and_nearer_ones_are_not() -> None:
    longitude, latitude, _ = WGS84.fwd([7.0, 7.0], [50.0, 50.0], [30.0, 30.0], [999.99, 1000.01])
    for place, strangers in zip(zip(longitude, latitude, strict=True), (False, True), strict=True):
        images = far_apart(2).assign(longitude=[7.0, place[0]], latitude=[50.0, place[1]])
        if strangers:
            check_parts(images, pd.Series(["train", "test"]))
        else:
            with pytest.raises(LeakingSplit, match="1 images of 'test' lie nearer than 1000 m to one of 'train'"):
                check_parts(images, pd.Series(["train", "test"]))


def test_a_sequence_and_a_photograph_in_two_parts_are_named() -> None:
    images = far_apart(3).assign(sha256=pd.Series(["x", None, None], dtype="str"))
    parts = pd.Series(["train", "test", "test"])
    with pytest.raises(LeakingSplit, match=r"1 sequence is in several, such as s of image i0000 \(train\) and image i"):
        check_parts(images.assign(sequence_id="s"), parts)
    with pytest.raises(LeakingSplit, match=r"1 photograph is in several, such as x of image i0000 \(train\)"):
        check_parts(images.assign(sha256="x"), parts)
    check_parts(images, parts)


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(MissingImages, match=r"2 images form 2 groups .* too few for a part"):
        deal_parts(far_apart(2), seed=0)
    with pytest.raises(MissingImages, match="There are 0 images"):
        deal_parts(far_apart(0), seed=0)
    with pytest.raises(InputError, match="Image i0001 stands in several rows"):
        deal_parts(far_apart(2).assign(image_id="i0001"), seed=0)
    with pytest.raises(InputError, match="a positive share for each part"):
        deal_parts(far_apart(9), seed=0, shares={"train": 1.0, "test": 0.0})
