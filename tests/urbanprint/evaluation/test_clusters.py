"""Folds, baselines and scores of survey clusters."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from sklearn.neighbors import KNeighborsRegressor

from urbanprint import tables
from urbanprint.errors import InputError, LeakingSplit, MissingImages
from urbanprint.evaluation.cluster_baselines import NEIGHBOURS, baseline_learner, cluster_baselines
from urbanprint.evaluation.cluster_scores import score_clusters
from urbanprint.evaluation.clusters import (
    check_places,
    cluster_folds,
    cluster_splits,
    cross_fit_clusters,
    listed_split,
    pooled_splits,
    transfer_split,
)
from urbanprint.evaluation.optimism import selection_optimism
from urbanprint.evaluation.splits import check_split
from urbanprint.evaluation.tasks import cluster_labels
from urbanprint.indicators.survey import DHS_JITTER, Jitter, read_clusters
from urbanprint.vocabulary import CLUSTER_BASELINES

BUFFER_M = 20_000.0


def made_clusters(*, places=90, visits=2, seed=0, countries=("aa", "bb", "cc")):
    """Clusters of neighbouring countries, 1.5 degrees wide each; wealth is higher in the urban half and the east."""
    rng = np.random.default_rng(seed)
    place = np.repeat(np.arange(places), visits)
    country = np.arange(places) % len(countries)
    longitude, latitude = 1.5 * country + rng.uniform(0, 1.5, places), rng.uniform(0, 1.5, places)
    urban = rng.random(places) < 0.5
    noise = rng.normal(size=places * visits)
    return tables.CLUSTERS.validate(
        pd.DataFrame(
            {
                "area_id": [f"c{i:04d}" for i in rng.permutation(places * visits)],
                "country": np.array(countries)[country][place],
                "region": [f"r{c}{int(y)}" for c, y in zip(country[place], latitude[place], strict=True)],
                "longitude": longitude[place],
                "latitude": latitude[place],
                "urban": pd.array(urban[place], dtype="boolean"),
                "weight": 1.0,
                "poverty": (urban + longitude / 4.5)[place] + 0.3 * noise,
                "population": np.where(country[place] == 2, np.nan, noise),
                "bmi": np.nan,
            }
        )
    )


@pytest.fixture(scope="module")
def clusters():
    return made_clusters()


@pytest.fixture(scope="module")
def folds(clusters):
    return cluster_folds(clusters, folds=4, seed=1, block_m=60_000, jitter=DHS_JITTER)


def splits(folds, kind):
    return list(cluster_splits(folds, kind, buffer_m=BUFFER_M, jitter=DHS_JITTER))


# Folds


def test_each_cluster_is_tested_once_under_each_kind(clusters, folds):
    tables.FOLDS.validate(folds)
    for kind in ("random", "borough", "block"):
        tested = [area for split in splits(folds, kind) for area in split.test]
        assert sorted(tested) == sorted(clusters["area_id"])


def test_visits_to_a_place_are_never_on_both_sides(clusters, folds):
    place = clusters.set_index("area_id")[["longitude", "latitude"]].apply(tuple, axis=1)
    for kind in ("random", "borough", "block"):
        for split in splits(folds, kind):
            assert not set(place[list(split.train)]) & set(place[list(split.test)])


def test_visits_dealt_out_at_random_are_refused(folds):
    random = folds[folds["kind"] == "random"]
    dealt = random.assign(fold=np.arange(len(random)) % 4)
    with pytest.raises(LeakingSplit, match=r"random folds leak: \d+ clusters share their position with one of another"):
        check_places(dealt)
    with pytest.raises(LeakingSplit):
        splits(dealt, "random")


def test_countries_are_held_out_one_at_a_time_and_regions_are_packed(clusters, folds):
    held = [set(clusters.set_index("area_id").loc[list(s.test), "country"]) for s in splits(folds, "borough")]
    assert sorted(map(sorted, held)) == [["aa"], ["bb"], ["cc"]]
    by_region = cluster_folds(clusters, folds=4, seed=1, block_m=60_000, jitter=DHS_JITTER, held_out="region")
    regions = by_region[by_region["kind"] == "borough"]
    assert regions["fold"].nunique() == 4
    assert regions.groupby("borough")["fold"].nunique().max() == 1
    alone = cluster_folds(clusters[clusters["country"] == "aa"], folds=4, seed=1, block_m=60_000, jitter=DHS_JITTER)
    assert set(alone["kind"]) == {"random", "block"}


def test_distances_are_those_of_the_ellipsoid(clusters, folds):
    here = folds[folds["kind"] == "block"].merge(clusters, on="area_id", validate="one_to_one")
    pairs = np.random.default_rng(0).integers(0, len(here), (200, 2))
    a, b = here.iloc[pairs[:, 0]], here.iloc[pairs[:, 1]]
    true = Geod(ellps="WGS84").inv(a["longitude"], a["latitude"], b["longitude"], b["latitude"])[2]
    ours = np.hypot(a["x_m"].to_numpy() - b["x_m"].to_numpy(), a["y_m"].to_numpy() - b["y_m"].to_numpy())
    np.testing.assert_allclose(ours, true, rtol=0.005)


def test_no_training_cluster_lies_within_the_buffer_of_a_test_block(folds):
    points = folds[folds["kind"] == "block"].set_index("area_id")[["x_m", "y_m"]]
    for split in splits(folds, "block"):
        train, test = points.loc[list(split.train)].to_numpy(), points.loc[list(split.test)].to_numpy()
        nearest, _ = KNeighborsRegressor(1).fit(test, np.zeros(len(test))).kneighbors(train)
        assert nearest.min() >= BUFFER_M
        assert split.buffered


def test_blocks_and_buffers_within_the_jitter_are_refused(clusters, folds):
    with pytest.raises(InputError, match=r"moved by up to 10000 m, so blocks must be at least that large"):
        cluster_folds(clusters, folds=4, seed=1, block_m=9_000, jitter=DHS_JITTER)
    with pytest.raises(InputError, match=r"buffer_m = 5000: .* 20000 m is safe"):
        next(cluster_splits(folds, "block", buffer_m=5_000, jitter=DHS_JITTER))
    still = Jitter(urban_m=0, rural_m=0)
    assert next(cluster_splits(folds, "block", buffer_m=0, jitter=still)).train


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 10_000))
def test_the_same_seed_makes_the_same_folds_in_any_order_of_clusters(seed):
    clusters = made_clusters(places=24)
    made = [
        cluster_folds(each, folds=3, seed=seed, block_m=60_000, jitter=DHS_JITTER)
        for each in (clusters, clusters.sample(frac=1, random_state=seed))
    ]
    pd.testing.assert_frame_equal(*made)


# Lists and countries


def test_fixed_lists_are_one_split(clusters, folds):
    places = clusters.groupby(["longitude", "latitude"]).ngroup()
    role = np.select([places < 60, places < 80], ["train", "validation"], "")
    lists = pd.Series(role, index=clusters["area_id"].to_numpy())
    split = listed_split(lists[lists != ""], folds)
    assert set(split.train) == set(clusters.loc[places < 60, "area_id"])
    assert set(split.test) == set(clusters.loc[(places >= 60) & (places < 80), "area_id"])
    assert len(split.buffered) == 20
    with pytest.raises(InputError, match=r"1 listed clusters, such as zz"):
        listed_split(pd.Series({**lists[lists != ""], "zz": "train"}), folds)
    with pytest.raises(InputError, match=r"180 train and 0 validation"):
        listed_split(lists.mask(lists != "train", "train"), folds)
    apart = pd.Series(np.where(np.arange(180) % 2, "train", "validation"), index=clusters["area_id"].to_numpy())
    with pytest.raises(LeakingSplit, match="share their position"):
        listed_split(apart, folds)


def test_transfer_trains_on_one_country_and_tests_all_of_another(clusters, folds):
    split = transfer_split(clusters, folds, train_on="aa", test_on="bb", buffer_m=BUFFER_M, jitter=DHS_JITTER)
    of = clusters.set_index("area_id")["country"]
    assert set(of[list(split.train + split.buffered)]) == {"aa"}
    assert list(split.test) == sorted(of.index[of == "bb"])
    assert split.buffered  # the two touch
    points = folds.drop_duplicates("area_id").set_index("area_id")[["x_m", "y_m"]].reset_index()
    train, test = (points[points["area_id"].isin(side)] for side in (split.train, split.test))
    check_split(train, test, level="area", buffer_m=BUFFER_M)
    with pytest.raises(InputError, match=r"no clusters of 'zz', only of aa, bb, cc"):
        transfer_split(clusters, folds, train_on="zz", test_on="bb", buffer_m=BUFFER_M, jitter=DHS_JITTER)


def test_pooling_adds_a_share_of_the_places_of_the_other_country(clusters, folds):
    of = clusters.set_index("area_id")["country"]

    def pooled(share):
        settings = {"buffer_m": BUFFER_M, "seed": 3, "jitter": DHS_JITTER}
        return list(pooled_splits(clusters, folds, country="aa", other="cc", share=share, **settings))

    none, half, whole = (pooled(share) for share in (0.0, 0.5, 1.0))
    for a, b, c in zip(none, half, whole, strict=True):
        assert a.test == b.test == c.test
        assert set(of[list(c.test)]) == {"aa"}
        assert set(a.train) < set(b.train) < set(c.train)
        counts = [int((of[list(each.train)] == "cc").sum()) for each in (a, b, c)]
        assert counts == [0, 30, 60]  # 15 and 30 places of two visits; none lies near country aa
        assert [area for area in c.train if of[area] == "aa"] == list(a.train)
    with pytest.raises(InputError, match="share = 2"):
        pooled(2.0)


# Baselines


def held_out(name, clusters, folds, *, kind="block", task="regression", indicators=("poverty",)):
    labels = cluster_labels(clusters, indicators)
    learner = baseline_learner(name, clusters, labels, folds, task=task, seed=0)
    return cross_fit_clusters(learner, model=name, splits=splits(folds, kind), labels=labels, task=task)


def test_the_prior_is_the_training_mean_and_the_country_its_own_where_it_trains(clusters, folds):
    label = clusters.set_index("area_id")["poverty"]
    of = clusters.set_index("area_id")["country"]
    for kind in ("block", "borough"):
        prior, country = (held_out(n, clusters, folds, kind=kind).set_index("area_id") for n in ("prior", "country"))
        for split in splits(folds, kind):
            train, test = list(split.train), list(split.test)
            np.testing.assert_allclose(prior.loc[test, "predicted"], label[train].mean())
            means = label[train].groupby(of[train]).mean()
            expected = [means.get(of[area], label[train].mean()) for area in test]
            np.testing.assert_allclose(country.loc[test, "predicted"], expected)


def test_neighbours_are_a_nearest_neighbour_regression_with_some_k_that_was_tried(clusters, folds):
    table = held_out("neighbours", clusters, folds).set_index("area_id")["predicted"]
    label = clusters.set_index("area_id")["poverty"]
    place = folds.drop_duplicates("area_id").set_index("area_id")[["x_m", "y_m"]]
    for split in splits(folds, "block"):
        train, test = list(split.train), list(split.test)
        every = [
            KNeighborsRegressor(k).fit(place.loc[train], label[train]).predict(place.loc[test])
            for k in NEIGHBOURS
            if k <= len(train)
        ]
        # Two visits tie at every odd k; even ks have one answer.
        assert any(np.allclose(table[test], each) for each in every)


@pytest.mark.parametrize("name", sorted(CLUSTER_BASELINES))
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_no_baseline_looks_at_the_labels_it_is_tested_on(clusters, folds, name, task):
    split = splits(folds, "block")[0]
    labels = cluster_labels(clusters, ["poverty"])
    swapped = labels.copy()
    swapped.loc[list(split.test)] = 1e6
    first, second = (
        baseline_learner(name, clusters, each, folds, task=task, seed=0)(split, None, None)
        for each in (labels, swapped)
    )
    pd.testing.assert_frame_equal(first, second)
    assert first.index.tolist() == list(split.test)
    if task == "classification":
        assert first["poverty"].between(0, 1).all()


def test_the_urban_flag_finds_what_was_planted_in_it(clusters, folds):
    table = pd.concat([held_out(name, clusters, folds, kind="borough") for name in ("prior", "urban")])
    r2 = score_clusters(table, folds=folds, repeats=20, seed=0).query("measure == 'r2'").set_index("model")["value"]
    assert r2["urban"] > 0.3 > 0.05 > r2["prior"]


def test_baselines_with_the_urban_flag_need_it_known(clusters, folds):
    unknown = clusters.assign(urban=clusters["urban"].mask(clusters.index == 3))
    assert "urban" not in "".join(cluster_baselines(unknown))
    with pytest.raises(
        InputError, match=r"1 clusters, such as c\d+, have no urban flag: leave the baseline 'urban' out"
    ):
        held_out("urban", unknown, folds)
    with pytest.raises(InputError, match=r"'pictures' is not a baseline"):
        held_out("pictures", clusters, folds)


def test_a_country_without_an_indicator_neither_trains_nor_is_scored_on_it(clusters, folds):
    table = held_out("prior", clusters, folds, kind="random", indicators=("poverty", "population"))
    scores = score_clusters(table, folds=folds, repeats=5, seed=0).query("measure == 'r2'").set_index("indicator")
    assert scores["clusters"].to_dict() == {"poverty": 180, "population": 120}


def test_a_cluster_that_was_not_predicted_is_named(clusters, folds):
    labels = cluster_labels(clusters, ["poverty"])

    def forgetful(split, training, testing):
        return pd.DataFrame({"poverty": 0.0}, index=list(split.test[1:]))

    with pytest.raises(MissingImages, match=r"predicted nothing for 1 clusters of random fold 0, c\d+ among them"):
        cross_fit_clusters(forgetful, model="m", splits=splits(folds, "random"), labels=labels, task="regression")


# Scores


def scored(folds, *, task, observed, predicted, kind="random"):
    chosen = folds[folds["kind"] == kind]
    table = pd.DataFrame(
        {
            "area_id": chosen["area_id"],
            "model": "m",
            "kind": kind,
            "fold": chosen["fold"],
            "indicator": "poverty",
            "task": task,
            "observed": observed,
            "predicted": predicted,
        }
    )
    return score_clusters(table, folds=folds, repeats=50, seed=0).set_index("measure")


def test_scores_equal_those_of_scikit_learn_and_numpy(folds):
    rng = np.random.default_rng(0)
    y = rng.normal(size=180)
    p = (y + rng.normal(size=180)).round(1)
    regression = scored(folds, task="regression", observed=y, predicted=p)
    assert regression.loc["r2", "value"] == pytest.approx(r2_score(y, p))
    assert regression.loc["pearson_r", "value"] == pytest.approx(np.corrcoef(y, p)[0, 1])
    assert regression.loc["pearson_r2", "value"] == pytest.approx(np.corrcoef(y, p)[0, 1] ** 2)
    label, probability = (y > 0).astype(float), (1 / (1 + np.exp(-p))).round(2)
    classes = scored(folds, task="classification", observed=label, predicted=probability)
    assert classes.loc["accuracy", "value"] == pytest.approx(accuracy_score(label, probability >= 0.5))
    fold = folds.loc[folds["kind"] == "random", "fold"].to_numpy()
    pairs = [label[fold == k].sum() * (1 - label[fold == k]).sum() for k in range(4)]
    within = [roc_auc_score(label[fold == k], probability[fold == k]) for k in range(4)]
    assert classes.loc["auc", "value"] == pytest.approx(np.average(within, weights=pairs))
    for table in (regression, classes):
        assert (table["low"] < table["value"]).all()
        assert (table["value"] < table["high"]).all()


def test_squared_pearson_forgives_what_r2_does_not(folds):
    y = np.random.default_rng(0).normal(size=180)
    scores = scored(folds, task="regression", observed=y, predicted=5 - 2 * y)
    assert scores.loc["pearson_r2", "value"] == pytest.approx(1)
    assert scores.loc["pearson_r", "value"] == pytest.approx(-1)
    assert scores.loc["r2", "value"] < -5


def test_a_constant_has_an_auc_of_one_half_even_if_it_differs_between_folds(folds):
    label = np.random.default_rng(0).integers(0, 2, 180).astype(float)
    fold = folds.loc[folds["kind"] == "random", "fold"].to_numpy()
    scores = scored(folds, task="classification", observed=label, predicted=0.5 + fold / 10)
    assert scores.loc["auc", ["value", "low", "high"]].tolist() == pytest.approx([0.5] * 3)
    one_class = scored(folds, task="classification", observed=np.ones(180), predicted=label)
    assert np.isnan(one_class.loc["auc", "value"])


def test_countries_are_resampled_where_countries_are_held_out(folds):
    y = np.random.default_rng(0).normal(size=180)
    assert scored(folds, task="regression", observed=y, predicted=y, kind="borough").loc["r2", "units"] == 3
    blocks = folds["block"].nunique()
    assert scored(folds, task="regression", observed=y, predicted=y, kind="block").loc["r2", "units"] == blocks


# Choosing on the validation list


def quantities(**settings):
    table = selection_optimism(training=200, studies=30, seed=0, **settings)
    return table.set_index(["task", "quantity"])["value"]


def test_the_best_of_sixty_looks_like_skill_where_nothing_can_be_learned():
    found = quantities(learnable=0.0, validation=100)
    assert found["classification", "honest"] == pytest.approx(0.5, abs=0.01)
    assert found["classification", "reported"] > 0.55
    assert found["regression", "honest"] < 0
    assert found["regression", "optimism"] > 0


def test_optimism_shrinks_with_a_longer_list_and_vanishes_with_one_evaluation():
    short, long = (quantities(learnable=0.3, validation=n)["classification", "optimism"] for n in (50, 2_000))
    assert short > 2 * long > 0
    once = quantities(learnable=0.3, validation=100, evaluations=1)
    assert abs(once["classification", "optimism"]) < 0.02 < short


def test_what_can_be_learned_is_learned_and_never_exceeded():
    honest = quantities(learnable=0.5, validation=500)["regression", "honest"]
    assert 0.25 < honest < 0.5


def test_optimism_refuses_impossible_settings():
    with pytest.raises(InputError, match="learnable = 1"):
        selection_optimism(learnable=1.0, seed=0)
    with pytest.raises(InputError, match="61 evaluations in 6 runs"):
        selection_optimism(learnable=0.0, evaluations=61, seed=0)


# Africa


def test_real_wealth_without_pictures_is_a_map_of_countries(realdata):
    clusters = read_clusters(
        realdata / "livelihood" / "lsms_asset_index.csv",
        columns={"poverty": "asset_index"},
        id_columns=("country", "year", "ea_id", "lon", "lat"),
    )
    folds = cluster_folds(clusters, folds=5, seed=0, block_m=100_000, jitter=DHS_JITTER)
    names = ("prior", "country", "neighbours")
    table = pd.concat([held_out(n, clusters, folds, kind=k) for n in names for k in ("random", "borough")])
    value = score_clusters(table, folds=folds, repeats=5, seed=0).set_index(["measure", "kind", "model"])["value"]
    assert value["r2"].max() < 0.8  # more would be a leak
    assert 0.45 < value["r2", "random", "country"] < value["r2", "random", "neighbours"] < 0.65
    assert -1.0 < value["r2", "borough", "neighbours"] < 0.2
    # The mean of the other countries knows nothing, and its squared correlation says otherwise.
    assert value["r2", "borough", "prior"] < 0 < 0.4 < value["pearson_r2", "borough", "prior"]
    assert value["pearson_r", "borough", "prior"] < -0.6
