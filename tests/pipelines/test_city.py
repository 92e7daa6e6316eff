"""The whole way of a city through the command line: statistics, images, models, scores, map, report, MLflow."""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pytest

from urbanprint import tables
from urbanprint.models.card import load_model
from urbanprint.simulation.faults import Fault
from urbanprint.simulation.server import SimulationServer

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "MLY|1234567890|a-token-nobody-may-see"


def run(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess:
    """A Python module in a process of its own."""
    (home / "dagster").mkdir(parents=True, exist_ok=True)
    (home / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "URBANPRINT_HOME": str(home / "data"),
            "DAGSTER_HOME": str(home / "dagster"),
            "OMP_NUM_THREADS": "1",
            "MAPILLARY_TOKEN": SECRET,
            **environment,
        },
    )


def urbanprint(*arguments: str, home: Path, catalogue: Path, **environment: str) -> subprocess.CompletedProcess:
    return run("pipelines.cli", "--catalogue", str(catalogue), *arguments, home=home, **environment)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simville")


@pytest.fixture(scope="module")
def catalogue(home: Path) -> Iterator[Path]:
    """The small city, whose images come from a provider that wants a token, as a real one does."""
    text = (ROOT / "tests/catalogues/small.toml").read_text(encoding="utf-8")
    faults = [Fault("internal_error", "^/mapillary", times=3), Fault("expired", "^/thumbs/", times=3)]
    with SimulationServer(token=SECRET, faults=faults) as server:
        path = home / "cities.toml"
        path.write_text(text.replace('"simulation:/mapillary"', f'"{server.url}/mapillary"'), encoding="utf-8")
        yield path


@pytest.fixture(scope="module")
def ran(home: Path, catalogue: Path) -> subprocess.CompletedProcess:
    ran = urbanprint("run", "simville", home=home, catalogue=catalogue)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran


def table(home: Path, asset: str) -> pd.DataFrame:
    return pd.read_parquet(home / "data" / "tables" / asset / "simville.parquet")


def test_it_ends_with_a_table_the_verdict_and_the_paths(ran: subprocess.CompletedProcess) -> None:
    for line in ("Coordinates only", "Pictures: fine-tuned network", "simulated ceiling", "FORBIDDEN"):
        assert line in ran.stdout
    paths = re.findall(r"^(?:map|report) +(\S+)$", ran.stdout, flags=re.MULTILINE)
    assert len(paths) == 2
    assert all(Path(path).is_file() for path in paths)


@pytest.mark.usefixtures("ran")
def test_every_model_and_baseline_is_scored_under_every_kind_of_fold_with_an_interval(home: Path) -> None:
    scores = tables.SCORES.validate(table(home, "scorecard"))
    r2 = scores[(scores["measure"] == "r2") & (scores["indicator"] == "imd")]
    wanted = {
        (model, kind)
        for model in ("mean", "coordinates", "neighbours", "probe", "imagewise")
        for kind in ("random", "borough", "block")
    }
    assert set(zip(r2["model"], r2["kind"], strict=True)) == wanted
    assert (r2["low"] < r2["high"]).all()


@pytest.mark.usefixtures("ran")
def test_models_are_safetensors_with_a_card_that_holds_their_scores(home: Path) -> None:
    for name in ("probe", "imagewise"):
        _, card = load_model(home / "data" / "models" / "simville" / name)
        assert {row["model"] for row in card["scores"]} >= {"coordinates", name}
        assert card["limits"]
        assert set(card["labels"]) == {"imd", "crime"}
    assert not [path for path in (home / "data").rglob("*") if path.suffix in (".pkl", ".pickle", ".pth")]


@pytest.mark.usefixtures("ran")
@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_mlflow_holds_the_runs_and_the_released_models(home: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home}/data/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("simville")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"probe", "imagewise", "gradcam", "scorecard"}
    assert all(run.info.status == "FINISHED" for run in runs.values())
    assert runs["imagewise"].data.params["weights"] == "none"
    assert len(client.get_metric_history(runs["imagewise"].info.run_id, "all/train_loss")) == 1
    assert runs["imagewise"].inputs.dataset_inputs[0].dataset.name == "street_images"
    for name in ("simville-probe", "simville-imagewise"):
        released = client.get_model_version_by_alias(name, "current")
        folder = Path(client.get_model_version_download_uri(name, released.version).removeprefix("file://"))
        assert {path.name for path in folder.iterdir()} == {"weights.safetensors", "card.json", "training_images.txt"}


@pytest.mark.usefixtures("ran")
def test_text_from_the_catalogue_and_from_creators_is_escaped_in_report_and_map(home: Path) -> None:
    report = home / "data" / "reports" / "simville"
    for page in ("index.html", "map.html", "attribution.html"):
        text = (report / page).read_text(encoding="utf-8")
        assert "<b>surroundings</b>" not in text
        assert "<script>alert(1)</script>" not in text
    images = table(home, "street_images")
    assert images["attribution"].str.contains("<script>", regex=False).any(), "the hostile creator has gone"


def test_no_secret_is_in_any_file_or_line(ran: subprocess.CompletedProcess, home: Path) -> None:
    for form in (SECRET, quote(SECRET), quote(SECRET, safe="")):
        assert form not in ran.stdout + ran.stderr
        for path in home.rglob("*"):
            if path.is_file():
                assert form.encode() not in path.read_bytes(), path


