"""What people read of survey clusters: the report of a country, and that of all countries with the one table."""

from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from assets.describing import OWNERS
from assets.partitions import CITIES
from resources.cities import Cities
from resources.workspace import Workspace

if TYPE_CHECKING:
    from urbanprint.maps.livelihood_content import CountryResults
    from urbanprint.settings import Country

_TABLES = {
    "clusters": "survey_clusters",
    "images": "street_images",
    "predictions": "cluster_predictions",
    "scores": "cluster_scorecard",
    "gains": "cluster_gains",
    "image_predictions": "image_predictions",
    "importance": "feature_importance",
    "curves": "image_curves",
}
"""Part of the report -> the asset that makes it."""


@dg.asset(
    group_name="maps",
    owners=OWNERS,
    partitions_def=CITIES,
    kinds={"html"},
    code_version="1",
    deps=[*_TABLES.values(), "image_importance", "selection_optimism"],
)
def country_report(context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace) -> dg.MaterializeResult:
    """One page a planner can read: the verdict in words, the whole table, maps, what the models look at, limits."""
    from urbanprint.maps.attribution import attribution_page
    from urbanprint.sources.providers import terms_of

    country = cities.country(context.partition_key)
    results = _results(country, workspace)
    attribution_page(
        results.images,
        editions=[country.survey],
        terms={country.imagery.provider: terms_of(country.imagery)},
        folder=workspace.report(country.key),
        title=country.name,
    )
    return _reported(context, workspace, country.key, [results])


@dg.asset(
    group_name="maps", owners=OWNERS, kinds={"html"}, code_version="1", deps=["country_report", "transfer_matrix"]
)
def livelihood_report(context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace) -> dg.MaterializeResult:
    """All countries that have been built on one page, with what they teach each other; the table as Markdown too."""
    from urbanprint.errors import InputError
    from urbanprint.maps.attribution import attribution_page
    from urbanprint.sources.providers import terms_of

    transfers = workspace.read_table("transfer_matrix")
    results = []
    # Read here and not as inputs: most countries of a catalogue have not been built, and that is no error.
    for key, country in cities.catalogue.countries.items():
        if workspace.holds_all(_TABLES.values(), partition=key):
            own = transfers[transfers["country"] == key].drop(columns="country")
            results.append(_results(country, workspace, transfers=own))
    if not results:
        raise InputError("no country has been built yet: materialize one first (`urbanprint run kenya` does)")
    attribution_page(
        pd.concat([each.images for each in results], ignore_index=True).drop_duplicates(["source", "image_id"]),
        editions=[each.country.survey for each in results],
        terms={each.country.imagery.provider: terms_of(each.country.imagery) for each in results},
        folder=workspace.report("livelihood"),
        title="Countries seen from the street",
    )
    return _reported(context, workspace, "livelihood", results)


def _results(country: "Country", workspace: Workspace, *, transfers: pd.DataFrame | None = None) -> "CountryResults":
    """What was made of a country, read from its tables."""
    from urbanprint.maps.livelihood_content import CountryResults
    from urbanprint.simulation.truth import survey_ceiling

    tables = {part: workspace.read_table(asset, partition=country.key) for part, asset in _TABLES.items()}
    images = tables["images"]
    seen = images[(images["state"] == "fetched") & images["area_id"].isin(tables["predictions"]["area_id"])]
    if transfers is not None and len(transfers):
        tables["scores"] = pd.concat([tables["scores"], transfers], ignore_index=True)
    figures = workspace.models(country.key) / "figures"
    return CountryResults(
        country=country,
        **tables,
        pictures={path.stem: path.read_bytes() for path in sorted(figures.glob("*.png"))},
        ceiling=survey_ceiling(country.survey.table, seen[["image_id", "area_id"]]) if country.simulated else None,
    )


def _reported(
    context: dg.AssetExecutionContext, workspace: Workspace, name: str, results: "list[CountryResults]"
) -> dg.MaterializeResult:
    """Write the report, the table as Markdown, and the summary a terminal prints."""
    from urbanprint.maps.livelihood_content import livelihood_content
    from urbanprint.maps.livelihood_report import livelihood_report
    from urbanprint.maps.livelihood_table import table_markdown, table_text

    optimism = workspace.read_table("selection_optimism") if workspace.holds("selection_optimism") else None
    content = livelihood_content(results, optimism=optimism, provenance={"Dagster run": context.run_id})
    folder = workspace.report(name)
    path = livelihood_report(content, folder=folder)
    table = table_markdown(content.scores, ceilings=content.ceilings)
    (folder / "table.md").write_text(table + "\n", encoding="utf-8")
    words = [content.title, table_text(content.scores, ceilings=content.ceilings), *content.verdict.paragraphs]
    (folder / "summary.txt").write_text("\n\n".join(words) + "\n", encoding="utf-8")
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.path(str(path)),
            "verdict": "\n\n".join(content.verdict.paragraphs),
            "table": dg.MetadataValue.md(table),
        }
    )
