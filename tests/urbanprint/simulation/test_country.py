"""The simulated countries are a fair test: moved positions, autocorrelated truth, two worlds of known difficulty."""

import io
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import requests
import shapely
from numpy.testing import assert_allclose
from PIL import Image
from pyproj import Geod
from scipy.spatial import cKDTree
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from urbanprint import tables
from urbanprint.indicators.survey import read_clusters
from urbanprint.simulation.canvas import CUE_CLASSES
from urbanprint.simulation.country import (
    COUNTRIES,
    EFFECTS,
    JITTER_M,
    LEANINGS,
    LEVEL_CUES,
    LOOK_CUES,
    PLANTED,
    WEIGHTS,
    Country,
    World,
    build_country,
    leaning,
    tilt,
    variety,
)
from urbanprint.simulation.scenes import jpeg, render
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.survey import ceiling, reachable, survey
from urbanprint.simulation.town import build_town
from urbanprint.sources.mapillary import TERMS, Mapillary

GEOD = Geod(ellps="WGS84")
CUES = [f"cue_{cue}" for cue in (*LEVEL_CUES, *LOOK_CUES)]


@pytest.fixture(scope="module", params=COUNTRIES)
def country(request: pytest.FixtureRequest) -> Country:
    return build_country(request.param)


@pytest.fixture(scope="module")
def large() -> Country:
    """Enough clusters that a score is the score of the model, not of the draw."""
    return build_country("simland-a", clusters=1200)


def metres_between(one: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str]) -> np.ndarray:
    """From the position `names` of each row to longitude and latitude of the same row of `other`."""
    places = [one[name].to_numpy() for name in names] + [other[name].to_numpy() for name in ("longitude", "latitude")]
    return np.asarray(GEOD.inv(*places)[2])


# --- places and images ---


def test_the_same_arguments_build_the_same_country(country: Country) -> None:
    again = build_country.__wrapped__(country.name)
    for name in ("clusters", "truth", "images"):
        pd.testing.assert_frame_equal(getattr(country, name), getattr(again, name))
    assert country.styles == again.styles
    other = build_country(country.name, seed=12)
    assert not np.allclose(country.truth["level"], other.truth["level"])


def test_a_country_has_regions_cities_and_the_extent_of_a_country(country: Country) -> None:
    clusters = country.clusters
    assert clusters["area_id"].is_unique
    assert len(clusters) == 300
    assert clusters["region"].value_counts().between(20, 100).all()
    assert clusters["region"].nunique() == 6
    assert clusters["urban"].mean() == pytest.approx(0.4, abs=0.01)
    assert_allclose(clusters["weight"].mean(), 1.0, atol=1e-3)
    position = clusters[["true_longitude", "true_latitude"]]
    corner = [GEOD.inv(*position.min(), *position.max())[2]]
    assert 500_000 < corner[0] < 1_000_000


def test_countries_lie_far_from_each_other_and_from_the_town() -> None:
    places = [tuple(build_country(name).clusters[["longitude", "latitude"]].mean()) for name in COUNTRIES] + [
        tuple(build_town().images[["longitude", "latitude"]].mean())
    ]
    for i, one in enumerate(places):
        for other in places[:i]:
            assert GEOD.inv(*one, *other)[2] > 2_000_000


def test_the_survey_moves_clusters_within_its_jitter_and_images_lie_about_the_true_place(country: Country) -> None:
    clusters = country.clusters
    jitter = clusters["urban"].map(JITTER_M)
    moved = metres_between(clusters, clusters, ("true_longitude", "true_latitude"))
    assert (moved <= jitter).all()
    assert (moved / jitter).mean() == pytest.approx(0.5, abs=0.1)
    joined = country.images.merge(clusters, on="area_id", suffixes=("", "_cluster"))
    reach = joined["urban"].map(JITTER_M)
    assert (metres_between(joined, joined, ("true_longitude", "true_latitude")) <= reach).all()
    # Most, but not all, are found around the published place.
    found = metres_between(joined, joined, ("longitude_cluster", "latitude_cluster")) <= reach
    assert 0.8 < found.mean() < 1.0


def test_published_circles_never_overlap(country: Country) -> None:
    clusters = country.clusters
    one, other = (rows.ravel() for rows in np.triu_indices(len(clusters), 1))
    names = ("longitude", "latitude")
    apart = metres_between(clusters.iloc[one], clusters.iloc[other], names)
    jitter = clusters["urban"].map(JITTER_M).to_numpy()
    assert (apart >= 0.999 * (jitter[one] + jitter[other])).all()  # laid out in a plane


