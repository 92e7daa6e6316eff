"""The simulated planet is a fair test: places that follow no grid, cues of known worth, and a ceiling that holds."""

import io

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import requests
import shapely
from numpy.testing import assert_allclose
from PIL import Image
from pyproj import Geod
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.special import i0e, i1e
from scipy.stats import norm, vonmises
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import KNeighborsClassifier

from urbanprint import grid
from urbanprint.geolocation.sphere import EARTH_KM, haversine_km, unit_vectors
from urbanprint.simulation.planet import DRIVE_SHARE, SIDE_ERROR, SUN_CONCENTRATION, Planet, build_planet
from urbanprint.simulation.planet_ceiling import ceiling, places_of, posteriors, reachable
from urbanprint.simulation.planet_ground import CONTINENTS, CUES, SPLIT, Waves
from urbanprint.simulation.planet_scenes import render_roadside
from urbanprint.simulation.scenes import jpeg
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.town import build_town
from urbanprint.sources.mapillary import TERMS, Mapillary

GEOD = Geod(ellps="WGS84")
COLUMNS = [f"cue_{cue}" for cue in CUES]
NOISE = np.array([shares.noise for shares in CUES.values()])


@pytest.fixture(scope="module")
def planet() -> Planet:
    return build_planet(images=4_000)


@pytest.fixture(scope="module")
def large() -> Planet:
    """The same planet, photographed so often that a score is the score of the model, not of the draw."""
    return build_planet(images=15_000)


def cells(images: pd.DataFrame, level: int) -> np.ndarray:
    return grid.encode(images["longitude"].to_numpy(), images["latitude"].to_numpy(), level)


def apart(images: pd.DataFrame) -> np.ndarray:
    """The component (n,) of each image when all of a drive and all within 1 km of each other hang together."""
    near = cKDTree(unit_vectors(images["longitude"], images["latitude"])).query_pairs(
        1.001 / EARTH_KM, output_type="ndarray"
    )
    number = np.arange(len(images))
    first = pd.Series(number).groupby(images["sequence_id"].to_numpy()).transform("first").to_numpy()
    rows, columns = np.concatenate([near[:, 0], number]), np.concatenate([near[:, 1], first])
    return connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(number),) * 2))[1]


# --- the ground ---


def test_the_same_arguments_build_the_same_planet(planet: Planet) -> None:
    again = build_planet.__wrapped__(images=4_000)
    pd.testing.assert_frame_equal(planet.images, again.images)
    pd.testing.assert_frame_equal(planet.towns, again.towns)
    assert planet.ground.land.equals(again.ground.land)
    assert not np.isin(build_planet(seed=12).images["image_id"], planet.images["image_id"]).any()


def test_more_images_are_of_the_same_ground_and_towns(planet: Planet, large: Planet) -> None:
    pd.testing.assert_frame_equal(planet.towns, large.towns)
    pd.testing.assert_frame_equal(planet.ground.provinces, large.ground.provinces)
    assert len(large.images) == pytest.approx(15_000, rel=0.02)


def test_images_and_towns_lie_on_land_as_the_file_of_it_says(planet: Planet) -> None:
    land = gpd.read_file(io.StringIO(planet.ground.land.to_json(drop_id=True)), engine="pyogrio")
    assert land.crs.to_epsg() == 4326
    assert land["continent"].tolist() == list(CONTINENTS)
    for places in (planet.images, planet.towns):
        points = gpd.GeoSeries.from_xy(places["longitude"], places["latitude"], crs=4326)
        joined = gpd.sjoin(gpd.GeoDataFrame(geometry=points), land, predicate="within")
        assert len(joined) == len(places)
        if "continent" in places:
            assert (joined["continent"].sort_index() == places["continent"]).all()


def test_continents_are_apart_and_within_the_world(planet: Planet) -> None:
    land = planet.ground.land
    assert land.is_valid.all()
    assert (land.geom_type == "Polygon").all()
    shapes = land.geometry.to_numpy()
    assert shapely.area(shapely.union_all(shapes)) == pytest.approx(shapely.area(shapes).sum())
    west, south, east, north = land.total_bounds
    assert west > -180
    assert east < 180
    assert -60 < south < north < 70
    km2 = np.array([abs(GEOD.geometry_area_perimeter(shape)[0]) / 1e6 for shape in shapes])
    assert ((km2 > 1.5e6) & (km2 < 4.5e6)).all()  # from Mongolia to India


