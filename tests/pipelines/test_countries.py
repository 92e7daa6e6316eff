"""The whole way of a country through the command line: survey, images, every learner, table, report, MLflow.

Of a second one only what the first learns from is made, a few assets, as people do in the web pages.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from urbanprint import tables
from urbanprint.maps.livelihood_table import LEARNERS
from urbanprint.models.card import load_model
from urbanprint.vocabulary import FOLD_KINDS, TASKS

ROOT = Path(__file__).resolve().parent.parent.parent
COUNTRY, OTHER = "simland-a", "simland-b"
LEARNED_FROM = (
    *("survey_clusters", "areas", "sampled_areas", "sample_points", "imagery_plan", "street_images", "image_coverage"),
    *("cluster_folds", "image_embeddings", "scene_parses"),
)


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess:
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
            "URBANPRINT_CATALOGUE": str(ROOT / "tests/catalogues/countries.toml"),
            "URBANPRINT_HOME": str(home / "data"),
            "DAGSTER_HOME": str(home / "dagster"),
            "OMP_NUM_THREADS": "1",
        },
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("countries")


@pytest.fixture(scope="module")
def ran(home: Path) -> subprocess.CompletedProcess:
    selection = " or ".join(f'key:"{asset}"' for asset in LEARNED_FROM)
    arguments = ("-m", "pipelines.definitions", "--select", selection, "--partition", OTHER)
    made = run("dagster", "asset", "materialize", *arguments, home=home)
    assert made.returncode == 0, made.stderr[-3000:]
    ran = run("pipelines.cli", "run", COUNTRY, home=home)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran


def table(home: Path, asset: str) -> pd.DataFrame:
    return pd.read_parquet(home / "data" / "tables" / asset / f"{COUNTRY}.parquet")


@pytest.mark.usefixtures("ran")
def test_every_learner_is_scored_for_both_tasks_under_every_kind_of_fold(home: Path) -> None:
    scores = tables.CLUSTER_SCORES.validate(table(home, "cluster_scorecard"))
    wanted = {
        (model, kind, "poverty", task) for model in set(LEARNERS) - {"country"} for kind in FOLD_KINDS for task in TASKS
    }
    assert set(scores[["model", "kind", "indicator", "task"]].itertuples(index=False, name=None)) == wanted


def test_the_table_is_printed_and_written_with_what_the_countries_teach_each_other(
    ran: subprocess.CompletedProcess, home: Path
) -> None:
    report = home / "data" / "reports" / "livelihood"
    written = (report / "table.md").read_text(encoding="utf-8")
    for words in ("image-wise network", "graph: both, random edges", "best reachable"):
        assert words in ran.stdout and words in written
    for text in (written, (report / "summary.txt").read_text(encoding="utf-8")):
        assert "with half of simland-b" in text


@pytest.mark.usefixtures("ran")
def test_the_reports_stand_alone_and_escape_what_they_were_given(home: Path) -> None:
    for name in (COUNTRY, "livelihood"):
        folder = home / "data" / "reports" / name
        page = (folder / "index.html").read_text(encoding="utf-8")
        assert "<b>surroundings</b>" not in page
        assert "60 evaluations" in page
        assert (folder / "attribution.html").is_file()
        assert all(path.stat().st_size > 5_000 for path in (folder / "figures").glob("*.png"))


@pytest.mark.usefixtures("ran")
@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_every_learner_is_a_run_and_the_models_are_released(home: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home}/data/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name(COUNTRY)
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    learners = {"cluster baselines", "image-wise", "cluster-wise", "graph"}
    assert set(runs) == learners | {"scorecard", "feature importance"}
    assert all(run.info.status == "FINISHED" for run in runs.values())
    assert "graph_both/r2_block_poverty" in runs["graph"].data.metrics
    for name in ("imagewise", "graph"):
        released = client.get_model_version_by_alias(f"{COUNTRY}-{name}", "current")
        folder = Path(
            client.get_model_version_download_uri(f"{COUNTRY}-{name}", released.version).removeprefix("file://")
        )
        _, card = load_model(folder)
        assert {row["kind"] for row in card["scores"]} == set(FOLD_KINDS)


def test_a_city_step_asked_of_a_country_is_one_sentence(home: Path) -> None:
    missing = run("pipelines.cli", "run", "simland-c", home=home)
    assert missing.returncode == 1
    assert "has no city, conurbation or country 'simland-c'; did you mean 'simland-b'?" in missing.stderr
    assert "Traceback" not in missing.stderr
