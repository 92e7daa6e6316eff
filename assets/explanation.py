"""Where in a picture a prediction comes from, by models that never saw the picture's area."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.tracking import PANEL, PANEL_TAG, Tracking
from resources.workspace import Workspace

KIND = "borough"
"""Explanations are of the models under borough folds, the ones the map shows."""

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from urbanprint.models.imagewise import ImagewiseModel

_TESTED = 200
_NULLS = 5


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
    import numpy as np

    from urbanprint.explanation.gradcam import common_limit
    from urbanprint.explanation.held_out import held_out_maps, save_maps, spread_panel, spread_views
    from urbanprint.imagery.store import ImageStore
    from urbanprint.models.imagewise import load_imagewise
    from urbanprint.progress import Printed
    from urbanprint.sources.providers import terms_of

    city = cities.city(context.partition_key)
    store = ImageStore(workspace.images)
    models = workspace.models(city.key)
    held_out = area_predictions.query("model == 'imagewise' and kind == @KIND and indicator == 'imd'")
    if held_out.empty:
        save_maps(models / "gradcam.npz", street_images.iloc[:0], np.empty((0, 1, 1), dtype=np.float32))
        (models / "faithfulness.json").unlink(missing_ok=True)
        reason = f"no network was trained on pixels: the terms of {city.imagery.provider} do not allow keeping them"
        return described(street_images.iloc[:0][["image_id", "area_id", "sha256"]], not_explained=reason)
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
    in_panel: list[str] = []
    pictures: dict[str, bytes] = {}
    if terms_of(city.imagery).may_show:
        pictures["panel"] = spread_panel(images, maps, areas, held_out)
        in_panel = images["image_id"].iloc[spread_views(images, held_out)].tolist()
    facts: dict[str, float] = {}
    if city.simulated:
        facts = _against_the_truth(images, maps, folds, load_imagewise(models / "imagewise"))
        (models / "faithfulness.json").write_text(json.dumps(facts, indent=2))
    with tracking.run(city.key, "gradcam", tags={"dagster_run": context.run_id}) as run:
        for png in pictures.values():
            run.file(PANEL, png)
            run.tag(PANEL_TAG, " ".join(in_panel))
        run.metrics({name.replace(" ", "_").replace(",", ""): value for name, value in facts.items()})
    return described(
        images.drop(columns="path"),
        facts,
        pictures=pictures,
        common_scale=common_limit(maps),
        images_in_panel=" ".join(in_panel),
        mlflow_run=run.run_id,
    )


def _against_the_truth(
    images: pd.DataFrame, maps: "np.ndarray", folds: pd.DataFrame, trained: "ImagewiseModel"
) -> dict[str, float]:
    """Whether the maps of a simulated city point at what was planted, beside networks with random weights."""
    import numpy as np

    from urbanprint.explanation.held_out import held_out_maps
    from urbanprint.models.imagewise import build
    from urbanprint.simulation.truth import cue_shares, masks_of

    some = np.linspace(0, len(images) - 1, min(_TESTED, len(images))).round().astype(int)
    shown = images.iloc[some].reset_index(drop=True)
    untrained = []
    for seed in range(_NULLS):
        random = build(replace(trained.config, seed=seed), trained.indicators, weights="none")
        maps_of_it = held_out_maps(shown, folds, kind=KIND, indicator="imd", model_of=_always(random))
        untrained.append(maps_of_it)
    return cue_shares(shown, maps[some], masks_of(shown), untrained=untrained)


def _always(model: "ImagewiseModel") -> "Callable[[int], ImagewiseModel]":
    """The same model whatever the fold."""

    def model_of(_fold: int) -> "ImagewiseModel":
        return model

    return model_of
