"""Scores of guesses by hand, their intervals by copying rows, and paired differences."""

import numpy as np
import pandas as pd
import pytest
from pandera.errors import SchemaError

from urbanprint.errors import InputError
from urbanprint.geolocation.scores import (
    GEOLOCATION_DIFFERENCES,
    GEOLOCATION_SCORES,
    difference,
    geoscore,
    rank_of,
    score,
)
from urbanprint.geolocation.sphere import EARTH_KM, haversine_km

DEGREE_KM = np.pi * EARTH_KM / 180


def guesses(
    km: list[float] | np.ndarray, *, model: str = "network", group: list[str] | None = None, **columns: object
) -> pd.DataFrame:
    """Images on the equator, guessed `km` to the east."""
    number = np.arange(len(km))
    longitude = np.linspace(-20.0, 20.0, len(km))
    return pd.DataFrame(
        {
            "image_id": [f"i{i:04d}" for i in number],
            "model": model,
            "group": [f"g{i}" for i in number] if group is None else group,
            "longitude": longitude,
            "latitude": 0.0,
            "guess_longitude": longitude + np.asarray(km) / DEGREE_KM,
            "guess_latitude": 0.0,
            **columns,
        }
    )


def values(table: pd.DataFrame, by: str = "all", stratum: str = "all") -> pd.Series:
    rows = table[(table["by"] == by) & (table["stratum"] == stratum)]
    return rows.set_index("measure")["value"]


def random_guesses(*, model: str = "network", seed: int = 0, images: int = 60, groups: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return guesses(
        np.exp(rng.uniform(-1, 9, images)),
        model=model,
        group=[f"g{i % groups}" for i in range(images)],
        rank_L3=rng.integers(1, 12, images).astype(float),
    )


# --- by hand --------------------------------------------------------------------------------------------------------


def test_a_guess_on_the_spot_is_worth_5000_points_and_one_at_the_scale_a_third() -> None:
    np.testing.assert_allclose(geoscore([0.0, 1492.7, 20_000.0]), [5000, 5000 / np.e, 0.00758], rtol=1e-2)
    assert geoscore(1492.7) == pytest.approx(1839.397, abs=0.001)


def test_shares_means_and_points_by_hand() -> None:
    found = values(score(guesses([0.5, 1.5, 20, 30, 100, 700, 800, 2400, 2600, 9000]), seed=0))
    assert found[[f"within_{d}_km" for d in (1, 25, 200, 750, 2500)]].tolist() == pytest.approx(
        [0.1, 0.3, 0.5, 0.6, 0.8]
    )
    assert found["mean_km"] == pytest.approx(1565.2)
    assert found["median_km"] == pytest.approx(400.0)
    assert found["geoscore"] == pytest.approx(
        np.mean([5000 * np.exp(-d / 1492.7) for d in (0.5, 1.5, 20, 30, 100, 700, 800, 2400, 2600, 9000)])
    )


def test_distances_cross_the_antimeridian() -> None:
    table = guesses([0.0]).assign(longitude=179.9, guess_longitude=-179.9)
    assert values(score(table, seed=0))["mean_km"] == pytest.approx(0.2 * DEGREE_KM)


def test_the_rank_of_the_true_cell_counts_ties_against_the_model() -> None:
    probabilities = np.log([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.3, 0.2]])
    assert rank_of(probabilities, np.array([0, 2, 1, -1])).tolist() == [1, 3, 3, np.inf]


def test_the_true_cell_is_among_the_top_k_of_its_level() -> None:
    table = guesses([1.0] * 4, rank_L1=[1.0, 1.0, 1.0, 2.0], rank_L3=[1.0, 3.0, 6.0, np.inf])
    found = values(score(table, top=(1, 3, 5), seed=0))
    assert found.filter(like="top_").to_dict() == {
        "top_1_L1": 0.75, "top_3_L1": 1.0, "top_5_L1": 1.0, "top_1_L3": 0.25, "top_3_L3": 0.5, "top_5_L3": 0.5,
    }  # fmt: skip


