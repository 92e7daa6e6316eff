"""The geolocation report: what it claims follows from the intervals, and the page says it with what it is not for."""

import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image
from PIL.ExifTags import GPS, IFD

from urbanprint.errors import InputError
from urbanprint.evaluation.calibration import reliability
from urbanprint.geolocation.datasets import CLASS_REPORT
from urbanprint.geolocation.scores import GEOLOCATION_DIFFERENCES, GEOLOCATION_SCORES, GUESSES
from urbanprint.maps.geolocation_figures import MODELS
from urbanprint.maps.geolocation_report import (
    GeolocationContent,
    geolocation_report,
    score_tables,
    summary_text,
    verdict,
)
from urbanprint.maps.report import Attribution

HOSTILE = "<script>alert(1)</script>"
MINUS = "\N{MINUS SIGN}"
GEOSCORES = {"joint": 2345.0, "levels": 2300.0, "old-fusion": 1900.0, "nearest-neighbour": 2500.0, "prior": 400.0}


def _guesses() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    images = pd.DataFrame({"image_id": [f"i{number:02d}" for number in range(30)], "group": "g"})
    images = images.assign(longitude=rng.uniform(-170, 170, 30), latitude=rng.uniform(-50, 70, 30))
    return GUESSES.validate(
        pd.concat(
            [images.assign(model=model, guess_longitude=10.0, guess_latitude=45.0) for model in GEOSCORES],
            ignore_index=True,
        )
    )


def _scores() -> pd.DataFrame:
    """The old fusion ranks cells of the finest level only."""
    rows = []
    for place, (model, points) in enumerate(GEOSCORES.items()):
        share = 0.5 - place / 10
        measures = {"geoscore": (points, 100.0), "median_km": (900.0 + place, 90.0)}
        measures |= {f"within_{km}_km": (share, 0.05) for km in (1, 25, 200, 750, 2500)}
        measures |= {f"top_1_L{level}": (share, 0.05) for level in (10, 3) if model != "old-fusion" or level == 10}
        for measure, (value, half) in measures.items():
            rows.append((model, "all", "all", measure, value, value - half, value + half, 900, 80))
        rows.append((model, "continent", HOSTILE, "within_200_km", share, share - 0.1, share + 0.1, 90, 8))
    return GEOLOCATION_SCORES.validate(pd.DataFrame(rows, columns=list(GEOLOCATION_SCORES.columns)))


def _difference(rival: str, measure: str, gain: tuple[float, float, float]) -> tuple:
    return ("joint", rival, "all", "all", measure, *gain, 900, 80)


def _differences(*rows: tuple) -> pd.DataFrame:
    return GEOLOCATION_DIFFERENCES.validate(pd.DataFrame(rows, columns=list(GEOLOCATION_DIFFERENCES.columns)))


def _photograph() -> bytes:
    """A JPEG that says in its EXIF block where it was taken."""
    exif = Image.Exif()
    exif.get_ifd(IFD.GPSInfo)[GPS.GPSLatitudeRef] = "N"
    out = BytesIO()
    Image.fromarray(np.full((60, 80, 3), (200, 90, 40), dtype=np.uint8)).save(out, "JPEG", exif=exif)
    return out.getvalue()


