"""Whose work a result stands on: a page and a table of credits, made from what was actually used.

Licences ask that people are named, that the licence is named, and that the work can be found. The page says it per
source and per person, `attribution.csv` per image. Both come from the manifest, so nobody is named who was not used,
and whoever was taken down is gone with the next page. Pictures are shown only where the source's terms allow it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from urbanprint.errors import InputError
from urbanprint.imagery.records import Terms
from urbanprint.settings import Edition, Income, LandUse, Survey, World

PAGE: Final = "attribution.html"
TABLE: Final = "attribution.csv"
_LINKS_A_CREATOR = 60  # pages of images linked for one person; the table has all
_PICTURES_A_SOURCE = 6
_TABLE_COLUMNS = ("image_id", "source", "creator", "captured_at", "licence", "attribution")


@dataclass(frozen=True)
class CreditedImage:
    """One image as the page names it; `page` is its address at the provider."""

    image_id: str
    page: str


@dataclass(frozen=True)
class Creator:
    """One person's share of a source. `links` are the first images that have a page, `more` how many go unlisted."""

    name: str
    images: int
    credit: str
    licences: tuple[str, ...]
    links: tuple[CreditedImage, ...]
    more: int


@dataclass(frozen=True)
class ShownPicture:
    """A small picture on the page: its address relative to the page, and the line of credit below it."""

    address: str
    credit: str
    page: str | None


@dataclass(frozen=True)
class SourceCredits:
    """What was used of one source, and on which terms."""

    name: str
    terms: Terms
    images: int
    licences: Mapping[str, int]
    creators: tuple[Creator, ...]
    pictures: tuple[ShownPicture, ...]


def attribution_page(
    images: pd.DataFrame,
    *,
    editions: Iterable[Edition | Income | LandUse | Survey | World],
    terms: Mapping[str, Terms],
    folder: Path,
    title: str,
) -> Path:
    """Write `attribution.html` and `attribution.csv` into `folder` and return the path of the page.

    `images` is the manifest (`tables.IMAGES`), of which the fetched ones count as used; `terms` are those of each
    source by the name it has in the manifest. Small pictures are taken from `folder/thumbnails`, where the map keeps
    them by their hash, and only from sources whose terms allow showing; without any, the page has none.

    Raises `InputError` for a source without terms and for a page of images that is no http(s) address.
    """
    used = images[images["state"] == "fetched"].sort_values(["source", "image_id"])
    for source in used["source"].unique():
        if source not in terms:
            raise InputError(
                f"images of {source!r} were used, but its terms are not given: pass the terms of each source"
            )
        page = terms[source].page
        if page is not None and not page.startswith(("https://", "http://")):
            raise InputError(f"the terms of {source!r} name {page!r} as page of an image, which is no http(s) address")
    folder.mkdir(parents=True, exist_ok=True)
    _table(used, terms).to_csv(folder / TABLE, index=False, encoding="utf-8")
    templates = Environment(
        loader=PackageLoader("urbanprint.maps"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page = templates.get_template("attribution.html.j2").render(
        title=title,
        editions=list({(each.attribution, each.licence): each for each in editions}.values()),
        sources=[_credits(str(name), rows, terms[str(name)], folder=folder) for name, rows in used.groupby("source")],
        images=len(used),
        people=len(used[["source", "creator"]].dropna().drop_duplicates()),
        table=TABLE,
    )
    written = folder / PAGE
    written.write_text(page, encoding="utf-8")
    return written


def _credits(name: str, used: pd.DataFrame, terms: Terms, *, folder: Path) -> SourceCredits:
    creators = [
        Creator(
            name=str(rows["creator"].iloc[0]) if rows["creator"].notna().all() else "unnamed contributors",
            images=len(rows),
            credit=str(rows["attribution"].iloc[0]),
            licences=tuple(sorted(rows["licence"].unique())),
            links=tuple(
                CreditedImage(image, page)
                for image in rows["image_id"].iloc[:_LINKS_A_CREATOR]
                if (page := terms.page_of(image)) is not None
            ),
            more=max(len(rows) - _LINKS_A_CREATOR, 0),
        )
        for _, rows in used.groupby(["creator", "attribution"], dropna=False)
    ]
    return SourceCredits(
        name=name,
        terms=terms,
        images=len(used),
        licences={str(licence): count for licence, count in used["licence"].value_counts().items()},
        creators=tuple(sorted(creators, key=lambda creator: (-creator.images, creator.name))),
        pictures=_pictures(used, terms, folder=folder) if terms.may_show else (),
    )


def _pictures(used: pd.DataFrame, terms: Terms, *, folder: Path) -> tuple[ShownPicture, ...]:
    """One picture of each of the first people of whom the map has drawn one."""
    there = [path.stem for path in (folder / "thumbnails").glob("*.jpg")]
    shown = used[used["sha256"].isin(there)].drop_duplicates("creator").head(_PICTURES_A_SOURCE)
    return tuple(
        ShownPicture(f"thumbnails/{sha256}.jpg", credit, terms.page_of(image))
        for image, sha256, credit in zip(shown["image_id"], shown["sha256"], shown["attribution"], strict=True)
    )


def _table(used: pd.DataFrame, terms: Mapping[str, Terms]) -> pd.DataFrame:
    """The credits of every image; text from outside cannot become a formula where a spreadsheet opens the file."""
    table = used[list(_TABLE_COLUMNS)].copy()
    pairs = zip(used["source"], used["image_id"], strict=True)
    table["page"] = pd.Series([terms[source].page_of(image) for source, image in pairs], index=used.index, dtype="str")
    for name in ("creator", "licence", "attribution"):
        # OWASP, "CSV injection": a cell that begins with one of these is computed.
        formula = table[name].str.match(r"[=+\-@\t\r]").fillna(False).astype(bool)
        table[name] = table[name].mask(formula, "'" + table[name])
    return table