def test_a_model_that_ranks_no_cells_has_no_such_rows() -> None:
    both = pd.concat([guesses([1.0, 2.0], rank_L3=[1.0, 2.0]), guesses([3.0, 4.0], model="nearest", rank_L3=np.nan)])
    table = score(both, seed=0)
    assert set(table.loc[table["measure"].str.startswith("top"), "model"]) == {"network"}
    half = both.assign(rank_L3=[1.0, np.nan, 1.0, 1.0])
    with pytest.raises(InputError, match="rank_L3 of image i0001 is missing for 'network'"):
        score(half, seed=0)


# --- strata ---------------------------------------------------------------------------------------------------------


def test_continents_and_quarters_of_density_are_scored_apart() -> None:
    km = [1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0]
    table = guesses(
        km, continent=["Asia", "Asia", "Asia", None, "Africa", "Africa", "Africa", "Africa"], density=np.arange(8.0)
    )
    found = score(table, seed=0)
    assert values(found, "continent", "Asia")["mean_km"] == pytest.approx(2.0)
    assert values(found, "continent", "Africa")["mean_km"] == pytest.approx(25.0)
    quarters = [values(found, "density", f"{part} of 4")["mean_km"] for part in (1, 2, 3, 4)]
    assert quarters == pytest.approx([1.5, 3.5, 15.0, 35.0])
    images = found.groupby(["by", "stratum"])["images"].first()
    assert images["continent"].to_dict() == {"Africa": 4, "Asia": 3}
    assert images["all"].to_dict() == {"all": 8}


def test_quarters_are_of_images_not_of_guesses() -> None:
    """The baseline guesses the densest half only; the quarters remain those of all images."""
    table = guesses([1.0] * 8, density=np.arange(8.0))
    fewer = guesses([2.0] * 8, model="nearest", density=np.arange(8.0))[4:]
    found = score(pd.concat([table, fewer]), seed=0)
    assert set(found.loc[(found["model"] == "nearest") & (found["by"] == "density"), "stratum"]) == {"3 of 4", "4 of 4"}


def test_equal_densities_make_fewer_parts() -> None:
    found = score(guesses([1.0] * 8, density=[0.0] * 6 + [1.0, 2.0]), seed=0)
    assert found.loc[found["by"] == "density"].groupby("stratum")["images"].first().sum() == 8


# --- intervals ------------------------------------------------------------------------------------------------------


def test_intervals_equal_a_bootstrap_that_copies_the_rows_of_whole_groups() -> None:
    table = random_guesses()
    found = score(table, repeats=200, seed=9).set_index("measure")
    km = haversine_km(*table[["longitude", "latitude", "guess_longitude", "guess_latitude"]].to_numpy().T)
    rank, members = table["rank_L3"].to_numpy(), table.groupby("group").indices
    names = sorted(members)
    resampled = []
    for counts in np.random.default_rng(9).multinomial(len(names), [1 / len(names)] * len(names), size=200):
        rows = np.concatenate([np.tile(members[n], c) for n, c in zip(names, counts, strict=True) if c])
        resampled.append(
            {
                **{f"within_{d}_km": (km[rows] <= d).mean() for d in (1, 25, 200, 750, 2500)},
                "mean_km": km[rows].mean(),
                "median_km": np.median(km[rows]),
                "geoscore": geoscore(km[rows]).mean(),
                "top_1_L3": (rank[rows] <= 1).mean(),
                "top_5_L3": (rank[rows] <= 5).mean(),
            }
        )
    expected = pd.DataFrame(resampled).quantile([0.025, 0.975])
    np.testing.assert_allclose(found.loc[expected.columns, ["low", "high"]].to_numpy().T, expected.to_numpy())
    assert found.loc["median_km", "value"] == pytest.approx(np.median(km))
    assert set(found["groups"]) == {12}


