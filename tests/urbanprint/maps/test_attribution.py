"""The page of credits: everyone who was used and nobody else, as text, with links to the web only."""

import csv
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from urbanprint.errors import InputError
from urbanprint.imagery.records import Terms
from urbanprint.maps.attribution import attribution_page
from urbanprint.settings import Edition

HOSTILE = "<script>alert(1)</script>"
EDITION = Edition(
    key="imd", publisher="england", areas_ranked=10, deprivation="d", boundaries="b",
    licence="OGL <v3>", attribution="MHCLG & ONS",
)  # fmt: skip
OPEN = Terms(
    licence="CC BY-SA 4.0", attribution="© {creator}, Mapillary contributors", page="https://example.org/?pKey={image_id}",
    may_store=True, may_train=True, may_show=True,
)  # fmt: skip
CLOSED = replace(OPEN, licence="proprietary", attribution="© Owner", page=None, may_show=False, may_store=False)


class _Page(HTMLParser):
    """Tags and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.lasttag != "style":
            self.words += f" {data.strip()}"

    def all(self, tag: str, attribute: str) -> list[str]:
        return [str(attrs[attribute]) for name, attrs in self.tags if name == tag and attribute in attrs]


@pytest.fixture
def written(images: pd.DataFrame, tmp_path: Path) -> Callable[..., _Page]:
    """Write the page for the made-up town's 40 images, or for others, and read it back."""
    credited = images.assign(
        attribution=[OPEN.credit(name if isinstance(name, str) else None) for name in images["creator"]]
    )

    def write(changed: Callable[[pd.DataFrame], pd.DataFrame] = lambda images: images, **terms: Terms) -> _Page:
        path = attribution_page(
            changed(credited),
            editions=[EDITION, EDITION],
            terms={"simulation": OPEN, **terms},
            folder=tmp_path,
            title="Town",
        )
        assert path == tmp_path / "attribution.html"
        return _Page(path.read_text(encoding="utf-8"))

    return write


def test_every_creator_is_named_with_a_count_and_links_to_the_images(
    written: Callable[..., _Page], images: pd.DataFrame
) -> None:
    page = written()
    for person, count in images["creator"].value_counts().items():
        assert f"{person} " in page.words
        assert f" {count} " in page.words
    for words in ("Mapillary contributors", "CC BY-SA 4.0", "MHCLG & ONS", "OGL <v3>", "40 images"):
        assert words in page.words
    assert page.words.count("MHCLG & ONS") == 1
    linked = [address for address in page.all("a", "href") if address != "attribution.csv"]
    assert sorted(linked) == sorted(f"https://example.org/?pKey={image}" for image in images["image_id"])


def test_the_table_has_a_row_an_image(written: Callable[..., _Page], images: pd.DataFrame, tmp_path: Path) -> None:
    written()
    table = pd.read_csv(tmp_path / "attribution.csv", dtype=str)
    assert table["image_id"].tolist() == images["image_id"].tolist()
    assert (table["page"] == "https://example.org/?pKey=" + table["image_id"]).all()
    assert table["creator"].value_counts().to_dict() == images["creator"].value_counts().to_dict()


def test_only_what_was_used_is_credited(written: Callable[..., _Page], images: pd.DataFrame, tmp_path: Path) -> None:
    def rejected(images: pd.DataFrame) -> pd.DataFrame:
        return images.assign(state=images["state"].mask(images["creator"] == "ada_walks", "rejected"))

    assert "ada_walks" not in written(rejected).words
    assert "ada_walks" not in (tmp_path / "attribution.csv").read_text(encoding="utf-8")
    assert "0 images" in written(lambda images: images.iloc[:0]).words


def test_hostile_names_stay_text(written: Callable[..., _Page], images: pd.DataFrame) -> None:
    def hostile(images: pd.DataFrame) -> pd.DataFrame:
        return images.assign(
            creator=HOSTILE, attribution=f'© {HOSTILE} "><img src=x onerror=alert(1)>', licence="<b>CC0</b>"
        )

    page = written(hostile)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b>", "iframe"})
    assert not page.all("img", "src")
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert HOSTILE in page.words
    assert "<b>CC0</b>" in page.words


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "@sum", "-2"])
def test_no_name_becomes_a_formula_in_a_spreadsheet(written: Callable[..., _Page], tmp_path: Path, name: str) -> None:
    written(lambda images: images.assign(creator=name))
    with (tmp_path / "attribution.csv").open(encoding="utf-8", newline="") as file:
        assert {row["creator"] for row in csv.DictReader(file)} == {f"'{name}"}


@pytest.mark.parametrize("page", ["javascript:alert({image_id})", "data:text/html,{image_id}", "//example.org/"])
def test_a_page_that_is_not_on_the_web_is_refused(written: Callable[..., _Page], page: str) -> None:
    with pytest.raises(InputError, match=r"the terms of 'simulation' name .* no http\(s\) address"):
        written(simulation=replace(OPEN, page=page))


def test_a_source_without_terms_is_named(written: Callable[..., _Page]) -> None:
    with pytest.raises(InputError, match="images of 'elsewhere' were used, but its terms are not given"):
        written(lambda images: images.assign(source="elsewhere"))


def test_a_source_with_two_licences_names_both_with_their_counts(written: Callable[..., _Page]) -> None:
    page = written(lambda images: images.assign(licence=["Etalab 2.0"] * 10 + ["CC BY-SA 4.0"] * 30))
    assert "Etalab 2.0 : 10" in page.words or "Etalab 2.0: 10" in page.words
    assert "CC BY-SA 4.0: 30" in page.words


def test_pictures_are_shown_only_where_the_terms_allow_it(
    written: Callable[..., _Page], images: pd.DataFrame, tmp_path: Path
) -> None:
    (tmp_path / "thumbnails").mkdir()
    (tmp_path / "thumbnails" / f"{'0' * 64}.jpg").write_bytes(b"small")
    page = written()
    assert set(page.all("img", "src")) == {f"thumbnails/{'0' * 64}.jpg"}
    assert len(page.all("img", "src")) == images["creator"].nunique(dropna=False)
    closed = written(simulation=CLOSED)
    assert not page_shows(closed)
    assert "pictures may not be shown" in closed.words
    assert "pictures are not kept" in closed.words
    assert "no public page" in closed.words


def page_shows(page: _Page) -> bool:
    return any(tag in ("img", "picture", "video") for tag, _ in page.tags)


def test_many_images_of_one_person_are_linked_up_to_a_limit_and_the_table_has_the_rest(
    written: Callable[..., _Page], tmp_path: Path
) -> None:
    def many(images: pd.DataFrame) -> pd.DataFrame:
        rows = images.iloc[[0] * 500].assign(image_id=[f"i{number}" for number in range(500)], creator="ada")
        return rows.assign(attribution="© ada")

    page = written(many)
    assert len(page.all("a", "href")) < 80
    assert "and 440 more in" in page.words
    assert len(pd.read_csv(tmp_path / "attribution.csv")) == 500


def test_the_page_asks_nothing_of_the_internet(written: Callable[..., _Page]) -> None:
    page = written()
    assert not page.all("script", "src")
    assert not page.all("link", "href")
