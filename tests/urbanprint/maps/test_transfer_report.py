"""The report on transfer: whether a network carries over is decided by intervals, and the page holds the matrix."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from urbanprint.errors import InputError
from urbanprint.maps.report import Attribution
from urbanprint.maps.transfer_report import TransferContent, transfer_report, transfer_sentence

HOSTILE = "<script>alert(1)</script>"


def _transfer(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["trained_on", "tested_on", "value", "low"])
    return table.assign(high=table["value"] + 0.1, areas=3000)


def test_leaving_a_conurbation_out_decides_whether_a_network_carries_over() -> None:
    pooled = (("all others", "lille", 0.3, 0.2), ("all others", "nice", 0.4, 0.3), ("all others", "lyon", 0.6, 0.5))
    single = ("nice", "lille", -0.2, -0.3)
    assert transfer_sentence(_transfer(*pooled, single)) == (
        "A network trained on all other conurbations carries over to every conurbation tested: Pearson r 0.30 to 0.60, "
        "median 0.40."
    )
    assert transfer_sentence(_transfer(*pooled, ("nice", "nice", 0.55, 0.5))).endswith(
        "median 0.40; trained on the conurbation itself, the median is 0.55."
    )


def test_a_network_that_does_not_carry_over_everywhere_is_not_said_to() -> None:
    part = _transfer(("all others", "lille", 0.3, 0.2), ("all others", "nice", 0.1, -0.1))
    assert "carries over in 1 of 2 tests: Pearson r 0.10 to 0.30" in transfer_sentence(part)
    none = _transfer(("nice", "lille", 0.1, -0.1))
    assert transfer_sentence(none) == (
        "A network trained on one other conurbation is not shown to carry over: Pearson r 0.10."
    )
    with pytest.raises(InputError, match="not trained on"):
        transfer_sentence(_transfer(("nice", "nice", 0.5, 0.4)))


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_the_transfer_page_holds_the_matrix_and_the_sentence(tmp_path: Path) -> None:
    content = TransferContent(
        title=f"Elsewhere {HOSTILE}",
        summary="Two conurbations.",
        transfer=_transfer(("all others", HOSTILE, 0.3, 0.2), ("nice", HOSTILE, 0.25, 0.1)),
        attributions=(Attribution("Income", "<b>INSEE</b>", "Etalab 2.0"),),
        provenance={"run": "5e8b2c0a"},
    )
    page = transfer_report(content, tmp_path).read_text(encoding="utf-8").split("</style>")[1]
    assert transfer_sentence(content.transfer) in words(page)
    assert re.findall(r'<section id="(\w+)"', page) == ["transfer", "methods", "limits", "attribution", "provenance"]
    assert "nice &lt;script&gt;alert(1)&lt;/script&gt; 0.25 0.10 to 0.35 3,000" in words(page)
    assert "<script" not in page
    assert re.findall(r'(?:href|src)="([^"]+)"', page) == ["figures/transfer.png"] * 2
    with Image.open(tmp_path / "figures" / "transfer.png") as image:
        image.load()
    with pytest.raises(InputError, match="not trained on"):
        transfer_report(replace(content, transfer=content.transfer.iloc[:0]), tmp_path / "none")
