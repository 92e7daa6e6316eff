"""The draw of areas and of points: the same whatever the order, never closer than asked."""

import hashlib
from collections import Counter
from itertools import combinations
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from urbanprint.areas import assign
from urbanprint.errors import InputError
from urbanprint.sampling import sample_points, stratify

WGS84 = Geod(ellps="WGS84")
Allocation = Literal["equal", "proportional"]


def _areas(sizes: dict[int, int]) -> pd.DataFrame:
    """A table with `sizes[decile]` areas in each decile."""
    deciles = [decile for decile, size in sizes.items() for _ in range(size)]
    return pd.DataFrame({"area_id": [f"E{number:04d}" for number in range(len(deciles))], "imd_decile": deciles})


def _primaries(sampled: pd.DataFrame) -> dict[int, int]:
    return dict(sorted(Counter(sampled.loc[sampled["role"] == "primary", "stratum"]).items()))


SIZES = st.dictionaries(st.integers(1, 10), st.integers(1, 12), min_size=1)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(0, 1000), st.sampled_from(["equal", "proportional"]), st.data())
def test_the_sample_does_not_depend_on_the_order_of_rows(
    sizes: dict[int, int], seed: int, allocation: Allocation, data: Any
) -> None:
    areas = _areas(sizes)
    size = data.draw(st.integers(1, len(areas)))
    one = stratify(areas, size=size, allocation=allocation, seed=seed)
    two = stratify(areas.sample(frac=1, random_state=seed), size=size, allocation=allocation, seed=seed)
    pd.testing.assert_frame_equal(one, two)
    assert set(one["area_id"]) == set(areas["area_id"])
    assert (one["role"] == "primary").sum() == size
    for _, stratum in one.groupby("stratum"):
        assert stratum["order"].tolist() == list(range(len(stratum)))
        assert stratum["role"].tolist() == sorted(stratum["role"])  # primary before reserve


@settings(max_examples=30, deadline=None)
@given(SIZES, st.data())
def test_equal_allocation_differs_by_more_than_one_only_for_full_strata(sizes: dict[int, int], data: Any) -> None:
    size = data.draw(st.integers(1, sum(sizes.values())))
    taken = _primaries(stratify(_areas(sizes), size=size, allocation="equal", seed=0))
    most = max(taken.values())
    for decile, available in sizes.items():
        assert taken.get(decile, 0) in {available, most, most - 1}


@settings(max_examples=30, deadline=None)
@given(SIZES, st.data())
def test_proportional_allocation_is_within_one_of_the_share(sizes: dict[int, int], data: Any) -> None:
    areas = sum(sizes.values())
    size = data.draw(st.integers(1, areas))
    taken = _primaries(stratify(_areas(sizes), size=size, allocation="proportional", seed=0))
    for decile, available in sizes.items():
        assert abs(taken.get(decile, 0) - size * available / areas) < 1


def test_allocations_of_a_known_city() -> None:
    areas = _areas({1: 2, 2: 10, 5: 30, 10: 58})
    equal = _primaries(stratify(areas, size=41, allocation="equal", seed=1))
    assert equal == {1: 2, 2: 10, 5: 15, 10: 14}
    proportional = _primaries(stratify(areas, size=10, allocation="proportional", seed=1))
    assert proportional == {2: 1, 5: 3, 10: 6}
    assert _primaries(stratify(areas, size="all", allocation="equal", seed=1)) == {1: 2, 2: 10, 5: 30, 10: 58}


def test_the_draw_is_pinned_for_every_machine() -> None:
    """The first of BLAKE2b(seed/area_id); a change here changes every sample ever published."""
    sampled = stratify(_areas({3: 6}), size=2, allocation="equal", seed=42)
    assert sampled["area_id"].tolist() == ["E0002", "E0004", "E0001", "E0005", "E0003", "E0000"]


def test_another_area_does_not_reshuffle_the_others() -> None:
    areas = _areas({4: 30})
    fewer = stratify(areas.iloc[:-1], size=5, allocation="equal", seed=7)["area_id"].tolist()
    more = stratify(areas, size=5, allocation="equal", seed=7)["area_id"].tolist()
    more.remove("E0029")
    assert more == fewer


def test_each_seed_draws_another_sample_and_every_area_has_its_chance() -> None:
    areas = _areas({1: 3})
    firsts = Counter(stratify(areas, size=1, allocation="equal", seed=seed)["area_id"].iloc[0] for seed in range(90))
    # 30 expected each; 4 standard deviations of a binomial are 18.
    assert all(12 < firsts[area_id] < 48 for area_id in areas["area_id"])


def test_strata_follow_the_indicator_asked_for() -> None:
    areas = _areas({1: 4}).assign(crime_decile=[2.0, 2.0, 9.0, 9.0])
    assert _primaries(stratify(areas, size=2, allocation="equal", seed=0, indicator="crime")) == {2: 1, 9: 1}


