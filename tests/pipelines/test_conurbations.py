"""The whole way of two small conurbations through the command line: incomes, land use, tiles, networks, page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipelines.cli import main
from urbanprint.aerial.learning import TILE_PREDICTIONS
from urbanprint.aerial.scores import TILE_SCORES
from urbanprint.evaluation.splits import iter_splits, split_images

ROOT = Path(__file__).resolve().parent.parent.parent


def environment(home: Path) -> dict[str, str]:
    return {
        "URBANPRINT_CATALOGUE": str(ROOT / "tests/catalogues/conurbations.toml"),
        "URBANPRINT_HOME": str(home / "data"),
        "DAGSTER_HOME": str(home / "dagster"),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("conurbations")
    (home / "dagster").mkdir()
    (home / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return home


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pipelines.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **environment(home)},
    )


@pytest.fixture(scope="module")
def ran(home: Path) -> subprocess.CompletedProcess:
    ran = run(home, "run", "skyton-a", "skyton-b")
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran


@pytest.fixture
def table(home: Path, ran: subprocess.CompletedProcess):
    def read(asset: str, partition: str | None = "skyton-a") -> pd.DataFrame:
        path = home / "data" / "tables" / (f"{asset}/{partition}.parquet" if partition else f"{asset}.parquet")
        return pd.read_parquet(path)

    return read


def test_the_plan_says_that_nothing_is_left_to_fetch(home: Path, ran: subprocess.CompletedProcess) -> None:
    planned = run(home, "plan", "skyton-a")
    assert planned.returncode == 0, planned.stderr[-2000:]
    assert "500 areas" in planned.stdout
    assert "at most 0 (500 found so far, 500 of them fetched)" in planned.stdout


def test_every_cell_of_the_sample_has_the_tile_that_shows_it(table) -> None:
    tiles, cells = table("aerial_tiles"), table("tile_cells").set_index("area_id")
    fetched = tiles[tiles["state"] == "fetched"]
    assert len(fetched) == 500 and fetched["area_id"].is_unique
    corner = fetched["image_id"].str.extract(r"_3035_(\d+)_(\d+)_200_")[[0, 1]].astype(float).to_numpy()
    centre = cells.loc[fetched["area_id"], ["x_m", "y_m"]].to_numpy()
    assert (corner + 100 == centre).all()


def test_imputed_cells_are_no_part_of_the_study(table) -> None:
    assert table("income_cells")["imputed"].any()
    assert not table("tile_cells")["imputed"].any()


def test_block_folds_pass_the_guard_with_the_buffer(table) -> None:
    folds, tiles = table("tile_folds"), table("aerial_tiles")
    for split in iter_splits(folds, "block", buffer_m=300):
        train, test = split_images(split, tiles)
        assert len(train) == len(split.train) and len(test) == len(split.test)


def test_every_head_and_baseline_is_scored_under_blocks(table) -> None:
    predictions, scores = TILE_PREDICTIONS.validate(table("aerial_model")), TILE_SCORES.validate(table("aerial_scores"))
    assert set(predictions["model"]) == {"binomial", "cumulative"}
    models = {"binomial", "cumulative", "mean", "coordinates", "neighbours"}
    assert set(scores.loc[scores["kind"] == "block", "model"]) == models
    shares = predictions.filter(regex=r"^p\d$").sum(axis=1)
    assert shares.between(1 - 1e-5, 1 + 1e-5).all()


def test_the_audit_says_why_tiles_at_random_are_refused(table) -> None:
    audit = table("aerial_audit").set_index("model")
    assert audit.loc["binomial", "refused_because"].startswith("The area split leaks")
    # The cells next door know what blocks do not.
    assert audit.loc["coordinates", "gap"] > 0


def test_what_was_looked_at_is_tested_and_checked(table) -> None:
    ratios, findings, pairs = (table(name) for name in ("activation_ratios", "class_findings", "coactivations"))
    assert set(ratios["end"]) == {"poor", "rich"}
    assert findings["land_shifts"].dropna().between(0, 1).all()
    assert pairs["q_value"].dropna().between(0, 1).all()
    checks = table("attention_checks")["check"].tolist()
    assert checks == ["random weights", "random labels", "planted cue, rich end", "planted cue, poor end"]


def test_the_page_can_be_moved_and_names_the_sources(home: Path, ran: subprocess.CompletedProcess) -> None:
    folder = home / "data" / "reports" / "skyton-a"
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert str(home) not in page and "<b>urbanprint</b>" not in page
    assert "simulated by &lt;b&gt;urbanprint&lt;/b&gt;" in page
    for name in set(re.findall(r'src="([^"]+)"', page)):
        assert (folder / name).stat().st_size > 1000, name
    assert "Skyton A from above" in ran.stdout and "report" in ran.stdout


def test_a_network_that_has_learned_nothing_looks_nowhere_and_the_page_says_so(table, home: Path) -> None:
    shown = table("aerial_model", "skyton-b")
    likeliest = shown[shown["kind"] == "block"].filter(regex=r"^p\d$").to_numpy().argmax(axis=1)
    assert set(likeliest) == {2}, "it calls some tiles poor or rich"
    assert table("activation_ratios", "skyton-b")["value"].isna().all()
    folder = home / "data" / "reports" / "skyton-b"
    assert not (folder / "figures" / "ratios.png").exists()
    assert "cannot be told" in (folder / "summary.txt").read_text(encoding="utf-8")


def test_conurbations_are_tested_on_each_other(table, home: Path) -> None:
    transfer = table("aerial_transfer", None)
    pairs = set(zip(transfer["trained_on"], transfer["tested_on"], strict=True))
    assert pairs == {(a, b) for a in ("skyton-a", "skyton-b") for b in ("skyton-a", "skyton-b")}
    page = (home / "data" / "reports" / "aerial-transfer" / "index.html").read_text(encoding="utf-8")
    for what in ("Income", "Land use", "Orthophotos"):
        assert re.search(rf"{what}</th><td>simulated by", page), f"{what} has no credit"


def test_a_city_is_not_run_as_a_conurbation(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name, value in environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    assert main(["run", "paris"]) == 1
    assert "has no city, conurbation or country 'paris'" in capsys.readouterr().err


def test_the_sky_is_compared_where_there_are_orthophotos_and_a_city_that_was_made(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name, value in environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("URBANPRINT_CATALOGUE", str(ROOT / "cities.toml"))
    monkeypatch.chdir(ROOT)
    assert [main(["sky", city]) for city in ("london", "simville")] == [1, 1]
    told = capsys.readouterr().err
    assert "[cities.london] names no orthophotos" in told
    assert "simville has not been made yet: urbanprint run simville" in told
