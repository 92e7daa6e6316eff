"""Fixtures every test may use."""

import gc
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each full collection goes through a million objects of torch and Dagster: a sixteenth of the time of the tests.
gc.set_threshold(700, 10, 1000)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of real files, named by URBANPRINT_REALDATA; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("URBANPRINT_REALDATA", ROOT / ".." / "shared" / "realdata")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set URBANPRINT_REALDATA to the folder that holds it")
    return folder
