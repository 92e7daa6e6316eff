"""The guard refuses every split in which training sees the test side, and the folds never need it to."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.model_selection import GroupKFold

from urbanprint.errors import InputError, LeakingSplit
from urbanprint.evaluation.splits import (
    LEVELS,
    Split,
    check_split,
    inner_groups,
    inner_split,
    iter_splits,
    make_folds,
    split_images,
)
from urbanprint.vocabulary import FOLD_KINDS


@pytest.fixture(scope="module")
def town(square_town):
    return square_town()


@pytest.fixture(scope="module")
def folds(town):
    return make_folds(town, folds=4, seed=1, block_m=1500)


def rows(**columns):
    """One row a side; every unit differs unless the test says otherwise."""
    units = {"image_id": "i", "sequence_id": "s", "area_id": "a", "block": "b", "borough": "h"}
    return [pd.DataFrame([{k: columns.get(k, v + side) for k, v in units.items()}]) for side in ("1", "2")]


# The guard


@pytest.mark.parametrize("level", LEVELS)
def test_a_split_that_shares_nothing_passes_at_every_level(level):
    check_split(*rows(), level=level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("column", ["image_id", "sequence_id", "area_id"])
def test_a_shared_image_sequence_or_area_is_refused_at_every_level(level, column):
    with pytest.raises(LeakingSplit, match=rf"The {level} split leaks: 1 {column} value is on both sides: shared"):
        check_split(*rows(**{column: "shared"}), level=level)


@pytest.mark.parametrize(
    ("column", "refused_at"), [("block", {"block"}), ("borough", {"borough"})], ids=["block", "borough"]
)
def test_blocks_and_boroughs_are_held_apart_by_splits_of_their_own_level(column, refused_at):
    train, test = rows(**{column: "shared"})
    for level in LEVELS:
        if level in refused_at:
            with pytest.raises(LeakingSplit, match=f"1 {column} value"):
                check_split(train, test, level=level)
        else:
            check_split(train, test, level=level)


@pytest.mark.parametrize("level", ["image", "sequence"])
def test_a_split_of_images_is_refused_because_labels_live_on_areas(level):
    images = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(20)],
            "sequence_id": [f"s{i}" for i in range(20)],
            "area_id": [f"a{i // 4}" for i in range(20)],
        }
    )
    with pytest.raises(LeakingSplit) as leak:
        check_split(images[::2], images[1::2], level=level)
    assert str(leak.value) == (
        f"The {level} split leaks: 5 area_id values are on both sides: a0 (2 in training, 2 in test),"
        " a1 (2 in training, 2 in test), a2 (2 in training, 2 in test), ...;"
        " keep all images of an area on one side: divide areas (make_folds), then their images (split_images)."
    )


def test_the_same_photograph_under_two_ids_is_refused_and_photographs_not_fetched_are_not_compared():
    train, test = rows()
    with pytest.raises(LeakingSplit, match="1 sha256 value"):
        check_split(train.assign(sha256="f00"), test.assign(sha256="f00"), level="area")
    check_split(train.assign(sha256=None), test.assign(sha256=None), level="area")


def test_a_panorama_counts_as_a_sequence():
    train, test = rows()
    with pytest.raises(LeakingSplit, match="1 panorama_id value"):
        check_split(train.assign(panorama_id="p"), test.assign(panorama_id="p"), level="borough")


def test_ids_read_as_numbers_on_one_side_do_not_hide_a_leak():
    train, test = rows()
    with pytest.raises(LeakingSplit, match="sequence_id"):
        check_split(train.assign(sequence_id=7), test.assign(sequence_id="7"), level="area")


def test_what_cannot_be_judged_is_refused():
    train, test = rows()
    with pytest.raises(InputError, match="1 of 1 training rows have no sequence_id"):
        check_split(train.assign(sequence_id=None), test, level="area")
    with pytest.raises(InputError, match="The test side has no column area_id"):
        check_split(train, test.drop(columns="area_id"), level="image")
    with pytest.raises(InputError, match="The training side has no column borough"):
        check_split(train.drop(columns="borough"), test, level="borough")
    with pytest.raises(InputError, match="'city' is not a level"):
        check_split(train, test, level="city")


def test_the_buffer_names_the_training_areas_that_are_too_near():
    train = pd.DataFrame({"area_id": ["far", "near"], "block": ["b1", "b1"], "x_m": [0.0, 700.0], "y_m": 0.0})
    test = pd.DataFrame({"area_id": ["t"], "block": ["b2"], "x_m": [1000.0], "y_m": [0.0]})
    with pytest.raises(
        LeakingSplit, match=r"1 training areas are nearer than 500 m .* near \(300 m from test area t\)"
    ):
        check_split(train, test, level="block", buffer_m=500)
    check_split(train, test, level="block", buffer_m=300)


# Folds


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 12), block_m=st.sampled_from([500.0, 1100.0, 2500.0]))
def test_every_area_is_tested_once_and_units_stay_whole(town, seed, count, block_m):
    folds = make_folds(town, folds=count, seed=seed, block_m=block_m)
    for kind in FOLD_KINDS:
        of_kind = folds[folds["kind"] == kind]
        assert sorted(of_kind["area_id"]) == sorted(town["area_id"])
        if kind != "random":
            assert of_kind.groupby(kind)["fold"].nunique().eq(1).all()
        sizes = of_kind["fold"].value_counts()
        assert sorted(sizes.index) == list(range(min(count, of_kind[kind].nunique() if kind != "random" else count)))
        largest_unit = 1 if kind == "random" else of_kind[kind].value_counts().max()
        assert sizes.max() - sizes.min() <= largest_unit


def test_folds_do_not_depend_on_the_order_of_rows(town, folds):
    shuffled = make_folds(town.sample(frac=1, random_state=3), folds=4, seed=1, block_m=1500)
    pd.testing.assert_frame_equal(shuffled, folds)


def test_the_seed_moves_random_and_block_folds_and_never_borough_folds(town, folds):
    other = make_folds(town, folds=4, seed=2, block_m=1500)
    moved = (folds["fold"] != other["fold"]).groupby(folds["kind"]).any()
    assert moved.to_dict() == {"random": True, "block": True, "borough": False}


def test_boroughs_are_packed_as_scikit_learn_packs_groups(town):
    names = np.random.default_rng(5).choice(list("abcdefghijk"), size=len(town), p=np.arange(1, 12) / 66)
    uneven = town.assign(district=names)
    ours = make_folds(uneven, folds=4, seed=0, block_m=1500, kinds=["borough"])["fold"].value_counts()
    theirs = [len(test) for _, test in GroupKFold(4).split(uneven, groups=uneven["district"])]
    assert sorted(ours) == sorted(theirs)


def test_blocks_are_squares_of_the_stated_length(folds):
    of_kind = folds[folds["kind"] == "block"]
    extent = of_kind.groupby("block")[["x_m", "y_m"]].agg(np.ptp)
    assert (extent < 1500).all(axis=None)
    assert of_kind.groupby("block").size().max() == 9  # 1500 m hold three squares of 500 m each way
    assert of_kind["block"].str.fullmatch(r"b\d{3}_\d{3}").all()


def test_positions_are_metres(folds):
    first = folds[folds["kind"] == "random"].set_index("area_id")
    assert first.loc["A0001", "x_m"] - first.loc["A0000", "x_m"] == pytest.approx(500, abs=1)


def test_too_few_units_are_refused_and_missing_units_mean_fewer_folds(town):
    one = town.assign(district="Only")
    with pytest.raises(InputError, match="need at least two boroughs and there is 1"):
        make_folds(one, folds=5, seed=0, block_m=1500)
    with pytest.raises(InputError, match="smaller block_m"):
        make_folds(town, folds=5, seed=0, block_m=1e7, kinds=["block"])
    with pytest.raises(InputError, match="at least 2 folds"):
        make_folds(town, folds=1, seed=0, block_m=1500)
    with pytest.raises(InputError, match="Unknown kind of fold ward"):
        make_folds(town, folds=2, seed=0, block_m=1500, kinds=["ward"])
    two = town.assign(district=np.where(town.index < 70, "North", "South"))
    assert make_folds(two, folds=5, seed=0, block_m=1500, kinds=["borough"])["fold"].nunique() == 2


# Splits


def test_the_buffer_leaves_out_exactly_the_training_areas_within_it(folds):
    points = folds[folds["kind"] == "block"].set_index("area_id")[["x_m", "y_m"]]
    for split in iter_splits(folds, "block", buffer_m=800):
        outside = points.drop(list(split.test))
        distance = cdist(outside, points.loc[list(split.test)]).min(axis=1)
        assert split.buffered == tuple(outside.index[distance < 800])
        assert split.train == tuple(outside.index[distance >= 800])
        assert split.buffered


@pytest.mark.parametrize("kind", FOLD_KINDS)
def test_each_split_divides_all_areas(folds, town, kind):
    splits = list(iter_splits(folds, kind, buffer_m=800))
    assert [split.fold for split in splits] == [0, 1, 2, 3]
    for split in splits:
        assert sorted(split.train + split.test + split.buffered) == sorted(town["area_id"])


def test_only_block_splits_have_a_buffer(folds):
    assert all(split.buffered == () for split in iter_splits(folds, "borough", buffer_m=800))


def test_splits_that_cannot_be_made_are_refused(folds):
    with pytest.raises(InputError, match=r"Fold 0 of kind 'block' has no training areas left .* 99999 m"):
        list(iter_splits(folds, "block", buffer_m=99_999))
    with pytest.raises(InputError, match="no kind 'ward'"):
        list(iter_splits(folds, "ward"))


def test_a_tampered_fold_table_is_caught_by_the_guard(folds):
    borough = folds[folds["kind"] == "borough"].reset_index(drop=True)
    borough.loc[0, "fold"] = (borough.loc[0, "fold"] + 1) % 4
    with pytest.raises(LeakingSplit, match="1 borough value"):
        list(iter_splits(borough, "borough"))


# Images


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_training_loses_exactly_the_images_that_share_a_drive_with_the_test_side(folds, seed):
    rng = np.random.default_rng(seed)
    areas = rng.choice(folds["area_id"].unique(), size=200)
    images = pd.DataFrame({"image_id": [f"i{i}" for i in range(200)], "area_id": areas})
    images["sequence_id"] = rng.integers(0, 150, size=200).astype(str)
    for split in iter_splits(folds, "random"):
        train, test = split_images(split, images)
        assert set(test["image_id"]) == set(images.loc[images["area_id"].isin(split.test), "image_id"])
        of_training_areas = images[images["area_id"].isin(split.train)]
        lost = of_training_areas[~of_training_areas["image_id"].isin(train["image_id"])]
        assert set(lost["sequence_id"]) <= set(test["sequence_id"])
        assert not set(train["sequence_id"]) & set(test["sequence_id"])


def test_areas_in_the_buffer_give_no_images():
    split = Split(kind="block", fold=0, train=("a",), test=("b",), buffered=("c",))
    images = pd.DataFrame({"image_id": list("123"), "sequence_id": list("123"), "area_id": list("abc")})
    train, test = split_images(split, images)
    assert (train["area_id"].tolist(), test["area_id"].tolist()) == (["a"], ["b"])


# Inside the training side


@pytest.mark.parametrize("kind", FOLD_KINDS)
@pytest.mark.parametrize("share", [0.01, 0.2, 0.99])
def test_validation_areas_are_whole_groups_of_the_training_side(folds, kind, share):
    for split in iter_splits(folds, kind, buffer_m=400):
        train, validation = inner_split(split, folds, share=share, seed=4)
        assert sorted(train + validation) == list(split.train)
        assert train
        assert validation
        group_of = dict(zip(split.train, inner_groups(split, folds), strict=True))
        assert not {group_of[a] for a in train} & {group_of[a] for a in validation}
        assert inner_split(split, folds, share=share, seed=4) == (train, validation)


def test_the_validation_part_comes_near_its_share(folds):
    for split in iter_splits(folds, "random"):
        _, validation = inner_split(split, folds, share=0.2, seed=4)
        assert abs(len(validation) / len(split.train) - 0.2) < 0.05


def test_inner_groups_are_boroughs_for_borough_folds_and_blocks_otherwise(folds):
    named = folds.set_index(["kind", "area_id"])
    for kind in FOLD_KINDS:
        split = next(iter_splits(folds, kind))
        column = "borough" if kind == "borough" else "block"
        assert inner_groups(split, folds).tolist() == [named.loc[(kind, a), column] for a in split.train]


def test_a_training_side_of_one_borough_is_divided_by_blocks(town):
    two = town.assign(district=np.where(town.index < 70, "North", "South"))
    folds = make_folds(two, folds=2, seed=0, block_m=1500, kinds=["borough"])
    split = next(iter_splits(folds, "borough"))
    assert len(set(inner_groups(split, folds))) > 1
    assert all(inner_split(split, folds, share=0.3, seed=0))


def test_what_cannot_be_divided_is_refused(folds):
    split = next(iter_splits(folds, "random"))
    with pytest.raises(InputError, match="lies between 0 and 1"):
        inner_split(split, folds, share=0.0, seed=0)
    with pytest.raises(InputError, match="lie in one block"):
        inner_split(split, folds.assign(block="b000_000"), share=0.5, seed=0)