def test_clusters_have_8_to_40_images_with_panoramas_and_duplicates_among_them(country: Country) -> None:
    images = country.images
    sizes = images.groupby("area_id").size().reindex(country.clusters["area_id"], fill_value=0)
    assert sizes.between(8, 40).all()
    assert sizes.nunique() > 15
    assert images["image_id"].is_unique
    assert images["image_id"].str.fullmatch(r"\d{15}").all()
    assert images["captured_at"].dtype == "datetime64[ms, UTC]"
    assert 0.02 < images["is_pano"].mean() < 0.07
    assert 0.02 < (images["shows"] != images["image_id"]).mean() < 0.07
    assert images.groupby("sequence_id")["area_id"].nunique().max() == 1
    assert set(build_town().images.columns) - {"cue_shutters"} <= set(images.columns)


def test_a_duplicate_is_the_same_photograph_in_the_same_place_under_another_id(country: Country) -> None:
    again = country.images[country.images["shows"] != country.images["image_id"]]
    copy = again.iloc[0]
    original = country.images.set_index("image_id").loc[copy["shows"]]
    same = ["area_id", "longitude", "latitude", "captured_at", "look", *CUES]
    assert (copy[same] == original[same]).all()
    assert copy["sequence_id"] != original["sequence_id"]
    one, two = (jpeg(render(country.view(name), width=64, height=48)) for name in (copy["image_id"], copy["shows"]))
    assert one == two


def test_styles_tell_town_from_country(country: Country) -> None:
    urban = country.clusters.set_index("area_id")["urban"]
    for image in country.images.drop_duplicates("area_id").itertuples():
        assert (country.view(image.image_id).style.setback == 0.0) == urban[image.area_id]


# --- truth ---


def test_effects_are_of_unit_variance_and_unrelated(country: Country) -> None:
    truth = country.truth.drop(columns=["area_id", "share"])
    assert_allclose(truth.std(ddof=0), 1.0, atol=0.03)
    unseen = [name for name in truth.columns if name.startswith("unseen")]
    correlation = truth.corr().drop(columns=unseen).abs().to_numpy()
    assert (correlation - np.eye(*correlation.shape)).max() < 0.15
    for effects in EFFECTS.values():
        assert_allclose(effects.urban**2 + effects.signal**2 + effects.unseen**2, 1.0)
    for weights in WEIGHTS.values():
        assert_allclose(np.square(weights).sum(), 1.0)


def test_cues_follow_level_and_look_as_stated(large: Country) -> None:
    level = large.truth.set_index("area_id")["level"].loc[large.images["area_id"]].to_numpy()
    for cues, cause in ((LEVEL_CUES, level), (LOOK_CUES, large.images["look"])):
        for cue, loading in cues.items():
            assert_allclose(np.corrcoef(cause, large.images[f"cue_{cue}"])[0, 1], loading, atol=0.01)
    shabby = (large.images["look"] > 0).groupby(large.images["area_id"]).mean()
    assert np.corrcoef(shabby, large.truth.set_index("area_id")["share"].loc[shabby.index])[0, 1] > 0.9


@pytest.mark.parametrize("name", ["level", "tilt"])
def test_the_truth_is_spatially_autocorrelated(large: Country, name: str) -> None:
    """Moran's I over the five nearest clusters."""
    value = large.truth[name].to_numpy()
    position = large.clusters[["true_longitude", "true_latitude"]].to_numpy()
    near = cKDTree(position).query(position, 6)[1][:, 1:]
    assert (value[:, None] * value[near]).mean() / value.var() > 0.35


# --- the survey ---


@pytest.mark.parametrize("world", get_args(World))
def test_the_survey_has_the_columns_of_clusters(country: Country, world: World) -> None:
    published = survey(country, world=world)
    tables.CLUSTERS.validate(published.astype({"urban": "boolean"}))
    assert set(published["country"]) == {country.name}
    assert published["bmi"].isna().all() == (country.name == "simland-b")
    assert published[["poverty", "population"]].notna().all(axis=None)
    assert published["bmi"].dropna().between(15, 30).all()


def test_the_worlds_share_places_and_differ_in_labels(country: Country) -> None:
    several, single = (survey(country, world=world) for world in get_args(World))
    pd.testing.assert_frame_equal(several.loc[:, :"weight"], single.loc[:, :"weight"])  # type: ignore[misc]
    assert np.corrcoef(several["poverty"], single["poverty"])[0, 1] < 0.75


# --- the two worlds, read by oracles who see the cues as they were drawn ---


def mean_cues(country: Country) -> pd.DataFrame:
    """A row a cluster: the mean of every cue, and the urban flag."""
    distinct = country.images[country.images["shows"] == country.images["image_id"]]
    means = distinct.groupby("area_id")[CUES].mean()
    return means.assign(urban=country.clusters.set_index("area_id")["urban"].astype(float))


