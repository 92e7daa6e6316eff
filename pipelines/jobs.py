"""What can be launched as one run: the national sources, a city from areas to map, the board over all cities."""

import dagster as dg

from assets.sources import PUBLISHERS

_CITY = dg.AssetSelection.assets("areas").downstream() - dg.AssetSelection.assets("scoreboard")

city = dg.define_asset_job(
    "city",
    selection=_CITY,
    description="A city from its areas to its map and report. Materialize the national sources first.",
)
refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.assets("imagery_plan", "street_images", "image_coverage"),
    description="Ask the imagery provider what is new; what changed is rebuilt by automation.",
)
board = dg.define_asset_job(
    "board", selection=dg.AssetSelection.assets("scoreboard"), description="All cities' scores side by side."
)
SOURCE_JOBS = {
    publisher: dg.define_asset_job(
        f"{publisher}_sources",
        selection=dg.AssetSelection.assets(f"{publisher}_deprivation", f"{publisher}_areas"),
        description="Fetch the published files that have changed since they were last fetched.",
    )
    for publisher in PUBLISHERS
}
JOBS = [city, refresh, board, *SOURCE_JOBS.values()]