def test_a_country_is_made_of_provinces_and_a_continent_of_countries(planet: Planet) -> None:
    provinces, countries = planet.ground.provinces, planet.ground.countries
    assert provinces.groupby("continent").size().eq(16).all()
    assert countries.groupby("continent").size().eq(4).all()
    assert provinces["country"].isin(countries["country"]).all()
    assert provinces.groupby("country").size().ge(1).sum() == len(countries)
    images = planet.images
    assert images.groupby("province")["country"].nunique().eq(1).all()
    assert images.groupby("country")["continent"].nunique().eq(1).all()


def test_regions_follow_no_grid(planet: Planet) -> None:
    """A cell of L5 holds several provinces, a province lies in several cells, and a continent in two quadrants."""
    images = planet.images.assign(quadrant=cells(planet.images, 1), cell=cells(planet.images, 5))
    assert images.groupby("cell")["province"].nunique().gt(1).mean() > 0.4
    assert images.groupby("province")["cell"].nunique().gt(1).mean() > 0.3
    assert images.groupby("continent")["quadrant"].nunique().gt(1).sum() >= 2


def test_countries_keep_left_or_right_and_neighbours_mostly_alike(planet: Planet) -> None:
    countries = planet.ground.countries
    assert set(countries["side"]) == {-1, 1}
    by_continent = countries.groupby("continent")["side"].mean().abs()
    assert by_continent.mean() > 0.5
    assert by_continent.min() < 1  # and yet a continent does not tell it all
    assert 0.2 < (countries["side"] > 0).mean() < 0.8


@pytest.mark.parametrize("km", [0.0, 500.0, 1000.0, 2000.0])
def test_waves_correlate_as_stated(km: float) -> None:
    """exp(-d^2 / (2 length^2)), estimated from 4,000 fields."""
    waves = Waves.drawn(length_km=1_000.0, fields=4_000, rng=np.random.default_rng(0))
    one, other = waves.at(unit_vectors(np.zeros(2), np.array([0.0, np.degrees(km / EARTH_KM)])))
    assert (one * other).mean() == pytest.approx(np.exp(-((km / 1_000.0) ** 2) / 2), abs=0.12)


def test_shares_leave_noise_in_every_cue(planet: Planet) -> None:
    for cue, shares in CUES.items():
        assert min(shares) >= 0, cue
        assert 0 < shares.noise < 1, cue
    by_country = planet.ground.effects
    split = [cue in SPLIT for cue in CUES]
    assert (np.unique(np.abs(by_country[:, split]).round(9), axis=0).shape[0]) == 1


# --- images ---


def test_images_have_the_columns_of_the_towns(planet: Planet) -> None:
    images, town = planet.images, build_town().images
    shared = [name for name in town.columns if not name.startswith("cue_")]
    assert set(shared) <= set(images.columns)
    assert (images[shared].dtypes == town[shared].dtypes).all()
    assert images["image_id"].is_unique
    assert images["image_id"].str.fullmatch(r"\d{15}").all()
    assert len(images) == pytest.approx(4_000, rel=0.05)
    assert 0.01 < images["is_pano"].mean() < 0.05
    assert images.notna().all(axis=None)


def test_drives_have_three_to_six_images_25_to_60_m_apart(planet: Planet) -> None:
    drives = planet.images.groupby("sequence_id", sort=False)
    assert drives.size().between(3, 6).all()
    assert drives["area_id"].nunique().eq(1).all()
    assert drives["creator"].nunique().eq(1).all()
    before = drives[["longitude", "latitude"]].shift().to_numpy()
    follows = ~np.isnan(before[:, 0])
    here = planet.images.loc[follows, ["longitude", "latitude"]].to_numpy()
    metres = GEOD.inv(*before[follows].T, *here.T)[2]
    assert metres.min() > 24.9
    assert metres.max() < 60.1
    assert drives["captured_at"].is_monotonic_increasing.all()