def test_made_again_as_in_the_web_pages_nothing_is_downloaded_or_trained_again(
    ran, home: Path, catalogue: Path
) -> None:
    def written() -> dict[Path, int]:
        data = home / "data"
        kept = [*(data / "images").rglob("*"), *(data / "models").rglob("*.pt")]
        return {path: path.stat().st_mtime_ns for path in kept if path.is_file()}

    before = written()
    assert {path.suffix for path in before} == {"", ".pt"}
    predictions = table(home, "imagewise_model")
    selection = " or ".join(f'key:"{asset}"' for asset in ("street_images", "image_coverage", "imagewise_model"))
    again = run(
        *("dagster", "asset", "materialize", "-m", "pipelines.definitions"),
        *("--select", selection, "--partition", "simville"),
        home=home,
        URBANPRINT_CATALOGUE=str(catalogue),
    )
    assert again.returncode == 0, again.stderr[-3000:]
    assert written() == before
    pd.testing.assert_frame_equal(table(home, "imagewise_model"), predictions)


def test_plan_says_what_will_be_asked(ran, home: Path, catalogue: Path) -> None:
    plan = urbanprint("plan", "simville", home=home, catalogue=catalogue)
    assert plan.returncode == 0, plan.stderr
    assert "60 areas" in plan.stdout
    assert "images    at most 0 (" in plan.stdout, "what has been fetched is asked for again"
    assert "free of charge" in plan.stdout


def test_a_users_mistake_is_one_sentence_without_a_traceback(tmp_path: Path) -> None:
    catalogue = tmp_path / "cities.toml"
    text = (ROOT / "tests/catalogues/small.toml").read_text()
    catalogue.write_text(text.replace('"X09000001"', '"X09000099"'))
    refused = urbanprint("run", "simville", home=tmp_path, catalogue=catalogue)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert refused.stderr.strip().splitlines()[-1].startswith("urbanprint: No area lies in district X09000099")

    unknown = urbanprint("run", "simvile", home=tmp_path, catalogue=ROOT / "tests/catalogues/small.toml")
    assert unknown.returncode == 1
    assert "did you mean 'simville'" in unknown.stderr


def test_without_a_token_a_real_city_says_which_variable_to_set(tmp_path: Path) -> None:
    catalogue = tmp_path / "cities.toml"
    text = (ROOT / "tests/catalogues/small.toml").read_text()
    catalogue.write_text(text.replace('endpoint = "simulation:/mapillary"\n', ""))
    refused = urbanprint("run", "simville", home=tmp_path, catalogue=catalogue, MAPILLARY_TOKEN="")
    assert refused.returncode == 1
    assert "set the environment variable MAPILLARY_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_real_photographs_of_london_run_the_same_way_and_say_nothing_beyond_the_baselines(
    realdata: Path, tmp_path: Path
) -> None:
    ran = urbanprint(
        "run", "london-photographs", home=tmp_path, catalogue=ROOT / "tests/catalogues/london-photographs.toml",
        URBANPRINT_REALDATA=str(realdata),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    images = pd.read_parquet(tmp_path / "data/tables/street_images/london-photographs.parquet")
    manifest = pd.read_csv(realdata / "london_street" / "manifest.csv", dtype={"image_id": str})
    lies_in = manifest["image_id"].map(images.set_index("image_id")["area_id"])
    assert len(lies_in) == 99
    assert (lies_in == manifest["actual_lsoa11"]).all()
    assert (tmp_path / "data/reports/london-photographs/map.html").is_file()
    summary = (tmp_path / "data/reports/london-photographs/summary.txt").read_text(encoding="utf-8")
    assert re.search("nothing beyond|too few", summary), summary


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_an_image_that_is_taken_down_is_gone_from_everywhere_and_its_models_are_named(
    ran, home: Path, catalogue: Path
) -> None:
    shown = next(run.data.tags["images_in_panel"] for run in _runs(home) if "images_in_panel" in run.data.tags)
    image = table(home, "street_images").set_index("image_id").loc[shown.split()[0]]
    pixels = home / "data/images" / image["sha256"][:2] / image["sha256"]
    panel = (home / "data/reports/simville/figures/gradcam.png").read_bytes()
    assert pixels.is_file()

    taken = urbanprint("takedown", str(image.name), home=home, catalogue=catalogue)
    assert taken.returncode == 0, taken.stderr
    assert "simville-imagewise version 1" in taken.stdout
    assert "simville-probe version 1" in taken.stdout
    assert "urbanprint run simville" in taken.stdout
    assert not pixels.is_file()
    encoded = base64.b64encode(panel)[:200]
    for path in home.rglob("*"):
        if path.is_file():
            assert image["sha256"] not in path.name, path
            content = path.read_bytes()
            assert panel not in content, path
            assert encoded not in content, path

    again = urbanprint("run", "simville", home=home, catalogue=catalogue)
    assert again.returncode == 0, again.stderr[-3000:]
    assert not pixels.is_file()
    rejected = table(home, "street_images").set_index("image_id").loc[str(image.name)]
    assert (rejected["state"], rejected["reason"]) == ("rejected", "taken down")

    unknown = urbanprint("takedown", "no-such-image", home=home, catalogue=catalogue)
    assert unknown.returncode == 1
    assert "no city knows an image 'no-such-image'" in unknown.stderr


def _runs(home: Path) -> list:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home}/data/mlflow/mlflow.db")
    return client.search_runs([client.get_experiment_by_name("simville").experiment_id])
