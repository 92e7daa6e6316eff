"""The whole way of a small world through the command line: cells, images, networks a level, scores, page, `locate`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image

from pipelines.cli import main
from urbanprint.geolocation.cell_images import CELL_COVERAGE
from urbanprint.geolocation.datasets import LEVEL_MANIFEST
from urbanprint.geolocation.parts import check_parts
from urbanprint.geolocation.scores import GEOLOCATION_SCORES
from urbanprint.simulation.planet import build_planet

ROOT = Path(__file__).resolve().parent.parent.parent
LEVELS = (1, 3, 5, 8)
SYSTEMS = {"joint", "levels", "old-fusion", "nearest-neighbour", "prior"}


def environment(home: Path) -> dict[str, str]:
    return {
        "URBANPRINT_CATALOGUE": str(ROOT / "tests/catalogues/world.toml"),
        "URBANPRINT_HOME": str(home / "data"),
        "URBANPRINT_TEST_LAND": str(home / "land.geojson"),
        "DAGSTER_HOME": str(home / "dagster"),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of land: 12 km around the towns that are photographed most."""
    home = tmp_path_factory.mktemp("world")
    (home / "dagster").mkdir()
    (home / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    towns = build_planet().towns.nlargest(50, "weight")
    around = shapely.box(*(towns[axis] + side for side in (-0.11, 0.11) for axis in ("longitude", "latitude")))
    gpd.GeoDataFrame(geometry=around, crs=4326).to_file(home / "land.geojson")
    return home


@pytest.fixture(scope="module")
def ran(home: Path) -> subprocess.CompletedProcess:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pipelines.cli", "run", "planet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **environment(home)},
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran


def table(home: Path, asset: str, partition: str = "planet") -> pd.DataFrame:
    return pd.read_parquet(home / "data" / "tables" / asset / f"{partition}.parquet")


@pytest.mark.usefixtures("ran")
def test_every_cell_is_ocean_or_was_asked_and_images_are_of_different_drives(home: Path) -> None:
    coverage = CELL_COVERAGE.validate(table(home, "cell_coverage"))
    assert len(coverage) == 4**8
    assert coverage.loc[coverage["state"] != "ocean", "asked_at"].notna().all()
    assert (coverage["images"] <= 8).all()
    images = table(home, "cell_images")
    fetched = images[images["state"] == "fetched"]
    assert fetched["sequence_id"].is_unique
    assert coverage["images"].sum() == len(fetched) > 150


@pytest.mark.usefixtures("ran")
def test_parts_are_strangers_and_each_level_has_its_dataset_and_label_map(home: Path) -> None:
    parts = table(home, "image_parts")
    check_parts(parts.drop(columns="part"), parts["part"])
    for level in LEVELS:
        manifest = LEVEL_MANIFEST.validate(table(home, "level_dataset", f"planet-L{level}"))
        labels = json.loads((home / "data" / "models" / "planet" / f"labels-L{level}.json").read_text())["labels"]
        assert (manifest["class_cell"].map(labels) == manifest["label"]).all()
        described = table(home, "level_labels", f"planet-L{level}")
        assert dict(zip(described["class_cell"], described["label"], strict=True)) == labels
        assert described["images"].sum() == (manifest["part"] == "train").sum()


def test_both_designs_stand_beside_the_baselines_on_the_page_and_in_the_terminal(
    ran: subprocess.CompletedProcess, home: Path
) -> None:
    scores = GEOLOCATION_SCORES.validate(table(home, "geolocation_scores"))
    assert set(scores["model"]) == SYSTEMS
    assert {"within_200_km", "geoscore", "top_1_L8", "top_10_L5"} <= set(scores["measure"])
    assert set(scores["by"]) >= {"all", "continent"}
    assert "GeoScore" in ran.stdout
    folder = home / "data" / "reports" / "planet"
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "misused" in page
    assert "<b>urbanprint</b>" not in page
    assert (folder / "coverage_map.html").stat().st_size < 10_000_000
    assert (folder / "attribution.html").is_file()


@pytest.mark.usefixtures("ran")
@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_each_network_is_a_run_with_its_curves_and_coarse_levels_show_confusion_and_calibration(home: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home}/data/mlflow/mlflow.db")
    runs = {
        run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("planet").experiment_id])
    }
    for name in ("joint", *(f"L{level}" for level in LEVELS)):
        run_id = runs[name].info.run_id
        assert len(client.get_metric_history(run_id, "train_loss")) == 2
        assert "figures/training_curves.png" in {file.path for file in client.list_artifacts(run_id, "figures")}
    for level in LEVELS:
        wanted = {"figures/calibration.png"} | ({"figures/confusion.png"} if level <= 3 else set())
        assert wanted <= {file.path for file in client.list_artifacts(runs[f"L{level}"].info.run_id, "figures")}
    joint = {file.path for file in client.list_artifacts(runs["joint"].info.run_id, "figures")}
    assert joint >= {f"figures/calibration_L{level}.png" for level in LEVELS} | {"figures/confusion_L1.png"}
    assert client.get_model_version_by_alias("planet-geolocator-joint", "current").version in (1, "1")


@pytest.fixture
def urbanprint(
    ran: subprocess.CompletedProcess, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command here, where torch is imported already; returns status, output and errors."""
    assert ran.returncode == 0
    for name, value in environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return (status, *capsys.readouterr())

    return run


@pytest.mark.filterwarnings("ignore")  # dagster's own
def test_a_plan_knows_what_was_asked_and_fetched(urbanprint, home: Path) -> None:
    status, told, _ = urbanprint("plan", "planet")
    assert status == 0
    held = (table(home, "cell_images")["state"] == "fetched").sum()
    assert "searches  at most 0, free" in told
    assert "images    at most 0 (" in told
    assert f" {held:,} of them fetched)" in told
    status, _, refused = urbanprint("plan", "planet", "--look-up")
    assert status == 1
    assert "leave --look-up out" in refused


def test_what_is_no_photograph_gets_a_sentence_and_the_others_are_located(urbanprint, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    noise.save(tmp_path / "noise.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(tmp_path / "pixel.png")
    names = ("notes.txt", "empty.jpg", "pixel.png", "absent.jpg", "noise.jpg")
    status, told, errors = urbanprint("locate", *(tmp_path / name for name in names), "--out", tmp_path / "maps")
    assert status == 1
    for words in ("notes.txt is no JPEG", "empty.jpg is empty", "pixel.png has 1 x 1 pixels", "absent.jpg does not"):
        assert words in errors
    assert "Somewhere on Earth" in told
    assert (tmp_path / "maps" / "noise" / "location_map.html").is_file()


def test_the_precision_cap_stops_finer_answers(urbanprint, home: Path, tmp_path: Path) -> None:
    sha256 = table(home, "image_parts")["sha256"].iloc[0]
    photograph = next((home / "data" / "images" / sha256[:2]).glob(f"{sha256}*"))
    _, fine, _ = urbanprint("locate", photograph, "--out", tmp_path)
    assert "  L8 " in fine
    _, capped, _ = urbanprint("locate", photograph, "--finest", 3, "--out", tmp_path)
    assert "  L3 " in capped
    assert not {"L5", "L8"} & set(capped.split())
    status, _, refused = urbanprint("locate", photograph, "--finest", 0)
    assert status == 1
    assert "the coarsest level is 1" in refused
    status, _, unknown = urbanprint("locate", photograph, "--world", "mars")
    assert status == 1
    assert "no world 'mars'" in unknown
