"""How an asset describes what it made: the metadata a person wants to see beside a table.

Every table says its rows and columns, shows its first rows or a picture, and carries a data version computed from its
content, so that what is downstream is rebuilt only when something changed.
"""

import base64
import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pandas as pd

# Data versions are marked as beta in this version of Dagster; without them everything downstream looks stale.
warnings.filterwarnings("ignore", message="Parameter `data_version` of", category=dg.BetaWarning)

OWNERS = ["team:urbanprint"]
_PREVIEW_ROWS = 8
_PREVIEW_COLUMNS = 8


def described(
    table: pd.DataFrame,
    more: Mapping[str, Any] | None = None,
    *,
    pictures: Mapping[str, bytes] | None = None,
    output: str = "result",
    **facts: Any,
) -> dg.Output:
    """Return `table` as an output with row count, columns, content version, pictures (PNG) and further facts."""
    from urbanprint.tables import fingerprint  # pandera: only runs pay for it, not the code location

    preview = pd.DataFrame(table.drop(columns="geometry", errors="ignore")).iloc[:_PREVIEW_ROWS, :_PREVIEW_COLUMNS]
    metadata: dict[str, Any] = {
        "dagster/row_count": len(table),
        "dagster/column_schema": dg.TableSchema(
            columns=[dg.TableColumn(str(name), type=str(kind)) for name, kind in table.dtypes.items()]
        ),
        "first_rows": dg.MetadataValue.md(_as_markdown(preview)),
        **{name: picture(png) for name, png in (pictures or {}).items()},
        **facts,
        **(more or {}),
    }
    return dg.Output(table, output_name=output, metadata=metadata, data_version=dg.DataVersion(fingerprint(table)))


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """Return the picture as metadata that the web UI shows in place."""
    return dg.MetadataValue.md(f"![](data:image/png;base64,{base64.b64encode(png).decode()})")


def _as_markdown(table: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")[:60]

    lines = [[str(name) for name in table.columns], ["---"] * len(table.columns)]
    lines += [[cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
