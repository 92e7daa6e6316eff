"""The report: says what it was given, in the right order, as text, with files beside it."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest

from urbanprint.errors import InputError
from urbanprint.maps.report import (
    Attribution,
    ReportContent,
    city_report,
    score_table,
    score_table_markdown,
    score_table_text,
)
from urbanprint.maps.style import Estimate, model_name
from urbanprint.vocabulary import FOLD_KINDS

LEAKY = Estimate(0.94, 0.92, 0.96)


class _Page(HTMLParser):
    """The tags of a page, its words, and its tables as rows of cell texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "small":
            self.tables[-1][-1][-1] += " "

    def handle_data(self, data: str) -> None:
        if self.lasttag != "style":
            self.words += data
        if self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data.strip()


@pytest.fixture(scope="session")
def content(
    areas: gpd.GeoDataFrame,
    predictions: pd.DataFrame,
    scores: pd.DataFrame,
    coverage: pd.DataFrame,
    measured: pd.DataFrame,
) -> dict[str, Any]:
    return {
        "title": "How deprived does <i>Simville</i> look?",
        "summary": "Simville is a simulated city.",
        "verdict": "Pictures say more than coordinates: <script>alert(1)</script>.",
        "areas": areas,
        "predictions": predictions,
        "scores": scores,
        "coverage": coverage,
        "interval_coverage": measured,
        "ceiling": 0.75,
        "forbidden": LEAKY,
        "attributions": (Attribution("Photographs", "<b>Ada</b>", "CC BY-SA 4.0", "https://example.org/"),),
        "provenance": {"run": "5e8b2c0a", "statistics": "9f2c41"},
        "map_address": "map.html",
        "gradcam_panel": b"png of a panel",
    }


@pytest.fixture(scope="module")
def folder(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return city_report(ReportContent(**content), folder=tmp_path_factory.mktemp("city") / "report").parent


@pytest.fixture(scope="module")
def page(folder: Path) -> _Page:
    return _Page((folder / "index.html").read_text(encoding="utf-8"))


def _number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


def test_the_verdict_comes_before_the_first_figure_and_number(page: _Page, folder: Path) -> None:
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert text.index("Pictures say more") < text.index("<img") < text.index("Limits and intended use")
    for words in ("Simville is a simulated city.", "Data and licences", "Provenance", "5e8b2c0a", "How it was made"):
        assert words in page.words


def test_text_is_escaped(page: _Page) -> None:
    assert not any(tag in ("script", "i") for tag, _ in page.tags)
    assert "<script>alert(1)</script>" in page.words
    assert "<b>Ada</b>" in page.words


def test_the_score_table_holds_the_numbers_of_the_scores(page: _Page, scores: pd.DataFrame) -> None:
    head, *rows = page.tables[0]
    assert [cell.lower() for cell in head[1:]] == list(FOLD_KINDS.values())
    shown = {row[0]: row[1:] for row in rows}
    chosen = scores[(scores["indicator"] == "imd") & scores["value"].notna()]
    for row in chosen.itertuples():
        cell = shown[model_name(row.model)][list(FOLD_KINDS).index(row.kind)]
        value, low, high = map(_number, re.findall(r"[\u2212\d.]+", cell))
        assert (value, low, high) == pytest.approx((row.value, row.low, row.high), abs=0.00501)
    assert shown["Pictures: fine-tuned network"][2] == "-"
    assert shown["Best reachable (simulated ceiling)"] == ["0.75"] * 3
    assert not re.search(r"\bnan\b", page.words.lower())


def test_the_forbidden_score_is_struck(folder: Path) -> None:
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert text.count("<s>0.94</s>") == 3
    assert "<s>" not in text.replace("<s>0.94</s>", "")


def test_every_figure_is_a_relative_file_with_words_for_those_who_cannot_see_it(
    page: _Page, folder: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(folder, tmp_path / "moved")
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 10
    for attributes in images:
        assert (moved / str(attributes["src"])).is_file()
        assert len(str(attributes["alt"])) > 30
    assert (moved / "figures" / "gradcam.png").read_bytes() == b"png of a panel"


def test_the_page_asks_nothing_of_the_internet(page: _Page) -> None:
    loaded = [a.get("src") or a.get("href") for tag, a in page.tags if tag in ("img", "script", "link", "iframe")]
    assert not [address for address in loaded if str(address).startswith(("http", "//"))]


def test_what_is_not_known_is_left_out(content: dict[str, Any], tmp_path: Path) -> None:
    unknown = dict.fromkeys(("interval_coverage", "ceiling", "forbidden", "gradcam_panel", "map_address"))
    scores = content["scores"]
    written = city_report(
        ReportContent(**{**content, **unknown, "scores": scores[scores["indicator"] == "imd"]}), folder=tmp_path
    )
    text = written.read_text(encoding="utf-8")
    for absent in ("ceiling", "forbidden", "GradCAM, ", "interactive map", 'id="domains"', 'id="explanation"'):
        assert absent not in text.split("</style>")[1]
    assert not (tmp_path / "figures" / "gradcam.png").exists()


def test_mistakes_are_named(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no verdict"):
        city_report(ReportContent(**{**content, "verdict": " "}), folder=tmp_path)
    hostile = Attribution("Photographs", "Ada", "CC0 1.0", "javascript:alert(1)")
    with pytest.raises(InputError, match="no http"):
        city_report(ReportContent(**{**content, "attributions": (hostile,)}), folder=tmp_path)
    with pytest.raises(InputError, match="no r2 of crime"):
        score_table(content["scores"][content["scores"]["indicator"] == "imd"], indicator="crime")


# --- the table as text -----------------------------------------------------------------------------------------------


def test_the_text_table_is_aligned_and_ends_with_ceiling_and_forbidden_score(scores: pd.DataFrame) -> None:
    lines = score_table_text(scores, 0.75, LEAKY).splitlines()
    assert len(lines) == 2 + 5 + 2
    starts = [match.start() for match in re.finditer(r"(?<=  )-+|^-+", lines[1])]
    for line in lines[2:]:
        assert all(line[start - 1 : start] in (" ", "") and line[start] != " " for start in starts)
    assert lines[5].split("  ")[0] == "Pictures: frozen features"
    assert "0.47 [0.38, 0.55]" in lines[5]
    assert lines[6].endswith("-"), "the fine-tuned network was not scored under block folds"
    assert lines[7].startswith("Best reachable")
    assert lines[8].startswith("FORBIDDEN")


def test_the_text_table_has_no_row_for_what_is_not_known(scores: pd.DataFrame) -> None:
    text = score_table_text(scores.assign(low=np.nan, high=np.nan))
    assert "ceiling" not in text
    assert "FORBIDDEN" not in text
    assert "nan" not in text
    assert "[" not in text


def test_markdown_holds_the_same_cells(scores: pd.DataFrame) -> None:
    text, markdown = score_table_text(scores, 0.75, LEAKY), score_table_markdown(scores, 0.75, LEAKY)
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in markdown.splitlines()]
    assert cells[1] == ["---"] * 4
    assert [re.split(r"\s{2,}", line) for line in text.splitlines() if not line.startswith("--")] == [
        cells[0],
        *cells[2:],
    ]