def cross_fitted(features: np.ndarray, observed: pd.Series) -> float:
    predicted = cross_val_predict(
        RidgeCV(np.logspace(-3, 3, 13)), features, observed, cv=KFold(5, shuffle=True, random_state=0)
    )
    return float(1 - ((observed - predicted) ** 2).sum() / ((observed - observed.mean()) ** 2).sum())


def expected(country: Country, world: World, reader: str) -> float:
    best = ceiling(country, country.images, world=world).set_index(["indicator", "task", "reader"])
    return float(best.loc[("poverty", "regression", reader), "expected"])


@pytest.mark.parametrize("world", get_args(World))
def test_averages_of_single_images_reach_the_ceiling_of_images_and_never_more(large: Country, world: World) -> None:
    """Also where a single image may be read in any non-linear way: the squares and products of its own cues."""
    observed = survey(large, world=world).set_index("area_id")["poverty"]
    linear = mean_cues(large).loc[observed.index]
    distinct = large.images[large.images["shows"] == large.images["image_id"]]
    powers = PolynomialFeatures(2, include_bias=False).fit_transform(distinct[CUES])
    averaged = pd.DataFrame(powers).groupby(distinct["area_id"].to_numpy()).mean().loc[observed.index]
    best = expected(large, world, "images")
    assert cross_fitted(StandardScaler().fit_transform(linear), observed) == pytest.approx(best, abs=0.04)
    powerful = StandardScaler().fit_transform(averaged.assign(urban=linear["urban"]).to_numpy())
    assert cross_fitted(powerful, observed) < best + 0.04


def test_a_function_of_the_set_reaches_its_ceiling_where_the_signal_needs_several_images(large: Country) -> None:
    """Squares and products of the mean cues, which no average of single-image predictions holds."""
    observed = survey(large, world="several").set_index("area_id")["poverty"]
    means = StandardScaler().fit_transform(mean_cues(large).loc[observed.index])
    of_set = StandardScaler().fit_transform(PolynomialFeatures(2, include_bias=False).fit_transform(means))
    score, best = cross_fitted(of_set, observed), expected(large, "several", "set")
    assert score == pytest.approx(best, abs=0.06)
    assert score > expected(large, "several", "images") + 0.35


def test_a_function_of_the_set_gains_nothing_where_one_image_is_enough(large: Country) -> None:
    observed = survey(large, world="single").set_index("area_id")["poverty"]
    means = StandardScaler().fit_transform(mean_cues(large).loc[observed.index])
    of_set = StandardScaler().fit_transform(PolynomialFeatures(2, include_bias=False).fit_transform(means))
    assert cross_fitted(of_set, observed) <= cross_fitted(means, observed) + 0.005
    one = large.images.groupby("area_id").head(1)
    best = [ceiling(large, images, world="single").loc[:1, "expected"].max() for images in (one, large.images)]
    assert best[1] - best[0] < 0.1


@pytest.mark.parametrize("world", get_args(World))
@pytest.mark.parametrize("size", [1, 8])
def test_the_expected_r2_is_that_of_simulated_clusters(large: Country, world: World, size: int) -> None:
    """A second way to the ceiling: average the truth over the clusters, of 200,000, that show as many shabby looks."""
    rng = np.random.default_rng(0)
    share = (1 + leaning(rng.random(200_000))) / 2
    shabby = rng.binomial(size, share)
    information = size * sum(r**2 / (1 - r**2) for r in LEVEL_CUES.values())
    of_level, of_tilt, of_variety = WEIGHTS[world]
    signal = of_tilt * tilt(share) + of_variety * variety(share)
    by_count = np.bincount(shabby, signal) / np.bincount(shabby)
    level = of_level**2 * information / (1 + information)
    known = {
        "set": level + by_count[shabby].var(),
        "images": level + of_tilt**2 * np.corrcoef(tilt(share), shabby)[0, 1] ** 2,
    }
    images = large.images[large.images["shows"] == large.images["image_id"]].groupby("area_id").head(size)
    images = images[images.groupby("area_id")["image_id"].transform("size") == size]
    best = ceiling(large, images, world=world).set_index(["indicator", "task", "reader"])["expected"]
    for indicator, effects in EFFECTS.items():
        for reader, explained in known.items():
            expected_r2 = effects.urban**2 + effects.signal**2 * explained
            assert best[(indicator, "regression", reader)] == pytest.approx(expected_r2, abs=0.02)