def test_cells_with_images_are_as_many_as_a_small_model_can_learn(planet: Planet) -> None:
    found = {level: len(np.unique(cells(planet.images, level))) for level in grid.LEVELS}
    assert found[1] == 4
    assert 10 <= found[3] <= 30
    assert 25 <= found[5] <= 60
    assert 200 <= found[8] <= 600


def test_some_countries_are_photographed_far_more_than_others(planet: Planet) -> None:
    sizes = planet.images.groupby("country").size()
    assert len(sizes) >= 20
    assert sizes.max() > 10 * sizes.quantile(0.25)


def test_train_and_test_can_lie_a_kilometre_apart_and_share_no_drive(planet: Planet) -> None:
    images = planet.images
    component = apart(images)
    assert np.bincount(component).max() < 0.02 * len(images)
    tested = np.isin(component, np.random.default_rng(0).permutation(component.max() + 1)[::4])
    assert 0.15 < tested.mean() < 0.35
    assert not set(images.loc[tested, "sequence_id"]) & set(images.loc[~tested, "sequence_id"])
    trees = [
        cKDTree(unit_vectors(images.loc[part, "longitude"], images.loc[part, "latitude"])) for part in (tested, ~tested)
    ]
    assert trees[0].count_neighbors(trees[1], 1.0 / EARTH_KM) == 0
    # Most tested images are of a cell that was trained on, at L8 too, or no model could be told from any other.
    for level, least in ((1, 1.0), (3, 0.99), (5, 0.97), (8, 0.8)):
        cell = cells(images, level)
        assert np.isin(cell[tested], cell[~tested]).mean() >= least


def test_cues_scatter_around_their_means_as_stated(large: Planet) -> None:
    images = large.images
    rest = images[COLUMNS] - large.ground.means(images["longitude"], images["latitude"])
    assert_allclose(rest.mean(), 0.0, atol=0.03)
    assert_allclose(rest.var(), NOISE, rtol=0.06)
    shared = (rest * rest.groupby(images["sequence_id"]).shift()).mean() / NOISE
    assert_allclose(shared, DRIVE_SHARE, atol=0.05)


def test_the_side_drawn_is_the_countrys_but_for_a_stated_share(large: Planet) -> None:
    side = large.ground.countries.set_index("country")["side"].loc[large.images["country"]].to_numpy()
    assert (large.images["side"] != side).mean() == pytest.approx(SIDE_ERROR, abs=0.005)


def test_the_sun_stands_in_the_south_of_the_north_and_in_the_north_of_the_south(large: Planet) -> None:
    drives = large.images.drop_duplicates("sequence_id")
    south = -np.cos(np.radians(drives["sun_azimuth"]))
    expected = i1e(SUN_CONCENTRATION) / i0e(SUN_CONCENTRATION)  # mean resultant length of a von Mises distribution
    northern = drives["latitude"] >= 0
    assert south[northern].mean() == pytest.approx(expected, abs=0.03)
    assert south[~northern].mean() == pytest.approx(-expected, abs=0.03)
    # Drives go in all directions: seen from the camera, the sun is anywhere in both hemispheres.
    seen = np.radians(drives["sun_azimuth"] - drives["heading"])
    for part in (northern, ~northern):
        assert np.hypot(np.cos(seen[part]).mean(), np.sin(seen[part]).mean()) < 0.04
    warm = drives["latitude"].abs() < 15
    assert drives.loc[warm, "cue_elevation"].mean() > drives.loc[~warm, "cue_elevation"].mean() + 0.8


def test_a_view_shows_the_cues_of_its_image(planet: Planet) -> None:
    image = planet.images.iloc[100]
    view = planet.view(image["image_id"])
    assert view.cues == {cue: image[f"cue_{cue}"] for cue in CUES}
    assert view.sun == pytest.approx((image["sun_azimuth"] - image["heading"]) % 360)
    plans = {planet.view(name).style.plan for name in planet.images["image_id"].iloc[:20]}
    assert len(plans) == planet.images["sequence_id"].iloc[:20].nunique()
    with pytest.raises(KeyError):
        planet.view("1")


