"""The audit shows what a leak is worth, and that the guard refuses it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsRegressor

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.evaluation.audit import AUDIT_COLUMNS, FORBIDDEN, leakage_audit
from urbanprint.evaluation.splits import make_folds

VIEWS = 4


def nearest_view(train_features, train_labels, test_features):
    return KNeighborsRegressor(1).fit(train_features, train_labels).predict(test_features)


@pytest.fixture(scope="module")
def town(square_town):
    return square_town()


@pytest.fixture(scope="module")
def folds(town):
    return make_folds(town, folds=5, seed=1, block_m=1500)


@pytest.fixture(scope="module")
def images(town):
    areas = town["area_id"].repeat(VIEWS).to_numpy()
    numbers = np.arange(len(areas)).astype(str)
    return pd.DataFrame({"image_id": numbers, "sequence_id": numbers, "area_id": areas})


@pytest.fixture(scope="module")
def identity_noise(town):
    """Pure noise that is the same for all views of an area, but for a little: an identity, and nothing else."""
    rng = np.random.default_rng(8)
    identity = rng.normal(size=(len(town), 16)).repeat(VIEWS, axis=0)
    return identity + 0.1 * rng.normal(size=identity.shape)


@pytest.fixture(scope="module")
def audit(town, folds, images, identity_noise):
    return leakage_audit(
        images, identity_noise, areas=town, folds=folds, indicator="imd", learner=nearest_view, seed=3, repeats=200
    )


def test_noise_with_an_identity_scores_high_when_images_are_split_and_nothing_otherwise(audit):
    table = audit.table.set_index("split")
    assert tuple(audit.table.columns) == AUDIT_COLUMNS
    assert audit.table["split"].tolist() == [FORBIDDEN, "random", "borough", "block"]
    assert table.loc[FORBIDDEN, "r2"] > 0.9
    assert table.loc[FORBIDDEN, "low"] > 0.9
    assert (table["r2"].drop(FORBIDDEN) <= 0.05).all()
    assert (table["low"] <= table["r2"]).all()
    assert (table["high"] >= table["r2"]).all()
    assert (table[["images", "areas"]] == [144 * VIEWS, 144]).all(axis=None)


def test_the_guard_refuses_the_forbidden_split_and_no_other(audit):
    refused = audit.table.set_index("split")["refused_because"]
    assert "The image split leaks:" in refused[FORBIDDEN]
    assert "area_id values are on both sides: A0" in refused[FORBIDDEN]
    assert (refused.drop(FORBIDDEN) == "").all()


def test_the_forbidden_predictions_carry_their_name(audit):
    tables.PREDICTIONS.validate(audit.predictions)
    assert set(audit.predictions["kind"]) == {FORBIDDEN, "random", "borough", "block"}


def test_what_images_really_say_scores_under_every_split(town, folds, images):
    truth = town["imd_deprivation"].repeat(VIEWS).to_numpy()
    seen = truth[:, None] + np.random.default_rng(4).normal(0, 0.05, (len(truth), 1))
    table = leakage_audit(
        images, seen, areas=town, folds=folds, indicator="imd", learner=nearest_view, seed=3, repeats=50
    ).table
    assert (table["r2"] > 0.85).all()


def test_images_without_a_label_or_a_fold_are_left_out(town, folds, images, identity_noise):
    unlabelled = town.copy()
    unlabelled.loc[:9, "imd_deprivation"] = np.nan
    stray = images.copy()
    stray["area_id"] = stray["area_id"].mask(stray["area_id"] == "A0143", "elsewhere")
    kinds = folds[folds["kind"] == "borough"]
    table = leakage_audit(
        stray, identity_noise, areas=unlabelled, folds=kinds, indicator="imd", learner=nearest_view, seed=3, repeats=50
    ).table
    assert table["split"].tolist() == [FORBIDDEN, "borough"]
    assert (table["areas"] == 133).all()
    assert (table["images"] == 133 * VIEWS).all()


def test_mistakes_are_named(town, folds, images, identity_noise):
    arguments = {"areas": town, "folds": folds, "indicator": "imd", "learner": nearest_view, "seed": 3}
    with pytest.raises(InputError, match="576 images and 575 rows"):
        leakage_audit(images, identity_noise[1:], **arguments)
    with pytest.raises(InputError, match="No area has two images"):
        leakage_audit(images[::VIEWS], identity_noise[::VIEWS], **arguments)
