"""The acquisition loop against the simulated server: nothing asked twice, nothing lost, coverage told."""

import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from urbanprint import tables
from urbanprint.errors import SourceError
from urbanprint.imagery.acquisition import Acquired, acquire
from urbanprint.imagery.choosing import choose
from urbanprint.imagery.store import ImageStore
from urbanprint.sampling import stratify
from urbanprint.settings import Imagery
from urbanprint.simulation.faults import Fault
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.town import Town
from urbanprint.sources.mapillary import Mapillary
from urbanprint.sources.providers import terms_of

TERMS = terms_of(Imagery(key="mapillary", provider="mapillary"))
VIEWS = 3


@pytest.fixture
def run(areas, sampled, points, source, ledger, tmp_path: Path):
    def run(**changes) -> Acquired:
        return acquire(
            **{
                "areas": areas, "sampled": sampled, "points": points, "source": source, "ledger": ledger,
                "store": ImageStore(tmp_path / "images"), "views": VIEWS, "threads": 4, **changes,
            }
        )  # fmt: skip

    return run


def asked(server: SimulationServer, prefix: str = "/thumbs/") -> Counter:
    return Counter(r.path for r in server.requests if r.path.startswith(prefix) and r.status == 200)


def test_tables_follow_their_schemas_and_every_area_gets_its_views(run, sampled: pd.DataFrame, tmp_path: Path) -> None:
    acquired = run()
    tables.IMAGES.validate(acquired.images)
    tables.COVERAGE.validate(acquired.coverage)
    imaged = acquired.coverage[acquired.coverage["outcome"] == "imaged"]
    assert (imaged["images"] == VIEWS).all()
    assert len(imaged) == (sampled["role"] == "primary").sum()
    fetched = acquired.images[acquired.images["state"] == "fetched"]
    assert len(fetched) == VIEWS * len(imaged)
    for row in fetched.itertuples():
        with Image.open(ImageStore(tmp_path / "images").path(row.sha256)) as picture:
            assert picture.size == (row.width, row.height)


def test_images_lie_in_the_area_they_are_assigned_to(run, areas: gpd.GeoDataFrame, town: Town) -> None:
    images = run().images
    joined = gpd.sjoin(
        gpd.GeoDataFrame(
            images[["image_id", "area_id"]], geometry=gpd.points_from_xy(images.longitude, images.latitude), crs=4326
        ),
        areas[["area_id", "geometry"]],
        predicate="within",
    )
    assert (joined["area_id_left"] == joined["area_id_right"]).all()
    assert len(joined) == len(images)


def test_an_area_without_imagery_is_replaced_within_its_stratum_and_recorded(
    run, town: Town, areas: gpd.GeoDataFrame
) -> None:
    sampled = stratify(areas, size=200, allocation="proportional", seed=1)
    coverage = run(sampled=sampled, views=1).coverage
    empty = set(areas["area_id"]) - set(town.images["area_id"])
    primary_without = set(sampled.loc[sampled["role"] == "primary", "area_id"]) & empty
    assert primary_without, "the town has lost its areas without imagery"
    without = coverage[coverage["outcome"] == "no imagery"]
    assert primary_without <= set(without["area_id"])
    stratum = coverage.set_index("area_id")["stratum"]
    replacements = coverage[coverage["replaces"].notna()]
    assert (replacements["role"] == "reserve").all()
    assert set(replacements["replaces"]) <= set(without["area_id"])
    exhausted = without[~without["area_id"].isin(replacements["replaces"])]["stratum"]
    reserves = sampled[(sampled["role"] == "reserve") & ~sampled["area_id"].isin(coverage["area_id"])]["stratum"]
    assert not set(exhausted) & set(reserves), "an area was not replaced although its stratum had reserves"
    assert (stratum[replacements["area_id"]].to_numpy() == stratum[replacements["replaces"]].to_numpy()).all()


def test_a_second_run_asks_for_nothing(run, server: SimulationServer) -> None:
    first = run()
    before = len(server.requests)
    second = run()
    assert len(server.requests) == before
    pd.testing.assert_frame_equal(first.images, second.images)
    pd.testing.assert_frame_equal(first.coverage, second.coverage)


