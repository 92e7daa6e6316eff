"""What the networks of a conurbation look at, summed over the use of the land, and what of it survives chance."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.aerial_models import fold_model, incomes_of, with_paths
from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.tracking import Tracking
from resources.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

    from urbanprint.aerial.attention import End, Looked
    from urbanprint.settings import Conurbation

MAPS = "attention"
"""Stem of the files that hold the maps of each end, in the conurbation's folder of models."""


def _out(description: str) -> dg.AssetOut:
    return dg.AssetOut(kinds={"torch", "parquet"}, owners=OWNERS, code_version="1", description=description)


@dg.multi_asset(
    group_name="aerial",
    partitions_def=CITIES,
    outs={
        "activation_ratios": _out("How much more than its area a class draws of the maps of each end."),
        "class_findings": _out("Classes whose attention, or whose area, differs between poor and rich beyond chance."),
        "coactivations": _out("Pairs of classes: attention to one where another is present, and how status goes with "
                              "their meeting, with intervals and false-discovery control."),
        "attention_checks": _out("Whether the maps depend on what was learned: random weights, random labels, and, of "
                                 "a simulated conurbation, the planted cues."),
    },
)  # fmt: skip
def attention(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tracking: Tracking,
    tile_cells: gpd.GeoDataFrame,
    land_use: gpd.GeoDataFrame,
    aerial_tiles: pd.DataFrame,
    tile_folds: pd.DataFrame,
    aerial_model: pd.DataFrame,
) -> Iterator[dg.Output]:
    """Explain every tile by the network that has not seen it, and test what is found against chance."""
    from urbanprint.aerial import attention, findings
    from urbanprint.explanation.held_out import save_maps
    from urbanprint.maps import attention_figures
    from urbanprint.progress import Printed

    place = cities.catalogue.conurbation(context.partition_key)
    plan = place.attention
    images = with_paths(workspace, aerial_tiles, tile_folds)
    cells = tile_cells.set_index("area_id").loc[images["area_id"]].reset_index()
    with Printed() as bar:
        maps = attention.end_maps(
            images,
            tile_folds,
            model_of=lambda fold: fold_model(workspace, place.key, fold),
            method=plan.method,
            progress=lambda done, of: bar("explaining tiles", done, of),
        )
    for end, of_end in maps.items():
        save_maps(workspace.models(place.key) / f"{MAPS}-{end}.npz", images, of_end)
    looked = _looked(place, maps, cells, land_use, aerial_model, tile_folds)
    places, size_m = cells[["x_m", "y_m"]], place.income.size_m
    ratios = attention.ratio_table(looked, repeats=plan.repeats, seed=plan.seed)
    found = findings.class_findings(looked, places, size_m=size_m, permutations=plan.permutations, seed=plan.seed)
    pairs = findings.pair_findings(
        attention.pair_table(looked, repeats=plan.repeats, seed=plan.seed),
        looked,
        places,
        size_m=size_m,
        permutations=plan.permutations,
        seed=plan.seed,
    )
    checks = _checked(place, workspace, images, tile_folds, incomes_of(tile_cells), maps, looked, ratios)
    # A network that has learned nothing calls every tile the middle, so that no map is of an end.
    told = ratios["value"].notna().any()
    charts = {"ratios": attention_figures.ratio_chart(ratios, found)} if told else {}
    with tracking.run(place.key, "attention", tags={"dagster_run": context.run_id}) as run:
        named = ratios["end"] + "_" + ratios["name"].str.replace(r"[^\w ]", "", regex=True)
        run.metrics(dict(zip("ratio_" + named, ratios["value"], strict=True)))
        for name, table in (("ratios", ratios), ("findings", found), ("pairs", pairs), ("checks", checks)):
            run.file(f"{name}.csv", table.to_csv(index=False))
        for name, chart in charts.items():
            run.file(f"figures/{name}.png", chart)
    run_id = dg.MetadataValue.text(run.run_id)
    yield described(ratios, pictures=charts, output="activation_ratios", mlflow_run=run_id)
    yield described(found, output="class_findings", found=int(found["attention_found"].sum()), mlflow_run=run_id)
    yield described(pairs, output="coactivations", found=int(pairs["found"].sum()), mlflow_run=run_id)
    yield described(checks, output="attention_checks", passed=bool(checks["passed"].all()), mlflow_run=run_id)


def shown_predictions(place: "Conurbation", predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions under block folds of the head that is shown, sorted by cell."""
    chosen = (predictions["model"] == place.training.heads[0]) & (predictions["kind"] == "block")
    return predictions[chosen].sort_values("area_id", ignore_index=True)


def _looked(
    place: "Conurbation",
    maps: "dict[End, np.ndarray]",
    cells: gpd.GeoDataFrame,
    land_use: gpd.GeoDataFrame,
    predictions: pd.DataFrame,
    folds: pd.DataFrame,
) -> "Looked":
    from urbanprint.aerial.attention import looked_at, zones_of

    shape = maps["rich"].shape[1:]
    zones = zones_of(cells, land_use, size_m=place.income.size_m, crs=place.imagery.crs, shape=(shape[0], shape[1]))
    return looked_at(maps, zones, shown_predictions(place, predictions), folds)


def _checked(
    place: "Conurbation",
    workspace: Workspace,
    images: pd.DataFrame,
    folds: pd.DataFrame,
    incomes: pd.Series,
    maps: "dict[End, np.ndarray]",
    looked: "Looked",
    ratios: pd.DataFrame,
) -> pd.DataFrame:
    """The rows of `sanity.SANITY_COLUMNS`."""
    from urbanprint.aerial import learning, sanity
    from urbanprint.aerial.attention import end_maps
    from urbanprint.simulation.conurbation import CUE_CLASSES, simulated_at

    plan, head = place.attention, place.training.heads[0]
    untrained = sanity.untrained(fold_model(workspace, place.key, 0), seed=plan.seed)
    shuffled = learning.fit_splits(
        learning.honest_splits(folds, buffer_m=place.evaluation.buffer_m),
        images,
        sanity.shuffled(incomes, seed=plan.seed),
        folds,
        head=head,
        training=place.training,
        checkpoints=workspace.models(place.key) / "checkpoints" / "random-labels",
    )
    noise = {each.split.fold: each.model for each in shuffled}
    rows = [
        sanity.likeness_check(
            name,
            explanation,
            maps,
            end_maps(images, folds, model_of=model_of, method=plan.method),
            looked.units,
            repeats=plan.repeats,
            seed=plan.seed,
        )
        for name, explanation, model_of in (
            ("random weights", "rank correlation with maps of a network that was never trained", lambda _: untrained),
            ("random labels", "rank correlation with maps of networks trained on shuffled incomes", noise.__getitem__),
        )
    ]
    truth = simulated_at(place.imagery.endpoint)
    if truth is not None and truth.strength > 0:
        rows += sanity.planted_check(ratios, CUE_CLASSES)
    return pd.DataFrame(rows, columns=list(sanity.SANITY_COLUMNS))
