"""Street meets sky: what each shows is added up, and neither sees a test area."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from numpy.testing import assert_allclose

from urbanprint.aerial.fusion import fused_predictions, fusion_sentence, out_of_group, stacked
from urbanprint.errors import MissingImages
from urbanprint.evaluation.scores import difference, score
from urbanprint.evaluation.splits import make_folds

N = 144


@pytest.fixture(scope="module")
def town() -> tuple[gpd.GeoDataFrame, pd.DataFrame]:
    """Areas of 500 m whose deprivation is half what the street shows and half what the sky shows."""
    column, row = np.indices((12, 12)).reshape(2, -1)
    rng = np.random.default_rng(2)
    seen = pd.DataFrame({"street": rng.random(N), "sky": rng.random(N)})
    areas = gpd.GeoDataFrame(
        {
            "area_id": [f"A{k:03d}" for k in range(N)],
            "district": [f"D{c // 4}{r // 4}" for c, r in zip(column, row, strict=True)],
            "imd_deprivation": seen.mean(axis=1),
        },
        geometry=shapely.box(600_000 + 500 * column, 0 + 500 * row, 600_500 + 500 * column, 500 + 500 * row),
        crs="EPSG:32631",
    ).to_crs(4326)
    return areas, seen


def views(areas: gpd.GeoDataFrame, seen: pd.DataFrame, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    images = pd.DataFrame(
        {
            "image_id": [f"{name}-{area}-{k}" for area in areas["area_id"] for k in range(2)],
            "area_id": np.repeat(areas["area_id"], 2),
        }
    ).reset_index(drop=True)
    images = images.assign(sequence_id=images["image_id"], sha256=images["image_id"])
    noise = np.random.default_rng(5).normal(scale=0.02, size=(2 * N, 6))
    features = pd.DataFrame(noise, index=pd.Index(images["image_id"]))
    features[0] += np.repeat(seen[name].to_numpy(), 2)
    return images, features


def test_both_together_know_what_each_shows_half_of(town: tuple[gpd.GeoDataFrame, pd.DataFrame]) -> None:
    areas, seen = town
    folds = make_folds(areas, folds=3, seed=1, block_m=1500)
    street, sky = (views(areas, seen, name) for name in ("street", "sky"))
    labels = areas.set_index("area_id")[["imd_deprivation"]].set_axis(["imd"], axis=1)
    predictions = fused_predictions(
        street[0],
        sky[0],
        pd.concat([street[1], sky[1]]),
        areas=areas,
        folds=folds,
        labels=labels,
        buffer_m=200,
    )
    assert set(predictions["kind"]) == {"borough", "block"}
    judged = predictions.groupby("model").size()
    assert set(judged.index) == {"mean", "coordinates", "neighbours", "street", "sky", "street and sky"}
    assert len(set(judged)) == 1, "baselines are judged on other areas than the pictures"
    scores = score(predictions, folds=folds, areas_ranked=1000, seed=1)
    r2 = scores[scores["measure"] == "r2"].set_index(["model", "kind"])["value"]
    assert r2["street and sky", "borough"] > 0.9
    assert 0.3 < r2["street", "borough"] < 0.7 and 0.3 < r2["sky", "borough"] < 0.7
    gains = pd.concat(
        [difference(predictions, "street and sky", alone, folds=folds, seed=1) for alone in ("street", "sky")]
    )
    told = fusion_sentence(gains)
    assert told.startswith("To the street images the sky adds (R² +0.") and "to the sky the street adds (R² +0." in told


def test_a_view_weighs_what_it_explains_of_areas_held_out_and_never_less_than_nothing() -> None:
    """Against least squares by hand: both count, noise does not, nor does a view that is the wrong way round."""
    rng = np.random.default_rng(0)
    first, second, noise = rng.uniform(0.2, 0.5, size=(3, 400))
    label = (0.4 * first + 0.6 * second + 0.1)[:, None]
    label[:7] = np.nan
    new = rng.uniform(0.2, 0.5, size=(3, 5, 1))
    both = stacked([first[:, None], second[:, None]], label, list(new[:2]))
    assert_allclose(both, 0.4 * new[0] + 0.6 * new[1] + 0.1, rtol=1e-9)
    slope, offset = np.polyfit(first[7:], label[7:, 0], 1)
    for useless in (1 - second, np.full(400, 0.3)):
        assert_allclose(stacked([first[:, None], useless[:, None]], label, list(new[1:])), slope * new[1] + offset)
    weight = stacked([second[:, None], noise[:, None]], label, [new[0], new[1] + 0.1])
    assert_allclose(weight, stacked([second[:, None], noise[:, None]], label, [new[0], new[1]]), atol=0.01)
    assert stacked([first[:, None]], label, [np.array([[-9.0], [9.0]])]).ravel().tolist() == [0.0, 1.0]


def test_what_a_view_tells_is_measured_on_groups_it_was_not_fitted_on() -> None:
    """Features that name the group tell all of its level, and nothing of that of a group never seen."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 6)
    labels = pd.DataFrame({"imd": rng.uniform(0.2, 0.8, 20)[group]})
    told = out_of_group(np.eye(20)[group], labels, [f"D{number}" for number in group])
    assert np.corrcoef(told[:, 0], labels["imd"])[0, 1] < 0.2


