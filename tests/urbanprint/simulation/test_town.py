"""The simulated town is a fair test: contiguous, autocorrelated, biased in coverage, and of known difficulty."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal
from scipy.special import ndtr
from scipy.stats import spearmanr
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor

from urbanprint.simulation.statistics import ceiling, file7, normalised_ranks
from urbanprint.simulation.town import CUES, HABIT_SHARE, VISIBILITY, Town, build_town, imd_score
from urbanprint.vocabulary import INDICATORS


@pytest.fixture(scope="module")
def town() -> Town:
    return build_town()


@pytest.fixture(scope="module")
def four_views(town: Town) -> pd.DataFrame:
    return town.images.groupby("area_id").head(4)[["image_id", "area_id"]]


def test_the_same_seed_builds_the_same_town(town: Town) -> None:
    again = build_town.__wrapped__()
    for name in ("areas", "truth", "images"):
        assert_frame_equal(getattr(town, name), getattr(again, name))
    other = build_town.__wrapped__(seed=8)
    assert not np.allclose(other.truth["visible"], town.truth["visible"])


def test_it_has_ten_boroughs_of_24_areas(town: Town) -> None:
    assert len(town.areas) == 240
    assert town.areas.groupby("district_code").size().tolist() == [24] * 10
    assert town.areas["area_id"].is_unique
    assert town.areas["name"].is_unique
    assert town.areas.crs == "EPSG:4326"
    km2 = town.areas.to_crs(32629).area / 1e6
    assert 0.2 < km2.mean() < 0.4
    assert km2.min() > 0.1


@pytest.mark.parametrize("seed", [7, 1, 2])
def test_areas_tile_the_town_and_boroughs_hang_together(seed: int) -> None:
    areas = build_town(seed=seed).areas
    assert areas.geometry.is_valid.all()
    assert shapely.coverage_is_valid(areas.geometry.to_numpy())
    whole = areas.union_all()
    assert whole.geom_type == "Polygon"
    assert len(whole.interiors) == 0
    assert_allclose(whole.area, shapely.area(areas.geometry.to_numpy()).sum(), rtol=1e-9)
    assert set(areas.dissolve("district_code").geometry.geom_type) == {"Polygon"}


def test_deprivation_is_spatially_autocorrelated(town: Town) -> None:
    value = town.truth["deprivation"].to_numpy()
    left, right = town.areas.sindex.query(town.areas.geometry, predicate="touches")
    deviation = value - value.mean()
    morans_i = len(value) / len(left) * (deviation[left] * deviation[right]).sum() / (deviation**2).sum()
    assert morans_i > 0.4


def test_coordinates_predict_random_areas_but_not_whole_boroughs(town: Town) -> None:
    observed = normalised_ranks(town)["imd"].to_numpy()
    centres = town.areas.to_crs(32629).geometry.centroid
    metres = np.column_stack([centres.x, centres.y])
    neighbours = KNeighborsRegressor(10)
    random = cross_val_predict(neighbours, metres, observed, cv=KFold(5, shuffle=True, random_state=0))
    borough = cross_val_predict(
        neighbours, metres, observed, cv=GroupKFold(5), groups=town.areas["district_code"].to_numpy()
    )
    assert 0.45 < r2_score(observed, random) < 0.65
    assert r2_score(observed, borough) < 0.1


def test_domains_follow_the_visible_latent_as_stated(town: Town) -> None:
    visible = town.truth["visible"]
    for domain, visibility in VISIBILITY.items():
        assert_allclose(np.corrcoef(visible, town.truth[f"{domain}_latent"])[0, 1], visibility, atol=0.02)


def test_cues_follow_the_visible_latent_as_stated(town: Town) -> None:
    visible = town.truth.set_index("area_id")["visible"].loc[town.images["area_id"]].to_numpy()
    for cue, loading in CUES.items():
        values = town.images[f"cue_{cue}"]
        unexplained = values - loading * visible
        assert_allclose(np.corrcoef(visible, values)[0, 1], loading, atol=0.08)
        within = unexplained.groupby(town.images["area_id"]).var().mean()
        assert_allclose(within, (1 - loading**2) * (1 - HABIT_SHARE), rtol=0.15)


def test_style_says_nothing_about_deprivation(town: Town) -> None:
    numbers = town.truth.filter(like="style_").select_dtypes("number").drop(columns="style_plan")
    assert len(numbers.columns) >= 6
    correlation = numbers.corrwith(town.truth["visible"])
    assert correlation.abs().max() < 0.2


def test_images_lie_inside_their_areas(town: Town) -> None:
    points = gpd.GeoDataFrame(
        town.images[["image_id", "area_id"]],
        geometry=gpd.points_from_xy(town.images["longitude"], town.images["latitude"]),
        crs="EPSG:4326",
    )
    joined = points.sjoin(town.areas[["area_id", "geometry"]], predicate="within")
    assert len(joined) == len(points)
    assert (joined["area_id_left"] == joined["area_id_right"]).all()


def test_images_are_what_a_provider_holds(town: Town) -> None:
    images = town.images
    assert images["image_id"].is_unique
    assert images["image_id"].str.fullmatch(r"\d{15}").all()
    assert images["captured_at"].dtype == "datetime64[ms, UTC]"
    assert images["captured_at"].dt.year.between(2019, 2025).all()
    assert images.groupby("area_id").size().between(5, 9).all()
    assert "<script>alert(1)</script>" in set(images["creator"])
    assert images["heading"].between(0, 360).all()
    assert 0 < (~images["has_computed_geometry"]).mean() < 0.1
    assert set(images["thumb"]) == {"ok", "late", "never"}


def test_few_drives_cross_a_border(town: Town) -> None:
    areas_of_drive = town.images.groupby("sequence_id")["area_id"].nunique()
    assert 0 < (areas_of_drive > 1).mean() < 0.1


def test_deprived_areas_are_photographed_less() -> None:
    bare = []
    for seed in (7, 1, 2):
        town = build_town(seed=seed)
        without = ~town.areas["area_id"].isin(town.images["area_id"])
        assert 0.005 < without.mean() < 0.08
        bare.append(town.truth["deprivation"][without])
    assert pd.concat(bare).mean() > 0.2


def test_file7_has_the_official_headings(town: Town, realdata: Path) -> None:
    official = pd.read_csv(realdata / "england" / "iod2019_london_file7.csv", nrows=0)
    assert list(file7(town).columns) == list(official.columns)


def test_file7_ranks_scores_and_deciles_agree(town: Town) -> None:
    published = file7(town)
    scores = published.filter(regex=r"Score").columns
    assert len(scores) == 16
    for name in scores:
        label = name.removesuffix(" (rate)").removesuffix(" Score")
        rank = published[f"{label} Rank (where 1 is most deprived)"]
        decile = published[f"{label} Decile (where 1 is most deprived 10% of LSOAs)"]
        assert_allclose(spearmanr(rank, published[name]).statistic, -1.0, atol=1e-6)
        assert rank.min() == 1
        assert rank.max() <= 240
        assert 0 < rank.duplicated().sum() <= 4
        assert sorted(decile.unique()) == list(range(1, 11))
        assert (decile == 1 + (rank - 1) * 10 // 240).all()


def test_file7_population_adds_up(town: Town) -> None:
    people = file7(town).filter(regex="^(Total|Dependent|Population|Older)").astype(int)
    assert (people.iloc[:, 1:].sum(axis=1) == people.iloc[:, 0]).all()


def test_imd_score_is_the_official_formula() -> None:
    # An area that ranks first in all domains has E = 100 in each; the published weights sum to 0.999.
    latents = np.repeat(np.arange(1000.0)[:, None], 7, axis=1)
    assert_allclose(imd_score(latents)[-1], 100 * 0.999, atol=0.2)
    assert_allclose(imd_score(latents)[0], 0.0, atol=0.1)


def test_the_ceiling_is_highest_for_environment_and_lowest_for_crime(town: Town, four_views: pd.DataFrame) -> None:
    best = ceiling(town, four_views, seed=0).set_index("indicator")
    assert list(best.index) == list(INDICATORS)
    assert best["r2"].idxmax() == "environment"
    assert best["r2"].idxmin() == "crime"
    assert 0.68 < best.loc["imd", "r2"] < 0.82
    assert 0.82 < best.loc["environment", "r2"] < 0.92
    assert 0.2 < best.loc["crime", "r2"] < 0.4
    assert (best["low"] < best["r2"]).all()
    assert (best["r2"] < best["high"]).all()


def test_the_ceiling_equals_the_closed_form_of_a_domain(town: Town, four_views: pd.DataFrame) -> None:
    """E[Phi(L)] for L normal with mean mu and variance t is Phi(mu / sqrt(1 + t)): no simulation needed."""
    loading = np.array(list(CUES.values()))
    cues = town.images.set_index("image_id").loc[four_views["image_id"], [f"cue_{cue}" for cue in CUES]]
    means = cues.groupby(four_views["area_id"].to_numpy()).mean()
    noise = (1 - loading**2) * (HABIT_SHARE + (1 - HABIT_SHARE) / 4)
    information = (loading**2 / noise).sum()
    posterior = means.to_numpy() @ (loading / noise) / (1 + information)
    best = ceiling(town, four_views, seed=0).set_index("indicator")["r2"]
    labels = normalised_ranks(town).loc[means.index]
    for domain, visibility in VISIBILITY.items():
        spread = 1 - visibility**2 + visibility**2 / (1 + information)
        expected = ndtr(visibility * posterior / np.sqrt(1 + spread))
        assert_allclose(best[domain], r2_score(labels[domain], expected), atol=0.01)


def test_the_ceiling_rises_with_the_number_of_views(town: Town) -> None:
    one, all_views = town.images.groupby("area_id").head(1), town.images
    columns = ["image_id", "area_id"]
    best = [
        ceiling(town, images[columns], seed=0).set_index("indicator").loc["imd", "r2"] for images in (one, all_views)
    ]
    assert best[0] < best[1]


def test_an_impossible_town_is_refused() -> None:
    with pytest.raises(ValueError, match="boroughs"):
        build_town(boroughs=0)
