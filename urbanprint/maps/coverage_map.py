"""The coverage map: where on Earth there are images, where none were found, and where nobody has asked yet.

One page shows all 65,536 cells of L8. They travel as four typed arrays in the order of their codes, 1.1 MB of base64,
where polygons of GeoJSON would take 15 MB and seconds of a phone's time; the page paints them, one pixel a cell, and
finds the cell under a click by the arithmetic of `urbanprint.grid`. Coarser levels are summed up in the page.
"""

from base64 import b64encode
from pathlib import Path

import numpy as np
import pandas as pd

from urbanprint.errors import InputError
from urbanprint.grid import LEVELS, from_ids, to_ids
from urbanprint.maps.world import world_page

COVERAGE_COLUMNS = ("cell_id", "state", "images", "asked_at", "reason")
"""What `coverage_map` reads of its table."""

CELL_STATES = ("ocean", "empty", "data")
"""Of a cell: no land in it; land, but no usable images; at least one image."""

LEVEL = LEVELS[-1]
"""The level of the cells that are asked."""

REASON_LENGTH = 200
"""Characters of a reason that are shown: a different one in each cell on land still fits 10 MB."""

_EMPTY, _NOT_ASKED, _DATA = 1, 2, 3  # a coarser cell is in the highest state of those in it; 0 is ocean
_NAMES = ("Ocean", "Land without usable images", "Land not asked yet", "Land with images")

# Blue and orange differ for every colour vision, and the blues in lightness as well.
_KINDS = (
    ("Ocean", "#e8eff4"),
    ("No usable images", "#f0a030"),
    ("Not asked yet", "#bcc4cb"),
    ("1 to 9 images", "#6baed6"),
    ("10 to 99 images", "#2878b8"),
    ("100 to 999 images", "#0b4a8a"),
    ("1,000 images or more", "#062650"),
)
_EDGES = (10, 100, 1000)


def coverage_map(cells: pd.DataFrame, *, land: np.ndarray, folder: Path, title: str) -> Path:
    """Write the map of all cells of L8 into `folder` and return the path of its `coverage_map.html`.

    `cells` has a row a cell, in any order (`COVERAGE_COLUMNS`): `cell_id` ("0/1/2/..."); `state`, one of `CELL_STATES`;
    `images`, their number, above 0 exactly in the state "data"; `asked_at`, when its images were last looked for, with
    a time zone, missing where they never were; `reason`, why an "empty" cell is empty, else missing. An empty cell that
    was never asked is shown as such: nobody knows yet whether there are images. `land` are the polygons whose
    coastline is drawn over the cells (`read_land`). The page is one file and holds everything it shows. Text is never
    read as HTML, and a reason beyond `REASON_LENGTH` characters is cut.

    Raises `InputError`, naming a cell, where a cell is absent, given twice or of another level, and where state and
    number of images are none or contradict each other.
    """
    table = _in_order(cells)
    asked = _seconds(table["asked_at"])
    state = table["state"].map({"ocean": 0, "empty": _EMPTY, "data": _DATA}).to_numpy(dtype=np.uint8)
    state[(state == _EMPTY) & (asked == 0)] = _NOT_ASKED
    number, reasons = pd.factorize(
        table["reason"].where(table["state"] == "empty").astype("str").map(_shortened, na_action="ignore")
    )
    content = {
        "level": LEVEL,
        "levels": LEVELS[1:],
        "names": _NAMES,
        "kinds": [{"name": name, "colour": colour} for name, colour in _KINDS],
        "edges": _EDGES,
        "reasons": ["", *reasons],
        "state": _base64(state, "<u1"),
        "images": _base64(table["images"].to_numpy(), "<u4"),
        "asked": _base64(asked, "<u4"),
        "reason": _base64(number + 1, "<u4"),  # -1, no reason, becomes 0
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "coverage_map.html"
    written.write_text(world_page("coverage_map.html.j2", title=title, land=land, content=content), encoding="utf-8")
    return written


def _in_order(cells: pd.DataFrame) -> pd.DataFrame:
    """The table in the order of the cells' codes, checked."""
    if absent := [column for column in COVERAGE_COLUMNS if column not in cells]:
        raise InputError(f"The table of cells has no column {absent[0]}: expected {', '.join(COVERAGE_COLUMNS)}.")
    codes, levels = from_ids(cells["cell_id"])
    if (other := levels != LEVEL).any():
        wrong = cells["cell_id"].iloc[int(np.argmax(other))]
        raise InputError(
            f"The cell {wrong} is not of L{LEVEL}: give the cells of L{LEVEL}; coarser ones are summed up."
        )
    rows = np.bincount(codes, minlength=4**LEVEL)
    if (rows != 1).any():
        wrong = int(np.argmax(rows != 1))
        raise InputError(
            f"The cell {to_ids(np.array([wrong]), LEVEL)[0]} has {rows[wrong]} rows in the table of cells: expected one"
            f" for each of the {4**LEVEL:,} cells, those in the ocean included."
        )
    table = cells.iloc[np.argsort(codes)].reset_index(drop=True)
    known = table["state"].isin(CELL_STATES) & (table["images"] >= 0)
    if not (sound := known & ((table["state"] == "data") == (table["images"] > 0))).all():
        wrong = table[~sound].iloc[0]
        raise InputError(
            f"The cell {wrong['cell_id']} is in the state {wrong['state']!r} with {wrong['images']} images: expected"
            " 'data' with at least one, or 'empty' or 'ocean' with 0."
        )
    return table


def _seconds(times: pd.Series) -> np.ndarray:
    """Whole seconds since 1970, 0 where missing."""
    passed = pd.to_datetime(times, utc=True) - pd.Timestamp(0, tz="UTC")
    return (passed // pd.Timedelta(seconds=1)).fillna(0).to_numpy(dtype=np.int64)


def _shortened(reason: str) -> str:
    return reason if len(reason) <= REASON_LENGTH else f"{reason[: REASON_LENGTH - 1]}…"


def _base64(values: np.ndarray, kind: str) -> str:
    return b64encode(values.astype(kind).tobytes()).decode("ascii")
