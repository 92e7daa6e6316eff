"""What the livelihood report says, gathered from what was made of each country.

What belongs here: choosing what is shown of the tables of one or several countries, and the sentences computed from
them. The page itself is in `livelihood_report`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd

from urbanprint.evaluation.image_votes import image_scores
from urbanprint.evaluation.tasks import Task
from urbanprint.maps.attribution import PAGE
from urbanprint.maps.content import attributions
from urbanprint.maps.livelihood_report import Importance, LivelihoodContent
from urbanprint.maps.livelihood_verdict import verdict
from urbanprint.maps.report import Attribution
from urbanprint.settings import Country
from urbanprint.vocabulary import LIVELIHOODS

SHOWN = "graph_images"
"""The learner whose predictions the maps show, under block folds."""


@dataclass(frozen=True, eq=False, kw_only=True)
class CountryResults:
    """What was made of a country: tables as of `urbanprint.tables` and of the rooms that made them.

    `images` is the manifest, `scores` may hold transfers, `pictures` are PNGs by name: `tree_<indicator>` and
    `image_panel`. `ceiling` is known of simulated countries only.
    """

    country: Country
    clusters: pd.DataFrame
    images: pd.DataFrame
    predictions: pd.DataFrame
    scores: pd.DataFrame
    gains: pd.DataFrame
    image_predictions: pd.DataFrame
    importance: pd.DataFrame
    curves: pd.DataFrame
    pictures: Mapping[str, bytes]
    ceiling: pd.DataFrame | None = None


def livelihood_content(
    results: Sequence[CountryResults], *, optimism: pd.DataFrame | None, provenance: Mapping[str, str]
) -> LivelihoodContent:
    """The content of the report on one or several countries."""
    names = [each.country.name for each in results]
    clusters = _joined([each.clusters.assign(country=each.country.name) for each in results], names)
    fetched = [each.images[each.images["state"] == "fetched"] for each in results]
    predicted = _joined([each.predictions for each in results], names)
    shown = predicted[(predicted["model"] == SHOWN) & (predicted["kind"] == "block")]
    indicator = next(name for name in LIVELIHOODS if (shown["indicator"] == name).any())
    scores = {each.country.name: each.scores for each in results}
    return LivelihoodContent(
        title=f"How people live, seen from the street: {', '.join(names)}",
        summary=f"{len(clusters):,} survey clusters seen through {sum(map(len, fetched)):,} street images; every score "
        "is of clusters no model had seen, beside what a map without pictures scores.",
        verdict=verdict(scores, {each.country.name: each.gains for each in results}),
        clusters=clusters,
        images_of=_joined(fetched, names)["area_id"].value_counts(),
        predictions=shown,
        scores=scores,
        attributions=tuple(
            dict.fromkeys(
                source
                for each, images in zip(results, fetched, strict=True)
                for source in attributions(
                    Attribution("Survey", each.country.survey.attribution, each.country.survey.licence), images
                )
            )
        ),
        provenance=provenance,
        indicator=indicator,
        unit="asset index, higher is wealthier" if indicator == "poverty" else "as surveyed",
        ceilings={each.country.name: each.ceiling for each in results if each.ceiling is not None},
        image_scores={each.country.name: _of_images(each.image_predictions) for each in results},
        curves={each.country.name: each.curves for each in results},
        importance={
            f"{each.country.name}, {LIVELIHOODS[str(name)].lower()}": Importance(
                by_class=rows[rows["by"] == "class"], by_group=rows[rows["by"] == "group"], measure="R²"
            )
            for each in results
            for name, rows in each.importance.groupby("indicator", sort=False)
        },
        trees=_pictures(results, "tree_"),
        panels=_pictures(results, "image_panel"),
        optimism=optimism,
        credits_address=PAGE,
        chosen_after_looking=CHOSEN if any(each.country.simulated for each in results) else (),
    )


CHOSEN: tuple[str, ...] = (
    "The simulated countries were changed while scores were in view: how strongly wealth shows in single images and in "
    "their variety, how clearly a cluster leans to one look or the other, and the colour of shabby walls. They "
    "demonstrate the method and are no evidence for it.",
    "They have 300 clusters each because with 110 no learner found what shows only in several images together.",
    "The size of pictures and the number of epochs of the image-wise network were chosen for speed on one country.",
)
"""What was decided about the simulated countries after looking."""


def _joined(tables: Sequence[pd.DataFrame], names: Sequence[str]) -> pd.DataFrame:
    """One table with identifiers that no other country has: surveys number their clusters anew."""
    apart = [table.assign(area_id=name + "/" + table["area_id"]) for table, name in zip(tables, names, strict=True)]
    return pd.concat(apart, ignore_index=True)


def _of_images(predictions: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for task in get_args(Task):
        rows = predictions[predictions["task"] == task].drop(columns="task")
        parts.append(image_scores(rows, task=task).assign(task=task))
    return pd.concat(parts, ignore_index=True)


def _pictures(results: Sequence[CountryResults], head: str) -> dict[str, bytes]:
    """The kept pictures whose names begin with `head`, by caption."""
    found = {}
    for each in results:
        for name, png in each.pictures.items():
            if name.startswith(head):
                rest = LIVELIHOODS.get(name.removeprefix(head), "")
                found[", ".join(filter(None, [each.country.name, rest.lower()]))] = png
    return found
