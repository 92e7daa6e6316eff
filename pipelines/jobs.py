"""What can be launched as one run: sources, a place from its areas to its report, the steps of a world."""

import dagster as dg

from assets.sources import PUBLISHERS

_PLACE = dg.AssetSelection.groups("areas", "imagery") | dg.AssetSelection.assets("image_embeddings")
"""What cities and countries are made of alike."""

_CITY = dg.AssetSelection.assets("folds").downstream() | dg.AssetSelection.assets("leakage_audit")
_COUNTRY = dg.AssetSelection.assets("survey_clusters", "scene_parses", "cluster_features", "cluster_folds") | (
    dg.AssetSelection.assets("cluster_folds").downstream()
)
_OF_ALL = dg.AssetSelection.assets("scoreboard", "transfer_matrix", "livelihood_report", "selection_optimism")

city = dg.define_asset_job(
    "city",
    selection=(_PLACE | _CITY) - _OF_ALL - dg.AssetSelection.groups("sky"),
    description="A city from its areas to its map and report. Materialize the national sources first.",
)
country = dg.define_asset_job(
    "country",
    selection=(_PLACE | _COUNTRY) - _OF_ALL,
    description="A country from its survey clusters to its table of learners and its report.",
)
refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.assets("imagery_plan", "street_images", "image_coverage"),
    description="Ask the imagery provider what is new; what changed is rebuilt by automation.",
)
board = dg.define_asset_job(
    "board", selection=dg.AssetSelection.assets("scoreboard"), description="All cities' scores side by side."
)
livelihood = dg.define_asset_job(
    "livelihood",
    selection=dg.AssetSelection.assets("selection_optimism", "transfer_matrix", "livelihood_report"),
    description="All countries side by side, and what they teach each other.",
)
_OF_ALL_CONURBATIONS = dg.AssetSelection.assets("aerial_transfer", "transfer_report")
conurbation = dg.define_asset_job(
    "conurbation",
    selection=dg.AssetSelection.groups("conurbations", "aerial") - _OF_ALL_CONURBATIONS,
    description="A conurbation from its incomes and land use to what a network sees from above, and the report.",
)
sky = dg.define_asset_job(
    "sky",
    selection=dg.AssetSelection.groups("sky"),
    description="What tiles from above add to a city's street images. Needs the job `city`, and orthophotos.",
)
transfer = dg.define_asset_job(
    "transfer",
    selection=_OF_ALL_CONURBATIONS,
    description="All conurbations that have been built: what their networks say of each other.",
)
_TO_CLASSES = dg.AssetSelection.groups("worlds")
_LEVEL = dg.AssetSelection.assets("level_dataset", "level_labels", "level_model", "level_calibration")
world = dg.define_asset_job(
    "world", selection=_TO_CLASSES, description="A world from its land to its images and the cells to tell apart."
)
grid_level = dg.define_asset_job(
    "grid_level", selection=_LEVEL, description="The network of one level of a world. Needs the job `world`."
)
geolocation = dg.define_asset_job(
    "geolocation",
    selection=dg.AssetSelection.groups("geolocation") - _LEVEL,
    description="The joint network of a world, the judgement of both designs, the report. Needs all its levels.",
)
SOURCE_JOBS = {
    publisher: dg.define_asset_job(
        f"{publisher}_sources",
        selection=dg.AssetSelection.assets(f"{publisher}_deprivation", f"{publisher}_areas"),
        description="Fetch the published files that have changed since they were last fetched.",
    )
    for publisher in PUBLISHERS
}
_OF_PLACES = [city, country, conurbation, sky, refresh, board, livelihood, transfer]
JOBS = [*_OF_PLACES, world, grid_level, geolocation, *SOURCE_JOBS.values()]
