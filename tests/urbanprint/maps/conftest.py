"""A made-up town of 60 hexagons in 6 boroughs, all that maps and reports are drawn from, and a browser to read them."""

import shutil
from collections.abc import Iterator
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shapely.geometry import Polygon

from urbanprint.tables import AREAS, COVERAGE, IMAGES, PREDICTIONS, SCORES
from urbanprint.vocabulary import INDICATORS

HOSTILE = "<script>alert(1)</script>"
BOROUGHS = ("Ashford Vale", "Kingsmere", "Low Harbour", "Northgate", "Saltmarsh", "Westcombe & Dale")


def _hexagon(column: int, row: int) -> Polygon:
    x, y, side = column * 480 * 1.5, (row + column % 2 / 2) * 480 * np.sqrt(3), 480
    corners = [(x + side * np.cos(turn), y + side * np.sin(turn)) for turn in np.arange(6) * np.pi / 3]
    return Polygon([(-8 + east / 71_500, 50 + north / 111_200) for east, north in corners])


@pytest.fixture(scope="session")
def areas() -> gpd.GeoDataFrame:
    """60 areas; the last has no published value, and the name of the first tries to be a script."""
    rng = np.random.default_rng(7)
    rows = []
    for column in range(12):
        for row in range(5):
            borough = column // 2
            level = 0.45 + 0.3 * np.sin(column / 2.2) + 0.08 * row - 0.15 + rng.normal(0, 0.09)
            rows.append((f"X0100{column:02d}{row:02d}", f"{BOROUGHS[borough]} {len(rows) + 1:03d}A", borough, level))
    frame = gpd.GeoDataFrame(
        {
            "area_id": [row[0] for row in rows],
            "name": [f"{HOSTILE} 001A", *(row[1] for row in rows[1:])],
            "district_code": [f"X0900000{row[2]}" for row in rows],
            "district": [BOROUGHS[row[2]] for row in rows],
            "population": rng.integers(1000, 2500, 60).astype(float),
        },
        geometry=[_hexagon(column, row) for column in range(12) for row in range(5)],
        crs=4326,
    )
    for place, indicator in enumerate(INDICATORS):
        deprivation = np.clip([row[3] + rng.normal(0, 0.03 * place) for row in rows], 0.01, 0.99)
        deprivation[-1] = np.nan
        frame[f"{indicator}_deprivation"] = deprivation
        frame[f"{indicator}_score"] = deprivation * 60
        frame[f"{indicator}_rank"] = np.round((1 - deprivation) * 9_999) + 1
        frame[f"{indicator}_decile"] = np.minimum(np.floor((1 - deprivation) * 10) + 1, 10)
    return AREAS.validate(frame[list(AREAS.columns)])


@pytest.fixture(scope="session")
def predictions(areas: gpd.GeoDataFrame) -> pd.DataFrame:
    """Held-out predictions of one model under borough folds for all areas but the first two."""
    rng = np.random.default_rng(11)
    observed = areas["imd_deprivation"]
    frame = pd.DataFrame(
        {
            "area_id": areas["area_id"],
            "model": "probe",
            "kind": "borough",
            "fold": areas["district_code"].str[-1].astype(int),
            "indicator": "imd",
            "observed": observed,
            "predicted": (0.5 + 0.6 * (observed.fillna(0.5) - 0.5) + rng.normal(0, 0.1, 60)).clip(0, 1),
        }
    )
    return PREDICTIONS.validate(frame.iloc[2:].reset_index(drop=True))


@pytest.fixture(scope="session")
def intervals(predictions: pd.DataFrame) -> pd.DataFrame:
    keys = predictions[["area_id", "model", "kind", "indicator"]]
    low, high = (predictions["predicted"] - 0.27).clip(0, 1), (predictions["predicted"] + 0.27).clip(0, 1)
    return keys.assign(low=low, high=high)


