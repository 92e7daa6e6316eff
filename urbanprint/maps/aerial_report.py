"""The report of a conurbation seen from above: one page for a city planner and a statistician, and its summary as text.

What belongs here: which parts the page has and what they are drawn from. Rules and sentences are in `aerial_verdict`,
numbers in `aerial_tables`, figures in `aerial_figures` and `attention_figures`, the words around them in the template.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import geopandas as gpd
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from urbanprint.errors import InputError
from urbanprint.maps import aerial_figures, aerial_tables, attention_figures
from urbanprint.maps.aerial_figures import MODELS
from urbanprint.maps.aerial_verdict import (
    RULE,
    above_chance,
    agreement,
    agreement_sentence,
    look_sentence,
    picture_sentence,
    random_sentence,
    sanity_sentence,
    span,
)
from urbanprint.maps.attention_figures import End, TileExample
from urbanprint.maps.report import Attribution
from urbanprint.maps.style import Estimate, number_text

METHODS: tuple[str, ...] = (
    "Every square cell of 200 m with a published income has one tile of the orthophoto. The network sees the tile and "
    "nothing else: no position, no neighbour, no statistics.",
    "Income classes are quantiles of the cells trained on, numbered from the poorest. The network gives each class a "
    "probability; the predicted class is their mean.",
    "Every prediction is held out. Under block folds whole squares of land are held out, and the cells around them are "
    "left out of training. Under random folds cells are dealt out one by one, and the cell next door, of the same "
    "income and often the same roofs, gives the answer away.",
    "The same folds score maps that look at no picture: the mean of the cells trained on, the nearest cells by their "
    "coordinates, and the same cells weighted by their nearness.",
    "Grad-CAM marks what in a tile the network has not seen speaks for a class: at the poor end for the lower classes "
    "on tiles predicted there, at the rich end for the upper ones on theirs.",
    "The activation ratio of a class of land use is its share of a map's activation divided by its share of the tile. "
    "At 1 the class is looked at no more than its area asks for.",
    "Neighbours resemble each other, so that chance is what remains when the map of status is shifted over the city as "
    "a whole. q is the p-value of that after control of the false discovery rate over all classes; up to 0.05 a "
    "difference between rich and poor is found. The p-value in blocks, of exchanges within them, says whether it holds "
    "within neighbourhoods too.",
    "Intervals hold 95 % of a bootstrap over whole blocks; the difference of two scores is taken on the same draws.",
)
"""How it was done, in plain sentences true of every conurbation."""

LIMITS: tuple[str, ...] = (
    "A cell is not its households: what holds of the mean income of cells need not hold of those who live in them (the "
    "ecological fallacy). Do not use any of this to judge or to decide about a household or a person.",
    "A map of attention shows what the network used, not why people are poor or rich. It is no cause: changing what is "
    "built does not change the income of those who live there.",
    "Activation maps are coarse, a few cells a tile, so that a narrow class such as a road shares what is beside it.",
    "The publisher imputes the income of cells with few households from a wider area. The provenance says whether such "
    "cells were kept; where they were left out, thinly settled land is hardly represented.",
    "The orthophoto and the income are of different years. What was built or cleared between them is read wrongly.",
    "Scores under blocks tell what to expect in an unseen part of this conurbation. Another one needs its own test.",
    "A class of which nothing is found may still matter: the test is strict, and rare classes are on few tiles.",
)
"""What the scores and maps do not say, and what they are not for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AerialContent:
    """Everything the report says of one conurbation. `end` is "poor" or "rich", `name` a class of land use.

    - `predictions`: area_id, model, kind ("random", "block"), fold, observed (0 = poorest), predicted and p0, p1, ...;
    - `scores`: model, kind, measure (of `aerial.scores.TILE_MEASURES`), value, low, high, areas and units;
    - `audit`: model, random, block, gap, low, high of Pearson r;
    - `ratios`: end, name, value, low, high, tiles, units: mean activation ratios;
    - `findings`: name, tiles, and for `attention` and `land` the difference rich less poor with _shifts, _blocks, _q
      and _found;
    - `pairs`: end, first, second, value, low, high, tiles, units, q_value, found, and gain with gain_low, gain_high,
      gain_q, gain_found;
    - `sanity`: check, value, low, high, passed, explanation;
    - `cells`: area_id, income, observed, predicted and squares in EPSG:4326;
    - `calibration`, `pit`: as of `aerial_figures.calibration_chart`;
    - `model`: the network that is judged and explained, chosen before looking; `classes`: number of income classes;
    - `ceiling`: best reachable Pearson r, known of a simulated conurbation only.
    """

    title: str
    summary: str
    predictions: pd.DataFrame
    scores: pd.DataFrame
    audit: pd.DataFrame
    ratios: pd.DataFrame
    findings: pd.DataFrame
    pairs: pd.DataFrame
    sanity: pd.DataFrame
    cells: gpd.GeoDataFrame
    attributions: tuple[Attribution, ...]
    provenance: Mapping[str, str]
    model: str = "binomial"
    classes: int = 5
    calibration: pd.DataFrame | None = None
    pit: Mapping[str, np.ndarray] | None = None
    ceiling: Estimate | None = None
    examples: Sequence[TileExample] = ()
    credits_address: str | None = None
    methods: tuple[str, ...] = METHODS
    limits: tuple[str, ...] = LIMITS


