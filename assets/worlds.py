"""From the land of a world to its images, cell by cell, and to the cells that a model of it tells apart."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from assets.describing import OWNERS, described
from assets.imagery import ImageryRefresh, acquired_images
from assets.partitions import WORLDS
from resources.cities import Cities
from resources.files import Files
from resources.imagery import ImagerySources, open_ledger
from resources.workspace import Workspace

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np

    from urbanprint.settings import World

_GROUP: dict[str, Any] = {"group_name": "worlds", "owners": OWNERS, "partitions_def": WORLDS}


@dg.asset(**_GROUP, kinds={"geopandas", "parquet"}, code_version="1")
def world_grid(context: dg.AssetExecutionContext, cities: Cities, files: Files) -> dg.Output[pd.DataFrame]:
    """Every cell of the finest level: whether it has land, where it is, how large it is."""
    from urbanprint.geolocation import cell_images
    from urbanprint.maps.geolocation_figures import cell_chart

    world = cities.catalogue.world(context.partition_key)
    land = land_of(world, files)
    grid = cell_images.world_grid(land, world.cells.levels[-1])
    return described(
        grid,
        pictures={"land": cell_chart(grid["land"].to_numpy().astype(float), title=f"{world.name}: cells with land")},
        cells_with_land=int(grid["land"].sum()),
        licence=world.licence,
        attribution=world.attribution,
    )


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def cell_plan(
    context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace, files: Files
) -> dg.Output[pd.DataFrame]:
    """What the coming run asks of the provider at most: cells, points, searches, images, minutes, price, budget."""
    from urbanprint.geolocation.cell_images import answers_for_cells
    from urbanprint.imagery.planning import plan_imagery
    from urbanprint.imagery.store import ImageStore
    from urbanprint.sources.providers import price_of

    world = cities.catalogue.world(context.partition_key)
    _, sampled, points = _asked(world, files)
    with open_ledger(workspace, world.key) as ledger:
        plan = plan_imagery(
            world,
            sampled,
            points,
            ledger=ledger,
            store=ImageStore(workspace.images),
            price=price_of(world.imagery),
            budget_images=world.imagery.budget,
            # Its searches leave out the address and the creator: an image takes its entity and its pixels.
            per_image_requests=2.0 if world.imagery.provider == "mapillary" else 1.0,
            searches_points=not answers_for_cells(world.imagery),
        )
    return described(plan.as_table())


@dg.multi_asset(
    group_name="worlds",
    partitions_def=WORLDS,
    deps=["world_grid", "cell_plan"],
    outs={
        "cell_images": dg.AssetOut(
            kinds={"parquet", "jpeg"},
            owners=OWNERS,
            code_version="1",
            description="The manifest of a world's images, a row an image: where it is from and what became of it. "
            "At most one a sequence, near points spread over the land of its cell.",
        ),
        "cell_coverage": dg.AssetOut(
            kinds={"parquet"},
            owners=OWNERS,
            code_version="1",
            description="Every cell: ocean, land without usable images and why, or how many images; when it was asked. "
            "A cell that was asked is not asked again until the answer is stale.",
        ),
    },
)
def cell_images(
    context: dg.AssetExecutionContext,
    config: ImageryRefresh,
    cities: Cities,
    workspace: Workspace,
    imagery_sources: ImagerySources,
    files: Files,
) -> Iterator[dg.Output]:
    """Fetch the images of every cell with land; what an interrupted run has fetched is kept and not asked for again."""
    from urbanprint.geolocation import cell_images as cells
    from urbanprint.imagery.store import ImageStore
    from urbanprint.sources.providers import require_training

    world = cities.catalogue.world(context.partition_key)
    require_training(world.imagery)
    plan, level = world.sample, world.cells.levels[-1]
    areas, sampled, points = _asked(world, files)
    context.log.info(f"asking {len(sampled)} of {len(areas)} cells with land for at most {plan.views} images each")
    with open_ledger(workspace, world.key) as ledger:
        source = cells.cell_source(
            imagery_sources.source(world.imagery, ledger),
            probe_m=None if cells.answers_for_cells(world.imagery) else plan.probe_m,
        )
        acquired = acquired_images(
            world.imagery,
            config,
            areas=areas,
            sampled=sampled,
            points=points,
            source=source,
            ledger=ledger,
            store=ImageStore(workspace.images),
            views=plan.views,
        )
        asked = ledger.asked_at(source.request_key)
    states = acquired.images["state"].value_counts()
    yield described(
        acquired.images,
        {f"{state} images": int(count) for state, count in states.items()},
        output="cell_images",
        notes="\n".join([*getattr(source, "notes", ()), *filter(None, [acquired.stopped])]) or "none",
    )
    grid = workspace.read_table("world_grid", partition=world.key)
    coverage = cells.cell_coverage(grid, acquired.images, asked, level=level)
    yield described(
        coverage,
        {f"cells: {state}": int(count) for state, count in coverage["state"].value_counts().items()},
        output="cell_coverage",
    )


@dg.asset(**_GROUP, kinds={"html"}, code_version="1")
def coverage_map(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    files: Files,
    cell_coverage: pd.DataFrame,
) -> dg.MaterializeResult:
    """One page with every cell: how many images, none that is usable and why, not asked yet, or ocean."""
    from urbanprint.maps.coverage_map import coverage_map as write

    world = cities.catalogue.world(context.partition_key)
    folder = workspace.report(world.key)
    path = write(cell_coverage, land=land_of(world, files), folder=folder, title=f"{world.name}: images by cell")
    return dg.MaterializeResult(metadata={"map": dg.MetadataValue.path(str(path)), "bytes": path.stat().st_size})


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def image_parts(
    context: dg.AssetExecutionContext, cities: Cities, cell_images: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """Which usable images train, calibrate and test: parts that share no sequence and lie apart, checked."""
    from urbanprint.geolocation.cell_images import usable
    from urbanprint.geolocation.parts import check_parts, deal_parts

    world = cities.catalogue.world(context.partition_key)
    images = usable(cell_images)
    parts = deal_parts(images, seed=world.training.seed, apart_m=world.cells.apart_m)
    check_parts(images, parts, apart_m=world.cells.apart_m)
    columns = ["image_id", "sequence_id", "longitude", "latitude", "sha256"]
    table = images[columns].assign(part=parts.to_numpy())
    counts = table["part"].value_counts()
    return described(table, {f"{part} images": int(count) for part, count in counts.items()})


@dg.asset(**_GROUP, kinds={"parquet", "json"}, code_version="1")
def cell_classes(
    context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace, image_parts: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """The classes of each level and how the training images fill them; the tree as sorted, versioned JSON beside."""
    from urbanprint.geolocation import datasets

    world = cities.catalogue.world(context.partition_key)
    training = image_parts[image_parts["part"] == "train"]
    hierarchy = datasets.cell_classes(training, levels=world.cells.levels, least=world.cells.least)
    folder = workspace.models(world.key)
    folder.mkdir(parents=True, exist_ok=True)
    files = {"hierarchy.json": hierarchy.to_json(), "parents.json": datasets.parents_json(hierarchy)}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return described(
        datasets.class_report(training, hierarchy),
        {name: dg.MetadataValue.path(str(folder / name)) for name in files},
    )


def _asked(world: "World", files: Files) -> "tuple[gpd.GeoDataFrame, pd.DataFrame, pd.DataFrame]":
    """The cells of the world that are asked for images, as `cells_to_ask` has them."""
    from urbanprint.geolocation.cell_images import cells_to_ask

    sample, level = world.sample, world.cells.levels[-1]
    land = land_of(world, files)
    return cells_to_ask(land, level=level, cells=sample.cells, probes=sample.probes, seed=sample.seed)


def land_of(world: "World", files: Files) -> "np.ndarray":
    """The polygons of the world's land."""
    from urbanprint.land import read_land

    return read_land(files.path(world.land))
