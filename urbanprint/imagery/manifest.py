"""The manifest: what a ledger knows of each image, as a table (`urbanprint.tables.IMAGES`) or a Parquet file."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

MANIFEST_COLUMNS = (
    "image_id", "source", "sequence_id", "creator", "captured_at_ms", "longitude", "latitude", "heading", "licence",
    "attribution", "request", "area_id", "state", "reason", "attempts", "sha256", "phash", "width", "height",
)  # fmt: skip
"""Columns of a ledger's images that make up the manifest; `captured_at_ms` becomes `captured_at`."""

_TEXTS = ("image_id", "source", "sequence_id", "licence", "attribution", "state")
_TEXTS_OR_NOT = ("creator", "request", "area_id", "reason", "sha256", "phash")
_NUMBERS = ("longitude", "latitude", "heading", "width", "height")


def as_manifest(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Return `rows` of MANIFEST_COLUMNS as a table that follows `tables.IMAGES`."""
    images = pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS))
    moments = pd.to_datetime(images.pop("captured_at_ms").astype("Int64"), unit="ms", utc=True)
    images.insert(4, "captured_at", moments.astype("datetime64[ms, UTC]"))
    images = images.astype(dict.fromkeys(_NUMBERS, float) | dict.fromkeys(_TEXTS, "str") | {"attempts": int})
    for name in _TEXTS_OR_NOT:
        images[name] = images[name].astype("str").where(images[name].notna())
    return images


def write_manifest(batches: Iterable[pd.DataFrame], path: Path) -> int:
    """Write the batches of a manifest as one Parquet file, whole or not at all; return the number of rows.

    Memory holds one batch at a time (`Ledger.manifest_batches`).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    os.close(handle)
    # As an Arrow type from the start: pyarrow 25 reads pandas' own by a way that pandas 3.1 deprecates.
    moment = pd.ArrowDtype(pa.timestamp("ms", tz="UTC"))
    rows, writer = 0, None
    try:
        for batch in batches:
            table = pa.Table.from_pandas(batch.astype({"captured_at": moment}), preserve_index=False)
            table = table.replace_schema_metadata(None)  # which would bring that type back on reading
            writer = writer or pq.ParquetWriter(aside, table.schema)
            writer.write_table(table.cast(writer.schema))
            rows += len(batch)
        if writer is not None:
            writer.close()
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    return rows