@pytest.fixture(scope="module")
def content() -> GeolocationContent:
    differences = _differences(
        _difference("levels", "geoscore", (45.0, -60.4, 150.0)),
        _difference("levels", "within_200_km", (0.1, 0.02, 0.18)),
        _difference("old-fusion", "geoscore", (445.0, 300.0, 1590.2)),
        _difference("old-fusion", "within_200_km", (0.2, 0.1, 0.3)),
        _difference("nearest-neighbour", "geoscore", (-155.0, -200.0, -100.0)),
        _difference("nearest-neighbour", "within_200_km", (0.3, -0.01, 0.61)),
    )
    sets = pd.DataFrame(
        [("joint", 3, True, 0.92, 0.88, 0.95, 2.5, 900), ("joint", 10, True, 0.84, 0.80, 0.88, 12.0, 900),
         ("levels", 3, True, 0.9, np.nan, np.nan, 3.25, 900), ("levels", 10, False, 1.0, 1.0, 1.0, 500.0, 900)],
        columns=["model", "level", "promised", "coverage", "low", "high", "mean_size", "images"],
    )  # fmt: skip
    classes = pd.DataFrame(
        [(3, 41, 37, 1, 4200, 40, 22, 600, 81.0), (10, 1630, 160, 60, 4200, 1900, 20, 130, 24.0)],
        columns=list(CLASS_REPORT.columns),
    )
    sure = {"before": reliability(np.linspace(0.2, 0.9, 40), np.arange(40) % 2)}
    return GeolocationContent(
        title=f"Where? {HOSTILE}",
        summary="A planet that does not exist.",
        guesses=_guesses(),
        scores=_scores(),
        differences=differences,
        calibration=pd.DataFrame(
            {"model": ["joint", "joint", "levels"], "level": [3, 10, 3], "before": [0.09, 0.171, 0.02],
             "after": [0.031, 0.0214, 0.026], "chance": [0.025, 0.02, 0.024]}
        ),
        reliability={"joint": sure},
        coverage=sets,
        classes=CLASS_REPORT.validate(classes),
        parts={"test": 900, "train": 4200, "calibration": 901},
        land=np.array([shapely.box(-20, -30, 50, 35)]),
        asked_cells=2105,
        imaged_cells=1630,
        empty_cells=475,
        attributions=(Attribution("Images", "<b>Ada</b>", "CC BY-SA 4.0", "https://example.org/"),),
        provenance={"run": "5e8b2c0a"},
        apart_m=1000.0,
        ceiling=pd.DataFrame(
            {"measure": ["top_1_L3", "within_200_km", "geoscore"], "score": [0.8, 0.75, 2300.0], "expected": 0.7}
        ),
        examples=(("20 km off.", _photograph()), (f"Far off {HOSTILE}", _photograph())),
        coverage_map="coverage_map.html",
        credits_address="attribution.html",
        finest=10,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(content: GeolocationContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return geolocation_report(content, folder=tmp_path_factory.mktemp("geolocation") / "report").parent


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    """The page without its style."""
    return (folder / "index.html").read_text(encoding="utf-8").split("</style>")[1]


@pytest.fixture(scope="module")
def bare(content: GeolocationContent, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a world of which less is known, and where a system ranks levels that no set tells."""
    fine = pd.DataFrame([("levels", level, 0.1, 0.05, 0.02) for level in (10, 12)], columns=content.calibration.columns)
    scores = content.scores[(content.scores["by"] == "all") & ~content.scores["measure"].str.startswith("top")]
    less = replace(
        content,
        scores=scores,
        calibration=pd.concat([content.calibration, fine], ignore_index=True),
        reliability={},
        **dict.fromkeys(("ceiling", "coverage_map", "credits_address", "finest")),
        examples=(),
    )
    written = geolocation_report(less, folder=tmp_path_factory.mktemp("bare"))
    return written.read_text(encoding="utf-8").split("</style>")[1]


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


# --- the verdict -----------------------------------------------------------------------------------------------------


def test_the_old_fusion_comes_first_and_is_beaten_where_the_interval_lies_above_zero(
    content: GeolocationContent,
) -> None:
    assert verdict(content)[0] == (
        "The joint network beats one network a level with the old fusion on the GeoScore (2,345 against 1,900, a "
        "difference of 445 [300 to 1,590]) and within 200 km (50.0 % against 30.0 %, a difference of 20.0 points "
        "[10.0 to 30.0])."
    )


def test_an_interval_that_holds_zero_decides_nothing(content: GeolocationContent) -> None:
    assert verdict(content)[1] == (
        "The joint network cannot be told apart from one network a level on the GeoScore (2,345 against 2,300, a "
        f"difference of 45 [{MINUS}60 to 150]) and beats it within 200 km (50.0 % against 40.0 %, a difference of "
        "10.0 points [2.0 to 18.0])."
    )


def test_a_defeat_is_said_plainly(content: GeolocationContent) -> None:
    assert verdict(content)[2] == (
        "The joint network is behind the nearest neighbour in features on the GeoScore (2,345 against 2,500, a "
        f"difference of {MINUS}155 [{MINUS}200 to {MINUS}100]) and cannot be told apart from it within 200 km "
        f"(50.0 % against 20.0 %, a difference of 30.0 points [{MINUS}1.0 to 61.0])."
    )


def test_few_images_or_blocks_allow_no_claim(content: GeolocationContent) -> None:
    clear = _difference("prior", "geoscore", (1945.0, 1800.0, 2000.0))
    for images, groups, claim in ((100, 5, "beats the prior"), (99, 80, "too few images"), (900, 4, "too few images")):
        few = _differences((*clear[:-2], images, groups))
        assert claim in verdict(replace(content, differences=few))[0]
    alone = _differences((*clear[:5], clear[5], np.nan, np.nan, 900, 1))  # one group: no interval
    assert verdict(replace(content, differences=alone))[0] == (
        "The joint network is scored on too few images or blocks to be compared with the prior on the GeoScore (2,345 "
        "against 400, a difference of 1,945)."
    )


def test_other_pairs_and_strata_are_passed_over(content: GeolocationContent) -> None:
    others = content.differences.assign(model_a="levels", model_b="prior").drop_duplicates("measure")
    strata = content.differences.assign(by="continent", stratum="Asia")
    more = pd.concat([content.differences, others, strata], ignore_index=True)
    assert verdict(replace(content, differences=more)) == verdict(content)


def test_calibration_is_told_at_its_worst_level(content: GeolocationContent) -> None:
    told = verdict(content)[3:5]
    assert told[0] == (
        "After scaling, the confidence of the joint network is off by at most 3.1 percentage points on average (at L3;"
        " before by at most 17.1). Right probabilities would seem off by up to 2.5 on these images."
    )
    assert "at most 2.6 percentage points on average (at L3; before by at most 2.0)." in told[1], "it got worse"


def test_sets_that_hold_too_little_are_named(content: GeolocationContent) -> None:
    assert verdict(content)[5:8] == (
        "Where 90 % was promised, the sets of the joint network hold the true cell of 92.0 % [88.0 to 95.0] at L3 and "
        "84.0 % [80.0 to 88.0] at L10 of the test images: fewer than promised at L10.",
        "Where 90 % was promised, the sets of one network a level hold the true cell of 90.0 % at L3 of the test "
        "images: at no level fewer by more than chance.",
        "At L10 the sets of one network a level promise nothing and are every cell: too many calibration images lie in "
        "cells that are no class.",
    )
    lower = verdict(replace(content, promised=0.875))
    assert lower[5].startswith("Where 87.5 % was promised")
    assert lower[5].endswith("at no level fewer by more than chance.")


def test_the_way_to_the_best_reachable_is_told_where_it_is_known(content: GeolocationContent) -> None:
    assert verdict(content)[-1] == (
        "Known because the planet is simulated, the best answers to these pictures reach 2,300 on the GeoScore (the "
        "joint network is 45 above it) and 75.0 % within 200 km (the joint network is 25.0 points below it)."
    )
    assert not any("simulated" in sentence for sentence in verdict(replace(content, ceiling=None)))


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_has_models_in_order_and_levels_by_number(content: GeolocationContent) -> None:
    distances, cells = score_tables(content.scores, ceiling=content.ceiling)
    assert distances.measures == (
        "geoscore", "within_25_km", "within_200_km", "within_750_km", "within_2500_km", "median_km",
    )  # fmt: skip
    assert cells.measures == ("top_1_L3", "top_1_L10")
    assert [row.name for row in cells.rows] == [*MODELS.values(), "Best reachable from these pictures"]
    assert [row.sort for row in cells.rows] == ["pictures"] * 2 + ["baseline"] * 3 + ["ceiling"]
    assert [row.scores[0].value for row in cells.rows] == pytest.approx([0.5, 0.4, np.nan, 0.2, 0.1, 0.8], nan_ok=True)


def test_the_summary_is_an_aligned_table_and_the_verdict(content: GeolocationContent) -> None:
    title, distances, cells, *sentences = summary_text(content).split("\n\n")
    assert title == content.title
    assert sentences == list(verdict(content))
    lines = distances.split("\n")
    assert len(lines) == 2 + len(MODELS) + 1
    assert max(map(len, lines)) <= 160
    place = lines[0].index("Within 200 km, %")
    assert lines[2].startswith("Joint network ")
    assert lines[2][place:].startswith("50.0 [45.0, 55.0]  50.0 [45.0, 55.0]")
    assert lines[2].endswith("900 [810, 990]")
    assert lines[-1][place:].split() == ["75.0", "-", "-", "-"]
    assert cells.split("\n")[4].split()[-4:] == ["-", "30.0", "[25.0,", "35.0]"]
    assert "Best" not in summary_text(replace(content, ceiling=None))


def test_without_scores_nothing_is_written(content: GeolocationContent, tmp_path: Path) -> None:
    for scores in (content.scores.iloc[:0], content.scores[content.scores["by"] == "continent"]):
        with pytest.raises(InputError, match="no row of all test images"):
            geolocation_report(replace(content, scores=scores), folder=tmp_path)
        with pytest.raises(InputError, match="no row of all test images"):
            summary_text(replace(content, scores=scores))
    hostile = Attribution("Images", "Ada", "CC0 1.0", "javascript:alert(1)")
    with pytest.raises(InputError, match="no http"):
        geolocation_report(replace(content, attributions=(hostile,)), folder=tmp_path)
    with pytest.raises(InputError, match="cannot be read as an image"):
        geolocation_report(replace(content, examples=(("Near", b"no picture"),)), folder=tmp_path)
    assert not list(tmp_path.iterdir())


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_parts_stand_in_the_order_in_which_they_are_needed(page: str, content: GeolocationContent) -> None:
    header = page[: page.index("<main>")]
    assert all(sentence in words(header).replace("\N{NO-BREAK SPACE}", " ") for sentence in verdict(content))
    assert re.findall(r'<section id="(\w+)"', page) == [
        "scores", "map", "certainty", "examples", "cells", "misuse", "methods", "limits", "attribution", "provenance",
    ]  # fmt: skip


def test_the_facts_are_counted(page: str) -> None:
    facts = words(page[page.index('<dl class="facts">') : page.index("</dl>")])
    for fact in (
        "images that train 4,200",
        "images that calibrate 901",
        "images that test 900",
        "cells searched for images 2,105",
        "cells with images 1,630",
        "cells searched in vain 475",
    ):
        assert fact in facts


def test_the_tables_hold_scores_and_how_sure_they_are(page: str) -> None:
    rows = [words(row).strip() for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL)]
    assert (
        "Joint network 2,345 2,245 to 2,445 50.0 % 45.0 % to 55.0 % 50.0 % 45.0 % to 55.0 % 50.0 % 45.0 % to 55.0 % "
        "50.0 % 45.0 % to 55.0 % 900 810 to 990" in rows
    )
    assert "One network a level, old fusion - 30.0 % 25.0 % to 35.0 %" in rows
    assert "Joint network L10 17.1 % 2.1 % 2.0 % 84.0 % 80.0 % to 88.0 % 12.0" in rows
    assert "L10 , cells 20 km high 1,630 160 60 4,200 1,900 20 24 130" in rows


def test_a_level_that_promises_nothing_says_so_and_one_that_is_not_told_has_dashes(bare: str) -> None:
    assert "One network a level L10 10.0 % 5.0 % 2.0 % 100.0 % nothing promised 500.0" in words(bare)
    assert "One network a level L12 10.0 % 5.0 % 2.0 % - -" in words(bare)


def test_what_it_can_be_misused_for_is_said_plainly(page: str) -> None:
    text = words(page[page.index('<section id="misuse"') : page.index('<section id="methods"')])
    for said in (
        "What this can be misused for",
        "where a person lives",
        "stalking",
        "dissidents",
        "refugees",
        "targets for soldiers",
        "no answer is finer than level L10, cells 20 km high",
        "not a lock",
        "EXIF data is never used for an answer",
        "Ask the people in a photograph",
        "remove its EXIF data and crop",
        "Intended use:",
    ):
        assert said in text
    assert 'href="#misuse"' in page[: page.index("<main>")]
    limits = words(page[page.index('<section id="limits"') : page.index('<section id="attribution"')])
    for said in ("where nobody uploads", "does not make their country unseen", "a car's view"):
        assert said in limits.replace("&#39;", "'")


def test_without_a_cap_the_page_says_that_none_is_set(bare: str) -> None:
    assert "Here no cap is set." in bare
    assert "no answer is finer than level" not in words(bare)


def test_text_is_escaped(page: str) -> None:
    assert "<script" not in page
    assert "<b>Ada" not in page
    assert page.count("&lt;script&gt;") == 2, "title and caption"


def test_every_figure_is_a_relative_file_with_words_for_those_who_cannot_see_it(page: str, folder: Path) -> None:
    images = re.findall(r'<img src="([^"]+)" alt="([^"]+)"', page)
    assert len(images) == page.count("<img") == 3 + 1 + 1 + 1 + 2
    for source, alt in images:
        with Image.open(folder / source) as image:
            image.load()
        assert len(alt) > 30
    assert {path.name for path in (folder / "figures").iterdir()} == {Path(source).name for source, _ in images}
    addresses = set(re.findall(r'href="([^"]+)"', page)) - {source for source, _ in images}
    assert addresses == {"#misuse", "coverage_map.html", "attribution.html", "https://example.org/"}


def test_photographs_are_shown_without_their_exif_block(folder: Path) -> None:
    with Image.open(BytesIO(_photograph())) as original:
        assert original.getexif()
    for path in (folder / "figures").glob("example-*"):
        with Image.open(path) as shown:
            assert shown.size == (80, 60)
            assert not shown.getexif()


def test_the_page_asks_nothing_of_the_internet(page: str) -> None:
    assert not re.search(r'(src="|<link|<script|url\()', page.replace('src="figures/', ""))


def test_no_number_is_missing_without_a_dash(page: str) -> None:
    assert not re.search(r"\bnan\b", words(page).lower())


def test_what_is_not_given_has_no_section(bare: str) -> None:
    for absent in ('id="examples"', "Purple", "coverage_map", "attribution.html", "continent.png", "reliability-"):
        assert absent not in bare
    assert "The likeliest cell" not in bare


def test_the_page_fits_a_phone_and_a_desktop(browser: Any, folder: Path) -> None:
    """Only tables may be wider than the window: they scroll on their own."""
    wrong: list[str] = []
    opened = browser.new_page()
    opened.route("http*://**", lambda route: (wrong.append(route.request.url), route.abort()))
    opened.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    opened.goto((folder / "index.html").as_uri())
    for width in (390, 1280):
        opened.set_viewport_size({"width": width, "height": 800})
        assert opened.evaluate("document.documentElement.scrollWidth") == width
    for image in opened.locator("img").all():
        image.scroll_into_view_if_needed()
    opened.wait_for_function("[...document.images].every(image => image.naturalWidth > 0)")
    opened.close()
    assert wrong == []
