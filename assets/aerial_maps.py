"""The page of a conurbation seen from above, and the page over all of them: what they teach each other."""

from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from assets.aerial_explanation import MAPS, shown_predictions
from assets.aerial_models import incomes_of, with_paths
from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.tracking import Tracking
from resources.workspace import Workspace

if TYPE_CHECKING:
    from urbanprint.maps.aerial_report import AerialContent
    from urbanprint.settings import Conurbation

TRANSFER = "aerial-transfer"
"""Folder of models and of the page over all conurbations."""

_TABLES = {
    "predictions": "aerial_model",
    "calibration": "tile_calibration",
    "scores": "aerial_scores",
    "audit": "aerial_audit",
    "ratios": "activation_ratios",
    "findings": "class_findings",
    "pairs": "coactivations",
    "sanity": "attention_checks",
}
"""Part of the report -> the asset that makes it."""


@dg.asset(
    group_name="aerial",
    owners=OWNERS,
    partitions_def=CITIES,
    kinds={"html"},
    code_version="1",
    deps=[*_TABLES.values(), "tile_cells", "land_use", "aerial_tiles", "tile_folds", "tile_baselines"],
)
def aerial_report(context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace) -> dg.MaterializeResult:
    """One page a planner can read: does the picture tell income, where does the network look, do the data agree."""
    from urbanprint.maps.aerial_report import aerial_report as write
    from urbanprint.maps.aerial_report import summary_text, verdict
    from urbanprint.maps.attribution import attribution_page
    from urbanprint.sources.providers import terms_of

    place = cities.catalogue.conurbation(context.partition_key)
    folder = workspace.report(place.key)
    content = _content(place, workspace, provenance={"Dagster run": context.run_id})
    tiles = workspace.read_table("aerial_tiles", partition=place.key)
    attribution_page(
        tiles[tiles["state"] == "fetched"],
        editions=[place.income, place.land_use],
        terms={place.imagery.provider: terms_of(place.imagery)},
        folder=folder,
        title=place.name,
    )
    path = write(content, folder)
    (folder / "summary.txt").write_text(summary_text(content) + "\n", encoding="utf-8")
    return dg.MaterializeResult(
        metadata={"report": dg.MetadataValue.path(str(path)), "verdict": "\n\n".join(verdict(content))}
    )


@dg.asset(group_name="aerial", owners=OWNERS, kinds={"torch", "mlflow"}, code_version="1", deps=["aerial_scores"])
def aerial_transfer(
    context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace, tracking: Tracking
) -> dg.Output[pd.DataFrame]:
    """What networks of one conurbation say of another, and of one that was left out: Pearson r with intervals.

    Of all conurbations that have been built; their networks on themselves are those of the block folds.
    """
    from urbanprint.aerial import transfer
    from urbanprint.models.imagewise import load_imagewise

    built = _built(cities, workspace)
    studies = {}
    for place in built:
        folds = workspace.read_table("tile_folds", partition=place.key)
        images = with_paths(workspace, workspace.read_table("aerial_tiles", partition=place.key), folds)
        cells = workspace.read_table("tile_cells", partition=place.key)
        studies[place.key] = transfer.Study(images=images, incomes=incomes_of(cells), folds=folds)
    first = built[0]
    with tracking.run(TRANSFER, "leave one out", tags={"dagster_run": context.run_id}) as run:
        table = transfer.transfer_table(
            studies,
            own={
                place.key: shown_predictions(place, workspace.read_table("aerial_model", partition=place.key))
                for place in built
            },
            model_of=lambda key: load_imagewise(workspace.models(key) / "aerial"),
            training=first.training,
            head=first.training.heads[0],
            checkpoints=workspace.models(TRANSFER) / "checkpoints",
            seed=first.evaluation.seed,
        )
        names = table["trained_on"].str.replace(" ", "_") + "_to_" + table["tested_on"]
        run.metrics(dict(zip("pearson_r_" + names, table["value"], strict=True)))
        run.file("transfer.csv", table.to_csv(index=False))
    return described(table, mlflow_run=run.run_id)


@dg.asset(group_name="aerial", owners=OWNERS, kinds={"html"}, code_version="1")
def transfer_report(
    context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace, aerial_transfer: pd.DataFrame
) -> dg.MaterializeResult:
    """One page over all conurbations that have been built: the matrix, and whether networks carry over."""
    from urbanprint.maps.report import Attribution
    from urbanprint.maps.transfer_report import TransferContent, transfer_sentence
    from urbanprint.maps.transfer_report import transfer_report as write

    places = _built(cities, workspace)
    folder = workspace.report(TRANSFER)
    credits: dict[Attribution, None] = {}  # each once, in the order of the catalogue
    for place in places:
        tiles = workspace.read_table("aerial_tiles", partition=place.key)
        taken = tiles.loc[tiles["state"] == "fetched", ["attribution", "licence"]].drop_duplicates()
        for what, source in (("Income", place.income), ("Land use", place.land_use)):
            credits[Attribution(what, source.attribution, source.licence)] = None
        for text, licence in taken.itertuples(index=False):
            credits[Attribution("Orthophotos", text, licence)] = None
    content = TransferContent(
        title="From one conurbation to another",
        summary=f"{len(places)} conurbations: {', '.join(place.name for place in places)}.",
        transfer=aerial_transfer,
        attributions=tuple(credits),
        provenance={"Dagster run": context.run_id},
    )
    path = write(content, folder)
    (folder / "summary.txt").write_text(transfer_sentence(aerial_transfer) + "\n", encoding="utf-8")
    return dg.MaterializeResult(
        metadata={"report": dg.MetadataValue.path(str(path)), "verdict": transfer_sentence(aerial_transfer)}
    )


def _built(cities: Cities, workspace: Workspace) -> "list[Conurbation]":
    """The conurbations whose networks have been judged, in the order of the catalogue."""
    from urbanprint.errors import InputError

    built = [
        place
        for place in cities.catalogue.conurbations.values()
        if workspace.holds_all(("aerial_scores", "aerial_model", "tile_folds"), partition=place.key)
    ]
    if len(built) < 2:
        raise InputError(f"{len(built)} conurbations have been built: at least 2 can teach each other, run another.")
    return built


def _content(place: "Conurbation", workspace: Workspace, *, provenance: dict[str, str]) -> "AerialContent":
    from urbanprint.explanation.held_out import load_maps
    from urbanprint.maps.aerial_content import aerial_content
    from urbanprint.sources.providers import terms_of

    tables: dict[str, Any] = {
        part: workspace.read_table(asset, partition=place.key)
        for part, asset in {**_TABLES, "cells": "tile_cells", "land": "land_use"}.items()
    }
    folds = workspace.read_table("tile_folds", partition=place.key)
    images = with_paths(workspace, workspace.read_table("aerial_tiles", partition=place.key), folds)
    maps = {end: load_maps(workspace.models(place.key) / f"{MAPS}-{end}.npz") for end in ("poor", "rich")}
    return aerial_content(
        place,
        **tables,
        images=images,
        shown=shown_predictions(place, tables["predictions"]),
        maps=maps if terms_of(place.imagery).may_show else {},
        provenance=provenance,
    )