def test_a_view_that_shows_nothing_costs_next_to_nothing(town: tuple[gpd.GeoDataFrame, pd.DataFrame]) -> None:
    areas, seen = town
    folds = make_folds(areas, folds=3, seed=1, block_m=1500)
    labels = areas.set_index("area_id")[["imd_deprivation"]].set_axis(["imd"], axis=1)
    street, sky = views(areas, seen, "street"), views(areas, seen, "sky")
    blind = pd.DataFrame(np.random.default_rng(7).normal(size=(2 * N, 80)), index=sky[1].index)
    features = pd.concat([street[1].reindex(columns=range(80), fill_value=0.0), blind])
    told = fused_predictions(street[0], sky[0], features, areas=areas, folds=folds, labels=labels, buffer_m=200)
    scores = score(told, folds=folds, areas_ranked=1000, seed=1)
    r2 = scores[(scores["measure"] == "r2") & (scores["kind"] == "borough")].set_index("model")["value"]
    assert r2["sky"] < 0.05
    assert r2["street and sky"] > r2["street"] - 0.03


def test_areas_without_a_tile_are_not_judged(town: tuple[gpd.GeoDataFrame, pd.DataFrame]) -> None:
    areas, seen = town
    folds = make_folds(areas, folds=3, seed=1, block_m=1500)
    street, sky = (views(areas, seen, name) for name in ("street", "sky"))
    labels = areas.set_index("area_id")[["imd_deprivation"]].set_axis(["imd"], axis=1)
    features = pd.concat([street[1], sky[1]])
    some = sky[0][sky[0]["area_id"] != "A000"]
    told = fused_predictions(street[0], some, features, areas=areas, folds=folds, labels=labels, buffer_m=200)
    assert "A000" not in set(told["area_id"]) and "A001" in set(told["area_id"])
    with pytest.raises(MissingImages, match="No area has a street image and a tile"):
        fused_predictions(street[0], sky[0][:0], features, areas=areas, folds=folds, labels=labels, buffer_m=200)


@pytest.mark.parametrize(
    ("ends", "claim"), [((0.01, 0.2), "adds"), ((-0.1, 0.2), "is not shown to add"), ((-0.2, -0.1), "takes away")]
)
def test_the_sentence_claims_only_what_the_interval_allows(ends: tuple[float, float], claim: str) -> None:
    row = {"indicator": "imd", "kind": "borough", "value": sum(ends) / 2, "low": ends[0], "high": ends[1], "areas": 9}
    rows = pd.DataFrame([{**row, "model_b": alone} for alone in ("street", "sky")])
    assert f"the street images the sky {claim} (R²" in fusion_sentence(rows)
