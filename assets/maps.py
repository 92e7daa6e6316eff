"""What people look at: the interactive map and the report of a city, a folder that can be moved or zipped."""

from typing import Any

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, picture
from assets.partitions import CITIES
from resources.cities import Cities
from resources.workspace import Workspace

_GROUP: dict[str, Any] = {"group_name": "maps", "owners": OWNERS, "partitions_def": CITIES}


@dg.asset(**_GROUP, kinds={"folium", "html"}, code_version="1", deps=["gradcam_maps"])
def deprivation_map(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    areas: gpd.GeoDataFrame,
    street_images: pd.DataFrame,
    area_predictions: pd.DataFrame,
    prediction_intervals: pd.DataFrame,
) -> dg.MaterializeResult:
    """The interactive map: observed, predicted, their difference, images; photographs and GradCAM in a popup."""
    from urbanprint.explanation.held_out import load_maps
    from urbanprint.imagery.store import ImageStore
    from urbanprint.maps.content import shown_predictions
    from urbanprint.maps.deprivation_map import deprivation_map
    from urbanprint.maps.pictures import write_pictures
    from urbanprint.progress import Printed
    from urbanprint.sources.providers import terms_of

    city = cities.city(context.partition_key)
    folder, terms = workspace.report(city.key), terms_of(city.imagery)
    maps = load_maps(workspace.models(city.key) / "gradcam.npz") if terms.may_show else {}
    photographs = street_images[(street_images["state"] == "fetched") & street_images["image_id"].isin(list(maps))]
    with Printed() as bar:
        pictures = write_pictures(
            photographs,
            folder=folder,
            path_of=ImageStore(workspace.images).path,
            maps=maps,
            page_of=terms.page_of,
            progress=lambda done, of: bar("drawing pictures", done, of),
        )
    path = deprivation_map(
        areas,
        shown_predictions(area_predictions),
        street_images,
        folder=folder,
        pictures=pictures,
        title=city.name,
        attribution=city.edition.attribution,
        intervals=prediction_intervals,
        report="index.html",
    )
    return dg.MaterializeResult(
        metadata={
            "map": dg.MetadataValue.path(str(path)),
            "size_bytes": path.stat().st_size,
            "pictures": len(photographs),
        }
    )


@dg.asset(**_GROUP, kinds={"html"}, code_version="1", deps=["deprivation_map", "gradcam_maps"])
def city_report(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    areas: gpd.GeoDataFrame,
    street_images: pd.DataFrame,
    image_coverage: pd.DataFrame,
    coverage_bias: pd.DataFrame,
    folds: pd.DataFrame,
    area_predictions: pd.DataFrame,
    prediction_intervals: pd.DataFrame,
    leakage_audit: pd.DataFrame,
    scorecard: pd.DataFrame,
) -> dg.MaterializeResult:
    """One page a planner can read: the verdict in words, scores beside their baselines, maps, pictures, limits."""
    from urbanprint.evaluation.intervals import measured_coverage
    from urbanprint.explanation.held_out import load_maps
    from urbanprint.imagery.store import ImageStore
    from urbanprint.maps import content, figures, report
    from urbanprint.maps.attribution import attribution_page
    from urbanprint.sources.providers import terms_of

    city = cities.city(context.partition_key)
    folder, terms = workspace.report(city.key), terms_of(city.imagery)
    shown = content.shown_predictions(area_predictions)
    page = content.report_content(
        city,
        areas=areas,
        images=street_images[street_images["state"] == "fetched"],
        coverage=image_coverage,
        folds=folds,
        all_predictions=area_predictions,
        shown=shown,
        scores=scorecard,
        interval_coverage=measured_coverage(shown, prediction_intervals, folds=folds),
        audit=leakage_audit,
        maps=load_maps(workspace.models(city.key) / "gradcam.npz") if terms.may_show else {},
        bias=coverage_bias,
        path_of=ImageStore(workspace.images).path,
        faithfulness=workspace.models(city.key) / "faithfulness.json",
        provenance={"Dagster run": context.run_id},
    )
    attribution_page(
        street_images,
        editions=[city.edition],
        terms={city.imagery.provider: terms},
        folder=folder,
        title=city.name,
    )
    path = report.city_report(page, folder=folder)
    table = report.score_table_text(scorecard, page.ceiling, page.forbidden)
    words = "\n\n".join(filter(None, [city.name, table, page.verdict, page.faithfulness]))
    (folder / "summary.txt").write_text(words + "\n", encoding="utf-8")
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.path(str(path)),
            "verdict": page.verdict,
            "scores": picture(figures.score_chart(scorecard, ceiling=page.ceiling, forbidden=page.forbidden)),
            "score_table": dg.MetadataValue.md(report.score_table_markdown(scorecard, page.ceiling, page.forbidden)),
        }
    )
