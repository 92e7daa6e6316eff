"""The livelihood report: one page that a planner can read, print and pass on.

What belongs here: which parts the page has and what they are drawn from. The tables are in `livelihood_table`, the
verdict in `livelihood_verdict`, the figures in `livelihood_figures`, the words around them in the template.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from urbanprint.errors import InputError
from urbanprint.maps import livelihood_figures as figures
from urbanprint.maps.livelihood_table import (
    CLUSTER_FOLDS,
    LEARNERS,
    SHOWN_MEASURES,
    image_tables,
    results_tables,
    transfer_tables,
)
from urbanprint.maps.livelihood_verdict import Verdict
from urbanprint.maps.report import Attribution
from urbanprint.maps.style import number_text, one_model
from urbanprint.vocabulary import LIVELIHOODS, TASK_MEASURES

METHODS: tuple[str, ...] = (
    "A household survey visits clusters of households and publishes for each what it found: asset wealth (a higher "
    "index is a wealthier cluster), population density, women's body-mass index.",
    "Street images taken near a cluster stand for it. The image-wise network looks at one image at a time and the "
    "images of a cluster then vote; the cluster-wise model counts the objects seen in all of them; the graph looks at "
    "the images together and knows how far apart they were taken. None of them is told where the cluster is.",
    "Two tasks are asked: is a cluster at or above the median of the clusters trained on (classification), and what is "
    "its value (regression).",
    "Every prediction is held out: it was made by a model trained without that cluster. Under spatial blocks with a "
    "buffer whole squares of land are held out and the clusters around them are left out of training; under whole "
    "regions, where the survey names them, none of a region's clusters trains; random places are the easiest, because "
    "a neighbour gives the answer away. All visits of a survey to one place are on the same side.",
    "The same folds score learners that look at no picture: chance, the training mean, the nearest clusters, the "
    "position, the urban flag. Pictures add something only where they beat all of these.",
    "Intervals hold 95 % of a bootstrap over whole blocks, or whole regions where these are held out. Differences are "
    "judged on the same draws; where the best of several picture models is named, its interval is widened for their "
    "number.",
)
"""How it was done, in plain sentences true of every country."""

LIMITS: tuple[str, ...] = (
    "The predictions are of clusters of households, never of a household or a person; do not use them to decide about "
    "anyone.",
    "The survey moves the published positions on purpose, by kilometres, to hide the households. Images near the "
    "published position may show another place, and a point on the map is not where the people live.",
    "The squared Pearson r, which many papers call r2, forgives a wrong offset, a wrong scale and even a wrong sign: a "
    "model can be far off everywhere and score high. Read R² instead, and no squared r that says r < 0.",
    "A look is not a cause: changing what a street looks like does not change how people in it live.",
    "Images are taken where contributors go and at other times than the survey; clusters without images are left out, "
    "not guessed.",
    "Scores under blocks and regions tell what to expect elsewhere in the same country. Another country needs its own "
    "test.",
)
"""What the scores do not say and the predictions are not for."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Permutation importance of a cluster-wise model, class by class and group by group (`IMPORTANCE_COLUMNS`).

    `measure` is the score whose fall is shown, "accuracy" or "R²".
    """

    by_class: pd.DataFrame
    by_group: pd.DataFrame
    measure: str


@dataclass(frozen=True, kw_only=True)
class LivelihoodContent:
    """Everything the report says. Mappings have the name of a country as their key unless it is called a caption.

    - `clusters`: `tables.CLUSTERS` of all countries; `images_of`: number of images of each cluster, by area_id;
    - `predictions`: `tables.CLUSTER_PREDICTIONS` of one model and kind of fold, mapped for `indicator`, whose values
      are in `unit`;
    - `scores`: `tables.CLUSTER_SCORES`; `ceilings`: `simulation.survey.ceiling`;
    - `image_scores`: `image_votes.image_scores` with the column `task`;
    - `curves`: `graph_importance.curve_at_prediction` with the columns `task` and `model`;
    - `importance`, `trees` (PNG of `tree.draw_tree`), `panels` (PNG of `livelihood_figures.image_panel`): by caption;
    - `optimism`: `tables.SELECTION_OPTIMISM`;
    - `chosen_after_looking`: what was decided with the scores in view, a sentence each.
    """

    title: str
    summary: str
    verdict: Verdict
    clusters: pd.DataFrame
    images_of: pd.Series
    predictions: pd.DataFrame
    scores: Mapping[str, pd.DataFrame]
    attributions: tuple[Attribution, ...]
    provenance: Mapping[str, str]
    indicator: str = "poverty"
    unit: str = "asset index, higher is wealthier"
    ceilings: Mapping[str, pd.DataFrame] | None = None
    image_scores: Mapping[str, pd.DataFrame] | None = None
    curves: Mapping[str, pd.DataFrame] | None = None
    importance: Mapping[str, Importance] | None = None
    trees: Mapping[str, bytes] | None = None
    panels: Mapping[str, bytes] | None = None
    optimism: pd.DataFrame | None = None
    chosen_after_looking: tuple[str, ...] = ()
    credits_address: str | None = None
    methods: tuple[str, ...] = METHODS
    limits: tuple[str, ...] = LIMITS


Section = Literal["map", "charts", "curves", "importance", "trees", "panels", "optimism"]


@dataclass(frozen=True)
class Picture:
    """A figure of the page: the section it belongs to, its file, its words for those who cannot see it, its caption."""

    section: Section
    name: str
    png: bytes
    alt: str
    caption: str = ""


def livelihood_report(content: LivelihoodContent, *, folder: Path) -> Path:
    """Write the report and its figures into `folder` and return the path of `index.html`.

    Addresses are relative, so the folder can be moved or zipped. Parts without content have no section. Raises
    `InputError` where the predictions are of several models or kinds of fold, or nothing is scored within a country.
    """
    for source in content.attributions:
        if source.page is not None and not source.page.startswith(("https://", "http://")):
            raise InputError(f"The page {source.page!r} of the attribution {source.what!r} is no http(s) address.")
    tables = results_tables(content.scores, ceilings=content.ceilings)
    pictures = [
        *_maps(content),
        *_charts(content),
        *_curves(content),
        *_explanations(content),
    ]
    if content.optimism is not None:
        png = figures.optimism_chart(content.optimism)
        alt = "Chart of the best score on a validation list beside the score of the same model on new clusters"
        pictures.append(Picture("optimism", "optimism", png, alt))
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        (folder / "figures" / f"{picture.name}.png").write_bytes(picture.png)
    shown = _shown(content).iloc[0]
    templates = Environment(
        loader=PackageLoader("urbanprint.maps"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    templates.filters["number"] = lambda value: number_text(round(value, 2) + 0.0)  # + 0.0: never -0.00
    page = templates.get_template("livelihood.html.j2").render(
        content=content,
        pictures={section: [each for each in pictures if each.section == section] for section in get_args(Section)},
        tables=tables,
        countries=content.clusters["country"].nunique(),
        transfers=transfer_tables(content.scores),
        by_image=image_tables(content.image_scores or {}),
        images=content.images_of.reindex(content.clusters["area_id"], fill_value=0),
        indicator=LIVELIHOODS[content.indicator],
        model=LEARNERS.get(shown["model"], shown["model"]),
        folds=CLUSTER_FOLDS.get(shown["kind"], shown["kind"]),
    )
    written = folder / "index.html"
    written.write_text(page, encoding="utf-8")
    return written


def _shown(content: LivelihoodContent) -> pd.DataFrame:
    """The predicted values that the maps show."""
    regression = content.predictions[content.predictions["task"] == "regression"]
    return one_model(regression, indicator=content.indicator)


def _maps(content: LivelihoodContent) -> list[Picture]:
    """Surveyed, predicted and their difference, for each country that publishes the indicator."""
    shown = _shown(content)
    predicted = shown.set_index("area_id")["predicted"]
    name = LIVELIHOODS[content.indicator]
    drawn = []
    for number, (country, clusters) in enumerate(content.clusters.groupby("country", sort=False), start=1):
        surveyed = clusters.set_index("area_id")[content.indicator]
        ours = predicted.reindex(surveyed.index)
        if surveyed.isna().all() or ours.isna().all():
            continue
        common: dict[str, Any] = {"unit": content.unit, "limits": (float(surveyed.min()), float(surveyed.max()))}
        apart: dict[str, Any] = {"unit": "orange: predicted above the survey", "diverging": True}
        trust = _trust(content.scores.get(str(country)), shown.iloc[0])
        for part, values, words, look, caption in (
            ("surveyed", surveyed, "as surveyed", common, ""),
            ("predicted", ours, "as predicted", common, trust),
            ("difference", ours - surveyed, "predicted minus surveyed", apart, ""),
        ):
            png = figures.cluster_map(clusters, values, title=f"{country}: {words}", **look)
            alt = f"Map of the clusters of {country}: {name} {words}"
            drawn.append(Picture("map", f"map-{number}-{part}", png, alt, caption))
    return drawn


def _trust(scores: pd.DataFrame | None, shown: pd.Series) -> str:
    """The R2 of the predictions on the map, with its interval; nothing where they were not scored."""
    if scores is None:
        return ""
    key = pd.Series({**shown[["model", "kind", "indicator", "task"]], "measure": "r2"})
    rows = scores[(scores[list(key.index)] == key).all(axis=1)]
    texts = [number_text(rows.iloc[0][end]) for end in ("value", "low", "high")] if len(rows) else []
    return "R² of these predictions {} [{}, {}].".format(*texts) if texts else ""


def _charts(content: LivelihoodContent) -> list[Picture]:
    """The scores under block folds, a chart a country and task."""
    drawn = []
    for number, (country, scores) in enumerate(content.scores.items(), start=1):
        for task, (measure, *_) in SHOWN_MEASURES.items():
            if scores[(scores["kind"] == "block") & (scores["measure"] == measure)].empty:
                continue
            name = TASK_MEASURES[task][measure]
            ceiling = (content.ceilings or {}).get(country)
            png = figures.learner_chart(scores, task=task, title=f"{country}: {name}", ceiling=ceiling)
            alt = f"Chart of the {name} of each learner in {country} with its interval"
            drawn.append(Picture("charts", f"scores-{number}-{task}", png, alt))
    return drawn


def _curves(content: LivelihoodContent) -> list[Picture]:
    drawn = []
    for number, (country, curve) in enumerate((content.curves or {}).items(), start=1):
        for task in SHOWN_MEASURES:
            rows = curve[curve["task"] == task]
            if rows.empty:
                continue
            measure = TASK_MEASURES[task][SHOWN_MEASURES[task][0]]
            png = figures.curve_chart(rows, measure=measure, title=f"{country}: {measure} by number of images")
            alt = f"Chart of the {measure} of several models in {country} against the number of images of a cluster"
            drawn.append(Picture("curves", f"curve-{number}-{task}", png, alt))
    return drawn


def _explanations(content: LivelihoodContent) -> list[Picture]:
    """Importance of classes and groups, trees, and panels of images, in this order."""
    drawn = []
    for number, (caption, found) in enumerate((content.importance or {}).items(), start=1):
        parts = {"class": ("Each class", found.by_class), "group": ("Classes that come together", found.by_group)}
        for part, (title, table) in parts.items():
            png = figures.importance_chart(table, title=title, measure=found.measure)
            alt = f"Bar chart of how much the {found.measure} falls when a {part} is shuffled: {caption}"
            drawn.append(Picture("importance", f"importance-{number}-{part}", png, alt, caption))
    given: dict[Section, tuple[Mapping[str, bytes] | None, str]] = {
        "trees": (content.trees, "Decision tree of a few questions about the objects seen"),
        "panels": (content.panels, "Images of a cluster that move its prediction most and least"),
    }
    for section, (pictures, what) in given.items():
        for number, (caption, png) in enumerate((pictures or {}).items(), start=1):
            drawn.append(Picture(section, f"{section}-{number}", png, f"{what}: {caption}", caption))
    return drawn
