"""Permutation importance and groups, on clusters whose truth is planted."""

import numpy as np
import pandas as pd
import pytest

from urbanprint.errors import InputError
from urbanprint.explanation.importance import (
    IMPORTANCE_COLUMNS,
    HeldOut,
    correlated_groups,
    each_class,
    permutation_importance,
)
from urbanprint.models.clusterwise import choose

CLASSES = ("boarded window", "litter", "car", "bird", "bench", "sky")
N = 240


def _features(seed: int, n: int = N) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    columns = {f"count:{name}": rng.poisson(8, n).astype(float) for name in CLASSES}
    return pd.DataFrame(columns | {"images": 10.0}, index=[f"s{seed}c{number}" for number in range(n)])


def _truth(features: pd.DataFrame) -> np.ndarray:
    return (2 * features["count:boarded window"] - features["count:litter"]).to_numpy()


@pytest.fixture(scope="module")
def parts() -> list[HeldOut]:
    """Two folds with the true function as model, observed with noise."""
    made = []
    for seed in (1, 2):
        features = _features(seed)
        noise = np.random.default_rng(seed + 10).normal(0, 1, N)
        made.append(
            HeldOut(predict=_truth, features=features, observed=pd.Series(_truth(features) + noise, features.index))
        )
    return made


def test_planted_classes_come_first_and_the_rest_is_nothing(parts: list[HeldOut]) -> None:
    table = permutation_importance(parts, each_class(parts[0].features), task="regression", seed=0)
    assert tuple(table.columns) == IMPORTANCE_COLUMNS
    assert table["name"].head(2).tolist() == ["boarded window", "litter"]
    assert (table["low"].head(2) > 0).all()
    assert (table[["value", "low", "high"]].iloc[2:].abs() < 1e-12).all(axis=None)
    assert set(table["clusters"]) == {2 * N}


def test_the_fall_of_r2_is_twice_the_share_of_the_variance(parts: list[HeldOut]) -> None:
    # Shuffling one independent term of a true model adds twice its variance to the squared error.
    table = permutation_importance(parts, each_class(parts[0].features), task="regression", seed=0).set_index("name")
    observed = pd.concat([part.observed for part in parts])
    term = pd.concat([2 * part.features["count:boarded window"] for part in parts])
    expected = 2 * term.var(ddof=0) / observed.var(ddof=0)
    assert table.loc["boarded window", "value"] == pytest.approx(expected, rel=0.08)
    assert table.loc["boarded window", "low"] < expected < table.loc["boarded window", "high"]


def test_a_trained_model_finds_them_too_and_in_both_tasks() -> None:
    training, testing = _features(3), _features(4)
    for task in ("regression", "classification"):
        cut = np.median(_truth(training))
        train, test = (
            _truth(side) if task == "regression" else (_truth(side) >= cut) * 1.0 for side in (training, testing)
        )
        model = choose(
            training, pd.Series(train, training.index, name="poverty"), np.arange(N) % 10,
            task=task, candidates=("boosted trees",), seed=0,
        )  # fmt: skip
        part = HeldOut(predict=model.predict, features=testing, observed=pd.Series(test, testing.index))
        table = permutation_importance([part], each_class(testing), task=task, seed=0)
        assert table["name"].head(2).tolist() == ["boarded window", "litter"]
        assert (table["low"].head(2) > 0).all()


def test_shuffling_one_of_two_twins_hides_what_shuffling_both_shows() -> None:
    features = _features(5).assign(**{"count:bird": lambda table: table["count:litter"]})

    def mean_of_twins(table: pd.DataFrame) -> np.ndarray:
        return (0.5 * table["count:litter"] + 0.5 * table["count:bird"]).to_numpy()

    part = HeldOut(predict=mean_of_twins, features=features, observed=features["count:litter"])
    members = {"litter": ("litter",), "both": ("litter", "bird")}
    table = permutation_importance([part], members, task="regression", seed=0).set_index("name")
    assert table.loc["both", "value"] == pytest.approx(2, rel=0.1)
    assert table.loc["litter", "value"] == pytest.approx(0.5, rel=0.1)


def test_whole_blocks_widen_the_interval(parts: list[HeldOut]) -> None:
    # Ten copies of each cluster are one block: as many observations as blocks, not as clusters.
    few = HeldOut(
        predict=_truth,
        features=pd.concat([parts[0].features.head(24)] * 10),
        observed=pd.concat([parts[0].observed.head(24)] * 10),
    )
    names = [f"k{number}" for number in range(240)]
    few = HeldOut(predict=_truth, features=few.features.set_axis(names), observed=few.observed.set_axis(names))
    block = {name: f"b{number % 24}" for number, name in enumerate(names)}
    members = {"litter": ("litter",)}
    alone = permutation_importance([few], members, task="regression", seed=0).iloc[0]
    blocked = permutation_importance([few], members, task="regression", unit_of=block, seed=0).iloc[0]
    assert blocked["value"] == pytest.approx(alone["value"])
    assert (alone["units"], blocked["units"]) == (240, 24)
    assert blocked["high"] - blocked["low"] > 2 * (alone["high"] - alone["low"])


def test_unobserved_clusters_are_left_out_and_none_at_all_is_an_error(parts: list[HeldOut]) -> None:
    part = parts[0]
    observed = part.observed.where(np.arange(N) < 100)
    thinned = HeldOut(predict=part.predict, features=part.features, observed=observed)
    table = permutation_importance([thinned], {"litter": ("litter",)}, task="regression", seed=0)
    assert table.loc[0, "clusters"] == 100
    empty = HeldOut(predict=part.predict, features=part.features, observed=observed * np.nan)
    with pytest.raises(InputError, match="no held-out cluster"):
        permutation_importance([empty], {"litter": ("litter",)}, task="regression", seed=0)


def test_correlated_classes_are_one_group() -> None:
    tables = []
    for seed in (6, 7):
        table, rng = _features(seed), np.random.default_rng(seed)
        leafy = rng.normal(size=N)
        table["count:bench"] = np.exp(leafy)  # a rank correlation does not mind the scale
        table["fraction:sky"] = -leafy + 0.1 * rng.normal(size=N)
        tables.append(table.drop(columns="count:sky"))
    groups = correlated_groups(tables)
    assert next(iter(groups.items())) == ("bench + sky", ("bench", "sky"))
    alone = {members for members in groups.values() if len(members) == 1}
    assert alone == {(name,) for name in ("boarded window", "litter", "car", "bird", "images")}
