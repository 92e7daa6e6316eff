"""A city through a provider that costs money and forbids keeping pixels: budget, terms and secrets hold."""

import base64
import io
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pytest
from PIL import Image

from urbanprint.simulation.faults import Fault
from urbanprint.simulation.server import SimulationServer

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "AIza-a/key+that=nobody-may-see"
SIGNING_SECRET = base64.urlsafe_b64encode(b"a secret that nobody may see").decode()
BUDGET = 90
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF"
"""How every picture of the service begins; less of it turns up in compressed files by chance."""


@pytest.fixture(scope="module")
def server() -> Iterator[SimulationServer]:
    faults = [Fault("internal_error", r"/streetview$", times=5), Fault("throttled", r"/metadata$", times=5)]
    with SimulationServer(token=KEY, faults=faults) as server:
        server.street_view.signing_secret = SIGNING_SECRET
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, server: SimulationServer) -> Path:
    home = tmp_path_factory.mktemp("paid")
    text = (ROOT / "tests/catalogues/paid.toml").read_text(encoding="utf-8")
    # As a real provider is reached: over HTTP, with keys from the environment.
    (home / "cities.toml").write_text(text.replace('"simulation:', f'"{server.url}'), encoding="utf-8")
    (home / "dagster").mkdir()
    (home / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return home


def urbanprint(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pipelines.cli", "--catalogue", str(home / "cities.toml"), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "URBANPRINT_HOME": str(home / "data"),
            "DAGSTER_HOME": str(home / "dagster"),
            "OMP_NUM_THREADS": "1",
            "GOOGLE_MAPS_KEY": KEY,
            "GOOGLE_MAPS_SIGNING_SECRET": SIGNING_SECRET,
        },
    )


@pytest.fixture(scope="module")
def ran(home: Path, server: SimulationServer) -> subprocess.CompletedProcess:
    ran = urbanprint(home, "run", "simville")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert any(request.fault for request in server.requests), "no fault was met on the way"
    return ran


def test_the_price_is_known_before_anything_is_paid(home: Path, server: SimulationServer) -> None:
    plan = urbanprint(home, "plan", "simville")
    assert plan.returncode == 0, plan.stderr
    assert "price     $0.63" in plan.stdout
    assert "90 paid requests left" in plan.stdout
    looked = urbanprint(home, "plan", "--look-up", "simville")
    assert looked.returncode == 0, looked.stderr
    assert "searches  at most 0, free" in looked.stdout
    assert re.search(r"images    at most \d\d? \(\d\d+ found so far, 0 of them fetched\)", looked.stdout), looked.stdout
    assert server.street_view.paid == 0


def test_it_stops_cleanly_at_the_budget_and_goes_on_to_the_report(
    ran: subprocess.CompletedProcess, server: SimulationServer, home: Path
) -> None:
    asked = [request for request in server.requests if request.path.endswith("/streetview")]
    assert len(asked) <= BUDGET, "more paid requests left than the budget allows"
    assert "of 90 paid requests to street-view have been spent" in ran.stderr + ran.stdout
    with sqlite3.connect(home / "data" / "ledgers" / "simville.sqlite") as ledger:
        assert ledger.execute("SELECT requests FROM spending").fetchone() == (len(asked),)
    assert (home / "data/reports/simville/index.html").is_file()


def test_nothing_is_paid_twice(ran: subprocess.CompletedProcess, server: SimulationServer, home: Path) -> None:
    before = server.street_view.paid
    again = urbanprint(home, "run", "simville")
    assert again.returncode == 0, again.stderr[-3000:]
    assert server.street_view.paid == before


@pytest.mark.usefixtures("ran")
def test_no_pixel_is_on_the_disk_only_features_and_facts_are(home: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    assert picture.getvalue().startswith(JPEG)
    images = pd.read_parquet(home / "data/tables/street_images/simville.parquet")
    fetched = images[images["state"] == "fetched"]
    assert len(fetched) > 50
    assert {path.stem for path in (home / "data" / "features").rglob("*.npy")} >= set(fetched["sha256"])
    for path in home.rglob("*"):
        if path.is_file():
            assert JPEG not in path.read_bytes(), f"{path} holds a JPEG"
    report = home / "data/reports/simville"
    assert not list((report / "thumbnails").iterdir())
    assert "<img" not in (report / "attribution.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("ran")
def test_without_pixels_the_frozen_features_are_judged_and_no_network_is_claimed(home: Path) -> None:
    scores = pd.read_parquet(home / "data/tables/scorecard/simville.parquet")
    assert set(scores["model"]) == {"mean", "coordinates", "neighbours", "probe"}


@pytest.mark.parametrize("secret", [KEY, SIGNING_SECRET])
def test_no_secret_is_in_any_file_log_event_or_page(ran: subprocess.CompletedProcess, home: Path, secret: str) -> None:
    for form in {secret, quote(secret), quote(secret, safe="")}:
        assert form not in ran.stdout + ran.stderr
        for path in home.rglob("*"):
            if path.is_file():
                assert form.encode() not in path.read_bytes(), path


def test_public_terms_are_obeyed_before_anything_is_paid(home: Path, server: SimulationServer) -> None:
    before = server.street_view.paid
    refused = urbanprint(home, "run", "publicville")
    assert refused.returncode == 1
    assert "do not allow fitting a model" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert server.street_view.paid == before
