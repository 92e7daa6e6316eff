"""From published incomes and land use to one tile from above a cell: what a network of a conurbation is given."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, described
from assets.imagery import ImageryRefresh, acquired_images
from assets.partitions import CITIES
from resources.cities import Cities
from resources.files import Files
from resources.imagery import ImagerySources, open_ledger
from resources.workspace import Workspace

if TYPE_CHECKING:
    from urbanprint.settings import Conurbation

_GROUP: dict[str, Any] = {"group_name": "conurbations", "owners": OWNERS, "partitions_def": CITIES}


@dg.asset(**_GROUP, kinds={"geopackage", "parquet"}, code_version="1")
def land_use(context: dg.AssetExecutionContext, cities: Cities, files: Files) -> dg.Output[gpd.GeoDataFrame]:
    """Polygons of land use of a conurbation by merged class, repaired, in EPSG:3035."""
    from urbanprint.landuse.atlas import read_urban_atlas
    from urbanprint.landuse.classes import URBAN_ATLAS, read_classes
    from urbanprint.maps.conurbation_maps import land_use_map

    place = cities.catalogue.conurbation(context.partition_key)
    source = place.land_use
    classes = read_classes(files.path(source.classes)) if source.classes else URBAN_ATLAS
    atlas = read_urban_atlas(files.path(source.polygons), year=source.year, classes=classes, layer=source.layer)
    return described(
        atlas.polygons,
        pictures={"land_use": land_use_map(atlas.polygons)},
        polygons_repaired=atlas.repaired,
        polygons_without_data=atlas.without_data,
        licence=source.licence,
        attribution=source.attribution,
    )


@dg.asset(**_GROUP, kinds={"csv", "parquet"}, code_version="1")
def income_cells(
    context: dg.AssetExecutionContext, cities: Cities, files: Files, land_use: gpd.GeoDataFrame
) -> dg.Output[gpd.GeoDataFrame]:
    """The cells of the income grid around the map of land use, imputed ones flagged: income is euros a year and head.

    Cells of which less than half is mapped are among them; `tile_cells` leaves them out.
    """
    from urbanprint.aerial.cells import cells_near, read_cells

    place = cities.catalogue.conurbation(context.partition_key)
    cells = cells_near(read_cells(files.path(place.income.table), place.income), land_use)
    return described(
        cells,
        imputed_cells=int(cells["imputed"].sum()),
        people_in_imputed_cells=float(cells.loc[cells["imputed"], "people"].sum()),
        licence=place.income.licence,
        attribution=place.income.attribution,
    )


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def cell_land_use(income_cells: gpd.GeoDataFrame, land_use: gpd.GeoDataFrame) -> dg.Output[gpd.GeoDataFrame]:
    """What each income cell holds of each class of land use, in square metres."""
    from urbanprint.landuse.atlas import clip_to_cells

    table = clip_to_cells(land_use, income_cells)
    shares = table.groupby("class")["area_m2"].sum() / table["area_m2"].sum()
    return described(table, {f"share of {name}": float(share) for name, share in shares.items()})


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def tile_cells(
    context: dg.AssetExecutionContext,
    cities: Cities,
    income_cells: gpd.GeoDataFrame,
    cell_land_use: pd.DataFrame,
) -> dg.Output[gpd.GeoDataFrame]:
    """The cells of a conurbation that are studied: on the map of land use, with an income that was measured."""
    from urbanprint.aerial.cells import conurbation_cells
    from urbanprint.maps.conurbation_maps import cell_income_map

    place = cities.catalogue.conurbation(context.partition_key)
    cells = conurbation_cells(
        income_cells,
        cell_land_use,
        size_m=place.income.size_m,
        epsg=int(place.imagery.crs.removeprefix("EPSG:")),
        with_imputed=place.income.with_imputed,
    )
    return described(
        cells,
        pictures={"income": cell_income_map(cells)},
        imputed_cells_left_out=int(income_cells["imputed"].sum()) if not place.income.with_imputed else 0,
    )


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def tile_plan(
    context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace, tile_cells: gpd.GeoDataFrame
) -> dg.Output[pd.DataFrame]:
    """What the coming run asks of the provider of orthophotos at most: tiles, minutes under its limit, price."""
    from urbanprint.imagery.planning import plan_imagery
    from urbanprint.imagery.store import ImageStore

    place = cities.catalogue.conurbation(context.partition_key)
    _, sampled, points = _asked(place, tile_cells)
    with open_ledger(workspace, place.key) as ledger:
        plan = plan_imagery(place, sampled, points, ledger=ledger, store=ImageStore(workspace.images))
    return described(plan.as_table())


@dg.multi_asset(
    group_name="conurbations",
    partitions_def=CITIES,
    deps=["tile_plan"],
    outs={
        "aerial_tiles": dg.AssetOut(
            kinds={"parquet", "jpeg"},
            owners=OWNERS,
            code_version="1",
            description="The manifest of a conurbation's tiles, a row a tile: which cell it shows, what became of it.",
        ),
        "tile_coverage": dg.AssetOut(
            kinds={"parquet"},
            owners=OWNERS,
            code_version="1",
            description="Which cells have a tile: cells that have not been photographed are a result.",
        ),
    },
)
def aerial_tiles(
    context: dg.AssetExecutionContext,
    config: ImageryRefresh,
    cities: Cities,
    workspace: Workspace,
    imagery_sources: ImagerySources,
    tile_cells: gpd.GeoDataFrame,
) -> Iterator[dg.Output]:
    """Fetch the tile of each cell of the sample; what an interrupted run has fetched is kept and not asked again."""
    from urbanprint.imagery.store import ImageStore

    place = cities.catalogue.conurbation(context.partition_key)
    areas, sampled, points = _asked(place, tile_cells)
    with open_ledger(workspace, place.key) as ledger:
        source = imagery_sources.source(place.imagery, ledger)
        acquired = acquired_images(
            place.imagery,
            config,
            areas=areas,
            sampled=sampled,
            points=points,
            source=source,
            ledger=ledger,
            store=ImageStore(workspace.images),
            views=1,
        )
    states = acquired.images["state"].value_counts()
    yield described(
        acquired.images,
        {f"{state} tiles": int(count) for state, count in states.items()},
        output="aerial_tiles",
        notes=acquired.stopped or "none",
    )
    yield described(
        acquired.coverage,
        output="tile_coverage",
        cells_without_tile=int((acquired.coverage["outcome"] != "imaged").sum()),
    )


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def tile_folds(
    context: dg.AssetExecutionContext,
    cities: Cities,
    tile_cells: gpd.GeoDataFrame,
    aerial_tiles: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """Which fold tests each cell with a tile: spatial blocks with a buffer; at random for the audit alone."""
    from urbanprint.aerial.cells import tile_folds as make

    place = cities.catalogue.conurbation(context.partition_key)
    plan = place.evaluation
    fetched = aerial_tiles.loc[aerial_tiles["state"] == "fetched", "area_id"]
    table = make(
        tile_cells[tile_cells["area_id"].isin(fetched)],
        folds=plan.folds,
        block_m=plan.block_m,
        seed=plan.seed,
        crs=place.imagery.crs,
        name=place.name,
    )
    blocks = table.loc[table["kind"] == "block", "block"].nunique()
    return described(table, blocks=int(blocks))


def _asked(place: "Conurbation", cells: gpd.GeoDataFrame) -> "tuple[gpd.GeoDataFrame, pd.DataFrame, pd.DataFrame]":
    """The cells that are asked for tiles, as `cells_to_photograph` has them."""
    from urbanprint.aerial.cells import cells_to_photograph

    return cells_to_photograph(cells, number=place.sample.areas, seed=place.sample.seed)
