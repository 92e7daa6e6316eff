"""Where in a picture a prediction comes from, by models that never saw the picture's area."""

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.tracking import Tracking
from resources.workspace import Workspace

KIND = "borough"
"""Explanations are of the models under borough folds, the ones the map shows."""


@dg.asset(
    group_name="explanation",
    owners=OWNERS,
    partitions_def=CITIES,
    kinds={"torch", "png"},
    code_version="1",
    deps=["imagewise_model"],
)
def gradcam_maps(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tracking: Tracking,
    areas: gpd.GeoDataFrame,
    street_images: pd.DataFrame,
    folds: pd.DataFrame,
    area_predictions: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """Signed GradCAM of each image: where it raises or lowers the predicted deprivation. Raw maps stay in one file."""
    from urbanprint.explanation.gradcam import common_limit
    from urbanprint.explanation.held_out import held_out_maps, save_maps, spread_panel
    from urbanprint.imagery.store import ImageStore
    from urbanprint.models.imagewise import load_imagewise
    from urbanprint.progress import Printed

    city = cities.city(context.partition_key)
    store = ImageStore(workspace.images)
    models = workspace.models(city.key)
    usable = (street_images["state"] == "fetched") & street_images["area_id"].isin(folds["area_id"])
    images = street_images.loc[usable, ["image_id", "area_id", "sha256"]].reset_index(drop=True)
    images["path"] = [str(store.path(sha256)) for sha256 in images["sha256"]]
    with Printed() as bar:
        maps = held_out_maps(
            images,
            folds,
            kind=KIND,
            indicator="imd",
            model_of=lambda fold: load_imagewise(models / "folds" / f"{KIND}-{fold}"),
            progress=lambda done, of: bar("explaining images", done, of),
        )
    save_maps(models / "gradcam.npz", images, maps)
    held_out = area_predictions.query("model == 'imagewise' and kind == @KIND and indicator == 'imd'")
    panel = spread_panel(images, maps, areas, held_out)
    facts = {}
    if city.simulated:
        from urbanprint.simulation.truth import cue_shares, masks_of

        facts = cue_shares(images, maps, masks_of(images))
    with tracking.run(city.key, "gradcam", tags={"dagster_run": context.run_id}) as run:
        run.file("figures/gradcam.png", panel)
        run.metrics({name.replace(" ", "_"): value for name, value in facts.items()})
    return described(
        images.drop(columns="path"),
        pictures={"panel": panel},
        common_scale=common_limit(maps),
        mlflow_run=run.run_id,
        **facts,
    )