def test_a_sample_that_cannot_be_is_refused() -> None:
    areas = _areas({1: 4})
    for size in (0, 5):
        with pytest.raises(InputError, match=f"sample of {size} areas was asked for, of 4"):
            stratify(areas, size=size, allocation="equal", seed=0)
    with pytest.raises(InputError, match="'wealth' is no indicator"):
        stratify(areas, size=1, allocation="equal", seed=0, indicator="wealth")
    with pytest.raises(InputError, match="1 areas have no imd decile, such as E0003"):
        stratify(areas.assign(imd_decile=[1, 1, 1, np.nan]), size=1, allocation="equal", seed=0)


# --- points ---

_L = shapely.Polygon([(0, 0), (0.01, 0), (0.01, 0.002), (0.002, 0.002), (0.002, 0.01), (0, 0.01)])
_RING = shapely.Point(0.02, 0.005).buffer(0.004).difference(shapely.Point(0.02, 0.005).buffer(0.0035))
_SLIVER = shapely.Polygon([(0.03, 0), (0.04, 0.01), (0.04, 0.0100001), (0.03, 0.0000001)])
_ISLANDS = shapely.MultiPolygon([shapely.box(0.05, 0, 0.051, 0.001), shapely.box(0.059, 0.009, 0.06, 0.01)])
TOWN = gpd.GeoDataFrame(
    {"area_id": ["L", "ring", "sliver", "islands"]},
    geometry=gpd.GeoSeries([_L, _RING, _SLIVER, _ISLANDS], crs=4326).translate(-0.1, 51.5),
)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(1, 6), st.floats(0, 400), st.permutations(["L", "ring", "sliver", "islands"])
)
def test_points_lie_inside_and_apart_whatever_the_order(
    seed: int, points_per_area: int, spacing_m: float, area_ids: list[str]
) -> None:
    points = sample_points(TOWN, area_ids, points_per_area=points_per_area, spacing_m=spacing_m, seed=seed)
    shuffled = TOWN.iloc[::-1]
    lon, lat = points["longitude"].to_numpy(), points["latitude"].to_numpy()
    assert assign(lon, lat, shuffled).tolist() == points["area_id"].tolist()
    counts = points["area_id"].value_counts()
    assert counts.between(1, points_per_area).all()
    assert len(counts) == 4
    for _, group in points.groupby("area_id"):
        for (_, a), (_, b) in combinations(group.iterrows(), 2):
            assert WGS84.inv(a["longitude"], a["latitude"], b["longitude"], b["latitude"])[2] >= spacing_m
    for area_id in area_ids:
        alone = sample_points(shuffled, [area_id], points_per_area=points_per_area, spacing_m=spacing_m, seed=seed)
        together = points[points["area_id"] == area_id].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, together)


def test_a_small_area_gets_fewer_points_but_always_one() -> None:
    points = sample_points(TOWN, ["L", "islands"], points_per_area=4, spacing_m=2_000, seed=3)
    assert points["point_id"].tolist() == ["L-0", "islands-0"]
    assert len(sample_points(TOWN, ["L"], points_per_area=4, spacing_m=30, seed=3)) == 4


def test_the_first_point_is_pinned_for_every_machine() -> None:
    """Uniform numbers are the first bytes of SHAKE-256(seed/area_id/round); worked out here once more by hand."""
    box = gpd.GeoDataFrame({"area_id": ["box"]}, geometry=[shapely.box(0, 0, 2, 1)], crs=4326)
    point = sample_points(box, ["box"], points_per_area=1, spacing_m=0, seed=9).iloc[0]
    stream = hashlib.shake_256(b"9/box/0").digest(1024)
    across, up = (int.from_bytes(stream[at : at + 8], "little") / 2**64 for at in (0, 512))
    assert point["longitude"] == pytest.approx(2 * across, abs=1e-12)
    assert point["latitude"] == pytest.approx(np.degrees(np.arcsin(up * np.sin(np.radians(1)))), abs=1e-12)


def test_points_are_uniform_by_surface() -> None:
    """From 50 to 70 N, the southern half of the degrees holds 57 % of the surface."""
    box = gpd.GeoDataFrame({"area_id": ["box"]}, geometry=[shapely.box(10, 50, 40, 70)], crs=4326)
    points = pd.concat([sample_points(box, ["box"], points_per_area=250, spacing_m=0, seed=seed) for seed in range(8)])
    sines = np.sin(np.radians([50, 60, 70]))
    expected = (sines[1] - sines[0]) / (sines[2] - sines[0])  # Archimedes' hat-box theorem
    share = (points["latitude"] < 60).mean()
    assert share == pytest.approx(expected, abs=5 * np.sqrt(0.25 / len(points)))
    assert (points["longitude"] < 25).mean() == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / len(points)))


def test_points_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(InputError, match="no area 'elsewhere'"):
        sample_points(TOWN, ["elsewhere"], points_per_area=1, spacing_m=0, seed=0)
    for number, spacing_m in ((0, 10.0), (1, -1.0), (1, float("nan"))):
        with pytest.raises(InputError, match="expected at least 1 and at least 0 m"):
            sample_points(TOWN, ["L"], points_per_area=number, spacing_m=spacing_m, seed=0)