def verdict(content: AerialContent) -> tuple[str, ...]:
    """What the tables amount to, a paragraph each; 95 % intervals stand in square brackets.

    Does the picture say more than a map without it; what random folds would have pretended; where the network looks;
    whether it looks where the data say, with the rule; whether the checks of its maps passed. Raises `InputError` where
    the network was not scored under block folds.
    """
    picture = picture_sentence(content.scores, model=content.model)
    if content.ceiling is not None:
        picture += f" The best reachable is {span(content.ceiling)}, known because the conurbation is simulated."
    skilled = above_chance(content.scores, model=content.model)
    found = agreement(content.findings, content.sanity, skilled=skilled)
    said = (
        picture,
        random_sentence(content.audit, model=content.model),
        look_sentence(content.ratios, content.findings),
        agreement_sentence(found),
        RULE,
        sanity_sentence(content.sanity),
    )
    return tuple(paragraph for paragraph in said if paragraph)


def summary_text(content: AerialContent) -> str:
    """The scores and the verdict for a terminal. Raises `InputError` where the network was not scored under blocks."""
    scores = aerial_tables.aligned(aerial_tables.score_table(content.scores, ceiling=content.ceiling))
    return "\n\n".join([content.title, scores, *verdict(content)])


def aerial_report(content: AerialContent, folder: Path) -> Path:
    """Write the report and its figures into `folder` and return the path of `index.html`.

    Addresses are relative, so the folder can be moved or zipped. Parts without content have no section. Raises
    `InputError` where the network was not scored under block folds or a page of an attribution is no web address.
    """
    scored = content.scores[(content.scores["model"] == content.model) & (content.scores["kind"] == "block")]
    return write_page(
        "aerial.html.j2",
        folder,
        figures=_figures(content),
        content=content,
        verdict=[paragraph for paragraph in verdict(content) if paragraph != RULE],  # it stands beside its chart
        tables=_tables(content),
        model=MODELS.get(content.model, content.model),
        rule=RULE,
        areas=int(scored["areas"].max()),
        units=int(scored["units"].max()),
    )


def write_page(template: str, folder: Path, *, figures: Mapping[str, bytes], content: Any, **parts: Any) -> Path:
    """Write `template`, filled with `content` and `parts`, as `index.html` and `figures` (name -> PNG) beside it.

    Raises `InputError` where a page of `content.attributions` is no web address; nothing is written then.
    """
    for source in content.attributions:
        if source.page is not None and not source.page.startswith(("https://", "http://")):
            raise InputError(f"The page {source.page!r} of the attribution {source.what!r} is no http(s) address.")
    templates = Environment(
        loader=PackageLoader("urbanprint.maps"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    templates.filters["number"] = number_text
    page = templates.get_template(template).render(content=content, drawn=set(figures), **parts)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, png in figures.items():
        (folder / "figures" / f"{name}.png").write_bytes(png)
    written = folder / "index.html"
    written.write_text(page, encoding="utf-8")
    return written


def _figures(content: AerialContent) -> dict[str, bytes]:
    """Every figure the content allows, by the name of its file."""
    drawn = {
        "map": aerial_figures.income_map(content.cells, content.classes),
        "scores": aerial_figures.aerial_score_chart(content.scores, content.ceiling),
    }
    if content.ratios["value"].notna().any():
        drawn["ratios"] = attention_figures.ratio_chart(content.ratios, content.findings)
    if content.findings[["land", "attention"]].notna().all(axis=1).any():
        drawn["agreement"] = attention_figures.agreement_chart(content.findings)
    for end in get_args(End):
        if (content.pairs["end"] == end).any():
            drawn[f"pairs-{end}"] = attention_figures.coactivation_network(content.pairs, end)
    if content.examples:
        drawn["tiles"] = attention_figures.tiles_panel(content.examples)
    if content.calibration is not None:
        drawn["calibration"] = aerial_figures.calibration_chart(content.calibration, content.pit or {})
    return drawn


def _tables(content: AerialContent) -> dict[str, aerial_tables.Table]:
    """Every table of the page, by the section it stands in; one without rows is left out by the template."""
    tables = {
        "confusion": aerial_tables.confusion_table(content.predictions, model=content.model, classes=content.classes),
        "scores": aerial_tables.score_table(content.scores, ceiling=content.ceiling),
        "audit": aerial_tables.audit_table(content.audit),
        "ratios": aerial_tables.ratio_table(content.ratios, content.findings),
        "findings": aerial_tables.finding_table(content.findings),
        "pairs": aerial_tables.pair_table(content.pairs),
        "sanity": aerial_tables.sanity_table(content.sanity),
    }
    if content.calibration is not None:
        tables["calibration"] = aerial_tables.calibration_table(content.calibration)
    return tables