def test_images_of_a_sequence_count_as_few() -> None:
    alike = np.repeat(np.exp(np.random.default_rng(1).uniform(0, 8, 6)), 10)
    whole = score(guesses(alike, group=[f"s{i // 10}" for i in range(60)]), seed=0).set_index("measure")
    single = score(guesses(alike), seed=0).set_index("measure")
    width = [table.loc["mean_km", "high"] - table.loc["mean_km", "low"] for table in (whole, single)]
    assert width[0] > 2 * width[1]


def test_a_single_group_has_scores_and_no_interval() -> None:
    found = score(guesses([1.0, 2.0], group=["s", "s"]), seed=0)
    assert found["value"].notna().all()
    assert found[["low", "high"]].isna().all(axis=None)


def test_medians_of_many_draws_are_taken_in_parts() -> None:
    """3,000 images and 3,001 draws are more numbers than are held at once; few draws are not."""
    table = random_guesses(images=3000, groups=30)
    many, few = (score(table, repeats=repeats, seed=0).set_index("measure") for repeats in (3000, 300))
    for column in ("low", "value", "high"):
        assert many.loc["median_km", column] == pytest.approx(few.loc["median_km", column], rel=0.1)


def test_the_order_of_rows_changes_nothing() -> None:
    table = random_guesses().assign(density=np.arange(60.0))
    one, other = (score(rows, repeats=50, seed=0) for rows in (table, table.sample(frac=1, random_state=3)))
    pd.testing.assert_frame_equal(one, other)


# --- differences ----------------------------------------------------------------------------------------------------


def test_a_difference_is_paired_and_over_the_images_both_guess() -> None:
    """The network is a tenth nearer than the baseline on every image: unpaired intervals overlap, this excludes 0."""
    network = random_guesses()
    far = network["guess_longitude"] - network["longitude"]
    nearest = network.assign(model="nearest", guess_longitude=network["longitude"] + 1.1 * far)[5:]
    both = pd.concat([network, nearest])
    found = difference(both, "network", "nearest", seed=0).set_index("measure").loc["mean_km"]
    alone = score(pd.concat([network[5:], nearest]), seed=0).set_index(["measure", "model"]).loc["mean_km"]
    assert found["value"] == pytest.approx(alone.loc["network", "value"] - alone.loc["nearest", "value"])
    assert (found["images"], found["groups"]) == (55, 12)
    assert alone.loc["network", "high"] > alone.loc["nearest", "low"]
    assert found["low"] < found["value"] < found["high"] < 0


def test_a_model_differs_from_itself_by_nothing() -> None:
    table = random_guesses().assign(continent="Asia")
    found = difference(pd.concat([table, table.assign(model="twin")]), "network", "twin", repeats=50, seed=0)
    assert (found[["value", "low", "high"]] == 0.0).all(axis=None)
    assert set(found["by"]) == {"all", "continent"}


def test_both_tables_keep_to_their_schemas() -> None:
    table = random_guesses()
    GEOLOCATION_SCORES.validate(score(table, repeats=10, seed=0))
    twins = pd.concat([table, table.assign(model="twin")])
    GEOLOCATION_DIFFERENCES.validate(difference(twins, "network", "twin", repeats=10, seed=0))
    with pytest.raises(SchemaError):
        GEOLOCATION_SCORES.validate(score(table, repeats=10, seed=0).assign(measure="accuracy"))


def test_mistakes_are_named() -> None:
    table = random_guesses()
    with pytest.raises(InputError, match="no guesses of 'prior', only of network"):
        difference(table, "network", "prior", seed=0)
    with pytest.raises(InputError, match="guess no image in common"):
        difference(pd.concat([table[:30], table[30:].assign(model="prior")]), "network", "prior", seed=0)
    moved = table[:1].assign(model="prior", longitude=3.0)
    with pytest.raises(InputError, match="Image i0000 has different group, longitude, latitude in different rows"):
        score(pd.concat([table, moved]), seed=0)
