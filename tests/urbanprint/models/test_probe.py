"""The probe: scikit-learn's ridge and grouped search as the oracle, labels masked, nothing seen that is held out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from urbanprint.errors import InputError
from urbanprint.models.probe import area_means, fit_probe, load_probe

ALPHAS = np.logspace(-1, 4, 11)


def planted(areas: int = 100, d: int = 30, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(areas, d)) * rng.uniform(0.1, 20, d) + rng.normal(size=d)
    signal = (features[:, :5] / features[:, :5].std(axis=0)).sum(axis=1)
    imd = 1 / (1 + np.exp(-signal / 2 - rng.normal(size=areas)))
    labels = pd.DataFrame({"imd": imd, "crime": rng.uniform(size=areas)})
    return features, labels, np.repeat([f"b{i}" for i in range(10)], areas // 10)


@pytest.mark.parametrize("d", [30, 150])  # fewer features than areas, and more
def test_penalty_and_predictions_equal_the_grouped_grid_search(d: int) -> None:
    features, labels, groups = planted(d=d)
    probe = fit_probe(features, labels, groups, alphas=ALPHAS)
    for column, indicator in enumerate(labels):
        oracle = GridSearchCV(
            make_pipeline(StandardScaler(), Ridge()),
            {"ridge__alpha": ALPHAS},
            cv=GroupKFold(5),
            scoring="neg_mean_squared_error",
        ).fit(features, labels[indicator], groups=groups)
        assert probe.alphas[column] == pytest.approx(oracle.best_params_["ridge__alpha"])
        expected = oracle.predict(features).clip(0, 1)
        np.testing.assert_allclose(probe.predict(features)[:, column], expected, atol=1e-8)


def test_missing_labels_are_as_if_the_area_were_absent() -> None:
    features, labels, groups = planted()
    unknown = np.random.default_rng(1).random(100) < 0.3
    masked = labels.assign(imd=labels["imd"].mask(unknown))
    both = fit_probe(features, masked, groups, alphas=ALPHAS)
    alone = fit_probe(features[~unknown], labels.loc[~unknown, ["imd"]], groups[~unknown], alphas=ALPHAS)
    np.testing.assert_allclose(both.coefficients[0], alone.coefficients[0])
    full = fit_probe(features, labels, groups, alphas=ALPHAS)
    np.testing.assert_allclose(both.coefficients[1], full.coefficients[1])


def test_the_inner_folds_keep_groups_together() -> None:
    """Features that name the group, labels that are the group's: only grouped folds see that this is memory."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(10), 20)
    features = rng.normal(size=(10, 40))[group] + rng.normal(0, 0.3, (200, 40))
    labels = pd.DataFrame({"imd": rng.uniform(size=10)[group]})
    grouped = fit_probe(features, labels, group.astype(str), alphas=ALPHAS)
    ungrouped = fit_probe(features, labels, np.arange(200).astype(str), alphas=ALPHAS)
    assert grouped.alphas[0] == ALPHAS[-1]
    assert ungrouped.alphas[0] < 10


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_predictions_are_ranks_in_the_unit_interval(seed: int) -> None:
    features, labels, groups = planted(areas=30, d=8, seed=seed)
    predicted = fit_probe(features, labels, groups).predict(features * 50)
    assert predicted.shape == (30, 2)
    assert ((predicted >= 0) & (predicted <= 1)).all()


def test_a_constant_feature_carries_nothing() -> None:
    features, labels, groups = planted()
    probe = fit_probe(np.column_stack([features, np.full(100, 3.0)]), labels, groups, alphas=ALPHAS)
    np.testing.assert_allclose(probe.coefficients[:, -1], 0.0, atol=1e-12)
    np.testing.assert_allclose(
        probe.coefficients[:, :-1], fit_probe(features, labels, groups, alphas=ALPHAS).coefficients, atol=1e-12
    )


def test_an_indicator_without_enough_labels_is_named() -> None:
    features, labels, groups = planted()
    with pytest.raises(InputError, match="indicator 'crime' is known in 10 areas of fewer than two groups"):
        fit_probe(features, labels.assign(crime=labels["crime"].mask(groups != "b3")), groups)


def test_features_of_another_backbone_are_refused() -> None:
    features, labels, groups = planted()
    with pytest.raises(InputError, match=r"30 features and got an array of shape \(100, 29\)"):
        fit_probe(features, labels, groups).predict(features[:, 1:])


def test_a_saved_probe_predicts_the_same(tmp_path: Path) -> None:
    features, labels, groups = planted()
    probe = fit_probe(features, labels, groups)
    card = dict.fromkeys(("config", "split", "scores", "data_version", "licence", "intended_use", "limits"), "")
    loaded = load_probe(probe.save(tmp_path / "probe", card))
    assert loaded.indicators == ("imd", "crime")
    np.testing.assert_array_equal(loaded.predict(features), probe.predict(features))


def test_area_means_average_the_views_of_each_area() -> None:
    features = np.array([[1.0, 0.0], [5.0, 5.0], [3.0, 2.0]], dtype=np.float32)
    areas, means = area_means(features, ["b", "a", "b"])
    assert areas.tolist() == ["a", "b"]
    np.testing.assert_array_equal(means, [[5.0, 5.0], [2.0, 1.0]])
    assert means.dtype == np.float32