@pytest.mark.parametrize("world", get_args(World))
def test_the_reachable_probabilities_are_calibrated(large: Country, world: World) -> None:
    best = reachable(large, large.images, world=world)
    published = survey(large, world=world).set_index("area_id")
    for _, part in best[best["reader"] == "set"].groupby("indicator"):
        values = published[part["indicator"].iloc[0]]
        above = (values.loc[part["area_id"]] >= values.median()).to_numpy()
        confident = part["probability"].to_numpy() > 0.8
        assert above[confident].mean() == pytest.approx(part["probability"][confident].mean(), abs=0.05)
        z = (values.loc[part["area_id"]].to_numpy() - part["value"]) / part["deviation"]
        assert z.std() == pytest.approx(1.0, abs=0.08)


def test_an_indicator_the_country_does_not_publish_has_no_ceiling(country: Country) -> None:
    named = set(ceiling(country, country.images, world="several")["indicator"])
    assert ("bmi" in named) == (country.name == "simland-a")


def test_tilt_and_variety_are_standardised_and_unrelated() -> None:
    share = (1 + LEANINGS) / 2
    basis = np.column_stack([np.ones_like(share), tilt(share), variety(share)])
    assert_allclose(basis.T @ basis / len(share), np.eye(3), atol=1e-9)
    assert variety(np.array([0.5])) > variety(np.array([0.2])) > variety(np.array([0.0]))
    assert (np.abs(2 * share - 1) < 0.2).mean() > 0.4  # nearly half of the clusters are mixed ...
    assert (np.abs(2 * share - 1) > 0.8).mean() > 0.4  # ... and as many show one look only


def test_planted_classes_follow_what_they_are_planted_for(country: Country) -> None:
    """Amounts drawn against the causes: level classes with the level, look classes with the look."""
    assert set(PLANTED["several"]) == set(CUE_CLASSES)
    level = country.truth.set_index("area_id")["level"]
    # One image of a cluster each: its street is its own.
    images = country.images[country.images["shows"] == country.images["image_id"]].drop_duplicates("area_id")
    counts = pd.DataFrame([render(country.view(name), width=64, height=48).counts for name in images["image_id"]])
    counts = counts.fillna(0)
    assert np.corrcoef(counts["car"], level.loc[images["area_id"]])[0, 1] > 0.5
    assert np.corrcoef(counts["vegetation"], level.loc[images["area_id"]])[0, 1] < -0.5
    for name in ("litter", "shutter", "boarded"):
        assert np.corrcoef(counts[name], images["look"])[0, 1] > 0.5


def test_an_impossible_country_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 12 clusters"):
        build_country("simland-a", clusters=3)


# --- over the wire ---


def test_the_server_publishes_both_surveys_of_each_country_for_the_survey_source(tmp_path: Path) -> None:
    with SimulationServer(build_town(seed=3, boroughs=2, areas_per_borough=6), clusters=24) as server:
        for name in COUNTRIES:
            for world, path in (("several", name), ("single", f"{name}-single")):
                answer = requests.get(f"{server.url}/survey/{path}.csv", timeout=20)
                assert answer.headers["Content-Type"].startswith("text/csv")
                (tmp_path / path).with_suffix(".csv").write_bytes(answer.content)
                pd.testing.assert_frame_equal(
                    read_clusters((tmp_path / path).with_suffix(".csv")),
                    survey(build_country(name, clusters=24), world=world),
                    check_dtype=False,
                )
        assert requests.get(f"{server.url}/survey/atlantis.csv", timeout=20).status_code == 404


def test_the_mapillary_source_finds_and_fetches_the_images_of_a_cluster() -> None:
    """By the project's own client, through vector tiles, entities and signed thumbnails."""
    country = build_country("simland-b", clusters=24)
    urban = country.clusters[country.clusters["urban"]].iloc[0]
    wanted = country.images[country.images["area_id"] == urban["area_id"]]
    around = shapely.box(*wanted[["longitude", "latitude"]].min(), *wanted[["longitude", "latitude"]].max())
    with SimulationServer(build_town(seed=3, boroughs=2, areas_per_borough=6), clusters=24) as server:
        source = Mapillary(
            token="simulation-token",
            terms=TERMS,
            endpoint=f"{server.url}/simland-b/mapillary",
        )
        found = list(source.find(around.buffer(0.001)))
        assert {record.image_id for record in found} == set(wanted.loc[~wanted["is_pano"], "image_id"])
        fetchable = set(wanted.loc[wanted["thumb"] == "ok", "image_id"])
        record = source.complete(next(record for record in found if record.image_id in fetchable))
        pixels = source.fetch(record)
    with Image.open(io.BytesIO(pixels)) as picture:
        assert picture.size == (128, 96)
    assert pixels == jpeg(render(country.view(record.image_id), width=128, height=96))
