"""The report of a conurbation seen from above: the page holds the verdict, the numbers and the figures, escaped."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image

from urbanprint.errors import InputError
from urbanprint.maps.aerial_report import AerialContent, aerial_report, summary_text, verdict
from urbanprint.maps.aerial_tables import finding_table, pair_table
from urbanprint.maps.aerial_verdict import RULE
from urbanprint.maps.attention_figures import TileExample
from urbanprint.maps.report import Attribution
from urbanprint.maps.style import Estimate

HOSTILE = "<script>alert(1)</script>"
MINUS = "\N{MINUS SIGN}"
LAND = ("villas", "towers", "parks", HOSTILE)


def _scores() -> pd.DataFrame:
    rows = []
    for model, r in {"mean": -0.04, "coordinates": 0.1, "neighbours": 0.2, "binomial": 0.5}.items():
        rows.append((model, "block", "pearson_r", r, r - 0.06, r + 0.06, 4210, 88))
        rows.append((model, "random", "pearson_r", 0.7, 0.68, 0.72, 4210, 88))
        rows.append((model, "block", "rps", 0.15, 0.14, 0.16, 4210, 88))
    for rival, above in {"coordinates": 0.4, "neighbours": 0.3}.items():
        rows.append(("binomial", "block", f"r_over_{rival}", above, above - 0.08, above + 0.08, 4210, 88))
    return pd.DataFrame(rows, columns=["model", "kind", "measure", "value", "low", "high", "areas", "units"])


def _findings(**classes: tuple[float, bool, float, bool]) -> pd.DataFrame:
    """Land, whether found, attention, whether found, of each class."""
    rows = [(name, *numbers) for name, numbers in classes.items()]
    table = pd.DataFrame(rows, columns=["name", "land", "land_found", "attention", "attention_found"])
    for of in ("land", "attention"):
        q = np.where(table[f"{of}_found"], 0.0004, 0.4)
        table = table.assign(**{f"{of}_shifts": q / 3, f"{of}_blocks": q / 2, f"{of}_q": q})
    return table.assign(tiles=120)


def _pairs() -> pd.DataFrame:
    rows = [
        (end, first, second, 1.6, 1.2, 2.0, 40, 9, 0.01, (end, first) == ("rich", "parks"), 0.9, 0.8, 1.1, 0.4, False)
        for end in ("poor", "rich")
        for first in LAND
        for second in LAND
        if first != second
    ]
    columns = "end first second value low high tiles units q_value found gain gain_low gain_high gain_q gain_found"
    return pd.DataFrame(rows, columns=columns.split())


def _predictions() -> pd.DataFrame:
    """Of the poorest class the network says so with 0.6, of all others nothing."""
    observed = np.repeat([0, 1, 2], 20)
    table = pd.DataFrame({"area_id": [f"c{i}" for i in range(60)], "model": "binomial", "kind": "block", "fold": 0})
    table = table.assign(observed=observed, predicted=1.0)
    for k, share in enumerate((0.6, 0.25, 0.15)):
        table[f"p{k}"] = np.where(observed == 0, share, 1 / 3)
    return table


@pytest.fixture(scope="module")
def content() -> AerialContent:
    ratios = pd.DataFrame(
        [(end, name, value, value - 0.1, value + 0.1, 1200, 30)
         for name, poor, rich in zip(LAND, (0.8, 1.4, 1.0, 1.0), (1.5, 0.9, 1.1, 1.0), strict=True)
         for end, value in (("poor", poor), ("rich", rich))],
        columns=["end", "name", "value", "low", "high", "tiles", "units"],
    )  # fmt: skip
    audit = pd.DataFrame(
        [("binomial", 0.7, 0.5, 0.2, 0.1, 0.3), ("coordinates", 0.68, 0.1, 0.58, 0.5, 0.66)],
        columns=["model", "random", "block", "gap", "low", "high"],
    )
    sanity = pd.DataFrame(
        [("Maps change with the weights", 0.1, 0.05, 0.15, True, "Likeness to maps of random weights."),
         ("What is marked matters.", 0.3, np.nan, np.nan, True, "Fall when hidden.")],
        columns=["check", "value", "low", "high", "passed", "explanation"],
    )  # fmt: skip
    squares = [shapely.box(4 + x / 365, 48 + y / 555, 4 + (x + 1) / 365, 48 + (y + 1) / 555)
               for x in range(6) for y in range(6)]  # fmt: skip
    cells = gpd.GeoDataFrame({"observed": np.arange(36) % 3, "predicted": 1.0}, geometry=squares, crs=4326)
    calibration = pd.DataFrame(
        [(k, 0.3 + 0.3 * k, 0.35 + 0.3 * k, error, scaling) for scaling, error in (("before", 0.09), ("after", 0.021))
         for k in range(2)],
        columns=["threshold", "predicted", "observed", "error", "scaling"],
    )  # fmt: skip
    tile = TileExample(
        tile=np.full((40, 40, 3), 120, dtype=np.uint8),
        activation=np.ones((2, 2)),
        polygons=[(HOSTILE, shapely.box(0, 0, 1, 1))],
        caption=HOSTILE,
    )
    return AerialContent(
        title=f"Seen from above {HOSTILE}",
        summary="A conurbation that does not exist.",
        predictions=_predictions(),
        scores=_scores(),
        audit=audit,
        ratios=ratios,
        findings=_findings(**dict(zip(LAND, (
            (0.05, True, 0.7, True), (-0.1, True, -0.5, True), (0.02, True, 0.1, False), (0.0, False, 0.0, False)
        ), strict=True))),
        pairs=_pairs(),
        sanity=sanity,
        cells=cells,
        attributions=(Attribution("Orthophoto", "<b>IGN</b>", "Etalab 2.0", "https://example.org/"),),
        provenance={"income": "2019", "orthophoto": "2020"},
        classes=3,
        calibration=calibration,
        pit={"before": np.array([0.3, 0.2, 0.2, 0.3])},
        ceiling=Estimate(0.8, 0.77, 0.83),
        examples=(tile,),
        credits_address="attribution.html",
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(content: AerialContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return aerial_report(content, tmp_path_factory.mktemp("aerial") / "report").parent


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    """The page without its style."""
    return (folder / "index.html").read_text(encoding="utf-8").split("</style>")[1]


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace("\N{NO-BREAK SPACE}", " ")


# --- the verdict and the summary --------------------------------------------------------------------------------------


def test_the_verdict_answers_the_questions_in_order(content: AerialContent) -> None:
    starts = (
        "With spatial blocks and a buffer held out (4,210 cells in 88 blocks), the picture says more",
        "Random folds would have pretended",
        "Where the network looks: at the rich end",
        "Does the network follow the spatial correlation between urban class and status? Yes.",
        "The rule: ",
        "The attention maps passed all 2 checks made.",
    )
    assert [said[: len(start)] for said, start in zip(verdict(content), starts, strict=True)] == list(starts)
    assert verdict(content)[0].endswith(
        "The best reachable is 0.80 [0.77, 0.83], known because the conurbation is simulated."
    )
    assert "simulated" not in verdict(replace(content, ceiling=None))[0]


def test_without_an_audit_nothing_is_said_of_random_folds(content: AerialContent) -> None:
    said = verdict(replace(content, audit=content.audit.iloc[:0]))
    assert said == (verdict(content)[0], *verdict(content)[2:])


def test_a_network_that_cannot_be_told_from_chance_is_not_said_to_follow(content: AerialContent) -> None:
    weak = content.scores.assign(low=-0.1)
    assert "Cannot be told: the network cannot be told from chance." in verdict(replace(content, scores=weak))[3]


def test_the_summary_is_an_aligned_table_and_the_verdict(content: AerialContent) -> None:
    title, table, *said = summary_text(content).split("\n\n")
    assert title == content.title
    assert tuple(said) == verdict(content)
    lines = table.split("\n")
    place = lines[0].index("Pearson r, random")
    assert lines[2].startswith(f"Mean of the city                    {MINUS}0.04 [{MINUS}0.10, 0.02]")
    assert lines[-2].startswith("Network, binomial head              0.50 [0.44, 0.56]")
    assert lines[-2][place:].startswith("0.70 [0.68, 0.72]")
    assert lines[-1].split("  ")[0] == "Best reachable (simulated ceiling)"
    assert lines[-1].endswith("-")


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_parts_stand_in_the_order_in_which_they_are_needed(page: str, content: AerialContent) -> None:
    assert page.count("<h1>") == 1
    header, body = page.split("<main>")
    for said in verdict(content):
        assert said in words(body if said == RULE else header).replace("&#39;", "'")
    assert re.findall(r'<section id="(\w+)"', page) == [
        "map", "scores", "attention", "agreement", "pairs", "tiles", "checks", "calibration", "methods", "limits",
        "attribution", "provenance",
    ]  # fmt: skip


def test_the_tables_hold_the_numbers(page: str) -> None:
    rows = [words(row).strip() for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL)]
    for row in (
        "Network, binomial head 0.50 0.44 to 0.56 0.70 0.68 to 0.72 0.15 0.14 to 0.16",
        f"Mean of the city {MINUS}0.04 {MINUS}0.10 to 0.02 0.70 0.68 to 0.72 0.15 0.14 to 0.16",
        "Best reachable (simulated ceiling) 0.80 0.77 to 0.83 0.80 0.77 to 0.83 -",
        "Coordinates only 0.68 0.10 0.58 0.50 to 0.66",
        "1 (poorest): 20 cells 60 % 25 % 15 %",
        "villas 1.50 1.40 to 1.60 0.80 0.70 to 0.90 1,200 1,200",
        "villas same way 5.0 &lt; 0.001 &lt; 0.001 &lt; 0.001 0.70 &lt; 0.001 &lt; 0.001 &lt; 0.001",
        "parks land only 2.0 &lt; 0.001 &lt; 0.001 &lt; 0.001 0.10 0.133 0.200 0.400",
        "rich: parks given villas 1.60 1.20 to 2.00 0.010 * 0.90 0.80 to 1.10 0.400 40",
        "What is marked matters. 0.30 passed Fall when hidden.",
        "at most 1 (poorest) 35.0 % 30.0 % 30.0 % 9.0 % 2.1 %",
    ):
        assert row in rows
    assert not any(row.startswith("poor: ") for row in rows), "only pairs of which something was found"


def test_a_class_that_points_the_other_way_says_so() -> None:
    findings = _findings(villas=(0.05, True, -0.7, True), towers=(0.1, True, 0, False), parks=(0.0, False, 0.4, True))
    assert [row.cells[0] for row in finding_table(findings).rows] == ["other way", "land only", "attention only"]


def test_of_many_pairs_the_strongest_are_listed(content: AerialContent) -> None:
    pairs = content.pairs.assign(found=True, value=np.linspace(0.3, 1.2, len(content.pairs)))
    table = pair_table(pd.concat([pairs] * 2, ignore_index=True))
    assert table.title == "Pairs of classes, the 20 strongest of 48"
    shown = [row.cells[0].value for row in table.rows if isinstance(row.cells[0], Estimate)]
    assert shown == sorted(shown)
    assert max(shown) < 1, "0.3 is farther from no effect than 1.2"


def test_what_it_is_not_for_is_said_plainly(page: str) -> None:
    limits = words(page[page.index('<section id="limits"') : page.index('<section id="attribution"')])
    for said in ("ecological fallacy", "no cause", "imputes the income", "different years", "a household or a person"):
        assert said in limits
    assert page.count("How to read it:") == page.count("<figure>")


def test_every_figure_is_a_relative_png_with_words_for_those_who_cannot_see_it(page: str, folder: Path) -> None:
    shown = re.findall(r'<img src="([^"]+)" alt="([^"]+)"', page)
    assert [source for source, _ in shown] == [
        f"figures/{name}.png"
        for name in ("map", "scores", "ratios", "agreement", "pairs-poor", "pairs-rich", "tiles", "calibration")
    ]
    for source, alt in shown:
        with Image.open(folder / source) as image:
            image.load()
            assert image.format == "PNG"
        assert len(alt) > 30
    assert {path.name for path in (folder / "figures").iterdir()} == {Path(source).name for source, _ in shown}
    addresses = set(re.findall(r'(?:href|src)="([^"]+)"', page)) - {source for source, _ in shown}
    assert addresses == {"attribution.html", "https://example.org/"}


def test_text_is_escaped_and_nothing_is_missing_without_a_dash(page: str) -> None:
    assert "<script" not in page
    assert "<b>IGN" not in page
    assert page.count("&lt;script&gt;") >= 3, "title, and a class in two tables"
    assert not re.search(r"\bnan\b", words(page).lower())


def test_what_is_not_given_has_no_section(content: AerialContent, tmp_path: Path) -> None:
    bare = replace(
        content,
        **dict.fromkeys(("calibration", "pit", "ceiling", "credits_address")),
        examples=(),
        pairs=content.pairs.iloc[:0],
        audit=content.audit.iloc[:0],
        sanity=content.sanity.iloc[:0],
        ratios=content.ratios.assign(value=np.nan),
        findings=content.findings.assign(attention=np.nan, attention_found=False),
        predictions=content.predictions.iloc[:0],
    )
    page = aerial_report(bare, tmp_path).read_text(encoding="utf-8").split("</style>")[1]
    assert re.findall(r'<section id="(\w+)"', page)[:5] == ["map", "scores", "attention", "agreement", "checks"]
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"map", "scores"}
    assert "No check of the maps was made. Do not rely on them." in words(page)
    for absent in ("Purple", "attribution.html", "What random folds pretend", "What the network says of each class"):
        assert absent not in page
    assert not re.search(r"\bnan\b", words(page).lower())


def test_a_page_of_an_attribution_that_is_no_web_address_is_refused(content: AerialContent, tmp_path: Path) -> None:
    hostile = Attribution("Orthophoto", "IGN", "Etalab 2.0", "javascript:alert(1)")
    with pytest.raises(InputError, match="no http"):
        aerial_report(replace(content, attributions=(hostile,)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_page_fits_a_phone_and_a_desktop(browser: Any, folder: Path) -> None:
    """Only tables may be wider than the window: they scroll on their own."""
    wrong: list[str] = []
    tab = browser.new_page()
    tab.route("http*://**", lambda route: (wrong.append(route.request.url), route.abort()))
    tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    tab.goto((folder / "index.html").as_uri())
    for width in (390, 1280):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") == width
    for image in tab.locator("img").all():
        image.scroll_into_view_if_needed()
    tab.wait_for_function("[...document.images].every(image => image.naturalWidth > 0)")
    tab.close()
    assert wrong == []
