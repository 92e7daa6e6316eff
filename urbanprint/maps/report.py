"""The report of a city: one page that a planner can read, print and pass on, and the score table as text.

The verdict comes first, in words; every picture of the map stands with the scores that say how far to trust it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import geopandas as gpd
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from urbanprint.errors import InputError
from urbanprint.maps import figures
from urbanprint.maps.coverage_figures import coverage_bias_chart
from urbanprint.maps.style import BASELINES, Estimate, model_name, model_order, number_text, one_model
from urbanprint.vocabulary import FOLD_KINDS, INDICATORS, MEASURES

METHODS: tuple[str, ...] = (
    "The deprivation of each area is the published rank, rescaled so that 0 is the least and 1 the most deprived area "
    "of the country.",
    "Areas were drawn at random within each deprivation decile, and photographs were sought at points inside them; an "
    "area without imagery was replaced by another of its decile, and both are counted.",
    "A photograph belongs to the area whose boundary contains its position.",
    "Models read the photographs of an area and nothing else: no address, no position, no statistics.",
    "Every prediction is held out: it was made by a model trained without that area. Folds were drawn in several ways, "
    "from random areas to whole boroughs, because neighbouring areas resemble each other.",
    "The same folds score maps without pictures: the mean of the city, the mean of the neighbouring areas, and the "
    "nearest areas by coordinates. Pictures add something only where they beat these.",
    "Intervals of scores are 95 % bootstrap intervals over whole blocks or boroughs; intervals of predictions promise "
    "90 % and their real coverage was measured.",
    "GradCAM marks which parts of a photograph raised and which lowered a prediction.",
)
"""How it was done, in plain sentences true of every city."""

LIMITS: tuple[str, ...] = (
    "The map describes areas, never a household or a person; do not use it to decide about anyone.",
    "It shows how deprivation as published relates to what a street looks like. A look is not a cause, and changing "
    "the look of a street does not change the deprivation of those who live there.",
    "Use it to ask where to look closer, not to replace the published statistics where these exist.",
    "Photographs are taken where contributors go and at different times; areas without imagery are left out, not "
    "guessed.",
    "Scores under folds of whole boroughs tell what to expect in an unseen part of this city. Another city needs its "
    "own test.",
)
"""What the map is not for."""

GRADCAM_CAPTION = (
    "How to read it: red parts raised the predicted deprivation of this view above that of the average view, blue "
    "parts lowered it, and the scale is the same for all views. It shows what the model used, not why an area is "
    "deprived."
)


@dataclass(frozen=True)
class Attribution:
    """Whose work the report stands on: what it is, whom to name, under which licence."""

    what: str
    text: str
    licence: str
    page: str | None = None


@dataclass(frozen=True)
class ReportContent:
    """Everything a report says. Frames follow `urbanprint.tables`; `predictions` are of one model and kind of fold."""

    title: str
    summary: str
    verdict: str
    areas: gpd.GeoDataFrame
    predictions: pd.DataFrame
    scores: pd.DataFrame
    coverage: pd.DataFrame
    attributions: tuple[Attribution, ...]
    provenance: Mapping[str, str]
    bias: pd.DataFrame | None = None
    interval_coverage: pd.DataFrame | None = None
    ceiling: float | None = None
    forbidden: Estimate | None = None
    gradcam_panel: bytes | None = None
    gradcam_caption: str = GRADCAM_CAPTION
    faithfulness: str = ""
    map_address: str | None = None
    credits_address: str | None = None
    indicator: str = "imd"
    methods: tuple[str, ...] = field(default=METHODS)
    limits: tuple[str, ...] = field(default=LIMITS)


@dataclass(frozen=True)
class ScoreRow:
    """One line of the table: name, sort (baseline, pictures, ceiling, forbidden), a score for each kind of fold."""

    name: str
    sort: str
    scores: tuple[Estimate, ...]


@dataclass(frozen=True)
class ScoreTable:
    """The score table before it becomes text or HTML."""

    measure: str
    kinds: tuple[str, ...]
    rows: tuple[ScoreRow, ...]


def score_table(
    scores: pd.DataFrame,
    *,
    ceiling: float | None = None,
    forbidden: Estimate | None = None,
    indicator: str = "imd",
    measure: str = "r2",
) -> ScoreTable:
    """One indicator's score of each model under each kind of fold; a score that was not taken is NaN.

    The ceiling and the forbidden score do not depend on the kind of fold and stand under each.
    Raises `InputError` where the scores hold nothing of that indicator and measure.
    """
    found = figures.estimates(scores, indicator=indicator, measure=measure)
    kinds = tuple(kind for kind in FOLD_KINDS if any(of == kind for _, of in found))
    missing = Estimate(float("nan"))
    rows = [
        ScoreRow(
            model_name(model),
            "baseline" if model in BASELINES else "pictures",
            tuple(found.get((model, kind), missing) for kind in kinds),
        )
        for model in model_order(sorted({model for model, _ in found}))
    ]
    if ceiling is not None:
        rows.append(ScoreRow("Best reachable (simulated ceiling)", "ceiling", (Estimate(ceiling),) * len(kinds)))
    if forbidden is not None:
        rows.append(ScoreRow("FORBIDDEN: image split, leaks", "forbidden", (forbidden,) * len(kinds)))
    return ScoreTable(f"{MEASURES[measure]}, {INDICATORS[indicator]}", kinds, tuple(rows))


def _score_text(score: Estimate) -> str:
    """`0.53 [0.44, 0.61]`, without the interval where it is unknown, `-` where there is no score."""
    if pd.isna(score.value):
        return "-"
    interval = "" if pd.isna(score.low) else f" [{score.low:.2f}, {score.high:.2f}]"
    return f"{score.value:.2f}{interval}"


def _cells(table: ScoreTable) -> list[list[str]]:
    head = [table.measure, *(FOLD_KINDS[kind] for kind in table.kinds)]
    return [head, *([row.name, *map(_score_text, row.scores)] for row in table.rows)]


def score_table_text(scores: pd.DataFrame, ceiling: float | None = None, forbidden: Estimate | None = None) -> str:
    """The R2 of the index as an aligned table for a terminal: a row a model, a column a kind of fold."""
    cells = _cells(score_table(scores, ceiling=ceiling, forbidden=forbidden))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def score_table_markdown(scores: pd.DataFrame, ceiling: float | None = None, forbidden: Estimate | None = None) -> str:
    """The same table as Markdown."""
    head, *rows = [
        [cell.replace("|", "\\|") for cell in row]
        for row in _cells(score_table(scores, ceiling=ceiling, forbidden=forbidden))
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _figures(content: ReportContent) -> dict[str, bytes]:
    """Every figure the content allows, by the name of its file."""
    indicator = content.indicator
    rows = one_model(content.predictions, indicator=indicator).set_index("area_id")
    areas = content.areas.assign(
        observed=content.areas[f"{indicator}_deprivation"],
        predicted=content.areas["area_id"].map(rows["predicted"].clip(0, 1)),
        residual=content.areas["area_id"].map(rows["predicted"] - rows["observed"]),
    )
    ends, looks = ("least deprived", "most deprived"), ("looks less deprived", "looks more deprived")
    drawn = {
        "observed": figures.choropleth(areas, "observed", title="Published", ends=ends),
        "predicted": figures.choropleth(areas, "predicted", title="Predicted from pictures", ends=ends),
        "residual": figures.choropleth(
            areas, "residual", title="Predicted minus published", kind="diverging", ends=looks
        ),
        "scores": figures.score_chart(
            content.scores, ceiling=content.ceiling, forbidden=content.forbidden, indicator=indicator
        ),
        "scatter": figures.scatter(content.predictions, indicator=indicator),
        "error": figures.error_by_decile(content.predictions, indicator=indicator),
        "coverage": figures.coverage_by_decile(content.coverage),
    }
    model, kind = rows[["model", "kind"]].iloc[0]
    r2 = content.scores[(content.scores["measure"] == "r2") & (content.scores["kind"] == kind)]
    if (r2["model"] == model).sum() > 1:
        drawn["domains"] = figures.domain_chart(content.scores, pictures=model, kind=kind)
    if content.interval_coverage is not None:
        drawn["intervals"] = figures.interval_coverage_chart(content.interval_coverage, indicator=indicator)
    if content.bias is not None:
        drawn["bias"] = coverage_bias_chart(content.bias)
    if content.gradcam_panel is not None:
        drawn["gradcam"] = content.gradcam_panel
    return drawn


def city_report(content: ReportContent, *, folder: Path) -> Path:
    """Write the report and its figures into `folder` and return the path of `index.html`.

    Addresses are relative, so the folder can be moved or zipped. Raises `InputError` where the predictions are of
    several models or the scores hold nothing of the indicator.
    """
    if not content.verdict.strip():
        raise InputError("The report has no verdict; pass the sentence that says what the scores mean.")
    for source in content.attributions:
        if source.page is not None and not source.page.startswith(("https://", "http://")):
            raise InputError(f"The page {source.page!r} of the attribution {source.what!r} is no http(s) address.")
    drawn = _figures(content)
    pictures = folder / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    for name, png in drawn.items():
        (pictures / f"{name}.png").write_bytes(png)
    asked, imaged = len(content.coverage), int((content.coverage["outcome"] == "imaged").sum())
    shown = one_model(content.predictions, indicator=content.indicator).iloc[0]
    templates = Environment(
        loader=PackageLoader("urbanprint.maps"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    templates.filters["number"] = number_text
    page = templates.get_template("report.html.j2").render(
        content=content,
        drawn=set(drawn),
        table=score_table(
            content.scores, ceiling=content.ceiling, forbidden=content.forbidden, indicator=content.indicator
        ),
        kinds=FOLD_KINDS,
        indicator=INDICATORS[content.indicator],
        model=model_name(shown["model"]),
        folds=FOLD_KINDS.get(shown["kind"], shown["kind"]),
        asked=asked,
        imaged=imaged,
        photographs=int(content.coverage["images"].sum()),
        predicted=len(content.predictions[content.predictions["indicator"] == content.indicator]),
    )
    written = folder / "index.html"
    written.write_text(page, encoding="utf-8")
    return written