def test_no_image_is_asked_for_twice_in_one_run(run, server: SimulationServer) -> None:
    run()
    assert max(asked(server).values()) == 1


def test_a_stale_search_is_asked_again_but_no_image_is(run, server: SimulationServer) -> None:
    def searching() -> Mapillary:
        return Mapillary(token="t", terms=TERMS, endpoint=f"{server.url}/mapillary", discovery="search")

    run(source=searching())
    searches, images = sum(asked(server, "/mapillary/images").values()), asked(server)
    run(source=searching(), stale_after=timedelta(seconds=0))
    assert sum(asked(server, "/mapillary/images").values()) > searches > 0
    assert asked(server) == images


def test_more_views_ask_only_for_what_is_missing(run, server: SimulationServer) -> None:
    run(views=2)
    run(views=VIEWS)
    assert max(asked(server).values()) == 1


def test_a_truncated_picture_is_fetched_again_and_html_is_rejected_and_replaced(run, server: SimulationServer) -> None:
    server.inject(Fault("truncated", path="^/thumbs/", times=3))
    acquired = run()
    assert (acquired.images["state"] != "failed").all()
    held = acquired.coverage[acquired.coverage["outcome"] == "imaged"]
    assert (held["images"] == VIEWS).all()


def test_an_image_that_is_never_whole_is_rejected_and_gives_way_to_another(run, server: SimulationServer) -> None:
    probe = run(views=1)
    victim = probe.images.loc[probe.images["state"] == "fetched", "image_id"].iloc[0]
    area = probe.images.set_index("image_id").loc[victim, "area_id"]
    others = probe.images[(probe.images["area_id"] == area) & (probe.images["image_id"] != victim)]
    for image_id in others["image_id"].iloc[:1]:
        server.inject(Fault("html", path=f"^/thumbs/{image_id}"))
    acquired = run(views=3)
    images = acquired.images.set_index("image_id")
    assert (images.loc[images["area_id"] == area, "state"] == "fetched").sum() == 3
    refused = images[images["state"] == "rejected"]
    assert set(refused["reason"]) <= {"not an image", "the provider has no thumbnail of it"}


def test_a_provider_that_fails_keeps_what_was_fetched_and_the_next_run_completes_it(
    run, server: SimulationServer
) -> None:
    fault = Fault("unavailable", path=r"^/thumbs/\d*[02468]\.jpg")  # every other image, whatever the order of threads
    server.inject(fault)
    with pytest.raises(SourceError, match="run again"):
        run(threads=2, views=2)
    delivered = asked(server)
    fault.times = 0
    images = run(views=2).images
    # An image that failed may no longer be wanted: another turned out to lie in its area.
    held = images[images["state"] == "fetched"].groupby("area_id").size()
    assert (held.reindex(images.loc[images["state"] == "failed", "area_id"]) >= 2).all()
    assert max(asked(server).values()) == 1
    assert sum(asked(server).values()) > sum(delivered.values())


def test_the_choice_takes_for_each_point_its_nearest_image() -> None:
    images = [
        {"image_id": f"{i}", "longitude": x, "latitude": 0.0, "state": "found"} for i, x in enumerate([0, 1, 2, 3, 4])
    ]
    points = np.array([[3.9, 0.0], [0.1, 0.0]])
    assert [image["image_id"] for image in choose(images, points, views=2)] == ["4", "0"]
    assert len(choose(images, points, views=9)) == 5
    images[4]["state"] = "rejected"
    assert [image["image_id"] for image in choose(images, points, views=2)] == ["3", "0"]
    images[0]["state"] = "fetched"
    assert [image["image_id"] for image in choose(images, points, views=2)] == ["3"]
    assert choose(images, points, views=1) == []
    assert choose(images, points, views=2, asked={"3"}) == []


def test_killed_at_random_moments_nothing_is_fetched_twice_and_nothing_is_missing() -> None:
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-m", "benchmarks.campaign", "--images", "100", "--kills", "3", "--scenario", "kills"]
    campaign = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert campaign.returncode == 0, campaign.stdout + campaign.stderr