@pytest.fixture(scope="session")
def scores() -> pd.DataFrame:
    """R2 of five models on eight indicators; the imagewise model was not scored under block folds."""
    values = {
        "mean": {"random": -0.01, "borough": -0.12, "block": -0.08},
        "coordinates": {"random": 0.52, "borough": 0.04, "block": 0.21},
        "neighbours": {"random": 0.55, "borough": -0.31, "block": 0.12},
        "probe": {"random": 0.58, "borough": 0.47, "block": 0.52},
        "imagewise": {"random": 0.63, "borough": 0.53, "block": np.nan},
    }
    rows = []
    for model, kinds in values.items():
        for kind, value in kinds.items():
            for place, indicator in enumerate(INDICATORS):
                shown = value - 0.05 * place if model in ("probe", "imagewise") else value - 0.01 * place
                ends = (shown - 0.09, shown + 0.08)
                rows.append((model, kind, indicator, "r2", shown, *ends, 59))
    columns = ["model", "kind", "indicator", "measure", "value", "low", "high", "areas"]
    return SCORES.validate(pd.DataFrame(rows, columns=columns))


@pytest.fixture(scope="session")
def coverage(areas: gpd.GeoDataFrame) -> pd.DataFrame:
    """What was asked for: 58 areas with four images each, two (in deprived strata) without."""
    stratum = areas["imd_decile"].fillna(5).astype(int)
    blank = areas.index.isin(areas.sort_values("imd_decile").index[[0, 3]])
    frame = pd.DataFrame(
        {
            "area_id": areas["area_id"],
            "stratum": stratum,
            "role": "primary",
            "images": np.where(blank, 0, 4),
            "replaces": pd.Series([None] * 60, dtype="str"),
            "outcome": np.where(blank, "no imagery", "imaged"),
        }
    )
    return COVERAGE.validate(frame)


@pytest.fixture(scope="session")
def measured() -> pd.DataFrame:
    """Measured coverage of nominal 90 % intervals."""
    rows = [("probe", "random", 0.93, 0.41), ("coordinates", "random", 0.9, 0.44), ("probe", "borough", 0.9, 0.52)]
    rows += [("coordinates", "borough", 0.78, 0.55), ("probe", "block", 0.91, 0.5)]
    frame = pd.DataFrame(rows, columns=["model", "kind", "coverage", "mean_width"])
    return frame.assign(indicator="imd", level=0.9, areas=59)


@pytest.fixture(scope="session")
def images(areas: gpd.GeoDataFrame) -> pd.DataFrame:
    """Four fetched images in each of the areas 2 to 11; one creator's name is a script."""
    rows = [(area, view) for area in areas["area_id"].iloc[1:11] for view in range(4)]
    frame = pd.DataFrame(
        {
            "image_id": [f"{place:015d}" for place in range(len(rows))],
            "source": "simulation",
            "sequence_id": [f"sequence-{area}" for area, _ in rows],
            "creator": [HOSTILE if view == 0 else ("" if view == 1 else "ada_walks") or None for _, view in rows],
            "captured_at": pd.Timestamp("2024-05-01", tz="UTC"),
            "longitude": -8.0,
            "latitude": 50.0,
            "heading": 90.0,
            "licence": "CC BY-SA 4.0",
            "attribution": "Simville contributors",
            "request": None,
            "area_id": [area for area, _ in rows],
            "state": "fetched",
            "reason": None,
            "attempts": 1,
            "sha256": "0" * 64,
            "phash": None,
            "width": 320.0,
            "height": 240.0,
        }
    )
    frame["creator"] = frame["creator"].astype("str")
    frame[["request", "reason"]] = frame[["request", "reason"]].astype("str")
    return IMAGES.validate(frame)


@pytest.fixture(scope="session")
def photograph() -> Image.Image:
    """A gradient with a bright block: enough of a picture to be resized and shown."""
    shade = np.linspace(40, 220, 320, dtype=np.uint8)
    pixels = np.broadcast_to(shade, (240, 320))[..., None].repeat(3, axis=2).copy()
    pixels[150:, :, 1] = 90
    pixels[60:150, 40:120] = (170, 80, 60)
    return Image.fromarray(pixels)


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Chromium, started once: it takes longer to start than to read a page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()
