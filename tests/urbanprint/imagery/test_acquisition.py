"""The acquisition loop against the simulated server: nothing asked twice, nothing lost, coverage told."""

import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from urbanprint import tables
from urbanprint.errors import SourceError, UrbanprintError
from urbanprint.imagery.acquisition import Acquired, acquire, choose
from urbanprint.imagery.ledger import Ledger
from urbanprint.imagery.store import ImageStore
from urbanprint.sampling import stratify
from urbanprint.simulation.faults import Fault
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.town import Town
from urbanprint.sources.mapillary import Mapillary


@pytest.fixture
def run(areas, sampled, points, source, ledger, tmp_path: Path):
    def run(**changes) -> Acquired:
        return acquire(
            **{
                "areas": areas, "sampled": sampled, "points": points, "source": source, "ledger": ledger,
                "store": ImageStore(tmp_path / "images"), "views": 4, "threads": 4, **changes,
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
    assert (imaged["images"] == 4).all()
    assert len(imaged) == (sampled["role"] == "primary").sum()
    fetched = acquired.images[acquired.images["state"] == "fetched"]
    assert len(fetched) == 4 * len(imaged)
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
    run()
    searches, images = sum(asked(server, "/mapillary/images").values()), asked(server)
    run(stale_after=timedelta(seconds=0))
    assert sum(asked(server, "/mapillary/images").values()) > searches
    assert asked(server) == images


def test_more_views_ask_only_for_what_is_missing(run, server: SimulationServer) -> None:
    run(views=2)
    run(views=4)
    assert max(asked(server).values()) == 1


def test_a_truncated_picture_is_fetched_again_and_html_is_rejected_and_replaced(run, server: SimulationServer) -> None:
    server.inject(Fault("truncated", path="^/thumbs/", times=3))
    acquired = run()
    assert (acquired.images["state"] != "failed").all()
    held = acquired.coverage[acquired.coverage["outcome"] == "imaged"]
    assert (held["images"] == 4).all()


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
    assert set(refused["reason"]) <= {"it is not a whole image", "the provider has no thumbnail of it"}


def test_a_provider_that_fails_keeps_what_was_fetched_and_the_next_run_completes_it(
    run, server: SimulationServer
) -> None:
    server.inject(Fault("unavailable", path="^/thumbs/", times=45, probability=0.5, seed=3))
    with pytest.raises(SourceError, match="run again"):
        run(threads=2)
    delivered = asked(server)
    acquired = run()
    assert (acquired.images["state"] != "failed").all()
    assert max(asked(server).values()) == 1
    assert sum(asked(server).values()) > sum(delivered.values())


def test_a_provider_that_is_down_is_not_asked_on_and_on(run, server: SimulationServer) -> None:
    server.inject(Fault("unavailable", path="^/thumbs/"))
    with pytest.raises(SourceError, match="failed 25 times in a row"):
        run(threads=1)
    assert sum(r.path.startswith("/thumbs/") for r in server.requests) < 4 * 26


def test_terms_that_forbid_storing_are_obeyed(run, source: Mapillary) -> None:
    source.terms = replace(source.terms, may_store=False)
    with pytest.raises(UrbanprintError, match="do not allow storing"):
        run()


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


KILLED = """
import sys, json
from pathlib import Path
import geopandas as gpd, pandas as pd
from urbanprint.imagery.acquisition import acquire
from urbanprint.imagery.ledger import Ledger
from urbanprint.imagery.store import ImageStore
from urbanprint.sources.http import Retry
from urbanprint.sources.mapillary import Mapillary
from urbanprint.sources.terms import terms_of
from urbanprint.catalogue import Imagery
folder, url = Path(sys.argv[1]), sys.argv[2]
source = Mapillary(token="t", terms=terms_of(Imagery(key="m", provider="mapillary")), endpoint=url + "/mapillary")
acquire(areas=gpd.read_parquet(folder / "areas.parquet"), sampled=pd.read_parquet(folder / "sampled.parquet"),
        points=pd.read_parquet(folder / "points.parquet"), source=source, ledger=Ledger(folder / "ledger.sqlite"),
        store=ImageStore(folder / "images"), views=4, threads=4)
"""


def test_killed_at_random_moments_and_started_again_nothing_is_asked_twice_and_nothing_is_missing(
    areas: gpd.GeoDataFrame, sampled: pd.DataFrame, points: pd.DataFrame, town: Town, tmp_path: Path
) -> None:
    for name, table in {"areas": areas, "sampled": sampled, "points": points}.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    threads = 4
    rng = np.random.default_rng(5)
    with SimulationServer(town, token="t", image_width=64) as server:
        # Each picture takes 20 ms to come, so that a kill always meets some on their way.
        server.inject(Fault("slow", path="^/thumbs/", seconds=0.02))
        command = [sys.executable, "-c", KILLED, str(tmp_path), server.url]
        at_kill: list[tuple[int, set[str]]] = []  # requests served so far, images the ledger had recorded
        for _ in range(4):
            enough = sum(asked(server).values()) + rng.integers(15, 35)
            process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
            until = time.monotonic() + 60
            while sum(asked(server).values()) < enough and time.monotonic() < until:
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            ledger = Ledger(tmp_path / "ledger.sqlite")
            manifest = ledger.manifest(source="mapillary")
            ledger.close()
            at_kill.append((len(server.requests), set(manifest.loc[manifest["state"] == "fetched", "image_id"])))
        subprocess.run(command, check=True)
        served = asked(server)
        ledger = Ledger(tmp_path / "ledger.sqlite")
        manifest = ledger.manifest(source="mapillary")
        ledger.close()
    fetched = manifest[manifest["state"] == "fetched"]
    assert 50 < len(at_kill[-1][1]) < len(fetched)
    # What the ledger had recorded is never asked for again; at most what was on the wire at a kill is.
    twice = {path.split("/")[-1].removesuffix(".jpg") for path, times in served.items() if times > 1}
    for served_before, recorded in at_kill:
        after = {r.path.split("/")[-1].removesuffix(".jpg") for r in server.requests[served_before:]}
        assert not after & recorded
    assert len(twice) <= threads * len(at_kill)
    assert (manifest["state"] != "failed").all()
    store = ImageStore(tmp_path / "images")
    for row in fetched.itertuples():
        Image.open(io.BytesIO(store.path(row.sha256).read_bytes())).load()
    print(f"{len(fetched)} images, none missing; {len(twice)} asked twice, all of them on the wire at a kill")
