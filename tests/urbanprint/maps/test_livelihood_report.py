"""The livelihood report: says what it was given, in the right order, as text, with files beside it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from urbanprint.errors import InputError
from urbanprint.maps.livelihood_report import Importance, LivelihoodContent, livelihood_report
from urbanprint.maps.livelihood_verdict import Comparison, Verdict
from urbanprint.maps.report import Attribution
from urbanprint.maps.style import Estimate
from urbanprint.tables import CLUSTER_PREDICTIONS, CLUSTER_SCORES, CLUSTERS, SELECTION_OPTIMISM

HOSTILE = "<script>alert(1)</script>"
PANEL = b"png of a panel"
OPTIONAL = ("ceilings", "image_scores", "curves", "importance", "trees", "panels", "optimism", "credits_address")


def _clusters() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"area_id": [f"c{i:02d}" for i in range(60)], "country": ["aland"] * 40 + ["bland"] * 20})
    frame = frame.assign(region=None, longitude=rng.uniform(0, 3, 60), latitude=rng.uniform(0, 2, 60), weight=1.0)
    frame["region"] = frame["region"].astype("str")
    frame["urban"] = pd.array([True] * 60, dtype="boolean")
    frame["poverty"] = rng.normal(50, 10, 60)
    frame["population"] = rng.normal(2, 1, 60)
    frame["bmi"] = np.nan
    return CLUSTERS.validate(frame[list(CLUSTERS.columns)])


def _scores() -> pd.DataFrame:
    """A baseline and a picture model; the squared r of the baseline is of a negative r, and a transfer was scored."""
    rows = []
    for kind in ("block", "random", "bland to aland"):
        for model, value in (("prior", -0.02), ("graph_images", 0.6)):
            for task, measure, shown in (
                ("classification", "accuracy", value + 0.3),
                ("regression", "r2", value),
                ("regression", "pearson_r2", abs(value)),
                ("regression", "pearson_r", value),
            ):
                rows.append((model, kind, "poverty", task, measure, shown, shown - 0.1, shown + 0.1, 40, 20))
    return CLUSTER_SCORES.validate(pd.DataFrame(rows, columns=list(CLUSTER_SCORES.columns)))


def _predictions(clusters: pd.DataFrame) -> pd.DataFrame:
    frame = clusters[["area_id"]].assign(model="graph_images", kind="block", fold=0, indicator="poverty")
    frame = frame.assign(task="regression", observed=clusters["poverty"], predicted=clusters["poverty"] + 1)
    return CLUSTER_PREDICTIONS.validate(frame)


def _optimism() -> pd.DataFrame:
    rows = [("regression", 0.0, 60, 200, name, 0.1, 0.0, 0.2) for name in ("reported", "honest", "optimism")]
    return SELECTION_OPTIMISM.validate(pd.DataFrame(rows, columns=list(SELECTION_OPTIMISM.columns)))


@pytest.fixture(scope="module")
def content() -> LivelihoodContent:
    clusters = _clusters()
    comparison = Comparison(
        country="aland", indicator="poverty", task="regression", measure="r2", model="graph_images", rival="prior",
        score=Estimate(0.6), rival_score=Estimate(-0.02), gain=Estimate(0.62, 0.5, 0.7), claim="beats",
    )  # fmt: skip
    importance = pd.DataFrame({"name": ["car"], "value": [0.1], "low": [0.05], "high": [0.15]})
    curve = pd.DataFrame({"images": [1, 10], "draw": 0, "indicator": "poverty", "score": [0.2, 0.5]})
    single = pd.DataFrame(
        {"kind": "block", "indicator": "poverty", "unit": ["image", "cluster"], "score": [0.31, 0.62]}
    )
    return LivelihoodContent(
        title=f"How do people live? {HOSTILE}",
        summary="Two countries that do not exist.",
        verdict=Verdict(paragraphs=("Pictures win once.", "So does the graph."), pictures=(comparison,), graph=()),
        clusters=clusters,
        images_of=pd.Series(np.arange(60) + 1, index=clusters["area_id"]),
        predictions=_predictions(clusters),
        scores={"aland": _scores()},
        attributions=(Attribution("Images", "<b>Ada</b>", "CC BY-SA 4.0", "https://example.org/"),),
        provenance={"run": "5e8b2c0a"},
        ceilings={
            "aland": pd.DataFrame({"indicator": ["poverty"], "task": "regression", "reader": "set", "score": 0.77})
        },
        image_scores={"aland": single.assign(task="regression", count=10)},
        curves={"aland": curve.assign(task="regression", model="graph_images", mean_images=1.0, areas=40)},
        importance={"aland, wealth": Importance(by_class=importance, by_group=importance, measure="R²")},
        trees={"aland, wealth": b"png of a tree"},
        panels={"cluster c01": PANEL, "cluster c02": PANEL},
        optimism=_optimism(),
        chosen_after_looking=("The number of layers.",),
        credits_address="credits.html",
    )


@pytest.fixture(scope="module")
def folder(content: LivelihoodContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return livelihood_report(content, folder=tmp_path_factory.mktemp("livelihood") / "report").parent


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    """The page without its style."""
    return (folder / "index.html").read_text(encoding="utf-8").split("</style>")[1]


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_the_parts_stand_in_the_order_in_which_they_are_needed(page: str) -> None:
    assert page.index("<h1>") < page.index("Pictures win once.") < page.index('class="facts"') < page.index("<section")
    assert re.findall(r'<section id="(\w+)"', page) == [
        "map",
        "answers",
        "table",
        "charts",
        "images",
        "curves",
        "explanation",
        "optimism",
        "transfer",
        "methods",
        "limits",
        "attribution",
        "provenance",
    ]


def test_the_facts_are_counted(page: str) -> None:
    facts = words(page[page.index('<dl class="facts">') : page.index("</dl>")])
    assert "survey clusters in 2 countries 60" in facts
    assert "street images 1,830" in facts
    assert "images a cluster (median; 1 to 60) 30" in facts


def test_the_tables_hold_the_scores_with_their_intervals_and_marks(page: str) -> None:
    section = page[page.index('<section id="table"') : page.index('<section id="charts"')]
    assert section.count("<table") == 4, "two tasks under each of two kinds of fold"
    regression = section[section.index('aria-label="Regression, spatial blocks with a buffer"') :]
    rows = [words(row) for row in re.findall(r"<tr.*?</tr>", regression, re.DOTALL)]
    assert "prior \N{MINUS SIGN}0.02 \N{MINUS SIGN}0.12 to 0.08 0.02 r &lt; 0" in rows[3]
    assert "graph: image features 0.60 0.50 to 0.70 0.60 0.50 to 0.70" in rows[4]
    assert "best reachable from sets of images 0.77 -" in rows[5]
    assert regression.count('class="ahead"') == 5, "R² and squared r under blocks, these and accuracy at random"


def test_the_verdict_is_given_question_by_question(page: str) -> None:
    assert "aland, Asset wealth, R²" in page
    assert (
        "“graph: image features” (0.60) beats “prior” (\N{MINUS SIGN}0.02): a difference of 0.62 [0.50, 0.70]." in page
    )
    assert "beat a vote" not in page, "the graph was not compared"


def test_the_map_says_how_far_to_trust_it(page: str) -> None:
    section = page[page.index('<section id="map"') : page.index('<section id="answers"')]
    assert section.count("<img") == 6
    assert section.count("R² of these predictions 0.60 [0.50, 0.70].") == 1, "one country was scored"


def test_single_images_transfers_and_what_was_chosen_are_told(page: str) -> None:
    text = words(page)
    assert "aland, Asset wealth 0.31 0.62" in text
    assert "bland to aland" in text
    assert "Chosen after looking at scores" in text
    assert "The number of layers." in text
    assert "“best of 60 evaluations”" in text


def test_text_is_escaped(page: str) -> None:
    assert "<script" not in page
    assert "<b>Ada" not in page
    assert "&lt;b&gt;Ada" in page


def test_every_figure_is_a_relative_file_with_words_for_those_who_cannot_see_it(page: str, folder: Path) -> None:
    images = re.findall(r'<img src="([^"]+)" alt="([^"]+)"', page)
    assert len(images) == page.count("<img") == 6 + 2 + 1 + 2 + 1 + 2 + 1
    for source, alt in images:
        assert (folder / source).is_file()
        assert len(alt) > 30
    assert sorted(path.name for path in (folder / "figures").iterdir()) == sorted(Path(s).name for s, _ in images)
    assert (folder / "figures" / "panels-2.png").read_bytes() == PANEL


def test_the_page_asks_nothing_of_the_internet(page: str) -> None:
    assert not re.search(r'(src="|<link|<script|url\()', page.replace('src="figures/', ""))


def test_no_number_is_missing_without_a_dash(page: str) -> None:
    assert not re.search(r"\bnan\b", words(page).lower())


def test_what_is_not_given_has_no_section(content: LivelihoodContent, tmp_path: Path) -> None:
    scores = content.scores["aland"]
    within = scores[scores["kind"].isin(["block", "random"])]
    bare = replace(content, **dict.fromkeys(OPTIONAL), scores={"aland": within}, chosen_after_looking=())
    text = livelihood_report(bare, folder=tmp_path).read_text(encoding="utf-8").split("</style>")[1]
    sections = re.findall(r'<section id="(\w+)"', text)
    assert sections == ["map", "answers", "table", "charts", "methods", "limits", "attribution", "provenance"]
    for absent in ("Purple", "Chosen after", "credits.html", "best reachable"):
        assert absent not in text


def test_without_block_folds_there_are_no_charts(content: LivelihoodContent, tmp_path: Path) -> None:
    scores = content.scores["aland"]
    text = livelihood_report(
        replace(content, scores={"aland": scores[scores["kind"] == "random"]}), folder=tmp_path
    ).read_text(encoding="utf-8")
    assert 'id="charts"' not in text


def test_mistakes_are_named(content: LivelihoodContent, tmp_path: Path) -> None:
    hostile = Attribution("Images", "Ada", "CC0 1.0", "javascript:alert(1)")
    with pytest.raises(InputError, match="no http"):
        livelihood_report(replace(content, attributions=(hostile,)), folder=tmp_path)
    mixed = pd.concat([content.predictions, content.predictions.assign(model="prior")])
    with pytest.raises(InputError, match="prior/block"):
        livelihood_report(replace(content, predictions=mixed), folder=tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is written of a report that fails"
