"""The house: imports go downwards only, and nothing heavy is imported where it is not needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ALLOWED = {
    "urbanprint": {"urbanprint"},
    "resources": {"urbanprint", "resources"},
    "assets": {"urbanprint", "resources", "assets"},
    "pipelines": {"urbanprint", "resources", "assets", "pipelines"},
}
OUTSIDERS_OF_THE_LIBRARY = {"dagster", "mlflow"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_downwards_only(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        ours = imported(path) & set(ALLOWED)
        assert ours <= ALLOWED[package], f"{path} imports {ours - ALLOWED[package]}"


def test_the_library_knows_no_orchestrator_and_no_tracker() -> None:
    for path in (ROOT / "urbanprint").rglob("*.py"):
        assert not imported(path) & OUTSIDERS_OF_THE_LIBRARY, path


def test_the_code_location_loads_without_torch_mlflow_or_folium() -> None:
    code = (
        "import sys, pipelines.definitions; "
        "print([m for m in ('torch', 'torchvision', 'mlflow', 'folium', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_help_imports_no_dagster_and_no_pandas() -> None:
    code = (
        "import sys, pipelines.cli\n"
        "try: pipelines.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('dagster', 'pandas', 'numpy', 'torch') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip().endswith("[]")