def test_an_impossible_planet_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 100 images"):
        build_planet(images=12)


# --- the ceiling ---


@pytest.mark.parametrize("reader", ["pixels", "compass"])
def test_the_posterior_is_bayes_rule(planet: Planet, reader: str) -> None:
    """Against densities of SciPy, place by place."""
    places = places_of(planet)
    rows = planet.images.iloc[[5, 2_000]]
    chosen = np.argsort(-places.probability)[:: len(places.probability) // 300]
    found = np.concatenate(list(posteriors(planet, rows, places, reader=reader)))  # type: ignore[arg-type]
    assert_allclose(found.sum(axis=1), 1.0)
    means = planet.ground.means(places.longitude[chosen], places.latitude[chosen])
    side = planet.ground.side_of(places.longitude[chosen], places.latitude[chosen])
    for row, image in zip(found, rows.to_dict("records"), strict=True):
        cues = [image[name] for name in COLUMNS]
        log = np.log(places.probability[chosen]) + norm.logpdf(cues, means, np.sqrt(NOISE)).sum(axis=1)
        log += np.log(np.where(side == image["side"], 1 - SIDE_ERROR, SIDE_ERROR))
        if reader == "compass":
            noon = np.where(places.latitude[chosen] >= 0, np.pi, 0.0)
            log += vonmises.logpdf(np.radians(image["sun_azimuth"]), SUN_CONCENTRATION, noon)
        direct = np.exp(log - log.max())
        assert_allclose(row[chosen] / row[chosen].max(), direct, rtol=1e-6, atol=1e-12)


def test_the_prior_is_where_images_are(planet: Planet, large: Planet) -> None:
    places = places_of(planet)
    assert places.probability.sum() == pytest.approx(1.0)
    assert planet.ground.is_land(places.longitude, places.latitude).all()
    weight = np.bincount(grid.encode(places.longitude, places.latitude, 5), places.probability, 4**5)
    share = np.bincount(cells(large.images, 5), minlength=4**5) / len(large.images)
    assert_allclose(weight, share, atol=0.012)


@pytest.fixture(scope="module")
def answers(planet: Planet) -> pd.DataFrame:
    return reachable(planet, planet.images.iloc[::8])


@pytest.fixture(scope="module")
def best(answers: pd.DataFrame) -> pd.DataFrame:
    return answers.groupby("measure", sort=False)[["score", "expected"]].mean()


def test_finer_is_harder_and_nothing_is_certain(best: pd.DataFrame) -> None:
    for column in ("score", "expected"):
        levels = best.loc[[f"top_1_L{level}" for level in grid.LEVELS], column]
        assert levels.is_monotonic_decreasing
        assert levels.iloc[0] < 1
        distances = best.loc[[f"within_{km}_km" for km in (200, 750, 2500)], column]
        assert distances.is_monotonic_increasing
        assert distances.iloc[-1] < 1
    assert best.loc["top_1_L8", "expected"] > 0.2
    assert 3_000 < best.loc["geoscore", "expected"] < 5_000


def test_the_best_answers_score_what_is_expected_of_them(best: pd.DataFrame) -> None:
    """500 images: two standard errors are .045 of an accuracy of .5."""
    accuracies = best.drop(index="geoscore")
    assert_allclose(accuracies["score"], accuracies["expected"], atol=0.05)
    assert best.loc["geoscore", "score"] == pytest.approx(best.loc["geoscore", "expected"], abs=150)


def test_a_compass_helps_with_the_hemisphere(planet: Planet, best: pd.DataFrame) -> None:
    informed = ceiling(planet, planet.images.iloc[::8], reader="compass").set_index("measure")
    assert informed.loc["top_1_L1", "expected"] > best.loc["top_1_L1", "expected"] + 0.005
    assert (informed["expected"] > best["expected"] - 1e-4).all()


def test_what_is_reachable_names_every_image_and_measure_once(planet: Planet, answers: pd.DataFrame) -> None:
    assert not answers.duplicated(["image_id", "measure"]).any()
    table = answers.pivot_table(index="image_id", columns="measure", values="score")
    assert set(table.index) == set(planet.images["image_id"].iloc[::8])
    assert table.shape[1] == 8
    assert table.drop(columns="geoscore").isin([0.0, 1.0]).all(axis=None)
    assert table["geoscore"].between(0, 5_000).all()


def test_the_ceiling_is_the_mean_of_what_is_reachable(planet: Planet, answers: pd.DataFrame) -> None:
    images = planet.images.iloc[:160:8]
    limit = ceiling(planet, images).set_index("measure")
    some = answers[answers["image_id"].isin(images["image_id"])].groupby("measure")[["score", "expected"]].mean()
    pd.testing.assert_frame_equal(limit, some.loc[limit.index], rtol=1e-5)


def test_learned_classifiers_stay_below_the_ceiling_and_neighbours_come_near_it(large: Planet) -> None:
    """On the cues as drawn, learned from 13,500 images and tried on drives of their own."""
    images, tested = large.images, large.images["sequence_id"].factorize()[0] % 10 == 0
    of_side = images["side"] * np.log((1 - SIDE_ERROR) / SIDE_ERROR) / 2
    seen = np.column_stack([images[COLUMNS] / np.sqrt(NOISE), of_side])
    truth = np.column_stack([cells(images, level) for level in grid.LEVELS])
    near = KNeighborsClassifier(20, weights="distance").fit(seen[~tested], truth[~tested]).predict(seen[tested])
    linear = LinearDiscriminantAnalysis().fit(seen[~tested], truth[~tested, 2]).predict(seen[tested])
    best = ceiling(large, images[tested]).set_index("measure")["expected"]
    assert (linear == truth[tested, 2]).mean() < best["top_1_L5"]
    for level, score, gap in zip(
        grid.LEVELS, (near == truth[tested]).mean(axis=0), (0.04, 0.05, 0.08, 0.14), strict=True
    ):
        assert best[f"top_1_L{level}"] - gap < score < best[f"top_1_L{level}"]


# --- over the wire ---


@pytest.fixture(scope="module")
def server() -> SimulationServer:
    return SimulationServer(build_town(seed=3, boroughs=2, areas_per_borough=6), planet_images=600)


def test_the_server_publishes_the_land(server: SimulationServer) -> None:
    with server:
        answer = requests.get(f"{server.url}/planet/land.geojson", timeout=20)
        assert requests.get(f"{server.url}/planet/sea.geojson", timeout=20).status_code == 404
    assert answer.headers["Content-Type"] == "application/geo+json"
    land = gpd.read_file(io.BytesIO(answer.content))
    assert land.geometry.geom_equals_exact(build_planet(images=600).ground.land.geometry, 1e-6).all()


@pytest.mark.parametrize("discovery", ["tiles", "search"])
def test_the_mapillary_source_finds_and_fetches_the_images_of_a_place(server: SimulationServer, discovery: str) -> None:
    """By the project's own client, through vector tiles or searches, entities and signed thumbnails."""
    planet = build_planet(images=600)
    images = planet.images
    start = images[(images["thumb"] == "ok") & ~images["is_pano"]].iloc[0]
    around = shapely.Point(start["longitude"], start["latitude"]).buffer(0.004)
    inside = shapely.contains_xy(around, images["longitude"], images["latitude"])
    wanted = images[inside & ~images["is_pano"]]
    with server:
        source = Mapillary(
            token="simulation-token",
            terms=TERMS,
            endpoint=f"{server.url}/planet/mapillary",
            discovery=discovery,  # type: ignore[arg-type]
        )
        found = {record.image_id: record for record in source.find(around)}
        assert set(found) == set(wanted["image_id"])
        record = source.complete(found[start["image_id"]])
        pixels = source.fetch(record)
    assert haversine_km(record.longitude, record.latitude, start["longitude"], start["latitude"]) < 0.03
    assert record.sequence_id == start["sequence_id"]
    with Image.open(io.BytesIO(pixels)) as picture:
        assert picture.size == (128, 96)
    assert pixels == jpeg(render_roadside(planet.view(start["image_id"]), width=128, height=96))
