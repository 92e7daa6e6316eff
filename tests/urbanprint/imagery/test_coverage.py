"""Coverage: the shares are counted right, the intervals are the published ones, the gap has the right sign."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pyproj import Geod
from scipy.stats import binomtest

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.imagery.coverage import ANY, coverage_bias, coverage_gap, enough_images, wilson
from urbanprint.imagery.quality import rejections
from urbanprint.maps.coverage_figures import coverage_bias_chart, rejection_chart
from urbanprint.maps.style import WEALTH


def north(metres: float) -> float:
    return Geod(ellps="WGS84").fwd(0, 51, 0, metres)[1]


@pytest.fixture
def city() -> dict[str, pd.DataFrame]:
    """Two poor areas and two rich ones, 10 km apart, a point each; an image stands so many metres north of a point."""
    area_ids = ["poor-1", "poor-2", "rich-1", "rich-2", "unasked"]
    places = dict(zip(area_ids, [0.0, 0.2, 0.4, 0.6, 0.8], strict=True))
    images = [
        ("1", "poor-1", 49.9, "mapillary", "2019-06-01", "fetched"),
        ("2", "rich-1", 10.0, "mapillary", "2019-12-31", "fetched"),
        ("3", "rich-1", 20.0, "panoramax", "2022-06-01", "fetched"),
        ("4", "rich-2", 50.1, "panoramax", None, "fetched"),
        ("5", "poor-2", 0.0, "panoramax", "2022-06-01", "rejected"),
    ]
    frame = pd.DataFrame(images, columns=["image_id", "area_id", "metres", "source", "captured_at", "state"])
    frame["longitude"] = frame["area_id"].map(places)
    frame["latitude"] = frame["metres"].map(north)
    frame["captured_at"] = pd.to_datetime(frame["captured_at"], utc=True)
    return {
        "areas": pd.DataFrame({"area_id": area_ids, "population": [100.0, 300.0, 500.0, np.nan, 900.0]}),
        "sampled": pd.DataFrame({"area_id": area_ids, "stratum": [1, 1, 9, 9, 9]}),
        "points": pd.DataFrame(
            {"point_id": area_ids, "area_id": area_ids, "longitude": places.values(), "latitude": 51.0}
        ),
        "images": frame,
        "coverage": pd.DataFrame({"area_id": area_ids, "outcome": ["imaged"] * 4 + ["not asked"]}),
    }


def of(bias: pd.DataFrame, measure: str, decile: int, source: str = ANY, year: str = ANY) -> tuple[float, float]:
    row = bias.set_index(["measure", "decile", "source", "year"]).loc[(measure, decile, source, year)]
    return row["covered"], row["total"]


def test_areas_points_and_people_are_counted_by_decile_source_and_year(city: dict[str, pd.DataFrame]) -> None:
    bias = coverage_bias(**city)
    tables.COVERAGE_BIAS.validate(bias)
    assert len(bias) == 3 * 3 * 3 * 10
    assert of(bias, "areas", 1) == (1, 2)
    assert of(bias, "areas", 9) == (2, 2)
    assert of(bias, "points", 1) == (1, 2)
    assert of(bias, "points", 9) == (1, 2), "the image of rich-2 is 50.1 m away"
    assert of(bias, "people", 1) == (100, 400)
    assert of(bias, "people", 9) == (500, 500), "rich-2 has no published population"
    assert of(bias, "areas", 9, source="mapillary") == (1, 2)
    assert of(bias, "areas", 9, year="2019") == (1, 2)
    assert of(bias, "areas", 9, source="panoramax", year="2022") == (1, 2)
    assert of(bias, "areas", 1, source="panoramax") == (0, 2)
    assert bias.loc[bias["decile"] == 5, "share"].isna().all()


def test_an_area_counts_from_as_many_images_as_asked_for(city: dict[str, pd.DataFrame]) -> None:
    bias = coverage_bias(**city, least_images=2, within_m=51)
    assert of(bias, "areas", 9) == (1, 2)
    assert of(bias, "areas", 1) == (0, 2)
    assert of(bias, "points", 9) == (2, 2), "points ask for one image, now within 51 m"


def test_a_city_without_a_fetched_image_has_shares_of_zero(city: dict[str, pd.DataFrame]) -> None:
    bias = coverage_bias(**{**city, "images": city["images"].iloc[:0]})
    assert set(bias["source"]) == set(bias["year"]) == {ANY}
    assert (bias.loc[bias["total"] > 0, "share"] == 0).all()
    assert coverage_gap(bias)["gap"].tolist() == [0, 0, 0]


def test_an_area_that_is_not_in_the_sample_is_named(city: dict[str, pd.DataFrame]) -> None:
    with pytest.raises(InputError, match="area rich-1 was asked"):
        coverage_bias(**{**city, "sampled": city["sampled"].drop(index=2)})


@pytest.mark.parametrize(("covered", "total"), [(0, 7), (1, 3), (40, 97), (13, 13)])
def test_the_interval_is_wilsons(covered: int, total: int) -> None:
    low, high = wilson(np.array([float(covered)]), np.array([float(total)]))
    known = binomtest(covered, total).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((known.low, known.high), abs=1e-12)


def test_the_gap_and_its_interval_are_newcombes() -> None:
    # Newcombe 1998, table II, example (a), method 10: 56/70 against 48/80 differs by 0.2, from 0.0524 to 0.3339.
    covered, total = np.array([48.0, 56.0]), np.array([80.0, 70.0])
    low, high = wilson(covered, total)
    bias = pd.DataFrame(
        {"measure": "points", "source": ANY, "year": ANY, "decile": [2, 9], "covered": covered, "total": total,
         "share": covered / total, "low": low, "high": high}
    )  # fmt: skip
    gap = coverage_gap(bias).iloc[0]
    assert (gap["most_deprived"], gap["least_deprived"]) == (2, 9)
    assert (gap["gap"], gap["low"], gap["high"]) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_the_gap_finds_a_planted_bias_and_its_sign(city: dict[str, pd.DataFrame]) -> None:
    gap = coverage_gap(coverage_bias(**city)).set_index(["measure", "source", "year"])["gap"]
    assert gap[("areas", ANY, ANY)] == pytest.approx(0.5)
    assert gap[("people", ANY, ANY)] == pytest.approx(0.75)


def test_areas_with_too_few_images_are_marked() -> None:
    marked = enough_images(pd.DataFrame({"area_id": ["a", "b", "c"], "images": [3, 4, 0]}), 4)
    assert marked.to_dict() == {"a": False, "b": True, "c": False}


def size_of(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return picture.size


def test_the_chart_gains_a_panel_for_years_and_one_for_sources(city: dict[str, pd.DataFrame]) -> None:
    bias = coverage_bias(**city)
    full, plain = size_of(coverage_bias_chart(bias)), size_of(coverage_bias_chart(bias[bias["year"] == ANY]))
    assert full[0] == plain[0]
    assert full[1] > plain[1]
    with pytest.raises(InputError, match="no coverage to draw"):
        coverage_bias_chart(bias.assign(total=0.0))


def test_charts_name_what_their_deciles_are_of(city: dict[str, pd.DataFrame]) -> None:
    bias = coverage_bias_chart.__wrapped__(coverage_bias(**city), deciles=WEALTH)
    images = pd.DataFrame({"source": "m", "area_id": ["poor"], "state": ["rejected"], "reason": ["blurred"]})
    rejected = rejection_chart.__wrapped__(rejections(images, pd.Series({"poor": 1.0})), deciles=WEALTH)
    for figure in (bias, rejected):
        assert figure.axes[0].get_xlabel().startswith("wealth decile (1 = poorest)")
    names = [text.get_text() for text in bias.axes[1].get_legend().get_texts()]
    assert names == ["decile 1, poorest", "decile 9, wealthiest"]


def test_rejections_are_drawn_and_none_is_no_picture() -> None:
    areas = pd.DataFrame({"area_id": ["poor"], "imd_decile": [1.0]})
    images = pd.DataFrame({"source": "m", "area_id": ["poor", "poor", None], "state": ["fetched", "rejected", "found"],
                           "reason": [None, "blurred", None]})  # fmt: skip
    assert size_of(rejection_chart(rejections(images, areas.set_index("area_id")["imd_decile"])))[0] > 900
    assert size_of(rejection_chart(rejections(images.iloc[:1], areas.set_index("area_id")["imd_decile"])))[0] > 900, (
        "everything was kept"
    )
    with pytest.raises(InputError, match="no rejections to draw"):
        rejection_chart(rejections(images.iloc[:0], areas.set_index("area_id")["imd_decile"]))
